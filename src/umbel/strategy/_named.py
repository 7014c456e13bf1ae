"""Strategies by name and numbers, as a settings file or a request over the network gives them: data, not code."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from math import isfinite
from types import MappingProxyType
from typing import Any, Final, NamedTuple, get_args

from umbel._nearest import nearest
from umbel.errors import StrategyError
from umbel.strategy._analytics import histogram, kmeans, moments, quantiles
from umbel.strategy._corrected import feddyn, fednova, fedprox, scaffold
from umbel.strategy._fairness import qfedavg
from umbel.strategy._fedavg import fedavg, handed_on, no_setting
from umbel.strategy._optimized import diloco, fedadagrad, fedadam, fedavgm, fedyogi
from umbel.strategy._overlapping import fedasync, fedat, fedbuff
from umbel.strategy._personal import ditto, fedbn, fedper
from umbel.strategy._policy import Policy, quorum
from umbel.strategy._robust import bulyan, centredclip, fedmedian, fedtrimmedavg, krum, multikrum, normclip, rfa
from umbel.strategy._strategy import Strategy
from umbel.strategy._trees import fedxgb_bagging, fedxgb_cyclic
from umbel.transforms import Transform, clipped, narrowed, noisy

_MADE: Final[tuple[Callable[..., Strategy], ...]] = (
    fedavg,
    fedavgm,
    fedadagrad,
    fedadam,
    fedyogi,
    fedprox,
    fednova,
    scaffold,
    feddyn,
    qfedavg,
    fedbn,
    fedper,
    ditto,
    diloco,
    fedmedian,
    fedtrimmedavg,
    krum,
    multikrum,
    bulyan,
    rfa,
    normclip,
    centredclip,
    fedbuff,
    fedasync,
    fedat,
    fedxgb_bagging,
    fedxgb_cyclic,
    moments,
    histogram,
    quantiles,
    kmeans,
)
_PAPER: Final = re.compile(r"arXiv:\d{4}\.\d{4,5}")
_CITATION: Final = re.compile(r" \((?:[^()]*, )?[^()]*arXiv:[^()]*\)")
_TEXTS: Final = "Sequence[str]"
_NUMBERS: Final = "Sequence[float]"
_EXPECTED: Final = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_NAME: Final = "name"  # of the strategy: whoever names it has said it already
# When a round is over, as plain values: what each is called beside the numbers of a strategy, and by `quorum`.
_WAITING: Final = {
    "quorum": "share",
    "deadline_quantile": "quantile",
    "deadline_factor": "factor",
    "first_deadline": "first_deadline",
}
# Transforms as plain values: what each is called, in the order in which they are applied; its one number or text.
_TRANSFORMS: Final[Mapping[str, tuple[Callable[[Any], Transform], type]]] = {
    "clipped": (clipped, float),
    "noisy": (noisy, float),
    "narrowed": (narrowed, str),
}
_SHOWN: Final = 80
_MOST: Final = 2**63


class Setting(NamedTuple):
    """One number or text that a named strategy takes; ``default`` is None for one that has to be given."""

    name: str
    default: Any
    kind: Any
    required: bool

    @property
    def expected(self) -> str:
        """What a value has to be, in words."""
        lists = "a number or a list of numbers" if _NUMBERS in str(self.kind) else "a text or a list of texts"
        return _EXPECTED.get(self.kind, lists)

    def takes(self, value: object) -> bool:
        """Say whether a plain value has the right type: no bool is a number, and no number is endless."""
        if value is None:
            return not self.required and self.default is None
        if self.kind is bool or isinstance(value, bool):
            return self.kind is bool and isinstance(value, bool)
        if self.kind is float:
            return _is_number(value)
        if self.kind in (int, str):
            return isinstance(value, self.kind) and _is_short(value)
        fits = _is_number if _NUMBERS in str(self.kind) else _is_text
        return fits(value) or (isinstance(value, list) and all(map(fits, value)))

    def __str__(self) -> str:
        """Return ``fraction = 1.0``, or what has to be given, or may be."""
        if self.default is None:
            return f"{self.name} ({'required' if self.required else 'optional'})"
        return f"{self.name} = {self.default!r}"


class Entry(NamedTuple):
    """A strategy of the catalogue: what it does, in which paper it stands, and what it can be told."""

    name: str
    summary: str
    paper: str
    settings: tuple[Setting, ...]


def named(name: str, options: Mapping[str, Any] = MappingProxyType({})) -> Strategy:
    """Return the strategy of a name, told some numbers: plain values alone, such as JSON and TOML have.

    Parts (an aggregator, an optimizer) have no plain form: a strategy of other parts is put together in Python. Two
    have one. ``quorum``, ``deadline_quantile``, ``deadline_factor`` and ``first_deadline`` are the numbers of
    ``umbel.strategy.quorum``; ``clipped``, ``noisy`` and ``narrowed`` those of the transforms, applied in this order.

    Raises:
        StrategyError: for a name that no strategy has, an option that it does not have, a value of the wrong type, a
            number out of range, or if one that it needs is missing. The message says what there is.

    >>> named("fedadam", {"learning_rate": 0.03, "fraction": 0.5}).optimizer.name
    'adam(learning_rate=0.03, beta1=0.9, beta2=0.99, tau=0.001)'
    >>> named("fedadm")
    Traceback (most recent call last):
    umbel.errors.StrategyError: there is no strategy 'fedadm'; did you mean "fedadam"? - at strategy

    """
    entries = catalogue()
    if name not in entries:
        raise StrategyError(f"there is no strategy {name!a:.{_SHOWN}}{nearest(name, entries)}", at="strategy")
    _require(entries[name], options)
    try:
        return _makers()[name](**_with_transforms(_with_policy(options)))
    except StrategyError as error:
        raise StrategyError(error.message, at=f"strategy {name}, {error.at}") from error


def _with_policy(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with a policy in place of the numbers that make it."""
    numbers = {given: options[name] for name, given in _WAITING.items() if name in options}
    rest = {name: value for name, value in options.items() if name not in _WAITING}
    policy = quorum(**numbers)
    waits = policy.enough is None and policy.deadline is None  # for everyone, which is the policy of all
    return rest if waits else {**rest, "policy": policy}


