"""Messages: exactly one of content and error, replies that fit, and times that can be tested."""

import copy
import pickle

import msgspec
import pytest

from umbel.errors import MessageError, MessageExpired
from umbel.message import DEFAULT_TTL, Error, ErrorCode, Message, MessageType, Metadata
from umbel.records import ConfigsRecord, RecordSet


def metadata(**changes: object) -> Metadata:
    """Metadata of a message from the server (node 1) to node 7, created at second 100 with 10 seconds to live."""
    fields: dict[str, object] = {
        "run_id": 11,
        "message_id": 12,
        "src_node_id": 1,
        "dst_node_id": 7,
        "reply_to_message": 0,
        "group_id": 3,
        "ttl": 10.0,
        "message_type": MessageType.TRAIN,
        "created_at": 100.0,
    }
    return Metadata(**{**fields, **changes})  # type: ignore[arg-type]


def content(value: int = 1) -> RecordSet:
    return RecordSet(configs_records={"config": ConfigsRecord({"value": value})})


def test_a_message_with_content_has_no_error() -> None:
    message = Message(metadata(), content=content())
    assert message.has_content()
    assert not message.has_error()
    assert message.content == content()
    with pytest.raises(MessageError, match="has_error"):
        _ = message.error


def test_a_message_with_an_error_has_no_content() -> None:
    message = Message(metadata(), error=Error(ErrorCode.UNKNOWN, "why"))
    assert message.has_error()
    assert not message.has_content()
    assert message.error.reason == "why"
    with pytest.raises(MessageError, match="has_content"):
        _ = message.content


@pytest.mark.parametrize("parts", [{}, {"content": content(), "error": Error(0)}])
def test_exactly_one_of_content_and_error(parts: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="exactly one of content= and error="):
        Message(metadata(), **parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ({"metadata": {}, "content": content()}, "message.metadata"),
        ({"metadata": metadata(), "content": {}}, "message.content"),
        ({"metadata": metadata(), "error": "broken"}, "message.error"),
    ],
)
def test_parts_of_the_wrong_type_are_refused(arguments: dict[str, object], place: str) -> None:
    with pytest.raises(MessageError) as caught:
        Message(**arguments)  # type: ignore[arg-type]
    assert caught.value.at == place


@pytest.mark.parametrize("name", ["run_id", "message_id", "src_node_id", "dst_node_id", "reply_to_message", "group_id"])
@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, True, 1.0, "1", None])
def test_ids_are_signed_64_bit_integers(name: str, value: object) -> None:
    with pytest.raises(MessageError, match="64 bits") as caught:
        metadata(**{name: value})
    assert caught.value.at == f"metadata.{name}"


def test_ids_may_use_all_64_bits() -> None:
    assert metadata(run_id=2**63 - 1, dst_node_id=-(2**63)).run_id == 2**63 - 1


@pytest.mark.parametrize("ttl", [0, -1.0, float("nan"), float("inf"), "10", None, True])
def test_a_time_to_live_is_finite_and_positive(ttl: object) -> None:
    with pytest.raises(MessageError, match="time to live"):
        metadata(ttl=ttl)


@pytest.mark.parametrize("created_at", [float("nan"), float("-inf"), "now", None])
def test_the_time_of_creation_is_finite(created_at: object) -> None:
    with pytest.raises(MessageError, match="seconds since 1970"):
        metadata(created_at=created_at)


@pytest.mark.parametrize("message_type", ["", None, 3])
def test_a_message_type_is_text(message_type: object) -> None:
    with pytest.raises(MessageError, match="message type"):
        metadata(message_type=message_type)


@pytest.mark.parametrize("code", [True, 1.0, "1", None, 2**63])
def test_an_error_code_is_an_integer(code: object) -> None:
    with pytest.raises(MessageError, match="ErrorCode"):
        Error(code)  # type: ignore[arg-type]


def test_an_error_reason_is_text() -> None:
    with pytest.raises(MessageError, match="str or None"):
        Error(1, b"bytes")  # type: ignore[arg-type]
    with pytest.raises(MessageError, match="lone surrogate"):
        Error(1, "file \udc80")
    assert Error(1, "Grüße 🌼").reason == "Grüße 🌼"


def test_a_reply_goes_back_to_where_the_message_came_from() -> None:
    message = Message(metadata(), content=content())
    reply = message.create_reply(content(2), now=104.0)
    assert reply.content == content(2)
    assert reply.metadata == metadata(
        message_id=0, src_node_id=7, dst_node_id=1, reply_to_message=12, ttl=6.0, created_at=104.0
    )


def test_an_error_reply_goes_back_to_where_the_message_came_from() -> None:
    message = Message(metadata(), content=content())
    reply = message.create_error_reply(Error(2, "no data"), now=104.0)
    assert reply.error == Error(2, "no data")
    assert reply.metadata == message.create_reply(content(), now=104.0).metadata


