"""What the event loop of a server keeps in memory: who is there, which messages are open, what happened."""

import asyncio

import pytest

from umbel.envelope import Content, Part
from umbel.errors import NodeSuperseded
from umbel.history import RoundReport
from umbel.http.wire import Assignment, Task
from umbel.records import RecordSet
from umbel.rounds import RoundCompleted, RoundStarted, RunCompleted, RunStarted, UpdateAccepted
from umbel.server._desk import Desk
from umbel.server._log import Log
from umbel.server._presence import Presence

NODE = 5


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def presence(clock):
    return Presence(75.0, clock)


def task(message, fence=1, run=1):
    return Task(
        run=run,
        run_name="r",
        message=message,
        fence=fence,
        round=1,
        message_type="train",
        seed=0,
        created_at=0.0,
        ttl=1.0,
        run_config={},
        content=Content((), Part("blake3:0", 0)),
    )


def held(*tasks):
    return [Assignment(run=each.run, message=each.message, fence=each.fence) for each in tasks]


def report(number):
    return RoundReport(number, 1, 1, (), (), {}, {}, {}, "blake3:0")


def test_nobody_is_silent_at_first_and_nobody_is_there(presence, clock):
    clock.now += 74.9
    assert not presence.is_silent(NODE)
    assert not presence.is_here(NODE)
    assert presence.seconds_since(NODE) is None
    clock.now += 0.1
    assert presence.is_silent(NODE)


def test_who_polls_is_there_until_it_is_silent(presence, clock):
    clock.now += 500
    presence.seen(NODE)
    clock.now += 74.9
    assert presence.is_here(NODE)
    presence.seen(NODE)
    clock.now += 75
    assert presence.is_silent(NODE)
    assert not presence.is_here(NODE)
    assert presence.seconds_silent(NODE) == 75
    presence.seen(NODE)
    assert presence.is_here(NODE)


def test_bytes_of_a_body_are_a_sign_of_life(presence, clock):
    presence.seen(NODE)
    for _ in range(10):
        clock.now += 60
        presence.moved(NODE)
        assert presence.is_here(NODE)
        assert presence.is_moving(NODE)
    clock.now += 75
    assert not presence.is_moving(NODE)


def test_messages_are_handed_out_in_order_and_as_many_as_there_is_room():
    desk = Desk()
    for number in (3, 1, 2):
        desk.open(NODE, task(number))
    box = desk.box(NODE)
    box.enter("a", 2)
    assert [each.message for each in box.take()] == [3, 1]
    assert box.take() == []
    box.enter("a", 2)
    assert [each.message for each in box.take()] == [2]
    assert desk.handed((1, 2)) is not None


def test_what_is_held_stays_and_what_is_missing_waits_for_its_next_number():
    desk = Desk()
    desk.open(NODE, task(1))
    desk.open(NODE, task(2))
    box = desk.box(NODE)
    box.enter("a", 2)
    first, second = box.take()
    assert box.take_stock(held(first)) == [second]
    assert desk.find(NODE, (1, 2)) == second, "its reply may be under way"
    desk.renew(NODE, [task(2, fence=2)])
    assert desk.find(NODE, (1, 2)).fence == 2
    assert box.take_stock(held(first)) == [], "it was not handed out yet"


def test_a_message_given_up_while_its_number_is_raised_stays_away():
    desk = Desk()
    desk.reopen(NODE, task(1))
    box = desk.box(NODE)
    missing = box.take_stock([])
    desk.close((1, 1))
    desk.renew(NODE, [task(1, fence=2)])
    desk.put_back(NODE, missing)
    assert desk.of_node(NODE) == []
    assert len(desk) == 0


def test_a_number_that_could_not_be_raised_is_tried_again():
    desk = Desk()
    desk.reopen(NODE, task(1))
    box = desk.box(NODE)
    missing = box.take_stock([])
    desk.put_back(NODE, missing)
    assert box.take_stock([]) == missing


