"""Who asks: signatures, audiences, nonces, and what kinds of members an endpoint is for."""

from collections.abc import Mapping

from umbel.errors import Forbidden, UnknownMember
from umbel.http._calls import Lookup, Member
from umbel.http._signature import (
    Clock,
    Nonces,
    Signature,
    SignedRequest,
    check_audience,
    new_audience,
    read_signature,
    verify,
)
from umbel.http._table import Endpoint

_REMEMBERED = 2.0  # seconds for which a member need not be looked up again; it bounds how long a revoked one gets in
_KEPT = 10_000


class Door:
    """Lets those in whose signature is good, each signature once."""

    def __init__(self, lookup: Lookup, skew: float) -> None:
        self.audience = new_audience()
        self.clock = Clock()
        self._lookup = lookup
        self._nonces = Nonces(self.clock, skew)
        self._known: dict[int, tuple[float, Member]] = {}

    async def recognise(self, endpoint: Endpoint, headers: Mapping[str, str]) -> tuple[Signature, Member]:
        """Return what a request claims, after the checks that cost little; nothing is proved yet.

        Raises ``AuthError`` of the kind that says what is wrong.
        """
        given = read_signature(headers.get("Authorization", ""))
        check_audience(given.audience, self.audience)
        self._nonces.check_time(given)
        member = await self._member(given.member)
        if member.kind not in endpoint.who:
            message = f"expected a member of kind {' or '.join(endpoint.who)}, got a {member.kind}"
            raise Forbidden(message, at=f"{endpoint.method} {endpoint.path}")
        return given, member

    def accept(self, given: Signature, member: Member, request: SignedRequest) -> None:
        """Check the signature and take note of it.

        Raises ``BadSignature`` or ``Replayed``.
        """
        verify(given, request, key=member.key)
        self._nonces.take(given)

    async def _member(self, number: int) -> Member:
        now = self.clock.now()
        until, member = self._known.get(number, (0.0, None))
        if member is not None and now < until:
            return member
        member = await self._lookup(number)
        if member is None:
            self._known.pop(number, None)
            raise UnknownMember(
                "expected a member of this server, got one unknown or revoked: join", at=f"member {number}"
            )
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[number] = (now + _REMEMBERED, member)
        return member

    def forget(self, number: int) -> None:
        """Look a member up again at its next request: its key was changed, or it was revoked."""
        self._known.pop(number, None)
