"""A process that runs nodes for an engine: it imports the app once, then takes messages one after the other."""

import os
import select
import signal
import socket
import threading

from umbel.app import ClientApp
from umbel.context import Context
from umbel.engines._channel import Channel, Closed
from umbel.engines._frames import Content, Done, Start, Started, Stop, Task, ToWorker
from umbel.engines._reference import load
from umbel.engines._states import changed, is_empty, own_copy, refused_reply, refused_state
from umbel.errors import MessageExpired, RecordError, RecordTypeError, UmbelError
from umbel.message import Message
from umbel.records import RecordSet, dumps, loads


def main(descriptor: int) -> None:
    """Serve the engine at the other end of a socket, until it says stop or goes away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the engine, which ends its workers
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - the signature of the system's
    end = socket.socket(fileno=descriptor)
    threading.Thread(target=_die_with, args=(descriptor,), daemon=True).start()
    channel = Channel(end, ToWorker)
    try:
        start = channel.receive()
        app = _load(start, channel)
        if app is not None:
            _Host(channel, app, start).serve()
    except Closed:
        return


def _die_with(descriptor: int) -> None:
    """Kill this process, and whatever it has started, when the engine is gone, even in the midst of a handler."""
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    poll.poll()
    os.kill(0, signal.SIGKILL)  # the engine made this process the first of a group


def _load(start: Start, channel: Channel) -> ClientApp | None:
    try:
        app = load(start.app)
    except UmbelError as error:
        channel.send(Started(error.message, error.at))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an app may raise anything when it is imported
        channel.send(
            Started(f"the app cannot be imported by a worker: {type(error).__name__}: {error}", str(start.app))
        )
    else:
        channel.send(Started())
        return app
    return None


class _Host:
    """Runs nodes: each gets its message and its state, and both its reply and its new state go back."""

    def __init__(self, channel: Channel, app: ClientApp, start: Start) -> None:
        self._channel = channel
        self._app = app
        self._start = start
        self._contents: dict[int, RecordSet] = {}

    def serve(self) -> None:
        """Take one frame after the other."""
        while True:
            match self._channel.receive():
                case Stop():
                    return
                case Content(number=number, body=body, kept=kept):
                    self._contents = {known: self._contents[known] for known in kept}
                    self._contents[number] = loads(self._channel.open(body))
                case Task() as task:
                    self._channel.send(self._done(task))

    def _done(self, task: Task) -> Done:
        message = Message(task.metadata, own_copy(self._contents[task.content]))
        before = RecordSet() if task.state is None else loads(self._channel.open(task.state))
        context = self._context(task, own_copy(before))
        try:
            reply = self._app(message, context, tracebacks=self._start.tracebacks)
            return self._as_done(message, reply, context.state, before)
        except MessageExpired:
            return Done()

    def _as_done(self, message: Message, reply: Message, state: RecordSet, before: RecordSet) -> Done:
        """Serialise a reply and the state that counts with it; what no container can hold makes an error reply."""
        if reply.has_error():
            return Done(reply.metadata, reply.error)
        refused = refused_state
        try:
            kept = None if is_empty(state) and is_empty(before) else changed(state, before)
            refused = refused_reply
            content = dumps(reply.content)
        except (RecordError, RecordTypeError) as error:
            return self._as_done(message, refused(message, error), before, before)
        body = self._channel.body(content)
        return Done(reply.metadata, None, body, None if kept is None else self._channel.body(kept))

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
