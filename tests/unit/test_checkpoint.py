"""Checkpoints: the folder holds the last complete round, whatever an interrupted one left in it."""

import dataclasses

import numpy as np
import pytest

from umbel import checkpoint
from umbel.errors import CheckpointError
from umbel.history import RoundReport
from umbel.records import ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet


def state_of(number, size=4):
    model = ParametersRecord.from_numpy({"w": np.full(size, float(number))})
    return RecordSet({"model": model}, configs_records={"run": ConfigsRecord({"round": number, "seed": 1})})


def reports(count):
    return [
        RoundReport(n, 2, 2, (("a", "line\u2028break"),), (), {"train.loss": 1 / n}, {"sent": 1}, {"train": 0.1}, "d")
        for n in range(1, count + 1)
    ]


def kept(number, size=4):
    return RecordSet(
        {"momentum": ParametersRecord.from_numpy({"v": np.full(size, float(number)), "u": np.zeros(0)})},
        {"seen": MetricsRecord({"rounds": [number]}), "none": MetricsRecord()},
        {"text": ConfigsRecord({"name": "x" * number})},
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_comes_back(tmp_path):
    assert not checkpoint.exists(tmp_path)
    nodes = {"a": kept(1), "b": kept(2)}
    checkpoint.write(tmp_path, state_of(2), reports(2), nodes=nodes)
    assert checkpoint.exists(tmp_path)
    found = checkpoint.read(tmp_path)
    assert found.state == state_of(2)
    assert found.reports == tuple(reports(2))
    assert found.nodes == nodes


def test_a_folder_is_made_with_its_parents(tmp_path):
    checkpoint.write(tmp_path / "a" / "b", state_of(0))
    assert checkpoint.read(tmp_path / "a" / "b") == checkpoint.Checkpoint(state_of(0), (), {})


def test_what_a_killed_process_left_half_written_is_deleted(tmp_path):
    for name in (".state.safetensors.a1b2c3d4.tmp", ".nodes-00000001-all-0000.safetensors.x.tmp", ".mine.tmp"):
        (tmp_path / name).touch()
    checkpoint.write(tmp_path, state_of(1), reports(1))
    assert names(tmp_path) == [".mine.tmp", "rounds.jsonl", "state.safetensors"]


def test_what_a_later_round_left_behind_does_not_count(tmp_path):
    checkpoint.write(tmp_path, state_of(1), reports(1), nodes={"a": kept(1)})
    state = (tmp_path / "state.safetensors").read_bytes()
    checkpoint.write(tmp_path, state_of(2), reports(2), nodes={"a": kept(1), "b": kept(2)}, changed={"b"})
    (tmp_path / "state.safetensors").write_bytes(state)
    with (tmp_path / "rounds.jsonl").open("a") as file:
        file.write('{"round": 3, "coh')
    assert checkpoint.read(tmp_path) == checkpoint.Checkpoint(state_of(1), tuple(reports(1)), {"a": kept(1)})
    # Round 2 is played again, and goes another way.
    checkpoint.write(tmp_path, state_of(2), reports(2), nodes={"a": kept(5)}, changed={"a"})
    assert checkpoint.read(tmp_path) == checkpoint.Checkpoint(state_of(2), tuple(reports(2)), {"a": kept(5)})


@pytest.mark.parametrize("number", [1, 2])
def test_a_round_is_never_written_over(tmp_path, number):
    checkpoint.write(tmp_path, state_of(2), reports(2), nodes={"a": kept(1)})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=f"a round after 2, which the folder holds, got round {number}: go on"):
        checkpoint.write(tmp_path, state_of(number), reports(number), nodes={"a": kept(5)})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_only_what_changed_is_written(tmp_path):
    nodes = {f"node-{number}": kept(number, 1_000) for number in range(20)}
    checkpoint.write(tmp_path, state_of(1), nodes=nodes)
    whole = (tmp_path / "nodes-00000001-all-0000.safetensors").stat().st_size
    nodes |= {"node-3": kept(33, 1_000)}
    checkpoint.write(tmp_path, state_of(2), nodes=nodes, changed={"node-3"})
    assert (tmp_path / "nodes-00000002-new-0000.safetensors").stat().st_size < whole / 10
    checkpoint.write(tmp_path, state_of(3), nodes=nodes, changed=())
    assert len(names(tmp_path)) == 4


def test_a_state_that_was_given_up_is_gone(tmp_path):
    checkpoint.write(tmp_path, state_of(1), reports(1), nodes={"a": kept(1), "b": kept(2), "c": kept(3)})
    checkpoint.write(tmp_path, state_of(2), reports(2), nodes={"a": kept(1), "c": kept(3)}, changed={"b"})
    assert sorted(checkpoint.read(tmp_path).nodes) == ["a", "c"]
    checkpoint.write(tmp_path, state_of(3), reports(3), nodes={}, changed={"a", "c"})
    assert checkpoint.read(tmp_path).nodes == {}


