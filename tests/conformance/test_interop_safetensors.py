"""Plain safetensors files, and containers, against the real package."""

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.errors import BadDtype, BadHeader, Mismatch, RecordTypeError, Truncated
from umbel.interop import safetensors as bridge
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
from umbel.records import load as load_container
from umbel.records import save as save_container

real = pytest.importorskip("safetensors", reason="needs the safetensors package")
from safetensors import numpy as real_numpy  # noqa: E402 - only where the package is

torch = pytest.importorskip("torch", reason="the only reader of bfloat16 in the safetensors package needs PyTorch")
from safetensors import torch as real_torch  # noqa: E402 - only where the package is

from umbel.interop.torch import to_record, to_state_dict  # noqa: E402 - only where PyTorch is

CODES = {
    "bool": "BOOL",
    "int8": "I8",
    "uint8": "U8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}
IN_CONTAINERS = [name for name in CODES if not name.endswith("fnuz")]
IN_TORCH = [name for name in CODES if name != "float8_e8m0fnu"]
IN_NUMPY = list(CODES)[:12]
OPAQUE = ["complex128", "float8_e3m4", "float8_e4m3fnuz", "int4", "uint2"]


def array_of(name, shape=(2, 3)):
    kind = np.dtype(getattr(ml_dtypes, name, None) or name)
    count = int(np.prod(shape)) * kind.itemsize
    pattern = (np.arange(count) * 167 % (2 if name == "bool" else 256)).astype(np.uint8)
    return np.ndarray(shape, kind, pattern.tobytes())


def read_by_the_real_package(file):
    return {name: (entry["dtype"], entry["shape"], bytes(entry["data"])) for name, entry in real.deserialize(file)}


def as_read(arrays):
    return {name: (CODES[array.dtype.name], list(array.shape), array.tobytes()) for name, array in arrays.items()}


@pytest.mark.parametrize("write", [bridge.dumps, dumps], ids=["plain", "container"])
def test_every_native_dtype_is_read_back_by_the_real_package(write):
    names = CODES if write is bridge.dumps else IN_CONTAINERS
    arrays = {name: array_of(name) for name in names} | {"scalar": np.float32(3)[()], "empty": np.zeros((3, 0, 2))}
    arrays["scalar"] = np.asarray(arrays["scalar"])

    file = b"".join(write(ParametersRecord.from_numpy(arrays)))

    assert read_by_the_real_package(file) == as_read(arrays)


def test_numpys_reader_gives_the_same_arrays(tmp_path):
    arrays = {name: array_of(name) for name in IN_NUMPY}
    record = ParametersRecord.from_numpy(arrays)
    save_container(record, tmp_path / "container")
    bridge.save(record, tmp_path / "plain")

    for name in ("container", "plain"):
        found = real_numpy.load_file(tmp_path / name)
        assert found.keys() == arrays.keys()
        assert all(np.array_equal(found[key], arrays[key], equal_nan=key.startswith("float")) for key in arrays)
        assert all(found[key].tobytes() == arrays[key].tobytes() for key in arrays)


def test_pytorchs_reader_gives_the_same_tensors(tmp_path):
    state = to_state_dict(ParametersRecord.from_numpy({name: array_of(name) for name in IN_TORCH}))
    native = {name: tensor for name, tensor in state.items() if name in IN_CONTAINERS}
    save_container(to_record(native), tmp_path / "container")
    bridge.save(to_record(state), tmp_path / "plain", metadata={"format": "pt"})

    for name, expected in (("container", native), ("plain", state)):
        found = real_torch.load_file(tmp_path / name)
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            assert found[key].dtype == tensor.dtype
            assert torch.equal(found[key].view(torch.uint8), tensor.view(torch.uint8))


def test_a_model_of_one_record_shows_its_own_names_and_metrics_do_not_show():
    records = RecordSet(
        {"model": ParametersRecord.from_numpy({"b/ä.weight": np.ones(2), "a": np.zeros(1)})},
        {"metrics": MetricsRecord({"loss": float("nan")})},
        {"config": ConfigsRecord({"raw": b"\0", "text": '"\\'})},
    )
    assert set(read_by_the_real_package(b"".join(dumps(records)))) == {"b/ä.weight", "a"}


def test_several_records_show_the_name_of_the_record_first():
    record = ParametersRecord.from_numpy({"w": np.ones(2)})
    names = set(read_by_the_real_package(b"".join(dumps(RecordSet({"model": record, "a/b": record})))))
    assert names == {"model/w", "a%2Fb/w"}


def test_opaque_arrays_are_bytes_to_others():
    arrays = {name: array_of(name) for name in OPAQUE}
    record = ParametersRecord.from_numpy(arrays)
    record["npy"] = array_from_numpy(np.ones(3))
    record["mine"] = Array("no dtype", [7], "my own", b"abc")

    found = read_by_the_real_package(b"".join(dumps(record)))

    assert found["npy"] == ("U8", [len(record["npy"].data)], bytes(record["npy"].data))
    assert found["mine"] == ("U8", [3], b"abc")
    for name, array in arrays.items():
        assert found[name] == ("U8", [array.nbytes], array.tobytes())


def test_the_metadata_of_a_container_are_strings_to_others(tmp_path):
    save_container(ParametersRecord.from_numpy({"w": np.ones(2)}), tmp_path / "model.safetensors")
    with real.safe_open(tmp_path / "model.safetensors", "numpy") as file:
        assert list(file.keys()) == ["w"]
        assert list(file.metadata()) == ["umbel"]
        assert json.loads(file.metadata()["umbel"])["parameters"] == [["model", ["w"]]]


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], codec="utf-8"), max_size=10).filter(
    lambda name: name.isascii() and name != "__metadata__"
)
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def models(dtypes):
    return st.dictionaries(NAMES, st.tuples(st.sampled_from(dtypes), SHAPES), max_size=8).map(
        lambda plan: {name: array_of(dtype, shape) for name, (dtype, shape) in plan.items()}
    )


