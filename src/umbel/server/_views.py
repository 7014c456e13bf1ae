"""Rows of the ledger as those who ask see them."""

from typing import Any

import msgspec

from umbel.envelope import Content
from umbel.http import wire
from umbel.store import audit, members, messages, runs

_MODEL = "model"


def run_row(run: runs.Run, spec: wire.RunSpec, owner: str, waits_for: str) -> wire.RunRow:
    """Return a run as a row of a list."""
    return wire.RunRow(
        run=run.id,
        name=run.name,
        app=spec.app,
        strategy=str(spec.strategy.get("name", spec.strategy.get("main", ""))),
        status="waiting" if waits_for and run.status == "running" else run.status,
        reason=run.reason or waits_for,
        completed=run.completed,
        rounds=spec.rounds,
        owner=owner,
        created_at=run.created_at,
        ended_at=run.ended_at,
    )


def spec_of(run: runs.Run) -> wire.RunSpec:
    """Return what was submitted."""
    return msgspec.json.decode(run.spec, type=wire.RunSpec)


def model_of(state: Content | None) -> Content | None:
    """Return the model alone of a state."""
    if state is None:
        return None
    return Content(tuple(named for named in state.records if named.name == _MODEL), state.rest)


def parsed(reports: list[str]) -> list[Any]:
    """Return reports as they go into an answer: they are JSON already."""
    return [msgspec.Raw(report.encode()) for report in reports]


def question(row: messages.Question, *, is_sent: bool) -> wire.Question:
    """Return what became of a message; an open one is queued, or sent once its node has it."""
    outcome = row.outcome
    if outcome == "planned":
        outcome = "sent" if is_sent else "queued"
    return wire.Question(
        round=row.round,
        phase=row.phase,
        node=row.node,
        outcome=outcome,
        reason=row.reason,
        sent=row.sent,
        received=row.received,
        seconds=row.seconds,
    )


def token_row(token: members.Token) -> wire.TokenRow:
    """Return a token without its secret."""
    return wire.TokenRow(
        token=token.id, kind=token.kind, uses_left=token.uses_left, expires_at=token.expires_at, revoked=token.revoked
    )


def audit_line(entry: audit.Entry) -> wire.AuditLine:
    """Return an entry of the audit log."""
    return wire.AuditLine(
        number=entry.seq,
        at=entry.at,
        actor=entry.actor,
        action=entry.action,
        subject=str(entry.detail.get("name", "")),
        detail=entry.detail,
        digest=f"blake3:{entry.hash.hex()}",
    )
