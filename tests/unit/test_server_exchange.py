"""Where drivers meet the event loop: what they ask of it ends, whatever becomes of the loop."""

import asyncio
import threading
import time

import pytest

from umbel.envelope import Content, Part
from umbel.http.wire import Task
from umbel.server._delivery import _raise_fences
from umbel.server._desk import Desk
from umbel.server._exchange import Exchange
from umbel.server._plans import Fate, Halted
from umbel.server._presence import Presence
from umbel.store import Ledger, messages
from umbel.testing._scene import Planned

PATIENCE = 20.0  # seconds before a test gives up


class Asking:
    """A thread that asks something of the loop, as drivers do."""

    def __init__(self, exchange):
        self.answer = None
        self._exchange = exchange
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self):
        try:
            self.answer = self._exchange.on_loop(lambda: "an answer")
        except (Halted, RuntimeError) as error:
            self.answer = error

    def wait(self):
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "it waits for ever"
        return self.answer


def exchange_for():
    return Exchange(None, Desk(), Presence(9.0), None)


def test_the_loop_answers():
    async def main():
        asking = Asking(exchange_for())
        assert await asyncio.to_thread(asking.wait) == "an answer"

    asyncio.run(main())


def test_who_waits_when_the_loop_ends_waits_no_more():
    async def main():
        exchange = exchange_for()
        asking = Asking(exchange)
        deadline = time.monotonic() + PATIENCE
        while not exchange._asked:  # the loop does not come to it: this is the loop
            assert time.monotonic() < deadline
        exchange.close()
        assert isinstance(asking.wait(), Halted)

    asyncio.run(main())


def test_a_loop_that_has_ended_is_not_waited_for():
    loop = asyncio.new_event_loop()

    async def main():
        exchange = exchange_for()
        exchange.close()
        return exchange

    exchange = loop.run_until_complete(main())
    try:
        assert isinstance(Asking(exchange).wait(), Halted)
    finally:
        loop.close()
    with pytest.raises(Halted):
        exchange.on_loop(lambda: "an answer")


def task(scene, message=11, fence=1):
    return Task(
        run=scene.run,
        run_name="run",
        message=message,
        fence=fence,
        round=1,
        message_type="train",
        seed=1,
        created_at=0.0,
        ttl=9.0,
        run_config={},
        content=Content((), Part("blake3:" + 64 * "0", 0, b"")),
    )


@pytest.fixture
def scene(tmp_path):
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        yield Planned(ledger)


def test_a_poll_passes_over_what_has_gone_to_another_node(scene):
    north, south = (node.id for node in scene.nodes)
    scene.plan(2)
    scene.ledger.write(lambda connection: messages.reassign(connection, (scene.run, 11), node=south)).result()
    held = [task(scene, 11), task(scene, 21)]
    renewed = scene.ledger.write(lambda connection: _raise_fences(connection, north, held)).result()
    assert [(each.message, each.fence) for each in renewed] == [(21, 2)]
    late = scene.ledger.write(lambda connection: _raise_fences(connection, south, [task(scene, 11, 1)])).result()
    assert late == []


def test_what_has_gone_to_another_node_stays_there_when_the_first_one_ends_late(scene):
    async def main():
        desk, told = Desk(), []
        exchange = Exchange(None, desk, Presence(9.0), None)
        exchange.attach(scene.run, told.append)
        desk.open(7, task(scene))
        desk.close((scene.run, 11))
        desk.open(8, task(scene, fence=2))
        exchange.settle(7, (scene.run, 11), Fate(11, stored=True), answered=True)
        assert (len(told), desk.box(8).room, len(desk)) == (1, 0, 1)
        assert desk.find(8, (scene.run, 11)).fence == 2
        exchange.settle(8, (scene.run, 11), Fate(11, stored=True), answered=True)
        assert (len(told), len(desk)) == (2, 0)

    asyncio.run(main())
