"""Large buffers as files without a name: what is one, for how long, for whom, and what a full disk says."""

import copy
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from umbel.aggregation import Update, weighted_mean
from umbel.errors import StorageFull, StoreError
from umbel.optimizers import adam
from umbel.records import Array, ParametersRecord, array_from_numpy, digest, load, save, scratch

LARGE = np.arange(2**20, dtype=np.float32)
SMALL = np.arange(2**10, dtype=np.float32)


def nameless(folder):
    """Mappings of files in ``folder`` that were unlinked."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum(f"{folder}/.scratch-" in line and line.endswith("(deleted)") for line in lines)


def record(array=LARGE):
    return ParametersRecord.from_numpy({"w": array})


def test_large_buffers_are_files_and_small_ones_are_not(tmp_path):
    with scratch(tmp_path):
        held = record()
        assert nameless(tmp_path) == 1
        record(SMALL)
        assert nameless(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []
    assert nameless(tmp_path) == 1
    assert np.array_equal(held["w"].numpy(), LARGE)
    view = held["w"].numpy(copy=False)[5:9]
    del held
    assert nameless(tmp_path) == 1
    assert view.tolist() == [5, 6, 7, 8]
    del view
    assert nameless(tmp_path) == 0


def test_without_a_block_nothing_is_a_file(tmp_path):
    with scratch(tmp_path):
        pass
    held = record()
    assert nameless(tmp_path) == 0
    assert len(held) == 1


def test_a_block_holds_for_the_thread_that_enters_it(tmp_path):
    found = []

    def other():
        held = record()
        found.append(nameless(tmp_path))
        with scratch(tmp_path):
            found.append((record(), nameless(tmp_path))[1])
        del held

    with scratch(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert found == [0, 1]


def test_the_innermost_block_counts_and_an_error_ends_it(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    with scratch(tmp_path):
        with pytest.raises(KeyError), scratch(inner):
            raise KeyError
        held = [record()]
        with scratch(inner):
            held.append(record())
        held.append(record())
        assert (nameless(tmp_path), nameless(inner)) == (2, 1)


@pytest.mark.parametrize("stype", ["raw", "numpy.ndarray"])
def test_a_serialised_array_and_its_copy_are_files(tmp_path, stype):
    with scratch(tmp_path):
        array = array_from_numpy(LARGE, stype)
        twin = copy.deepcopy(array)
        assert nameless(tmp_path) == 2
    assert twin == array


def test_an_array_of_foreign_order_is_decoded_into_a_file(tmp_path):
    foreign = [LARGE.astype(">f4"), LARGE.reshape(1024, -1).T]
    with scratch(tmp_path):
        for array in foreign:
            given = ParametersRecord({"w": array_from_numpy(array)})
            before = nameless(tmp_path)
            fold = weighted_mean().reduce
            acc = fold.start(given)
            acc = fold.add(acc, [Update("a", 1, given)])
            mean = fold.finish(acc, [Update("b", 1, given)])
            assert nameless(tmp_path) == before + 1
            assert np.array_equal(mean["w"].numpy(), array)
            del mean, acc, fold, given


def test_bits_are_the_same_in_files(tmp_path):
    random = np.random.default_rng(5)
    models = [record(random.standard_normal(2**20, np.float32)) for _ in range(4)]
    updates = [Update(str(place), place + 1, model) for place, model in enumerate(models)]

    def trained():
        fold, optimizer = weighted_mean().reduce, adam()
        mean = fold.finish(fold.add(fold.start(models[0]), updates[:2]), updates[2:])
        state, following = optimizer.update(optimizer.init(models[0]), models[0], mean)
        return [digest(each) for each in (mean, following, *state.values())]

    with scratch(tmp_path):
        in_files = trained()
    assert in_files == trained()


def test_what_is_mapped_to_be_read_is_not_copied(tmp_path):
    save(record(), tmp_path / "model")
    mapped = load(tmp_path / "model").parameters_records["model"]["w"]
    assert copy.deepcopy(mapped).data is mapped.data
    for owner in (bytes(LARGE.data), memoryview(bytes(LARGE.data))):
        array = Array("float32", [2**20], "raw", owner)
        assert copy.deepcopy(array).data is array.data
    for owner in (bytearray(LARGE), LARGE.copy()):
        array = Array("float32", [2**20], "raw", owner)
        twin = copy.deepcopy(array)
        owner[0] = 7
        assert twin.numpy()[0] == 0


_FULL = """
import resource, signal, sys
import numpy as np
from umbel.errors import StorageFull
from umbel.records import ParametersRecord, scratch

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**22, 2**22))
with scratch(sys.argv[1]):
    ParametersRecord.from_numpy([np.zeros(2**20, np.float32)])
    try:
        ParametersRecord.from_numpy([np.zeros(2**21, np.float32)])
    except StorageFull as error:
        print(error)
"""


def test_a_full_disk_is_an_error_of_that_name(tmp_path):
    done = subprocess.run([sys.executable, "-c", _FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("expected room for 8388608 bytes of temporary memory, got: File too large; make room")
    assert str(tmp_path) in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_hold_a_buffer_says_so_before_a_byte_is_written():
    """The smallest file system there is: of memory, and of a size of its own."""
    folder = Path("/dev/shm")
    room = os.statvfs(folder)
    too_much = room.f_blocks * room.f_frsize + 2**30  # more than it could ever hold, so that it begins with nothing
    if room.f_blocks == 0:
        pytest.skip("its size has no limit here")
    with scratch(folder), pytest.raises(StorageFull, match="No space left on device"):
        ParametersRecord.from_numpy({"w": np.broadcast_to(np.float32(1), too_much // 4)})


@pytest.mark.parametrize("folder", ["absent", "file"])
def test_a_folder_that_is_none_is_an_error(tmp_path, folder):
    (tmp_path / "file").write_text("")
    with scratch(tmp_path / folder), pytest.raises(StoreError, match="expected room for 4194304 bytes") as caught:
        record()
    assert not isinstance(caught.value, StorageFull)
    assert caught.value.__cause__.errno in (errno.ENOENT, errno.ENOTDIR)


def test_descriptors_are_given_back(tmp_path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    with scratch(tmp_path):
        for _ in range(20):
            record()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
