"""``umbel strategies``: the strategies that ``[tool.umbel]`` can name, and the numbers that each takes."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, NamedTuple

import typer

from umbel import strategy as named
from umbel.cli._options import Json
from umbel.cli._screen import Screen, open_screen
from umbel.cli._table import Column
from umbel.cli._text import nearest, safe
from umbel.errors import UsageError
from umbel.strategy import Strategy

STRATEGIES: Final[Mapping[str, Callable[..., Strategy]]] = {
    made.__name__: made
    for made in (
        named.fedavg,
        named.fedavgm,
        named.fedadagrad,
        named.fedadam,
        named.fedyogi,
        named.fedprox,
        named.fednova,
        named.scaffold,
        named.feddyn,
        named.qfedavg,
        named.fedbn,
        named.fedper,
        named.diloco,
    )
}

_PAPER: Final = re.compile(r"arXiv:\d{4}\.\d{4,5}")
_CITATION: Final = re.compile(r" \((?:[^()]*, )?[^()]*arXiv:[^()]*\)")
_EXPECTED: Final = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_NAME: Final = "name"  # of the strategy: [tool.umbel] says it already


class Setting(NamedTuple):
    """One thing that a strategy can be told in TOML; without a default it has to be."""

    name: str
    default: Any
    kind: Any

    @property
    def expected(self) -> str:
        """Say what the value has to be."""
        return _EXPECTED.get(self.kind, "a text or a list of texts")

    def takes(self, value: object) -> bool:
        """Say whether a value of TOML has the right type."""
        if self.kind is bool or isinstance(value, bool):
            return self.kind is bool and isinstance(value, bool)
        if self.kind in (int, float, str):
            return isinstance(value, (int, float) if self.kind is float else self.kind)
        return isinstance(value, str) or (isinstance(value, list) and all(isinstance(each, str) for each in value))

    @property
    def required(self) -> bool:
        """Say whether there is no default."""
        return self.default is inspect.Parameter.empty

    def __str__(self) -> str:
        """Return ``fraction = 1.0``, or what has to be given."""
        return f"{self.name} (required)" if self.required else f"{self.name} = {self.default!r}"


def settings_of(name: str) -> list[Setting]:
    """Return what TOML can tell the strategy: plain values and lists of text. Parts are for a function of the app."""
    own = inspect.signature(STRATEGIES[name]).parameters.values()
    rest = inspect.signature(named.fedavg).parameters.values()
    shared = [each for each in rest if any(option.kind is option.VAR_KEYWORD for option in own)]
    options = {each.name: each for each in (*own, *shared) if each.name != _NAME and _is_plain(each)}
    return [Setting(each.name, each.default, each.annotation) for each in options.values()]


def _is_plain(option: inspect.Parameter) -> bool:
    return option.annotation in _EXPECTED or "Sequence[str]" in str(option.annotation)


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
    if name is not None and name not in STRATEGIES:
        raise UsageError(f'there is no strategy "{safe(name)}"{nearest(name, STRATEGIES)}')
    screen = open_screen(json_wanted=json)
    if json:
        screen.emit({"strategies": [_described(each) for each in ([name] if name else STRATEGIES)]})
    elif name is None:
        _list(screen)
    else:
        _show(screen, name)


def _described(name: str) -> dict[str, Any]:
    settings = [
        {"name": each.name, "required": each.required} | ({} if each.required else {"default": each.default})
        for each in settings_of(name)
    ]
    return {"name": name, "summary": _summary(name), "paper": _paper(name), "settings": settings}


def _summary(name: str) -> str:
    return _CITATION.sub("", _doc(name).partition("\n")[0]).removesuffix(".")


def _paper(name: str) -> str:
    found = _PAPER.search(_doc(name))
    return found.group() if found else ""


def _doc(name: str) -> str:
    return inspect.getdoc(STRATEGIES[name]) or ""


def _list(screen: Screen) -> None:
    columns = [Column("strategy"), Column("paper"), Column("own settings"), Column("what it does", elastic=True)]
    shared = {each.name for each in settings_of("fedavg")}
    rows = []
    for name in STRATEGIES:
        own = [str(each) for each in settings_of(name) if each.name not in shared]
        rows.append([name, _paper(name), ", ".join(own) or "-", _summary(name)])
    screen.table(columns, rows)
    screen.say()
    screen.say(f"all of them also take: {', '.join(map(str, settings_of('fedavg')))}")
    screen.say('in pyproject.toml: strategy = { name = "fedadam", learning_rate = 0.03 }')


def _show(screen: Screen, name: str) -> None:
    screen.say(f"{name}: {_summary(name)}")
    if _paper(name):
        screen.say(f"paper     {_paper(name)}")
    for each in settings_of(name):
        screen.say(f"setting   {each}")
