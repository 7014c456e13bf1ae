"""``umbel strategies``: the strategies that ``[tool.umbel]`` can name, what each takes, and the parts for others."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from umbel.cli._options import Json
from umbel.cli._parts import Part, in_python, parts
from umbel.cli._screen import Screen, open_screen
from umbel.cli._table import Column
from umbel.cli._text import nearest, safe
from umbel.errors import UsageError
from umbel.strategy import Entry, Setting, catalogue


def strategies(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One of them, or of the parts.", show_default=False)
    ] = None,
    *,
    json: Json = False,
) -> None:
    """List the strategies that an app can name, and the parts of which others are made, or say what one of them takes.

    \b
      umbel strategies            all of them, with their papers
      umbel strategies fedadam    the numbers of one, with their defaults
      umbel strategies oort       a part, and how Python hands it over
      umbel strategies --json     the same for a script
    """  # noqa: D301 - a real backspace keeps the lines below it as they are
    known = catalogue()
    made = [part for part in parts() if part.name == name and name not in known]
    if name is not None and name not in known and not made:
        near = nearest(name, [*known, *(part.name for part in parts())])
        raise UsageError(f'there is no strategy "{safe(name)}"{near}')
    screen = open_screen(json_wanted=json)
    if json:
        entries = known.values() if name is None else [known[name]] if name in known else []
        listed = parts() if name is None else made
        screen.emit({"strategies": [*map(_described, entries)], "parts": [part._asdict() for part in listed]})
    elif name is None:
        _list(screen)
        _list_parts(screen)
    elif name in known:
        _show(screen, known[name])
    else:
        _show_part(screen, made[0])


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


def _list_parts(screen: Screen) -> None:
    columns = [
        Column("as"),
        Column("part"),
        Column("from", weight=1),
        Column("paper"),
        Column("what it is", elastic=True),
    ]
    screen.say()
    screen.table(columns, [[each.role, each.call, each.module, each.paper, each.summary] for each in parts()])
    screen.say()
    screen.say(in_python("select"))


def _show_part(screen: Screen, part: Part) -> None:
    holder, role = ("weighted_mean", "aggregator") if part.role == "weigh" else ("strategy", part.role)
    screen.say(f"{part.name}: {part.summary}")
    if part.paper:
        screen.say(f"paper     {part.paper}")
    screen.say(f"from      {part.module}")
    screen.say(f"part      {holder}({part.role}={part.call})")
    screen.say(in_python(role))


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
