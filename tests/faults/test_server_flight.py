"""Messages in flight while the model moves on, one by one: stopped, restarted, shut out, too old, and what is kept."""

import contextlib
import sqlite3

import numpy as np
import pytest

from by_hand import blob, serving
from federation import wait_for
from umbel import errors
from umbel.cli._rounds import absences, rounds_of
from umbel.envelope import unpack
from umbel.http import wire

NODES = ("east", "north", "south", "west")
SETTINGS = {"poll": 0.3, "patience": 60.0}  # empty polls end soon, and nobody is silent
FEDBUFF = {"name": "fedbuff", "concurrency": 2, "buffer": 2}
FEDASYNC = {"name": "fedasync", "concurrency": 2, "alpha": 1.0, "most_stale": 1}


class Stage:
    """A server that a test starts again, and nodes that stay the same."""

    def __init__(self, folder):
        self.folder = folder
        self._stack = contextlib.ExitStack()
        self._known = {}
        self.nodes = {}
        self.operator = None

    def start(self):
        """Start the server, with a new process for each node, which holds what the one before held."""
        self.operator = operator = self._stack.enter_context(serving(self.folder / "server", **SETTINGS))
        for name in NODES:
            before = self._known.get(name)
            made = operator.newcomer(name) if before is None else type(operator)(operator.url, *before[:2])
            self.nodes[name] = self._stack.enter_context(made)
            if before is not None:
                made.tasks, made.instance = before[2:]

    def stop(self):
        self._known = {
            name: (node.identity, node.member, node.tasks, node.instance) for name, node in self.nodes.items()
        }
        self._stack.close()

    def submit(self, strategy, rounds=3, **changes):
        for node in self.nodes.values():
            node.poll()
        return self.operator.submit(len(NODES), rounds, strategy=strategy, **changes)

    def open(self, run):
        """Return the nodes that are asked now, by the round whose model they were sent."""
        return {
            (each.round, each.node) for each in self.operator.view(run).questions if each.outcome in ("queued", "sent")
        }

    def asked(self, run, *but):
        """Wait until two are asked, and return the one that is not among some, with its message."""
        wait_for(lambda: len(self.open(run)) == 2 and {name for _, name in self.open(run)} - {*but}, "two are asked")
        (name,) = {name for _, name in self.open(run)} - {*but}
        return name, self.nodes[name].work()

    def both(self, run):
        """Wait until two are asked, and return them with their messages."""
        wait_for(lambda: len(self.open(run)) == 2, "two are asked")
        return [(name, self.nodes[name].work()) for _, name in sorted(self.open(run))]

    def answer(self, run, name, value):
        """Let a node answer, and wait until the loop has taken it."""
        node = self.nodes[name]
        task = node.work()
        assert node.reply(task, value).counted
        wait_for(lambda: (task.round, name) not in self.open(run), "it is taken")
        return task

    def completed(self, run, rounds):
        wait_for(lambda: self.operator.view(run).row.completed >= rounds, f"round {rounds} is closed")
        return self.operator.view(run)


@pytest.fixture
def stage(tmp_path):
    made = Stage(tmp_path)
    made.start()
    yield made
    made.stop()


def value(view):
    """The number of which the model of a run consists."""
    (found,) = set(unpack(view.model, None).parameters_records["model"]["w"].numpy().tolist())
    return found


def reason_of(view, number, name):
    return next((each.outcome, each.reason) for each in view.questions if (each.round, each.node) == (number, name))


def one_in_flight(stage, strategy=FEDBUFF, rounds=3):
    """A run whose second round has begun, while a node still has the model of the first one, which was 0."""
    run = stage.submit(strategy, rounds)
    (first, _), (slow, _) = stage.both(run)
    stage.answer(run, first, 2.0)
    second, _ = stage.asked(run, slow)
    stage.answer(run, second, 4.0)
    assert value(stage.completed(run, 1)) == 3.0
    return run, slow


def test_what_counts_is_how_far_a_node_went_from_the_model_that_it_was_sent(stage):
    run, slow = one_in_flight(stage, rounds=2)
    other, task = stage.asked(run, slow)
    assert (task.round, unpack(task.content, None).parameters_records["model"]["w"].numpy()[0]) == (2, 3.0)
    stage.answer(run, other, 5.0)
    late = stage.answer(run, slow, 1.0)
    view = stage.operator.until(run, "completed")
    assert late.round == 1
    assert value(view) == pytest.approx((5.0 + 3.0 + 1 / np.sqrt(2)) / 2, rel=1e-15)
    assert reason_of(view, 1, slow) == ("accepted", "it counted in round 2, when its model was one round old")
    assert [(report["round"], report["accepted"]) for report in view.reports] == [(1, 2), (2, 2)]


