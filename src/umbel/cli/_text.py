"""How names, sizes, numbers and times are written for people."""

import shlex
import time
from collections.abc import Iterable

from umbel import _nearest

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_THOUSAND = 1000


def safe(name: str) -> str:
    r"""Return ``name`` with everything that could steer a terminal written as an escape.

    Control, format (bidirectional overrides, zero-width) and unassigned characters become ``\x1b`` or ``\u202e``; a
    backslash is doubled, so two names never look alike.
    """
    return "".join("\\\\" if char == "\\" else char if char.isprintable() else _escaped(ord(char)) for char in name)


def _escaped(point: int) -> str:
    if point <= 0xFF:  # noqa: PLR2004 - the largest code point that \xNN can write
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"  # noqa: PLR2004 - likewise \uNNNN


def command(*words: str) -> str:
    """Return words as a line that can be pasted into a shell."""
    return shlex.join(map(safe, words))


def printable(text: str) -> str:
    """Return ``text`` with line ends and tabs kept and every other unprintable character escaped."""
    return "".join(char if char.isprintable() or char in "\n\t" else _escaped(ord(char)) for char in text)


def size(count: int) -> str:
    """Return a count of bytes as ``46.8 MB`` (decimal units)."""
    if count < _THOUSAND:
        return f"{count} B"
    amount = float(count)
    for unit in _UNITS:
        if amount < _THOUSAND or unit == _UNITS[-1]:
            return f"{amount:.1f} {unit}"
        amount /= _THOUSAND
    raise AssertionError(unit)


def counted(count: int, noun: str) -> str:
    """Return ``1 array`` or ``3 arrays``, thousands set apart."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def figure(value: object) -> str:
    """Return a metric or config value, floats with six significant digits."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        shown = ", ".join(figure(item) for item in value[:8])
        return f"[{shown}, ... {len(value)} in all]" if len(value) > 8 else f"[{shown}]"  # noqa: PLR2004
    if isinstance(value, bytes):
        return f"{size(len(value))} of bytes"
    return safe(value) if isinstance(value, str) else str(value)


def duration(seconds: float) -> str:
    """Return ``0.42 s``, ``42 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    if seconds < 10:  # noqa: PLR2004 - below ten seconds fractions matter
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def moment(seconds: float) -> str:
    """Return a time in seconds since 1970 as ``2026-01-31 15:45:02``, in the time zone of this machine."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean "rounds"?``, or the known names when none is near."""
    return _nearest.nearest(safe(name), map(safe, known))
