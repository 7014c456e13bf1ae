"""The ``umbel`` command as a process: pipes, terminals, signals, encodings, completion."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from umbel import errors
from umbel.cli import _failure
from umbel.records import ParametersRecord, save

UMBEL = [sys.executable, "-c", "from umbel.cli import main; main()"]
CSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOR = re.compile(r"\x1b\[[0-9;]*3[0-9]m")


@pytest.fixture
def environment():
    """An environment in which nothing but the test decides about colours, width and encoding."""
    told = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TERM", "PYTHONIOENCODING", "PYTHONUTF8", "PYTHONUNBUFFERED"}
    return {name: value for name, value in os.environ.items() if name not in told} | {"TERM": "xterm-256color"}


@pytest.fixture
def umbel(environment, tmp_path):
    def call(*args, **more):
        env = environment | more.pop("env", {})
        return subprocess.run([*UMBEL, *args], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    return call


@pytest.fixture
def model(tmp_path):
    save(ParametersRecord.from_numpy({f"layer.{i}": np.ones(4) for i in range(2000)}), tmp_path / "m.safetensors")
    return "m.safetensors"


@pytest.fixture
def endless(umbel, tmp_path):
    """An app with more rounds than anybody waits for."""
    assert umbel("new", "hello").returncode == 0
    settings = tmp_path / "hello" / "pyproject.toml"
    settings.write_text(settings.read_text().replace("rounds = 20", "rounds = 1000000"))
    return "hello"


def in_terminal(args, folder, env, columns=100):
    """Run the command in a terminal of its own and return what it wrote there and its exit code."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    with subprocess.Popen([*UMBEL, *args], cwd=folder, env=env, stdin=slave, stdout=slave, stderr=slave) as process:
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


def test_a_terminal_of_80_columns_says_what_strategies_do(environment, tmp_path):
    shown, status = in_terminal(["strategies"], tmp_path, environment | {"NO_COLOR": "1"}, columns=80)
    assert status == 0
    assert re.search(r"^fedmedian +Take the median of each element ", shown, re.MULTILINE)


