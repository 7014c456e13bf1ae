"""What a server answers the main of a run: call by call, told in one order, and to nobody else."""

import pytest

from by_hand import Actor, blob, content, serving
from umbel import errors
from umbel.envelope import pack
from umbel.http import mains, wire
from umbel.message import ErrorCode
from umbel.records import RecordSet
from umbel.server import _mains

NOTHING = pack(RecordSet(), None)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "server"


@pytest.fixture
def operator(folder):
    with serving(folder, poll=0.5, patience=30.0, mains=True) as made:
        yield made


@pytest.fixture
def north(operator):
    with operator.newcomer("north") as made:
        yield made


@pytest.fixture
def south(operator):
    with operator.newcomer("south") as made:
        yield made


def submit(user, nodes=2, **changes):
    return user.submit(nodes, **{"rounds": 0, "strategy": {"main": "app:server"}, "initial": NOTHING} | changes)


def wanted(call, /, **changes):
    return mains.Wanted(**{"call": call, "round": 5, "message_type": "train"} | changes)


def asking(call, nodes, /, **changes):
    said = {"call": call, "round": 5, "message_type": "train", "ttl": 600.0, "content": content(1.0)}
    said |= {"messages": [100 * call + place for place in range(len(nodes))], "nodes": [each.member for each in nodes]}
    return mains.Asking(**said | changes)


def answers(user, run, after=0):
    return user.call("read_answers", run=run, after=after).answers


def test_a_run_waits_for_its_nodes_and_remembers_which_they_were(operator, north, south):
    run = submit(operator)
    north.poll()
    assert operator.call("offer_nodes", wanted(1), run=run).missing == "waits for 1 of 2 nodes that handle 'train'"
    assert operator.view(run).row.status == "waiting"
    north.poll()
    south.poll()
    roster = operator.call("offer_nodes", wanted(1), run=run)
    assert (roster.names, roster.nodes, roster.missing) == (["north", "south"], [north.member, south.member], "")
    assert operator.view(run).row.status == "running"
    with operator.newcomer("east") as east:
        for node in (east, north, south):
            node.poll()
        assert operator.call("offer_nodes", wanted(1), run=run) == roster
        assert operator.call("offer_nodes", wanted(2), run=run).names == ["east", "north", "south"]


def test_a_message_names_the_round_that_the_main_calls_it_by(operator, north):
    run = submit(operator, 1)
    operator.call("ask_nodes", asking(1, [north]), run=run)
    task = north.work()
    assert (task.run, task.message, task.round, task.message_type, task.fence) == (run, 100, 5, "train", 1)
    (question,) = operator.view(run).questions
    assert (question.round, question.node, question.outcome) == (5, "north", "sent")
    assert question.sent == content(1.0).size


def test_a_call_that_is_repeated_changes_nothing(operator, north):
    run = submit(operator, 1)
    first = operator.call("ask_nodes", asking(1, [north]), run=run)
    north.reply(north.work(), 2.0)
    assert operator.call("ask_nodes", asking(1, [north]), run=run) == first
    assert north.poll().tasks == []
    assert [told.message for told in answers(operator, run)] == [100]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"content": content(1.5)}, "content"),
        ({"round": 6}, "round"),
        ({"message_type": "evaluate"}, "type of message"),
        ({"messages": [101]}, "nodes"),
        ({"round": 6, "content": content(1.5)}, "round and another content"),
    ],
)
def test_the_same_call_with_other_words_is_refused_by_name(operator, north, changes, what):
    run = submit(operator, 1)
    operator.call("ask_nodes", asking(1, [north]), run=run)
    with pytest.raises(
        errors.MainDiffers, match=rf"1 messages of type 'train' in round 5, got another {what}: run the"
    ):
        operator.call("ask_nodes", asking(1, [north], **changes), run=run)
    with pytest.raises(errors.MainDiffers, match="another nodes and another content"):
        operator.call("offer_nodes", wanted(1), run=run)
    assert len(operator.view(run).questions) == 1


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"call": 3}, errors.WrongState, "expected call 2 of the main, got call 3"),
        ({"call": 0}, errors.WrongState, "expected call 2"),
        ({"messages": [100, 101]}, errors.Conflict, "different numbers, got 100 again"),
        ({"messages": [7, 7]}, errors.Conflict, "different numbers, got 7 again"),
        ({"messages": [7]}, errors.BadValue, "a node for each"),
        ({"messages": [], "nodes": []}, errors.BadValue, "expected messages"),
        ({"ttl": 0.0}, errors.BadValue, "above 0"),
        ({"message_type": ""}, errors.BadValue, "1 to 256"),
        ({"message_type": "x" * 257}, errors.BadValue, "got 257"),
        ({"nodes": [1, 99]}, errors.NotFound, "no node has the number 1"),
        ({"nodes": [99, 1]}, errors.NotFound, "no member has the number 99"),
    ],
)
def test_a_call_that_cannot_be_is_refused_and_changes_nothing(operator, north, south, changes, error, said):
    run = submit(operator)
    operator.call("ask_nodes", asking(1, [north, south]), run=run)
    with pytest.raises(error, match=said):
        operator.call("ask_nodes", asking(2, [north, south], **changes), run=run)
    operator.call("ask_nodes", asking(2, [north, south]), run=run)
    assert len(operator.view(run).questions) == 4


