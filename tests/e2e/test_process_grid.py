"""Nodes in several processes: the same bits as in one, and every way in which a process may end."""

import gc
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import umbel
from umbel.app import ClientApp
from umbel.engines import LocalGrid, NodeStates, Population, ProcessGrid, replaying
from umbel.errors import AppError, UsageError
from umbel.message import ErrorCode, Message, Metadata
from umbel.records import MetricsRecord, ParametersRecord, RecordSet, digest
from umbel.strategy import fedavg, fedbuff

APP = """\
import os, signal, subprocess, sys, time

import numpy as np

from umbel.app import ClientApp
from umbel.records import ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet

app = ClientApp()
other = 3


def answer(message, **told):
    return message.create_reply(RecordSet(configs_records={"told": ConfigsRecord(told)}))


@app.train()
def train(message, context):
    model = message.content.parameters_records["model"].to_numpy()
    model["w"] += np.float32(context.seed % 1_000)
    counts = context.state.metrics_records.setdefault("counts", MetricsRecord({"n": 0}))
    counts["n"] += 1
    metrics = MetricsRecord({"num-examples": 1 + context.seed % 9, "n": counts["n"]})
    return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(model)}, {"metrics": metrics}))


@app.on("die")
def die(message, context):
    if context.node_name == "node-1":
        exec(context.run_config["how"])
    return answer(message, pid=os.getpid())


@app.on("where")
def where(message, context):
    time.sleep(0.05)
    array = message.content.parameters_records["model"].to_numpy(copy=False)["w"]
    address = array.__array_interface__["data"][0]
    for line in open("/proc/self/maps"):
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= address < last:
            return answer(message, pid=os.getpid(), inode=int(line.split()[4]), path=[*line.split(), ""][5])


@app.on("child")
def child(message, context):
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    return answer(message, pid=os.getpid(), child=started.pid)


@app.on("hang")
def hang(message, context):
    if context.node_name == "node-1":
        time.sleep(600)
    return answer(message, pid=os.getpid())


@app.on("config")
def config(message, context):
    return answer(message, size=len(context.node_config["text"]), run=len(context.run_config["text"]))


@app.on("long")
def long(message, context):
    raise ValueError(chr(0x1F33F) * 1_900)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module with an app, which other processes can import."""
    (tmp_path / "process_app.py").write_text(APP)
    monkeypatch.syspath_prepend(str(tmp_path))
    import process_app  # noqa: PLC0415 - it is there now

    yield process_app
    del sys.modules["process_app"]


def messages(grid, message_type, *, size=10, ttl=60.0, number=1):
    content = RecordSet({"model": ParametersRecord.from_numpy({"w": np.arange(size, dtype=np.float32)})})
    for place, node in enumerate(grid.nodes()):
        yield Message(Metadata(1, 100 * number + place, 0, node.node_id, 0, number, ttl, message_type), content)


def ask(grid, message_type, **options):
    grid.send(messages(grid, message_type, **options))
    return {f"node-{reply.metadata.src_node_id - 1}": reply for reply in grid.replies()}


def told(reply):
    return dict(reply.content.configs_records["told"])


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def open_files():
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_digest_is_that_of_the_local_engine(module, workers):
    def run(**options):
        initial = {"w": np.zeros(70_000, np.float32)}
        return umbel.simulate(module.app, fedavg(fraction=0.5), initial, nodes=11, rounds=3, seed=5, **options)

    local, spread = run(), run(engine="processes", workers=workers)
    assert spread.digest == local.digest
    assert spread.metrics.to_dict() == local.metrics.to_dict()


@pytest.mark.parametrize("inner", [LocalGrid, partial(ProcessGrid, workers=2)])
def test_overlapping_rounds_can_be_replayed_on_any_engine(module, inner):
    def run(engine):
        plan = fedbuff(concurrency=4, buffer=2)
        initial = {"w": np.zeros(9_000, np.float32)}
        return umbel.simulate(module.app, plan, initial, nodes=9, rounds=8, seed=5, engine=engine)

    recorded = run(partial(ProcessGrid, workers=3))
    assert run(replaying(recorded, inner)).digest == recorded.digest


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL, as the system does when memory runs out"),
        ("os._exit(3)", "ended with exit status 3"),
    ],
)
def test_a_worker_that_dies_costs_one_message_and_is_replaced(module, how, said):
    with closing(ProcessGrid(module.app, Population(8), workers=1, run_config={"how": how})) as grid:
        ask(grid, "where")  # short tasks wait in line at a worker; those behind the one that dies have to run as well
        for number in (2, 3):
            replies = ask(grid, "die", number=number)
            assert replies.keys() == {f"node-{place}" for place in range(8)}
            failed = replies.pop("node-1")
            assert (failed.error.code, said in failed.error.reason) == (ErrorCode.NODE_UNAVAILABLE, True)
            assert len({told(reply)["pid"] for reply in replies.values()}) == 2


