"""An app with a main of its own: over engines, over nodes, and on after whoever drives it or serves it was killed."""

import json
import re
import signal
import time

import pytest

from apps import digest_of, write_main_app
from umbel.records import load

SETTINGS = """\
[tool.umbel]
client = "app:app"
main = "app:server"
initial = "app:initial"
nodes = "app:nodes"
seed = 3

[tool.umbel.config]
rate = 0.5
log = "trained"
rounds = 4
pause = 0.0
"""

APP = """\
import time

import numpy as np

from umbel.app import ClientApp, ServerApp
from umbel.message import Message, Metadata
from umbel.records import ParametersRecord, RecordSet

app, server = ClientApp(), ServerApp()


def nodes(config):
    return {f"site-{i}": {"target": float(i)} for i in range(2)}


def initial(config):
    return {"w": np.zeros(9_000)}


@app.train()
def train(message, context):
    w = message.content.parameters_records["model"].to_numpy()["w"]
    noise = np.random.default_rng(context.seed).normal(0, 0.01, w.shape)
    w = w + context.run_config["rate"] * (context.node_config["target"] - w) + noise
    time.sleep(context.run_config["pause"])
    with open(context.run_config["log"], "a") as log:
        log.write(f"{context.node_name} {message.metadata.group_id}\\n")
    return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy({"w": w})}))


@server.main()
def main(grid, context):
    model, places = context.state.parameters_records["model"], []
    for number in range(1, context.run_config["rounds"] + 1):
        content = RecordSet({"model": model})
        names = {node.node_id: node.name for node in grid.nodes(number)}
        asked = [Metadata(context.run_id, 0, 0, each, 0, number, 600.0, "train") for each in names]
        grid.send(Message(metadata, content) for metadata in asked)
        came = {}
        for reply in grid.replies():
            came[names[reply.metadata.src_node_id]] = reply.content.parameters_records["model"].to_numpy()["w"]
            places.append(reply.metadata.src_node_id)
        model = ParametersRecord.from_numpy({"w": sum(came[name] for name in sorted(came)) / len(came)})
        print("round", number, places, flush=True)
    context.state.parameters_records["model"] = model
"""

SITES = ("site-0", "site-1")
ROUNDS = 4


@pytest.fixture
def app(tmp_path):
    return write_main_app(tmp_path, SETTINGS, APP)


def trained(folder):
    """How often each node trained in each round; read once, and then forgotten."""
    path = folder / "trained"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return {line: lines.count(line) for line in lines}


ONCE = {f"{name} {number}": 1 for name in SITES for number in range(1, ROUNDS + 1)}


@pytest.fixture
def expected(federation, app, tmp_path):
    """The digest of the model that the main makes over an engine, with nothing beside it."""
    digest = digest_of(federation.umbel("run", "app", "--runs", "local"))
    assert trained(tmp_path) == ONCE
    return digest


@pytest.fixture
def serving(federation, app):
    federation.server = federation.serve("--tokens", 2)
    federation.nodes(app, SITES)
    return federation


