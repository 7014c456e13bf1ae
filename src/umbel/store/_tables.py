"""The tables of the ledger, as `docs/spec/storage.md` describes them.

The migrations make them; a test compares the two. Times are seconds since 1970 on the server's clock, ids are 64-bit,
and a column that holds JSON is text that msgspec has written.
"""

from typing import Any, Final

import sqlalchemy as sa

METADATA: Final = sa.MetaData()

# SQLite numbers rows by itself only in a column of exactly this type.
_Id: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_Time: Final[sa.Double[float]] = sa.Double()
# Many small rows: SQLite keeps them in the tree of their key, which saves a second one.
_COMPACT: Final[dict[str, Any]] = {"sqlite_with_rowid": False}
_PLANNED: Final = sa.text("status = 'planned'")
_LIVING: Final = sa.text("revoked_at IS NULL")


def _text(name: str) -> "sa.Column[Any]":
    return sa.Column(name, sa.Text, nullable=False, server_default="")


def _count(name: str, kind: Any = sa.BigInteger) -> "sa.Column[Any]":
    return sa.Column(name, kind, nullable=False, server_default="0")


members: Final = sa.Table(
    "members",
    METADATA,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("key", sa.LargeBinary, nullable=False, unique=True),
    _text("app"),
    sa.Column("types", sa.Text, nullable=False),
    _text("release"),
    sa.Column("joined_at", _Time, nullable=False),
    sa.Column("last_seen", _Time, nullable=False),
    sa.Column("revoked_at", _Time),
    # A number is never given twice: a member that is gone stays the one that the audit log means.
    sqlite_autoincrement=True,
)
sa.Index(
    "members_living_name",
    members.c.kind,
    members.c.name,
    unique=True,
    sqlite_where=_LIVING,
    postgresql_where=_LIVING,
)

tokens: Final = sa.Table(
    "tokens",
    METADATA,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    sa.Column("hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("uses_left", sa.BigInteger, nullable=False),
    sa.Column("created_at", _Time, nullable=False),
    sa.Column("expires_at", _Time, nullable=False),
    sa.Column("revoked", sa.Boolean, nullable=False),
    sa.Column("used_by", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)

runs: Final = sa.Table(
    "runs",
    METADATA,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    _text("reason"),
    sa.Column("owner", sa.BigInteger, sa.ForeignKey("members.id"), nullable=False),
    _count("completed"),
    sa.Column("state", sa.Text),
    _text("digest"),
    sa.Column("created_at", _Time, nullable=False),
    sa.Column("ended_at", _Time),
    sa.Column("restarts", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)

reports: Final = sa.Table(
    "reports",
    METADATA,
    sa.Column("run", sa.BigInteger, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("round", sa.BigInteger, primary_key=True),
    sa.Column("report", sa.Text, nullable=False),
)

phases: Final = sa.Table(
    "phases",
    METADATA,
    sa.Column("run", sa.BigInteger, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("round", sa.BigInteger, primary_key=True),
    sa.Column("phase", sa.Text, primary_key=True),
    sa.Column("roster", sa.Text, nullable=False),
    sa.Column("content", sa.Text),
    sa.Column("created_at", _Time, nullable=False),
    sa.Column("ttl", _Time, nullable=False),
    sa.Column("closed_at", _Time),
)

messages: Final = sa.Table(
    "messages",
    METADATA,
    sa.Column("run", sa.BigInteger, primary_key=True),
    sa.Column("message", sa.BigInteger, primary_key=True),
    sa.Column("round", sa.BigInteger, nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("slot", sa.BigInteger, nullable=False),
    sa.Column("node", sa.BigInteger, sa.ForeignKey("members.id"), nullable=False),
    _count("fence"),
    sa.Column("status", sa.Text, nullable=False),
    _text("reason"),
    _count("sent"),
    _count("received"),
    sa.Column("seconds", sa.Text, nullable=False),
    sa.ForeignKeyConstraint(["run", "round", "phase"], ["phases.run", "phases.round", "phases.phase"]),
    **_COMPACT,
)
sa.Index("messages_of_a_phase", messages.c.run, messages.c.round, messages.c.phase)
sa.Index("messages_open", messages.c.node, sqlite_where=_PLANNED, postgresql_where=_PLANNED)

replies: Final = sa.Table(
    "replies",
    METADATA,
    sa.Column("run", sa.BigInteger, primary_key=True),
    sa.Column("message", sa.BigInteger, primary_key=True),
    sa.Column("identity", sa.LargeBinary, nullable=False),
    sa.Column("counted", sa.Boolean, nullable=False),
    sa.Column("received_at", _Time, nullable=False),
    sa.ForeignKeyConstraint(["run", "message"], ["messages.run", "messages.message"]),
    **_COMPACT,
)

# What replies say, apart from them: it goes when the round is closed, and its pages with it.
answers: Final = sa.Table(
    "answers",
    METADATA,
    sa.Column("run", sa.BigInteger, primary_key=True),
    sa.Column("message", sa.BigInteger, primary_key=True),
    sa.Column("answer", sa.Text, nullable=False),
    sa.ForeignKeyConstraint(["run", "message"], ["replies.run", "replies.message"]),
)

# The calls of a main that drives its run from elsewhere. What a call asks is the phase of the run with its number as
# round; ``group_id`` is the round that the main calls it by.
calls: Final = sa.Table(
    "calls",
    METADATA,
    sa.Column("run", sa.BigInteger, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("group_id", sa.BigInteger, nullable=False),
)

# In which order such a main is told what became of its messages.
told: Final = sa.Table(
    "told",
    METADATA,
    sa.Column("run", sa.BigInteger, primary_key=True),
    sa.Column("place", sa.BigInteger, primary_key=True),
    sa.Column("message", sa.BigInteger, nullable=False),
    sa.ForeignKeyConstraint(["run", "message"], ["messages.run", "messages.message"]),
    **_COMPACT,
)

references: Final = sa.Table(
    "blob_references",
    METADATA,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("run", sa.BigInteger, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("holder", sa.Text, primary_key=True),
    sa.Column("round", sa.BigInteger, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    **_COMPACT,
)
sa.Index("references_of_a_run", references.c.run, references.c.holder)

audit: Final = sa.Table(
    "audit",
    METADATA,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", _Time, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("previous", sa.LargeBinary, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
)
