"""What every store of blobs must do."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from umbel.errors import BadLength, BadValue, Conflict, DigestMismatch, NotFound, QuotaExceeded, StorageFull, Truncated
from umbel.store import Blobs, Uploads, verify
from umbel.testing._expect import equal, refused, true
from umbel.testing._scene import digest_of

_NO_DIGESTS: Final = (
    "",
    "blake3:",
    "0" * 64,
    "blake3:" + "0" * 63,
    "blake3:" + "0" * 65,
    "blake3:" + "A" * 64,
    "sha256:" + "0" * 64,
    "blake3:" + "0" * 64 + "\n",
    "blake3:" + "\N{ARABIC-INDIC DIGIT ZERO}" * 64,
    "blake3:../" + "0" * 61,
    "blake3:/" + "0" * 63,
    "../blake3:" + "0" * 64,
    "blake3:" + "0" * 62 + "\0" * 2,
)
_ABSENT: Final = "blake3:" + "0" * 64


class BlobStoreTests:
    """Tests for a store of blobs. Inherit, and give a fixture ``blobs`` that returns an empty store.

    .. code-block:: python

        class TestMyBlobs(BlobStoreTests):
            @pytest.fixture
            def blobs(self, tmp_path):
                return MyBlobs(tmp_path)
    """

    def test_an_empty_store_has_nothing(self, blobs: Blobs) -> None:
        equal(blobs.has(_ABSENT), None, "has() of an absent blob")
        equal(list(blobs.list()), [], "list() of an empty store")
        true(not blobs.delete(_ABSENT), "delete() of an absent blob says that it was not there")
        with refused(NotFound, "get() of an absent blob"):
            blobs.get(_ABSENT)

    def test_what_is_put_is_got(self, blobs: Blobs) -> None:
        part = blobs.put([b"some ", memoryview(b"bytes")])
        equal((part.digest, part.size), (digest_of(b"some bytes"), 10), "what put() returns")
        equal(blobs.has(part.digest), 10, "has()")
        equal(bytes(blobs.get(part.digest)), b"some bytes", "get()")
        equal(list(blobs.list()), [part.digest], "list()")

    def test_what_is_got_cannot_be_written_to(self, blobs: Blobs) -> None:
        part = blobs.put([b"some bytes"])
        true(blobs.get(part.digest).readonly, "get() returns read-only memory")

    def test_no_bytes_are_a_blob_too(self, blobs: Blobs) -> None:
        part = blobs.put([])
        equal((part.digest, blobs.has(part.digest)), (digest_of(b""), 0), "put() of nothing")
        equal(bytes(blobs.get(part.digest)), b"", "get() of nothing")

    def test_the_same_bytes_are_one_blob_however_they_are_cut(self, blobs: Blobs) -> None:
        data = random.Random(1).randbytes(100_000)  # noqa: S311 - no secret
        cuts = ([data], [data[:1], data[1:]], iter([data[:70_000], b"", data[70_000:]]))
        equal({blobs.put(cut).digest for cut in cuts}, {digest_of(data)}, "digests of one and the same")
        equal(list(blobs.list()), [digest_of(data)], "list()")

    def test_a_large_blob_is_whole(self, blobs: Blobs) -> None:
        data = random.Random(2).randbytes(20 * 2**20 + 1)  # noqa: S311 - no secret
        part = blobs.put(memoryview(data)[start : start + 2**20] for start in range(0, len(data), 2**20))
        true(blobs.get(part.digest) == data, "a blob of 20 MiB comes back as it was")

    def test_a_put_that_fails_leaves_nothing(self, blobs: Blobs) -> None:
        def broken() -> Iterator[bytes]:
            yield b"half"
            raise RuntimeError("no more")

        with refused(RuntimeError, "put() of segments that end in an error"):
            blobs.put(broken())
        equal(list(blobs.list()), [], "list() after a put that failed")

    def test_a_deleted_blob_is_gone_and_can_come_back(self, blobs: Blobs) -> None:
        part = blobs.put([b"some bytes"])
        held = blobs.get(part.digest)
        true(blobs.delete(part.digest), "delete() says that the blob was there")
        equal((blobs.has(part.digest), list(blobs.list())), (None, []), "what is there afterwards")
        equal(bytes(held), b"some bytes", "what was got before")
        blobs.put([b"some bytes"])
        equal(blobs.has(part.digest), 10, "has() after it was put again")

    def test_only_a_digest_is_a_name(self, blobs: Blobs) -> None:
        for name in _NO_DIGESTS:
            for verb in (blobs.has, blobs.get, blobs.delete):
                with refused(BadValue, f"{verb.__name__}({name!r})"):
                    verb(name)

    def test_many_list_as_many(self, blobs: Blobs) -> None:
        names = {blobs.put([b"%d" % number]).digest for number in range(40)}
        equal(sorted(blobs.list()), sorted(names), "list() of 40 blobs")

    def test_threads_may_put_the_same_bytes_at_once(self, blobs: Blobs) -> None:
        data = random.Random(3).randbytes(300_000)  # noqa: S311 - no secret
        with ThreadPoolExecutor(8) as pool:
            parts = list(pool.map(lambda _: blobs.put([data]), range(16)))
        equal({part.digest for part in parts}, {digest_of(data)}, "digests of 16 puts at once")
        true(blobs.get(digest_of(data)) == data, "the blob is whole")

    def test_a_sound_blob_is_verified(self, blobs: Blobs) -> None:
        equal(verify(blobs, blobs.put([b"some bytes"]).digest), 10, "verify()")
        with refused(NotFound, "verify() of an absent blob"):
            verify(blobs, _ABSENT)

    def test_an_upload_goes_on_where_it_ended(self, blobs: Blobs, tmp_path: Path) -> None:
        name = digest_of(b"some bytes")
        with Uploads(tmp_path / "staging", blobs).begin(name, 10) as upload:
            upload.append(b"some")
        uploads = Uploads(tmp_path / "staging", blobs)  # as after a restart
        equal((uploads.offset(name), blobs.has(name)), (4, None), "offset and has() half way")
        with uploads.begin(name, 10) as upload:
            equal(upload.offset, 4, "where the upload goes on")
            upload.append(memoryview(b" by"), b"tes")
            equal(upload.finish().digest, name, "what finish() returns")
        equal((uploads.offset(name), bytes(blobs.get(name))), (0, b"some bytes"), "afterwards")

    def test_an_upload_of_other_bytes_leaves_nothing(self, blobs: Blobs, tmp_path: Path) -> None:
        name, uploads = digest_of(b"some bytes"), Uploads(tmp_path / "staging", blobs)
        with uploads.begin(name, 10) as upload, refused(DigestMismatch, "finish() with other bytes"):
            upload.append(b"same bytes")
            upload.finish()
        equal((blobs.has(name), uploads.offset(name)), (None, 0), "afterwards")

    def test_an_upload_has_exactly_its_size(self, blobs: Blobs, tmp_path: Path) -> None:
        name, uploads = digest_of(b"some bytes"), Uploads(tmp_path / "staging", blobs)
        with uploads.begin(name, 10) as upload:
            upload.append(b"some")
            with refused(Truncated, "finish() before the end"):
                upload.finish()
            with refused(BadLength, "append() beyond the end"):
                upload.append(b" bytes and more")
            upload.append(b" bytes")
            upload.finish()
        equal(blobs.has(name), 10, "afterwards")

    def test_two_may_upload_one_blob_at_once(self, blobs: Blobs, tmp_path: Path) -> None:
        name, uploads = digest_of(b"some bytes"), Uploads(tmp_path / "staging", blobs)
        with uploads.begin(name, 10, 1) as first, uploads.begin(name, 10, 2) as second:
            first.append(b"some by")
            second.append(b"some bytes")
            equal(second.finish().size, 10, "finish() of the one that is faster")
            first.append(b"tes")
            equal(first.finish().size, 10, "finish() of the other")
        equal(list(blobs.list()), [name], "list()")

    def test_an_owner_takes_its_own_upload_over(self, blobs: Blobs, tmp_path: Path) -> None:
        name, uploads = digest_of(b"some bytes"), Uploads(tmp_path / "staging", blobs)
        with uploads.begin(name, 10) as dead, uploads.begin(name, 10) as alive:
            with refused(Conflict, "append() to an upload that was taken over"):
                dead.append(b"some")
            alive.append(b"some bytes")
            alive.finish()
        equal(blobs.has(name), 10, "afterwards")

    def test_uploads_keep_within_their_limits(self, blobs: Blobs, tmp_path: Path) -> None:
        uploads = Uploads(tmp_path / "staging", blobs, largest=10, total=15)
        name, other = digest_of(b"some bytes"), digest_of(b"others")
        with refused(QuotaExceeded, "begin() of a blob that is too large"):
            uploads.begin(name, 11)
        with uploads.begin(name, 10) as upload:
            with refused(StorageFull, "begin() when all together would be too much"):
                uploads.begin(other, 6)
            upload.append(b"some bytes")
            upload.finish()
        with uploads.begin(other, 6) as upload:
            upload.append(b"others")
            equal(upload.finish().size, 6, "an upload once there is room")
