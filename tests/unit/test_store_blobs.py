"""Blobs and uploads beyond what every store must do."""

import errno
import os
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from umbel.errors import (
    BadValue,
    DigestMismatch,
    MissingExtra,
    NotFound,
    StorageFull,
    StoreError,
    StoreUnavailable,
    UsageError,
)
from umbel.records._files import map_file
from umbel.store import DirectoryBlobs, ObjectBlobs, Uploads, verify
from umbel.store._blobs import part_of
from umbel.store._disk import disk

DATA = b"some bytes"
PART = part_of([DATA])


@pytest.fixture
def blobs(tmp_path):
    return DirectoryBlobs(tmp_path / "blobs")


@pytest.fixture
def objects(tmp_path):
    pytest.importorskip("obstore", reason="the extra s3 is not installed")
    (tmp_path / "objects").mkdir()
    return ObjectBlobs(f"file://{tmp_path}/objects", tmp_path / "copies")


def test_a_blob_is_where_the_specification_says(blobs, tmp_path):
    blobs.put([DATA])
    name = PART.digest.removeprefix("blake3:")
    assert (tmp_path / "blobs" / name[:2] / name[2:]).read_bytes() == DATA
    assert (tmp_path / "blobs").stat().st_mode & 0o777 == 0o700


def test_what_is_there_is_not_written_again(blobs):
    blobs.put([DATA])
    (path,) = blobs.folder.glob("??/*")
    before = path.stat()
    blobs.put([DATA])
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_was_left_half_written_is_removed(blobs, tmp_path):
    blobs.put([DATA])
    (path,) = blobs.folder.glob("??/*")
    (path.parent / ".cdef.x.tmp").write_bytes(b"half")
    (path.parent / "stray").write_bytes(b"of somebody else")
    again = DirectoryBlobs(tmp_path / "blobs")
    assert list(again.list()) == [PART.digest]
    assert sorted(each.name for each in path.parent.iterdir()) == sorted([path.name, "stray"])


def test_an_upload_of_what_is_there_changes_nothing(blobs, tmp_path):
    blobs.put([DATA])
    (path,) = blobs.folder.glob("??/*")
    before = path.stat().st_ino
    with Uploads(tmp_path / "staging", blobs).begin(PART.digest, PART.size) as upload:
        upload.append(DATA)
        upload.finish()
    assert path.stat().st_ino == before
    assert not list((tmp_path / "staging").iterdir())


def test_an_upload_becomes_the_blob_without_a_copy(blobs, tmp_path):
    with Uploads(tmp_path / "staging", blobs).begin(PART.digest, PART.size) as upload:
        upload.append(DATA)
        (staged,) = (tmp_path / "staging").iterdir()
        number = staged.stat().st_ino
        upload.finish()
    (path,) = blobs.folder.glob("??/*")
    assert path.stat().st_ino == number


def test_a_store_that_cannot_adopt_is_given_the_bytes(tmp_path):
    class Plain:
        def __init__(self, inner):
            self.has, self.put = inner.has, inner.put

    blobs = DirectoryBlobs(tmp_path / "blobs")
    for data in (DATA, b""):
        part = part_of([data])
        with Uploads(tmp_path / "staging", Plain(blobs)).begin(part.digest, part.size) as upload:
            upload.append(data)
            upload.finish()
        assert verify(blobs, part.digest) == len(data)
    assert not list((tmp_path / "staging").iterdir())


def test_an_upload_that_goes_on_in_the_same_process_is_not_hashed_again(blobs, tmp_path, monkeypatch):
    uploads = Uploads(tmp_path / "staging", blobs)
    with uploads.begin(PART.digest, PART.size) as upload:
        upload.append(DATA[:4])
    monkeypatch.setattr("umbel.store._uploads.map_file", None)
    with uploads.begin(PART.digest, PART.size) as upload:
        upload.append(DATA[4:])
        upload.finish()
    assert blobs.has(PART.digest) == PART.size


def test_an_upload_that_is_hashed_again_keeps_no_other_waiting(blobs, tmp_path, monkeypatch):
    with Uploads(tmp_path / "staging", blobs).begin(PART.digest, PART.size) as upload:
        upload.append(DATA[:4])
    reading, go_on, other = threading.Event(), threading.Event(), part_of([b"others"])

    def slowly(path):
        reading.set()
        go_on.wait(20)
        return map_file(path)

    monkeypatch.setattr("umbel.store._uploads.map_file", slowly)
    uploads = Uploads(tmp_path / "staging", blobs)  # as after a restart
    with ThreadPoolExecutor(2) as pool:
        resumed = pool.submit(uploads.begin, PART.digest, PART.size)
        assert reading.wait(20)
        try:
            pool.submit(uploads.begin, other.digest, other.size).result(10).close()
        finally:
            go_on.set()
        with resumed.result(20) as upload:
            assert upload.offset == 4
            upload.append(DATA[4:])
            assert upload.finish() == PART