@given(models(IN_CONTAINERS))
@settings(deadline=None)
def test_any_container_of_a_model_is_read_by_the_real_package(arrays):
    file = b"".join(dumps(ParametersRecord.from_numpy(arrays)))
    assert read_by_the_real_package(file) == as_read(arrays)


def has_no_ties(arrays):
    """Say whether no name says that it is the tensor of another, as those of tied weights do."""
    return not any(" -> " in name for name in arrays)


@given(models(sorted({*IN_TORCH} & {*IN_CONTAINERS})).filter(has_no_ties))
@settings(deadline=None)
def test_any_container_of_a_model_becomes_the_same_tensors(arrays):
    record = ParametersRecord.from_numpy(arrays)
    found = real_torch.load(b"".join(dumps(record)))
    expected = to_state_dict(record)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


@given(st.dictionaries(NAMES, models([*IN_CONTAINERS, *OPAQUE]), max_size=3))
@settings(deadline=None)
def test_any_container_opens_with_every_byte_in_its_place(records):
    record_set = RecordSet({name: ParametersRecord.from_numpy(arrays) for name, arrays in records.items()})
    found = read_by_the_real_package(b"".join(dumps(record_set)))
    payloads = sorted(array.tobytes() for arrays in records.values() for array in arrays.values())
    assert sorted(data for _, _, data in found.values()) == payloads


@given(models(list(CODES)))
@settings(deadline=None)
def test_any_plain_file_goes_out_and_comes_back(arrays):
    record = ParametersRecord.from_numpy(arrays)

    file = b"".join(bridge.dumps(record))
    back = bridge.loads(file)

    assert read_by_the_real_package(file) == as_read(arrays)
    assert back == record
    assert list(back) == list(record)


@given(models(IN_NUMPY))
@settings(deadline=None)
def test_what_the_real_package_writes_comes_in(arrays):
    back = bridge.loads(real_numpy.save(arrays, metadata={"format": "np", "why": 'ä"\\\n'}))
    assert back == ParametersRecord.from_numpy(arrays)
    assert digest(back) == digest(ParametersRecord.from_numpy({name: arrays[name] for name in back}))


