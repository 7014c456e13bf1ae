"""``umbel run APP --server URL`` for an app with a main: it runs here, and the server keeps all that it does."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import typer

from umbel.cli._app import LoadedMain, importable, load_main
from umbel.cli._failure import blame
from umbel.cli._grid import RemoteGrid
from umbel.cli._loop import context_of, keep_model, model_in
from umbel.cli._remote import Remote, open_remote
from umbel.cli._runs import find
from umbel.cli._screen import Screen, quiet
from umbel.cli._settings import Settings
from umbel.cli._text import safe
from umbel.cli._watching import voice
from umbel.envelope import Content, pack
from umbel.errors import UmbelError, UsageError, WrongState
from umbel.http.wire import RunSpec
from umbel.records import RecordSet

_RESUMABLE: Final = ("stopped", "failed")
_ENDED: Final = "completed"


def drive(
    screen: Screen,
    settings: Settings,
    server: str,
    *,
    nodes: int | list[str] | None,
    runs: Path,
    resume: str | None,
    typed: str,
) -> None:
    """Make a run of the server, or take one up, and run the main of the app for it to its end.

    ``typed`` is the command with which that was asked, which goes on with the run if ``--resume`` is added.
    """
    with importable(settings.folder), quiet(screen), open_remote(server) as remote:
        app = load_main(settings)
        runs.mkdir(parents=True, exist_ok=True)
        initial = pack(RecordSet(), lambda segments: remote.put(segments, runs))
        spec = _spec(app, nodes, initial)
        run = remote.submit(spec) if resume is None else _take_up(remote, spec, resume, as_before=nodes is None)
        command = f"{typed} --resume {run}"
        _announce(screen, remote, run, command)
        context, grid = context_of(app, run), RemoteGrid(remote, run, runs, voice(screen))
        with _leaving(screen, grid, command):
            app.main(grid, context)
            model = model_in(context)
            grid.end(model)
        keep_model(screen, runs, model)


def _spec(app: LoadedMain, nodes: int | list[str] | None, initial: Content) -> RunSpec:
    settings = app.settings
    named = app.nodes if isinstance(app.nodes, int) else list(app.nodes)
    return RunSpec(
        app=settings.client,
        strategy={"main": settings.main},
        rounds=0,
        seed=settings.seed,
        config=dict(settings.config),
        nodes=nodes or named,
        initial=initial,
    )


def _take_up(remote: Remote, spec: RunSpec, given: str, *, as_before: bool) -> int:
    """Return the number of a run that this very command has begun, and let it go on if it was stopped or failed.

    Its nodes are those that it has, unless others are named.
    """
    run = find(remote, given)
    view = remote.run(run)
    spec = msgspec.structs.replace(spec, nodes=view.spec.nodes) if as_before else spec
    before, now = msgspec.structs.asdict(view.spec), msgspec.structs.asdict(spec)
    differing = [name for name in now if before[name] != now[name]]
    if differing:
        name = differing[0]
        msg = f"run {run} was begun with {name} = {before[name]!r:.80}, got {now[name]!r:.80}: go on with what it has"
        raise UsageError(safe(msg), at="--resume")
    if view.row.status == _ENDED:
        msg = f"run {run} is complete: umbel runs watch {run} --save keeps its model here, if its main left one"
        raise WrongState(msg, at=remote.url)
    if view.row.status in _RESUMABLE:
        remote.resume(run, None)
    return run


def _announce(screen: Screen, remote: Remote, run: int, command: str) -> None:
    if screen.json:
        screen.emit({"event": "run-driven", "run": run, "server": remote.url, "next": command})
    else:
        screen.say(f"run {run} of {safe(remote.url)}; if this ends early, go on with: {command}")


@contextlib.contextmanager
def _leaving(screen: Screen, grid: RemoteGrid, command: str) -> Iterator[None]:
    """Say how to go on when main ends early; what main itself got wrong has failed the run.

    A server that refuses or cannot be reached, and Ctrl-C, leave the run as it is.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) and error is not grid.trouble:
            with contextlib.suppress(UmbelError):  # what main got wrong is what there is to say
                grid.fail(_reason(error))
        if screen.json:
            screen.emit({"event": "main-left", "next": command})
        else:
            typer.echo(f"main ended early; go on with: {command}", err=True)
        raise


def _reason(error: Exception) -> str:
    place = blame(error)
    return f"{type(error).__name__}: {error}" + (f" - at {place}" if place else "")
