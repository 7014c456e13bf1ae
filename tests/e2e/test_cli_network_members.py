"""Who joins a server and how; what a node needs at its first start and at its next; the doctor."""

import json
import shutil
import signal
import stat

import pytest

from umbel.http import Token, join_line


@pytest.fixture(scope="module")
def shared(tmp_path_factory, federation_of, app_of):
    """A server with one node, and an app."""
    made = federation_of(tmp_path_factory.mktemp("members"))
    try:
        app_of(made.folder / "app")
        made.serve("--tokens", 3)
        made.node("app", "site-0")
        yield made
    finally:
        made.close()


def other(federation, name):
    """The environment of another user."""
    return {"UMBEL_CONFIG_DIR": str(federation.folder / name)}


def address(result):
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["address"]


def test_the_operator_finds_the_server_by_its_folder_or_by_itself(shared):
    assert shared.umbel("nodes", "--data", "server", **other(shared, "nobody")).returncode == 0
    assert shared.umbel("nodes").returncode == 0
    assert shared.umbel("nodes", "--server", shared.url).returncode == 0
    lost = shared.umbel("nodes", **other(shared, "nobody"))
    assert lost.returncode == 2
    assert "umbel server starts one here" in lost.stderr


def test_the_folder_of_a_server_says_who_its_operator_is_from_anywhere_and_after_a_move(shared, tmp_path, monkeypatch):
    """The server was started with a relative path."""
    data, moved = shared.folder / "server", tmp_path / "moved"
    moved.mkdir()
    shutil.copy(data / "server.json", moved)
    shutil.copytree(data / "keys", moved / "keys")
    nobody = other(shared, "nobody")
    monkeypatch.setattr(shared, "folder", tmp_path)
    for folder in (data, moved, "moved"):
        listed = shared.umbel("nodes", "--data", folder, **nobody)
        assert "site-0" in listed.stdout, listed.stderr


def test_a_run_of_no_name_is_told_the_newest_ones(shared):
    for _ in range(9):
        asked = ("--nodes", 1, "--rounds", 1, "--detach", "--runs", "many")
        assert shared.umbel("run", "app", "--server", shared.url, *asked).returncode == 0
    newest = max(row["run"] for row in json.loads(shared.umbel("runs", "list", "--json").stdout)["runs"])
    said = shared.umbel("runs", "show", "abc").stderr
    assert f"the last ones are: {', '.join(str(newest - i) for i in range(8))}\n" in said


def test_a_token_is_a_line_to_copy_and_is_listed_without_its_secret(shared):
    made = shared.umbel("token", "--uses", 3, "--valid", "2h").stdout.splitlines()
    assert made[0].startswith(f"umbel node --join {shared.url}#")
    assert made[0].endswith(" --app package.module:app")
    assert "for 3 nodes" in made[1]
    listed = shared.umbel("token", "--list").stdout
    assert made[0].split("#")[1].split()[0] not in listed
    number = made[1].split()[1].strip(",")
    assert [number, "node", "open", "3"] in [line.split()[:4] for line in listed.splitlines()]
    assert shared.umbel("token", "--revoke", number).returncode == 0
    row = next(line for line in shared.umbel("token", "--list").stdout.splitlines() if line.split()[0] == number)
    assert "revoked" in row


