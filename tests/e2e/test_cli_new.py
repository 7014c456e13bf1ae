"""``umbel new``, ``--help`` and ``--version``."""

import json
from importlib.metadata import version

import pytest

from umbel.history import History


def test_a_new_app_runs_and_learns(umbel, tmp_path, only_run):
    made = umbel("new", "hello")
    assert made.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "hello").iterdir()) == ["README.md", "app.py", "pyproject.toml"]
    assert made.stdout.splitlines()[-1] == "next: umbel run hello"
    result = umbel("run", "hello")
    assert result.exit_code == 0, result.output
    columns = History.from_json((only_run() / "history.json").read_text()).metrics
    assert columns["central.accuracy"][-1] > 0.93
    assert columns["train.loss"][-1] < columns["train.loss"][0]
    assert "No point left its site." in result.stdout


def test_a_new_app_as_json(umbel, tmp_path):
    value = json.loads(umbel("new", "hello", "--json").stdout)
    assert value["folder"] == str(tmp_path / "hello")
    assert len(value["files"]) == 3


@pytest.mark.parametrize("name", ["", "..", "a/b", "/abs", "-x", "a b", "1st", "é", "a" * 65, "a.", "\x1b[31m", "a\nb"])
def test_a_new_app_needs_a_plain_name(umbel, tmp_path, name):
    result = umbel("new", "--", name)
    assert result.exit_code == 2
    assert "\x1b" not in result.output
    assert not list(tmp_path.iterdir())


def test_a_new_app_never_overwrites(umbel, tmp_path):
    (tmp_path / "hello").mkdir()
    result = umbel("new", "hello")
    assert result.exit_code == 2
    assert "exists already" in result.stderr
    assert not list((tmp_path / "hello").iterdir())


@pytest.mark.parametrize("command", ["run", "inspect", "diff", "new", "strategies", "version"])
def test_help_teaches_by_example(umbel, command):
    result = umbel(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert f"umbel {command}" in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--strategy", "fedadam"), 'in [tool.umbel] of the app\'s pyproject.toml: strategy = { name = "fedadam"'),
        (("--evaluate", "x"), 'pyproject.toml: evaluate = "app:measure"'),
        (("--set", "strategy=fedadam"), "got the setting strategy: write it in [tool.umbel]"),
        (("--set", "rounds=3"), "got the setting rounds: say it with --rounds"),
    ],
)
def test_a_setting_in_the_wrong_place_is_told_its_place(umbel, args, said):
    umbel("new", "hello")
    result = umbel("run", "hello", *args)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize("args", [["inspect", "--strategy", "x"], ["run", "--epochs", "3"]])
def test_an_option_that_is_no_setting_has_no_place(umbel, args):
    result = umbel(*args)
    assert result.exit_code == 2
    assert "pyproject.toml" not in result.stderr


@pytest.mark.parametrize("args", [["frobnicate"], ["run", "--ronds", "3"], ["diff", "a"], ["run", ".", "--seed", "x"]])
def test_a_line_that_makes_no_sense_exits_2(umbel, args):
    result = umbel(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_a_mistyped_command_is_met_with_the_nearest(umbel):
    assert "'inspect'" in umbel("inspct", "x").stderr


def test_the_version_as_json(umbel):
    assert json.loads(umbel("version", "--json").stdout)["umbel"] == version("umbel")


def test_the_version(umbel):
    assert umbel("version").stdout == umbel("--version").stdout == f"umbel {version('umbel')}\n"
