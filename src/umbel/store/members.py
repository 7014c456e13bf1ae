"""Members of a server, nodes and users, and the tokens with which they join. Each function is an operation of a ledger.

A member is its Ed25519 key. Its name is for people: no two living members of a kind share one, and the name of a
member that was revoked is free again. Of a token the ledger has the BLAKE3 hash of its secret, never the secret.
"""

import secrets
import unicodedata
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa
from blake3 import blake3

from umbel.errors import (
    BadName,
    Conflict,
    MemberRevoked,
    NameTaken,
    NotFound,
    TokenExpired,
    TokenRevoked,
    TokenUnknown,
    TokenUsed,
    UsageError,
)
from umbel.store import _tables as tables
from umbel.store._json import legible, packed, unpacked

__all__ = [
    "Arrival",
    "Member",
    "NewToken",
    "Token",
    "by_key",
    "by_name",
    "describe",
    "every",
    "get",
    "join",
    "new_token",
    "revoke",
    "revoke_token",
    "rotate",
    "tokens",
    "touch",
]

_KINDS: Final = ("node", "user")
_SECRET: Final = 20
_KEY: Final = 32
_NAME_MAX: Final = 128


class Member(msgspec.Struct, frozen=True):
    """A node or a user. ``key`` is its public key, ``types`` the message types that a node's app handles."""

    id: int
    kind: str
    name: str
    key: bytes
    app: str
    types: tuple[str, ...]
    release: str
    joined_at: float
    last_seen: float
    revoked_at: float | None


class Token(msgspec.Struct, frozen=True):
    """A join token without its secret; ``used_by`` are the members that joined with it."""

    id: int
    kind: str
    uses_left: int
    created_at: float
    expires_at: float
    revoked: bool
    used_by: tuple[int, ...]


class NewToken(NamedTuple):
    """A token that was just made, with its secret (20 bytes), which nobody can look up again."""

    token: Token
    secret: bytes


class Arrival(msgspec.Struct, frozen=True):
    """Who wants to join: the secret of a token, the public key, and what it is."""

    secret: bytes
    key: bytes
    kind: str
    name: str
    app: str = ""
    types: tuple[str, ...] = ()
    release: str = ""


def new_token(connection: sa.Connection, kind: str, *, uses: int, expires_at: float, now: float) -> NewToken:
    """Make a token with which ``uses`` members of a kind ("node" or "user") can join until ``expires_at``.

    Raises ``UsageError`` for another kind, or a token that nobody could use.
    """
    if kind not in _KINDS or not 1 <= uses < 2**31 or not expires_at > now:
        raise UsageError(
            f"expected a token for a node or a user, of 1 use or more, that is valid for a while, got one for "
            f"{kind!r:.40}, of {uses} uses, valid for {expires_at - now:.0f} s",
            at="token",
        )
    secret = secrets.token_bytes(_SECRET)
    values = {"kind": kind, "uses_left": uses, "created_at": now, "expires_at": expires_at, "revoked": False}
    row = connection.execute(
        sa.insert(tables.tokens).returning(tables.tokens.c.id), {**values, "hash": _hash(secret), "used_by": "[]"}
    )
    return NewToken(Token(id=row.scalar_one(), used_by=(), **values), secret)  # type: ignore[arg-type]


def revoke_token(connection: sa.Connection, token: int) -> None:
    """Take a token back; raises ``NotFound`` for one that is not there."""
    done = connection.execute(sa.update(tables.tokens).where(tables.tokens.c.id == token).values(revoked=True))
    if not done.rowcount:
        raise NotFound(f"no token has the number {token}: umbel token --list shows them", at="token")


def tokens(connection: sa.Connection) -> list[Token]:
    """Return all tokens, the oldest first."""
    return [_token(row) for row in connection.execute(sa.select(tables.tokens).order_by(tables.tokens.c.id))]


def join(connection: sa.Connection, arrival: Arrival, now: float) -> Member:
    """Make a member. A key that has joined with this token before, or joins again with a valid one, is the same member.

    Raises:
        TokenUnknown, TokenUsed, TokenExpired, TokenRevoked: if the token does not let it in.
        NameTaken: if another living member of the kind has the name.
        MemberRevoked: if the key belongs to a member that was revoked.
        BadName: for a name that is empty, longer than 128 characters, not NFC, or not printable.

    """
    token = _known_token(connection, arrival)
    member = by_key(connection, arrival.key)
    if member is not None and member.id in token.used_by:
        return _living(member)
    _check_usable(token, now)
    if member is not None:
        return _living(member)
    _check_arrival(arrival)
    _check_free(connection, arrival.kind, arrival.name)
    return _admit(connection, arrival, token, now)


def get(connection: sa.Connection, member: int) -> Member:
    """Return a member, living or revoked; raises ``NotFound``."""
    row = connection.execute(_BY_ID, {"id": member}).first()
    if row is None:
        raise NotFound(f"no member has the number {member}", at="member")
    return _member(row)


def by_name(connection: sa.Connection, kind: str, name: str) -> Member:
    """Return the living member of a kind that has a name; raises ``NotFound``."""
    member = _find_name(connection, kind, name)
    if member is None:
        raise NotFound(f"no {kind} is called {name!r:.80}", at="name")
    return member


def by_key(connection: sa.Connection, key: bytes) -> Member | None:
    """Return the member whose key this is, living or revoked, or None."""
    row = connection.execute(_BY_KEY, {"key": key}).first()
    return None if row is None else _member(row)


def every(connection: sa.Connection, kind: str | None = None) -> list[Member]:
    """Return all members, or those of a kind, living and revoked, sorted by name."""
    query = sa.select(tables.members).order_by(tables.members.c.name, tables.members.c.id)
    if kind is not None:
        query = query.where(tables.members.c.kind == kind)
    return [_member(row) for row in connection.execute(query)]


