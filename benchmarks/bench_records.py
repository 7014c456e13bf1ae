"""Speed and memory of records, beside Flower, safetensors and PyTorch.

    python benchmarks/bench_records.py [--quick]

Every ratio is of medians of interleaved runs (each way once, then each way again ...) in one run of this script, in
wall time and in CPU seconds (user and system). The unit of speed is one warm memcpy of the same bytes. "Round trip" is
all of it: snapshot, serialise, read back. Peers run in environments of their own, see ``_peers.py``.
"""

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from statistics import median
from types import TracebackType
from typing import Any, Self

from _figures import Figure, leave, show
from _peers import PeerUnavailable, peer_python
from _turns import HERE, PATIENCE, DidNotEnd
from _workloads import WORKLOADS

FILES = HERE.parent / ".bench" / "files"
PEERS = ("flwr-1.13.1", "flwr-1.41.0", "safetensors", "torch")
ROUNDS = {"resnet": 15, "large": 5, "tiny": 9, "bfloat16": 7}
CLOCKS = {"wall": "wall time", "cpu": "CPU s"}
MICROSECOND = 1e-6
TINY = 10_000
# glibc keeps freed arrays below a size that grows as it runs; fixed, it gives each back at once, and what is counted is
# what is in use.
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "131072"}

Way = tuple[str, str]
Times = dict[Way, dict[str, float]]


