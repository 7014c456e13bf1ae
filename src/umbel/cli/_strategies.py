"""``umbel strategies``: the strategies that ``[tool.umbel]`` can name, and the numbers that each takes."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from umbel.cli._options import Json
from umbel.cli._screen import Screen, open_screen
from umbel.cli._table import Column
from umbel.cli._text import nearest, safe
from umbel.errors import UsageError
from umbel.strategy import Entry, Setting, catalogue


def strategies(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One of them.", show_default=False)] = None,
    *,
    json: Json = False,
) -> None:
    """List the strategies that an app can name, or say what one of them takes.

    \b
      umbel strategies            all of them, with their papers
      umbel strategies fedadam    the numbers of one, with their defaults
      umbel strategies --json     the same for a script
    """  # noqa: D301 - a real backspace keeps the lines below it as they are
    known = catalogue()
    if name is not None and name not in known:
        raise UsageError(f'there is no strategy "{safe(name)}"{nearest(name, known)}')
    screen = open_screen(json_wanted=json)
    if json:
        screen.emit({"strategies": [_described(each) for each in ([known[name]] if name else known.values())]})
    elif name is None:
        _list(screen)
    else:
        _show(screen, known[name])


def _described(entry: Entry) -> dict[str, Any]:
    settings = [
        {"name": each.name, "required": each.required} | ({} if each.required else {"default": each.default})
        for each in entry.settings
    ]
    return {"name": entry.name, "summary": entry.summary, "paper": entry.paper, "settings": settings}


def _list(screen: Screen) -> None:
    columns = [Column("strategy"), Column("what it does", elastic=True)]
    columns += [Column("paper", weight=1.0), Column("own settings", weight=0.0)]  # which umbel strategies NAME has too
    shared = catalogue()["fedavg"].settings
    rows = []
    for entry in catalogue().values():
        own = [str(each) for each in entry.settings if each not in shared]
        rows.append([entry.name, entry.summary, entry.paper, ", ".join(own) or "-"])
    screen.table(columns, rows)
    screen.say()
    for without, settings in _grouped(shared).items():
        who = f"all but {', '.join(without)}" if without else "all of them"
        screen.say(f"{who} also take: {', '.join(map(str, settings))}")
    screen.say('in pyproject.toml: strategy = { name = "fedadam", learning_rate = 0.03 }')


def _grouped(shared: Sequence[Setting]) -> dict[tuple[str, ...], list[Setting]]:
    """Return settings by the names of the strategies that do without them, those that all have first."""
    groups: dict[tuple[str, ...], list[Setting]] = {}
    for each in shared:
        without = tuple(entry.name for entry in catalogue().values() if each not in entry.settings)
        groups.setdefault(without, []).append(each)
    return dict(sorted(groups.items(), key=lambda group: len(group[0])))


def _show(screen: Screen, entry: Entry) -> None:
    screen.say(f"{entry.name}: {entry.summary}")
    if entry.paper:
        screen.say(f"paper     {entry.paper}")
    for each in entry.settings:
        screen.say(f"setting   {each}")
