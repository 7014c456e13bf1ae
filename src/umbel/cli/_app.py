"""Find the app that a command names and import what its settings point to."""

import contextlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from umbel.app import ClientApp, ServerApp
from umbel.cli._failure import blame
from umbel.cli._opened import open_model
from umbel.cli._settings import LIKELY, Scalar, Settings
from umbel.cli._text import nearest, safe
from umbel.errors import AppError, StrategyError, UmbelError, UsageError
from umbel.records import ParametersRecord
from umbel.strategy import Strategy, named

_SETTINGS = "pyproject.toml"
_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_SHOWN = 80
_CALLED_WITH = {
    "strategy": ("config",),
    "initial": ("config",),
    "nodes": ("config",),
    "evaluate": ("round", "model"),
    "report": ("history", "config"),
}

Nodes: TypeAlias = int | Sequence[str] | Mapping[str, Mapping[str, Scalar]]


@dataclass(frozen=True)
class LoadedApp:
    """What ``umbel.simulate`` is given: the settings with every name replaced by what it stands for."""

    settings: Settings
    client: ClientApp
    strategy: Strategy
    initial: ParametersRecord
    nodes: Nodes
    evaluate: Callable[[int, ParametersRecord], Mapping[str, Any]] | None
    report: Callable[[Any, Mapping[str, Scalar]], str] | None


@dataclass(frozen=True)
class LoadedMain:
    """An app with a loop of its own; the model to begin with is there if the settings name one."""

    settings: Settings
    client: ClientApp
    main: ServerApp
    nodes: Nodes
    initial: ParametersRecord | None


def find_settings(target: str) -> Path:
    """Return the ``pyproject.toml`` of ``target``: a folder, the file itself, or an importable module or package.

    Raises:
        UsageError: if there is nothing of that name.

    """
    path = Path(target)
    if path.is_dir():
        return path / _SETTINGS
    if path.is_file():
        if path.suffix == ".toml":
            return path
        raise UsageError(
            f'expected a folder with a {_SETTINGS}, got the file "{safe(target)}"; name its folder instead'
        )
    if all(part.isidentifier() for part in target.split(".")):
        folder = _module_folder(target)
        if folder is not None:
            return folder / _SETTINGS
    around = path.parent if path.parent.is_dir() else Path()
    apps = sorted(str(entry.parent) for entry in around.glob(f"*/{_SETTINGS}"))
    near = nearest(target.rstrip("/"), apps) if apps else "; umbel new NAME writes one"
    raise UsageError(f'there is no folder or module "{safe(target)}" with an app{near}')


def _module_folder(name: str) -> Path | None:
    with contextlib.suppress(ImportError, ValueError, AttributeError):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations)))
        if spec is not None and spec.origin and spec.has_location:
            return Path(spec.origin).parent
    return None


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let modules in ``folder`` be imported inside the ``with``, and forget them after it.

    Two apps in one process may both have a module called ``app``.
    """
    root = str(folder.resolve())
    below = root + os.sep
    sys.path.insert(0, root)
    importlib.invalidate_caches()
    before = set(sys.modules)
    try:
        yield
    finally:
        sys.path.remove(root)
        for name in set(sys.modules) - before:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(below):
                del sys.modules[name]


def load_app(settings: Settings) -> LoadedApp:
    """Import and check everything that ``settings`` name; call it inside ``importable``.

    Raises:
        AppError: if the app's code cannot be imported or is not what its setting needs, with file and line.
        UsageError: if a setting names something that is not there.

    """
    client = _client(settings)
    return LoadedApp(
        settings=settings,
        client=client,
        strategy=_strategy(settings),
        initial=_initial(settings),
        nodes=named_nodes(settings),
        evaluate=_central(settings, client),
        report=_function(settings, "report"),
    )


def load_main(settings: Settings) -> LoadedMain:
    """Do the same for an app whose settings name a ``main``."""
    main = _resolve(settings, "main")
    if not isinstance(main, ServerApp):
        raise _misfit(settings, "main", "an umbel.app.ServerApp", main)
    initial = _initial(settings) if settings.initial else None
    return LoadedMain(settings, _client(settings), main, named_nodes(settings), initial)


def _client(settings: Settings) -> ClientApp:
    client = _resolve(settings, "client")
    if not isinstance(client, ClientApp):
        raise _misfit(settings, "client", "an umbel.app.ClientApp", client)
    return client


def _place(settings: Settings, key: str) -> str:
    return f"{safe(str(settings.file))}, tool.umbel.{key} = {safe(repr(getattr(settings, key)))[:_SHOWN]}"


def _misfit(settings: Settings, key: str, expected: str, came: object) -> AppError:
    shown = safe(" ".join(repr(came).split())[:_SHOWN])  # an array has a line for each row
    return AppError(f"expected {key} to be {expected}, got {type(came).__name__} {shown}", at=_place(settings, key))


def _resolve(settings: Settings, key: str) -> Any:
    reference = getattr(settings, key)
    if not _REFERENCE.fullmatch(reference):
        example = f"app:{LIKELY.get(key, key)}"
        msg = f'expected {key} to be "module:name", for example "{example}", got "{safe(reference)[:_SHOWN]}"'
        raise UsageError(msg, at=_place(settings, key))
    module_name, _, path = reference.partition(":")
    value = _import(module_name, settings, key)
    for name in path.split("."):
        known = [known for known in dir(value) if not known.startswith("_")]
        if not hasattr(value, name):
            msg = f'module "{module_name}" has no "{path}"{nearest(name, known)}'
            raise AppError(msg, at=_place(settings, key))
        value = getattr(value, name)
    return value


def _import(name: str, settings: Settings, key: str) -> Any:
    try:
        return importlib.import_module(name)
    except UmbelError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _broken(name, error) from error
        modules = sorted(file.stem for file in settings.folder.glob("*.py"))
        msg = f'there is no module "{name}" in {safe(str(settings.folder))}{nearest(name, modules)}'
        raise AppError(msg, at=_place(settings, key)) from error
    except (Exception, SystemExit) as error:  # an app may raise anything at import; its line is what helps
        raise _broken(name, error) from error


def _broken(name: str, error: BaseException) -> AppError:
    hint = "; install it into the environment of umbel" if isinstance(error, ModuleNotFoundError) else ""
    msg = f'the module "{name}" cannot be imported: {type(error).__name__}: {safe(str(error))}{hint}'
    return AppError(msg, at=blame(error))


def _function(settings: Settings, key: str) -> Callable[..., Any] | None:
    if getattr(settings, key) is None:
        return None
    value = _resolve(settings, key)
    if not callable(value):
        raise _misfit(settings, key, "a function", value)
    return _fitting(settings, key, value)


def _central(settings: Settings, client: ClientApp) -> Callable[..., Any] | None:
    function = _function(settings, "evaluate")
    handled = client.type_of(function)
    if handled is not None:
        msg = (
            f"expected evaluate to be a function (round, model) -> metrics, which the server calls, got the node's "
            f"handler of {handled!a} messages: leave it out, nodes evaluate by themselves, or name another function"
        )
        raise AppError(msg, at=_place(settings, "evaluate"))
    return function


def _fitting(settings: Settings, key: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` if it takes what it will be called with."""
    given = _CALLED_WITH[key]
    with contextlib.suppress(ValueError):  # functions written in C may have no signature to look at
        signature = inspect.signature(function)
        try:
            signature.bind(*given)
        except TypeError as error:
            wanted = f"({', '.join(given)})"
            msg = f"expected {key} to be a function that takes {wanted}, got one that takes {signature}: {error}"
            raise AppError(msg, at=_place(settings, key)) from error
    return function


