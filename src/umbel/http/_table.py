"""The numbered table of endpoints, as data: routing, checks and the OpenAPI document follow from it."""

from typing import Final

import msgspec

from umbel import errors
from umbel.errors import UmbelError
from umbel.http import mains, wire

_KIB: Final = 1024

NODE: Final = ("node",)
USER: Final = ("user", "operator")
MEMBER: Final = ("node", "user", "operator")
OPERATOR: Final = ("operator",)
ANYONE: Final[tuple[str, ...]] = ()


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table.

    ``who`` lists the kinds of members that may ask; nobody listed means that anyone may, unsigned. ``query`` has the
    numbers that may follow the path, each with its default, or ``None`` where it must be given. ``limit`` is the
    largest body in bytes. An endpoint that ``waits`` may hold its answer until there is something to say.
    """

    number: int
    name: str
    method: str
    path: str
    text: str
    who: tuple[str, ...] = ANYONE
    query: dict[str, int | None] = {}
    request: type[msgspec.Struct] | None = None
    response: type[msgspec.Struct] | None = None
    limit: int = 64 * _KIB
    waits: bool = False
    errors: tuple[type[UmbelError], ...] = ()


_BLOB: Final = "/v1/blobs/{digest}"
_RUN: Final = "/v1/runs/{run}"
_TOKENS: Final = (errors.TokenUnknown, errors.TokenUsed, errors.TokenExpired, errors.TokenRevoked)
_LATE: Final = (errors.Fenced, errors.ReplyConflict, errors.BlobMissing, errors.NotFound, errors.BadValue)
_DRIVEN: Final = (errors.NotFound, errors.Forbidden, errors.WrongState)
_CALL: Final = (*_DRIVEN, errors.MainDiffers, errors.BadValue)
_LARGE: Final = 4 * _KIB * _KIB

#: Every endpoint of a server, in the order of their numbers.
ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint(
        number=1,
        name="hello",
        method="GET",
        path="/v1/server",
        text="Who the server is, what it speaks, its clock, and the audience that signatures name.",
        response=wire.Hello,
    ),
    Endpoint(
        number=2,
        name="join",
        method="POST",
        path="/v1/join",
        text="Become a member, with the secret of a join token. Repeating it with the same key changes nothing.",
        request=wire.Join,
        response=wire.Joined,
        errors=(*_TOKENS, errors.NameTaken, errors.MemberRevoked, errors.BadName, errors.BadValue),
    ),
    Endpoint(
        number=3,
        name="rotate",
        method="POST",
        path="/v1/key",
        text="Replace one's key by another, signed by the old one.",
        who=MEMBER,
        request=wire.Rotate,
        response=wire.Done,
        errors=(errors.BadSignature, errors.Conflict),
    ),
    Endpoint(
        number=4,
        name="poll",
        method="POST",
        path="/v1/poll",
        text="Ask for work and show that one lives; held until there is work, or for `poll` seconds.",
        who=NODE,
        request=wire.Poll,
        response=wire.Polled,
        limit=1024 * _KIB,
        waits=True,
        errors=(errors.NodeSuperseded, errors.BadValue),
    ),
    Endpoint(
        number=5,
        name="reply",
        method="POST",
        path="/v1/replies",
        text="Answer a message. Answered means that the reply is on the server's disk; repeating it changes nothing.",
        who=NODE,
        request=wire.Answer,
        response=wire.Replied,
        limit=_LARGE,
        errors=_LATE,
    ),
    Endpoint(
        number=6,
        name="stat_blob",
        method="HEAD",
        path=_BLOB,
        text="How long a blob is, or (`Upload-Offset`) how much of it has come.",
        who=MEMBER,
        errors=(errors.NotFound,),
    ),
    Endpoint(
        number=7,
        name="get_blob",
        method="GET",
        path=_BLOB,
        text="The bytes of a blob, or one `Range` of them.",
        who=MEMBER,
        errors=(errors.NotFound, errors.BadRange),
    ),
    Endpoint(
        number=8,
        name="put_blob",
        method="PUT",
        path=_BLOB,
        text="Bytes of a blob of `size` bytes, from `offset` on. It is there once all came and the digest is right.",
        who=MEMBER,
        query={"size": None, "offset": 0},
        errors=(errors.WrongOffset, errors.DigestMismatch, errors.QuotaExceeded, errors.StorageFull),
    ),
    Endpoint(
        number=9,
        name="submit_run",
        method="POST",
        path="/v1/runs",
        text="Start a run. The blobs that it names must be there.",
        who=USER,
        request=wire.RunSpec,
        response=wire.RunMade,
        limit=_LARGE,
        errors=(errors.StrategyError, errors.UsageError, errors.BlobMissing, errors.NotFound, errors.Forbidden),
    ),
    Endpoint(
        number=10,
        name="list_runs",
        method="GET",
        path="/v1/runs",
        text="The runs that one may see, the newest first.",
        who=USER,
        response=wire.Runs,
    ),
    Endpoint(
        number=11,
        name="show_run",
        method="GET",
        path=_RUN,
        text="A run in full.",
        who=USER,
        response=wire.RunView,
        errors=(errors.NotFound,),
    ),
    Endpoint(
        number=12,
        name="run_events",
        method="GET",
        path=f"{_RUN}/events",
        text="The events of a run after number `after`; held until there is one, or for `poll` seconds.",
        who=USER,
        query={"after": 0},
        response=wire.Events,
        waits=True,
        errors=(errors.NotFound,),
    ),
    Endpoint(
        number=13,
        name="stop_run",
        method="POST",
        path=f"{_RUN}/stop",
        text="Stop a run after what is on disk.",
        who=USER,
        request=wire.Done,
        response=wire.Done,
        errors=(errors.NotFound, errors.WrongState),
    ),
    Endpoint(
        number=14,
        name="resume_run",
        method="POST",
        path=f"{_RUN}/resume",
        text="Let a run go on that was stopped or failed; its number of rounds may be raised.",
        who=USER,
        request=wire.Resume,
        response=wire.Done,
        errors=(errors.NotFound, errors.WrongState, errors.UsageError),
    ),
    Endpoint(
        number=15,
        name="list_nodes",
        method="GET",
        path="/v1/nodes",
        text="All nodes, by name.",
        who=USER,
        response=wire.Nodes,
    ),
    Endpoint(
        number=16,
        name="revoke_member",
        method="POST",
        path="/v1/nodes/{member}/revoke",
        text="Exclude a member; within 5 seconds nothing of it is accepted.",
        who=OPERATOR,
        request=wire.Done,
        response=wire.Done,
        errors=(errors.NotFound,),
    ),
    Endpoint(
        number=17,
        name="make_token",
        method="POST",
        path="/v1/tokens",
        text="Make a join token.",
        who=OPERATOR,
        request=wire.TokenRequest,
        response=wire.TokenMade,
    ),
    Endpoint(
        number=18,
        name="list_tokens",
        method="GET",
        path="/v1/tokens",
        text="All join tokens, without their secrets.",
        who=OPERATOR,
        response=wire.Tokens,
    ),
    Endpoint(
        number=19,
        name="revoke_token",
        method="POST",
        path="/v1/tokens/{token}/revoke",
        text="Take a join token back.",
        who=OPERATOR,
        request=wire.Done,
        response=wire.Done,
        errors=(errors.NotFound,),
    ),
    Endpoint(
        number=20,
        name="read_audit",
        method="GET",
        path="/v1/audit",
        text="The audit log after entry `after`.",
        who=OPERATOR,
        query={"after": 0},
        response=wire.Audit,
    ),
    Endpoint(
        number=21,
        name="openapi",
        method="GET",
        path="/v1/openapi.json",
        text="This table as an OpenAPI document.",
    ),
    Endpoint(
        number=22,
        name="metrics",
        method="GET",
        path="/metrics",
        text="Figures for Prometheus, as text.",
        errors=(errors.NotFound,),
    ),
    Endpoint(
        number=23,
        name="offer_nodes",
        method="POST",
        path=f"{_RUN}/nodes",
        text="A call of a main: which nodes there are; held until the run can begin, or for `poll` seconds.",
        who=USER,
        request=mains.Wanted,
        response=mains.Roster,
        waits=True,
        errors=_CALL,
    ),
    Endpoint(
        number=24,
        name="ask_nodes",
        method="POST",
        path=f"{_RUN}/asks",
        text="A call of a main: ask nodes. Repeating it changes nothing; the same call with other words is refused.",
        who=USER,
        request=mains.Asking,
        response=mains.Asked,
        limit=_LARGE,
        errors=(*_CALL, errors.BlobMissing, errors.Conflict),
    ),
    Endpoint(
        number=25,
        name="read_answers",
        method="GET",
        path=f"{_RUN}/answers",
        text="What became of a main's messages, after so many; held until there is more, or for `poll` seconds.",
        who=USER,
        query={"after": 0},
        response=mains.Answers,
        waits=True,
        errors=_DRIVEN,
    ),
    Endpoint(
        number=26,
        name="give_up",
        method="POST",
        path=f"{_RUN}/cancel",
        text="A main gives messages up.",
        who=USER,
        request=mains.GivenUp,
        response=wire.Done,
        limit=_LARGE,
        errors=(*_DRIVEN, errors.BadValue),
    ),
    Endpoint(
        number=27,
        name="end_run",
        method="POST",
        path=f"{_RUN}/end",
        text="A main has ended: the run is complete, or has failed.",
        who=USER,
        request=mains.Ending,
        response=wire.Done,
        limit=_LARGE,
        errors=(*_DRIVEN, errors.BlobMissing, errors.MainDiffers, errors.BadValue),
    ),
)

#: The same by name.
BY_NAME: Final = {endpoint.name: endpoint for endpoint in ENDPOINTS}
