"""What is known of a record that was read, or of one like it, shows nowhere: same bytes, sums, verdicts and errors."""

from contextlib import suppress

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

import record_strategies as some
from solid_records import (
    FLOATS,
    NATIVES,
    composed,
    content,
    elements,
    forget,
    joined,
    models,
    plain,
    record_like,
    solid,
)
from umbel.aggregation import Update, total, weighted_mean
from umbel.errors import UmbelError
from umbel.gate import Gate
from umbel.records import Array, ParametersRecord, RecordSet, digest, loads
from umbel.records._parameters import solid_of

seeds = st.integers(0, 2**32)
bits = elements


def finite(kind, size, rng):
    """Elements of all magnitudes, none of them NaN or infinite."""
    drawn = bits(kind, size, rng)
    if kind not in FLOATS:
        return drawn
    with np.errstate(all="ignore"):
        return np.where(np.isfinite(drawn), drawn, np.ones(size, kind)).astype(kind)


# Containers.


@settings(max_examples=150)
@given(some.record_sets)
@example(RecordSet({"": ParametersRecord()}))
@example(RecordSet({"r": ParametersRecord({"__metadata__": Array("int8", [], "raw", b"x")})}))
@example(RecordSet({"r": ParametersRecord({"a": Array("int4", [1], "raw", b"x")})}))
@example(RecordSet({"r": ParametersRecord({"a": Array("float32", [0], "raw", b"")})}))
def test_a_record_set_is_written_and_read_as_if_none_had_been_before(records):
    data = composed(records)
    forget()
    first, again = loads(data), loads(data)
    for read in (
        first,
        again,
        RecordSet(
            {name: plain(record) for name, record in first.parameters_records.items()},
            first.metrics_records,
            first.configs_records,
        ),
    ):
        assert joined(read) == composed(read) == data
    assert joined(records) == data
    assert first.parameters_records == again.parameters_records == records.parameters_records
    for name, record in records.parameters_records.items():
        assert content(again.parameters_records[name]) == content(first.parameters_records[name]) == content(record)


@settings(max_examples=150)
@given(models(), seeds, st.sampled_from(["model", "", "a/b", "__metadata__"]), st.booleans())
def test_a_model_made_like_one_that_was_read_is_the_same_model(model, seed, name, big):
    forget()
    rng = np.random.default_rng(seed)
    cold = record_like(model, rng)
    arrays = {key: array.numpy() for key, array in cold.items()}
    if big:
        arrays = {key: array.astype(array.dtype.newbyteorder(">")) for key, array in arrays.items()}
    expected, data = content(cold), composed(RecordSet({name: cold}))
    loads(data)
    warm, views = ParametersRecord.from_numpy(arrays), ParametersRecord.from_numpy(arrays, copy=False)
    for made in (warm, views, plain(warm)):
        assert content(made) == expected
        assert joined(RecordSet({name: made})) == data
        assert joined(RecordSet({name + "x": made})) == composed(RecordSet({name + "x": made}))
        assert digest(RecordSet({name: made})) == digest(RecordSet({name: cold}))
    for array in warm.values():
        assert np.frombuffer(array.data, np.uint8).ctypes.data % np.dtype(array.dtype).alignment == 0


@settings(max_examples=150)
@given(
    models(most=3, largest=3),
    seeds,
    st.integers(0, 10**6),
    st.sampled_from(["flip", "remove", "insert", "cut"]),
    st.integers(0, 255),
)
def test_a_container_beside_one_that_was_read_is_judged_as_before(model, seed, place, change, byte):
    data = composed(RecordSet({"model": record_like(model, np.random.default_rng(seed))}))
    place %= len(data)
    changed = {
        "flip": data[:place] + bytes([byte]) + data[place + 1 :],
        "remove": data[:place] + data[place + 1 :],
        "insert": data[:place] + bytes([byte]) + data[place:],
        "cut": data[:place],
    }[change]
    forget()
    cold = outcome(lambda: loads(changed))
    forget()
    loads(data)
    warm = outcome(lambda: loads(changed))
    assert warm == cold
    if not isinstance(cold, tuple):
        assert joined(warm) == composed(warm) == composed(cold) == changed


def outcome(act):
    """Return what comes of it, or the error as type and text."""
    try:
        return act()
    except UmbelError as error:
        return type(error), str(error)


@settings(max_examples=150)
@given(models(), seeds, st.data())
def test_what_is_changed_after_reading_is_what_is_written(model, seed, chooser):
    rng = np.random.default_rng(seed)
    read = solid(record_like(model, rng))
    expected = dict(read.items())
    for _ in range(chooser.draw(st.integers(1, 3))):
        _change(read, expected, chooser, rng)
    assert list(read.items()) == list(expected.items())
    assert solid_of(read) is None or content(read) == content(solid_of(read).layout.over(solid_of(read).data))
    assert outcome(lambda: joined(read)) == outcome(lambda: composed(RecordSet({"model": read})))


def _change(record, expected, chooser, rng):
    """Change a record, and a dict in the same way."""
    name = chooser.draw(st.sampled_from([*record, "new"]))
    how = chooser.draw(st.sampled_from([*CHANGES, "shape"]))
    if how != "shape":
        array = Array("int8", [2], "raw", rng.bytes(2))
        for each in (record, expected):
            with suppress(KeyError):
                CHANGES[how](each, name, array)
    elif name in record and record[name].shape:
        record[name].shape[0] += 1


def _moved(mapping, name):
    mapping[name] = mapping.pop(name)


