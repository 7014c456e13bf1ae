"""Write the figures of the last `make bench` into the tables of the README.

    python benchmarks/readme.py

Figures of Umbel stand in ``results/*.json``, and so do those of the peers that run beside it. The others were measured
once, on a machine of the same kind, and stand here. A peer that did not run gets a dash; without the figures of
Umbel nothing is written.
"""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
BLOCK = re.compile(r"(<!-- figures: begin[^\n]*-->\n).*?(<!-- figures: end -->)", re.DOTALL)

Known = dict[str, float]


class Figure:
    """A cell: figures of the last run by name, added up, and how to show them."""

    def __init__(self, *names: str, unit: str = "") -> None:
        self.names = names
        self.unit = unit

    def show(self, known: Known) -> str:
        if any(name not in known for name in self.names):
            return "-"
        value = sum(known[name] for name in self.names)
        digits = 2 if value < 1 else 1 if value < 10 else 0
        return f"{value:,.{digits}f}{self.unit}"


Row = tuple["str | Figure", ...]


def peers(workload: str, unit: str) -> tuple[Figure, ...]:
    sides = ("flwr-1.41.0 Array and wire form", "safetensors bytes", "torch bytes")
    return tuple(Figure(f"{workload}: {side}, CPU s", unit=unit) for side in sides)


