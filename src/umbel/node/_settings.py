"""What a node is told."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from umbel.node._policy import Policy


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Which server a node asks for work, which app it runs, and where it keeps what it has in hand.

    Args:
        url: where the server is, such as ``https://host:8443``.
        app: the app that the node runs, as ``package.module:name``.
        folder: the folder of this node, made if it is not there; no two nodes share one.
        secret: of the join token; used the first time only, and not needed afterwards.
        fingerprint: of the server's key, as in the token; empty for a certificate that the system trusts.
        name: what the node is called at the server; empty for the name of this machine.
        app_folder: the first folder in which the app's modules are looked for.
        config: what ``context.node_config`` holds.
        policy: what the server may ask of this node, and the limits of handlers.

    """

    url: str
    app: str
    folder: Path
    secret: bytes = b""
    fingerprint: str = ""
    name: str = ""
    app_folder: Path = Path()
    config: Mapping[str, bool | int | float | str] = {}
    policy: Policy = Policy()
