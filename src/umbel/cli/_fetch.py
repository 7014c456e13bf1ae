"""What a run of a server leaves here: its model, verified, and its history, in a folder like that of a local run."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec

from umbel.cli._folder import RunFolder, new_run, write_results, write_text
from umbel.cli._remote import Remote
from umbel.cli._rounds import going_on, is_driven
from umbel.cli._text import safe
from umbel.errors import AppError, RecordError, RecordTypeError, WrongState
from umbel.history import History, RoundReport
from umbel.http.wire import RunView
from umbel.records import MetricsRecord, ParametersRecord

Evaluate = Callable[[int, ParametersRecord], Mapping[str, Any]]

_MODEL = "model"
_SOURCE = "server.json"


def require_completed(view: RunView, url: str) -> None:
    """Raise if the run did not come to its end, with the way on."""
    row = view.row
    if row.status == "completed":
        return
    why = f": {row.reason}" if row.reason else ""
    if is_driven(row):
        raise WrongState(f"run {row.run} {row.status}{why}\ngo on with: {going_on(row.run, url)}")
    done = f"{row.status} after {row.completed} of {row.rounds} rounds"
    raise WrongState(f"run {row.run} {done}{why}\ngo on with: umbel runs resume {row.run} --server {url}")


def history_of(remote: Remote, view: RunView, runs: Path, evaluate: Evaluate | None = None) -> History:
    """Return the history of a run with its model, which is downloaded and verified.

    ``evaluate`` of the app is called here, by whoever submitted the run, and on the final model alone: the server runs
    no code of an app. Its metrics stand in the report of the last round, as ``central.<name>``.
    """
    reports = msgspec.convert(view.reports, list[RoundReport])
    rounds = [each for each in reports if each.round]
    if view.model is None:
        raise WrongState(f"expected run {view.row.run} to have a model, but it has none", at=remote.url)
    runs.mkdir(parents=True, exist_ok=True)
    model = remote.fetch(view.model, runs).parameters_records[_MODEL]
    if evaluate is not None and rounds:
        rounds[-1] = _measured(rounds[-1], evaluate, model)
    statistics = next((each for each in reports if not each.round), None)
    return History(tuple(rounds), view.digest, model, statistics=statistics)


def _measured(report: RoundReport, evaluate: Evaluate, model: ParametersRecord) -> RoundReport:
    returned: object = evaluate(report.round, model.copy())
    if not isinstance(returned, Mapping):
        msg = f"expected metrics by name from evaluate, such as {{'accuracy': 0.9}}, got {type(returned).__name__}"
        raise AppError(msg, at=f"round {report.round}")
    try:
        record = MetricsRecord(dict(returned))
    except (RecordError, RecordTypeError) as error:
        raise AppError(f"a metric from evaluate: {error.message}", at=f"round {report.round}, {error.at}") from error
    central = {f"central.{name}": _finite(value) for name, value in record.items()}
    return replace(report, metrics={**report.metrics, **central})


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value if isfinite(value) else None


def keep(runs: Path, url: str, view: RunView, history: History) -> RunFolder:
    """Write the model, the history and the picture of a run into a new folder below ``runs``, of its name if it can."""
    folder = new_run(runs, view.row.name)
    source = {"umbel-run": 1, "server": url, "run": view.row.run, "app": view.spec.app}
    write_text(folder.path / _SOURCE, msgspec.json.format(msgspec.json.encode(source), indent=2).decode() + "\n")
    write_results(folder, history, f"{safe(view.spec.app)}, run {view.row.run} of {safe(url)}")
    return folder
