"""What a ledger must do where rounds overlap: with messages that are in flight when their round is closed."""

from typing import Final

from umbel.envelope import Content, blobs_of
from umbel.errors import Fenced, NotFound, WrongState
from umbel.store import messages, references, replies, runs
from umbel.store.replies import Reply
from umbel.testing._expect import equal, refused, true
from umbel.testing._members import OpenLedger
from umbel.testing._scene import DAY, NOW, Planned, content, nowhere, only, with_blob

_PRESENT: Final = only(b"update", b"other")


class FlightTests:
    """Phases that grow, messages that outlive their round, and a message that goes to another node."""

    def test_a_phase_is_extended(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            _extend(scene, 1, 13, now=NOW + 5)
            phase = scene.phase()
            rows = [(row.message, row.slot, row.node, row.fence, row.status) for row in phase.messages]
            equal(rows[-1], (13, 2, scene.nodes[0].id, 1, "planned"), "who is asked further")
            equal((len(rows), phase.content, phase.created_at), (3, content(), NOW), "what stays")
            equal(phase.ttl, DAY + 5, "how long the messages live")
            equal([each.message for each in ledger.read(messages.open_messages)], [11, 12, 13], "what is open")
            with refused(WrongState, "extend() of a phase that is not planned"):
                _extend(scene, 2, 23)
            _close(scene, 1, ())
            with refused(WrongState, "extend() of a phase that is closed"):
                _extend(scene, 1, 14)

    def test_a_message_goes_to_another_node(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            north, south = (node.id for node in scene.nodes)
            _accept(scene, Reply(scene.run, 11, 1, content=with_blob(b"update")))
            fence = ledger.write(lambda c: messages.reassign(c, (scene.run, 11), node=south)).result()
            equal(fence, 2, "the next number")
            equal(ledger.read(lambda c: replies.of_message(c, scene.run, 11)), None, "what was answered")
            equal(ledger.read(lambda c: references.of_run(c, scene.run)), {}, "what is needed")
            with refused(NotFound, "another number for the node that had it"):
                ledger.write(lambda c: messages.raise_fence(c, (scene.run, 11), node=north, fence=1)).result()
            gone = ledger.write(lambda c: messages.lose(c, [(scene.run, 11)], "silent", node=north)).result()
            equal(gone, [], "what is lost with the node that had it")
            with refused(NotFound, "a reply of the node that had it"):
                _accept(scene, scene.reply(fence=2), north)
            with refused(Fenced, "a reply under the old number"):
                _accept(scene, scene.reply(), south)
            true(_accept(scene, scene.reply(fence=2), south).counted, "the other node's reply counts")
            with refused(NotFound, "reassign() of no message"):
                ledger.write(lambda c: messages.reassign(c, (scene.run, 99), node=south)).result()

    def test_a_message_in_flight_outlives_its_round(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            for message, data in ((11, b"update"), (12, b"other")):
                _accept(scene, Reply(scene.run, message, 1, content=with_blob(data)), scene.nodes[message - 11].id)
            _close(scene, 1, (12,))
            equal((scene.phase().closed_at, scene.phase().content), (None, content()), "the phase")
            equal(scene.statuses(), ["accepted", "replied"], "the messages")
            equal(_needed(scene), set(blobs_of(with_blob(b"other"))), "what is needed")
            given = ledger.read(lambda c: replies.of_message(c, scene.run, 12))
            equal(None if given is None else given.content, with_blob(b"other"), "the reply that will count")
            equal(ledger.read(lambda c: replies.of_message(c, scene.run, 11)), None, "the one that has counted")
        with open_ledger() as ledger:
            scene.ledger = ledger
            _close(scene, 2, (), runs.Outcome(12, "accepted", "late, and welcome"))
            equal((scene.phase().closed_at, scene.phase().content), (NOW + 2, None), "the phase, at the end")
            equal(scene.statuses(), ["accepted", "accepted"], "the messages, at the end")
            equal(_needed(scene), set(), "what is needed at the end")

    def test_what_is_in_flight_when_the_run_ends_is_lost(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            _close(scene, 1, ())
            equal(scene.statuses(), ["accepted", "lost"], "the messages")
            equal(scene.phase().messages[1].reason, "the run was complete without it", "the reason")
            answer = _accept(scene, scene.reply(12), scene.nodes[1].id)
            equal(answer, replies.Accepted(counted=False, reason="late: the run was complete without it"), "a reply")

    def test_what_is_in_flight_can_be_opened_again(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            _extend(scene, 1, 13)
            _close(scene, 1, (12,), runs.Outcome(11, "accepted"), runs.Outcome(13, "refused", "NaN"))
            scene.plan(2)
            keys = [(scene.run, message) for message in (12, 21, 22)]
            equal(ledger.write(lambda c: messages.cancel(c, keys, "stopped")).result(), keys, "what was open")
            equal(ledger.write(lambda c: messages.reopen(c, scene.run, now=NOW + 1)).result(), keys, "what is again")
            equal(scene.statuses(), ["accepted", "planned", "refused"], "what the closed round has decided stays")
            equal([row.fence for row in scene.phase().messages], [1, 2, 1], "the numbers")

    def test_a_round_is_not_forgotten_while_a_message_of_it_is_in_flight(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            scene = Planned(ledger)
            _close(scene, 1, (12,))
            for number in (2, 3):
                scene.plan(number)
                _close(scene, number, (12,), *scene.close(number).outcomes)
            equal(ledger.write(lambda c: runs.trim(c, scene.run, 1)).result(), 2, "how many messages went")
            equal((len(scene.statuses(1)), len(scene.statuses(3))), (2, 2), "those that stay")
            true(_accept(scene, scene.reply(12), scene.nodes[1].id).counted, "the reply counts")


def _extend(scene: Planned, number: int, message: int, *, now: float = NOW) -> None:
    asks = (messages.Ask(message, 2, scene.nodes[0].id),)
    plan = messages.Plan(scene.run, number, "train", (), content(b"[]"), DAY, asks)
    scene.ledger.write(lambda c: messages.extend(c, plan, now=now)).result()


def _accept(scene: Planned, reply: Reply, node: int = 0) -> replies.Accepted:
    asked = node or scene.nodes[0].id
    return scene.ledger.write(lambda c: replies.accept(c, reply, node=asked, now=NOW + 1, present=_PRESENT)).result()


def _close(scene: Planned, number: int, flying: tuple[int, ...], *outcomes: runs.Outcome) -> None:
    told = outcomes or (runs.Outcome(11, "accepted"),)
    state: Content = content(b"[%d]" % number)
    closing = runs.Closing(number, "{}", state, f"d{number}", told, flying)
    scene.ledger.write(lambda c: runs.close_round(c, scene.run, closing, now=NOW + number, present=nowhere)).result()


def _needed(scene: Planned) -> set[str]:
    return set(scene.ledger.read(lambda c: references.of_run(c, scene.run)))
