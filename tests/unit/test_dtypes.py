"""Every dtype, order and kind of input: what goes in comes back, and `.npy` bytes are those of np.save."""

from io import BytesIO

import ml_dtypes
import numpy as np
import pytest

from umbel.errors import BadDtype
from umbel.records import ParametersRecord, array_from_numpy, dumps, loads

NUMPY = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
]
ML = [
    *("bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz"),
    *("float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn"),
    *("int4", "uint4", "int2", "uint2"),
]
EVERY = NUMPY + ML


def numpy_dtype(name):
    return np.dtype(getattr(ml_dtypes, name)) if name in ML else np.dtype(name)


def sample(name, shape=(3, 4)):
    """Different values of all bits that the dtype has."""
    size = int(np.prod(shape, dtype=int))
    if name == "bool":
        return (np.arange(size) % 3 == 0).reshape(shape)
    return (np.arange(size) % 5).astype(np.float32).astype(numpy_dtype(name)).reshape(shape)


def same(left, right):
    """Equal in shape, dtype but for byte order, and bits."""
    right = right.astype(right.dtype.newbyteorder("<"))
    left = left.astype(left.dtype.newbyteorder("<"))
    return left.shape == right.shape and left.dtype == right.dtype and left.tobytes() == right.tobytes()


def saved(array):
    out = BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


LAYOUTS = {
    "C": lambda a: a,
    "Fortran": np.asfortranarray,
    "transposed": lambda a: a.T,
    "every second": lambda a: a[::2, 1::2],
    "backwards": lambda a: a[::-1, ::-1],
    "broadcast": lambda a: np.broadcast_to(a[:1], (3, 4)),
    "0-d": lambda a: a[1, 1].reshape(()),
    "one": lambda a: a[:1, :1],
    "row": lambda a: a[0],
    "strided row": lambda a: a[:, 1],
    "no rows": lambda a: a[:0],
    "zero in the middle": lambda a: a.reshape(3, 1, 4)[:, :0],
    "nothing": lambda a: a.reshape(-1)[:0],
    "rank 32": lambda a: a.reshape((3,) + (1,) * 30 + (4,)),
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "big-endian Fortran": lambda a: np.asfortranarray(a.astype(a.dtype.newbyteorder(">"))),
    "scalar": lambda a: a[1, 1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", EVERY)
class TestRoundTrip:
    @pytest.mark.parametrize("copy", [True, False])
    def test_raw(self, name, layout, copy):
        given = LAYOUTS[layout](sample(name))
        array = array_from_numpy(given, "raw")
        assert (array.dtype, array.shape) == (name, list(given.shape))
        assert bytes(array.data) == given.astype(given.dtype.newbyteorder("<")).tobytes()
        assert same(array.numpy(copy=copy), np.asarray(given))

    @pytest.mark.parametrize("copy", [True, False])
    def test_whole_models(self, name, layout, copy):
        given = LAYOUTS[layout](sample(name))
        record = ParametersRecord.from_numpy({"a": given, "b": given}, copy=copy)
        assert record["a"] == record["b"] == array_from_numpy(given, "raw")
        assert same(record.to_numpy(copy=False)["b"], np.asarray(given))

    def test_container(self, name, layout):
        given = LAYOUTS[layout](sample(name))
        record = ParametersRecord.from_numpy({"a": given})
        found = loads(b"".join(dumps(record))).parameters_records["model"]
        assert found == record
        assert same(found["a"].numpy(), np.asarray(given))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NUMPY)
def test_npy_bytes_are_those_of_np_save(name, layout):
    given = LAYOUTS[layout](sample(name))
    array = array_from_numpy(given)
    assert bytes(array.data) == saved(given)
    assert same(array.numpy(), np.asarray(given))
    assert array.dtype == name


@pytest.mark.parametrize("name", ML)
def test_npy_never_stores_anonymous_bytes(name):
    with pytest.raises(BadDtype, match=f"{name}.*stype='raw'"):
        array_from_numpy(sample(name))


@pytest.mark.parametrize("name", EVERY)
def test_every_bit_pattern_survives(name):
    kind = numpy_dtype(name)
    bits = {1: np.uint8, 2: np.uint16}.get(kind.itemsize)
    if bits is None or name == "bool" or name in ("float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn"):
        patterns = np.array([0, 1, 2**63, 2**64 - 1, 0x7FF8000000000001, 0xFFF0000000000000], np.uint64)
        given = patterns.view(kind) if kind.itemsize >= 4 else sample(name)
    elif name.startswith(("int4", "uint4", "int2", "uint2")):
        given = sample(name)
    else:
        given = np.arange(2 ** (8 * kind.itemsize), dtype=np.uint64).astype(bits).view(kind)
    record = ParametersRecord.from_numpy([given])
    assert loads(b"".join(dumps(record))).parameters_records["model"]["0"].numpy().tobytes() == given.tobytes()


def test_all_of_numpy_is_here_and_the_families_of_ml_dtypes_that_the_format_promises():
    of_numpy = {np.dtype(code).name for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"}
    platform = {np.dtype(np.longdouble).name, np.dtype(np.clongdouble).name}
    assert of_numpy - platform == set(NUMPY) - platform
    of_ml = {name for name, kind in vars(ml_dtypes).items() if isinstance(kind, type) and issubclass(kind, np.generic)}
    assert {name for name in of_ml if name.startswith(("bfloat", "float8", "int4", "uint4"))} <= set(ML) <= of_ml


@pytest.mark.parametrize("copy", [True, False])
def test_a_read_only_input(copy):
    given = np.arange(4.0)
    given.setflags(write=False)
    assert np.array_equal(array_from_numpy(given).numpy(), given)
    assert np.array_equal(ParametersRecord.from_numpy([given], copy=copy).to_numpy()["0"], given)


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("mode", ["r", "c"])
def test_a_mapped_input(tmp_path, copy, mode):
    np.save(tmp_path / "a.npy", np.arange(12.0).reshape(3, 4))
    given = np.load(tmp_path / "a.npy", mmap_mode=mode)
    assert bytes(array_from_numpy(given).data) == (tmp_path / "a.npy").read_bytes()
    record = ParametersRecord.from_numpy([given], copy=copy)
    del given
    found = record.to_numpy()["0"]
    assert type(found) is np.ndarray
    assert np.array_equal(found, np.arange(12.0).reshape(3, 4))


def test_a_subclass_is_stored_as_a_plain_array():
    class Tagged(np.ndarray):
        pass

    given = np.arange(3.0).view(Tagged)
    assert bytes(array_from_numpy(given).data) == saved(np.arange(3.0))
    assert type(array_from_numpy(given).numpy()) is np.ndarray


@pytest.mark.parametrize("name", ["longlong", "ulonglong", "intc", "long"])
def test_c_names_of_numpy_become_canonical_names(name):
    given = np.zeros(2, np.dtype(name))
    assert array_from_numpy(given).dtype == f"{'u' * (given.dtype.kind == 'u')}int{8 * given.dtype.itemsize}"


def test_a_mapped_array_is_read_from_an_unaligned_place():
    # A payload of `.npy` bytes inside a container may begin anywhere.
    buffer = b"x" + saved(np.arange(4.0))
    array = array_from_numpy(np.arange(4.0))
    shifted = type(array)(array.dtype, array.shape, array.stype, memoryview(buffer)[1:])
    assert np.array_equal(shifted.numpy(copy=False), np.arange(4.0))
    assert shifted.numpy().sum() == 6
