"""``umbel inspect`` and ``umbel diff`` on files of every kind, through typer's runner."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from umbel.records import (
    Array,
    ConfigsRecord,
    MetricsRecord,
    ParametersRecord,
    RecordSet,
    array_from_numpy,
    digest,
    save,
)


@pytest.fixture
def model(tmp_path):
    def write(name, arrays, **others):
        path = tmp_path / name
        save(RecordSet({"model": ParametersRecord.from_numpy(arrays)}, **others), path)
        return path

    return write


WEIGHTS = {"fc.weight": np.arange(6, dtype="float32").reshape(2, 3), "fc.bias": np.array([1, np.nan], "float64")}


def test_inspect_shows_arrays_and_digest(umbel, model):
    path = model("m.safetensors", WEIGHTS)
    result = umbel("inspect", path)
    assert result.exit_code == 0
    assert "fc.weight  float32  2x3    24 B" in result.stdout
    assert "2 arrays, 40 B" in result.stdout
    assert digest(ParametersRecord.from_numpy(WEIGHTS)) in result.stdout
    assert result.stderr == ""


def test_inspect_with_statistics(umbel, model):
    result = umbel("inspect", model("m.safetensors", WEIGHTS), "--stats")
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("fc.weight")]
    assert line.split()[4:10] == ["B", "0", "5", "2.5", "7.416", "0"]
    assert "█" in line


def test_inspect_as_json(umbel, model):
    records = {
        "metrics_records": {"train": MetricsRecord({"loss": 0.5, "bad": float("nan")})},
        "configs_records": {"run": ConfigsRecord({"key": b"\x01\x02", "name": "x"})},
    }
    result = umbel("inspect", model("m.safetensors", WEIGHTS, **records), "--stats", "--json")
    value = json.loads(result.stdout)
    assert value["kind"] == "umbel"
    weight, bias = value["parameters_records"]["model"]
    assert (weight["name"], weight["dtype"], weight["shape"], weight["bytes"]) == ("fc.weight", "float32", [2, 3], 24)
    assert weight["stats"]["mean"] == 2.5
    assert bias["stats"]["nans"] == 1
    assert value["metrics_records"] == {"train": {"loss": 0.5, "bad": None}}
    assert value["configs_records"] == {"run": {"key": "0102", "name": "x"}}


def test_inspect_shows_metrics_and_configs(umbel, model):
    records = {"metrics_records": {"train": MetricsRecord({"loss": [0.5, 0.25]})}}
    result = umbel("inspect", model("m.safetensors", {}, **records))
    assert "metrics train: 1 value" in result.stdout
    assert "[0.5, 0.25]" in result.stdout


def test_inspect_every_dtype(umbel, model):
    names = ["bool", "int4", "uint64", "float16", "bfloat16", "float8_e4m3fn", "complex64", "complex128"]
    arrays = {name: np.ones((2, 2)).astype(getattr(ml_dtypes, name, name)) for name in names}
    result = umbel("inspect", model("m.safetensors", arrays), "--stats")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines() if line.split()[:1] and line.split()[0] in names]
    assert [(row[0], row[1], row[7]) for row in rows] == [(name, name, "1") for name in names]


def test_inspect_a_plain_safetensors_file(umbel, tmp_path):
    path = tmp_path / "plain.safetensors"
    safetensors.numpy.save_file({"w": np.ones((3, 4), "float16")}, path, metadata={"format": "pt"})
    result = umbel("inspect", path)
    assert result.exit_code == 0
    assert "plain safetensors" in result.stdout
    assert "w      float16  3x4    24 B" in result.stdout


@pytest.mark.parametrize("order", ["C", "F"])
def test_inspect_an_npy_file(umbel, tmp_path, order):
    path = tmp_path / "weights.npy"
    np.save(path, np.arange(6.0).reshape(2, 3, order=order))
    result = umbel("inspect", path, "--stats")
    assert result.exit_code == 0
    assert "one NumPy array" in result.stdout
    assert "weights  float64  2x3" in result.stdout


def test_inspect_a_folder_of_a_run(umbel, model, tmp_path):
    (tmp_path / "run").mkdir()
    model("run/model.safetensors", WEIGHTS)
    assert "fc.weight" in umbel("inspect", tmp_path / "run").stdout


def test_five_hundred_arrays_stay_readable(umbel, model):
    result = umbel("inspect", model("m.safetensors", {f"layer.{i}.weight": np.ones(3) for i in range(500)}))
    lines = result.stdout.splitlines()
    assert len(lines) < 510
    assert lines[-1] == "500 arrays, 12.0 kB"


def test_names_never_reach_the_terminal_raw(umbel, tmp_path):
    # safetensors takes any name; only escapes of the terminal's own may not come through.
    path = tmp_path / "odd\u202e.safetensors"
    safetensors.numpy.save_file({"a\u202e\u2066b": np.ones(1)}, path)
    result = umbel("inspect", path)
    assert result.exit_code == 0, result.stderr
    assert "\u202e" not in result.output
    assert r"a\u202e\u2066b" in result.stdout


def test_an_array_of_unknown_serialisation_does_not_hide_the_others(umbel, tmp_path):
    odd = Array("float32", [2], "somebody.else", b"12345678")
    save(ParametersRecord({"odd": odd, "plain": array_from_numpy(np.ones(2))}), tmp_path / "m.safetensors")
    result = umbel("inspect", tmp_path / "m.safetensors", "--stats")
    assert result.exit_code == 0
    assert "somebody.else" in result.stdout
    assert "plain" in result.stdout
    value = json.loads(umbel("inspect", tmp_path / "m.safetensors", "--stats", "--json").stdout)
    assert "somebody.else" in value["parameters_records"]["model"][0]["unreadable"]


@pytest.mark.parametrize(
    ("content", "status"), [(b"", 65), (b"{}", 65), (b"\x93NUMPY", 65), (b"PK\x03\x04" + b"0" * 99, 65)]
)
def test_a_damaged_file_is_refused(umbel, tmp_path, content, status):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    result = umbel("inspect", path)
    assert result.exit_code == status
    assert result.stderr.startswith("error: ")
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("cut", [4, 100, -1])
def test_a_cut_file_is_refused(umbel, model, cut):
    path = model("m.safetensors", WEIGHTS)
    path.write_bytes(path.read_bytes()[:cut])
    assert umbel("inspect", path).exit_code == 65


def test_a_missing_file_is_a_usage_error_with_the_nearest_name(umbel, model):
    model("model.safetensors", WEIGHTS)
    result = umbel("inspect", "modle.safetensors")
    assert result.exit_code == 2
    assert 'did you mean "model.safetensors"?' in result.stderr


def test_a_folder_without_a_model_is_a_usage_error(umbel, tmp_path):
    result = umbel("inspect", tmp_path)
    assert result.exit_code == 2
    assert "holds no model.safetensors" in result.stderr


def test_errors_as_json_are_on_stdout(umbel):
    result = umbel("inspect", "nothing", "--json")
    assert json.loads(result.stdout)["error"]["exit_status"] == result.exit_code == 2
    assert "there is no file" in result.stderr


def test_identical_models(umbel, model):
    result = umbel("diff", model("a.safetensors", WEIGHTS), model("b.safetensors", WEIGHTS))
    assert result.exit_code == 0
    assert result.stdout.startswith("identical: 2 arrays, digest blake3:")


def test_a_plain_file_is_identical_to_a_container_of_its_values(umbel, model, tmp_path):
    safetensors.numpy.save_file({"w": np.ones(3)}, tmp_path / "plain.safetensors")
    assert umbel("diff", model("a.safetensors", {"w": np.ones(3)}), "plain.safetensors").exit_code == 0


def test_every_kind_of_difference(umbel, model):
    before = {"same": np.ones(2), "changed": np.array([3.0, 4.0]), "gone": np.ones(1), "typed": np.ones(2, "float32")}
    before["shaped"] = np.ones((2, 3))
    after = {"same": np.ones(2), "changed": np.array([3.0, 6.5]), "typed": np.ones(2, "float64")}
    after |= {"shaped": np.ones((3, 2)), "new": np.ones(4, "int8")}
    result = umbel("diff", model("a.safetensors", before), model("b.safetensors", after))
    assert result.exit_code == 1
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["changed", "changed", "2.5", "0.5", "1", "elements", "of", "float64", "2"] in rows
    assert ["dtype", "typed", "0", "0", "float32", "->", "float64"] in rows
    assert ["shape", "shaped", "2x3", "->", "3x2"] in rows
    assert ["removed", "gone", "float64", "1"] in rows
    assert ["added", "new", "int8", "4"] in rows
    assert result.stdout.splitlines()[-1].endswith("1 array equal")


def test_difference_as_json(umbel, model):
    paths = model("a.safetensors", {"w": np.zeros(2)}), model("b.safetensors", {"w": np.ones(2)})
    result = umbel("diff", *paths, "--json")
    value = json.loads(result.stdout)
    assert result.exit_code == 1
    assert value["identical"] is False
    assert value["changes"] == [
        {
            "record": "model",
            "name": "w",
            "what": "changed",
            "detail": "2 elements of float64 2",
            "unequal": 2,
            "max_abs": 1.0,
            "relative": None,
        }
    ]


def test_equal_values_in_another_order_are_said_to_be_that(umbel, model):
    one = model("a.safetensors", {"a": np.ones(1), "b": np.ones(2)})
    other = model("b.safetensors", {"b": np.ones(2), "a": np.ones(1)})
    result = umbel("diff", one, other)
    assert result.exit_code == 1
    assert "every value is equal; the order" in result.stdout


def test_equal_values_of_another_serialisation(umbel, tmp_path):
    for name, stype in (("a", "raw"), ("b", "numpy.ndarray")):
        save(ParametersRecord({"w": array_from_numpy(np.ones(2), stype)}), tmp_path / name)
    result = umbel("diff", "a", "b")
    assert result.exit_code == 1
    assert "raw -> numpy.ndarray, equal values" in result.stdout


def test_changed_metrics_are_shown(umbel, model):
    paths = [
        model(f"{loss}", {}, metrics_records={"train": MetricsRecord({"loss": loss, "n": 3})}) for loss in (0.5, 0.25)
    ]
    result = umbel("diff", *paths)
    assert result.exit_code == 1
    assert "metrics_records.train.loss: 0.5 -> 0.25" in result.stdout


def test_a_file_that_cannot_be_compared(umbel, model, tmp_path):
    (tmp_path / "bad").write_bytes(b"xx")
    result = umbel("diff", model("a", WEIGHTS), "bad")
    assert result.exit_code == 65