def _with_transforms(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with transforms in place of the values that make them."""
    asked = [make(options[name]) for name, (make, _) in _TRANSFORMS.items() if options.get(name) is not None]
    rest = {name: value for name, value in options.items() if name not in _TRANSFORMS}
    return {**rest, "transforms": asked} if asked else rest


@cache
def catalogue() -> Mapping[str, Entry]:
    """Return every strategy that ``named`` can make, by name."""
    return MappingProxyType({name: _entry(name, make) for name, make in _makers().items()})


@cache
def _makers() -> Mapping[str, Callable[..., Strategy]]:
    return {make.__name__: make for make in _MADE}


def _entry(name: str, make: Callable[..., Strategy]) -> Entry:
    doc = inspect.getdoc(make) or ""
    paper = _PAPER.search(doc)
    summary = _CITATION.sub("", doc.partition("\n")[0]).removesuffix(".")
    return Entry(name, summary, paper.group() if paper else "", tuple(_settings(make)))


def _settings(make: Callable[..., Strategy]) -> Iterator[Setting]:
    """Yield what plain values can tell a strategy: its own options, then those that it hands on to ``fedavg``."""
    own = inspect.signature(make).parameters.values()
    shared = [inspect.signature(fedavg).parameters[name] for name in handed_on(make)]
    for option in {each.name: each for each in (*own, *shared)}.values():
        kind = _without_none(option.annotation)
        if kind is Policy:
            yield from _waiting()
        if option.name == "transforms":
            yield from (Setting(name, None, kind, required=False) for name, (_, kind) in _TRANSFORMS.items())
        if option.name != _NAME and (kind in _EXPECTED or _TEXTS in str(kind) or _NUMBERS in str(kind)):
            required = option.default is option.empty
            yield Setting(option.name, None if required else option.default, kind, required)


def _waiting() -> Iterator[Setting]:
    """Yield what plain values can tell a strategy that takes a policy."""
    numbers = inspect.signature(quorum).parameters
    for name, given in _WAITING.items():
        yield Setting(name, numbers[given].default, float, required=False)


def _without_none(annotation: Any) -> Any:
    """Return what an option is if it is given: ``float`` of ``float | None``."""
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 and len(get_args(annotation)) > 1 else annotation


def _require(entry: Entry, options: Mapping[str, Any]) -> None:
    known = {setting.name: setting for setting in entry.settings}
    for option, value in options.items():
        if option not in known:
            of_fedavg = [setting.name for setting in catalogue()["fedavg"].settings]
            raise StrategyError(no_setting(entry.name, option, known, of_fedavg), at=f"strategy {entry.name}")
        if not known[option].takes(value):
            msg = f"expected {known[option].expected} for {option} of {entry.name}, got {_brief(value)}"
            raise StrategyError(msg, at=f"strategy {entry.name}")
    missing = [option for option, setting in known.items() if setting.required and option not in options]
    if missing:
        msg = (
            f"the strategy {entry.name} needs {' and '.join(missing)}; umbel strategies {entry.name} says what it takes"
        )
        raise StrategyError(msg, at=f"strategy {entry.name}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and _is_short(value) and isfinite(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_short(value: object) -> bool:
    """Say whether a whole number has at most 64 bits; further ones are no settings, and cannot be written out."""
    return not isinstance(value, int) or abs(value) < _MOST


def _brief(value: object) -> str:
    return f"{value!a:.{_SHOWN}}" if _is_short(value) else "a whole number of more than 64 bits"
