"""Buffers on loan: used again when nobody can see them any more, and not before."""

import copy
import gc
import pickle

import numpy as np
import pytest

from umbel.aggregation import Update, weighted_mean
from umbel.aggregation._memory import Memory
from umbel.records import ParametersRecord, scratch

LARGE = [(np.dtype(np.float32), 2**20 + 1), (np.dtype(np.int8), 3)]


def address(arrays):
    return arrays[0].ctypes.data


def test_a_buffer_that_is_let_go_of_is_used_again():
    memory = Memory()
    arrays = memory.allocate(LARGE)
    before = address(arrays)
    del arrays
    assert address(memory.allocate(LARGE)) == before


@pytest.mark.parametrize(
    "hold",
    [
        lambda arrays: arrays[1],
        lambda arrays: arrays[0][5:7].reshape(2, 1).T,
        lambda arrays: arrays[0].view(np.uint8).data,
        lambda arrays: memoryview(arrays[0]).cast("B")[3:4].toreadonly(),
        lambda arrays: np.frombuffer(arrays[0].data, np.int16),
        lambda arrays: ParametersRecord.from_numpy({"w": arrays[0][:4]}, copy=False),
    ],
    ids=["array", "view", "buffer", "slice", "frombuffer", "record"],
)
def test_whoever_holds_any_part_holds_the_buffer(hold):
    memory = Memory()
    arrays = memory.allocate(LARGE)
    before, held = address(arrays), hold(arrays)
    del arrays
    gc.collect()
    assert address(memory.allocate(LARGE)) != before
    del held
    gc.collect()
    assert address(memory.allocate(LARGE)) == before


def test_one_buffer_is_kept_and_only_for_its_size():
    memory = Memory()
    first, second = memory.allocate(LARGE), memory.allocate(LARGE)
    kept = address(second)
    del first, second
    assert [len(buffer) for _, buffer in memory._spare] == [2**22 + 64 + 64]
    arrays = memory.allocate(LARGE)
    assert address(arrays) == kept
    del arrays
    memory.allocate([(np.dtype(np.int8), 2**23)])
    assert [len(buffer) for _, buffer in memory._spare] == [2**23]


def test_a_file_serves_its_folder_alone(tmp_path):
    memory = Memory()
    anonymous = address(memory.allocate(LARGE))
    with scratch(tmp_path):
        arrays = memory.allocate(LARGE)
        mapped = address(arrays)
        assert mapped != anonymous
        del arrays
        assert address(memory.allocate(LARGE)) == mapped
        (tmp_path / "other").mkdir()
        with scratch(tmp_path / "other"):
            arrays = memory.allocate(LARGE)
            assert [folder for folder, _ in memory._spare] == []
        del arrays
    assert [folder for folder, _ in memory._spare] == [str(tmp_path / "other")]
    memory.allocate(LARGE)
    assert [folder for folder, _ in memory._spare] == [None]


def test_small_ones_are_not_kept():
    memory = Memory()
    memory.allocate([(np.dtype(np.int8), 1000)])
    assert memory._spare == []


def test_starts_at_multiples_of_64():
    for arrays in (Memory().allocate([(np.dtype(np.int8), 3)] * 9), Memory().allocate(LARGE)):
        assert {array.ctypes.data % 64 for array in arrays} == {0}
        assert all(array.flags.writeable for array in arrays)


def test_copies_begin_empty():
    memory = Memory()
    memory.allocate(LARGE)
    assert memory._spare
    for twin in (copy.deepcopy(memory), copy.copy(memory), pickle.loads(pickle.dumps(memory))):
        assert twin._spare == []


def test_results_that_live_on_are_not_overwritten():
    fold = weighted_mean().reduce
    models = [ParametersRecord.from_numpy({"w": np.full(2**21, value, np.float32)}) for value in range(6)]
    results = [fold.finish(fold.start(model), [Update("a", 1, model)]) for model in models]
    kept = results[2]["w"].numpy(copy=False)[7:8]
    del results[1:4]
    results += [fold.finish(fold.start(models[5]), [Update("a", 1, models[5])]) for _ in range(4)]
    assert kept == 2
    assert [result["w"].numpy()[-1] for result in results] == [0, 4, 5, 5, 5, 5, 5]
