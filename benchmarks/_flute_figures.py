"""FLUTE in Umbel, as a plain loop, and in the libraries beside it: the same clients' work, see `_flute`."""

import os
import sys

from _figures import Figure, at_least, at_most
from _peers import PeerUnavailable, peer_python
from _turns import HERE, Command, Taken, middle, ratio, turns

ROUNDS = 100
LABEL = f"FLUTE, {ROUNDS} rounds"
LOOP, UMBEL, FLOWER = "bare loop", "umbel", "Flower 1.41"
OFTEN = {"blazefl 2.0.3": "blazefl", "pfl-research 0.6": "pfl"}
PEERS = OFTEN | {FLOWER: "flwr-sim-1.41.0"}
SCRIPTS = {"blazefl": "_flute_blazefl.py", "pfl": "_flute_pfl.py", "flwr-sim-1.41.0": "_flute_flower.py"}


def flute(count: int, *, quick: bool) -> list[Figure]:
    """Small work, where a library's own cost shows. Flower takes half a minute, so that it runs once."""
    ways = {LOOP: command(sys.executable, "_flute.py"), UMBEL: command(sys.executable, "_flute_umbel.py")}
    peers = {} if quick else present()
    load = os.getloadavg()[0]
    found = turns(ways | {name: peers[name] for name in peers if name in OFTEN}, count, peers=PEERS)
    if FLOWER in peers:
        print(FLOWER, flush=True)
        # Beside a turn of Umbel, so that both have the same machine.
        beside = turns({UMBEL: ways[UMBEL], FLOWER: peers[FLOWER]}, 1, peers=PEERS)
        found[UMBEL] += beside.pop(UMBEL)
        found |= beside
    return [*absolute(found), *relative(found), Figure(f"{LABEL}: load of the machine before", load, "")]


def command(python: object, script: str) -> Command:
    return [str(python), str(HERE / script), str(ROUNDS)]


def present() -> dict[str, Command]:
    """The peers that can be installed here."""
    found = {}
    for name, peer in PEERS.items():
        try:
            found[name] = command(peer_python(peer), SCRIPTS[peer])
        except PeerUnavailable as error:
            print(f"{name} is left out: {error}", flush=True)
    return found


def absolute(found: dict[str, list[Taken]]) -> list[Figure]:
    figures = []
    for name, taken in found.items():
        label, seconds = f"{LABEL}: {name}", middle(taken, "seconds")
        apart = max(each["difference"] for each in taken)
        figures += [
            at_most(label, seconds, "s", 1.5) if name == UMBEL else Figure(label, seconds, "s"),
            Figure(f"{label}, CPU time of all processes", middle(taken, "cpu"), "CPU s"),
            at_most(f"{label}: its model from the loop's over the same clients", apart, "of the largest", 1e-4),
        ]
    return figures


def relative(found: dict[str, list[Taken]]) -> list[Figure]:
    ours, loop = found[UMBEL], found[LOOP]
    turn = ours[: len(loop)]
    figures = [
        at_most(f"{LABEL}: umbel / bare loop", ratio(turn, loop, "seconds"), "x", 3),
        Figure(f"{LABEL}: umbel / bare loop, CPU time", ratio(turn, loop, "cpu"), "x"),
    ]
    for name in (name for name in PEERS if name in found):
        label = f"{LABEL}: {name} / umbel"
        seconds, cpu = (middle(found[name], what) / middle(ours, what) for what in ("seconds", "cpu"))
        figures += [
            at_least(label, seconds, "x", 30) if name == FLOWER else Figure(label, seconds, "x"),
            Figure(f"{label}, CPU time", cpu, "x"),
        ]
    return figures
