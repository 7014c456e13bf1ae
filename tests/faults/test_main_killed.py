"""A main, or its server, is killed at each step of a run and started again: the bytes are those of one left alone."""

import pytest

from federation import Federation, wait_for
from test_server_killed import APP, LARGE, NODES, ROUNDS, SEED, SMALL, handled
from umbel.engines import LocalGrid, Population
from umbel.envelope import pack
from umbel.http import wire
from umbel.records import RecordSet, digest

MAIN = """
from umbel.app import ServerApp
from umbel.rounds import RunCompleted, begin, train as loop
from umbel.strategy import fedadam

server = ServerApp()


@server.main()
def main(grid, context):
    initial = ParametersRecord.from_numpy({"w": np.zeros(%(size)d, "float32")})
    config = {"log": "%(log)s"}
    state = begin(fedadam(), initial, seed=%(seed)d, run_config=config)
    for event in loop(grid, fedadam(), state, rounds=%(rounds)d, run_id=context.run_id):
        if isinstance(event, RunCompleted):
            context.state.parameters_records["model"] = event.state.parameters_records["model"]
"""

#: Where the server is killed, and for the how manieth time that the place is passed.
SERVER = [
    ("server.planned", 1),
    ("server.planned", 4),
    ("server.handed-out", 2),
    ("server.reply-stored", 1),
    ("server.reply-stored", 6),
    ("server.blob-half", 2),
    ("server.told", 1),
    ("server.told", 3),
    ("server.run-finished", 1),
]
#: Where the main is.
MAINS = [("main.asked", 1), ("main.asked", 4), ("main.replied", 1), ("main.replied", 7)]
QUICK = {("server.told", 1), ("main.replied", 7)}


def cases(steps):
    return [pytest.param(*step, marks=[] if step in QUICK else pytest.mark.slow) for step in steps]


def write(folder, size, log):
    (folder / "site_app.py").write_text(APP + MAIN % {"size": size, "log": log, "seed": SEED, "rounds": ROUNDS})


@pytest.fixture
def federation(tmp_path):
    made = Federation(tmp_path / "federation", tmp_path)
    made.folder.mkdir()
    write(tmp_path, LARGE, made.folder / "handled.log")
    yield made
    made.close()


def alone(folder, size):
    """The digest of what the main makes over an engine in this process, which nothing interrupts."""
    space: dict = {}
    exec(compile(APP + MAIN % {"size": size, "log": "-", "seed": SEED, "rounds": ROUNDS}, "site_app", "exec"), space)

    class Context:
        run_id, state = 1, RecordSet()

    config = {"log": str(folder / "alone.log")}
    space["server"](LocalGrid(space["app"], Population(NODES), seed=SEED, run_config=config), Context)
    return digest(Context.state.parameters_records["model"])


def submit(federation):
    spec = wire.RunSpec(
        app="site_app:app",
        strategy={"main": "site_app:server"},
        rounds=0,
        seed=SEED,
        config={"log": str(federation.folder / "handled.log")},
        nodes=list(NODES),
        initial=pack(RecordSet(), None),
    )
    return federation.call("submit_run", spec).run


def assert_left_alone(federation, tmp_path, run, size=LARGE):
    view = federation.view(run)
    assert (view.row.status, view.digest) == ("completed", alone(tmp_path, size))
    assert handled(federation) == {f"{name} {number}": 1 for name in NODES for number in range(1, ROUNDS + 1)}
    assert {question.outcome for question in view.questions} == {"replied"}
    assert len(view.questions) == 2 * ROUNDS * len(NODES)  # each round is evaluated as well


@pytest.mark.parametrize(("step", "nth"), cases(SERVER))
def test_the_server_of_a_main_is_killed(federation, tmp_path, step, nth):
    server = federation.serve(f"{step}:kill:{nth}")
    for name in NODES:
        federation.node(name)
    run = submit(federation)
    main = federation.main(run)
    assert server.wait() == -9, f"{step} was passed {nth} times"
    federation.serve()
    assert main.wait() == 0, main.log.read_text()
    assert_left_alone(federation, tmp_path, run)


@pytest.mark.parametrize(("step", "nth"), cases(MAINS))
def test_a_main_is_killed(federation, tmp_path, step, nth):
    federation.serve()
    for name in NODES:
        federation.node(name)
    run = submit(federation)
    assert federation.main(run, f"{step}:kill:{nth}").wait() == -9, f"{step} was passed {nth} times"
    again = federation.main(run)
    assert again.wait() == 0, again.log.read_text()
    assert_left_alone(federation, tmp_path, run)


@pytest.mark.slow
def test_a_model_that_travels_inside_messages(federation, tmp_path):
    write(tmp_path, SMALL, federation.folder / "handled.log")
    federation.serve()
    for name in NODES:
        federation.node(name)
    run = submit(federation)
    federation.main(run, "main.replied:kill:5").wait()
    assert federation.main(run).wait() == 0
    assert_left_alone(federation, tmp_path, run, SMALL)


@pytest.mark.slow
def test_what_a_complete_run_asked_and_was_told_is_dropped(federation):
    federation.serve()
    for name in NODES:
        federation.node(name)
    assert federation.main(submit(federation)).wait() == 0
    blobs = federation.folder / "server" / "blobs"
    wait_for(lambda: sum(path.is_file() for path in blobs.rglob("*")) == 1, "the model alone is left")
