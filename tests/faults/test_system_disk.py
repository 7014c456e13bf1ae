"""The disk of a server is full, may only be read, fails or is damaged; or it may open no more files."""

import os
import re
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from by_hand import blob
from federation import wait_for
from system import LARGE, blobs_of, check, counted, digests_of, each_once, federating, handled, submit
from umbel.errors import StorageFull

FULL = re.compile("make room|No space left")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 24 MiB where the data folder of the server will be."""
    folder = tmp_path / "federation" / "server"
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder]
    if subprocess.run(command, capture_output=True, timeout=60, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True, timeout=60)


def fill(path):
    """Leave no room on a disk."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(64 * 1024))
    with path.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(512))


def upload(federation, value):
    """Send a model of 80 kB."""
    _, blobs = blob(value)
    for digest, data in blobs.items():
        federation.ask(lambda client, digest=digest, data=data: client.put_blob(digest, data))


@pytest.mark.parametrize("size", [pytest.param(9, marks=pytest.mark.slow), LARGE])
def test_a_full_disk_acknowledges_nothing_and_all_goes_on_when_there_is_room(small_disk, tmp_path, size):
    with federating(tmp_path, poll=2.0) as federation:
        run = submit(federation, size, seconds=0.5)
        wait_for(lambda: "north 1" in handled(federation) and "south 1" in handled(federation), "they train")
        fill(small_disk / "filler")
        with pytest.raises(StorageFull):
            upload(federation, 1.0)
        before = counted(federation, run)
        for name in ("north", "south"):
            wait_for(lambda name=name: FULL.search(_reason(federation, name)), "it says what it waits for")
        assert counted(federation, run) == before, "nothing was acknowledged"
        assert federation.serving.is_running
        assert federation.view(run).row.status in ("running", "waiting")
        (small_disk / "filler").unlink()
        upload(federation, 1.0)
        check(federation, run, size)
        assert handled(federation) == each_once()


def _reason(federation, name):
    status = federation.status(name)
    return "" if status is None else f"{status.reason} {status.last_error}"


@pytest.mark.slow
def test_a_server_that_is_killed_on_a_full_disk(small_disk, tmp_path):
    """Without room it does not start, and says why; with room it goes on."""
    with federating(tmp_path, poll=2.0) as federation:
        run = submit(federation, LARGE, seconds=0.5)
        wait_for(lambda: "north 1" in handled(federation), "it trains")
        fill(small_disk / "filler")
        federation.serving.end()
        failed = federation.serve(failpoint="none:kill")
        if not failed.is_running:
            assert failed.wait() == 1
            assert "StorageFull" in failed.log.read_text() or "No space left" in failed.log.read_text()
        else:  # there was room enough in what it had
            failed.end()
        (small_disk / "filler").unlink()
        federation.serve()
        check(federation, run, LARGE)
        assert handled(federation) == each_once()


def test_a_disk_that_may_only_be_read(small_disk, tmp_path):
    with federating(tmp_path) as federation:
        run = submit(federation)
        check(federation, run)
        for process in federation.processes:
            process.end()
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True, timeout=60)
        failed = federation.serve(failpoint="none:kill")
        assert failed.wait() == 1
        assert "Read-only file system" in failed.log.read_text().splitlines()[-1]
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True, timeout=60)
        federation.serve()
        for name in ("north", "south"):
            federation.node(name)
        check(federation, run)
        check(federation, submit(federation))


