"""Who may do what: members join, change their keys and are excluded; each of these is in the audit log."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from umbel.errors import BadSignature
from umbel.http import is_signed, rotation, wire
from umbel.server._claims import check_description
from umbel.server._diary import note
from umbel.server._keeper import Keeper
from umbel.server._registry import Registry
from umbel.store import audit, members


class Members:
    """Changes members in the ledger first, and in memory after; the event loop alone uses it.

    ``changed`` is told the number of a member whose key or right was changed.
    """

    def __init__(self, keeper: Keeper, registry: Registry, changed: Callable[[int], object]) -> None:
        self._keeper = keeper
        self._registry = registry
        self._changed = changed

    async def join(self, body: wire.Join, address: str) -> wire.Joined:
        """Let a member in whose token says so."""
        check_description(body.app, body.types, body.release)
        arrival = members.Arrival(
            body.secret, body.key, body.kind, body.name, body.app, tuple(body.types), body.release
        )
        member = await self._keeper.commit(lambda connection: _join(connection, arrival, address))
        self._registry.put(member)
        note(f"{member.kind} {member.name} joined", event="member-joined", member=member.id, name=member.name)
        return wire.Joined(member=member.id, name=member.name)

    async def rotate(self, number: int, body: wire.Rotate, audience: str) -> wire.Done:
        """Give a member a new key; raises ``BadSignature`` unless it shows that it has the new one."""
        if not is_signed(body.key, body.proof, rotation(number, audience)):
            raise BadSignature("expected a signature by the new key over the member and the audience", at="proof")
        actor = self._registry.actor(number)

        def change(connection: sa.Connection) -> members.Member:
            member = members.rotate(connection, number, body.key)
            _audit(connection, actor, "member.rotate", {"member": number, "name": member.name})
            return member

        self._registry.put(await self._keeper.commit(change))
        self._changed(number)
        return wire.Done()

    async def revoke(self, number: int, by: int) -> members.Member:
        """Exclude a member, at once."""
        actor = self._registry.actor(by)

        def change(connection: sa.Connection) -> members.Member:
            member = members.revoke(connection, number, time.time())
            _audit(connection, actor, "member.revoke", {"member": number, "name": member.name, "kind": member.kind})
            return member

        member = await self._keeper.commit(change)
        self._registry.put(member)
        self._changed(number)
        note(f"{member.kind} {member.name} was shut out", event="member-revoked", member=member.id, name=member.name)
        return member

    async def make_token(self, body: wire.TokenRequest, by: int) -> wire.TokenMade:
        """Make a join token."""
        actor, now = self._registry.actor(by), time.time()

        def change(connection: sa.Connection) -> members.NewToken:
            made = members.new_token(connection, body.kind, uses=body.uses, expires_at=now + body.valid, now=now)
            _audit(connection, actor, "token.make", {"token": made.token.id, "kind": body.kind, "uses": body.uses})
            return made

        made = await self._keeper.commit(change)
        return wire.TokenMade(token=made.token.id, secret=made.secret, expires_at=made.token.expires_at)

    async def tokens(self) -> list[members.Token]:
        """Return all tokens, the newest first."""
        return (await self._keeper.look(members.tokens))[::-1]

    async def revoke_token(self, token: int, by: int) -> wire.Done:
        """Take a token back."""
        actor = self._registry.actor(by)

        def change(connection: sa.Connection) -> None:
            members.revoke_token(connection, token)
            _audit(connection, actor, "token.revoke", {"token": token})

        await self._keeper.commit(change)
        return wire.Done()

    async def entries(self, after: int) -> list[audit.Entry]:
        """Return entries of the audit log after a number."""
        return await self._keeper.look(lambda connection: audit.entries(connection, after=after))


def _join(connection: sa.Connection, arrival: members.Arrival, address: str) -> members.Member:
    known = members.by_key(connection, arrival.key)
    member = members.join(connection, arrival, time.time())
    if known is None:
        detail = {"member": member.id, "kind": member.kind, "app": member.app, "address": address}
        _audit(connection, f"{member.kind} {member.name}", "member.join", detail)
    return member


def _audit(connection: sa.Connection, actor: str, action: str, detail: Mapping[str, Any]) -> None:
    audit.append(connection, actor=actor, action=action, now=time.time(), detail=detail)
