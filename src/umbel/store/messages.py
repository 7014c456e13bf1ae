"""Messages to nodes: planned with their phase, fenced, lost, cancelled. Each function is an operation of a ledger.

The states of a message are drawn in ``docs/spec/storage.md``. A message is known by its run and its number in the run;
``replies.accept`` is the only way from planned to replied. From there, ``runs`` records what the loop made of the
reply; ``reassign`` and ``reopen`` forget it and plan the message again.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import sqlalchemy as sa

from umbel.envelope import Content, blobs_of
from umbel.errors import Fenced, NotFound, WrongState
from umbel.store import _tables as tables
from umbel.store import references
from umbel.store._json import legible, packed, unpacked
from umbel.store.references import Present

__all__ = [
    "Ask",
    "Key",
    "Open",
    "Phase",
    "Plan",
    "Question",
    "Row",
    "cancel",
    "extend",
    "lose",
    "open_messages",
    "phase",
    "plan",
    "prolong",
    "questions",
    "raise_fence",
    "reassign",
    "reopen",
]

#: A message: its run, and its number in the run.
Key: TypeAlias = tuple[int, int]


class Ask(NamedTuple):
    """One message to be planned: its number in the run, its place in the cohort, and the node that is asked."""

    message: int
    slot: int
    node: int


class Plan(msgspec.Struct, frozen=True):
    """A phase of a round: the nodes it was planned with (name and id), what is asked, and who is asked.

    ``ttl`` is in seconds.
    """

    run: int
    round: int
    phase: str
    roster: tuple[tuple[str, int], ...]
    content: Content
    ttl: float
    asks: tuple[Ask, ...]


class Row(msgspec.Struct, frozen=True):
    """A message of a phase. ``status``: planned, replied, accepted, refused, lost or cancelled."""

    message: int
    slot: int
    node: int
    fence: int
    status: str
    reason: str


class Phase(msgspec.Struct, frozen=True):
    """A planned phase as the ledger has it; ``content`` is None once its round is closed. Messages come by slot."""

    roster: tuple[tuple[str, int], ...]
    content: Content | None
    created_at: float
    ttl: float
    closed_at: float | None
    messages: tuple[Row, ...]


class Open(NamedTuple):
    """A message that waits for its reply. Its content is that of its phase: ``phase(...)``.

    ``group`` is the round that the message names: that of its phase, unless that is a call of a main.
    """

    run: int
    message: int
    node: int
    fence: int
    round: int
    phase: str
    created_at: float
    ttl: float
    group: int


class Question(msgspec.Struct, frozen=True):
    """What became of a message, for people: see ``umbel runs show``.

    ``outcome``: planned, replied, accepted, refused, lost, cancelled, or late for one that was lost and answered after.
    """

    message: int
    round: int
    phase: str
    node: str
    outcome: str
    reason: str
    sent: int
    received: int
    seconds: dict[str, float]


def plan(connection: sa.Connection, plan: Plan, *, now: float, present: Present) -> None:
    """Plan a phase: its roster, its content, and a message with the fencing number 1 for each node that is asked.

    Raises ``WrongState`` if it is planned already, ``BlobMissing`` if a blob of the content is not in the store.
    """
    if phase(connection, plan.run, plan.round, plan.phase) is not None:
        raise WrongState("expected a phase that is not planned yet", at=f"round {plan.round}, {plan.phase}")
    of_round = {"run": plan.run, "round": plan.round, "phase": plan.phase}
    carried = {"roster": packed(plan.roster), "content": packed(plan.content), "created_at": now, "ttl": plan.ttl}
    connection.execute(_PLAN, of_round | carried)
    holder = f"phase {plan.phase} {plan.round}"
    references.hold(connection, plan.run, holder, blobs_of(plan.content), present=present, number=plan.round)
    _ask(connection, plan)


def extend(connection: sa.Connection, plan: Plan, *, now: float) -> None:
    """Ask further nodes in a phase that is planned: roster and content stay, and it lives long enough for them.

    Raises ``WrongState`` if it is not planned, or closed.
    """
    found = connection.execute(_PHASE, {"run": plan.run, "round": plan.round, "phase": plan.phase}).first()
    if found is None or found.closed_at is not None:
        what = "none" if found is None else "one that is closed"
        raise WrongState(f"expected a phase that is planned, got {what}", at=f"round {plan.round}, {plan.phase}")
    which = {"its_run": plan.run, "its_round": plan.round, "its_phase": plan.phase}
    connection.execute(_LENGTHEN, which | {"longer": max(found.ttl, now - found.created_at + plan.ttl)})
    _ask(connection, plan)


def _ask(connection: sa.Connection, plan: Plan) -> None:
    if plan.asks:
        blank = {"run": plan.run, "round": plan.round, "phase": plan.phase, "fence": 1, "status": "planned"}
        connection.execute(_ASK, [blank | {"seconds": "{}"} | ask._asdict() for ask in plan.asks])


def reassign(connection: sa.Connection, key: Key, *, node: int) -> int:
    """Ask another node in place of the one that has a message, under the next fencing number, which is returned.

    What was answered to it is forgotten. Raises ``NotFound`` if there is no such message.
    """
    fence = connection.execute(_NUMBER, {"run": key[0], "message": key[1]}).scalar_one_or_none()
    if fence is None:
        raise NotFound(f"there is no message {key[1]} in run {key[0]}", at="message")
    _forget(connection, key)
    connection.execute(_REASSIGN, {"its_run": key[0], "which": key[1], "other": node})
    return int(fence) + 1


def _forget(connection: sa.Connection, key: Key) -> None:
    references.release(connection, key[0], f"message {key[1]}")
    for forget in _FORGET:
        connection.execute(forget, {"run": key[0], "message": key[1]})


def phase(connection: sa.Connection, run: int, round: int, phase: str) -> Phase | None:  # noqa: A002 - the field's word
    """Return a phase with its messages, or None if it is not planned."""
    key = {"run": run, "round": round, "phase": phase}
    row = connection.execute(_PHASE, key).first()
    if row is None:
        return None
    roster = unpacked(row.roster, tuple[tuple[str, int], ...], "phases.roster")
    content = None if row.content is None else unpacked(row.content, Content, "phases.content")
    messages = tuple(Row(*message) for message in connection.execute(_ROWS, key))
    return Phase(roster, content, row.created_at, row.ttl, row.closed_at, messages)


def open_messages(connection: sa.Connection, node: int | None = None) -> list[Open]:
    """Return the messages that wait for a reply, of one node or of all, the oldest first."""
    query = _OPEN if node is None else _OPEN.where(tables.messages.c.node == node)
    return [Open(*row) for row in connection.execute(query)]


def raise_fence(connection: sa.Connection, key: Key, *, node: int, fence: int) -> int:
    """Give an open message the next fencing number, which is returned; the reply under the old one is refused then.

    Raises:
        NotFound: if the node has no such message.
        Fenced: if ``fence`` is not the present number.
        WrongState: if the message is not open.

    """
    found = connection.execute(_ONE, {"run": key[0], "message": key[1], "node": node}).first()
    if found is None:
        raise NotFound(f"this node has no message {key[1]} in run {key[0]}", at="message")
    if found.status != "planned":
        raise WrongState(f"expected an open message, got one that is {found.status}", at=f"message {key[1]}")
    if found.fence != fence:
        raise Fenced(f"expected fencing number {found.fence}, got {fence}", at=f"message {key[1]}")
    connection.execute(_FENCE, {"its_run": key[0], "which": key[1], "next_fence": fence + 1})
    return fence + 1


def lose(connection: sa.Connection, keys: Iterable[Key], reason: str, *, node: int) -> list[Key]:
    """Give open messages up because their node is silent, or their time has passed; return those that were open.

    What has gone to another node meanwhile stays open.
    """
    return _end(connection, keys, "lost", reason, node)


def cancel(connection: sa.Connection, keys: Iterable[Key], reason: str) -> list[Key]:
    """Give open messages up because nobody wants their replies any more; return those that were open."""
    return _end(connection, keys, "cancelled", reason)


def reopen(connection: sa.Connection, run: int, *, now: float) -> list[Key]:
    """Open the messages of unclosed phases again that were cancelled, lost or refused, and return them.

    Each gets the next number; what was answered to it is forgotten, and what was accepted stays answered. The phases
    begin anew: their time to live counts from ``now``. Where rounds overlap, a phase of a closed round is unclosed
    while a message of it is in flight; what a closed round has decided stays as it is.
    """
    unclosed = sa.select(tables.phases.c.round).where(tables.phases.c.run == run, tables.phases.c.closed_at.is_(None))
    of_phases = (_M.run == run) & _M.round.in_(unclosed) & _is_undecided(run)
    again = of_phases & _M.status.in_(("cancelled", "lost", "refused"))
    keys = [(run, number) for number in connection.execute(sa.select(_M.message).where(again)).scalars()]
    accepted = of_phases & (_M.status == "accepted")
    connection.execute(sa.update(tables.messages).where(accepted).values(status="replied"))
    for key in keys:
        _forget(connection, key)
        connection.execute(_REOPEN, {"its_run": run, "which": key[1]})
    begun = (tables.phases.c.run == run) & tables.phases.c.closed_at.is_(None)
    connection.execute(sa.update(tables.phases).where(begun).values(created_at=now))
    return keys


def _is_undecided(run: int) -> sa.ColumnElement[bool]:
    """Say that no round that is closed has decided on a message: that would have dropped its answer."""
    completed = sa.select(tables.runs.c.completed).where(tables.runs.c.id == run).scalar_subquery()
    answers = tables.answers.c
    answered = sa.exists().where(answers.run == _M.run, answers.message == _M.message)
    return (_M.round > completed) | (_M.round == 0) | (_M.status == "cancelled") | answered


def prolong(connection: sa.Connection, run: int, *, now: float) -> None:
    """Let the messages of a run's open phases live at least as long from ``now`` on as when they were planned."""
    age = now - tables.phases.c.created_at
    older = (tables.phases.c.run == run) & tables.phases.c.closed_at.is_(None) & (age > 0)
    connection.execute(sa.update(tables.phases).where(older).values(ttl=tables.phases.c.ttl + age))


