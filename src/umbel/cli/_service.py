"""What the commands that go on have in common: what they log on standard error, and where a test may kill them."""

import contextlib
import logging
import os
import sys
import time
from typing import Final

from umbel.cli._screen import as_json
from umbel.cli._text import safe
from umbel.failpoint import arm

_OURS: Final = "umbel"
_FAILPOINT: Final = "UMBEL_FAILPOINT"
_LOG: Final = logging.getLogger("umbel.cli")


def begin_service(*, json_wanted: bool) -> None:
    """Let what Umbel logs go to standard error, other libraries from warnings on; arm ``UMBEL_FAILPOINT``."""
    if os.environ.get(_FAILPOINT):
        arm(os.environ[_FAILPOINT])
    root = logging.getLogger()
    for before in [each for each in root.handlers if isinstance(each, _ToStderr)]:
        root.removeHandler(before)
    handler = _ToStderr()
    handler.setFormatter(_Json() if json_wanted else _Plain())
    root.addHandler(handler)
    logging.getLogger(_OURS).setLevel(logging.INFO)


class _ToStderr(logging.Handler):
    """Writes to what is the standard error at the time; whoever has closed it does not want to know."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()


def tell(text: str, **fields: object) -> None:
    """Say one line of what happens; ``fields`` are for JSON."""
    _LOG.info("%s", text, extra={"umbel": fields})


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
