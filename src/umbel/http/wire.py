"""What crosses the wire, as frozen values: the bodies of all requests and answers that are JSON.

`docs/spec/api.md` numbers the endpoints and says which of these each takes and returns. Unknown fields are refused, so
that a misspelt one is not silently lost; a new field is a new version of the protocol.
"""

from typing import Any, Final, TypeAlias

import msgspec

from umbel.envelope import Content

__all__ = [
    "VERSION",
    "Answer",
    "Assignment",
    "Audit",
    "AuditLine",
    "Done",
    "EventLine",
    "Events",
    "Fault",
    "Hello",
    "Join",
    "Joined",
    "NodeRow",
    "Nodes",
    "Poll",
    "Polled",
    "Question",
    "Replied",
    "Resume",
    "Rotate",
    "RunMade",
    "RunRow",
    "RunSpec",
    "RunView",
    "Runs",
    "Task",
    "TokenMade",
    "TokenRequest",
    "TokenRow",
    "Tokens",
]

#: The version of the protocol. The server names all that it speaks; the client takes the highest that both do.
VERSION: Final = 1

#: The configuration of a run: names and plain values.
_Config: TypeAlias = dict[str, bool | int | float | str]


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all bodies have in common."""


class Hello(_Body, frozen=True):
    """The server, to anyone: who it is, what it speaks, and its clock in seconds since 1970.

    ``audience`` goes into every signature. It changes with every start of the server, so that no request from before
    a restart can be played again after it. ``skew`` is how far ahead, in seconds, a signature may expire.
    """

    server: str
    audience: str
    versions: list[int]
    release: str
    time: float
    skew: float = 60.0


class Fault(_Body, frozen=True):
    """Why a request was refused: the code of an error class, what was expected and came, where, and a hint."""

    code: str
    message: str
    at: str = ""
    retry_after: float | None = None


class Done(_Body, frozen=True):
    """What was asked is done, and there is no more to say."""


class Join(_Body, frozen=True):
    """A new member: the secret of its join token, its public key (32 bytes, Ed25519), and what it is.

    ``kind`` is "node", "user" or "operator". A node says which app it runs and the message types that the app handles.
    """

    secret: bytes
    key: bytes
    kind: str
    name: str
    app: str = ""
    types: list[str] = []
    release: str = ""


class Joined(_Body, frozen=True):
    """The member that was made, or found again if this key had joined before."""

    member: int
    name: str


class Rotate(_Body, frozen=True):
    """A member's new public key, and its signature by the new key over the member id and the audience."""

    key: bytes
    proof: bytes


class Assignment(_Body, frozen=True):
    """A message that a node holds: which, and under which fencing number."""

    run: int
    message: int
    fence: int


class Poll(_Body, frozen=True):
    """A node asks for work and shows that it lives.

    ``instance`` is drawn at the start of its process; ``holding`` is what its spool has of messages not yet answered;
    ``room`` how many more it takes now. ``app``, ``types`` and ``release`` say what it runs at present.
    """

    instance: str
    holding: list[Assignment]
    room: int
    app: str
    types: list[str]
    release: str


class Task(_Body, frozen=True):
    """A message for a node, with all that its context needs.

    ``seed`` is the node's for this message; ``created_at`` and ``ttl`` are on the server's clock.
    """

    run: int
    run_name: str
    message: int
    fence: int
    round: int
    message_type: str
    seed: int
    created_at: float
    ttl: float
    run_config: _Config
    content: Content


class Polled(_Body, frozen=True):
    """Work for a node, and which of the messages that it holds it may forget."""

    tasks: list[Task]
    cancelled: list[Assignment]


class Answer(_Body, frozen=True):
    """A node's reply: content or an error, never both, and where its seconds went, by phase."""

    run: int
    message: int
    fence: int
    content: Content | None = None
    error_code: int | None = None
    error_reason: str | None = None
    seconds: dict[str, float] = {}


class Replied(_Body, frozen=True):
    """The server has the reply on its disk. ``counted`` is false for a reply that came too late to count."""

    counted: bool
    reason: str = ""


class RunSpec(_Body, frozen=True):
    """A run, as data: the server drives it and runs no code of whoever submits it.

    ``strategy`` is a name and its numbers. ``nodes`` is how many nodes, or the names of those, that must be there
    before the run begins. ``initial`` is the model to begin with.

    A run whose main is elsewhere has ``{"main": "module:name"}`` as its strategy, no rounds, and no ``initial`` model.
    """

    app: str
    strategy: dict[str, Any]
    rounds: int
    seed: int
    config: _Config
    nodes: int | list[str]
    initial: Content


class RunMade(_Body, frozen=True):
    """The number and the name of a run that was accepted."""

    run: int
    name: str


class Resume(_Body, frozen=True):
    """A run is to go on; ``rounds`` raises the number of rounds that it has in all."""

    rounds: int | None = None


class RunRow(_Body, frozen=True):
    """A run in a list. ``status`` is one of waiting, running, stopping, stopped, completed, failed."""

    run: int
    name: str
    app: str
    strategy: str
    status: str
    reason: str
    completed: int
    rounds: int
    owner: str
    created_at: float
    ended_at: float | None


class Runs(_Body, frozen=True):
    """The runs that the asker may see, the newest first."""

    runs: list[RunRow]


class Question(_Body, frozen=True):
    """What became of one message of a round, and where its seconds went, by phase.

    ``outcome`` is one of queued, sent, replied, accepted, refused, lost, cancelled, late.
    """

    round: int
    phase: str
    node: str
    outcome: str
    reason: str
    sent: int
    received: int
    seconds: dict[str, float]


class RunView(_Body, frozen=True):
    """A run in full: its specification, the reports of its rounds as JSON of ``umbel.history``, and who was asked."""

    row: RunRow
    spec: RunSpec
    reports: list[Any]
    questions: list[Question]
    restarts: list[float]
    digest: str
    model: Content | None


class EventLine(_Body, frozen=True):
    """One event of a run: its number, and what ``umbel.rounds`` calls it, without the state."""

    number: int
    kind: str
    fields: dict[str, Any]


class Events(_Body, frozen=True):
    """The events of a run after a number; ``ended`` when no more will come."""

    events: list[EventLine]
    ended: bool


class NodeRow(_Body, frozen=True):
    """A node as the server knows it. ``status`` is one of online, unheard, silent, revoked."""

    member: int
    name: str
    app: str
    types: list[str]
    status: str
    joined_at: float
    last_seen: float
    release: str


class Nodes(_Body, frozen=True):
    """All nodes of a server, by name."""

    nodes: list[NodeRow]


class TokenRequest(_Body, frozen=True):
    """A wish for a join token: for whom, how often it may be used, and for how many seconds."""

    kind: str = "node"
    uses: int = 1
    valid: float = 86_400.0


class TokenMade(_Body, frozen=True):
    """A join token: its secret is shown once."""

    token: int
    secret: bytes
    expires_at: float


class TokenRow(_Body, frozen=True):
    """A join token in a list, without its secret."""

    token: int
    kind: str
    uses_left: int
    expires_at: float
    revoked: bool


class Tokens(_Body, frozen=True):
    """All join tokens of a server, the newest first."""

    tokens: list[TokenRow]


class AuditLine(_Body, frozen=True):
    """One entry of the audit log: its number, when, who did what to which, and the digest that chains it."""

    number: int
    at: float
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    digest: str


class Audit(_Body, frozen=True):
    """Entries of the audit log after a number, in order; fewer than all of them if they are many."""

    entries: list[AuditLine]
