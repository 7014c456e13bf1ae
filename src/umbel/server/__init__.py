"""A server: members, runs, and the rounds of its runs, over nodes that only call out."""

from umbel.server._folder import About, read_about
from umbel.server._server import Server
from umbel.server._settings import Settings

__all__ = ["About", "Server", "Settings", "read_about"]
