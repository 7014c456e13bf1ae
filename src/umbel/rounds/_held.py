"""Updates that came and are in no model yet: those of a buffer, or of a tier that waits for some of its nodes.

They belong to the run's state, so that nobody trains again when it goes on: "flight.held" says whose they are, and what
they count; "flight.held.<number>" are their records, and with a name behind it, their metrics.
"""

from collections.abc import Collection, Sequence
from copy import deepcopy
from typing import Final

import numpy as np

from umbel.aggregation import Update
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.records._array import is_settled
from umbel.rounds._waiting import Contribution

_HELD: Final = "flight.held"


class Held:
    """Contributions by tier and node."""

    def __init__(self, state: RecordSet, tiers: int) -> None:
        self._tiers: list[dict[str, Contribution]] = [{} for _ in range(tiers)]
        for tier, contribution in _restored(state):
            self.put(tier, contribution)

    def put(self, tier: int, contribution: Contribution) -> None:
        """Keep what a node of a tier sent."""
        self._tiers[tier][contribution.node] = contribution

    def count(self, tier: int) -> int:
        """Return how many updates of a tier there are."""
        return len(self._tiers[tier])

    def names(self) -> Sequence[Collection[str]]:
        """Return whose updates there are."""
        return self._tiers

    def take(self, tier: int) -> list[Contribution]:
        """Return the updates of a tier in canonical order, and keep them no longer."""
        taken, self._tiers[tier] = self._tiers[tier], {}
        return [taken[node] for node in sorted(taken)]

    def keep_in(self, state: RecordSet) -> None:
        """Put what there is into a state, in place of what was there before."""
        for records in (state.parameters_records, state.metrics_records):
            for name in [name for name in records if name.startswith(_HELD)]:
                del records[name]
        held = [(tier, each[node].updates[0]) for tier, each in enumerate(self._tiers) for node in sorted(each)]
        if not held:
            return
        names = "\n".join(update.node for _, update in held).encode()
        state.parameters_records[_HELD] = ParametersRecord.from_numpy(
            {
                "tier": np.array([tier for tier, _ in held], np.int64),
                "weight": np.array([update.weight for _, update in held]),
                "names": np.frombuffer(names, np.uint8),
            }
        )
        for number, (_, update) in enumerate(held):
            state.parameters_records[f"{_HELD}.{number}"] = update.record.copy()
            for name, metrics in update.metrics.items():
                state.metrics_records[f"{_HELD}.{number}.{name}"] = metrics.copy()


def settled(record: ParametersRecord) -> ParametersRecord:
    """Return a record that stays what it is: a node may use the memory of what it sent again."""
    return record if all(map(is_settled, record.values())) else deepcopy(record)


def _restored(state: RecordSet) -> list[tuple[int, Contribution]]:
    table = state.parameters_records.get(_HELD)
    if table is None:
        return []
    names = bytes(table["names"].data).decode().split("\n")
    tiers, weights = (table[name].numpy().tolist() for name in ("tier", "weight"))
    found = []
    for number, (tier, weight, node) in enumerate(zip(tiers, weights, names, strict=True)):
        update = Update(node, weight, state.parameters_records[f"{_HELD}.{number}"], _metrics(state, number))
        found.append((tier, Contribution((update,))))
    return found


def _metrics(state: RecordSet, number: int) -> dict[str, MetricsRecord]:
    prefix = f"{_HELD}.{number}."
    records = state.metrics_records.items()
    return {name.removeprefix(prefix): record for name, record in records if name.startswith(prefix)}
