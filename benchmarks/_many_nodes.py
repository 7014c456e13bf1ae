"""Many nodes in one process, as small as they can be: they speak the protocol over connections of their own.

    python _many_nodes.py '{"url": ..., "fingerprint": ..., "secret": hex, "count": 1000, "then": "answer"}'

Prints "ready" when all have joined. Each polls, and does with a message what ``then`` says: "answer" with the model
that it was sent plus a constant, "poll" again and keep the message, or "rest", and say no more.
"""

import asyncio
import json
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from umbel.envelope import Content, pack, unpack
from umbel.errors import ServerUnreachable
from umbel.http import Client, Identity, wire
from umbel.records import MetricsRecord, ParametersRecord, RecordSet

JOINING = 8  # at once


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    fingerprint: str
    secret: str
    count: int
    then: Literal["answer", "poll", "rest"]


async def main(settings: Settings, folder: Path) -> None:
    gate = asyncio.Semaphore(JOINING)
    clients = await asyncio.gather(*(join(settings, folder, number, gate) for number in range(settings.count)))
    print("ready", flush=True)
    await asyncio.gather(*(live(client, settings.then) for client in clients))


async def join(settings: Settings, folder: Path, number: int, gate: asyncio.Semaphore) -> Client:
    async with gate:
        identity = Identity.create(folder / str(number))
        client = Client(settings.url, identity, fingerprint=settings.fingerprint)
        told = wire.Join(
            secret=bytes.fromhex(settings.secret),
            key=identity.key,
            kind="node",
            name=f"node-{number}",
            app="deployed_app:app",
            types=["train"],
        )
        client.member = (await patiently(client, "join", told)).member
        return client


async def patiently(client: Client, name: str, body: object) -> Any:
    """Ask until there is an answer: on a machine that is busy, connecting may take its time."""
    while True:
        try:
            return await client.call(name, body)
        except ServerUnreachable:
            await asyncio.sleep(1)


async def live(client: Client, then: str) -> None:
    instance, holding = secrets.token_hex(8), []
    while then != "rest" or not holding:
        poll = wire.Poll(
            instance=instance, holding=holding, room=1, app="deployed_app:app", types=["train"], release=""
        )
        polled: wire.Polled = await patiently(client, "poll", poll)
        for task in polled.tasks:
            if then == "answer":
                await patiently(client, "reply", reply_to(task))
            else:
                holding = [*holding, wire.Assignment(run=task.run, message=task.message, fence=task.fence)]
    await asyncio.Event().wait()  # a connection that is closed would cost the server something


def reply_to(task: wire.Task) -> wire.Answer:
    model = unpack(task.content, _absent).parameters_records["model"].to_numpy()
    moved = {name: array + np.float32(task.seed % 1000) for name, array in model.items()}
    records = RecordSet({"model": ParametersRecord.from_numpy(moved)}, {"metrics": MetricsRecord({"num-examples": 1})})
    content: Content = pack(records, _absent)
    return wire.Answer(run=task.run, message=task.message, fence=task.fence, content=content)


def _absent(_: object) -> None:
    raise ValueError("expected a model that travels inside its description")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(main(msgspec.convert(json.loads(sys.argv[1]), Settings), Path(name)))
