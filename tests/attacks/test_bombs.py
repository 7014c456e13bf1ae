"""Input that is large, or claims to be: refused before it costs more than its bytes, under a hard limit too."""

import subprocess
import sys
from pathlib import Path

import pytest

from forge import ONE_ARRAY, W, container, entry, framed, header, meta, model, refuse
from umbel.errors import (
    BadDtype,
    BadHeader,
    BadOffsets,
    BadShape,
    HeaderTooLarge,
    LimitExceeded,
    TooDeep,
    Truncated,
)
from umbel.records import ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet, dumps, load, loads

MIB = 2**20
ARRAYS = 65_536
FULL = 16 * MIB - 500


def arrays(count, last=None):
    """Return a container of ``count`` arrays without elements, with another entry in the last place."""
    names = [f"{place:x}" for place in range(count)]
    entries = [entry(name) for name in names]
    said = ",".join(f'"{name}"' for name in names)
    return container(meta(f'[["model",[{said}]]]'), *entries[:-1], last or entries[-1])


def naming(names, kind="parameters"):
    return container(meta(**{kind: f'[["r",[{",".join(names)}]]]'}))


def check(error, data):
    refuse(error, lambda: loads(data), len(data))


def test_a03_100_mb_of_tiny_entries():
    tiny = b',"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    check(HeaderTooLarge, framed(header(ONE_ARRAY)[:-1] + tiny * (100_000_000 // len(tiny)) + b"}"))


def test_a03_a_name_of_10_mb():
    name = '"' + "n" * 10_000_000 + '"'
    check(LimitExceeded, container(meta(f'[["model",[{name}]]]')))
    check(LimitExceeded, container(meta(metrics=f'[["m",[[{name},1]]]]')))
    check(LimitExceeded, container(meta(configs=f"[[{name},[]]]")))
    check(BadHeader, model(W.replace('"w"', name)))


def test_a03_200_000_arrays_of_nothing():
    check(LimitExceeded, arrays(200_000))
    check(LimitExceeded, naming([f'"{place:x}"' for place in range(200_000)]))


