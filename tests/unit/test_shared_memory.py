"""Memory that processes share: written once, read as it is, used again when nobody refers to it."""

import gc
import os
import socket
from pathlib import Path

import msgspec
import numpy as np
import pytest

from umbel.engines._channel import INLINE, Body, Channel, Closed
from umbel.engines._contents import Versions
from umbel.engines._memory import Read, Written, mapped, new_file
from umbel.records import MetricsRecord, ParametersRecord, RecordSet


class Frame(msgspec.Struct, tag="frame"):
    bodies: list[Body]
    text: str = ""


@pytest.fixture
def ends():
    ours, theirs = (Channel(end, Frame) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    yield ours, theirs
    ours.close()
    theirs.close()


def moved(written, read, segments):
    place = written.put(segments)
    new = None if place.new is None else os.dup(place.new)
    return place, read.open(place._replace(new=new), sum(map(len, segments)))


def test_bytes_are_those_that_were_written_and_cannot_be_changed():
    memory = mapped(new_file([b"one", memoryview(b"two"), b"", bytes(5_000)]))
    assert memory.tobytes() == b"onetwo" + bytes(5_000)
    with pytest.raises(ValueError, match="read-only"):
        memory[0] = 1


def test_more_segments_than_one_call_takes():
    segments = [bytes([number % 256]) * 3 for number in range(3_000)]
    assert mapped(new_file(segments)).tobytes() == b"".join(segments)


def test_a_file_is_used_again_when_nothing_refers_to_it():
    written, read = Written(), Read()
    first, kept = moved(written, read, [b"a" * 5_000])
    part = memoryview(kept)[10:20]
    del kept
    gc.collect()
    assert read.take_released() == []
    second, other = moved(written, read, [b"b" * 5_000])
    assert (second.number, bytes(part)) == (first.number + 1, b"a" * 10)
    del part, other
    gc.collect()
    released = read.take_released()
    assert sorted(released) == [first.number, second.number]
    written.release(released)
    third, again = moved(written, read, [b"c" * 4_990])
    assert (third.number in released, third.new, again.tobytes()) == (True, None, b"c" * 4_990)
    written.close()


def test_files_that_suit_nothing_any_more_are_given_up():
    written, read = Written(), Read()
    places = [moved(written, read, [bytes(10_000)])[0] for _ in range(10)]
    gc.collect()
    written.release(read.take_released())
    place, _ = moved(written, read, [bytes(10_000_000)])
    assert place.gone == [each.number for each in places[:6]]
    assert len(written._files) == 5
    written.close()


def test_bodies_cross_small_or_large_and_frames_of_any_size(ends):
    ours, theirs = ends
    bodies = [b"x" * size for size in (0, 1, INLINE, INLINE + 1, 1_000_000)]
    for text in ("", "t" * 300_000):
        ours.send(Frame([ours.body([body]) for body in bodies], text))
        frame = theirs.receive()
        assert frame.text == text
        assert [bytes(theirs.open(body)) for body in frame.bodies] == bodies


def test_released_files_are_told_of_with_the_next_frame(ends):
    ours, theirs = ends
    numbers = set()
    for _ in range(20):
        body = ours.body([bytes(100_000)])
        numbers.add(body.number)
        ours.send(Frame([body]))
        assert len(theirs.open(theirs.receive().bodies[0])) == 100_000
        theirs.send(Frame([]))
        ours.receive()
    assert len(numbers) <= 2


def test_a_file_of_its_own_may_go_to_several(ends):
    ours, theirs = ends
    file = new_file([np.arange(9, dtype=np.uint8).tobytes()])
    for _ in range(3):
        ours.send(Frame([ours.shared_body(9, file)]))
        assert theirs.open(theirs.receive().bodies[0]).tolist() == list(range(9))
    os.close(file)


def test_what_was_sent_before_the_end_is_read_before_it(ends):
    ours, theirs = ends
    theirs.send(Frame([], "unread"))  # which makes the system speak of a reset before it hands out what came
    ours.send(Frame([], "last words"))
    ours._end.close()
    assert theirs.receive().text == "last words"
    with pytest.raises(Closed):
        theirs.receive()
    with pytest.raises(Closed):
        theirs.send(Frame([]))


def test_nothing_of_it_is_in_the_file_system(ends):
    ours, theirs = ends
    before = {entry.name for entry in Path("/dev/shm").iterdir()}
    ours.send(Frame([ours.body([bytes(100_000)])]))
    kept = theirs.open(theirs.receive().bodies[0])
    assert {entry.name for entry in Path("/dev/shm").iterdir() if "umbel" in entry.name} - before == set()
    assert len(kept) == 100_000


def test_contents_are_told_apart_by_what_they_hold():
    versions = Versions()
    content = RecordSet({"model": ParametersRecord.from_numpy({"w": np.zeros(3)})})
    first = versions.of(content, 1)
    assert versions.of(content, 1) is first
    assert versions.of(content, 2) is first
    content.metrics_records["m"] = MetricsRecord({"n": 1})
    second = versions.of(content, 3)
    content.parameters_records["model"] = ParametersRecord.from_numpy({"w": np.ones(3)})
    third = versions.of(content, 4)
    assert len({first.number, second.number, third.number}) == 3
    others = [versions.of(RecordSet(), 4).number for _ in range(10)]
    assert len({*others, third.number}) == 11
