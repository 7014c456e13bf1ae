"""What lies between a node and its server repeats, drips, stops for a while, or one of the two ends is stopped."""

import re
import signal
import socket
import threading
import time

import pytest

from federation import wait_for
from proxy import Proxy
from system import LARGE, SMALL, check, each_once, federating, handled, submit

POLL = 25.0  # seconds, as servers have by default
# A request of those that nodes sign, with its body.
SIGNED = re.compile(
    rb"(?:POST|GET|HEAD) /v1/[^ ]+ HTTP/1\.1\r\n(?:[^\r]+\r\n)*?Authorization: .*?\r\n\r\n[^\r]*?(?=POST|GET|HEAD|$)",
    re.DOTALL,
)


@pytest.fixture
def lines(tmp_path):
    """A federation whose node north is behind a proxy that records what it sends."""
    with (
        federating(tmp_path, nodes=["south"], poll=POLL) as federation,
        Proxy(("127.0.0.1", federation.port), record=True) as proxy,
    ):
        federation.node("north", url=f"http://127.0.0.1:{proxy.port}")
        yield federation, proxy


def sent_again(federation, request):
    """What a server answers to the bytes of one request."""
    with socket.create_connection(("127.0.0.1", federation.port), timeout=30) as sock:
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65_536), b""))


def test_every_request_comes_again_while_the_run_goes_on(lines):
    """Each copy is refused as one, and none changes anything."""
    federation, proxy = lines
    done, refused = threading.Event(), []

    def replay():
        while not done.wait(0.05):
            for number, passed in enumerate(list(proxy.passed)):
                if passed.sent.startswith((b"POST", b"GET", b"HEAD")):
                    refused.append(proxy.replay(number).count(b"auth.replayed"))

    thread = threading.Thread(target=replay)
    thread.start()
    try:
        check(federation, submit(federation, rounds=6, seconds=0.1), rounds=6)
    finally:
        done.set()
        thread.join(30)
    assert sum(refused) > 10
    assert handled(federation) == each_once(6)


def test_what_was_recorded_opens_nothing_before_nor_after_a_restart(lines):
    federation, proxy = lines
    run = submit(federation)
    check(federation, run)
    federation.serving.end()
    federation.serving = federation.serve()
    requests = [piece for each in list(proxy.passed) for piece in SIGNED.findall(bytes(each.sent))]
    assert len(requests) > 10
    answers = [sent_again(federation, request) for request in requests]
    assert {answer.partition(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 401 Unauthorized"}
    assert all(b"Umbel-Error: auth.audience" in answer for answer in answers)
    check(federation, run)
    check(federation, submit(federation))


def test_a_line_on_which_bytes_drip(lines):
    federation, proxy = lines
    wait_for(lambda: federation.status("north") and federation.status("north").state == "connected", "it is there")
    proxy.set(drip=0.0002)
    check(federation, submit(federation, rounds=1), rounds=1)
    assert handled(federation) == each_once(1)


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("seconds", [1.0, pytest.param(30.0, marks=pytest.mark.slow)])
def test_a_line_that_is_dead_for_a_while(lines, seconds, size):
    """Shorter than the server is patient: what was trained meanwhile is kept, sent later, and counts."""
    federation, proxy = lines
    run = submit(federation, size, seconds=0.5)
    wait_for(lambda: "north 1" in handled(federation), "it trains")
    proxy.set(hold=True)
    time.sleep(seconds)  # the length of the fault itself
    proxy.clear()
    check(federation, run, size)
    assert handled(federation) == each_once()


@pytest.mark.parametrize("seconds", [2.0, pytest.param(60.0, marks=pytest.mark.slow)])
def test_a_server_that_is_stopped_for_a_while(lines, seconds):
    federation, _ = lines
    run = submit(federation, LARGE, seconds=0.3)
    wait_for(lambda: "north 1" in handled(federation), "it trains")
    process = federation.serving.process
    process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)  # the length of the fault itself
    process.send_signal(signal.SIGCONT)
    check(federation, run, LARGE)
    assert handled(federation) == each_once()


def test_a_node_that_is_stopped_for_longer_than_the_server_is_patient(tmp_path):
    """The round goes on without it; what it says later is not counted, and the next run has it again."""
    with federating(tmp_path, nodes=["south"], poll=1.0) as federation:
        north = federation.node("north").process
        run = submit(federation, seconds=0.5)
        wait_for(lambda: "north 1" in handled(federation), "it trains")
        north.send_signal(signal.SIGSTOP)
        view = federation.completed(run)
        lost = [each for each in view.questions if each.outcome != "accepted"]
        assert {each.node for each in lost} == {"north"}
        assert "north' was silent for" in lost[0].reason
        north.send_signal(signal.SIGCONT)
        wait_for(lambda: federation.status("north").state == "connected", "it is back")
        wait_for(lambda: federation.status("north").holding == 0, "it lets go of what came too late")
        check(federation, submit(federation))
