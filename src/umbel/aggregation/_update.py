"""What goes into an aggregation: one node's arrays, its weight and its metrics."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from operator import attrgetter
from types import MappingProxyType
from typing import Final, NamedTuple

from umbel.errors import UpdateRejected
from umbel.records import MetricsRecord, ParametersRecord

_NO_METRICS: Final[Mapping[str, MetricsRecord]] = MappingProxyType({})
_EXAMPLES: Final = "num-examples"


class Update(NamedTuple):
    """What one node sent back, with the weight that it counts with."""

    node: str
    weight: float
    record: ParametersRecord
    metrics: Mapping[str, MetricsRecord] = _NO_METRICS


def canonical(updates: Iterable[Update]) -> list[Update]:
    """Return the updates sorted by node name, the one order in which they are aggregated."""
    return sorted(updates, key=attrgetter("node"))


def by_examples(metrics: Mapping[str, MetricsRecord]) -> float:
    """Return ``num-examples`` of the metrics record "metrics" as the weight.

    FedAvg's weight: McMahan et al. 2017, arXiv:1602.05629.

    Raises:
        UpdateRejected: if there is no such metric, or it is a list.

    """
    plain = metrics.get("metrics")
    found = None if plain is None else plain.get(_EXAMPLES)
    if not isinstance(found, int | float):
        raise _no_weight(_EXAMPLES, "the number of examples", found)
    return found


def by_metric(name: str) -> Callable[[Mapping[str, MetricsRecord]], float]:
    """Return the function that takes the metric ``name`` of the record "metrics" as the weight.

    It raises ``UpdateRejected`` if there is no such metric, or it is a list.

    >>> by_metric("quality")({"metrics": MetricsRecord({"quality": 0.5})})
    0.5

    """
    return partial(_by_metric, name)


def _by_metric(name: str, metrics: Mapping[str, MetricsRecord]) -> float:
    found = metrics["metrics"].get(name) if "metrics" in metrics else None
    if not isinstance(found, int | float):
        raise _no_weight(name, f"the metric {name!r}", found)
    return found


def _no_weight(name: str, what: str, found: object) -> UpdateRejected:
    came = "nothing" if found is None else f"a {type(found).__name__}"
    return UpdateRejected(
        f"expected {what}, by which the update is weighted, got {came}; put it in the reply, "
        f'as MetricsRecord({{"{name}": 60}})',
        at=f"metrics_records['metrics']['{name}']",
    )


def uniform(metrics: Mapping[str, MetricsRecord]) -> float:
    """Return 1, whatever the metrics: every node counts the same."""
    del metrics
    return 1.0
