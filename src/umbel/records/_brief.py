"""Any value in a message: short, escaped for a terminal, at a cost that does not grow with the value."""

from reprlib import Repr

_EXACT_BITS = 128


class _Short(Repr):
    """Lists to the rank of an array; a number of thousands of digits, which Python refuses to write, by its size."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlist = self.maxtuple = 33

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002 - the signature of the base
        return str(x) if x.bit_length() <= _EXACT_BITS else f"<int of {x.bit_length()} bits>"


_SHORT = _Short()


def brief(value: object) -> str:
    """Return a short form of ``value`` for a message: escaped, and at a cost that does not grow with it."""
    text = repr(value[:60]) if isinstance(value, str | bytes) else _SHORT.repr(value)
    return text.encode("ascii", "backslashreplace")[:160].decode()


def both_ends(text: str, limit: int) -> str:
    """Return ``text``, or its first and its last characters, about ``limit`` of them, if it is longer."""
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 2 :]}"
