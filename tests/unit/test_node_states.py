"""What nodes keep: changed through commits alone, and shared with nobody."""

import numpy as np
import pytest

from umbel.engines import NodeStates
from umbel.errors import RecordError
from umbel.records import Array, ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet


def state_of(value=1.0):
    return RecordSet(
        {"weights": ParametersRecord.from_numpy({"w": np.full(3, value)})},
        {"metrics": MetricsRecord({"losses": [value]})},
        {"config": ConfigsRecord({"seen": ["a"]})},
    )


def test_a_node_without_state_costs_nothing():
    states = NodeStates()
    states.commit("a", states.checkout("a"))
    assert states.kept == {}
    assert states.take_changes() == set()


def test_a_commit_is_what_the_next_checkout_returns():
    states = NodeStates()
    states.commit("a", state_of())
    assert states.checkout("a") == state_of()
    assert states.checkout("b") == RecordSet()


def test_a_checkout_is_a_copy_down_to_the_lists():
    states = NodeStates({"a": state_of()})
    taken = states.checkout("a")
    taken.metrics_records["metrics"]["losses"].append(5.0)
    taken.configs_records["config"]["seen"].append("b")
    taken.parameters_records["weights"].clear()
    assert states.checkout("a") == state_of()


def test_a_commit_keeps_a_copy_of_views():
    memory = np.zeros(3)
    state = RecordSet({"weights": ParametersRecord.from_numpy({"w": memory}, copy=False)})
    states = NodeStates()
    states.commit("a", state)
    memory += 1
    state.parameters_records["weights"].clear()
    assert states.checkout("a").parameters_records["weights"].to_numpy()["w"].tolist() == [0, 0, 0]


def test_an_unchanged_array_is_not_copied_again():
    states = NodeStates({"a": state_of()})
    kept = states.kept["a"].parameters_records["weights"]["w"]
    state = states.checkout("a")
    state.metrics_records["metrics"]["losses"] = [2.0]
    states.commit("a", state)
    assert states.kept["a"].parameters_records["weights"]["w"] is kept


def test_changes_are_named_once():
    states = NodeStates({"a": state_of(), "b": state_of(), "c": state_of()})
    states.commit("a", state_of(2.0))
    states.commit("b", state_of())
    states.commit("c", RecordSet())
    assert states.take_changes() == {"a", "c"}
    assert states.take_changes() == set()
    assert sorted(states.kept) == ["a", "b"]


@pytest.mark.parametrize(
    ("before", "after"), [({"n": 1}, {"n": True}), ({"n": 0.0}, {"n": -0.0}), ({"a": 1, "b": 2}, {"b": 2, "a": 1})]
)
def test_a_change_that_equality_does_not_see_is_kept(before, after):
    states = NodeStates()
    for values in (before, after):
        states.commit("a", RecordSet(configs_records={"config": ConfigsRecord(values)}))
    kept = states.checkout("a").configs_records["config"]
    assert repr(dict(kept)) == repr(after)


def test_a_state_that_no_file_can_hold_is_refused_and_the_old_one_stays():
    states = NodeStates({"a": state_of()})
    cut = RecordSet({"weights": ParametersRecord({"w": Array("float32", [7], "raw", b"123")})})
    with pytest.raises(RecordError, match="should have 28 bytes"):
        states.commit("a", cut)
    assert states.checkout("a") == state_of()
    assert states.take_changes() == set()


def test_kept_is_read_only():
    with pytest.raises(TypeError):
        NodeStates().kept["a"] = RecordSet()
