"""The spool of a node: what it holds, what it gives up, and what it does about files that are damaged."""

import errno
import subprocess
import sys

import numpy as np
import pytest

from spool_driver import put
from umbel.envelope import pack, unpack
from umbel.errors import DigestMismatch, SpoolDamaged, SpoolError, SpoolInUse
from umbel.http.wire import Assignment, Task
from umbel.message import ErrorCode
from umbel.node import Spool
from umbel.node._jobs import Outcome, failed
from umbel.records import ConfigsRecord, ParametersRecord, RecordSet
from umbel.records._files import map_file

LARGE = 5_000  # float64: more than travels inside a description


@pytest.fixture
def spool(tmp_path):
    with Spool(tmp_path / "spool") as made:
        yield made


def model(value, size=LARGE):
    return RecordSet({"model": ParametersRecord.from_numpy({"w": np.full(size, float(value))})})


def numbered(value):
    return RecordSet(configs_records={"s": ConfigsRecord({"n": value})})


def task(message, run=1, fence=1, size=3, folder=None):
    content = pack(model(message, size), lambda segments: put(segments, folder))
    return Task(
        run=run,
        run_name="pilot",
        message=message,
        fence=fence,
        round=message,
        message_type="train",
        seed=message,
        created_at=0.0,
        ttl=60.0,
        run_config={},
        content=content,
    )


def finish(spool, asked, state=None, size=LARGE):
    spool.begin(asked)
    desk = spool.desk()
    content = pack(model(asked.message + 0.5, size), lambda segments: put(segments, desk))
    kept = None if state is None else pack(state, lambda segments: put(segments, desk))
    return spool.finish(asked, Outcome(content, kept), desk)


def state_of(spool, run=1):
    kept = spool.state(run)
    return None if kept is None else unpack(kept, lambda digest: map_file(spool.blobs / digest[7:]))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_message_is_finished_once_the_disk_takes_it(spool, monkeypatch):
    asked = task(1)
    spool.accept(asked)
    desk = spool.desk()
    content = pack(model(1.5), lambda segments: put(segments, desk))
    with monkeypatch.context() as full:
        full.setattr("umbel.node._sealed.write", no_room)
        with pytest.raises(OSError, match="room"):
            spool.finish(asked, Outcome(content), desk)
    spool.finish(asked, Outcome(content), desk)
    (finished,) = spool.finished
    assert spool.is_whole(finished)
    assert not desk.exists()


def no_room(*_, **__):
    raise OSError(errno.ENOSPC, "no room")


def test_a_message_is_held_until_its_reply_is_acknowledged(spool):
    assert (spool.holding, spool.next_task()) == ([], None)
    asked = task(1)
    spool.accept(asked)
    held = [Assignment(run=1, message=1, fence=1)]
    assert (spool.holding, spool.next_task(), spool.finished) == (held, asked, [])
    answer = finish(spool, asked)
    assert (spool.holding, spool.next_task()) == (held, None)
    assert [each.answer for each in spool.finished] == [answer]
    spool.acknowledge(answer, counted=True)
    assert (spool.holding, spool.next_task(), spool.finished) == ([], None, [])


def test_everything_is_there_after_a_restart(tmp_path):
    with Spool(tmp_path) as spool:
        spool.accept(task(1))
        spool.accept(task(2, run=2))
        answer = finish(spool, task(1), numbered(1))
        holding = spool.holding
    with Spool(tmp_path) as spool:
        assert spool.holding == holding
        assert [each.answer for each in spool.finished] == [answer]
        assert spool.next_task() == task(2, run=2)
        assert state_of(spool) == numbered(1)


def test_one_process_uses_a_spool(tmp_path, spool):
    with pytest.raises(SpoolInUse, match="another process"):
        Spool(tmp_path / "spool")
    script = "import sys; from umbel.node import Spool; Spool(sys.argv[1])"
    command = [sys.executable, "-c", script, str(tmp_path / "spool")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "SpoolInUse" in done.stderr


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match="file"):
        Spool(tmp_path / "file" / "spool")


def test_a_state_counts_with_its_reply(spool):
    spool.accept(task(1))
    spool.acknowledge(finish(spool, task(1), numbered(1)), counted=True)
    spool.accept(task(2))
    answer = finish(spool, task(2), numbered(2))
    assert state_of(spool) == numbered(2)
    spool.acknowledge(answer, counted=False)
    assert state_of(spool) == numbered(1)


def test_an_error_leaves_the_state(spool):
    spool.accept(task(1))
    spool.acknowledge(finish(spool, task(1), numbered(1)), counted=True)
    spool.accept(task(2))
    answer = spool.finish(task(2), failed(ErrorCode.HANDLER_LOST, "gone"))
    assert (answer.error_code, answer.error_reason, answer.content) == (103, "gone", None)
    spool.acknowledge(answer, counted=True)
    assert state_of(spool) == numbered(1)