def touch(connection: sa.Connection, seen: Mapping[int, float]) -> None:
    """Set when members were last seen, many at once; a time before the one that is there changes nothing."""
    if seen:
        connection.execute(_TOUCH, [{"which": member, "seen": at} for member, at in seen.items()])


def describe(connection: sa.Connection, member: int, *, app: str, types: tuple[str, ...], release: str) -> None:
    """Set what a node runs at present."""
    values = _described(app, types, release)
    connection.execute(sa.update(tables.members).where(tables.members.c.id == member).values(values))


def revoke(connection: sa.Connection, member: int, now: float) -> Member:
    """Exclude a member for good; again changes nothing. Raises ``NotFound``."""
    found = get(connection, member)
    if found.revoked_at is None:
        connection.execute(sa.update(tables.members).where(tables.members.c.id == member).values(revoked_at=now))
    return get(connection, member)


def rotate(connection: sa.Connection, member: int, key: bytes) -> Member:
    """Give a member a new key, under which it is known from now on; again with the same key changes nothing.

    Raises ``NotFound``, ``MemberRevoked``, or ``Conflict`` if the key is another member's.
    """
    _living(get(connection, member))
    _check_key(key)
    other = by_key(connection, key)
    if other is not None and other.id != member:
        raise Conflict("expected a key that nobody has, got another member's: make a new one", at="key")
    connection.execute(sa.update(tables.members).where(tables.members.c.id == member).values(key=key))
    return get(connection, member)


_BY_ID: Final = sa.select(tables.members).where(tables.members.c.id == sa.bindparam("id"))
_BY_KEY: Final = sa.select(tables.members).where(tables.members.c.key == sa.bindparam("key"))
_TOUCH: Final = (
    sa.update(tables.members)
    .where(tables.members.c.id == sa.bindparam("which"), tables.members.c.last_seen < sa.bindparam("seen"))
    .values(last_seen=sa.bindparam("seen"))
)


def _known_token(connection: sa.Connection, arrival: Arrival) -> Token:
    found = tables.tokens.c.hash == _hash(arrival.secret)
    kind = arrival.kind if arrival.kind in _KINDS else ""
    row = connection.execute(sa.select(tables.tokens).where(found, tables.tokens.c.kind == kind)).first()
    if row is None:
        raise TokenUnknown(f"this token lets no {arrival.kind:.40} in: copy the whole line again, or ask for a new one")
    return _token(row)


def _check_usable(token: Token, now: float) -> None:
    if token.revoked:
        raise TokenRevoked("this token was taken back: ask for a new one")
    if now >= token.expires_at:
        raise TokenExpired(f"this token expired {now - token.expires_at:.0f} s ago: ask for a new one")
    if token.uses_left < 1:
        raise TokenUsed("this token was used as often as it may be: ask for a new one")


def _check_arrival(arrival: Arrival) -> None:
    _check_key(arrival.key)
    name = arrival.name
    plain = name.isprintable() and name == name.strip() and unicodedata.is_normalized("NFC", name)
    if not (0 < len(name) <= _NAME_MAX and plain):
        raise BadName(
            f"expected a name of 1 to {_NAME_MAX} printable characters in NFC, without spaces at its ends, "
            f"got {name!a:.80}",
            at="name",
        )


def _check_key(key: bytes) -> None:
    if len(key) != _KEY:
        raise UsageError(f"expected an Ed25519 public key of {_KEY} bytes, got {len(key)} bytes", at="key")


def _check_free(connection: sa.Connection, kind: str, name: str) -> None:
    if _find_name(connection, kind, name) is not None:
        raise NameTaken(
            f"another {kind} is called {name!r:.80}: choose another name, or revoke that {kind} first", at="name"
        )


def _admit(connection: sa.Connection, arrival: Arrival, token: Token, now: float) -> Member:
    values = {"kind": arrival.kind, "name": arrival.name, "key": arrival.key}
    values |= _described(arrival.app, arrival.types, arrival.release) | {"joined_at": now, "last_seen": now}
    number = connection.execute(sa.insert(tables.members).returning(tables.members.c.id), values).scalar_one()
    used = {"uses_left": token.uses_left - 1, "used_by": packed((*token.used_by, number))}
    connection.execute(sa.update(tables.tokens).where(tables.tokens.c.id == token.id).values(used))
    return get(connection, number)


def _described(app: str, types: tuple[str, ...], release: str) -> dict[str, Any]:
    return {"app": legible(app), "types": packed(types), "release": legible(release)}


def _find_name(connection: sa.Connection, kind: str, name: str) -> Member | None:
    if not name.isprintable():
        return None
    known, living = tables.members.c.name == name, tables.members.c.revoked_at.is_(None)
    row = connection.execute(sa.select(tables.members).where(tables.members.c.kind == kind, known, living)).first()
    return None if row is None else _member(row)


def _living(member: Member) -> Member:
    if member.revoked_at is not None:
        raise MemberRevoked(f"{member.kind} {member.name!r} was revoked: ask the operator", at="member")
    return member


def _member(row: Any) -> Member:
    return Member(**{**row._mapping, "types": unpacked(row.types, tuple[str, ...], "members.types")})  # noqa: SLF001 - SQLAlchemy's public name


def _token(row: Any) -> Token:
    values = {**row._mapping, "used_by": unpacked(row.used_by, tuple[int, ...], "tokens.used_by")}  # noqa: SLF001 - likewise
    del values["hash"]
    return Token(**values)


def _hash(secret: bytes) -> bytes:
    return blake3(secret).digest()
