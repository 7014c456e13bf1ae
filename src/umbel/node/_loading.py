"""Find the app that a node runs, and say with file and line why it cannot be loaded."""

import importlib
import re
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from umbel.app import ClientApp
from umbel.errors import AppError, UmbelError

_REFERENCE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_INSTALLED: Final = [Path(sysconfig.get_path(key)).resolve() for key in ("purelib", "platlib")]
_OURS: Final = Path(__file__).resolve().parent.parent
_STDLIB: Final = [Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib")]


def load(reference: str, folder: Path) -> ClientApp:
    """Return the app called ``module:name``, with ``folder`` as the first place where modules are looked for.

    Raises ``AppError`` if there is none, with the line that fails.
    """
    if not _REFERENCE.fullmatch(reference):
        message = f'expected an app such as "package.module:app", got {reference!r:.80}'
        raise AppError(message, at="--app")
    sys.path.insert(0, str(folder.resolve()))
    module, _, path = reference.partition(":")
    value = _import(module, folder)
    for name in path.split("."):
        if not hasattr(value, name):
            known = ", ".join(found for found in vars(value) if isinstance(getattr(value, found), ClientApp))
            hint = f"; it has the app {known}" if known else ""
            raise AppError(f'the module "{module}" has no "{path}"{hint}', at=f"--app {reference}")
        value = getattr(value, name)
    if not isinstance(value, ClientApp):
        message = f"expected an umbel.app.ClientApp, got {type(value).__name__} {value!r:.80}"
        raise AppError(message, at=f"--app {reference}")
    return value


def _import(name: str, folder: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _broken(name, error) from error
        message = f'there is no module "{name}" in {folder}, nor among the installed packages'
        raise AppError(message, at=f"--app {name}") from error
    except (Exception, SystemExit) as error:  # an app may raise anything at import; its line is what helps
        raise _broken(name, error) from error


def _broken(name: str, error: BaseException) -> AppError:
    hint = "; install it into the environment of the node" if isinstance(error, ModuleNotFoundError) else ""
    text = error.message if isinstance(error, UmbelError) else str(error)
    place = ", ".join(filter(None, (_line(error), error.at if isinstance(error, UmbelError) else "")))
    return AppError(f'the module "{name}" cannot be imported: {type(error).__name__}: {text}{hint}', at=place)


def _line(error: BaseException) -> str:
    """Return the deepest line that is the app's own, or else the deepest of an installed package."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename} line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_runtime(frame.filename)]
    own = [frame for frame in frames if not _is_below(frame.filename, _INSTALLED)] or frames
    return f"{own[-1].filename} line {own[-1].lineno}" if own else ""


def _is_runtime(filename: str) -> bool:
    """Say whether a file is Umbel's or Python's own; installed packages lie below the standard library."""
    return _is_below(filename, [_OURS]) or (_is_below(filename, _STDLIB) and not _is_below(filename, _INSTALLED))


def _is_below(filename: str, roots: Sequence[Path]) -> bool:
    if filename.startswith("<"):
        return True
    path = Path(filename).resolve()
    return any(path.is_relative_to(root) for root in roots)