def test_an_empty_state_is_none(spool):
    spool.accept(task(1))
    spool.acknowledge(finish(spool, task(1), numbered(1)), counted=True)
    spool.accept(task(2))
    spool.acknowledge(finish(spool, task(2), None), counted=True)
    assert spool.state(1) is None


def test_runs_keep_their_states_apart(spool):
    for run in (1, 2):
        spool.accept(task(run, run=run))
        finish(spool, task(run, run=run), numbered(run))
    assert (state_of(spool, 1), state_of(spool, 2)) == (numbered(1), numbered(2))


def test_the_next_message_of_a_run_waits_for_the_reply_to_the_one_before(spool):
    spool.accept(task(1))
    answer = finish(spool, task(1), numbered(1))
    spool.accept(task(2))
    spool.accept(task(3, run=2))
    assert spool.next_task().message == 3
    spool.acknowledge(answer, counted=True)
    assert spool.next_task().message == 2


def test_a_finished_message_that_is_handed_out_again_gets_the_number_and_no_more(spool):
    spool.accept(task(1))
    first = finish(spool, task(1), numbered(1))
    spool.accept(task(1, fence=2))
    assert spool.next_task() is None
    assert [each.answer.fence for each in spool.finished] == [2]
    assert spool.finished[0].answer.content == first.content
    assert spool.holding == [Assignment(run=1, message=1, fence=2)]


def test_a_number_that_rises_while_a_handler_runs_is_that_of_the_reply(spool):
    spool.accept(task(1))
    spool.accept(task(1, fence=3))
    spool.accept(task(1, fence=2))  # late
    assert finish(spool, task(1)).fence == 3


def test_a_message_that_is_asked_again_after_it_was_acknowledged_begins_from_the_state_before(tmp_path):
    with Spool(tmp_path / "spool") as spool:
        for number in (1, 2, 3):
            spool.accept(task(number))
            spool.acknowledge(finish(spool, task(number), numbered(number)), counted=True)
    with Spool(tmp_path / "spool") as spool:
        spool.accept(task(3, fence=2))
        assert state_of(spool) == numbered(2)
        assert [each.message for each in spool.waiting] == [3]
        spool.acknowledge(finish(spool, task(3, fence=2), numbered(30)), counted=True)
        assert state_of(spool) == numbered(30)


def test_a_cancelled_message_is_forgotten(spool):
    spool.accept(task(1))
    spool.accept(task(2))
    assert spool.cancel([Assignment(run=1, message=1, fence=1), Assignment(run=9, message=9, fence=1)]) == [(1, 1)]
    assert finish(spool, task(1)) is None
    assert [each.message for each in spool.holding] == [2]
    assert names(spool.folder / "work") == []


def test_a_finished_message_outlives_its_cancellation(spool):
    spool.accept(task(1))
    answer = finish(spool, task(1), numbered(1))
    assert spool.cancel([Assignment(run=1, message=1, fence=1)]) == []
    assert [each.answer for each in spool.finished] == [answer]


