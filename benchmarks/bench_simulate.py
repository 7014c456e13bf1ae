"""What a simulated round costs beside a bare NumPy loop and beside Flower's simulation.

    python benchmarks/bench_simulate.py [--quick]

Clients do nothing: every one returns the model of 1 MB plus a constant. What is measured is what the library adds. A
measurement is a process of its own; the loop and Umbel take turns, and ratios are medians over the turns. CPU seconds
(user and system) are the figures that other work on the machine moves least. Flower runs in an environment of its
own, see ``_peers.py``; ``--quick`` leaves it out and takes few turns.
"""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from _peers import PeerUnavailable, peer_python

HERE = Path(__file__).resolve().parent
WORKER = HERE / "_simulate_worker.py"
COHORTS = (10, 100, 1_000)
ROUNDS = 5
TURNS = 9
SMALL, LARGE = 1_000, 1_000_000
SAMPLED = 100
HUGE = 15_000_000
POPULATION_ROUNDS = 20
FLUTE_ROUNDS = 100

Taken = dict[str, float]


class Figure(NamedTuple):
    name: str
    value: float
    unit: str
    target: str | None = None
    met: bool | None = None


def at_least(name: str, value: float, unit: str, bound: float) -> Figure:
    return Figure(name, value, unit, f">= {bound:g}", value >= bound)


def at_most(name: str, value: float, unit: str, bound: float) -> Figure:
    return Figure(name, value, unit, f"<= {bound:g}", value <= bound)


def measure(way: str, nodes: int, rounds: int, python: Path | str = sys.executable) -> Taken:
    command = [str(python), str(WORKER), way, str(nodes), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2_000:]}")
    taken: Taken = json.loads(done.stdout.splitlines()[-1])
    return taken


def turns(ways: dict[str, tuple[str, int]], rounds: int, count: int) -> dict[str, list[Taken]]:
    """Measure every way once, then every way again, and so on."""
    found: dict[str, list[Taken]] = {name: [] for name in ways}
    for _ in range(count):
        for name, (way, nodes) in ways.items():
            found[name].append(measure(way, nodes, rounds))
    return found


def middle(taken: list[Taken], what: str) -> float:
    return median(each[what] for each in taken)


def ratio(above: list[Taken], below: list[Taken], what: str) -> float:
    return median(one[what] / other[what] for one, other in zip(above, below, strict=True))


def dispatch(nodes: int, count: int) -> tuple[list[Figure], float]:
    """The cost of a task at one size of cohort; also Umbel's seconds a task."""
    ways = {"loop": ("loop", nodes), "umbel": ("umbel", nodes), "copy": ("umbel-copy", nodes)}
    found = turns(ways, ROUNDS, count)
    tasks = nodes * ROUNDS
    label = f"{nodes:,} nodes a round"
    seconds = middle(found["umbel"], "seconds") / tasks
    figures = [
        Figure(f"{label}: bare loop", tasks / middle(found["loop"], "seconds"), "tasks/s"),
        Figure(f"{label}: umbel", 1 / seconds, "tasks/s"),
        at_least(f"{label}: umbel / bare loop, tasks/s", ratio(found["loop"], found["umbel"], "seconds"), "x", 0.5),
        at_least(f"{label}: the same in tasks per CPU s", ratio(found["loop"], found["umbel"], "cpu"), "x", 0.5),
        Figure(f"{label}: with a snapshot of every reply", ratio(found["loop"], found["copy"], "cpu"), "x"),
    ]
    if nodes == max(COHORTS):
        thousand = tasks / 1_000
        figures += [
            Figure(f"{label}: CPU s per 1,000 tasks, bare loop", middle(found["loop"], "cpu") / thousand, "CPU s"),
            at_most(f"{label}: CPU s per 1,000 tasks", middle(found["umbel"], "cpu") / thousand, "CPU s", 0.25),
            at_most(f"{label}: peak RSS", max(each["peak"] for each in found["umbel"]), "MiB", 150),
        ]
    return figures, seconds