CHANGES = {
    "set": lambda mapping, name, array: mapping.__setitem__(name, array),
    "set again": lambda mapping, name, array: mapping.__setitem__(name, mapping[name]),
    "delete": lambda mapping, name, array: mapping.__delitem__(name),
    "update": lambda mapping, name, array: mapping.update({name: array}),
    "pop": lambda mapping, name, array: mapping.pop(name),
    "move": lambda mapping, name, array: _moved(mapping, name),
    "setdefault": lambda mapping, name, array: mapping.setdefault(name, array),
    "clear": lambda mapping, name, array: mapping.clear(),
}


# Sums.


@st.composite
def cohorts(draw, dtypes=NATIVES, make=bits, **bounds):
    """A model and updates of it that are not solid."""
    model = draw(models(dtypes, **bounds))
    rng = np.random.default_rng(draw(seeds))
    count = draw(st.integers(1, 5))
    weights = draw(st.lists(st.one_of(st.integers(0, 3), st.floats(1e-3, 1e6)), min_size=count, max_size=count))
    records = [plain(record_like(model, rng, make)) for _ in range(count)]
    return [Update(f"n{at}", weight, record) for at, (weight, record) in enumerate(zip(weights, records, strict=True))]


def in_batches(fold, template, updates, cuts):
    ends = [*sorted({cut % (len(updates) + 1) for cut in cuts}), len(updates)]
    acc = fold.start(template)
    for start, end in zip([0, *ends[:-1]], ends[:-1], strict=False):
        acc = fold.add(acc, updates[start:end])
    return fold.finish(acc, updates[ends[-2] if len(ends) > 1 else 0 :])


def sums(fold, template, updates, cuts):
    """Return the bits of a result, or what is wrong. What a NaN looks like is nobody's business."""
    try:
        record = in_batches(fold, template, updates, cuts)
    except UmbelError as error:
        return type(error), error.code, str(error)
    return [
        (name, array.dtype, array.shape, array.stype, _without_nan(array.numpy())) for name, array in record.items()
    ]


def _without_nan(array):
    if array.dtype not in FLOATS:
        return array.tobytes()
    parts = np.ascontiguousarray(array).reshape(-1).view(array.real.dtype if array.dtype.kind == "c" else array.dtype)
    return np.where(np.isnan(parts), np.zeros(parts.size, parts.dtype), parts).tobytes(), np.isnan(parts).tobytes()


def check_sums(fold, updates, which, cuts):
    """Hold sums of updates that are solid where ``which`` says so against those of updates of which none is."""
    mixed = [u._replace(record=solid(u.record)) if which >> at & 1 else u for at, u in enumerate(updates)]
    expected = sums(fold, updates[0].record, updates, cuts)
    for template in (updates[0].record, solid(updates[0].record)):
        assert sums(fold, template, mixed, cuts) == expected


cut = st.lists(st.integers(0, 100), max_size=4)
some_of_them = st.one_of(st.just(2**5 - 1), st.integers(0, 2**5 - 1))


@settings(max_examples=150)
@given(cohorts(make=finite), some_of_them, cut)
def test_the_mean_is_the_same_to_the_bit(updates, which, cuts):
    check_sums(weighted_mean().reduce, updates, which, cuts)


@settings(max_examples=150)
@given(cohorts(), some_of_them, cut)
def test_so_is_what_is_wrong_with_a_mean(updates, which, cuts):
    check_sums(weighted_mean().reduce, updates, which, cuts)


@settings(max_examples=150)
@given(cohorts(), some_of_them, cut)
def test_so_is_a_mean_that_may_have_elements_that_are_not_finite(updates, which, cuts):
    check_sums(weighted_mean(finite=False).reduce, updates, which, cuts)


@settings(max_examples=150)
@given(cohorts([kind for kind in NATIVES if kind.kind != "b"]), some_of_them, cut, st.booleans())
def test_so_are_sums_and_what_is_wrong_with_them(updates, which, cuts, finite):
    check_sums(total(finite=finite).reduce, updates, which, cuts)


@settings(max_examples=100)
@given(
    cohorts([kind for kind in NATIVES if kind.kind in "iu"], make=lambda kind, size, rng: finite(kind, size, rng) // 4),
    some_of_them,
    cut,
)
def test_so_are_sums_of_integers_in_their_range(updates, which, cuts):
    check_sums(total().reduce, updates, which, cuts)


# Verdicts.


@settings(max_examples=150)
@given(cohorts(most=4), st.booleans(), st.sampled_from([None, 1.0, 1e30]), st.integers(0, 3))
def test_verdicts_are_the_same(updates, finite, bound, bad):
    gate = Gate(finite=finite, max_norm=bound)
    for update in updates[1:]:
        record = _with_bools(update.record, bad)
        expected = verdict(gate, updates[0].record, update._replace(record=record))
        for template in (updates[0].record, solid(updates[0].record)):
            assert verdict(gate, template, update._replace(record=solid(record))) == expected
            assert verdict(gate, template, update._replace(record=record)) == expected


def _with_bools(record, byte):
    """Return a record whose first bool, if it has one, is a byte of any value."""
    twin = plain(record)
    for name, array in record.items():
        if array.dtype == "bool" and len(array.data):
            twin[name] = Array("bool", array.shape, "raw", bytes([byte]) + bytes(array.data[1:]))
            break
    return twin


def verdict(gate, template, update):
    """Return a verdict, or why there is none and where."""
    try:
        return gate.check(template, update)
    except UmbelError as error:
        return type(error), error.code, str(error), error.at
