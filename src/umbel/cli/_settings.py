"""``[tool.umbel]`` in a ``pyproject.toml``: read, checked, and overridden from the command line."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import Any, TypeAlias

from umbel.cli._parts import in_python, parts
from umbel.cli._text import nearest, safe
from umbel.engines import ENGINES, RayCluster
from umbel.errors import UsageError
from umbel.strategy import catalogue, strategy

Scalar: TypeAlias = bool | int | float | str

MOST_SEED = 2**63 - 1
MOST_ROUNDS = 1_000_000
MOST_NODES = 1_000_000_000
_REQUIRED = ("client", "initial", "nodes")
_CLUSTER = tuple(RayCluster.__dataclass_fields__)
_OF_THE_LOOP = ("strategy", "rounds", "evaluate", "report")
MOST_WORKERS = 10_000


@dataclass(frozen=True)
class Settings:
    """What one run needs, as written; the names of functions are still names."""

    file: Path
    client: str
    initial: str
    nodes: int | str | tuple[str, ...]
    strategy: str | Mapping[str, Any] = "fedavg"
    rounds: int = 10
    seed: int = 0
    engine: str = "local"
    workers: int | None = None
    cluster: Mapping[str, Any] = field(default_factory=dict)
    main: str | None = None
    evaluate: str | None = None
    report: str | None = None
    config: Mapping[str, Scalar] = field(default_factory=dict)
    first_nodes: int | None = None

    def stored(self) -> dict[str, Any]:
        """Return everything but the file, as values that JSON can carry."""
        return {name: value for name, value in vars(self).items() if name != "file"}

    @property
    def folder(self) -> Path:
        """Return the folder of the app, which is where its modules are."""
        return self.file.parent


SETTINGS = tuple(name for name in Settings.__dataclass_fields__ if name not in {"file", "first_nodes"})


def where_set(name: str) -> str:
    """Return how ``umbel run`` is told a setting of ``[tool.umbel]`` that is none of its config."""
    if name in _WITH_OPTION:
        return f"say it with --{name}"
    example = _EXAMPLES.get(name, f'{name} = "app:{LIKELY.get(name, name)}"')
    return f"write it in [tool.umbel] of the app's pyproject.toml: {example}"


@dataclass(frozen=True)
class _Source:
    """The text of a settings file, kept to say on which line a fault is."""

    file: Path
    text: str

    def at(self, table: str, key: str = "") -> str:
        """Return ``pyproject.toml line 7`` for ``key`` of ``[table]``, or the table's own line."""
        header, found = "", ""
        for number, line in enumerate(self.text.splitlines(), start=1):
            stripped = line.strip()
            if stripped.startswith("["):
                header = stripped.split("]")[0].strip("[ ")
                found = f" line {number}" if header == table else found
            elif key and header == table and stripped.split("=")[0].strip(" \"'") == key:
                return f"{safe(str(self.file))} line {number}"
        return f"{safe(str(self.file))}{found}"

    def within(self, table: str, key: str) -> str:
        """Return where ``key`` of a table of ``[tool.umbel]`` is, which has a header of its own or is on one line."""
        apart = self.at(f"tool.umbel.{table}", key)
        return self.at("tool.umbel", table) if apart == safe(str(self.file)) else apart


def read_settings(file: Path) -> Settings:
    """Return the settings in ``file``.

    Raises:
        UsageError: if the file is missing, is no TOML, or says something that cannot be, with file and line.

    """
    source, table = _read_table(file)
    for key in table:
        if key not in SETTINGS:
            msg = f'unknown setting "{safe(key)}" in [tool.umbel]{_of_a_strategy(key) or nearest(key, SETTINGS)}'
            raise UsageError(msg, at=source.at("tool.umbel", key))
    _check_main(source, table)
    for key in _REQUIRED:
        if key not in table and (key, "main" in table) != ("initial", True):
            msg = f'expected "{key}" in [tool.umbel], got none; for example {_EXAMPLES[key]}'
            raise UsageError(msg, at=source.at("tool.umbel"))
    checked = {key: _CHECKS[key](value, key, source) for key, value in table.items()}
    if checked.get("cluster") and checked.setdefault("engine", "ray") != "ray":
        msg = f"the engine {checked['engine']} has no cluster, only ray has one: leave one out"
        raise UsageError(msg, at=source.within("cluster", ""))
    return Settings(file=file, **{"initial": ""} | checked)


