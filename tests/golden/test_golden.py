"""The bytes of version 1, for good: each file is written and read byte for byte, by us and by a second reader."""

import base64
import json
import runpy
import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from umbel.records import Array, ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet, digest, dumps, load, loads

HERE = Path(__file__).parent
MAKER = runpy.run_path(str(HERE / "make.py"))
RECORDS, FILES = MAKER["RECORDS"], MAKER["FILES"]
DIGESTS = dict(reversed(line.split()) for line in (FILES / "digests.txt").read_text().splitlines())


@pytest.fixture(params=RECORDS)
def name(request):
    return request.param


@pytest.fixture
def golden(name):
    return (FILES / f"{name}.safetensors").read_bytes()


def outline(records):
    """Everything in order with kinds and bits, which == leaves out."""
    return [
        [(name, [(key, _outline(value)) for key, value in record.items()]) for name, record in part.items()]
        for part in (records.parameters_records, records.metrics_records, records.configs_records)
    ]


def _outline(value):
    return (value.dtype, value.shape, value.stype, bytes(value.data)) if isinstance(value, Array) else repr(value)


def test_is_written_byte_for_byte(name, golden):
    assert b"".join(dumps(RECORDS[name]())) == golden


def test_is_read_as_what_it_was(name, golden):
    assert outline(loads(golden)) == outline(RECORDS[name]())
    assert outline(load(FILES / f"{name}.safetensors")) == outline(RECORDS[name]())


def test_comes_back_byte_for_byte(golden):
    assert b"".join(dumps(loads(golden))) == golden


def test_has_its_digest(name, golden):
    expected = DIGESTS[f"{name}.safetensors"]
    assert digest(RECORDS[name]()) == digest(loads(golden, expect=expected)) == expected


def test_is_read_alike_by_a_reader_that_knows_the_specification_alone(name, golden):
    assert outline(second_reader(golden)) == outline(RECORDS[name]())


def test_every_file_has_a_record_and_every_record_a_file():
    stored = {path.name for path in FILES.iterdir()}
    assert stored == {"digests.txt"} | DIGESTS.keys() == {"digests.txt"} | {f"{name}.safetensors" for name in RECORDS}


def test_no_two_files_are_the_same():
    assert len(set(DIGESTS.values())) == len(DIGESTS)


def test_the_maker_touches_nothing():
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in FILES.iterdir()}
    done = subprocess.run([sys.executable, HERE / "make.py"], capture_output=True, text=True, check=True, timeout=60)
    assert "none was touched" in done.stdout
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in FILES.iterdir()} == before


@pytest.mark.parametrize("kind", MAKER["NUMPY"])
def test_npy_payloads_open_with_numpy(kind):
    payload = load(FILES / f"npy-{kind}.safetensors").parameters_records["model"]["weight"].data
    found = np.load(BytesIO(payload), allow_pickle=False)
    assert found.dtype == kind
    assert np.array_equal(found, MAKER["values"](kind))


@pytest.mark.parametrize("kind", MAKER["NUMPY"] + MAKER["ML"])
def test_raw_payloads_are_the_plain_bytes(kind):
    array = load(FILES / f"raw-{kind}.safetensors").parameters_records["model"]["weight"]
    dtype = np.dtype(getattr(ml_dtypes, kind, None) or kind)
    assert array.dtype == kind
    assert np.frombuffer(array.data, dtype).reshape(array.shape).tobytes() == MAKER["values"](kind).tobytes()


# Safetensors' names of dtypes, as docs/spec/record.md has them.
NATIVE = {
    "BOOL": "bool",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "C64": "complex64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
}


def second_reader(data):
    """Read a container with the `json` module: slow, trusting, and written from the specification."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    meta = json.loads(header.pop("__metadata__")["umbel"])
    assert meta["version"] == 1
    payload = data[8 + length :]
    plain = len(meta["parameters"]) == 1 and not any(
        _name(entry) == "__metadata__" for entry in meta["parameters"][0][1]
    )
    parameters = {}
    for record, entries in meta["parameters"]:
        prefix = "" if plain else record.replace("%", "%25").replace("/", "%2F") + "/"
        parameters[record] = ParametersRecord(
            {_name(entry): _array(entry, header.pop(prefix + _name(entry)), payload) for entry in entries}
        )
    assert header == {}
    metrics = {name: MetricsRecord({key: _value(value) for key, value in pairs}) for name, pairs in meta["metrics"]}
    configs = {name: ConfigsRecord({key: _value(value) for key, value in pairs}) for name, pairs in meta["configs"]}
    return RecordSet(parameters, metrics, configs)


def _name(entry):
    return entry if isinstance(entry, str) else entry[0]


def _array(entry, tensor, payload):
    start, stop = tensor["data_offsets"]
    if isinstance(entry, str):
        return Array(NATIVE[tensor["dtype"]], tensor["shape"], "raw", payload[start:stop])
    assert (tensor["dtype"], tensor["shape"]) == ("U8", [stop - start])
    _, stype, dtype, shape = entry
    return Array(dtype, shape, stype, payload[start:stop])


def _value(value):
    if isinstance(value, list):
        return [_value(item) for item in value]
    if isinstance(value, dict):
        return float(value["float"]) if "float" in value else base64.b64decode(value["bytes"])
    return value
