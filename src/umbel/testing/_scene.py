"""What the tests of a ledger begin with: members, a run, a planned phase."""

from collections.abc import Callable
from typing import Final

from blake3 import blake3

from umbel.envelope import Content, NamedPart, Part
from umbel.store import Ledger, members, messages, runs
from umbel.store.replies import Reply

NOW: Final = 1_800_000_000.0
DAY: Final = 86_400.0


def digest_of(data: bytes) -> str:
    """Return the digest of some bytes."""
    return f"blake3:{blake3(data).hexdigest()}"


def content(data: bytes = b"{}") -> Content:
    """Return a content that travels inside its description."""
    return Content((), Part(digest_of(data), len(data), data))


def with_blob(data: bytes) -> Content:
    """Return a content with a model that is a blob."""
    return Content((NamedPart("model", Part(digest_of(data), len(data))),), content().rest)


def nowhere(_: str) -> None:
    """Say that the store has no blob."""


def only(*datas: bytes) -> Callable[[str], int | None]:
    """Say that the store has these blobs."""
    return {digest_of(data): len(data) for data in datas}.get


def token(ledger: Ledger, kind: str = "node", *, uses: int = 1) -> members.NewToken:
    """Make a token that is valid for a day."""
    return ledger.write(lambda c: members.new_token(c, kind, uses=uses, expires_at=NOW + DAY, now=NOW)).result()


def join(ledger: Ledger, name: str, kind: str = "node", key: bytes = b"") -> members.Member:
    """Let a member join, with a token of its own."""
    secret = token(ledger, kind).secret
    arrival = members.Arrival(secret, key or blake3(f"{kind} {name}".encode()).digest(), kind, name, "app", ("train",))
    return ledger.write(lambda c: members.join(c, arrival, NOW)).result()


def submit(ledger: Ledger, owner: str = "ada") -> runs.Run:
    """Submit a run, by a user who joins for it."""
    user = join(ledger, owner, "user")
    return ledger.write(lambda c: runs.create(c, '{"app":"app"}', user.id, now=NOW, present=nowhere)).result()


class Planned:
    """A run whose first round is planned, with two nodes."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.nodes = [join(ledger, name) for name in ("north", "south")]
        self.run = submit(ledger).id
        self.plan(1)

    def plan(self, number: int) -> None:
        """Plan the training of a round: messages 10 * round + 1 and + 2."""
        roster = tuple((node.name, node.id) for node in self.nodes)
        asks = tuple(messages.Ask(10 * number + slot + 1, slot, node.id) for slot, node in enumerate(self.nodes))
        plan = messages.Plan(self.run, number, "train", roster, content(), DAY, asks)
        self.ledger.write(lambda c: messages.plan(c, plan, now=NOW, present=nowhere)).result()

    def phase(self, number: int = 1) -> messages.Phase:
        """Return the planned phase of a round."""
        found = self.ledger.read(lambda c: messages.phase(c, self.run, number, "train"))
        if found is None:
            raise AssertionError(f"expected that round {number} is planned")
        return found

    def statuses(self, number: int = 1) -> list[str]:
        """Return the statuses of the messages of a round."""
        return [row.status for row in self.phase(number).messages]

    def reply(self, message: int = 11, data: bytes = b"[1]", fence: int = 1) -> Reply:
        """Return a reply to a message."""
        return Reply(self.run, message, fence, content=content(data), received=len(data), seconds={"train": 0.5})

    def close(self, number: int = 1, state: Content | None = None) -> runs.Closing:
        """Return the end of a round in which both nodes were accepted."""
        outcomes = (
            runs.Outcome(10 * number + 1, "accepted", sent=7, seconds={"train": 0.5, "gate": 0.1}),
            runs.Outcome(10 * number + 2, "refused", "NaN"),
        )
        return runs.Closing(number, f'{{"round":{number}}}', state or content(b"[%d]" % number), f"d{number}", outcomes)
