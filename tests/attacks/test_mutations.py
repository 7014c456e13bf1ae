"""Any change of a small container or payload ends in a value of exactly the changed bytes, or in a named error."""

import numpy as np
import pytest

from forge import legible
from solid_records import composed, forget
from umbel.errors import RecordError, Truncated
from umbel.records import (
    Array,
    ConfigsRecord,
    MetricsRecord,
    ParametersRecord,
    RecordSet,
    array_from_numpy,
    dumps,
    loads,
)

NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)
CONTAINERS = {
    "empty": RecordSet(),
    "model": ParametersRecord.from_numpy({"w": NUMBERS, "b": np.ones(2), "n": np.int8([1])}),
    "two": RecordSet(
        {
            "a/b": ParametersRecord({"w": array_from_numpy(NUMBERS), "own": Array("float32", [2], "x", b"abc")}),
            "%": ParametersRecord.from_numpy({"w": np.zeros((0, 2)), "\u00e9": np.ones(1, complex)}),
        }
    ),
    "values": RecordSet(
        None,
        {"m": MetricsRecord({"a": float("nan"), "b": [1, -2], "c": [-0.0, 1e300], "d": 2**64 - 1})},
        {"c": ConfigsRecord({"t": True, "s": '"\\\n\u00e9', "b": b"\0\xff", "l": [], "m": ["", "x"]})},
    ),
}
CONTAINERS = {name: b"".join(dumps(records)) for name, records in CONTAINERS.items()}
PAYLOADS = {
    "c": NUMBERS,
    "fortran": np.asfortranarray(NUMBERS),
    "swapped": NUMBERS.astype(">f4"),
    "scalar": np.array(True),
    "empty": np.zeros((0, 3)),
}
containers = pytest.mark.parametrize("data", CONTAINERS.values(), ids=CONTAINERS)
payloads = pytest.mark.parametrize("array", PAYLOADS.values(), ids=PAYLOADS)


def hold(data):
    """Check the promise for one container; say whether it was accepted.

    A header that was read is written as it was read. So it is composed too, and so are the headers that it is read by.
    """
    try:
        records = loads(data)
    except RecordError as error:
        legible(error)
        return False
    assert b"".join(dumps(records)) == composed(records) == composed(loads(data)) == data
    return True


def hold_payload(array, data):
    try:
        found = Array(array.dtype, array.shape, array.stype, data).numpy()
    except RecordError as error:
        legible(error)
        return
    assert list(found.shape) == array.shape
    assert bytes(data[-found.nbytes :]) == found.tobytes("A") or not found.nbytes


def flipped(data, masks):
    for place in range(len(data)):
        for mask in masks:
            changed = bytearray(data)
            changed[place] ^= mask
            yield bytes(changed)


def inserted(data, bytes_):
    for place in range(len(data) + 1):
        for byte in bytes_:
            yield data[:place] + bytes([byte]) + data[place:]


def removed(data):
    for place in range(len(data)):
        yield data[:place] + data[place + 1 :]


def swapped(data):
    for place in range(len(data) - 1):
        if data[place] != data[place + 1]:
            yield data[:place] + data[place + 1 : place + 2] + data[place : place + 1] + data[place + 2 :]


@containers
def test_a01_container_cut_at_every_byte(data):
    for length in range(len(data)):
        with pytest.raises(Truncated):
            loads(data[:length])


@containers
def test_any_bit_flipped(data):
    for changed in flipped(data, [1 << bit for bit in range(8)]):
        hold(changed)


@containers
def test_any_change_after_the_right_container_was_read(data):
    """What is remembered of one header says nothing of another one, and nothing of the payloads that are there."""
    changes = [
        *flipped(data, [1, 4, 16]),
        *removed(data),
        *swapped(data),
        *inserted(data, b"\0 "),
        data + data,
        data[8:],
    ]
    for changed in changes:
        forget()
        expected = judged(changed)
        loads(data)
        assert judged(changed) == expected


def judged(data):
    try:
        return composed(loads(data))
    except RecordError as error:
        return type(error), str(error)


@containers
def test_any_byte_removed_or_swapped(data):
    """The length of the header is fixed, so that nothing but its own digits can make up for a byte."""
    assert not any(hold(changed) for changed in removed(data))
    for changed in swapped(data):
        hold(changed)


@containers
def test_any_byte_inserted(data):
    assert not any(hold(changed) for changed in inserted(data, b'\0 "1\xff'))


def reframed(text, payload):
    padded = text + b" " * (-(8 + len(text)) % 64)
    return len(padded).to_bytes(8, "little") + padded + payload


@containers
def test_any_byte_of_the_header_removed_and_the_length_mended(data):
    """Without the guard of the length, nothing but a byte inside a name or a value of META may go unnoticed."""
    length = int.from_bytes(data[:8], "little")
    header, payload = data[8 : 8 + length].rstrip(b" "), data[8 + length :]
    for changes in (removed(header), inserted(header, b' "0,\\]a\xff'), swapped(header), flipped(header, [1, 4, 16])):
        for changed in changes:
            hold(reframed(changed, payload))


@containers
@pytest.mark.slow
def test_any_byte_of_a_container_made_any_other(data):
    for changed in flipped(data, range(1, 256)):
        hold(changed)
    for changed in inserted(data, range(256)):
        assert not hold(changed)


@payloads
@pytest.mark.parametrize("stype", ["raw", "numpy.ndarray"])
def test_any_byte_of_a_payload_flipped_removed_or_inserted(array, stype):
    whole = array_from_numpy(array, stype)
    data = bytes(whole.data)
    for changes in (flipped(data, [1, 2, 8, 16, 128]), removed(data), inserted(data, b"\0 1,\xff"), swapped(data)):
        for changed in changes:
            hold_payload(whole, changed)


@payloads
@pytest.mark.slow
def test_any_byte_of_an_npy_payload_made_any_other(array):
    whole = array_from_numpy(array)
    for changed in flipped(bytes(whole.data), range(1, 256)):
        hold_payload(whole, changed)
