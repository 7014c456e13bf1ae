"""What the operator of a node lets a server ask of it: a site policy, read from a TOML file.

runs = ["heart-*", "pilot"]       # names of runs, with * and ?; all of them if this is left out
types = ["train", "evaluate"]     # message types; all that the app handles if this is left out
apps = ["hospital.heart:app"]     # apps that may be started under this policy
largest_body = "2 GiB"            # of an instruction, and of a reply
tracebacks = false                # whether a failed handler's traceback may leave
memory = "8 GiB"                  # that a handler may have
handler = "2 h"                   # that a handler may take for one message
"""

import re
import tomllib
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from umbel.errors import UsageError

_SIZES: Final = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_TIMES: Final = {"S": 1, "MIN": 60, "H": 3_600, "D": 86_400}
_AMOUNT: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?) ?([A-Za-z]+)")


class Policy(msgspec.Struct, frozen=True):
    """What may be asked of a node; by default everything, without tracebacks, and without limits."""

    runs: tuple[str, ...] = ("*",)
    types: tuple[str, ...] = ("*",)
    apps: tuple[str, ...] = ("*",)
    largest_body: int | None = None
    tracebacks: bool = False
    memory: int | None = None
    handler: float | None = None

    @classmethod
    def read(cls, file: str | Path) -> Self:
        """Return the policy in a file; raises ``UsageError``, with the line, for what no policy can say."""
        path = Path(file)
        try:
            text = path.read_text(encoding="utf-8")
            table = tomllib.loads(text)
        except OSError as error:
            message = (
                f"expected a file with a site policy, got: {error.strerror}; name one that is there, or write one: an "
                'empty file allows everything, types = ["train"] training alone'
            )
            raise UsageError(message, at=str(path)) from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"expected a site policy in TOML, got: {error}", at=str(path)) from error
        return cls(**{key: _checked(key, value, _at(path, text, key)) for key, value in table.items()})

    def require_app(self, app: str) -> None:
        """Raise ``UsageError`` if the app may not be started."""
        if not _is_among(app, self.apps):
            raise UsageError(f"expected one of the apps {_listed(self.apps)}, got {app!r:.80}", at="site policy, apps")

    def refusal(self, run_name: str, message_type: str, size: int) -> str | None:
        """Say by which rule an instruction is refused, or None if none forbids it. ``size`` is in bytes."""
        if not _is_among(run_name, self.runs):
            return _because("runs", f"the run {run_name!r:.80} is none of {_listed(self.runs)}")
        if not _is_among(message_type, self.types):
            return _because("types", f"the message type {message_type!r:.80} is none of {_listed(self.types)}")
        return self._too_large("instruction", size)

    def reply_refusal(self, size: int) -> str | None:
        """Say by which rule a reply of so many bytes may not leave, or None if it may."""
        return self._too_large("reply", size)

    def _too_large(self, what: str, size: int) -> str | None:
        if self.largest_body is None or size <= self.largest_body:
            return None
        return _because("largest_body", f"the {what} has {size:,} bytes, and {self.largest_body:,} are allowed")


def _because(rule: str, reason: str) -> str:
    return f'the site policy of this node forbids it by the rule "{rule}": {reason}'


def _is_among(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _listed(patterns: tuple[str, ...]) -> str:
    return ", ".join(patterns) or "(none)"


def _at(path: Path, text: str, key: str) -> str:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.split("=")[0].strip(" \t\"'[]") == key:
            return f"{path} line {number}"
    return str(path)


def _checked(key: str, value: object, at: str) -> Any:
    check = _CHECKS.get(key)
    if check is None:
        near = get_close_matches(key, _CHECKS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(_CHECKS)}"
        raise UsageError(f"unknown rule {key!r:.80} in the site policy{hint}", at=at)
    return check(key, value, at)


def _patterns(key: str, value: object, at: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise UsageError(f'expected {key} to be a list such as ["pilot-*"], got {value!r:.80}', at=at)
    return tuple(value)


def _flag(key: str, value: object, at: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"expected {key} to be true or false, got {value!r:.80}", at=at)
    return value


def _bytes(key: str, value: object, at: str) -> int:
    return int(_amount(value, _SIZES, f'expected {key} to be a size such as "800 MB" or "8 GiB"', at))


def _seconds(key: str, value: object, at: str) -> float:
    return _amount(value, _TIMES, f'expected {key} to be a time such as "90 s", "30 min" or "2 h"', at)


def _amount(value: object, units: dict[str, int], expected: str, at: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        amount = float(value)
    else:
        found = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
        amount = float(found[1]) * units.get(found[2].upper(), 0) if found else 0.0
    if not 1 <= amount < 2**62:
        raise UsageError(f"{expected}, got {value!r:.80}", at=at)
    return amount


_CHECKS: Final = {
    "runs": _patterns,
    "types": _patterns,
    "apps": _patterns,
    "largest_body": _bytes,
    "tracebacks": _flag,
    "memory": _bytes,
    "handler": _seconds,
}
