"""Apps: the functions that a node runs when a message arrives, and the function that drives a run."""

import os
import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from inspect import unwrap
from typing import Any, Final, TypeAlias, TypeVar

from umbel.context import Context
from umbel.errors import AppError
from umbel.grid import Grid
from umbel.message import Error, ErrorCode, Message, MessageType
from umbel.records._brief import both_ends

__all__ = ["ClientApp", "ServerApp"]

_Handler: TypeAlias = Callable[[Message, Context], Message]
_Mod: TypeAlias = Callable[[Message, Context, _Handler], Message]
_Main: TypeAlias = Callable[[Grid, Context], None]
_H = TypeVar("_H", bound=_Handler)
_M = TypeVar("_M", bound=_Main)

# A reason travels to the server with every failed reply: enough to find the fault, never a dump of somebody's data.
_REASON_LIMIT: Final = 2_000
_TRACEBACK_LIMIT: Final = 16_000


class ClientApp:
    """What a node does: one function for each type of message.

    >>> app = ClientApp()
    >>> @app.train()
    ... def train(message, context):
    ...     return message.create_reply(message.content)
    >>> app.handles("train"), app.handles("evaluate")
    (True, False)

    ``mods`` wrap every handler like the skins of an onion, the first one outermost: a mod is a function
    ``mod(message, context, call_next)`` that returns a reply, usually that of ``call_next(message, context)``.
    """

    def __init__(self, mods: Sequence[_Mod] = ()) -> None:
        self._mods = tuple(mods)
        self._handlers: dict[str, _Handler] = {}

    def train(self, bare: None = None, /) -> Callable[[_H], _H]:
        """Register the decorated function for ``train`` messages."""
        _require_parentheses(bare, "@app.train()", "ClientApp.train")
        return self.on(MessageType.TRAIN)

    def evaluate(self, bare: None = None, /) -> Callable[[_H], _H]:
        """Register the decorated function for ``evaluate`` messages."""
        _require_parentheses(bare, "@app.evaluate()", "ClientApp.evaluate")
        return self.on(MessageType.EVALUATE)

    def query(self, bare: None = None, /) -> Callable[[_H], _H]:
        """Register the decorated function for ``query`` messages."""
        _require_parentheses(bare, "@app.query()", "ClientApp.query")
        return self.on(MessageType.QUERY)

    def on(self, message_type: str) -> Callable[[_H], _H]:
        """Register the decorated function for messages of ``message_type``, any non-empty text.

        Raises ``AppError`` if the type has a handler already, or is no text.
        """
        if not message_type or not isinstance(message_type, str):
            shown = f"{message_type!r:.80}"
            raise AppError(f'expected a type of message, such as @app.on("train"), got {shown}', at="ClientApp.on")

        def register(handler: _H) -> _H:
            self._register(message_type, handler)
            return handler

        return register

    def _register(self, message_type: str, handler: _Handler) -> None:
        _check_function(handler, "(message, context) -> Message", _place(message_type))
        if message_type in self._handlers:
            message = f"expected one handler for each message type, got a second for {str(message_type)!r}: remove one"
            raise AppError(message, at=_place(message_type))
        for mod in reversed(self._mods):
            handler = _wrap(mod, handler)
        self._handlers[message_type] = handler

    def handles(self, message_type: str) -> bool:
        """Return whether the app has a handler for this type of message."""
        return message_type in self._handlers

    @property
    def origin(self) -> "ClientApp":
        """The app that a module holds and that other processes import: this one, or the one that it stands for."""
        return self

    def retell(self, reply: Message) -> Message:
        """Return the error reply that this app makes of one of its ``origin``'s, which ran with ``tracebacks``."""
        return reply

    @property
    def message_types(self) -> tuple[str, ...]:
        """The types of message that have a handler, in the order in which they were given one."""
        return tuple(str(name) for name in self._handlers)

    def type_of(self, function: object) -> str | None:
        """Return the type of message whose handler ``function`` is, None if it is none of this app's."""
        if not callable(function):
            return None
        inner = unwrap(function)
        found = (name for name, handler in self._handlers.items() if unwrap(handler) is inner)
        return next(map(str, found), None)

    @property
    def modules(self) -> frozenset[str]:
        """The names of the modules that its handlers are from."""
        return frozenset(getattr(handler, "__module__", "") for handler in self._handlers.values())

    def __call__(self, message: Message, context: Context, *, tracebacks: bool = False) -> Message:
        """Handle one message and return the reply to it.

        Whatever goes wrong in a handler or mod comes back as an error reply with the exception's type and text, and,
        if whoever runs the node allows ``tracebacks``, where it happened. An interrupt from the keyboard passes
        through, since it is meant for the process; ``sys.exit`` in a handler does not end a node. A copy of the process
        that a handler made with ``os.fork`` ends where it leaves the handler.

        Raises ``MessageExpired`` when the message has outlived its time to live, since then nothing may reply to it.
        """
        asked = message.metadata
        handler = self._handlers.get(asked.message_type)
        if handler is None:
            return message.create_error_reply(Error(ErrorCode.UNKNOWN_MESSAGE_TYPE, self._unknown(asked.message_type)))
        copies = _Copies.made
        try:
            reply = handler(message, context)
        except BaseException as error:  # a node outlives any fault in the code it runs
            _end_if_copied(copies, error)
            if isinstance(error, KeyboardInterrupt):
                raise
            return _failed(message, error, tracebacks=tracebacks)
        _end_if_copied(copies)
        fault = _fault(reply, message)
        return reply if fault is None else message.create_error_reply(Error(ErrorCode.BAD_REPLY, fault))

    def _unknown(self, message_type: str) -> str:
        known = ", ".join(repr(str(name)) for name in self._handlers) or "none"
        return f"this app has no handler for messages of type {str(message_type)!r}; it has handlers for: {known}"


