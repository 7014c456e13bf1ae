"""``umbel run --server``: the app that ran in one process trains over real nodes, and ends with the same bytes."""

import json
import signal

import pytest

from apps import digest_of
from umbel.history import History
from umbel.http import Token
from umbel.records import load

REPORT = [("seed = 3", 'seed = 3\nreport = "app:report"')]
LARGE = [("np.zeros(3)", "np.zeros(9_000)"), ("0.01, 3)", "0.01, 9_000)")]  # too large to travel inside a message


@pytest.fixture(scope="module")
def shared(tmp_path_factory, federation_of, app_of):
    """A server with four nodes, for tests that leave it as it is."""
    made = federation_of(tmp_path_factory.mktemp("shared"))
    try:
        app = app_of(made.folder / "app", REPORT, LARGE)
        made.serve("--tokens", 4)
        made.nodes(app, [f"site-{number}" for number in range(4)])
        yield made
    finally:
        made.close()


def events_of(result):
    assert result.returncode == 0, result.stdout + result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_run_over_nodes_ends_with_the_bytes_of_a_local_one(shared):
    result = shared.umbel("run", "app", "--server", shared.url, "--runs", "one")
    local = shared.umbel("run", "app", "--runs", "local")
    assert digest_of(result) == digest_of(local)
    rounds = [line for line in result.stdout.splitlines() if line.startswith("round ")]
    assert [line.split()[1:4] for line in rounds] == [[f"{number}/4", "4/4", "nodes"] for number in range(1, 5)]
    assert result.stdout.rstrip().splitlines()[-1].startswith("report after 4 rounds")


def test_the_folder_of_a_run_over_nodes_is_that_of_a_local_one(shared):
    events = events_of(shared.umbel("run", "app", "--server", shared.url, "--runs", "two", "--json"))
    (folder,) = (shared.folder / "two").iterdir()
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "history.json",
        "metrics.svg",
        "server.json",
    }
    history = History.from_json((folder / "history.json").read_text())
    assert load(folder / "model.safetensors").parameters_records["model"].to_numpy()["w"].shape == (9_000,)
    distances = history.metrics["central.distance"]
    assert distances[:3] == [None] * 3
    assert distances[3] < 1
    names = [event["event"] for event in events]
    assert names[:2] == ["run-submitted", "run-started"]
    assert names.count("round-completed") == 4
    assert names[-2:] == ["run-saved", "report"]
    assert events[-2]["digest"] == history.digest


def test_a_run_is_listed_and_explained(shared):
    digest = digest_of(shared.umbel("run", "app", "--server", shared.url, "--runs", "three"))
    listed = json.loads(shared.umbel("runs", "list", "--json").stdout)["runs"]
    row = listed[0]
    assert (row["status"], row["completed"], row["rounds"], row["owner"]) == ("completed", 4, 4, "operator")
    text = shared.umbel("runs", "list").stdout.splitlines()
    assert text[1].split()[:5] == [str(row["run"]), "app:app", "fedavg", "completed", "4/4"]
    shown = shared.umbel("runs", "show", row["run"])
    assert f"digest   {digest}" in shown.stdout
    header = next(line for line in shown.stdout.splitlines() if line.startswith("round"))
    assert {"asked", "counted", "refused", "lost", "queued", "training", "uploading", "aggregate"} <= {*header.split()}
    assert shared.umbel("runs", "show", row["name"]).stdout == shown.stdout
    view = json.loads(shared.umbel("runs", "show", row["run"], "--json").stdout)
    assert [report["round"] for report in view["reports"]] == [1, 2, 3, 4]
    assert {question["outcome"] for question in view["questions"]} == {"accepted"}


def test_a_round_in_full(shared):
    shared.umbel("run", "app", "--server", shared.url, "--runs", "four")
    shown = shared.umbel("runs", "show", "1", "--round", "2")
    rows = [line.split()[:3] for line in shown.stdout.splitlines() if line.startswith("site-")]
    assert rows == [[f"site-{number}", "train", "accepted"] for number in range(4)]
    assert "metric   train.gap" in shown.stdout
    missing = shared.umbel("runs", "show", "1", "--round", "9")
    assert missing.returncode == 2
    assert "has no round 9" in missing.stderr


def test_a_run_may_be_left_to_the_server_and_watched_later(shared):
    detached = shared.umbel("run", "app", "--server", shared.url, "--detach", "--seed", 9)
    assert detached.returncode == 0, detached.stderr
    (command,) = [line.split("next")[1].split() for line in detached.stdout.splitlines() if line.startswith("next")]
    watched = shared.umbel(*command[1:], "--save", "--runs", "five")
    local = shared.umbel("run", "app", "--seed", 9, "--runs", "local")
    assert digest_of(watched) == digest_of(local)
    assert "round 4/4  4/4 nodes" in watched.stdout


def test_nodes_may_be_named_and_the_app_may_name_more(shared):
    named = shared.umbel("run", "app", "--server", shared.url, "--nodes", "site-1,site-2", "--runs", "six")
    assert "fedavg over 2 nodes" in named.stdout
    assert named.returncode == 0