def test_an_upload_that_cannot_be_hashed_again_leaves_room_for_others(blobs, tmp_path, monkeypatch):
    with Uploads(tmp_path / "staging", blobs).begin(PART.digest, PART.size) as upload:
        upload.append(DATA[:4])
    uploads = Uploads(tmp_path / "staging", blobs)
    with monkeypatch.context() as broken:
        broken.setattr("umbel.store._uploads.map_file", None)
        with pytest.raises(TypeError):
            uploads.begin(PART.digest, PART.size)
    with uploads.begin(PART.digest, PART.size) as upload:
        upload.append(DATA[4:])
        assert upload.finish() == PART


def test_a_staging_file_that_was_spoilt_is_found(blobs, tmp_path):
    with Uploads(tmp_path / "staging", blobs).begin(PART.digest, PART.size) as upload:
        upload.append(DATA[:4])
    (staged,) = (tmp_path / "staging").iterdir()
    staged.write_bytes(b"sOme")
    uploads = Uploads(tmp_path / "staging", blobs)
    with uploads.begin(PART.digest, PART.size) as upload:
        upload.append(DATA[4:])
        with pytest.raises(DigestMismatch):
            upload.finish()
    assert (uploads.offset(PART.digest), blobs.has(PART.digest)) == (0, None)


def test_a_staging_file_that_is_too_long_begins_anew(blobs, tmp_path):
    uploads = Uploads(tmp_path / "staging", blobs)
    with uploads.begin(PART.digest, 100) as upload:
        upload.append(bytes(50))
    with uploads.begin(PART.digest, PART.size) as upload:
        assert upload.offset == 0
        upload.append(DATA)
        upload.finish()
    assert blobs.has(PART.digest) == PART.size


def test_idle_uploads_are_swept_the_second_time(blobs, tmp_path):
    uploads = Uploads(tmp_path / "staging", blobs)
    busy, idle, growing = (part_of([data]) for data in (b"busy bytes", b"idle bytes", b"growing.."))
    with uploads.begin(busy.digest, busy.size) as held:
        held.append(b"busy")
        for part in (idle, growing):
            with uploads.begin(part.digest, part.size) as upload:
                upload.append(b"half")
        assert uploads.sweep() == 0
        with uploads.begin(growing.digest, growing.size) as upload:
            upload.append(b".")
        assert uploads.sweep() == 4
        assert [uploads.offset(part.digest) for part in (busy, idle, growing)] == [4, 0, 5]
    assert uploads.sweep() == 5


def test_the_total_counts_what_an_earlier_process_left(blobs, tmp_path):
    with Uploads(tmp_path / "staging", blobs).begin(PART.digest, 10) as upload:
        upload.append(DATA[:6])
    uploads = Uploads(tmp_path / "staging", blobs, total=12)
    other = part_of([b"others!"])
    with pytest.raises(StorageFull, match="try again"):
        uploads.begin(other.digest, 7)
    with uploads.begin(PART.digest, 10) as upload:
        upload.append(DATA[6:])
        upload.finish()
    uploads.begin(other.digest, 7).close()


def test_only_a_digest_names_an_upload(blobs, tmp_path):
    uploads = Uploads(tmp_path / "staging", blobs)
    for name in ("../x", "blake3:" + "A" * 64, ""):
        with pytest.raises(BadValue):
            uploads.offset(name)
        with pytest.raises(BadValue):
            uploads.begin(name, 1)


def test_an_upload_that_is_begun_anew_while_it_ends_waits_for_that(tmp_path):
    began = []

    class Slow(DirectoryBlobs):
        def adopt(self, path, part, *, durable):
            again.start()
            again.join(0.2)  # it waits by now, and must not keep this from ending
            super().adopt(path, part, durable=durable)

    blobs = Slow(tmp_path / "blobs")
    uploads, part = Uploads(tmp_path / "staging", blobs), part_of([b"some bytes"])
    again = threading.Thread(target=lambda: began.append(uploads.begin(part.digest, part.size)), daemon=True)
    first = uploads.begin(part.digest, part.size)
    first.append(b"some bytes")
    ending = threading.Thread(target=first.finish, daemon=True)
    ending.start()
    for thread in (ending, again):
        thread.join(20)
        assert not thread.is_alive()
    assert began[0].offset == 0
    began[0].close()
    assert bytes(blobs.get(part.digest)) == b"some bytes"


