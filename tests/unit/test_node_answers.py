"""What a node makes of a server's answers, with a server that says what the test wants, on a real socket."""

import asyncio
from pathlib import Path

import msgspec
import numpy as np
import pytest

from http_stand import Stand, digest_of, run
from umbel import errors
from umbel.envelope import Part, pack
from umbel.http import Member, Settings
from umbel.http.wire import Answer, Assignment, Joined, Polled, Replied, Task
from umbel.message import ErrorCode
from umbel.node import Node
from umbel.node import Settings as NodeSettings
from umbel.records import ParametersRecord, RecordSet, loads

LARGE = 50_000  # float64: a blob
APP = '''
from umbel.app import ClientApp
from umbel.records import ConfigsRecord, ParametersRecord, RecordSet

app = ClientApp()


@app.train()
def train(message, context):
    """Reply the model plus one, and how many messages the state has counted."""
    with open(context.node_config["log"], "a") as log:
        log.write(f"{message.metadata.message_id}\\n")
    count = context.state.configs_records["s"]["n"] if context.state.configs_records else 0
    context.state.configs_records["s"] = ConfigsRecord({"n": count + 1})
    model = message.content.parameters_records["model"].to_numpy()
    made = ParametersRecord.from_numpy({name: array + 1 for name, array in model.items()})
    return message.create_reply(RecordSet({"model": made}, {}, {"s": ConfigsRecord({"n": count})}))
'''


class Script:
    """A server for one node: its messages in order, what it answers replies with, and the replies that came."""

    def __init__(self, stand: Stand, folder: Path) -> None:
        self.stand = stand
        self.folder = folder
        self.open: list[Task] = []
        self.cancelled: list[Assignment] = []
        self.answers: list[object] = []  # what the next replies are answered with, one after the other
        self.replies: list[Answer] = []
        self.news = asyncio.Event()
        stand.handlers |= {"join": self._join, "poll": self._poll, "reply": self._reply}

    def settings(self, **changes):
        told = {"url": self.stand.url, "app": "site_app:app", "folder": self.folder / "node", "secret": b"s"}
        return NodeSettings(
            **told | {"name": "north", "app_folder": self.folder, "config": {"log": str(self.folder / "log")}} | changes
        )

    def ask(self, message, *, size=3, fence=1):
        content = RecordSet({"model": ParametersRecord.from_numpy({"w": np.full(size, float(message))})})
        told = {"run": 1, "run_name": "pilot", "round": message, "message_type": "train", "seed": 5, "ttl": 60.0}
        task = Task(
            message=message, fence=fence, created_at=0.0, run_config={}, content=pack(content, self._put), **told
        )
        self.open.append(task)
        self.news.set()
        return task

    def _put(self, segments):
        data = b"".join(segments)
        self.stand.blobs[digest_of(data)] = data
        return Part(digest_of(data), len(data))

    async def _join(self, call):
        self.stand.members[7] = Member(7, call.body.key, "node")
        return Joined(member=7, name=call.body.name)

    async def _poll(self, call):
        held = {(each.message, each.fence) for each in call.body.holding}
        for _ in range(2):
            tasks = [task for task in self.open if (task.message, task.fence) not in held]
            gone = [each for each in self.cancelled if (each.message, each.fence) in held]
            if tasks or gone:
                break
            self.news.clear()
            try:
                async with asyncio.timeout(0.5):
                    await self.news.wait()
            except TimeoutError:
                break
        return Polled(tasks=tasks[: call.body.room], cancelled=gone)

    async def _reply(self, call):
        answer = call.body
        self.replies.append(answer)
        said = self.answers.pop(0) if self.answers else Replied(counted=True)
        if isinstance(said, Exception):
            raise said
        self.open = [task for task in self.open if task.message != answer.message]
        return said

    @property
    def handled(self):
        path = self.folder / "log"
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


async def until(condition, what):
    for _ in range(1500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"waited in vain until {what}")


def play(folder, scenario, **changes):
    """Run a node beside a scripted server until the scenario ends, and return the server."""
    (folder / "site_app.py").write_text(APP)
    scripts = []

    async def main(stand):
        script = Script(stand, folder)
        scripts.append(script)
        node = Node(script.settings(**changes))
        running = asyncio.ensure_future(node.run())
        playing = asyncio.ensure_future(scenario(script))
        await asyncio.wait((running, playing), return_when=asyncio.FIRST_COMPLETED)
        node.stop()
        try:
            await running
        finally:
            playing.done() or playing.cancel()
            await asyncio.wait([playing])
        playing.result()

    run(main, Settings(name="stand", port=0))
    return scripts[0]


