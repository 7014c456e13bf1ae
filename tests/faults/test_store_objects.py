"""An object store that is slow, or says nothing at all: the ledger goes on, and what is there is there for everyone."""

import socket
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from by_hand import serving
from umbel.errors import BlobMissing, StoreUnavailable
from umbel.server._keeper import Keeper
from umbel.server._metrics import Metrics
from umbel.store import DirectoryBlobs, Ledger, ObjectBlobs, Uploads, audit, here, references
from umbel.store._blobs import part_of

pytest.importorskip("obstore", reason="the extra s3 is not installed")

DATA = b"some bytes"
PART = part_of([DATA])
SECONDS = 10.0  # in which a commit is on the disk, whatever the object store does


@pytest.fixture
def objects(tmp_path):
    """Makes a store, each with copies of its own, over the same folder of objects."""
    (tmp_path / "objects").mkdir()
    return lambda name: ObjectBlobs(f"file://{tmp_path}/objects", tmp_path / name)


@pytest.fixture
def mute(tmp_path):
    """An object store that takes every connection and never answers, with a copy of one blob."""
    DirectoryBlobs(tmp_path / "copies").put([DATA])
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        place = f"http://127.0.0.1:{listening.getsockname()[1]}"
        config = {"endpoint": place, "region": "x", "access_key_id": "a", "secret_access_key": "b"}
        yield ObjectBlobs("s3://umbel/x", tmp_path / "copies", config=config)


@pytest.fixture
def keeper(tmp_path, mute):
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        keeper = Keeper(ledger, mute, Uploads(tmp_path / "uploads", mute), Metrics())
        yield keeper
        keeper.close()


def commit(keeper):
    """Write what has nothing to do with blobs, as everyone does all the time."""
    note = partial(audit.append, actor="test", action="note", now=1.0)
    ledger = keeper._ledger
    return ledger.write(note).result(SECONDS)


def test_a_look_for_a_blob_keeps_no_commit_waiting(keeper):
    absent = part_of([b"never sent"])

    def hold(connection):
        references.hold(connection, 1, "state", {absent.digest: absent.size}, present=keeper.present)

    looked = keeper._ledger.write(hold)
    commit(keeper)
    with pytest.raises(BlobMissing):
        looked.result(SECONDS)


def test_a_blob_that_goes_keeps_no_commit_waiting(keeper, mute, monkeypatch):
    monkeypatch.setattr("umbel.store._objects._LEAVING", 0.1)
    assert keeper.present(PART.digest) == PART.size
    keeper.discard([PART.digest])
    keeper._later.submit(lambda: None).result(SECONDS)
    commit(keeper)
    assert (keeper.present(PART.digest), mute.has(PART.digest)) == (None, None)
    with pytest.raises(StoreUnavailable, match="can be repeated"):
        mute.put([DATA])
    assert not mute._copies.has(PART.digest)


def test_what_the_object_store_was_asked_for_is_known(objects):
    objects("first").put([DATA])
    later = objects("later")
    assert later.known(PART.digest) is None
    assert later.has(PART.digest) == later.known(PART.digest) == PART.size
    assert later.delete(PART.digest)
    assert later.known(PART.digest) is None


def test_what_is_put_while_it_goes_is_there_for_everyone(objects):
    blobs = objects("first")
    for number in range(50):
        blobs.put([DATA])
        blobs.delete(PART.digest)
        blobs.put([DATA])
        assert bytes(objects(f"later-{number}").get(PART.digest)) == DATA


def test_a_copy_says_that_the_object_is_there_whoever_puts_and_deletes_at_once(objects):
    blobs, stop = objects("first"), threading.Event()

    def delete():
        while not stop.is_set():
            blobs.delete(PART.digest)

    with ThreadPoolExecutor(3) as pool:
        deleting = pool.submit(delete)
        try:
            for putting in [pool.submit(blobs.put, [DATA]) for _ in range(200)]:
                putting.result(60)
        finally:
            stop.set()
        deleting.result(60)
    blobs._removals.wait(PART.digest, 60)
    copies = list(blobs._copies.list())
    assert all(objects("later").has(digest) for digest in copies)


def test_silent_nodes_are_found_while_the_object_store_says_nothing(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        for name in ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "x")
        with (
            serving(tmp_path / "server", blobs="s3://umbel/x", poll=0.3, patience=1.5) as operator,
            operator.newcomer("north") as north,
        ):
            run = operator.submit(1)
            north.work()
            assert "'north' was silent" in operator.until(run, "failed").row.reason
            listening.close()


def test_what_this_machine_may_damage_are_the_copies(s3, tmp_path):
    url = f"s3://umbel/{uuid.uuid4()}"
    digest = ObjectBlobs(url, tmp_path / "copies", config=s3).put([b"some bytes"]).digest
    blobs = ObjectBlobs(url, tmp_path / "elsewhere", config=s3)
    assert list(here(blobs)) == []
    assert bytes(blobs.get(digest)) == b"some bytes"
    assert list(here(blobs)) == [digest]


def test_objects_that_go_are_listed_no_more(s3, tmp_path):
    url = f"s3://umbel/{uuid.uuid4()}"
    blobs = ObjectBlobs(url, tmp_path / "copies", config=s3)
    digests = [blobs.put([b"%d" % number]).digest for number in range(20)]
    for digest in digests[:19]:
        assert blobs.delete(digest)
    assert list(blobs.list()) == digests[19:]
    blobs._removals.wait(digests[18], 60)
    again = ObjectBlobs(url, tmp_path / "later", config=s3)
    assert list(again.list()) == digests[19:]