def test_blobs_are_fetched_once_and_kept_while_needed(spool, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    asked = task(1, size=LARGE, folder=store)
    spool.accept(asked)
    [(digest, size)] = spool.missing(asked.content).items()
    spool.incoming(digest).write_bytes((store / digest[7:]).read_bytes())
    spool.arrived(digest, size)
    assert spool.missing(asked.content) == {}
    answer = finish(spool, asked, model(7))
    assert len(names(spool.blobs)) == 3
    spool.acknowledge(answer, counted=True)
    state = spool.state(1).records[0].part.digest
    assert names(spool.blobs) == sorted([digest[7:], state[7:]])  # the newest instruction's, for an evaluation
    following = task(2)
    spool.accept(following)
    assert digest[7:] in names(spool.blobs)
    spool.begin(following)  # which has other blobs: what the reply needs may be what these had
    assert names(spool.blobs) == [state[7:]]
    for number in (3, 4):
        spool.accept(task(number, run=number))
        spool.acknowledge(finish(spool, task(number, run=number)), counted=True)
    assert names(spool.blobs) == [state[7:]]


def test_runs_that_keep_nothing_are_forgotten_in_time(tmp_path):
    with Spool(tmp_path) as spool:
        for number in range(1, 6):
            spool.accept(task(number, run=number))
            state = numbered(1) if number == 2 else None
            spool.acknowledge(finish(spool, task(number, run=number), state), counted=True)
        assert len(names(tmp_path / "runs")) == 5
    with Spool(tmp_path) as spool:
        assert names(tmp_path / "runs") == ["2.json", "4.json", "5.json"]
        assert state_of(spool, 2) == numbered(1)


def test_a_blob_that_came_wrong_is_deleted(spool, tmp_path):
    (tmp_path / "store").mkdir()
    asked = task(1, size=LARGE, folder=tmp_path / "store")
    spool.accept(asked)
    [(digest, size)] = spool.missing(asked.content).items()
    spool.incoming(digest).write_bytes(bytes(size))
    with pytest.raises(DigestMismatch, match="fetch them again"):
        spool.arrived(digest, size)
    assert names(spool.folder / "incoming") == names(spool.blobs) == []


@pytest.mark.parametrize("digest", ["", "blake3:", "blake3:" + "A" * 64, "blake3:../" + "a" * 61, "sha256:" + "a" * 64])
def test_only_hex_digits_touch_a_path(spool, digest):
    with pytest.raises(DigestMismatch, match="expected a digest"):
        spool.incoming(digest)


# Damage. Each test begins with a closed spool in which message 1 is acknowledged and message 2 is finished.


@pytest.fixture
def closed(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    with Spool(tmp_path / "spool") as spool:
        spool.accept(task(1))
        spool.acknowledge(finish(spool, task(1), model(70)), counted=True)
        asked = task(2, size=LARGE, folder=store)
        spool.accept(asked)
        for digest, size in spool.missing(asked.content).items():
            spool.incoming(digest).write_bytes((store / digest[7:]).read_bytes())
            spool.arrived(digest, size)
        finish(spool, asked, model(71))
    return tmp_path / "spool"


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


DAMAGES = pytest.mark.parametrize("damage", [flip, cut, empty])


def blob_of(folder, content):
    return folder / "blobs" / content.records[0].part.digest[7:]


@DAMAGES
def test_a_damaged_instruction_is_named_and_not_held(closed, damage):
    [path] = (closed / "tasks").iterdir()
    damage(path)
    with Spool(closed) as spool:
        assert path.name in spool.damaged[0]
        assert [each.answer.message for each in spool.finished] == [2]
        assert spool.waiting == []


@DAMAGES
def test_a_damaged_blob_of_an_instruction_is_fetched_again(closed, damage):
    with Spool(closed) as spool:
        content = spool._tasks[1, 2].content
    damage(blob_of(closed, content))
    with Spool(closed) as spool:
        assert list(spool.missing(content)) == [content.records[0].part.digest]


@DAMAGES
def test_a_damaged_reply_is_made_again_from_the_state_before(closed, damage):
    with Spool(closed) as spool:
        finished = spool.finished[0]
    damage(blob_of(closed, finished.answer.content))
    with Spool(closed) as spool:
        assert not spool.is_whole(finished)
        spool.retract(finished)
        assert spool.damaged == ["the reply to message 2 of run 1"]
        assert spool.next_task().message == 2
        assert state_of(spool) == model(70)


@DAMAGES
def test_a_damaged_state_of_a_finished_reply_is_made_again_too(closed, damage):
    with Spool(closed) as spool:
        finished = spool.finished[0]
    damage(blob_of(closed, finished.state))
    with Spool(closed) as spool:
        assert not spool.is_whole(finished)


@DAMAGES
def test_a_run_without_its_state_does_not_go_on(closed, damage):
    with Spool(closed) as spool:
        spool.acknowledge(spool.finished[0].answer, counted=True)
        state = spool.state(1)
    damage(blob_of(closed, state))
    for _ in range(2):
        with Spool(closed) as spool, pytest.raises(SpoolDamaged, match=r"runs/1\.json") as caught:
            spool.state(1)
        assert caught.value.at == str(blob_of(closed, state))
    (closed / "runs" / "1.json").unlink()
    with Spool(closed) as spool:
        assert spool.state(1) is None


@DAMAGES
def test_a_damaged_run_does_not_go_on_and_keeps_its_error_replies(closed, damage):
    damage(closed / "runs" / "1.json")
    for _ in range(2):
        with Spool(closed) as spool:
            with pytest.raises(SpoolDamaged, match=r"damaged/1\.json"):
                spool.state(1)
            asked = spool.next_task()
            if asked is not None:
                spool.finish(asked, failed(ErrorCode.UNKNOWN, "damaged"))
            assert [each.answer.error_reason for each in spool.finished] == ["damaged"]
    (closed / "damaged" / "1.json").unlink()
    with Spool(closed) as spool:
        assert spool.state(1) is None


def test_what_a_killed_process_left_is_cleaned_up(closed):
    (closed / "work" / "desk").mkdir()
    (closed / "work" / "desk" / "half").touch()
    (closed / "tasks" / "1-9.json.tmp").touch()
    (closed / "incoming" / ("a" * 64)).touch()
    (closed / "blobs" / ("b" * 64)).touch()
    with Spool(closed):
        assert names(closed / "work") == names(closed / "incoming") == []
        assert names(closed / "tasks") == ["1-2.json"]
        assert "b" * 64 not in names(closed / "blobs")
