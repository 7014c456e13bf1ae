"""Strategies for everything that a record set may hold."""

import unicodedata

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from umbel.records import Array, ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet, _dtypes, array_from_numpy

TRICKY = ["", "a", "A", "a/b", "a%2Fb", "%", "/", "__metadata__", '"', "\\", "\u202e", "\u200b", "..", "0", "\ufffd"]


def _is_name(text: str) -> bool:
    return len(text.encode()) <= 1024 and unicodedata.is_normalized("NFC", text)


#: Unicode text in NFC without control characters, some of it chosen to be confused with other text.
names = st.one_of(
    st.sampled_from(TRICKY),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
    .map(lambda text: unicodedata.normalize("NFC", text))
    .filter(_is_name),
)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
NUMPY_DTYPES = [np.dtype(name) for name in _dtypes._NUMPY_NAMES]
ML_DTYPES = [np.dtype(getattr(ml_dtypes, name)) for name in _dtypes._ML_NAMES]
orders = st.sampled_from(["C", "F", "swapped", "strided", "reversed", "read-only"])


@st.composite
def ndarrays(draw, dtypes=(*NUMPY_DTYPES, *ML_DTYPES)):
    """Arrays of any bits, shape, order and byte order."""
    dtype = draw(st.sampled_from(dtypes))
    shape = draw(shapes)
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8).copy()
    if dtype == np.bool_:
        raw &= 1
    return _arranged(raw.view(dtype).reshape(shape), draw(orders))


def _arranged(array, order):
    if order == "F":
        return np.asfortranarray(array) if array.ndim else array
    if order == "swapped" and array.dtype in NUMPY_DTYPES:
        return array.astype(array.dtype.newbyteorder(">"))
    if order == "strided" and array.ndim:
        return np.repeat(array, 2, axis=0)[::2]
    if order == "reversed":
        return array[(slice(None, None, -1),) * array.ndim]
    if order == "read-only":
        array.setflags(write=False)
    return array


own = st.builds(
    Array,
    names,
    st.lists(st.integers(0, 3), max_size=4),
    names.filter(lambda text: text != "raw"),
    st.binary(max_size=9),
)
arrays = st.one_of(
    ndarrays().map(lambda array: array_from_numpy(array, "raw")),
    ndarrays(NUMPY_DTYPES).map(array_from_numpy),
    own,
)


def _lists(*scalars):
    return st.one_of(*scalars, *(st.lists(scalar, max_size=4) for scalar in scalars))


integers = st.integers(-(2**63), 2**64 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
metrics = _lists(integers, st.floats())
configs = _lists(st.booleans(), integers, st.floats(), texts, st.binary(max_size=9))

parameters_records = st.dictionaries(names, arrays, max_size=5).map(ParametersRecord)
metrics_records = st.dictionaries(names, metrics, max_size=4).map(MetricsRecord)
configs_records = st.dictionaries(names, configs, max_size=4).map(ConfigsRecord)


def _sets(most):
    return st.builds(
        RecordSet,
        st.dictionaries(names, parameters_records, max_size=most),
        st.dictionaries(names, metrics_records, max_size=most),
        st.dictionaries(names, configs_records, max_size=most),
    )


record_sets = _sets(3)
#: At most one record of each kind: ten thousand of these are made in minutes.
small_record_sets = _sets(1)
