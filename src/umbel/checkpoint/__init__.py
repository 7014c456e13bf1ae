"""Checkpoints: a folder that holds a run as of its last completed round, whatever happened since."""

from umbel.checkpoint._folder import Checkpoint, exists, read, write

__all__ = ["Checkpoint", "exists", "read", "write"]
