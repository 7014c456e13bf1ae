"""The typed, ordered mapping under every record."""

from collections.abc import (
    ItemsView,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    MutableSequence,
    ValuesView,
)
from typing import Any, Generic, Self, TypeVar, overload

from umbel.errors import RecordTypeError, UmbelError
from umbel.records._brief import brief

V = TypeVar("V")
T = TypeVar("T")


class TypedMapping(MutableMapping[str, V], Generic[V]):
    """An insertion-ordered mapping from str to values of one kind, checked whenever one is stored.

    Like a dict's, its equality does not look at the order.
    """

    __slots__ = ("_data",)
    _data: dict[str, V]

    def __init__(self, items: Mapping[str, V] | None = None, *, keep_input: bool = True) -> None:
        self._data = {}
        if items is not None:
            self._data = self._check_all(items)
            if not keep_input:
                drain(items)

    def _check_value(self, key: str, value: object) -> V:
        """Return ``value`` in its stored form, or raise."""
        raise NotImplementedError

    def _check_key(self, key: object) -> str:
        if not isinstance(key, str):
            msg = f"expected a str as key, got {type(key).__name__} {brief(key)}"
            raise RecordTypeError(msg, at=type(self).__name__)
        return str.__str__(key)

    def _check_all(self, items: object) -> dict[str, V]:
        if type(items) is not dict and not isinstance(items, Mapping):
            msg = f"expected a mapping, got {type(items).__name__}"
            raise RecordTypeError(msg, at=type(self).__name__)
        checked = {}
        for key, value in items.items():
            name = key if type(key) is str else self._check_key(key)
            checked[name] = self._check_value(key, value)
        return checked

    def __getitem__(self, key: str) -> V:
        """Return the value stored under ``key``."""
        return self._data[key]

    def __setitem__(self, key: str, value: V) -> None:
        """Store ``value`` under ``key``, once both are checked."""
        name = self._check_key(key)
        self._data[name] = self._check_value(key, value)

    def __delitem__(self, key: str) -> None:
        """Remove ``key``."""
        del self._data[key]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys in order."""
        return iter(self._data)

    def __len__(self) -> int:
        """Return how many entries there are."""
        return len(self._data)

    def __contains__(self, key: object) -> bool:
        """Say whether ``key`` is there."""
        return key in self._data

    @overload
    def get(self, key: str) -> V | None: ...

    @overload
    def get(self, key: str, default: V | T) -> V | T: ...

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value stored under ``key``, or ``default`` if there is none."""
        return self._data.get(key, default)

    def keys(self) -> KeysView[str]:
        """Return a live view of the keys."""
        return self._data.keys()

    def values(self) -> ValuesView[V]:
        """Return a live view of the values."""
        return self._data.values()

    def items(self) -> ItemsView[str, V]:
        """Return a live view of the entries."""
        return self._data.items()

    def update(self, other: Any = (), /, **entries: Any) -> None:
        """Store several entries, or none of them if one is wrong."""
        self._data.update(self._check_all(dict(other, **entries)))

    def copy(self) -> Self:
        """Return a mapping of its own with the same values."""
        twin = type(self).__new__(type(self))
        twin._data = self._data.copy()  # noqa: SLF001 - one of us
        return twin

    __copy__ = copy

    def __eq__(self, other: object) -> bool:
        """Compare the contents with those of another mapping, whatever the order."""
        if isinstance(other, TypedMapping):
            return self._data == other._data
        if not isinstance(other, Mapping):
            return NotImplemented
        try:
            return self._data == self._check_all(other)
        except UmbelError:
            # It holds what a record cannot; comparing that with ==, NumPy would answer with an array.
            return False

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show the entries as a dict would."""
        return repr(self._data)


def drain(items: object) -> None:
    """Empty the caller's mapping or list.

    Raises:
        RecordTypeError: if it cannot be emptied; it is then as it was.

    """
    if not isinstance(items, MutableMapping | MutableSequence):
        msg = f"keep_input=False empties what it is given, and {type(items).__name__} cannot be; pass a dict or a list"
        raise RecordTypeError(msg)
    items.clear()