def test_a_disk_whose_flush_fails(tmp_path):
    """What was to be flushed is not acknowledged, then or later; a new start goes on from what is on the disk."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    with federating(tmp_path, poll=2.0) as federation:
        federation.serving.end()
        inject = "inject=fdatasync:error=EIO:when=8+"
        prefix = ("strace", "-D", "-f", "-qq", "-o", os.devnull, "-e", "trace=fdatasync", "-e", inject)
        failing = federation.serve(prefix=prefix)
        run = submit(federation, seconds=0.2)
        log = federation.folder / "server.log"
        wait_for(
            lambda: (
                not failing.is_running or any("disk failed" in _reason(federation, name) for name in ("north", "south"))
            ),
            "it is said",
        )
        before = counted(federation, run)
        failing.end()
        assert "disk failed" in log.read_text() or before is not None
        federation.serve()
        check(federation, run)
        after = counted(federation, run)
        assert set(before) - {each for each in before if each[4] == "replied"} <= set(after)


@pytest.mark.slow
def test_a_server_that_may_open_no_more_files(tmp_path):
    """Connections that hold all its descriptors keep others out while they last, and no longer."""
    with federating(tmp_path, server={"rlimits": {"RLIMIT_NOFILE": 80}}) as federation:
        run = submit(federation, LARGE, rounds=6, seconds=0.3)
        wait_for(lambda: "north 1" in handled(federation), "it trains")
        held = [socket.create_connection(("127.0.0.1", federation.port), timeout=10) for _ in range(200)]
        wait_for(lambda: "north 3" in handled(federation), "nodes that are connected go on")
        for each in held:
            each.close()
        check(federation, run, LARGE, rounds=6)
        assert handled(federation) == each_once(6)
        wait_for(lambda: _descriptors(federation.serving) < 60, "descriptors are given back")


def test_an_update_that_cannot_be_opened_for_a_moment_counts_all_the_same(tmp_path):
    """The run waits for the disk, as it says, and goes on without having lost a node."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    with federating(tmp_path, failpoint="server.reply-stored:kill") as federation:
        run = submit(federation, LARGE)
        assert federation.serving.wait() == -signal.SIGKILL
        updates = digests_of(federation, "SELECT answer FROM answers")
        paths = [path for digest, path in blobs_of(federation).items() if digest in updates]
        inject = ("-e", "trace=openat", "-e", "inject=openat:error=EMFILE", *(f"-P{path}" for path in paths))
        federation.serving = federation.serve(prefix=("strace", "-D", "-I1", "-f", "-qq", "-o", os.devnull, *inject))
        wait_for(lambda: "too much is open" in federation.view(run).row.reason, "it waits")
        os.kill(_tracer(federation.serving), signal.SIGTERM)
        check(federation, run, LARGE)
        assert handled(federation) == each_once()


def _tracer(process):
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(status.partition("TracerPid:")[2].split()[0])


def _descriptors(process):
    return len(os.listdir(f"/proc/{process.process.pid}/fd"))  # noqa: PTH208 - the number alone is wanted


# A byte that is another than it was.


def flip(path):
    """Change a bit of a file."""
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    # The file stays the same one, as it does when a disk loses a bit.
    path.write_bytes(data)


def test_a_model_that_was_damaged_before_the_run_began(tmp_path):
    """The run says so, and does not train another model."""
    with federating(tmp_path, nodes=[]) as federation:
        run = submit(federation, LARGE)
        (path,) = blobs_of(federation).values()
        flip(path)
        for name in ("north", "south"):
            federation.node(name)
        view = wait_for(lambda: (each := federation.view(run)).row.status == "failed" and each, "it fails")
        assert "digest" in view.row.reason
        assert view.row.completed == 0


@pytest.mark.parametrize("what", ["the state of the run", "an update"])
def test_a_blob_that_was_damaged_while_the_server_was_down(tmp_path, what):
    """The run fails by name, or goes on without the update, by name; it never ends as if nothing had been."""
    point = "server.round-committed:kill:2" if what == "the state of the run" else "server.reply-stored:kill"
    with federating(tmp_path, nodes=[], failpoint=point) as federation:
        run = submit(federation, LARGE)
        for name in ("north", "south"):
            federation.node(name)
        assert federation.serving.wait() == -signal.SIGKILL
        found = digests_of(
            federation, "SELECT state FROM runs" if point.endswith("2") else "SELECT answer FROM answers"
        )
        flip(next(path for digest, path in blobs_of(federation).items() if digest in found))
        federation.serve()
        view = wait_for(lambda: (each := federation.view(run)).row.ended_at and each, "it ends")
        if point.endswith("2"):
            assert view.row.status == "failed"
            assert "expected bytes with digest" in view.row.reason
        else:
            (lost,) = [each for each in view.questions if each.outcome != "accepted"]
            assert (lost.phase, lost.round, lost.outcome) == ("train", 1, "lost")
            assert "expected bytes with digest" in lost.reason
            assert view.row.status == "completed"


@pytest.mark.slow
def test_a_model_that_was_damaged_is_sent_again_and_its_run_goes_on(tmp_path):
    with federating(tmp_path, nodes=[]) as federation:
        run = submit(federation, LARGE)
        flip(*blobs_of(federation).values())
        for name in ("north", "south"):
            federation.node(name)
        wait_for(lambda: federation.view(run).row.status == "failed", "it fails")
        federation.call("stop_run", run=submit(federation, LARGE))  # its model is the same blob, and sent again
        federation.call("resume_run", run=run)
        check(federation, run, LARGE)
