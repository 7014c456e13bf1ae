"""A store is killed, filled up, damaged and cut off: what it acknowledged is there, and what it says is true."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from umbel.errors import (
    DigestMismatch,
    LedgerDamaged,
    LedgerFailed,
    StorageFull,
    StoreError,
    StoreUnavailable,
)
from umbel.store import DirectoryBlobs, Ledger, Uploads, audit, verify
from umbel.store._blobs import part_of

DRIVER = Path(__file__).with_name("store_driver.py")
ENTRIES = 40
SECONDS = 120


def drive(what, folder, url, *failpoints, strace=()):
    """Run the driver; return what it said, and how it ended."""
    command = [*strace, sys.executable, str(DRIVER), what, str(folder), url, *failpoints]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.splitlines(), done.returncode


def note(connection):
    return audit.append(connection, actor="test", action="note", now=1.0).seq


def straced(*injections):
    """A command line under which system calls fail or kill; skips where that is not possible."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    probe = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, timeout=60, check=False)
    if probe.returncode:
        pytest.skip("strace may not trace here")
    return ["strace", "-f", "-qq", "-o", os.devnull, *(word for each in injections for word in ("-e", each))]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB, empty."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, timeout=60, check=False
    )
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True, timeout=60)


@pytest.mark.parametrize("point", ["store.writing:kill:3", "store.committed:kill:3", "store.migrating:kill"])
def test_killed_around_a_commit(ledger_url, tmp_path, point):
    said, status = drive("write", tmp_path, ledger_url, point)
    assert status == -signal.SIGKILL
    acknowledged = sum(line.startswith("entry") for line in said)
    with Ledger.open(ledger_url) as ledger:
        assert ledger.read(audit.verify) >= acknowledged
    said, status = drive("write", tmp_path, ledger_url)
    assert (said[-1], status) == ("closed", 0)
    with Ledger.open(ledger_url) as ledger:
        assert ledger.read(audit.verify) == ENTRIES


@pytest.mark.parametrize(
    ("what", "point"),
    [
        ("put", "store.blob-begun:kill:2"),
        ("put", "store.blob-written:kill:2"),
        ("upload", "store.upload-staged:kill:2"),
        ("upload", "store.upload-finished:kill:2"),
        ("garbage", "store.collecting:kill:2"),
    ],
)
def test_killed_around_a_blob(tmp_path, what, point):
    url = f"sqlite:///{tmp_path}/ledger.db"
    said, status = drive(what, tmp_path, url, point)
    assert status == -signal.SIGKILL
    blobs = DirectoryBlobs(tmp_path / "blobs")
    for line in said:
        assert verify(blobs, line.removeprefix("blob ")) == 100_000
    said, status = drive(what, tmp_path, url)
    assert (said[-1], status) == ("closed", 0)
    expected = {line.removeprefix("blob ") for line in said[:-1]}
    assert set(blobs.list()) == expected
    assert [verify(blobs, digest) for digest in expected] == [100_000] * len(expected)
    assert not list((tmp_path / "blobs").rglob("*.tmp"))
    assert not list(tmp_path.glob("staging/*"))


def killed_at_write(folder, number):
    """Kill the driver at one of its writes; return whether it came to its end before that."""
    url = f"sqlite:///{folder}/ledger.db"
    said, _ = drive("write", folder, url, strace=straced(f"inject=pwrite64:signal=KILL:when={number}"))
    acknowledged = [line for line in said if line.startswith("entry")]
    with Ledger.open(url) as ledger:
        assert len(acknowledged) <= ledger.read(audit.verify) <= ENTRIES, f"killed at write {number}"
    return "closed" in said


def test_killed_at_some_writes(tmp_path):
    for number in (1, 40, 70):
        (tmp_path / f"{number}").mkdir()
        killed_at_write(tmp_path / f"{number}", number)


@pytest.mark.slow
def test_killed_at_every_third_write(tmp_path):
    number = 1
    while True:
        folder = tmp_path / f"{number}"
        folder.mkdir()
        if killed_at_write(folder, number):
            break
        number += 3
    assert number > 50


