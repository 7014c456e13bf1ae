"""What goes when a round is closed: contents and answers, with the references to their blobs."""

from collections.abc import Collection
from typing import Final

import sqlalchemy as sa

from umbel.store import _tables as tables
from umbel.store import references

_WENT_ON: Final = "the run went on without it"
_COMPLETE: Final = "the run was complete without it"
_UNDECIDED: Final = ("planned", "replied")


def drop(connection: sa.Connection, run: int, number: int, flying: Collection[int] | None, *, now: float) -> None:
    """Close the phases of a round, and drop what they carried: the report and the state say all that is needed.

    Where rounds overlap, ``flying`` are the messages whose replies count in later rounds. A phase is closed with the
    round in which nobody has a message of it any more; what has counted is dropped at once.
    """
    if flying is None:
        _close(connection, run, number, now)
        return
    keep, why = frozenset(flying), _WENT_ON if flying else _COMPLETE
    for each in connection.execute(_UNCLOSED, {"run": run, "number": number}).scalars().all():
        rows = connection.execute(_ROWS, {"run": run, "number": each}).all()
        settled = [row for row in rows if row.message not in keep]
        lost = [row.message for row in settled if row.status in _UNDECIDED]
        if lost:
            connection.execute(_LOSE, [{"its_run": run, "which": message, "why": why} for message in lost])
        if len(settled) == len(rows):
            _close(connection, run, each, now)
        else:
            _drop_answers(connection, run, [row.message for row in settled if row.is_answered])


def _close(connection: sa.Connection, run: int, number: int, now: float) -> None:
    of_round = (_P.run == run) & (_P.round == number)
    connection.execute(sa.update(tables.phases).where(of_round).values(closed_at=now, content=None))
    asked = sa.select(_M.message).where(_M.run == run, _M.round == number)
    connection.execute(sa.delete(tables.answers).where(_A.run == run, _A.message.in_(asked)))
    references.release_round(connection, run, number)


def _drop_answers(connection: sa.Connection, run: int, messages: list[int]) -> None:
    for message in messages:
        connection.execute(_DROP, {"run": run, "message": message})
        references.release(connection, run, f"message {message}")


_M: Final = tables.messages.c
_P: Final = tables.phases.c
_A: Final = tables.answers.c
_UNCLOSED: Final = (
    sa.select(_P.round)
    .distinct()
    .where(_P.run == sa.bindparam("run"), _P.round <= sa.bindparam("number"), _P.closed_at.is_(None))
    .order_by(_P.round)
)
_ROWS: Final = (
    sa.select(_M.message, _M.status, _A.message.is_not(None).label("is_answered"))
    .join_from(tables.messages, tables.answers, (_A.run == _M.run) & (_A.message == _M.message), isouter=True)
    .where(_M.run == sa.bindparam("run"), _M.round == sa.bindparam("number"))
)
_LOSE: Final = (
    sa.update(tables.messages)
    .where(_M.run == sa.bindparam("its_run"), _M.message == sa.bindparam("which"))
    .values(status="lost", reason=sa.bindparam("why"))
)
_DROP: Final = sa.delete(tables.answers).where(_A.run == sa.bindparam("run"), _A.message == sa.bindparam("message"))
