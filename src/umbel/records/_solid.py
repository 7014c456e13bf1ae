"""Records whose arrays stand in one buffer, one after the other, as a container has them.

What is done to every element of such a record is done in a few long runs, whatever the number of its arrays; and two of
one layout need no comparison array by array.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

from umbel.records._array import Array, unchecked
from umbel.records._stypes import RAW

# How many layouts are remembered, up to which size of a header, and of how many bytes of headers together: a federation
# trains a model or two at a time. What is kept of a header are a few times its bytes.
_REMEMBERED: Final = 8
_LONGEST: Final = 2**20
_MOST: Final = 2 * _LONGEST


class Row(NamedTuple):
    """One raw array of a layout: where its payload starts and stops."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Run(NamedTuple):
    """Payloads of one dtype that follow one another."""

    dtype: str
    start: int
    stop: int


class Layout:
    """The raw arrays of one record, and where a container with nothing else in it has each.

    ``header`` is the container up to the payloads; layouts are equal when it is.
    """

    __slots__ = ("dtypes", "header", "names", "placed", "record", "rows", "runs", "shapes", "size", "sizes")

    def __init__(self, record: str, rows: Sequence[Row], header: bytes) -> None:
        self.record, self.rows, self.header = record, tuple(rows), header
        self.names, self.dtypes = [row.name for row in rows], [row.dtype for row in rows]
        self.shapes = [list(row.shape) for row in rows]
        self.sizes = [row.stop - row.start for row in rows]
        placed = sorted(rows, key=lambda row: row.start)
        #: The names in the order of the payloads.
        self.placed = [row.name for row in placed]
        self.runs = list(_runs(placed))
        self.size = max((row.stop for row in rows), default=0)

    def __eq__(self, other: object) -> bool:
        """Compare the headers: they say it all."""
        return isinstance(other, Layout) and (self is other or self.header == other.header)

    def __hash__(self) -> int:
        """Return the hash of the header."""
        return hash(self.header)

    def over(self, payload: memoryview) -> dict[str, Array]:
        """Return the arrays whose payloads are in ``payload``, read-only and of the size that the layout has."""
        return {
            name: unchecked(dtype, list(shape), RAW, payload[start:stop])
            for name, dtype, shape, start, stop in self.rows
        }

    def name_at(self, place: int) -> str:
        """Return which array has the byte at ``place``."""
        return next(row.name for row in self.rows if row.start <= place < row.stop)


def _runs(placed: Sequence[Row]) -> Iterator[Run]:
    for dtype, group in groupby((row for row in placed if row.stop > row.start), key=lambda row: row.dtype):
        together = list(group)
        yield Run(dtype, together[0].start, together[-1].stop)


class Solid:
    """What is known of a record that is solid: its layout, and the buffer with all payloads.

    Of ``lasting`` ones, whose buffer nobody changes any more, the digest is computed once.
    """

    __slots__ = ("data", "digest", "lasting", "layout")

    def __init__(self, layout: Layout, data: memoryview, *, lasting: bool) -> None:
        self.layout, self.data, self.lasting = layout, data, lasting
        self.digest: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Be nothing in a copy, whose arrays have buffers of their own."""
        return type(None), ()


class _Recent:
    """The layouts that were read last."""

    def __init__(self) -> None:
        self._layouts: tuple[Layout, ...] = ()

    def find(self, header: bytes) -> Layout | None:
        """Return the layout with this header."""
        return next((layout for layout in self._layouts if layout.header == header), None)

    def find_like(self, names: list[str], dtypes: list[str], shapes: list[list[int]]) -> Layout | None:
        """Return a layout of just these arrays, whatever the name of their record."""
        wanted = names, dtypes, shapes
        return next((each for each in self._layouts if (each.names, each.dtypes, each.shapes) == wanted), None)

    def keep(self, layout: Layout) -> None:
        """Remember one; those that were kept first go."""
        kept, size = [layout], len(layout.header)
        for each in self._layouts:
            if len(kept) < _REMEMBERED and size + len(each.header) <= _MOST and each != layout:
                kept.append(each)
                size += len(each.header)
        self._layouts = tuple(kept)


_recent: Final = _Recent()


def recalled(header: memoryview) -> Layout | None:
    """Return the layout with a header that was read lately."""
    return _recent.find(bytes(header)) if len(header) <= _LONGEST else None


def recalled_like(names: list[str], dtypes: list[str], shapes: list[list[int]]) -> Layout | None:
    """Return a layout of such arrays that was read lately: a node answers with the arrays that it was sent."""
    return _recent.find_like(names, dtypes, shapes)


def remembered(record: str, rows: Sequence[Row], header: memoryview) -> Layout | None:
    """Return the layout with a header that was found good, for records that have it next; None if it is too long."""
    if len(header) > _LONGEST:
        return None
    layout = Layout(record, rows, bytes(header))
    _recent.keep(layout)
    return layout
