"""The process in which handlers run: killed, stuck, out of memory, and with apps that cannot be loaded."""

import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from spool_driver import put
from umbel.envelope import pack, unpack
from umbel.errors import AppError
from umbel.message import ErrorCode
from umbel.node import Worker
from umbel.node._jobs import Job
from umbel.records import ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet
from umbel.records._files import map_file

LARGE = 50_000  # float64: a blob
APP = '''
import os, signal, subprocess, sys, threading, time
import numpy as np
from umbel.app import ClientApp
from umbel.message import Message
from umbel.records import ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet

app = ClientApp()


@app.train()
def train(message, context):
    """Add one to the model, and count in the state."""
    print("the handler prints")
    model = message.content.parameters_records["model"]
    assert not any(array.numpy(copy=False).flags.writeable for array in model.values())
    count = context.state.configs_records["s"]["n"] if context.state.configs_records else 0
    context.state.configs_records["s"] = ConfigsRecord({"n": count + 1})
    told = {"run": context.run_id, "node": context.node_id, "pid": os.getpid(), "seed": context.seed}
    told |= {"round": message.metadata.group_id, "partition": context.node_config["partition"]}
    told |= {"rate": context.run_config["rate"]}
    configs = {"told": ConfigsRecord({"name": context.node_name, "type": message.metadata.message_type, **told})}
    trained = {name: array.numpy() + 1 for name, array in model.items()}
    return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(trained)}, {}, configs))


@app.on("echo")
def echo(message, context):
    context.state.parameters_records["kept"] = message.content.parameters_records["model"]
    return message.create_reply(message.content)


@app.on("do")
def do(message, context):
    what = context.run_config["what"]
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "abort":
        os.abort()
    if what == "exit":
        os._exit(3)
    if what == "sys.exit":
        sys.exit(4)
    if what == "raise":
        raise ValueError("no rows")
    if what == "allocate":
        np.ones(2**27)
    if what == "state":
        context.state.parameters_records["p"] = ParametersRecord.from_numpy({"x\\n": np.zeros(1)})
    if what == "fork":
        if os.fork() == 0:
            time.sleep(60)
        os._exit(5)
    if what == "stuck":
        (pathlib := __import__("pathlib")).Path(context.run_config["mark"]).write_text(str(os.getpid()))
        time.sleep(60)
    if what == "late":
        time.sleep(0.2)
    if what == "none":
        return None
    return message.create_reply(RecordSet())
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "site_app.py").write_text(APP)
    for name in ("blobs", "desk"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def start(folder):
    made = []

    def worker(app="site_app:app", **limits):
        made.append(Worker(app, folder / "app", **limits))
        return made[-1]

    yield worker
    for each in made:
        each.stop()


def job(folder, kind="do", size=3, state=None, ttl=60.0, **config):
    content = RecordSet({"model": ParametersRecord.from_numpy({"w": np.zeros(size)})})
    store = lambda segments: put(segments, folder / "blobs")  # noqa: E731
    return Job(
        run=11,
        message=22,
        round=3,
        message_type=kind,
        seed=44,
        ttl=ttl,
        run_config=config,
        member=55,
        node_name="north",
        node_config={"partition": 6},
        content=pack(content, store),
        state=state and pack(state, store),
        blobs=str(folder / "blobs"),
        desk=str(folder / "desk"),
    )


def opened(folder, content):
    def get(digest):
        path = folder / "desk" / digest[7:]
        return map_file(path if path.exists() else folder / "blobs" / digest[7:])

    return unpack(content, get)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def wait_for(condition, what):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


def test_says_which_messages_the_app_handles(start):
    assert start().start() == ("train", "echo", "do")


@pytest.mark.parametrize("size", [3, LARGE])
def test_a_handler_is_told_all_and_its_reply_and_state_come_back(folder, start, size):
    state = RecordSet(configs_records={"s": ConfigsRecord({"n": 7})})
    outcome = start().run(job(folder, "train", size, state, rate=0.5))
    assert outcome.error_code is None
    reply = opened(folder, outcome.content)
    assert (reply.parameters_records["model"]["w"].numpy() == 1).all()
    told = reply.configs_records["told"]
    assert (told["run"], told["node"], told["name"], told["seed"]) == (11, 55, "north", 44)
    assert (told["round"], told["partition"], told["rate"], told["type"]) == (3, 6, 0.5, "train")
    assert opened(folder, outcome.state).configs_records["s"]["n"] == 8
    assert set(outcome.seconds) == {"training", "storing"}
    assert len(list((folder / "desk").iterdir())) == (size == LARGE)


def test_one_process_handles_message_after_message(folder, start):
    worker = start()
    pids = {
        opened(folder, worker.run(job(folder, "train", rate=1)).content).configs_records["told"]["pid"] for _ in "ab"
    }
    assert len(pids) == 1
    assert pids != {os.getpid()}


def test_what_was_sent_is_linked_and_not_written_again(folder, start):
    outcome = start().run(job(folder, "echo", LARGE))
    [sent] = (folder / "blobs").iterdir()
    [kept] = (folder / "desk").iterdir()
    assert sent.samefile(kept)
    assert outcome.content.records[0].part == outcome.state.records[0].part


@pytest.mark.parametrize(
    ("what", "code", "reason"),
    [
        ("kill", ErrorCode.HANDLER_LOST, "killed by signal 9 (SIGKILL)"),
        ("abort", ErrorCode.HANDLER_LOST, "killed by signal 6 (SIGABRT)"),
        ("exit", ErrorCode.HANDLER_LOST, "ended with exit status 3"),
        ("fork", ErrorCode.HANDLER_LOST, "ended with exit status 5"),
        ("sys.exit", ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "SystemExit: 4"),
        ("raise", ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "ValueError: no rows"),
        ("state", ErrorCode.BAD_REPLY, "a state that a file can hold"),
        ("none", ErrorCode.BAD_REPLY, "expected a Message, got NoneType"),
        ("late", ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "ask again with a longer ttl"),
    ],
)
def test_what_goes_wrong_is_an_error_reply_and_the_next_message_is_handled(folder, start, what, code, reason):
    worker = start()
    outcome = worker.run(job(folder, what=what, ttl=0.1 if what == "late" else 60.0))
    assert outcome.error_code == code
    assert reason in outcome.error_reason
    assert worker.run(job(folder, "train", rate=1)).error_code is None


def test_a_message_of_a_type_that_the_app_does_not_handle(folder, start):
    outcome = start().run(job(folder, "evaluate"))
    assert (outcome.error_code, "'train', 'echo', 'do'" in outcome.error_reason) == (100, True)


def test_content_that_cannot_be_read_is_an_error_reply(folder, start):
    asked = job(folder, "train", LARGE)
    for path in (folder / "blobs").iterdir():
        path.unlink()
    outcome = start().run(asked)
    assert (outcome.error_code, outcome.content) == (ErrorCode.MESSAGE_UNAVAILABLE, None)


def test_tracebacks_stay_here_unless_the_operator_lets_them_go(folder, start):
    assert "line" not in start().run(job(folder, what="raise")).error_reason
    assert "site_app.py" in start(tracebacks=True).run(job(folder, what="raise")).error_reason


def test_the_time_limit_of_the_operator_is_named(folder, start):
    worker = start(handler=1.0)
    worker.start()
    outcome = worker.run(job(folder, what="stuck", mark=str(folder / "mark")))
    assert outcome.error_code == ErrorCode.HANDLER_LOST
    assert "longer than the 1 s that the operator of this node allows" in outcome.error_reason
    assert not is_alive(int((folder / "mark").read_text()))
    assert worker.run(job(folder, "train", rate=1)).error_code is None


def test_the_memory_limit_of_the_operator_is_named(folder, start):
    worker = start(memory=1_000_000_000)
    outcome = worker.run(job(folder, what="allocate"))
    assert outcome.error_code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert "lets a handler have 1,000,000,000 bytes of memory" in outcome.error_reason
    assert worker.run(job(folder, "train", rate=1)).error_code is None
    assert start().run(job(folder, what="allocate")).error_code is None


def test_a_worker_that_is_killed_answers_with_an_error(folder, start):
    worker, outcomes = start(), []
    worker.start()
    thread = Thread(target=lambda: outcomes.append(worker.run(job(folder, what="stuck", mark=str(folder / "mark")))))
    thread.start()
    wait_for((folder / "mark").exists, "the handler runs")
    worker.kill()
    thread.join(20)
    assert "SIGKILL" in outcomes[0].error_reason


def test_what_a_handler_prints_goes_to_standard_error(folder):
    script = "from test_node_worker import printing; import sys; printing(sys.argv[1])"
    command = [sys.executable, "-c", script, str(folder)]
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=here)
    assert "the handler prints" not in done.stdout
    assert "the handler prints" in done.stderr


def printing(folder):
    assert Worker("site_app:app", f"{folder}/app").run(job(Path(folder), "train", rate=1)).error_code is None


def test_the_process_ends_with_its_node(folder):
    """Even while a handler runs: the node is killed, and with it the process and what the handler started."""
    script = "from test_node_worker import stuck; import sys; stuck(sys.argv[1])"
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    node = subprocess.Popen([sys.executable, "-c", script, str(folder)], env=here)
    try:
        wait_for(lambda: (folder / "mark").exists() and (folder / "mark").read_text(), "the handler runs")
        pid = int((folder / "mark").read_text())
        assert is_alive(pid)
    finally:
        node.kill()
        node.wait()
    wait_for(lambda: not is_alive(pid), "the process ends")


def stuck(folder):
    Worker("site_app:app", f"{folder}/app").run(job(Path(folder), what="stuck", mark=f"{folder}/mark"))


# Apps that cannot be loaded.


@pytest.mark.parametrize(
    ("text", "app", "said", "line"),
    [
        ("import nowhere_to_be_found", "bad:app", "No module named 'nowhere_to_be_found'; install it", 1),
        ("\n\nx = 1 / 0", "bad:app", "ZeroDivisionError: division by zero", 3),
        ("\ndef f(:", "bad:app", "SyntaxError", 2),
        ("\nraise SystemExit(3)", "bad:app", "SystemExit: 3", 2),
        (
            "from umbel.app import ClientApp\napp = ClientApp()\n" + "@app.train()\ndef f(m, c): ...\n" * 2,
            "bad:app",
            "one handler for each message type",
            5,
        ),
    ],
)
def test_an_app_that_fails_is_named_with_its_line(folder, start, text, app, said, line):
    (folder / "app" / "bad.py").write_text(text)
    with pytest.raises(AppError) as caught:
        start(app).start()
    assert said in caught.value.message
    assert f"bad.py line {line}" in caught.value.at


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("site_app", 'expected an app such as "package.module:app"'),
        ("no.such:app", 'there is no module "no.such"'),
        ("site_app:application", "it has the app app"),
        ("site_app:np", "expected an umbel.app.ClientApp, got module"),
    ],
)
def test_an_app_that_is_not_there_is_named(start, app, said):
    with pytest.raises(AppError, match="app") as caught:
        start(app).start()
    assert said in caught.value.message


def test_a_process_that_dies_at_once_is_named(folder, start):
    (folder / "app" / "bad.py").write_text("import os\nos._exit(9)")
    with pytest.raises(AppError, match="ended with exit status 9"):
        start("bad:app").start()


def test_an_app_that_breaks_later_is_an_error_reply(folder, start):
    worker = start()
    worker.start()
    (folder / "app" / "site_app.py").write_text("x = 1 / 0")
    assert "SIGABRT" in worker.run(job(folder, what="abort")).error_reason
    outcome = worker.run(job(folder, "train", rate=1))
    assert outcome.error_code == ErrorCode.LOAD_CLIENT_APP_EXCEPTION
    assert "ZeroDivisionError" in outcome.error_reason


def test_the_process_needs_no_network(folder, start):
    (folder / "app" / "looking.py").write_text(
        "import sys\nfrom umbel.app import ClientApp\napp = ClientApp()\n"
        "for name in ('aiohttp', 'asyncio', 'sqlalchemy', 'umbel.http'):\n"
        "    app.on(f'{name}:{name in sys.modules}')(print)\n"
    )
    assert start("looking:app").start() == tuple(
        f"{name}:False" for name in ("aiohttp", "asyncio", "sqlalchemy", "umbel.http")
    )


def test_metrics_come_back_as_they_are(folder, start):
    (folder / "app" / "metrics.py").write_text(
        "from umbel.app import ClientApp\nfrom umbel.records import *\napp = ClientApp()\n"
        "@app.evaluate()\ndef f(message, context):\n"
        "    made = MetricsRecord({'loss': 0.1, 'hits': [1, 2]})\n"
        "    return message.create_reply(RecordSet(metrics_records={'m': made}))\n"
    )
    outcome = start("metrics:app").run(job(folder, "evaluate"))
    assert opened(folder, outcome.content).metrics_records["m"] == MetricsRecord({"loss": 0.1, "hits": [1, 2]})
    assert outcome.state is None
