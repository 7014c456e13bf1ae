"""How often payloads are copied: bytes that are allocated at the peak, beside what is there already."""

import copy
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from umbel.records import Arena, ParametersRecord, array_from_numpy, digest, dumps, load, loads, save

KIB = 1024
MIB = 1024 * KIB
COUNT, EACH = 16, MIB
WHOLE = COUNT * EACH
# Headers, names, and what Python allocates beside.
LITTLE = 64 * KIB


@pytest.fixture
def arrays():
    return {f"layer.{place}": np.full(EACH // 4, place, np.float32) for place in range(COUNT)}


def peak(action):
    """Bytes at the peak of a second call, the first of which fills caches."""
    action()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = action()
        return tracemalloc.get_traced_memory()[1] - before, result
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("stype", ["numpy.ndarray", "raw"])
@pytest.mark.parametrize(
    "layout", [lambda a: a, lambda a: a.reshape(512, -1).T, lambda a: a[::2], lambda a: a.astype(">f4")]
)
def test_serialising_an_array_copies_it_once(stype, layout):
    array = layout(np.arange(EACH, dtype=np.float32))
    used, result = peak(lambda: array_from_numpy(array, stype))
    assert array.nbytes <= used <= array.nbytes + 4 * KIB
    assert len(result.data) - array.nbytes in (0, 128)


@pytest.mark.parametrize("stype", ["numpy.ndarray", "raw"])
def test_reading_an_array_copies_it_once_or_never(stype):
    array = array_from_numpy(np.arange(EACH, dtype=np.float32), stype)
    assert peak(array.numpy)[0] <= 4 * EACH + 4 * KIB
    assert peak(lambda: array.numpy(copy=False))[0] <= 4 * KIB
    assert peak(lambda: np.asarray(array))[0] <= 4 * KIB


def test_a_whole_model_is_one_copy(arrays):
    used, record = peak(lambda: ParametersRecord.from_numpy(arrays))
    assert WHOLE <= used <= WHOLE + LITTLE
    assert peak(lambda: record.to_numpy(copy=False))[0] <= LITTLE
    assert WHOLE <= peak(record.to_numpy)[0] <= WHOLE + LITTLE


def test_an_arena_that_is_used_again_and_views_are_none(arrays):
    arena = Arena()
    assert peak(lambda: ParametersRecord.from_numpy(arrays, arena=arena))[0] <= LITTLE
    assert peak(lambda: ParametersRecord.from_numpy(arrays, copy=False))[0] <= LITTLE


def test_records_of_arrays_are_none(arrays):
    record = ParametersRecord.from_numpy(arrays)
    assert peak(lambda: ParametersRecord(dict(record), keep_input=True))[0] <= LITTLE
    assert peak(lambda: ParametersRecord(dict(record)))[0] <= LITTLE
    assert peak(lambda: copy.copy(record))[0] <= LITTLE
    assert peak(lambda: copy.deepcopy(record))[0] <= WHOLE + LITTLE


def test_dumps_makes_the_header_alone(arrays):
    record = ParametersRecord.from_numpy(arrays)
    used, segments = peak(lambda: dumps(record))
    assert used <= LITTLE
    assert sum(map(len, segments)) > WHOLE


def test_loads_makes_no_payload(arrays):
    container = b"".join(dumps(ParametersRecord.from_numpy(arrays)))
    assert peak(lambda: loads(container))[0] <= LITTLE


def test_digest_and_save_make_no_joined_copy(arrays, tmp_path):
    record = ParametersRecord.from_numpy(arrays)
    assert peak(lambda: digest(record))[0] <= LITTLE
    assert peak(lambda: save(record, tmp_path / "model"))[0] <= LITTLE


def test_small_arrays_are_gathered_a_little_at_a_time(tmp_path):
    record = ParametersRecord.from_numpy([np.zeros(4 * KIB, np.uint8)] * 4 * KIB)
    header = len(dumps(record)[0])
    for action in (lambda: digest(record), lambda: save(record, tmp_path / "model")):
        assert peak(action)[0] <= 8 * MIB + 8 * header


def test_load_makes_no_payload(arrays, tmp_path):
    save(ParametersRecord.from_numpy(arrays), tmp_path / "model")
    used, records = peak(lambda: load(tmp_path / "model"))
    assert used <= LITTLE
    total, _ = peak(
        lambda: sum(float(a.sum()) for a in records.parameters_records["model"].to_numpy(copy=False).values())
    )
    assert total <= LITTLE


def test_comparing_makes_no_copy(arrays):
    left, right = ParametersRecord.from_numpy(arrays), ParametersRecord.from_numpy(arrays)
    # NumPy compares into an array of bools: one of an array at a time, not of a model.
    assert peak(lambda: left == right)[0] <= EACH + LITTLE


EMPTIED = """
import numpy as np
from umbel.records import ParametersRecord

def resident(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) * 1024

ParametersRecord.from_numpy([np.zeros(1)])
before = resident("VmRSS")
arrays = {str(place): np.ones(2**20) for place in range(24)}
record = ParametersRecord.from_numpy(arrays, keep_input=False)
print((resident("VmHWM") - before) / 2**20)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not show memory in /proc")
def test_a_dict_that_is_emptied_is_never_in_memory_twice():
    done = subprocess.run([sys.executable, "-c", EMPTIED], capture_output=True, text=True, check=True, timeout=120)
    # 24 arrays of 8 MiB: one record and one array, and what the interpreter takes for itself.
    assert 24 * 8 <= float(done.stdout) <= 24 * 8 + 8 + 6
