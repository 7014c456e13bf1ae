"""Replies of nodes, each counted once. Each function is an operation of a ledger.

A reply has an identity, the BLAKE3 hash of what it says without how long that took: the same reply sent again gets the
same answer, another one under the same number is a conflict.
"""

from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa
from blake3 import blake3

from umbel.envelope import Content, blobs_of
from umbel.errors import Fenced, NotFound, ReplyConflict
from umbel.store import _tables as tables
from umbel.store import references
from umbel.store._json import legible, packed, unpacked
from umbel.store._quick import Quick
from umbel.store.references import Present

__all__ = ["Accepted", "Given", "Reply", "accept", "of_message", "of_open_phases", "of_phase", "retract", "times"]


class Reply(msgspec.Struct, frozen=True):
    """What a node answers to one message: content or an error, never both.

    ``received`` are the bytes that came with it, ``seconds`` where the node's time went, by phase.
    """

    run: int
    message: int
    fence: int
    content: Content | None = None
    error_code: int | None = None
    error_reason: str | None = None
    received: int = 0
    seconds: dict[str, float] = {}


class Accepted(NamedTuple):
    """The reply is on the disk. ``counted`` is false for one that came too late to count, with the reason."""

    counted: bool
    reason: str = ""


class Given(NamedTuple):
    """A reply that counts, as the ledger has it."""

    message: int
    slot: int
    node: int
    content: Content | None
    error_code: int | None
    error_reason: str | None


class _Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """What makes a reply this reply and no other."""

    content: Content | None = None
    error_code: int | None = None
    error_reason: str | None = None


def accept(connection: sa.Connection, reply: Reply, *, node: int, now: float, present: Present) -> Accepted:
    """Take a reply: it counts if its message is open and its fencing number the last one given.

    The same reply again returns the same. One to a message that was lost is noted as late; one to a message that was
    cancelled is not kept.

    Raises:
        NotFound: if this node has no such message.
        Fenced: if the message was handed out again since.
        ReplyConflict: if the message was answered otherwise before.
        BlobMissing: if a blob of the content is not in the store; nothing has changed then.

    """
    row = _FIND(connection, {"run": reply.run, "message": reply.message, "node": node}).fetchone()
    if row is None:
        raise NotFound(f"this node has no message {reply.message} in run {reply.run}", at="message")
    found = _Found(*row)
    said = _said(reply)
    identity = blake3(said.encode()).digest()
    if found.identity is not None:
        return _again(found, reply, identity)
    if found.status == "planned" and found.fence != reply.fence:
        raise _fenced(found, reply)
    if found.status == "planned" and now < found.ends_at:
        return _count(connection, reply, _Kept(said, identity, now, found.round), present)
    return _late(connection, found, reply, _Kept(None, identity, now, found.round))


def of_phase(connection: sa.Connection, run: int, round: int, phase: str) -> list[Given]:  # noqa: A002 - the field's word
    """Return the replies of a phase that count, by slot; none once its round is closed, which drops them."""
    rows = connection.execute(_GIVEN, {"run": run, "round": round, "phase": phase})
    return [_given(row) for row in rows]


def of_message(connection: sa.Connection, run: int, message: int) -> Given | None:
    """Return the reply to one message if it counts, and if its round is not closed."""
    row = connection.execute(_GIVEN_ONE, {"run": run, "message": message}).first()
    return None if row is None else _given(row)


def times(connection: sa.Connection, run: int, round: int, phase: str) -> dict[int, float]:  # noqa: A002 - likewise
    """Return when the replies of a phase that count came, in seconds since 1970, by message, the first one first."""
    rows = connection.execute(_TIMES, {"run": run, "round": round, "phase": phase})
    return {row.message: row.received_at for row in rows}


def of_open_phases(connection: sa.Connection) -> list[tuple[int, Given]]:
    """Return the replies that count towards rounds that are not closed, each behind the number of its run."""
    return [(row.run, _given(row)) for row in connection.execute(_GIVEN_OPEN)]


def retract(connection: sa.Connection, run: int, message: int) -> None:
    """Forget a reply whose blobs were lost, and open its message again under the next number."""
    key = {"run": run, "message": message}
    references.release(connection, run, f"message {message}")
    for forget in _FORGET:
        connection.execute(forget, key)
    connection.execute(_REOPEN, {"its_run": run, "which": message})


class _Found(NamedTuple):
    """A message with its phase, and its reply if it has one."""

    status: str
    reason: str
    fence: int
    round: int
    ends_at: float
    identity: bytes | None
    counted: bool | None


class _Kept(NamedTuple):
    """What a row of a reply is made of."""

    answer: str | None
    identity: bytes
    received_at: float
    round: int


