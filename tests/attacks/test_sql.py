"""A24: text that would be SQL, and numbers of somebody else. Text is data, and what is not yours is not there."""

import pytest
import sqlalchemy as sa

from umbel.errors import BadName, NotFound, TokenUnknown, UmbelError, UsageError
from umbel.store import Ledger, audit, members, messages, references, replies, runs
from umbel.store._tables import METADATA
from umbel.testing._scene import NOW, Planned, content, join, nowhere, submit, token

TEXTS = [
    "'",
    '"',
    "'; DROP TABLE runs; --",
    "' OR '1'='1",
    "%",
    "_",
    "%s %(name)s {0} :name ?",
    "\\",
    "\\'; --",
    "\N{GRINNING FACE}\N{SNOWMAN}",
    "--",
    "/* */",
    "NULL",
    "a" * 1_000_000,
    "\ufffd",
]
UNKEPT = ["\0", "a\0b", "\ud800", "\udcff"]
NUMBERS = [0, -1, 2**31, 2**62, 2**63 - 1, -(2**63)]
BEYOND = [2**63, -(2**63) - 1, 2**64, 10**100]


@pytest.fixture
def ledger(ledger_url):
    with Ledger.open(ledger_url) as opened:
        yield opened


@pytest.fixture
def scene(ledger):
    """A run of ada with two nodes, and what the ledger holds must be left as it is."""
    planned = Planned(ledger)
    before = everything(ledger)
    yield planned
    assert everything(ledger) == before


def everything(ledger):
    def rows(connection):
        return {table.name: sorted(map(repr, connection.execute(sa.select(table)))) for table in METADATA.sorted_tables}

    return ledger.read(rows)


def outcome(ledger, op):
    """What an operation returns, or the class of ours that it raises; any other error is a failure of the test."""
    try:
        return ledger.write(op).result()
    except UmbelError as error:
        return type(error)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text)[:20])
def test_text_comes_back_as_it_was(ledger, text):
    scene = Planned(ledger)
    node = scene.nodes[0].id
    ledger.write(lambda c: members.describe(c, node, app=text[:3_000], types=(text,), release=text[:3_000])).result()
    found = ledger.read(lambda c: members.get(c, node))
    assert (found.types, found.app) == ((text,), text[:3_000])
    run = ledger.write(lambda c: runs.create(c, text, scene.ledger.read(runs.every)[0].owner, now=NOW, present=nowhere))
    assert ledger.read(lambda c: runs.get(c, run.result().id)).spec == text
    reason = ledger.write(lambda c: runs.set_status(c, scene.run, "failed", now=NOW, reason=text)).result().reason
    assert reason == text[:4_000]
    error = replies.Reply(scene.run, 11, 1, error_code=1, error_reason=text)
    ledger.write(lambda c: replies.accept(c, error, node=node, now=NOW, present=nowhere)).result()
    (given,) = ledger.read(lambda c: replies.of_phase(c, scene.run, 1, "train"))
    assert given.error_reason == text[:4_000]
    detail = {text[:100]: text}
    entry = ledger.write(lambda c: audit.append(c, actor=text, action=text, now=NOW, detail=detail)).result()
    assert ledger.read(audit.entries)[-1] == entry
    assert entry.detail == detail
    assert ledger.read(audit.verify) == 1


@pytest.mark.parametrize("text", UNKEPT, ids=ascii)
def test_text_that_no_database_keeps_is_refused_or_shown_as_such(ledger, text):
    scene = Planned(ledger)
    reason = ledger.write(lambda c: runs.set_status(c, scene.run, "failed", now=NOW, reason=text)).result().reason
    assert reason.encode()
    assert "\0" not in reason
    assert ledger.write(lambda c: audit.append(c, actor=text, action="x", now=NOW)).result().seq == 1
    assert ledger.read(audit.verify) == 1


@pytest.mark.parametrize("text", [*TEXTS, *UNKEPT], ids=lambda text: ascii(text)[:20])
def test_a_name_that_is_sql_finds_nothing(ledger, scene, text):
    for op in (
        lambda c: members.by_name(c, "node", text),
        lambda c: members.by_name(c, text, "north"),
        lambda c: runs.find(c, text),
        lambda c: runs.find(c, f"{text}{runs.get(c, scene.run).name}"),
    ):
        assert outcome(ledger, op) in (NotFound, UsageError)
    assert (
        ledger.read(lambda c: messages.phase(c, scene.run, 1, text.replace("\0", "").encode(errors="replace").decode()))
        is None
    )
    assert ledger.read(
        lambda c: references.unreferenced(c, [text[:100].replace("\0", "").encode(errors="replace").decode()])
    )


