"""Files that are cut, grown, replaced, linked or mapped; disks that are full; processes that die while they save."""

import mmap
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from forge import refuse
from umbel.errors import BadHeader, TrailingBytes, Truncated, UmbelError
from umbel.records import ConfigsRecord, ParametersRecord, RecordSet, dumps, load, loads, save

SAVER = Path(__file__).with_name("interrupted_save.py")
SIZE = 300_000


def model(number, size=SIZE):
    return ParametersRecord.from_numpy({"w": np.full(size, number, np.uint8), "b": np.full(3, number, np.float64)})


def number_in(path):
    records = load(path)
    return int(records.parameters_records["model"]["w"].numpy()[0])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model"
    save(model(1), path)
    return path


def test_a01_a_file_cut_anywhere(saved):
    size = saved.stat().st_size
    for length in (0, 1, 7, 8, 9, 63, 64, 200, 1000, size // 2, size - 1):
        os.truncate(saved, length)
        refuse(Truncated, lambda: load(saved), size)
        save(model(1), saved)


def test_a08_a_file_that_grew(saved):
    early = load(saved)
    with saved.open("ab") as file:
        file.write(b"PK\5\6" + bytes(18))
    refuse(TrailingBytes, lambda: load(saved), SIZE)
    assert early.parameters_records["model"] == model(1)


def test_a_file_that_is_replaced_while_it_is_mapped(saved):
    early = load(saved)
    array = early.parameters_records["model"]["w"].numpy(copy=False)
    save(model(2), saved)
    assert (array == 1).all()
    assert number_in(saved) == 2


def test_a_file_may_be_saved_over_itself(saved):
    early = load(saved)
    for _ in range(2):
        save(early, saved)
        assert load(saved) == early
    assert early.parameters_records["model"] == model(1)
    assert names(saved.parent) == ["model"]


def test_a_mapped_model_cannot_be_written_to(saved):
    array = load(saved).parameters_records["model"]["w"].numpy(copy=False)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 9
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.setflags(write=True)
    assert number_in(saved) == 1


def test_a_model_cannot_be_written_to_through_the_bytes_it_was_read_from():
    data = b"".join(dumps(model(1)))
    for buffer in (data, bytearray(data), memoryview(bytearray(data))):
        view = loads(buffer).parameters_records["model"]["w"]
        assert view.data.readonly
        with pytest.raises(ValueError, match="read-only"):
            view.numpy(copy=False)[0] = 9


def test_saving_over_a_link_replaces_the_link(saved, tmp_path):
    precious = tmp_path / "precious"
    precious.write_bytes(b"not to be touched")
    for name, leads_to in (("link", precious), ("dangling", tmp_path / "nowhere"), ("loop", tmp_path / "loop")):
        link = tmp_path / name
        link.symlink_to(leads_to)
        save(model(3), link)
        assert not link.is_symlink()
        assert number_in(link) == 3
    assert precious.read_bytes() == b"not to be touched"
    assert not (tmp_path / "nowhere").exists()


def test_saving_over_one_of_two_hard_links_leaves_the_other(saved, tmp_path):
    os.link(saved, tmp_path / "other")
    save(model(2), saved)
    assert (number_in(saved), number_in(tmp_path / "other")) == (2, 1)


def test_a_folder_may_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    save(model(1), tmp_path / "link" / "model")
    assert names(tmp_path / "real") == ["model"]


@pytest.mark.parametrize(
    "name", ["n" * 255, "\u6f22" * 85, "e\u0301" * 80, " ", "-rf", "*", "new\nline", "\x1b[31m", "\udcff"]
)
def test_any_name_that_the_system_takes(name, tmp_path):
    path = tmp_path / name
    save(model(1), path)
    assert number_in(path) == 1
    assert names(tmp_path) == [name]
    os.truncate(path, 100)
    refuse(Truncated, lambda: load(path), SIZE)


@pytest.mark.parametrize("what", ["folder", "missing folder", "file as folder", "name too long"])
def test_where_nothing_can_be_saved(what, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"file")
    path = {
        "folder": tmp_path / "folder",
        "missing folder": tmp_path / "missing" / "model",
        "file as folder": tmp_path / "file" / "model",
        "name too long": tmp_path / ("n" * 256),
    }[what]
    with pytest.raises(OSError, match=r"\[Errno"):
        save(model(1), path)
    assert names(tmp_path) == ["file", "folder"]
    assert names(tmp_path / "folder") == []


def test_what_cannot_be_written_leaves_the_old_file(saved):
    bad = RecordSet(configs_records={"c": ConfigsRecord({"a\nb": 1})})
    with pytest.raises(UmbelError):
        save(bad, saved)
    assert number_in(saved) == 1
    assert names(saved.parent) == ["model"]


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull), Path("/dev/zero")):
        refuse(Truncated, lambda path=path: load(path), 0)
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(OSError, match=r"\[Errno"):
            load(path)


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "model"
    np.save(tmp_path / "model.npy", np.zeros(1000))
    for data in ((tmp_path / "model.npy").read_bytes(), b"\x89PNG\r\n\x1a\n" + bytes(100), b"{}" * 50):
        path.write_bytes(data)
        with pytest.raises(UmbelError) as caught:
            load(path)
        assert str(path) in str(caught.value)


