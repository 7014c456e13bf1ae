"""``umbel runs``: the runs of a server."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from umbel.cli._conclusion import conclude
from umbel.cli._fetch import history_of, keep, require_completed
from umbel.cli._folder import RUNS
from umbel.cli._options import Data, Json, Server
from umbel.cli._remote import Remote, open_remote
from umbel.cli._rounds import going_on, is_driven, plain, show_round, show_run
from umbel.cli._screen import Screen, open_screen
from umbel.cli._settings import MOST_ROUNDS
from umbel.cli._table import Column
from umbel.cli._text import duration, moment, safe
from umbel.cli._watching import watch as watch_run
from umbel.errors import UsageError, WrongState
from umbel.http.wire import RunRow

Run = Annotated[str, typer.Argument(metavar="RUN", help="The number of the run, or its name.", show_default=False)]

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@app.callback()
def root() -> None:
    """List, explain, watch, stop and resume the runs of a server.

    \b
      umbel runs list              all runs, the newest first
      umbel runs show 7            every round: who was asked, who answered, where the seconds went
      umbel runs show 7 --round 3  one round in full
      umbel runs watch 7           live, until the run ends
      umbel runs stop 7            let the round under way go, keep what is complete
      umbel runs resume 7          go on after the last complete round
    """  # noqa: D301 - a real backspace keeps the lines below it as they are


@app.command("list")
def list_runs(*, server: Server = None, data: Data = None, json: Json = False) -> None:
    """List the runs of a server, the newest first.

    \b
      umbel runs list
      umbel runs list --server https://host:8443 --json
    """  # noqa: D301 - as above
    screen = open_screen(json_wanted=json)
    with open_remote(server, data) as remote:
        rows = sorted(remote.runs(), key=lambda row: row.run, reverse=True)
    if json:
        screen.emit({"runs": plain(rows)})
    elif rows:
        _list(screen, rows)
    else:
        screen.say("no run yet; umbel run APP --server URL submits one")


def _list(screen: Screen, rows: list[RunRow]) -> None:
    columns = [Column("run", right=True), Column("app", elastic=True), Column("strategy"), Column("status")]
    columns += [Column("rounds", right=True), Column("owner"), Column("begun"), Column("took", right=True, weight=0.0)]
    screen.table(columns, [_row(row) for row in rows])
    for row in rows:
        if row.status == "failed" and row.reason:
            screen.say(f"run {row.run} failed: {safe(row.reason.splitlines()[0])}", style="yellow")


def _row(row: RunRow) -> list[str]:
    took = "" if row.ended_at is None else duration(row.ended_at - row.created_at)
    done = "" if is_driven(row) else f"{row.completed}/{row.rounds}"
    begun = moment(row.created_at)
    return [str(row.run), safe(row.app), safe(row.strategy), row.status, done, safe(row.owner), begun, took]


@app.command()
def show(
    run: Run,
    *,
    number: Annotated[
        int | None, typer.Option("--round", min=0, metavar="N", help="This round in full.", show_default=False)
    ] = None,
    server: Server = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Explain a run: every round, who was asked, who answered, who did not and why, and where the seconds went.

    In the list of rounds, the phases of a node are those of the one that took longest: queued (until the node fetched
    the message), training, uploading; then come those of the server, such as gate and aggregate.

    \b
      umbel runs show 7
      umbel runs show 7 --round 3
      umbel runs show 7 --json | jq .reports
    """  # noqa: D301 - as above
    screen = open_screen(json_wanted=json)
    with open_remote(server, data) as remote:
        view = remote.run(find(remote, run))
    if json:
        screen.emit(plain(view))
    elif number is not None:
        show_round(screen, view, number)
    else:
        show_run(screen, view)