def test_the_log_of_nodes_stays_a_small_multiple_of_what_is_kept(tmp_path):
    nodes = {f"node-{number}": kept(number, 500) for number in range(10)}
    checkpoint.write(tmp_path, state_of(1), reports(1), nodes=nodes)
    live = sum(path.stat().st_size for path in tmp_path.glob("nodes-*"))
    for number in range(2, 60):
        changed = f"node-{number % 10}"
        nodes[changed] = kept(number, 500)
        checkpoint.write(tmp_path, state_of(number), reports(number), nodes=nodes, changed={changed})
        assert sum(path.stat().st_size for path in tmp_path.glob("nodes-*")) < 3.5 * live
    assert checkpoint.read(tmp_path).nodes == nodes


def test_many_nodes_go_into_several_files(tmp_path):
    nodes = {f"node-{number}": kept(number % 3, 1) for number in range(2_100)}
    checkpoint.write(tmp_path, state_of(1), reports(1), nodes=nodes)
    assert len(list(tmp_path.glob("nodes-*"))) == 3
    assert checkpoint.read(tmp_path).nodes == nodes


@pytest.mark.parametrize(
    "state",
    {
        "values": RecordSet(metrics_records={"losses": MetricsRecord({"l": [0.5] * 300})}),
        "text": RecordSet(configs_records={"random": ConfigsRecord({"state": b"x" * 20_000})}),
        "records": RecordSet(configs_records={f"r{i}": ConfigsRecord() for i in range(80)}),
        "names": RecordSet({"m": ParametersRecord.from_numpy({f"{'x' * 900}{i}": np.zeros(1) for i in range(20)})}),
    }.values(),
    ids=("values", "text", "records", "names"),
)
def test_files_stay_inside_the_limits_of_a_container_whatever_nodes_keep(tmp_path, state):
    nodes = {f"node-{number}": state for number in range(1_000)}
    checkpoint.write(tmp_path, state_of(1), reports(1), nodes=nodes)
    assert checkpoint.read(tmp_path).nodes == nodes


def test_a_state_that_no_file_can_hold_is_named(tmp_path):
    large = RecordSet(metrics_records={"losses": MetricsRecord({"l": [0.5] * 262_144})})
    with pytest.raises(CheckpointError, match="those of the nodes amber: expected at most 262144 values"):
        checkpoint.write(tmp_path, state_of(1), reports(1), nodes={"amber": large})


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "nodes-of-the-north.safetensors").touch()
    checkpoint.write(tmp_path, state_of(1), reports(1), nodes={"a": kept(1)})
    assert checkpoint.read(tmp_path).nodes == {"a": kept(1)}
    assert "nodes-of-the-north.safetensors" in names(tmp_path)


def test_names_of_any_kind_come_back(tmp_path):
    record = ParametersRecord.from_numpy({"../w": np.ones(1)})
    nodes = {"Zürich / 1": RecordSet({"index": record, "0": record}, {"0": MetricsRecord({"n": 1})})}
    checkpoint.write(tmp_path, state_of(0), nodes=nodes)
    assert checkpoint.read(tmp_path).nodes == nodes
    assert all("Z" not in name for name in names(tmp_path))


def test_a_folder_without_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="expected a checkpoint"):
        checkpoint.read(tmp_path)


@pytest.mark.parametrize("damage", ["state.safetensors", "nodes-00000001-all-0000.safetensors"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    checkpoint.write(tmp_path, state_of(1), reports(1), nodes={"a": kept(1)})
    path = tmp_path / damage
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match="expected a checkpoint"):
        checkpoint.read(tmp_path)


def test_missing_reports_are_refused(tmp_path):
    checkpoint.write(tmp_path, state_of(3), reports(2))
    with pytest.raises(CheckpointError, match="rounds 1 to 3"):
        checkpoint.read(tmp_path)


@pytest.mark.parametrize("number", [0, 2])
def test_statistics_are_reported_as_round_0(tmp_path, number):
    zeroth = dataclasses.replace(reports(1)[0], round=0)
    checkpoint.write(tmp_path, state_of(number), [zeroth, *reports(number)])
    assert checkpoint.read(tmp_path).reports == (zeroth, *reports(number))


def test_a_file_of_another_kind_is_no_state_of_nodes(tmp_path):
    checkpoint.write(tmp_path, state_of(1), reports(1))
    (tmp_path / "nodes-00000001-all-0000.safetensors").write_bytes((tmp_path / "state.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="states of nodes"):
        checkpoint.read(tmp_path)


@pytest.mark.parametrize("run", [None, ConfigsRecord(), ConfigsRecord({"round": -1}), ConfigsRecord({"round": "1"})])
def test_a_state_says_how_many_rounds_are_behind_it(tmp_path, run):
    state = RecordSet(configs_records={} if run is None else {"run": run})
    with pytest.raises(CheckpointError, match="number of completed rounds"):
        checkpoint.write(tmp_path, state)
