"""What a ledger must do with messages and their replies."""

from umbel.errors import BlobMissing, Fenced, NotFound, ReplyConflict, WrongState
from umbel.store import messages, references, replies, runs
from umbel.store.replies import Reply
from umbel.testing._expect import equal, refused, true
from umbel.testing._members import OpenLedger
from umbel.testing._scene import DAY, NOW, Planned, content, digest_of, join, nowhere, only, with_blob


class MessageTests:
    """From the plan to the end of the round."""

    def test_a_phase_is_planned_once(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            with refused(WrongState, "plan() of a phase that is planned"):
                scene.plan(1)
        with open_ledger() as ledger:
            scene.ledger = ledger
            phase = scene.phase()
            equal([name for name, _ in phase.roster], ["north", "south"], "the roster")
            equal((phase.content, phase.created_at, phase.ttl), (content(), NOW, DAY), "what is asked")
            rows = [(row.message, row.slot, row.fence, row.status) for row in phase.messages]
            equal(rows, [(11, 0, 1, "planned"), (12, 1, 1, "planned")], "who is asked")
            equal(ledger.read(lambda c: messages.phase(c, scene.run, 1, "evaluate")), None, "another phase")

    def test_open_messages_are_listed(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            north, south = (node.id for node in scene.nodes)
            found = ledger.read(lambda c: messages.open_messages(c, south))
            equal(found, [messages.Open(scene.run, 12, south, 1, 1, "train", NOW, DAY, 1)], "those of a node")
            every = ledger.read(messages.open_messages)
            equal([(each.node, each.message) for each in every], [(north, 11), (south, 12)], "all of them")

    def test_a_reply_counts_once(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            for seconds in (0.5, 0.6):  # how long it took does not make it another reply
                reply = Reply(scene.run, 11, 1, content=content(b"[1]"), received=3, seconds={"train": seconds})
                equal(_accept(scene, reply), replies.Accepted(counted=True), "what accept() returns")
            equal(scene.statuses(), ["replied", "planned"], "the messages")
            (given,) = ledger.read(lambda c: replies.of_phase(c, scene.run, 1, "train"))
            expected = replies.Given(11, 0, scene.nodes[0].id, content(b"[1]"), None, None)
            equal(given, expected, "the reply")

    def test_an_error_is_a_reply(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            for _ in range(2):
                _accept(scene, Reply(scene.run, 11, 1, error_code=2, error_reason="no\0\ud800 luck"))
            (given,) = ledger.read(lambda c: replies.of_phase(c, scene.run, 1, "train"))
            equal((given.content, given.error_code, given.error_reason), (None, 2, "no\ufffd? luck"), "the reply")

    def test_another_reply_is_a_conflict(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            _accept(scene, scene.reply(data=b"[1]"))
            with refused(ReplyConflict, "another reply to the same message"):
                _accept(scene, scene.reply(data=b"[2]"))
            equal(len(ledger.read(lambda c: replies.of_phase(c, scene.run, 1, "train"))), 1, "how many count")

    def test_the_message_of_another_is_not_there(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            for reply in (scene.reply(12), scene.reply(13), Reply(scene.run + 1, 11, 1, content=content())):
                with refused(NotFound, "a reply to a message of somebody else, or to none"):
                    _accept(scene, reply)
            with refused(NotFound, "raise_fence() by somebody else"):
                ledger.write(
                    lambda c: messages.raise_fence(c, (scene.run, 12), node=scene.nodes[0].id, fence=1)
                ).result()

    def test_only_the_last_number_counts(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            key, node = (scene.run, 11), scene.nodes[0].id
            raised = ledger.write(lambda c: messages.raise_fence(c, key, node=node, fence=1)).result()
            equal(raised, 2, "the next number")
            with refused(Fenced, "raise_fence() under an old number"):
                ledger.write(lambda c: messages.raise_fence(c, key, node=node, fence=1)).result()
            for fence in (1, 3):
                with refused(Fenced, f"a reply under number {fence}"):
                    _accept(scene, scene.reply(fence=fence))
            true(_accept(scene, scene.reply(fence=2)).counted, "a reply under the last number counts")
            with refused(WrongState, "raise_fence() of a message that was answered"):
                ledger.write(lambda c: messages.raise_fence(c, key, node=node, fence=2)).result()
            with refused(Fenced, "another reply under an old number"):
                _accept(scene, scene.reply(data=b"[2]", fence=1))

    def test_a_reply_without_its_blobs_changes_nothing(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            reply = Reply(scene.run, 11, 1, content=with_blob(b"update"))
            node = scene.nodes[0].id
            with refused(BlobMissing, "a reply whose blob is not there"):
                _accept(scene, reply)
            equal(scene.statuses(), ["planned", "planned"], "the messages")
            ledger.write(lambda c: replies.accept(c, reply, node=node, now=NOW, present=only(b"update"))).result()
            needed = ledger.read(lambda c: references.of_run(c, scene.run))
            equal(needed, {digest_of(b"update"): 6}, "what is needed while the round is open")
            ledger.write(lambda c: runs.close_round(c, scene.run, scene.close(), now=NOW, present=nowhere)).result()
            equal(ledger.read(lambda c: references.of_run(c, scene.run)), {}, "what is needed afterwards")

    def test_a_reply_to_a_lost_message_is_late(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            keys = [(scene.run, 11), (scene.run, 13)]
            gone = ledger.write(lambda c: messages.lose(c, keys, "silent for 75 s", node=scene.nodes[0].id)).result()
            equal(gone, [(scene.run, 11)], "what was open")
            for _ in range(2):
                answer = _accept(scene, scene.reply())
                equal(answer, replies.Accepted(counted=False, reason="late: silent for 75 s"), "the answer")
            equal(ledger.read(lambda c: replies.of_phase(c, scene.run, 1, "train")), [], "what counts")
            first, second = ledger.read(lambda c: messages.questions(c, scene.run))
            equal((first.outcome, first.reason, second.outcome), ("late", "silent for 75 s", "planned"), "the story")

    def test_a_reply_after_its_time_is_late(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            node = scene.nodes[0].id
            answer = ledger.write(
                lambda c: replies.accept(c, scene.reply(), node=node, now=NOW + DAY, present=nowhere)
            ).result()
            true(not answer.counted and "time to live" in answer.reason, f"the answer says why: {answer}")
            equal(scene.statuses(), ["lost", "planned"], "the messages")

    def test_a_cancelled_message_can_be_opened_again(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            keys = [(scene.run, 11), (scene.run, 12)]
            equal(ledger.write(lambda c: messages.cancel(c, keys, "stopped")).result(), keys, "what was open")
            equal(
                _accept(scene, scene.reply()), replies.Accepted(counted=False, reason="cancelled: stopped"), "a reply"
            )
            equal(ledger.write(lambda c: messages.cancel(c, keys, "again")).result(), [], "what is open")
            reopened = ledger.write(lambda c: messages.reopen(c, scene.run, now=NOW + 2 * DAY)).result()
            equal(reopened, keys, "what is open again")
            rows = [(row.status, row.fence, row.reason) for row in scene.phase().messages]
            equal(rows, [("planned", 2, "")] * 2, "the messages")
            with refused(Fenced, "a reply from before"):
                _accept(scene, scene.reply())
            node = scene.nodes[0].id
            answer = ledger.write(
                lambda c: replies.accept(c, scene.reply(fence=2), node=node, now=NOW + 2 * DAY, present=nowhere)
            ).result()
            true(answer.counted, "a reply under the next number counts")

    def test_a_phase_can_be_prolonged(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            for now in (NOW + 4 * DAY, NOW - DAY):  # an earlier time takes nothing away
                ledger.write(lambda c, now=now: messages.prolong(c, scene.run, now=now)).result()  # type: ignore[misc]
                ends = {row.created_at + row.ttl for row in ledger.read(messages.open_messages)}
                equal(ends, {NOW + 5 * DAY}, "when the messages end")
            node, now = scene.nodes[0].id, NOW + 4.5 * DAY
            answer = ledger.write(lambda c: replies.accept(c, scene.reply(), node=node, now=now, present=nowhere))
            true(answer.result().counted, "a reply within a day counts")

    def test_a_closed_round_stays_closed(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            _accept(scene, scene.reply(11))
            _accept(scene, scene.reply(12), node=1)
            ledger.write(lambda c: runs.close_round(c, scene.run, scene.close(), now=NOW, present=nowhere)).result()
            equal(ledger.read(lambda c: replies.of_phase(c, scene.run, 1, "train")), [], "the replies")
            true(_accept(scene, scene.reply(11)).counted, "the same reply again is answered as before")
            with refused(ReplyConflict, "another reply"):
                _accept(scene, scene.reply(11, b"[2]"))
            equal(ledger.write(lambda c: messages.reopen(c, scene.run, now=NOW)).result(), [], "what reopen() opens")
            first, second = ledger.read(lambda c: messages.questions(c, scene.run))
            equal((first.outcome, first.sent, first.received), ("accepted", 7, 3), "what became of the first")
            equal(first.seconds, {"train": 0.5, "gate": 0.1}, "where its time went")
            equal((second.node, second.outcome, second.reason), ("south", "refused", "NaN"), "and of the second")
            equal(ledger.read(lambda c: messages.questions(c, scene.run, after_round=1)), [], "of later rounds")

    def test_runs_do_not_meet(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            owner = join(ledger, "eve", "user").id
            other = ledger.write(lambda c: runs.create(c, "{}", owner, now=NOW, present=nowhere)).result().id
            plan = messages.Plan(other, 1, "train", (), content(b"[]"), DAY, (messages.Ask(11, 0, scene.nodes[0].id),))
            ledger.write(lambda c: messages.plan(c, plan, now=NOW, present=nowhere)).result()
            _accept(scene, scene.reply())
            equal(len(ledger.read(lambda c: messages.open_messages(c, scene.nodes[0].id))), 1, "what the node has left")
            equal(ledger.write(lambda c: messages.cancel(c, [(other, 11)], "")).result(), [(other, 11)], "cancelled")
            equal(scene.statuses(), ["replied", "planned"], "the messages of the first run")


def _accept(scene: Planned, reply: Reply, node: int = 0) -> replies.Accepted:
    asked = scene.nodes[node].id
    return scene.ledger.write(lambda c: replies.accept(c, reply, node=asked, now=NOW + 1, present=nowhere)).result()
