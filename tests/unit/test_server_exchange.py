"""Where drivers meet the event loop: what they ask of it ends, whatever becomes of the loop."""

import asyncio
import threading
import time

import pytest

from umbel.server._desk import Desk
from umbel.server._exchange import Exchange
from umbel.server._plans import Halted
from umbel.server._presence import Presence

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
