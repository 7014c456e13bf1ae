"""A round over mapped updates leaves the memory of the process as it was, whatever the model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from umbel.records import ParametersRecord, save
from umbel.strategy import catalogue

MB = 10**6
UPDATES = 6
SMALL, LARGE = 40 * MB, 200 * MB


def files(folder, size):
    """Write a model and its updates: eight arrays of random numbers, and a counter."""
    random = np.random.default_rng(3)
    model = {f"layer{place}": random.standard_normal(size // 4 // 8, np.float32) for place in range(8)}
    save(ParametersRecord.from_numpy({**model, "n": np.array(3)}), folder / "model")
    for turn in range(UPDATES):
        update = {name: np.roll(array, turn + 1) for name, array in model.items()}
        save(ParametersRecord.from_numpy({**update, "n": np.array(turn)}), folder / f"update-{turn}")
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return files(tmp_path_factory.mktemp("small"), SMALL)


def trained(folder, strategy, limit=0):
    script = str(Path(__file__).with_name("flat_memory.py"))
    command = [sys.executable, script, str(folder), str(UPDATES), strategy, str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# What has no model of floats, or does not wait for its cohort.
OTHERS = {
    "moments",
    "histogram",
    "quantiles",
    "kmeans",
    "fedxgb_bagging",
    "fedxgb_cyclic",
    "fedbuff",
    "fedasync",
    "fedat",
}


@pytest.mark.parametrize("strategy", sorted(catalogue().keys() - OTHERS))
def test_memory_does_not_grow_with_the_model(small, strategy):
    found = trained(small, strategy)
    assert found["rise"] < SMALL // 4
    assert found["nameless"] == 0


def test_a_limit_on_memory_far_below_the_model_is_enough(small):
    assert trained(small, "fedadam", limit=SMALL // 2)["digest"] == trained(small, "fedadam")["digest"]


def test_the_limit_is_one(small):
    with pytest.raises(AssertionError, match="MemoryError"):
        trained(small, "fedadam", limit=SMALL // 100)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "scaffold"])
def test_six_updates_of_200_mb_cost_60_mb(tmp_path, strategy):
    assert trained(files(tmp_path, LARGE), strategy, limit=60 * MB)["rise"] < 60 * MB
