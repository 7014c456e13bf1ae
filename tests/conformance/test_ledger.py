"""The shipped suite of ledgers, on SQLite and on PostgreSQL."""

import pytest

from umbel.store import Ledger
from umbel.testing import LedgerTests


class TestLedger(LedgerTests):
    @pytest.fixture
    def open_ledger(self, ledger_url):
        return lambda: Ledger.open(ledger_url)