def test_a_node_forgets_what_is_closed_or_has_another_number():
    desk = Desk()
    desk.reopen(NODE, task(1, fence=2))
    box = desk.box(NODE)
    stale, unknown = held(task(1, fence=1)), held(task(9))
    assert box.gone([*stale, *unknown, *held(task(1, fence=2))]) == [*stale, *unknown]


def test_an_answer_frees_a_place_for_the_poll_that_is_parked():
    desk = Desk()
    desk.open(NODE, task(1))
    box = desk.box(NODE)
    box.enter("a", 1)
    (first,) = box.take()
    desk.open(NODE, task(2))
    assert box.take() == []
    desk.close((1, 1), answered=True)
    assert [each.message for each in box.take()] == [2]
    assert box.gone(held(first)) == [], "the node is about to hear that its answer is there"


def test_the_newest_instance_counts_and_older_ones_are_refused():
    box = Desk().box(NODE)
    turn = box.enter("a", 1)
    assert box.is_turn(turn, "a")
    box.enter("b", 1)
    with pytest.raises(NodeSuperseded):
        box.is_turn(turn, "a")
    with pytest.raises(NodeSuperseded):
        box.enter("a", 1)
    for number in range(1000):
        box.enter(f"c{number}", 1)
    with pytest.raises(NodeSuperseded):
        box.enter("c998", 1)


def test_a_later_poll_of_the_same_instance_ends_the_one_before():
    async def main():
        box = Desk().box(NODE)
        turn = box.enter("a", 1)
        parked = asyncio.create_task(box.park(60))
        await asyncio.sleep(0)
        box.enter("a", 1)
        assert await parked
        assert not box.is_turn(turn, "a")

    asyncio.run(main())


def test_a_parked_poll_is_woken_by_a_message_and_ends_by_itself():
    async def main():
        desk = Desk()
        box = desk.box(NODE)
        box.enter("a", 1)
        parked = asyncio.create_task(box.park(60))
        await asyncio.sleep(0)
        desk.open(NODE, task(1))
        assert await parked
        assert not await box.park(0.01)

    asyncio.run(main())


def test_events_are_numbered_by_round():
    log = Log()
    log.add(RunStarted(1, "fedavg", 7, 2, 0, 1))
    log.add(RoundStarted(1, 1))
    log.add(UpdateAccepted(1, "train", "a", 3))
    log.add(RoundCompleted(report(1), RecordSet()))
    log.add(RoundStarted(2, 1))
    lines = log.after(0)
    assert [line.number for line in lines] == [1, 1_000_000_001, 1_000_000_002, 1_999_999_999, 2_000_000_001]
    assert "state" not in lines[3].fields
    assert log.after(1_000_000_002) == lines[3:]
    assert log.after(0, most=2) == lines[:2]


def test_a_log_made_of_reports_has_their_events_under_the_same_numbers():
    log = Log()
    for number in (1, 2):
        log.add(RoundStarted(number, 1))
        log.add(RoundCompleted(report(number), RecordSet()))
    again = Log([report(1), report(2)])
    assert again.after(0) == [line for line in log.after(0) if line.kind == "RoundCompleted"]
    again.add(RunCompleted(2, "blake3:0", RecordSet()))
    assert again.after(2_999_999_999 - 1_000_000_000)[-1].number == 3_000_000_001


def test_watchers_are_told_until_they_leave():
    log, told = Log(), []
    leave = log.watch(lambda: told.append(1))
    log.add(RoundStarted(1, 1))
    log.end()
    assert len(told) == 2
    leave()
    log.add(RoundStarted(2, 1))
    assert len(told) == 2


def test_a_log_is_bounded():
    log = Log()
    for number in range(10_000):
        log.add(UpdateAccepted(1, "train", str(number), 3))
    assert len(log.after(0, most=100_000)) == 4096
