"""An app with a loop of its own: run here, over nodes that are here as well, and the model that it leaves."""

from contextlib import closing
from pathlib import Path

from umbel.cli._app import LoadedMain
from umbel.cli._engine import engine_of
from umbel.cli._folder import new_run
from umbel.cli._operated import OperatedApp
from umbel.cli._screen import Screen
from umbel.cli._text import command
from umbel.context import Context
from umbel.engines import NodeStates, Population
from umbel.errors import AppError
from umbel.records import ParametersRecord, RecordSet, digest, save

_MODEL = "model"
_RUN = 1


def run_main(screen: Screen, app: LoadedMain, runs: Path, *, tracebacks: bool) -> None:
    """Run the main of an app over an engine, and keep the model that it leaves in ``context.state``."""
    settings, context = app.settings, context_of(app, _RUN)
    make = engine_of(settings)
    client = OperatedApp(app.client, tracebacks=tracebacks)
    config = dict(settings.config)
    states = NodeStates()
    with closing(make(client, Population(app.nodes), seed=settings.seed, run_config=config, states=states)) as grid:
        app.main(grid, context)
    keep_model(screen, runs, model_in(context))


def context_of(app: LoadedMain, run: int) -> Context:
    """Return what a main is given beside its grid; its state has the model to begin with, if there is one."""
    settings = app.settings
    state = RecordSet({} if app.initial is None else {_MODEL: app.initial})
    return Context(
        run_id=run,
        node_id=0,
        node_config={},
        state=state,
        run_config=dict(settings.config),
        node_name="server",
        seed=settings.seed,
    )


def model_in(context: Context) -> ParametersRecord | None:
    """Return the model that a main has left, if it has; raises ``AppError`` if it is none."""
    model: object = context.state.parameters_records.get(_MODEL)
    if model is None or isinstance(model, ParametersRecord):
        return model
    msg = f"expected a ParametersRecord as the model, got {type(model).__name__}"
    raise AppError(msg, at=f"context.state.parameters_records[{_MODEL!r}]")


def keep_model(screen: Screen, runs: Path, model: ParametersRecord | None) -> None:
    """Write a model into a new folder below ``runs``, and say where it is; say so if there is none."""
    if model is None:
        if screen.json:
            screen.emit({"event": "main-ended"})
        else:
            screen.say('main has ended, and left no model in context.state.parameters_records["model"]')
        return
    folder, name = new_run(runs), digest(model)
    save(model, folder.model)
    look = command("umbel", "inspect", str(folder.path))
    if screen.json:
        told = {"run": folder.name, "digest": name, "model": str(folder.model), "next": look}
        screen.emit({"event": "run-saved", **told})
        return
    screen.say()
    screen.say(f"digest   {name}")
    screen.say(f"model    {folder.model}")
    screen.say(f"next     {look}", style="bold")
