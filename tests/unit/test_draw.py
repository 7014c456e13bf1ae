"""Who is asked next where rounds overlap: a node that is free, each once."""

import numpy as np
import pytest

from arrivals import ArrivalGrid
from paced import app, events_of, reports
from umbel import strategy as named
from umbel.app import ClientApp
from umbel.engines import LocalGrid, Population
from umbel.records import RecordSet
from umbel.rounds import NodeLost
from umbel.rounds._draw import Draw
from umbel.rounds._gather import Question

NODES = 300


def draw_of(busy, groups=None):
    """A draw of a round; nodes are busy by their positions."""
    nodes = Population(NODES).nodes
    places = {node.name: place for place, node in enumerate(nodes)}
    question = Question(1, 1, "train", nodes, range(NODES), RecordSet(), 1)
    draw = Draw(7, question, [range(NODES)] if groups is None else groups, lambda _, name: places[name] in busy)

    def following(group=0):
        drawn = draw.next(group)
        return None if drawn is None else places[drawn[0].name]

    return draw, following


@pytest.mark.parametrize("free", [0, 1, 5, 43, 300])
def test_every_free_node_comes_once_and_then_none(free):
    here = set(range(0, NODES, 7)) if free == 43 else set(range(free))
    _, following = draw_of(set(range(NODES)) - here)
    drawn = [following() for _ in here]
    assert len(drawn) == len(here) == free
    assert set(drawn) == here
    assert [following(), following()] == [None, None]


def test_a_node_that_is_free_again_comes_when_somebody_says_so():
    busy = set(range(NODES))
    draw, following = draw_of(busy)
    assert following() is None
    busy -= {17, 230}
    assert following() is None
    draw.look_again()
    assert {following(), following()} == {17, 230}
    assert following() is None
    draw.look_again()
    assert following() is None, "nobody comes twice in a round"


def test_groups_are_drawn_from_by_themselves():
    busy = set(range(10, NODES))
    draw, following = draw_of(busy, [range(150), range(150, NODES)])
    assert following(1) is None
    assert {following(0) for _ in range(10)} == set(range(10))
    busy -= {200}
    draw.look_again()
    assert (following(0), following(1)) == (None, 200)


def test_what_is_drawn_is_decided_by_the_seed():
    busy = set(range(3, NODES))
    assert [draw_of(busy)[1]() for _ in range(3)] == [draw_of(busy)[1]() for _ in range(3)]


@pytest.mark.parametrize(
    "whole",
    [named.fedbuff(concurrency=12, buffer=3), named.fedasync(concurrency=11), named.fedat(count=4, number=3)],
    ids=lambda whole: whole.name,
)
@pytest.mark.parametrize("seed", range(8))
def test_who_is_remembered_as_free_is_free(whole, seed, monkeypatch):
    rng, used = np.random.default_rng(seed), []
    place_in = Draw._place

    def checked(draw, group):
        free = draw._free[group]
        if free is not None:
            used.append(group)
            assert free == [place for place in draw._groups[group] if draw._is_free(group, place)]
        return place_in(draw, group)

    trained, unsteady = app(), ClientApp()

    @unsteady.train()
    def handle(message, context):
        if rng.random() < 0.3:
            raise ValueError("no power")
        return trained(message, context)

    monkeypatch.setattr(Draw, "_place", checked)
    events_of(whole, ArrivalGrid(unsteady, 12, lambda _: float(rng.exponential())), rounds=60)
    assert used or not whole.name.startswith("fedbuff")


def test_all_nodes_at_a_time_are_not_looked_through_for_each_answer():
    class Nodes(list):
        looks = 0

        def __getitem__(self, place):
            Nodes.looks += 1
            return super().__getitem__(place)

    class Counting(LocalGrid):
        def nodes(self, *phase):
            return Nodes(super().nodes(*phase))

    whole = named.fedbuff(concurrency=300, buffer=30)
    grid = Counting(app(), Population(300), seed=5)
    rounds = 8
    done = events_of(whole, grid, rounds=rounds)
    assert [report.accepted for report in reports(done)] == [30] * rounds
    # Twice each: to see whether it is free, and to ask it; by chance alone 32 at a time are looked at before.
    assert Nodes.looks < rounds * (2 * 300 + 30 * 32)


def test_a_node_that_failed_while_all_others_train_is_asked_again_at_once():
    trained, failing, calls = app(), ClientApp(), []

    @failing.train()
    def handle(message, context):
        if context.node_name != "node-0":
            return trained(message, context)
        calls.append(message.metadata.group_id)
        raise ValueError("no power")

    def seconds(asked):  # it fails in the third round, when others have answered and nobody was free
        return 2.5 if asked.dst_node_id == 1 else 1 + asked.dst_node_id / 100

    whole = named.fedbuff(concurrency=8, buffer=4)
    events = events_of(whole, ArrivalGrid(failing, 8, seconds), rounds=6)
    lost = [each.round for each in events if isinstance(each, NodeLost)]
    assert lost[0] == 3
    assert calls[:2] == [1, 3]