@pytest.mark.parametrize(("asked", "given"), [(None, 6.0), (2.0, 2.0), (6.0, 6.0), (6.5, 6.0), (1e9, 6.0)])
def test_a_reply_never_outlives_its_message(asked: float | None, given: float) -> None:
    message = Message(metadata(), content=content())
    assert message.create_reply(content(), asked, now=104.0).metadata.ttl == given
    assert message.create_error_reply(Error(0), asked, now=104.0).metadata.ttl == given


@pytest.mark.parametrize("now", [110.0, 110.5, 1e12])
def test_a_reply_to_an_expired_message_is_refused(now: float) -> None:
    message = Message(metadata(), content=content())
    with pytest.raises(MessageExpired, match="longer ttl") as caught:
        message.create_reply(content(), now=now)
    assert caught.value.at == "message 12"
    with pytest.raises(MessageExpired):
        message.create_error_reply(Error(0), ttl=5.0, now=now)


def test_a_reply_cannot_be_asked_to_live_no_time() -> None:
    with pytest.raises(MessageError, match="time to live"):
        Message(metadata(), content=content()).create_reply(content(), 0.0, now=104.0)


def test_without_times_the_clock_is_read() -> None:
    asked = Metadata(1, 2, 3, 4, 0, 5, DEFAULT_TTL, "train")
    reply = Message(asked, content=content()).create_reply(content())
    assert asked.created_at <= reply.metadata.created_at
    assert reply.metadata.expires_at <= asked.expires_at


def test_comparison_never_raises() -> None:
    message = Message(metadata(), content=content())
    assert message == Message(metadata(), content=content())
    assert message != Message(metadata(), content=content(2))
    assert message != Message(metadata(), error=Error(0))
    for value in (message, message.metadata, Error(0)):
        for other in (None, 3, "text", object(), message.content):
            assert value != other


def test_everything_is_frozen() -> None:
    message = Message(metadata(), content=content())
    for value, name in ((message, "metadata"), (message, "content"), (message.metadata, "ttl"), (Error(0), "code")):
        with pytest.raises(AttributeError):
            setattr(value, name, None)
        with pytest.raises(AttributeError):
            delattr(value, name)
    with pytest.raises(TypeError, match="unhashable"):
        hash(message)


def test_a_changed_value_is_a_new_one_and_checked_again() -> None:
    assert msgspec.structs.replace(metadata(), message_id=99) == metadata(message_id=99)
    with pytest.raises(MessageError):
        msgspec.structs.replace(metadata(), ttl=-1)


def test_messages_can_be_copied_and_pickled() -> None:
    for message in (Message(metadata(), content=content()), Message(metadata(), error=Error(3, "gone"))):
        assert copy.copy(message) == message
        assert copy.deepcopy(message) == message
        assert pickle.loads(pickle.dumps(message)) == message


def test_repr_shows_what_is_carried() -> None:
    assert "error=Error(code=3, reason='gone')" in repr(Message(metadata(), error=Error(3, "gone")))
    assert "content=RecordSet" in repr(Message(metadata(), content=content()))


def test_the_names_and_codes_of_the_wire_do_not_change() -> None:
    assert [str(name) for name in MessageType] == ["train", "evaluate", "query"]
    assert {code.name: int(code) for code in ErrorCode} == {
        "UNKNOWN": 0,
        "LOAD_CLIENT_APP_EXCEPTION": 1,
        "CLIENT_APP_RAISED_EXCEPTION": 2,
        "MESSAGE_UNAVAILABLE": 3,
        "REPLY_MESSAGE_UNAVAILABLE": 4,
        "NODE_UNAVAILABLE": 5,
        "MOD_FAILED_PRECONDITION": 6,
        "UNKNOWN_MESSAGE_TYPE": 100,
        "BAD_REPLY": 101,
        "NOT_ALLOWED": 102,
        "HANDLER_LOST": 103,
    }


@pytest.mark.parametrize(
    ("at", "passed", "ttl", "created_at"),
    [(105.0, 4.0, 6.0, 105.0), (105.0, -1.0, 10.0, 105.0), (0.0, 4.0, 10.0, 100.0), (900.0, 800.0, 10.0 * 1e-6, 900.0)],
)
def test_an_answer_that_was_kept_has_some_time_left(at, passed, ttl, created_at):
    asked = Metadata(1, 2, 3, 4, 5, 6, 10.0, "train", 100.0)
    found = asked.answered(at, passed)
    assert found == Metadata(1, 0, 4, 3, 2, 6, found.ttl, "train", created_at)
    assert found.ttl == pytest.approx(ttl)
    assert found.ttl > 0
