"""A small federation of one node on a spool, in a process that is killed at its K-th file operation, for many K.

``python spool_driver.py FOLDER STEP`` tries K = 1, 1 + STEP ... until the process comes to its end, and prints a line
of JSON for each K: what was handled and finished in which order, and the model and the state at the end. The killed
process is a fork, so that a hundred deaths cost no imports.
"""

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
from blake3 import blake3

from umbel.envelope import Part, blobs_of, pack, unpack
from umbel.http.wire import Task
from umbel.node import Spool
from umbel.node._jobs import Outcome
from umbel.records import ConfigsRecord, ParametersRecord, RecordSet, load, save
from umbel.records._files import map_file, write

MESSAGES = 3
SIZE = 5_000  # float64, so that models are blobs
CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.rmtree", "tempfile.mkdtemp"}


class Server:
    """What the other side knows, in files outside the spool: models as blobs, replies, fencing numbers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "store").mkdir(parents=True, exist_ok=True)

    def put(self, segments):
        return put(segments, self.folder / "store")

    def get(self, digest: str):
        return map_file(self.folder / "store" / digest[7:])

    def note(self, kind: str, text: str) -> None:
        for name, line in ((kind, text), ("log", f"{kind}:{text}")):
            with (self.folder / name).open("a") as file:
                file.write(line + "\n")

    def noted(self, kind: str) -> list[str]:
        path = self.folder / kind
        return path.read_text().split() if path.exists() else []

    def model(self) -> RecordSet:
        replies = self.noted("replies")
        if not replies:
            return RecordSet({"model": ParametersRecord.from_numpy({"w": np.zeros(SIZE)})})
        return load(self.folder / f"reply-{len(replies)}.safetensors")

    def task(self, spool: Spool) -> Task | None:
        """Return the next message, under a new number if it was handed out and is not held."""
        number = len(self.noted("replies")) + 1
        if number > MESSAGES:
            return None
        issued = self.noted("issued").count(str(number))
        if not any(each.message == number for each in spool.holding):
            issued += 1
            self.note("issued", str(number))
        content = pack(self.model(), self.put)
        known = {"run": 1, "run_name": "r", "round": number, "message_type": "train", "run_config": {}}
        return Task(message=number, fence=issued, seed=number, created_at=0.0, ttl=9.0, content=content, **known)


def federate(folder: Path) -> None:
    """Go on until every message is answered."""
    server = Server(folder / "server")
    with Spool(folder / "spool") as spool:
        deliver(spool, server)
        while (task := server.task(spool)) is not None:
            spool.accept(task)
            current = spool.next_task()
            assert current is not None
            fetch(spool, server, current)
            handle(spool, server, current)
            deliver(spool, server)


def fetch(spool: Spool, server: Server, task: Task) -> None:
    for digest, size in spool.missing(task.content).items():
        data = bytes(server.get(digest))
        with spool.incoming(digest).open("ab") as file:
            for start in range(file.tell(), size, 16_384):
                file.write(data[start : start + 16_384])
                file.flush()
        spool.arrived(digest, size)


def handle(spool: Spool, server: Server, task: Task) -> None:
    """Add the seed and the number of messages counted so far to the model: a state that is off by one shows."""
    get = lambda digest: map_file(spool.blobs / digest[7:])  # noqa: E731
    spool.begin(task)
    content = unpack(task.content, get)
    kept = spool.state(1)
    state = RecordSet() if kept is None else unpack(kept, get)
    count = int(state.configs_records["s"]["count"]) if "s" in state.configs_records else 0
    before = state.parameters_records["p"]["p"].numpy()[0] if count else 0.0
    server.note("handled", str(task.message))
    model = content.parameters_records["model"]["w"].numpy() + task.seed + 10 * count + 100 * before
    reply = RecordSet({"model": ParametersRecord.from_numpy({"w": model})})
    memory = ParametersRecord.from_numpy({"p": np.full(SIZE, before + 1)})
    desk = spool.desk()
    store = partial(put, folder=desk)
    state = RecordSet({"p": memory}, configs_records={"s": ConfigsRecord({"count": count + 1})})
    outcome = Outcome(pack(reply, store), pack(state, store))
    spool.finish(task, outcome, desk)
    server.note("finished", str(task.message))


def put(segments, folder: Path) -> Part:
    """Write a blob into a folder under its digest."""
    digest = f"blake3:{blake3(b''.join(segments)).hexdigest()}"
    write(segments, folder / digest[7:])
    return Part(digest, sum(map(len, segments)))


def deliver(spool: Spool, server: Server) -> None:
    for finished in spool.finished:
        assert spool.is_whole(finished), "a finished reply is on the disk"
        answer = finished.answer
        if len(server.noted("replies")) < answer.message:
            assert answer.fence == server.noted("issued").count(str(answer.message)), "a stale number"
            content = unpack(answer.content, lambda digest: map_file(spool.blobs / digest[7:]))
            save(content, server.folder / f"reply-{answer.message}.safetensors")
            server.note("replies", str(answer.message))
        spool.acknowledge(answer, counted=True)
        assert not spool.finished


def forked(folder: Path, kill_at: int) -> bool:
    """Federate in a fork; return whether it came to its end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _arm(folder / "spool", kill_at)
            federate(folder)
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    assert status == 0, f"killed at {kill_at}: status {status}"
    return True


def _arm(spool: Path, kill_at: int) -> None:
    left = [kill_at]

    def hook(event: str, args: tuple) -> None:
        if event in CHANGES and any(str(spool) in str(each) for each in args[:2]):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    if kill_at:
        sys.addaudithook(hook)


def report(folder: Path, kill_at: int, *, ended: bool) -> dict:
    server = Server(folder / "server")
    with Spool(folder / "spool") as spool:
        state = spool.state(1)
        count = unpack(state, lambda digest: map_file(spool.blobs / digest[7:])).configs_records["s"]["count"]
        blobs = {f"blake3:{path.name}" for path in spool.blobs.iterdir()}
        return {
            "kill_at": kill_at,
            "ended": ended,
            "log": [each for each in server.noted("log") if each.startswith(("handled", "finished"))],
            "model": float(server.model().parameters_records["model"]["w"].numpy()[-1]),
            "count": count,
            "holding": len(spool.holding),
            "damaged": spool.damaged,
            # The newest instruction's model is kept as well, and the states before the last two messages.
            "strays": len(blobs - set(blobs_of(state))) - 3,
        }


def main(folder: Path, step: int) -> None:
    kill_at, ended = 1, False
    while not ended:
        here = folder / str(kill_at)
        ended = forked(here, kill_at)
        if not ended:
            assert forked(here, 0)
        sys.stdout.write(json.dumps(report(here, kill_at, ended=ended)) + "\n")
        kill_at += step


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
