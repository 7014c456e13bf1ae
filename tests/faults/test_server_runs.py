"""Runs of a server: who may see them, how they fail, stop and go on, and what they leave on the disk."""

import gc
import time

import pytest

from by_hand import PATIENCE, blob, content, serving
from umbel import errors
from umbel.http import wire
from umbel.server._log import Log


@pytest.fixture
def operator(tmp_path):
    with serving(tmp_path / "server") as made:
        yield made


@pytest.fixture
def node(operator):
    with operator.newcomer("north") as made:
        yield made


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def blobs_in(folder):
    return sum(path.is_file() for path in (folder / "server" / "blobs").rglob("*"))


def upload(actor, value, size=10_000):
    said, blobs = blob(value, size)
    for digest, data in blobs.items():
        actor.runner.run(actor.client.put_blob(digest, data))
    return said


def test_a_user_sees_and_stops_its_own_runs_alone(operator):
    with operator.newcomer("ada", "user") as ada, operator.newcomer("eve", "user") as eve:
        run = ada.submit(1)
        assert [row.owner for row in ada.call("list_runs").runs] == ["ada"]
        assert eve.call("list_runs").runs == []
        for question in (
            lambda: eve.view(run),
            lambda: eve.call("stop_run", run=run),
            lambda: eve.call("resume_run", run=run),
            lambda: eve.call("run_events", run=run, after=0),
            lambda: eve.view(run + 1),
        ):
            with pytest.raises(errors.NotFound, match="no run of yours"):
                question()
        assert [row.run for row in operator.call("list_runs").runs] == [run]
        operator.call("stop_run", run=run)
        assert ada.until(run, "stopped").row.reason == "stopped by request"


def test_a_user_is_no_operator_and_a_node_no_user(operator, node):
    with operator.newcomer("ada", "user") as ada:
        for name, actor in (("make_token", ada), ("read_audit", ada), ("list_tokens", ada), ("list_runs", node)):
            with pytest.raises(errors.Forbidden):
                actor.call(name)
        with pytest.raises(errors.Forbidden):
            ada.poll()


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"strategy": {"name": "fedadm"}}, errors.StrategyError, "no strategy 'fedadm'"),
        ({"strategy": {"name": "fedavg", "fraction": 2}}, errors.StrategyError, "fraction"),
        ({"strategy": {}}, errors.StrategyError, "no strategy ''"),
        ({"strategy": {"name": "fedbuff", "buffer": 2}}, errors.StrategyError, "needs concurrency"),
        ({"nodes": 0}, errors.UsageError, "nodes"),
        ({"nodes": []}, errors.UsageError, "nodes"),
        ({"nodes": ["a", "a"]}, errors.UsageError, "different names"),
        ({"rounds": -1}, errors.UsageError, "rounds"),
        ({"seed": -1}, errors.UsageError, "seed"),
        ({"config": {"round": 3}}, errors.UsageError, "round"),
        ({"initial": blob(1.0)[0]}, errors.NotFound, "no such blob"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_it_is_one(operator, changes, error, said):
    with pytest.raises(error, match=said):
        operator.submit(**{"nodes": 1} | changes)
    assert operator.call("list_runs").runs == []


def test_a_run_says_what_it_waits_for(operator, node):
    number, names = operator.submit(3), operator.submit(["north", "south", "east"])
    node.poll()
    wait_for(lambda: operator.view(number).row.reason == "waits for 2 of 3 nodes that handle 'train'")
    wait_for(lambda: operator.view(names).row.reason == "waits for nodes that handle 'train': south, east")
    assert {row.status for row in operator.call("list_runs").runs} == {"waiting"}


def test_only_nodes_that_handle_a_type_are_asked(operator, node):
    with operator.newcomer("south") as other:
        run = operator.submit(1)
        other.poll(types=["query"])
        node.reply(node.work())
        assert [question.node for question in operator.until(run, "completed").questions] == ["north"]


def test_nodes_that_are_named_are_the_only_ones_asked(operator, node):
    with operator.newcomer("south") as other:
        node.poll()
        other.poll()
        run = operator.submit(["south"])
        other.reply(other.work())
        assert [question.node for question in operator.until(run, "completed").questions] == ["south"]


def test_a_run_that_failed_asks_again_whose_answer_did_not_count(operator, node):
    with operator.newcomer("south") as other:
        run = operator.submit(2, strategy={"name": "fedavg", "min_updates": 2})
        node.poll()
        other.poll()
        node.reply(node.work(), 1.0)
        other.reply(other.work(), float("nan"))
        view = operator.until(run, "failed")
        assert "finite" in view.row.reason
        assert [question.outcome for question in view.questions] == ["accepted", "refused"]
        operator.call("resume_run", run=run)
        again = other.work()
        assert again.fence == 2
        other.reply(again, 3.0)
        view = operator.until(run, "completed")
        assert [question.outcome for question in view.questions] == ["accepted", "accepted"]
        assert node.poll() == wire.Polled(tasks=[], cancelled=[])


def test_a_run_that_goes_on_cannot_be_resumed_nor_one_that_ended_stopped(operator, node):
    run = operator.submit(1)
    with pytest.raises(errors.WrongState):
        operator.call("resume_run", run=run)
    node.reply(node.work())
    operator.until(run, "completed")
    for name in ("stop_run", "resume_run"):
        with pytest.raises(errors.WrongState):
            operator.call(name, run=run)


def test_a_run_goes_on_to_no_fewer_rounds(operator):
    run = operator.submit(1, rounds=3)
    operator.call("stop_run", run=run)
    operator.until(run, "stopped")
    with pytest.raises(errors.UsageError, match="at least 3 rounds"):
        operator.call("resume_run", wire.Resume(rounds=2), run=run)


def test_several_runs_share_a_node(operator, node):
    found = [operator.submit(1, rounds=2) for _ in range(3)]
    for _ in range(6):
        node.reply(node.work())
    assert {operator.until(run, "completed").row.completed for run in found} == {2}


def test_events_are_numbered_and_none_is_told_twice_over_a_restart(tmp_path):
    with serving(tmp_path / "server") as operator, operator.newcomer("north") as node:
        run = operator.submit(1, rounds=3)
        node.reply(node.work())
        wait_for(lambda: operator.view(run).row.completed == 1)
        before = operator.call("run_events", run=run, after=0).events
        identity, member = node.identity, node.member
    kinds = [line.kind for line in before]
    assert kinds[:4] == ["RunStarted", "RoundStarted", "UpdateAccepted", "RoundCompleted"]
    numbers = [line.number for line in before]
    assert numbers == sorted(set(numbers))
    with serving(tmp_path / "server") as operator, type(operator)(operator.url, identity, member) as node:
        for _ in range(2):
            node.reply(node.work())
        operator.until(run, "completed")
        after = operator.call("run_events", run=run, after=numbers[-1])
        rounds = [line.fields["report"]["round"] for line in after.events if line.kind == "RoundCompleted"]
        assert rounds == [2, 3]
        assert after.events[-1].kind == "RunCompleted"
        assert operator.call("run_events", run=run, after=after.events[-1].number) == wire.Events(events=[], ended=True)


def test_the_blobs_of_a_closed_round_go(tmp_path):
    with serving(tmp_path / "server") as operator, operator.newcomer("north") as node:
        run = operator.submit(1, rounds=3, initial=upload(operator, 0.0))
        for value in (1.0, 2.0, 3.0):
            task = node.work()
            node.reply(task, content=upload(node, value))
        operator.until(run, "completed")
        wait_for(lambda: blobs_in(tmp_path) == 2)  # the model to begin with, and the last one


def test_a_model_that_does_not_change_is_not_written_again(tmp_path):
    with serving(tmp_path / "server") as operator, operator.newcomer("north") as node:
        run = operator.submit(1, rounds=3, initial=upload(operator, 1.0))
        files = {
            path.name: path.stat().st_mtime_ns for path in (tmp_path / "server/blobs").rglob("*") if path.is_file()
        }
        said = blob(1.0)[0]
        record = said.records[0].part.digest
        assert node.runner.run(node.client.stat_blob(record))[1], "the update is the model that is there"
        for _ in range(3):
            node.reply(node.work(), content=said)
        operator.until(run, "completed")
        left = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "server/blobs").rglob("*") if path.is_file()}
        assert left == files


