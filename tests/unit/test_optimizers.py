"""Server optimizers: the numbers of the papers, dtypes, purity, and what is refused."""

import numpy as np
import pytest

from umbel.errors import AggregationError, StrategyError
from umbel.optimizers import momentum, replace
from umbel.records import ParametersRecord


def record(**arrays):
    return ParametersRecord.from_numpy(arrays)


def values(model):
    return {name: array.tolist() for name, array in model.to_numpy().items()}


class TestReplace:
    def test_the_next_model_is_the_aggregate(self):
        optimizer, model, aggregate = replace(), record(w=np.zeros(2)), record(w=np.ones(2))
        state = optimizer.init(model)
        assert optimizer.update(state, model, aggregate) == (state, aggregate)
        assert dict(state) == {}

    def test_says_what_it_is(self):
        assert replace().name == "replace()"
        assert replace() == replace()


class TestMomentum:
    def test_follows_the_paper(self):
        # Three rounds by hand: v = beta*v + (model - aggregate), model = model - rate*v, in float32.
        beta, rate = np.float32(0.9), np.float32(0.5)
        rng = np.random.default_rng(0)
        model = rng.standard_normal(100, dtype=np.float32)
        optimizer = momentum(learning_rate=0.5, beta=0.9)
        state, held = optimizer.init(record(w=model)), record(w=model)
        velocity = np.zeros(100, np.float32)
        for _ in range(3):
            aggregate = rng.standard_normal(100, dtype=np.float32)
            velocity = beta * velocity + (model - aggregate)
            model = model - rate * velocity
            state, held = optimizer.update(state, held, record(w=aggregate))
            assert held["w"].numpy().tobytes() == model.tobytes()
            assert state["momentum"]["w"].numpy().tobytes() == velocity.tobytes()

    def test_without_beta_moves_to_the_aggregate(self):
        optimizer = momentum(beta=0)
        model, aggregate = record(w=np.array([1.0, 2.0])), record(w=np.array([3.0, -2.0]))
        _, moved = optimizer.update(optimizer.init(model), model, aggregate)
        assert values(moved) == values(aggregate)

    @pytest.mark.parametrize(
        ("dtype", "kept"),
        [
            ("float16", "float32"),
            ("bfloat16", "float32"),
            ("float8_e5m2", "float32"),
            ("float32", "float32"),
            ("float64", "float64"),
            ("complex64", "complex64"),
            ("complex128", "complex128"),
        ],
    )
    def test_keeps_the_dtype_and_a_wide_enough_state(self, dtype, kept):
        optimizer = momentum(beta=0.5)
        model, aggregate = record(w=np.full(3, 4).astype(dtype)), record(w=np.full(3, 2).astype(dtype))
        state = optimizer.init(model)
        assert state["momentum"]["w"].dtype == kept
        state, model = optimizer.update(state, model, aggregate)
        assert (model["w"].dtype, state["momentum"]["w"].dtype) == (dtype, kept)
        state, model = optimizer.update(state, model, aggregate)
        assert model["w"].numpy().astype(complex).tolist() == [1, 1, 1]

    @pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "int4"])
    def test_replaces_what_is_no_float(self, dtype):
        optimizer = momentum()
        model, aggregate = record(n=np.zeros(3, dtype), w=np.zeros(1)), record(n=np.ones(3, dtype), w=np.zeros(1))
        state, moved = optimizer.update(optimizer.init(model), model, aggregate)
        assert moved["n"] == aggregate["n"]
        assert list(state["momentum"]) == ["w"]

    def test_handles_arrays_of_many_blocks_and_of_none(self):
        optimizer = momentum(beta=0.5, learning_rate=2)
        model = record(w=np.arange(100_000.0).reshape(2, -1), e=np.zeros((0, 2)), s=np.float64(1))
        aggregate = record(w=np.zeros((2, 50_000)), e=np.zeros((0, 2)), s=np.float64(3))
        _, moved = optimizer.update(optimizer.init(model), model, aggregate)
        assert moved["w"].numpy().tolist() == (-np.arange(100_000.0).reshape(2, -1)).tolist()
        assert (moved["e"].shape, moved["s"].numpy()) == ([0, 2], 5.0)

    def test_keeps_names_and_order(self):
        model = record(b=np.zeros(1), n=np.zeros(1, int), a=np.zeros(1))
        optimizer = momentum()
        _, moved = optimizer.update(optimizer.init(model), model, model)
        assert list(moved) == ["b", "n", "a"]

    def test_changes_no_input(self):
        optimizer = momentum()
        model, aggregate = record(w=np.ones(3)), record(w=np.zeros(3))
        state = optimizer.init(model)
        optimizer.update(state, model, aggregate)
        assert values(model) == {"w": [1, 1, 1]}
        assert values(aggregate) == {"w": [0, 0, 0]}
        assert values(state["momentum"]) == {"w": [0, 0, 0]}

    @pytest.mark.parametrize(
        ("numbers", "expected"),
        [
            ({"learning_rate": 0}, "a learning rate above 0, got 0"),
            ({"learning_rate": np.inf}, "a learning rate above 0, got inf"),
            ({"learning_rate": np.nan}, "a learning rate above 0, got nan"),
            ({"beta": 1}, "beta from 0 to below 1, got 1"),
            ({"beta": -0.1}, "beta from 0 to below 1, got -0.1"),
            ({"beta": np.nan}, "beta from 0 to below 1, got nan"),
        ],
    )
    def test_refuses_numbers_that_make_no_sense(self, numbers, expected):
        with pytest.raises(StrategyError, match=f"expected {expected} - at momentum"):
            momentum(**numbers)

    @pytest.mark.parametrize(
        "other",
        [{"v": np.zeros(2)}, {"w": np.zeros(3)}, {"w": np.zeros(2, np.float32)}, {"w": np.zeros(2), "v": np.zeros(1)}],
    )
    def test_refuses_another_layout(self, other):
        optimizer, model = momentum(), record(w=np.zeros(2))
        with pytest.raises(AggregationError, match=r"begin the state again with init\(model\)"):
            optimizer.update(optimizer.init(model), model, record(**other))
        with pytest.raises(AggregationError, match=r"begin the state again with init\(model\)"):
            optimizer.update(optimizer.init(record(**other)), model, model)

    def test_names_an_array_that_diverged(self):
        optimizer = momentum(learning_rate=10)
        model = record(v=np.zeros(1), w=np.float32([3e38]))
        with pytest.raises(AggregationError, match=r"not finite; lower the learning rate or beta.* - at array 'w'"):
            optimizer.update(optimizer.init(model), model, record(v=np.zeros(1), w=np.float32([0])))

    def test_says_what_it_is(self):
        assert momentum(learning_rate=0.5).name == "momentum(learning_rate=0.5, beta=0.9)"
