"""The engine that runs every node in this process, one after the other."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from umbel.app import ClientApp
from umbel.engines._heap import keep_freed_memory
from umbel.engines._population import Population
from umbel.engines._runner import Runner
from umbel.engines._states import NodeStates
from umbel.grid import Node
from umbel.message import Message


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
        self._runner = Runner(client_app, population, seed, run_config, states)
        self._outstanding: deque[Iterator[Message]] = deque()
        self._cancelled: set[int] = set()
        keep_freed_memory()

    def nodes(self, round: int = 0, message_type: str = "train") -> Sequence[Node]:  # noqa: A002 - the field's word
        """Return the nodes of the population, sorted by name, the same ones in every phase."""
        del round, message_type
        return self._runner.population.nodes

    def send(self, messages: Iterable[Message]) -> None:
        """Take messages; each is drawn from ``messages`` only when its node is about to run."""
        self._outstanding.append(iter(messages))

    def replies(self) -> Iterator[Message]:
        """Run the nodes that were asked, in the order of the messages, and yield each reply as it is made.

        A handler that outlives its message's time to live has no reply.
        """
        while self._outstanding:
            for message in self._outstanding[0]:
                if message.metadata.message_id in self._cancelled:
                    continue
                reply = self._runner.run(message)
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
