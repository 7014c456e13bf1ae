"""Conformance suites that anyone can run on a store or an engine of their own, with pytest.

A suite is a class of tests. Inherit from it and give the fixture or method that its docstring names.
"""

from umbel.testing._blobs import BlobStoreTests
from umbel.testing._grid import GridTests
from umbel.testing._grid_app import grid_app
from umbel.testing._ledger import LedgerTests

__all__ = ["BlobStoreTests", "GridTests", "LedgerTests", "grid_app"]