def test_rows_of_old_rounds_are_trimmed_and_reports_stay(tmp_path):
    with serving(tmp_path / "server", keep=2) as operator, operator.newcomer("north") as node:
        run = operator.submit(1, rounds=5)
        for _ in range(5):
            node.reply(node.work())
        view = operator.until(run, "completed")
        assert [report["round"] for report in view.reports] == [1, 2, 3, 4, 5]
        assert [question.round for question in view.questions] == [4, 5]


def test_the_model_of_a_run_can_be_fetched_at_any_time(operator, node):
    run = operator.submit(1, rounds=2)
    assert operator.view(run).model is None
    node.reply(node.work(), 4.0)
    wait_for(lambda: operator.view(run).row.completed == 1)
    view = operator.view(run)
    assert [named.name for named in view.model.records] == ["model"]
    assert view.model.records[0].part.digest == view.digest == content(4.0).records[0].part.digest


def test_figures_for_prometheus(operator, node):
    run = operator.submit(1)
    node.reply(node.work())
    operator.until(run, "completed")
    text = operator.call("metrics").decode()
    for line in ("umbel_rounds_total 1.0", 'umbel_messages_total{outcome="accepted"} 1.0', "umbel_nodes_online 1.0"):
        assert line in text.splitlines()
    assert 'umbel_requests_total{answer="ok",endpoint="reply"} 1.0' in text.splitlines()


def test_the_logs_of_runs_that_have_ended_are_few_however_many_are_watched(operator):
    runs = [operator.submit(1) for _ in range(40)]
    for run in runs:
        operator.call("stop_run", run=run)
        operator.until(run, "stopped")
    for run in runs:
        assert operator.call("run_events", run=run, after=0).ended
    gc.collect()
    assert sum(type(each) is Log for each in gc.get_objects()) <= 20
    assert operator.call("run_events", run=runs[0], after=0).ended
