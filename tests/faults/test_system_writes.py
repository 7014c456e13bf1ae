"""The server is killed at its n-th write, wherever that is, and started again; and so on until a run is left alone."""

import os
import shutil
import signal
import subprocess
from contextlib import suppress

import pytest

from federation import wait_for
from system import LARGE, begin, begun, check, each_once, federating, handled, log_of, runs
from umbel.errors import ServerUnreachable

CALLS = "write,pwrite64,writev,fsync,fdatasync"
STEP = 23


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    if subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, timeout=60, check=False).returncode:
        pytest.skip("strace may not trace here")
    with federating(tmp_path_factory.mktemp("writes")) as made:
        yield made


def killed_at(number):
    """A command that kills a process as a thread of it begins its n-th call of those that write."""
    inject = f"inject={CALLS}:signal=KILL:when={number}"
    return ("strace", "-D", "-f", "-qq", "-o", os.devnull, "-e", f"trace={CALLS}", "-e", inject)


def is_killed(federation, number):
    """Run under such a server, and after its death under another; return whether it died before the run was over."""
    earlier = runs(federation)
    log_of(federation).unlink(missing_ok=True)
    federation.serving.end()
    server = federation.serve(prefix=killed_at(number))
    begin(federation, LARGE)

    wait_for(lambda: not server.is_running or is_complete(federation), "the server dies, or the run is complete")
    died = not server.is_running
    assert server.end() == -signal.SIGKILL
    federation.serving = federation.serve()
    check(federation, begun(federation, earlier, LARGE), LARGE)
    assert handled(federation) == each_once(), f"killed at call {number}"
    return died


def is_complete(federation):
    with suppress(ServerUnreachable):
        return all(row.status == "completed" for row in federation.call("list_runs").runs)
    return False


@pytest.mark.parametrize("number", [3, 12, 30, 60])
def test_killed_at_some_writes(federation, number):
    assert is_killed(federation, number)


@pytest.mark.slow
def test_killed_at_every_nth_write_until_nothing_is_left_to_kill(federation):
    number = 1
    while is_killed(federation, number):
        number += STEP
    assert number > 5 * STEP
