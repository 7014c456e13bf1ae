"""Rounds that overlap, over a server: nodes train while the model moves on, and whatever is killed the run goes on."""

import json
import sqlite3
from contextlib import closing, suppress

import pytest

from federation import Federation, wait_for
from retelling import APP, NODES, SEED, arrivals, model, outcomes, reports_of, retold
from umbel.errors import ServerUnreachable

ROUNDS = 8
FEDBUFF = {"name": "fedbuff", "concurrency": 2, "buffer": 2}  # who has answered makes room within the round
FEDASYNC = {"name": "fedasync", "concurrency": 2}
FEDAT = {"name": "fedat", "count": 2, "number": 2}  # whoever has answered waits for the other of its tier
SPEEDS = {"seconds-east": 0.02, "seconds-north": 0.1, "seconds-south": 0.25, "seconds-west": 0.4}


@pytest.fixture
def federation(tmp_path):
    (tmp_path / "site_app.py").write_text(APP)
    (tmp_path / "gate").touch()
    made = Federation(tmp_path / "federation", tmp_path)
    yield made
    made.close()


def nodes_for(strategy):
    """Two tiers of two need four nodes."""
    return (*NODES, "west") if strategy["name"] == "fedat" else NODES


def submit(federation, strategy, rounds=ROUNDS, slow="", **changes):
    folder = federation.app_folder
    config = {"log": str(folder / "handled.log"), "slow": slow, "gate": str(folder / "gate")} | SPEEDS | changes
    return federation.submit(
        model(), nodes=list(nodes_for(strategy)), rounds=rounds, seed=SEED, strategy=strategy, **config
    )


def handled(federation):
    """How often each node handled the message of each round."""
    path = federation.app_folder / "handled.log"
    lines = path.read_text().splitlines() if path.exists() else []
    return {line: lines.count(line) for line in lines}


def rosters(federation, run):
    """The names of the nodes with which each round was planned."""
    with closing(sqlite3.connect(federation.folder / "server" / "ledger.db")) as ledger:
        rows = ledger.execute("SELECT round, roster FROM phases WHERE run = ?", (run,)).fetchall()
    return {number: [name for name, _ in json.loads(text)] for number, text in rows}


def check(federation, run, there=None):
    """The run ends by itself, with the bytes that its arrivals lead to, and each reply counts once."""
    view = federation.completed(run)
    nodes = nodes_for(view.spec.strategy)
    assert view.digest == retold(view, federation.app_folder / "retold.log", nodes, there and there())
    counted = [arrival.message_id for arrival in arrivals(view)]
    assert len(set(counted)) == len(counted)
    accepted = [asked for asked in view.questions if asked.outcome == "accepted"]
    assert len(accepted) == sum(report.accepted for report in reports_of(view))
    said = (federation.folder / "server.log").read_text()
    assert not any(fault in said for fault in ("met a fault", "Exception in", "never retrieved")), said
    return view


@pytest.mark.parametrize("strategy", [FEDBUFF, pytest.param(FEDASYNC, marks=pytest.mark.slow)], ids=["buff", "async"])
def test_nodes_train_while_the_model_moves_on(federation, strategy):
    federation.serve()
    for name in NODES:
        federation.node(name)
    view = check(federation, submit(federation, strategy, **{"seconds-south": 1.0}))
    assert set(handled(federation).values()) == {1}
    stale = [asked for asked in view.questions if "when its model was" in asked.reason]
    assert stale, "some node was slow enough to be overtaken"
    assert {asked.outcome for asked in stale} == {"accepted"}
    left = [asked for asked in view.questions if asked.outcome != "accepted"]
    assert {asked.reason for asked in left} == {"the run was complete without it"}
    assert {asked.outcome for asked in left} <= {"lost", "late"}


#: Where the server is killed, and for the how manieth time that the place is passed.
QUICK = [("server.planned", 4)]
SLOW = [
    ("server.run-accepted", 1),
    ("server.planned", 1),
    ("server.planned", 2),
    ("server.planned", 7),
    ("server.handed-out", 1),
    ("server.handed-out", 5),
    ("server.reply-stored", 1),
    ("server.reply-stored", 2),
    ("server.reply-stored", 3),
    ("server.reply-stored", 7),
    ("server.blob-half", 1),
    ("server.blob-half", 4),
    ("server.aggregating", 1),
    ("server.aggregating", 3),
    ("server.aggregating", 6),
    ("server.state-stored", 1),
    ("server.state-stored", 4),
    ("server.round-committed", 1),
    ("server.round-committed", 4),
    ("server.collecting", 1),
    ("server.run-finished", 1),
]


