"""Runs over processes as scripts: started, interrupted, killed, and how to write one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leftovers import everyone, left_behind, named_memory, processes_of, shared_memory

SCRIPT = """\
import sys, time
from pathlib import Path

import numpy as np

import umbel
from umbel.app import ClientApp
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.strategy import fedavg

app = ClientApp()


@app.train()
def train(message, context):
    number = message.content.configs_records["config"]["round"]
    print("a node says", number)
    if number == 3 and Path("slow").exists():
        Path(f"at-{context.node_name}").write_text(str(__import__("os").getpid()))
        time.sleep(600)
    model = message.content.parameters_records["model"].to_numpy()
    model["w"] += np.random.default_rng(context.seed).standard_normal(model["w"].shape)
    metrics = MetricsRecord({"num-examples": 1 + context.seed % 9})
    return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(model)}, {"metrics": metrics}))


def main(engine="processes"):
    initial = {"w": np.zeros(5_000)}
    folder = dict(checkpoint="run", resume=True)
    print(umbel.simulate(app, fedavg(), initial, nodes=4, rounds=4, engine=engine, workers=2, **folder).digest)
"""
GUARD = '\n\nif __name__ == "__main__":\n    main()\n'


@pytest.fixture
def script(tmp_path):
    """Write the script and return its path; ``start`` begins it in a session of its own."""

    def write(end=GUARD, name="script.py"):
        (tmp_path / name).write_text(SCRIPT + end)
        return tmp_path / name

    return write


def start(path):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen([sys.executable, path.name], cwd=path.parent, **pipes)


def finish(process, seconds=60):
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def workers_at_round_3(folder):
    deadline = time.monotonic() + 30
    while len(found := [file.read_text() for file in folder.glob("at-*")]) < 2 or not all(found):
        assert time.monotonic() < deadline, "the workers did not come to round 3"
        time.sleep(0.01)
    return [int(pid) for pid in found]


def test_a_script_runs_its_own_app_and_prints_alone(script):
    status, out, err = finish(start(script()))
    assert (status, out.count("\n"), out[:7]) == (0, 1, "blake3:"), err
    assert err.count("a node says") == 16


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_nothing_but_a_run_that_goes_on(script, kill):
    path = script()
    straight = finish(start(path))
    for file in (path.parent / "run").iterdir():
        file.unlink()
    (path.parent / "slow").touch()
    before = named_memory()
    process = start(path)
    pids = workers_at_round_3(path.parent)
    assert {process.pid, *pids} <= set(processes_of(process.pid))
    shared = shared_memory([process.pid, *pids])
    assert len(shared) > 2  # the model, and what the workers answer in
    began = time.monotonic()
    os.killpg(process.pid, kill)  # as a terminal does: everyone in the foreground is told
    status, _, err = finish(process)
    assert status == -kill, err
    if kill == signal.SIGINT:
        assert time.monotonic() - began < 10  # the nodes would have slept for ten minutes
        assert processes_of(process.pid) == []
    while processes_of(process.pid):
        assert time.monotonic() < began + 20, "a worker outlives its engine"
        time.sleep(0.01)
    assert shared & shared_memory(everyone()) == set()
    assert left_behind(before) == set()
    (path.parent / "slow").unlink()
    resumed = finish(start(path))
    assert resumed[:2] == straight[:2]
    assert resumed[2].count("a node says") == 8  # rounds 3 and 4


def test_what_would_be_left_is_found(tmp_path):
    """The looks at processes and memory above see what is there."""
    before = named_memory()
    code = "import os; os.memfd_create('umbel'); print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, **pipes) as process:
        process.stdout.readline()
        assert processes_of(process.pid) == [process.pid]
        assert shared_memory(everyone()) >= shared_memory([process.pid]) != set()
        process.communicate("go on\n")
    assert processes_of(process.pid) == []
    left = Path(f"/dev/shm/left-{tmp_path.name}-{os.getpid()}")
    try:
        with left.open("w"):
            assert str(left) not in left_behind(before)
        assert str(left) in left_behind(before)
    finally:
        left.unlink()


def test_a_script_without_a_guard_is_told_of_it(script):
    status, _, err = finish(start(script(end="\nmain()\n")))
    assert status == 1
    assert 'put the call below `if __name__ == "__main__":`' in err.splitlines()[-1]


def test_an_app_made_at_a_prompt_is_told_of_files(script):
    command = [sys.executable, "-"]
    pipes = {"capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(command, input=SCRIPT + "\nmain()\n", cwd=script().parent, check=False, **pipes)
    assert done.returncode == 1
    assert "made at a prompt or in a notebook: write it to a file" in done.stderr.splitlines()[-1]


def test_a_module_that_is_run_by_name_runs_its_own_app(script):
    path = script()
    done = subprocess.run(
        [sys.executable, "-m", "script"], cwd=path.parent, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout[:7]) == (0, "blake3:"), done.stderr
