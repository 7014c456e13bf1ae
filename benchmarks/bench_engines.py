"""What engines cost beside one another, and what they gain: several processes, Ray, a virtual clock.

    python benchmarks/bench_engines.py [--quick]

A measurement is a process of its own; ways take turns and ratios are medians over the turns. The first round, in which
workers start, is left out. Ray lives in an environment of its own, see ``_peers.py``; ``--quick`` leaves it out and
takes few turns. Scaling needs two cores that nobody else uses: the load of the machine is printed beside it.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from _figures import Figure, at_least, at_most, leave, show
from _peers import PeerUnavailable, peer_python
from _turns import ENVIRONMENT, HERE, Command, DidNotEnd, Taken, measure, middle, ratio, turns

COHORTS = (100, 1_000)
ROUNDS = 5
TURNS = 5
STARTING = 300.0  # seconds until workers have begun, or are gone

Way = tuple[str, str, int, int]

STOPPED = """\
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what begins in the background of a shell ignores interrupts
sys.path.insert(0, {folder!r})
import umbel, _flute
from _engine_apps import sleeping
from umbel.strategy import strategy
umbel.simulate(sleeping, strategy(), _flute.new_model(), nodes=4, rounds=1, engine={engine!r}, workers=2)
"""


def command(way: Way) -> Command:
    work, engine, workers, rounds = way
    python = peer_python("ray") if engine == "ray" else Path(sys.executable)
    return [str(python), str(HERE / "_engines_worker.py"), work, engine, str(workers), str(rounds)]


def taken_in_turns(ways: dict[str, Way], count: int) -> dict[str, list[Taken]]:
    return turns({name: command(way) for name, way in ways.items()}, count)


def dispatch(nodes: int, engines: tuple[str, ...], count: int) -> list[Figure]:
    """The cost of a client that does nothing, with a model of 1 MB."""
    ways: dict[str, Way] = {"local": (f"adding-{nodes}", "local", 1, ROUNDS)}
    ways |= {engine: (f"adding-{nodes}", engine, 2, ROUNDS) for engine in engines}
    found, figures = taken_in_turns(ways, count), []
    for name, taken in found.items():
        label, tasks = f"{nodes:,} nodes a round, {name}", nodes * ROUNDS
        figures += [
            Figure(label, tasks / middle(taken, "seconds"), "tasks/s"),
            Figure(f"{label}: CPU s per 1,000 tasks", 1_000 * middle(taken, "cpu") / tasks, "CPU s"),
            Figure(f"{label}: peak RSS of the engine", max(each["peak"] for each in taken), "MiB"),
        ]
    return figures


def scaling(engine: str, count: int) -> list[Figure]:
    """Two workers beside one, at a convolutional network on digits, 100 nodes."""
    ways: dict[str, Way] = {name: ("digits", engine, workers, 3) for name, workers in (("one", 1), ("two", 2))}
    load = os.getloadavg()[0]
    found = taken_in_turns(ways, count)
    label = f"digits, {engine}, two workers / one"
    return [
        at_least(f"{label} (load before: {load:.1f})", ratio(found["one"], found["two"], "seconds"), "x", 1.7),
        Figure(f"{label}, CPU time", ratio(found["two"], found["one"], "cpu"), "x"),
    ]


def year(count: int) -> list[Figure]:
    """A year of 100,000 phones that take part when they are there, on the virtual clock."""
    taken = [measure(command(("year", "virtual", 1, 1))) for _ in range(count)]
    label = "a year of 100,000 devices with FedBuff"
    return [
        at_most(label, middle(taken, "cpu"), "CPU s", 60),
        Figure(f"{label}: updates", middle(taken, "updates"), ""),
        Figure(f"{label}: models", middle(taken, "models"), ""),
        at_most(f"{label}: peak RSS", max(each["peak"] for each in taken), "MiB", 500),
    ]


def stopping(engine: str) -> list[Figure]:
    """From Ctrl-C, with both workers in the midst of a node, to the end of the process."""
    python = peer_python("ray") if engine == "ray" else Path(sys.executable)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "stopped.py")
        script.write_text(STOPPED.format(folder=str(HERE), engine=engine))
        process = subprocess.Popen(
            [str(python), str(script)], cwd=folder, env=ENVIRONMENT, start_new_session=True, stderr=subprocess.DEVNULL
        )
        try:
            wait_asleep(process, Path(folder))
            began = time.perf_counter()
            os.killpg(process.pid, signal.SIGINT)
            process.wait(STARTING)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return [at_most(f"Ctrl-C, {engine}: until the process is gone", time.perf_counter() - began, "s", 2)]


def wait_asleep(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until both workers are in the midst of a node."""
    deadline = time.monotonic() + STARTING
    while len(list(folder.glob("asleep-*"))) < 2:
        if process.poll() is not None or time.monotonic() > deadline:
            raise DidNotEnd(f"two workers did not begin within {STARTING:.0f} s, or ended: {process.args!r}")
        time.sleep(0.01)


def run(*, quick: bool) -> list[Figure]:
    engines: tuple[str, ...] = ("processes", "virtual")
    spread = ["processes"]
    if not quick:
        try:
            peer_python("ray")
            engines, spread = (*engines, "ray"), [*spread, "ray"]
        except PeerUnavailable as error:
            print(f"Ray is left out: {error}")
    count = 1 if quick else TURNS
    figures: list[Figure] = []
    for nodes in COHORTS[: 1 if quick else None]:
        print(f"{nodes:,} nodes a round", flush=True)
        figures += dispatch(nodes, engines, count)
    print("a year", flush=True)
    figures += year(count)
    for engine in spread:
        print(f"Ctrl-C and scaling, {engine}", flush=True)
        figures += stopping(engine) + scaling(engine, count)
    return figures


def main(arguments: list[str]) -> int:
    figures = run(quick="--quick" in arguments)
    show(figures)
    return leave("engines", figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
