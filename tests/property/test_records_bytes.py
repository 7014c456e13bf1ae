"""Every record set has one container, and no other bytes are one."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import record_strategies as some
from solid_records import composed, joined
from umbel.errors import RecordError
from umbel.records import (
    Array,
    ConfigsRecord,
    MetricsRecord,
    ParametersRecord,
    RecordSet,
    array_from_numpy,
    digest,
    loads,
)

KINDS = ("parameters_records", "metrics_records", "configs_records")


def items(records):
    """Return all of a record set as nested lists, in order, with floats by their digits (NaN is equal to nothing)."""
    return [
        [
            (name, [(key, _plain(value)) for key, value in record.items()])
            for name, record in getattr(records, kind).items()
        ]
        for kind in KINDS
    ]


def _plain(value):
    if isinstance(value, Array):
        return value.dtype, value.shape, value.stype, bytes(value.data)
    return repr(value)


def rebuilt(records):
    """Return the same values in new objects: copied payloads, records filled one entry after the other."""
    twin = RecordSet()
    for kind, make in zip(KINDS, (ParametersRecord, MetricsRecord, ConfigsRecord), strict=True):
        for name, record in getattr(records, kind).items():
            fresh = make()
            for key, value in record.items():
                fresh[key] = _copied(value)
            getattr(twin, kind)[name] = fresh
    return twin


def _copied(value):
    if isinstance(value, Array):
        return Array(value.dtype, value.shape, value.stype, bytearray(value.data))
    return list(value) if isinstance(value, list) else value


def check_roundtrip(records):
    data = joined(records)
    again = loads(data)
    assert items(again) == items(records)
    assert joined(again) == composed(again) == data
    assert joined(rebuilt(records)) == data
    assert digest(again) == digest(records)


def check_payload(array, stype):
    kept = array_from_numpy(array, stype)
    found = kept.numpy()
    view = kept.numpy(copy=False)
    assert found.shape == view.shape == array.shape
    assert found.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
    little = array.astype(array.dtype.newbyteorder("<"), order="C")
    for one in (found, view):
        assert one.astype(one.dtype.newbyteorder("<"), order="C").tobytes() == little.tobytes()
    assert not view.flags.writeable
    assert stype != "raw" or bytes(kept.data) == little.tobytes()


def check_order(records, chooser):
    """Put every mapping of a record set in another order: equal as a mapping, not as bytes, unless nothing moved."""
    moved = RecordSet(*(dict(chooser.draw(st.permutations(list(getattr(records, kind).items())))) for kind in KINDS))
    assert (joined(moved) == joined(records)) == (items(moved) == items(records))


def check_one_change(data, place, change, byte):
    """Change one byte of a container: the value is that of exactly these bytes, or there is none."""
    place %= len(data)
    rest = {"flip": data[place + 1 :], "remove": data[place + 1 :], "insert": data[place:]}[change]
    middle = b"" if change == "remove" else bytes([byte])
    changed = data[:place] + middle + rest
    assume(changed != data)
    try:
        records = loads(changed)
    except RecordError:
        return
    assert joined(records) == composed(records) == changed


changes = (st.integers(0, 10**6), st.sampled_from(["flip", "remove", "insert"]), st.integers(0, 255))


@settings(max_examples=150)
@given(some.record_sets)
@example(RecordSet({"": ParametersRecord({"__metadata__": Array("int8", [], "raw", b"x")})}))
@example(
    RecordSet(
        {"a/b": ParametersRecord({"c": Array("", [], "", b"")}), "a": ParametersRecord({"b/c": Array("", [], "", b"")})}
    )
)
def test_a_record_set_comes_back_as_it_was(records):
    check_roundtrip(records)


@settings(max_examples=150)
@given(some.ndarrays())
def test_a_raw_payload_comes_back_as_it_was(array):
    check_payload(array, "raw")


@settings(max_examples=150)
@given(some.ndarrays(some.NUMPY_DTYPES))
def test_an_npy_payload_comes_back_as_it_was(array):
    check_payload(array, "numpy.ndarray")


@settings(max_examples=60)
@given(st.dictionaries(some.names, some.ndarrays(), max_size=5), st.booleans())
def test_a_model_comes_back_as_it_was(model, copy):
    record = ParametersRecord.from_numpy(model, copy=copy)
    again = loads(joined(record)).parameters_records["model"]
    assert list(again) == list(model)
    assert again == record == ParametersRecord({name: array_from_numpy(array, "raw") for name, array in model.items()})
    for name, array in again.to_numpy(copy=False).items():
        assert np.array_equal(array.view(np.uint8) if array.ndim else array.tobytes(), _bits(model[name], array))


def _bits(given, found):
    little = given.astype(found.dtype, order="C")
    return little.view(np.uint8) if found.ndim else little.tobytes()


@settings(max_examples=80)
@given(some.record_sets, st.data())
def test_order_is_part_of_the_bytes(records, chooser):
    check_order(records, chooser)


@settings(max_examples=300)
@given(some.record_sets, *changes)
def test_one_changed_byte_of_a_container_is_never_another_error(records, place, change, byte):
    check_one_change(joined(records), place, change, byte)


@settings(max_examples=150)
@given(some.ndarrays(some.NUMPY_DTYPES), *changes)
def test_one_changed_byte_of_an_npy_payload_is_never_another_error(array, place, change, byte):
    check_payload_change(array, place, change, byte)


def check_payload_change(array, place, change, byte):
    kept = array_from_numpy(array)
    data = bytearray(kept.data)
    place %= len(data)
    data[place : place + (change != "insert")] = b"" if change == "remove" else bytes([byte])
    try:
        found = Array(kept.dtype, kept.shape, kept.stype, data).numpy()
    except RecordError:
        return
    assert found.shape == array.shape
    assert found.dtype.itemsize == array.dtype.itemsize
    assert found.tobytes("A") == bytes(data[len(data) - found.nbytes :])


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_no_container_or_exactly_one(data):
    try:
        records = loads(data)
    except RecordError:
        return
    assert joined(records) == composed(records) == data


MANY = settings(max_examples=10_000)


@pytest.mark.slow
@MANY
@given(some.small_record_sets)
def test_10000_record_sets_come_back(records):
    check_roundtrip(records)


@pytest.mark.slow
@MANY
@given(some.small_record_sets, *changes)
def test_10000_changes_of_containers(records, place, change, byte):
    check_one_change(joined(records), place, change, byte)


@pytest.mark.slow
@MANY
@given(some.ndarrays(some.NUMPY_DTYPES), *changes)
def test_10000_changes_of_npy_payloads(array, place, change, byte):
    check_payload_change(array, place, change, byte)


@pytest.mark.slow
@MANY
@given(some.ndarrays())
def test_10000_payloads_come_back(array):
    check_payload(array, "raw")
