"""``umbel inspect``: what is in a model file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from umbel.cli._opened import Opened, open_model
from umbel.cli._options import Json
from umbel.cli._screen import Screen, open_screen
from umbel.cli._stats import Stats, measure, sparkline
from umbel.cli._table import Column
from umbel.cli._text import counted, figure, safe, size
from umbel.errors import RecordError, RecordTypeError
from umbel.records import Array, ParametersRecord

_NAME = Column("array", elastic=True)
_COLUMNS = [_NAME, Column("dtype", style="cyan"), Column("shape"), Column("size", right=True)]
_STATS = [
    Column("min", right=True),
    Column("max", right=True),
    Column("mean", right=True),
    Column("norm", right=True),
    Column("NaN", right=True),
    Column("histogram", style="green"),
]
_MANY = 20


def inspect(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A model file, or the folder of a run.", show_default=False)
    ],
    *,
    stats: Annotated[bool, typer.Option("--stats", help="Add range, mean, norm, NaN count and a histogram.")] = False,
    json: Json = False,
) -> None:
    """Show what is in a model file.

    That is its records and arrays: names, dtypes, shapes, sizes, digest. FILE is a model that Umbel wrote, any
    .safetensors file, or one .npy array. It is read a block at a time, so its
    size does not matter.

    \b
      umbel inspect runs/<id>                    the final model of a run
      umbel inspect model.safetensors --stats    with statistics of every array
      umbel inspect model.safetensors --json     for a script
    """  # noqa: D301 - a real backspace keeps the lines below it as they are
    screen = open_screen(json_wanted=json)
    opened = open_model(file)
    if json:
        screen.emit(describe(opened, stats=stats))
    else:
        show(screen, opened, stats=stats)


def describe(opened: Opened, *, stats: bool) -> dict[str, Any]:
    """Return the contents of a model file as plain values."""
    records = opened.records
    return {
        "path": str(opened.path),
        "kind": opened.kind,
        "bytes": opened.size,
        "digest": opened.digest,
        "parameters_records": {
            name: [_describe_array(key, array, stats=stats) for key, array in record.items()]
            for name, record in records.parameters_records.items()
        },
        "metrics_records": {name: dict(record) for name, record in records.metrics_records.items()},
        "configs_records": {name: dict(record) for name, record in records.configs_records.items()},
    }


def _describe_array(name: str, array: Array, *, stats: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": name,
        "dtype": array.dtype,
        "shape": list(array.shape),
        "stype": array.stype,
        "bytes": len(array.data),
    }
    if stats:
        measured = _measure(array)
        described |= {"unreadable": measured} if isinstance(measured, str) else {"stats": vars(measured)}
    return described


def _measure(array: Array) -> Stats | str:
    """Return the statistics, or why there are none: one odd array must not hide the others."""
    try:
        return measure(array.numpy(copy=False))
    except (RecordError, RecordTypeError) as error:
        return str(error)


def show(screen: Screen, opened: Opened, *, stats: bool) -> None:
    """Print the contents of a model file."""
    screen.say(safe(str(opened.path)), style="bold")
    for line in _summary(opened):
        screen.say(line)
    for name, record in opened.records.parameters_records.items():
        screen.say()
        screen.say(f"parameters {safe(name)}: {_totals(record)}", style="bold")
        _show_arrays(screen, record, stats=stats)
    _show_values(screen, "metrics", opened.records.metrics_records)
    _show_values(screen, "configs", opened.records.configs_records)


def _summary(opened: Opened) -> Iterator[str]:
    kinds = {"umbel": "Umbel container", "safetensors": "plain safetensors", "npy": "one NumPy array"}
    yield f"{kinds[opened.kind]}, {size(opened.size)}"
    yield f"digest {opened.digest}"


def _totals(record: ParametersRecord) -> str:
    payload = sum(len(array.data) for array in record.values())
    return f"{counted(len(record), 'array')}, {size(payload)}"


def _show_arrays(screen: Screen, record: ParametersRecord, *, stats: bool) -> None:
    rows = [_row(screen, name, array, stats=stats) for name, array in record.items()]
    # One serialisation for all is the usual case; the column is worth its place when it tells arrays apart.
    serialised = {array.stype for array in record.values()} != {"raw"}
    columns = [*_COLUMNS, *([Column("stype")] if serialised else []), *(_STATS if stats else [])]
    if not serialised:
        rows = [row[:4] + row[5:] for row in rows]
    if rows:
        screen.table(columns, rows)
    if len(rows) > _MANY:
        screen.say(f"{_totals(record)}")


def _row(screen: Screen, name: str, array: Array, *, stats: bool) -> list[str]:
    row = [safe(name), safe(array.dtype), "x".join(map(str, array.shape)) or "()", size(len(array.data))]
    row.append(safe(array.stype))
    if not stats:
        return row
    measured = _measure(array)
    if isinstance(measured, str):
        return [*row, "", "", "", "", "", safe(measured)]
    moments = (measured.minimum, measured.maximum, measured.mean, measured.norm)
    bars = sparkline(measured.histogram, screen.console.encoding)
    infinite = f" + {measured.infinities} Inf" if measured.infinities else ""
    return [*row, *(f"{moment:.4g}" for moment in moments), f"{measured.nans}{infinite}", bars]


def _show_values(screen: Screen, what: str, records: Mapping[str, Mapping[str, object]]) -> None:
    for name, record in records.items():
        screen.say()
        screen.say(f"{what} {safe(name)}: {counted(len(record), 'value')}", style="bold")
        if record:
            rows = [[safe(key), figure(value)] for key, value in record.items()]
            screen.table([Column("name"), Column("value", elastic=True)], rows)
