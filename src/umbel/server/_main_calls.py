"""What a main asks and is told, between the wire and the ledger."""

import time
from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from umbel.envelope import Content, blobs_of
from umbel.errors import BadValue, MainDiffers, UsageError
from umbel.http import mains, wire
from umbel.message import ErrorCode
from umbel.store import calls, messages, runs
from umbel.store.references import Present

_MAIN: Final = "main"
_MODEL: Final = "model"
_LONGEST: Final = 256
_ENDED: Final = "the main has ended"


def is_driven(spec: wire.RunSpec) -> bool:
    """Say whether the main of a run is elsewhere."""
    return _MAIN in spec.strategy


def check_driven(spec: wire.RunSpec) -> None:
    """Raise ``UsageError`` for a run that no main can drive."""
    main: object = spec.strategy[_MAIN]
    if set(spec.strategy) != {_MAIN} or spec.rounds or spec.initial.records or not 0 <= spec.seed < 2**63:
        raise UsageError(
            "expected a main alone as the strategy, no rounds, nothing to begin with, and a seed from 0 to 2**63 - 1: "
            "a main decides the rest itself",
            at="strategy",
        )
    if not (isinstance(main, str) and ":" in main and len(main) <= _LONGEST):
        raise UsageError(f"expected the main as 'module:name', got {main!r:.80}", at="strategy.main")


def note_running(connection: sa.Connection, run: int) -> None:
    """Take note that a main drives the run; raises ``WrongState`` if it was stopped."""
    if runs.get(connection, run).status != "running":
        runs.set_status(connection, run, "running", now=time.time())


def end(connection: sa.Connection, run: int, ending: mains.Ending, present: Present) -> list[messages.Key]:
    """Write that a main has ended, and return what is open and wanted no more; if it has failed, what is open still."""
    now, keys = time.time(), calls.open_of(connection, run)
    if ending.reason:
        runs.set_status(connection, run, "failed", now=now, reason=ending.reason)
        return keys
    _require_all(calls.count(connection, run), ending.calls)
    note_running(connection, run)
    messages.cancel(connection, keys, _ENDED)
    calls.close(connection, run, now=now)
    if ending.state is not None:
        runs.set_state(connection, run, ending.state, ending.digest, present=present)
    runs.set_status(connection, run, "completed", now=now)
    return keys


def _require_all(recorded: int, made: int | None) -> None:
    if made is not None and made != recorded:
        raise MainDiffers(
            f"expected a main that makes the {recorded} calls that were made before, got one that has ended after "
            f"{made}: run the main that this run was begun with, or begin another run",
            at="calls",
        )


def require_type(message_type: str) -> None:
    """Raise ``BadValue`` unless a type of message is short, and is one."""
    if not 0 < len(message_type) <= _LONGEST:
        raise BadValue(f"expected a type of 1 to {_LONGEST} characters, got {len(message_type)}", at="message_type")


def require_model(ending: mains.Ending) -> None:
    """Raise ``BadValue`` unless the digest of an end is that of the model in its state."""
    state = ending.state
    models = {named.name: named.part.digest for named in (() if state is None else state.records)}
    expected = "" if state is None else models.get(_MODEL)
    if ending.digest != expected:
        what = "none, since there is no state" if state is None else f"that of the record {_MODEL!r} of the state"
        raise BadValue(f"expected as the digest {what}, got {ending.digest!r:.80}", at="digest")


def keys_of(run: int, given: mains.GivenUp) -> list[messages.Key]:
    """Return what a main gives up; raises ``BadValue`` if that is too much at once."""
    _require_few(given.messages)
    return [(run, number) for number in dict.fromkeys(given.messages)]


def _require_few(numbers: Sequence[int]) -> None:
    if len(numbers) > mains.AT_ONCE:
        raise BadValue(
            f"expected up to {mains.AT_ONCE} messages at once, got {len(numbers)}: send several", at="messages"
        )


def plan_of(run: int, asking: mains.Asking, names: Sequence[str]) -> messages.Plan:
    """Return what a call asks; raises ``BadValue`` for what nobody can be asked."""
    require_type(asking.message_type)
    _require_few(asking.messages)
    if not 0 < len(asking.messages) == len(asking.nodes) or not asking.ttl > 0:
        raise BadValue("expected messages, a node for each, and seconds to live above 0", at="asking")
    asks = [messages.Ask(message, slot, asking.nodes[slot]) for slot, message in enumerate(asking.messages)]
    return messages.Plan(
        run=run,
        round=asking.call,
        phase=asking.message_type,
        # Two nodes may be of one name, if one of them was revoked.
        roster=tuple((name, node) for node, name in dict(zip(asking.nodes, names, strict=True)).items()),
        content=asking.content,
        ttl=asking.ttl,
        asks=tuple(asks),
    )


def _described(content: Content | None) -> list[tuple[str, str]]:
    """Return what a content is known by."""
    if content is None:
        return []
    return [*((named.name, named.part.digest) for named in content.records), ("", content.rest.digest)]


def require_same(
    call: mains.Wanted | mains.Asking,
    made: calls.Call,
    plan: messages.Plan | None = None,
) -> None:
    """Raise ``MainDiffers`` unless a call is the one that was made under its number before."""
    planned = made.planned
    before = {
        "type of message": made.phase,
        "round": made.group,
        "nodes": [(row.message, row.node) for row in planned.messages],
        "content": _described(planned.content),
    }
    now = {
        "type of message": call.message_type,
        "round": call.round,
        "nodes": [] if plan is None else [(ask.message, ask.node) for ask in plan.asks],
        "content": [] if plan is None else _described(plan.content),
    }
    differing = [name for name in before if before[name] != now[name]]
    if differing:
        raise MainDiffers(
            f"expected the main to ask in call {call.call} what it asked before, {_words(made)}, got another "
            f"{' and another '.join(differing)}: run the main that began this run, which may go by nothing but what it "
            "is told: no clock, and no random number without a seed",
            at=f"call {call.call}",
        )


def _words(made: calls.Call) -> str:
    count = len(made.planned.messages)
    what = f"{count} messages" if count else "for the nodes"
    return f"{what} of type {made.phase!r:.40} in round {made.group}"


def failures(came: Sequence[calls.Told | None]) -> list[runs.Outcome]:
    """Return, for the story of a run, the messages whose answer is an error."""
    given = [each.given for each in came if each is not None and each.given is not None]
    return [runs.Outcome(each.message, "lost", each.error_reason or "") for each in given if each.content is None]


def blobs_in(came: Sequence[calls.Told | None]) -> list[str]:
    """Return the digests of what came and does not travel inside."""
    given = [each.given for each in came if each is not None and each.given is not None]
    return [digest for each in given if each.content is not None for digest in blobs_of(each.content)]


def told_of(came: calls.Told) -> mains.Told:
    """Return what became of a message as its main is told."""
    given = came.given
    if given is None:
        code, reason = int(ErrorCode.NODE_UNAVAILABLE), came.reason
        return mains.Told(message=came.message, at=0.0, error_code=code, error_reason=reason)
    return mains.Told(
        message=came.message,
        at=came.at,
        content=given.content,
        error_code=given.error_code,
        error_reason=given.error_reason,
    )


def carried(told: mains.Told) -> int:
    """Return how many bytes travel inside."""
    content = told.content
    parts = () if content is None else (content.rest, *(named.part for named in content.records))
    return sum(len(part.data or b"") for part in parts)