class Worker:
    """A process that does one side's work when it is asked, and is idle otherwise."""

    def __init__(self, side: str, environment: dict[str, str] | None = None) -> None:
        self.side = side
        python = sys.executable if side == "umbel" else str(peer_python(side))
        command = [python, str(HERE / "_records_worker.py"), side, str(FILES)]
        environment = os.environ | (environment or {})
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()

    def ask(self, **request: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended, which its answer says
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            self._process.kill()
            return self._hung()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the process ended"}
        return answer

    def _hung(self) -> dict[str, Any]:
        error = DidNotEnd(f"did not end within {PATIENCE:,.0f} s")
        if self.side == "umbel":
            raise error
        print(f"  {self.side} is left out: {error}", flush=True)
        return {"error": str(error)}


def measure(workers: list[Worker], workload: str, rounds: int) -> Times:
    """Return the median cost of each way of each worker; a way that fails says why and is left out."""
    ways: list[tuple[Worker, str]] = []
    for worker in workers:
        answer = worker.ask(prepare=workload)
        if "error" in answer:
            print(f"  {worker.side}: {answer['error']}")
        ways += [(worker, way) for way in answer.get("ways", [])]
    runs: dict[Way, list[dict[str, float]]] = {(worker.side, way): [] for worker, way in ways}
    # The first round warms up, and finds out what a peer cannot do.
    for turn in range(rounds + 1):
        for worker, way in ways:
            answer = worker.ask(time=way)
            if "error" in answer and turn == 0:
                print(f"  {worker.side}, {way}: {answer['error'][:150]}")
            elif turn and "error" not in answer:
                runs[worker.side, way].append(answer)
    return {
        way: {clock: median(run[clock] for run in found) for clock in CLOCKS} for way, found in runs.items() if found
    }


def at_most(name: str, value: float, unit: str, limit: float | None) -> Figure:
    return Figure(name, value, unit) if limit is None else Figure(name, value, unit, f"<= {limit}", value <= limit)


def ratios(times: Times, name: str, way: str, base: str, limit: float | None) -> Iterable[Figure]:
    """How many times the cost of ``base`` one of our ways has."""
    for clock, words in CLOCKS.items():
        yield at_most(f"{name}, {words}", times["umbel", way][clock] / times["umbel", base][clock], "x", limit)


def per_array(times: Times, name: str, way: str, limit: float | None, side: str = "umbel") -> Iterable[Figure]:
    for clock, words in CLOCKS.items():
        yield at_most(f"{name}, {words}", times[side, way][clock] / TINY / MICROSECOND, "us an array", limit)


def ahead(times: Times, name: str, peer: Way, way: str, target: float) -> Iterable[Figure]:
    """How many times the cost of our way a peer's way has."""
    for clock, words in CLOCKS.items():
        if peer in times:
            value = times[peer][clock] / times["umbel", way][clock]
            yield Figure(f"{name}, {words}", value, "x", f">= {target}", value >= target)


def peers(times: Times, label: str) -> Iterable[Figure]:
    """What the peers cost in memcpys, for the record: no targets."""
    for (side, way), cost in times.items():
        if side != "umbel":
            for clock, words in CLOCKS.items():
                yield Figure(f"{label}: {side} {way}, {words}", cost[clock] / times["umbel", "memcpy all"][clock], "x")


def resnet(times: Times) -> Iterable[Figure]:
    yield from ratios(times, "46.8 MB: from_numpy + to_numpy(copy=False)", "record", "memcpy all", 2.0)
    yield from ratios(times, "46.8 MB: the same, arena reused", "record, arena", "memcpy all", 1.2)
    yield from ratios(
        times, "46.8 MB: array_from_numpy + numpy(copy=False), 4 MiB up", "arrays large", "memcpy large", 3
    )
    yield from ratios(times, "46.8 MB: the same, arrays below 4 MiB", "arrays small", "memcpy small", 7)
    yield from ratios(times, "46.8 MB: container round trip", "container", "memcpy all", None)
    yield from ratios(times, "46.8 MB: from_numpy + to_numpy()", "record, copied out", "memcpy all", None)
    yield from files(times, "46.8 MB")
    flower = "46.8 MB: ahead of Flower 1.41"
    yield from ahead(times, f"{flower}, Array and wire form", ("flwr-1.41.0", "Array and wire form"), "container", 20)
    yield from ahead(times, f"{flower}, Array alone", ("flwr-1.41.0", "Array"), "record", 5)
    yield from ahead(times, "46.8 MB: ahead of safetensors, bytes", ("safetensors", "bytes"), "container", 8)
    yield from ahead(times, "46.8 MB: ahead of torch.save, bytes", ("torch", "bytes"), "container", 8)
    yield from peers(times, "46.8 MB")


def large(times: Times) -> Iterable[Figure]:
    yield from ratios(times, "1 GiB: from_numpy + to_numpy(copy=False)", "record", "memcpy all", None)
    yield from ratios(times, "1 GiB: the same, arena reused", "record, arena", "memcpy all", None)
    yield from ratios(times, "1 GiB: array_from_numpy + numpy(copy=False)", "arrays large", "memcpy large", 3)
    yield from files(times, "1 GiB")


def files(times: Times, label: str) -> Iterable[Figure]:
    yield from ratios(times, f"{label}: save, to one writev + fsync", "save", "writev", 1.2)
    yield from ratios(times, f"{label}: load and read, to map and read", "load and read", "map and read", 1.3)
    yield from ratios(times, f"{label}: digest, to BLAKE3", "digest", "blake3", 1.2)


def tiny(times: Times) -> Iterable[Figure]:
    yield from per_array(times, "10,000 arrays: from_numpy + to_numpy(copy=False)", "record", 4)
    yield from per_array(times, "10,000 arrays: from_numpy + to_numpy()", "record, copied out", 4)
    yield from per_array(times, "10,000 arrays: dumps + loads", "dumps + loads", 10)
    yield from per_array(times, "10,000 arrays: load from a file", "load", 3)
    yield from per_array(times, "10,000 arrays: save", "save", None)
    yield from per_array(times, "10,000 arrays: array_from_numpy + numpy(copy=False)", "arrays all", None)
    for side, way in times:
        if side != "umbel":
            yield from per_array(times, f"10,000 arrays: {side} {way}", way, None, side)


def bfloat16(times: Times) -> Iterable[Figure]:
    yield from ratios(times, "105 MB of bfloat16: from_numpy + to_numpy(copy=False)", "record", "memcpy all", None)
    yield from ratios(times, "105 MB of bfloat16: container round trip", "container", "memcpy all", None)
    yield from peers(times, "105 MB of bfloat16")


REPORTS: dict[str, Callable[[Times], Iterable[Figure]]] = {
    "resnet": resnet,
    "large": large,
    "tiny": tiny,
    "bfloat16": bfloat16,
}


def peak(case: str, workload: str, environment: dict[str, str] | None = None) -> dict[str, float]:
    with Worker("umbel", environment) as worker:
        answer = worker.ask(memory=case, workload=workload)
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer


def emptied(label: str, returning: dict[str, float], usual: dict[str, float]) -> Iterable[Figure]:
    """One record and its largest array, to a decimal: huge pages are 2 MiB each."""
    name, bound = f"{label}: peak total, keep_input=False", returning["bound"]
    met = round(returning["total"], 1) <= round(bound, 1)
    yield Figure(name, returning["total"], "records", f"<= {bound:.2f}", met)
    yield Figure(f"{label}: the same, the allocator left to itself", usual["total"], "records")


def memory() -> Iterable[Figure]:
    """Peaks of processes that do one thing each, in records (the bytes of the model)."""
    for workload, label in (("resnet", "46.8 MB"), ("large", "1 GiB")):
        found = {case: peak(case, workload) for case in ("record", "arrays", "save", "load")}
        for case, name in (("record", "from_numpy + to_numpy(copy=False)"), ("arrays", "array_from_numpy")):
            value = found[case]["extra"]
            yield Figure(f"{label}: extra memory, {name}", value, "records", "<= 1.0", round(value, 1) <= 1)
        yield from emptied(label, peak("emptied", workload, RETURNING), peak("emptied", workload))
        for case, name in (("save", "save"), ("load", "load + one pass")):
            value = found[case]["extra"]
            yield Figure(f"{label}: extra memory, {name}", value, "records", "<= 0.0", round(value, 1) <= 0)


def run(rounds: dict[str, int]) -> list[Figure]:
    figures: list[Figure] = []
    with ExitStack() as stack:
        ours = stack.enter_context(Worker("umbel"))
        others = [stack.enter_context(worker) for worker in map(_worker, PEERS) if worker]
        for workload, report in REPORTS.items():
            print(f"{WORKLOADS[workload]}: {rounds[workload]} rounds", flush=True)
            # Flower needs several GB for 1 GiB, and its figures have no target there.
            figures += report(measure([ours] if workload == "large" else [ours, *others], workload, rounds[workload]))
    return [*figures, *memory()]


def _worker(side: str) -> Worker | None:
    try:
        return Worker(side)
    except PeerUnavailable as error:
        print(f"{side} is left out: {error}")
        return None


def main(arguments: list[str]) -> int:
    shutil.rmtree(FILES, ignore_errors=True)
    FILES.mkdir(parents=True)
    quick = "--quick" in arguments
    figures = run({workload: 3 if quick else rounds for workload, rounds in ROUNDS.items()})
    shutil.rmtree(FILES)
    show(figures)
    return leave("records", figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
