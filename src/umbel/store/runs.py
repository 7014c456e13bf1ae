"""Runs: what was submitted, how far each is, and the reports of its rounds. Each function is an operation of a ledger.

The states of a run, and which follow which, are drawn in ``docs/spec/storage.md``. A function that takes an ``owner``
finds the runs of that user alone; without one, as the server asks, all.
"""

import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from umbel.envelope import Content, blobs_of
from umbel.errors import NotFound, WrongState
from umbel.store import _tables as tables
from umbel.store import references
from umbel.store._closing import drop
from umbel.store._json import legible, packed, unpacked
from umbel.store.references import Present

__all__ = [
    "Closing",
    "Outcome",
    "Run",
    "close_round",
    "create",
    "ended_as",
    "every",
    "find",
    "get",
    "note_restart",
    "record",
    "reports",
    "set_spec",
    "set_state",
    "set_status",
    "state",
    "trim",
]

# What may follow each status; each may also follow itself, with another reason.
_FOLLOWS: Final[Mapping[str, frozenset[str]]] = {
    "waiting": frozenset({"running", "stopping", "stopped", "failed"}),
    "running": frozenset({"waiting", "stopping", "completed", "failed"}),
    "stopping": frozenset({"stopped", "completed", "failed"}),
    "stopped": frozenset({"waiting"}),
    "failed": frozenset({"waiting"}),
    "completed": frozenset(),
}
_ENDED: Final = frozenset({"stopped", "completed", "failed"})
_DONE: Final = {"stopping": "stopped", "waiting": "resumed", "running": "started"}  # in a sentence
_LETTERS: Final = "23456789abcdefghjkmnpqrstuvwxyz"


class Run(msgspec.Struct, frozen=True):
    """A run without its state. ``spec`` is what was submitted, as JSON; ``completed`` counts its finished rounds.

    ``digest`` is the model's after the last of them. ``restarts`` are the times at which a server took it up again.
    """

    id: int
    name: str
    spec: str
    status: str
    reason: str
    owner: int
    completed: int
    digest: str
    created_at: float
    ended_at: float | None
    restarts: tuple[float, ...]


class Outcome(msgspec.Struct, frozen=True):
    """What the loop made of one message: its status ("accepted", "refused", "lost" or "cancelled"), and why.

    ``sent``, ``received`` (bytes) and ``seconds`` (by phase) replace what is there if they are given.
    """

    message: int
    status: str
    reason: str = ""
    sent: int | None = None
    received: int | None = None
    seconds: dict[str, float] | None = None


class Closing(msgspec.Struct, frozen=True):
    """The end of a round: its report as JSON, the state that follows, the model's digest, and every outcome.

    ``flying`` are the messages of rounds that overlap whose replies count later on; None where no rounds do.
    """

    round: int
    report: str
    state: Content
    digest: str
    outcomes: tuple[Outcome, ...] = ()
    flying: tuple[int, ...] | None = None


def create(
    connection: sa.Connection, spec: str, owner: int, *, now: float, present: Present, initial: Content | None = None
) -> Run:
    """Make a run that waits, under a name such as "20260131-154502-k7qm" (UTC).

    ``initial`` is the model to begin with: its blobs are kept as long as the run is there. ``present`` gives the size
    of a blob in the store, or None.

    Raises ``BlobMissing`` if one is not there.
    """
    values = {"name": _free_name(connection, now), "spec": spec, "status": "waiting", "owner": owner, "created_at": now}
    insert = sa.insert(tables.runs).returning(tables.runs.c.id)
    number: int = connection.execute(insert, {**values, "restarts": "[]"}).scalar_one()
    if initial is not None:
        references.hold(connection, number, "spec", blobs_of(initial), present=present)
    return get(connection, number)


def get(connection: sa.Connection, run: int, owner: int | None = None) -> Run:
    """Return a run by its number; raises ``NotFound`` if it is not there, or not the owner's."""
    return _one(connection, tables.runs.c.id == run, owner, str(run))


