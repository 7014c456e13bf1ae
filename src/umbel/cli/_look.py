"""What an app tells a node of a name: asked in a process of its own, so that the node itself never holds the app."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from umbel.cli._app import Nodes, find_settings, importable, named_nodes
from umbel.cli._failure import explain
from umbel.cli._settings import Scalar, Settings, read_settings
from umbel.cli._text import safe
from umbel.engines import Population
from umbel.errors import AppError, UsageError

_MODULE: Final = "umbel.cli._look"
_TABLE: Final = "[tool.umbel"
_DIGITS: Final = 10


class Found(msgspec.Struct, frozen=True):
    """An app as a node starts it, and what its settings tell the node; ``config`` is None if they do not name it.

    ``names`` are the nodes that the settings name; there may be none. ``error`` says why there is nothing of this.
    """

    app: str = ""
    folder: str = ""
    config: dict[str, bool | int | float | str] | None = None
    names: list[str] = []
    error: str = ""
    at: str = ""


def look(target: str, name: str) -> Found:
    """Return what the app ``target``, as ``module:name`` or a folder, tells the node ``name``.

    Raises ``AppError`` or ``UsageError`` if the app or its settings cannot be read.
    """
    command = [sys.executable, "-P", "-m", _MODULE, target, name]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)  # noqa: S603 - our own
    try:
        found = msgspec.json.decode(done.stdout.rpartition(b"\n")[2], type=Found)
    except msgspec.DecodeError:
        msg = f"the app {safe(target)} ended its process with status {done.returncode} while it was loaded"
        raise AppError(msg, at="--app") from None
    if found.error:
        raise AppError(found.error, at=found.at)
    return found


def main() -> None:
    """Answer ``look`` as the process that it starts: one line of JSON, below whatever the app prints elsewhere."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            found = _look(sys.argv[1], sys.argv[2])
        except Exception as error:  # noqa: BLE001 - an app may raise anything; the process that asked shows it
            failure = explain(error)
            found = Found(error=failure.message, at=failure.at)
    sys.stdout.write(msgspec.json.encode(found).decode())


def _look(target: str, name: str) -> Found:
    if ":" not in target or Path(target).exists():
        settings = read_settings(find_settings(target))
        return _told(Found(settings.client, str(settings.folder.resolve())), settings, name)
    found = Found(target, str(Path.cwd()))
    with importable(Path()):
        files = list(_files(target.partition(":")[0]))
    return _told(found, read_settings(files[0]), name) if files else found


def _files(module: str) -> Iterator[Path]:
    """Yield the settings files beside the module, or here, that say something of an app."""
    with contextlib.suppress(UsageError):
        for file in (find_settings(module), Path("pyproject.toml")):
            if file.is_file() and _TABLE in file.read_text(encoding="utf-8", errors="replace"):
                yield file


def _told(found: Found, settings: Settings, name: str) -> Found:
    with importable(settings.folder):
        nodes = named_nodes(settings)
    names = [] if isinstance(nodes, int) else list(nodes)
    return msgspec.structs.replace(found, config=_config(nodes, name), names=names)


def _config(nodes: Nodes, name: str) -> dict[str, Scalar] | None:
    population = Population(nodes)
    if not isinstance(nodes, int):
        found = [node for node in population.nodes if node.name == name]
        return dict(population.config(found[0])) if found else None
    digits = name.removeprefix("node-")[:_DIGITS]
    if not digits.isdecimal() or int(digits) >= nodes:
        return None
    node = population.node(int(digits) + 1)
    return dict(population.config(node)) if node.name == name else None


if __name__ == "__main__":
    main()
