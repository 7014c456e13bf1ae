"""Rounds that do not wait for everyone, over a server: who is given up, who is told, and the same bytes again."""

import time

import pytest

from by_hand import content, serving
from federation import Federation, wait_for
from retelling import APP, NODES, SEED, arrivals, model, outcomes, retold
from umbel.cli._rounds import absences, rounds_of
from umbel.http import wire

ROUNDS = 3
QUICK = {"poll": 0.3, "patience": 60.0}  # empty polls end soon, and nobody is silent
QUORUM = {"name": "fedadam", "evaluate_fraction": 0.0, "quorum": 0.6}  # two of three


class TestByHand:
    """Message by message."""

    @pytest.fixture
    def operator(self, tmp_path):
        with serving(tmp_path / "server", **QUICK) as made:
            yield made

    @pytest.fixture
    def nodes(self, operator):
        made = {name: operator.newcomer(name) for name in NODES}
        for node in made.values():
            node.poll()
        yield made
        for node in made.values():
            node.__exit__()

    def test_the_first_to_come_are_enough_and_the_others_are_told_to_forget(self, operator, nodes):
        run = operator.submit(3, rounds=1, strategy={**QUORUM, "name": "fedavg"})
        tasks = {name: node.work() for name, node in nodes.items()}
        assert nodes["south"].reply(tasks["south"], 1.0).counted
        assert nodes["east"].reply(tasks["east"], 3.0).counted
        view = operator.until(run, "completed")
        assert view.digest == content(2.0).records[0].part.digest
        late = tasks["north"]
        given_up = wire.Assignment(run=run, message=late.message, fence=1)
        assert nodes["north"].poll().cancelled == [given_up]
        replied = nodes["north"].reply(late, 100.0)
        assert (replied.counted, replied.reason) == (False, "late: enough others had answered")
        view = operator.view(run)
        assert view.digest == content(2.0).records[0].part.digest
        assert outcomes(view, 1) == {
            "east": ("accepted", ""),
            "north": ("late", "enough others had answered"),
            "south": ("accepted", ""),
        }
        assert [each.node for each in arrivals(view)] == ["south", "east"]
        assert list(absences(rounds_of(view))) == ["round 1: north late: enough others had answered"]

    def test_refused_updates_are_not_enough(self, operator, nodes):
        run = operator.submit(3, rounds=1, strategy={**QUORUM, "name": "fedavg"})
        tasks = {name: node.work() for name, node in nodes.items()}
        nodes["south"].reply(tasks["south"], float("nan"))
        nodes["east"].reply(tasks["east"], 1.0)
        nodes["north"].reply(tasks["north"], 3.0)
        view = operator.until(run, "completed")
        assert view.digest == content(2.0).records[0].part.digest
        assert {name: outcome for name, (outcome, _) in outcomes(view, 1).items()} == {
            "east": "accepted",
            "north": "accepted",
            "south": "refused",
        }

    def test_more_are_asked_than_are_needed(self, operator, nodes):
        """Over-selection: two of the three are asked, and one answer is enough."""
        told = {"name": "fedavg", "evaluate_fraction": 0.0, "fraction": 0.67, "quorum": 0.5}
        run = operator.submit(3, rounds=2, strategy=told)
        for number in (1, 2):
            wait_for(lambda number=number: len(outcomes(operator.view(run), number)) == 2, "two are asked")
            first = min(outcomes(operator.view(run), number))
            nodes[first].tasks.clear()
            nodes[first].reply(nodes[first].work(), float(number))
            wait_for(lambda number=number: operator.view(run).row.completed >= number, "the round is over")
        view = operator.until(run, "completed")
        assert view.digest == content(2.0).records[0].part.digest
        assert [(report["cohort"], report["accepted"]) for report in view.reports] == [(2, 1), (2, 1)]

    def test_a_deadline_is_learned_and_ends_a_round(self, operator, nodes):
        told = {"name": "fedavg", "evaluate_fraction": 0.0, "deadline_quantile": 0.5, "deadline_factor": 9.0}
        run = operator.submit(3, rounds=2, strategy=told)
        for name, value in (("east", 1.0), ("north", 2.0), ("south", 3.0)):
            nodes[name].reply(nodes[name].work(), value)
        wait_for(lambda: operator.view(run).row.completed == 1, "the first round is over")
        taken = sorted(each.seconds for each in arrivals(operator.view(run)))
        for name in ("east", "north"):
            nodes[name].tasks.clear()
        task = nodes["south"].work()
        assert task.ttl == pytest.approx(max(1.0, 9 * taken[1]))
        # Nobody answers in time: the round fails, with the reason.
        view = operator.until(run, "failed")
        assert "no reply came within" in view.row.reason
        assert nodes["south"].reply(task, 1.0).reason.startswith("late: no reply came within")
        assert {outcome for outcome, _ in outcomes(operator.view(run), 2).values()} == {"lost", "late"}

    def test_a_first_deadline_and_a_late_reply(self, operator, nodes):
        told = {"name": "fedavg", "evaluate_fraction": 0.0, "first_deadline": 4.0}
        run = operator.submit(3, rounds=1, strategy=told)
        tasks = {name: node.work() for name, node in nodes.items()}
        nodes["south"].reply(tasks["south"], 1.0)
        nodes["east"].reply(tasks["east"], 3.0)
        view = operator.until(run, "completed")
        assert view.digest == content(2.0).records[0].part.digest
        assert nodes["north"].poll().cancelled == [wire.Assignment(run=run, message=tasks["north"].message, fence=1)]
        assert not nodes["north"].reply(tasks["north"], 100.0).counted
        outcome, reason = outcomes(operator.view(run), 1)["north"]
        assert (outcome, reason) == ("late", "no reply came within the 4 s that the message had")

    def test_what_a_restart_finds_on_the_disk_comes_in_the_order_in_which_it_came(self, tmp_path):
        told = {**QUORUM, "name": "fedavg"}
        with serving(tmp_path / "server", **QUICK) as operator:
            nodes = {name: operator.newcomer(name) for name in NODES}
            for node in nodes.values():
                node.poll()
            run = operator.submit(3, rounds=2, strategy=told)
            tasks = {name: node.work() for name, node in nodes.items()}
            nodes["south"].reply(tasks["south"], 1.0)
            members = {name: (node.identity, node.member) for name, node in nodes.items()}
            for node in nodes.values():
                node.__exit__()
        begun = time.monotonic()
        with serving(tmp_path / "server", **QUICK) as operator:
            again = {name: type(operator)(operator.url, *member) for name, member in members.items()}
            for name, node in again.items():
                if name != "south":
                    node.tasks[run, tasks[name].message] = tasks[name]
                node.poll()
            assert again["north"].reply(tasks["north"], 3.0).counted
            wait_for(lambda: operator.view(run).row.completed == 1, "the round is over")
            view = operator.view(run)
            assert view.digest == content(2.0).records[0].part.digest
            assert [each.node for each in arrivals(view)] == ["south", "north"]
            # A deadline that is learned from it is not that of a server that was not there.
            assert 0 < arrivals(view)[1].seconds < time.monotonic() - begun
            assert again["east"].poll().cancelled == [wire.Assignment(run=run, message=tasks["east"].message, fence=1)]
            for node in again.values():
                node.__exit__()


