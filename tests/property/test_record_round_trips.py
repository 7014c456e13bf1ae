"""Whatever a record set holds comes back from its bytes, and equal values have equal bytes."""

import copy
import pickle
import unicodedata

import ml_dtypes
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from umbel.records import (
    Array,
    ConfigsRecord,
    MetricsRecord,
    ParametersRecord,
    RecordSet,
    array_from_numpy,
    digest,
    dumps,
    load,
    loads,
    save,
)

NUMPY = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
]
ML = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3", "int4", "uint4"]

# Names as a container may hold them: NFC, no control characters, no lone surrogates, at most 1,024 bytes.
names = (
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=40)
    .map(lambda text: unicodedata.normalize("NFC", text))
    .filter(lambda text: not any(unicodedata.category(char) == "Cc" for char in text))
)
shapes = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def arrays(draw, kinds=(*NUMPY, *ML)):
    """An array of any bits, dtype, shape and layout in memory."""
    name = draw(st.sampled_from(kinds))
    dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
    shape = draw(shapes)
    size = int(np.prod(shape, dtype=int))
    if name in ("bool", "int4", "uint4"):
        bits = st.integers(0, 1)
        array = np.array(draw(st.lists(bits, min_size=size, max_size=size)), np.int8).astype(dtype).reshape(shape)
    else:
        data = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
        array = np.frombuffer(data, dtype).reshape(shape)
    return draw(st.sampled_from([_as_it_is, np.asfortranarray, np.transpose, _swapped, _strided]))(array)


def _as_it_is(array):
    return array


def _swapped(array):
    return array.astype(array.dtype.newbyteorder(">"))


def _strided(array):
    twice = np.repeat(array[..., None], 2, axis=-1)
    return twice[..., 1]


@st.composite
def serialised(draw):
    """An Array of any stype, one of a stranger among them."""
    stype = draw(st.sampled_from(["raw", "numpy.ndarray", "stranger"]))
    if stype == "stranger":
        return Array(draw(names), draw(shapes), draw(names.map("x-{}".format)), draw(st.binary(max_size=20)))
    return array_from_numpy(draw(arrays(NUMPY if stype == "numpy.ndarray" else (*NUMPY, *ML))), stype)


integers = st.integers(-(2**63), 2**64 - 1)
numbers = st.one_of(integers, st.floats(), st.lists(integers, max_size=4), st.lists(st.floats(), max_size=4))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
plain = [st.booleans(), texts, st.binary(max_size=20)]
settings = st.one_of(numbers, *plain, *(st.lists(kind, max_size=4) for kind in plain))


def records(values, kind):
    return st.dictionaries(names, st.dictionaries(names, values, max_size=4).map(kind), max_size=3)


record_sets = st.builds(
    RecordSet,
    records(serialised(), ParametersRecord),
    records(numbers, MetricsRecord),
    records(settings, ConfigsRecord),
)


def outline(found):
    """Everything in order with kinds and bits, which == leaves out."""
    return [
        [(name, [(key, _outline(value)) for key, value in record.items()]) for name, record in part.items()]
        for part in (found.parameters_records, found.metrics_records, found.configs_records)
    ]


def _outline(value):
    return (value.dtype, value.shape, value.stype, bytes(value.data)) if isinstance(value, Array) else repr(value)


def same(left, right):
    """Equal in shape and bits, whatever the order of the bytes in memory."""
    left, right = (array.astype(array.dtype.newbyteorder("<")) for array in (left, np.asarray(right)))
    return left.shape == right.shape and left.dtype == right.dtype and left.tobytes() == right.tobytes()


@given(record_sets)
def test_a_container_comes_back(records):
    container = b"".join(dumps(records))
    found = loads(container)
    assert outline(found) == outline(records)
    assert b"".join(dumps(found)) == container
    assert digest(found) == digest(records)


@given(record_sets)
def test_a_file_comes_back(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("file") / "records"
    save(records, path)
    assert outline(load(path, expect=digest(records))) == outline(records)


@given(record_sets)
def test_copies_have_the_same_bytes(records):
    expected = b"".join(dumps(records))
    for twin in (copy.copy(records), copy.deepcopy(records), pickle.loads(pickle.dumps(records))):
        assert b"".join(dumps(twin)) == expected


@given(arrays())
def test_equal_values_have_equal_bytes_whatever_their_layout(array):
    layouts = [array, np.array(array, order="F"), _swapped(array), _strided(array), np.array(array, order="C")]
    assert len({digest(ParametersRecord.from_numpy([each])) for each in layouts}) == 1
    assert len({digest(ParametersRecord.from_numpy([each], copy=False)) for each in layouts}) == 1


@given(arrays())
def test_raw_arrays_come_back(array):
    for copied in (True, False):
        assert same(array_from_numpy(array, "raw").numpy(copy=copied), array)


@given(arrays(NUMPY))
def test_npy_arrays_come_back(array):
    for copied in (True, False):
        assert same(array_from_numpy(array).numpy(copy=copied), array)


@given(st.dictionaries(st.text(max_size=10), arrays(), max_size=5))
def test_whole_models_come_back(model):
    for copied in (True, False):
        found = ParametersRecord.from_numpy(model, copy=copied).to_numpy()
        assert list(found) == list(model)
        assert all(same(found[name], array) for name, array in model.items())


@given(record_sets, record_sets)
def test_different_values_have_different_bytes(left, right):
    assert (outline(left) == outline(right)) == (b"".join(dumps(left)) == b"".join(dumps(right)))
