"""What a server or a node logs, on standard error: a line for each event that matters, or an object in JSON."""

import logging
import sys
import time
from typing import Final

from umbel.cli._screen import as_json
from umbel.cli._text import safe

_OURS: Final = "umbel"


def log_to_stderr(*, json_wanted: bool) -> None:
    """Let what Umbel logs go to standard error; other libraries are heard from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if json_wanted else _Plain())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger(_OURS).setLevel(logging.INFO)


class _Plain(logging.Formatter):
    """``15:45:02 node site-1 joined``; nothing of it can steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        mark = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        lines = [record.getMessage(), *([self.formatException(record.exc_info)] if record.exc_info else [])]
        return f"{clock} {mark}" + "\n      ".join(safe(line) for text in lines for line in text.split("\n"))


class _Json(logging.Formatter):
    """One object a line, with the fields that the event was given."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "umbel", {})
        error = {"traceback": self.formatException(record.exc_info)} if record.exc_info else {}
        shown = {"time": record.created, "level": record.levelname.lower(), "text": record.getMessage()}
        return as_json({**shown, **fields, **error})
