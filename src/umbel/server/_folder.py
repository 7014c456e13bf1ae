"""The data folder of a server: where everything is, and how its operator is found by who may read the folder."""

import secrets
import time
from pathlib import Path
from typing import Final

import msgspec
import sqlalchemy as sa

from umbel.errors import UsageError
from umbel.http import Identity
from umbel.records._files import write
from umbel.store import members

_OPERATOR: Final = "operator"
_MOMENT: Final = 60.0


class About(msgspec.Struct, frozen=True):
    """What a server writes into its data folder, for programs on the same machine: where it listens, and who it is.

    ``member`` is the operator's number; ``key_file`` holds the operator's private key: in the file it is named as seen
    from there, so that the folder may move. ``fingerprint`` is empty for plain HTTP.
    """

    server: str
    member: int
    key_file: str
    url: str = ""
    fingerprint: str = ""


class Folder:
    """The places in a data folder, which is made, for its owner alone, if it is not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs = path / "blobs"
        self.uploads = path / "uploads"
        self.scratch = path / "scratch"
        self.keys = path / "keys"
        self.about = path / "server.json"
        self.boot = path / "boot"
        self.operator = self.keys / _OPERATOR
        for folder in (path, self.blobs, self.uploads, self.scratch, self.keys):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = self.read()
        #: What the server is called, drawn at its first start.
        self.server = secrets.token_hex(8) if known is None else known.server

    @property
    def ledger(self) -> str:
        """The URL of the ledger in the folder."""
        return f"sqlite:///{self.path / 'ledger.db'}"

    def identity(self) -> Identity:
        """Return the operator's key, made at the first start."""
        if self.operator.exists():
            return Identity.load(self.operator)
        return Identity.create(self.operator)

    def read(self) -> About | None:
        """Return what the server has written, None before its first start."""
        return read_about(self.path) if self.about.exists() else None

    def say(self, about: About) -> None:
        """Write where the server is."""
        about = msgspec.structs.replace(about, key_file=str(self.operator.relative_to(self.path)))
        write([msgspec.json.format(msgspec.json.encode(about), indent=2), b"\n"], self.about)


def read_about(data: Path) -> About:
    """Return what the server with this data folder has written there.

    Raises ``UsageError`` if there is nothing, or something else.
    """
    path = data / "server.json"
    try:
        about = msgspec.json.decode(path.read_bytes(), type=About)
    except FileNotFoundError:
        raise UsageError(
            "expected the data folder of a server, got none: umbel server makes one", at=str(data)
        ) from None
    except msgspec.DecodeError as error:
        raise UsageError(f"expected what a server writes, got something else: {error}", at=str(path)) from error
    return msgspec.structs.replace(about, key_file=str(data / about.key_file))


def ensure_operator(connection: sa.Connection, key: bytes) -> members.Member:
    """Return the operator: the user with this key, made if there is none."""
    known = members.by_key(connection, key)
    if known is not None:
        return known
    now = time.time()
    made = members.new_token(connection, "user", uses=1, expires_at=now + _MOMENT, now=now)
    return members.join(connection, members.Arrival(made.secret, key, "user", _OPERATOR), now)