def _of_a_strategy(key: str) -> str:
    """Say where a setting belongs that is one of a strategy, or a part of one; nothing for any other."""
    names = [entry.name for entry in catalogue().values() if key in {setting.name for setting in entry.settings}]
    if names:
        return f': it belongs to a strategy, strategy = {{ name = "{names[0]}", {key} = ... }}'
    is_part = key in signature(strategy).parameters.keys() - {"name"} or key in {part.role for part in parts()}
    return f": {in_python(key)}; umbel strategies lists them" if is_part else ""


def _check_main(source: _Source, table: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` for settings that say how a loop goes, beside a loop of one's own."""
    for key in _OF_THE_LOOP:
        if "main" in table and key in table:
            msg = f"expected no {key} beside main, which has a loop of its own and decides that itself: leave one out"
            raise UsageError(msg, at=source.at("tool.umbel", key))


LIKELY = {"client": "app", "evaluate": "measure"}
_WITH_OPTION = ("rounds", "seed", "nodes", "engine", "workers")
_EXAMPLES = {
    "strategy": 'strategy = { name = "fedadam", learning_rate = 0.03 }',
    "client": 'client = "app:app"',
    "initial": 'initial = "app:initial"',
    "nodes": "nodes = 10",
    "cluster": 'cluster = { address = "auto", num_cpus = 2, num_gpus = 0.25 }',
    "config": "a table [tool.umbel.config], whose values --set changes",
}


def _read_table(file: Path) -> tuple[_Source, dict[str, Any]]:
    place = safe(str(file))
    try:
        text = file.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except FileNotFoundError:
        msg = f"there is no {place}; umbel new NAME writes an app with one, umbel run --help says what it holds"
        raise UsageError(msg) from None
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and TOMLDecodeError are ValueErrors
        raise UsageError(f"expected a TOML file: {_reason(error)}", at=place) from None
    tool = document.get("tool", {})
    table = tool.get("umbel") if isinstance(tool, dict) else None
    if not isinstance(table, dict):
        msg = "expected a table [tool.umbel] that says which app to run, got none; umbel new NAME writes an example"
        raise UsageError(msg, at=place)
    return _Source(file, text), table


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _wrong(expected: str, value: object, key: str, source: _Source, table: str = "tool.umbel") -> UsageError:
    came = f"{safe(repr(value)[:80])} ({_TOML_NAMES.get(type(value), type(value).__name__)})"
    return UsageError(f"expected {key} to be {expected}, got {came}", at=source.at(table, key))


_TOML_NAMES = {bool: "boolean", int: "integer", float: "float", str: "string", list: "array", dict: "table"}


def _text(value: object, key: str, source: _Source) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(f'a non-empty string such as "app:{LIKELY.get(key, key)}"', value, key, source)
    return value


def _whole(value: object, key: str, source: _Source, lowest: int, highest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise _wrong(f"a whole number from {lowest} to {highest}", value, key, source)
    return value


def _rounds(value: object, key: str, source: _Source) -> int:
    return _whole(value, key, source, 1, MOST_ROUNDS)


def _seed(value: object, key: str, source: _Source) -> int:
    return _whole(value, key, source, 0, MOST_SEED)


def _engine(value: object, key: str, source: _Source) -> str:
    if isinstance(value, str) and value not in ENGINES:
        msg = f'there is no engine "{safe(value[:80])}"{nearest(value, ENGINES)}'
        raise UsageError(msg, at=source.at("tool.umbel", key))
    if value not in ENGINES:
        raise _wrong(" or ".join(f'"{name}"' for name in ENGINES), value, key, source)
    return str(value)


def _workers(value: object, key: str, source: _Source) -> int:
    return _whole(value, key, source, 1, MOST_WORKERS)


def _cluster(value: object, key: str, source: _Source) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong('a table such as { address = "auto", num_cpus = 2, num_gpus = 0.25 }', value, key, source)
    for name in value:
        if name not in _CLUSTER:
            msg = f'unknown setting "{safe(name)}" in {key} of [tool.umbel]{nearest(name, _CLUSTER)}'
            raise UsageError(msg, at=source.within(key, name))
    try:
        RayCluster(**value)
    except UsageError as error:
        raise UsageError(f"{error.message} for {error.at} of {key}", at=source.within(key, str(error.at))) from error
    return value


def _nodes(value: object, key: str, source: _Source) -> int | str | tuple[str, ...]:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list):
        if value and all(isinstance(name, str) and name for name in value) and len(set(value)) == len(value):
            return tuple(value)
        raise _wrong("a list of different, non-empty names", value, key, source)
    if isinstance(value, int) and not isinstance(value, bool):
        return _whole(value, key, source, 1, MOST_NODES)
    raise _wrong('a number, a list of names, or a function such as "app:nodes"', value, key, source)


def _strategy(value: object, key: str, source: _Source) -> str | dict[str, Any]:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return value
    raise _wrong('a name such as "fedavg", or a table such as { name = "fedavg", fraction = 0.5 }', value, key, source)


def _config(value: object, key: str, source: _Source) -> dict[str, Scalar]:
    if not isinstance(value, dict):
        raise _wrong("a table [tool.umbel.config]", value, key, source)
    table = "tool.umbel.config"
    for name, item in value.items():
        if not isinstance(item, (bool, int, float, str)):
            raise _wrong("a boolean, number or string", item, name, source, table)
        if isinstance(item, int) and abs(item) > MOST_SEED:
            raise _wrong("a whole number of at most 64 bits", item, name, source, table)
    return value


_CHECKS: dict[str, Any] = {
    "client": _text,
    "initial": _text,
    "nodes": _nodes,
    "strategy": _strategy,
    "rounds": _rounds,
    "seed": _seed,
    "engine": _engine,
    "workers": _workers,
    "cluster": _cluster,
    "main": _text,
    "evaluate": _text,
    "report": _text,
    "config": _config,
}


def override(settings: Settings, changes: Sequence[str], **others: Any) -> Settings:
    """Return ``settings`` with ``key=value`` changes to the config, and with other rounds, nodes and so on.

    What is said of a cluster changes that alone: its other settings stay.

    Raises:
        UsageError: for a key that the config does not have, or a value that is not of its type.

    """
    config = dict(settings.config)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise UsageError(f'expected --set key=value, got "{safe(change)}"', at="--set")
        if key not in config and key in SETTINGS:
            msg = f"expected a key of [tool.umbel.config], got the setting {key}: {where_set(key)}"
            raise UsageError(msg, at=f"--set {safe(change)}")
        if key not in config:
            msg = f'the config of this app has no "{safe(key)}"{nearest(key, config)}'
            raise UsageError(msg, at=f"--set {safe(change)}")
        config[key] = like(config[key], text, safe(change))
    given = {name: value for name, value in others.items() if value is not None}
    cluster = {**settings.cluster, **given.pop("cluster", {})}
    return replace(settings, config=config, cluster=cluster, **given)


_BOOLEANS = {"true": True, "false": False}


def like(old: Scalar, text: str, change: str) -> Scalar:
    """Return ``text`` as a value of the type that ``old`` has: the file says what type a setting is."""
    try:
        if isinstance(old, bool):
            return _BOOLEANS[text.lower()]
        if isinstance(old, int) and abs(value := int(text)) <= MOST_SEED:
            return value
        if isinstance(old, (float, str)):
            return type(old)(text)
    except (KeyError, ValueError):
        pass
    expected = "true or false" if isinstance(old, bool) else _TOML_NAMES[type(old)]
    msg = f'expected {expected}, like the {old!r} in [tool.umbel.config], got "{safe(text[:80])}"'
    raise UsageError(msg, at=f"--set {change[:120]}")
