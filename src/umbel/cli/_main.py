"""The ``umbel`` command: its options for all commands, and what happens when one fails."""

import contextlib
import os
import sys
from collections.abc import Callable
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any

import typer

from umbel.cli._diff import diff
from umbel.cli._failure import BROKEN_PIPE, report
from umbel.cli._inspect import inspect
from umbel.cli._later import COMMANDS, Later, stand_in
from umbel.cli._new import new
from umbel.cli._options import Json
from umbel.cli._run import run
from umbel.cli._screen import open_screen
from umbel.cli._settings import SETTINGS, where_set
from umbel.cli._strategies import strategies

_HELP = """Federated learning built on one idea: the parameter record.

Start here:

\b
  umbel new hello            write a small app that learns
  umbel run hello            train it; results land in runs/<id>/
  umbel inspect runs/<id>    look into the model
  umbel diff A B             compare two models

Then over a network, each line in a terminal or on a machine of its own:

\b
  umbel server                           prints the line with which a node joins
  umbel node --join URL#TOKEN --app m:a  on every machine that has data
  umbel run hello --server URL           train over the nodes
  umbel runs, umbel nodes, umbel doctor  look after all of it

Every command has --help with examples, and --json (JSON on stdout, nothing else there). Exit codes: 0 done, 1 \
different or failed, 2 a usage error, 130 interrupted; docs/reference/cli.md lists the others.
"""


class Commands(Later):
    """The group of commands; it turns every exception into a message and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take ``--debug`` from anywhere on the line: people add it to the end of a command that failed."""
        ctx.meta["umbel.debug"] = "--debug" in args
        ctx.meta["umbel.json"] = "--json" in args
        return super().parse_args(ctx, [arg for arg in args if arg != "--debug"])

    def invoke(self, ctx: Any) -> Any:
        """Run one command; what it raises becomes a message on stderr and an exit code."""
        try:
            return _invoke_and_flush(super().invoke, ctx)
        except BrokenPipeError:
            _let_go_of_stdout()
            raise typer.Exit(BROKEN_PIPE) from None
        except (typer.Exit, typer.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:  # the one place where an exception becomes an exit code
            if type(error).__module__.startswith(("typer", "click")):
                _say_where(error)
                raise
            status = report(error, debug=ctx.meta["umbel.debug"], json_wanted=ctx.meta["umbel.json"])
            _flush_or_let_go()
            raise typer.Exit(status) from None


def _say_where(error: Any) -> None:
    """Add to the error of an option that is none where a setting of that name is written."""
    name = getattr(error, "option_name", "").removeprefix("--")
    if name in SETTINGS and getattr(error.ctx, "info_name", "") == "run":
        error.message = f"{error.message}; {where_set(name)}"


def _invoke_and_flush(invoke: Callable[[Any], Any], ctx: Any) -> Any:
    try:
        return invoke(ctx)
    finally:
        # A full disk or a closed pipe has to show now, however the command ended, not while the interpreter exits.
        sys.stdout.flush()


def _flush_or_let_go() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        _let_go_of_stdout()


def _let_go_of_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's own flush at exit meets no broken pipe."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    name="umbel",
    cls=Commands,
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"umbel {installed_version('umbel')}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_show_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback when something fails.")] = False,
) -> None:
    """Take the options that come before the command."""


app.command()(new)
app.command()(run)
app.command()(inspect)
app.command()(diff)
app.command()(strategies)
for name, (_, text) in COMMANDS.items():
    app.command(name)(stand_in(text))


@app.command()
def version(*, json: Json = False) -> None:
    """Print the version of umbel."""
    if json:
        open_screen(json_wanted=True).emit({"umbel": installed_version("umbel"), "python": sys.version.split()[0]})
    else:
        typer.echo(f"umbel {installed_version('umbel')}")


def main() -> None:
    """Run the ``umbel`` command on the arguments of this process and end it with the exit code."""
    with contextlib.ExitStack() as stack:
        # A shell may close them (`umbel ... >&-`); what is written then goes nowhere.
        if sys.stdout is None:
            sys.stdout = stack.enter_context(Path(os.devnull).open("w"))
        if sys.stderr is None:
            sys.stderr = stack.enter_context(Path(os.devnull).open("w"))
        app(prog_name="umbel")
