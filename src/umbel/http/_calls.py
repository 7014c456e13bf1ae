"""What a handler is given, and what it gives back."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from umbel.http._table import Endpoint


class Member(NamedTuple):
    """Who signs requests: a number, a public key (32 bytes), and a kind: "node", "user" or "operator"."""

    member: int
    key: bytes
    kind: str


class Call(NamedTuple):
    """A request that was checked.

    ``params`` has what stands in the path and in the query, by name: numbers, and digests as text. ``body`` is of the
    type that the table says, or ``None``. ``sender`` is ``None`` where anyone may ask. ``address`` is the client's.
    """

    endpoint: Endpoint
    params: Mapping[str, Any]
    body: Any
    sender: Member | None
    address: str

    @property
    def member(self) -> int:
        """The number of the sender, 0 for one who did not sign."""
        return self.sender.member if self.sender is not None else 0

    @property
    def kind(self) -> str:
        """What the sender is, "" for one who did not sign."""
        return self.sender.kind if self.sender is not None else ""


class BlobState(NamedTuple):
    """A blob that is whole (``size`` in bytes), or one of which ``offset`` bytes have come (``size`` is ``None``)."""

    size: int | None
    offset: int = 0


class Source(NamedTuple):
    """The bytes of a whole blob, best mapped from a file, and what is called when no more of them is asked for.

    A connection may hold views of ``data`` a little longer: leave a mapping to the garbage collector.
    """

    data: Any
    close: Callable[[], None]


class Sink(Protocol):
    """Where an upload goes. ``offset`` is how many bytes are there already; the upload goes on from there."""

    @property
    def offset(self) -> int:
        """How many bytes are there."""

    def append(self, pieces: Sequence[bytes]) -> Coroutine[Any, Any, None]:
        """Take the next bytes, in pieces as they arrived."""

    def finish(self) -> Coroutine[Any, Any, None]:
        """Check the digest of the whole and make the blob visible, durably."""

    def close(self) -> Coroutine[Any, Any, None]:
        """Let go of the upload, always called last. What has come stays, unless ``finish`` was called."""


#: What answers an endpoint: bodies as the table says. ``stat_blob`` returns a ``BlobState``, ``get_blob`` a ``Source``,
#: ``put_blob`` a ``Sink`` or ``None`` if the blob is there already, ``metrics`` text as bytes.
Handler: TypeAlias = Callable[[Call], Coroutine[Any, Any, Any]]
#: Handlers by the name of their endpoint.
Handlers: TypeAlias = Mapping[str, Handler]
#: Returns a member by its number, ``None`` if it is unknown or was revoked.
Lookup: TypeAlias = Callable[[int], Awaitable[Member | None]]


class Hooks(NamedTuple):
    """What the owner of a server wants to hear of.

    ``progress(member, count)``: so many bytes of a blob came from, or went to, a member; ``fault(error)``: a handler
    raised what is no ``UmbelError``, and the client was told no more than 500.
    """

    progress: Callable[[int, int], None] = lambda _member, _count: None
    fault: Callable[[BaseException], None] = lambda _error: None