def test_many_uploads_leave_no_descriptor_open(blobs, tmp_path):
    uploads = Uploads(tmp_path / "staging", blobs)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(100):
        part = part_of([b"%d" % number])
        upload = uploads.begin(part.digest, part.size, number)
        uploads.begin(part.digest, part.size, number)  # taken over
        if number % 2:
            upload.close()
    assert len(uploads._paused) <= 64
    for upload in list(uploads._active.values()):
        upload.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EMFILE, StoreUnavailable),
        (errno.EIO, StoreError),
        (errno.EROFS, StoreError),
        (errno.EACCES, StoreError),
    ],
)
def test_what_the_system_says_is_named(number, kind, tmp_path):
    with pytest.raises(kind) as caught, disk(tmp_path):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is kind
    assert os.strerror(number) in caught.value.message


def test_a_copy_that_is_gone_is_fetched_again(objects, tmp_path):
    objects.put([DATA])
    (copy,) = (tmp_path / "copies").glob("??/*")
    copy.unlink()
    assert objects.has(PART.digest) == PART.size
    assert bytes(objects.get(PART.digest)) == DATA
    assert copy.read_bytes() == DATA


def test_an_object_of_other_bytes_is_not_taken(objects, tmp_path):
    objects.put([DATA])
    (copy,) = (tmp_path / "copies").glob("??/*")
    (object_,) = (tmp_path / "objects").glob("??/*")
    copy.unlink()
    object_.write_bytes(b"same bytes")
    with pytest.raises(DigestMismatch):
        objects.get(PART.digest)
    assert not copy.exists()


def test_a_copy_that_was_damaged_is_fetched_again(objects, tmp_path):
    objects.put([DATA])
    (copy,) = (tmp_path / "copies").glob("??/*")
    copy.write_bytes(b"same bytes")
    assert verify(objects, PART.digest) == PART.size
    assert bytes(objects.get(PART.digest)) == DATA


def test_an_object_that_was_damaged_is_removed(objects, tmp_path):
    objects.put([DATA])
    for path in tmp_path.glob("*/??/*"):
        path.write_bytes(b"same bytes")
    with pytest.raises(DigestMismatch, match="removed"):
        verify(objects, PART.digest)
    assert objects.has(PART.digest) is None
    objects.put([DATA])
    assert verify(objects, PART.digest) == PART.size


def test_a_fetch_goes_on_where_it_ended(objects, tmp_path):
    objects.put([DATA])
    (copy,) = (tmp_path / "copies").glob("??/*")
    copy.unlink()
    with objects._fetched.begin(PART.digest, PART.size, threading.get_ident()) as fetch:
        fetch.append(DATA[:4])
    assert bytes(objects.get(PART.digest)) == DATA


def test_other_objects_are_not_listed(objects, tmp_path):
    objects.put([DATA])
    (tmp_path / "objects" / "readme.txt").write_bytes(b"of somebody else")
    assert list(objects.list()) == [PART.digest]


def test_an_object_that_is_gone_is_not_found(objects, tmp_path):
    with pytest.raises(NotFound):
        objects.get(PART.digest)


def test_an_object_store_that_does_not_answer(tmp_path):
    pytest.importorskip("obstore", reason="the extra s3 is not installed")
    config = {"endpoint": "http://127.0.0.1:1", "region": "x", "access_key_id": "a", "secret_access_key": "b"}
    options = {"allow_http": True}
    blobs = ObjectBlobs(f"s3://umbel/{uuid.uuid4()}", tmp_path, config=config, options=options)
    for verb in (lambda: blobs.has(PART.digest), lambda: blobs.put([DATA]), lambda: list(blobs.list())):
        with pytest.raises(StoreUnavailable, match="can be repeated"):
            verb()
    assert not list(tmp_path.glob("??/*"))


def test_a_url_of_no_object_store(tmp_path):
    pytest.importorskip("obstore", reason="the extra s3 is not installed")
    for url in ("", "umbel", "ftp://host/x", "s3:"):
        with pytest.raises(UsageError):
            ObjectBlobs(url, tmp_path)


def test_without_obstore_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtra, match=r"umbel\[s3\]"):
        ObjectBlobs("s3://umbel/x", tmp_path)
