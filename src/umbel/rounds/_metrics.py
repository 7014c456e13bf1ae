"""Weighted means of the metrics that nodes report."""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Final

from umbel.errors import UpdateRejected
from umbel.records import MetricsRecord

NUM_EXAMPLES: Final = "num-examples"
_PLAIN: Final = "metrics"
_NAME_LIMIT: Final = 256

_Number = int | float


class MetricMeans:
    """Means over nodes, one for each metric, added up in canonical order so that arrival does not change a bit.

    A metric is weighted by the ``num-examples`` that stands in its own record (1 if there is none), so metrics that
    were measured on different data each have their own weight. Metrics of the record "metrics" keep their names,
    others become "record.metric"; ``num-examples`` are summed. Lists are averaged element by element. A value that is
    not finite stands for "not defined here" and is left out with its weight; a list whose length differs from that of
    an earlier node leaves the metric without a mean, and so does a name that two nodes put together from different
    records: "a" with "b.c" and "a.b" with "c".
    """

    def __init__(self) -> None:
        self._sums: dict[str, _Mean | None] = {}
        self._examples: dict[str, _Number] = {}
        self._records: dict[str, str] = {}
        self._ambiguous: set[str] = set()
        self._not_finite: dict[str, int] = {}

    def add(self, records: Mapping[str, MetricsRecord]) -> None:
        """Add the metrics of one node, which ``check_weights`` accepted."""
        for name, record in records.items():
            prefix = _prefix(name)
            weight = record.get(NUM_EXAMPLES, 1)
            for metric, value in record.items():
                if self._records.setdefault(prefix + metric, name) != name:
                    self._ambiguous.add(prefix + metric)
                if metric == NUM_EXAMPLES:
                    self._examples[prefix + metric] = self._examples.get(prefix + metric, 0) + value  # type: ignore[operator]
                else:
                    self._add(prefix + metric, value, weight)  # type: ignore[arg-type]

    def add_all(self, nodes: Iterable[Mapping[str, MetricsRecord]]) -> None:
        """Add the metrics of several nodes, which come in canonical order over all calls."""
        for records in nodes:
            self.add(records)

    def _add(self, name: str, value: _Number | list[int] | list[float], weight: _Number) -> None:
        items = value if isinstance(value, list) else [value]
        if not all(map(isfinite, items)):
            self._not_finite[name] = self._not_finite.get(name, 0) + 1
            return
        mean = self._sums.setdefault(name, _Mean(value))
        if mean is not None and not mean.add(items, weight, is_list=isinstance(value, list)):
            self._sums[name] = None

    def result(self, prefix: str) -> dict[str, int | float | list[int | float]]:
        """Return the means by name, each name behind ``prefix``."""
        means: dict[str, int | float | list[int | float]] = {prefix + name: n for name, n in self._examples.items()}
        for name, mean in self._sums.items():
            if mean is not None and mean.weight > 0:
                means[prefix + name] = mean.value()
        for name in self._ambiguous:
            means.pop(prefix + name, None)
        return means

    def not_finite(self, prefix: str) -> dict[str, int]:
        """Return how many nodes were left out of a mean, by the name that ``result`` gives it."""
        return {prefix + name: count for name, count in self._not_finite.items()}


class _Mean:
    """The weighted mean of numbers, or of lists of one length."""

    def __init__(self, like: _Number | list[int] | list[float]) -> None:
        self._is_list = isinstance(like, list)
        self._sums = [0.0] * (len(like) if isinstance(like, list) else 1)
        self.weight = 0.0

    def add(self, items: list[int] | list[float] | list[_Number], weight: _Number, *, is_list: bool) -> bool:
        """Add one node's; False if it has another form."""
        if is_list is not self._is_list or len(items) != len(self._sums):
            return False
        self._sums = [total + weight * item for total, item in zip(self._sums, items, strict=True)]
        self.weight += weight
        return True

    def value(self) -> float | list[int | float]:
        """Return the mean."""
        means: list[int | float] = [total / self.weight for total in self._sums]
        return means if self._is_list else means[0]


def _prefix(name: str) -> str:
    return "" if name == _PLAIN else f"{name}."


def _check_unique(records: Mapping[str, MetricsRecord]) -> None:
    seen: dict[str, str] = {}
    for name, record in records.items():
        for metric in record:
            full = _prefix(name) + metric
            if seen.setdefault(full, name) != name:
                raise UpdateRejected(
                    f"expected metrics of different names, got two that are called {full!r}, in the records "
                    f"{seen[full]!r} and {name!r}: rename one",
                    at="metrics_records",
                )


def check_weights(records: Mapping[str, MetricsRecord]) -> None:
    """Refuse, with ``UpdateRejected``, metrics with a bad weight, name or list, or two of one name."""
    if len(records) > 1:
        _check_unique(records)
    for name, record in records.items():
        for shown in (name, *record):
            if not (shown.isprintable() and 0 < len(shown) <= _NAME_LIMIT):
                raise UpdateRejected(
                    f"expected metric names of 1 to {_NAME_LIMIT} characters that can be printed, got {shown!a:.80}",
                    at="metrics_records",
                )
        weight = record.get(NUM_EXAMPLES, 1)
        if isinstance(weight, list) or not isfinite(weight) or weight < 0:
            raise UpdateRejected(
                f"expected a finite number of examples, 0 or more, got {weight!r}",
                at=f"metrics_records.{name}[{NUM_EXAMPLES!r}]",
            )
        # A record gives its lists away, so what is in one was checked only when it was stored.
        for metric, value in record.items():
            if isinstance(value, list) and not {*map(type, value)} <= {int, float}:
                raise UpdateRejected("expected a list of numbers", at=f"metrics_records.{name}[{metric!r}]")
