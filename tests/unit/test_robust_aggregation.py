"""Robust aggregators beside the papers' pseudo-code in float64, written here once more."""

from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest

from umbel.aggregation import (
    Update,
    aggregate,
    bulyan,
    centred_clipping,
    clipped_mean,
    geometric_median,
    krum,
    median,
    multi_krum,
    trimmed_mean,
    uniform,
    weighted_mean,
)
from umbel.aggregation._distances import distances
from umbel.errors import AggregationError, StrategyError
from umbel.gate import Gate
from umbel.records import ParametersRecord

COUNT = 13
SIZES = {"conv": (3, 5, 7), "empty": (0, 4), "bias": (1,), "dense": (1100,)}


def cohort(count=COUNT, seed=0, dtype="float64", bad=(), scale=1.0):
    """Updates around a model; the bad ones are far away."""
    rng = np.random.default_rng(seed)
    model = {name: rng.standard_normal(shape) for name, shape in SIZES.items()}
    updates = []
    for node in range(count):
        far = 1e3 if node in bad else 1.0
        arrays = {k: (v + scale * far * rng.standard_normal(v.shape) / 10).astype(dtype) for k, v in model.items()}
        updates.append(Update(f"n{node:02}", 1.0 + node % 3, ParametersRecord.from_numpy(arrays)))
    return ParametersRecord.from_numpy({k: v.astype(dtype) for k, v in model.items()}), updates


def points(model, updates):
    """The model, and all updates, as vectors of float64."""
    flat = [np.concatenate([a.numpy().ravel().astype(float) for a in r.values()]) for r in (model, *records(updates))]
    return flat[0], np.array(flat[1:])


def records(updates):
    return [update.record for update in updates]


def vector(record):
    return np.concatenate([array.numpy().ravel().astype(float) for array in record.values()])


def check(aggregator, expected, rtol=1e-6, **options):
    model, updates = cohort(**options)
    found = vector(aggregate(aggregator, model, updates))
    x0, x = points(model, updates)
    wanted = expected(x0, x, np.array([update.weight for update in updates]))
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=rtol * np.abs(x).max())


# The papers' pseudo-code.


def plain_krum_order(x, f):
    squared = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    scores = [np.sort(np.delete(row, i))[: max(1, len(x) - f - 2)].sum() for i, row in enumerate(squared)]
    return np.argsort(scores, kind="stable")


def plain_bulyan(x, f):
    left, chosen = list(range(len(x))), []
    while len(chosen) < len(x) - 2 * f:
        best = left[plain_krum_order(x[left], f)[0]]
        chosen.append(best)
        left.remove(best)
    x = x[chosen]
    near = np.argsort(np.abs(x - np.median(x, axis=0)), axis=0)[: len(x) - 2 * f]
    return np.take_along_axis(x, near, axis=0).mean(axis=0)


def plain_weiszfeld(x, w, nu, steps=20_000):
    z = np.median(x, axis=0)
    for _ in range(steps):
        beta = w / np.maximum(nu, np.linalg.norm(x - z, axis=1))
        z = beta @ x / beta.sum()
    return z


def plain_clip(x, centre, w, tau):
    moved = x - centre
    scale = np.minimum(1, tau / np.linalg.norm(moved, axis=1))
    return centre + (w * scale) @ moved / w.sum()


