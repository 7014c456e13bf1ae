"""How a node is started: from what is typed, from what its app tells it, and from what its folder knows."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from umbel.cli._address import typed_join_line
from umbel.cli._folder import write_text
from umbel.cli._look import look
from umbel.cli._servers import data_folder, folder_name
from umbel.cli._settings import Scalar, like
from umbel.cli._text import safe
from umbel.errors import UsageError
from umbel.http import Token
from umbel.node import Policy, Settings

_FILE: Final = "start.json"
_SIMPLE: Final[Mapping[str, Scalar]] = {"true": True, "false": False}


class Typed(NamedTuple):
    """What stands on the command line; None for what does not."""

    join: str | None
    app: str | None
    name: str | None
    changes: Sequence[str] | None
    policy: Path | None
    memory: int | None
    handler: float | None


class Start(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node was started with, kept in its folder, so that it can be started without saying it again."""

    url: str
    app: str
    app_folder: str
    fingerprint: str = ""
    typed_app: str = ""
    name: str = ""
    changes: list[str] = []
    config: dict[str, bool | int | float | str] = {}
    policy: str = ""
    memory: int | None = None
    handler: float | None = None


def node_folder(data: Path | None, name: str | None, *, joins: bool) -> Path:
    """Return the folder of a node: the one that is named, the one of its name, or the only one there is."""
    if data is not None:
        return data
    nodes = data_folder() / "nodes"
    found = sorted(path.parent for path in nodes.glob(f"*/{_FILE}"))
    if name is None and not joins and len(found) == 1:
        return found[0]
    return nodes / folder_name(f"://{name or platform.node() or 'node'}")


def is_node(folder: Path) -> bool:
    """Say whether a node was started in a folder."""
    return (folder / _FILE).is_file()


def started(folder: Path) -> Start:
    """Return what a node was started with.

    Raises ``UsageError`` if no node was started in the folder.
    """
    try:
        return msgspec.json.decode((folder / _FILE).read_bytes(), type=Start)
    except FileNotFoundError:
        msg = (
            f"no node has joined a server from {safe(str(folder))}; the first start needs a line of umbel token: "
            "umbel node --join URL#TOKEN --app package.module:app"
        )
        raise UsageError(msg) from None
    except msgspec.DecodeError as error:
        msg = f"expected what a node was started with, got something else: {error}; join anew with --join"
        raise UsageError(msg, at=safe(str(folder / _FILE))) from error


def prepare(typed: Typed, folder: Path) -> Settings:
    """Return the settings of a node, and keep in its folder what the next start needs."""
    secret = b""
    if typed.join is None:
        before = started(folder)
    else:
        url, token = typed_join_line(typed.join)
        secret, before = token.secret, _joining(typed, folder, url, token)
    start = _changed(before, typed)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_text(folder / _FILE, msgspec.json.format(msgspec.json.encode(start), indent=2).decode() + "\n")
    return Settings(
        url=start.url,
        app=start.app,
        folder=folder,
        secret=secret,
        fingerprint=start.fingerprint,
        name=start.name,
        app_folder=Path(start.app_folder),
        config=start.config,
        policy=_policy(start),
    )


def _joining(typed: Typed, folder: Path, url: str, token: Token) -> Start:
    if typed.app is None:
        raise UsageError("expected the app that this node runs, got none: --app package.module:app", at="--app")
    try:
        before = started(folder)
    except UsageError:
        before = Start(url, "", "")
    return msgspec.structs.replace(before, url=url, fingerprint=token.fingerprint)


def _changed(before: Start, typed: Typed) -> Start:
    """Return what is to be, with the app asked again if it, the name or a setting is another than before."""
    app, name = typed.app or before.typed_app, typed.name or before.name
    changes = before.changes if typed.changes is None else list(typed.changes)
    policy = before.policy if typed.policy is None else str(typed.policy.resolve())
    after = msgspec.structs.replace(
        before,
        typed_app=app,
        name=name,
        changes=changes,
        policy=policy,
        memory=typed.memory or before.memory,
        handler=typed.handler or before.handler,
    )
    same = (app, name, changes) == (before.typed_app, before.name, before.changes)
    here = typed.app is None or ":" not in app or str(Path.cwd()) == before.app_folder
    return after if before.app and same and here else _looked_up(after)


def _looked_up(start: Start) -> Start:
    found = look(start.typed_app, start.name or platform.node())
    if found.names and found.config is None and not start.changes:
        names = ", ".join(map(safe, found.names[:20]))
        msg = (
            f'the app tells each of its nodes something, but has none called "{safe(start.name or platform.node())}"; '
            f"choose one with --name, or say with --set KEY=VALUE what this one is told (known: {names})"
        )
        raise UsageError(msg, at="--name")
    config = configured(found.config or {}, start.changes)
    return msgspec.structs.replace(start, app=found.app, app_folder=found.folder, config=config)


def configured(told: Mapping[str, Scalar], changes: Sequence[str]) -> dict[str, Scalar]:
    """Return what a node is told, with ``key=value`` changes; a value has the type that the app gave it, if any."""
    config = dict(told)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise UsageError(f'expected --set key=value, got "{safe(change)}"', at="--set")
        config[key] = like(config[key], text, safe(change)) if key in config else _plain(text)
    return config


def _plain(text: str) -> Scalar:
    """Return what a text looks like: true or false, a whole number, a number, or itself."""
    if text.lower() in _SIMPLE:
        return _SIMPLE[text.lower()]
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if kind is float or abs(value) < 2**63 else text
    return text


def _policy(start: Start) -> Policy:
    policy = Policy.read(start.policy) if start.policy else Policy()
    memory, handler = start.memory or policy.memory, start.handler or policy.handler
    return msgspec.structs.replace(policy, memory=memory, handler=handler)
