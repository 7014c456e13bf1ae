"""A node's message, run in a process that is not the engine's: what comes in as values goes out as containers."""

from typing import NamedTuple

from umbel.app import ClientApp
from umbel.context import Context
from umbel.engines._frames import Start, Task
from umbel.engines._heap import keep_freed_memory
from umbel.engines._memory import Segments
from umbel.engines._states import changed, is_empty, refused_reply, refused_state
from umbel.errors import MessageExpired, RecordError, RecordTypeError
from umbel.message import Error, Message, Metadata
from umbel.records import RecordSet, dumps


class Answer(NamedTuple):
    """What became of a task: a reply, or nothing if it came too late; the node's state if it changed."""

    metadata: Metadata | None = None
    error: Error | None = None
    content: Segments | None = None
    state: Segments | None = None


class Host:
    """Runs nodes: each gets its message and its state, and both its reply and its new state go back."""

    def __init__(self, app: ClientApp, start: Start) -> None:
        self._app = app
        self._start = start
        keep_freed_memory()

    def run(self, task: Task, content: RecordSet, before: RecordSet) -> Answer:
        """Run the node of a task, whose state is ``before``; neither it nor ``content`` is changed."""
        message = Message(task.metadata, content.copy())
        context = self._context(task, before.copy())
        try:
            reply = self._app(message, context, tracebacks=self._start.tracebacks)
            return _answer(message, reply, context.state, before)
        except MessageExpired:
            return Answer()

    def _context(self, task: Task, state: RecordSet) -> Context:
        return Context(
            run_id=task.metadata.run_id,
            node_id=task.node.node_id,
            node_config=dict(task.node_config),
            state=state,
            run_config=self._start.run_config.copy(),
            node_name=task.node.name,
            seed=task.seed,
        )


def _answer(message: Message, reply: Message, state: RecordSet, before: RecordSet) -> Answer:
    """Serialise a reply and the state that counts with it; what no container can hold makes an error reply."""
    if reply.has_error():
        return Answer(reply.metadata, reply.error)
    refused = refused_state
    try:
        kept = None if is_empty(state) and is_empty(before) else changed(state, before)
        refused = refused_reply
        content = dumps(reply.content)
    except (RecordError, RecordTypeError) as error:
        return _answer(message, refused(message, error), before, before)
    return Answer(reply.metadata, None, content, kept)
