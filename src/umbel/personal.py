"""Personal models: the arrays of a model that stay on each node, told from the shared ones by patterns of names.

A pattern is a whole name in which ``*`` stands for any text, ``?`` for any character and ``[ab]`` for either.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from umbel.errors import StrategyError
from umbel.records import ParametersRecord

__all__ = ["merge", "split"]


def split(record: ParametersRecord, local: Sequence[str]) -> tuple[ParametersRecord, ParametersRecord]:
    """Return the arrays that are shared and those that stay local, each in the order of ``record``.

    Args:
        record: a whole model.
        local: patterns of the names that stay local.

    Raises:
        StrategyError: for a pattern that matches no name, or if nothing is left to share.

    >>> import numpy as np
    >>> whole = ParametersRecord.from_numpy({"conv.weight": np.ones(2), "bn.weight": np.ones(1), "bn.bias": np.ones(1)})
    >>> shared, own = split(whole, ["bn.*"])
    >>> list(shared), list(own)
    (['conv.weight'], ['bn.weight', 'bn.bias'])

    """
    for pattern in local:
        if not any(fnmatchcase(name, pattern) for name in record):
            raise StrategyError(
                f"expected a pattern of names that the model has, got {pattern!r}; it has {_listed(record)}", at="local"
            )
    own = {name for name in record if any(fnmatchcase(name, pattern) for pattern in local)}
    if len(own) == len(record) > 0:
        raise StrategyError("expected some arrays to share, got patterns that keep all of them local", at="local")
    shared, kept = ({n: a for n, a in record.items() if (n in own) is is_own} for is_own in (False, True))
    return ParametersRecord(shared), ParametersRecord(kept)


def merge(template: ParametersRecord, shared: ParametersRecord, own: ParametersRecord) -> ParametersRecord:
    """Return a whole model with the names and order of ``template``: its own arrays, the shared ones, or else its.

    Args:
        template: a whole model, such as the one that the node begins with.
        shared: what came from the server.
        own: what the node kept; may be empty, as before its first round.

    >>> import numpy as np
    >>> first = ParametersRecord.from_numpy({"w": np.array([0.0]), "bn": np.array([1.0])})
    >>> came = ParametersRecord.from_numpy({"w": np.array([5.0])})
    >>> {name: float(array[0]) for name, array in merge(first, came, ParametersRecord()).to_numpy().items()}
    {'w': 5.0, 'bn': 1.0}

    """
    arrays = {name: own[name] if name in own else shared.get(name, array) for name, array in template.items()}
    return ParametersRecord(arrays)


def _listed(record: ParametersRecord) -> str:
    names = [repr(name) for name in list(record)[:5]]
    return ", ".join(names) + (f" and {len(record) - 5} more" if len(record) > 5 else "")  # noqa: PLR2004 - shown
