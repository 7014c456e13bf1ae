"""Messages on their way to nodes that run at the same time."""

import itertools

import pytest

from umbel.engines import Population
from umbel.engines._queue import Queue
from umbel.message import Message, Metadata
from umbel.records import RecordSet

MEGABYTE = 2**20


def messages(*node_ids, first=1):
    for number, node_id in enumerate(node_ids, start=first):
        yield Message(Metadata(1, number, 0, node_id, 0, 1, 60.0, "train"), RecordSet())


def queue_of(*node_ids, workers=2):
    queue = Queue(Population(100_000).node, workers)
    queue.add(messages(*node_ids))
    return queue


def number(flight):
    return None if flight is None else flight.message.metadata.message_id


def take_all(queue):
    return list(iter(lambda: number(queue.take()), None))


def test_messages_go_in_order_and_are_drawn_when_they_go():
    drawn = []

    def drawing():
        for message in messages(5, 6, 7):
            drawn.append(message.metadata.message_id)
            yield message

    queue = Queue(Population(10).node, 2)
    queue.add(drawing())
    assert drawn == []
    assert (number(queue.take()), drawn) == (1, [1])
    assert take_all(queue) == [2, 3]


def test_a_node_has_one_message_at_a_time_and_holds_nobody_up():
    queue = queue_of(1, 2, 1, 3, 1, 4)
    first, second = queue.take(), queue.take()
    assert take_all(queue) == [4, 6]
    queue.end(second)
    assert queue.take() is None
    queue.end(first)
    third = queue.take()
    assert (number(third), queue.take()) == (3, None)
    queue.end(third)
    assert take_all(queue) == [5]


def test_what_waits_for_its_node_can_be_cancelled():
    queue = queue_of(1, 1, 2)
    first = queue.take()
    assert take_all(queue) == [3]
    queue.cancel([1, 2, 3])
    assert not queue.is_waited_for
    queue.end(first)
    assert take_all(queue) == []


def test_not_everything_is_drawn_while_a_node_is_busy():
    queue = queue_of(*[1] * 1_000)
    queue.take()
    assert queue.take() is None
    assert len(queue._passed) == 64


def test_what_is_put_back_goes_first_and_in_its_order():
    queue = queue_of(1, 2, 3, 4)
    flights = [queue.take() for _ in range(3)]
    queue.put_back(flights[1:])
    assert take_all(queue) == [2, 3, 4]


def test_it_is_waited_for_what_is_wanted():
    queue = queue_of(1, 2)
    first, second = queue.take(), queue.take()
    assert queue.is_waited_for
    queue.end(first)
    assert queue.is_waited_for
    queue.cancel([2])
    assert not queue.is_waited_for
    assert not second.is_wanted
    queue.end(second)
    queue.add(messages(1, first=9))
    assert queue.is_waited_for


def test_what_is_cancelled_never_goes():
    queue = queue_of(1, 2, 3, 4, 5)
    flight = queue.take()
    queue.put_back([flight])
    assert queue.is_waited_for  # which looks at the next one
    queue.cancel([1, 2, 4])
    assert take_all(queue) == [3, 5]
    queue.forget_cancelled()
    queue.add(messages(8, first=4))
    assert take_all(queue) == [4]


def test_what_is_put_back_after_it_was_cancelled_is_gone():
    queue = queue_of(1, 2)
    flight = queue.take()
    queue.cancel([1, 2])
    queue.put_back([flight])
    assert not queue.is_waited_for
    assert queue.take() is None


@pytest.mark.parametrize(
    ("size", "most"), [(1_000, 10_000), (100 * MEGABYTE, 4), (64 * MEGABYTE, 4), (20 * MEGABYTE, 13)]
)
def test_workers_wait_when_too_much_is_ahead(size, most):
    queue = queue_of(*range(1, 10_002))
    oldest = queue.take()
    ahead = 0
    while (flight := queue.take()) is not None:
        queue.end(flight, size)
        ahead += 1
    assert ahead == most
    queue.end(oldest, size)
    assert (queue.take() is None) is (most == 10_000)


def test_replies_in_order_never_wait():
    queue = queue_of(*range(1, 1_000))
    for expected in range(1, 1_000):
        flight = queue.take()
        assert number(flight) == expected
        queue.end(flight, 10_000 * MEGABYTE)


def test_a_batch_is_known_by_its_number():
    queue = queue_of(1, 2)
    queue.add(messages(3, first=3))
    assert [queue.take().batch for _ in range(3)] == [1, 1, 2]
    assert list(itertools.islice(iter(queue.take, None), 1)) == []
