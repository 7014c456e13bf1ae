"""Half the bytes: differences of 16 bits in place of models of 32."""

from typing import Final

import numpy as np

from umbel.errors import StrategyError
from umbel.records import ConfigsRecord, ParametersRecord
from umbel.transforms._pairs import Pair, changed
from umbel.transforms._transform import Transform

_FROM: Final = "float32"
_TO: Final = "bfloat16"


def narrowed(dtype: str = _TO) -> Transform:
    """Return the transform that sends float32 arrays as bfloat16 differences from the model: half their bytes.

    The node rounds ``trained - sent`` to nearest, half to even, and the server adds it to the model that it sent. So an
    element is off by at most 2**-8 of how far it went, and by float32's own rounding; a difference keeps bits
    that a model in bfloat16 would lose. Arrays of other dtypes go as they are. Transforms of models come before it.

    Args:
        dtype: "bfloat16", the only one there is.

    Raises:
        StrategyError: for another dtype; and on the node, for a model without an array of float32.

    >>> narrowed("bfloat16").name
    "narrowed('bfloat16')"

    """
    if dtype != _TO:
        raise StrategyError(
            f"expected {_TO!r}, to which differences can be narrowed, got {dtype!r:.40}", at="transforms"
        )
    return Transform(f"narrowed({dtype!r})", _narrow, _widen, recodes=True)


def _names(model: ParametersRecord) -> list[str]:
    return [name for name, array in model.items() if array.dtype == _FROM]


def _narrow(record: ParametersRecord, sent: ParametersRecord, _config: ConfigsRecord, _seed: int) -> ParametersRecord:
    names = _names(sent)
    if not names:
        raise StrategyError(f"expected a model with arrays of {_FROM}, got none: begin with one", at="transforms")
    return changed(record, sent, names, _round_difference, made=_TO)


def _round_difference(pair: Pair) -> None:
    np.copyto(pair.out, pair.came - pair.sent, casting="unsafe")


def _widen(record: ParametersRecord, sent: ParametersRecord) -> ParametersRecord:
    return changed(record, sent, _names(sent), _add_difference, came=_TO)


def _add_difference(pair: Pair) -> None:
    np.add(pair.sent, pair.came.astype(np.float32), out=pair.out)
