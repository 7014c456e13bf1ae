"""What ends a node, by name; what its operator forbids; and what the server gives up."""

import asyncio
import shutil
import signal
import time

import numpy as np
import pytest

from federation import Federation, wait_for
from umbel import errors
from umbel.http import wire
from umbel.node import Node, Settings

APP = """
import os, time
import numpy as np
from umbel.app import ClientApp
from umbel.records import MetricsRecord, ParametersRecord, RecordSet

app = ClientApp()


@app.train()
def train(message, context):
    how = context.run_config.get("how", "")
    with open(context.run_config["log"], "a") as log:
        log.write(f"{context.node_name} begins\\n")
    if how == context.node_name + " is stuck":
        time.sleep(60)
    if how == "allocate":
        np.ones(2**28)
    if how == "raise":
        raise ValueError("no rows")
    model = message.content.parameters_records["model"]
    if how == "grow":
        model = ParametersRecord.from_numpy({"w": np.zeros(100_000)})
    return message.create_reply(RecordSet({"model": model}, {"metrics": MetricsRecord({"num-examples": 1})}))
"""


@pytest.fixture
def federation(tmp_path):
    (tmp_path / "site_app.py").write_text(APP)
    made = Federation(tmp_path / "federation", tmp_path)
    made.serve()
    yield made
    made.close()


def submit(federation, size=9, rounds=2, **config):
    log = str(federation.folder / "handled.log")
    model = {"w": np.zeros(size, np.float32)}
    return federation.submit(model, nodes=["north", "south"], rounds=rounds, log=log, **config)


def ended(process):
    """Wait for a node to end by itself, and return the class of the error that ended it."""
    assert process.wait() == 1
    return process.log.read_text().strip().splitlines()[-1].partition(":")[0].rpartition(".")[2]


def reasons(federation, run, name="north"):
    return [each.reason for each in federation.view(run).questions if each.node == name]


def member_of(federation, name):
    return wait_for(
        lambda: next((each.member for each in federation.call("list_nodes").nodes if each.name == name), 0), "it joined"
    )


def settings(federation, name="north", **changes):
    told = {
        "url": federation.about.url,
        "app": "site_app:app",
        "folder": federation.folder / name,
        "name": name,
        "app_folder": federation.app_folder,
    }
    return Settings(**told | changes)


def be(told):
    asyncio.run(Node(told).run())


# What ends a node.


def test_a_revoked_node_ends_with_the_reason(federation):
    north = federation.node("north")
    federation.call("revoke_member", member=member_of(federation, "north"))
    began = time.monotonic()
    assert ended(north) == "UnknownMember"
    assert time.monotonic() - began < 5
    status = federation.status("north")
    assert status.state == "ended"
    assert status.reason
    again = federation.node("north")
    assert again.wait() != 0


def test_a_second_process_with_the_folder_is_refused(federation):
    north = federation.node("north")
    member_of(federation, "north")
    with pytest.raises(errors.SpoolInUse, match="another process"):
        be(settings(federation))
    assert north.is_running


def test_of_two_machines_with_one_key_the_newest_is_the_node(federation):
    north = federation.node("north")
    member_of(federation, "north")
    wait_for(lambda: federation.status("north").state == "connected", "it is connected")
    shutil.copytree(federation.folder / "north", federation.folder / "copy")
    copy = federation.node("north", place="copy")
    assert ended(north) == "NodeSuperseded"
    assert federation.status("north").state == "ended"
    federation.node("south")
    assert federation.completed(submit(federation)).row.completed == 2
    assert copy.is_running


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, errors.UsageError),
        ({"secret": bytes(16)}, errors.TokenUnknown),
        ({"app": "site_app:nothing", "secret": bytes(16)}, errors.AppError),
        ({"url": "http://127.0.0.1:1", "app": "nowhere:app", "secret": b"s"}, errors.AppError),
    ],
)
def test_what_ends_a_node_before_it_joins(federation, changes, kind):
    with pytest.raises(kind):
        be(settings(federation, **changes))
    assert federation.call("list_nodes").nodes == []


def test_a_token_that_was_used(federation):
    token = federation.call("make_token", wire.TokenRequest())
    north = federation.node("north", secret=False)
    assert ended(north) == "UsageError"
    first = settings(federation, "east", secret=token.secret)
    told = asyncio.run(_joined(first))
    assert told == "connected"
    with pytest.raises(errors.TokenUsed):
        be(settings(federation, "west", secret=token.secret))


async def _joined(told):
    """Be a node until it is connected and has joined; return its state."""
    states = []
    node = Node(told, lambda status: states.append(status.state))
    running = asyncio.ensure_future(node.run())
    while not (told.folder / "member.json").exists():
        await asyncio.sleep(0.02)
        assert not running.done(), running.exception()
    node.stop()
    await running
    assert states[-1] == "ended"
    return states[-2]