_M: Final = tables.messages.c
_R: Final = tables.replies.c
_A: Final = tables.answers.c
_P: Final = tables.phases.c
_FIND: Final = Quick(
    sa.select(*(_M.status, _M.reason, _M.fence, _M.round, _P.created_at + _P.ttl, _R.identity, _R.counted))
    .join_from(tables.messages, tables.phases, (_P.run == _M.run) & (_P.round == _M.round) & (_P.phase == _M.phase))
    .outerjoin(tables.replies, (_R.run == _M.run) & (_R.message == _M.message))
    .where(_M.run == sa.bindparam("run"), _M.message == sa.bindparam("message"), _M.node == sa.bindparam("node"))
)
_KEEP: Final = Quick(sa.insert(tables.replies).values({column.name: sa.bindparam(column.name) for column in _R}))
_SAY: Final = Quick(sa.insert(tables.answers).values({column.name: sa.bindparam(column.name) for column in _A}))
_ANSWERED: Final = Quick(
    sa.update(tables.messages)
    .where(_M.run == sa.bindparam("its_run"), _M.message == sa.bindparam("which"))
    .values(
        status=sa.bindparam("next_status"),
        reason=sa.bindparam("why"),
        received=sa.bindparam("bytes"),
        seconds=sa.bindparam("where_time_went"),
    )
)
_COUNTED: Final = sa.select(_M.message, _M.slot, _M.node, _A.answer).join_from(
    tables.messages, tables.answers, (_A.run == _M.run) & (_A.message == _M.message)
)
_GIVEN: Final = _COUNTED.where(
    _M.run == sa.bindparam("run"), _M.round == sa.bindparam("round"), _M.phase == sa.bindparam("phase")
).order_by(_M.slot)
_GIVEN_OPEN: Final = (
    sa.select(_M.run, _M.message, _M.slot, _M.node, _A.answer)
    .join_from(tables.messages, tables.answers, (_A.run == _M.run) & (_A.message == _M.message))
    .join(tables.phases, (_P.run == _M.run) & (_P.round == _M.round) & (_P.phase == _M.phase))
    .where(_P.closed_at.is_(None))
)
_TIMES: Final = (
    sa.select(_M.message, _R.received_at)
    .join_from(tables.messages, tables.replies, (_R.run == _M.run) & (_R.message == _M.message))
    .where(_M.run == sa.bindparam("run"), _M.round == sa.bindparam("round"), _M.phase == sa.bindparam("phase"))
    .where(_R.counted)
    .order_by(_R.received_at, _M.message)
)
_FORGET: Final = tuple(
    sa.delete(table).where(table.c.run == sa.bindparam("run"), table.c.message == sa.bindparam("message"))
    for table in (tables.answers, tables.replies)
)
_REOPEN: Final = (
    sa.update(tables.messages)
    .where(_M.run == sa.bindparam("its_run"), _M.message == sa.bindparam("which"))
    .values(status="planned", reason="", fence=_M.fence + 1, received=0, seconds="{}")
)
_GIVEN_ONE: Final = _COUNTED.where(_M.run == sa.bindparam("run"), _M.message == sa.bindparam("message"))


def _said(reply: Reply) -> str:
    reason = None if reply.error_reason is None else legible(reply.error_reason)
    return packed(_Said(reply.content, reply.error_code, reason))


def _again(found: _Found, reply: Reply, identity: bytes) -> Accepted:
    """Answer a reply to a message that has one."""
    if found.identity == identity:
        return Accepted(bool(found.counted), "" if found.counted else f"late: {found.reason}")
    if found.fence != reply.fence:
        raise _fenced(found, reply)
    raise ReplyConflict("expected the reply that was given before, got another one", at=f"message {reply.message}")


def _fenced(found: _Found, reply: Reply) -> Fenced:
    return Fenced(
        f"expected fencing number {found.fence}, got {reply.fence}: the message was handed out again",
        at=f"message {reply.message}",
    )


def _count(connection: sa.Connection, reply: Reply, kept: _Kept, present: Present) -> Accepted:
    blobs = {} if reply.content is None else blobs_of(reply.content)
    holder = f"message {reply.message}"
    references.hold(connection, reply.run, holder, blobs, present=present, number=kept.round)
    _keep(connection, reply, kept, counted=True)
    _mark(connection, reply, "replied", "")
    return Accepted(counted=True)


def _late(connection: sa.Connection, found: _Found, reply: Reply, kept: _Kept) -> Accepted:
    """Note a reply that does not count; one to a cancelled message is not kept: it may be asked for again."""
    reason = found.reason
    if found.status == "planned":
        reason = f"it came {kept.received_at - found.ends_at:.0f} s after its time to live"
    if found.status != "cancelled":
        _keep(connection, reply, kept, counted=False)
        _mark(connection, reply, "lost", reason)
    return Accepted(
        counted=False, reason=f"{found.status}: {reason}" if found.status == "cancelled" else f"late: {reason}"
    )


def _keep(connection: sa.Connection, reply: Reply, kept: _Kept, *, counted: bool) -> None:
    key = {"run": reply.run, "message": reply.message}
    kept_as = {"identity": kept.identity, "counted": counted, "received_at": kept.received_at}
    _KEEP(connection, key | kept_as)
    if kept.answer is not None:
        _SAY(connection, key | {"answer": kept.answer})


def _mark(connection: sa.Connection, reply: Reply, status: str, reason: str) -> None:
    key = {"its_run": reply.run, "which": reply.message, "next_status": status, "why": reason}
    _ANSWERED(connection, key | {"bytes": reply.received, "where_time_went": packed(reply.seconds)})


def _given(row: Any) -> Given:
    said: _Said = unpacked(row.answer, _Said, "answers.answer")
    return Given(row.message, row.slot, row.node, said.content, said.error_code, said.error_reason)
