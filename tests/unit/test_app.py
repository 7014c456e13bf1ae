"""Apps: handlers by type, mods as an onion, and faults that become error replies."""

import asyncio
import os
import signal
from collections.abc import Callable
from functools import partial, wraps

import pytest

from umbel.app import ClientApp, ServerApp
from umbel.context import Context
from umbel.errors import AppError, MessageExpired
from umbel.message import Error, ErrorCode, Message, Metadata
from umbel.records import ConfigsRecord, RecordSet

Handler = Callable[[Message, Context], Message]
CONTEXT = Context(1, 7, {}, RecordSet(), {})


def ask(message_type: str = "train", **changes: object) -> Message:
    fields: dict[str, object] = {"ttl": 60.0, "message_type": message_type}
    return Message(Metadata(1, 2, 3, 4, 0, 5, **{**fields, **changes}), content=RecordSet())  # type: ignore[arg-type]


def trail(message: Message) -> list[str]:
    """The names that mods and handlers left in the content."""
    return list(message.content.configs_records)


def leave(message: Message, name: str) -> Message:
    content = RecordSet(configs_records={**message.content.configs_records, name: ConfigsRecord()})
    return Message(message.metadata, content=content)


def answer(message: Message, context: Context) -> Message:
    del context
    return message.create_reply(leave(message, "handler").content)


def app_with(handler: object) -> ClientApp:
    app = ClientApp()
    app.train()(handler)  # type: ignore[type-var]
    return app


def test_each_type_of_message_goes_to_its_handler() -> None:
    app = ClientApp()
    for register, name in (
        (app.train, "train"),
        (app.evaluate, "evaluate"),
        (app.query, "query"),
        (lambda: app.on("count rows"), "count rows"),
    ):

        @register()
        def handle(message: Message, context: Context, name: str = name) -> Message:
            del context
            return message.create_reply(leave(message, name).content)

        assert trail(app(ask(name), CONTEXT)) == [name]
        assert app.handles(name)
    assert not app.handles("anything else")


def test_it_knows_its_handlers() -> None:
    app = ClientApp(mods=[lambda message, context, call_next: call_next(message, context)])
    app.evaluate()(answer)
    assert app.type_of(answer) == "evaluate"
    assert app.type_of(wraps(answer)(partial(answer))) == "evaluate"  # below another decorator
    assert app.type_of(leave) is None
    assert app.type_of(None) is None


def test_a_decorated_function_stays_itself() -> None:
    assert ClientApp().train()(answer) is answer


def test_mods_are_an_onion() -> None:
    def mod(name: str) -> Callable[[Message, Context, Handler], Message]:
        def wrap(message: Message, context: Context, call_next: Handler) -> Message:
            return leave(call_next(leave(message, f"{name} in"), context), f"{name} out")

        return wrap

    app = ClientApp(mods=[mod("outer"), mod("inner")])
    app.train()(answer)
    assert trail(app(ask(), CONTEXT)) == ["outer in", "inner in", "handler", "inner out", "outer out"]


def test_a_mod_may_answer_without_the_handler() -> None:
    app = ClientApp(mods=[lambda message, _context, _call_next: message.create_error_reply(Error(6, "not today"))])
    app.train()(answer)
    assert app(ask(), CONTEXT).error == Error(6, "not today")


def test_a_mod_may_catch_what_a_handler_raises() -> None:
    def retry(message: Message, context: Context, call_next: Handler) -> Message:
        try:
            return call_next(message, context)
        except KeyError:
            return message.create_reply(RecordSet())

    app = ClientApp(mods=[retry])
    app.train()(lambda _message, _context: {}["missing"])
    assert app(ask(), CONTEXT).has_content()


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class UnexplainedError(Exception):
    @property
    def __notes__(self) -> list[str]:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad row 7"), "ValueError: bad row 7"),
        (AppError("no such file", at="data.csv"), "umbel.errors.AppError: no such file - at data.csv"),
        (MemoryError(), "MemoryError"),
        (ValueError("\udc80.csv"), "ValueError: \\udc80.csv"),
        (SystemExit(3), "SystemExit: 3"),
        (UnprintableError(), "UnprintableError: <exception str() failed>"),
        (UnexplainedError(), "UnexplainedError, which cannot be shown: RuntimeError in what it says of itself"),
        (SyntaxError("x", ("a.py", 1, 2, 3)), "in what it says of itself"),
        (asyncio.CancelledError(), "CancelledError"),
        (GeneratorExit(), "GeneratorExit"),
        (BaseExceptionGroup("some", [KeyboardInterrupt()]), "BaseExceptionGroup: some (1 sub-exception)"),
    ],
)
def test_an_exception_becomes_an_error_reply(error: BaseException, text: str) -> None:
    def fail(message: Message, context: Context) -> Message:
        raise error

    def fail_in_mod(message: Message, context: Context, call_next: Handler) -> Message:
        raise error

    modded = ClientApp(mods=[fail_in_mod])
    modded.train()(answer)
    for app in (app_with(fail), modded):
        reply = app(ask(), CONTEXT)
        assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
        assert reply.error.reason is not None
        assert reply.error.reason.endswith(text)
        assert reply.metadata.reply_to_message == 2


