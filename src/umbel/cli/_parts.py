"""The parts that a strategy is put together from, found in the packages that export them."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import ModuleType
from typing import Any, Final, NamedTuple

from umbel import aggregation, gate, optimizers, transforms
from umbel import strategy as strategies
from umbel.records import MetricsRecord

_Metrics = Mapping[str, MetricsRecord]
_CITED: Final = re.compile(r": [^:]*arXiv:.*$")
_PAPER: Final = re.compile(r"arXiv:\d{4}\.\d{4,5}")
# What a function that makes a part returns, and the argument of `strategy` (or of a reduction, for a weight) it is for.
_MADE: Final[Mapping[Any, str]] = {
    strategies.Selector: "select",
    inspect.signature(strategies.tell).return_annotation: "instruct",
    transforms.Transform: "transforms",
    strategies.Policy: "policy",
    aggregation.Aggregator: "aggregator",
    Callable[[_Metrics], float]: "weigh",
    optimizers.Optimizer: "optimizer",
}
_CLASSES: Final[Mapping[Any, str]] = {gate.Gate: "gate", strategies.Companion: "companions"}


class Part(NamedTuple):
    """One part: what it is handed over as, what it is called with, where it is from, and what its docstring says."""

    role: str
    name: str
    call: str
    module: str
    summary: str
    paper: str


@cache
def parts() -> tuple[Part, ...]:
    """Return every part that is exported, in the order in which a round needs them."""
    order = [*_MADE.values(), *_CLASSES.values()]
    found = [each for module in (strategies, transforms, aggregation, optimizers, gate) for each in _parts_of(module)]
    return tuple(sorted(found, key=lambda part: order.index(part.role)))


def in_python(role: str) -> str:
    """Return where a part can be handed over: settings have plain values, and name what Python has put together."""
    made = "aggregator=weighted_mean(...)" if role == "weigh" else f"{role}=..."
    where = 'for umbel.simulate, for strategy = "module:name" in the settings of a run here, or for the main of an app'
    return f"parts are put together in Python, strategy({made}) of umbel.strategy, {where}"


def _parts_of(module: ModuleType) -> Iterator[Part]:
    for name in module.__all__:
        value = getattr(module, name)
        role = _role(value)
        if role:
            first = (inspect.getdoc(value) or "").partition("\n")[0]
            paper = _PAPER.search(first)
            called = name if _is_weight(value) else f"{name}({_needed(value)})"
            yield Part(role, name, called, module.__name__, _said(first), paper.group() if paper else "")


def _role(value: Any) -> str:
    """Return what a public name is handed over as, nothing for one that is no part."""
    if inspect.isclass(value):
        return _CLASSES.get(value, "")
    if not inspect.isfunction(value):
        return ""
    made = inspect.signature(value).return_annotation
    return "weigh" if _is_weight(value) else next((role for kind, role in _MADE.items() if kind == made), "")


def _is_weight(value: Any) -> bool:
    """Say whether a function is a weight itself, which is handed over without a call."""
    if not inspect.isfunction(value):
        return False
    signature = inspect.signature(value)
    takes = [each.annotation for each in signature.parameters.values()]
    return takes == [_Metrics] and signature.return_annotation is float


def _needed(value: Any) -> str:
    """Return the parameters that have to be given, and dots for those that may be."""
    parameters = inspect.signature(value).parameters.values()
    needed = [each.name for each in parameters if each.default is each.empty and each.kind is not each.VAR_KEYWORD]
    return ", ".join([*needed, "..."] if len(needed) < len(parameters) else needed)


def _said(line: str) -> str:
    """Return the first line of a docstring without its paper, as what a part is rather than what its maker does."""
    text = _CITED.sub("", line).removesuffix(".").removeprefix("Return ")
    return (text[:1].upper() + text[1:]).replace("``", "")
