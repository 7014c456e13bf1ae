"""What this user knows of servers: ``servers/<host_port>/`` in the config folder, one for each that was joined.

``server.json`` says where it is, the fingerprint of its certificate and who one is there; ``key`` is the member's
private key, which nobody else may read. The server's own operator has a key in the server's data folder instead.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import platformdirs
from blake3 import blake3

from umbel.cli._text import nearest, safe
from umbel.errors import UsageError
from umbel.http import Identity
from umbel.records import write

_FOLDER: Final = "UMBEL_CONFIG_DIR"
_ABOUT: Final = "server.json"
_KEY: Final = "key"


class About(msgspec.Struct, frozen=True, omit_defaults=True):
    """A server as one of its members knows it; ``key_file`` is where the key is, seen from here, if not beside this.

    A server writes the same, and more, into its data folder.
    """

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
    def key_file(self) -> Path:
        """Return where the private key is."""
        return self.folder / (self.about.key_file or _KEY)

    @property
    def identity(self) -> Identity:
        """Return who signs requests; raises ``UsageError`` if the key is gone or damaged."""
        return Identity.load(self.key_file)


def config_folder() -> Path:
    """Return the folder in which this user's settings of Umbel are; ``UMBEL_CONFIG_DIR`` names another."""
    named = os.environ.get(_FOLDER)
    return Path(named) if named else platformdirs.user_config_path("umbel")


def data_folder() -> Path:
    """Return the folder in which servers and nodes of this user keep their data unless ``--data`` says otherwise."""
    return platformdirs.user_data_path("umbel")


def all_known() -> list[Known]:
    """Return every server that this user has joined, or runs."""
    found = [_read(file) for file in sorted(_servers().glob(f"*/{_ABOUT}"))]
    return [known for known in found if known.key_file.exists()]


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
        f"you have not joined {safe(url)}; ask its operator for a line (umbel token --user) and name that: "
        f"--server URL#TOKEN{hint}"
    )
    raise UsageError(msg)


def is_server(data: Path) -> bool:
    """Say whether a folder is the data folder of a server."""
    return (data / _ABOUT).is_file()


def operator_of(data: Path) -> Known:
    """Return a server of this machine as its operator knows it; ``data`` is its data folder.

    Raises ``UsageError`` if no server has run there.
    """
    if not is_server(data):
        raise UsageError(
            "expected the data folder of a server, got one without: start umbel server with it", at=str(data)
        )
    return _read(data / _ABOUT)


def remember_own(data: Path, about: About) -> None:
    """Let the commands of this user find the server that they run; it has one place however often it moves."""
    name = f"own-{blake3(str(data.resolve()).encode()).hexdigest()[:16]}"
    _keep(name, msgspec.structs.replace(about, key_file=str(Path(about.key_file).resolve())))


def new_identity(url: str) -> Identity:
    """Return the key with which to join a server: the one that is there from an attempt before, or a new one."""
    folder = _servers() / folder_name(url)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / _KEY
    return Identity.load(path) if path.exists() else Identity.create(path)


def remember(about: About) -> Known:
    """Keep what is known of a server."""
    return _keep(folder_name(about.url), about)


def _keep(name: str, about: About) -> Known:
    folder = _servers() / name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write([msgspec.json.format(msgspec.json.encode(about), indent=2), b"\n"], folder / _ABOUT)
    return Known(folder, about)


def folder_name(url: str) -> str:
    """Return ``host_8443`` for ``https://host:8443``: a name that any file system takes."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", url.partition("://")[2])


def _servers() -> Path:
    return config_folder() / "servers"


def _read(file: Path) -> Known:
    try:
        return Known(file.parent, msgspec.json.decode(file.read_bytes(), type=About))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        msg = f"expected what umbel keeps of a server, got something else: {error}; remove the file and join anew"
        raise UsageError(msg, at=safe(str(file))) from error
