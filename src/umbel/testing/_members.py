"""What a ledger must do with members, tokens and the audit log."""

from collections.abc import Callable
from typing import Final, TypeAlias

import sqlalchemy as sa

from umbel.errors import (
    AuditBroken,
    BadName,
    Conflict,
    MemberRevoked,
    NameTaken,
    NotFound,
    TokenExpired,
    TokenRevoked,
    TokenUnknown,
    TokenUsed,
    UmbelError,
    UsageError,
)
from umbel.store import Ledger, audit, members
from umbel.testing._expect import equal, refused, true
from umbel.testing._scene import DAY, NOW, join, token

OpenLedger: TypeAlias = Callable[[], Ledger]

_NAMES: Final = (
    "'; DROP TABLE members; --",
    '"',
    "%",
    "_",
    "\N{SNOWMAN}",
    "\N{GRINNING FACE}",
    "back\\slash",
    "a" * 128,
)
_NO_NAMES: Final = ("", " a", "a ", "a\0b", "a\nb", "e\u0301", "\ud800", "\u202ea", "a" * 129)


class MemberTests:
    """Who is a member, and who becomes one."""

    def test_a_token_lets_one_member_in(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            made = token(ledger)
            arrival = members.Arrival(made.secret, bytes(32), "node", "north", "app", ("train", "query"), "1.0")
            member = ledger.write(lambda c: members.join(c, arrival, NOW)).result()
            equal((member.name, member.types, member.joined_at), ("north", ("train", "query"), NOW), "the member")
            equal(ledger.read(lambda c: members.get(c, member.id)), member, "get()")
            equal(ledger.read(lambda c: members.by_key(c, bytes(32))), member, "by_key()")
            equal(ledger.read(lambda c: members.by_name(c, "node", "north")), member, "by_name()")
            (left,) = ledger.read(members.tokens)
            equal((left.uses_left, left.used_by), (0, (member.id,)), "the token afterwards")

    def test_who_joins_again_is_the_same_member(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            arrival = members.Arrival(token(ledger).secret, bytes(32), "node", "north")
            first, again = (ledger.write(lambda c: members.join(c, arrival, NOW)).result() for _ in range(2))
            equal(again, first, "the member that joins twice with a token of one use")
            equal(len(ledger.read(members.every)), 1, "how many members there are")

    def test_a_token_that_opens_nothing_says_why(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            used, revoked = token(ledger), token(ledger)
            join(ledger, "north")
            ledger.write(lambda c: members.join(c, members.Arrival(used.secret, b"1" * 32, "node", "a"), NOW)).result()
            ledger.write(lambda c: members.revoke_token(c, revoked.token.id)).result()
            cases: list[tuple[bytes, str, float, type[UmbelError]]] = [
                (used.secret, "node", NOW, TokenUsed),
                (revoked.secret, "node", NOW, TokenRevoked),
                (token(ledger).secret, "node", NOW + DAY, TokenExpired),
                (token(ledger).secret, "user", NOW, TokenUnknown),
                (token(ledger).secret, "no\0kind", NOW, TokenUnknown),
                (b"guess", "node", NOW, TokenUnknown),
            ]
            for secret, kind, now, error in cases:
                arrival = members.Arrival(secret, b"2" * 32, kind, "b")
                with refused(error, f"join() with a token that is {error.code}"):
                    ledger.write(lambda c, a=arrival, n=now: members.join(c, a, n)).result()  # type: ignore[misc]
            equal(len(ledger.read(members.every)), 2, "how many members there are")

    def test_a_token_is_for_somebody_and_for_a_while(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            for kind, uses, valid in (("admin", 1, DAY), ("node", 0, DAY), ("node", 2**31, DAY), ("node", 1, 0.0)):
                with refused(UsageError, f"new_token({kind!r}, uses={uses}) for {valid} s"):
                    ledger.write(
                        lambda c, k=kind, u=uses, v=valid: members.new_token(  # type: ignore[misc]
                            c, k, uses=u, expires_at=NOW + v, now=NOW
                        )
                    ).result()
            with refused(NotFound, "revoke_token() of no token"):
                ledger.write(lambda c: members.revoke_token(c, 17)).result()

    def test_a_name_has_one_living_member(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            first = join(ledger, "north")
            join(ledger, "north", "user")
            with refused(NameTaken, "join() under the name of another"):
                join(ledger, "north", key=b"k" * 32)
            ledger.write(lambda c: members.revoke(c, first.id, NOW + 1)).result()
            with refused(NotFound, "by_name() of a member that was revoked"):
                ledger.read(lambda c: members.by_name(c, "node", "north"))
            second = join(ledger, "north", key=b"k" * 32)
            true(second.id != first.id, "the next member of that name is another one")
            equal(ledger.read(lambda c: members.by_name(c, "node", "north")), second, "by_name()")

    def test_a_revoked_member_stays_out(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            gone = join(ledger, "north", key=b"k" * 32)
            for now in (NOW + 1, NOW + 2):
                revoked = ledger.write(lambda c, n=now: members.revoke(c, gone.id, n)).result()  # type: ignore[misc]
                equal(revoked.revoked_at, NOW + 1, "when it was revoked")
            with refused(MemberRevoked, "join() with the key of a revoked member"):
                join(ledger, "other", key=b"k" * 32)
            with refused(MemberRevoked, "rotate() of a revoked member"):
                ledger.write(lambda c: members.rotate(c, gone.id, b"l" * 32)).result()

    def test_a_key_can_change(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            north, south = join(ledger, "north"), join(ledger, "south")
            for _ in range(2):
                equal(ledger.write(lambda c: members.rotate(c, north.id, b"n" * 32)).result().key, b"n" * 32, "the key")
            equal(ledger.read(lambda c: members.by_key(c, north.key)), None, "by_key() of the old key")
            with refused(Conflict, "rotate() to the key of another"):
                ledger.write(lambda c: members.rotate(c, north.id, south.key)).result()
            with refused(UsageError, "rotate() to a key that is too short"):
                ledger.write(lambda c: members.rotate(c, north.id, b"short")).result()

    def test_members_are_seen_and_described(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            north, south = join(ledger, "north"), join(ledger, "south")
            ledger.write(lambda c: members.touch(c, {north.id: NOW + 5, south.id: NOW - 5})).result()
            ledger.write(lambda c: members.touch(c, {})).result()
            ledger.write(lambda c: members.describe(c, south.id, app="b", types=("x",), release="2\0")).result()
            found = ledger.read(lambda c: members.every(c, "node"))
            equal([each.last_seen for each in found], [NOW + 5, NOW], "when they were seen")
            equal((found[1].app, found[1].types), ("b", ("x",)), "what the second runs")

    def test_names_are_data(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            for name in _NAMES:
                member = join(ledger, name)
                equal(ledger.read(lambda c, n=name: members.by_name(c, "node", n)), member, f"{name!r}")  # type: ignore[misc]
            for name in _NO_NAMES:
                with refused(BadName, f"a member called {name!a}"):
                    join(ledger, name, key=b"k" * 32)
                with refused(NotFound, f"by_name({name!a})"):
                    ledger.read(lambda c, n=name: members.by_name(c, "node", n))  # type: ignore[misc]
            equal(len(ledger.read(members.every)), len(_NAMES), "how many members there are")


class AuditTests:
    """The chain of who did what."""

    def test_entries_follow_from_one_another(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            equal(ledger.read(audit.verify), 0, "how long an empty log is")
            for number in range(3):
                ledger.write(lambda c, n=number: _did(c, n)).result()  # type: ignore[misc]
            head = ledger.read(audit.head)
            equal((ledger.read(audit.verify), head.seq), (3, 3), "how long the log is")
        with open_ledger() as ledger:
            ledger.write(lambda c: _did(c, 3)).result()
            equal(ledger.read(lambda c: audit.verify(c, head)), 4, "how long it is with one more")
            found = ledger.read(lambda c: audit.entries(c, after=2, limit=1))
            equal([(each.seq, each.detail) for each in found], [(3, {"number": 2, "text": "\0'"})], "a page of it")
            equal(found[0].hash, head.hash, "the hash of what was the last one")

    def test_an_edited_log_is_found(self, open_ledger: OpenLedger) -> None:
        for edit in (
            "UPDATE audit SET actor = 'nobody' WHERE seq = 2",
            "UPDATE audit SET at = at + 1 WHERE seq = 2",
            "DELETE FROM audit WHERE seq = 2",
            "UPDATE audit SET seq = 9 WHERE seq = 3",
        ):
            with open_ledger() as ledger:
                for number in range(3):
                    ledger.write(lambda c, n=number: _did(c, n)).result()  # type: ignore[misc]
                true(ledger.read(audit.verify), "the log was whole")
                ledger.write(lambda c, e=edit: c.execute(sa.text(e)).rowcount).result()  # type: ignore[misc]
                with refused(AuditBroken, f"verify() after {edit}"):
                    ledger.read(audit.verify)
                ledger.write(lambda c: c.execute(sa.text("DELETE FROM audit")).rowcount).result()

    def test_a_log_that_was_cut_is_found_by_whoever_kept_its_head(self, open_ledger: OpenLedger) -> None:
        with open_ledger() as ledger:
            for number in range(3):
                ledger.write(lambda c, n=number: _did(c, n)).result()  # type: ignore[misc]
            head = ledger.read(audit.head)
            ledger.write(lambda c: c.execute(sa.text("DELETE FROM audit WHERE seq = 3")).rowcount).result()
            equal(ledger.read(audit.verify), 2, "how long the log is without its end")
            with refused(AuditBroken, "verify() with the head that was kept"):
                ledger.read(lambda c: audit.verify(c, head))


def _did(connection: sa.Connection, number: int) -> audit.Entry:
    detail = {"number": number, "text": "\0'"}
    return audit.append(connection, actor="user ada", action="run.stop", now=NOW + number, detail=detail)
