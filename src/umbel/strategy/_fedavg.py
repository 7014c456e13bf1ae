"""Federated averaging, the strategy to begin with and the one that the others are made of."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from inspect import Parameter, signature
from typing import Any, Final, ParamSpec, TypeAlias, TypedDict, get_args

from umbel._nearest import nearest
from umbel.aggregation import Aggregator
from umbel.errors import StrategyError
from umbel.gate import Gate
from umbel.optimizers import Optimizer
from umbel.strategy import _selectors as selectors
from umbel.strategy._policy import Policy
from umbel.strategy._strategy import Strategy, strategy
from umbel.transforms import Transform

Maker: TypeAlias = Callable[..., Strategy]
_P = ParamSpec("_P")

# What goes through to `strategy` as it is.
_PARTS: Final = frozenset(signature(strategy).parameters) - {"name"}
# What plain settings call a part, or what a part takes itself.
_MEANT: Final[Mapping[str, str]] = {
    "quorum": "policy=quorum(...)",
    **{name: f"transforms={name}(...)" for name in ("clipped", "noisy", "narrowed")},
    **{name: f"gate=Gate({name}=...)" for name in ("max_norm", "max_weight", "finite")},
}
# What stands for a part in plain numbers.
_NUMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "select": ("fraction", "min_nodes"),
    "evaluate": ("evaluate_fraction",),
}


class Options(TypedDict, total=False):
    """What ``fedavg`` takes, and every strategy that is made of it; a part that makes the strategy cannot be given."""

    fraction: float
    min_nodes: int
    min_updates: int
    evaluate_fraction: float
    aggregator: Aggregator
    optimizer: Optimizer
    gate: Gate
    statistics: bool
    policy: Policy
    transforms: Transform | Sequence[Transform]
    name: str


class Unevaluated(TypedDict, total=False):
    """What a strategy takes that asks for no models: the same, without ``evaluate_fraction`` and ``transforms``."""

    fraction: float
    min_nodes: int
    min_updates: int
    aggregator: Aggregator
    optimizer: Optimizer
    gate: Gate
    statistics: bool
    policy: Policy
    name: str


class Unwaiting(TypedDict, total=False):
    """What a strategy takes that says itself when a round is over: the same, without ``policy``."""

    fraction: float
    min_nodes: int
    min_updates: int
    aggregator: Aggregator
    optimizer: Optimizer
    gate: Gate
    statistics: bool
    transforms: Transform | Sequence[Transform]
    name: str


class Unselected(TypedDict, total=False):
    """What a strategy takes that says itself who trains: the same, without ``fraction`` and ``min_nodes``."""

    min_updates: int
    evaluate_fraction: float
    aggregator: Aggregator
    optimizer: Optimizer
    gate: Gate
    statistics: bool
    policy: Policy
    name: str


def checked(make: Callable[_P, Strategy]) -> Callable[_P, Strategy]:
    """Return ``make`` that raises ``StrategyError`` for an option it does not have, with the nearest that it has.

    Python itself says that of what ``averaged`` never sees: options of ``fedavg``, and what was to be one without which
    ``make`` cannot be called.
    """

    @wraps(make)
    def known(*args: _P.args, **options: _P.kwargs) -> Strategy:
        try:
            signature(make).bind(*args, **options)
        except TypeError:
            _require_known(make, options)
        return make(*args, **options)

    return known


@checked
def fedavg(  # noqa: PLR0913 - every number of the algorithm has a name and a default
    *,
    fraction: float = 1.0,
    min_nodes: int = 1,
    min_updates: int = 1,
    evaluate_fraction: float = 1.0,
    aggregator: Aggregator | None = None,
    optimizer: Optimizer | None = None,
    gate: Gate | None = None,
    statistics: bool = False,
    policy: Policy | None = None,
    transforms: Transform | Sequence[Transform] = (),
    name: str = "fedavg",
) -> Strategy:
    """Average the models of a random cohort by their numbers of examples (McMahan et al. 2017, arXiv:1602.05629).

    Args:
        fraction: share of the nodes that train in a round (C in the paper), above 0 and at most 1.
        min_nodes: how many nodes train at least, whatever the share.
        min_updates: how many updates a round needs to count.
        evaluate_fraction: share of the nodes that evaluate each new model; 0 for none.
        aggregator: what to average, and with which weights.
        optimizer: what to do with the average; ``replace()`` takes it as the model, ``momentum(...)`` is FedAvgM.
        gate: which updates count.
        statistics: ask every node for sums before the first round.
        policy: when a round is over; None to wait for everyone who was asked.
        transforms: what nodes do to their models before they reply; see ``umbel.transforms``.
        name: what events and checkpoints call the strategy.

    Raises:
        StrategyError: for numbers out of range, parts that do not go together, and an option that is none.

    >>> fedavg(fraction=0.1, min_nodes=2).select.name
    'fraction(0.1, min_nodes=2)'
    """
    return strategy(
        **_parts(
            fraction=fraction,
            min_nodes=min_nodes,
            min_updates=min_updates,
            evaluate_fraction=evaluate_fraction,
            aggregator=aggregator,
            optimizer=optimizer,
            gate=gate,
            statistics=statistics,
            policy=policy,
            transforms=transforms,
            name=name,
        )
    )


def _parts(**options: Any) -> dict[str, Any]:
    """Return the parts that some options stand for; what is left out is for ``strategy`` to know."""
    fraction, min_nodes = options.pop("fraction", 1.0), options.pop("min_nodes", 1)
    evaluated = options.pop("evaluate_fraction", 1.0)
    if evaluated < 0:
        raise StrategyError(f"expected a share of the nodes from 0 to 1, got {evaluated!r}", at="evaluate_fraction")
    return {
        "select": _share(fraction, min_nodes),
        "evaluate": _share(evaluated, 1) if evaluated else None,
        **options,
    }


def _share(fraction: float, min_nodes: int) -> selectors.Selector:
    # Everyone is a share of 1 too, but says what it means.
    return (
        selectors.everyone() if fraction == 1 and min_nodes == 1 else selectors.fraction(fraction, min_nodes=min_nodes)
    )


def averaged(make: Maker, options: Options | Unevaluated | Unwaiting | Unselected, **parts: Any) -> Strategy:
    """Return ``fedavg`` under the name of ``make``, with its options, and with ``parts`` in place of its own.

    Raises ``StrategyError`` for an option that is one of these parts, or makes one of them, or that ``make`` does not
    have.
    """
    name = make.__name__
    made = {*parts, *(number for part in parts for number in _NUMBERS.get(part, ()))}
    taken = sorted(made & options.keys())
    if taken:
        raise StrategyError(f"{taken[0]} is what makes {name}: put others together with strategy(...)", at=taken[0])
    for part, numbers in _NUMBERS.items():
        both = [number for number in numbers if part in options and number in options]
        if both:
            raise StrategyError(f"{both[0]} makes {part}, which is given as well: leave one of them out", at=part)
    _require_known(make, options)
    whole: dict[str, Any] = {"name": name, **options}
    return strategy(**{**_parts(**whole), **parts})


def _require_known(make: Maker, options: Iterable[str]) -> None:
    """Raise ``StrategyError`` for an option that is none, before it is handed on to where nobody knows whose it was."""
    own = [name for name, each in signature(make).parameters.items() if each.kind is not Parameter.VAR_KEYWORD]
    handed = handed_on(make)
    known = (*own, *handed)
    for option in options:
        meant = _MEANT.get(option, "")
        if option not in known and meant.partition("=")[0] in known:
            sentence = f"the strategy {make.__name__} has no setting {option!r} in Python: hand over {meant}"
            raise StrategyError(sentence, at=f"strategy {make.__name__}")
        if option not in known and not (handed and option in _PARTS):
            sentence = no_setting(make.__name__, option, known, Options.__annotations__)
            raise StrategyError(sentence, at=f"strategy {make.__name__}")


def handed_on(make: Maker) -> tuple[str, ...]:
    """Return the options that a strategy takes as ``**options``, and hands on to ``averaged``."""
    rest = [each for each in signature(make).parameters.values() if each.kind is Parameter.VAR_KEYWORD]
    return tuple(name for each in rest for name in get_args(each.annotation)[0].__annotations__)


def no_setting(name: str, option: str, known: Iterable[str], of_fedavg: Iterable[str]) -> str:
    """Return the sentence about an option that a strategy does not have, with the nearest that it has.

    One that ``fedavg`` has is no slip of the pen, so nothing near it is what was meant.
    """
    if option in of_fedavg:
        hint = f", unlike fedavg (known: {', '.join(known)})"
    elif option in _PARTS:
        hint = f": parts are put together in Python, strategy({option}=...)"
    else:
        hint = nearest(option, known)
    return f"the strategy {name} has no setting {option!a:.80}{hint}"
