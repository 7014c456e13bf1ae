"""The seam: what an optimizer is, what it learns of a round, and the one that does nothing."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol, TypeAlias

from umbel.records import ParametersRecord

OptimizerState: TypeAlias = Mapping[str, ParametersRecord]


class Cohort(NamedTuple):
    """What a round is besides records: its updates, the nodes there are, and the sums of what was measured.

    ``sums`` are over the accepted updates, by the names that the aggregator measures them under. ``tier`` is whose
    updates they are, where tiers do not wait for one another, from 0 for the fastest on.
    """

    accepted: int = 1
    population: int = 1
    sums: Mapping[str, float] = MappingProxyType({})
    tier: int = 0

    @property
    def share(self) -> float:
        """The share of all nodes whose update was accepted."""
        return self.accepted / self.population


ALONE: Final = Cohort()


class Update(Protocol):
    """``update(state, model, aggregate) -> (state, model)``, with a cohort where it matters."""

    def __call__(
        self, state: OptimizerState, model: ParametersRecord, aggregate: ParametersRecord, cohort: Cohort = ALONE, /
    ) -> tuple[OptimizerState, ParametersRecord]:
        """Return the next state and the next model; nothing that is given changes."""


class Optimizer(NamedTuple):
    """``init(model) -> state`` and ``update(state, model, aggregate, cohort) -> (state, model)``, both pure.

    ``needs`` names the sums without which it cannot work: only an aggregator that measures them goes with it.
    ``in_place`` comes to the same as ``update`` and may make the next model in the memory of the aggregate; a round
    calls it where that memory is nobody else's. Whoever exchanges one of the two exchanges both. One ``by_element``
    steps only to an aggregate whose arrays are as long as the model's. One that ``trains`` takes the aggregate for what
    training made of the model, so that it has no use for answers to a query. One of so many ``tiers`` wants aggregates
    of one tier each. One that ``adds`` takes the aggregate for a change, so that it has no use for models. ``tells`` is
    what nodes have to be told in the config, for their half of the algorithm.
    """

    name: str
    init: Callable[[ParametersRecord], OptimizerState]
    update: Update
    needs: tuple[str, ...] = ()
    in_place: Update | None = None
    by_element: bool = False
    trains: bool = False
    tiers: int = 0
    adds: bool = False
    tells: Mapping[str, float] = MappingProxyType({})

    def consume(
        self, state: OptimizerState, model: ParametersRecord, aggregate: ParametersRecord, cohort: Cohort = ALONE, /
    ) -> tuple[OptimizerState, ParametersRecord]:
        """Return what ``update`` does and use the aggregate up: for whoever made its memory and lets go of it now."""
        return (self.in_place or self.update)(state, model, aggregate, cohort)


def replace() -> Optimizer:
    """Return the optimizer whose next model is the aggregate: FedAvg, McMahan et al. 2017, arXiv:1602.05629."""
    return Optimizer("replace()", _no_state, _replace)


def _no_state(model: ParametersRecord) -> OptimizerState:
    del model
    return {}


def _replace(
    state: OptimizerState, model: ParametersRecord, aggregate: ParametersRecord, cohort: Cohort = ALONE, /
) -> tuple[OptimizerState, ParametersRecord]:
    del model, cohort
    return state, aggregate
