"""Each algorithm in the regime that its paper is for, on real data, beside FedAvg: who is better, and by how much.

    python benchmarks/bench_convergence.py [--quick] [NAME ...]

Figures are means over three seeds, of the last five rounds. A margin of 0 or less is a target that is missed: the
documentation says so too. Every run is the same to the bit whenever and wherever it is run.
"""

import sys
from collections.abc import Iterator

import numpy as np
from _attacks import ATTACKS, RULES, accuracy_under, mean_under
from _figures import Figure, leave
from _peers import PeerUnavailable
from _regimes import REGIMES
from _runs import SEEDS

HURT = 2.0  # per cent: a rule is to beat the mean where the mean loses more than this


def regimes(seeds: tuple[int, ...], chosen: list[str]) -> Iterator[Figure]:
    for strategy, regime, unit, measure in REGIMES:
        if chosen and strategy not in chosen:
            continue
        try:
            pairs = np.array([measure(seed) for seed in seeds])
        except PeerUnavailable as error:
            print(f"  {strategy}, {regime}: left out, {error}")
            continue
        ours, theirs = pairs.mean(axis=0)
        print(f"  {strategy:<16} {regime:<54} {ours:7.2f} {theirs:7.2f} {ours - theirs:+7.2f} {unit}", flush=True)
        yield Figure(f"{strategy}: {regime}: over FedAvg", ours - theirs, unit, "> 0", bool(ours > theirs))


def attacks(seeds: tuple[int, ...], chosen: list[str]) -> Iterator[Figure]:
    unharmed = float(np.mean([mean_under(None, seed) for seed in seeds]))
    for attack in (None, *ATTACKS):
        plain = float(np.mean([mean_under(attack, seed) for seed in seeds]))
        is_hurt = plain < unharmed - HURT
        print(f"  {attack or 'no attack'}: FedAvg {plain:.2f}", flush=True)
        for name, strategy in RULES.items():
            if chosen and name not in chosen:
                continue
            found = float(np.mean([accuracy_under(strategy, attack, seed) for seed in seeds]))
            print(f"    {name:<14} {found:7.2f} {found - plain:+7.2f}", flush=True)
            target = "> 0" if is_hurt else None
            met = bool(found > plain) if is_hurt else None
            yield Figure(f"{name}: {attack or 'no attack'}: over FedAvg", found - plain, "% accuracy", target, met)


def main(arguments: list[str]) -> int:
    seeds = SEEDS[:1] if "--quick" in arguments else SEEDS
    chosen = [each for each in arguments if not each.startswith("--")]
    figures = [*regimes(seeds, chosen), *attacks(seeds, chosen)]
    return leave("convergence", figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