#: Where the server is killed, and for the how manieth time that the place is passed.
QUICK_STEPS = [("server.given-up", 1)]
SLOW_STEPS = [
    ("server.reply-stored", 2),
    ("server.planned", 2),
    ("server.handed-out", 3),
    ("server.reply-stored", 1),
    ("server.reply-stored", 4),
    ("server.aggregating", 1),
    ("server.aggregating", 2),
    ("server.given-up", 3),
    ("server.state-stored", 1),
    ("server.state-stored", 3),
    ("server.round-committed", 1),
    ("server.run-finished", 1),
]


#: With a deadline that is learned, which is so late that it changes nothing.
LEARNING = {**QUORUM, "deadline_quantile": 1.0, "deadline_factor": 100.0}


class TestProcesses:
    """A server that is killed in the middle of rounds whose slowest node never answers."""

    @pytest.fixture
    def federation(self, tmp_path):
        (tmp_path / "site_app.py").write_text(APP)
        (tmp_path / "gate").touch()
        made = Federation(tmp_path / "federation", tmp_path)
        yield made
        made.close()

    @pytest.mark.parametrize(
        ("step", "nth"), [*QUICK_STEPS, *(pytest.param(*step, marks=pytest.mark.slow) for step in SLOW_STEPS)]
    )
    def test_the_server_is_killed(self, federation, tmp_path, step, nth):
        assert_told_again(federation, tmp_path, f"{step}:kill:{nth}")

    @pytest.mark.slow
    @pytest.mark.parametrize(("step", "nth"), [*QUICK_STEPS, *SLOW_STEPS])
    def test_the_server_is_killed_over_postgresql(self, federation, tmp_path, step, nth, postgres):
        federation.settings["database"] = postgres.create()
        assert_told_again(federation, tmp_path, f"{step}:kill:{nth}")


def assert_told_again(federation, folder, failpoint):
    """The run ends by itself without its slowest node, with the bytes that its arrivals lead to."""
    server, log = federation.serve(failpoint), folder / "handled.log"
    for name in NODES:
        federation.node(name)
    config = {"log": str(log), "slow": "north", "gate": str(folder / "gate")}
    run = federation.submit(model(), nodes=list(NODES), rounds=ROUNDS, seed=SEED, strategy=LEARNING, **config)
    assert server.wait() == -9, failpoint
    federation.serve()
    view = federation.completed(run)
    assert view.digest == retold(view, folder / "retold.log")
    lines = log.read_text().splitlines()
    for number in range(1, ROUNDS + 1):
        found = outcomes(view, number)
        assert {name: outcome for name, (outcome, _) in found.items()} == {
            "east": "accepted",
            "north": "lost",
            "south": "accepted",
        }
        assert found["north"][1] in ("enough others had answered", "the round went on without it")
        assert [lines.count(f"{name} {number}") for name in ("east", "south")] == [1, 1]
    assert [report["accepted"] for report in view.reports] == [2] * ROUNDS
    assert len({each.message_id for each in arrivals(view)}) == 2 * ROUNDS
    # The straggler was told each time: it works on nothing that nobody wants, and its next answer is to the next run.
    wait_for(lambda: (status := federation.status("north")) and status.running is None, "the straggler lets go")