def test_what_pytorchs_writer_writes_comes_in(tmp_path):
    state = to_state_dict(ParametersRecord.from_numpy({name: array_of(name) for name in IN_TORCH}))
    real_torch.save_file(state, tmp_path / "model", metadata={"format": "pt"})
    back = bridge.load(tmp_path / "model")
    assert back == to_record(state)
    assert not back["float32"].numpy(copy=False).flags.writeable


def file_of(header, payload=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


def test_entries_in_any_order_and_with_any_white_space_come_in():
    header = (
        b'{\n "b" : { "data_offsets" : [ 4 , 8 ] , "shape" : [ 1 ] , "dtype" : "F32" } ,\t"__metadata__" : { } ,\r\n'
    )
    header += b'"a":{"shape":[],"dtype":"F32","data_offsets":[0,4]}}   '
    record = bridge.loads(file_of(header, np.array([1, 2], "<f4").tobytes()))
    assert {name: array.tolist() for name, array in record.to_numpy().items()} == {"b": [2], "a": 1}
    assert list(record) == ["b", "a"]


def test_an_empty_file_comes_in_and_goes_out():
    assert bridge.loads(file_of(b"{}")) == ParametersRecord()
    assert bridge.loads(file_of(b'{"__metadata__":{"a":"b"}}')) == ParametersRecord()
    assert real.deserialize(b"".join(bridge.dumps(ParametersRecord()))) == []


def test_other_serialisations_are_decoded_on_the_way_out():
    record = ParametersRecord(
        {
            "big-endian": array_from_numpy(np.arange(3, dtype=">i4")),
            "Fortran": array_from_numpy(np.asfortranarray(np.arange(6.0).reshape(2, 3))),
        }
    )
    found = real_numpy.load(b"".join(bridge.dumps(record)))
    assert found["big-endian"].tolist() == [0, 1, 2]
    assert found["Fortran"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_payloads_go_out_without_a_copy():
    array = np.arange(1000.0)
    record = ParametersRecord.from_numpy({"w": array}, copy=False)
    _, payload = bridge.dumps(record)
    assert np.shares_memory(np.frombuffer(payload), array)


@pytest.mark.parametrize("name", ["complex128", "int4", "float8_e3m4"])
def test_a_dtype_that_safetensors_lacks_is_refused_by_name(name):
    with pytest.raises(BadDtype, match=rf"no {name}.*block\.packed"):
        bridge.dumps(ParametersRecord.from_numpy({"block.packed": array_of(name)}))


def test_what_cannot_go_out_is_refused():
    with pytest.raises(BadHeader, match="__metadata__"):
        bridge.dumps(ParametersRecord.from_numpy({"__metadata__": np.ones(1)}))
    with pytest.raises(Truncated, match="w"):
        bridge.dumps(ParametersRecord({"w": Array("float32", [2], "raw", b"1234")}))
    with pytest.raises(Mismatch, match="w"):
        bridge.dumps(ParametersRecord({"w": Array("float32", [2], "numpy.ndarray", array_from_numpy(np.ones(3)).data)}))
    with pytest.raises(RecordTypeError, match="stype"):
        bridge.dumps(ParametersRecord({"w": Array("float32", [2], "my own", b"")}))
    with pytest.raises(RecordTypeError, match="got dict"):
        bridge.dumps({})
    with pytest.raises(RecordTypeError, match="metadata"):
        bridge.dumps(ParametersRecord(), metadata={"epoch": 3})


def test_saving_replaces_and_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.safetensors"
    bridge.save(ParametersRecord.from_numpy({"w": np.ones(1)}), path)
    with pytest.raises(BadDtype):
        bridge.save(ParametersRecord.from_numpy({"w": array_of("int4")}), path)
    assert bridge.load(path).to_numpy()["w"].tolist() == [1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_an_empty_path_is_truncated(tmp_path):
    (tmp_path / "nothing").touch()
    with pytest.raises(Truncated, match="nothing"):
        bridge.load(tmp_path / "nothing")


def test_a_container_of_umbels_comes_in_as_plain_tensors(tmp_path):
    record = ParametersRecord.from_numpy({"b": np.ones(2), "a": np.zeros(3, np.int8)})
    save_container(record, tmp_path / "model")
    assert bridge.load(tmp_path / "model") == load_container(tmp_path / "model").parameters_records["model"]
