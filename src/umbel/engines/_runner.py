"""Running nodes in this process: a message in, a reply out, and what the node keeps."""

from collections.abc import Mapping
from typing import Final

import msgspec

from umbel.app import ClientApp
from umbel.context import Context, derive_seed
from umbel.engines._population import Population
from umbel.engines._states import NodeStates, refused_state
from umbel.errors import MessageExpired, RecordError, RecordTypeError
from umbel.grid import Node
from umbel.message import Message

_YEARS: Final = 10 * 365 * 86_400.0  # longer than any node runs


class Runner:
    """Makes a node for one message and lets go of it with its reply; ``seed`` is the run's."""

    def __init__(
        self,
        client_app: ClientApp,
        population: Population,
        seed: int,
        run_config: Mapping[str, bool | int | float | str] | None,
        states: NodeStates | None,
    ) -> None:
        self.population = population
        self._app = client_app
        self._seed = seed
        self._run_config = dict(run_config or {})
        self._states = NodeStates() if states is None else states

    def run(self, message: Message) -> Message | None:
        """Return the node's reply, or None if it comes too late."""
        node = self.population.node(message.metadata.dst_node_id)
        context = self._context(message, node)
        try:
            reply = self._app(Message(message.metadata, message.content.copy()), context)
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
            return refused_state(message, error)
        return reply

    def _context(self, message: Message, node: Node) -> Context:
        asked = message.metadata
        return Context(
            run_id=asked.run_id,
            node_id=node.node_id,
            node_config=self.population.config(node),
            state=self._states.checkout(node.name),
            run_config=self._run_config.copy(),
            node_name=node.name,
            seed=derive_seed(self._seed, asked.group_id, node.name, asked.message_type),
        )


def unhurried(message: Message) -> Message:
    """Return the message to a node whose time is not this machine's: however long it runs here, it may reply."""
    asked = message.metadata
    return Message(msgspec.structs.replace(asked, created_at=asked.created_at + _YEARS), message.content)
