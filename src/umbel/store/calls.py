"""The journal of a run whose main is elsewhere: its calls, by number, and what it was told of its messages, in order.

A call is a phase of the run whose round is the number of the call: one that asked which nodes there are has a roster
and no messages, one that asked nodes something has both. Each function is an operation of a ledger.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import sqlalchemy as sa

from umbel.errors import Conflict, WrongState
from umbel.store import _tables as tables
from umbel.store import messages, replies
from umbel.store._json import packed
from umbel.store.references import Present

__all__ = [
    "Call",
    "Told",
    "close",
    "count",
    "find",
    "offer",
    "open_of",
    "plan",
    "roster",
    "tell",
    "told",
    "untold",
    "what_came",
]

_BATCH: Final = 500  # databases take a bounded number of parameters in one statement


class Call(NamedTuple):
    """A call as it was made: its type of message, the round that the main calls it by, and what was planned."""

    phase: str
    group: int
    planned: messages.Phase


class Told(NamedTuple):
    """What became of a message: an answer and when it came (seconds since 1970), or why none will."""

    message: int
    given: replies.Given | None
    reason: str
    at: float


def find(connection: sa.Connection, run: int, number: int) -> Call | None:
    """Return a call, or None if it was not made yet."""
    row = connection.execute(_FIND, {"run": run, "number": number}).first()
    if row is None:
        return None
    planned = messages.phase(connection, run, number, row.phase)
    return None if planned is None else Call(row.phase, row.group_id, planned)


def offer(connection: sa.Connection, run: int, number: int, call: Call) -> Call:
    """Note which nodes a call was told of, and return that; the call as it was made before, if it was."""
    found = find(connection, run, number)
    if found is not None:
        return found
    _require_next(connection, run, number)
    row = {"run": run, "round": number, "phase": call.phase, "roster": packed(call.planned.roster)}
    connection.execute(_OFFER, row | {"created_at": call.planned.created_at, "ttl": call.planned.ttl})
    connection.execute(_CALL, {"run": run, "number": number, "phase": call.phase, "group_id": call.group})
    return call


def plan(
    connection: sa.Connection, plan: messages.Plan, group: int, *, now: float, present: Present
) -> tuple[Call, bool]:
    """Plan the messages of a call; return it, and whether this made it: the same number again changes nothing.

    Raises ``WrongState`` if it is not the next call, ``Conflict`` for a message whose number the run has already,
    ``BlobMissing`` if a blob of the content is not in the store.
    """
    found = find(connection, plan.run, plan.round)
    if found is not None:
        return found, False
    _require_next(connection, plan.run, plan.round)
    _require_new(connection, plan.run, [ask.message for ask in plan.asks])
    messages.plan(connection, plan, now=now, present=present)
    connection.execute(_CALL, {"run": plan.run, "number": plan.round, "phase": plan.phase, "group_id": group})
    sent = {"its_run": plan.run, "its_round": plan.round, "bytes": plan.content.size}
    connection.execute(_SENT, sent)
    rows = tuple(messages.Row(ask.message, ask.slot, ask.node, 1, "planned", "") for ask in plan.asks)
    return Call(plan.phase, group, messages.Phase(plan.roster, plan.content, now, plan.ttl, None, rows)), True


def roster(connection: sa.Connection, run: int) -> tuple[tuple[str, int], ...] | None:
    """Return the nodes of the last call, None before the first."""
    last = connection.execute(_LAST, {"run": run}).scalar()
    found = None if last is None else find(connection, run, last)
    return None if found is None else found.planned.roster


def count(connection: sa.Connection, run: int) -> int:
    """Return how many calls there are."""
    return connection.execute(_LAST, {"run": run}).scalar() or 0


def told(connection: sa.Connection, run: int) -> list[int]:
    """Return the messages of which the main was told, in that order."""
    return list(connection.execute(_TOLD, {"run": run}).scalars())


def untold(connection: sa.Connection, run: int) -> list[int]:
    """Return the messages that are answered or lost and of which the main was not told, as their answers came."""
    return list(connection.execute(_UNTOLD, {"run": run}).scalars())


def tell(connection: sa.Connection, run: int, first: int, numbers: Sequence[int]) -> None:
    """Give messages the places from ``first`` on in the order in which the main is told of them."""
    rows = [{"run": run, "place": first + i, "message": number} for i, number in enumerate(numbers)]
    connection.execute(_TELL, rows)


def what_came(connection: sa.Connection, run: int, message: int) -> Told | None:
    """Return what became of a message; None as long as it waits for its reply."""
    row = connection.execute(_CAME, {"run": run, "message": message}).first()
    if row is None or row.status == "planned":
        return None
    return Told(message, replies.of_message(connection, run, message), row.reason, row.received_at or 0.0)


def open_of(connection: sa.Connection, run: int) -> list[messages.Key]:
    """Return the messages of a run that wait for a reply."""
    return [(run, number) for number in connection.execute(_OPEN, {"run": run}).scalars()]


def close(connection: sa.Connection, run: int, *, now: float) -> None:
    """Drop what the calls of a run carried, asked and answered: its main has ended, and will not be run again."""
    connection.execute(sa.update(tables.phases).where(_P.run == run).values(closed_at=now, content=None))
    for table in (tables.answers, tables.references):
        connection.execute(sa.delete(table).where(table.c.run == run))


_C: Final = tables.calls.c
_M: Final = tables.messages.c
_P: Final = tables.phases.c
_R: Final = tables.replies.c
_T: Final = tables.told.c
_OF_RUN: Final = sa.bindparam("run", type_=sa.BigInteger)
_FIND: Final = sa.select(_C.phase, _C.group_id).where(_C.run == _OF_RUN, _C.number == sa.bindparam("number"))
_LAST: Final = sa.select(sa.func.max(_C.number)).where(_C.run == _OF_RUN)
_CALL: Final = sa.insert(tables.calls)
_OFFER: Final = sa.insert(tables.phases)
_SENT: Final = (
    sa.update(tables.messages)
    .where(_M.run == sa.bindparam("its_run"), _M.round == sa.bindparam("its_round"))
    .values(sent=sa.bindparam("bytes"))
)
_TELL: Final = sa.insert(tables.told)
_TOLD: Final = sa.select(_T.message).where(_T.run == _OF_RUN).order_by(_T.place)
_ANSWERED: Final = (_R.run == _M.run) & (_R.message == _M.message)
_UNTOLD: Final = (
    sa.select(_M.message)
    .join_from(tables.messages, tables.told, (_T.run == _M.run) & (_T.message == _M.message), isouter=True)
    .outerjoin(tables.replies, _ANSWERED)
    .where(_M.run == _OF_RUN, _M.status.in_(("replied", "lost")), _T.place.is_(None))
    .order_by(sa.func.coalesce(_R.received_at, 0.0), _M.message)
)
_CAME: Final = (
    sa.select(_M.status, _M.reason, _R.received_at)
    .join_from(tables.messages, tables.replies, _ANSWERED, isouter=True)
    .where(_M.run == _OF_RUN, _M.message == sa.bindparam("message"))
)
_OPEN: Final = sa.select(_M.message).where(_M.run == _OF_RUN, _M.status == sa.literal_column("'planned'"))


def _require_next(connection: sa.Connection, run: int, number: int) -> None:
    following = count(connection, run) + 1
    if number != following:
        raise WrongState(f"expected call {following} of the main, got call {number}", at=f"run {run}")


def _require_new(connection: sa.Connection, run: int, numbers: Sequence[int]) -> None:
    repeated = [number for number, times in Counter(numbers).items() if times > 1]
    for number in repeated or _taken(connection, run, numbers):
        raise Conflict(
            f"expected messages of a run to have different numbers, got {number} again: give each a message_id of its "
            "own, or 0",
            at=f"run {run}",
        )


def _taken(connection: sa.Connection, run: int, numbers: Sequence[int]) -> list[int]:
    found: list[int] = []
    for start in range(0, len(numbers), _BATCH):
        some = numbers[start : start + _BATCH]
        found += connection.execute(sa.select(_M.message).where(_M.run == run, _M.message.in_(some))).scalars()
    return found
