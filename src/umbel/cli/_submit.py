"""``umbel run APP --server URL``: the app's model and settings go to a server, which trains it over its nodes."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from umbel.cli._app import LoadedApp, importable, load_app
from umbel.cli._conclusion import conclude, report
from umbel.cli._fetch import history_of, keep, require_completed
from umbel.cli._remote import Remote, open_remote
from umbel.cli._screen import Screen, quiet
from umbel.cli._settings import Settings
from umbel.cli._text import safe
from umbel.cli._watching import voice, watch
from umbel.envelope import Content, pack
from umbel.errors import StrategyError, UsageError
from umbel.http.wire import RunSpec, RunView
from umbel.records import RecordSet
from umbel.strategy import named


def submit(
    screen: Screen, settings: Settings, server: str, *, nodes: int | list[str] | None, runs: Path, detach: bool
) -> None:
    """Submit a run, watch it, and keep what it made; or leave it to the server."""
    strategy = strategy_as_data(settings)
    with importable(settings.folder), quiet(screen), open_remote(server) as remote:
        app = load_app(settings)
        runs.mkdir(parents=True, exist_ok=True)
        initial = pack(RecordSet({"model": app.initial}), lambda segments: remote.put(segments, runs))
        spec = _spec(app, strategy, nodes, initial)
        run = remote.submit(spec)
        _announce(screen, remote, run, detach=detach)
        _warn(screen, spec)
        if not detach:
            _finish(screen, app, remote, watch(screen, remote, run), runs)


def _announce(screen: Screen, remote: Remote, run: int, *, detach: bool) -> None:
    command = f"umbel runs watch {run} --server {remote.url}"
    if screen.json:
        screen.emit({"event": "run-submitted", "run": run, "server": remote.url, "next": command})
        return
    screen.say(f"run {run} of {safe(remote.url)}")
    if detach:
        screen.say(f"next     {command}", style="bold")


def _warn(screen: Screen, spec: RunSpec) -> None:
    """Say so if nodes that are to train all the time would wait for one another."""
    count = spec.nodes if isinstance(spec.nodes, int) else len(spec.nodes)
    with contextlib.suppress(StrategyError):  # the server may know strategies that are not known here
        overlap = named(
            str(spec.strategy["name"]), {key: value for key, value in spec.strategy.items() if key != "name"}
        ).policy.overlap
        if overlap is not None and not overlap.tiers and overlap.buffer == count > 1:
            text = (
                f"a model of {overlap.buffer} updates waits for each of {count} nodes, since a node gets a model once: "
                f"with a buffer below {count} they train all the time"
            )
            voice(screen)(text, "large-buffer", buffer=overlap.buffer, nodes=count)


def strategy_as_data(settings: Settings) -> dict[str, Any]:
    """Return the strategy as a name and numbers; raises ``UsageError`` for one that is code of the app."""
    given = settings.strategy
    if not isinstance(given, str):
        return dict(given)
    if ":" in given:
        msg = (
            f'expected a strategy by name, such as "fedavg", got "{safe(given)}", which is code: a server runs no code '
            "of an app; name one of umbel strategies with its numbers, or run this app without --server"
        )
        raise UsageError(msg, at=f"{safe(str(settings.file))}, tool.umbel.strategy")
    return {"name": given}


def _spec(app: LoadedApp, strategy: Mapping[str, Any], nodes: int | list[str] | None, initial: Content) -> RunSpec:
    settings = app.settings
    return RunSpec(
        app=settings.client,
        strategy=dict(strategy),
        rounds=settings.rounds,
        seed=settings.seed,
        config=dict(settings.config),
        nodes=nodes or wanted(app),
        initial=initial,
    )


def wanted(app: LoadedApp) -> int | list[str]:
    """Return the nodes of the app: their number, or their names."""
    return app.nodes if isinstance(app.nodes, int) else list(app.nodes)


def _finish(screen: Screen, app: LoadedApp, remote: Remote, view: RunView, runs: Path) -> None:
    require_completed(view, remote.url)
    history = history_of(remote, view, runs, app.evaluate)
    conclude(screen, keep(runs, remote.url, view, history), history)
    if app.report is not None:
        report(screen, app.report(history, app.settings.config))
