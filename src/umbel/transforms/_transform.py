"""What a transform is."""

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import NamedTuple, TypeAlias

from umbel.errors import StrategyError
from umbel.records import ConfigsRecord, ParametersRecord

# (trained model, model that was sent, config, seed) -> what leaves the node.
Apply: TypeAlias = Callable[[ParametersRecord, ParametersRecord, ConfigsRecord, int], ParametersRecord]
# (what came, model that was sent) -> what the gate sees.
Undo: TypeAlias = Callable[[ParametersRecord, ParametersRecord], ParametersRecord]


def as_it_came(record: ParametersRecord, sent: ParametersRecord) -> ParametersRecord:
    """Undo nothing."""
    del sent
    return record


class Transform(NamedTuple):
    """A named pair of pure functions: one for the node, one for the server.

    ``apply(record, sent, config, seed)`` returns what leaves the node, given the model that it trained, the one that it
    was sent, the config of the instruction, and a seed (0 <= seed < 2**63) of this transform's own, which depends on
    the context's seed and the place in the list. ``undo(record, sent)`` returns what the server goes on with, given
    what came and the model that the node was sent. Neither changes what it is given.

    The ``name`` holds every number: both sides compare names. ``recodes`` says that what leaves is no model any more,
    such as differences in another dtype: transforms that work on models cannot come after it.
    """

    name: str
    apply: Apply
    undo: Undo = as_it_came
    recodes: bool = False


def require_order(transforms: Sequence[object]) -> None:
    """Raise ``StrategyError`` unless all are transforms, and can follow one another."""
    recoding = None
    for each in transforms:
        if not isinstance(each, Transform):
            hint = f": call it, {each.__name__}(...)" if isinstance(each, FunctionType) else ""
            raise StrategyError(f"expected Transform, got {type(each).__name__} {each!r:.80}{hint}", at="transforms")
        if recoding is not None and not each.recodes:
            raise StrategyError(
                f"{each.name} works on a model, and what {recoding} leaves is none: put {recoding} last",
                at="transforms",
            )
        recoding = each.name if each.recodes else recoding