def test_nobody_waits_for_what_is_in_flight_when_the_run_is_complete(stage):
    run, slow = one_in_flight(stage, rounds=1)
    view = stage.operator.until(run, "completed")
    assert reason_of(view, 1, slow) == ("lost", "the run was complete without it")
    node = stage.nodes[slow]
    (task,) = node.tasks.values()
    assert node.poll().cancelled == [wire.Assignment(run=run, message=task.message, fence=1)]
    assert node.reply(task, 100.0) == wire.Replied(counted=False, reason="late: the run was complete without it")
    assert value(stage.operator.view(run)) == 3.0


@pytest.mark.parametrize("answered", [False, True], ids=["open", "answered"])
def test_a_restart_finds_what_is_in_flight(stage, answered):
    run, slow = one_in_flight(stage)
    other, task = stage.asked(run, slow)
    if answered:
        stage.answer(run, slow, 1.0)
        third, _ = stage.asked(run, other)  # it was planned because of the answer
    stage.stop()
    stage.start()
    for node in stage.nodes.values():
        assert node.poll() == wire.Polled(tasks=[], cancelled=[])  # all have what they are to have
    if not answered:
        stage.answer(run, slow, 1.0)
        third, _ = stage.asked(run, other)
    assert stage.nodes[other].work() == task
    assert stage.open(run) == {(2, other), (2, third)}
    stage.answer(run, other, 5.0)
    assert value(stage.completed(run, 2)) == pytest.approx((5.0 + 3.0 + 1 / np.sqrt(2)) / 2, rel=1e-15)


def test_a_run_that_is_stopped_goes_on_with_what_was_in_flight(stage):
    run, slow = one_in_flight(stage)
    other, _ = stage.asked(run, slow)
    stage.answer(run, other, 5.0)
    third, _ = stage.asked(run, slow)
    before = {name: stage.nodes[name].work() for name in (slow, third)}
    stage.operator.call("stop_run", run=run)
    stage.operator.until(run, "stopped")
    for name, task in before.items():
        assert [each.message for each in stage.nodes[name].poll().cancelled] == [task.message]
        assert not stage.nodes[name].reply(task, 100.0).counted
    stage.operator.call("resume_run", run=run)
    for name, task in before.items():
        again = stage.nodes[name].work()
        assert (again.message, again.round, again.fence) == (task.message, task.round, 2)
    stage.answer(run, slow, 1.0)
    view = stage.completed(run, 2)
    assert value(view) == pytest.approx((5.0 + 3.0 + 1 / np.sqrt(2)) / 2, rel=1e-15)
    counted = [arrival[1] for report in view.reports for arrival in report["arrivals"]]
    assert len(counted) == len(set(counted)) == 4


def test_a_run_that_failed_in_flight_asks_again_whose_answer_did_not_count(stage):
    run, slow = one_in_flight(stage, rounds=2)
    failed = set()
    while stage.operator.view(run).row.status == "running":
        for _, name in stage.open(run) - failed:
            task = stage.nodes[name].work()
            assert stage.nodes[name].reply(task, content=None, error_code=2, error_reason="not today").counted
            failed.add((task.round, name))
    assert "not today" in stage.operator.until(run, "failed").row.reason
    assert failed == {(1, slow), *((2, name) for name in NODES)}
    stage.operator.call("resume_run", run=run)
    stage.answer(run, slow, 1.0)
    # All of them have their message again; which answer counts beside the slow one's, the loop's draw decides.
    others = [stage.nodes[name] for name in NODES if name != slow]

    def is_over():
        for node in others:
            node.poll()
            for task in list(node.tasks.values()):
                node.reply(task, 5.0)
        return stage.operator.view(run).row.status == "completed"

    wait_for(is_over, "it is complete")
    view = stage.operator.view(run)
    assert value(view) == pytest.approx((5.0 + 3.0 + 1 / np.sqrt(2)) / 2, rel=1e-15)
    counted = [arrival for report in view.reports for arrival in report["arrivals"]]
    assert len({arrival[1] for arrival in counted}) == len(counted) == 4


