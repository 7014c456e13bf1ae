"""What a server is told."""

from pathlib import Path
from typing import Final

import msgspec

from umbel.http import Limits

_ANY: Final = ("0.0.0.0", "::", "")  # noqa: S104 - a server listens; the operator says where


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server keeps its data, where it listens, and its timeouts in seconds.

    Args:
        data: the folder of everything that the server keeps; made if it is not there.
        host: the address to listen on.
        port: the port to listen on; 0 lets the system choose.
        plain: plain HTTP; otherwise TLS, with a certificate that the server makes itself unless one is given.
        certificate: the file of a certificate chain, in PEM, with ``key`` the file of its private key.
        hosts: names and addresses by which the server is reached, for the certificate that it makes.
        database: a URL of the ledger; empty for SQLite in the data folder.
        blobs: a URL of an object store for the blobs; empty for a folder in the data folder.
        mains: whether users, and not the operator alone, may drive runs, whose mains are told each single update.
        keep: for how many rounds of a run it stays known who was asked; None for all.
        poll: how long an empty poll is held.
        patience: how long a node may be silent; None for three times ``poll``.
        stall: how long a connection may make no progress.
        skew: how long a signature lives.
        limits: quotas.

    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 8443
    plain: bool = False
    certificate: Path | None = None
    key: Path | None = None
    hosts: tuple[str, ...] = ()
    database: str = ""
    blobs: str = ""
    mains: bool = False
    keep: int | None = None
    poll: float = 25.0
    patience: float | None = None
    stall: float = 10.0
    skew: float = 60.0
    limits: Limits = Limits()

    @property
    def names(self) -> tuple[str, ...]:
        """The names by which the server is reached, the best first: the address that it listens on, if it is one."""
        own = () if self.host in _ANY else (self.host,)
        return tuple(dict.fromkeys((*own, *self.hosts))) or ("localhost",)

    @property
    def silence(self) -> float:
        """For how many seconds a node may be silent."""
        return 3 * self.poll if self.patience is None else self.patience