def population(count: int) -> list[Figure]:
    """The cost of a round of 100 nodes drawn from a small and from a large population."""
    ways = {"small": ("population", SMALL), "large": ("population", LARGE), "huge": ("population", HUGE)}
    found = turns(ways, POPULATION_ROUNDS, count)
    label = f"{SAMPLED} of {LARGE:,} virtual nodes a round"
    round_ms = 1e3 * middle(found["large"], "cpu") / POPULATION_ROUNDS
    return [
        at_most(f"{label}: peak RSS", max(each["peak"] for each in found["large"]), "MiB", 200),
        Figure(f"{label}: a round", round_ms, "CPU ms"),
        # No more than a small one; the margin is what two runs of one thing differ by.
        at_most(f"{label}: a round / one of {SMALL:,}", ratio(found["large"], found["small"], "cpu"), "x", 1.05),
        at_most(
            f"{SAMPLED} of {HUGE:,} virtual nodes a round: peak RSS",
            max(each["peak"] for each in found["huge"]),
            "MiB",
            500,
        ),
    ]


def flute(count: int, *, quick: bool) -> list[Figure]:
    """Logistic regression over 1,000 clients, 10 a round: small work, where the library's own cost shows."""
    found = turns({"loop": ("flute-loop", 1), "umbel": ("flute", 1)}, FLUTE_ROUNDS, count)
    label = f"FLUTE, {FLUTE_ROUNDS} rounds"
    figures = [
        Figure(f"{label}: bare loop", middle(found["loop"], "seconds"), "s"),
        at_most(f"{label}: umbel", middle(found["umbel"], "seconds"), "s", 1.5),
        at_most(f"{label}: umbel / bare loop", ratio(found["umbel"], found["loop"], "seconds"), "x", 3),
    ]
    if quick:
        return figures
    try:
        taken = measure("flute-flower", 1, FLUTE_ROUNDS, peer_python("flwr-sim-1.41.0"))["seconds"]
    except PeerUnavailable as error:
        print(f"Flower is left out: {error}")
        return figures
    return [
        *figures,
        Figure(f"{label}: Flower 1.41", taken, "s"),
        at_least(f"{label}: Flower 1.41 / umbel", taken / middle(found["umbel"], "seconds"), "x", 30),
    ]


def flower(seconds: dict[int, float]) -> list[Figure]:
    """Flower's simulation (Ray) at the same work, its first round, which starts the actors, not counted."""
    try:
        python = peer_python("flwr-sim-1.41.0")
    except PeerUnavailable as error:
        print(f"Flower is left out: {error}")
        return []
    figures = []
    for nodes in COHORTS[1:]:
        print(f"Flower 1.41, {nodes:,} nodes", flush=True)
        taken = measure("flower", nodes, ROUNDS, python)["seconds"] / (nodes * ROUNDS)
        label = f"{nodes:,} nodes a round"
        figures += [
            Figure(f"{label}: Flower 1.41", 1 / taken, "tasks/s"),
            at_least(f"{label}: umbel / Flower 1.41, tasks/s", taken / seconds[nodes], "x", 100),
        ]
    return figures


def run(*, quick: bool) -> list[Figure]:
    figures: list[Figure] = []
    seconds = {}
    for nodes in COHORTS:
        print(f"{nodes:,} nodes, {ROUNDS} rounds", flush=True)
        found, seconds[nodes] = dispatch(nodes, 3 if quick else TURNS)
        figures += found
    print(f"{SAMPLED} of {SMALL:,} and of {LARGE:,} nodes, {POPULATION_ROUNDS} rounds", flush=True)
    figures += population(3 if quick else TURNS)
    print(f"FLUTE, {FLUTE_ROUNDS} rounds", flush=True)
    figures += flute(3 if quick else TURNS, quick=quick)
    return figures if quick else figures + flower(seconds)


def show(figures: list[Figure]) -> None:
    width = max(len(figure.name) for figure in figures)
    for name, value, unit, target, met in figures:
        mark = {True: "met", False: "MISSED", None: ""}[met]
        print(f"{name:<{width}}  {value:>9,.4g} {unit:<8} {target or '':>8}  {mark}")


def main(arguments: list[str]) -> int:
    figures = run(quick="--quick" in arguments)
    show(figures)
    result = HERE / "results" / "simulate.json"
    result.parent.mkdir(exist_ok=True)
    values: list[dict[str, Any]] = [figure._asdict() for figure in figures]
    result.write_text(json.dumps({"name": "simulate", "figures": values}, indent=1) + "\n")
    return int(any(figure.met is False for figure in figures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