def stopped(tmp_path, how):
    """Return how often each end of an interrupted save came about."""
    done = subprocess.run(
        [sys.executable, str(SAVER), str(tmp_path), how], capture_output=True, text=True, timeout=120, check=True
    )
    return [line.split() for line in done.stdout.splitlines()]


def test_killed_at_any_line_the_file_is_the_old_one_or_the_new(tmp_path):
    ends = stopped(tmp_path, "kill")
    assert {status for *_, status in ends} == {str(int(signal.SIGKILL)), "0"}
    found = [name for name, *_ in ends]
    # First the old one, then the new one: nothing between, and never back.
    assert found == ["old"] * found.count("old") + ["new"] * found.count("new")
    assert set(found) == {"old", "new"}
    assert all(int(others) <= 1 for _, others, _ in ends)


@pytest.mark.parametrize("how", ["interrupt", "error"])
def test_interrupted_at_any_line_nothing_is_left_behind(how, tmp_path):
    """Between the creation of the temporary file and the next line there is nobody yet to remove it."""
    ends = stopped(tmp_path, how)
    assert {name for name, *_ in ends} == {"old", "new"}
    left = [step for step, (_, others, _) in enumerate(ends) if others != "0"]
    assert len(left) <= 2
    assert left == list(range(left[0], left[0] + len(left)))


LIMITED = """
import resource, signal, sys
import numpy as np
from umbel.records import ParametersRecord, save
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    save(ParametersRecord.from_numpy({"w": np.full(300_000, 2, np.uint8)}), sys.argv[1])
except OSError as error:
    sys.stdout.write(str(error.errno))
"""


@pytest.mark.parametrize("limit", [0, 1, 200, 65_536, 300_000])
def test_a_file_that_may_not_grow_so_large(saved, limit):
    """The system takes a part of what it is given, then nothing: the path of every full disk and quota."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, saved, str(limit)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "27"  # EFBIG
    assert number_in(saved) == 1
    assert names(saved.parent) == ["model"]


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "none", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a file system of its own may not be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.slow
def test_a_full_disk(small_disk):
    save(model(1), small_disk / "model")
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            save(model(2), small_disk / "model")
        assert number_in(small_disk / "model") == 1
        assert names(small_disk) == ["model"]


NOBODY = """
import os, sys
import numpy as np
from umbel.records import ParametersRecord, load, save
os.setegid(65534), os.seteuid(65534)
for act in (lambda: save(ParametersRecord(), sys.argv[1]), lambda: load(sys.argv[1])):
    try:
        act()
    except PermissionError as error:
        sys.stdout.write("refused ")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become nobody")
def test_a_folder_that_may_not_be_written_to(saved):
    saved.chmod(0o600)
    done = subprocess.run([sys.executable, "-c", NOBODY, saved], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "refused refused "
    assert names(saved.parent) == ["model"]
    assert number_in(saved) == 1


def test_permissions_follow_the_mask(tmp_path):
    for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            save(model(1), tmp_path / "model")
            assert os.umask(mask) == mask
        finally:
            os.umask(before)
        assert (tmp_path / "model").stat().st_mode & 0o777 == mode


CALLS = ["writev", "fsync", "fchmod", "rename", "umask"]


@pytest.fixture(scope="session")
def strace():
    tool = shutil.which("strace")
    if tool is None or subprocess.run([tool, "-o", os.devnull, "true"], check=False, capture_output=True).returncode:
        pytest.skip("strace is not installed, or may not trace here")
    return tool


def traced(strace, inject, saved):
    script = "import sys; from umbel.records import load, save; save(load(sys.argv[1]), sys.argv[2])"
    target = saved.parent / "target"
    save(model(2), target)
    command = [strace, "-f", "-o", os.devnull, "-e", f"trace={inject.split(':')[0]}", "-e", f"inject={inject}"]
    done = subprocess.run(
        [*command, sys.executable, "-c", script, saved, target],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    left = list(saved.parent.glob(".*"))
    for path in left:
        path.unlink()
    return done.returncode, number_in(target), len(left)


@pytest.mark.slow
@pytest.mark.parametrize("call", ["writev", "fsync", "rename"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EDQUOT"])
def test_a_system_call_that_fails(strace, saved, call, error):
    assert traced(strace, f"{call}:error={error}:when=1", saved) == (1, 2, 0)


@pytest.mark.slow
def test_the_folder_cannot_be_flushed(strace, saved):
    """The file is whole and in its place, but not certain to be there after a power cut: that is an error."""
    assert traced(strace, "fsync:error=EIO:when=2", saved) == (1, 1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_killed_in_a_system_call(strace, saved, call):
    outcomes = Counter()
    for when in (1, 2):
        status, number, left = traced(strace, f"{call}:signal=KILL:when={when}", saved)
        assert number in (1, 2)
        assert left <= 1
        assert status == 0 or number == 2 or call in ("fsync", "rename")
        outcomes[status] += 1
    assert outcomes[-signal.SIGKILL] >= 1


@pytest.mark.slow
def test_a_system_call_that_is_interrupted_is_made_again(strace, saved):
    assert traced(strace, "writev:error=EINTR:when=1..5", saved) == (0, 1, 0)


def test_a_map_of_anything_is_a_buffer(saved):
    with saved.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        part = memoryview(whole)[64:]
        with pytest.raises(UmbelError):
            loads(part)
        part.release()
    refuse(BadHeader, lambda: loads((56).to_bytes(8, "little") + bytes(56)), 64)
