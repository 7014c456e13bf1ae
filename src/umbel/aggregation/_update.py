"""What goes into an aggregation: one node's arrays, its weight and its metrics."""

from collections.abc import Iterable, Mapping
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
    found = metrics["metrics"].get(_EXAMPLES) if "metrics" in metrics else None
    if not isinstance(found, int | float):
        what = "nothing" if found is None else f"a {type(found).__name__}"
        raise UpdateRejected(
            f"expected the number of examples, by which the update is weighted, got {what}; put it in the reply, "
            f'as MetricsRecord({{"{_EXAMPLES}": 60}})',
            at=f"metrics_records['metrics']['{_EXAMPLES}']",
        )
    return found


def uniform(metrics: Mapping[str, MetricsRecord]) -> float:
    """Return 1, whatever the metrics: every node counts the same."""
    del metrics
    return 1.0
