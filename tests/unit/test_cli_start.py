"""What a node is told, and where its folder and what its user knows are."""

import stat

import msgspec
import pytest

from umbel.cli._servers import About, all_known, find_known, folder_name, new_identity, remember, remember_own
from umbel.cli._start import Start, configured, is_node, node_folder, started
from umbel.errors import UsageError
from umbel.http import Identity


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("UMBEL_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))


def joined(url):
    new_identity(url)
    return remember(About(url, "ab" * 32, 3, "ada@laptop"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=true", True),
        ("a=False", False),
        ("a=3", 3),
        ("a=-3", -3),
        ("a=0.5", 0.5),
        ("a=1e3", 1000.0),
        ("a=", ""),
        ("a=x=y", "x=y"),
        ("a=9223372036854775808", "9223372036854775808"),
    ],
)
def test_a_setting_that_the_app_does_not_know_is_what_it_looks_like(text, value):
    config = configured({}, [text])
    assert config == {"a": value}
    assert type(config["a"]) is type(value)


def test_a_setting_that_the_app_knows_keeps_its_type():
    assert configured({"a": 1.5, "b": "x", "c": 1}, ["a=2", "b=3"]) == {"a": 2.0, "b": "3", "c": 1}
    with pytest.raises(UsageError, match="expected integer"):
        configured({"c": 1}, ["c=x"])


@pytest.mark.parametrize("text", ["a", "=3", ""])
def test_what_is_no_setting(text):
    with pytest.raises(UsageError, match="key=value"):
        configured({}, [text])


def test_the_folder_of_a_node(tmp_path):
    nodes = tmp_path / "share" / "umbel" / "nodes"
    assert node_folder(tmp_path / "given", "a", joins=True) == tmp_path / "given"
    assert node_folder(None, "site-1", joins=True) == nodes / "site-1"
    assert node_folder(None, "../../x\x1b", joins=True) == nodes / ".._.._x_"
    (nodes / "only").mkdir(parents=True)
    (nodes / "only" / "start.json").write_bytes(msgspec.json.encode(Start("https://h:1", "a:b", "/x")))
    assert node_folder(None, None, joins=False) == nodes / "only"
    assert node_folder(None, None, joins=True) != nodes / "only"
    assert is_node(nodes / "only")
    assert started(nodes / "only").url == "https://h:1"


def test_a_start_that_is_damaged_says_so(tmp_path):
    with pytest.raises(UsageError, match="no node has joined a server from"):
        started(tmp_path)
    (tmp_path / "start.json").write_text("{")
    with pytest.raises(UsageError, match="join anew"):
        started(tmp_path)


def test_a_server_that_was_joined_is_found_again():
    with pytest.raises(UsageError, match="no server was joined yet"):
        find_known(None)
    known = joined("https://one:8443")
    assert find_known(None).about == known.about == find_known("https://one:8443").about
    assert isinstance(find_known(None).identity, Identity)
    joined("https://two:8443")
    with pytest.raises(UsageError, match="more than one: https://one:8443, https://two:8443"):
        find_known(None)
    with pytest.raises(UsageError, match='did you mean "https://one:8443"'):
        find_known("https://ones:8443")


def test_a_key_is_for_its_owner_alone_and_is_kept_when_joining_is_tried_again():
    first = new_identity("https://one:8443")
    assert new_identity("https://one:8443").key == first.key
    known = remember(About("https://one:8443"))
    assert stat.S_IMODE(known.key_file.stat().st_mode) == 0o600


def test_a_server_of_ones_own_has_one_place_wherever_it_listens(tmp_path):
    data = tmp_path / "server"
    data.mkdir()
    Identity.create(data / "operator")
    for port in (1, 2):
        remember_own(data, About(f"https://h:{port}", key_file=str(data / "operator")))
    assert [known.about.url for known in all_known()] == ["https://h:2"]
    (data / "operator").unlink()
    assert all_known() == []


def test_what_is_known_and_damaged_says_so():
    known = joined("https://one:8443")
    (known.folder / "server.json").write_text("[")
    with pytest.raises(UsageError, match="join anew"):
        find_known(None)


@pytest.mark.parametrize(("url", "name"), [("https://a.b:8443", "a.b_8443"), ("https://[::1]:1", "___1__1")])
def test_names_of_folders(url, name):
    assert folder_name(url) == name
