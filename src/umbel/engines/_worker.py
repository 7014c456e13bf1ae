"""A process that runs nodes for an engine: it imports the app once, then takes messages one after the other."""

import os
import select
import signal
import socket
import threading

from umbel.app import ClientApp
from umbel.engines._channel import Channel, Closed
from umbel.engines._frames import Content, Done, Start, Started, Stop, Task, ToWorker
from umbel.engines._host import Answer, Host
from umbel.engines._reference import load
from umbel.errors import UmbelError
from umbel.records import RecordSet, loads


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
            _serve(channel, Host(app, start))
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


def _serve(channel: Channel, host: Host) -> None:
    contents: dict[int, RecordSet] = {}
    while True:
        match channel.receive():
            case Stop():
                return
            case Content(number=number, body=body, kept=kept):
                contents = {known: contents[known] for known in kept}
                contents[number] = loads(channel.open(body))
            case Task() as task:
                before = RecordSet() if task.state is None else loads(channel.open(task.state))
                channel.send(_done(channel, host.run(task, contents[task.content], before)))


def _done(channel: Channel, answer: Answer) -> Done:
    content = None if answer.content is None else channel.body(answer.content)
    state = None if answer.state is None else channel.body(answer.state)
    return Done(answer.metadata, answer.error, content, state)