def test_a_disk_whose_flush_fails_is_not_asked_again(tmp_path):
    url = f"sqlite:///{tmp_path}/ledger.db"
    drive("put", tmp_path, url)  # makes the ledger, so that what follows is commits alone
    said, _ = drive("write", tmp_path, url, strace=straced("inject=fdatasync:error=EIO:when=5"))
    entries = [line for line in said if line.startswith("entry")]
    refused = said[len(entries) : -1]
    assert entries
    assert refused
    assert set(refused) == {f"refused {LedgerFailed.code}"}
    with Ledger.open(url) as ledger:
        assert ledger.read(audit.verify) >= len(entries)


def test_a_disk_that_is_full_for_a_moment(tmp_path):
    url = f"sqlite:///{tmp_path}/ledger.db"
    drive("put", tmp_path, url)
    said, _ = drive("write", tmp_path, url, strace=straced("inject=pwrite64:error=ENOSPC:when=20..23"))
    assert f"refused {StorageFull.code}" in said
    entries = [line for line in said if line.startswith("entry")]
    assert said.index(entries[-1]) > said.index(f"refused {StorageFull.code}")
    with Ledger.open(url) as ledger:
        assert ledger.read(audit.verify) == len(entries)


def fill(path):
    """Leave no room on a disk."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_refuses_and_goes_on_when_there_is_room(small_disk):
    with Ledger.open(f"sqlite:///{small_disk}/ledger.db") as ledger:
        done = [ledger.write(note).result()]
        fill(small_disk / "filler")
        with pytest.raises(StorageFull, match="make room"):
            done.extend(ledger.write(note).result() for _ in range(1_000))
        assert ledger.read(audit.verify) == len(done)
        (small_disk / "filler").unlink()
        assert ledger.write(note).result() == len(done) + 1
    with Ledger.open(f"sqlite:///{small_disk}/ledger.db") as ledger:
        assert ledger.read(audit.verify) == len(done) + 1


def test_a_ledger_on_a_full_disk_says_so(small_disk):
    with Ledger.open(f"sqlite:///{small_disk}/ledger.db") as ledger:
        ledger.write(note).result()
    fill(small_disk / "filler")
    with pytest.raises(StoreError, match=r"make room|No space"):
        Ledger.open(f"sqlite:///{small_disk}/ledger.db")


def test_blobs_on_a_full_disk(small_disk):
    blobs = DirectoryBlobs(small_disk / "blobs")
    small = blobs.put([bytes(1_000)])
    with pytest.raises(StorageFull):
        blobs.put([bytes(2_000_000)])
    assert list(blobs.list()) == [small.digest]
    assert not list(small_disk.rglob("*.tmp"))


def test_an_upload_on_a_full_disk_goes_on_when_there_is_room(small_disk):
    blobs = DirectoryBlobs(small_disk / "blobs")
    uploads = Uploads(small_disk / "staging", blobs)
    (small_disk / "filler").write_bytes(bytes(600_000))
    data = random.Random(1).randbytes(500_000)
    part = part_of([data])
    with uploads.begin(part.digest, part.size) as upload, pytest.raises(StorageFull):
        upload.append(data)
    kept = uploads.offset(part.digest)
    assert 0 < kept < part.size
    (small_disk / "filler").unlink()
    with Uploads(small_disk / "staging", blobs).begin(part.digest, part.size) as upload:
        assert upload.offset == kept
        upload.append(memoryview(data)[kept:])
        upload.finish()
    assert verify(blobs, part.digest) == part.size


def test_a_disk_that_may_only_be_read(small_disk):
    url = f"sqlite:///{small_disk}/ledger.db"
    with Ledger.open(url) as ledger:
        ledger.write(note).result()
    blobs = DirectoryBlobs(small_disk / "blobs")
    part = blobs.put([b"some bytes"])
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True, timeout=60)
    with pytest.raises(StoreError, match="Read-only file system"):
        Ledger.open(url)
    with pytest.raises(StoreError, match="Read-only file system"):
        blobs.put([b"other bytes"])
    assert bytes(blobs.get(part.digest)) == b"some bytes"


def test_a_log_that_was_cut_gives_a_whole_beginning(tmp_path):
    # Up to four entries share a commit, so the forty take ten or more.
    _, status = drive("write", tmp_path, f"sqlite:///{tmp_path}/ledger.db", "store.committed:kill:8")
    assert status == -signal.SIGKILL
    files = {path.name: path.read_bytes() for path in tmp_path.glob("ledger.db*")}
    size = len(files["ledger.db-wal"])
    lengths = []
    for trial, cut in enumerate([0, *random.Random(1).sample(range(size), 20), size]):
        folder = tmp_path / f"{trial}"
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data[:cut] if name.endswith("-wal") else data)
        (folder / "ledger.db-shm").unlink(missing_ok=True)
        with Ledger.open(f"sqlite:///{folder}/ledger.db") as ledger:
            lengths.append((cut, ledger.read(audit.verify)))
    lengths.sort()
    assert [count for _, count in lengths] == sorted(count for _, count in lengths)
    assert lengths[0][1] == 0
    assert lengths[-1][1] >= 8


def test_a_damaged_file_is_found_after_an_unclean_stop(tmp_path):
    url, path = f"sqlite:///{tmp_path}/ledger.db", tmp_path / "ledger.db"
    drive("write", tmp_path, url)
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start + 5 : start + 9] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    (tmp_path / "ledger.db.open").touch()
    with pytest.raises(LedgerDamaged, match="restore the latest backup"):
        Ledger.open(url)


def test_a_file_of_another_kind_is_no_ledger(tmp_path):
    (tmp_path / "ledger.db").write_bytes(b"A letter, not a ledger. " * 1_000)
    with pytest.raises(LedgerDamaged, match="no ledger"):
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db")


def test_a_flipped_byte_in_a_blob_is_named_and_mended(tmp_path):
    blobs = DirectoryBlobs(tmp_path)
    part = blobs.put([b"some bytes"])
    (path,) = tmp_path.glob("??/*")
    path.chmod(0o600)
    path.write_bytes(b"some bytEs")
    with pytest.raises(DigestMismatch, match="removed"):
        verify(blobs, part.digest)
    assert blobs.has(part.digest) is None
    blobs.put([b"some bytes"])
    assert verify(blobs, part.digest) == 10


def test_no_files_left_to_open(tmp_path):
    blobs = DirectoryBlobs(tmp_path / "blobs")
    part = blobs.put([b"some bytes"])
    kept = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, kept[1]))
    try:
        with pytest.raises(StoreUnavailable, match="open at once"):
            blobs.get(part.digest)
        with pytest.raises(StoreUnavailable, match="open at once"):
            blobs.put([b"other bytes"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, kept)
    assert bytes(blobs.get(part.digest)) == b"some bytes"
    assert list(blobs.list()) == [part.digest]


def test_postgres_goes_away_and_comes_back(postgres):
    url = postgres.create()
    with Ledger.open(url) as ledger:
        first = ledger.write(note).result()
        postgres.stop(signal.SIGQUIT)
        with pytest.raises(StoreUnavailable):
            ledger.write(note).result()
        with pytest.raises(StoreUnavailable):
            ledger.read(audit.verify)
        postgres.start()
        assert ledger.write(note).result() == first + 1
        assert ledger.read(audit.verify) == first + 1


def test_postgres_ends_our_connections(postgres):
    url = postgres.create()
    with Ledger.open(url) as ledger:
        first = ledger.write(note).result()
        ledger.read(audit.verify)
        name = sa.make_url(url).database
        postgres.do(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        with pytest.raises(StoreUnavailable):
            ledger.write(note).result()
        assert ledger.read(audit.verify) == first
        assert ledger.write(note).result() == first + 1


def test_no_postgres_there(tmp_path):
    with pytest.raises(StoreUnavailable):
        Ledger.open(f"postgresql://umbel@/ledger?host={tmp_path}")