@pytest.mark.parametrize(
    ("error", "data"),
    [
        (BadHeader, lambda: framed(b" " * FULL)),
        (TooDeep, lambda: framed(b"[" * FULL)),
        (BadHeader, lambda: framed(b"[]" * (FULL // 2))),
        (BadHeader, lambda: framed(b'"' * FULL)),
        (BadHeader, lambda: framed(b'{"__metadata__":{"umbel":"' + b'\\"' * (FULL // 2 - 20))),
        (BadHeader, lambda: container('"' * (FULL // 2 - 40))),
        (BadHeader, lambda: model(W + "," + '""' * (FULL // 2 - 200))),
        (BadHeader, lambda: model(W.replace('"w"', '"' + "w" * (FULL - 400) + '"'))),
        (BadOffsets, lambda: model(W.replace("24", "1" * (FULL - 400)))),
        (BadDtype, lambda: model(W.replace("F32", "F" * (FULL - 400)))),
        (BadShape, lambda: model(W.replace("2,3", "1" * (FULL - 400)))),
        (BadShape, lambda: model(W.replace("2,3", "10," * (FULL // 3 - 200)))),
        (BadHeader, lambda: container(meta("[[" + "[]," * (FULL // 3 - 100)))),
        (BadHeader, lambda: container(meta(metrics='[["m",[["a",[' + "{}," * (FULL // 3 - 100)))),
        (LimitExceeded, lambda: container(meta(metrics='[["m",[["a","' + "a" * (FULL - 400) + '"]]]]'))),
    ],
    ids=range(15),
)
def test_a03_a_header_full_of_one_thing(error, data):
    check(error, data())


def test_a12_a_length_that_nothing_follows():
    for length in (2**64 - 1, 2**63, 2**40, 16 * MIB + 8):
        check(HeaderTooLarge, length.to_bytes(8, "little"))
    check(Truncated, (16 * MIB - 8).to_bytes(8, "little"))


def test_a17_as_many_arrays_as_there_may_be():
    data = arrays(ARRAYS)
    assert b"".join(dumps(loads(data))) == data
    check(LimitExceeded, arrays(ARRAYS + 1))


def test_a17_the_last_of_65536_arrays_is_bad():
    check(BadOffsets, arrays(ARRAYS, entry("ffff", stop=1)))
    check(BadDtype, arrays(ARRAYS, entry("ffff", "X8")))


def test_a17_more_values_than_there_may_be():
    """A million metrics are among the bombs below: to trace every allocation takes long."""
    for values in ([f'["{place:x}",[]]' for place in range(300_000)], ['["a",[' + "0.0," * 262_144 + "0.0]]"]):
        with pytest.raises(LimitExceeded):
            loads(naming(values, "configs"))


def test_a17_more_records_than_there_may_be():
    records = "[" + ",".join(f'["{place:x}",[]]' for place in range(ARRAYS + 1)) + "]"
    for kind in ("parameters", "configs"):
        check(LimitExceeded, container(meta(**{kind: records})))


def test_a17_what_the_writer_refuses_too():
    empty = {f"{place:x}": ParametersRecord() for place in range(ARRAYS + 1)}
    lists = {str(place): [] for place in range(262_145)}
    for records in (
        RecordSet(empty),
        RecordSet(None, {"m": MetricsRecord({"a": [0] * 262_145})}),
        RecordSet(None, {"m": MetricsRecord(lists)}),
        RecordSet(None, None, {"c": ConfigsRecord(lists)}),
    ):
        with pytest.raises(LimitExceeded):
            dumps(records)
    with pytest.raises(HeaderTooLarge):
        dumps(RecordSet(None, None, {"c": ConfigsRecord({"a": "a" * 16 * MIB})}))


def test_a_text_of_commas_and_brackets_counts_as_one_value():
    text = ',[{"' * 400_000
    records = RecordSet(None, None, {"c": ConfigsRecord({"csv": text})})
    assert loads(b"".join(dumps(records))).configs_records["c"]["csv"] == text


SCRIPT = """
import resource, sys
from umbel.errors import UmbelError
from umbel.records import dumps, load, loads
loads(b"".join(dumps(loads(open(sys.argv[1], "rb").read()))))
for path in sys.argv[2:]:
    with open(path, "rb") as file:
        data = file.read()
    with open("/proc/self/status") as status:
        used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * len(data) + 2**20 + {slack}, resource.RLIM_INFINITY))
    try:
        loads(data)
    except UmbelError as error:
        sys.stdout.write(type(error).__name__ + " ")
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    del data
"""
# malloc asks the system for more than it is asked for.
SLACK = 4 * MIB


def test_bombs_under_a_hard_limit_of_memory(tmp_path):
    """The limit holds for everything in the process, NumPy, regular expressions and the JSON parser included."""
    bombs = [
        ("HeaderTooLarge", (2**24 + 56).to_bytes(8, "little") + b"[" * (2**24 + 56)),
        ("TooDeep", framed(b"[" * FULL)),
        ("LimitExceeded", arrays(200_000)),
        ("LimitExceeded", naming([f'["{place:x}",0]' for place in range(1_000_000)], "metrics")),
        ("BadOffsets", arrays(ARRAYS, entry("ffff", stop=1))),
        ("BadShape", model(W.replace("2,3", "10," * (FULL // 3 - 200)))),
        ("BadHeader", container(meta(metrics='[["m",[["a",[' + "[]," * (FULL // 3 - 100)))),
        ("LimitExceeded", container(meta(metrics='[["m",[["a","' + "a" * (FULL - 400) + '"]]]]'))),
        ("Truncated", container(ONE_ARRAY, entry("w", "U8", f"{2**52}", 0, 2**52))),
    ]
    valid = tmp_path / "valid"
    valid.write_bytes(model(W))
    paths = [tmp_path / str(place) for place in range(len(bombs))]
    for path, (_, data) in zip(paths, bombs, strict=True):
        path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("{slack}", str(SLACK)), valid, *paths],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.split() == [name for name, _ in bombs]


def test_a_sparse_file_of_a_tebibyte_is_opened_without_reading_it(tmp_path):
    """A file that says it is larger than memory is one that may be used, an array at a time."""
    size = 2**40
    path = Path(tmp_path / "sparse")
    data = container(ONE_ARRAY, entry("w", "U8", str(size), 0, size))
    with path.open("wb") as file:
        file.write(data)
        file.truncate(len(data) + size)
    refuse_nothing = load(path).parameters_records["model"]["w"]
    assert refuse_nothing.numpy(copy=False)[-1] == 0
    with path.open("ab") as file:
        file.truncate(len(data) + size - 1)
    refuse(Truncated, lambda: load(path), len(data))
