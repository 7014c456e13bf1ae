"""An app whose nodes are run by the user of this terminal: a reason may say which line of the app failed."""

import re

from umbel.app import ClientApp
from umbel.cli._failure import foreign, short
from umbel.context import Context
from umbel.message import Error, Message

_TRACE = "\nTraceback (most recent call last):\n"
_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+), in (?P<name>.+)$', re.MULTILINE)


class OperatedApp(ClientApp):
    """An app like ``app``, with the place in the reason of an error reply: the line alone, or the whole traceback."""

    def __init__(self, app: ClientApp, *, tracebacks: bool = False) -> None:
        super().__init__()
        self._app = app
        self._tracebacks = tracebacks

    def handles(self, message_type: str) -> bool:
        """Return whether the app has a handler for this type of message."""
        return self._app.handles(message_type)

    @property
    def origin(self) -> ClientApp:
        """The app that its module holds."""
        return self._app.origin

    def __call__(self, message: Message, context: Context, *, tracebacks: bool = False) -> Message:
        """Handle one message as the app does."""
        reply = self._app(message, context, tracebacks=True)
        return reply if tracebacks or not reply.has_error() else self.retell(reply)

    def retell(self, reply: Message) -> Message:
        """Put the place where an error of the app's was raised into its reason, instead of the traceback."""
        if self._tracebacks:
            return reply
        reason, _, trace = (reply.error.reason or "").partition(_TRACE)
        places = [found for found in _FRAME.finditer(trace) if not foreign(found["file"])]
        if places:
            reason += f" - at {short(places[-1]['file'])} line {places[-1]['line']}, in {places[-1]['name']}"
        return Message(reply.metadata, error=Error(reply.error.code, reason))
