"""Five hundred sockets that dawdle, in four forms, while two honest nodes train: rounds take as long as before."""

import itertools
import resource
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest

from by_hand import Actor
from federation import wait_for
from system import check, federating, submit
from umbel.http import Identity, SignedRequest, sign
from umbel.http._signature import EMPTY, digest_of

SOCKETS, ROUNDS, TRIES = 500, 40, 4
STALL = 2.0  # seconds

SILENT = b""
HALF_A_HEADER = b"POST /v1/poll HTTP/1.1\r\nHost: server\r\nX-Slow: "
HALF_A_BODY = (
    b"POST /v1/join HTTP/1.1\r\nHost: server\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{"
)
MODEL = 16 * 2**20  # bytes, more than fit between two ends


class Attackers:
    """Sockets in a thread of their own; each that the server closes is opened again. A context manager.

    ``unread`` makes the request whose answer nobody reads.
    """

    def __init__(self, port, unread):
        self._port = port
        self._unread = unread
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._open = []
        self.closed = dict.fromkeys(("silent", "header", "body", "unread"), 0)

    def __enter__(self):
        self._open = [(form, self._connected(form)) for form in (*self.closed,) * (SOCKETS // len(self.closed))]
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join(30)
        for _, sock in self._open:
            sock.close()

    def _connected(self, form):
        first = {"silent": SILENT, "header": HALF_A_HEADER, "body": HALF_A_BODY}
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(30)
        sock.connect(("127.0.0.1", self._port))
        sock.setblocking(False)
        with suppress(OSError):
            sock.send(first[form] if form in first else self._unread())
        return sock

    def _run(self):
        while not self._done.wait(0.2):
            for number, (form, sock) in enumerate(self._open):
                if self._is_closed(form, sock):
                    sock.close()
                    self.closed[form] += 1
                    self._open[number] = (form, self._connected(form))

    def _is_closed(self, form, sock):
        if form == "unread":  # hears of its end by the error alone
            return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
        try:
            if form != "silent":
                sock.send(b" ")
            return sock.recv(4096) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


@contextmanager
def members(federation):
    """Users who may fetch a large blob; what is returned makes a request of one of them for it, signed anew."""
    about = federation.about
    data = bytes(range(256)) * (MODEL // 256)
    digest = digest_of(data)
    with ExitStack() as held:
        operator = held.enter_context(Actor(about.url, Identity.load(about.key_file), about.member))
        users = [held.enter_context(operator.newcomer(f"user-{number}", "user")) for number in range(3)]
        operator.runner.run(operator.client.put_blob(digest, data))
        turns = itertools.cycle(users)

        def unread():
            user, target = next(turns), f"/v1/blobs/{digest}"
            given = {"audience": user.client._audience, "member": user.member, "expires": int(time.time()) + 30}
            header = sign(user.identity, SignedRequest("GET", target, EMPTY), **given)
            lines = f"GET {target} HTTP/1.1", "Host: server", "Umbel-Version: 1", f"Authorization: {header}", "", ""
            return "\r\n".join(lines).encode()

        yield unread


@pytest.fixture
def files():
    """Room for so many descriptors in this process and in those that it starts."""
    kept = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(kept[0], 8_192), kept[1]), kept[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, kept)


def median_round(federation):
    """The median seconds of a round, whose run must have the right bytes."""
    view = check(federation, submit(federation, rounds=ROUNDS), rounds=ROUNDS)
    seconds = sorted(sum(report["seconds"].values()) for report in view.reports)
    return seconds[len(seconds) // 2]


@pytest.mark.slow
def test_five_hundred_that_dawdle_do_not_slow_two_that_train(tmp_path, files):
    with federating(tmp_path, server={"stall": STALL}) as federation, members(federation) as unread:
        median_round(federation)
        ratios = []
        while len(ratios) < TRIES and min(ratios, default=9.0) > 2.0:
            alone = median_round(federation)
            with Attackers(federation.port, unread) as attackers:
                time.sleep(2 * STALL)  # until those of the first moment are due to be closed
                ratios.append(median_round(federation) / alone)
                wait_for(lambda: all(attackers.closed.values()), f"each form is closed: {attackers.closed}")
        assert min(ratios) <= 2.0, ratios
