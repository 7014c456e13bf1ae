"""What nodes keep between messages, for those of them that keep anything."""

from collections.abc import Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import Final

from umbel.errors import UmbelError
from umbel.message import Error, ErrorCode, Message
from umbel.records import Array, ConfigsRecord, ParametersRecord, RecordSet, dumps

# The clock is kept as the state of a node is, under a name that no node can have.
_CLOCK: Final = ""


class NodeStates:
    """The non-empty states of the nodes of a simulation, by node name; a node without one costs nothing.

    A handler works on a copy, which becomes the state only when it is committed, together with the node's reply.

    ``clock`` is the time, in seconds, of an engine that has a clock of its own, which goes on where it was.
    """

    def __init__(self, states: Mapping[str, RecordSet] | None = None) -> None:
        self._states = dict(states or {})
        self._changed: set[str] = set()
        self.clock = self._kept_clock()

    @property
    def kept(self) -> Mapping[str, RecordSet]:
        """The non-empty states by node name, a live view."""
        return MappingProxyType(self._states)

    def checkout(self, name: str) -> RecordSet:
        """Return a copy of the node's state that a handler may change."""
        kept = self._states.get(name)
        return RecordSet() if kept is None else kept.copy()

    def commit(self, name: str, state: RecordSet) -> None:
        """Make ``state`` the node's state; an empty one is not kept.

        Raises ``RecordError`` or ``RecordTypeError`` for a state that no file can hold; the state is then as it was.
        """
        kept = self._states.get(name)
        if is_empty(state):
            if kept is not None:
                del self._states[name]
                self._changed.add(name)
        elif changed(state, kept):
            self._states[name] = _snapshot(state, kept or RecordSet())
            self._changed.add(name)

    def _kept_clock(self) -> float:
        kept = self._states.get(_CLOCK)
        return 0.0 if kept is None else float(kept.configs_records["clock"]["now"])  # type: ignore[arg-type]

    def take_changes(self) -> set[str]:
        """Return the names of the nodes whose state changed, or was given up, since the last call."""
        if self.clock != self._kept_clock():
            self._states[_CLOCK] = RecordSet(configs_records={"clock": ConfigsRecord({"now": self.clock})})
            self._changed.add(_CLOCK)
        names, self._changed = self._changed, set()
        return names


def is_empty(content: RecordSet) -> bool:
    """Say whether there is no record at all."""
    return not (content.parameters_records or content.metrics_records or content.configs_records)


def changed(state: RecordSet, kept: RecordSet | None) -> list[bytes | memoryview] | None:
    """Return the container of ``state``, or None if it is the same as ``kept``.

    That is the same in values and in what ``==`` does not see: the order of entries, 1 and True, 0.0 and -0.0. Raises
    ``RecordError`` or ``RecordTypeError`` for a state that no file can hold.
    """
    segments = dumps(state)
    is_same = kept is not None and state == kept and segments[0] == dumps(kept)[0]
    return None if is_same else segments


def refused_state(message: Message, error: UmbelError) -> Message:
    """Return the reply to ``message`` instead of one whose state cannot be kept."""
    fault = f"expected a state that a file can hold in context.state, got one that it cannot: {error}"
    return message.create_error_reply(Error(ErrorCode.BAD_REPLY, fault))


def refused_reply(message: Message, error: UmbelError) -> Message:
    """Return the reply to ``message`` instead of one that cannot leave its process."""
    fault = f"expected a reply that a container can hold, got one that it cannot: {error}"
    return message.create_error_reply(Error(ErrorCode.BAD_REPLY, fault))


def _snapshot(state: RecordSet, before: RecordSet) -> RecordSet:
    """Copy what is new in ``state``: a handler may have stored views of memory that it will use again."""
    kept = state.copy()
    for name, record in kept.parameters_records.items():
        known = before.parameters_records.get(name) or ParametersRecord()
        for key, array in record.items():
            record[key] = _own_array(array, known.get(key))
    return kept


def _own_array(array: Array, known: Array | None) -> Array:
    return array if array is known else deepcopy(array)
