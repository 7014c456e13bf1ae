"""``umbel diff``: how two models differ, array by array."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from umbel.cli._failure import DIFFERENT
from umbel.cli._opened import Opened, open_model
from umbel.cli._options import Json
from umbel.cli._screen import Screen, open_screen
from umbel.cli._stats import Difference, compare, same_bytes
from umbel.cli._table import Column
from umbel.cli._text import counted, figure, safe
from umbel.errors import RecordError, RecordTypeError
from umbel.records import Array, ParametersRecord, RecordSet


@dataclass(frozen=True)
class Change:
    """One array that is not the same in both files.

    ``what`` is ``changed``, ``dtype``, ``shape``, ``added``, ``removed``, ``encoding`` (equal values, other bytes) or
    ``unreadable`` (a serialisation that only its maker can decode).
    """

    record: str
    name: str
    what: str
    detail: str
    difference: Difference | None = None


@dataclass(frozen=True)
class Comparison:
    """All differences of two files. Equal values in another order or form still make another digest."""

    before: Opened
    after: Opened
    equal: int
    changes: tuple[Change, ...]
    values: tuple[tuple[str, str, object, object], ...]

    @property
    def identical(self) -> bool:
        """Say whether the two have one digest."""
        return self.before.digest == self.after.digest


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A model file or the folder of a run.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B", help="The one to compare it with.", show_default=False)],
    *,
    json: Json = False,
) -> None:
    """Compare two models, array by array.

    Shows what changed and by how much, what came and what went from A to B. Exit code 0 when both have one digest,
    1 when they differ, another one when a file cannot be read.

    \b
      umbel diff runs/<id> runs/<other>          two runs
      umbel diff a.safetensors b.safetensors     two files
      umbel diff a b --json || echo different    in a script
    """  # noqa: D301 - a real backspace keeps the lines below it as they are
    screen = open_screen(json_wanted=json)
    comparison = compare_models(open_model(a), open_model(b))
    if json:
        screen.emit(describe(comparison))
    else:
        show(screen, comparison)
    if not comparison.identical:
        raise typer.Exit(DIFFERENT)


def compare_models(before: Opened, after: Opened) -> Comparison:
    """Return how ``after`` differs from ``before``; files of one digest are not read twice."""
    if before.digest == after.digest:
        equal = sum(map(len, before.records.parameters_records.values()))
        return Comparison(before, after, equal, (), ())
    pairs = list(_paired(before.records, after.records))
    changes = [change for pair in pairs if (change := _change(*pair))]
    values = tuple(_changed_values(before.records, after.records))
    return Comparison(before, after, len(pairs) - len(changes), tuple(changes), values)


def _paired(before: RecordSet, after: RecordSet) -> Iterator[tuple[str, str, Array | None, Array | None]]:
    nothing = ParametersRecord()
    for record in dict.fromkeys([*before.parameters_records, *after.parameters_records]):
        old = before.parameters_records.get(record, nothing)
        new = after.parameters_records.get(record, nothing)
        for name in dict.fromkeys([*old, *new]):
            yield record, name, old.get(name), new.get(name)


def _change(record: str, name: str, old: Array | None, new: Array | None) -> Change | None:
    if old is None or new is None:
        what, array = ("added", new) if old is None else ("removed", old)
        return Change(record, name, what, _kind(array) if array else "")
    if list(old.shape) != list(new.shape):
        return Change(record, name, "shape", f"{_shape(old)} -> {_shape(new)}")
    if (old.dtype, old.stype) == (new.dtype, new.stype) and same_bytes(old.data, new.data):
        return None
    try:
        difference = compare(old.numpy(copy=False), new.numpy(copy=False))
    except (RecordError, RecordTypeError) as error:
        return Change(record, name, "unreadable", str(error))
    return _judge(record, name, (old, new), difference)


def _judge(record: str, name: str, pair: tuple[Array, Array], difference: Difference) -> Change:
    old, new = pair
    if old.dtype != new.dtype:
        return Change(record, name, "dtype", f"{old.dtype} -> {new.dtype}", difference)
    if not difference.unequal:
        return Change(record, name, "encoding", f"{old.stype} -> {new.stype}, equal values", difference)
    return Change(record, name, "changed", f"{difference.unequal:,} elements of {_kind(new)}", difference)


def _shape(array: Array) -> str:
    return "x".join(map(str, array.shape)) or "()"


def _kind(array: Array) -> str:
    return f"{array.dtype} {_shape(array)}"


def _changed_values(before: RecordSet, after: RecordSet) -> Iterator[tuple[str, str, object, object]]:
    for what in ("metrics_records", "configs_records"):
        old_records: Mapping[str, Mapping[str, object]] = getattr(before, what)
        new_records: Mapping[str, Mapping[str, object]] = getattr(after, what)
        for record in dict.fromkeys([*old_records, *new_records]):
            old, new = old_records.get(record, {}), new_records.get(record, {})
            for key in dict.fromkeys([*old, *new]):
                if old.get(key) != new.get(key):
                    yield f"{what}.{record}", key, old.get(key), new.get(key)


def describe(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as plain values."""
    return {
        "identical": comparison.identical,
        "digests": [comparison.before.digest, comparison.after.digest],
        "equal": comparison.equal,
        "changes": [
            {
                "record": change.record,
                "name": change.name,
                "what": change.what,
                "detail": change.detail,
                **(vars(change.difference) if change.difference else {}),
            }
            for change in comparison.changes
        ],
        "values": [
            {"record": record, "name": name, "before": old, "after": new}
            for record, name, old, new in comparison.values
        ],
    }


def show(screen: Screen, comparison: Comparison) -> None:
    """Print a comparison."""
    if comparison.identical:
        screen.say(f"identical: {counted(comparison.equal, 'array')}, digest {comparison.before.digest}", style="green")
        return
    for sign, opened in (("-", comparison.before), ("+", comparison.after)):
        screen.say(f"{sign} {safe(str(opened.path))}  {opened.digest}")
    _show_changes(screen, comparison.changes)
    for record, name, old, new in comparison.values:
        screen.say(f"{safe(record)}.{safe(name)}: {_or_nothing(old)} -> {_or_nothing(new)}")
    screen.say()
    screen.say(_verdict(comparison), style="bold")


def _or_nothing(value: object) -> str:
    return "nothing" if value is None else figure(value)


_STYLES = {"added": "green", "removed": "red"}


def _show_changes(screen: Screen, changes: tuple[Change, ...]) -> None:
    columns = [
        Column("what"),
        Column("array", elastic=True),
        Column("max abs", right=True),
        Column("relative", right=True),
        Column("detail"),
    ]
    if not changes:
        return
    several = len({change.record for change in changes}) > 1
    rows = []
    for change in changes:
        name = f"{safe(change.record)}: {safe(change.name)}" if several else safe(change.name)
        gap = change.difference
        sizes = [f"{gap.max_abs:.4g}", f"{gap.relative:.3g}"] if gap else ["", ""]
        rows.append([change.what, name, *sizes, safe(change.detail)])
    screen.say()
    screen.table(columns, rows)


def _verdict(comparison: Comparison) -> str:
    counts: dict[str, int] = {}
    for change in comparison.changes:
        counts[change.what] = counts.get(change.what, 0) + 1
    if not counts and not comparison.values:
        return f"every value is equal; the order of arrays or records differs ({counted(comparison.equal, 'array')})"
    parts = [f"{count:,} {what}" for what, count in counts.items()]
    if comparison.values:
        parts.append(counted(len(comparison.values), "other value"))
    return f"different: {', '.join(parts)}; {counted(comparison.equal, 'array')} equal"
