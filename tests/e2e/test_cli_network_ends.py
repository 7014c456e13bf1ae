"""Runs over nodes that are interrupted: by Ctrl-C, by the operator, by the death of the server or of a node."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time

import pytest

SLOW = [("    gap =", "    import time; time.sleep(0.15)\n    gap =")]
ROUNDS = 30
CSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

pytestmark = pytest.mark.slow


@pytest.fixture
def running(federation, app_of):
    """A server with two nodes, and a run of some seconds that somebody watches."""
    app = app_of(federation.folder / "app", code=SLOW)
    federation.serve()
    federation.nodes(app, ["site-0", "site-1"])
    federation.watcher = federation.start(
        *("run", "app", "--server", federation.url, "--nodes", "site-0,site-1", "--rounds", ROUNDS), output="run"
    )
    reaches(federation, 3)
    return federation


def said(federation, output="run"):
    return (federation.folder / f"{output}.out").read_text()


def reaches(federation, number, output="run"):
    deadline = time.monotonic() + 30
    while f"round {number:>2}/{ROUNDS}" not in said(federation, output):
        assert time.monotonic() < deadline, said(federation, output)
        assert federation.watcher.poll() is None, (federation.folder / f"{output}.err").read_text()
        time.sleep(0.05)


@pytest.fixture
def whole(federation, app_of):
    """The digest of the same run on one machine."""

    def digest():
        app_of(federation.folder / "quick")
        result = federation.umbel("run", "quick", "--nodes", 2, "--rounds", ROUNDS, "--runs", "local")
        return next(line for line in result.stdout.splitlines() if line.startswith("digest"))

    return digest


def restart(federation, process):
    process.kill()
    process.wait()
    return federation.serve()


def test_a_server_that_is_killed_and_started_again_ends_the_run_with_the_same_bytes(running, whole):
    (server, *_) = running.processes
    restart(running, server)
    assert running.watcher.wait(60) == 0, (running.folder / "run.err").read_text()
    text = said(running)
    assert whole() in text
    assert "no answer from" in text
    assert [f"round {number:>2}/{ROUNDS}" in text for number in range(1, ROUNDS + 1)].count(True) == ROUNDS
    shown = running.umbel("runs", "show", 1).stdout
    assert "the server came back and the run went on by itself" in shown
    watched = running.umbel("runs", "watch", 1).stdout.splitlines()
    assert watched[0] == said(running).splitlines()[1]
    assert watched[0].startswith(f"fedavg over 2 nodes, {ROUNDS} rounds, seed ")
    assert [line.split()[1] for line in watched if line.startswith("round ")][0::29] == ["1/30", "30/30"]


def test_a_node_that_is_killed_and_started_again_goes_on(running, whole):
    node = running.processes[1]
    node.kill()
    node.wait()
    running.start("node", "--data", "site-0", output="site-0")
    assert running.watcher.wait(60) == 0, (running.folder / "run.err").read_text()
    assert whole() in said(running)


def test_ctrl_c_leaves_the_run_going(running, whole):
    running.watcher.send_signal(signal.SIGINT)
    assert running.watcher.wait(30) == 130
    error = (running.folder / "run.err").read_text()
    assert f"umbel runs watch 1 --server {running.url}" in error
    assert "Traceback" not in error
    watched = running.umbel("runs", "watch", 1, "--server", running.url)
    assert whole() in watched.stdout


def test_a_run_that_is_stopped_can_go_on(running, whole):
    stopped = running.umbel("runs", "stop", 1)
    assert stopped.returncode == 0, stopped.stderr
    assert running.watcher.wait(30) == 1
    assert "umbel runs resume 1" in (running.folder / "run.err").read_text()
    resumed = running.umbel("runs", "resume", 1)
    assert resumed.returncode == 0, resumed.stderr
    begun = time.monotonic()
    assert whole() in running.umbel("runs", "watch", 1).stdout
    assert time.monotonic() - begun < 15  # polls that are parked, for 25 s, are told
    again = running.umbel("runs", "resume", 1)
    assert again.returncode != 0
    assert "completed" in again.stderr


def test_a_node_that_is_shut_out_ends_and_the_round_goes_on_without_it(running):
    assert running.umbel("nodes", "revoke", "site-1").returncode == 0
    assert running.processes[2].wait(30) == 77
    assert running.status("site-1") == "revoked"
    assert running.watcher.wait(60) == 0
    assert f"round {ROUNDS}/{ROUNDS}  1/1 nodes" in said(running)


def test_a_server_ends_at_once_when_it_is_told_to(running):
    server = running.processes[0]
    begun = time.monotonic()
    server.terminate()
    assert server.wait(10) == 0
    assert time.monotonic() - begun < 8
    error = (running.folder / "server.err").read_text()
    assert "Traceback" not in error
    assert [json.loads(line)["text"] for line in error.splitlines() if not line.startswith("{")] == []


def test_a_failpoint_of_the_environment_kills_the_server_and_the_run_that_it_accepted_goes_on(federation, app_of):
    app = app_of(federation.folder / "app")
    server = federation.serve(UMBEL_FAILPOINT="server.run-accepted:kill")
    federation.nodes(app, ["site-0", "site-1"])
    lost = federation.umbel("run", "app", "--server", federation.url, "--nodes", 2, "--runs", "lost")
    assert server.wait(10) == -signal.SIGKILL
    assert lost.returncode == 69
    assert "umbel runs list" in lost.stderr
    federation.serve()
    watched = federation.umbel("runs", "watch", 1)
    local = federation.umbel("run", "app", "--nodes", 2, "--runs", "local")
    digests = [line for line in (watched.stdout + local.stdout).splitlines() if line.startswith("digest")]
    assert len(digests) == 2
    assert len(set(digests)) == 1


@pytest.mark.parametrize("command", [["server", "--port", 0], ["node", "--data", "nowhere"]])
def test_a_failpoint_that_cannot_be_read_is_refused(federation, command):
    result = federation.umbel(*command, UMBEL_FAILPOINT="server.run-accepted:explode")
    assert result.returncode == 2
    assert "at: UMBEL_FAILPOINT" in result.stderr


def test_a_run_over_nodes_moves_a_bar_in_a_terminal(federation, app_of):
    app = app_of(federation.folder / "app", code=SLOW)
    federation.serve()
    federation.nodes(app, ["site-0", "site-1"])
    args = ["run", "app", "--server", federation.url, "--nodes", "2", "--rounds", "3"]
    text, status = in_terminal(args, federation.folder, {**federation.env, "TERM": "xterm-256color"})
    assert status == 0
    assert "━" in text
    assert "\x1b[?25h" in text  # the cursor is shown again
    plain = CSI.sub("", text).replace("\r", "\n")
    assert [f"round {number}/3  2/2 nodes" in plain for number in (1, 2, 3)] == [True] * 3


def in_terminal(args, folder, env):
    """Run the command in a terminal of its own and return what it wrote there and its exit code."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 100))
    command = [sys.executable, "-c", "from umbel.cli import main; main()", *args]
    with subprocess.Popen(command, cwd=folder, env=env, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        chunks = []
        while select.select([master], [], [], 60)[0]:
            try:
                chunks.append(os.read(master, 65536))
            except OSError:  # Linux says so when the other side of a terminal is closed
                break
        status = process.wait()
    os.close(master)
    return b"".join(chunks).decode(), status
