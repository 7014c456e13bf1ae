"""A server in this process, and users and nodes that a test moves by hand, request by request, over real sockets."""

import asyncio
import os
import threading
import time
from contextlib import contextmanager

import numpy as np
from blake3 import blake3

from umbel.envelope import Part, pack
from umbel.http import Client, Identity, wire
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.server import Server, Settings

PATIENCE = 30.0  # seconds before a test gives up
APP = "site_app:app"


@contextmanager
def serving(folder, **settings):
    """A server on a data folder, with its operator as an ``Actor``; a later block on the folder is a restart."""
    ready, told = threading.Event(), []
    server = Server(
        Settings(**{"data": folder, "port": 0, "plain": True, "poll": 2.0} | settings),
        lambda about: (told.append(about), ready.set()),
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(PATIENCE), "the server does not listen"
        with Actor(told[0].url, Identity.load(told[0].key_file), told[0].member) as operator:
            yield operator
    finally:
        server.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()


class Actor:
    """Somebody who asks a server, one request after the other."""

    def __init__(self, url, identity=None, member=0):
        self.url = url
        self.identity = identity or Identity(os.urandom(32))
        self.runner = asyncio.Runner()
        self.client = Client(url, self.identity, member)
        self.instance = os.urandom(8).hex()
        self.tasks = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.runner.run(self.client.close())
        self.runner.close()

    @property
    def member(self):
        return self.client.member

    def call(self, name, body=None, **params):
        return self.runner.run(self.client.call(name, body, **params))

    def again(self):
        """The same member in another process: the same key, another instance."""
        return Actor(self.url, self.identity, self.member)

    def newcomer(self, name, kind="node", types=("train",), **told):
        """Somebody new, let in by a token of this operator."""
        made = self.call("make_token", wire.TokenRequest(kind=kind))
        actor = Actor(self.url)
        actor.runner.run(actor.client.hello())
        body = wire.Join(
            **{"secret": made.secret, "key": actor.identity.key, "kind": kind, "name": name, "app": APP} | told,
            types=list(types),
            release="0",
        )
        try:
            actor.client.member = actor.call("join", body).member
        except BaseException:
            actor.__exit__()
            raise
        return actor

    # What a node does

    def poll(self, holding=None, room=1, types=("train",)):
        """Ask for work, saying that what came before is held unless ``holding`` says otherwise."""
        held = self.tasks.values() if holding is None else holding
        body = wire.Poll(
            instance=self.instance,
            holding=[wire.Assignment(run=each.run, message=each.message, fence=each.fence) for each in held],
            room=room,
            app=APP,
            types=list(types),
            release="0",
        )
        polled = self.call("poll", body)
        for gone in polled.cancelled:
            self.tasks.pop((gone.run, gone.message), None)
        self.tasks.update({(task.run, task.message): task for task in polled.tasks})
        return polled

    def work(self):
        """Return a message that is held, or poll until there is one."""
        deadline = time.monotonic() + PATIENCE
        while not self.tasks:
            assert time.monotonic() < deadline, "no message came"
            self.poll()
        return next(iter(self.tasks.values()))

    def reply(self, task, value=1.0, **changes):
        """Answer a message with a model, or with what ``changes`` say."""
        body = {"run": task.run, "message": task.message, "fence": task.fence, "content": content(value)} | changes
        replied = self.call("reply", wire.Answer(**body))
        self.tasks.pop((task.run, task.message), None)
        return replied

    # What a user does

    def submit(self, nodes, rounds=1, **changes):
        """Submit a run and return its number."""
        spec = wire.RunSpec(
            **{
                "app": APP,
                "strategy": {"name": "fedavg"},
                "rounds": rounds,
                "seed": 7,
                "config": {},
                "nodes": nodes,
                "initial": content(0.0, metrics=False),
            }
            | changes
        )
        return self.call("submit_run", spec).run

    def view(self, run):
        return self.call("show_run", run=run)

    def until(self, run, *statuses):
        """Wait until a run has one of some statuses, and return it in full."""
        deadline = time.monotonic() + PATIENCE
        while (view := self.view(run)).row.status not in statuses:
            assert time.monotonic() < deadline, f"waited in vain: {view.row}"
            time.sleep(0.02)
        return view


def content(value, size=9, *, metrics=True, put=None):
    """A model of equal numbers as it crosses the network."""
    record = ParametersRecord.from_numpy({"w": np.full(size, value)})
    found = {"metrics": MetricsRecord({"num-examples": 2})} if metrics else {}
    return pack(RecordSet({"model": record}, found), put)


def blob(value, size=10_000):
    """A model too large to travel inside, with the bytes of its blob by digest."""
    blobs = {}

    def put(segments):
        data = b"".join(segments)
        part = Part(f"blake3:{blake3(data).hexdigest()}", len(data))
        blobs[part.digest] = data
        return part

    return content(value, size, put=put), blobs