def test_the_version(umbel):
    result = umbel("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"umbel {version('umbel')}\n", "")


@pytest.mark.parametrize("env", [{}, {"COLUMNS": "40"}])
def test_a_pipe_gets_plain_lines_in_full(umbel, model, env):
    result = umbel("inspect", model, env=env)
    assert "\x1b" not in result.stdout
    assert "layer.1999  float64  4      32 B" in result.stdout.splitlines()


@pytest.mark.parametrize(
    "args", [["inspect"], ["inspect", "--json"], ["inspect", "--stats"], ["diff", "other.safetensors"]]
)
def test_a_reader_that_leaves_ends_the_command_quietly(environment, tmp_path, model, args):
    save(ParametersRecord.from_numpy({"one": np.ones(4)}), tmp_path / "other.safetensors")
    with subprocess.Popen(
        [*UMBEL, *args, model], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert process.returncode == 141
    assert error == b""


def test_a_full_disk_is_an_error_of_input_and_output(environment, tmp_path, model):
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            [*UMBEL, "inspect", model], cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert process.returncode == 74
    assert b"No space left" in process.stderr


def test_a_terminal_gets_colours_and_no_line_wider_than_it_is(environment, tmp_path, model):
    text, status = in_terminal(["inspect", model], tmp_path, environment, columns=30)
    assert status == 0
    assert COLOR.search(text)
    rows = [line for line in CSI.sub("", text).splitlines() if line.startswith("layer")]
    assert len(rows) == 2000
    assert max(map(len, rows)) <= 30


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colours(environment, tmp_path, model, env):
    text, status = in_terminal(["inspect", model], tmp_path, environment | env)
    assert status == 0
    assert not COLOR.search(text)


def test_a_terminal_that_cannot_write_unicode(umbel, model):
    result = umbel("inspect", model, "--stats", env={"PYTHONIOENCODING": "ascii"})
    assert result.returncode == 0
    assert result.stdout.isascii()


def test_a_run_in_a_terminal_moves_a_bar_and_leaves_the_lines(umbel, environment, tmp_path):
    umbel("new", "hello")
    text, status = in_terminal(["run", "hello", "--rounds", "3"], tmp_path, environment)
    assert status == 0
    assert "━" in text
    assert "\x1b[?25h" in text  # the cursor is shown again
    plain = CSI.sub("", text).replace("\r", "\n")
    assert [f"round {i}/3  10/10 nodes" in plain for i in (1, 2, 3)] == [True] * 3
    assert "umbel inspect runs/" in plain


def test_a_run_on_a_dumb_terminal_is_plain(umbel, environment, tmp_path):
    umbel("new", "hello")
    text, status = in_terminal(["run", "hello", "--rounds", "2"], tmp_path, environment | {"TERM": "dumb"})
    assert status == 0
    assert "\x1b" not in text


def start(environment, tmp_path, *args):
    return subprocess.Popen(
        [*UMBEL, "run", *args], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def read_until(process, start_of_line):
    for line in process.stdout:
        if line.startswith(start_of_line):
            return
    raise AssertionError(process.stderr.read())


def test_ctrl_c_ends_a_run_with_130_and_the_way_on(umbel, environment, tmp_path, endless):
    with start(environment, tmp_path, endless) as process:
        read_until(process, "round       2/")
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        error = process.stderr.read()
    assert process.returncode == 130
    (run,) = (tmp_path / "runs").iterdir()
    assert f"umbel run --resume {run.name}" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_goes_on_to_the_same_model(umbel, environment, tmp_path, endless, stop):
    with start(environment, tmp_path, endless) as process:
        read_until(process, "round       2/")
        process.send_signal(stop)
        process.stdout.read()
    (run,) = (tmp_path / "runs").iterdir()
    done = len((run / "checkpoint" / "rounds.jsonl").read_text().splitlines())
    resumed = umbel("run", "--resume", run.name, "--rounds", str(done + 2))
    assert resumed.returncode == 0, resumed.stderr
    whole = umbel("run", endless, "--rounds", str(done + 2), "--runs", "others", "--json")
    digest = json.loads(whole.stdout.splitlines()[-2])["digest"]
    assert f"digest   {digest}" in resumed.stdout


def test_a_run_whose_reader_leaves_can_be_resumed(environment, tmp_path, endless):
    with start(environment, tmp_path, endless) as process:
        read_until(process, "round       1/")
        process.stdout.close()
        error = process.stderr.read()
    assert process.returncode == 141
    assert "--resume" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_shell_completion(umbel, shell):
    shown = umbel("--show-completion", shell, env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert shown.returncode == 0
    assert "umbel" in shown.stdout


def test_completion_offers_commands(umbel):
    told = {"_UMBEL_COMPLETE": "complete_bash", "COMP_WORDS": "umbel in", "COMP_CWORD": "1"}
    assert umbel(env=told).stdout.split() == ["inspect"]


def test_the_exit_codes_of_the_documentation_are_those_of_the_program():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text()
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    classes = {getattr(errors, name).exit_status for name in errors.__all__}
    ours = {0, _failure.DIFFERENT, _failure.FAILED, _failure.INPUT_OUTPUT, _failure.INTERRUPTED, _failure.BROKEN_PIPE}
    assert listed == classes | ours


def test_a_pipe_gets_long_lines_in_full(umbel, tmp_path):
    name = "layer." * 40
    save(ParametersRecord.from_numpy({name: np.arange(5.0)}), tmp_path / "m.safetensors")
    (line,) = [line for line in umbel("inspect", "m.safetensors", "--stats").stdout.splitlines() if name in line]
    assert line.endswith("█")


def test_a_closed_standard_output_is_no_fault(environment, tmp_path, model):
    line = ["bash", "-c", '"$@" >&-', "bash", *UMBEL, "inspect", model]
    done = subprocess.run(line, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
