"""Signatures of requests: what is signed, how it stands in a header, and what makes one void.

    Authorization: Umbel member=7,audience=<22 characters>,expires=1764096157,nonce=<22>,signature=<86>

The bytes that are signed are these lines, each ended by a line feed:

    umbel request 1
    METHOD
    path, with the query as sent
    blake3:<digest of the body>, or the digest in the path when a blob is sent
    audience
    member
    expires, in whole seconds since 1970 on the server's clock
    nonce

Text is base64url without padding.
"""

import base64
import re
import secrets
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from blake3 import blake3

from umbel.errors import BadSignature, Replayed, SignatureExpired, WrongAudience
from umbel.http._identity import Identity, is_signed

EMPTY: Final = f"blake3:{blake3(b'').hexdigest()}"

_HEADER: Final = re.compile(
    r"Umbel member=(0|[1-9][0-9]{0,17}),audience=([\w-]{22}),expires=([1-9][0-9]{0,11})"
    r",nonce=([\w-]{22}),signature=([\w-]{86})",
    re.ASCII,
)


class SignedRequest(NamedTuple):
    """What a signature covers of a request: ``target`` is the path with the query, ``digest`` that of the body."""

    method: str
    target: str
    digest: str


class Signature(NamedTuple):
    """What the header says: who signed, for which audience, until when (seconds since 1970), the nonce, 64 bytes."""

    member: int
    audience: str
    expires: int
    nonce: str
    signature: bytes


def digest_of(body: bytes) -> str:
    """Return the digest of a body as it is signed."""
    return f"blake3:{blake3(body).hexdigest()}" if body else EMPTY


def signed_bytes(request: SignedRequest, audience: str, member: int, expires: int, nonce: str) -> bytes:
    """Return the bytes that are signed."""
    lines = ("umbel request 1", *request, audience, str(member), str(expires), nonce, "")
    return "\n".join(lines).encode()


def sign(
    identity: Identity, request: SignedRequest, *, audience: str, member: int, expires: int, nonce: str = ""
) -> str:
    """Return the header that signs ``request``; without a ``nonce``, one is drawn."""
    nonce = nonce or _text(secrets.token_bytes(16))
    signature = identity.sign(signed_bytes(request, audience, member, expires, nonce))
    return f"Umbel member={member},audience={audience},expires={expires},nonce={nonce},signature={_text(signature)}"


def read_signature(header: str) -> Signature:
    """Read a header.

    Raises ``BadSignature`` if it is missing or has another form.
    """
    if not header:
        raise BadSignature("expected a signed request, got one without a signature: join first", at="Authorization")
    match = _HEADER.fullmatch(header)
    if match is None:
        form = "Umbel member=...,audience=...,expires=...,nonce=...,signature=..."
        message = f"expected {form!r}, got {header!r:.60}"
        raise BadSignature(message, at="Authorization")
    member, audience, expires, nonce, signature = match.groups()
    return Signature(int(member), audience, int(expires), nonce, base64.urlsafe_b64decode(signature + "=="))


def verify(given: Signature, request: SignedRequest, *, key: bytes) -> None:
    """Check that the owner of ``key`` has signed ``request`` as ``given`` says.

    Raises ``BadSignature``.
    """
    signed = signed_bytes(request, given.audience, given.member, given.expires, given.nonce)
    if not is_signed(key, given.signature, signed):
        message = "expected the signature of this member over this very request, got another"
        raise BadSignature(message, at=f"member {given.member}")


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Clock:
    """Seconds since 1970 that only go forward: a system clock that is set back must not make old signatures good."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._offset = wall() - steady()

    def now(self) -> float:
        """Return the time."""
        return self._steady() + self._offset


class Nonces:
    """The nonces of requests that were accepted, each kept as long as its signature may live.

    ``skew`` is how far ahead, in seconds, a signature may expire; that bounds what is kept.
    """

    def __init__(self, clock: Clock, skew: float) -> None:
        self._clock = clock
        self._skew = skew
        self._seen: dict[int, set[tuple[int, str]]] = {}
        self._swept = 0

    def check_time(self, given: Signature) -> None:
        """Raise ``SignatureExpired`` for a signature whose time has passed or is too far ahead."""
        ahead = given.expires - self._clock.now()
        if 0 < ahead <= self._skew:
            return
        late = (
            f"expired {abs(ahead):.0f} s ago"
            if ahead <= 0
            else f"holds {ahead:.0f} s, {ahead - self._skew:.0f} too long"
        )
        message = (
            f"expected a signature that ends within {self._skew:.0f} s by the server's clock, got one that {late}: "
            "the clocks differ by about that much; ask /v1/server for the time"
        )
        raise SignatureExpired(message, at=f"member {given.member}")

    def take(self, given: Signature) -> None:
        """Note that a verified request is accepted, once.

        Raises ``Replayed`` the second time.
        """
        self._sweep()
        seen = self._seen.setdefault(given.expires, set())
        if (given.member, given.nonce) in seen:
            raise Replayed("expected a request that was not sent before, got one again", at=f"member {given.member}")
        seen.add((given.member, given.nonce))

    def _sweep(self) -> None:
        now = int(self._clock.now())
        if now == self._swept:
            return
        self._swept = now
        for expires in [second for second in self._seen if second <= now]:
            del self._seen[expires]

    def __len__(self) -> int:
        return sum(len(seen) for seen in self._seen.values())


def new_audience() -> str:
    """Draw the audience of a start of a server."""
    return _text(secrets.token_bytes(16))


def check_audience(given: str, ours: str) -> None:
    """Raise ``WrongAudience`` unless a client names this start of this server."""
    if given != ours:
        message = f"expected a signature for the audience {ours}, got one for {given!r:.80}: sign again for that"
        raise WrongAudience(message, at="Umbel-Audience")
