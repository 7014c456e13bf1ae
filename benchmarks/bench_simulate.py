"""What a simulated round costs beside a bare NumPy loop and beside Flower's simulation.

    python benchmarks/bench_simulate.py [--quick] [--flute]

Clients do nothing: every one returns the model of 1 MB plus a constant. What is measured is what the library adds. A
measurement is a process of its own; the loop and Umbel take turns, and ratios are medians over the turns. CPU seconds
(user and system) are the figures that other work on the machine moves least. Flower runs in an environment of its
own, see ``_peers.py``; ``--quick`` leaves it out and takes few turns. FLUTE, see ``_flute.py``, is real training, and
blazefl and pfl-research do it too; ``--flute`` measures that alone and leaves ``results/flute.json``.
"""

import sys
from pathlib import Path

from _figures import Figure, at_least, at_most, leave, show
from _flute_figures import flute
from _peers import PeerUnavailable, peer_python
from _turns import HERE, Command, DidNotEnd, measure, middle, ratio, turns

COHORTS = (10, 100, 1_000)
ROUNDS = 5
TURNS = 9
SMALL, LARGE = 1_000, 1_000_000
SAMPLED = 100
HUGE = 15_000_000
POPULATION_ROUNDS = 20


def command(way: str, nodes: int, rounds: int, python: Path | str = sys.executable) -> Command:
    return [str(python), str(HERE / "_simulate_worker.py"), way, str(nodes), str(rounds)]


def dispatch(nodes: int, count: int) -> tuple[list[Figure], float]:
    """The cost of a task at one size of cohort; also Umbel's seconds a task."""
    ways = {"loop": "loop", "umbel": "umbel", "copy": "umbel-copy"}
    found = turns({name: command(way, nodes, ROUNDS) for name, way in ways.items()}, count)
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
    sizes = {"small": SMALL, "large": LARGE, "huge": HUGE}
    found = turns({name: command("population", size, POPULATION_ROUNDS) for name, size in sizes.items()}, count)
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
        label = f"{nodes:,} nodes a round"
        try:
            taken = measure(command("flower", nodes, ROUNDS, python))["seconds"] / (nodes * ROUNDS)
        except DidNotEnd as error:
            print(f"{label}: Flower is left out: {error}", flush=True)
            continue
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
    print("FLUTE", flush=True)
    figures += flute(3 if quick else TURNS, quick=quick)
    return figures if quick else figures + flower(seconds)


def main(arguments: list[str]) -> int:
    quick = "--quick" in arguments
    alone = "--flute" in arguments
    figures = flute(3 if quick else TURNS, quick=quick) if alone else run(quick=quick)
    show(figures)
    return leave("flute" if alone else "simulate", figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