@pytest.mark.parametrize("text", [*TEXTS, *UNKEPT], ids=lambda text: ascii(text)[:20])
def test_a_token_that_is_sql_opens_nothing(ledger, scene, text):
    secret = text.encode(errors="replace")[:1_000]
    for kind in ("node", "user", text):
        arrival = members.Arrival(secret, bytes(32), kind, "new")
        assert outcome(ledger, lambda c, a=arrival: members.join(c, a, NOW)) is TokenUnknown


@pytest.mark.parametrize(
    "text", [*UNKEPT, "a" * 1_000_000, "", "\N{RIGHT-TO-LEFT OVERRIDE}a"], ids=lambda text: ascii(text)[:20]
)
def test_a_name_that_cannot_be_read_is_refused(ledger, text):
    arrival = members.Arrival(token(ledger).secret, bytes(32), "node", text)
    assert outcome(ledger, lambda c: members.join(c, arrival, NOW)) is BadName
    assert ledger.read(members.every) == []


@pytest.mark.parametrize("number", [*NUMBERS, *BEYOND])
def test_a_number_that_names_nothing_finds_nothing(ledger, scene, number):
    node = scene.nodes[0].id
    reply = replies.Reply(scene.run, number, 1, content=content())
    of_run = replies.Reply(number, 11, 1, content=content())
    refused = NotFound if number in NUMBERS else UsageError
    for op in (
        lambda c: members.get(c, number),
        lambda c: members.revoke(c, number, NOW),
        lambda c: members.rotate(c, number, bytes(32)),
        lambda c: members.revoke_token(c, number),
        lambda c: runs.get(c, number),
        lambda c: runs.get(c, scene.run, number),
        lambda c: runs.state(c, number),
        lambda c: runs.set_status(c, number, "running", now=NOW),
        lambda c: messages.raise_fence(c, (scene.run, number), node=node, fence=1),
        lambda c: messages.raise_fence(c, (number, 11), node=node, fence=1),
        lambda c: messages.raise_fence(c, (scene.run, 11), node=number, fence=1),
        lambda c: replies.accept(c, reply, node=node, now=NOW, present=nowhere),
        lambda c: replies.accept(c, of_run, node=node, now=NOW, present=nowhere),
        lambda c: replies.accept(c, scene.reply(), node=number, now=NOW, present=nowhere),
    ):
        assert outcome(ledger, op) is refused


def test_what_is_not_yours_is_not_there(ledger, scene):
    stranger, eve = join(ledger, "stranger"), submit(ledger, "eve")
    ada = ledger.read(lambda c: runs.get(c, scene.run)).owner
    absent = str(failure(ledger, lambda c: runs.get(c, 10**6, eve.owner)))
    foreign = str(failure(ledger, lambda c: runs.get(c, scene.run, eve.owner)))
    assert foreign.replace(str(scene.run), "N") == absent.replace(str(10**6), "N")
    assert ledger.read(lambda c: runs.get(c, scene.run, ada)).id == scene.run
    for node in (stranger.id, scene.nodes[1].id):
        for op in (
            lambda c, n=node: replies.accept(c, scene.reply(), node=n, now=NOW, present=nowhere),
            lambda c, n=node: messages.raise_fence(c, (scene.run, 11), node=n, fence=1),
        ):
            assert isinstance(failure(ledger, op), NotFound)
    ledger.write(forget(stranger.id, eve.id, eve.owner)).result()


def failure(ledger, op):
    return ledger.write(op).exception()


def forget(node, run, owner):
    """Take back what the test has added, so that the rest can be compared."""

    def op(connection):
        connection.execute(sa.text("DELETE FROM runs WHERE id = :run"), {"run": run})
        connection.execute(sa.text("DELETE FROM members WHERE id IN (:node, :owner)"), {"node": node, "owner": owner})
        newest = sa.text("DELETE FROM tokens WHERE id IN (SELECT id FROM tokens ORDER BY id DESC LIMIT 2)")
        return connection.execute(newest).rowcount

    return op
