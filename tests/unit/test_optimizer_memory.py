"""What optimizers do with large models: several threads to the same bits, and files that are used again."""

import numpy as np
import pytest

from umbel.errors import AggregationError
from umbel.optimizers import _elementwise, adam, momentum
from umbel.records import ParametersRecord, digest, scratch

SIZE = 2**21 + 3


def record(seed, **dtypes):
    random = np.random.default_rng(seed)
    drawn = {name: random.standard_normal(SIZE if name != "small" else 5, np.float32) for name in dtypes}
    return ParametersRecord.from_numpy({name: drawn[name].astype(dtype) for name, dtype in dtypes.items()})


def model(seed):
    return record(seed, a="float32", n="int32", small="float32", c="complex64", d="float64")


def test_bits_do_not_depend_on_threads(monkeypatch):
    optimizer, before, mean = adam(), model(1), model(2)
    found = set()
    for threads in (1, 2, 3):
        monkeypatch.setattr(_elementwise, "cores", lambda threads=threads: threads)
        state, after = optimizer.update(optimizer.init(before), before, mean)
        found.add((digest(after), *(digest(each) for each in state.values())))
    assert len(found) == 1


def test_work_is_dealt_out_once_and_in_order():
    arrays = [np.arange(size) for size in (0, 5, 3 * 2**20, 7)]
    jobs = [_elementwise._Job(str(at), array.dtype, [array], [array]) for at, array in enumerate(arrays)]
    for threads, expected in ((1, 1), (2, 2), (9, 3)):
        shares = _elementwise._shares(jobs, threads)
        assert len(shares) == expected
        dealt = [(job.name, number) for share in shares for job in share for number in job.sources[0][[0, -1]]]
        assert dealt == sorted(dealt, key=lambda each: (int(each[0]), each[1]))
        for at, array in enumerate(arrays):
            parts = [job.sources[0] for share in shares for job in share if job.name == str(at)]
            assert np.array_equal(np.concatenate([array[:0], *parts]), array)


def test_the_first_array_that_is_not_finite_is_named(monkeypatch):
    monkeypatch.setattr(_elementwise, "cores", lambda: 4)
    arrays = {name: np.ones(SIZE, np.float32) for name in "abcd"}
    arrays["b"][-1] = arrays["d"][0] = np.inf
    given = ParametersRecord.from_numpy(arrays)
    optimizer = momentum()
    with pytest.raises(AggregationError, match=r"not finite.* - at array 'b'"):
        optimizer.update(optimizer.init(given), given, given)


def test_the_next_model_does_not_keep_the_aggregate():
    optimizer, before, mean = momentum(), model(1), model(2)
    _, after = optimizer.update(optimizer.init(before), before, mean)
    assert after["n"] == mean["n"]
    assert not np.shares_memory(after["n"].numpy(copy=False), mean["n"].numpy(copy=False))


def address(given):
    return given["a"].numpy(copy=False).ctypes.data


def test_files_are_used_again_and_never_while_they_can_be_seen(tmp_path):
    optimizer, mean = momentum(), model(2)
    with scratch(tmp_path):
        state, now, seen = optimizer.init(mean), mean, []
        for _ in range(4):
            before, kept = now, address(now)
            state, now = optimizer.update(state, now, mean)
            assert address(now) != kept
            seen.append(address(now))
            assert not np.shares_memory(before["a"].numpy(copy=False), now["a"].numpy(copy=False))
            del before
        assert len(set(seen)) == 2
