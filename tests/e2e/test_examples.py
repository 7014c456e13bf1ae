"""The examples do what their READMEs say: what is measured here is what a newcomer sees."""

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.app import ClientApp
from umbel.context import Context
from umbel.history import History
from umbel.message import Message
from umbel.records import digest, load
from umbel.strategy import fedavg

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> tuple[dict[str, Any], dict[str, ModuleType]]:
    """The settings and modules of one example, which Python then forgets: the other has modules of the same names."""
    folder = EXAMPLES / name
    settings = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["umbel"]
    names = sorted(path.stem for path in folder.glob("*.py"))
    sys.path.insert(0, str(folder))
    try:
        return settings, {each: importlib.import_module(each) for each in names}
    finally:
        sys.path.remove(str(folder))
        for each in names:
            sys.modules.pop(each, None)


def simulate(settings: dict[str, Any], app: ModuleType, client: Any = None, **changes: Any) -> History:
    strategy = dict(settings["strategy"])
    assert strategy.pop("name") == "fedavg"
    nodes = settings["nodes"] if isinstance(settings["nodes"], int) else app.nodes(settings["config"])
    return umbel.simulate(
        client or app.app,
        fedavg(**strategy),
        app.initial(settings["config"]),
        nodes=nodes,
        run_config=settings["config"],
        **{"rounds": settings["rounds"], "seed": settings["seed"], **changes},
    )


@pytest.fixture(scope="module")
def rand_health() -> tuple[dict[str, Any], dict[str, ModuleType]]:
    pytest.importorskip("statsmodels")
    return example("rand_health")


@pytest.fixture(scope="module")
def digits() -> tuple[dict[str, Any], dict[str, ModuleType]]:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    return example("digits_torch")


@pytest.fixture(scope="module")
def six_sites(rand_health) -> History:
    settings, modules = rand_health
    return simulate(settings, modules["app"])


def test_six_sites_learn_together_what_none_learns_alone(rand_health, six_sites) -> None:
    settings, modules = rand_health
    rows, federated, pooled = modules["compare"].compare(
        six_sites.model.to_numpy(), settings["rounds"], settings["config"]["learning-rate"]
    )
    alone = [row.alone_everywhere for row in rows]
    assert pooled > 0.72
    assert abs(federated - pooled) < 0.005
    assert federated > np.mean(alone) + 0.04
    assert federated > max(alone)
    assert min(alone) < 0.55
    assert sum(row.tested for row in rows) > 3_500


def test_the_report_shows_every_site_and_only_computed_numbers(rand_health, six_sites) -> None:
    settings, modules = rand_health
    rows, federated, pooled = modules["compare"].compare(
        six_sites.model.to_numpy(), settings["rounds"], settings["config"]["learning-rate"]
    )
    text = modules["compare"].report(six_sites, settings["config"])
    for row in rows:
        assert f"{row.site} {row.tested} {row.alone:.3f} {row.federated:.3f} {row.pooled:.3f}" in " ".join(text.split())
    assert f"ranks the people of all six with {federated:.3f}" in text
    assert f"pooling every row gives {pooled:.3f}" in text
    assert max(map(len, text.splitlines())) <= 120


def test_federated_evaluation_agrees_with_the_comparison(rand_health, six_sites) -> None:
    settings, modules = rand_health
    rows, _, _ = modules["compare"].compare(six_sites.model.to_numpy(), 1, settings["config"]["learning-rate"])
    mean = np.average([row.federated for row in rows], weights=[row.tested for row in rows])
    assert six_sites.metrics["evaluate.auc"][-1] == pytest.approx(mean)
    losses = six_sites.metrics["train.loss"]
    assert losses[-1] < losses[0]


def test_nobody_is_both_trained_on_and_tested(rand_health) -> None:
    app = rand_health[1]["app"]
    people = rows = 0
    for number in app.SITES:
        person = app.read_table()["zper"][app.read_table()["site"] == number]
        test = app.held_out(person, number)
        assert not set(person[test]) & set(person[~test])
        people += len(set(person))
        rows += len(app.read_site(number)[1]) + len(app.read_site(number)[3])
    assert people == 5_912
    assert rows == len(app.read_table()) - 4 == 20_186


def test_the_area_under_the_curve_is_the_known_one(rand_health) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    for _ in range(20):
        y, score = rng.random(200) < 0.7, rng.integers(0, 12, 200) / 4
        assert rand_health[1]["app"].area_under_curve(y, score) == pytest.approx(metrics.roc_auc_score(y, score))


class Witness(ClientApp):
    """An app that writes down the shapes of all arrays that leave its nodes."""

    def __init__(self, app: ClientApp) -> None:
        super().__init__()
        self._app = app
        self.shapes: dict[str, set[tuple[int, ...]]] = {}

    def handles(self, message_type: str) -> bool:
        return self._app.handles(message_type)

    def __call__(self, message: Message, context: Context, **options: Any) -> Message:
        reply = self._app(message, context, **options)
        seen = self.shapes.setdefault(str(message.metadata.message_type), set())
        for record in reply.content.parameters_records.values():
            seen.update(tuple(array.shape) for array in record.values())
        return reply


def test_no_row_leaves_a_site(rand_health) -> None:
    settings, modules = rand_health
    witness = Witness(modules["app"].app)
    simulate(settings, modules["app"], witness, rounds=2)
    features = len(modules["app"].FEATURES)
    assert witness.shapes == {"query": {(features,), (1,)}, "train": {(features,), (1,)}, "evaluate": set()}


def test_skewed_nodes_learn_the_digits(digits) -> None:
    settings, app = digits[0], digits[1]["app"]
    history = simulate(settings, app)
    assert history.metrics["evaluate.accuracy"][-1] > 0.93
    assert f"{history.metrics['evaluate.accuracy'][-1]:.1%} after round 15" in app.report(history, settings["config"])


@pytest.mark.parametrize("name", ["rand_health", "digits"])
def test_one_seed_gives_one_digest(request, name) -> None:
    settings, modules = request.getfixturevalue(name)
    seeds = (settings["seed"], settings["seed"], 5)
    first, again, other = (simulate(settings, modules["app"], rounds=2, seed=seed).digest for seed in seeds)
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("name", "shown"),
    [("rand_health", "people of all six"), ("digits", "Accuracy on the images")],
)
def test_the_command_line_ends_with_the_same_model(request, tmp_path, name, shown) -> None:
    settings, modules = request.getfixturevalue(name)
    name = Path(modules["app"].__file__).parent.name
    done = subprocess.run(
        [Path(sys.executable).with_name("umbel"), "run", EXAMPLES / name, "--rounds", "2"],
        cwd=tmp_path,
        env=os.environ | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    (model,) = tmp_path.glob("runs/*/model.safetensors")
    history = simulate(settings, modules["app"], rounds=2)
    assert digest(load(model)) == history.digest
    assert history.digest in done.stdout
