"""What is rare between the main of a run and its server: nodes of one name, repeats, bounds, ends that meet a stop."""

import pytest

from by_hand import Actor, content, serving
from test_server_mains import NOTHING, answers, asking, submit
from umbel import _clock, errors
from umbel.cli._grid import RemoteGrid
from umbel.cli._remote import Remote
from umbel.cli._servers import operator_of
from umbel.http import mains
from umbel.message import ErrorCode, Message, Metadata
from umbel.records import RecordSet

MODEL = content(9.0, metrics=False)


def message(node, number, content=RecordSet()):  # noqa: B008 - nothing changes it
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
        content,
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


def test_a_grid_gives_more_up_in_several_calls(folder):
    with serving(folder) as operator, operator.newcomer("north") as north:
        run = submit(operator, 1)
        remote = Remote(operator_of(folder))
        grid = RemoteGrid(remote, run, folder, lambda *_, **__: None)
        sent = [message(north.member, number) for number in range(1, 10_002)]
        grid.send(sent)
        grid.cancel([each.metadata.message_id for each in sent])
        remote.close()
        outcomes = [question.outcome for question in operator.view(run).questions]
        assert outcomes == ["cancelled"] * 10_001


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