def test_a_node_that_forks_answers_once(module):
    how = {"how": "os.fork() or sys.exit()"}
    with closing(ProcessGrid(module.app, Population(8), workers=1, run_config=how)) as grid:
        for number in (2, 3):
            grid.send(messages(grid, "die", number=number))
            replies = list(grid.replies())
            assert len({reply.metadata.src_node_id for reply in replies}) == len(replies) == 8
            assert len({told(reply)["pid"] for reply in replies}) == 1


def test_a_run_goes_on_without_the_node_that_kills_its_worker(tmp_path, monkeypatch):
    code = APP.replace('model["w"] += np', 'context.node_name == "node-2" and os.abort()\n    model["w"] += np')
    (tmp_path / "aborting_app.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    from aborting_app import app  # noqa: PLC0415 - it is there now

    history = umbel.simulate(app, fedavg(), {"w": np.zeros(9)}, nodes=4, rounds=2, engine="processes", workers=2)
    for report in history.rounds:
        assert report.accepted == 3
        ((node, reason),) = report.lost
        assert (node, "SIGABRT" in reason) == ("node-2", True)


def test_a_model_is_in_memory_once_for_all_workers(module):
    with closing(ProcessGrid(module.app, Population(8), workers=3)) as grid:
        seen = {}
        for number in (1, 2):
            places = [told(reply) for reply in ask(grid, "where", size=50_000, number=number).values()]
            assert len({place["pid"] for place in places}) > 1
            assert {place["path"] for place in places} == {"/memfd:umbel"}
            (seen[number],) = {place["inode"] for place in places}
        assert seen[1] != seen[2]


def test_messages_that_are_sent_one_by_one_share_their_content(module):
    with closing(ProcessGrid(module.app, Population(6), workers=2)) as grid:
        for message in list(messages(grid, "where", size=50_000)):
            grid.send([message])
        places = [told(reply) for reply in grid.replies()]
        assert len(places) == 6
        assert len({place["inode"] for place in places}) == 1


def test_replies_that_are_kept_stay_as_they_were(module):
    states = NodeStates()
    with closing(ProcessGrid(module.app, Population(40), workers=2, states=states)) as grid:
        kept, digests = [], []
        for number in range(3):
            grid.send(messages(grid, "train", size=9_000, number=number))
            for reply in grid.replies():
                kept.append(reply)
                digests.append(digest(reply.content))
        assert [digest(reply.content) for reply in kept] == digests
        assert len(set(digests)) == 120
    assert [digest(reply.content) for reply in kept] == digests


def test_more_replies_can_be_kept_than_there_are_descriptors(module, monkeypatch):
    monkeypatch.setattr("umbel.engines._memory._MOST_USED", 5)
    with closing(ProcessGrid(module.app, Population(30), workers=2)) as grid:
        grid.send(messages(grid, "train", size=9_000))
        before = open_files()
        kept = [(reply, digest(reply.content)) for reply in grid.replies()]
        assert open_files() <= before + 40
        assert all(digest(reply.content) == name for reply, name in kept)


def test_memory_is_used_again_and_nothing_is_left(module):
    before = open_files()
    with closing(ProcessGrid(module.app, Population(10), workers=2)) as grid:
        for number in range(3):
            assert len(ask(grid, "train", size=9_000, number=number)) == 10
        during = open_files()
        for number in range(3, 13):
            assert len(ask(grid, "train", size=9_000, number=number)) == 10
        assert open_files() <= during + 4
    assert open_files() == before


def test_what_nodes_have_started_ends_with_the_grid(module):
    with closing(ProcessGrid(module.app, Population(2), workers=2)) as grid:
        pids = [pid for reply in ask(grid, "child").values() for pid in told(reply).values()]
        assert all(map(is_alive, pids))
    until(lambda: not any(map(is_alive, pids)))


def test_a_grid_that_nobody_closes_leaves_no_process(module):
    grid = ProcessGrid(module.app, Population(2), workers=2)
    pids = [told(reply)["pid"] for reply in ask(grid, "where").values()]
    del grid
    gc.collect()
    assert not any(map(is_alive, pids))


@pytest.mark.parametrize("ttl", [5.0, 60.0])
def test_a_node_that_leaves_the_group_of_its_worker_ends_with_it(module, ttl):
    how = {"how": "os.setpgid(0, os.getpgid(os.getppid())); time.sleep(600)"}
    with closing(ProcessGrid(module.app, Population(2), workers=2, run_config=how)) as grid:
        ask(grid, "where")  # both workers are there now
        grid.send(messages(grid, "die", ttl=ttl, number=2))
        assert next(grid.replies()).metadata.src_node_id == 1
        if ttl < 10:
            assert list(grid.replies()) == []
        began = time.monotonic()
    assert time.monotonic() - began < 20


def test_closing_does_not_wait_for_a_node(module):
    grid = ProcessGrid(module.app, Population(3), workers=2)
    grid.send(messages(grid, "hang"))
    replies = grid.replies()
    next(replies)
    began = time.monotonic()
    grid.close()
    assert time.monotonic() - began < 10  # the node would have slept for ten minutes
    assert list(replies) == []


def test_a_node_that_outlives_its_message_is_given_up(module):
    with closing(ProcessGrid(module.app, Population(4), workers=2)) as grid:
        assert len(ask(grid, "where")) == 4  # the workers are there
        assert ask(grid, "hang", ttl=4.0, number=2).keys() == {"node-0", "node-2", "node-3"}
        assert len(ask(grid, "where", number=3)) == 4


def test_a_node_that_outlives_its_message_takes_no_other_with_it(module):
    with closing(ProcessGrid(module.app, Population(12), workers=2)) as grid:
        assert len(ask(grid, "train")) == 12  # tasks are short, so that further ones wait in line at a worker
        assert len(ask(grid, "hang", ttl=6.0, number=2)) == 11


def test_a_cancelled_message_holds_nobody_up(module):
    with closing(ProcessGrid(module.app, Population(4), workers=2)) as grid:
        grid.send(messages(grid, "hang"))
        replies = grid.replies()
        assert {next(replies).metadata.src_node_id for _ in range(3)} == {1, 3, 4}
        grid.cancel([101])
        assert list(replies) == []
        replies = grid.replies()
        grid.send(list(messages(grid, "where", number=2))[2:])
        assert {reply.metadata.src_node_id for reply in replies} == {3, 4}


def test_a_node_at_what_nobody_waits_for_is_ended_once_it_holds_others_up(module):
    with closing(ProcessGrid(module.app, Population(4), workers=2)) as grid:
        grid.send(list(messages(grid, "hang"))[:2])
        replies = grid.replies()
        assert next(replies).metadata.src_node_id == 1
        grid.cancel([101])  # a worker has it, and would sleep for ten minutes
        assert list(replies) == []
        assert ask(grid, "where", number=2).keys() == {"node-0", "node-1", "node-2", "node-3"}


def test_configs_and_reasons_of_any_size_cross(module):
    nodes = {"node-0": {"text": "x" * 300_000}}
    with closing(ProcessGrid(module.app, Population(nodes), workers=1, run_config={"text": "y" * 200_000})) as grid:
        assert told(ask(grid, "config")["node-0"]) == {"size": 300_000, "run": 200_000}
        assert ask(grid, "long", number=2)["node-0"].error.reason.count(chr(0x1F33F)) > 1_500


def test_a_config_that_cannot_cross_is_refused(module):
    with pytest.raises(UsageError, match="other processes understand, got 'rate': ndarray - at run_config"):
        ProcessGrid(module.app, Population(1), run_config={"rate": np.zeros(2)})
    grid = ProcessGrid(module.app, Population({"a": {"n": 2**70}}), workers=1)
    with closing(grid), pytest.raises(UsageError, match=r"64 bits.* - at node_config of a"):
        ask(grid, "where")


def test_an_app_of_no_module_is_refused_in_a_sentence():
    app = ClientApp()
    with pytest.raises(
        AppError, match=r'is no module\'s: give it a name at the top level of a .py file .*engine="local"'
    ):
        umbel.simulate(app, fedavg(), [np.zeros(1)], nodes=1, rounds=1, engine="processes")


def test_a_module_that_cannot_be_imported_again_is_refused_in_a_sentence(module, tmp_path):
    (tmp_path / "process_app.py").write_text("raise OSError('no data here')")
    with (
        closing(ProcessGrid(module.app, Population(1), workers=1)) as grid,
        pytest.raises(AppError, match=r"worker: OSError: no data here - at process_app:app"),
    ):
        ask(grid, "where")
    (tmp_path / "process_app.py").write_text("import os; os._exit(5)")
    with (
        closing(ProcessGrid(module.app, Population(1), workers=1)) as grid,
        pytest.raises(AppError, match="did not survive the import of the app: it ended with exit status 5"),
    ):
        ask(grid, "where")


def test_states_are_those_of_the_local_engine(module):
    kept = {}
    for engine in (LocalGrid, ProcessGrid):
        states = NodeStates({"node-1": RecordSet(metrics_records={"counts": MetricsRecord({"n": 7})})})
        with closing(engine(module.app, Population(3), states=states)) as grid:
            for number in (1, 2):
                ask(grid, "train", number=number)
        kept[engine] = {name: state.metrics_records["counts"]["n"] for name, state in sorted(states.kept.items())}
        assert states.take_changes() == {"node-0", "node-1", "node-2"}
    assert kept[ProcessGrid] == kept[LocalGrid] == {"node-0": 2, "node-1": 9, "node-2": 2}
