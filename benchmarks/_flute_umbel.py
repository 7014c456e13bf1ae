"""The benchmark of FLUTE in Umbel, on the engine ``local``.

python _flute_umbel.py ROUNDS
"""

import sys

import _flute
from _engine_apps import flute

from umbel import simulate
from umbel.strategy import fixed, strategy


def run(rounds: int) -> _flute.Model:
    plan = strategy(select=fixed(_flute.SAMPLED))
    return dict(simulate(flute, plan, _flute.new_model(), nodes=_flute.CLIENTS, rounds=rounds).model.to_numpy())


if __name__ == "__main__":
    _flute.measure(run, int(sys.argv[1]))