def test_who_is_shut_out_in_flight_is_lost_and_another_asked(stage):
    run, slow = one_in_flight(stage)
    other, _ = stage.asked(run, slow)
    stage.operator.call("revoke_member", member=stage.nodes[slow].member)
    wait_for(lambda: (1, slow) not in stage.open(run), "it is lost")
    others = {(2, name) for name in set(NODES) - {slow, other}}
    wait_for(lambda: (2, other) in stage.open(run) and others & stage.open(run), "another is asked")
    ((_, third),) = others & stage.open(run)
    stage.answer(run, other, 5.0)
    stage.answer(run, third, 7.0)
    view = stage.completed(run, 2)
    assert value(view) == 6.0
    assert reason_of(view, 1, slow) == ("lost", f"node '{slow}' was revoked")
    assert f"{slow} lost: node '{slow}' was revoked" in "".join(absences(rounds_of(view)))


def test_a_message_whose_model_is_too_old_is_given_up(stage):
    run = stage.submit(FEDASYNC, rounds=4)
    (first, _), (slow, task) = stage.both(run)
    stage.answer(run, first, 1.0)
    name, _ = stage.asked(run, slow)
    stage.answer(run, name, 2.0)
    stage.completed(run, 2)
    wait_for(lambda: (1, slow) not in stage.open(run), "it is given up")
    node = stage.nodes[slow]
    assert wire.Assignment(run=run, message=task.message, fence=1) in node.poll().cancelled
    assert not node.reply(task, 100.0).counted
    for number in (3, 4):
        name, _ = stage.both(run)[0]
        stage.answer(run, name, 4.0)
        view = stage.completed(run, number)
    outcome, reason = reason_of(view, 1, slow)
    assert outcome in ("lost", "late")
    assert reason == "the model that it was sent is more than 1 versions old"
    assert value(view) == 4.0


def test_what_another_order_would_have_asked_goes_to_another_node(stage):
    """The ledger says that another node was asked: so it is if a crash changes the order in which replies are taken."""
    run, slow = one_in_flight(stage)
    other, task = stage.asked(run, slow)
    idle = min(set(NODES) - {slow, other})
    stage.stop()
    with contextlib.closing(sqlite3.connect(stage.folder / "server" / "ledger.db")) as ledger, ledger:
        ledger.execute(
            "UPDATE messages SET node = (SELECT id FROM members WHERE name = ?) WHERE message = ?",
            (idle, task.message),
        )
    stage.start()
    stage.nodes[idle].tasks[run, task.message] = task
    wait_for(lambda: (2, other) in stage.open(run), "it goes where the loop wants it")
    assert wire.Assignment(run=run, message=task.message, fence=1) in stage.nodes[idle].poll().cancelled
    with pytest.raises(errors.NotFound):
        stage.nodes[idle].reply(task, 100.0)
    stage.nodes[other].tasks.clear()
    again = stage.nodes[other].work()
    assert (again.message, again.fence) == (task.message, 2)
    stage.answer(run, other, 5.0)
    stage.answer(run, slow, 1.0)
    assert value(stage.completed(run, 2)) == pytest.approx((5.0 + 3.0 + 1 / np.sqrt(2)) / 2, rel=1e-15)


def test_models_in_flight_are_kept_as_long_as_somebody_trains_them(stage):
    run = stage.submit({**FEDASYNC, "most_stale": 100}, rounds=9, initial=uploaded(stage.operator, 0.5))
    (first, _), (slow, _) = stage.both(run)
    answer_blob(stage, first, 1.0)
    stage.completed(run, 1)
    answer_blob(stage, slow, 2.0)
    stage.completed(run, 2)
    slow, task = next(pair for pair in stage.both(run) if pair[1].round == 2)  # from the model of the first round
    path = blob_file(stage, task.content)
    for number in range(3, 6):
        name, _ = stage.asked(run, slow)
        answer_blob(stage, name, float(number))
        stage.completed(run, number)
    stage.stop()
    stage.start()
    assert path.exists()
    node = stage.nodes[slow]
    assert node.runner.run(node.client.get_blob(f"blake3:{path.parent.name}{path.name}", stage.folder / "copy")) > 0
    answer_blob(stage, slow, 6.0)
    stage.completed(run, 6)
    wait_for(lambda: not path.exists(), "nobody needs it any more")
    assert len(blob_files(stage)) <= 6, "the model to begin with, the last one, those of two in flight, and updates"


def uploaded(actor, number):
    said, blobs = blob(number)
    for digest, data in blobs.items():
        actor.runner.run(actor.client.put_blob(digest, data))
    return said


def answer_blob(stage, name, number):
    node = stage.nodes[name]
    task = node.work()
    assert node.reply(task, content=uploaded(node, number)).counted


def blob_files(stage):
    return [path for path in (stage.folder / "server" / "blobs").rglob("*") if path.is_file()]


def blob_file(stage, content):
    name = content.records[0].part.digest.removeprefix("blake3:")
    return stage.folder / "server" / "blobs" / name[:2] / name[2:]