class ServerApp:
    """A run with a loop of one's own: one function that is given a grid and a context.

    >>> app = ServerApp()
    >>> @app.main()
    ... def main(grid, context):
    ...     nodes = grid.nodes()
    """

    def __init__(self) -> None:
        self._main: _Main | None = None

    def main(self, bare: None = None, /) -> Callable[[_M], _M]:
        """Register the decorated function, ``(grid, context) -> None``; raises ``AppError`` at the second one."""
        _require_parentheses(bare, "@app.main()", "ServerApp.main")

        def register(function: _M) -> _M:
            _check_function(function, "(grid, context) -> None", "ServerApp.main")
            if self._main is not None:
                raise AppError("expected one main function, got a second: remove one", at="ServerApp.main")
            self._main = function
            return function

        return register

    def __call__(self, grid: Grid, context: Context) -> None:
        """Run the main function; raises ``AppError`` if there is none."""
        if self._main is None:
            raise AppError("expected a main function, got none: decorate one with @app.main()", at="ServerApp.main")
        self._main(grid, context)


def _place(message_type: str) -> str:
    return f"ClientApp.on({str(message_type)!r})"


def _require_parentheses(bare: object, decorator: str, at: str) -> None:
    """Raise ``AppError`` for a decorator that was given the function itself."""
    if bare is not None:
        name = getattr(bare, "__name__", type(bare).__name__)
        raise AppError(f"expected the decorator {decorator}, got none of its parentheses above {name}: add them", at=at)


def _check_function(value: object, signature: str, at: str) -> None:
    if not callable(value):
        raise AppError(f"expected a function {signature} below the decorator, got {type(value).__name__}", at=at)


def _wrap(mod: _Mod, call_next: _Handler) -> _Handler:
    @wraps(call_next)
    def call(message: Message, context: Context) -> Message:
        return mod(message, context, call_next)

    return call


class _Copies:
    """How often this process was copied with ``os.fork`` on its way from the first one: cheaper to ask than its id."""

    made = 0

    @classmethod
    def one_more(cls) -> None:
        """Count a copy, in the copy."""
        cls.made += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Copies.one_more)


def _end_if_copied(copies: int, error: BaseException | None = None) -> None:
    """End a copy of the process here: it would answer, and run the nodes that follow, as the process itself does."""
    if _Copies.made != copies:
        code = error.code or 0 if isinstance(error, SystemExit) else error is not None
        os._exit(code & 0xFF if isinstance(code, int) else 1)  # nothing of the process may be cleaned up twice


def _failed(message: Message, error: BaseException, *, tracebacks: bool) -> Message:
    reason = both_ends(_told(error, traceback.format_exception_only).strip(), _REASON_LIMIT)
    if tracebacks:
        reason = f"{reason}\n{both_ends(_told(error, traceback.format_exception), _TRACEBACK_LIMIT)}"
    # The names of files may hold bytes that are no text, which Python shows as lone surrogates.
    reason = reason.encode(errors="backslashreplace").decode()
    return message.create_error_reply(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason))


def _told(error: BaseException, form: Callable[[Any], list[str]]) -> str:
    try:
        return "".join(form(error))
    except Exception as fault:  # noqa: BLE001 - what an exception says of itself may be code of the app's own
        return f"{type(error).__name__}, which cannot be shown: {type(fault).__name__} in what it says of itself"


def _fault(reply: object, message: Message) -> str | None:
    if not isinstance(reply, Message):
        got = type(reply).__name__
        return f"expected a Message, got {got}: end the handler with `return message.create_reply(content)`"
    asked, answered = message.metadata, reply.metadata
    if (
        answered.reply_to_message == asked.message_id
        and answered.run_id == asked.run_id
        and answered.dst_node_id == asked.src_node_id
        and answered.src_node_id == asked.dst_node_id
    ):
        return None
    return (
        f"expected a reply to message {asked.message_id} of run {asked.run_id}, got one to message "
        f"{answered.reply_to_message} of run {answered.run_id}: make it with message.create_reply(...)"
    )
