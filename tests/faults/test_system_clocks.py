"""Clocks that are wrong, or jump, on either side: signatures, times to live and the bytes at the end do not mind."""

from pathlib import Path

import pytest

from federation import wait_for
from system import check, each_once, federating, handled, submit

LIBRARY = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
#: The steady clock is left alone, as a wrong time of day leaves it.
FAKED = ("env", f"LD_PRELOAD={LIBRARY}", "DONT_FAKE_MONOTONIC=1", "FAKETIME_DONT_FAKE_MONOTONIC=1")

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="faketime is not installed here")


def slow(*values):
    """A case that is not tried each time."""
    return pytest.param(*values, marks=pytest.mark.slow)


JUMPS = pytest.mark.parametrize("jumps", [("+1d", "-1d"), slow(("+10m", "-10m"))], ids=["days", "minutes"])


def off_by(offset):
    """A command under which a process has a clock that is off."""
    return (*FAKED, f"FAKETIME={offset}")


def set_by(path):
    """A command under which a process has a clock that is off by what stands in a file, at any moment."""
    return (*FAKED, f"FAKETIME_TIMESTAMP_FILE={path}", "FAKETIME_NO_CACHE=1")


@pytest.mark.parametrize(
    ("offset", "tls"),
    [("-10m", False), ("+10m", True), *(slow(each, tls) for each in ("-1d", "+1d") for tls in (False, True))],
)
def test_a_node_whose_clock_is_wrong(tmp_path, offset, tls):
    """Signatures last a minute at most, and are judged by the server's clock, which the node asks for."""
    with federating(tmp_path, nodes=["south"], plain=not tls) as federation:
        north = federation.node("north", prefix=off_by(offset))
        check(federation, submit(federation))
        assert handled(federation) == each_once()
        assert north.is_running


@pytest.mark.parametrize("offset", ["-10m", slow("+10m"), "+1d"])
def test_a_server_whose_clock_is_wrong(tmp_path, offset):
    """A restart in the middle of the run finds another time of day: with one a day on, nobody's time has run out."""
    with federating(tmp_path) as federation:
        run = submit(federation, seconds=0.5)
        wait_for(lambda: "north 2" in handled(federation), "the second round trains")
        federation.serving.end()
        federation.serving = federation.serve(prefix=off_by(offset))
        check(federation, run)
        assert handled(federation) == each_once()


@JUMPS
def test_the_clock_of_the_server_jumps_while_nodes_train(tmp_path, jumps):
    """A day is more than messages have to live."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    with federating(tmp_path) as federation:
        federation.serving.end()
        federation.serving = federation.serve(prefix=set_by(clock))
        run = submit(federation, seconds=1.5)
        for number, jump in enumerate(jumps, 1):
            wait_for(lambda number=number: f"north {number}" in handled(federation), "it trains")
            clock.write_text(jump)
        check(federation, run)
        assert handled(federation) == each_once()


@JUMPS
def test_the_clock_of_a_node_jumps_while_it_trains(tmp_path, jumps):
    clock = tmp_path / "clock"
    clock.write_text("+0")
    with federating(tmp_path, nodes=["south"]) as federation:
        federation.node("north", prefix=set_by(clock))
        run = submit(federation, seconds=0.5)
        for number, jump in enumerate(jumps, 1):
            wait_for(lambda number=number: f"north {number}" in handled(federation), "it trains")
            clock.write_text(jump)
        check(federation, run)
        assert handled(federation) == each_once()
