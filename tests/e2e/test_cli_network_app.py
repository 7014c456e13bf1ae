"""What an app tells a node of a name, looked up in a process of its own."""

import sys

import pytest

from umbel.cli._look import look
from umbel.errors import AppError


def test_the_settings_of_a_folder_tell_a_node_what_it_is(site, tmp_path, monkeypatch):
    folder = site()
    monkeypatch.chdir(tmp_path)
    found = look(str(folder), "site-2")
    assert (found.app, found.folder, found.config) == ("app:app", str(folder), {"target": 2.0})
    assert found.names == ["site-0", "site-1", "site-2", "site-3"]


def test_so_does_the_app_in_the_folder_where_one_is(site, monkeypatch):
    monkeypatch.chdir(site())
    assert look("app:app", "site-1").config == {"target": 1.0}


def test_a_name_that_the_app_does_not_know(site):
    found = look(str(site()), "elsewhere")
    assert found.config is None
    assert found.names


@pytest.mark.parametrize(
    ("nodes", "name", "config"),
    [
        ("20", "node-3", {"partition-id": 3, "num-partitions": 20}),
        ("20", "node-20", None),
        ("20", "node-03", None),
        ("20", "elsewhere", None),
        ("1000000000", "node-999999999", {"partition-id": 999_999_999, "num-partitions": 10**9}),
        ('["a", "b"]', "b", {"partition-id": 1, "num-partitions": 2}),
    ],
)
def test_nodes_of_a_number_or_a_list(site, nodes, name, config):
    assert look(str(site([('"app:nodes"', nodes)])), name).config == config


def test_an_app_without_settings_tells_nothing(tmp_path, monkeypatch):
    (tmp_path / "plain.py").write_text("from umbel.app import ClientApp\napp = ClientApp()\n")
    monkeypatch.chdir(tmp_path)
    found = look("plain:app", "any")
    assert (found.app, found.folder, found.config, found.names) == ("plain:app", str(tmp_path), None, [])


def test_settings_of_somebody_else_tell_nothing(tmp_path, monkeypatch):
    (tmp_path / "plain.py").write_text("")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
    monkeypatch.chdir(tmp_path)
    assert look("plain:app", "any").config is None


def test_what_the_app_prints_is_not_taken_for_the_answer(site, capfd):
    folder = site(code=[("import numpy as np", "import numpy as np\nprint('{}')\nprint('hello')")])
    assert look(str(folder), "site-2").config == {"target": 2.0}
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "hello" in captured.err


def test_the_app_is_not_loaded_here(site):
    look(str(site()), "site-2")
    assert "app" not in sys.modules


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ([("import numpy as np", "1 / 0")], "division by zero"),
        ([("import numpy as np", "import os; os._exit(9)")], "ended its process with status 9"),
        ([("def nodes(config)", "def nodes()")], "takes"),
    ],
)
def test_an_app_that_cannot_be_loaded(site, code, reason):
    with pytest.raises(AppError, match=reason):
        look(str(site(code=code)), "site-2")