def test_a_user_joins_with_a_line_and_sees_only_what_is_theirs(shared):
    line = address(shared.umbel("token", "--user", "--json"))
    ada = other(shared, "ada")
    ran = shared.umbel("run", "app", "--server", line, "--nodes", "site-0", "--rounds", 1, "--runs", "ada", **ada)
    assert ran.returncode == 0, ran.stderr
    again = shared.umbel("run", "app", "--nodes", 1, "--server", shared.url, "--rounds", 1, "--runs", "ada", **ada)
    assert again.returncode == 0, again.stderr
    (key,) = (shared.folder / "ada").glob("servers/*/key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    mine = json.loads(shared.umbel("runs", "list", "--json", **ada).stdout)["runs"]
    assert len(mine) == 2
    theirs = shared.umbel("run", "app", "--server", shared.url, "--nodes", 1, "--rounds", 1, "--detach", "--json")
    number = json.loads(theirs.stdout)["run"]
    assert shared.umbel("runs", "show", number, **ada).returncode == 66
    assert shared.umbel("runs", "stop", number, **ada).returncode == 66
    assert shared.umbel("token", **ada).returncode == 77
    assert shared.umbel("nodes", "revoke", "site-0", **ada).returncode == 77
    everything = json.loads(shared.umbel("runs", "list", "--json").stdout)["runs"]
    assert {row["run"] for row in mine} < {row["run"] for row in everything}


def test_a_token_that_opens_nothing_any_more_is_listed_as_such(shared, wait_until):
    def made(*args):
        return json.loads(shared.umbel("token", "--user", "--json", *args).stdout)

    def states():
        listed = json.loads(shared.umbel("token", "--list", "--json").stdout)["tokens"]
        return {row["token"]: row["state"] for row in listed}

    tokens = made(), made(), made("--valid", "100ms")
    assert shared.umbel("runs", "list", "--server", tokens[1]["address"], **other(shared, "late")).returncode == 0
    wait_until(lambda: states()[tokens[2]["token"]] != "open", shared.folder / "server.err")
    assert [states()[each["token"]] for each in tokens] == ["open", "used up", "expired"]


def test_a_token_opens_once(shared):
    line = address(shared.umbel("token", "--user", "--json"))
    assert shared.umbel("runs", "list", "--server", line, **other(shared, "first")).returncode == 0
    second = shared.umbel("runs", "list", "--server", line, **other(shared, "second"))
    assert second.returncode == 77
    assert "Traceback" not in second.stderr
    assert line.split("#")[1] not in second.stderr


@pytest.mark.parametrize(
    ("args", "status", "expected"),
    [
        ([], 2, "the first start needs a line of umbel token"),
        (["--join", "LINE"], 2, "the app that this node runs"),
        (["--join", "https://host:8443", "--app", "app"], 2, "no token behind #"),
        (["--join", "PLAIN", "--app", "app"], 2, "expected https, since the token is for a server with TLS"),
        (["--join", "LINE", "--app", "app", "--name", "elsewhere"], 2, "known: site-0, site-1"),
        (["--join", "LINE", "--app", "nothing", "--name", "x"], 64, "no folder or module"),
        (["--join", "LINE", "--app", "nothing:app", "--name", "x"], 64, "nothing"),
        (["--join", "LINE", "--app", "app", "--name", "site-1", "--set", "target"], 2, "--set key=value"),
        (["--join", "LINE", "--app", "app", "--name", "site-1", "--set", "target=x"], 2, "expected float"),
        (["--join", "LINE", "--app", "app", "--name", "site-1", "--policy", "gone.toml"], 2, "an empty file allows"),
        (["--join", "LINE", "--app", "app", "--name", "site-1", "--memory-limit", "much"], 2, "expected a size"),
    ],
)
def test_what_a_node_cannot_be_started_with(shared, args, status, expected):
    plain = shared.joins[0].replace("https", "http")
    given = [arg.replace("LINE", shared.joins[0]).replace("PLAIN", plain) for arg in args]
    result = shared.umbel("node", *given, "--data", "not-there")
    assert expected in result.stderr
    assert result.returncode == status
    assert "Traceback" not in result.stderr
    assert shared.joins[0].split("#")[1] not in result.stderr


@pytest.mark.parametrize("command", ["status", "rotate"])
def test_what_a_folder_without_a_node_cannot_say(shared, command):
    result = shared.umbel("node", command, "--data", "never")
    assert (result.returncode, "no node has joined" in result.stderr) == (2, True)


def test_a_node_that_no_settings_name_is_told_by_set(shared):
    process = shared.node("app", "elsewhere", "--set", "target=2.5")
    assert process.poll() is None
    ran = shared.umbel("run", "app", "--server", shared.url, "--nodes", "elsewhere", "--rounds", 1, "--runs", "told")
    assert "1/1 nodes" in ran.stdout
    process.terminate()
    assert process.wait(20) == 0


def test_a_node_goes_on_with_what_its_folder_knows_and_gets_a_new_key(shared):
    busy = shared.umbel("node", "rotate", "--data", "site-0")
    assert busy.returncode != 0
    assert "Traceback" not in busy.stderr
    node = shared.processes[1]
    node.terminate()
    assert node.wait(20) == 0
    before = (shared.folder / "site-0" / "key").read_text()
    rotated = shared.umbel("node", "rotate", "--data", "site-0")
    assert rotated.returncode == 0, rotated.stderr
    assert (shared.folder / "site-0" / "key").read_text() != before
    assert [path.name for path in (shared.folder / "site-0").glob("key*")] == ["key"]
    shared.start("node", "--data", "site-0", output="site-0")
    ran = shared.umbel("run", "app", "--server", shared.url, "--nodes", "site-0", "--rounds", 1, "--runs", "rotated")
    assert ran.returncode == 0, ran.stderr


def checks(result):
    return {check["name"]: check["state"] for check in map(json.loads, result.stdout.splitlines())}


def test_the_doctor_finds_everything_well(shared):
    for args in (["--data", "server"], ["--data", "site-0"], [shared.url], []):
        result = shared.umbel("doctor", *args)
        assert result.returncode == 0, result.stdout
        assert "checks passed" in result.stdout
    found = checks(shared.umbel("doctor", "--data", "site-0", "--json"))
    assert {name: found[name] for name in ("app", "member", "protocol", "clock", "disk")} == {
        **dict.fromkeys(("app", "member", "protocol", "clock"), "ok"),
        "disk": found["disk"],
    }


def test_the_doctor_names_what_is_wrong_and_its_mend(shared, tmp_path):
    refused = shared.umbel("doctor", "http://127.0.0.1:9")
    assert refused.returncode == 1
    assert "fail reachable" in refused.stdout
    assert "mend: start the server there" in refused.stdout
    for address, expected in [
        ("http://example.org", "try https://example.org"),
        (shared.url.replace("https", "http"), f"mend: say {shared.url}"),
        (f"{shared.url}#AAAA", "copy the whole line again"),
    ]:
        wrong = shared.umbel("doctor", address)
        assert (wrong.returncode, wrong.stdout.count("\nfail "), wrong.stdout.count("mend:")) == (1, 1, 1)
        assert expected in wrong.stdout
    nothing = shared.umbel("doctor", "--data", tmp_path / "gone")
    assert nothing.returncode == 1
    assert "is not there" in nothing.stdout
    neither = tmp_path / "empty"
    neither.mkdir(mode=0o755)
    found = shared.umbel("doctor", "--data", neither)
    assert found.returncode == 1
    assert "neither a server's nor a node's" in found.stdout
    assert "chmod 700" in found.stdout


def test_the_doctor_sees_a_server_with_another_key_than_the_token_says(shared):
    line = join_line(shared.url, Token(b"s" * 20, "0" * 64))
    found = shared.umbel("doctor", line)
    assert found.returncode == 1
    assert "fail fingerprint" in found.stdout
    assert "do not go on" in found.stdout
    assert "protocol" not in found.stdout
    stranger = shared.umbel("doctor", shared.url, **other(shared, "stranger"))
    assert stranger.returncode == 0
    assert "warn fingerprint" in stranger.stdout


def test_a_server_that_shows_another_key_is_not_joined(shared):
    line = join_line(shared.url, Token(b"s" * 20, "0" * 64))
    result = shared.umbel("runs", "list", "--server", line, **other(shared, "careful"))
    assert result.returncode == 76
    assert "somebody may be in between" in result.stderr


def test_the_doctor_sees_an_app_that_does_not_load(shared):
    settings = shared.folder / "site-0" / "start.json"
    text = settings.read_text()
    settings.write_text(text.replace('"app:app"', '"app:other"'))
    try:
        found = checks(shared.umbel("doctor", "--data", "site-0", "--json"))
    finally:
        settings.write_text(text)
    assert found["app"] == "fail"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--insecure-http", "--host", "0.0.0.0"], "loopback"),
        (["--insecure-http", "--cert", "a", "--key", "b"], "got both"),
        (["--cert", "a"], "--cert and --key together"),
        (["--poll", "soon"], "expected a duration"),
    ],
)
def test_what_a_server_cannot_be_started_with(shared, args, expected):
    result = shared.umbel("server", "--data", "another", "--port", 0, *args)
    assert result.returncode == 2
    assert expected in result.stderr


