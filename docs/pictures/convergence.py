"""Make convergence.svg: accuracy by round and by byte of the main strategies on digits. Needs the extra ``examples``.

    python docs/pictures/convergence.py

The data, the model and the nodes are those of benchmarks/bench_convergence.py: 50 nodes, label skew (Dirichlet 0.1),
one node in five a round, five epochs; means over three seeds.
"""
# ruff: noqa: INP001 - a script, no part of a package

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from _learning import Learner, always, digits, skewed  # noqa: E402 - the suite is a folder of scripts
from _runs import run  # noqa: E402

from umbel import strategy as named  # noqa: E402

SEEDS, ROUNDS = (1, 2, 3), 60
FEW = {"fraction": 0.2, "evaluate_fraction": 0}
MAIN = {
    "fedavg": (named.fedavg(**FEW), "#64748b"),
    "fedavgm": (named.fedavgm(beta=0.7, **FEW), "#2563eb"),
    "fedadam": (named.fedadam(learning_rate=0.02, **FEW), "#c2410c"),
    "scaffold": (named.scaffold(**FEW), "#047857"),
    "feddyn": (named.feddyn(alpha=0.1, **FEW), "#7c3aed"),
    "fedmedian": (named.fedmedian(**FEW), "#be123c"),
}
WIDTH, HEIGHT, LEFT, TOP, PANEL, BOTTOM = 880, 360, 52, 40, 340, 300
LOW, HIGH = 20.0, 100.0


class Curve(NamedTuple):
    """What one strategy came to, round by round."""

    name: str
    color: str
    rounds: Sequence[float]
    megabytes: Sequence[float]
    accuracy: Sequence[float]


def curve(name: str) -> Curve:
    """Run a strategy with every seed."""
    strategy, color = MAIN[name]
    accuracies, sizes = [], []
    for seed in SEEDS:
        learner = Learner(skewed(digits(), 50, 0.1, seed), rate=0.05, epochs=always(5))
        history = run(learner, strategy, seed, ROUNDS)
        accuracies.append([100 * value for value in history.metrics["central.accuracy"]])
        sizes.append(np.cumsum([report.bytes["sent"] + report.bytes["received"] for report in history.rounds]) / 1e6)
    found = np.mean(accuracies, axis=0)
    # Three rounds at a time: a line that can be followed.
    smooth = [float(found[max(0, place - 2) : place + 1].mean()) for place in range(ROUNDS)]
    return Curve(name, color, range(1, ROUNDS + 1), np.mean(sizes, axis=0).tolist(), smooth)


def panel(left: int, title: str, curves: list[Curve], axis: str) -> list[str]:
    """Draw the curves over one axis."""
    most = max(max(getattr(each, axis)) for each in curves)
    parts = [f'<text x="{left}" y="24" class="title">{title}</text>']
    for level in range(int(LOW), int(HIGH) + 1, 20):
        y = height(level)
        parts.append(f'<line x1="{left}" y1="{y}" x2="{left + PANEL}" y2="{y}" class="grid"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4}" class="tick" text-anchor="end">{level}</text>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = left + share * PANEL
        parts.append(f'<text x="{x:g}" y="{BOTTOM + 18}" class="tick" text-anchor="middle">{most * share:.3g}</text>')
    for each in curves:
        pairs = zip(getattr(each, axis), each.accuracy, strict=True)
        points = " ".join(f"{left + PANEL * x / most:.1f},{height(y):.1f}" for x, y in pairs)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{each.color}" stroke-width="1.8"/>')
    return parts


def height(accuracy: float) -> float:
    """Return where an accuracy is."""
    return BOTTOM - (BOTTOM - TOP) * (max(accuracy, LOW) - LOW) / (HIGH - LOW)


def legend(curves: list[Curve]) -> list[str]:
    """Draw the names, each with the accuracy at the end."""
    parts = []
    for place, each in enumerate(curves):
        x, y = LEFT + 128 * place, HEIGHT - 16
        parts.append(f'<line x1="{x}" y1="{y - 4}" x2="{x + 18}" y2="{y - 4}" stroke="{each.color}" stroke-width="3"/>')
        parts.append(f'<text x="{x + 24}" y="{y}" class="tick">{each.name} {each.accuracy[-1]:.1f}</text>')
    return parts


def picture(curves: list[Curve]) -> str:
    """Return the whole picture."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>Accuracy by round and by byte</title>",
        "<style>text { font-family: system-ui, sans-serif; fill: #334155; font-size: 12px; }",
        ".title { font-size: 13px; font-weight: 600; } .grid { stroke: #e2e8f0; }</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        *panel(LEFT, "accuracy, %, by round", curves, "rounds"),
        *panel(LEFT + PANEL + 92, "accuracy, %, by MB sent and received", curves, "megabytes"),
        *legend(curves),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "convergence.svg").write_text(picture([curve(name) for name in MAIN]))
