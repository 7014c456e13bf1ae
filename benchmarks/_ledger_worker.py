"""Durable replies a second: a ledger alone, every commit flushed, so many replies on their way at once.

    python _ledger_worker.py REPLIES OUTSTANDING

Prints replies a second.
"""

import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from umbel.envelope import Content, pack
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.store import Ledger, members, messages, replies, runs


def main() -> None:
    count, outstanding = int(sys.argv[1]), int(sys.argv[2])
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as folder,
        Ledger.open(f"sqlite:///{Path(folder) / 'l.db'}") as ledger,
    ):
        run, node = prepare(ledger, count)
        print(count / take(ledger, run, node, count, outstanding))


def content() -> Content:
    record = ParametersRecord.from_numpy({"layer": np.arange(9, dtype=np.float32)})
    return pack(RecordSet({"model": record}, {"metrics": MetricsRecord({"num-examples": 1})}), absent)


def absent(_: object) -> None:
    raise ValueError("expected content that travels inside its description")


def prepare(ledger: Ledger, count: int) -> tuple[int, int]:
    """Plan one phase with so many messages to one node."""
    now = time.time()

    def write(connection: sa.Connection) -> tuple[int, int]:
        made = members.new_token(connection, "node", uses=1, expires_at=now + 60, now=now)
        arrival = members.Arrival(made.secret, bytes(32), "node", "north", "app:app", ("train",), "1")
        node = members.join(connection, arrival, now).id
        run = runs.create(connection, "{}", node, now=now, present=absent).id
        asks = tuple(messages.Ask(slot + 1, slot, node) for slot in range(count))
        plan = messages.Plan(run, 1, "train", (("north", node),), content(), 3600.0, asks)
        messages.plan(connection, plan, now=now, present=absent)
        return run, node

    return ledger.write(write).result()


def take(ledger: Ledger, run: int, node: int, count: int, outstanding: int) -> float:
    """Return the seconds until all are on the disk."""
    room, given, now = threading.Semaphore(outstanding), content(), time.time()
    begun = time.perf_counter()
    futures = []
    for message in range(1, count + 1):
        room.acquire()
        reply = replies.Reply(run, message, 1, given, received=given.size, seconds={"training": 1.0})
        future = ledger.write(
            lambda connection, reply=reply: replies.accept(connection, reply, node=node, now=now, present=absent)
        )
        future.add_done_callback(lambda _: room.release())
        futures.append(future)
    if not all(future.result().counted for future in futures):
        raise RuntimeError("expected every reply to count")
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