def answered(script, count):
    return until(lambda: len(script.replies) == count and not script.open, f"{count} replies came")


def counted(answer):
    """How many messages the state of the node had counted before this one."""
    return loads(answer.content.rest.data).configs_records["s"]["n"]


@pytest.mark.parametrize(
    "said",
    [
        errors.ServerFailed("a fault"),
        errors.StorageFull("no room"),
        errors.LedgerFailed("the disk"),
        errors.TooManyRequests("too many"),
        errors.ServerStopping("in a moment"),
    ],
)
def test_a_reply_that_cannot_be_taken_now_is_sent_again(tmp_path, said):
    async def scenario(script):
        script.answers = [said, said]
        script.ask(1, size=LARGE)
        await answered(script, 3)

    script = play(tmp_path, scenario)
    assert script.handled == [1]
    assert len({answer.content for answer in script.replies}) == 1


def test_a_blob_that_the_server_lost_is_sent_again(tmp_path):
    async def scenario(script):
        script.answers = [errors.BlobMissing("a blob")]
        script.ask(1, size=LARGE)
        await until(lambda: script.replies, "the first reply came")
        digest = script.replies[0].content.records[0].part.digest
        script.stand.blobs.pop(digest, None)
        await answered(script, 2)
        assert digest in script.stand.blobs

    assert play(tmp_path, scenario).handled == [1]


@pytest.mark.parametrize(
    ("said", "after"),
    [
        (Replied(counted=True), 1),
        (errors.ReplyConflict("answered before"), 1),
        (Replied(counted=False, reason="late"), 0),
        (errors.NotFound("no such message"), 0),
    ],
)
def test_a_state_counts_if_the_reply_did(tmp_path, said, after):
    async def scenario(script):
        script.answers = [said]
        script.ask(1)
        await until(lambda: script.replies, "the first reply came")
        script.open = []
        script.ask(2)
        await answered(script, 2)

    script = play(tmp_path, scenario)
    assert [counted(answer) for answer in script.replies] == [0, after]


@pytest.mark.parametrize("said", [errors.BodyTooLarge("too large"), errors.QuotaExceeded("over the quota")])
def test_a_reply_that_the_server_refuses_becomes_an_error_and_its_state_is_given_up(tmp_path, said):
    async def scenario(script):
        script.answers = [said]
        script.ask(1)
        await answered(script, 2)
        script.ask(2)
        await answered(script, 3)

    script = play(tmp_path, scenario)
    assert script.replies[1].error_code == ErrorCode.BAD_REPLY
    assert said.message in script.replies[1].error_reason
    assert counted(script.replies[2]) == 0


def test_a_blob_that_the_server_refuses_becomes_an_error(tmp_path):
    async def scenario(script):
        async def refuse(_):
            raise errors.QuotaExceeded("over the quota")

        script.stand.handlers["put_blob"] = refuse
        script.ask(1, size=LARGE)
        await answered(script, 1)

    script = play(tmp_path, scenario)
    assert "over the quota" in script.replies[0].error_reason


def test_a_reply_under_an_old_number_is_sent_under_the_new_one(tmp_path):
    async def scenario(script):
        reply = script.stand.handlers["reply"]

        async def handed_out_again(call):
            if call.body.fence == again.fence:
                return await reply(call)
            script.open = [again]
            script.replies.append(call.body)
            raise errors.Fenced("handed out again")

        script.stand.handlers["reply"] = handed_out_again
        again = msgspec.structs.replace(script.ask(1), fence=2)
        await until(lambda: not script.open, "the reply counted")

    script = play(tmp_path, scenario)
    assert script.handled == [1]
    assert {answer.fence for answer in script.replies} == {1, 2}
    assert script.replies[-1].fence == 2


def test_a_finished_message_that_is_not_wanted_is_answered_without_its_blobs(tmp_path):
    async def scenario(script):
        async def unreachable(_):
            raise errors.ServerFailed("not now")

        script.stand.handlers["stat_blob"] = unreachable
        task = script.ask(1, size=LARGE)
        await until((tmp_path / "node" / "runs" / "1.json").exists, "the message is finished")
        script.open = []
        script.cancelled = [Assignment(run=1, message=1, fence=task.fence)]
        script.answers = [Replied(counted=False, reason="late")]
        await until(lambda: script.replies, "the reply came")

    assert play(tmp_path, scenario).handled == [1]


