"""Figures, each beside its target, and the file of results that a benchmark leaves."""

import json
from pathlib import Path
from typing import NamedTuple

MB = 10**6
MARKS = {True: "met", False: "MISSED", None: ""}
RESULTS = Path(__file__).resolve().parent / "results"


class Figure(NamedTuple):
    name: str
    value: float
    unit: str
    target: str | None = None
    met: bool | None = None


def at_least(name: str, value: float, unit: str, bound: float) -> Figure:
    return Figure(name, value, unit, f">= {bound:g}", value >= bound)


def at_most(name: str, value: float, unit: str, bound: float) -> Figure:
    return Figure(name, value, unit, f"<= {bound:g}", value <= bound)


def show(figures: list[Figure]) -> None:
    width = max((len(figure.name) for figure in figures), default=0)
    for name, value, unit, target, met in figures:
        print(f"{name:<{width}}  {value:>9,.4g} {unit:<8} {target or '':>8}  {MARKS[met]}", flush=True)


def leave(benchmark: str, figures: list[Figure]) -> int:
    """Write the figures for ``run.py`` and ``readme.py``; return the status to exit with, 1 when a target is missed."""
    RESULTS.mkdir(exist_ok=True)
    values = [figure._asdict() for figure in figures]
    (RESULTS / f"{benchmark}.json").write_text(json.dumps({"name": benchmark, "figures": values}, indent=1) + "\n")
    return int(any(figure.met is False for figure in figures))
