"""Conformance suites that anyone can run on a store, an engine or a codec of their own."""

from umbel.testing._grid import GridTests
from umbel.testing._grid_app import grid_app

__all__ = ["GridTests", "grid_app"]
