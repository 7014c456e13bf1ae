"""Run every benchmark, one after the other, and print each figure beside its target.

    python benchmarks/run.py [NAME ...]

A benchmark is a file ``bench_<name>.py`` that also runs alone, and leaves ``results/<name>.json``:
``{"name": ..., "figures": [{"name": ..., "value": ..., "unit": ..., "target": ..., "met": ...}, ...]}``; ``target`` is
a text such as ``"<= 2.0"``, ``met`` is true, false, or null where no target was set. Exits 1 when a target is missed,
2 when a benchmark fails: a figure that was not measured is never a figure that was met.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
MARKS = {True: "met", False: "MISSED", None: ""}


def names() -> list[str]:
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def measure(name: str) -> list[dict[str, Any]] | None:
    """Run one benchmark in a process of its own; return its figures, or None if it fails."""
    result = RESULTS / f"{name}.json"
    result.unlink(missing_ok=True)
    done = subprocess.run([sys.executable, str(HERE / f"bench_{name}.py")], cwd=HERE.parent, check=False)
    if done.returncode not in (0, 1) or not result.is_file():
        return None
    figures: list[dict[str, Any]] = json.loads(result.read_text())["figures"]
    return figures


def show(name: str, figures: list[dict[str, Any]]) -> None:
    width = max((len(figure["name"]) for figure in figures), default=0)
    print(f"\n{name}")
    for figure in figures:
        value = f"{figure['value']:,.4g} {figure['unit']}"
        print(f"  {figure['name']:<{width}}  {value:>16}  {figure['target'] or '':>12}  {MARKS[figure['met']]}")


def main(chosen: list[str]) -> int:
    unknown = sorted(set(chosen) - set(names()))
    if unknown:
        print(f"no benchmark is named {', '.join(unknown)}; there are {', '.join(names())}", file=sys.stderr)
        return 2
    measured = {name: measure(name) for name in chosen or names()}
    print("\nfigures and targets")
    for name, figures in measured.items():
        if figures is None:
            print(f"\n{name}\n  FAILED: it left no figures")
        else:
            show(name, figures)
    failed = [name for name, figures in measured.items() if figures is None]
    known = [figure for figures in measured.values() for figure in figures or []]
    missed = [figure["name"] for figure in known if figure["met"] is False]
    met = sum(figure["met"] is True for figure in known)
    print(f"\n{met} targets met, {len(missed)} missed, {len(failed)} benchmarks failed")
    return 2 if failed else int(bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
