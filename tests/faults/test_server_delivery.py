"""What nodes are handed, and which of their replies count: a message by message account."""

import contextlib
import threading
import time

import pytest

from by_hand import PATIENCE, blob, content, serving
from umbel import errors
from umbel.http import wire
from umbel.store import Ledger, audit


@pytest.fixture
def operator(tmp_path):
    with serving(tmp_path / "server") as made:
        yield made


@pytest.fixture
def node(operator):
    with operator.newcomer("north") as made:
        yield made


def outcomes(view):
    return [(question.node, question.outcome) for question in view.questions]


def test_a_run_over_one_node(operator, node):
    run = operator.submit(1)
    task = node.work()
    assert (task.run, task.round, task.message_type, task.fence) == (run, 1, "train", 1)
    assert node.reply(task, 2.0) == wire.Replied(counted=True)
    view = operator.until(run, "completed")
    assert outcomes(view) == [("north", "accepted")]
    assert view.questions[0].sent == task.content.size
    assert {"queued", "gate"} <= view.questions[0].seconds.keys()


def test_what_is_held_is_not_handed_out_again(operator, node):
    operator.submit(1)
    node.work()
    assert node.poll() == wire.Polled(tasks=[], cancelled=[])


def test_what_is_not_held_is_handed_out_again_under_the_next_number(operator, node):
    run = operator.submit(1)
    first = node.work()
    (second,) = node.poll(holding=[]).tasks
    assert (second.message, second.fence) == (first.message, 2)
    with pytest.raises(errors.Fenced):
        node.reply(first)
    assert node.reply(second).counted
    assert outcomes(operator.until(run, "completed")) == [("north", "accepted")]


def test_the_same_reply_again_gets_the_same_answer_and_another_is_refused(operator, node):
    run = operator.submit(1, rounds=2)
    task = node.work()
    assert [node.reply(task, 2.0).counted for _ in range(3)] == [True] * 3
    with pytest.raises(errors.ReplyConflict):
        node.reply(task, 3.0)
    node.reply(node.work(), 2.0)
    assert outcomes(operator.until(run, "completed")) == [("north", "accepted")] * 2


def test_a_reply_to_a_message_of_somebody_else_is_to_none(operator, node):
    operator.submit(1)
    task = node.work()
    with operator.newcomer("south") as other, pytest.raises(errors.NotFound):
        other.reply(task)


def test_the_newest_process_with_a_key_is_the_node(operator, node):
    run = operator.submit(1)
    first = node.work()
    with node.again() as younger:
        task = younger.work()
        assert (task.message, task.fence) == (first.message, 2)
        for _ in range(2):
            with pytest.raises(errors.NodeSuperseded):
                node.poll()
        with pytest.raises(errors.Fenced):
            node.reply(first)
        assert younger.reply(task).counted
    operator.until(run, "completed")


def test_a_poll_that_is_parked_ends_when_a_younger_process_calls(operator, node):
    ended = []

    def park():
        try:
            node.poll()
        except errors.NodeSuperseded as error:
            ended.append(error)

    thread = threading.Thread(target=park)
    thread.start()
    with node.again() as younger:
        deadline = time.monotonic() + 20
        while not ended:
            assert time.monotonic() < deadline
            with contextlib.suppress(errors.NodeSuperseded):
                younger.poll()  # which of the two came first is up to them
            if not thread.is_alive():
                break
    thread.join(20)
    assert not thread.is_alive()


def test_a_reply_whose_blob_is_not_there_changes_nothing(operator, node):
    run = operator.submit(1, initial=content(0.0, 9, metrics=False))
    task = node.work()
    said, blobs = blob(1.0)
    with pytest.raises(errors.BlobMissing):
        node.call("reply", wire.Answer(run=run, message=task.message, fence=task.fence, content=said))
    for digest, data in blobs.items():
        node.runner.run(node.client.put_blob(digest, data))
    assert node.call("reply", wire.Answer(run=run, message=task.message, fence=task.fence, content=said)).counted
    view = operator.until(run, "failed")  # it is there, and of another shape
    assert "shape" in view.row.reason


