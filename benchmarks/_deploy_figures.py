"""Figures of `bench_deploy`, each beside its target."""

from typing import NamedTuple

MB = 10**6


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
        mark = {True: "met", False: "MISSED", None: ""}[met]
        print(f"{name:<{width}}  {value:>9,.4g} {unit:<8} {target or '':>8}  {mark}", flush=True)