def test_a_run_says_for_whom_it_waits(shared, wait_until):
    waiting = shared.start("run", "app", "--server", shared.url, "--nodes", "site-0,site-7", "--json", output="waits")
    said = shared.folder / "waits.out"
    wait_until(lambda: waiting.poll() is not None or '"waiting"' in said.read_text(), shared.folder / "waits.err")
    (told,) = [event for event in map(json.loads, said.read_text().splitlines()) if event["event"] == "waiting"]
    assert "site-7" in told["reason"]
    assert "site-0" not in told["reason"]
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(30) == 130
    (row,) = [
        row for row in json.loads(shared.umbel("runs", "list", "--json").stdout)["runs"] if row["status"] == "waiting"
    ]
    assert shared.umbel("runs", "stop", row["run"]).returncode == 0


def test_settings_may_be_changed(shared):
    changed = shared.umbel("run", "app", "--server", shared.url, "--set", "rate=0.1", "--rounds", 2, "--runs", "seven")
    local = shared.umbel("run", "app", "--set", "rate=0.1", "--rounds", 2, "--runs", "local")
    assert digest_of(changed) == digest_of(local)


def test_the_nodes_are_listed(shared):
    lines = shared.umbel("nodes").stdout.splitlines()
    assert lines[0].split() == ["node", "app", "types", "status", "last", "seen"]
    assert [line.split()[:4] for line in lines[1:]] == [[f"site-{n}", "app:app", "train", "online"] for n in range(4)]


def test_a_node_says_how_it_is(shared):
    said = shared.umbel("node", "status", "--data", "site-2")
    assert said.returncode == 0
    assert "node     site-2, app:app" in said.stdout
    assert "state    connected" in said.stdout
    assert json.loads(shared.umbel("node", "status", "--data", "site-2", "--json").stdout)["alive"] is True


@pytest.mark.parametrize(
    ("args", "status", "expected"),
    [
        (["run", "app", "--server", "URL", "--resume", "x"], 2, "umbel runs resume"),
        (["run", "app", "--detach"], 2, "--server URL"),
        (["run", "app", "--nodes", "a,b"], 2, "expected a number of nodes"),
        (["run", "app", "--server", "nonsense"], 2, "you have not joined https://nonsense:8443"),
        (["run", "app", "--server", "ftp://host"], 2, "such as https://host:8443"),
        (["run", "app", "--server", "http://example.org"], 2, "try https://example.org"),
        (["run", "app", "--server", "http://127.0.0.1:9#TOKEN"], 2, "since the token is for a server with TLS"),
        (["run", "app", "--server", "https://127.0.0.1:9"], 2, "you have not joined"),
        (["run", "app", "--server", "URL#AAAA"], 2, "copy the whole line"),
        (["runs", "show", "99"], 66, "99"),
        (["runs", "watch", "nobody"], 2, "there is no run"),
        (["nodes", "revoke", "site-9"], 2, "there is no node"),
        (["token", "--revoke", "99"], 66, "99"),
        (["token", "--valid", "soon"], 2, "expected a duration"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(shared, args, status, expected):
    token = str(Token(b"s" * 20, "0" * 64))
    result = shared.umbel(*(arg.replace("URL", shared.url).replace("TOKEN", token) for arg in args))
    assert expected in result.stderr
    assert result.returncode == status
    assert "Traceback" not in result.stderr
    assert token not in result.stderr


def test_a_server_may_be_named_without_https(shared):
    assert shared.umbel("nodes", "--server", shared.url.removeprefix("https://")).returncode == 0


def test_a_run_that_is_complete_says_what_can_be_done_with_it(shared):
    result = shared.umbel("run", "app", "--server", shared.url, "--runs", "eight", "--json")
    number = events_of(result)[0]["run"]
    for args in (["stop", number], ["resume", number], ["resume", number, "--rounds", 9]):
        refused = shared.umbel("runs", *args)
        assert refused.returncode == 1
        assert "it is completed, 4 of 4 rounds complete" in refused.stderr
        assert f"umbel runs watch {number} --save" in refused.stderr
        assert "initial" in refused.stderr
    below = shared.umbel("runs", "show", "99").stderr
    assert "umbel runs list" in below
    assert "at:" not in below


def test_one_trains_on_from_the_model_of_a_run(shared, app_of):
    first = events_of(shared.umbel("run", "app", "--server", shared.url, "--runs", "nine", "--json"))
    model = next(event["model"] for event in first if event["event"] == "run-saved")
    app_of(shared.folder / "longer", [*REPORT, ('"app:initial"', f'"{shared.folder / model}"')], LARGE)
    more = events_of(shared.umbel("run", "longer", "--server", shared.url, "--runs", "nine", "--json"))
    gaps = [event["metrics"]["train.gap"] for event in (*first, *more) if event["event"] == "round-completed"]
    assert len(gaps) == 8
    assert gaps[4] == pytest.approx(gaps[3], rel=0.1)


def test_what_is_saved_has_the_name_of_the_run(shared):
    shared.umbel("run", "app", "--server", shared.url, "--runs", "ten")
    (folder,) = (shared.folder / "ten").iterdir()
    row = json.loads(shared.umbel("runs", "list", "--json").stdout)["runs"][0]
    assert folder.name == row["name"]
    again = shared.umbel("runs", "watch", row["run"], "--save", "--runs", "ten")
    assert again.returncode == 0
    assert len(list((shared.folder / "ten").iterdir())) == 2
