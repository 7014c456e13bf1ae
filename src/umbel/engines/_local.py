"""The engine that runs every node in this process, one after the other."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from umbel.app import ClientApp
from umbel.context import Context, derive_seed
from umbel.engines._population import Population
from umbel.engines._states import NodeStates, own_copy
from umbel.errors import MessageExpired, RecordError, RecordTypeError
from umbel.grid import Node
from umbel.message import Error, ErrorCode, Message

_LARGEST_ADAPTIVE_BLOCK: Final = 31 * 2**20


class LocalGrid:
    """A grid whose nodes run in this process, each when the loop is ready for its reply.

    A node is made for one message and gone with its reply, so memory holds one node at a time, plus the states that
    nodes keep. The engine keeps no reply either: a reply may share memory with the node that made it, so whoever reads
    ``replies()`` uses one before taking the next.

    A handler gets a copy of the message's content down to the arrays, which are read-only: whatever it does to it,
    the next node receives what was sent. ``seed`` is the run's; every context gets a seed derived from it and from the
    message's ``group_id``, the round.
    """

    #: Takes messages while others are outstanding.
    overlapping: Final = True

    def __init__(
        self,
        client_app: ClientApp,
        population: Population,
        *,
        seed: int = 0,
        run_config: Mapping[str, bool | int | float | str] | None = None,
        states: NodeStates | None = None,
    ) -> None:
        self._app = client_app
        self._population = population
        self._seed = seed
        self._run_config = dict(run_config or {})
        self._states = NodeStates() if states is None else states
        self._outstanding: deque[Iterator[Message]] = deque()
        self._cancelled: set[int] = set()
        _keep_freed_memory()

    def nodes(self, round: int = 0, message_type: str = "train") -> Sequence[Node]:  # noqa: A002 - the field's word
        """Return the nodes of the population, sorted by name, the same ones in every phase."""
        del round, message_type
        return self._population.nodes

    def send(self, messages: Iterable[Message]) -> None:
        """Take messages; each is drawn from ``messages`` only when its node is about to run."""
        self._outstanding.append(iter(messages))

    def replies(self) -> Iterator[Message]:
        """Run the nodes that were asked, in the order of the messages, and yield each reply as it is made.

        A handler that outlives its message's time to live has no reply.
        """
        while self._outstanding:
            for message in self._outstanding[0]:
                reply = self._run(message)
                if reply is not None:
                    yield reply
                    reply = None  # its memory is free again when the next node runs
            self._outstanding.popleft()
        self._cancelled.clear()

    def cancel(self, message_ids: Iterable[int]) -> None:
        """Let these messages pass without running their nodes."""
        self._cancelled.update(message_ids)

    def close(self) -> None:
        """Forget what is outstanding."""
        self._outstanding.clear()
        self._cancelled.clear()

    def _run(self, message: Message) -> Message | None:
        if message.metadata.message_id in self._cancelled:
            return None
        node = self._population.node(message.metadata.dst_node_id)
        context = self._context(message, node)
        try:
            reply = self._app(_with_own_content(message), context)
            return self._with_state_kept(message, reply, context)
        except MessageExpired:
            return None

    def _with_state_kept(self, message: Message, reply: Message, context: Context) -> Message:
        """Commit the node's state together with its reply: both count, or neither does."""
        if reply.has_error():
            return reply
        try:
            self._states.commit(context.node_name, context.state)
        except (RecordError, RecordTypeError) as error:
            fault = f"expected a state that a file can hold in context.state, got one that it cannot: {error}"
            return message.create_error_reply(Error(ErrorCode.BAD_REPLY, fault))
        return reply

    def _context(self, message: Message, node: Node) -> Context:
        asked = message.metadata
        return Context(
            run_id=asked.run_id,
            node_id=node.node_id,
            node_config=self._population.config(node),
            state=self._states.checkout(node.name),
            run_config=self._run_config.copy(),
            node_name=node.name,
            seed=derive_seed(self._seed, asked.group_id, node.name, asked.message_type),
        )


def _keep_freed_memory() -> None:
    """Let one node's memory serve the next, whose models are as large, without a page fault for each 4 KiB of it.

    The GNU allocator returns the free end of its heap to the kernel as soon as it exceeds twice the largest block that
    was ever mapped and freed, at most 32 MiB. So one such block, which nobody touches, raises the bar for good; where
    another allocator is in use, nothing happens.
    """
    np.empty(_LARGEST_ADAPTIVE_BLOCK, np.uint8)


def _with_own_content(message: Message) -> Message:
    return Message(message.metadata, own_copy(message.content))
