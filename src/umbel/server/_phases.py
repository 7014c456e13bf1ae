"""The phases that a run is in: what the ledger has of them, and what is planned further."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

from umbel.envelope import Content
from umbel.errors import WrongState
from umbel.grid import Node
from umbel.message import Message
from umbel.server._exchange import Exchange
from umbel.server._plans import Asked, Commission, Fate, Phase, Planned
from umbel.store.messages import Ask, Plan

PhaseKey: TypeAlias = tuple[int, str]  # round, message type

_PLACES: Final = 2**32  # message ids of a phase follow one another, from one above a multiple of this


class Phases:
    """The phases of one run; where rounds overlap, several are under way at a time.

    What the loop asks is compared with what the ledger has. A message that is there is taken up, with what became of
    it; what is new is planned in a transaction, before a node hears of it. A message that the ledger has for another
    node goes to the one that the loop wants now, under the next number: the loop draws nodes by the order in which
    replies come, and after a crash that may not be the one in which it took them before.
    """

    def __init__(self, exchange: Exchange, commission: Commission) -> None:
        self._exchange = exchange
        self._commission = commission
        self._phases: dict[PhaseKey, Phase] = {}
        self._rosters: dict[PhaseKey, tuple[Node, ...]] = {}
        self._names: dict[PhaseKey, Mapping[int, str]] = {}
        self._planned: dict[int, Planned] = {}
        self._fences: dict[int, int] = {}

    def roster(self, number: int, message_type: str) -> Sequence[Node] | None:
        """Return the nodes with which a phase was planned, None if it is not."""
        key = number, message_type
        if key not in self._phases:
            found = self._exchange.phase(self._commission.run, number, message_type)
            if found is None:
                return None
            self._phases[key] = found
            self._planned.update(found.messages)
            self.offer(number, message_type, found.roster)
        return self._rosters[key]

    def offer(self, number: int, message_type: str, roster: Sequence[Node]) -> None:
        """Take note of the nodes among whom the loop chooses."""
        self._rosters[number, message_type] = tuple(roster)
        self._names[number, message_type] = {node.node_id: node.name for node in roster}

    def members(self, message: Message) -> frozenset[int]:
        """Return the nodes with which the phase of a message was planned."""
        return frozenset(self._names[key_of(message)])

    def heard(self, fate: Fate) -> None:
        """Take note of what became of a message that the loop has not asked yet."""
        known = self._planned.get(fate.message)
        if known is not None:
            self._planned[fate.message] = known._replace(fate=fate)

    def is_stale(self, fate: Fate) -> bool:
        """Say whether a fate is one of a message from before it went to another node."""
        return 0 < fate.fence < self._fences.get(fate.message, 0)

    def ask(self, messages: Sequence[Message]) -> list[tuple[Asked, Fate | None]]:
        """Ask in one phase, and return each message with what is known to have become of it."""
        if not messages:
            return []
        key = key_of(messages[0])
        known = {each: self._planned.pop(each, None) for each in map(_number, messages)}
        fresh = [message for message in messages if known[_number(message)] is None]
        at = self._plan(key, fresh) if fresh else 0.0
        return [self._taken_up(key, message, known[_number(message)], at) for message in messages]

    def _taken_up(self, key: PhaseKey, message: Message, known: Planned | None, at: float) -> tuple[Asked, Fate | None]:
        phase, node = self._phases[key], message.metadata.dst_node_id
        if known is None:
            return Asked(message, self._names[key][node], at, phase.sent), None
        # What its time to live was prolonged by, when a server was there again.
        gone = max(0.0, phase.ttl - message.metadata.ttl)
        asked = Asked(message, self._names[key][node], phase.at, phase.sent, gone)
        if known.node == node:
            return asked, known.fate
        plan = self._planning(key, [message])(content=self._content(key))
        self._fences[_number(message)] = self._exchange.reassign(self._commission, plan)
        return asked, None

    def _plan(self, key: PhaseKey, fresh: Sequence[Message]) -> float:
        """Plan messages, with their phase or in one that is planned; return when that was."""
        make = self._planning(key, fresh)
        if key in self._phases:
            return self._exchange.extend(self._commission, make(content=self._content(key)))
        self._forget_all_but(key)
        planned = self._exchange.plan(self._commission, fresh[0].content, lambda content: make(content=content))
        self._phases[key] = planned
        return planned.at

    def _forget_all_but(self, key: PhaseKey) -> None:
        """Nothing more is asked in the phases before, though messages of them may be open."""
        for kept in (self._phases, self._rosters, self._names):
            for each in kept.keys() - {key}:
                del kept[each]

    def _planning(self, key: PhaseKey, messages: Sequence[Message]) -> "partial[Plan]":
        return partial(
            Plan,
            run=self._commission.run,
            round=key[0],
            phase=key[1],
            roster=self._rosters[key],
            ttl=messages[0].metadata.ttl,
            asks=tuple(
                Ask(_number(each), (_number(each) - 1) % _PLACES, each.metadata.dst_node_id) for each in messages
            ),
        )

    def _content(self, key: PhaseKey) -> Content:
        content = self._phases[key].content
        if content is None:
            raise WrongState("expected a phase that is not closed, to ask more in it", at=f"round {key[0]}, {key[1]}")
        return content


def key_of(message: Message) -> PhaseKey:
    """Return the phase of a message."""
    return message.metadata.group_id, message.metadata.message_type


def _number(message: Message) -> int:
    return message.metadata.message_id
