"""What this user knows of servers: ``servers/<host_port>/`` in the config folder, one for each that was joined.

``server.json`` says where it is, the fingerprint of its certificate and who one is there; ``key`` is the member's
private key, which nobody else may read. The server's own operator has a key in the server's data folder instead.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import platformdirs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from umbel.cli._text import nearest, safe
from umbel.errors import UsageError
from umbel.records._files import write

_FOLDER: Final = "UMBEL_CONFIG_DIR"
_ABOUT: Final = "server.json"
_KEY: Final = "key"


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A server as its members know it; ``key_file`` is where the key is if it is not beside this."""

    url: str
    fingerprint: str = ""
    member: int = 0
    name: str = ""
    key_file: str = ""


@dataclass(frozen=True)
class Known:
    """A server that was joined, and the folder that says so."""

    folder: Path
    about: About

    @property
    def key(self) -> Ed25519PrivateKey:
        """Return the private key; raises ``UsageError`` if it is gone or damaged."""
        path = Path(self.about.key_file) if self.about.key_file else self.folder / _KEY
        try:
            return Ed25519PrivateKey.from_private_bytes(path.read_bytes())
        except FileNotFoundError:
            reason = "there is none"
        except ValueError:
            reason = "it is damaged"
        msg = f"expected the key of {safe(self.about.url)}, but {reason}; join anew with umbel run --server URL#TOKEN"
        raise UsageError(msg, at=safe(str(path)))


def config_folder() -> Path:
    """Return the folder in which this user's settings of Umbel are; ``UMBEL_CONFIG_DIR`` names another."""
    named = os.environ.get(_FOLDER)
    return Path(named) if named else platformdirs.user_config_path("umbel")


def data_folder() -> Path:
    """Return the folder in which servers and nodes of this user keep their data unless ``--data`` says otherwise."""
    return platformdirs.user_data_path("umbel")


def all_known() -> list[Known]:
    """Return every server that this user has joined."""
    return [known for file in sorted(_servers().glob(f"*/{_ABOUT}")) for known in _read(file)]


def find_known(url: str | None) -> Known:
    """Return the server at ``url``; without one, the only server there is.

    Raises:
        UsageError: if there is none, or if it is not clear which.

    """
    servers = all_known()
    urls = [known.about.url for known in servers]
    if url is None:
        if len(servers) == 1:
            return servers[0]
        if not servers:
            msg = (
                "expected --server URL, got none, and no server was joined yet; umbel server starts one here, umbel "
                "token --user makes a line for one elsewhere"
            )
            raise UsageError(msg)
        raise UsageError(f"expected --server URL, since there is more than one: {', '.join(map(safe, urls))}")
    for known in servers:
        if known.about.url == url:
            return known
    hint = nearest(url, urls) if urls else ""
    msg = (
        f"you have not joined {safe(url)}{hint}; ask its operator for a line (umbel token --user) and name that: "
        "--server URL#TOKEN"
    )
    raise UsageError(msg)


def remember(about: About, key: Ed25519PrivateKey | None = None) -> Known:
    """Keep what is known of a server, and the key unless ``about`` says where it is."""
    folder = _servers() / folder_name(about.url)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if key is not None:
        write_secret(folder / _KEY, key.private_bytes_raw())
    write([msgspec.json.format(msgspec.json.encode(about), indent=2), b"\n"], folder / _ABOUT)
    return Known(folder, about)


def write_secret(path: Path, secret: bytes) -> None:
    """Write a file that its owner alone can read, whole or not at all."""
    early = path.with_name(f"{path.name}.{os.getpid()}")
    early.unlink(missing_ok=True)
    with os.fdopen(os.open(early, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(secret)
        stream.flush()
        os.fsync(stream.fileno())
    early.rename(path)


def folder_name(url: str) -> str:
    """Return ``host_8443`` for ``https://host:8443``: a name that any file system takes."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", url.partition("://")[2])


def _servers() -> Path:
    return config_folder() / "servers"


def _read(file: Path) -> Iterator[Known]:
    try:
        yield Known(file.parent, msgspec.json.decode(file.read_bytes(), type=About))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        msg = f"expected what umbel keeps of a server, got something else: {error}; remove the file and join anew"
        raise UsageError(msg, at=safe(str(file))) from error