def test_a_name_that_is_taken(federation):
    federation.node("north")
    member_of(federation, "north")
    secret = federation.call("make_token", wire.TokenRequest()).secret
    with pytest.raises(errors.NameTaken):
        be(settings(federation, folder=federation.folder / "other", secret=secret))


def test_a_folder_belongs_to_one_node_of_one_server(federation, tmp_path):
    north = federation.node("north")
    member_of(federation, "north")
    wait_for(lambda: federation.status("north").state == "connected", "it is connected")
    assert north.end(signal.SIGTERM) == 0
    with pytest.raises(errors.UsageError, match="whose folder this is"):
        be(settings(federation, "east", folder=federation.folder / "north"))
    other = Federation(tmp_path / "other", tmp_path)
    try:
        other.serve()
        with pytest.raises(errors.UmbelError, match="use another folder"):
            be(settings(federation, url=other.about.url))
    finally:
        other.close()


def test_a_server_whose_key_is_another(tmp_path):
    (tmp_path / "site_app.py").write_text(APP)
    made = Federation(tmp_path / "federation", tmp_path, plain=False)
    try:
        made.serve()
        other = made.about.fingerprint[::-1]
        secret = made.call("make_token", wire.TokenRequest()).secret
        with pytest.raises(errors.WrongFingerprint):
            be(settings(made, secret=secret, fingerprint=other))
        assert made.call("list_nodes").nodes == []
        with pytest.raises(errors.TlsError):  # a certificate that the server made itself, and no fingerprint
            be(settings(made, secret=secret))
        assert made.status("north").state == "ended"
    finally:
        made.close()


def test_a_host_that_has_no_address_ends_a_node_that_has_not_joined(tmp_path, monkeypatch):
    monkeypatch.setattr("umbel.node._line._NAMELESS", 0.5)
    (tmp_path / "site_app.py").write_text(APP)
    told = Settings(
        url="https://umbel.invalid", app="site_app:app", folder=tmp_path / "north", secret=b"s", app_folder=tmp_path
    )
    seen = []
    with pytest.raises(errors.ServerUnreachable, match=r"got umbel\.invalid, which has no address here"):
        asyncio.run(Node(told, watch=seen.append).run())
    states = list(dict.fromkeys(status.state for status in seen))
    assert states == ["starting", "away", "ended"]


def test_a_node_is_connected_once_the_server_has_recognised_it(federation):
    north = federation.node("north")
    member = member_of(federation, "north")
    assert north.end(signal.SIGTERM) == 0
    federation.call("revoke_member", member=member)
    seen = []
    with pytest.raises(errors.AuthError):
        asyncio.run(Node(settings(federation), watch=seen.append).run())
    assert "connected" not in [status.state for status in seen]
    with pytest.raises(errors.TokenError):
        asyncio.run(Node(settings(federation, "east", secret=b"none"), watch=seen.append).run())
    assert "connected" not in [status.state for status in seen]


# What the operator of a node forbids.


@pytest.mark.parametrize(
    ("rule", "config", "said"),
    [
        ({"runs": ["pilot-*"]}, {}, 'by the rule "runs"'),
        ({"types": ["evaluate"]}, {}, 'by the rule "types"'),
        ({"largest_body": 100}, {}, 'by the rule "largest_body": the instruction has'),
        ({"largest_body": 10_000}, {"how": "grow"}, 'by the rule "largest_body": the reply has'),
        ({"memory": 10**9}, {"how": "allocate"}, "1,000,000,000 bytes of memory"),
        ({"handler": 1.0}, {"how": "north is stuck"}, "longer than the 1 s"),
        ({}, {"how": "raise"}, "ValueError: no rows"),
        ({"tracebacks": True}, {"how": "raise"}, "site_app.py"),
    ],
)
def test_what_the_operator_forbids_is_an_error_reply_with_the_rule(federation, rule, config, said):
    federation.node("north", policy=rule)
    federation.node("south")
    run = submit(federation, rounds=1, **config)
    wait_for(lambda: any(reasons(federation, run)), "the node answers")
    assert said in reasons(federation, run)[0]
    assert ("site_app.py" in reasons(federation, run)[0]) == bool(rule.get("tracebacks"))
    wait_for(lambda: said in federation.status("north").last_error, "the node says so too")


# What the server gives up.


def test_a_run_that_is_stopped_stops_its_handlers(federation):
    for name in ("north", "south"):
        federation.node(name)
    run = submit(federation, how="north is stuck")
    wait_for(lambda: "north begins" in _log(federation), "the handler runs")
    federation.call("stop_run", run=run)
    wait_for(lambda: federation.status("north").running is None, "the node lets go", 10)
    wait_for(lambda: federation.status("north").holding == 0, "the node has forgotten it")
    wait_for(lambda: federation.view(run).row.status == "stopped", "the run stops")
    again = submit(federation)
    assert federation.completed(again).row.completed == 2


def _log(federation):
    path = federation.folder / "handled.log"
    return path.read_text() if path.exists() else ""
