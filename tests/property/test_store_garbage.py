"""Garbage is collected while runs begin to need blobs, and cease to: what is needed is there, whoever is faster."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from umbel.errors import BlobMissing
from umbel.store import DirectoryBlobs, Ledger, collect, references
from umbel.testing._scene import submit

KINDS = 12
TURNS = 60
WORKERS = 4


class Worker:
    """Puts a blob, needs it for a moment, and lets it go, over and over; all workers use the same few blobs."""

    def __init__(self, ledger, blobs, number):
        self.ledger, self.blobs, self.number = ledger, blobs, number
        self.run = submit(ledger, f"user {number}").id
        self.missing = 0

    def work(self):
        dice = random.Random(self.number)
        for _ in range(TURNS):
            part = self.blobs.put([b"%d" % dice.randrange(KINDS)])
            try:
                self.write(
                    lambda c, p=part: references.hold(c, self.run, "state", {p.digest: p.size}, present=self.blobs.has)
                )
            except BlobMissing:
                self.missing += 1  # it was collected between the two, which is said, and not too late
                continue
            for _ in range(3):
                assert self.blobs.has(part.digest) == part.size
                assert bytes(self.blobs.get(part.digest))
            self.write(lambda c: references.release(c, self.run, "state"))
        return self.missing

    def write(self, op):
        return self.ledger.write(op).result()


def sweep(ledger, blobs, done):
    deleted, seen = 0, frozenset()
    while not done.is_set():
        found = collect(ledger, blobs, seen=seen)
        deleted, seen = deleted + found.deleted, found.seen
    return deleted


@pytest.mark.parametrize("seed", range(2))
def test_what_is_needed_is_never_collected(ledger_url, tmp_path, seed):
    blobs, done = DirectoryBlobs(tmp_path / "blobs"), threading.Event()
    with Ledger.open(ledger_url) as ledger, ThreadPoolExecutor(WORKERS + 1) as pool:
        workers = [Worker(ledger, blobs, seed * WORKERS + number) for number in range(WORKERS)]
        sweeper = pool.submit(sweep, ledger, blobs, done)
        try:
            missing = sum(pool.map(Worker.work, workers))
        finally:
            done.set()
        deleted = sweeper.result()
        assert deleted > 0
        assert missing < WORKERS * TURNS
        last = collect(ledger, blobs, seen=collect(ledger, blobs).seen)
        assert (list(blobs.list()), last.seen) == ([], frozenset())
