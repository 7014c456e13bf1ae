"""The benchmark of FLUTE in Flower's simulation, with the training of `_flute`.

Its grid looks for replies every 0.1 s: much of its time on the clock is waiting, whatever else the machine does.

python _flute_flower.py ROUNDS
"""

import sys

import _flower_simulated
import _flute

NAMES = list(_flute.new_model())


def train(arrays: list[object], client: int, number: int) -> tuple[list[object], int]:
    _flute.load()  # in the first round, which is left out
    return list(_flute.train(dict(zip(NAMES, arrays, strict=True)), client, number).values()), _flute.SAMPLES


def main(rounds: int) -> None:
    model = list(_flute.new_model().values())
    done = _flower_simulated.run(train, model, _flute.CLIENTS, _flute.SAMPLED, rounds)
    apart = _flute.difference(dict(zip(NAMES, done.arrays, strict=True)), done.trained)
    _flute.report(done.seconds, done.cpu, apart)


if __name__ == "__main__":
    main(int(sys.argv[1]))