class TestAgainstPapers:
    @pytest.mark.parametrize("count", [2, 3, 12, 13])
    def test_median(self, count):
        check(median(), lambda _, x, w: np.median(x, axis=0), 1e-15, count=count)

    @pytest.mark.parametrize("share", [0, 0.1, 0.2, 0.49])
    @pytest.mark.parametrize("count", [2, 12, 13])
    def test_trimmed_mean(self, share, count):
        cut = int(share * count)
        check(
            trimmed_mean(share=share),
            lambda _, x, w: np.sort(x, axis=0)[cut : count - cut].mean(axis=0),
            1e-14,
            count=count,
        )

    @pytest.mark.parametrize("f", [0, 2, 5])
    def test_krum(self, f):
        check(krum(byzantine=f), lambda _, x, w: x[plain_krum_order(x, f)[0]], 0, bad=range(f))

    @pytest.mark.parametrize(("f", "m"), [(0, None), (3, None), (3, 1), (3, 5), (5, 6)])
    def test_multi_krum(self, f, m):
        aggregator = multi_krum(byzantine=f, count=m)

        def expected(_, x, w):
            best = plain_krum_order(x, f)[: m or COUNT - f]
            return np.average(x[best], axis=0, weights=w[best])

        check(aggregator, expected, 1e-13, bad=range(f))

    @pytest.mark.parametrize(("f", "count"), [(0, 5), (1, 7), (2, 11), (2, 14), (5, 30)])
    def test_bulyan(self, f, count):
        check(bulyan(byzantine=f), lambda _, x, w: plain_bulyan(x, f), 1e-13, count=count, bad=range(f))

    @pytest.mark.parametrize("bad", [(), (1, 4, 9), (0, 1, 2, 3, 4)])
    def test_geometric_median(self, bad):
        check(geometric_median(), lambda _, x, w: plain_weiszfeld(x, w, 1e-6), bad=bad)

    @pytest.mark.parametrize("bound", [0.5, 3.0, 1e9])
    def test_norm_clipping(self, bound):
        check(clipped_mean(bound=bound), lambda x0, x, w: plain_clip(x, x0, w, bound), 1e-7, bad=(2, 3))

    def test_norm_clipping_learns_its_bound(self):
        def expected(x0, x, w):
            norms = np.linalg.norm(x - x0, axis=1)
            order = np.argsort(norms)
            tau = norms[order[np.searchsorted(np.cumsum(w[order]), w.sum() / 2)]]
            return plain_clip(x, x0, w, tau)

        check(clipped_mean(), expected, 1e-7, bad=(2, 3))

    @pytest.mark.parametrize("iterations", [1, 3, 10])
    def test_centred_clipping(self, iterations):
        def expected(x0, x, w):
            v = x0
            for _ in range(iterations):
                v = plain_clip(x, v, w, 2.5)
            return v

        check(centred_clipping(radius=2.5, iterations=iterations), expected, 1e-7, bad=(2, 3))


ROBUST = [
    median(),
    trimmed_mean(share=0.25),
    krum(byzantine=3),
    multi_krum(byzantine=3),
    bulyan(byzantine=2),
    geometric_median(),
    clipped_mean(),
    centred_clipping(),
]
by_name = pytest.mark.parametrize("aggregator", ROBUST, ids=lambda each: each.name)


class TestEveryOne:
    @by_name
    def test_a_nan_moves_nothing_far(self, aggregator):
        """Whoever switches the gate's check off still has a rule that some nodes cannot break."""
        model, updates = cohort()
        broken = {
            name: np.full(array.shape, value)
            for value, (name, array) in zip((np.nan, np.inf, -np.inf, np.nan), model.items(), strict=True)
        }
        updates[4] = updates[4]._replace(record=ParametersRecord.from_numpy(broken))
        assert np.abs(vector(aggregate(aggregator, model, updates)) - vector(model)).max() < 1

    @by_name
    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    def test_narrow_floats_keep_their_dtype(self, aggregator, dtype):
        kind = np.dtype(dtype)
        model, updates = cohort(dtype=kind, bad=(1, 5))
        wide = [Update(u.node, u.weight, floats(u.record)) for u in updates]
        found = aggregate(aggregator, model, updates)
        assert {array.dtype for array in found.values()} == {dtype}
        expected = vector(aggregate(aggregator, floats(model), wide))
        eps = float(ml_dtypes.finfo(kind).eps)
        np.testing.assert_allclose(vector(found), expected, rtol=eps, atol=4 * eps)

    @by_name
    def test_it_needs_an_update(self, aggregator):
        model, _ = cohort(1)
        with pytest.raises(AggregationError, match="expected at least one update"):
            aggregate(aggregator, model, [])

    @by_name
    def test_an_update_that_does_not_fit_is_named(self, aggregator):
        model, updates = cohort()
        updates[3] = updates[3]._replace(record=ParametersRecord.from_numpy({"conv": np.zeros(3)}))
        with pytest.raises(AggregationError, match="from node 'n03', got"):
            aggregate(aggregator, model, updates)

    @by_name
    def test_an_accumulator_is_used_once(self, aggregator):
        model, updates = cohort()
        fold = aggregator.reduce
        assert not fold.streaming
        acc = fold.add(fold.start(model), updates[:4])
        with pytest.raises(AggregationError, match="strictly ascending"):
            fold.add(acc, updates[2:])
        fold.finish(acc, updates[4:])
        with pytest.raises(AggregationError, match="is finished"):
            fold.finish(acc)


def floats(record):
    return ParametersRecord.from_numpy({name: array.numpy().astype(float) for name, array in record.items()})


