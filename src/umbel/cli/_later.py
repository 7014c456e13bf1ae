"""Commands that need a network or a database: their modules are imported when one is called, not before.

``umbel --help`` and the commands that work on files start in a fraction of the time that way.
"""

import importlib
from collections.abc import Callable
from typing import Any, Final

import typer
from typer.core import TyperGroup

#: Where a command is, and the first line of its help, which the list of commands shows without importing it.
COMMANDS: Final = {
    "server": ("umbel.cli._server", "Serve a federation: nodes join it and runs are trained over them."),
    "node": ("umbel.cli._node", "Join a server and train what it asks for, on data that stay here."),
    "token": ("umbel.cli._token", "Make a line with which a node or a user joins a server."),
    "nodes": ("umbel.cli._nodes", "List the nodes of a server, or shut one out."),
    "runs": ("umbel.cli._runs", "List, explain, watch, stop and resume the runs of a server."),
    "doctor": ("umbel.cli._doctor", "Check everything a server or a node needs, and say how to mend what is wrong."),
}


def later(module: str) -> Any:
    """Return a module of the command line that is imported now, at its first use."""
    return importlib.import_module(module)


def stand_in(text: str) -> Callable[[], None]:
    """Return a function whose help is ``text``, for the list of commands."""

    def command() -> None:
        raise AssertionError("a command that is called is the real one")

    command.__doc__ = text
    return command


class Later(TyperGroup):
    """A group in which the commands of ``COMMANDS`` are stood in for until one is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is called, with its module imported."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in COMMANDS:
            command = typer.main.get_command(later(COMMANDS[name][0]).app)
            command.name = name
        _without_types(command)
        return name, command, rest


def _without_types(command: Any) -> None:
    """Let help say ``RUN`` of an argument, not ``RUN <str>``: its text says what it is."""
    for each in getattr(command, "commands", {}).values():
        _without_types(each)
    for param in command.params:
        if param.param_type_name == "argument":
            param.display_type_rich = _no_type


def _no_type(**_: Any) -> None:
    return None
