"""The nodes of a simulation: virtual ones that exist only while they are asked, or named ones."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeAlias, overload

from blake3 import blake3

from umbel.errors import UsageError
from umbel.grid import Node

_NodeConfig: TypeAlias = Mapping[str, bool | int | float | str]

_NAME_LIMIT = 1_024


class Population:
    """Which nodes there are, and what each of them is told about itself.

    ``nodes`` is a number of virtual nodes, named "node-0", "node-1" ... and told their ``partition-id`` and
    ``num-partitions``; or a sequence of names, told the same by their place in it; or a mapping from names to node
    configs. Virtual nodes cost nothing until they are asked. ``description`` tells one population from another: how
    many nodes, and a digest of the names that were given. Raises ``UsageError`` for anything else, for no nodes,
    and for a name that is empty, not printable, over 1,024 bytes, or there twice.

    >>> population = Population(3)
    >>> population.nodes[1]
    Node(name='node-1', node_id=2)
    >>> population.config(population.nodes[1])
    {'partition-id': 1, 'num-partitions': 3}
    """

    def __init__(self, nodes: int | Sequence[str] | Mapping[str, _NodeConfig]) -> None:
        #: Returns the config of one node, a mapping of its own.
        self.config: Callable[[Node], _NodeConfig]
        #: Returns the node that has an id.
        self.node: Callable[[int], Node]
        if type(nodes) is int:
            count = _require_some(nodes)
            self.nodes: Sequence[Node] = _VirtualNodes(count)
            self.description = f"{count} virtual nodes"
            self.config = lambda node: _partition(node.node_id - 1, count)
            self.node = _virtual_node
        elif isinstance(nodes, Mapping):
            configs = {name: dict(config) for name, config in nodes.items()}
            self.nodes = _named(list(configs))
            self.description = _described(sorted(configs))
            self.config = lambda node: dict(configs[node.name])
            self.node = partial(_named_node, self.nodes)
        else:
            places = _places(nodes)
            self.nodes = _named(list(places))
            self.description = _described(list(places))
            self.config = lambda node: _partition(places[node.name], len(places))
            self.node = partial(_named_node, self.nodes)


class _VirtualNodes(Sequence[Node]):
    """``count`` nodes sorted by name ("node-0", "node-1", "node-10", "node-2" ...), none of them stored."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Node: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Node]: ...

    def __getitem__(self, index: int | slice) -> Node | Sequence[Node]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self._count))]
        place = index + self._count if index < 0 else index
        if not 0 <= place < self._count:
            raise IndexError(f"expected a position below {self._count}, got {index}")
        return _virtual_node(_nth_as_text(place, self._count - 1) + 1)

    def __iter__(self) -> Iterator[Node]:
        return (_virtual_node(number + 1) for number in _as_text(self._count - 1))


def _named_node(nodes: Sequence[Node], node_id: int) -> Node:
    return nodes[node_id - 1]


def _virtual_node(node_id: int) -> Node:
    """Return the node with this id, called by one less: ids start at 1 because 0 is the server's."""
    return Node(f"node-{node_id - 1}", node_id)


def _as_text(last: int) -> Iterator[int]:
    """Yield 0 to ``last`` in the order of their decimal texts."""
    yield 0
    number = 1
    for _ in range(last):
        yield number
        if number * 10 <= last:
            number *= 10
            continue
        while number % 10 == 9 or number + 1 > last:  # noqa: PLR2004 - the last digit of ten
            number //= 10
        number += 1


def _nth_as_text(position: int, last: int) -> int:
    """Return which of the numbers 0 to ``last`` stands at ``position`` in the order of their decimal texts.

    Numbers that share their first digits stand together, so the answer is found digit by digit: at each one, all
    ten branches but one (that of ``last`` itself) hold as many numbers as a full or as an empty last row allows.
    """
    if position == 0:
        return 0
    rest, number, row = position - 1, 0, 10 ** (len(str(last)) - 1)
    while True:
        first = number * 10 or 1
        edge = last // row
        full, short = (10 * row - 1) // 9, (row - 1) // 9
        before = min(max(edge - first, 0), 10)
        number, rest = _branch(rest, first, edge, (before, full, short, last - edge * row + 1 + short))
        if rest == 0:
            return number
        rest, row = rest - 1, row // 10


def _branch(rest: int, first: int, edge: int, sizes: tuple[int, int, int, int]) -> tuple[int, int]:
    before, full, short, at_edge = sizes
    if rest < before * full:
        return first + rest // full, rest % full
    rest -= before * full
    if edge < first or before == 10:  # noqa: PLR2004 - the branch of `last` is not among these ten
        return first + before + rest // short, rest % short
    if rest < at_edge:
        return edge, rest
    rest -= at_edge
    return edge + 1 + rest // short, rest % short


def _partition(place: int, count: int) -> dict[str, bool | int | float | str]:
    return {"partition-id": place, "num-partitions": count}


def _places(names: object) -> dict[str, int]:
    if isinstance(names, str | bytes) or not isinstance(names, Sequence):
        raise UsageError(
            f"expected a number of nodes, a list of names or a mapping from names to configs, got {names!r:.80}",
            at="nodes",
        )
    places = {name: place for place, name in enumerate(names)}
    if len(places) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UsageError(f"expected every node to have a name of its own, got more than one {twice[0]!r}", at="nodes")
    return places


def _named(names: list[str]) -> list[Node]:
    _require_some(len(names))
    for name in names:
        if not (type(name) is str and name.isprintable() and 0 < len(name.encode()) <= _NAME_LIMIT):
            raise UsageError(
                f"expected a node name of 1 to {_NAME_LIMIT:,} bytes that can be printed, got {name!r:.80}", at="nodes"
            )
    return [Node(name, place) for place, name in enumerate(sorted(names), start=1)]


def _described(names: list[str]) -> str:
    text = "\n".join(names)  # a name can be printed, so it has no line break
    return f"{len(names)} nodes called blake3:{blake3(text.encode()).hexdigest()[:16]}"


def _require_some(count: int) -> int:
    if count < 1:
        raise UsageError(f"expected at least one node, got {count}", at="nodes")
    return count
