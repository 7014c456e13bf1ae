"""Updates that came and are in no model yet: those of a buffer within a round, and those of tiers over several.

The latter belong to the run's state, so that nobody trains again when it goes on: "flight.held" says whose they are and
what they count, "flight.held.<number>" are their records, and "flight.held.<number>.metrics" what was reported with
them, as the bytes of a container: there is no end to what a node may report, and there is one to the head of a state.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from umbel.aggregation import Update
from umbel.records import MetricsRecord, ParametersRecord, RecordSet, dumps, loads
from umbel.rounds._waiting import Contribution

_HELD: Final = "flight.held"


class Held:
    """Contributions by tier and node."""

    def __init__(self, state: RecordSet, tiers: int) -> None:
        self._tiers: list[dict[str, Contribution]] = [{} for _ in range(tiers)]
        for tier, contribution in _restored(state):
            self.put(tier, contribution)

    def has(self, tier: int, node: str) -> bool:
        """Say whether there is an update of a node in a tier."""
        return node in self._tiers[tier]

    def put(self, tier: int, contribution: Contribution) -> None:
        """Keep what a node of a tier sent."""
        self._tiers[tier][contribution.node] = contribution

    def count(self, tier: int) -> int:
        """Return how many updates of a tier there are."""
        return len(self._tiers[tier])

    def take(self, tier: int) -> list[Contribution]:
        """Return the updates of a tier in canonical order, and keep them no longer."""
        taken, self._tiers[tier] = self._tiers[tier], {}
        return [taken[node] for node in sorted(taken)]

    def records(self) -> dict[str, ParametersRecord]:
        """Return what the state keeps."""
        held = [(tier, each[node]) for tier, each in enumerate(self._tiers) for node in sorted(each)]
        if not held:
            return {}
        found = {_HELD: _table(held)}
        for number, (_, contribution) in enumerate(held):
            (update,) = contribution.updates
            found[f"{_HELD}.{number}"] = update.record.copy()
            found[f"{_HELD}.{number}.metrics"] = packed(update.metrics)
        return found


def packed(metrics: Mapping[str, MetricsRecord]) -> ParametersRecord:
    """Return metrics as the bytes of a container. Raises ``RecordError`` for a name that no container can have."""
    whole = b"".join(dumps(RecordSet(metrics_records=dict(metrics))))
    return ParametersRecord.from_numpy({"bytes": np.frombuffer(whole, np.uint8)})


def _table(held: Sequence[tuple[int, Contribution]]) -> ParametersRecord:
    names = "\n".join(each.node for _, each in held).encode()
    measured = np.array([each.measured for _, each in held], np.float64)
    return ParametersRecord.from_numpy(
        {
            "tier": np.array([tier for tier, _ in held], np.int64),
            "weight": np.array([each.updates[0].weight for _, each in held], np.float64),
            "measured": measured.reshape(len(held), -1),
            "names": np.frombuffer(names, np.uint8),
        }
    )


def _restored(state: RecordSet) -> list[tuple[int, Contribution]]:
    records = state.parameters_records
    table = records.get(_HELD)
    if table is None:
        return []
    names = bytes(table["names"].data).decode().split("\n")
    columns = [table[name].numpy().tolist() for name in ("tier", "weight", "measured")]
    found = []
    for number, (tier, weight, measured, node) in enumerate(zip(*columns, names, strict=True)):
        metrics = loads(bytes(records[f"{_HELD}.{number}.metrics"]["bytes"].data)).metrics_records
        update = Update(node, weight, records[f"{_HELD}.{number}"], metrics)
        found.append((tier, Contribution((update,), tuple(measured))))
    return found
