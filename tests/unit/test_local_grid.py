"""The local engine: lazy, one node at a time, and nothing leaks from a node but its reply."""

import gc
import weakref

import msgspec
import numpy as np
import pytest

from umbel.app import ClientApp
from umbel.context import derive_seed
from umbel.engines import LocalGrid, NodeStates, Population
from umbel.message import Message, Metadata
from umbel.records import ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet

SEED = 11


def content_of(number=1):
    model = ParametersRecord.from_numpy({"w": np.arange(3.0)})
    return RecordSet({"model": model}, configs_records={"config": ConfigsRecord({"round": number, "sizes": [1, 2]})})


def messages(grid, content, *, message_type="train", ttl=60.0, number=1):
    for place, node in enumerate(grid.nodes()):
        metadata = Metadata(5, 100 + place, 0, node.node_id, 0, number, ttl, message_type)
        yield Message(metadata, content)


def grid_of(app, nodes=3, **options):
    return LocalGrid(app, Population(nodes), seed=SEED, **options)


def test_every_message_is_answered_in_order():
    app = ClientApp()
    seen = []

    @app.train()
    def train(message, context):
        seen.append((context.node_name, context.node_id, context.run_id, dict(context.node_config)))
        return message.create_reply(RecordSet())

    grid = grid_of(app)
    grid.send(messages(grid, content_of()))
    replies = list(grid.replies())
    assert [reply.metadata.reply_to_message for reply in replies] == [100, 101, 102]
    assert seen[2] == ("node-2", 3, 5, {"partition-id": 2, "num-partitions": 3})
    assert list(grid.replies()) == []


def test_a_context_has_the_seed_of_its_node_and_round():
    app = ClientApp()
    seeds = {}

    @app.train()
    def train(message, context):
        seeds[context.node_name] = context.seed
        return message.create_reply(RecordSet())

    grid = grid_of(app)
    grid.send(messages(grid, content_of(), number=4))
    list(grid.replies())
    assert seeds == {name: derive_seed(SEED, 4, name, "train") for name in ("node-0", "node-1", "node-2")}


def test_a_node_runs_when_its_reply_is_wanted():
    app = ClientApp()
    ran, drawn = [], []

    @app.train()
    def train(message, context):
        ran.append(context.node_name)
        return message.create_reply(RecordSet())

    def drawing(grid):
        for message in messages(grid, content_of()):
            drawn.append(message.metadata.message_id)
            yield message

    grid = grid_of(app)
    grid.send(drawing(grid))
    replies = grid.replies()
    assert (ran, drawn) == ([], [])
    next(replies)
    assert (ran, drawn) == (["node-0"], [100])


def test_a_handler_cannot_change_what_the_next_node_receives():
    app = ClientApp()
    received = []

    @app.train()
    def train(message, context):
        content = message.content
        received.append(content.copy())
        content.configs_records["config"]["sizes"].append(9)
        content.configs_records["config"]["round"] = 99
        content.parameters_records["model"]["w"] = content.parameters_records["model"].pop("w")
        content.parameters_records.clear()
        context.run_config["lr"] = 0.0
        return message.create_reply(RecordSet())

    content = content_of()
    grid = grid_of(app, run_config={"lr": 1.0})
    grid.send(messages(grid, content))
    list(grid.replies())
    assert content == content_of()
    assert received[2].parameters_records == content_of().parameters_records


def test_arrays_of_a_message_are_read_only():
    app = ClientApp()

    @app.train()
    def train(message, context):
        message.content.parameters_records["model"].to_numpy(copy=False)["w"][0] = 7
        return message.create_reply(RecordSet())

    grid = grid_of(app, 1)
    grid.send(messages(grid, content_of()))
    (reply,) = grid.replies()
    assert "read-only" in reply.error.reason


def test_state_persists_and_changes_only_with_a_reply():
    app = ClientApp()

    @app.train()
    def train(message, context):
        counts = context.state.metrics_records.setdefault("counts", MetricsRecord({"seen": 0}))
        counts["seen"] += 1
        if message.metadata.message_id == 101:
            raise ValueError("no luck")
        return message.create_reply(RecordSet(metrics_records={"counts": counts.copy()}))

    states = NodeStates()
    for _ in range(2):
        grid = grid_of(app, states=states)
        grid.send(messages(grid, content_of()))
        replies = list(grid.replies())
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert replies[2].content.metrics_records["counts"]["seen"] == 2
    assert {name: state.metrics_records["counts"]["seen"] for name, state in states.kept.items()} == {
        "node-0": 2,
        "node-2": 2,
    }


def test_a_handler_that_outlives_its_message_has_no_reply_and_no_state():
    app = ClientApp()

    @app.train()
    def train(message, context):
        context.state.metrics_records["m"] = MetricsRecord()
        return message.create_reply(RecordSet())

    def sent(grid):
        for message in messages(grid, content_of()):
            late = message.metadata.message_id == 101
            yield Message(msgspec.structs.replace(message.metadata, created_at=1.0), content_of()) if late else message

    states = NodeStates()
    grid = grid_of(app, states=states)
    grid.send(sent(grid))
    assert [reply.metadata.reply_to_message for reply in grid.replies()] == [100, 102]
    assert list(states.kept) == ["node-0", "node-2"]


def test_cancelled_messages_pass_without_running():
    app = ClientApp()
    ran = []

    @app.train()
    def train(message, context):
        ran.append(context.node_name)
        return message.create_reply(RecordSet())

    grid = grid_of(app)
    grid.send(messages(grid, content_of()))
    grid.cancel([100, 102])
    assert len(list(grid.replies())) == 1
    assert ran == ["node-1"]


def test_nothing_is_outstanding_after_close():
    grid = grid_of(ClientApp())
    grid.send(messages(grid, content_of()))
    grid.close()
    assert list(grid.replies()) == []


def test_an_interrupt_passes_through():
    app = ClientApp()

    @app.train()
    def train(message, context):
        raise KeyboardInterrupt

    grid = grid_of(app)
    grid.send(messages(grid, content_of()))
    with pytest.raises(KeyboardInterrupt):
        next(grid.replies())


def test_the_engine_keeps_no_reply():
    app = ClientApp()
    made = []

    @app.train()
    def train(message, context):
        gc.collect()
        alive = sum(each() is not None for each in made)
        memory = np.zeros(1_000)
        made.append(weakref.ref(memory))
        record = ParametersRecord.from_numpy({"w": memory}, copy=False)
        metrics = MetricsRecord({"alive": alive})
        return message.create_reply(RecordSet({"model": record}, {"metrics": metrics}))

    grid = grid_of(app, 5)
    grid.send(messages(grid, content_of()))
    alive = []
    for reply in grid.replies():
        alive.append(reply.content.metrics_records["metrics"]["alive"])
        del reply
    assert alive == [0, 0, 0, 0, 0]
