"""What a ledger must do whatever is kept in it, and with blobs that nothing needs."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import sqlalchemy as sa

from umbel.errors import LedgerInUse, StoreError
from umbel.store import DirectoryBlobs, Ledger, audit, collect, members, references
from umbel.testing._expect import equal, refused
from umbel.testing._flight import FlightTests
from umbel.testing._members import AuditTests, MemberTests, OpenLedger
from umbel.testing._messages import MessageTests
from umbel.testing._runs import RunTests
from umbel.testing._scene import NOW, submit


class WriterTests:
    """Reading, writing, and what comes in between."""

    def test_what_is_written_is_there_after_a_restart(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            futures = [ledger.write(_noting(number)) for number in range(500)]
            equal([future.result() for future in futures], list(range(1, 501)), "the order of operations")
        with open_ledger() as ledger:
            equal(ledger.read(audit.verify), 500, "how many are there")

    def test_threads_write_at_once(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger, ThreadPoolExecutor(8) as pool:
            numbers = list(pool.map(lambda number: ledger.write(_noting(number)).result(), range(200)))
            equal(sorted(numbers), list(range(1, 201)), "their numbers")

    def test_an_operation_that_fails_fails_alone(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            hold = _held(ledger)
            futures = [ledger.write(_noting(number, fails=number % 3 == 1)) for number in range(9)]
            hold.set()
            for number, future in enumerate(futures):
                if number % 3 == 1:
                    with refused(RuntimeError, "an operation that fails after it has written"):
                        future.result()
                else:
                    future.result()
            equal(ledger.read(audit.verify), 6, "how many are there")

    def test_a_statement_that_fails_fails_alone(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            hold = _held(ledger)
            before, broken, after = (
                ledger.write(op) for op in (_noting(1), lambda c: c.execute(sa.text("SELECT nothing")), _noting(2))
            )
            hold.set()
            with refused(type(broken.exception()), "a statement that means nothing"):  # type: ignore[arg-type]
                broken.result()
            equal((before.result(), after.result()), (1, 2), "the others")

    def test_in_between_only_what_is_committed_is_seen(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            hold = _held(ledger)
            first = ledger.write(_noting(1))
            seen = ledger.between(lambda c: audit.head(c).seq)
            second = ledger.write(_noting(2))
            hold.set()
            equal((first.result(), seen.result(), second.result()), (1, 1, 2), "the order")
            with refused(RuntimeError, "an operation in between that fails"):
                ledger.between(_failing).result()
            ledger.between(_noting(3)).result()
            equal(ledger.read(audit.verify), 2, "an operation in between leaves nothing")

    def test_reading_does_not_wait_for_writing(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            hold = _held(ledger)
            equal(ledger.read(audit.verify), 0, "what is read while the writer is busy")
            hold.set()

    def test_one_process_at_a_time(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            with refused(LedgerInUse, "opening a ledger that is open"):
                open_ledger()
            ledger.write(_noting(1)).result()
        with open_ledger() as ledger:
            equal(ledger.read(audit.verify), 1, "what is there afterwards")

    def test_a_closed_ledger_says_so(self, open_ledger: OpenLedger) -> None:
        ledger = open_ledger()
        last = ledger.write(_noting(1))
        ledger.close()
        ledger.close()
        equal(last.result(), 1, "what was queued before the end")
        with refused(StoreError, "write() afterwards"):
            ledger.write(_noting(2))
        with refused(StoreError, "read() afterwards"):
            ledger.read(members.every)


class GarbageTests:
    """Blobs that nothing needs."""

    def test_garbage_goes_when_it_is_found_twice(self, open_ledger: OpenLedger, tmp_path: Path) -> None:
        blobs = DirectoryBlobs(tmp_path / "blobs")
        parts = [blobs.put([b"%d" % number]) for number in range(40)]
        needed = {part.digest: part.size for part in parts[::4]}
        with open_ledger() as ledger:
            run = submit(ledger).id
            ledger.write(lambda c: references.hold(c, run, "state", needed, present=blobs.has)).result()
            first = collect(ledger, blobs)
            equal((first.deleted, len(first.seen)), (0, 30), "the first pass")
            late = blobs.put([b"late"])
            second = collect(ledger, blobs, seen=first.seen)
            equal((second.deleted, second.freed, second.seen), (30, 53, {late.digest}), "the second pass")
            equal(set(blobs.list()), {*needed, late.digest}, "what is left")

    def test_what_is_needed_by_now_stays(self, open_ledger: OpenLedger, tmp_path: Path) -> None:
        blobs = DirectoryBlobs(tmp_path / "blobs")
        needed, _gone = (blobs.put([data]) for data in (b"needed", b"gone"))
        with open_ledger() as ledger:
            run = submit(ledger).id
            seen = collect(ledger, blobs).seen
            ledger.write(
                lambda c: references.hold(c, run, "state", {needed.digest: needed.size}, present=blobs.known)
            ).result()
            equal(collect(ledger, blobs, seen=seen).deleted, 1, "how many went")
            equal(set(blobs.list()), {needed.digest}, "what is left")


class LedgerTests(WriterTests, GarbageTests, MemberTests, AuditTests, RunTests, MessageTests, FlightTests):
    """Tests for a ledger in a database of your own. Inherit, and give a fixture ``open_ledger``.

    It returns a function that opens a ledger, each time the same, which is empty at first.

    .. code-block:: python

        class TestMyLedger(LedgerTests):
            @pytest.fixture
            def open_ledger(self, tmp_path):
                return lambda: Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    """


def _noting(number: int, *, fails: bool = False) -> Callable[[sa.Connection], int]:
    def note(connection: sa.Connection) -> int:
        entry = audit.append(connection, actor="test", action="note", now=NOW, detail={"number": number})
        if fails:
            raise RuntimeError("as it should")
        return entry.seq

    return note


def _failing(_: sa.Connection) -> None:
    raise RuntimeError("as it should")


def _held(ledger: Ledger) -> threading.Event:
    """Keep the writer busy until the event is set, so that what is queued meanwhile is committed together."""
    hold, busy = threading.Event(), threading.Event()

    def wait(_: sa.Connection) -> None:
        busy.set()
        hold.wait(30)

    ledger.write(wait)
    busy.wait(30)
    return hold