def test_a_traceback_travels_only_when_allowed() -> None:
    def fail(message: Message, context: Context) -> Message:
        secret = 1
        raise ValueError(secret)

    app = app_with(fail)
    assert app(ask(), CONTEXT).error.reason == "ValueError: 1"
    reason = app(ask(), CONTEXT, tracebacks=True).error.reason
    assert reason is not None
    assert "raise ValueError(secret)" in reason
    assert reason.startswith("ValueError: 1\n")


def test_a_reason_is_short_however_long_the_text() -> None:
    def fail(message: Message, context: Context) -> Message:
        raise ValueError("row " * 100_000)

    reason = app_with(fail)(ask(), CONTEXT).error.reason
    assert reason is not None
    assert len(reason) < 2_100


def test_an_interrupt_is_meant_for_the_process() -> None:
    def interrupted(message: Message, context: Context) -> Message:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        app_with(interrupted)(ask(), CONTEXT)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, 0),
        (SystemExit(), 0),
        (SystemExit(5), 5),
        (SystemExit("bad"), 1),
        (ValueError(), 1),
        (KeyboardInterrupt(), 1),
    ],
)
def test_a_copy_of_the_process_ends_where_it_leaves_the_handler(error: BaseException | None, status: int) -> None:
    copies = []

    def fork(message: Message, context: Context) -> Message:
        copies.append(os.fork())
        if copies[-1] == 0 and error is not None:
            raise error
        return answer(message, context)

    reply = app_with(fork)(ask(), CONTEXT)
    if copies[-1] == 0:  # this is the copy, which must not get here: end it as no test ends
        os.kill(os.getpid(), signal.SIGKILL)
    assert reply.has_content()
    assert os.waitstatus_to_exitcode(os.waitpid(copies[-1], 0)[1]) == status


@pytest.mark.parametrize("value", [None, RecordSet(), {"loss": 1.0}])
def test_a_handler_that_returns_no_message_is_told_so(value: object) -> None:
    reply = app_with(lambda _message, _context: value)(ask(), CONTEXT)
    assert reply.error.code == ErrorCode.BAD_REPLY
    assert reply.error.reason is not None
    assert f"got {type(value).__name__}" in reply.error.reason


@pytest.mark.parametrize(
    "other",
    [
        ask(),
        Message(Metadata(1, 99, 3, 4, 0, 5, 60.0, "train"), content=RecordSet()).create_reply(RecordSet()),
        Message(Metadata(9, 2, 3, 4, 0, 5, 60.0, "train"), content=RecordSet()).create_reply(RecordSet()),
        Message(Metadata(1, 2, 3, 9, 0, 5, 60.0, "train"), content=RecordSet()).create_reply(RecordSet()),
        Message(Metadata(1, 2, 9, 4, 0, 5, 60.0, "train"), content=RecordSet()).create_reply(RecordSet()),
    ],
)
def test_a_reply_to_another_message_is_refused(other: Message) -> None:
    reply = app_with(lambda _message, _context: other)(ask(), CONTEXT)
    assert reply.error.code == ErrorCode.BAD_REPLY
    assert reply.error.reason is not None
    assert "expected a reply to message 2 of run 1" in reply.error.reason


def test_a_type_without_handler_gets_an_error_reply_that_names_the_others() -> None:
    reply = app_with(answer)(ask("evaluate"), CONTEXT)
    assert reply.error.code == ErrorCode.UNKNOWN_MESSAGE_TYPE
    assert reply.error.reason == (
        "this app has no handler for messages of type 'evaluate'; it has handlers for: 'train'"
    )


def test_nothing_may_reply_to_an_expired_message() -> None:
    expired = ask(created_at=0.0, ttl=1.0)
    for handler in (answer, lambda _message, _context: None):
        with pytest.raises(MessageExpired):
            app_with(handler)(expired, CONTEXT)


def test_a_second_handler_for_a_type_is_refused() -> None:
    app = app_with(answer)
    with pytest.raises(AppError, match="one handler for each message type"):
        app.on("train")(answer)


def test_a_handler_is_a_function() -> None:
    with pytest.raises(AppError, match="got dict"):
        app_with({})


def test_a_decorator_without_parentheses_is_explained() -> None:
    app = ClientApp()
    for decorator, name in ((app.train, "train"), (app.evaluate, "evaluate"), (app.query, "query")):
        message = rf"expected the decorator @app.{name}\(\), got none of its parentheses above answer: add them"
        with pytest.raises(AppError, match=message):
            decorator(answer)  # type: ignore[arg-type]
    with pytest.raises(AppError, match=r"@app.main\(\), got none of its parentheses above answer"):
        ServerApp().main(answer)  # type: ignore[arg-type]
    for given in (answer, "", 3):
        with pytest.raises(AppError, match=r'expected a type of message, such as @app.on\("train"\), got'):
            app.on(given)  # type: ignore[arg-type]
    assert app.message_types == ()


def test_a_server_app_runs_its_main_function() -> None:
    app, seen = ServerApp(), []

    @app.main()
    def main(grid: object, context: Context) -> None:
        seen.append((grid, context))

    app("grid", CONTEXT)
    assert seen == [("grid", CONTEXT)]
    with pytest.raises(AppError, match="one main function"):
        app.main()(main)


def test_a_server_app_without_main_says_what_to_do() -> None:
    with pytest.raises(AppError, match=r"@app\.main\(\)"):
        ServerApp()(None, CONTEXT)
    with pytest.raises(AppError, match="expected a function"):
        ServerApp().main()(3)  # type: ignore[type-var]
