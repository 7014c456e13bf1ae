"""The bits of an aggregation and of the optimizers after it, pinned.

If this fails, models of earlier runs cannot be recomputed any more: change the digests only together with a line in
CHANGELOG.md that says so.
"""

import numpy as np
import pytest
from blake3 import blake3

from umbel.aggregation import Update, _fused, aggregate, total, weighted_mean
from umbel.gate import Gate
from umbel.optimizers import momentum
from umbel.records import ParametersRecord

FLOATS = ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float32", "float64", "complex64", "complex128"]
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "int4", "uint4"]
WEIGHTS = [600, 37, 1, 0.3, 1024, 5.5e6]


def numbers(seed, size):
    """Pseudo-random integers below 2**16, by a congruential generator that needs no library."""
    found = []
    for _ in range(size):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        found.append(seed >> 48)
    return np.array(found)


def update(node, dtypes=(*FLOATS, *INTEGERS, "bool")):
    named = {}
    for place, dtype in enumerate(dtypes):
        drawn = numbers(1000 * node + place, 50).reshape(5, 10)
        if dtype.startswith("complex"):
            named[dtype] = ((drawn - 2**15) / 12289 + 1j * (drawn % 1024) / 321).astype(dtype)
        elif dtype in FLOATS:
            named[dtype] = ((drawn - 2**15) / 12289).astype(dtype)
        elif dtype == "bool":
            named[dtype] = drawn % 2 == 0
        else:
            named[dtype] = (drawn % (8 if "4" in dtype and "6" not in dtype else 100)).astype(dtype)
    return Update(f"node-{node}", WEIGHTS[node % 6], ParametersRecord.from_numpy(named))


def digest(record):
    return blake3(b"".join(bytes(array.data) for array in record.values())).hexdigest(16)


UPDATES = [update(node) for node in range(6)]


@pytest.fixture(autouse=True, params=[0, 2**40], ids=["compiled", "numpy"])
def _which_loop(monkeypatch, request):
    """All sums go through the compiled loop, if there is one, or none does."""
    monkeypatch.setattr(_fused, "LEAST", request.param)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, "e4197439955a404c572e6d218bc6d209"),
        (2, "401097cef2a1a67014544f4aa8461a36"),
        (6, "23c55d647ca1796125cef848863145f6"),
    ],
)
def test_the_mean(count, expected):
    assert digest(aggregate(weighted_mean(), UPDATES[0].record, UPDATES[:count])) == expected


def test_the_sum():
    updates = [update(node, [*FLOATS, "int32", "int64", "uint64"]) for node in range(6)]
    assert digest(aggregate(total(), updates[0].record, updates)) == "c3bc336f9ac2fba71815292ba4239db0"


def test_momentum():
    optimizer = momentum(learning_rate=0.7, beta=0.9)
    model = UPDATES[5].record
    state = optimizer.init(model)
    for count in (2, 3, 6):
        state, model = optimizer.update(state, model, aggregate(weighted_mean(), model, UPDATES[:count]))
    assert digest(model) == "6f7c508d36e4d454c91513f6b4817f54"
    assert digest(state["momentum"]) == "7721a936a183d105bce3a1efbf5766f0"


def test_the_norm():
    assert Gate(max_norm=1e9).check(UPDATES[0].record, UPDATES[1]).norm.hex() == "0x1.70b6f0ae8e213p+5"
