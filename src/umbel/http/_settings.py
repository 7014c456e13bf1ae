"""How a server listens, and what it bears."""

import msgspec

from umbel.http._certificate import Certificate


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Quotas. Whoever is over one is answered 429, or closed, and told when to come again.

    ``member_rate`` and ``address_rate`` are requests a second, of a member and, without or with a bad signature, of an
    address; ``burst`` is how many seconds of them may come at once. ``pending``, ``uploads`` and ``connections`` are
    how many requests and uploads of a member, and connections of an address, may be open at once; of the connections,
    ``handshakes`` at once may be in their TLS handshake, and the others wait. ``buffered`` bounds the bytes of all JSON
    bodies that are being read.
    """

    member_rate: float = 200.0
    address_rate: float = 500.0
    burst: float = 4.0
    pending: int = 64
    uploads: int = 8
    connections: int = 4096
    handshakes: int = 128
    buffered: int = 64 * 2**20


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how a server listens.

    ``port`` 0 lets the system choose. Without a ``certificate`` it is plain HTTP. ``stall`` and ``skew`` are in
    seconds, see ``docs/spec/api.md``.
    """

    name: str = "umbel"
    release: str = ""
    host: str = "127.0.0.1"
    port: int = 8443
    certificate: Certificate | None = None
    stall: float = 10.0
    skew: float = 60.0
    limits: Limits = Limits()