class TestOtherKinds:
    def test_integers_bools_and_complex_numbers(self):
        values = {
            "small": [np.int8([v]) for v in (-3, 100, 7, 8)],
            "wide": [np.uint64([2**63 + v]) for v in (0, 1, 4, 2**40)],
            "signed": [np.int64([v]) for v in (-(2**62), 5, 7, 2**62)],
            "flag": [np.array([v]) for v in (True, False, True, True)],
            "wave": [np.complex64([v]) for v in (1 + 9j, 2 - 1j, 3 + 0j, 100 + 1j)],
        }
        updates = [
            Update(f"n{i}", 1, ParametersRecord.from_numpy({name: column[i] for name, column in values.items()}))
            for i in range(4)
        ]
        found = aggregate(median(), updates[0].record, updates).to_numpy()
        assert found["small"].tolist() == [8]  # 7.5, half to even
        assert found["wide"].tolist() == [2**63 + 2]  # 2.5
        assert found["signed"].tolist() == [6]
        assert found["flag"].tolist() == [True]
        assert found["wave"].tolist() == [2.5 + 0.5j]
        found = aggregate(trimmed_mean(share=0.3), updates[0].record, updates[:3]).to_numpy()
        assert found["small"].tolist() == [35]  # floor(0.9) = 0 are left out

    def test_a_tie_of_bools_is_false(self):
        updates = [Update(f"n{i}", 1, ParametersRecord.from_numpy({"b": np.array([i > 0])})) for i in range(2)]
        assert aggregate(median(), updates[0].record, updates)["b"].numpy().tolist() == [False]

    def test_sums_that_overflow_on_the_way(self):
        big = np.finfo(np.float32).max
        updates = [Update(f"n{i}", 1, ParametersRecord.from_numpy({"w": np.float32([big, -big])})) for i in range(6)]
        for aggregator in (median(), trimmed_mean(share=0.2), bulyan(byzantine=0)):
            assert aggregate(aggregator, updates[0].record, updates)["w"].numpy().tolist() == [big, -big]

    def test_zeros_have_no_sign_that_depends_on_the_machine(self):
        updates = [
            Update(f"n{i}", 1, ParametersRecord.from_numpy({"w": np.array([z])})) for i, z in enumerate((-0.0, 0.0))
        ]
        for aggregator in (median(), trimmed_mean()):
            assert not np.signbit(aggregate(aggregator, updates[0].record, updates)["w"].numpy())[0]

    def test_records_of_integers_alone_are_all_equally_near(self):
        updates = [Update(f"n{i}", 1, ParametersRecord.from_numpy({"n": np.array([i])})) for i in range(5)]
        assert aggregate(krum(byzantine=1), updates[4].record, updates)["n"].numpy().tolist() == [0]
        assert aggregate(geometric_median(), updates[4].record, updates)["n"].numpy().tolist() == [2]


class TestDistances:
    @pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
    @pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
    def test_are_near_the_true_ones(self, dtype, scale):
        model, updates = cohort(dtype=np.dtype(dtype), scale=scale, bad=(3,))
        x0, x = points(model, updates)
        found = distances(model, updates)
        away = np.linalg.norm(x - x0, axis=1)
        np.testing.assert_allclose(np.sqrt(found.model), away, rtol=2.2e-5)
        error = np.abs(np.sqrt(found.others) - np.linalg.norm(x[:, None] - x[None], axis=2))
        assert (error <= 2.2e-5 * (away[:, None] + away)).all()
        assert np.array_equal(found.others, found.others.T)

    def test_are_exact_for_few_digits(self):
        rng = np.random.default_rng(0)
        arrays = [rng.integers(-1000, 1000, 5000).astype(np.float32) for _ in range(5)]
        updates = [Update(f"n{i}", 1, ParametersRecord.from_numpy({"w": w})) for i, w in enumerate(arrays)]
        model = ParametersRecord.from_numpy({"w": np.zeros(5000, np.float32)})
        found = distances(model, updates)
        whole = [w.astype(np.int64) for w in arrays]
        assert found.model.tolist() == [int((w * w).sum()) for w in whole]
        assert found.others[0].tolist() == [int(((whole[0] - w) ** 2).sum()) for w in whole]

    def test_hold_at_the_ends_of_the_range(self):
        values = (1e-300, 1e-200, 1e100, 1e200, 0.0)
        updates = [
            Update(f"n{i}", 1, ParametersRecord.from_numpy({"w": np.array([v, -v])})) for i, v in enumerate(values)
        ]
        found = distances(ParametersRecord.from_numpy({"w": np.zeros(2)}), updates)
        assert found.model.tolist() == [0.0, 0.0, pytest.approx(2e200), np.inf, 0.0]
        assert found.others[0].tolist() == [0.0, 0.0, pytest.approx(2e200), np.inf, 0.0]
        assert found.alive == [0, 1, 2, 4]

    def test_do_not_depend_on_how_arrays_are_cut(self):
        model, updates = cohort()
        x0, x = points(model, updates)
        whole = ParametersRecord.from_numpy({"all": x0})
        joined = [
            u._replace(record=ParametersRecord.from_numpy({"all": row})) for u, row in zip(updates, x, strict=True)
        ]
        assert distances(whole, joined).others.tobytes() == distances(model, updates).others.tobytes()

    def test_hold_for_single_precision_at_its_end(self):
        values = (2.0**127, 3 * 2.0**125, 2.0**-149, 0.0)
        updates = [
            Update(f"n{i}", 1, ParametersRecord.from_numpy({"w": np.float32([v, 1.0])})) for i, v in enumerate(values)
        ]
        found = distances(ParametersRecord.from_numpy({"w": np.zeros(2, np.float32)}), updates)
        assert found.model.tolist() == [2.0**254, 9 * 2.0**250, 1.0, 1.0]
        assert found.others[0].tolist() == [0.0, 2.0**250, 2.0**254, 2.0**254]

    def test_do_not_depend_on_how_many_others_there_are(self):
        model, updates = cohort(150, bad=(3, 100))
        whole = distances(model, updates)
        assert np.array_equal(whole.others, whole.others.T)
        for some in ([0, 3, 7], list(range(60, 140))):
            found = distances(model, [updates[place] for place in some])
            assert found.model.tobytes() == whole.model[some].tobytes()
            assert found.others.tobytes() == whole.others[np.ix_(some, some)].tobytes()

    def test_of_equal_updates_are_exactly_zero(self):
        model, updates = cohort(70)
        twice = [updates[place % 35]._replace(node=f"n{place:02}") for place in range(70)]
        found = distances(model, twice).others
        assert (np.diagonal(found[:35, 35:]) == 0).all()
        assert (np.count_nonzero(found, axis=1) == 68).all()

    def test_are_the_same_whatever_the_matrix_product_does(self, monkeypatch):
        """Every sum in it is exact, so one that adds in another order, in parts, backwards, gives the same bits."""
        model, updates = cohort(dtype="float32", bad=(2,))
        expected = distances(model, updates)

        def backwards(a, b):
            size = a.shape[-1]
            parts = [sum(a[..., k, None] * b[..., None, k, :] for k in range(s, size, 7)[::-1]) for s in range(7)]
            return sum(reversed(parts))

        monkeypatch.setattr(np, "matmul", backwards)
        found = distances(model, updates)
        assert found.others.tobytes() == expected.others.tobytes()
        assert found.model.tobytes() == expected.model.tobytes()


