"""What every grid does, as tests: inherit from ``GridTests`` beside the grid, say how one is made, and run pytest."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from umbel.context import derive_seed
from umbel.engines import LocalGrid, Population
from umbel.grid import Grid, Node
from umbel.message import ErrorCode, Message, Metadata
from umbel.records import ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet, digest
from umbel.rounds import RunCompleted, begin, train
from umbel.strategy import fedavg
from umbel.testing._grid_app import grid_app

_SEED = 20
_LARGE = 600_000


class GridTests:
    """Tests of the five verbs of ``umbel.grid.Grid``, and of what a training loop may rely on.

    A subclass says how a grid is made; the grid's nodes run ``umbel.testing.grid_app``, with a run of ``seed``:

        class TestMyGrid(GridTests):
            def open_grid(self, nodes, seed):
                return contextlib.closing(MyGrid(grid_app, nodes, seed))

    Messages are of the run ``run_id``; a phase (round and message type) is sent once in the life of a grid.
    """

    run_id = 1

    def open_grid(self, nodes: int, seed: int) -> AbstractContextManager[Grid]:
        """Return a context that gives a grid of so many nodes, and closes it."""
        raise NotImplementedError("say how a grid is made: def open_grid(self, nodes, seed)")

    def ask(
        self, grid: Grid, message_type: str, content: RecordSet, *, number: int = 1, nodes: Sequence[Node] = ()
    ) -> dict[str, Message]:
        """Ask ``nodes``, or all there are, in a phase of round ``number``; return the replies by node name."""
        wanted = nodes or grid.nodes(number, message_type)
        grid.send(self.messages(wanted, message_type, content, number=number))
        names = {node.node_id: node.name for node in wanted}
        replies = {}
        for reply in grid.replies():
            name = names[reply.metadata.src_node_id]
            assert name not in replies, f"{name} answered twice"
            replies[name] = _kept(reply)
        return replies

    def messages(
        self,
        nodes: Iterable[Node],
        message_type: str,
        content: RecordSet,
        *,
        number: int = 1,
        late: Sequence[Node] = (),
    ) -> Iterator[Message]:
        """Yield a message for each node, made when it is drawn; those to ``late`` nodes have expired long ago."""
        for place, node in enumerate(nodes):
            metadata = Metadata(self.run_id, number * 1_000 + place, 0, node.node_id, 0, number, 600.0, message_type)
            if node in late:
                metadata = Metadata(
                    self.run_id, number * 1_000 + place, 0, node.node_id, 0, number, 600.0, message_type, created_at=1.0
                )
            yield Message(metadata, content)

    # What nodes there are.

    def test_nodes_are_sorted_by_name_and_stay_the_same(self) -> None:
        with self.open_grid(12, _SEED) as grid:
            nodes = grid.nodes(1, "train")
            names = [node.name for node in nodes]
            assert len(nodes) == len(names) == 12
            assert names == sorted(set(names))
            assert [nodes[place] for place in range(12)] == list(nodes)
            assert len({node.node_id for node in nodes}) == 12
            assert 0 not in {node.node_id for node in nodes}
            assert list(grid.nodes(2, "train")) == list(nodes)

    # Messages and replies.

    def test_a_reply_goes_back_the_way_of_its_message(self) -> None:
        with self.open_grid(3, _SEED) as grid:
            nodes = grid.nodes(4, "test.echo")
            sent = {
                node.name: m
                for node, m in zip(nodes, self.messages(nodes, "test.echo", _content(), number=4), strict=True)
            }
            replies = self.ask(grid, "test.echo", _content(), number=4)
            assert replies.keys() == sent.keys()
            for name, reply in replies.items():
                asked, answered = sent[name].metadata, reply.metadata
                assert answered.reply_to_message == asked.message_id
                assert (answered.src_node_id, answered.dst_node_id) == (asked.dst_node_id, asked.src_node_id)
                assert (answered.run_id, answered.group_id) == (asked.run_id, asked.group_id)
                assert answered.message_type == asked.message_type
                assert 0 < answered.ttl <= asked.ttl

    def test_content_crosses_to_the_bit(self) -> None:
        with self.open_grid(2, _SEED) as grid:
            for reply in self.ask(grid, "test.echo", _content()).values():
                assert digest(reply.content) == digest(_content())

    def test_large_content_crosses_to_the_bit(self) -> None:
        content = _content(_LARGE)
        with self.open_grid(4, _SEED) as grid:
            for number in (1, 2, 3):
                replies = self.ask(grid, "test.echo", content, number=number)
                assert [digest(reply.content) for reply in replies.values()] == [digest(content)] * 4

    def test_empty_content_crosses(self) -> None:
        with self.open_grid(1, _SEED) as grid:
            (reply,) = self.ask(grid, "test.echo", RecordSet()).values()
            assert reply.content == RecordSet()

    def test_a_context_has_names_and_the_seed_of_its_round(self) -> None:
        with self.open_grid(3, _SEED) as grid:
            ids = {node.name: node.node_id for node in grid.nodes(7, "test.context")}
            for name, reply in self.ask(grid, "test.context", _content(), number=7).items():
                seed = derive_seed(_SEED, 7, name, "test.context")
                told = {"name": name, "id": ids[name], "run": self.run_id, "seed": seed}
                assert dict(reply.content.configs_records["context"]) == told

    def test_what_a_handler_does_to_its_message_reaches_nobody_else(self) -> None:
        content = _content()
        with self.open_grid(4, _SEED) as grid:
            for number in (1, 2):
                for reply in self.ask(grid, "test.spoil", content, number=number).values():
                    assert digest(reply.content) == digest(_content())
        assert digest(content) == digest(_content())

    def test_arrays_of_a_message_are_read_only(self) -> None:
        with self.open_grid(1, _SEED) as grid:
            for size in (3, _LARGE):
                (reply,) = self.ask(grid, "test.write", _content(size), number=size).values()
                assert reply.has_error()
                assert "read-only" in (reply.error.reason or "")

    def test_a_cohort_is_part_of_the_nodes(self) -> None:
        with self.open_grid(6, _SEED) as grid:
            cohort = [grid.nodes(1, "test.echo")[place] for place in (0, 2, 5)]
            assert self.ask(grid, "test.echo", _content(), nodes=cohort).keys() == {node.name for node in cohort}

    def test_what_is_sent_in_two_parts_is_answered_together(self) -> None:
        with self.open_grid(4, _SEED) as grid:
            nodes = grid.nodes(1, "test.echo")
            grid.send(self.messages(nodes[:2], "test.echo", _content(), number=1))
            grid.send(self.messages(nodes[2:], "test.echo", _content(5), number=2))
            sizes = {reply.metadata.src_node_id: reply.content.count_bytes() for reply in grid.replies()}
            assert sizes.keys() == {node.node_id for node in nodes}
            assert [sizes[node.node_id] for node in nodes[2:]] == [_content(5).count_bytes()] * 2

    def test_a_grid_that_says_so_takes_messages_between_two_replies(self) -> None:
        with self.open_grid(4, _SEED) as grid:
            if not getattr(grid, "overlapping", False):
                return
            nodes = grid.nodes(1, "test.echo")
            grid.send(self.messages(nodes[:2], "test.echo", _content(), number=1))
            first = next(grid.replies()).metadata.src_node_id
            grid.send(self.messages(nodes[2:], "test.echo", _content(5), number=2))
            sizes = {first: _content().count_bytes()}
            for reply in grid.replies():
                assert reply.metadata.src_node_id not in sizes
                sizes[reply.metadata.src_node_id] = reply.content.count_bytes()
            expected = [_content().count_bytes()] * 2 + [_content(5).count_bytes()] * 2
            assert [sizes[node.node_id] for node in nodes] == expected

    def test_content_that_was_changed_since_crosses_as_it_is(self) -> None:
        content = _content(_LARGE)
        with self.open_grid(2, _SEED) as grid:
            self.ask(grid, "test.echo", content)
            content.configs_records["config"]["text"] = "new"
            content.parameters_records["model"]["w"] = content.parameters_records["model"]["half"]
            for reply in self.ask(grid, "test.echo", content, number=2).values():
                assert digest(reply.content) == digest(content)

    def test_nobody_asked_is_nobody_waited_for(self) -> None:
        with self.open_grid(1, _SEED) as grid:
            assert list(grid.replies()) == []
            grid.send([])
            assert list(grid.replies()) == []

    # What goes wrong on a node.

    def test_an_exception_is_an_error_reply_of_that_node_alone(self) -> None:
        with self.open_grid(2, _SEED) as grid:
            first = grid.nodes(1, "test.count-and-raise")[:1]
            (failed,) = self.ask(grid, "test.count-and-raise", _content(), nodes=first).values()
            assert failed.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            assert "ValueError: the disk of this node is full" in (failed.error.reason or "")
            assert all(reply.has_content() for reply in self.ask(grid, "test.echo", _content(), number=2).values())

    def test_a_handler_that_exits_ends_no_node(self) -> None:
        with self.open_grid(2, _SEED) as grid:
            for reply in self.ask(grid, "test.exit", _content()).values():
                assert "no more of this" in (reply.error.reason or "")
            assert all(reply.has_content() for reply in self.ask(grid, "test.echo", _content(), number=2).values())

    def test_what_is_no_reply_is_an_error_reply(self) -> None:
        with self.open_grid(1, _SEED) as grid:
            (reply,) = self.ask(grid, "test.nothing", _content()).values()
            assert reply.error.code == ErrorCode.BAD_REPLY

    def test_a_type_that_no_handler_knows_is_not_offered_or_has_an_error_reply(self) -> None:
        with self.open_grid(2, _SEED) as grid:
            if grid.nodes(1, "test.unheard-of"):
                for reply in self.ask(grid, "test.unheard-of", _content()).values():
                    assert reply.error.code == ErrorCode.UNKNOWN_MESSAGE_TYPE

    def test_a_message_that_has_expired_has_no_reply(self) -> None:
        with self.open_grid(3, _SEED) as grid:
            nodes = grid.nodes(1, "test.echo")
            grid.send(self.messages(nodes, "test.echo", _content(), late=nodes[1:2]))
            answered = sorted(reply.metadata.src_node_id for reply in grid.replies())
            assert answered == sorted((nodes[0].node_id, nodes[2].node_id))

    def test_nobody_is_waited_for_when_all_messages_have_expired(self) -> None:
        with self.open_grid(2, _SEED) as grid:
            nodes = grid.nodes(1, "test.echo")
            grid.send(self.messages(nodes, "test.echo", _content(), late=nodes))
            assert list(grid.replies()) == []

    # What nodes keep.

    def test_state_stays_on_its_node(self) -> None:
        with self.open_grid(3, _SEED) as grid:
            some = grid.nodes(1, "test.count")[:2]
            assert _seen(self.ask(grid, "test.count", _content(), nodes=some)) == [1, 1]
            assert _seen(self.ask(grid, "test.count", _content(), number=2)) == [2, 2, 1]

    def test_state_changes_only_with_a_reply(self) -> None:
        with self.open_grid(2, _SEED) as grid:
            self.ask(grid, "test.count", _content())
            self.ask(grid, "test.count-and-raise", _content(), number=2)
            assert _seen(self.ask(grid, "test.count", _content(), number=3)) == [2, 2]

    def test_a_state_that_no_file_can_hold_is_an_error_reply(self) -> None:
        with self.open_grid(1, _SEED) as grid:
            (reply,) = self.ask(grid, "test.bad-state", _content()).values()
            assert reply.error.code == ErrorCode.BAD_REPLY
            assert "context.state" in (reply.error.reason or "")

    # Giving up.

    def test_messages_that_are_given_up_hold_nothing_up(self) -> None:
        with self.open_grid(4, _SEED) as grid:
            nodes = grid.nodes(1, "test.echo")
            grid.send(self.messages(nodes, "test.echo", _content()))
            grid.cancel([1_000, 1_002])
            answered = {reply.metadata.src_node_id for reply in grid.replies()}
            assert answered >= {nodes[1].node_id, nodes[3].node_id}
            assert len(self.ask(grid, "test.echo", _content(), number=2)) == 4

    def test_nothing_is_outstanding_after_close(self) -> None:
        with self.open_grid(3, _SEED) as grid:
            grid.send(self.messages(grid.nodes(1, "test.echo"), "test.echo", _content()))
            grid.close()
            assert list(grid.replies()) == []

    # What a training loop makes of it.

    def test_a_run_ends_with_the_model_of_the_local_engine(self) -> None:
        with self.open_grid(7, _SEED) as grid:
            names = [node.name for node in grid.nodes(1, "train")]
            found = _trained(grid)
        local = LocalGrid(grid_app, Population(names), seed=_SEED)
        assert found == _trained(local)


def _content(size: int = 3) -> RecordSet:
    """Return a record set with arrays of many dtypes, one of them of ``size`` numbers, and values of all kinds."""
    rng = np.random.default_rng(size)
    arrays: dict[str, NDArray[Any]] = {
        "w": rng.standard_normal(size),
        "scalar": np.array(7, np.int16),
        "none": np.zeros((0, 4), np.float32),
        "half": rng.standard_normal(5).astype(ml_dtypes.bfloat16),
        "odd": np.arange(5).astype(ml_dtypes.float8_e4m3fn),
        "yes": np.array([True, False]),
        "turn": np.array([1j, 2.0]),
        "fortran": np.asfortranarray(rng.standard_normal((3, 2))),
    }
    values: dict[str, Any] = {
        "text": "ümbel",
        "bytes": b"\x00\xff",
        "yes": True,
        "n": -(2**63),
        "list": [1.5, float("inf")],
        "empty": [],
    }
    return RecordSet(
        {"model": ParametersRecord.from_numpy(arrays), "beside": ParametersRecord()},
        {"metrics": MetricsRecord({"minus": -0.0, "many": [1, 2]})},
        {"config": ConfigsRecord(values)},
    )


def _kept(reply: Message) -> Message:
    """Return the reply with memory of its own: a grid may use that of a reply again when the next one is read."""
    if reply.has_error():
        return reply
    content = reply.content.copy()
    for name, record in content.parameters_records.items():
        content.parameters_records[name] = ParametersRecord(
            {key: array.__deepcopy__({}) for key, array in record.items()}
        )
    return Message(reply.metadata, content)


def _seen(replies: dict[str, Message]) -> list[object]:
    return [replies[name].content.metrics_records["state"]["seen"] for name in sorted(replies)]


def _trained(grid: Grid) -> tuple[str, object]:
    """Return the digest and the last metrics of a short run."""
    rng = np.random.default_rng(1)
    initial: dict[str, NDArray[Any]] = {
        "w": rng.standard_normal((300, 20)).astype(np.float32),
        "b": rng.standard_normal(20),
    }
    strategy = fedavg(fraction=0.6)
    state = begin(strategy, ParametersRecord.from_numpy(initial), seed=_SEED)
    metrics: object = None
    for event in train(grid, strategy, state, rounds=4):
        if isinstance(event, RunCompleted):
            return event.digest, metrics
        metrics = getattr(getattr(event, "report", None), "metrics", metrics)
    raise AssertionError("expected the loop to end with RunCompleted")