def questions(connection: sa.Connection, run: int, *, after_round: int = -1) -> list[Question]:
    """Return what became of every message of a run, by round, phase and slot; of rounds above one, if wanted."""
    rows = connection.execute(_QUESTIONS, {"run": run, "after": after_round})
    return [_question(row) for row in rows]


_M: Final = tables.messages.c
_OF_PHASE: Final = tuple(
    tables.phases.c[name] == sa.bindparam(name, type_=tables.phases.c[name].type) for name in ("run", "round", "phase")
)
_PLAN: Final = sa.insert(tables.phases)
_ASK: Final = sa.insert(tables.messages)
_PHASE: Final = sa.select(tables.phases).where(*_OF_PHASE)
_ROWS: Final = (
    sa.select(_M.message, _M.slot, _M.node, _M.fence, _M.status, _M.reason)
    .where(_M.run == sa.bindparam("run"), _M.round == sa.bindparam("round"), _M.phase == sa.bindparam("phase"))
    .order_by(_M.slot)
)
_JOINED: Final = (
    (tables.phases.c.run == _M.run) & (tables.phases.c.round == _M.round) & (tables.phases.c.phase == _M.phase)
)
_CALLED: Final = (tables.calls.c.run == _M.run) & (tables.calls.c.number == _M.round)
_GROUP: Final = sa.func.coalesce(tables.calls.c.group_id, _M.round)
_OPEN: Final = (
    sa.select(
        *(_M.run, _M.message, _M.node, _M.fence, _M.round, _M.phase),
        *(tables.phases.c.created_at, tables.phases.c.ttl, _GROUP),
    )
    .join_from(tables.messages, tables.phases, _JOINED)
    .outerjoin(tables.calls, _CALLED)
    .where(_M.status == sa.literal_column("'planned'"))
    .order_by(tables.phases.c.created_at, _M.run, _M.message)
)
_ONE: Final = sa.select(_M.fence, _M.status).where(
    _M.run == sa.bindparam("run"), _M.message == sa.bindparam("message"), _M.node == sa.bindparam("node")
)
_NUMBER: Final = sa.select(_M.fence).where(_M.run == sa.bindparam("run"), _M.message == sa.bindparam("message"))
_LENGTHEN: Final = (
    sa.update(tables.phases)
    .where(*(tables.phases.c[name] == sa.bindparam(f"its_{name}") for name in ("run", "round", "phase")))
    .values(ttl=sa.bindparam("longer"))
)
_WHICH: Final = (_M.run == sa.bindparam("its_run")) & (_M.message == sa.bindparam("which"))
_FENCE: Final = sa.update(tables.messages).where(_WHICH).values(fence=sa.bindparam("next_fence"))
_REOPEN: Final = (
    sa.update(tables.messages)
    .where(_WHICH)
    .values(status="planned", reason="", fence=_M.fence + 1, received=0, seconds="{}")
)
_REASSIGN: Final = _REOPEN.values(node=sa.bindparam("other"))
_END: Final = (
    sa.update(tables.messages)
    .where(
        _WHICH,
        _M.status == sa.literal_column("'planned'"),
        _M.node == sa.func.coalesce(sa.bindparam("whose", type_=sa.BigInteger), _M.node),
    )
    .values(status=sa.bindparam("next_status"), reason=sa.bindparam("why"))
)
_FORGET: Final = tuple(
    sa.delete(table).where(table.c.run == sa.bindparam("run"), table.c.message == sa.bindparam("message"))
    for table in (tables.answers, tables.replies)
)
_QUESTIONS: Final = (
    sa.select(
        *(_M.message, _GROUP.label("round"), _M.phase, tables.members.c.name.label("node")),
        *(_M.status.label("outcome"), _M.reason),
        *(_M.sent, _M.received, _M.seconds, tables.replies.c.counted),
    )
    .join_from(tables.messages, tables.members, tables.members.c.id == _M.node)
    .outerjoin(tables.calls, _CALLED)
    .outerjoin(tables.replies, (tables.replies.c.run == _M.run) & (tables.replies.c.message == _M.message))
    .where(_M.run == sa.bindparam("run"), _M.round > sa.bindparam("after"))
    .order_by(_M.round, _M.message)
)


def _end(
    connection: sa.Connection, keys: Iterable[Key], status: str, reason: str, node: int | None = None
) -> list[Key]:
    values = {"next_status": status, "why": legible(reason), "whose": node}
    return [key for key in keys if _changed(connection, {**values, "its_run": key[0], "which": key[1]})]


def _changed(connection: sa.Connection, values: dict[str, Any]) -> bool:
    return connection.execute(_END, values).rowcount == 1


def _question(row: Any) -> Question:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
    late = values.pop("counted") is False and row.outcome == "lost"
    values["seconds"] = unpacked(row.seconds, dict[str, float], "messages.seconds")
    return Question(**values | ({"outcome": "late"} if late else {}))
