"""``umbel run``: load an app, train it, keep what it made."""

import contextlib
import dataclasses
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

import umbel
from umbel import checkpoint
from umbel.cli._app import LoadedApp, find_settings, importable, load_app, load_main
from umbel.cli._conclusion import conclude, report
from umbel.cli._engine import asked_for, engine_of, refuse_engine
from umbel.cli._folder import (
    RUNS,
    RunFolder,
    find_run,
    going_on,
    new_run,
    read_start,
    write_results,
    write_start,
)
from umbel.cli._later import later
from umbel.cli._loop import run_main
from umbel.cli._operated import OperatedApp
from umbel.cli._options import Json
from umbel.cli._progress import renderer
from umbel.cli._screen import Screen, open_screen, quiet
from umbel.cli._settings import MOST_ROUNDS, MOST_SEED, MOST_WORKERS, Settings, override, read_settings
from umbel.cli._text import safe
from umbel.cli._units import number_or_names
from umbel.engines import ENGINES
from umbel.errors import UsageError
from umbel.history import History


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be run, and the folder of the run if it is being continued."""

    target: str
    settings: Settings
    runs: Path
    folder: RunFolder | None = None


def run(  # noqa: PLR0913 - the options of a command are its arguments
    context: typer.Context,
    app: Annotated[
        str | None,
        typer.Argument(
            metavar="PATH_OR_MODULE",
            help="A folder with a pyproject.toml, or an importable module.",
            show_default=False,
        ),
    ] = None,
    *,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_ROUNDS, metavar="N", help="Train for this many rounds.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=MOST_SEED, metavar="N", help="Draw everything from this seed.", show_default=False),
    ] = None,
    nodes: Annotated[
        Any,
        typer.Option(
            parser=number_or_names,
            metavar="N",
            help="Use this many nodes; of named ones, the first N. With --server: wait for so many, or for NAME,NAME.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"Run the nodes with: {', '.join(ENGINES)}.", show_default=False),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_WORKERS,
            metavar="N",
            help="Run the nodes in so many processes; by default, one for each core.",
            show_default=False,
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Run the nodes on this Ray cluster: auto, HOST:6379 or ray://HOST:10001.",
            show_default=False,
        ),
    ] = None,
    num_cpus: Annotated[
        float | None,
        typer.Option(metavar="X", help="With Ray: so many processors for a node; 1 by default.", show_default=False),
    ] = None,
    num_gpus: Annotated[
        float | None,
        typer.Option(metavar="X", help="With Ray: so many GPUs for a node, such as 0.25.", show_default=False),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value of [tool.umbel.config].", show_default=False),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Continue this run: its id or its folder.", show_default=False)
    ] = None,
    runs: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the folders of runs are.")] = Path(RUNS),
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Train over the nodes of this server, https://host:8443; with #TOKEN, join it as a user first.",
            show_default=False,
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="With --server: submit the run and end; umbel runs watch looks at it.")
    ] = False,
    json: Json = False,
) -> None:
    """Train an app and keep what it made.

    PATH_OR_MODULE has a pyproject.toml that says what to run:

    \b
      [tool.umbel]
      client = "app:app"                 what a node does with a message
      initial = "app:initial"            the model to begin with; or a .safetensors file
      nodes = 20                         or ["a", "b"], or "app:nodes" with what each is told
      strategy = { name = "fedavg" }     and its numbers, such as fraction = 0.5
      rounds = 10
      seed = 7
      engine = "processes"               a process for each core, or as many as workers = N says
      cluster = { address = "auto" }     a Ray cluster instead, with num_cpus and num_gpus for each node
      evaluate = "app:measure"           (round, model) -> metrics, on the server
      report = "app:report"              (history, config) -> text, printed at the end
      main = "app:server"                a loop of its own (ServerApp), instead of strategy, rounds, evaluate, report
      [tool.umbel.config]                values that reach every node; --set changes them
      epochs = 2

    Every round is kept on disk: after Ctrl-C, a crash or a power cut, --resume goes on where the run was and ends with
    the same model, bit for bit, unless the strategy goes by which replies come first. runs/<id>/ receives
    model.safetensors, history.json, metrics.svg and checkpoint/.

    With --server the nodes are real ones, which have joined that server. It is sent the strategy's name and numbers,
    the settings and the initial model, and runs no code of the app. The model is downloaded, verified and kept as
    above; evaluate is then called here, on the final model only. Ctrl-C leaves the run going.

    An app with a main is not submitted: main runs here, and asks the nodes of the server. Whenever it ends early, the
    same command with --resume RUN runs it again: it is told what it was told before, and goes on where it was.

    \b
      umbel run hello                          the app in the folder hello
      umbel run hello --rounds 3 --nodes 4     a quick try
      umbel run hello --set epochs=5           with another setting
      umbel run --resume 20260131-154502-k7qm  go on with a run
      umbel run hello --json | jq .            one JSON object a line for every event
      umbel run hello --server https://host:8443 --nodes 2
      umbel run own --server https://host:8443 --resume 7   run the main of run 7 again
    """  # noqa: D301 - a real backspace keeps the lines below it as they are
    screen = open_screen(json_wanted=json)
    by = asked_for(engine, workers, address=cluster, num_cpus=num_cpus, num_gpus=num_gpus)
    if server is not None:
        refuse_engine(by)
        if resume is not None and app is None:
            raise UsageError(f"a run of a server goes on with: umbel runs resume RUN --server {server}", at="--resume")
        settings = _begin(app, {"rounds": rounds, "seed": seed}, changes or [], runs).settings
        if settings.main is not None:
            _refuse_for_main(rounds, detach=detach)
            typed = _typed(app, server, seed, nodes, changes or [])
            later("umbel.cli._drive").drive(
                screen, settings, server, nodes=nodes, runs=runs, resume=resume, typed=typed
            )
            return
        if resume is not None:
            raise UsageError(f"a run of a server goes on with: umbel runs resume RUN --server {server}", at="--resume")
        later("umbel.cli._submit").submit(screen, settings, server, nodes=nodes, runs=runs, detach=detach)
        return
    asked = {"rounds": rounds, "seed": seed, "first_nodes": _counted(nodes), **by}
    if detach:
        raise UsageError("only a server can go on with a run by itself: name one with --server URL", at="--detach")
    plan = _begin(app, asked, changes or [], runs) if resume is None else _continue(app, asked, changes, runs, resume)
    with importable(plan.settings.folder), quiet(screen):
        if plan.settings.main is not None:
            _refuse_for_main(rounds, detach=False)
            run_main(screen, load_main(plan.settings), runs, tracebacks=context.meta["umbel.debug"])
            return
        loaded = load_app(plan.settings)
        loaded = dataclasses.replace(loaded, client=OperatedApp(loaded.client, tracebacks=context.meta["umbel.debug"]))
        folder, history = _train(screen, plan, loaded)
        conclude(screen, folder, history)
        if loaded.report is not None:
            report(screen, loaded.report(history, plan.settings.config))


def _typed(app: str | None, server: str, seed: int | None, nodes: Any, changes: list[str]) -> str:
    """Return the command that asked for a run of a main, as far as it says what that is; a token is used up by now."""
    words = ["umbel", "run", *filter(None, [app]), "--server", server.partition("#")[0]]
    words += [] if seed is None else ["--seed", str(seed)]
    words += [] if nodes is None else ["--nodes", str(nodes) if isinstance(nodes, int) else ",".join(nodes)]
    return shlex.join([*words, *(word for change in changes for word in ("--set", change))])


def _refuse_for_main(rounds: int | None, *, detach: bool) -> None:
    if rounds is not None:
        raise UsageError(
            "expected no number of rounds for an app with a main, which decides that itself", at="--rounds"
        )
    if detach:
        raise UsageError("the main of this app runs here, and cannot be left to a server: leave it out", at="--detach")


def _counted(nodes: int | list[str] | None) -> int | None:
    if isinstance(nodes, list):
        raise UsageError("expected a number of nodes, got names, which only nodes of a --server have", at="--nodes")
    return nodes


def _begin(app: str | None, asked: Mapping[str, Any], changes: list[str], runs: Path) -> Plan:
    if app is None:
        raise UsageError(
            "expected the folder of an app, got none; umbel new NAME writes one, umbel run . runs this one"
        )
    settings = read_settings(find_settings(app))
    return Plan(app, override(settings, changes, **asked), runs)


def _continue(app: str | None, asked: Mapping[str, Any], changes: list[str] | None, runs: Path, resume: str) -> Plan:
    """Return the plan of a run that was begun: its own settings, and more rounds if that is wished."""
    given = {"--seed": asked["seed"], "--nodes": asked["first_nodes"], "--set": changes or None}
    for option, value in given.items():
        if value is not None:
            raise UsageError(f"a run goes on with the settings it was begun with; leave {option} out", at=option)
    folder = find_run(runs, resume)
    start = read_start(folder)
    begun = Settings(file=_settings_of(folder, Path(start["app"]), app), **start["settings"])
    settings = override(begun, [], **{name: asked[name] for name in ("rounds", "engine", "workers", "cluster")})
    if checkpoint.exists(folder.checkpoint):
        checkpoint.read(folder.checkpoint, most=settings.rounds)  # refused before anything is written
    return Plan(start["given"], settings, runs, folder)


def _settings_of(folder: RunFolder, begun: Path, app: str | None) -> Path:
    """Return the settings file of a run; an app that has moved since is named anew."""
    if app is None and not begun.is_file():
        raise UsageError(
            f'the app of run {folder.name} is no longer in "{safe(str(begun.parent))}"; '
            f"if it has moved, umbel run ITS-FOLDER --resume {folder.name}"
        )
    given = begun if app is None else find_settings(app).resolve()
    if given != begun and begun.is_file():
        msg = f'run {folder.name} was begun with "{safe(str(begun.parent))}", got "{safe(str(app))}"; leave it out'
        raise UsageError(msg, at="--resume")
    return given


def _train(screen: Screen, plan: Plan, app: LoadedApp) -> tuple[RunFolder, History]:
    settings = plan.settings
    folder = plan.folder or new_run(plan.runs)
    with checkpoint.hold(folder.path), _leaving(screen, folder):
        write_start(folder, plan.target, settings)
        history = _simulate(screen, settings, app, folder)
        write_results(folder, history, f"{safe(settings.folder.resolve().name)}, run {folder.name}")
    return folder, history


def _simulate(screen: Screen, settings: Settings, app: LoadedApp, folder: RunFolder) -> History:
    with renderer(screen) as show:
        return umbel.simulate(
            app.client,
            app.strategy,
            app.initial,
            nodes=app.nodes,
            rounds=settings.rounds,
            seed=settings.seed,
            engine=engine_of(settings),
            run_config=settings.config,
            evaluate=app.evaluate,
            on_event=show,
            checkpoint=folder.checkpoint,
            resume=checkpoint.exists(folder.checkpoint),
        )


@contextlib.contextmanager
def _leaving(screen: Screen, folder: RunFolder) -> Iterator[None]:
    """Say how to go on when a run ends early; a run that completed no round leaves no folder behind."""
    try:
        yield
    except BaseException:
        if checkpoint.exists(folder.checkpoint):
            command = going_on(folder)
            if screen.json:
                screen.emit({"event": "run-stopped", "run": folder.name, "next": command})
            else:
                typer.echo(f"run {folder.name} stopped; go on with: {command}", err=True)
        else:
            _discard(folder)
        raise


def _discard(folder: RunFolder) -> None:
    with contextlib.suppress(OSError):
        folder.start.unlink(missing_ok=True)
        if folder.checkpoint.is_dir():
            folder.checkpoint.rmdir()
        folder.path.rmdir()
