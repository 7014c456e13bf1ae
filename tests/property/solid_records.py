"""Records that are known to be solid, the same ones of which nothing is known, and models of all kinds of arrays."""

import numpy as np
from hypothesis import strategies as st

import record_strategies as some
from umbel.records import ParametersRecord, RecordSet, _solid, _writer, dumps, loads
from umbel.records._layout import NATIVE
from umbel.records._parameters import solid_of

#: The dtypes whose arrays can be part of a solid record.
NATIVES = [np.dtype(name) for name in NATIVE]
FLOATS = [kind for kind in NATIVES if kind.kind in "fc" or "float" in kind.name]


def forget():
    """Forget all layouts that were read."""
    _solid._recent._layouts = ()


def joined(records):
    return b"".join(dumps(records))


def composed(records):
    """Return the container of a record set as it is written when no layout is known."""
    return b"".join(_writer._composed(records))


def plain(record):
    """Return the same arrays in a record that is not solid."""
    twin = ParametersRecord(record, keep_input=True)
    assert solid_of(twin) is None
    return twin


def solid(record, name="model"):
    """Return the same values in a record that was read: it is solid."""
    read = loads(composed(RecordSet({name: plain(record)}))).parameters_records[name]
    assert solid_of(read) is not None
    return read


def content(record):
    """Return all that a record holds, in order, bit by bit."""
    return [(name, array.dtype, array.shape, array.stype, bytes(array.data)) for name, array in record.items()]


def elements(kind, size, rng):
    """Elements of any bits; for bools the two that there are."""
    raw = np.frombuffer(rng.bytes(size * kind.itemsize), np.uint8)
    return ((raw & 1) if kind == np.bool_ else raw).view(kind)


@st.composite
def models(draw, dtypes=NATIVES, most=7, largest=300):
    """A list of (name, dtype, shape): arrays of all sizes, dtypes of one alignment between one another."""
    names = draw(st.lists(some.names, max_size=most, unique=True))
    sizes = st.one_of(
        st.just([]), st.lists(st.integers(0, 3), min_size=1, max_size=4), st.tuples(st.integers(0, largest))
    )
    return [(name, draw(st.sampled_from(dtypes)), tuple(draw(sizes))) for name in names]


def record_like(model, rng, make=elements):
    """Return a record of a model, its elements made of a seed."""
    return ParametersRecord.from_numpy(
        {name: make(kind, int(np.prod(shape)), rng).reshape(shape) for name, kind, shape in model}
    )
