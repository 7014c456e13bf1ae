"""Populations: virtual nodes that are never listed, sorted as their names are."""

import tracemalloc

import pytest

from umbel.engines import Population
from umbel.errors import UsageError


@pytest.mark.parametrize("count", [*range(1, 130), 999, 1_000, 1_001, 2_345])
def test_virtual_nodes_are_sorted_by_name(count):
    names = sorted(f"node-{number}" for number in range(count))
    nodes = Population(count).nodes
    assert [node.name for node in nodes] == names
    assert [nodes[place].name for place in range(count)] == names
    assert len(nodes) == count


def test_positions_may_be_negative_and_slices():
    nodes = Population(12).nodes
    assert nodes[-1].name == "node-9"
    assert [node.name for node in nodes[1:4]] == ["node-1", "node-10", "node-11"]
    for place in (12, -13):
        with pytest.raises(IndexError):
            nodes[place]


def test_a_million_virtual_nodes_cost_nothing():
    tracemalloc.start()
    population = Population(1_000_000)
    picked = [population.nodes[place] for place in range(0, 1_000_000, 10_000)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000
    assert picked[1].name == "node-108998"
    assert population.config(picked[1]) == {"partition-id": 108_998, "num-partitions": 1_000_000}


def test_a_node_is_found_by_its_id():
    for nodes in (1_000, ["c", "a", "b"], {"y": {}, "x": {}}):
        population = Population(nodes)
        for node in population.nodes:
            assert population.node(node.node_id) == node
            assert node.node_id > 0


def test_named_nodes_are_sorted_and_know_their_place():
    population = Population(["zurich", "basel"])
    assert [node.name for node in population.nodes] == ["basel", "zurich"]
    assert population.config(population.nodes[1]) == {"partition-id": 0, "num-partitions": 2}


def test_configs_are_given_out_as_copies():
    given = {"basel": {"beds": 7}}
    population = Population(given)
    population.config(population.nodes[0])["beds"] = 0
    given["basel"]["beds"] = 1
    assert population.config(population.nodes[0]) == {"beds": 7}


def test_a_description_tells_populations_apart():
    others = [3, 4, ["a", "b"], ["b", "a"], {"a": {}}, {"a": {}, "b": {}, "c": {}}]
    assert len({Population(nodes).description for nodes in others}) == len(others)
    assert Population(3).description == "3 virtual nodes"
    assert Population({"b": {}, "a": {}}).description == Population({"a": {"beds": 7}, "b": {}}).description


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (0, "at least one node"),
        (-1, "at least one node"),
        ([], "at least one node"),
        ({}, "at least one node"),
        ("basel", "a list of names"),
        (True, "a list of names"),
        (2.0, "a list of names"),
        (["a", "b", "a"], "more than one 'a'"),
        ([""], "a node name"),
        (["a\n"], "a node name"),
        (["\ud800"], "a node name"),
        (["x" * 1_025], "a node name"),
        ({1: {}}, "a node name"),
    ],
)
def test_what_is_no_population_is_refused(nodes, message):
    with pytest.raises(UsageError, match=message):
        Population(nodes)
