"""``umbel run --server`` with a strategy that does not wait: its history leads to its model, in one process."""

import pytest

import umbel
from umbel.engines import replaying
from umbel.history import History
from umbel.strategy import named

LARGE = [("np.zeros(3)", "np.zeros(9_000)"), ("0.01, 3)", "0.01, 9_000)")]  # too large to travel inside a message

NODES = 4


@pytest.fixture(scope="module")
def shared(tmp_path_factory, federation_of, app_of):
    """A server with the four nodes of the app."""
    made = federation_of(tmp_path_factory.mktemp("shared"))
    try:
        app = app_of(made.folder / "app", (), LARGE)
        made.serve("--tokens", 4)
        made.nodes(app, [f"site-{number}" for number in range(NODES)])
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("fedbuff", {"concurrency": 3, "buffer": 2}),
        ("fedbuff", {"concurrency": 4, "buffer": 4}),
        ("fedasync", {"concurrency": 2}),
        ("fedat", {"count": 2, "number": 2}),
        ("fedavg", {"quorum": 0.5, "evaluate_fraction": 0.0}),
    ],
)
def test_a_run_that_does_not_wait_is_the_one_of_its_arrivals(shared, app_of, name, numbers):
    said = ", ".join(f"{key} = {number}" for key, number in numbers.items())
    here = f"{name}-{numbers.get('buffer')}"
    folder = app_of(shared.folder / here, [("seed = 3", f'seed = 3\nstrategy = {{ name = "{name}", {said} }}')], LARGE)
    result = shared.umbel("run", here, "--server", shared.url, "--runs", f"{here}-runs")
    assert result.returncode == 0, result.stdout + result.stderr
    (kept,) = (shared.folder / f"{here}-runs").iterdir()
    history = History.from_json((kept / "history.json").read_text())
    assert f"digest   {history.digest}" in result.stdout
    assert ("they train all the time" in result.stdout) == (numbers.get("buffer") == NODES)
    space: dict = {}
    exec(compile((folder / "app.py").read_text(), "app", "exec"), space)
    told = {"nodes": space["nodes"]({}), "rounds": 4, "seed": 3, "run_config": {"rate": 0.5}}
    whole = named(name, numbers)
    again = umbel.simulate(space["app"], whole, space["initial"]({}), engine=replaying(history), **told)
    assert again.digest == history.digest
