"""Durations, sizes and nodes as people write them on a command line: ``24h``, ``8GB``, ``2`` or ``site-1,site-2``."""

import re
from typing import Final

import typer

from umbel.cli._settings import MOST_NODES

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_BYTES: Final = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BINARY: Final = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_AMOUNT: Final = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,6})?)\s*(?P<unit>[A-Za-z]*)")


def seconds(text: str) -> float:
    """Return a duration such as ``90``, ``90s``, ``10m``, ``24h`` or ``7d`` in seconds, more than 0."""
    found = _AMOUNT.fullmatch(text.strip())
    if found is None or found["unit"].lower() not in _SECONDS or float(found["number"]) == 0:
        raise typer.BadParameter(f"expected a duration such as 90s, 10m, 24h or 7d, got {text!r:.40}")
    return float(found["number"]) * _SECONDS[found["unit"].lower()]


def size_in_bytes(text: str) -> int:
    """Return a size such as ``800MB``, ``8GB`` or ``4GiB`` in bytes, at least 1."""
    found = _AMOUNT.fullmatch(text.strip())
    units = {**_BYTES, **_BINARY}
    if found is None or found["unit"].upper() not in {unit.upper() for unit in units} or float(found["number"]) == 0:
        raise typer.BadParameter(f"expected a size such as 800MB, 8GB or 4GiB, got {text!r:.40}")
    return max(1, int(float(found["number"]) * units[found["unit"].upper()]))


def number_or_names(text: str) -> int | list[str]:
    """Return a number of nodes, or the names of nodes that ``NAME,NAME`` lists."""
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        return [name.strip() for name in text.split(",") if name.strip()]
    number = int(text)
    if not 1 <= number <= MOST_NODES:  # in the words that typer has for the other numbers
        bound = "greater than or equal to 1" if number < 1 else f"less than or equal to {MOST_NODES}"
        raise typer.BadParameter(f"Input should be {bound}")
    return number
