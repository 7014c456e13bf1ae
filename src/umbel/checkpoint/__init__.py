"""Checkpoints: a folder that holds a run as of its last completed round, whatever happened since."""

from umbel.checkpoint._folder import Checkpoint, exists, hold, read, write

__all__ = ["Checkpoint", "exists", "hold", "read", "write"]
