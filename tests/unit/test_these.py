"""The fixed cohort: always the same nodes, by name, and a clear word when one of them is not there."""

import numpy as np
import pytest

import umbel
from umbel.app import ClientApp
from umbel.engines import VirtualGrid
from umbel.errors import StrategyError
from umbel.records import MetricsRecord, RecordSet
from umbel.rounds import UpdateAccepted
from umbel.strategy import Occasion, buffered, during, fixed, strategy, these

COLUMNS = {name: np.zeros(0) for name in ("round", "lost", "seconds")}


def occasion(names, seed=0, number=1, now=float("nan")):
    return Occasion(len(names), seed, number, np.zeros(0, np.int64), COLUMNS, now, sorted(names).__getitem__)


def app():
    made = ClientApp()

    @made.train()
    def train(message, context):
        model = message.content.parameters_records["model"]
        metrics = {"metrics": MetricsRecord({"num-examples": context.node_id})}
        return message.create_reply(RecordSet({"model": model}, metrics))

    @made.evaluate()
    def evaluate(message, context):
        return message.create_reply(RecordSet(metrics_records={"metrics": MetricsRecord({"num-examples": 1})}))

    return made


def asked(whole, nodes, rounds=3, **options):
    """Who was asked, by round and phase."""
    found = {}

    def note(event):
        if isinstance(event, UpdateAccepted):
            found.setdefault((event.round, event.phase), set()).add(event.node)

    umbel.simulate(app(), whole, {"w": np.zeros(2)}, nodes=nodes, rounds=rounds, on_event=note, **options)
    return found


def test_the_same_nodes_in_every_round_whatever_the_seed():
    wanted = {"node-3", "node-10"}
    for seed in (0, 7):
        found = asked(strategy(select=these(["node-3", "node-10"])), 100_000, seed=seed)
        assert found == {(number, "train"): wanted for number in (1, 2, 3)}
    drawn = asked(strategy(select=fixed(2)), 100_000)
    assert len(set(map(frozenset, drawn.values()))) == 3  # while these are drawn anew


def test_it_chooses_who_evaluates_too():
    found = asked(strategy(evaluate=these("b")), ["a", "b", "c"], rounds=1)
    assert found == {(1, "train"): {"a", "b", "c"}, (1, "evaluate"): {"b"}}


def test_where_rounds_overlap():
    whole = strategy(select=these(["node-1", "node-4", "node-6"]), policy=buffered(concurrency=3, buffer=2))
    found = asked(whole, 8, rounds=4, engine=VirtualGrid)
    assert set.union(*found.values()) <= {"node-1", "node-4", "node-6"}
    assert all(len(nodes) == 2 for nodes in found.values())


@pytest.mark.parametrize("size", [1, 2, 3, 40])
def test_positions_are_those_of_the_names(size):
    names = [f"site-{place * 7919 % 1000}" for place in range(size)]
    ordered = sorted(names)
    for chosen in (names[:1], names[-1:], names[::2], names):
        positions = these(chosen).positions(occasion(names))
        assert [ordered[place] for place in positions] == sorted(chosen)
        assert list(positions) == sorted(positions)
        assert list(these(chosen).positions(occasion(names, seed=9, number=8))) == list(positions)


def test_only_in_their_hours():
    selector = during({"b": (0, 8)}, these("a"))
    assert list(selector.positions(occasion("abc", now=12 * 3600.0))) == [0]
    with pytest.raises(StrategyError, match="there is no 'b' among the 2 of round 1"):
        during({"b": (0, 8)}, these("b")).positions(occasion("abc", now=12 * 3600.0))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("site-3", "there is no 'site-3' among the 3 of round 4: start .*; did you mean \"site-2\""),
        (["site-0", "x"], r"there is no 'x' among the 3 of round 4: .* \(known: site-0, site-1, site-2\)"),
        (["a", "b", "z", "zz", "zzz"], "there is no 'a' or 'b' or 'z' or 2 more among"),
    ],
)
def test_a_node_that_is_not_there_is_refused_by_name(names, message):
    with pytest.raises(StrategyError, match=message) as caught:
        these(names).positions(occasion([f"site-{place}" for place in range(3)], number=4))
    assert caught.value.at == "select"


def test_a_run_with_a_name_that_no_node_has_asks_nobody():
    with pytest.raises(StrategyError, match="there is no 'nod-1' among the 12 of round 1"):
        asked(strategy(select=these(["node-1", "nod-1"])), 12)


@pytest.mark.parametrize("names", [[], "", [""], ["a", "a"], ["a", 5], [None]])
def test_names_that_cannot_be(names):
    with pytest.raises(StrategyError, match="expected the names of nodes, each once"):
        these(names)


def test_two_cohorts_are_two_descriptions():
    assert these(["b", "a"]).name == these(["a", "b"]).name == "these('a', 'b')"
    assert these("a").most == 1
    many = [f"node-{place}" for place in range(1_000)]
    assert len(these(many).name) < 60
    assert these(many).name != these(many[1:]).name != these([*many[1:], "x"]).name
    with pytest.raises(StrategyError, match="6 updates are required of a cohort of 2"):
        strategy(select=these(["a", "b"]), min_updates=6)


def test_without_names_nobody_can_be_chosen():
    with pytest.raises(StrategyError, match="which knows the names"):
        these("a").choose(3, 0)
