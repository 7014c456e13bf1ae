"""Who is let in: keys that are in two places, members that are shut out, tokens that are used up, clients of old."""

import http.client
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from by_hand import Actor, serving
from federation import wait_for
from system import LARGE, check, each_once, federating, handled, submit
from umbel import errors
from umbel.http import ENDPOINTS, wire
from umbel.http.wire import VERSION


@pytest.mark.parametrize("size", [9, LARGE])
def test_a_folder_that_was_copied_while_the_node_trains(tmp_path, size):
    """Of two processes with one key the newest is the node; nothing counts twice, and the bytes stay the same."""
    with federating(tmp_path) as federation:
        (_, north, _) = federation.processes
        run = submit(federation, size, seconds=1.0)
        wait_for(lambda: "north 1" in handled(federation), "it trains")
        north.process.send_signal(signal.SIGSTOP)  # or the copy would be a round behind
        ignored = shutil.ignore_patterns("status.*")
        shutil.copytree(federation.folder / "north", federation.folder / "copy", ignore=ignored)
        copy = federation.node("north", place="copy")
        wait_for(lambda: handled(federation)["north 1"] == 2, "the copy trains")
        north.process.send_signal(signal.SIGCONT)
        assert north.wait() == 1
        assert "NodeSuperseded: " in north.log.read_text().splitlines()[-1]
        check(federation, run, size)
        assert copy.is_running
        assert handled(federation) == each_once() | {"north 1": 2}, "only what both had begun was trained by both"


def test_a_node_that_is_shut_out_while_it_trains(tmp_path):
    """It ends within five seconds, its answer counts no more, and the run goes on without it."""
    with federating(tmp_path) as federation:
        (_, north, _) = federation.processes
        run = submit(federation, seconds=1.0)
        wait_for(lambda: "north 2" in handled(federation), "it trains")
        member = next(each.member for each in federation.call("list_nodes").nodes if each.name == "north")
        federation.call("revoke_member", member=member)
        began = time.monotonic()
        assert north.wait() == 1
        assert time.monotonic() - began < 5
        assert "UnknownMember" in north.log.read_text().splitlines()[-1]
        view = federation.completed(run)
        found = {(each.node, each.round): each.outcome for each in view.questions if each.phase == "train"}
        assert (found["north", 1], found["north", 2], found["south", 3]) == ("accepted", "lost", "accepted")
        assert ("north", 3) not in found
        assert [each.reason for each in view.questions if each.outcome == "lost"] == ["node 'north' was revoked"]


@pytest.fixture
def operator(tmp_path):
    with serving(tmp_path / "server") as made:
        yield made


def knock(operator, secret, name):
    """Try to join with a secret."""
    with Actor(operator.url) as actor:
        body = {"key": actor.identity.key, "kind": "node", "name": name, "app": "a", "types": [], "release": "0"}
        return actor.call("join", wire.Join(secret=secret, **body))


def test_tokens_that_open_nothing(operator):
    used = operator.call("make_token", wire.TokenRequest())
    assert knock(operator, used.secret, "north").name == "north"
    revoked = operator.call("make_token", wire.TokenRequest())
    operator.call("revoke_token", token=revoked.token)
    short = operator.call("make_token", wire.TokenRequest(valid=0.2))
    time.sleep(0.3)  # as long as it is good
    for made, error, said in (
        (used, errors.TokenUsed, "used"),
        (revoked, errors.TokenRevoked, "taken back|revoked"),
        (short, errors.TokenExpired, "ask for a new one"),
    ):
        with pytest.raises(error, match=said):
            knock(operator, made.secret, "south")
    with pytest.raises(errors.TokenUnknown):
        knock(operator, bytes(16), "south")
    assert [row.name for row in operator.call("list_nodes").nodes] == ["north"]


def test_a_token_that_is_used_by_many_at_once_opens_once(operator):
    made = operator.call("make_token", wire.TokenRequest())

    def attempt(number):
        try:
            return knock(operator, made.secret, f"node-{number}").name
        except errors.TokenUsed:
            return ""

    with ThreadPoolExecutor(8) as pool:
        let_in = [name for name in pool.map(attempt, range(8)) if name]
    assert [row.name for row in operator.call("list_nodes").nodes] == let_in
    assert len(let_in) == 1


@pytest.mark.parametrize(
    ("said", "side"), [(f"{VERSION + 1}", "server"), ("0", "client"), ("", "client"), ("x", "client")]
)
def test_a_client_of_another_version(operator, said, side):
    """Every signed endpoint of a full server says, before anything else, which side is to be updated."""
    address = operator.url.removeprefix("http://")
    for endpoint in ENDPOINTS:
        if not endpoint.who:
            continue
        path = endpoint.path.format(digest=f"blake3:{64 * '0'}", run=1, member=1, token=1)
        path += "?size=1&offset=0" if endpoint.name == "put_blob" else ""
        connection = http.client.HTTPConnection(address, timeout=20)
        connection.request(endpoint.method, path, headers={"Umbel-Version": said} if said else {})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        assert (answer.status, answer.getheader("Umbel-Error")) == (426, "http.version"), endpoint.name
        expected = (
            f"expected version {VERSION} of the protocol, which this server speaks, got {said!r}: update the {side}"
        )
        assert endpoint.method == "HEAD" or expected in text.replace("\\u0027", "'")


def test_a_node_that_is_started_again_after_it_was_shut_out(tmp_path):
    with federating(tmp_path, nodes=["north"]) as federation:
        (_, north) = federation.processes
        wait_for(lambda: federation.call("list_nodes").nodes, "it joined")
        assert wait_for(lambda: federation.status("north").state == "connected", "it is connected")
        north.end(signal.SIGTERM)
        federation.call("revoke_member", member=federation.call("list_nodes").nodes[0].member)
        again = federation.node("north")
        assert again.wait() == 1
        assert "UnknownMember" in again.log.read_text().splitlines()[-1]
