"""save and load: whole files under their names, read by mapping."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from umbel.errors import BadName, DigestMismatch, RecordError, RecordTypeError, Truncated
from umbel.records import ConfigsRecord, ParametersRecord, RecordSet, digest, dumps, load, save
from umbel.records._gather import gather, gathered


def model(value=1.0, count=3):
    return ParametersRecord.from_numpy({f"layer.{place}": np.full((place % 7 + 1, 5), value) for place in range(count)})


def names(folder):
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def test_the_file_is_the_container(path):
    save(model(), path)
    assert path.read_bytes() == b"".join(dumps(model()))


def test_comes_back(path):
    records = RecordSet({"a": model(), "b": model(2.0)}, configs_records={"c": ConfigsRecord({"round": 3})})
    save(records, path)
    assert load(path) == records
    assert load(str(path)) == records


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 3000])
def test_of_any_number_of_arrays(path, count):
    save(model(count=count), path)
    assert load(path).parameters_records["model"] == model(count=count)


def test_of_arrays_below_and_above_what_is_gathered(path):
    record = ParametersRecord.from_numpy(
        [np.arange(size, dtype=np.uint8) for size in (0, 1, 65_535, 65_536, 3, 2**20, 0, 5)]
    )
    save(record, path)
    assert load(path).parameters_records["model"] == record


@pytest.mark.parametrize("sizes", [[], [0], [5, 0, 7], [65_536, 3, 65_535], [3] * 1000, [2**20] * 8 + [5], [2**20] * 9])
def test_pieces_to_go_over_twice_are_the_same_bytes(sizes):
    segments = [bytes([place % 256]) * size for place, size in enumerate(sizes)]
    pieces = gathered(segments)
    assert b"".join(pieces) == b"".join(gather(segments)) == b"".join(segments)
    assert list(pieces) == list(pieces)
    assert (pieces is segments) == (sum(sizes) > 2**23)
    assert len(pieces) <= max(1, len(segments))


def test_all_is_written_although_the_kernel_takes_little_at_a_time(path, monkeypatch):
    real = os.writev

    def some(descriptor, buffers):
        return real(descriptor, [memoryview(buffers[0])[:1000]])

    monkeypatch.setattr(os, "writev", some)
    record = ParametersRecord.from_numpy([np.arange(40_000.0), np.arange(3.0), np.zeros(0)])
    save(record, path)
    assert path.read_bytes() == b"".join(dumps(record))


def test_loaded_arrays_are_views_of_the_mapped_file(path):
    save(model(), path)
    found = load(path).parameters_records["model"]["layer.2"].numpy(copy=False)
    assert not found.flags.owndata
    assert not found.flags.writeable


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not show maps in /proc")
def test_the_map_can_only_be_read(path):
    save(model(), path)
    records = load(path)
    [line] = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    assert line.split()[1].startswith("r--")
    assert records is not None


def test_the_map_lives_as_long_as_an_array_of_it(path):
    save(model(), path)
    array = load(path).parameters_records["model"]["layer.2"].numpy(copy=False)
    path.unlink()
    assert array.sum() == 15


def test_a_file_is_replaced_and_not_overwritten(path):
    save(model(1.0), path)
    before = load(path)
    save(model(2.0), path)
    assert before.parameters_records["model"] == model(1.0)
    assert load(path).parameters_records["model"] == model(2.0)


def test_nothing_but_the_file_stays_in_the_folder(path):
    save(model(), path)
    assert names(path.parent) == [path.name]


def test_permissions_are_those_of_any_new_file(path):
    other = path.with_name("other")
    other.touch()
    save(model(), path)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


@pytest.mark.parametrize(
    "name",
    ["a" * 255, "\N{SNOWMAN}" * 85, "\U0001f33c" * 63, " ", "-", ".hidden", "a\nb"],
    ids=lambda name: ascii(name)[:12],
)
def test_any_name_of_a_file_will_do(tmp_path, name):
    save(model(), tmp_path / name)
    assert load(tmp_path / name).parameters_records["model"] == model()


def test_what_cannot_be_written_leaves_the_old_file(path):
    save(model(), path)
    with pytest.raises(BadName):
        save(RecordSet({"a\nb": model()}), path)
    with pytest.raises(RecordTypeError):
        save({"a": 1}, path)
    assert load(path).parameters_records["model"] == model()
    assert names(path.parent) == [path.name]


@pytest.mark.parametrize("call", ["fsync", "writev"])
def test_a_disk_that_refuses_leaves_the_old_file_and_nothing_else(path, monkeypatch, call):
    save(model(), path)

    def refuse(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="No space"):
        save(model(2.0), path)
    monkeypatch.undo()
    assert load(path).parameters_records["model"] == model()
    assert names(path.parent) == [path.name]


def test_an_interrupt_leaves_nothing_behind(path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "writev", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(model(), path)
    assert names(path.parent) == []


def test_descriptors_are_closed(path):
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("this system does not show open files in /proc")
    save(model(), path)
    before = len(list(folder.iterdir()))
    for value in range(20):
        save(model(value), path)
        load(path)
    assert len(list(folder.iterdir())) <= before + 1


def test_the_file_is_flushed_before_it_has_its_name_and_the_folder_after(path, monkeypatch):
    calls = []
    real = os.fsync

    def fsync(descriptor):
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        calls.append(f"fsync {kind} {path.exists()}")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    save(model(), path)
    assert calls == ["fsync file False", "fsync folder True"]


def test_a_folder_that_is_missing_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        save(model(), tmp_path / "none" / "model")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none")
    with pytest.raises(OSError, match="irectory"):
        load(tmp_path)
    with pytest.raises(OSError, match="irectory"):
        save(model(), tmp_path)
    assert names(tmp_path) == []


def test_an_empty_file_is_no_container(path):
    path.touch()
    with pytest.raises(Truncated, match="empty"):
        load(path)


def test_a_cut_file_is_refused(path):
    save(model(), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Truncated):
        load(path)


def test_a_refused_file_is_named(path):
    path.write_bytes(b"\0" * 100)
    with pytest.raises(RecordError) as caught:
        load(path)
    assert path.name in str(caught.value)


def test_a_digest_is_checked_on_request(path):
    save(model(), path)
    assert load(path, expect=digest(model())).parameters_records["model"] == model()
    with pytest.raises(DigestMismatch):
        load(path, expect=digest(model(2.0)))


def test_a_process_that_is_killed_while_it_saves_leaves_the_old_file(path):
    save(model(), path)
    code = (
        "import os, sys, numpy as np\n"
        "from umbel.records import ParametersRecord, save\n"
        "real = os.writev\n"
        "def die(descriptor, buffers):\n"
        "    real(descriptor, [memoryview(buffers[0])[:50]])\n"
        "    os.kill(os.getpid(), 9)\n"
        "os.writev = die\n"
        "save(ParametersRecord.from_numpy([np.zeros(1000)]), sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], check=False, timeout=60)
    assert done.returncode == -9
    assert load(path).parameters_records["model"] == model()