def test_a_run_is_driven_by_its_owner_alone(operator, north):
    with operator.newcomer("ada", "user") as ada, operator.newcomer("eve", "user") as eve:
        run = submit(ada, 1)
        for other in (eve, operator):
            for name, body in (
                ("offer_nodes", wanted(1)),
                ("ask_nodes", asking(1, [north])),
                ("read_answers", None),
                ("give_up", mains.GivenUp(messages=[1])),
                ("end_run", mains.Ending()),
            ):
                with pytest.raises(errors.NotFound, match="no run of yours"):
                    other.call(name, body, run=run)
        for name in ("offer_nodes", "read_answers"):
            with pytest.raises(errors.Forbidden):
                north.call(name, wanted(1), run=run)
        ada.call("ask_nodes", asking(1, [north]), run=run)
        operator.call("stop_run", run=run)
        assert ada.until(run, "stopped").row.reason == "stopped by request"


def test_users_drive_runs_only_where_the_operator_lets_them(folder):
    with serving(folder, mains=True) as operator, operator.newcomer("ada", "user") as ada:
        run = submit(ada, 1)
    with serving(folder) as operator, Actor(operator.url, ada.identity, ada.member) as ada:
        for ask in (lambda: submit(ada, 1), lambda: answers(ada, run)):
            with pytest.raises(errors.Forbidden, match="the operator alone may see; umbel server --mains"):
                ask()
        submit(operator, 1)
        ada.submit(1)
        assert [row.owner for row in operator.call("list_runs").runs] == ["ada", "operator", "ada"]


def test_a_run_with_a_strategy_is_driven_by_the_server_alone(operator, north):
    run = operator.submit(1)
    with pytest.raises(errors.WrongState, match="a run that a main drives"):
        operator.call("ask_nodes", asking(1, [north]), run=run)


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": {"main": "app:server", "name": "fedavg"}},
        {"strategy": {"main": "server"}},
        {"strategy": {"main": 7}},
        {"strategy": {"main": ":" * 257}},
        {"rounds": 1},
        {"initial": content(0.0)},
        {"seed": -1},
        {"nodes": 0},
    ],
)
def test_a_run_that_no_main_can_drive_is_refused(operator, changes):
    with pytest.raises(errors.UsageError):
        submit(operator, **changes)
    assert operator.call("list_runs").runs == []


def test_what_came_is_told_in_one_order_over_a_restart(folder):
    with serving(folder) as operator, operator.newcomer("north") as north, operator.newcomer("south") as south:
        with operator.newcomer("east") as east:
            run = submit(operator, 3)
            operator.call("ask_nodes", asking(1, [north, south, east]), run=run)
            south.reply(south.work(), 2.0)
            first = answers(operator, run)
            operator.call("revoke_member", member=east.member)
        north.reply(north.work(), content=None, error_code=2, error_reason="no room")
        rest = answers(operator, run, after=1)
        rest += answers(operator, run, after=2) if len(rest) == 1 else []
        assert [told.message for told in (*first, *rest)] == [101, 102, 100]
        assert (first[0].content, first[0].at > 0) == (content(2.0), True)
        lost, failed = rest
        assert (lost.error_code, lost.error_reason, lost.at) == (
            ErrorCode.NODE_UNAVAILABLE,
            "node 'east' was revoked",
            0,
        )
        assert (failed.error_code, failed.error_reason) == (2, "no room")
        outcomes = {question.node: (question.outcome, question.reason) for question in operator.view(run).questions}
        assert outcomes == {
            "south": ("replied", ""),
            "east": ("lost", "node 'east' was revoked"),
            "north": ("lost", "no room"),
        }
    with serving(folder) as operator:
        assert answers(operator, run) == [*first, *rest]
        assert answers(operator, run, after=2) == [failed]
        assert len(operator.view(run).restarts) == 1


