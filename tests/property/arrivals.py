"""A grid of its own over the local one, for tests of when replies come: each takes the seconds that it is told."""

import heapq

import msgspec

from umbel.engines import LocalGrid, Population
from umbel.message import Message


class ArrivalGrid:
    """Replies in the order of their arrival; a node that takes for ever, or longer than it may, does not reply."""

    overlapping = True

    def __init__(self, app, nodes, seconds, **options):
        self._inner = LocalGrid(app, Population(nodes), **options)
        self._seconds = seconds
        self._coming = []
        self.now = 0.0
        self.asked = []
        self.cancelled = []

    def nodes(self, round=0, message_type="train"):  # noqa: A002
        return self._inner.nodes(round, message_type)

    def send(self, messages):
        for message in messages:
            asked = message.metadata
            self.asked.append((asked.group_id, asked.message_type, asked.dst_node_id))
            seconds = self._seconds(asked)
            if seconds is not None and seconds < asked.ttl:
                heapq.heappush(self._coming, (self.now + seconds, asked.message_id, seconds, message))

    def replies(self):
        while self._coming:
            self.now, _, seconds, message = heapq.heappop(self._coming)
            self._inner.send([message])
            for reply in self._inner.replies():
                left = {"created_at": self.now, "ttl": message.metadata.ttl - seconds}
                metadata = msgspec.structs.replace(reply.metadata, **left)
                yield Message(metadata, error=reply.error) if reply.has_error() else Message(metadata, reply.content)

    def cancel(self, message_ids):
        given_up = set(message_ids)
        self.cancelled += given_up
        self._coming = [each for each in self._coming if each[1] not in given_up]
        heapq.heapify(self._coming)

    def close(self):
        self._coming.clear()
