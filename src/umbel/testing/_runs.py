"""What a ledger must do with runs and the references of blobs."""

import sqlalchemy as sa

from umbel.envelope import blobs_of
from umbel.errors import BlobMissing, NotFound, UsageError, WrongState
from umbel.store import references, runs
from umbel.testing._expect import equal, refused, true
from umbel.testing._members import OpenLedger
from umbel.testing._scene import NOW, Planned, content, digest_of, join, nowhere, only, submit, with_blob


class RunTests:
    """From submission to the last report."""

    def test_a_run_is_found_by_number_and_name(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            run = submit(ledger)
            true(run.name.startswith("20270115-080000-"), f"the name of a run has its time, got {run.name}")
            equal((run.status, run.completed, run.restarts), ("waiting", 0, ()), "a new run")
            equal(ledger.read(lambda c: runs.get(c, run.id)), run, "get()")
            equal(ledger.read(lambda c: runs.find(c, run.name)), run, "find()")
            equal(ledger.read(lambda c: runs.state(c, run.id)), None, "the state before the first round")
            equal(ledger.read(lambda c: runs.reports(c, run.id)), [], "the reports before the first round")

    def test_a_run_is_its_owners(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            mine, other = submit(ledger, "ada"), submit(ledger, "eve")
            equal(ledger.read(lambda c: runs.every(c, mine.owner)), [mine], "every() of one owner")
            equal(ledger.read(runs.every), [mine, other], "every()")
            equal(ledger.read(lambda c: runs.every(c, statuses=["running"])), [], "every() that runs")
            for lookup in (
                lambda c: runs.get(c, mine.id, other.owner),
                lambda c: runs.find(c, mine.name, other.owner),
                lambda c: runs.get(c, 2**62),
                lambda c: runs.find(c, "no\0run' OR 1=1"),
                lambda c: runs.state(c, 2**62),
            ):
                with refused(NotFound, "a run of somebody else, or of nobody"):
                    ledger.read(lookup)

    def test_a_number_beyond_64_bits_is_refused(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger, refused(UsageError, "get() of run 2**63"):
            ledger.read(lambda c: runs.get(c, 2**63))

    def test_a_status_follows_from_the_one_before(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            run = submit(ledger).id

            def turn(status: str, reason: str = "") -> runs.Run:
                return ledger.write(lambda c: runs.set_status(c, run, status, now=NOW + 9, reason=reason)).result()

            for wrong in ("completed", "sideways"):
                with refused(WrongState, f"from waiting to {wrong}"):
                    turn(wrong)
            for status in ("waiting", "running", "stopping", "stopped", "waiting", "running", "failed", "waiting"):
                ended = NOW + 9 if status in ("stopped", "failed") else None
                equal((turn(status).status, turn(status).ended_at), (status, ended), "the run")
            turn("running")
            equal(turn("completed", "all\0 done").reason, "all\ufffd done", "the reason")
            with refused(WrongState, "from completed to running"):
                turn("running")

    def test_restarts_are_noted(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            run = submit(ledger).id
            for now in (NOW, NOW + 1):
                ledger.write(lambda c, n=now: runs.note_restart(c, run, n)).result()  # type: ignore[misc]
            equal(ledger.read(lambda c: runs.get(c, run)).restarts, (NOW, NOW + 1), "the restarts")

    def test_a_round_closes_as_a_whole(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            closing = scene.close()
            for _ in range(2):  # the second time changes nothing
                run = ledger.write(
                    lambda c: runs.close_round(c, scene.run, closing, now=NOW + 1, present=nowhere)
                ).result()
                equal((run.completed, run.digest), (1, "d1"), "the run")
            equal(scene.phase().closed_at, NOW + 1, "when the phase was closed")
            equal(scene.phase().content, None, "what the phase carried")
            equal(scene.statuses(), ["accepted", "refused"], "the outcomes")
            equal(scene.phase().messages[1].reason, "NaN", "the reason")
        with open_ledger() as ledger:
            equal(ledger.read(lambda c: runs.state(c, scene.run)), closing.state, "the state")
            equal(ledger.read(lambda c: runs.reports(c, scene.run)), [closing.report], "the reports")

    def test_only_the_next_round_closes(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            for number, fits in ((2, False), (0, True), (1, True), (0, False), (3, False), (2, True)):
                closing = runs.Closing(number, "{}", content(), f"d{number}")
                future = ledger.write(
                    lambda c, g=closing: runs.close_round(c, scene.run, g, now=NOW, present=nowhere)  # type: ignore[misc]
                )
                if fits:
                    equal(future.result().completed, number, "the rounds that are complete")
                else:
                    with refused(WrongState, f"close_round() of round {number}"):
                        future.result()

    def test_a_round_whose_state_is_not_stored_does_not_close(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            closing = scene.close(state=with_blob(b"model"))
            for present in (nowhere, {digest_of(b"model"): 4}.get):
                with refused(BlobMissing, "close_round() without the blob"):
                    ledger.write(
                        lambda c, p=present: runs.close_round(c, scene.run, closing, now=NOW, present=p)  # type: ignore[misc]
                    ).result()
            equal(scene.statuses(), ["planned", "planned"], "the messages")
            equal(ledger.read(lambda c: runs.get(c, scene.run)).completed, 0, "the rounds that are complete")

    def test_what_a_run_needs_is_referenced(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            user = join(ledger, "ada", "user").id
            initial, first, second = (with_blob(data) for data in (b"initial", b"first", b"second"))
            present = only(b"initial", b"first", b"second")
            run = ledger.write(lambda c: runs.create(c, "{}", user, now=NOW, present=present, initial=initial)).result()
            for number, state in ((1, first), (2, second)):
                closing = runs.Closing(number, "{}", state, f"d{number}")
                ledger.write(
                    lambda c, g=closing: runs.close_round(c, run.id, g, now=NOW, present=present)  # type: ignore[misc]
                ).result()
                needed = blobs_of(initial) | blobs_of(state)
                equal(ledger.read(lambda c: references.of_run(c, run.id)), needed, f"what is needed after {number}")
            digests = [digest_of(data) for data in (b"initial", b"first", b"second", b"other")]
            free = ledger.read(lambda c: references.unreferenced(c, [*digests, *map(str, range(2_000))]))
            equal(free & set(digests), {digests[1], digests[3]}, "what nothing needs")

    def test_a_run_without_its_model_is_not_made(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            user = join(ledger, "ada", "user").id
            with refused(BlobMissing, "create() without the initial model"):
                ledger.write(
                    lambda c: runs.create(c, "{}", user, now=NOW, present=nowhere, initial=with_blob(b"model"))
                ).result()
            equal(ledger.read(runs.every), [], "the runs")

    def test_old_rounds_can_be_forgotten(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            for number in (1, 2, 3):
                if number > 1:
                    scene.plan(number)
                closing = scene.close(number)
                ledger.write(
                    lambda c, g=closing: runs.close_round(c, scene.run, g, now=NOW, present=nowhere)  # type: ignore[misc]
                ).result()
            equal(ledger.write(lambda c: runs.trim(c, scene.run, 1)).result(), 4, "how many messages went")
            equal(len(ledger.read(lambda c: runs.reports(c, scene.run))), 3, "how many reports there are")
            kept = ledger.read(lambda c: c.execute(sa.text("SELECT DISTINCT round FROM messages")).scalars().all())
            equal(list(kept), [3], "the rounds whose messages are kept")
            equal(ledger.write(lambda c: runs.trim(c, scene.run, 9)).result(), 0, "how many go when all are wanted")
