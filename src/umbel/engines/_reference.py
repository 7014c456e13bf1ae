"""Where another process finds an app: the module that holds it and the name it has there. No app crosses itself."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from umbel.app import ClientApp
from umbel.errors import AppError

_SCRIPT: Final = "__main__"
# What multiprocessing calls a script that it imports; code that knows of one knows of the other.
_IMPORTED_SCRIPT: Final = "__mp_main__"
_loading: Final[list[str]] = []


class Reference(msgspec.Struct, frozen=True):
    """An importable module, the name of an app in it, and the file for a module that cannot be found by name."""

    module: str
    name: str
    file: str | None = None

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


def reference_of(app: ClientApp) -> Reference:
    """Return where ``app`` can be imported from, by looking for it among the names of all loaded modules.

    Raises ``AppError`` when it is nowhere, or where no other process can reach it.
    """
    refuse_while_loading()
    found = [(module, name) for module in _loaded() for name, value in list(vars(module).items()) if value is app]
    if not found:
        raise AppError(
            "expected an app that another process can import, got one that is no module's: give it a name at the top "
            'level of a .py file and import it from there, or use engine="local", which runs it as it is',
            at="client_app",
        )
    # A script is the last choice, because importing it means running it. Of others the one that the handlers are from
    # is the first: whoever merely imported the app may do anything else as well. Without one, the module that others
    # import from is loaded after them, so it stands behind them.
    home = app.modules
    module, name = min(reversed(found), key=lambda place: (place[0].__name__ == _SCRIPT, place[0].__name__ not in home))
    return _reference(module, name)


def _loaded() -> list[ModuleType]:
    modules: list[object] = list(sys.modules.values())  # some put there what is no module
    return [module for module in modules if isinstance(module, ModuleType)]


def _reference(module: ModuleType, name: str) -> Reference:
    file = getattr(module, "__file__", None)
    if module.__name__ != _SCRIPT:
        return Reference(module.__name__, name, file)
    if module.__spec__ is not None:  # python -m package.module
        return Reference(module.__spec__.name, name, file)
    if file is None or not Path(file).is_file():
        raise AppError(
            "expected an app that another process can import, got one that was made at a prompt or in a notebook: "
            "write it to a file (in a notebook, %%writefile app.py), then `from app import "
            f'{name}`; or use engine="local", which runs it as it is',
            at=f"client_app {name}",
        )
    return Reference(_IMPORTED_SCRIPT, name, str(Path(file).resolve()))


def load(reference: Reference) -> ClientApp:
    """Import the app that ``reference`` names; raises ``AppError`` if it is not there or is no app."""
    with _while_loading(str(reference)):
        module = _import(reference)
    app = getattr(module, reference.name, None)
    if not isinstance(app, ClientApp):
        raise AppError(
            f"expected a ClientApp called {reference.name!r}, got {type(app).__name__}: make it when the module is "
            "imported, not below `if __name__ ...`",
            at=str(reference),
        )
    return app


def _import(reference: Reference) -> Any:
    if reference.module != _IMPORTED_SCRIPT and _is_importable(reference):
        return importlib.import_module(reference.module)
    if reference.file is None:
        raise AppError("expected a module that can be imported, got one without a file", at=str(reference))
    spec = importlib.util.spec_from_file_location(reference.module, reference.file)
    if spec is None or spec.loader is None:
        raise AppError(f'expected a Python file, got "{reference.file}"', at=str(reference))
    module = importlib.util.module_from_spec(spec)
    sys.modules[reference.module] = module
    spec.loader.exec_module(module)
    return module


def _is_importable(reference: Reference) -> bool:
    """Say whether the name leads to the module that was meant, not to another one or to none."""
    try:
        spec = importlib.util.find_spec(reference.module)
    except (ImportError, ValueError, AttributeError):
        return False
    if spec is None or reference.file is None or spec.origin is None:
        return spec is not None
    return Path(spec.origin).resolve() == Path(reference.file).resolve()


@contextmanager
def _while_loading(reference: str) -> Iterator[None]:
    _loading.append(reference)
    try:
        yield
    finally:
        _loading.pop()


def refuse_while_loading() -> None:
    """Raise ``AppError`` in a process that is only importing the app, so that a script does not start itself again."""
    if _loading:
        raise AppError(
            "expected a module that can be imported without starting a run, got one that starts one: put the call "
            'below `if __name__ == "__main__":`',
            at=_loading[-1],
        )