def find(connection: sa.Connection, name: str, owner: int | None = None) -> Run:
    """Return a run by its name; raises ``NotFound`` if it is not there, or not the owner's."""
    return _one(connection, tables.runs.c.name == legible(name), owner, repr(name)[:80])


def every(connection: sa.Connection, owner: int | None = None, statuses: Iterable[str] = ()) -> list[Run]:
    """Return all runs, those of an owner, or those in some statuses; the oldest first."""
    query = sa.select(*_COLUMNS).order_by(tables.runs.c.id)
    if owner is not None:
        query = query.where(tables.runs.c.owner == owner)
    if wanted := list(statuses):
        query = query.where(tables.runs.c.status.in_(wanted))
    return [_run(row) for row in connection.execute(query)]


def state(connection: sa.Connection, run: int) -> Content | None:
    """Return the state from which a run goes on; None before the first. Raises ``NotFound``."""
    row = connection.execute(sa.select(tables.runs.c.state).where(tables.runs.c.id == run)).first()
    if row is None:
        raise _unknown(str(run))
    content: Content | None = None if row.state is None else unpacked(row.state, Content, "runs.state")
    return content


def set_status(connection: sa.Connection, run: int, status: str, *, now: float, reason: str = "") -> Run:
    """Change the status of a run; raises ``NotFound``, or ``WrongState`` if that cannot follow the present one."""
    found = get(connection, run)
    if status != found.status and status not in _FOLLOWS[found.status]:
        raise WrongState(
            f"expected a run that can be {_DONE.get(status, status):.40}, got one that is {found.status}", at=found.name
        )
    values: dict[str, Any] = {"status": status, "reason": legible(reason)}
    if status != found.status:
        values["ended_at"] = now if status in _ENDED else None
    _update(connection, run, values)
    return get(connection, run)


def ended_as(run: Run, reason: str, digest: str) -> bool:
    """Say whether a run has failed for a reason, or without one is complete, with the model of a digest."""
    if reason:
        return run.status == "failed" and run.reason == legible(reason)
    return run.status == "completed" and run.digest == digest


def set_state(connection: sa.Connection, run: int, content: Content, digest: str, *, present: Present) -> None:
    """Set the state from which a run begins; raises ``BlobMissing`` if a blob of it is not there."""
    references.release(connection, run, "state")
    references.hold(connection, run, "state", blobs_of(content), present=present)
    _update(connection, run, {"state": packed(content), "digest": digest})


def set_spec(connection: sa.Connection, run: int, spec: str) -> None:
    """Replace what was submitted, such as by more rounds; the model to begin with stays the one that it was."""
    _update(connection, run, {"spec": spec})


def note_restart(connection: sa.Connection, run: int, now: float) -> None:
    """Take note that a server took a run up again."""
    _update(connection, run, {"restarts": packed((*get(connection, run).restarts, now))})


def close_round(connection: sa.Connection, run: int, closing: Closing, *, now: float, present: Present) -> Run:
    """End a round in one transaction: phases closed, outcomes and report written, state and its blobs replaced.

    Contents and answers of the round are dropped, with the references to their blobs, but for what messages in flight
    need. Round 0 is the phase that sums statistics. The same round again changes nothing.

    Raises ``WrongState`` for a round that is not the next one, ``BlobMissing`` if a blob of the state is not there.
    """
    found = get(connection, run)
    if _is_closed(connection, found, closing):
        return found
    if closing.round != found.completed + 1 and (closing.round, found.completed) != (0, 0):
        raise WrongState(f"expected round {found.completed + 1}, got round {closing.round}", at=found.name)
    record(connection, run, closing.outcomes)
    drop(connection, run, closing.round, closing.flying, now=now)
    set_state(connection, run, closing.state, closing.digest, present=present)
    connection.execute(_REPORT, {"run": run, "round": closing.round, "report": closing.report})
    _update(connection, run, {"completed": closing.round})
    return get(connection, run)


