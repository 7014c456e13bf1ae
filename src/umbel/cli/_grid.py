"""The grid of a main that runs here, over nodes of a server: every call is in the server's ledger before it counts."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from umbel import _clock
from umbel.cli._remote import Remote, Say
from umbel.cli._text import safe
from umbel.envelope import Content, Part, pack
from umbel.errors import BlobMissing, RecordError, RecordTypeError, UmbelError
from umbel.failpoint import failpoint
from umbel.grid import Node
from umbel.http import mains
from umbel.message import Error, ErrorCode, Message
from umbel.records import ParametersRecord, RecordSet, digest

_ATTEMPTS: Final = 3  # a blob may be collected between its upload and the call that needs it
_LONGEST: Final = 4_000  # characters of a reason

_T = TypeVar("_T")


class _Sent(NamedTuple):
    """A message as the main sent it, and when the server planned it."""

    message: Message
    at: float


class RemoteGrid:
    """Implements ``umbel.grid.Grid`` for one run of a server, which this process drives.

    Calls that the run has made before are answered as they were then, in the same order, and change nothing: so a main
    that is run again, and that goes by what it is told alone, comes to where it was and goes on.

    Messages of one ``send`` that hold the same record set carry the same content. A message without a number gets one.
    ``trouble`` is what was last refused by the server, or did not reach it, which is no fault that ends the run.
    """

    #: Takes messages while others are outstanding.
    overlapping: Final = True

    def __init__(self, remote: Remote, run: int, folder: Path, say: Say) -> None:
        self._remote = remote
        self._run = run
        self._folder = folder
        self._say = say
        self._calls = 0
        self._read = 0
        self._missing = ""
        self._open: dict[int, _Sent] = {}
        self._came: deque[mains.Told] = deque()
        self.trouble: UmbelError | None = None

    def _ask(self, name: str, body: Any = None, **params: int) -> Any:
        with self._noting():
            return self._remote.drive(name, self._run, body, say=self._say, **params)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except UmbelError as error:
            self.trouble = error
            raise

    def nodes(self, round: int = 0, message_type: str = "train") -> Sequence[Node]:  # noqa: A002 - the field's word
        """Return the nodes that there are and that handle the type, by name; waits until the run can begin."""
        wanted = mains.Wanted(call=self._calls + 1, round=round, message_type=str(message_type))
        roster: mains.Roster = self._ask("offer_nodes", wanted)
        while roster.missing:
            if roster.missing != self._missing:
                self._missing = roster.missing
                self._say(f"the run {safe(roster.missing)}", "waiting", reason=roster.missing)
            roster = self._ask("offer_nodes", wanted)
        self._calls += 1  # one that was refused was none
        return [Node(name, number) for name, number in zip(roster.names, roster.nodes, strict=True)]

    def send(self, messages: Iterable[Message]) -> None:
        """Have the server plan messages, all of them now; those whose time is over already are left out."""
        alike: dict[tuple[object, ...], list[Message]] = {}
        for message in messages:
            asked = message.metadata
            if asked.expires_at > _clock.now():
                key = (id(message.content), asked.message_type, asked.group_id, asked.ttl)
                alike.setdefault(key, []).append(message)
        for group in alike.values():
            for first in range(0, len(group), mains.AT_ONCE):
                self._plan(group[first : first + mains.AT_ONCE])

    def _plan(self, group: Sequence[Message]) -> None:
        numbers = [_number(message, self._calls + 1, slot) for slot, message in enumerate(group)]
        at = self._planned(numbers, group)
        self._calls += 1
        failpoint("main.asked")
        self._open |= {number: _Sent(message, at) for number, message in zip(numbers, group, strict=True)}

    def _planned(self, numbers: list[int], group: Sequence[Message]) -> float:
        first = group[0].metadata

        def plan(content: Content) -> float:
            body = mains.Asking(
                call=self._calls + 1,
                round=first.group_id,
                message_type=str(first.message_type),
                ttl=first.ttl,
                content=content,
                messages=numbers,
                nodes=[message.metadata.dst_node_id for message in group],
            )
            asked: mains.Asked = self._ask("ask_nodes", body)
            return asked.at

        return self._upload(group[0].content, plan)

    def end(self, model: ParametersRecord | None) -> None:
        """The main has ended, and the run is complete, with a model if there is one."""
        if model is None:
            self._ask("end_run", mains.Ending(calls=self._calls))
            return
        name = digest(model)
        self._upload(
            RecordSet({"model": model}),
            lambda state: self._ask("end_run", mains.Ending(calls=self._calls, digest=name, state=state)),
        )

    def fail(self, reason: str) -> None:
        """The main has failed, and the run with it."""
        legible = reason[:_LONGEST].encode(errors="replace").decode()
        self._ask("end_run", mains.Ending(reason=legible))

    def _upload(self, content: RecordSet, use: Callable[[Content], _T]) -> _T:
        """Send the blobs of a content, and return what ``use`` makes of its description."""
        for _ in range(_ATTEMPTS - 1):
            with suppress(BlobMissing):
                return use(self._packed(content))
        return use(self._packed(content))

    def _packed(self, content: RecordSet) -> Content:
        return pack(content, self._put)

    def _put(self, segments: Sequence[bytes | memoryview]) -> Part:
        with self._noting():
            return self._remote.put(segments, self._folder)

    def replies(self) -> Iterator[Message]:
        """Yield what becomes of every message, in the order in which the server has it.

        A node that is lost, and a reply that cannot be read, are error replies.
        """
        while self._open:
            told = self._next()
            sent = self._open.pop(told.message, None)
            if sent is not None:
                yield self._reply(sent, told)
                failpoint("main.replied")

    def _next(self) -> mains.Told:
        while not self._came:
            answers: mains.Answers = self._ask("read_answers", after=self._read)
            self._came.extend(answers.answers)
        self._read += 1
        return self._came.popleft()

    def _reply(self, sent: _Sent, told: mains.Told) -> Message:
        metadata = sent.message.metadata.answered(told.at, told.at - sent.at)
        if told.content is None:
            code = ErrorCode.UNKNOWN if told.error_code is None else told.error_code
            return Message(metadata, error=Error(code, told.error_reason))
        try:
            with self._noting():
                return Message(metadata, self._remote.fetch(told.content, self._folder))
        except (RecordError, RecordTypeError) as error:
            fault = f"expected a reply that can be read, got one that cannot: {error}"
            return Message(metadata, error=Error(ErrorCode.BAD_REPLY, fault))

    def cancel(self, message_ids: Iterable[int]) -> None:
        """Give messages up, durably; a node that has one is told to forget it."""
        wanted = set(message_ids)
        numbers = [number for number, sent in self._open.items() if sent.message.metadata.message_id in wanted]
        for number in numbers:
            del self._open[number]
        for first in range(0, len(numbers), mains.AT_ONCE):
            self._ask("give_up", mains.GivenUp(messages=numbers[first : first + mains.AT_ONCE]))

    def close(self) -> None:
        """Hear nothing more. What is open stays planned: whoever drives the run next is told of it."""
        self._open.clear()


def _number(message: Message, call: int, slot: int) -> int:
    """Return the number of a message in its run: its own, or one that follows from its place."""
    return message.metadata.message_id or (call << 32) + slot + 1
