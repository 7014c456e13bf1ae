"""Server optimizers against their papers' formulas in plain float64, and the laws that all of them keep."""

import numpy as np
import pytest

from umbel.errors import AggregationError, StrategyError
from umbel.optimizers import (
    Cohort,
    accumulate,
    adagrad,
    adam,
    dynamic,
    elementwise,
    momentum,
    nesterov,
    replace,
    scaled,
    sgd,
    yogi,
)
from umbel.records import ParametersRecord

ALL = [sgd(learning_rate=0.5), momentum(), nesterov(), adagrad(), adam(), yogi(), dynamic(), accumulate()]
NAMES = [optimizer.name.partition("(")[0] for optimizer in ALL]
ALONE = Cohort()
EVERY = pytest.mark.parametrize("optimizer", ALL, ids=NAMES)


def record(**arrays):
    return ParametersRecord.from_numpy(arrays)


def rounds(count=5, size=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(size), [rng.standard_normal(size) for _ in range(count)]


def run(optimizer, first, aggregates, cohort=ALONE):
    model = record(w=first)
    state = optimizer.init(model)
    for aggregate in aggregates:
        state, model = optimizer.update(state, model, record(w=aggregate), cohort)
    return model["w"].numpy(), {name: kept["w"].numpy() for name, kept in state.items()}


def adaptive(x, aggregates, follow, *, eta, beta1, tau):
    """Algorithm 2 of Reddi et al., line by line."""
    m, v = np.zeros_like(x), np.full_like(x, tau**2)
    for mean in aggregates:
        delta = mean - x
        m = beta1 * m + (1 - beta1) * delta
        v = follow(v, delta**2)
        x = x + eta * m / (np.sqrt(v) + tau)
    return x, m, v


@pytest.mark.parametrize(
    ("optimizer", "beta1", "follow"),
    [
        (adagrad(learning_rate=0.03, beta1=0.4, tau=0.01), 0.4, lambda v, dd: v + dd),
        (adam(learning_rate=0.03, beta1=0.8, beta2=0.95, tau=0.01), 0.8, lambda v, dd: 0.95 * v + (1 - 0.95) * dd),
        (
            yogi(learning_rate=0.03, beta1=0.8, beta2=0.95, tau=0.01),
            0.8,
            lambda v, dd: v - (1 - 0.95) * dd * np.sign(v - dd),
        ),
    ],
    ids=["adagrad", "adam", "yogi"],
)
def test_follows_algorithm_2(optimizer, beta1, follow):
    first, aggregates = rounds()
    x, m, v = adaptive(first, aggregates, follow, eta=0.03, beta1=beta1, tau=0.01)
    model, state = run(optimizer, first, aggregates)
    np.testing.assert_allclose(model, x, rtol=1e-13)
    np.testing.assert_allclose(state["momentum"], m, rtol=1e-13)
    np.testing.assert_allclose(state["second-moment"], v, rtol=1e-12)


def test_the_defaults_are_those_of_the_paper():
    assert adam().name == "adam(learning_rate=0.1, beta1=0.9, beta2=0.99, tau=0.001)"
    assert yogi().name == "yogi(learning_rate=0.1, beta1=0.9, beta2=0.99, tau=0.001)"
    assert adagrad().name == "adagrad(learning_rate=0.1, beta1=0.0, tau=0.001)"
    assert nesterov().name == "nesterov(learning_rate=0.7, beta=0.9)"
    state = adam(tau=0.5).init(record(w=np.zeros(2), z=np.zeros(1, np.complex64)))
    assert state["second-moment"]["w"].numpy().tolist() == [0.25, 0.25]
    assert state["second-moment"]["z"].numpy().tolist() == [0.25 + 0.25j]


def test_nesterov_is_the_sgd_of_pytorch():
    torch = pytest.importorskip("torch")
    first, aggregates = rounds()
    parameter = torch.nn.Parameter(torch.from_numpy(first.copy()))
    theirs = torch.optim.SGD([parameter], lr=0.7, momentum=0.9, nesterov=True)
    for aggregate in aggregates:
        parameter.grad = parameter.detach() - torch.from_numpy(aggregate)
        theirs.step()
    np.testing.assert_allclose(run(nesterov(), first, aggregates)[0], parameter.detach().numpy(), rtol=1e-13)


def test_dynamic_follows_algorithm_1_of_feddyn():
    (x, aggregates), alpha, share = rounds(), 0.1, 3 / 8
    first, h = x, np.zeros_like(x)
    for mean in aggregates:
        h = h - alpha * share * (mean - x)
        x = mean - h / alpha
    model, state = run(dynamic(alpha=alpha), first, aggregates, Cohort(accepted=3, population=8))
    np.testing.assert_allclose(model, x, rtol=1e-13)
    np.testing.assert_allclose(state["correction"], h, rtol=1e-13)


def test_accumulate_adds_the_share_that_took_part():
    model, state = run(accumulate(), np.array([1.0]), [np.array([4.0])], Cohort(accepted=2, population=8))
    assert (model.tolist(), state) == ([2.0], {})


def test_scaled_hands_on_a_longer_step_with_the_state_of_the_inner_one():
    whole = scaled(momentum(beta=0.5), lambda cohort: cohort.sums["a"], name="twice", needs=("a",))
    model, state = run(whole, np.array([1.0]), [np.array([2.0])] * 2, Cohort(sums={"a": 2.0}))
    # First v = -2, so 3; then 3 + 2*(2 - 3) = 1 is the aggregate, v = -1 + 2 = 1, so 2.
    assert (model.tolist(), state["momentum"].tolist()) == ([2.0], [1.0])
    assert (whole.name, whole.needs) == ("twice momentum(learning_rate=1.0, beta=0.5)", ("a",))


def test_one_of_ones_own_is_a_function_of_blocks():
    halfway = elementwise("halfway()", lambda cohort, x, mean, seen: ((x + mean) / 2, seen + 1), rounds_seen=0.0)
    model, state = run(halfway, np.zeros(3), [np.full(3, 8.0), np.full(3, 8.0)])
    assert model.tolist() == [6.0, 6.0, 6.0]
    assert state["rounds-seen"].tolist() == [2.0, 2.0, 2.0]


@EVERY
@pytest.mark.parametrize(
    ("dtype", "kept"),
    [("float16", "float32"), ("bfloat16", "float32"), ("float8_e5m2", "float32"), ("complex64", "complex64")],
)
def test_keeps_the_dtype_and_a_wide_enough_state(optimizer, dtype, kept):
    model, aggregate = record(w=np.full(3, 4).astype(dtype)), record(w=np.full(3, 2).astype(dtype))
    state, moved = optimizer.update(optimizer.init(model), model, aggregate, Cohort(1, 2))
    assert moved["w"].dtype == dtype
    assert {array["w"].dtype for array in state.values()} <= {kept}
    assert {tuple(array["w"].shape) for array in state.values()} <= {(3,)}


@EVERY
def test_steps_in_the_dtype_of_the_state(optimizer):
    first, aggregates = rounds(count=3)
    narrow, _ = run(optimizer, first.astype(np.float32), [each.astype(np.float32) for each in aggregates])
    wide, _ = run(optimizer, first, aggregates)
    np.testing.assert_allclose(narrow, wide, rtol=1e-4, atol=1e-5)


@EVERY
def test_complex_numbers_are_pairs_of_reals(optimizer):
    first, aggregates = rounds(count=3)
    pairs, _ = run(optimizer, first.view(complex), [each.view(complex) for each in aggregates])
    assert pairs.view(float).tobytes() == run(optimizer, first, aggregates)[0].tobytes()


@EVERY
def test_blocks_leave_no_trace(optimizer):
    first, aggregates = rounds(count=2, size=70_001)
    whole, _ = run(optimizer, first, aggregates)
    parts = [run(optimizer, first[cut], [a[cut] for a in aggregates])[0] for cut in np.array_split(range(70_001), 5)]
    assert whole.tobytes() == np.concatenate(parts).tobytes()


@EVERY
def test_changes_no_input_and_replaces_what_is_no_float(optimizer):
    model, aggregate = record(w=np.ones(3), n=np.arange(2)), record(w=np.zeros(3), n=np.arange(2, 4))
    state = optimizer.init(model)
    before = [dict(each.to_numpy()) for each in (model, aggregate, *state.values())]
    _, moved = optimizer.update(state, model, aggregate)
    after = [each.to_numpy() for each in (model, aggregate, *state.values())]
    for old, new in zip(before, after, strict=True):
        assert {name: array.tolist() for name, array in old.items()} == {n: array.tolist() for n, array in new.items()}
    assert moved["n"] == aggregate["n"]
    assert all("n" not in kept for kept in state.values())


@pytest.mark.parametrize(
    ("make", "numbers", "message"),
    [
        (sgd, {"learning_rate": 0}, "a learning rate above 0, got 0 - at sgd"),
        (nesterov, {"learning_rate": -1}, "a learning rate above 0, got -1 - at nesterov"),
        (nesterov, {"beta": 1}, "beta from 0 to below 1"),
        (adam, {"beta1": 1}, "beta1 from 0 to below 1"),
        (adam, {"beta2": -0.1}, "beta2 from 0 to below 1"),
        (yogi, {"tau": 0}, "tau above 0, got 0 - at yogi"),
        (adagrad, {"learning_rate": np.nan}, "a learning rate above 0, got nan"),
        (dynamic, {"alpha": 0}, "alpha above 0, got 0 - at dynamic"),
    ],
)
def test_refuses_numbers_that_make_no_sense(make, numbers, message):
    with pytest.raises(StrategyError, match=message):
        make(**numbers)


def test_a_state_that_diverges_is_named():
    with pytest.raises(AggregationError, match="array 'w'"):
        run(adam(), np.float32([0]), [np.float32([1e30])])


@pytest.mark.parametrize("kept", [{}, {"momentum": record(w=np.zeros(2))}])
def test_a_state_of_another_optimizer_is_refused(kept):
    model = record(w=np.zeros(2))
    with pytest.raises(AggregationError, match=r"begin the state again with init\(model\)"):
        adam().update(kept, model, model)


def test_replace_looks_at_no_cohort():
    assert run(replace(), np.zeros(1), [np.ones(1)], Cohort(1, 5))[0].tolist() == [1.0]


def made(optimizer, dtype, *, step):
    """A state, a model and an aggregate of two arrays of floats and one of integers, after one round."""
    rng = np.random.default_rng(3)
    model, aggregate = (
        record(w=rng.standard_normal(50_000).astype(dtype), n=np.arange(turn, turn + 3), s=np.ones((), dtype))
        for turn in range(2)
    )
    return step(optimizer.init(model), model, aggregate, Cohort(1, 2, {"a": 0.5})), model, aggregate


IN_PLACE = [
    *ALL,
    replace(),
    scaled(momentum(), lambda cohort: cohort.sums["a"], name="half", needs=("a",)),
    elementwise("the last aggregate", lambda cohort, x, mean, last: (x + (mean - last) / 2, mean), last=0.0),
]


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "complex64"])
@pytest.mark.parametrize("optimizer", IN_PLACE, ids=lambda optimizer: optimizer.name.partition("(")[0])
def test_a_step_that_consumes_the_aggregate_comes_to_the_same_in_its_memory(optimizer, dtype):
    (state, following), model, aggregate = made(optimizer, dtype, step=optimizer.consume)
    (expected_state, expected), first, _ = made(optimizer, dtype, step=optimizer.update)
    assert following == expected
    assert (dict(state), model) == (dict(expected_state), first)
    assert np.shares_memory(following["w"].numpy(copy=False), aggregate["w"].numpy(copy=False))