def _made(settings: Settings, key: str) -> Any:
    """Return what a setting names, or what the function that it names makes of the config."""
    named = _resolve(settings, key)
    return _fitting(settings, key, named)(settings.config) if callable(named) else named


def _strategy(settings: Settings) -> Strategy:
    given = settings.strategy
    if isinstance(given, str) and ":" in given:
        made = _made(settings, "strategy")
        if not isinstance(made, Strategy):
            raise _misfit(
                settings, "strategy", "an umbel.strategy.Strategy, or a function (config) that makes one", made
            )
        return made
    options = {} if isinstance(given, str) else {key: value for key, value in given.items() if key != "name"}
    try:
        return named(given if isinstance(given, str) else given["name"], options)
    except StrategyError as error:
        raise UsageError(str(error), at=_place(settings, "strategy")) from error


def _initial(settings: Settings) -> ParametersRecord:
    given = settings.initial
    if given.endswith(".safetensors"):
        records = open_model(settings.folder / given).records.parameters_records
        if len(records) != 1 and "model" not in records:
            msg = f"expected a file with one model, got the records {', '.join(map(safe, records)) or '(none)'}"
            raise UsageError(msg, at=_place(settings, "initial"))
        return records["model"] if "model" in records else next(iter(records.values()))
    value = _made(settings, "initial")
    if isinstance(value, Mapping) and not isinstance(value, ParametersRecord):
        value = ParametersRecord.from_numpy(value)
    if not isinstance(value, ParametersRecord):
        raise _misfit(settings, "initial", "(config) -> ParametersRecord or mapping of NumPy arrays", value)
    return value


def named_nodes(settings: Settings) -> Nodes:
    """Return who takes part, as ``umbel.simulate`` takes it; call it inside ``importable``."""
    nodes: Any = settings.nodes
    if isinstance(nodes, str):
        nodes = _made(settings, "nodes")
        if not isinstance(nodes, Mapping) or not nodes:
            raise _misfit(settings, "nodes", "(config) -> mapping of node names to what each is told", nodes)
    wanted = settings.first_nodes
    chosen: Nodes = nodes if wanted is None else _first(nodes, wanted)
    return chosen


def _first(nodes: Nodes, wanted: int) -> Nodes:
    """Return the first ``wanted`` of named nodes; unnamed ones are simply that many."""
    if isinstance(nodes, int):
        return wanted
    if wanted > len(nodes):
        raise UsageError(f"expected at most the {len(nodes)} nodes of this app, got {wanted}", at="--nodes")
    names = list(nodes)[:wanted]
    return {name: nodes[name] for name in names} if isinstance(nodes, Mapping) else names
