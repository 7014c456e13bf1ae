"""MetricsRecord and ConfigsRecord: which values they take, and how they count."""

import enum
import math

import ml_dtypes
import numpy as np
import pytest

from umbel.errors import BadValue, RecordTypeError
from umbel.records import ConfigsRecord, MetricsRecord


class Colour(enum.IntEnum):
    RED = 3


class Named(str):
    __slots__ = ()


METRICS = [
    0,
    -1,
    2**64 - 1,
    -(2**63),
    0.0,
    -0.0,
    1e300,
    math.inf,
    -math.inf,
    [],
    [1],
    [1, 2**64 - 1],
    [0.5, -0.0, math.inf],
]
CONFIGS = [*METRICS, True, False, "", "text", "ü\N{SNOWMAN}\n", b"", b"\0\xff", [True, False], ["", "a"], [b"", b"a"]]

# What NumPy hands out, and the Python value it stands for.
OF_NUMPY = [
    (np.int8(-1), -1),
    (np.int64(2**62), 2**62),
    (np.uint64(2**64 - 1), 2**64 - 1),
    (np.float16(0.5), 0.5),
    (np.float32(0.1), float(np.float32(0.1))),
    (np.float64(0.1), 0.1),
    ([np.int32(1), 2], [1, 2]),
    ([np.float32(0.5), 0.25, np.float64(1)], [0.5, 0.25, 1.0]),
    (Colour.RED, 3),
]
OF_NUMPY_FOR_CONFIGS = [
    (np.bool_(True), True),
    (np.str_("x"), "x"),
    (np.bytes_(b"x"), b"x"),
    ([np.bool_(False), True], [False, True]),
    (Named("x"), "x"),
]


def types(value):
    return [type(item) for item in value] if isinstance(value, list) else type(value)


@pytest.mark.parametrize(
    ("kind", "value"), [*((MetricsRecord, value) for value in METRICS), *((ConfigsRecord, value) for value in CONFIGS)]
)
def test_is_stored_as_it_is(kind, value):
    record = kind({"a": value})
    assert repr(record["a"]) == repr(value)
    assert types(record["a"]) == types(value)
    assert record == kind({"a": value})


@pytest.mark.parametrize("kind", [MetricsRecord, ConfigsRecord])
def test_not_a_number_is_a_number(kind):
    assert math.isnan(kind({"a": math.nan})["a"])
    assert math.isnan(kind({"a": [math.nan]})["a"][0])


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        *((MetricsRecord, *pair) for pair in OF_NUMPY),
        *((ConfigsRecord, *pair) for pair in OF_NUMPY + OF_NUMPY_FOR_CONFIGS),
    ],
)
def test_scalars_of_numpy_become_values_of_python(kind, value, expected):
    found = kind({"a": value})["a"]
    assert found == expected
    assert types(found) == types(expected)


REFUSED_BY_BOTH = [
    *(None, (), (1, 2), {}, {"a": 1}, set(), range(2), 1j, object(), print, bytearray(b"x"), memoryview(b"x")),
    *([None], [[1]], [1, 2.0], [1.0, 2], [1, "a"], [{}], [object()], [1, None]),
    *(np.array([1, 2]), np.array(1), np.complex64(1), np.datetime64("2020"), ml_dtypes.bfloat16(1), [np.array(1)]),
]
REFUSED_BY_METRICS = [
    "",
    "text",
    b"",
    True,
    False,
    [True],
    [1, True],
    ["a"],
    [b""],
    np.bool_(True),
    np.str_("x"),
    [np.True_],
]
REFUSED_BY_CONFIGS = [[True, 1], [1, True], ["a", b"a"], [b"", bytearray()], [0.5, True]]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((MetricsRecord, value) for value in REFUSED_BY_BOTH + REFUSED_BY_METRICS),
        *((ConfigsRecord, value) for value in REFUSED_BY_BOTH + REFUSED_BY_CONFIGS),
    ],
)
def test_is_refused_with_its_place(kind, value):
    record = kind({"a": 1})
    with pytest.raises(TypeError, match=rf"expected .* got .* - at {kind.__name__}\['a'\]") as caught:
        record["a"] = value
    assert isinstance(caught.value, RecordTypeError)
    with pytest.raises(RecordTypeError):
        kind({"a": value})
    assert record == {"a": 1}


def test_what_is_wrong_in_a_list_is_shown():
    with pytest.raises(RecordTypeError, match=r"got str 'x' - at MetricsRecord\['losses'\]"):
        MetricsRecord({"losses": [0.5, 1.0, "x"]})


def test_a_refused_value_is_shown_short():
    with pytest.raises(RecordTypeError) as caught:
        MetricsRecord({"a": "x" * 10_000})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("kind", [MetricsRecord, ConfigsRecord])
@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**400, [0, 2**64]])
def test_an_integer_that_fits_64_bits_in_no_way_is_refused(kind, value):
    with pytest.raises(BadValue, match=r"2\*\*63.*bits"):
        kind({"a": value})


@pytest.mark.parametrize("kind", [MetricsRecord, ConfigsRecord])
def test_the_callers_list_is_not_kept(kind):
    values = [1, 2]
    record = kind({"a": values})
    values.append(3)
    assert record["a"] == [1, 2]


@pytest.mark.parametrize(
    ("value", "size"),
    [
        *((0, 8), (2**64 - 1, 8), (0.5, 8), ([], 0), ([1, 2, 3], 24), ([0.5], 8)),
        *((True, 1), ([True, False], 2), ("", 0), ("abc", 3), ("ü", 2), ("\N{SNOWMAN}", 3), ("\U0001f33c", 4)),
        *((b"", 0), (b"abc", 3), (["", "a", "ü"], 3), ([b"", b"ab"], 2), ([""], 0)),
    ],
)
@pytest.mark.parametrize("key", ["", "key", "größe"])
def test_bytes_are_counted_exactly(value, size, key):
    assert ConfigsRecord({key: value}).count_bytes() == size + len(key.encode())
    if not isinstance(value, bool | str | bytes) and not (
        value and isinstance(value, list) and type(value[0]) not in (int, float)
    ):
        assert MetricsRecord({key: value}).count_bytes() == size + len(key.encode())


def test_bytes_add_up():
    assert MetricsRecord({"a": 1, "bc": [0.5, 0.25]}).count_bytes() == 1 + 8 + 2 + 16
    assert ConfigsRecord({"a": True, "bc": "xyz", "d": [b"12", b"3"]}).count_bytes() == 1 + 1 + 2 + 3 + 1 + 3
    assert MetricsRecord().count_bytes() == ConfigsRecord().count_bytes() == 0


def test_repr_is_that_of_a_dict():
    assert repr(MetricsRecord({"a": 1, "b": [0.5]})) == "{'a': 1, 'b': [0.5]}"
    assert repr(ConfigsRecord({"a": "x", "b": b"y", "c": True})) == "{'a': 'x', 'b': b'y', 'c': True}"


def test_equality_tells_kinds_of_numbers_apart_as_little_as_a_dict_does():
    assert MetricsRecord({"a": 1}) == MetricsRecord({"a": 1.0})
    assert MetricsRecord({"a": 1}) == {"a": 1.0}
    assert MetricsRecord({"a": np.float32(0.5)}) == {"a": np.float64(0.5)}