def test_a_part_that_is_not_what_its_digest_says_is_an_error_of_the_node(operator, node):
    run = operator.submit(1)
    task = node.work()
    whole = content(1.0)
    part = whole.records[0].part
    bent = wire.Content(
        (type(whole.records[0])("model", type(part)(part.digest, part.size, part.data[:-1] + b"x")),), whole.rest
    )
    assert node.reply(task, content=bent).counted
    view = operator.until(run, "failed")
    assert "expected a reply that can be read" in view.row.reason
    assert outcomes(view) == [("north", "lost")]


def test_a_node_answers_with_an_error_and_the_reason_is_kept(operator, node):
    run = operator.submit(1)
    assert node.reply(node.work(), content=None, error_code=2, error_reason="KeyError: 'age'").counted
    view = operator.until(run, "failed")
    assert "KeyError: 'age'" in view.row.reason
    assert [(question.outcome, question.reason) for question in view.questions] == [("lost", "KeyError: 'age'")]


def test_a_stopped_run_takes_its_messages_back_and_goes_on_under_the_next_number(operator, node):
    run = operator.submit(1, rounds=1)
    first = node.work()
    operator.call("stop_run", run=run)
    assert outcomes(operator.until(run, "stopped")) == [("north", "cancelled")]
    assert node.reply(first).counted is False
    operator.call("resume_run", wire.Resume(rounds=2), run=run)
    again = node.work()
    assert (again.message, again.fence) == (first.message, 2)
    node.reply(again)
    node.reply(node.work())
    view = operator.until(run, "completed")
    assert (view.row.completed, view.row.rounds) == (2, 2)


def test_a_node_is_told_to_forget_what_is_no_longer_wanted(operator, node):
    run = operator.submit(1)
    task = node.work()
    operator.call("stop_run", run=run)
    operator.until(run, "stopped")
    assert node.poll().cancelled == [wire.Assignment(run=run, message=task.message, fence=1)]


def test_who_is_shut_out_loses_its_messages_at_once(operator, node):
    run = operator.submit(1)
    node.work()
    operator.call("revoke_member", member=node.member)
    view = operator.until(run, "failed")
    assert "was revoked" in view.row.reason
    with pytest.raises(errors.AuthError):
        node.poll()
    (row,) = operator.call("list_nodes").nodes
    assert row.status == "revoked"
    actions = [line.action for line in operator.call("read_audit").entries]
    assert actions == ["token.make", "member.join", "run.submit", "member.revoke"]


def test_a_node_that_is_shut_out_while_a_round_is_planned_is_lost_and_the_round_goes_on(tmp_path, monkeypatch):
    """It is among those that the round is planned with, and its message is laid out when it is there no more."""
    planned, go_on = threading.Event(), threading.Event()

    def hold(name):
        if name == "server.planned":
            planned.set()
            assert go_on.wait(PATIENCE)

    monkeypatch.setattr("umbel.server._exchange.failpoint", hold)
    with (
        serving(tmp_path / "server", patience=600.0) as operator,
        operator.newcomer("north") as north,
        operator.newcomer("south") as south,
    ):
        for node in (north, south):
            node.poll()
        strategy = {"name": "fedavg", "min_nodes": 1}
        run = operator.submit(2, strategy=strategy)
        try:
            assert planned.wait(PATIENCE)
            operator.call("revoke_member", member=north.member)
        finally:
            go_on.set()
        south.reply(south.work())
        view = operator.until(run, "completed")
        assert outcomes(view) == [("north", "lost"), ("south", "accepted")]
        assert "'north' was revoked" in view.questions[0].reason


def test_what_was_read_of_the_audit_log_shows_later_whether_it_was_edited(tmp_path):
    with serving(tmp_path / "server") as operator, operator.newcomer("north"):
        *_, last = operator.call("read_audit").entries
    known = audit.Head(last.number, bytes.fromhex(last.digest.removeprefix("blake3:")))
    with Ledger.open(f"sqlite:///{tmp_path}/server/ledger.db") as ledger:
        assert ledger.read(lambda connection: audit.verify(connection, known)) == last.number


def test_a_silent_node_is_lost_and_the_round_goes_on(tmp_path):
    with (
        serving(tmp_path / "server", poll=0.3, patience=1.5) as operator,
        operator.newcomer("north") as north,
        operator.newcomer("south") as south,
    ):
        run = operator.submit(2)
        south.poll()
        task = north.work()
        while not south.tasks:
            north.poll()
            south.poll()
        assert north.reply(task).counted
        while operator.view(run).row.status == "running":
            north.poll()
        view = operator.until(run, "completed")
        assert sorted(outcomes(view)) == [("north", "accepted"), ("south", "lost")]
        assert "silent for" in next(each.reason for each in view.questions if each.node == "south")
        late = south.reply(next(iter(south.tasks.values())))
        assert (late.counted, late.reason[:5]) == (False, "late:")


