"""Rounds that overlap, over a server: nodes train while the model moves on, and whatever is killed the run goes on."""

import pytest

from federation import Federation
from retelling import APP, NODES, SEED, arrivals, model, reports_of, retold

ROUNDS = 6
FEDBUFF = {"name": "fedbuff", "concurrency": 3, "buffer": 2}
FEDASYNC = {"name": "fedasync", "concurrency": 2}
SPEEDS = {"seconds-east": 0.02, "seconds-north": 0.1, "seconds-south": 0.25}


@pytest.fixture
def federation(tmp_path):
    (tmp_path / "site_app.py").write_text(APP)
    (tmp_path / "gate").touch()
    made = Federation(tmp_path / "federation", tmp_path)
    yield made
    made.close()


def submit(federation, strategy, rounds=ROUNDS, slow="", **changes):
    folder = federation.app_folder
    config = {"log": str(folder / "handled.log"), "slow": slow, "gate": str(folder / "gate")} | SPEEDS | changes
    return federation.submit(model(), nodes=list(NODES), rounds=rounds, seed=SEED, strategy=strategy, **config)


def handled(federation):
    lines = (federation.app_folder / "handled.log").read_text().splitlines()
    return {line: lines.count(line) for line in lines}


def check(federation, run, seconds=60.0):
    """The run ends by itself, with the bytes that its arrivals lead to, and each reply counts once."""
    view = federation.completed(run, seconds)
    assert view.digest == retold(view, federation.app_folder / "retold.log")
    counted = [arrival.message_id for arrival in arrivals(view)]
    assert len(set(counted)) == len(counted)
    accepted = [asked for asked in view.questions if asked.outcome == "accepted"]
    assert len(accepted) == sum(report.accepted for report in reports_of(view))
    said = (federation.folder / "server.log").read_text()
    assert not any(fault in said for fault in ("met a fault", "Exception in", "never retrieved")), said
    return view


@pytest.mark.parametrize("strategy", [FEDBUFF, FEDASYNC], ids=["fedbuff", "fedasync"])
def test_nodes_train_while_the_model_moves_on(federation, strategy):
    federation.serve()
    for name in NODES:
        federation.node(name)
    view = check(federation, submit(federation, strategy))
    print(handled(federation), [(q.round, q.node, q.outcome, q.reason) for q in view.questions])
