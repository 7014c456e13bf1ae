"""Measurements that are processes of their own and take turns, so that what else the machine does hits all alike."""

import json
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from statistics import median
from typing import Any

from _within import DID_NOT_END

HERE = Path(__file__).resolve().parent
# The source beside this folder, and libraries that would tell their makers of each run told not to. Ray would look for
# a cluster that somebody started here, and wait for one that has ended: it is told to start its own.
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(HERE.parent / "src"),
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ADDRESS": "local",
}

Command = list[str]
Taken = dict[str, float]

# Many times what the longest measurement takes on a busy machine: whoever needs more hangs.
PATIENCE = 1_800.0


class Failed(RuntimeError):
    """A measurement came to a bad end."""


class DidNotEnd(Failed):
    """A measurement hung. It is gone, with all that it started."""


def answer(command: Command, seconds: float = PATIENCE) -> Any:
    """Run a command whose last line is its answer, as JSON.

    Raises ``Failed`` when it ends with an error, and ``DidNotEnd`` when it takes longer than so many seconds.
    """
    within = [sys.executable, str(HERE / "_within.py"), str(seconds), *command]
    done = subprocess.run(within, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    if done.returncode == DID_NOT_END:
        error = DidNotEnd(f"did not end within {seconds:,.0f} s")
        error.add_note(f"{' '.join(command)}\n{done.stderr[-2_000:]}")
        raise error
    if done.returncode:
        raise Failed(f"{' '.join(command)} failed:\n{done.stderr[-2_000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(command: Command, seconds: float = PATIENCE) -> Taken:
    """Run a command whose last line says, as JSON, what it took."""
    taken: Taken = answer(command, seconds)
    return taken


def turns(
    ways: dict[str, Command], count: int, *, peers: Collection[str] = (), seconds: float = PATIENCE
) -> dict[str, list[Taken]]:
    """Measure every way once, then every way again, and so on.

    A peer that does not end is left out, in all turns. Any other way that does not end raises ``DidNotEnd``.
    """
    found: dict[str, list[Taken]] = {name: [] for name in ways}
    for _ in range(count):
        for name in [name for name in ways if name in found]:
            try:
                found[name].append(measure(ways[name], seconds))
            except DidNotEnd as error:
                if name not in peers:
                    raise
                print(f"{name} is left out: {error}", flush=True)
                del found[name]
    return found


def middle(taken: list[Taken], what: str) -> float:
    return median(each[what] for each in taken)


def ratio(above: list[Taken], below: list[Taken], what: str) -> float:
    return median(one[what] / other[what] for one, other in zip(above, below, strict=True))
