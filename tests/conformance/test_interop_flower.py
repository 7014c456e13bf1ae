"""Conversions to and from Flower, against two real versions, each in an environment of its own.

Flower pins versions of other libraries that exclude one another, so the checks stand in ``flower_checks.py`` and are
run there. The environments are built once, under ``.bench/``, and kept.
"""

import json
import os
import re
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from umbel.errors import MissingExtra

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("flower_checks.py")
CHECKS = re.findall(r"^def (check_\w+)", SCRIPT.read_text(), re.MULTILINE)
PEERS = runpy.run_path(str(ROOT / "benchmarks" / "_peers.py"))


@cache
def outcomes(peer):
    try:
        python = PEERS["peer_python"](peer)
    except PEERS["PeerUnavailable"] as error:
        return str(error)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "FLWR_TELEMETRY_ENABLED": "0"}
    done = subprocess.run([python, SCRIPT], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("peer", ["flwr-1.13.1", "flwr-1.41.0"])
def test_flower(peer, check):
    found = outcomes(peer)
    if isinstance(found, str):
        pytest.skip(found)
    assert found[check] is None, found[check]


def test_without_flower_the_error_says_what_to_install():
    code = "import sys; sys.modules['flwr'] = None; from umbel.interop.flower import to_flower; to_flower(None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert MissingExtra.__name__ in done.stderr
    assert "pip install 'umbel[flower]'" in done.stderr
