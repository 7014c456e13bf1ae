"""The steps of the ledger's schema, as they were released. `_tables` says what the tables are for."""

from typing import Any, Final

import sqlalchemy as sa
from alembic.operations import Operations

_Id: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_PLANNED: Final = sa.text("status = 'planned'")
_LIVING: Final = sa.text("revoked_at IS NULL")


def first(op: Operations) -> None:
    """Make all tables."""
    _members(op)
    _runs(op)
    _messages(op)
    _audit(op)


def calls(op: Operations) -> None:
    """Make the tables of runs that a main drives from elsewhere."""
    op.create_table(
        "calls",
        sa.Column("run", sa.BigInteger, sa.ForeignKey("runs.id"), primary_key=True),
        _column("number", sa.BigInteger, key=True),
        _column("phase", sa.Text),
        _column("group_id", sa.BigInteger),
    )
    op.create_table(
        "told",
        _column("run", sa.BigInteger, key=True),
        _column("place", sa.BigInteger, key=True),
        _column("message", sa.BigInteger),
        sa.ForeignKeyConstraint(["run", "message"], ["messages.run", "messages.message"]),
        sqlite_with_rowid=False,
    )


def _column(name: str, kind: Any, *, default: str | None = None, key: bool = False) -> "sa.Column[Any]":
    return sa.Column(name, kind, nullable=False, server_default=default, primary_key=key)


def _members(op: Operations) -> None:
    op.create_table(
        "members",
        sa.Column("id", _Id, primary_key=True, autoincrement=True),
        _column("kind", sa.Text),
        _column("name", sa.Text),
        sa.Column("key", sa.LargeBinary, nullable=False, unique=True),
        _column("app", sa.Text, default=""),
        _column("types", sa.Text),
        _column("release", sa.Text, default=""),
        _column("joined_at", sa.Double),
        _column("last_seen", sa.Double),
        sa.Column("revoked_at", sa.Double),
        sqlite_autoincrement=True,
    )
    op.create_index(
        *("members_living_name", "members", ["kind", "name"]),
        unique=True,
        sqlite_where=_LIVING,
        postgresql_where=_LIVING,
    )
    op.create_table(
        "tokens",
        sa.Column("id", _Id, primary_key=True, autoincrement=True),
        sa.Column("hash", sa.LargeBinary, nullable=False, unique=True),
        _column("kind", sa.Text),
        _column("uses_left", sa.BigInteger),
        _column("created_at", sa.Double),
        _column("expires_at", sa.Double),
        _column("revoked", sa.Boolean),
        _column("used_by", sa.Text),
        sqlite_autoincrement=True,
    )


def _runs(op: Operations) -> None:
    op.create_table(
        "runs",
        sa.Column("id", _Id, primary_key=True, autoincrement=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        _column("spec", sa.Text),
        _column("status", sa.Text),
        _column("reason", sa.Text, default=""),
        sa.Column("owner", sa.BigInteger, sa.ForeignKey("members.id"), nullable=False),
        _column("completed", sa.BigInteger, default="0"),
        sa.Column("state", sa.Text),
        _column("digest", sa.Text, default=""),
        _column("created_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        _column("restarts", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "reports",
        sa.Column("run", sa.BigInteger, sa.ForeignKey("runs.id"), primary_key=True),
        _column("round", sa.BigInteger, key=True),
        _column("report", sa.Text),
    )
    op.create_table(
        "blob_references",
        _column("digest", sa.Text, key=True),
        sa.Column("run", sa.BigInteger, sa.ForeignKey("runs.id"), primary_key=True),
        _column("holder", sa.Text, key=True),
        _column("round", sa.BigInteger),
        _column("size", sa.BigInteger),
        sqlite_with_rowid=False,
    )
    op.create_index("references_of_a_run", "blob_references", ["run", "holder"])


def _messages(op: Operations) -> None:
    op.create_table(
        "phases",
        sa.Column("run", sa.BigInteger, sa.ForeignKey("runs.id"), primary_key=True),
        _column("round", sa.BigInteger, key=True),
        _column("phase", sa.Text, key=True),
        _column("roster", sa.Text),
        sa.Column("content", sa.Text),
        _column("created_at", sa.Double),
        _column("ttl", sa.Double),
        sa.Column("closed_at", sa.Double),
    )
    op.create_table(
        "messages",
        _column("run", sa.BigInteger, key=True),
        _column("message", sa.BigInteger, key=True),
        _column("round", sa.BigInteger),
        _column("phase", sa.Text),
        _column("slot", sa.BigInteger),
        sa.Column("node", sa.BigInteger, sa.ForeignKey("members.id"), nullable=False),
        _column("fence", sa.BigInteger, default="0"),
        _column("status", sa.Text),
        _column("reason", sa.Text, default=""),
        _column("sent", sa.BigInteger, default="0"),
        _column("received", sa.BigInteger, default="0"),
        _column("seconds", sa.Text),
        sa.ForeignKeyConstraint(["run", "round", "phase"], ["phases.run", "phases.round", "phases.phase"]),
        sqlite_with_rowid=False,
    )
    op.create_index("messages_of_a_phase", "messages", ["run", "round", "phase"])
    op.create_index("messages_open", "messages", ["node"], sqlite_where=_PLANNED, postgresql_where=_PLANNED)
    op.create_table(
        "replies",
        _column("run", sa.BigInteger, key=True),
        _column("message", sa.BigInteger, key=True),
        _column("identity", sa.LargeBinary),
        _column("counted", sa.Boolean),
        _column("received_at", sa.Double),
        sa.ForeignKeyConstraint(["run", "message"], ["messages.run", "messages.message"]),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "answers",
        _column("run", sa.BigInteger, key=True),
        _column("message", sa.BigInteger, key=True),
        _column("answer", sa.Text),
        sa.ForeignKeyConstraint(["run", "message"], ["replies.run", "replies.message"]),
    )


def _audit(op: Operations) -> None:
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        _column("at", sa.Double),
        _column("actor", sa.Text),
        _column("action", sa.Text),
        _column("detail", sa.Text),
        _column("previous", sa.LargeBinary),
        _column("hash", sa.LargeBinary),
    )