@app.command()
def watch(
    run: Run,
    *,
    save: Annotated[
        bool, typer.Option("--save", help="When it is complete, write model, history and picture into runs/<id>/.")
    ] = False,
    runs: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the folders of runs are.")] = Path(RUNS),
    server: Server = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Watch a run until it ends; Ctrl-C stops the watching, not the run.

    A server that is restarted meanwhile is waited for.

    \b
      umbel runs watch 7
      umbel runs watch 7 --save     and keep the model here
    """  # noqa: D301 - as above
    screen = open_screen(json_wanted=json)
    with open_remote(server, data) as remote:
        view = watch_run(screen, remote, find(remote, run))
        require_completed(view, remote.url)
        if save:
            history = history_of(remote, view, runs)
            conclude(screen, keep(runs, remote.url, view, history), history)
        elif not json:
            screen.say()
            screen.say(f"digest   {view.digest}")
            screen.say(f"next     umbel runs watch {view.row.run} --save", style="bold")


@app.command()
def stop(run: Run, *, server: Server = None, data: Data = None, json: Json = False) -> None:
    """Stop a run: what is complete stays, the round under way is given up.

    \b
      umbel runs stop 7
    """  # noqa: D301 - as above
    screen = open_screen(json_wanted=json)
    with open_remote(server, data) as remote:
        number = find(remote, run)
        with _as_it_is(remote, number, "stopped"):
            remote.stop(number)
        row = remote.run(number).row
        following = going_on(number, remote.url) if is_driven(row) else f"umbel runs resume {number}"
    _say(screen, row, following)


@app.command()
def resume(
    run: Run,
    *,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_ROUNDS, metavar="N", help="Go on until N rounds are complete.", show_default=False
        ),
    ] = None,
    server: Server = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Go on with a run that was stopped or that failed, to more rounds if wanted.

    \b
      umbel runs resume 7
      umbel runs resume 7 --rounds 40
    """  # noqa: D301 - as above
    screen = open_screen(json_wanted=json)
    with open_remote(server, data) as remote:
        number = find(remote, run)
        if is_driven(remote.run(number).row):
            msg = f"run {number} goes on where its main is: {going_on(number, remote.url)}"
            raise UsageError(msg, at=remote.url)
        with _as_it_is(remote, number, "resumed"):
            remote.resume(number, rounds)
        row = remote.run(number).row
    _say(screen, row, f"umbel runs watch {number}")


@contextlib.contextmanager
def _as_it_is(remote: Remote, run: int, wanted: str) -> Iterator[None]:
    """Say of a run that cannot be stopped or resumed what can be done with it as it is."""
    try:
        yield
    except WrongState as error:
        row = remote.run(run).row
        raise WrongState(
            f"run {run} cannot be {wanted}: it is {row.status}{_done(row)}\n{_onward(row, remote.url)}"
        ) from error


def _onward(row: RunRow, url: str) -> str:
    if row.status == "completed" and is_driven(row):
        return f"keep its model with: umbel runs watch {row.run} --save"
    if row.status == "completed":
        return (
            f"keep its model with: umbel runs watch {row.run} --save\n"
            "train on from that model as a new run: give its full path as initial in the pyproject.toml of the app, "
            f"then umbel run APP --server {url} --rounds N"
        )
    if row.status in ("stopped", "failed"):
        return f"go on with: {going_on(row.run, url) if is_driven(row) else f'umbel runs resume {row.run}'}"
    return f"look at it with: umbel runs watch {row.run}"


def _say(screen: Screen, row: RunRow, following: str) -> None:
    if screen.json:
        screen.emit({"run": plain(row), "next": following})
    else:
        screen.say(f"run {row.run}: {row.status}{_done(row)}")
        screen.say(f"next     {following}", style="bold")


def _done(row: RunRow) -> str:
    return "" if is_driven(row) else f", {row.completed} of {row.rounds} rounds complete"


def find(remote: Remote, given: str) -> int:
    """Return the number of the run that ``given`` names; raises ``UsageError`` if there is none."""
    if given.isdecimal():
        return int(given)
    rows = remote.runs()
    for row in rows:
        if row.name == given:
            return row.run
    known = ", ".join(str(row.run) for row in rows[:8]) or "none"  # the newest come first
    raise UsageError(f'there is no run "{safe(given)}"; the last ones are: {known}', at=remote.url)
