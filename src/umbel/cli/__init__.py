"""The command line: ``umbel run``, ``inspect``, ``diff``, ``new``, ``version``."""

from umbel.cli._main import main

__all__ = ["main"]
