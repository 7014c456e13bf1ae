"""Watch a run of a server to its end, over restarts of the server."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import typer

from umbel.cli._feed import event_of
from umbel.cli._progress import Renderer, renderer
from umbel.cli._remote import Remote, Say
from umbel.cli._rounds import is_driven
from umbel.cli._screen import Screen
from umbel.cli._text import safe
from umbel.http.wire import EventLine, RunView
from umbel.rounds import RunStarted

_FAILED = "RunFailed"
_LOOK_AGAIN = 1.0  # seconds, while a run has not begun


def watch(screen: Screen, remote: Remote, run: int) -> RunView:
    """Show what happens in a run until it ends, and return it as it is then."""
    say = voice(screen)
    with _leaving(screen, remote, run), renderer(screen) as show:
        follow = _follower(show, say, lambda: _opening(remote.run(run, say)))
        look, after, ended = _waiting(remote, run, say), 0, False
        while look():
            time.sleep(_LOOK_AGAIN)
        while not ended:
            told = remote.events(run, after, say)
            for line in told.events:
                follow(line)
                after = line.number
            ended = told.ended
            if not told.events and not ended:
                look()
    return remote.run(run, say)


def voice(screen: Screen) -> Say:
    """Return what says, on a screen, what no event of the loop says."""

    def say(text: str, kind: str, **fields: Any) -> None:
        if screen.json:
            screen.emit({"event": kind, **fields})
        else:
            screen.say(text, style="yellow")

    return say


def _opening(view: RunView) -> RunStarted | None:
    """Return how a run began, as far as the run itself says; None for one whose rounds nobody knows beforehand."""
    if is_driven(view.row):
        return None
    wanted = view.spec.nodes if isinstance(view.spec.nodes, int) else len(view.spec.nodes)
    nodes = max(wanted, len({each.node for each in view.questions}))
    return RunStarted(view.row.run, view.row.strategy, view.spec.seed, view.row.rounds, 0, nodes)


def _follower(show: Renderer, say: Say, opening: Callable[[], RunStarted | None]) -> Callable[[EventLine], None]:
    """Return what shows the lines of a run; a start that is told again, after a restart, is no second start.

    A server that was started again tells the rounds that were complete before the start: ``opening`` says then how the
    run began.
    """
    started = False

    def follow(line: EventLine) -> None:
        nonlocal started
        event = event_of(line)
        if event is None and line.kind != _FAILED:  # why a run failed is said at the end
            told = ", ".join(f"{safe(name)} {safe(str(value))}" for name, value in line.fields.items())
            say(f"{safe(line.kind)}: {told}", line.kind, **line.fields)
        elif isinstance(event, RunStarted) and started:
            say(f"the run goes on after round {event.completed}", "run-goes-on", completed=event.completed)
        elif event is not None:
            first = None if started or isinstance(event, RunStarted) else opening()
            started = True
            for each in (first, event):
                if each is not None:
                    show(each)

    return follow


def _waiting(remote: Remote, run: int, say: Say) -> Callable[[], bool]:
    """Return what says, whenever it changes, for which nodes a run waits, and returns whether it does."""
    said = ""

    def look() -> bool:
        nonlocal said
        row = remote.run(run, say).row
        text = f"the run {safe(row.reason)}" if row.status == "waiting" else ""
        if row.reason and text not in ("", said):
            said = text
            say(text, "waiting", reason=row.reason)
        return row.status == "waiting"

    return look


@contextlib.contextmanager
def _leaving(screen: Screen, remote: Remote, run: int) -> Iterator[None]:
    """Say, to whoever stops watching, that the run goes on and how to watch it again."""
    try:
        yield
    except KeyboardInterrupt:
        command = f"umbel runs watch {run} --server {remote.url}"
        if screen.json:
            screen.emit({"event": "detached", "run": run, "next": command})
        else:
            typer.echo(f"run {run} goes on at the server; watch it with: {command}", err=True)
        raise
