"""Replies and time: whatever the clock says, a reply does not outlive the message it answers."""

from hypothesis import given
from hypothesis import strategies as st

from umbel.errors import MessageExpired
from umbel.message import Error, Message, Metadata
from umbel.records import RecordSet

IDS = st.integers(-(2**63), 2**63 - 1)
# Seconds since 1970 for some thousand years to come; the sum of two such numbers and their difference are exact.
TIMES = st.integers(2**30, 2**35).map(float)
LIVES = st.integers(1, 2**20).map(lambda quarter: quarter / 4)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    ids = draw(st.tuples(IDS, IDS, IDS, IDS, IDS, IDS))
    metadata = Metadata(*ids, draw(LIVES), draw(st.text(min_size=1)), draw(TIMES))
    return Message(metadata, content=RecordSet())


@given(messages(), st.none() | LIVES, st.floats(0, 1))
def test_a_reply_never_outlives_its_message(message: Message, ttl: float | None, part: float) -> None:
    asked = message.metadata
    now = asked.created_at + part * asked.ttl
    if now >= asked.expires_at:
        return
    for reply in (message.create_reply(RecordSet(), ttl, now=now), message.create_error_reply(Error(0), ttl, now=now)):
        answered = reply.metadata
        assert answered.expires_at <= asked.expires_at
        assert ttl is None or answered.ttl <= ttl
        assert (answered.src_node_id, answered.dst_node_id) == (asked.dst_node_id, asked.src_node_id)
        assert answered.reply_to_message == asked.message_id
        same = ("run_id", "group_id", "message_type")
        assert [getattr(answered, name) for name in same] == [getattr(asked, name) for name in same]


@given(messages(), LIVES | st.just(0.0))
def test_no_reply_can_be_made_once_time_is_up(message: Message, late: float) -> None:
    now = message.metadata.expires_at + late
    for reply in (
        lambda: message.create_reply(RecordSet(), now=now),
        lambda: message.create_error_reply(Error(0), now=now),
    ):
        try:
            reply()
        except MessageExpired:
            continue
        raise AssertionError(f"a reply {late} s late was made")