def wait_for(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


def drive(serving, *args, output="main"):
    return serving.start("run", "app", "--server", serving.url, *args, output=output)


def has_begun(serving, round_, output="main"):
    wait_for(lambda: f"round {round_} " in (serving.folder / f"{output}.out").read_text(), f"round {round_} is over")


def told(serving, output):
    """In which order the main was told of its nodes, round by round."""
    return re.findall(r"^round .*$", (serving.folder / f"{output}.out").read_text(), re.MULTILINE)


def ended(serving, process, output):
    assert process.wait(60) == 0, (serving.folder / f"{output}.err").read_text()
    return re.search(r"^digest   (\S+)$", (serving.folder / f"{output}.out").read_text(), re.MULTILINE)[1]


def test_a_main_over_nodes_makes_the_bytes_of_one_over_an_engine(serving, expected, tmp_path):
    result = serving.umbel("run", "app", "--server", serving.url)
    assert digest_of(result) == expected
    assert trained(tmp_path) == ONCE
    row = json.loads(serving.umbel("runs", "list", "--json").stdout)["runs"][0]
    assert (row["status"], row["strategy"], row["owner"]) == ("completed", "app:server", "operator")
    shown = serving.umbel("runs", "show", "1").stdout
    assert f"digest   {expected}" in shown
    assert [line.split()[:5] for line in shown.splitlines()[-4:]] == [[str(n), "2", "2", "0", "0"] for n in range(1, 5)]
    saved = serving.umbel("runs", "watch", "1", "--save", "--runs", "kept")
    assert saved.returncode == 0, saved.stderr
    (folder,) = (tmp_path / "kept").iterdir()
    assert load(folder / "model.safetensors").parameters_records["model"].to_numpy()["w"].shape == (9_000,)
    again = serving.umbel("run", "app", "--server", serving.url, "--resume", "1")
    assert (again.returncode, "run 1 is complete" in again.stderr) == (1, True)


def test_a_main_that_is_killed_and_run_again_is_told_the_same_and_goes_on(serving, expected, tmp_path):
    main = drive(serving, "--set", "pause=0.2")
    has_begun(serving, 2)
    main.send_signal(signal.SIGKILL)
    main.wait(60)
    again = drive(serving, "--set", "pause=0.2", "--resume", "1", output="again")
    assert ended(serving, again, "again") == expected
    assert told(serving, "again")[:2] == told(serving, "main")[:2]
    assert trained(tmp_path) == ONCE
    assert serving.umbel("runs", "show", "1", "--json").returncode == 0


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_does_not_disturb_a_main(serving, expected, tmp_path):
    main = drive(serving, "--set", "pause=0.2")
    has_begun(serving, 1)
    serving.server.send_signal(signal.SIGKILL)
    serving.server.wait(60)
    serving.serve()
    assert ended(serving, main, "main") == expected
    assert trained(tmp_path) == ONCE


@pytest.mark.slow
def test_both_are_killed(serving, expected, tmp_path):
    main = drive(serving, "--set", "pause=0.2")
    has_begun(serving, 1)
    for process in (serving.server, main):
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    serving.serve()
    again = drive(serving, "--set", "pause=0.2", "--resume", "1", output="again")
    assert ended(serving, again, "again") == expected
    assert trained(tmp_path) == ONCE


@pytest.mark.slow
def test_a_main_that_asks_something_else_is_refused_by_name(serving, app, expected, tmp_path):
    main = drive(serving, "--set", "pause=0.2")
    has_begun(serving, 2)
    main.send_signal(signal.SIGKILL)
    main.wait(60)
    code = (app / "app.py").read_text()
    (app / "app.py").write_text(code.replace("/ len(came)", "/ len(came) + 1"))
    refused = serving.umbel("run", "app", "--server", serving.url, "--set", "pause=0.2", "--resume", "1")
    assert refused.returncode == 1
    assert (
        "in call 4 what it asked before, 2 messages of type 'train' in round 2, got another content" in refused.stderr
    )
    other = serving.umbel("run", "app", "--server", serving.url, "--resume", "1")
    assert "run 1 was begun with config" in other.stderr
    (app / "app.py").write_text(code)
    assert (
        digest_of(serving.umbel("run", "app", "--server", serving.url, "--set", "pause=0.2", "--resume", "1"))
        == expected
    )
    assert trained(tmp_path) == ONCE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "in_hand"),
    [
        ('        print("round"', set()),  # every answer of the round has come: nothing is trained twice
        ("        came = {}\n", {f"{name} 3" for name in SITES}),  # given up with the main, and asked for again
    ],
)
def test_a_main_that_fails_can_be_mended_and_goes_on(serving, app, expected, tmp_path, before, in_hand):
    code = (app / "app.py").read_text()
    (app / "app.py").write_text(code.replace(before, f"        1 / (number - 3)\n{before}"))
    failed = serving.umbel("run", "app", "--server", serving.url)
    assert "ZeroDivisionError" in failed.stderr
    assert "--resume 1" in failed.stderr
    row = json.loads(serving.umbel("runs", "list", "--json").stdout)["runs"][0]
    assert (row["status"], "ZeroDivisionError" in row["reason"]) == ("failed", True)
    (app / "app.py").write_text(code)
    assert digest_of(serving.umbel("run", "app", "--server", serving.url, "--resume", "1")) == expected
    found = trained(tmp_path)
    assert found == ONCE | {asked: found[asked] for asked in in_hand}


@pytest.mark.slow
def test_a_run_that_is_stopped_ends_its_main_and_can_go_on(serving, expected, tmp_path):
    main = drive(serving, "--set", "pause=0.5")
    has_begun(serving, 1)
    stopped = serving.umbel("runs", "stop", "1")
    assert "--resume 1" in stopped.stdout
    assert main.wait(60) == 1
    assert "got one that" in (serving.folder / "main.err").read_text()
    assert json.loads(serving.umbel("runs", "list", "--json").stdout)["runs"][0]["status"] == "stopped"
    refused = serving.umbel("runs", "resume", "1")
    assert "goes on where its main is" in refused.stderr
    again = serving.umbel("run", "app", "--server", serving.url, "--set", "pause=0.5", "--resume", "1")
    assert digest_of(again) == expected
    counts = trained(tmp_path)
    assert counts.keys() == ONCE.keys()


@pytest.mark.slow
def test_a_user_runs_a_main_where_the_operator_lets_users(serving, expected, tmp_path):
    eve = {"UMBEL_CONFIG_DIR": str(tmp_path / "eve")}
    line = json.loads(serving.umbel("token", "--user", "--json").stdout)["address"]
    refused = serving.umbel("run", "app", "--server", line, **eve)
    assert refused.returncode == 77
    assert "umbel server --mains lets users as well" in refused.stderr
    assert json.loads(serving.umbel("runs", "list", "--json").stdout)["runs"] == []
    serving.server.terminate()
    serving.server.wait(60)
    serving.serve("--mains")
    assert digest_of(serving.umbel("run", "app", "--server", serving.url, **eve)) == expected
    assert trained(tmp_path) == ONCE
