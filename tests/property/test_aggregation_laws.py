"""Laws of aggregation, judged against exact fractions.

A float result may differ from the exact mean by (K + 3) units of rounding, relative to the mean of the magnitudes, and
by what is lost below the smallest normal number.
"""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.aggregation import Update, aggregate, canonical, total, weighted_mean
from umbel.records import ParametersRecord

MEAN = weighted_mean()
SUM = total()
FLOATS = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
BYTE_FLOATS = [
    "float8_e3m4",
    "float8_e4m3",
    "float8_e4m3b11fnuz",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "float6_e2m3fn",
    "float6_e3m2fn",
    "float4_e2m1fn",
]
SMALL_INTEGERS = ["int8", "int16", "int32", "uint8", "uint16", "uint32", "int4", "uint4", "int2", "uint2"]
DTYPES = [*FLOATS, *BYTE_FLOATS, *SMALL_INTEGERS, "int64", "uint64", "bool"]

weights = st.one_of(st.integers(1, 10_000), st.floats(1e-3, 1e6))


def arrays(dtype, size, rng):
    """Finite elements of all magnitudes that the dtype has: random bits, sub-byte types in their one form."""
    kind = np.dtype(dtype)
    if dtype == "bool":
        return rng.integers(0, 2, size).astype(bool)
    values = np.frombuffer(rng.bytes(size * kind.itemsize), kind)
    with np.errstate(all="ignore"):
        if kind.itemsize == 1:
            values = values.astype(np.float32).astype(kind)  # one byte for each value of the types of fewer bits
        return values if "int" in dtype else np.where(np.isfinite(values), values, np.ones(size, kind))