def test_what_came_while_nobody_asked_is_told_after_a_restart(folder):
    with serving(folder) as operator, operator.newcomer("north") as north:
        run = submit(operator, 1)
        operator.call("ask_nodes", asking(1, [north]), run=run)
        north.reply(north.work(), 3.0)
    with serving(folder) as operator:
        assert [told.content for told in answers(operator, run)] == [content(3.0)]


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "not told"])
def test_an_answer_that_the_disk_has_lost_is_asked_for_again_and_keeps_its_place(folder, is_told):
    said, blobs = blob(5.0)
    ((digest, data),) = blobs.items()
    with serving(folder) as operator, operator.newcomer("north") as north:
        north.runner.run(north.client.put_blob(digest, data))
        run = submit(operator, 1)
        operator.call("ask_nodes", asking(1, [north]), run=run)
        north.reply(north.work(), content=said)
        if is_told:
            assert [told.content for told in answers(operator, run)] == [said]
    name = digest.removeprefix("blake3:")
    (folder / "blobs" / name[:2] / name[2:]).write_bytes(bytes(len(data)))
    (folder / "boot").write_text("another boot")
    with (
        serving(folder, poll=0.2, patience=30.0) as operator,
        Actor(operator.url, north.identity, north.member) as north,
    ):
        assert answers(operator, run) == []
        task = north.work()
        assert (task.message, task.fence > 1) == (100, True)
        north.runner.run(north.client.put_blob(digest, data))
        north.reply(task, content=said)
        assert [told.content for told in answers(operator, run)] == [said]
        assert answers(operator, run, after=1) == []


def test_a_message_that_is_given_up_is_forgotten_by_its_node_and_never_told(operator, north, south):
    run = submit(operator)
    operator.call("ask_nodes", asking(1, [north, south]), run=run)
    north.work()
    for _ in range(2):
        operator.call("give_up", mains.GivenUp(messages=[100]), run=run)
    assert [gone.message for gone in north.poll().cancelled] == [100]
    south.reply(south.work())
    assert [told.message for told in answers(operator, run)] == [101]
    assert answers(operator, run, after=1) == []


def test_a_run_that_is_stopped_asks_again_what_was_open_when_it_goes_on(operator, north, south):
    run = submit(operator)
    operator.call("ask_nodes", asking(1, [north, south]), run=run)
    north.reply(north.work(), 2.0)
    told = answers(operator, run)
    south.work()
    operator.call("stop_run", run=run)
    with pytest.raises(errors.WrongState, match="got one that is stopped"):
        answers(operator, run, after=1)
    assert len(south.poll().cancelled) == 1
    with pytest.raises(errors.UsageError, match="whose main decides"):
        operator.call("resume_run", wire.Resume(rounds=3), run=run)
    operator.call("resume_run", run=run)
    operator.call("ask_nodes", asking(1, [north, south]), run=run)
    assert south.work().fence == 2
    south.reply(south.work(), 4.0)
    assert [each.content for each in (*told, *answers(operator, run, after=1))] == [content(2.0), content(4.0)]
    assert north.poll().tasks == []


def test_a_main_that_has_failed_says_why_and_can_go_on(operator, north):
    run = submit(operator, 1)
    operator.call("ask_nodes", asking(1, [north]), run=run)
    for _ in range(2):  # the first answer may have been lost
        operator.call("end_run", mains.Ending(reason="ValueError: no"), run=run)
    view = operator.view(run)
    assert (view.row.status, view.row.reason) == ("failed", "ValueError: no")
    assert operator.call("run_events", run=run, after=0).ended
    with pytest.raises(errors.WrongState):
        operator.call("end_run", mains.Ending(), run=run)
    operator.call("resume_run", run=run)
    north.reply(north.work())
    assert len(answers(operator, run)) == 1


def test_a_main_that_has_ended_leaves_a_model_and_nothing_open(operator, north):
    run = submit(operator, 1)
    operator.call("ask_nodes", asking(1, [north]), run=run)
    north.work()
    state = content(9.0, metrics=False)
    name = state.records[0].part.digest
    for _ in range(2):
        operator.call("end_run", mains.Ending(digest=name, state=state), run=run)
    view = operator.view(run)
    assert (view.row.status, view.digest, view.model) == ("completed", name, state)
    assert [question.outcome for question in view.questions] == ["cancelled"]
    assert len(north.poll().cancelled) == 1
    with pytest.raises(errors.WrongState, match="completed"):
        operator.call("resume_run", run=run)


def test_whoever_watches_sees_what_is_asked_and_that_the_main_is_silent(operator, north, monkeypatch):
    run = submit(operator, 1)
    operator.call("ask_nodes", asking(1, [north]), run=run)
    (line,) = operator.call("run_events", run=run, after=0).events
    assert (line.kind, line.fields) == ("Asked", {"type": "train", "nodes": 1})
    assert operator.view(run).row.status == "running"
    monkeypatch.setattr(_mains, "_QUIET", 0.0)
    row = operator.view(run).row
    assert (row.status, "waits for its main, of which nothing was heard for" in row.reason) == ("waiting", True)


def test_a_main_that_ends_before_it_has_asked_what_it_asked_before_is_another(operator, north):
    run = submit(operator, 1)
    for call in (1, 2):
        operator.call("ask_nodes", asking(call, [north]), run=run)
        north.reply(north.work(), 1.0)
    with pytest.raises(
        errors.MainDiffers, match="makes the 2 calls that were made before, got one that has ended after 1"
    ):
        operator.call("end_run", mains.Ending(calls=1), run=run)
    assert operator.view(run).row.status == "running"
    operator.call("end_run", mains.Ending(calls=2), run=run)
    assert operator.view(run).row.status == "completed"
