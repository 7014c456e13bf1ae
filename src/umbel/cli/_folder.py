"""The folder of a run: ``runs/<id>/`` with the model, the history, the plot and the checkpoint."""

import json
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umbel.cli._plot import Panel, plot
from umbel.cli._settings import Settings
from umbel.cli._text import command, nearest, safe
from umbel.errors import UsageError
from umbel.history import History
from umbel.records import save, write

RUNS = "runs"
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # without 0/o and 1/i/l, which are misread
_NAME = re.compile(r"[0-9]{8}-[0-9]{6}-[a-z0-9]{4}")  # as a server makes them; anything else is no name of a folder
_FORM = 1
_LIST_SHOWN = 8


@dataclass(frozen=True)
class RunFolder:
    """Where one run keeps what it makes."""

    path: Path

    @property
    def name(self) -> str:
        """Return the id of the run."""
        return self.path.name

    @property
    def model(self) -> Path:
        """Return the path of the final model."""
        return self.path / "model.safetensors"

    @property
    def history(self) -> Path:
        """Return the path of the history."""
        return self.path / "history.json"

    @property
    def plot(self) -> Path:
        """Return the path of the plot."""
        return self.path / "metrics.svg"

    @property
    def checkpoint(self) -> Path:
        """Return the path of the checkpoint's folder."""
        return self.path / "checkpoint"

    @property
    def start(self) -> Path:
        """Return the path of the file that says how the run was started."""
        return self.path / "run.json"


def new_run(runs: Path, name: str = "") -> RunFolder:
    """Make a folder whose name sorts by time and is taken by no other run: the name of a run, if that is free."""
    runs.mkdir(parents=True, exist_ok=True)
    if _NAME.fullmatch(name) and not (runs / name).exists():
        (runs / name).mkdir()
        return RunFolder(runs / name)
    while True:
        name = time.strftime("%Y%m%d-%H%M%S-") + "".join(secrets.choice(_ALPHABET) for _ in range(4))
        try:
            (runs / name).mkdir()
        except FileExistsError:
            continue
        return RunFolder(runs / name)


def find_run(runs: Path, given: str) -> RunFolder:
    """Return the run that ``given`` names: its id below ``runs``, or the path of its folder.

    Raises:
        UsageError: if there is no such run.

    """
    for path in (runs / given, Path(given)):
        if RunFolder(path).start.is_file():
            return RunFolder(path)
    known = sorted((file.parent.name for file in runs.glob("*/run.json")), reverse=True)
    where = safe(str(runs))
    near = nearest(given, known) if known else f"; {where} holds none (--runs FOLDER says where to look)"
    raise UsageError(f'there is no run "{safe(given)}" in {where}{near}')


def going_on(folder: RunFolder) -> str:
    """Return the command that goes on with a run that was stopped."""
    path = folder.path if folder.name else folder.path.resolve()
    where = () if path.parent == Path(RUNS) else ("--runs", str(path.parent))
    return command("umbel", "run", "--resume", path.name, *where)


def write_start(folder: RunFolder, target: str, settings: Settings) -> None:
    """Write how the run was started, so that it can be continued from anywhere with the same settings."""
    start = {
        "umbel-run": _FORM,
        "app": str(settings.file.resolve()),
        "given": target,
        "settings": settings.stored(),
    }
    write_text(folder.start, json.dumps(start, indent=2) + "\n")


def read_start(folder: RunFolder) -> dict[str, Any]:
    """Return what ``write_start`` wrote.

    Raises:
        UsageError: if the file is damaged.

    """
    try:
        start = json.loads(folder.start.read_text(encoding="utf-8"))
        if start["umbel-run"] == _FORM and isinstance(start["settings"], dict) and isinstance(start["app"], str):
            return start  # type: ignore[no-any-return]
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    msg = "expected what umbel run writes at the start of a run, got something else; start a new run"
    raise UsageError(msg, at=safe(str(folder.start)))


def write_results(folder: RunFolder, history: History, title: str) -> None:
    """Write the final model, the history and the plot; each appears complete or not at all."""
    save(history.model, folder.model)
    write_text(folder.history, history.to_json() + "\n")
    write_text(folder.plot, plot(list(panels(history)), title))


def panels(history: History) -> Iterator[Panel]:
    """Yield a panel for every metric; weights (``num-examples``) are none. Lists show their first elements."""
    columns = history.metrics
    numbers = columns["round"]
    for name in columns:
        if name == "round" or name.endswith("num-examples"):
            continue
        source, _, metric = name.partition(".")
        values = dict(zip(numbers, columns[name], strict=True))
        longest = max((len(value) for value in values.values() if isinstance(value, list)), default=None)
        if longest is None:
            yield Panel(source, metric, {number: value for number, value in values.items() if value is not None})
            continue
        for place in range(min(longest, _LIST_SHOWN)):
            series = {n: v[place] for n, v in values.items() if isinstance(v, list) and place < len(v)}
            yield Panel(source, f"{metric}[{place}]", series)


def write_text(path: Path, text: str) -> None:
    """Write a file, so that after a crash it is there whole or not at all."""
    write([text.encode()], path)