def test_half_of_a_cohort_that_is_nowhere_is_too_many():
    model, updates = cohort()
    nowhere = ParametersRecord.from_numpy({name: np.full(a.shape, np.nan) for name, a in model.items()})
    updates = [u if i < 4 else u._replace(record=nowhere) for i, u in enumerate(updates)]
    for aggregator in (krum(byzantine=3), bulyan(byzantine=2), clipped_mean(), centred_clipping()):
        with pytest.raises(AggregationError, match=r"let the gate refuse what is not finite|NaN"):
            aggregate(aggregator, model, updates)


def test_a_fixed_bound_holds_for_one_update_too():
    model, updates = cohort(1)
    found = vector(aggregate(clipped_mean(bound=0.5), model, updates))
    assert np.linalg.norm(found - vector(model)) == pytest.approx(0.5)


def test_numbers_out_of_range_are_refused():
    for make, message in (
        (lambda: trimmed_mean(share=0.5), "from 0 to below 1/2, got 0.5"),
        (lambda: krum(byzantine=-1), "a whole number, 0 or more, got -1"),
        (lambda: krum(byzantine=1.5), "a whole number, 0 or more, got 1.5"),
        (lambda: multi_krum(byzantine=1, count=0), "1 or more, got 0"),
        (lambda: bulyan(byzantine=True), "got True"),
        (lambda: geometric_median(smooth=0), "a distance above 0, got 0"),
        (lambda: geometric_median(iterations=0), "1 or more"),
        (lambda: clipped_mean(bound=float("nan")), "got nan"),
        (lambda: clipped_mean(quantile=0), "at most 1, got 0"),
        (lambda: centred_clipping(radius=-1), "a distance above 0"),
        (lambda: centred_clipping(iterations=0), "1 or more"),
    ):
        with pytest.raises(StrategyError, match=message):
            make()


def test_names_tell_numbers_apart():
    names = [each.name for each in (clipped_mean(), clipped_mean(bound=1.0), clipped_mean(quantile=0.9), *ROBUST)]
    assert all(one != other for one, other in pairwise(sorted(set(names))))
    assert len(set(names)) == len(names) - 1


def test_the_mean_is_broken_where_these_are_not():
    model, updates = cohort(bad=(1, 5))
    assert all(Gate().check(model, update) for update in updates)
    spread = max(np.abs(vector(u.record) - vector(model)).max() for i, u in enumerate(updates) if i not in (1, 5))
    assert np.abs(vector(aggregate(weighted_mean(uniform), model, updates)) - vector(model)).max() > 10 * spread
