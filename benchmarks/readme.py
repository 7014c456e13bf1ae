"""Write the figures of the last `make bench` into the table of the README.

    python benchmarks/readme.py

What is in the table of speed stands in ``results/*.json``. A figure that is not there is left out, never made up.
"""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
BLOCK = re.compile(r"(<!-- figures: begin[^\n]*-->\n).*?(<!-- figures: end -->)", re.DOTALL)

COLUMNS = ("Umbel", "Flower 1.41", "safetensors", "torch.save")
SIDES = ("umbel", "flwr-1.41.0 Array and wire form", "safetensors bytes", "torch bytes")

# What a row says, the figures of Umbel (added up), how a peer's figure is called, and the unit.
ROWS = (
    (
        "122 arrays, 46.8 MB: times the CPU time of one copy in memory",
        ("46.8 MB: container round trip, CPU s",),
        "46.8 MB: {}, CPU s",
        "x",
    ),
    (
        "200 bfloat16 arrays, 105 MB: times the CPU time of one copy",
        ("105 MB of bfloat16: container round trip, CPU s",),
        "105 MB of bfloat16: {}, CPU s",
        "x",
    ),
    (
        "10,000 arrays of 16 floats: CPU time an array",
        ("10,000 arrays: from_numpy + to_numpy(copy=False), CPU s", "10,000 arrays: dumps + loads, CPU s"),
        "10,000 arrays: {}, CPU s",
        " us",
    ),
)


def figures() -> dict[str, float]:
    found = {}
    for path in sorted((HERE / "results").glob("*.json")):
        found |= {figure["name"]: figure["value"] for figure in json.loads(path.read_text())["figures"]}
    return found


def cell(known: dict[str, float], names: tuple[str, ...], unit: str) -> str:
    if any(name not in known for name in names):
        return "-"
    value = sum(known[name] for name in names)
    return f"{value:.{1 if value < 10 else 0}f}{unit}"


def table(known: dict[str, float]) -> str:
    rows = [
        [words, cell(known, ours, unit), *(cell(known, (theirs.format(side),), unit) for side in SIDES[1:])]
        for words, ours, theirs, unit in ROWS
    ]
    lines = [["a model to bytes and back", *COLUMNS], ["---"] * (1 + len(COLUMNS)), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> int:
    text = README.read_text()
    if not BLOCK.search(text):
        print(f"{README} has no place for figures", file=sys.stderr)
        return 1
    README.write_text(BLOCK.sub(lambda match: match[1] + table(figures()) + match[2], text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
