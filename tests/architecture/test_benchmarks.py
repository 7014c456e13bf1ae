"""The modules of the benchmarks fit together: each can be imported, but for what its peer alone has. None hangs."""

import importlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from house import ROOT

IMPORT_ALL = """\
import importlib, sys
from pathlib import Path

folder = Path(sys.argv[1])
sys.path.insert(0, str(folder))
for path in sorted(folder.glob("*.py")):
    try:
        importlib.import_module(path.stem)
    except ModuleNotFoundError as error:
        if error.name.partition(".")[0] not in ("blazefl", "flwr", "pfl", "sklearn", "torch", "xgboost"):
            raise
"""


def test_every_module_can_be_imported():
    command = [sys.executable, "-c", IMPORT_ALL, str(ROOT / "benchmarks")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


# It starts a process that leaves its group and its session, whose parent ends, and which keeps the output open.
LEAVES = """\
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        (folder / "left").write_text(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
while not (folder / "left").exists():
    time.sleep(0.01)
print('{"seconds": 1.0}', flush=True)
"""
HANGS = f"{LEAVES}\nprint('no answer', file=sys.stderr, flush=True)\ntime.sleep(600)"
PATIENCE = 5.0


@pytest.fixture(scope="module")
def timed():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("_turns")


def command(script, folder):
    return [sys.executable, "-c", script, str(folder)]


def is_there(process):
    """Whether a process runs; one that was killed is nobody's child here, and gone a moment later."""
    for _ in range(100):
        if not Path(f"/proc/{process}").exists():
            return False
        time.sleep(0.05)
    return True


def test_a_measurement_leaves_nothing_running(timed, tmp_path):
    assert timed.measure(command(LEAVES, tmp_path)) == {"seconds": 1.0}
    assert not is_there((tmp_path / "left").read_text())


def test_a_peer_that_hangs_is_left_out_and_the_rest_goes_on(timed, tmp_path, capsys):
    ways = {"peer": command(HANGS, tmp_path), "umbel": command("print('{\"seconds\": 2.0}')", tmp_path)}
    found = timed.turns(ways, 2, peers={"peer"}, seconds=PATIENCE)
    assert found == {"umbel": [{"seconds": 2.0}] * 2}
    assert capsys.readouterr().out == "peer is left out: did not end within 5 s\n"
    assert not is_there((tmp_path / "left").read_text())


def test_umbel_itself_may_not_hang(timed, tmp_path):
    with pytest.raises(timed.DidNotEnd, match="did not end within 5 s") as caught:
        timed.turns({"umbel": command(HANGS, tmp_path)}, 2, peers={"peer"}, seconds=PATIENCE)
    assert "no answer" in caught.value.__notes__[0]


def test_a_measurement_that_fails_says_why(timed, tmp_path):
    with pytest.raises(timed.Failed, match="no such figure"):
        timed.measure(command("raise SystemExit('no such figure')", tmp_path))
