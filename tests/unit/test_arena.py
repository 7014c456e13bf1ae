"""Memory of a dead model serves the next, and never one that somebody still looks at."""

import numpy as np
import pytest

from umbel.records import Arena, ParametersRecord, _arena

SIZE = 2**21  # elements of float32: 8 MiB, which is kept


def model(value):
    return {"w": np.full(SIZE, value, np.float32)}


def address(array):
    return array.__array_interface__["data"][0]


@pytest.fixture(autouse=True)
def nothing_kept():
    _arena._kept.clear()
    yield
    _arena._kept.clear()


def test_the_memory_of_a_dead_record_serves_the_next():
    first = ParametersRecord.from_numpy(model(1))
    place = address(first.to_numpy(copy=False)["w"])
    del first
    second = ParametersRecord.from_numpy(model(2))
    assert address(second.to_numpy(copy=False)["w"]) == place


@pytest.mark.parametrize(
    "look",
    [
        lambda record: record["w"],
        lambda record: record["w"].data[8:24],
        lambda record: memoryview(record["w"].data)[8:24],
        lambda record: record["w"].numpy(copy=False),
        lambda record: record["w"].numpy(copy=False)[2:][1:].reshape(-1, 1)[::2],
        lambda record: record.to_numpy(copy=False),
        lambda record: np.asarray(record["w"])[3:],
        lambda record: np.frombuffer(record["w"].data, np.uint8)[4:][4:],
        lambda record: record.copy(),
    ],
    ids=["array", "data", "memoryview", "view", "view of views", "model", "asarray", "frombuffer", "copy"],
)
def test_memory_that_is_looked_at_is_not_used_again(look):
    record = ParametersRecord.from_numpy(model(1))
    held = look(record)
    del record
    others = [ParametersRecord.from_numpy(model(value)) for value in (2, 3)]
    found = held["w"] if isinstance(held, dict | ParametersRecord) else held
    values = np.asarray(found.numpy() if hasattr(found, "numpy") else found)
    ones = values.reshape(-1).view(np.uint8).view(np.float32) if values.dtype != np.float32 else values
    assert (ones == 1).all()
    assert [other["w"].numpy()[0] for other in others] == [2, 3]


def test_an_arena_that_is_outgrown_leaves_its_records_alone():
    arena = Arena()
    small = ParametersRecord.from_numpy(model(1), arena=arena)
    large = ParametersRecord.from_numpy({"w": np.full(2 * SIZE, 2, np.float32)}, arena=arena)
    again = ParametersRecord.from_numpy(model(3))
    assert small["w"].numpy()[0] == 1
    assert large["w"].numpy()[0] == 2
    assert again["w"].numpy()[0] == 3


def test_one_model_is_kept_and_none_that_is_large():
    records = [ParametersRecord.from_numpy(model(value)) for value in range(3)]
    huge = ParametersRecord.from_numpy({"w": np.empty(2**26, np.uint8)})
    records.clear()
    assert len(_arena._kept) == 1
    _arena._kept.clear()
    del huge
    assert not _arena._kept


def test_memory_far_larger_than_needed_is_let_go():
    record = ParametersRecord.from_numpy({"w": np.zeros(4 * SIZE, np.float32)})
    del record
    ParametersRecord.from_numpy(model(1))
    assert not any(len(memory) > 8 * SIZE for memory in _arena._kept)