def test_after_a_restart_nobody_is_silent_and_what_is_held_counts(tmp_path):
    with serving(tmp_path / "server", port=0) as operator, operator.newcomer("north") as node:
        run = operator.submit(1, rounds=2)
        task = node.work()
        identity, member = node.identity, node.member
    with serving(tmp_path / "server") as operator, type(operator)(operator.url, identity, member) as node:
        (row,) = operator.call("list_nodes").nodes
        assert row.status == "unheard"
        node.tasks[task.run, task.message] = task
        assert node.poll().tasks == []
        (row,) = operator.call("list_nodes").nodes
        assert row.status == "online"
        assert node.reply(task).counted
        node.reply(node.work())
        view = operator.until(run, "completed")
        assert len(view.restarts) == 1


def test_after_a_restart_what_is_not_held_is_handed_out_under_the_next_number(tmp_path):
    with serving(tmp_path / "server") as operator, operator.newcomer("north") as node:
        run = operator.submit(1)
        task = node.work()
        identity, member = node.identity, node.member
    with serving(tmp_path / "server") as operator, type(operator)(operator.url, identity, member) as node:
        again = node.work()
        assert (again.run, again.message, again.fence) == (run, task.message, 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"content": None}, "neither"),
        ({"error_code": 2}, "both"),
    ],
)
def test_an_answer_is_content_or_an_error(operator, node, changes, said):
    operator.submit(1)
    task = node.work()
    with pytest.raises(errors.BadValue, match=said):
        node.reply(task, **changes)
    assert node.reply(task).counted


def test_what_a_node_says_of_an_error_is_kept_within_bounds(operator, node):
    run = operator.submit(1)
    seconds = {"training": 1.5, "x" * 41: 1.0, "\n": 1.0, "negative": -1.0} | {f"p{n}": 0.0 for n in range(100)}
    node.reply(node.work(), content=None, error_code=2, error_reason="x" * 10_000, seconds=seconds)
    (question,) = operator.until(run, "failed").questions
    assert question.outcome == "lost"
    assert question.reason == "x" * 4_000
    assert question.seconds["training"] == 1.5
    assert not {"x" * 41, "\n", "negative"} & question.seconds.keys()
    assert len(question.seconds) <= 18


@pytest.mark.parametrize("types", [["x"] * 65, ["x" * 257], ["a\nb"]])
def test_what_a_node_says_that_it_runs_is_kept_within_bounds(operator, node, types):
    with pytest.raises(errors.BadValue, match="types"):
        node.poll(types=types)
    with pytest.raises(errors.BadValue, match="types"), operator.newcomer("south", types=types):
        pass
    assert [row.name for row in operator.call("list_nodes").nodes] == ["north"]


def test_what_a_process_calls_itself_is_kept_within_bounds(node):
    node.instance = "x" * 257
    with pytest.raises(errors.BadValue, match="instance"):
        node.poll()


def test_a_message_has_its_time_and_no_more(operator, node, monkeypatch):
    monkeypatch.setattr("umbel.rounds._memory.DEFAULT_TTL", 1.0)
    run = operator.submit(1)
    task = node.work()
    view = operator.until(run, "failed")
    assert "no reply came within the 1 s" in view.row.reason
    late = node.reply(task)
    assert (late.counted, late.reason[:5]) == (False, "late:")


def test_as_long_as_bytes_move_no_clock_runs_out(operator, node, monkeypatch):
    monkeypatch.setattr("umbel.rounds._memory.DEFAULT_TTL", 1.0)
    run = operator.submit(1)
    task = node.work()
    ends = time.time() + 3.0
    for number in range(1_000):
        for digest, data in blob(float(number))[1].items():
            node.runner.run(node.client.put_blob(digest, data))
        if time.time() > ends:
            break
        time.sleep(0.1)
    assert node.reply(task).counted
    assert outcomes(operator.until(run, "completed")) == [("north", "accepted")]