@pytest.mark.parametrize(("step", "nth"), [*QUICK, *(pytest.param(*step, marks=pytest.mark.slow) for step in SLOW)])
@pytest.mark.parametrize(
    "strategy", [FEDBUFF, pytest.param(FEDASYNC, marks=pytest.mark.slow), FEDAT], ids=["buff", "async", "tiers"]
)
def test_the_server_is_killed(federation, strategy, step, nth):
    assert_goes_on(federation, strategy, f"{step}:kill:{nth}")


@pytest.mark.slow
@pytest.mark.parametrize(("step", "nth"), [*QUICK, *SLOW])
@pytest.mark.parametrize("strategy", [FEDBUFF, FEDASYNC, FEDAT], ids=["buff", "async", "tiers"])
def test_the_server_is_killed_over_postgresql(federation, strategy, step, nth, postgres):
    federation.settings["database"] = postgres.create()
    assert_goes_on(federation, strategy, f"{step}:kill:{nth}")


def assert_goes_on(federation, strategy, failpoint):
    server = federation.serve(failpoint)
    for name in nodes_for(strategy):
        federation.node(name)
    with suppress(ServerUnreachable):  # it may be killed before it says that it has the run
        submit(federation, strategy)
    assert server.wait() == -9, failpoint
    federation.serve()
    if not federation.call("list_runs").runs:  # the model was on its way: nothing was acknowledged yet
        submit(federation, strategy)
    check(federation, federation.call("list_runs").runs[0].run)
    assert set(handled(federation).values()) == {1}, "what was finished was not done again"


class TestNodes:
    """Whatever becomes of a node in flight, others go on."""

    @pytest.mark.slow
    def test_a_node_that_is_killed_goes_on_where_it_was(self, federation):
        federation.serve()
        nodes = {name: federation.node(name) for name in NODES}
        seconds = {"seconds-east": 0.3, "seconds-south": 0.3}  # it is back before the run is over
        run = submit(federation, FEDASYNC, rounds=40, slow="north", **seconds)
        wait_for(lambda: "north 1" in handled(federation), "it trains")
        wait_for(lambda: federation.view(run).row.completed >= 2, "others go on")
        nodes["north"].end()
        federation.node("north")
        wait_for(lambda: handled(federation)["north 1"] == 2, "it trains again")
        (federation.app_folder / "gate").unlink()
        view = check(federation, run)
        assert "north" in {arrival.node for arrival in arrivals(view)}

    def test_a_node_that_is_shut_out_is_lost_and_others_are_asked(self, federation):
        federation.serve()
        nodes = {name: federation.node(name) for name in NODES}
        run = submit(federation, FEDBUFF, slow="north")
        wait_for(lambda: "north 1" in handled(federation), "it trains")
        wait_for(lambda: federation.view(run).row.completed >= 1, "others go on")
        (member,) = [row.member for row in federation.call("list_nodes").nodes if row.name == "north"]
        federation.call("revoke_member", member=member)
        view = check(federation, run, lambda: rosters(federation, run))
        nodes["north"].wait()
        lost = [arrival for arrival in arrivals(view) if arrival.lost]
        assert {arrival.node for arrival in lost} == {"north"}
        assert ("lost", "node 'north' was revoked") in [outcomes(view, number).get("north") for number in (1, 2)]

    def test_a_node_whose_model_is_too_old_is_told_to_forget(self, federation):
        federation.serve()
        for name in NODES:
            federation.node(name)
        run = submit(federation, {**FEDASYNC, "most_stale": 1}, slow="north", rounds=4)
        view = check(federation, run)
        old = [asked for asked in view.questions if "versions old" in asked.reason]
        assert {(asked.node, asked.outcome) for asked in old} == {("north", "lost")}
        wait_for(lambda: (status := federation.status("north")) and status.running is None, "it lets go")
