"""The journal of a main in the ledger: calls that are made once, answers in one order, and the step that brought it."""

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

from umbel.errors import BlobMissing, Conflict, WrongState
from umbel.message import ErrorCode
from umbel.store import Ledger, calls, messages, references, replies
from umbel.store._migrations import STEPS, VERSION
from umbel.store._tables import METADATA
from umbel.testing._scene import DAY, NOW, content, join, nowhere, only, submit, with_blob


class Journal:
    """A run with two nodes, and what a test does to it."""

    def __init__(self, ledger):
        self.ledger = ledger
        self.run = submit(ledger).id
        self.nodes = [join(ledger, name).id for name in ("north", "south")]
        self.roster = (("north", self.nodes[0]), ("south", self.nodes[1]))

    def write(self, op, *args, **kwargs):
        return self.ledger.write(lambda c: op(c, *args, **kwargs)).result()

    def read(self, op, *args):
        return self.ledger.read(lambda c: op(c, *args))

    def plan(self, number, *numbers, said=None, present=nowhere, group=40):
        asks = tuple(messages.Ask(each, slot, self.nodes[slot]) for slot, each in enumerate(numbers))
        plan = messages.Plan(self.run, number, "train", self.roster, said or content(), DAY, asks)
        return self.write(calls.plan, plan, group, now=NOW, present=present)

    def reply(self, message, slot, at, said=None, **error):
        reply = replies.Reply(self.run, message, 1, said if error else content(b"[%d]" % message), **error)
        return self.write(replies.accept, reply, node=self.nodes[slot], now=NOW + at, present=nowhere)


@pytest.fixture
def ledger(ledger_url):
    with Ledger.open(ledger_url) as made:
        yield made


@pytest.fixture
def journal(ledger):
    return Journal(ledger)


def test_a_call_is_made_once_and_found_again(journal):
    made, is_new = journal.plan(1, 7, 8)
    assert (is_new, made.phase, made.group, made.planned.roster) == (True, "train", 40, journal.roster)
    assert journal.plan(1, 9, said=content(b"{ }")) == (made, False)
    assert journal.read(calls.find, journal.run, 1) == made
    assert journal.read(calls.find, journal.run, 2) is None
    assert [row.message for row in made.planned.messages] == [7, 8]


def test_a_roster_alone_is_a_call(journal):
    def roster(*nodes):
        return calls.Call("train", 40, messages.Phase(nodes, None, NOW, 0.0, None, ()))

    assert journal.read(calls.roster, journal.run) is None
    first = journal.write(calls.offer, journal.run, 1, roster(*journal.roster))
    assert journal.write(calls.offer, journal.run, 1, roster()) == first
    assert journal.read(calls.find, journal.run, 1) == first
    assert journal.read(calls.roster, journal.run) == journal.roster
    journal.write(calls.offer, journal.run, 2, roster(("north", journal.nodes[0])))
    assert journal.read(calls.roster, journal.run) == (("north", journal.nodes[0]),)


@pytest.mark.parametrize(
    ("number", "asked", "error", "said"),
    [
        (3, (9,), WrongState, "expected call 2 of the main, got call 3"),
        (0, (9,), WrongState, "expected call 2"),
        (2, (8,), Conflict, "got 8 again"),
        (2, (9, 9), Conflict, "got 9 again"),
    ],
)
def test_a_call_that_cannot_be_changes_nothing(journal, number, asked, error, said):
    journal.plan(1, 7, 8)
    with pytest.raises(error, match=said):
        journal.plan(number, *asked)
    assert journal.plan(2, 9)[1]


def test_the_blobs_of_a_call_must_be_there_and_are_kept_until_the_end(journal):
    said = with_blob(b"model")
    with pytest.raises(BlobMissing):
        journal.plan(1, 7, said=said)
    journal.plan(1, 7, said=said, present=only(b"model"))
    assert len(journal.read(references.of_run, journal.run)) == 1
    journal.write(calls.close, journal.run, now=NOW)
    assert journal.read(references.of_run, journal.run) == {}
    found = journal.read(calls.find, journal.run, 1).planned
    assert (found.content, found.closed_at, len(found.messages)) == (None, NOW, 1)


def test_messages_and_what_is_asked_of_them_name_the_round_of_the_main(journal):
    journal.plan(1, 7, 8)
    assert [(row.round, row.group) for row in journal.read(messages.open_messages)] == [(1, 40), (1, 40)]
    assert [(each.round, each.sent) for each in journal.read(messages.questions, journal.run)] == [(40, 2), (40, 2)]


def test_what_came_is_told_in_one_order(journal):
    journal.plan(1, 7, 8)
    journal.plan(2, 17, 18)
    assert journal.read(calls.untold, journal.run) == []
    assert journal.read(calls.what_came, journal.run, 7) is None
    journal.reply(8, 1, 2.0)
    journal.reply(7, 0, 5.0, error_code=2, error_reason="no")
    journal.write(messages.lose, [(journal.run, 17)], "silent", node=journal.nodes[0])
    journal.write(messages.cancel, [(journal.run, 18)], "given up")
    assert journal.read(calls.untold, journal.run) == [17, 8, 7]
    journal.write(calls.tell, journal.run, 1, [8])
    journal.write(calls.tell, journal.run, 2, [7, 17])
    assert journal.read(calls.told, journal.run) == [8, 7, 17]
    assert journal.read(calls.untold, journal.run) == []
    eight, seven, lost = (journal.read(calls.what_came, journal.run, each) for each in (8, 7, 17))
    assert (eight.given.content, eight.at) == (content(b"[8]"), NOW + 2.0)
    assert (seven.given.error_code, seven.given.error_reason) == (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "no")
    assert (lost.given, lost.reason, lost.at) == (None, "silent", 0.0)


def test_what_is_open_of_a_run(journal):
    journal.plan(1, 7, 8)
    journal.reply(7, 0, 1.0)
    assert journal.read(calls.open_of, journal.run) == [(journal.run, 8)]


def test_a_ledger_from_before_there_were_mains_gets_their_tables(ledger_url):
    made = {"calls", "told"}
    engine = sa.create_engine(ledger_url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
    with engine.begin() as connection:
        STEPS[0][1](Operations(MigrationContext.configure(connection)))
        VERSION.create(connection)
        connection.execute(sa.insert(VERSION), {"version_num": STEPS[0][0]})
        assert made.isdisjoint(sa.inspect(connection).get_table_names())
        row = {"action": "note", "actor": "test", "detail": "{}", "previous": bytes(32), "hash": bytes(32)}
        connection.execute(sa.insert(METADATA.tables["audit"]), row | {"seq": 1, "at": NOW})
    engine.dispose()
    with Ledger.open(ledger_url) as ledger:
        assert made <= set(ledger.read(lambda c: sa.inspect(c).get_table_names()))
        assert ledger.read(lambda c: c.execute(sa.select(VERSION)).scalars().all()) == [STEPS[-1][0]]
        assert ledger.read(lambda c: c.execute(sa.text("SELECT seq FROM audit")).scalars().all()) == [1]
        assert Journal(ledger).plan(1, 7)[1]
