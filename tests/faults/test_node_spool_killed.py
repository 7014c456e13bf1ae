"""A process that uses a spool is killed at its file operations, one after the other; what it goes on to is the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("spool_driver.py")
OPERATIONS = 100  # at least so many are tried when every one is


def deaths(folder, step):
    command = [sys.executable, str(DRIVER), str(folder), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(reports):
    untouched = reports[-1]
    assert untouched["ended"]
    assert untouched["log"] == [f"{kind}:{number}" for number in (1, 2, 3) for kind in ("handled", "finished")]
    for report in reports:
        at = f"killed at operation {report['kill_at']}"
        assert (report["model"], report["count"]) == (untouched["model"], 3), at
        assert (report["holding"], report["damaged"], report["strays"]) == (0, [], 0), at
        for number in (1, 2, 3):
            after = report["log"][-report["log"][::-1].index(f"handled:{number}") :]
            assert f"finished:{number}" not in report["log"][: -len(after)], f"{at}: handled again"
            assert report["log"].count(f"handled:{number}") <= 2, at


def test_killed_at_every_seventh_file_operation(tmp_path):
    check(deaths(tmp_path, 7))


@pytest.mark.slow
def test_killed_at_every_file_operation(tmp_path):
    reports = deaths(tmp_path, 1)
    check(reports)
    assert len(reports) > OPERATIONS
