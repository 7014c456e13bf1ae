"""Plain columns: cut to the width of a terminal, never cut in a pipe."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

_GAP = "  "
_SHORTEST = 12


@dataclass(frozen=True)
class Column:
    """One column: its title, its alignment, its style, and whether it gives way when the terminal is narrow.

    An elastic column is shortened; of those that have a ``weight``, the lightest is left out first.
    """

    title: str
    right: bool = False
    style: str = ""
    elastic: bool = False
    weight: float | None = None


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> Iterator[Text]:
    """Yield a header and one line a row; ``width`` None means that lines may be as long as they need."""
    widths = fit(columns, rows, width)
    yield line(columns, [column.title for column in columns], widths, header=True)
    for row in rows:
        yield line(columns, row, widths)


def omitted(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[int]:
    """Return the indices of the columns that are left out, so that lines are no longer than ``width``."""
    kept = list(range(len(columns)))
    while width is not None:
        widths = fit([columns[i] for i in kept], [[row[i] for i in kept] for row in rows], width)
        light = [(weight, i) for i in kept if (weight := columns[i].weight) is not None]
        if not light or sum(widths) + len(_GAP) * (len(widths) - 1) <= width:
            break
        kept.remove(min(light)[1])
    return sorted(set(range(len(columns))) - set(kept))


def fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[int]:
    """Return the width of each column in cells."""
    widths = [max([cell_len(column.title), *(cell_len(row[i]) for row in rows)]) for i, column in enumerate(columns)]
    spare = None if width is None else width - sum(widths) - len(_GAP) * (len(widths) - 1)
    if spare is None or spare >= 0:
        return widths
    for i, column in enumerate(columns):
        if column.elastic:
            widths[i] = max(_SHORTEST, widths[i] + spare)
            break
    return widths


def line(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int], *, header: bool = False) -> Text:
    """Return one aligned line."""
    text = Text()
    last = len(cells) - 1
    for i, (column, cell) in enumerate(zip(columns, cells, strict=True)):
        shown = shorten(cell, widths[i])
        fill = " " * (widths[i] - cell_len(shown))
        padded = fill + shown if column.right else shown + (fill if i < last else "")
        text.append(padded, style="bold" if header else column.style)
        text.append("" if i == last else _GAP)
    text.rstrip()
    return text


def shorten(cell: str, width: int) -> str:
    """Return ``cell`` in at most ``width`` cells, its middle left out: both ends of a name tell arrays apart."""
    if cell_len(cell) <= width:
        return cell
    tail = (width - 1) // 2
    head = set_cell_size(cell, width - 1 - tail).rstrip()
    return f"{head}…{set_cell_size(cell[::-1], tail).rstrip()[::-1]}"
