"""Optimizers that have to know who took part: how many of all nodes, or sums of what was measured."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from umbel.optimizers._elementwise import Block, elementwise, require_rate
from umbel.optimizers._optimizer import ALONE, Cohort, Optimizer, OptimizerState
from umbel.records import ParametersRecord


def accumulate() -> Optimizer:
    """Return the optimizer that adds the aggregate, times the share of all nodes that took part.

    So a record of means over all nodes follows the changes that some of them report: the server's control variate in
    SCAFFOLD, Karimireddy et al. 2020, arXiv:1910.06378, where ``c = c + |S|/N * mean(delta c)``. For the
    model that nodes train, which is no change, ``strategy`` refuses it.
    """
    return elementwise("accumulate()", _accumulate)._replace(adds=True)


def dynamic(*, alpha: float = 0.01) -> Optimizer:
    """Return the server's part of FedDyn: Acar et al. 2021, arXiv:2111.04263, Algorithm 1.

    With ``m`` nodes in all, of which ``P`` took part, and their plain mean as the aggregate:
    ``h = h - alpha * P/m * (aggregate - model)``; the next model is ``aggregate - h/alpha``. ``h``, the record
    "correction", begins at zero. Nodes have to be told the same number: ``strategy`` refuses it without
    ``instruct=tell(dynamic_alpha=alpha)`` or an instruction of one's own.

    Args:
        alpha: strength of the dynamic regulariser, above 0: the same number that the nodes use.

    Raises:
        StrategyError: for a number outside this range; ``update`` raises as that of ``momentum`` does.

    """
    require_rate("dynamic", "alpha", alpha)
    whole = elementwise(f"dynamic(alpha={alpha!r})", partial(_dynamic, alpha), correction=0.0)
    return whole._replace(trains=True, tells={"dynamic-alpha": alpha})


def scaled(inner: Optimizer, factor: Callable[[Cohort], float], *, name: str, needs: tuple[str, ...]) -> Optimizer:
    """Return the optimizer that hands ``inner`` an aggregate at ``factor`` times its distance from the model.

    Args:
        inner: what makes the next model.
        factor: of the round's cohort; pure.
        name: what the optimizer is called, before the name of ``inner``.
        needs: the sums that ``factor`` reads.

    """
    stretch = elementwise(name, partial(_stretch, factor))
    whole = _Scaled(stretch, inner)
    return stretch._replace(
        name=f"{name} {inner.name}",
        init=inner.init,
        update=whole.update,
        needs=(*needs, *inner.needs),
        in_place=whole.in_place,
        trains=inner.trains,
        tiers=inner.tiers,
        adds=inner.adds,
        tells=inner.tells,
    )


@dataclass(frozen=True)
class _Scaled:
    stretch: Optimizer
    inner: Optimizer

    def update(
        self, state: OptimizerState, model: ParametersRecord, aggregate: ParametersRecord, cohort: Cohort = ALONE, /
    ) -> tuple[OptimizerState, ParametersRecord]:
        _, stretched = self.stretch.update({}, model, aggregate, cohort)
        return self.inner.consume(state, model, stretched, cohort)

    def in_place(
        self, state: OptimizerState, model: ParametersRecord, aggregate: ParametersRecord, cohort: Cohort = ALONE, /
    ) -> tuple[OptimizerState, ParametersRecord]:
        _, stretched = self.stretch.consume({}, model, aggregate, cohort)
        return self.inner.consume(state, model, stretched, cohort)


def _accumulate(cohort: Cohort, c: Block, mean: Block) -> tuple[Block, ...]:
    return (c + cohort.share * mean,)


def _dynamic(alpha: float, cohort: Cohort, x: Block, mean: Block, h: Block) -> tuple[Block, ...]:
    h = h - alpha * cohort.share * (mean - x)
    return mean - h / alpha, h


def _stretch(factor: Callable[[Cohort], float], cohort: Cohort, x: Block, mean: Block) -> tuple[Block, ...]:
    return (x + factor(cohort) * (mean - x),)
