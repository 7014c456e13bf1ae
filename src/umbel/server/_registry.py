"""The members of a server as its event loop knows them: the ledger's rows, in memory, changed after the ledger."""

import time
from collections.abc import Iterable

from umbel.errors import NotFound
from umbel.http.wire import NodeRow
from umbel.server._presence import Presence
from umbel.store.members import Member

NODE = "node"


class Registry:
    """Members by number, living and revoked; the event loop alone uses it.

    ``operator`` is the number of the user who may do everything.
    """

    def __init__(self, members: Iterable[Member], operator: int, presence: Presence) -> None:
        self._members = {member.id: member for member in members}
        self._operator = operator
        self._presence = presence

    def put(self, member: Member) -> None:
        """Take a member, or what has become of it."""
        self._members[member.id] = member

    def get(self, number: int) -> Member:
        """Return a member, living or revoked; raises ``NotFound``."""
        if number not in self._members:
            raise NotFound(f"no member has the number {number}", at="member")
        return self._members[number]

    def node(self, number: int) -> str:
        """Return what people call a node, living or revoked; raises ``NotFound`` if there is none."""
        if self.get(number).kind != NODE:
            raise NotFound(f"no node has the number {number}", at="node")
        return self.name(number)

    def find(self, number: int) -> Member | None:
        """Return a living member, or None."""
        member = self._members.get(number)
        return member if member is not None and member.revoked_at is None else None

    def kind(self, member: Member) -> str:
        """Return what a member may do: "node", "user" or "operator"."""
        return "operator" if member.id == self._operator else member.kind

    def actor(self, number: int) -> str:
        """Return what the audit log calls a member."""
        member = self.get(number)
        return f"{self.kind(member)} {member.name}"

    def name(self, number: int) -> str:
        """Return what people call a member."""
        return self.get(number).name

    def nodes(self) -> list[Member]:
        """Return the living nodes, by name."""
        living = (each for each in self._members.values() if each.kind == NODE and each.revoked_at is None)
        return sorted(living, key=lambda member: member.name)

    def count_online(self) -> int:
        """Return how many nodes are there."""
        return sum(self._presence.is_here(member.id) for member in self._members.values() if member.kind == NODE)

    def seen(self) -> dict[int, float]:
        """Return when members were heard of since the start, in seconds since 1970."""
        now = time.time()
        since = {number: self._presence.seconds_since(number) for number in self._members}
        return {number: now - seconds for number, seconds in since.items() if seconds is not None}

    def rows(self) -> list[NodeRow]:
        """Return all nodes for people, by name."""
        nodes = (member for member in self._members.values() if member.kind == NODE)
        return [self._row(member) for member in sorted(nodes, key=lambda member: member.name)]

    def _row(self, member: Member) -> NodeRow:
        since = self._presence.seconds_since(member.id)
        return NodeRow(
            member=member.id,
            name=member.name,
            app=member.app,
            types=list(member.types),
            status=self._status(member),
            joined_at=member.joined_at,
            last_seen=member.last_seen if since is None else time.time() - since,
            release=member.release,
        )

    def _status(self, member: Member) -> str:
        if member.revoked_at is not None:
            return "revoked"
        if self._presence.is_silent(member.id):
            return "silent"
        return "online" if self._presence.is_here(member.id) else "unheard"
