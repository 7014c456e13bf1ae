"""Records of plain values: metrics (numbers) and configs (scalars of any kind)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from umbel.errors import BadValue, RecordTypeError
from umbel.records._brief import brief
from umbel.records._mapping import TypedMapping

MetricsValue = int | float | list[int] | list[float]
ConfigsValue = bool | int | float | str | bytes | list[bool] | list[int] | list[float] | list[str] | list[bytes]

V = TypeVar("V")
# What is stored as a plain value of which kind.
_KINDS: tuple[tuple[Any, Any], ...] = (
    (np.bool_, bool),
    ((int, np.integer), int),
    ((float, np.floating), float),
    (str, str),
    (bytes, bytes),
)
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
_NUMBER_BYTES = 8
_NUMBERS = (int, float)


class _ValuesRecord(TypedMapping[V]):
    """A mapping to scalars of a few kinds, or lists of one of them."""

    __slots__ = ()
    _kinds: ClassVar[tuple[type, ...]]

    def copy(self) -> Self:
        """Return a mapping of its own with the same values; lists are copied too."""
        twin = type(self).__new__(type(self))
        entries: dict[str, Any] = self._data
        owned: dict[str, Any] = {key: value.copy() if type(value) is list else value for key, value in entries.items()}
        twin._data = owned  # noqa: SLF001 - one of us
        return twin

    __copy__ = copy

    def _check_value(self, key: str, value: object) -> Any:
        if type(value) in self._kinds and (type(value) is not int or _INT_MIN <= value <= _INT_MAX):
            return value  # as nearly every one is
        at = f"{type(self).__name__}[{brief(key)}]"
        if type(value) is not list:
            return self._scalar(value, at)
        items = [self._scalar(item, at) for item in value]
        kinds = {type(item) for item in items}
        if len(kinds) > 1:
            names = " and ".join(sorted(kind.__name__ for kind in kinds))
            msg = f"expected a list of one kind, got {names}"
            raise RecordTypeError(msg, at=at)
        return items

    def _scalar(self, value: object, at: str) -> Any:
        plain = value if type(value) in self._kinds else _python_value(value)
        if type(plain) not in self._kinds:
            names = ", ".join(kind.__name__ for kind in self._kinds)
            msg = f"expected one of {names}, or a list of one of them, got {type(value).__name__} {brief(value)}"
            raise RecordTypeError(msg, at=at)
        if type(plain) is int and not _INT_MIN <= plain <= _INT_MAX:
            msg = f"expected an int from -2**63 to 2**64 - 1, got one of {plain.bit_length()} bits"
            raise BadValue(msg, at=at)
        return plain

    def count_bytes(self) -> int:
        """Return 8 bytes a number, 1 a bool, the length of text in UTF-8 and of bytes, and the names in UTF-8."""
        count = 0
        for key, value in self._data.items():
            count += len(key.encode()) + (_NUMBER_BYTES if type(value) in _NUMBERS else _count(value))
        return count


class MetricsRecord(_ValuesRecord[MetricsValue]):
    """Named numbers: int, float, or a list of one of them. Bools are refused.

    Args:
        metrics_dict: the metrics to begin with.
        keep_input: False empties ``metrics_dict``.

    Raises:
        RecordTypeError: for any other kind of value, and for lists of two kinds.
        BadValue: for an int that fits neither 64 signed nor 64 unsigned bits.

    >>> record = MetricsRecord({"accuracy": 0.9, "losses": [0.5, 0.25], "num-examples": 60})
    >>> record["losses"], record.count_bytes()
    ([0.5, 0.25], 58)

    """

    __slots__ = ()
    _kinds = (int, float)

    def __init__(self, metrics_dict: Mapping[str, MetricsValue] | None = None, keep_input: bool = True) -> None:  # noqa: FBT001, FBT002 - the signature of the original
        super().__init__(metrics_dict, keep_input=keep_input)


class ConfigsRecord(_ValuesRecord[ConfigsValue]):
    """Named settings: bool, int, float, str, bytes, or a list of one of them.

    Args:
        configs_dict: the settings to begin with.
        keep_input: False empties ``configs_dict``.

    Raises:
        RecordTypeError: for any other kind of value, and for lists of two kinds.
        BadValue: for an int that fits neither 64 signed nor 64 unsigned bits.

    >>> record = ConfigsRecord({"lr": 0.1, "name": "", "layers": [64, 10], "nesterov": True})
    >>> record["name"], record["layers"]
    ('', [64, 10])

    """

    __slots__ = ()
    _kinds = (bool, int, float, str, bytes)

    def __init__(self, configs_dict: Mapping[str, ConfigsValue] | None = None, keep_input: bool = True) -> None:  # noqa: FBT001, FBT002 - the signature of the original
        super().__init__(configs_dict, keep_input=keep_input)


def _python_value(value: Any) -> object:
    """Return the plain value of a NumPy scalar, or of a subclass (an enum, say); a bool is no number here."""
    for numpy_kind, kind in _KINDS:
        if isinstance(value, numpy_kind) and not isinstance(value, bool):
            # str() of an enum's member is the member's name.
            return str.__str__(value) if kind is str else kind(value)
    return value


def _count(value: object) -> int:
    if isinstance(value, list):
        return sum(map(_count, value))
    if isinstance(value, bool):
        return 1
    if isinstance(value, str):
        return len(value.encode())
    return len(value) if isinstance(value, bytes) else _NUMBER_BYTES
