"""Measurements that are processes of their own and take turns, so that what else the machine does hits all alike."""

import json
import os
import subprocess
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
# The source beside this folder, and libraries that would tell their makers of each run told not to.
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(HERE.parent / "src"),
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

Command = list[str]
Taken = dict[str, float]


def measure(command: Command) -> Taken:
    """Run a command whose last line says, as JSON, what it took."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2_000:]}")
    taken: Taken = json.loads(done.stdout.splitlines()[-1])
    return taken


def turns(ways: dict[str, Command], count: int) -> dict[str, list[Taken]]:
    """Measure every way once, then every way again, and so on."""
    found: dict[str, list[Taken]] = {name: [] for name in ways}
    for _ in range(count):
        for name, command in ways.items():
            found[name].append(measure(command))
    return found


def middle(taken: list[Taken], what: str) -> float:
    return median(each[what] for each in taken)


def ratio(above: list[Taken], below: list[Taken], what: str) -> float:
    return median(one[what] / other[what] for one, other in zip(above, below, strict=True))
