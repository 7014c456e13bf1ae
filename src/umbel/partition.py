"""Partitioners: one data set dealt out to the nodes of a simulated federation.

Each function returns one array of row numbers (``intp``, ascending) for each node; every row belongs to exactly one
node. The same arguments give the same parts. All raise ``PartitionError`` for what cannot be dealt out.

>>> from umbel.partition import dirichlet, iid, natural, shards
>>> [part.tolist() for part in natural(["b", "a", "b", "b"])]
[[1], [0, 2, 3]]
"""

from operator import index
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from umbel.errors import PartitionError

__all__ = ["dirichlet", "iid", "natural", "shards"]

_Indices: TypeAlias = NDArray[np.intp]

# Far beyond it the sum of the gamma variates overflows, and shares are indistinguishable from equal ones long before.
_ALPHA_LIMIT: Final = 1e9


def iid(size: int, nodes: int, *, seed: int) -> list[_Indices]:
    """Deal ``size`` rows out at random, so that parts differ by one row at most."""
    rows = _whole(size, "size", 1)
    owner = np.arange(rows) % _nodes(nodes, rows)
    return _parts(_generator(seed).permutation(owner), nodes)


def dirichlet(labels: ArrayLike, nodes: int, *, alpha: float, seed: int, min_size: int = 1) -> list[_Indices]:
    """Deal the rows of each label out in shares drawn from a symmetric Dirichlet distribution (label skew).

    ``labels`` has one value a row. A small ``alpha`` (0.1) leaves a node few labels, a large one (100) nearly the
    same mix everywhere. A node that would hold fewer than ``min_size`` rows is topped up with random rows of the
    largest nodes. Yurochkin et al. 2019, "Bayesian nonparametric federated learning of neural networks".
    """
    concentration = _positive(alpha, "alpha", _ALPHA_LIMIT)
    groups = _groups(labels)
    rows = sum(map(len, groups))
    _nodes(nodes, rows, _whole(min_size, "min_size", 0), "min_size")
    random = _generator(seed)
    owner = np.empty(rows, dtype=np.intp)
    for group in groups:
        shares = np.cumsum(random.dirichlet(np.full(nodes, concentration)))
        ends = np.rint(shares * len(group)).astype(np.intp)
        ends[-1] = len(group)
        owner[random.permutation(group)] = np.repeat(np.arange(nodes), np.diff(ends, prepend=0))
    _top_up(owner, nodes, min_size, random)
    return _parts(owner, nodes)


def shards(labels: ArrayLike, nodes: int, *, seed: int, shards_per_node: int = 2) -> list[_Indices]:
    """Sort the rows by label, cut them into equal shards, and give each node ``shards_per_node`` of them at random.

    ``labels`` has one value a row. With two shards most nodes see two labels.
    McMahan et al. 2017, "Communication-efficient learning of deep networks from decentralized data".
    """
    order = np.concatenate(_groups(labels))
    each = _whole(shards_per_node, "shards_per_node", 1)
    count = _nodes(nodes, len(order), each, "shards_per_node") * each
    shard = np.arange(len(order)) * count // len(order)
    owner = np.empty(len(order), dtype=np.intp)
    owner[order] = _generator(seed).permutation(count)[shard] // each
    return _parts(owner, nodes)


def natural(column: ArrayLike) -> list[_Indices]:
    """Give each distinct value of ``column`` a node of its own, in the order of ``numpy.unique(column)``."""
    return _groups(column)


def _groups(labels: ArrayLike) -> list[_Indices]:
    values = np.asarray(labels)
    if values.ndim != 1 or values.size == 0:
        raise PartitionError(f"expected one label a row, at least one row, got shape {values.shape}", at="labels")
    try:
        distinct, inverse = np.unique(values, return_inverse=True)
    except TypeError as error:
        raise PartitionError(f"expected labels of one kind, which can be sorted: {error}", at="labels") from error
    return _parts(inverse, len(distinct))


def _parts(owner: _Indices, nodes: int) -> list[_Indices]:
    ends = np.cumsum(np.bincount(owner, minlength=nodes))
    return np.split(np.argsort(owner, kind="stable"), ends[:-1])


def _top_up(owner: _Indices, nodes: int, min_size: int, random: np.random.Generator) -> None:
    sizes = np.bincount(owner, minlength=nodes)
    for node in np.flatnonzero(sizes < min_size):
        while sizes[node] < min_size:
            donor = int(np.argmax(sizes))
            count = min(min_size - sizes[node], sizes[donor] - min_size)
            given = random.permutation(np.flatnonzero(owner == donor))[:count]
            owner[given] = node
            sizes[donor] -= count
            sizes[node] += count


def _nodes(nodes: int, rows: int, each: int = 1, name: str = "") -> int:
    count = _whole(nodes, "nodes", 1)
    if count * max(each, 1) > rows:
        asked, less = (f" with {name}={each}", f" or a smaller {name}") if name and each > 1 else ("", "")
        wanted = count * max(each, 1)
        message = f"expected at least {wanted} rows for {count} nodes{asked}, got {rows}: ask for fewer nodes{less}"
        raise PartitionError(message, at="nodes")
    return count


def _whole(value: object, name: str, low: int) -> int:
    try:
        number = index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise PartitionError(f"expected a whole number, got {type(value).__name__}", at=name) from error
    if isinstance(value, bool) or number < low:
        raise PartitionError(f"expected a whole number of at least {low}, got {value!r}", at=name)
    return number


def _positive(value: object, name: str, high: float) -> float:
    if not (isinstance(value, float | int | np.floating | np.integer) and 0 < value <= high):
        raise PartitionError(f"expected a number above 0 and at most {high:g}, got {value!r}: try 0.5", at=name)
    return float(value)


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(_whole(seed, "seed", 0))