COPIES = " copies"
RECORDS: tuple[Row, ...] = (
    ("a model to bytes and back, CPU time", "Umbel", "Flower 1.41", "safetensors", "torch.save"),
    (
        "122 arrays, 46.8 MB; in copies of the same bytes in memory",
        Figure("46.8 MB: container round trip, CPU s", unit=COPIES),
        *peers("46.8 MB", COPIES),
    ),
    (
        "200 arrays of bfloat16, 105 MB; likewise",
        Figure("105 MB of bfloat16: container round trip, CPU s", unit=COPIES),
        *peers("105 MB of bfloat16", COPIES),
    ),
    (
        "10,000 arrays of 16 floats; an array",
        Figure(
            "10,000 arrays: from_numpy + to_numpy(copy=False), CPU s", "10,000 arrays: dumps + loads, CPU s", unit=" us"
        ),
        *peers("10,000 arrays", " us"),
    ),
)
ROUND = "1,000 nodes a round"
SIMULATION: tuple[Row, ...] = (
    (
        "1,000 clients a round that do nothing, 1 MB model",
        *("Umbel", "bare NumPy loop", "Flower 1.41 with Ray", "pfl-research", "NVFlare"),
    ),
    (
        "CPU seconds for 1,000 clients",
        Figure(f"{ROUND}: CPU s per 1,000 tasks"),
        Figure(f"{ROUND}: CPU s per 1,000 tasks, bare loop"),
        *("43", "0.69", "about 700"),
    ),
    (
        "clients a second",
        Figure(f"{ROUND}: umbel"),
        Figure(f"{ROUND}: bare loop"),
        *("36", "1,280 to 1,560", "0.6"),
    ),
    ("memory at the peak", Figure(f"{ROUND}: peak RSS", unit=" MiB"), "-", "3.3 GB", "113 MB", "-"),
)
SAME = "FLUTE, 100 rounds"
FLUTE_SIDES = ("umbel", "bare loop", "blazefl 2.0.3", "pfl-research 0.6", "Flower 1.41")
FLUTE: tuple[Row, ...] = (
    (
        "FLUTE: logistic regression, 100 rounds of 10 of 1,000 clients, the same training",
        *("Umbel", "bare NumPy loop", "blazefl 2.0.3", "pfl-research 0.6", "Flower 1.41 with Ray"),
    ),
    ("CPU seconds", *(Figure(f"{SAME}: {side}, CPU time of all processes") for side in FLUTE_SIDES)),
    ("seconds", *(Figure(f"{SAME}: {side}") for side in FLUTE_SIDES)),
)
MEAN: tuple[Row, ...] = (
    ("weighted mean of ten models, CPU time over the time to move the bytes", "Umbel", "Flower 1.13"),
    *(
        (
            size,
            Figure(f"10 x {size}: mean, CPU s", unit="x"),
            Figure(f"10 x {size}: flwr-1.13.1 aggregate, CPU s", unit="x"),
        )
        for size in ("46.8 MB", "105 MB of bfloat16")
    ),
)
TWO, FLOWER = "2 nodes, TLS", "Flower 1.41"
NAMED = ("fedavg", "fedadam", "fedmedian", "krum", "bulyan")
STRATEGIES: tuple[Row, ...] = (
    ("from 50 updates of 46.8 MB to the next model", *(f"`{name}`" for name in NAMED)),
    *(
        (
            f"{says}, {what}",
            *(Figure(f"{name}, 50 x 46.8 MB: {side}{figure}", unit=unit) for name in NAMED),
        )
        for says, side in (("Umbel", "umbel"), (FLOWER, FLOWER))
        for what, figure, unit in (("seconds", ", time", ""), ("memory beyond the result", ", extra memory", " MB"))
    ),
)
DEPLOYED: tuple[Row, ...] = (
    ("two nodes on one machine, a round, nobody trains", "Umbel, with TLS", FLOWER, "NVFlare"),
    (
        "a model of 9 numbers",
        Figure(f"9 floats, {TWO}: a round, median", unit=" ms"),
        Figure(f"{FLOWER}, 9 floats, 2 nodes: a round", unit=" s"),
        "2.5 s",
    ),
    (
        "a model of 100 MB",
        Figure(f"100 MB, {TWO}: a round", unit=" s"),
        Figure(f"{FLOWER}, 100 MB, 2 nodes: a round", unit=" s"),
        "5 to 6 s",
    ),
    (
        "the same, CPU seconds of all processes",
        Figure(f"100 MB, {TWO}: a round, all processes"),
        Figure(f"{FLOWER}, 100 MB, 2 nodes: a round, all processes"),
        "9",
    ),
    (
        "the same, memory above idle",
        Figure(f"100 MB, {TWO}: server above idle", unit=" MB (server)"),
        Figure(f"{FLOWER}, 100 MB, 2 nodes: all processes, peak", unit=" MB (all processes)"),
        "13 models (server)",
    ),
)
INSTALL: tuple[Row, ...] = (
    ("", "Umbel", "Flower 1.41", "NVFlare"),
    ("base installation", "174 MB, 35 packages", "215 MB, 53 packages", "160 MB, 44 packages"),
    ("modules that the first import loads", "206 (NumPy alone: 173)", "1,206", "-"),
)
TABLES = (RECORDS, SIMULATION, FLUTE, MEAN, STRATEGIES, DEPLOYED, INSTALL)


def figures() -> Known:
    found: Known = {}
    for path in sorted((HERE / "results").glob("*.json")):
        found |= {figure["name"]: figure["value"] for figure in json.loads(path.read_text())["figures"]}
    return found


def unmeasured(tables: tuple[tuple[Row, ...], ...], known: Known) -> list[str]:
    """Return the figures of Umbel, which stand in the second column, that the last run did not leave."""
    ours = [row[1] for rows in tables for row in rows]
    return [name for cell in ours if isinstance(cell, Figure) for name in cell.names if name not in known]


def table(rows: tuple[Row, ...], known: Known) -> str:
    cells = [[cell.show(known) if isinstance(cell, Figure) else cell for cell in row] for row in rows]
    lines = [cells[0], ["---"] * len(cells[0]), *cells[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> int:
    text, known = README.read_text(), figures()
    if not BLOCK.search(text):
        print(f"{README} has no place for figures", file=sys.stderr)
        return 1
    lacking = unmeasured(TABLES, known)
    if lacking:
        print(f"run `make bench` first; it has left no figure called {'; '.join(lacking)}", file=sys.stderr)
        return 1
    written = "\n".join(table(rows, known) for rows in TABLES)
    README.write_text(BLOCK.sub(lambda match: match[1] + written + match[2], text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