@pytest.mark.parametrize(("wrong", "handled"), [(2, True), (3, False)])
def test_a_blob_that_comes_wrong_is_fetched_again_twice(tmp_path, wrong, handled):
    async def scenario(script):
        task = script.ask(1, size=LARGE)
        digest = task.content.records[0].part.digest
        get, left = script.stand.handlers["get_blob"], [wrong]

        async def spoil(call):
            source = await get(call)
            if not left[0]:
                return source
            left[0] -= 1
            return source._replace(data=bytes(len(source.data)))

        assert digest in script.stand.blobs
        script.stand.handlers["get_blob"] = spoil
        await answered(script, 1)

    script = play(tmp_path, scenario)
    assert script.handled == ([1] if handled else [])
    assert (script.replies[0].error_code is None) == handled


def test_a_blob_of_another_size_than_the_policy_was_asked_about_is_refused(tmp_path):
    async def scenario(script):
        task = script.ask(1, size=LARGE)
        part = task.content.records[0]
        lie = msgspec.structs.replace(part, part=msgspec.structs.replace(part.part, size=100_000))
        script.open = [msgspec.structs.replace(task, content=msgspec.structs.replace(task.content, records=(lie,)))]
        await answered(script, 1)

    script = play(tmp_path, scenario)
    assert "expected a blob of 100000 bytes" in script.replies[0].error_reason


@pytest.mark.parametrize("name", ["", "blake3:", "blake3:" + "A" * 64, "sha256:" + "a" * 64, "../../etc/passwd"])
def test_what_names_no_blob_is_an_error_of_its_message_alone(tmp_path, name):
    async def scenario(script):
        task = script.ask(1, size=LARGE)
        named = task.content.records[0]
        wrong = msgspec.structs.replace(named, part=msgspec.structs.replace(named.part, digest=name))
        script.open = [msgspec.structs.replace(task, content=msgspec.structs.replace(task.content, records=(wrong,)))]
        await answered(script, 1)
        script.ask(2)
        await answered(script, 2)

    script = play(tmp_path, scenario)
    assert script.replies[0].error_code == ErrorCode.MESSAGE_UNAVAILABLE
    assert "expected a digest" in script.replies[0].error_reason
    assert script.handled == [2]


@pytest.mark.parametrize("name", ["poll", "reply"])
def test_an_answer_that_cannot_be_read_is_asked_for_again(tmp_path, name):
    """Something stands before the server, and answers in its place for a while."""

    async def scenario(script):
        right, left = script.stand.handlers[name], [3]

        async def spoil(call):
            if not left[0]:
                return await right(call)
            left[0] -= 1
            return Joined(member=1, name="no such answer")

        script.stand.handlers[name] = spoil
        script.ask(1)
        await answered(script, 1)

    assert play(tmp_path, scenario).handled == [1]


def test_a_node_that_has_not_joined_does_not_wait_for_what_is_no_server(tmp_path):
    async def scenario(script):
        async def spoil(_):
            return Replied(counted=True)

        script.stand.handlers["join"] = spoil
        await asyncio.sleep(60)

    with pytest.raises(errors.BadAnswer):
        play(tmp_path, scenario)


def test_a_message_that_is_cancelled_while_it_is_fetched_is_forgotten(tmp_path):
    async def scenario(script):
        fetching = asyncio.Event()

        async def wait(_):
            fetching.set()
            await asyncio.sleep(60)

        script.stand.handlers["get_blob"] = wait
        task = script.ask(1, size=LARGE)
        await fetching.wait()
        script.open, script.cancelled = [], [Assignment(run=1, message=1, fence=task.fence)]
        script.news.set()
        script.ask(2)
        await answered(script, 1)

    script = play(tmp_path, scenario)
    assert script.handled == [2]
    assert [answer.message for answer in script.replies] == [2]


def test_messages_of_several_runs_are_handled_while_one_is_sent(tmp_path):
    async def scenario(script):
        script.answers = [errors.ServerFailed("not now")] * 3
        script.ask(1)
        second = script.ask(2)
        script.open[1] = msgspec.structs.replace(second, run=2)
        await until(lambda: script.handled == [1, 2], "both are handled")
        await until(lambda: not script.open, "both are answered")

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    "fatal", [errors.NodeSuperseded("another"), errors.MemberRevoked("excluded"), errors.Forbidden("no node")]
)
def test_what_waiting_does_not_mend_ends_the_node(tmp_path, fatal):
    async def scenario(script):
        async def refuse(_):
            raise fatal

        script.stand.handlers["poll"] = refuse
        await asyncio.sleep(20)

    with pytest.raises(type(fatal)):
        play(tmp_path, scenario)
