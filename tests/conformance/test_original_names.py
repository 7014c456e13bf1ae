"""A program for Flower 1.13's records finds the same after its import was changed to Umbel's.

Where Umbel decides differently, on purpose, that stands here too, each with what the original does.
"""

import json
import os
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from umbel.errors import RecordError
from umbel.records import Array, ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet, array_from_numpy

HERE = Path(__file__).parent
PROGRAM = HERE / "original_program.py"
PEERS = runpy.run_path(str(HERE.parents[1] / "benchmarks" / "_peers.py"))


def run(python, text):
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0"}
    command = [python, "-W", "ignore", "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@cache
def with_umbel():
    text = PROGRAM.read_text()
    assert text.count("from flwr.common import ") == 1
    return run(sys.executable, text.replace("from flwr.common import ", "from umbel.records import "))


@cache
def with_the_original():
    try:
        python = PEERS["peer_python"]("flwr-1.13.1")
    except PEERS["PeerUnavailable"] as error:
        return str(error)
    return run(python, PROGRAM.read_text())


FINDINGS = [line.split()[1].split("(")[0] for line in PROGRAM.read_text().split("@finding\n")[1:]]


@pytest.mark.parametrize("finding", FINDINGS)
def test_finds_the_same(finding):
    expected = with_the_original()
    if isinstance(expected, str):
        pytest.skip(expected)
    assert with_umbel()[finding] == expected[finding]


def test_runs_without_the_original():
    found = with_umbel()
    assert list(found) == FINDINGS
    assert found["an_array_by_hand"] == [[[0, 1, 2], [3, 4, 5]], "float32", [2, 3], "numpy.ndarray", True, True]
    assert found["a_serialisation_of_its_own"] == [[[0, 1, 2], [3, 4, 5]], "TypeError"]
    assert found["a_model_there_and_back"][:3] == [["conv", "bias", "steps"]] * 2 + [True]
    assert found["the_size_of_models"] == [
        [2 * (400 + 128) + 11, 528],
        [2 * (961 + 128) + 11, 1089],
        [2 * (4743 + 128) + 11, 4871],
    ]
    assert found["the_size_of_values"] == [6 + 7 * 8, 9 + 8 + 8 + 1 + 4 + 2 + 2 + 3, 0, 1]
    assert set(found["what_models_take"][0]) == {"TypeError"}
    assert set(found["what_metrics_take"][1] + found["what_configs_take"][1]) == {"TypeError"}


class TestWhatIsDifferentOnPurpose:
    def test_fields_are_checked(self):
        # The original takes anything: Array(1, "x", None, "no bytes").
        with pytest.raises(TypeError, match=r"Array\.dtype"):
            Array(1, "x", None, "no bytes")

    def test_dtype_and_shape_must_be_true(self):
        # The original ignores both and returns what the payload holds.
        with pytest.raises(RecordError, match=r"declared .*int8"):
            Array("int8", [99], "numpy.ndarray", array_from_numpy(np.zeros(2)).data).numpy()

    def test_an_empty_payload_is_one_of_the_errors_of_records(self):
        # The original raises EOFError.
        with pytest.raises(RecordError):
            Array("float64", [2], "numpy.ndarray", b"").numpy()

    def test_a_shape_is_a_list_whatever_it_was(self):
        # In the original, [1] and (1,) make different arrays.
        assert Array("uint8", (1,), "raw", b"x") == Array("uint8", [1], "raw", b"x")

    def test_an_array_is_frozen(self):
        with pytest.raises(AttributeError):
            array_from_numpy(np.zeros(1)).dtype = "x"

    def test_a_failing_input_is_left_whole(self):
        # The original leaves half of it.
        given = {"a": array_from_numpy(np.zeros(1)), "b": 1}
        with pytest.raises(TypeError):
            ParametersRecord(given)
        assert list(given) == ["a", "b"]

    def test_empty_texts_and_lists_count_nothing(self):
        # The original refuses "" and b"", and cannot count an empty list.
        assert ConfigsRecord({"a": "", "b": b"", "c": [], "d": [""]}).count_bytes() == 4

    def test_names_count_in_bytes(self):
        # The original counts characters.
        assert MetricsRecord({"größe": 1}).count_bytes() == len("größe".encode()) + 8

    def test_numbers_of_numpy_are_taken(self):
        # The original takes np.float64 alone.
        assert MetricsRecord({"a": np.float32(0.5), "b": np.int64(3), "c": [np.uint8(1)]}) == {
            "a": 0.5,
            "b": 3,
            "c": [1],
        }
        assert ConfigsRecord({"a": np.int32(1), "b": np.bool_(True)}) == {"a": 1, "b": True}

    def test_a_bool_in_a_list_of_numbers_is_refused_wherever_it_stands(self):
        # The original looks at the first alone, and [1, True] crosses its wire as [1, 1].
        with pytest.raises(TypeError):
            MetricsRecord({"a": [1, True]})

    def test_equality_with_anything_answers(self):
        # The original raises NotImplementedError.
        assert (RecordSet() == 1) is False

    def test_a_mask_is_not_dropped(self):
        with pytest.raises(TypeError, match="mask"):
            array_from_numpy(np.ma.masked_array([1.0], [True]))

    def test_what_cannot_come_back_is_refused_when_it_is_serialised(self):
        # The original stores bfloat16 as |V2, objects not at all, and structured types under a name nobody can read.
        for values in (np.zeros(1, [("a", "f4")]), np.array(["x"]), np.zeros(1, "V2")):
            with pytest.raises(RecordError):
                array_from_numpy(values)

    def test_big_endian_arrays_have_the_name_of_their_dtype(self):
        # The original writes ">f4" into the field.
        assert array_from_numpy(np.zeros(1, ">f4")).dtype == "float32"

    def test_repr_is_short(self):
        # The original shows all bytes.
        assert len(repr(array_from_numpy(np.zeros(10_000)))) < 200