@pytest.mark.parametrize(
    ("returned", "came"),
    [
        (lambda x, m: (m[:1], m), "(an array of shape (1,), an array of shape (3,))"),
        (lambda x, m: (0.0, m), "(0.0, an array of shape (3,))"),
        (lambda x, m: (x, m, m), "(an array of shape (3,), an array of shape (3,), an array of shape (3,))"),
        (lambda x, m: (x,), "(an array of shape (3,))"),
        (lambda x, m: m, "an array of shape (3,)"),
        (lambda x, m: np.stack([x, m]), "an array of shape (2, 3)"),
        (lambda x, m: None, "None"),
    ],
)
def test_a_step_that_returns_something_else_is_named(returned, came):
    optimizer = elementwise("lion()", lambda cohort, x, mean, m: returned(x, m), momentum=0.0)
    model = ParametersRecord.from_numpy({"w": np.arange(3.0)})
    with pytest.raises(StrategyError) as caught:
        optimizer.update(optimizer.init(model), model, model)
    expected = "expected a tuple (model, momentum) of arrays, each of shape (3,)"
    assert caught.value.message == f"the step of 'lion()' returned {came}, {expected}"


def test_a_step_that_forgets_the_tuple_is_named_even_where_lengths_agree():
    optimizer = elementwise("plain()", lambda cohort, x, mean: x)
    model = ParametersRecord.from_numpy({"w": np.arange(1.0)})
    with pytest.raises(
        StrategyError, match=r"returned an array of shape \(1,\), expected a tuple \(model,\) of arrays"
    ):
        optimizer.update(optimizer.init(model), model, model)
