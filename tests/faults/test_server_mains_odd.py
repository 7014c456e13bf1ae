"""What is rare between the main of a run and its server: nodes of one name, repeats, bounds, ends that meet a stop."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from by_hand import Actor, content, serving
from test_server_mains import NOTHING, answers, asking, submit, wanted
from umbel import _clock, errors
from umbel.cli._grid import RemoteGrid
from umbel.cli._remote import Remote
from umbel.cli._servers import operator_of
from umbel.http import mains
from umbel.message import ErrorCode, Message, Metadata
from umbel.records import RecordSet
from umbel.server._mains import Mains
from umbel.store import calls, runs

MODEL = content(9.0, metrics=False)


def message(node, number, content=None):
    now = _clock.now()
    return Message(
        Metadata(
            run_id=1,
            message_id=number,
            src_node_id=0,
            dst_node_id=node,
            reply_to_message=0,
            group_id=1,
            ttl=600.0,
            message_type="train",
            created_at=now,
        ),
        content or RecordSet(),
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "server"


@pytest.fixture
def operator(folder):
    with serving(folder, poll=0.5, patience=30.0) as made:
        yield made


@pytest.fixture
def north(operator):
    with operator.newcomer("north") as made:
        yield made


def test_two_nodes_of_one_name_are_asked_in_one_call_over_a_restart(folder):
    with serving(folder) as operator, operator.newcomer("north") as gone:
        operator.call("revoke_member", member=gone.member)
        with operator.newcomer("north") as north:
            run = submit(operator, 1)
            first = operator.call("ask_nodes", asking(1, [gone, north]), run=run)
            assert north.work().message == 101
    with serving(folder) as operator, Actor(operator.url, north.identity, north.member) as north:
        assert operator.call("ask_nodes", asking(1, [gone, north]), run=run) == first
        north.reply(north.work())
        codes = {told.message: told.error_code for told in answers(operator, run)}
        codes |= {told.message: told.error_code for told in answers(operator, run, after=len(codes))}
        assert codes == {100: ErrorCode.NODE_UNAVAILABLE, 101: None}


def test_a_call_has_a_bounded_number_of_messages(operator, north):
    run = submit(operator, 1)
    numbers = list(range(1, 10_002))
    for name, body in (
        ("ask_nodes", asking(1, [], messages=numbers, nodes=[north.member] * len(numbers))),
        ("give_up", mains.GivenUp(messages=numbers)),
    ):
        with pytest.raises(errors.BadValue, match="up to 10000 messages at once, got 10001"):
            operator.call(name, body, run=run)
    assert operator.view(run).questions == []
    operator.call("give_up", mains.GivenUp(messages=numbers[:10_000]), run=run)


def test_a_grid_gives_more_up_in_several_calls(folder, monkeypatch):
    monkeypatch.setattr(mains, "AT_ONCE", 10)
    with serving(folder) as operator, operator.newcomer("north") as north:
        run = submit(operator, 1)
        remote = Remote(operator_of(folder))
        grid = RemoteGrid(remote, run, folder, lambda *_, **__: None)
        sent = [message(north.member, number) for number in range(1, 26)]
        grid.send(sent)
        grid.cancel([each.metadata.message_id for each in sent])
        remote.close()
        outcomes = [question.outcome for question in operator.view(run).questions]
        assert outcomes == ["cancelled"] * 25


@pytest.mark.parametrize(
    ("digest", "state"),
    [
        ("blake3:" + "0" * 64, MODEL),
        ("", MODEL),
        (MODEL.records[0].part.digest, None),
        (MODEL.records[0].part.digest, NOTHING),
        ("", NOTHING),
    ],
)
def test_an_end_whose_digest_is_not_that_of_its_model_is_none(operator, digest, state):
    run = submit(operator, 1)
    with pytest.raises(errors.BadValue, match="expected as the digest"):
        operator.call("end_run", mains.Ending(digest=digest, state=state), run=run)
    assert operator.view(run).row.status == "waiting"
    for _ in range(2):
        operator.call("end_run", mains.Ending(digest=MODEL.records[0].part.digest, state=MODEL), run=run)
    with pytest.raises(errors.WrongState, match="completed"):
        operator.call("end_run", mains.Ending(), run=run)


class Held:
    """A function of the server that waits, once it is called, until a test has done something meanwhile."""

    def __init__(self, function):
        self.function = function
        self.is_called, self.may_go = threading.Event(), threading.Event()

    def __call__(self, *args, **kwargs):
        self.is_called.set()
        assert self.may_go.wait(30)
        return self.function(*args, **kwargs)


def test_a_run_that_is_stopped_before_its_main_can_drive_it_is_stopped(operator, monkeypatch):
    held = Held(lambda: None)
    start = Mains.start

    async def late(self, *args):
        await asyncio.to_thread(held)
        await start(self, *args)

    monkeypatch.setattr(Mains, "start", late)
    with ThreadPoolExecutor(1) as other, operator.again() as again:
        run = other.submit(submit, again, 1)
        assert held.is_called.wait(30)
        operator.call("stop_run", run=1)
        held.may_go.set()
        assert run.result() == 1
    assert operator.view(1).row.status == "stopped"
    operator.call("resume_run", run=1)
    assert operator.view(1).row.status == "waiting"


def test_a_run_whose_stop_the_disk_refuses_can_be_stopped_again(operator, monkeypatch):
    run, set_status, refused = submit(operator, 1), runs.set_status, []

    def refuse_once(connection, run, status, **told):
        if status == "stopped" and not refused:
            refused.append(run)
            raise errors.StorageFull("expected room for a commit, got none", at="ledger")
        return set_status(connection, run, status, **told)

    monkeypatch.setattr(runs, "set_status", refuse_once)
    with pytest.raises(errors.UmbelError):
        operator.call("stop_run", run=run)
    assert (refused, operator.view(run).row.status) == ([run], "stopping")
    operator.call("stop_run", run=run)
    assert operator.view(run).row.status == "stopped"


def test_answers_wait_until_the_server_has_read_where_a_run_is(operator, north, monkeypatch):
    run = submit(operator, 1)
    operator.call("ask_nodes", asking(1, [north]), run=run)
    north.reply(north.work())
    first = answers(operator, run)
    operator.call("stop_run", run=run)
    held = Held(calls.told)
    monkeypatch.setattr(calls, "told", held)
    with ThreadPoolExecutor(2) as others, operator.again() as again, operator.again() as third:
        resumed = others.submit(again.call, "resume_run", run=run)
        assert held.is_called.wait(30)
        told = others.submit(answers, third, run)
        with suppress(TimeoutError):
            assert told.result(timeout=1.0) == first  # longer than an answer is held
        held.may_go.set()
        resumed.result()
        assert told.result() == first


def test_what_a_main_waited_for_is_forgotten_once_it_asks_no_more(operator, north):
    run = submit(operator, 2)
    assert operator.call("offer_nodes", wanted(1), run=run).missing
    assert operator.view(run).row.reason == ""