def test_a_second_server_on_one_folder_is_refused(shared):
    handler = signal.getsignal(signal.SIGINT)
    result = shared.umbel("server", "--data", "server", "--insecure-http", "--port", 0)
    assert result.returncode == 75
    assert "Traceback" not in result.stderr
    assert signal.getsignal(signal.SIGINT) is handler  # it ran in this process


def told(shared, name):
    """What a node that has ended said, each line without its time."""
    lines = (shared.folder / f"{name}.err").read_text().splitlines()
    return [line.partition(" ")[2] if line[:2].isdecimal() else line for line in lines]


def test_a_node_says_what_it_does_from_its_first_start_on(shared):
    process = shared.node("app", "site-2", join=address(shared.umbel("token", "--json")))
    process.terminate()
    assert process.wait(20) == 0
    assert told(shared, "site-2") == [
        "a node of app starts",
        "site-2 loads app:app",
        f"site-2 joins {shared.url}",
        f"site-2 is connected to {shared.url}",
        "site-2 ended",
    ]


def test_a_node_whose_token_is_used_up_is_not_connected_and_says_so_once(shared):
    line = address(shared.umbel("token", "--json"))
    shared.node("app", "site-3", join=line).terminate()
    process = shared.node("app", "site-1", join=line)
    assert process.wait(20) == 77
    lines = told(shared, "site-1")
    assert (lines[2], lines[4]) == (f"site-1 joins {shared.url}", "site-1 ended")
    assert "used as often as it may be" in lines[3]
    assert len(lines) == 5


def test_a_node_waits_for_a_server_that_may_start_later_and_says_so_once(shared, wait_until):
    process = shared.start(
        *("node", "--join", join_line("https://127.0.0.1:9", Token(b"s" * 20, "0" * 64)), "--app", "app"),
        *("--name", "site-1", "--data", "early"),
        output="early",
    )
    said = shared.folder / "early.err"
    wait_until(lambda: process.poll() is not None or "no answer from" in said.read_text(), said)
    process.terminate()
    assert process.wait(20) == 0
    assert said.read_text().count("no answer from https://127.0.0.1:9, trying again: ") == 1
