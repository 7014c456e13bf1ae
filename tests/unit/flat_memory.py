"""One process that trains on large models with flat memory, for ``test_flat_memory.py``.

    python flat_memory.py FOLDER UPDATES STRATEGY [LIMIT]

The folder holds ``model`` and ``update-0`` and so on, as containers. The replies of a round are these updates, mapped,
as a server has them. Prints JSON: how far anonymous memory rose at most, the digest of the last model, and how many
files without a name were mapped at the end. With a limit, that many bytes are all that may be allocated.
"""

import gc
import json
import resource
import shutil
import sys
import tempfile
import threading
from pathlib import Path

from umbel import checkpoint
from umbel.grid import Node
from umbel.message import Message
from umbel.records import MetricsRecord, ParametersRecord, RecordSet, load, scratch
from umbel.rounds import RunCompleted, begin, train
from umbel.strategy import catalogue, named

NEEDED = {"mu": 0.1, "q": 0.5, "learning_rate": 0.1, "local": "n", "byzantine": 0, "strength": 0.1}


class Mapped:
    """A grid whose nodes answered long ago: each reply is a file."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self._asked: list[Message] = []

    def nodes(self, round=0, message_type="train"):  # noqa: A002
        return [Node(f"node-{place}", place + 1) for place in range(len(self._files))]

    def send(self, messages):
        self._asked = list(messages)

    def replies(self):
        for message, file in zip(self._asked, self._files, strict=True):
            update = load(file).parameters_records["model"]
            told = message.content.parameters_records
            records = {
                part: ParametersRecord({name: update[name] for name in told[part]})
                for part in ("model", "control")
                if part in told
            }
            metrics = MetricsRecord({"num-examples": 3, "normaliser": 5.0, "loss-before": 0.5})
            yield message.create_reply(RecordSet(records, {"metrics": metrics}))
        self._asked = []

    def cancel(self, message_ids):
        pass

    def close(self):
        pass


def status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


class Watch(threading.Thread):
    """Sees the highest anonymous memory while it runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.most = status("RssAnon")
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.002):
            self.most = max(self.most, status("RssAnon"))

    def rise(self) -> int:
        self.over.set()
        self.join()
        return max(self.most, status("RssAnon")) - self.before


def strategy(name: str):
    options = {each.name: NEEDED[each.name] for each in catalogue()[name].settings if each.required}
    return named(name, {**options, "evaluate_fraction": 0})


def run(folder: Path, files: list[Path], name: str) -> str:
    parts, place = strategy(name), tempfile.mkdtemp(dir=folder)
    state = begin(parts, load(folder / "model").parameters_records["model"])
    done = ""
    for event in train(Mapped(files), parts, state, rounds=2):
        if hasattr(event, "report"):
            checkpoint.write(place, event.state)
        if isinstance(event, RunCompleted):
            done = event.digest
    shutil.rmtree(place)
    return done


def nameless() -> int:
    return Path("/proc/self/maps").read_text().count("/.scratch-")


def main(folder: Path, count: int, name: str, limit: int) -> None:
    files = [folder / f"update-{place}" for place in range(count)]
    strategy(name)
    gc.collect()
    watch = Watch()
    watch.start()
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (status("VmData") + limit,) * 2)
    with scratch(folder):
        done = run(folder, files, name)
    print(json.dumps({"rise": watch.rise(), "digest": done, "nameless": nameless()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else 0)