def reports(connection: sa.Connection, run: int) -> list[str]:
    """Return the reports of the rounds of a run, as JSON, in order."""
    query = sa.select(tables.reports.c.report).where(tables.reports.c.run == run).order_by(tables.reports.c.round)
    return list(connection.execute(query).scalars())


def trim(connection: sa.Connection, run: int, keep_rounds: int) -> int:
    """Forget who was asked in all but the last rounds; reports stay. Return how many messages were forgotten.

    A round stays as long as a message of it is in flight.
    """
    last = get(connection, run).completed - keep_rounds
    messages, replies, phases = tables.messages, tables.replies, tables.phases
    unclosed = sa.select(phases.c.round).where(phases.c.run == run, phases.c.closed_at.is_(None))
    of_old = (messages.c.run == run) & (messages.c.round <= last) & messages.c.round.not_in(unclosed)
    old = sa.select(messages.c.message).where(of_old)
    connection.execute(sa.delete(replies).where(replies.c.run == run, replies.c.message.in_(old)))
    gone = connection.execute(sa.delete(messages).where(of_old)).rowcount
    closed = (phases.c.run == run) & (phases.c.round <= last) & phases.c.closed_at.is_not(None)
    connection.execute(sa.delete(phases).where(closed))
    return gone


_COLUMNS: Final = tuple(tables.runs.c[name] for name in Run.__struct_fields__)
_REPORT: Final = sa.insert(tables.reports)
_OUTCOME: Final = sa.update(tables.messages).where(
    tables.messages.c.run == sa.bindparam("its_run"), tables.messages.c.message == sa.bindparam("which")
)


def _one(connection: sa.Connection, condition: Any, owner: int | None, shown: str) -> Run:
    query = sa.select(*_COLUMNS).where(condition)
    if owner is not None:
        query = query.where(tables.runs.c.owner == owner)
    row = connection.execute(query).first()
    if row is None:
        raise _unknown(shown)
    return _run(row)


def _unknown(shown: str) -> NotFound:
    return NotFound(f"no run of yours is {shown}: `umbel runs list` shows them", at="run")


def _run(row: Any) -> Run:
    return Run(**{**row._mapping, "restarts": unpacked(row.restarts, tuple[float, ...], "runs.restarts")})  # noqa: SLF001 - SQLAlchemy's public name


def _free_name(connection: sa.Connection, now: float) -> str:
    """Return a name that no run has; of a thousand runs in one second two would have the same now and then."""
    while True:
        name = _name(now)
        if connection.execute(sa.select(tables.runs.c.id).where(tables.runs.c.name == name)).first() is None:
            return name


def _name(now: float) -> str:
    letters = "".join(secrets.choice(_LETTERS) for _ in range(4))
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{letters}"


def _update(connection: sa.Connection, run: int, values: Mapping[str, Any]) -> None:
    connection.execute(sa.update(tables.runs).where(tables.runs.c.id == run).values(dict(values)))


def _is_closed(connection: sa.Connection, run: Run, closing: Closing) -> bool:
    same = (tables.reports.c.run == run.id) & (tables.reports.c.round == closing.round)
    known = connection.execute(sa.select(tables.reports.c.round).where(same)).first()
    return known is not None and run.completed == closing.round and run.digest == closing.digest


def record(connection: sa.Connection, run: int, outcomes: Iterable[Outcome]) -> None:
    """Write what the loop made of messages; those that set the same columns together."""
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for outcome in outcomes:
        values: dict[str, Any] = {"status": outcome.status, "reason": legible(outcome.reason)}
        values |= {name: number for name in ("sent", "received") if (number := getattr(outcome, name)) is not None}
        if outcome.seconds is not None:
            values["seconds"] = packed(outcome.seconds)
        row = {f"its_{name}": value for name, value in values.items()}
        alike.setdefault(tuple(values), []).append({**row, "its_run": run, "which": outcome.message})
    for names, rows in alike.items():
        connection.execute(_OUTCOME.values({name: sa.bindparam(f"its_{name}") for name in names}), rows)
