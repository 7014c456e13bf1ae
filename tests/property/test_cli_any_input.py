"""What people see of any name, and what is measured of any array."""

import math
import tomllib
from contextlib import suppress
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from umbel.cli._plot import Panel, nice_ticks, plot
from umbel.cli._settings import read_settings
from umbel.cli._stats import compare, measure
from umbel.cli._table import Column, table
from umbel.cli._text import printable, safe
from umbel.errors import UsageError

DTYPES = [np.dtype(kind) for kind in ("bool", "int8", "uint64", "float16", "float32", "float64", "complex64")]
FLOATS = st.floats(width=64, allow_nan=True, allow_infinity=True)
ANY_TEXT = st.text(st.characters(codec=None, categories=None))


@given(ANY_TEXT)
def test_no_name_steers_a_terminal(name):
    assert safe(name).isprintable()
    assert all(char.isprintable() or char in "\n\t" for char in printable(name))


@given(ANY_TEXT, ANY_TEXT)
def test_different_names_look_different(one, other):
    assert (safe(one) == safe(other)) == (one == other)


@given(st.lists(st.lists(st.text(max_size=60).map(safe), min_size=2, max_size=2), max_size=5), st.integers(20, 80))
def test_tables_have_a_line_a_row(rows, width):
    columns = [Column("name", elastic=True), Column("value", right=True)]
    for limit in (None, width):
        assert len(list(table(columns, rows, limit))) == len(rows) + 1


@given(hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, min_side=0)))
def test_statistics_are_numpys(array):
    stats = measure(array)
    with np.errstate(all="ignore"):
        values = (np.abs(array) if array.dtype.kind == "c" else array).astype("float64").reshape(-1)
    finite = values[np.isfinite(values)]
    assert stats.nans == np.isnan(values).sum()
    assert stats.infinities == np.isinf(values).sum()
    assert sum(stats.histogram) == finite.size
    if finite.size:
        assert (stats.minimum, stats.maximum) == (finite.min(), finite.max())
        scale = max(abs(finite).max(), 5e-324)
        assert stats.mean / scale == pytest.approx((finite / scale).mean(), abs=1e-9)


@given(hnp.arrays(np.float64, hnp.array_shapes(min_side=0), elements=FLOATS))
def test_an_array_equals_itself_bit_for_bit(array):
    difference = compare(array, array.copy())
    assert (difference.unequal, difference.max_abs) == (0, 0)


@given(st.lists(FLOATS, min_size=1, max_size=20), st.lists(FLOATS, min_size=20, max_size=20))
def test_differences_are_never_nan(before, after):
    for kind in (np.float64, ml_dtypes.bfloat16):
        with np.errstate(all="ignore"):
            old, new = np.array(before).astype(kind), np.array(after[: len(before)]).astype(kind)
        difference = compare(old, new)
        assert not math.isnan(difference.max_abs)
        assert not math.isnan(difference.relative)


@given(st.dictionaries(st.integers(0, 10_000), FLOATS), st.text(max_size=20))
def test_any_metric_can_be_drawn(series, name):
    assert plot([Panel("train", name, dict(sorted(series.items())))], name).endswith("</svg>\n")


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_ticks_are_few_and_rise(one, other):
    ticks = nice_ticks(min(one, other), max(one, other))
    assert 2 <= len(ticks) <= 12
    assert all(low < high for low, high in pairwise(ticks))


KEYS = st.sampled_from(["client", "initial", "nodes", "rounds", "seed", "strategy", "config", "x"]) | st.text()
VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_settings_end_in_settings_or_a_usage_error(tmp_path_factory, table_of):
    lines = [f"{_quoted(key)} = {_toml(value)}" for key, value in table_of.items()]
    text = "\n".join(["[tool.umbel]", *lines])
    tomllib.loads(text)
    file = tmp_path_factory.getbasetemp() / "pyproject.toml"
    file.write_text(text, encoding="utf-8")
    with suppress(UsageError):
        assert read_settings(file).client


def _quoted(text):
    return '"' + "".join(f"\\U{ord(char):08x}" for char in text) + '"'


def _toml(value):
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return _quoted(value)
    return str(value).lower()
