"""The process in which handlers run: ``python -m umbel.node._child REQUESTS RESPONSES``, two pipes that it inherits.

It ends with the node, however that ends. What a handler prints goes where the node's errors go.
"""

import contextlib
import ctypes
import os
import queue
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
from blake3 import blake3

from umbel.app import ClientApp
from umbel.context import Context
from umbel.envelope import Content, Part, blobs_of, pack, unpack
from umbel.errors import AppError, MessageExpired, RecordError, RecordTypeError
from umbel.message import ErrorCode, Message, Metadata
from umbel.node import _jobs
from umbel.node._jobs import Job, Loaded, NotLoaded, Outcome, Setup
from umbel.node._loading import load
from umbel.node._shelf import name_of
from umbel.records import RecordSet
from umbel.records._files import flush, map_file, write
from umbel.records._gather import gather, gathered

_Put: TypeAlias = Callable[[Sequence[bytes | memoryview]], Part]

_PR_SET_PDEATHSIG: Final = 1


def main(requests: int, responses: int) -> None:
    """Load the app that the first line names, then handle one message for each line after it."""
    _end_with_node()
    lines = _read(requests)
    os.set_inheritable(responses, False)  # noqa: FBT003 - its one argument
    setup = msgspec.json.decode(lines.get(), type=Setup)
    if setup.memory is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (setup.memory, setup.memory))
    try:
        app = load(setup.app, Path(setup.folder))
    except AppError as error:
        _say(responses, NotLoaded(error.message, error.at))
        return
    _say(responses, Loaded(app.message_types))
    while True:
        _say(responses, _handled(app, msgspec.json.decode(lines.get(), type=Job), setup))


def _end_with_node() -> None:
    """Have the kernel kill this process when the node ends, even if a handler never lets Python run again."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):  # when memory runs out, the node should outlive its handler and say so
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


def _read(requests: int) -> "queue.SimpleQueue[bytes]":
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def follow() -> None:
        with open(requests, "rb") as stream:
            for line in stream:
                lines.put(line)
        os.killpg(0, signal.SIGKILL)  # the node is gone: so are we, and whatever a handler started

    os.set_inheritable(requests, False)  # noqa: FBT003 - its one argument
    threading.Thread(target=follow, daemon=True).start()
    return lines


def _say(responses: int, value: object) -> None:
    view = memoryview(_jobs.line(value))
    while view:
        view = view[os.write(responses, view) :]


def _handled(app: ClientApp, job: Job, setup: Setup) -> Outcome:
    try:
        return handle(app, job, setup)
    except Exception as error:  # noqa: BLE001 - want of memory, for one, may be met anywhere; the next message may fit
        traceback.print_exc()
        reason = _explained("".join(traceback.format_exception_only(error)).strip(), setup.memory)
        return _jobs.failed(ErrorCode.UNKNOWN, f"expected a message that can be handled, got: {reason:.2000}")


def handle(app: ClientApp, job: Job, setup: Setup) -> Outcome:
    """Run the app on one message and write what it made."""
    blobs, clock = Path(job.blobs), _Clock()
    try:
        message = _message(job, _from(blobs))
        context = _context(job, _from(blobs))
    except (RecordError, OSError) as error:
        return _jobs.failed(ErrorCode.MESSAGE_UNAVAILABLE, f"expected content that can be read, got: {error}")
    try:
        reply = app(message, context, tracebacks=setup.tracebacks)
    except MessageExpired as error:
        return _jobs.failed(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, str(error))
    clock.lap("training")
    if reply.has_error():
        reason = _explained(reply.error.reason or "", setup.memory)
        return Outcome(error_code=reply.error.code, error_reason=reason, seconds=clock.seconds)
    return _stored(reply.content, context.state, job, clock)


class _Clock:
    """Where the seconds went."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Give the time since the last lap to a phase."""
        now = time.perf_counter()
        self.seconds[phase] = now - self._last
        self._last = now


def _from(blobs: Path) -> Callable[[str], object]:
    return lambda digest: map_file(blobs / name_of(digest))


def _message(job: Job, get: Callable[[str], object]) -> Message:
    metadata = Metadata(
        run_id=job.run,
        message_id=job.message,
        src_node_id=0,
        dst_node_id=job.member,
        reply_to_message=0,
        group_id=job.round,
        ttl=job.ttl,
        message_type=job.message_type,
    )
    return Message(metadata, unpack(job.content, get))


def _context(job: Job, get: Callable[[str], object]) -> Context:
    return Context(
        run_id=job.run,
        node_id=job.member,
        node_config=job.node_config,
        state=RecordSet() if job.state is None else unpack(job.state, get),
        run_config=job.run_config,
        node_name=job.node_name,
        seed=job.seed,
    )


def _explained(reason: str, memory: int | None) -> str:
    """Return the reason of an error; one that looks like want of memory names the limit that the operator has set."""
    if memory is None or not any(word in reason.lower() for word in ("memory", "allocate", "can't start new thread")):
        return reason
    return f"{reason} (the operator of this node lets a handler have {memory:,} bytes of memory)"


def _stored(content: RecordSet, state: RecordSet, job: Job, clock: _Clock) -> Outcome:
    try:
        packed = pack(content, _put(job, durable=False))
    except (RecordError, RecordTypeError) as error:
        return _jobs.failed(
            ErrorCode.BAD_REPLY, f"expected a reply that a file can hold, got one that it cannot: {error}"
        )
    except OSError as error:
        return _jobs.failed(ErrorCode.UNKNOWN, f"expected a disk that takes the reply, got: {error}")
    try:
        kept = None if state == RecordSet() else pack(state, _put(job, durable=True))
    except (RecordError, RecordTypeError) as error:
        fault = f"expected a state that a file can hold in context.state, got one that it cannot: {error}"
        return _jobs.failed(ErrorCode.BAD_REPLY, fault)
    except OSError as error:
        return _jobs.failed(ErrorCode.UNKNOWN, f"expected a disk that takes the node's state, got: {error}")
    clock.lap("storing")
    return Outcome(packed, kept, seconds=clock.seconds)


def _put(job: Job, *, durable: bool) -> _Put:
    """Return what puts a blob on the desk; one that was sent to us is only linked.

    A ``durable`` one is on the disk before it returns. A reply need not be: where power is lost, its digest shows it,
    and the message is handled again. The state that it leads to is needed when the server has the reply.
    """
    known = _known(job.content, job.state)
    blobs, desk = Path(job.blobs), Path(job.desk)

    def put(segments: Sequence[bytes | memoryview]) -> Part:
        hasher, pieces = blake3(), gathered(segments)
        for piece in gather(pieces):
            hasher.update(piece)
        digest = f"blake3:{hasher.hexdigest()}"
        name = name_of(digest)
        there = (desk / name).exists()
        if not there and digest in known:
            os.link(blobs / name, desk / name)
        elif not there:
            write(pieces, desk / name, durable=durable)
        if durable and (there or digest in known):
            flush(desk / name)
        return Part(digest, sum(len(segment) for segment in segments))

    return put


def _known(content: Content, state: Content | None) -> set[str]:
    return {*blobs_of(content), *(blobs_of(state) if state is not None else ())}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
