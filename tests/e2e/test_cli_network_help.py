"""Help of the commands that need a network, and that nothing of a network is loaded before one is called."""

import subprocess
import sys

import pytest

from umbel.cli._later import COMMANDS

HEAVY = {"aiohttp", "sqlalchemy", "alembic", "asyncio", "prometheus_client", "cryptography"}
CALLS = [
    *([name] for name in COMMANDS),
    *(["runs", name] for name in ("list", "show", "watch", "stop", "resume")),
    ["nodes", "revoke"],
    ["node", "status"],
    ["node", "rotate"],
]


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_every_command_explains_itself_with_an_example(umbel, call):
    shown = umbel(*call, "--help")
    assert shown.exit_code == 0
    assert f"umbel {' '.join(call)}" in shown.stdout.partition("Options:")[0]
    assert "--json" in shown.stdout or call == ["runs"]


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, (_, text) in COMMANDS.items()])
def test_the_list_of_commands_says_what_the_command_says(umbel, name, text):
    assert " ".join(text.split()) in " ".join(umbel(name, "--help").stdout.split())
    assert text[:30] in umbel("--help").stdout


def test_the_list_of_commands_loads_nothing_of_a_network():
    script = "import sys\nfrom umbel.cli._main import app\nprint(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert HEAVY & set(done.stdout.split()) == set()


def test_what_is_misspelt_is_corrected(umbel):
    wrong = umbel("sever")
    assert wrong.exit_code == 2
    assert "server" in wrong.stderr


def test_completion_offers_what_is_loaded_later():
    told = {"_UMBEL_COMPLETE": "complete_bash", "COMP_WORDS": "umbel runs re", "COMP_CWORD": "2"}
    command = [sys.executable, "-c", "from umbel.cli import main; main()"]
    done = subprocess.run(command, env=told, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == ["resume"]
