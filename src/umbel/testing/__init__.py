"""Conformance suites that anyone can run on a store of their own, with pytest.

A suite is a class of tests. Inherit from it and give the fixture that its docstring names.
"""

from umbel.testing._blobs import BlobStoreTests
from umbel.testing._ledger import LedgerTests

__all__ = ["BlobStoreTests", "LedgerTests"]
