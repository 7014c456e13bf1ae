"""Make the golden files that are not there yet: `python tests/golden/make.py`.

A golden file is never changed and never made again. Bytes that differ from it are a new version of the format, which
gets new files beside the old ones. To add one, add a function here, run this, and commit what it wrote.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from umbel.records import (
    Array,
    ConfigsRecord,
    MetricsRecord,
    ParametersRecord,
    RecordSet,
    array_from_numpy,
    digest,
    dumps,
)

FILES = Path(__file__).with_name("files")
DIGESTS = FILES / "digests.txt"
SUFFIX = ".safetensors"

NUMPY = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
ML = (
    *("bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz"),
    *("float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn"),
    *("int4", "uint4", "int2", "uint2"),
)


def values(name: str) -> np.ndarray:
    """Return 2 x 3 values of a dtype that differ from one another where it has so many."""
    kind = np.dtype(getattr(ml_dtypes, name)) if name in ML else np.dtype(name)
    numbers = np.array([[0, 1, 2], [0.5, 4, 1]], np.float32)
    if kind.kind == "b":
        return numbers > 0.75
    if kind.kind == "c":
        return (numbers - 2j * numbers).astype(kind)
    if name in ("int4", "uint4", "int2", "uint2"):
        return (numbers % 2).astype(np.int8).astype(kind)
    return numbers.astype(kind)


def alone(array: Array) -> RecordSet:
    """Return a record set of one array, as a plain model has it."""
    return RecordSet({"model": ParametersRecord({"weight": array})})


def shapes() -> RecordSet:
    """Arrays of every rank up to 3, of size 0 and 1, and of 32 dimensions."""
    sizes: tuple[tuple[int, ...], ...] = ((), (1,), (0,), (2, 3), (3, 0, 2), (1, 2, 3), (1,) * 32)
    arrays = {"x".join(map(str, size)) or "scalar": np.ones(size, np.int16) for size in sizes}
    return RecordSet({"model": ParametersRecord.from_numpy(arrays)})


def order() -> RecordSet:
    """Names that sort otherwise than they stand, of dtypes whose payloads stand otherwise again."""
    kinds = {
        "z": "uint8",
        "y": "float64",
        "x": "bfloat16",
        "w": "int32",
        "v": "complex128",
        "u": "float64",
        "a": "bool",
    }
    return RecordSet({"model": ParametersRecord.from_numpy({name: values(kind) for name, kind in kinds.items()})})


def names() -> RecordSet:
    """Names that have to be escaped in JSON, in a key, or in both, and one in several scripts."""
    texts = ("", "/", "%", "%2F", 'quote "', "back\\slash", "../up", "__metadata__", "größe", "花\N{SNOWMAN}\U0001f33c")
    record = ParametersRecord.from_numpy({text: np.full(1, place, np.uint8) for place, text in enumerate(texts)})
    return RecordSet(
        dict.fromkeys(texts[:6], record),
        {text: MetricsRecord({text: place}) for place, text in enumerate(texts)},
        {text: ConfigsRecord({text: text}) for text in texts},
    )


def metrics() -> RecordSet:
    """Numbers at the ends of their ranges, and floats whose shortest digits differ from place to place."""
    integers = [0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1]
    floats = [0.0, -0.0, 0.1, 1 / 3, 100.0, 1e16, 1e22, 1e-05, 1e-7, 5e-324, 1.7976931348623157e308, -2.5]
    special = [float("inf"), float("-inf"), float("nan")]
    record: dict[str, Any] = {f"int {place}": value for place, value in enumerate(integers)}
    record |= {f"float {place}": value for place, value in enumerate(floats + special)}
    lists: dict[str, Any] = {"empty": [], "integers": integers, "floats": floats, "special": special}
    return RecordSet(
        metrics_records={"scalars": MetricsRecord(record), "lists": MetricsRecord(lists), "none": MetricsRecord()}
    )


def configs() -> RecordSet:
    """A value of every kind, alone and in a list."""
    texts = ["", "text", 'a "quoted" \\ text', "\x00\x08\t\n\x0c\r\x1f\x7f", "größe 花 \U0001f33c", "e\u0301"]
    data = [b"", b"\x00", b"\xff\xfe", b"three", bytes(range(256))]
    scalars: dict[str, Any] = {"true": True, "false": False, "int": 1, "float": 1.0, "nan": float("nan")}
    scalars |= {f"text {place}": text for place, text in enumerate(texts)}
    scalars |= {f"bytes {place}": value for place, value in enumerate(data)}
    lists: dict[str, Any] = {
        "none": [],
        "bools": [True, False],
        "ints": [1, 2],
        "floats": [0.5, 2.0],
        "texts": texts,
        "bytes": data,
    }
    return RecordSet(configs_records={"scalars": ConfigsRecord(scalars), "lists": ConfigsRecord(lists)})


def stypes() -> RecordSet:
    """Arrays in both stypes of the house, in either order and byte order, and in one of a stranger."""
    grid = np.arange(6, dtype=np.float32).reshape(2, 3)
    record = ParametersRecord(
        {
            "raw": array_from_numpy(grid, "raw"),
            "npy": array_from_numpy(grid),
            "npy, Fortran": array_from_numpy(np.asfortranarray(grid)),
            "npy, big-endian": array_from_numpy(grid.astype(">f4")),
            "stranger": Array("float32", [2, 3], "top-1%", b"any bytes"),
            "stranger's dtype": Array("float12", [2, 3], "packed", b"\x00" * 9),
        }
    )
    return RecordSet({"model": record})


def message() -> RecordSet:
    """What a training reply looks like: a model, its weight, and the run it belongs to."""
    model = {"conv.weight": np.arange(18, dtype=np.float32).reshape(2, 1, 3, 3), "conv.bias": np.zeros(2, np.float32)}
    return RecordSet(
        {"model": ParametersRecord.from_numpy(model), "statistics": ParametersRecord.from_numpy([np.arange(3.0)])},
        {"metrics": MetricsRecord({"num-examples": 60, "loss": 0.25, "losses": [0.5, 0.25]})},
        {"config": ConfigsRecord({"round": 3, "lr": 0.1, "optimizer": "sgd", "nesterov": False})},
    )


def _raw(name: str) -> Callable[[], RecordSet]:
    return lambda: alone(array_from_numpy(values(name), "raw"))


def _npy(name: str) -> Callable[[], RecordSet]:
    return lambda: alone(array_from_numpy(values(name)))


RECORDS: dict[str, Callable[[], RecordSet]] = {
    "empty": RecordSet,
    **{f"raw-{name}": _raw(name) for name in NUMPY + ML},
    **{f"npy-{name}": _npy(name) for name in NUMPY},
    **{make.__name__: make for make in (shapes, order, names, metrics, configs, stypes, message)},
}


def main() -> int:
    """Write the files that are missing and their digests; touch none that is there."""
    FILES.mkdir(exist_ok=True)
    made = []
    for name, make in RECORDS.items():
        path = FILES / f"{name}{SUFFIX}"
        if path.exists():
            continue
        with path.open("xb") as file:
            file.writelines(dumps(make()))
        with DIGESTS.open("a") as file:
            file.write(f"{digest(make())}  {path.name}\n")
        made.append(path.name)
    sys.stdout.write("".join(f"made {name}\n" for name in made) or "all golden files are there; none was touched\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