@st.composite
def cohorts(draw, dtypes=DTYPES, least=1, most=6, weight=weights):
    """Updates of some nodes, of one to three arrays each."""
    kinds = draw(st.lists(st.sampled_from(dtypes), min_size=1, max_size=3))
    count = draw(st.integers(least, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = [draw(st.integers(0, 5)) for _ in kinds]
    updates = []
    for node in range(count):
        named = {f"{i}": arrays(kind, size, rng) for i, (kind, size) in enumerate(zip(kinds, sizes, strict=True))}
        updates.append(Update(f"n{node}", draw(weight), ParametersRecord.from_numpy(named)))
    return updates


def mean_of(updates):
    return aggregate(MEAN, updates[0].record, updates)


def in_batches(fold, updates, cuts, *, tail):
    """Fold the updates cut at some places; ``tail`` hands the last batch to ``finish``."""
    ends = [*sorted({cut % (len(updates) + 1) for cut in cuts}), len(updates)]
    batches = [updates[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    acc = fold.start(updates[0].record)
    for batch in batches[:-1] if tail else batches:
        acc = fold.add(acc, batch)
    return fold.finish(acc, batches[-1]) if tail else fold.finish(acc)


def exact_mean(updates, name, part):
    values = [Fraction(float(part(update.record[name].numpy())[0])) for update in updates]
    shares = [Fraction(update.weight) for update in updates]
    whole = sum(shares)
    mean = sum(w * x for w, x in zip(shares, values, strict=True)) / whole
    return mean, sum(w * abs(x) for w, x in zip(shares, values, strict=True)) / whole


@given(cohorts(), st.lists(st.integers(0, 100), max_size=4), st.booleans())
def test_the_cutting_into_batches_changes_no_bit(updates, cuts, tail):
    assert in_batches(MEAN.reduce, updates, cuts, tail=tail) == mean_of(updates)


@given(
    cohorts(dtypes=["float32", "float64", "complex64", "int64", "uint64"]), st.lists(st.integers(0, 100), max_size=4)
)
def test_the_cutting_into_batches_changes_no_bit_of_a_sum(updates, cuts):
    fold = total(finite=False).reduce
    try:
        expected = fold.finish(fold.start(updates[0].record), updates)
    except ArithmeticError as error:
        with pytest.raises(type(error), match="outside"):
            in_batches(fold, updates, cuts, tail=False)
    else:
        assert in_batches(fold, updates, cuts, tail=False) == expected


@given(cohorts(), st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_no_bit(updates, random):
    arrived = random.sample(updates, len(updates))
    assert canonical(arrived) == updates
    assert aggregate(MEAN, updates[0].record, arrived) == mean_of(updates)


@given(cohorts(), st.integers(-60, 60))
def test_scaling_all_weights_by_a_power_of_two_changes_no_bit(updates, power):
    scaled = [update._replace(weight=update.weight * 2.0**power) for update in updates]
    assert mean_of(scaled) == mean_of(updates)


@given(cohorts(most=1))
def test_the_mean_of_one_update_is_that_update(updates):
    assert mean_of(updates) == updates[0].record


@given(cohorts(dtypes=["int64", "uint64", "bool", *SMALL_INTEGERS], most=1), st.lists(weights, min_size=1, max_size=9))
def test_the_mean_of_equal_integers_is_that_integer(updates, shares):
    same = [Update(f"n{i}", weight, updates[0].record) for i, weight in enumerate(shares)]
    assert mean_of(same) == updates[0].record


@given(cohorts(dtypes=["float32", "float64", "complex64"], most=1), st.lists(weights, min_size=1, max_size=9))
def test_the_mean_of_equal_floats_is_nearly_that_float(updates, shares):
    same = [Update(f"n{i}", weight, updates[0].record) for i, weight in enumerate(shares)]
    try:
        mean = mean_of(same)
    except ArithmeticError:  # at the very end of the range rounding up is overflow, and is said to be
        return
    for name, array in mean.items():
        real = array.numpy().real.dtype
        found, expected = (each.numpy().view(real) for each in (array, updates[0].record[name]))
        bound = (len(shares) + 3) * np.finfo(real).eps / 2 * np.abs(expected.astype(np.longdouble))
        lost = len(shares) * float(np.finfo(real).smallest_subnormal) * 2.0**6
        assert (np.abs(found.astype(np.longdouble) - expected) <= bound * 1.001 + lost).all()


@given(cohorts(dtypes=["float32", "float64", *FLOATS[:2], *BYTE_FLOATS]))
def test_a_float_is_within_the_bound_of_the_exact_mean(updates):
    try:
        mean = mean_of(updates)
    except ArithmeticError:
        return
    for name, array in mean.items():
        for place in range(array.shape[0]):
            check_float(updates, name, array.numpy()[place], lambda values, place=place: values[place:])


def check_float(updates, name, found, part):
    exact, magnitude = exact_mean(updates, name, part)
    wide = np.float64 if found.dtype == np.float64 else np.float32
    unit = Fraction(float(np.finfo(wide).eps)) / 2
    lost = len(updates) * Fraction(float(np.finfo(wide).smallest_subnormal)) * 2**6
    slack = (len(updates) + 3) * unit * magnitude * Fraction(1001, 1000) + lost
    if found.dtype == wide:
        assert abs(Fraction(float(found)) - exact) <= slack
        return
    # Rounding to a narrower dtype is monotone: the result lies between the rounded ends.
    most = Fraction(float(ml_dtypes.finfo(found.dtype).max))
    least = Fraction(float(ml_dtypes.finfo(found.dtype).min))
    low, high = (
        np.float64(float(min(max(end, least), most))).astype(found.dtype) for end in (exact - slack, exact + slack)
    )
    assert float(low) <= float(found) <= float(high)


@given(cohorts(dtypes=SMALL_INTEGERS, weight=st.integers(1, 2**16)))
def test_a_small_integer_is_the_exact_mean_rounded_half_to_even(updates):
    for name, array in mean_of(updates).items():
        for place in range(array.shape[0]):
            exact, _ = exact_mean(updates, name, lambda values, place=place: values[place:])
            assert int(array.numpy()[place]) == round(exact)


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.lists(st.tuples(st.integers(-(2**32), 2**32), st.integers(1, 2**12)), min_size=1, max_size=6),
    st.sampled_from(["int64", "uint64"]),
)
def test_a_wide_integer_is_the_exact_mean_rounded_half_to_even(anchor, offsets, dtype):
    low, high = (-(2**63), 2**63 - 1) if dtype == "int64" else (0, 2**64 - 1)
    values = [min(max(anchor + (0 if dtype == "int64" else 2**63) + offset, low), high) for offset, _ in offsets]
    records = [ParametersRecord.from_numpy({"w": np.array([value], dtype)}) for value in values]
    shares = [weight for _, weight in offsets]
    updates = [Update(f"n{i}", w, r) for i, (w, r) in enumerate(zip(shares, records, strict=True))]
    exact = Fraction(sum(w * x for w, x in zip(shares, values, strict=True)), sum(shares))
    assert mean_of(updates)["w"].numpy().tolist() == [round(exact)]


@given(cohorts(dtypes=["bool"], weight=st.integers(1, 5)))
def test_a_bool_is_what_more_than_half_of_the_weight_is(updates):
    whole = sum(update.weight for update in updates)
    for name, array in mean_of(updates).items():
        for place in range(array.shape[0]):
            true = sum(update.weight for update in updates if update.record[name].numpy()[place])
            assert bool(array.numpy()[place]) == (2 * true > whole)


@given(
    st.lists(st.tuples(st.floats(-(2.0**100), 2.0**100, width=32), st.integers(1, 10_000)), min_size=1, max_size=40),
    st.sampled_from(["float32", "float64"]),
)
def test_the_bits_are_those_of_the_plain_formula(pairs, dtype):
    kind = np.dtype(dtype).type
    values = [kind(value if abs(value) > 1e-20 else 0.0) for value, _ in pairs]
    shares = [weight for _, weight in pairs]
    records = [ParametersRecord.from_numpy({"w": np.array([value])}) for value in values]
    acc = kind(shares[0]) * values[0]
    for weight, value in zip(shares[1:], values[1:], strict=True):
        acc = acc + kind(weight) * value
    expected = acc / kind(sum(shares)) if len(pairs) > 1 else values[0]
    updates = [Update(f"n{i:02}", w, r) for i, (w, r) in enumerate(zip(shares, records, strict=True))]
    found = mean_of(updates)["w"].numpy()
    # Products and sums are cancelled or tiny only in ways that the scale does not touch.
    assert found.dtype == np.dtype(dtype)
    assert found.tolist() == [float(expected)]


@given(cohorts(dtypes=["float32", "float64", "bfloat16", "float16"], weight=st.floats(1e-9, 1e9)))
def test_a_mean_of_finite_numbers_overflows_only_at_the_very_end(updates):
    tame = []
    for update in updates:
        named = update.record.to_numpy()
        halved = {name: (values.astype(np.float64) / 2).astype(values.dtype) for name, values in named.items()}
        tame.append(update._replace(record=ParametersRecord.from_numpy(halved)))
    for array in mean_of(tame).values():
        assert np.isfinite(array.numpy().astype(np.float64)).all()


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8), st.sampled_from(["int64", "uint64"]))
def test_a_sum_of_wide_integers_is_exact_or_refused(values, dtype):
    low, high = (-(2**63), 2**63 - 1) if dtype == "int64" else (0, 2**64 - 1)
    values = [value if dtype == "int64" else value + 2**63 for value in values]
    records = [ParametersRecord.from_numpy({"w": np.array([value], dtype)}) for value in values]
    updates = [Update(f"n{i}", 1, r) for i, r in enumerate(records)]
    if low <= sum(values) <= high:
        assert aggregate(SUM, records[0], updates)["w"].numpy().tolist() == [sum(values)]
    else:
        with pytest.raises(ArithmeticError, match=f"outside {dtype}"):
            aggregate(SUM, records[0], updates)
