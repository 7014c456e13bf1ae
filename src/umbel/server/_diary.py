"""What happens at a server and matters to its operator: a line each, for whoever listens to ``umbel.server``."""

import logging
from typing import Final

_LOG: Final = logging.getLogger("umbel.server")


def note(text: str, **fields: object) -> None:
    """Write a line; ``fields`` are the same for programs, under ``umbel`` of the log record."""
    _LOG.info("%s", text, extra={"umbel": fields})
