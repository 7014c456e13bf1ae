"""The compiled loop of sums, and of norms beside them, has NumPy's bits, whatever the numbers and how they are cut."""

import itertools

import ml_dtypes
import numpy as np
import pytest

from umbel.aggregation import Update, _fused, _squares, squared_distance, weighted_mean
from umbel.aggregation._fused import Apart
from umbel.aggregation._kinds import mean_of
from umbel.aggregation._passes import Place, batch, fold
from umbel.aggregation._weights import Scale, Step, plan
from umbel.errors import AggregationError
from umbel.records import ParametersRecord, RecordSet, digest, dumps, loads

compiled = pytest.mark.skipif(not _fused.LOOPS, reason="there was no C compiler when umbel was installed")

PART, TOGETHER = 16384, 5
SIZES = [1, 7, 100, PART - 1, PART, PART + 1, 3 * PART + 5]
HARD = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 3.4e38, -3.4e38, 1.5]


@pytest.fixture(autouse=True)
def _whatever_the_size(monkeypatch):
    monkeypatch.setattr(_fused, "LEAST", 0)


def numbers(seed, size, dtype, hard):
    rng = np.random.default_rng(seed)
    drawn = (rng.standard_normal(size) * 10.0 ** rng.integers(-6, 6, size)).astype(dtype)
    if hard:
        places = rng.integers(0, size, 2 + size // 20)
        drawn[places] = rng.choice(np.array(HARD), places.size).astype(dtype)
    return drawn


def folded(updates, steps, start, apart=None, **options):
    """The sums of some updates on top of ``start``, and what is said of them."""
    kind, size = mean_of(updates[0].dtype), updates[0].size
    out, (work, product) = start.copy(), np.empty((2, min(size, kind.block)), start.dtype)
    place = Place(kind, out, out, work, product)
    with np.errstate(all="ignore"):
        said = fold(place, list(updates), batch(out.dtype, steps, **options), apart)
    return out, said


def same(one, other):
    """Bits are the same; of what is not a number, only that it is none."""
    here, there = np.isnan(one), np.isnan(other)
    return (here == there).all() and one[~here].tobytes() == other[~there].tobytes()


def both(monkeypatch, updates, *arguments, **options):
    """What is said of sums, once it is certain that both ways find the same, measured or not, and the same norms."""
    size, dtype = updates[0].size, updates[0].dtype
    model = numbers(77, size, dtype, hard=size % 2 == 0)
    rooms = [Apart(model, np.empty((len(updates), _squares.parts_of(size)))) for _ in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(_fused, "LOOPS", {})
        expected, said = folded(updates, *arguments, **options)
        others = [folded(updates, *arguments, rooms[0], **options)]
        patch.setattr(_squares, "LOOPS", {})
        others.append(folded(updates, *arguments, rooms[1], **options))
    others += [folded(updates, *arguments, **options), folded(updates, *arguments, rooms[2], **options)]
    assert all(also == said and same(found, expected) for found, also in others)
    assert all(same(room.squares, rooms[0].squares) for room in rooms)
    return said


@compiled
class TestTheSameBits:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("count", [1, 2, 4, TOGETHER, TOGETHER + 1, 2 * TOGETHER, 13])
    def test_of_means(self, monkeypatch, dtype, size, count):
        weights = [float(w) for w in np.random.default_rng(count).integers(1, 1000, count)]
        updates = [numbers(node, size, dtype, hard=False) for node in range(count)]
        scale, steps = plan(Scale(), weights)
        options = {"fresh": True, "divisor": scale.divisor, "finite": True}
        assert both(monkeypatch, updates, steps, np.zeros(size, dtype), **options) == ""

    @pytest.mark.parametrize(("dtype", "finite"), list(itertools.product([np.float32, np.float64], [True, False])))
    @pytest.mark.parametrize("size", SIZES)
    def test_of_what_is_not_finite_or_nearly_so(self, monkeypatch, dtype, finite, size):
        updates = [numbers(node, size, dtype, hard=True) for node in range(8)]
        scale, steps = plan(Scale(), [1.0, 3.0, 2.0, 0.5, 7.0, 1.0, 1.0, 9.0])
        options = {"fresh": True, "divisor": scale.divisor, "finite": finite}
        said = both(monkeypatch, updates, steps, np.zeros(size, dtype), **options)
        assert "NaN, infinite or outside" in said or not finite

    def test_of_nothing_but_zeros_below_zero(self, monkeypatch):
        """The sum of -0 and -0 is -0: what sums begin with must not make 0 of it."""
        updates, steps = [np.full(100, -0.0, np.float32)] * 3, [Step(), Step(0.5, 0.5), Step(None, 0.5)]
        both(monkeypatch, updates, steps, np.zeros(100, np.float32), fresh=True, divisor=1.5, finite=True)

    def test_of_a_result_that_overflows_when_it_is_divided(self, monkeypatch):
        updates = [np.full(PART + 3, 3e38, np.float32)] * 2
        options = {"fresh": True, "divisor": 0.01, "finite": False}
        said = both(monkeypatch, updates, [Step(), Step(0.5, 0.5)], np.zeros(PART + 3, np.float32), **options)
        assert said.startswith(f"{PART + 3} elements of the result are NaN, infinite or outside float32")

    @pytest.mark.parametrize("count", [1, 6, 11])
    @pytest.mark.parametrize("divisor", [None, 3.25])
    def test_of_updates_on_top_of_others(self, monkeypatch, count, divisor):
        rng = np.random.default_rng(count)
        updates = [numbers(node, 5000, np.float32, hard=True) for node in range(count)]
        steps = [Step(*(float(rng.choice([0.5, 0.125])) if rng.random() < 0.4 else None, 3.0)) for _ in range(count)]
        start = numbers(99, 5000, np.float32, hard=True)
        both(monkeypatch, updates, steps, start, fresh=False, divisor=divisor, finite=False)

    def test_of_weights_that_grow(self, monkeypatch):
        """The scale of the sums changes in the midst of a batch."""
        weights = [1.0, 2.0, 100.0, 3.0, 1e6, 1e6, 7.0, 1e12, 5.0]
        updates = [numbers(node, PART + 9, np.float32, hard=False) for node in range(len(weights))]
        scale, steps = plan(Scale(), weights)
        assert sum(step.rescale is not None for step in steps) > 3
        both(
            monkeypatch, updates, steps, np.zeros(PART + 9, np.float32), fresh=True, divisor=scale.divisor, finite=True
        )

    def test_of_whole_records_however_they_are_cut(self, monkeypatch):
        rng = np.random.default_rng(3)
        shapes = {"a": (300, 1001), "b": (2**18 + 7,), "c": (3,), "z": (1000, 33)}
        kinds = {"a": np.float32, "b": np.float32, "c": np.float64, "z": np.complex64}
        updates = [
            Update(
                f"node-{i}",
                i + 1.5,
                ParametersRecord.from_numpy({n: rng.random(s).astype(kinds[n]) for n, s in shapes.items()}),
            )
            for i in range(7)
        ]

        def bits(threads, cut):
            rule = weighted_mean(threads=threads).reduce
            acc = rule.add(rule.start(updates[0].record), updates[:cut])
            return [bytes(array.data) for array in rule.finish(acc, updates[cut:]).values()]

        with monkeypatch.context() as patch:
            patch.setattr(_fused, "LOOPS", {})
            expected = bits(1, 0)
        assert [bits(threads, cut) == expected for threads in (1, 2, 4) for cut in (0, 1, 3, 7)] == [True] * 12


def of_many_arrays(seed, scale=1.0):
    shapes = {
        "a": (300, 1001),
        "b": (2**20 + 7,),
        "c": (3,),
        "d": (0,),
        "f": (),
        "n": (9,),
        "y": (9000,),
        "z": (1000, 33),
    }
    kinds = {
        "a": ml_dtypes.bfloat16,
        "c": np.float64,
        "f": np.complex128,
        "n": np.int32,
        "y": np.float16,
        "z": np.complex64,
    }
    rng = np.random.default_rng(seed)
    drawn = {name: np.asarray(rng.standard_normal(shape)) * scale for name, shape in shapes.items()}
    return ParametersRecord.from_numpy({n: each.astype(kinds.get(n, np.float32)) for n, each in drawn.items()})


@pytest.mark.parametrize("count", [1, 3, 12])
@pytest.mark.parametrize("solid", [True, False])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_what_is_measured_has_the_bits_of_what_is_not(monkeypatch, count, solid, threads):
    made = [of_many_arrays(node) for node in range(count + 1)]
    if solid:
        made = [loads(b"".join(dumps(RecordSet({"model": each})))).parameters_records["model"] for each in made]
    model, *records = made
    updates = [Update(f"node-{i:02}", i + 1.5, record) for i, record in enumerate(records)]
    rule = weighted_mean(threads=threads).reduce
    expected = digest(rule.finish(rule.start(model), updates))
    norms = [squared_distance(model, record) for record in records]
    for loops in ((_fused, _squares), (_squares,), ()):
        with monkeypatch.context() as patch:
            for module in {_fused, _squares} - {*loops}:
                patch.setattr(module, "LOOPS", {})
            if _squares not in loops:
                patch.setattr(_squares, "LOOPS_OF_EACH", {})
            found, squares = rule.measured(model, updates)
            assert digest(found) == expected
            assert squares == norms


def test_what_float32_is_too_narrow_for_is_measured_again():
    model = ParametersRecord.from_numpy({"w": np.zeros(PART * 2, np.float32)})
    records = [
        ParametersRecord.from_numpy({"w": np.full(PART * 2, value, np.float32)}) for value in (1e-25, 0, 1e25, 1)
    ]
    updates = [Update(f"node-{i}", 1.0, record) for i, record in enumerate(records)]
    _, squares = weighted_mean().reduce.measured(model, updates)
    assert squares == [squared_distance(model, record) for record in records]
    assert squares == pytest.approx([PART * 2e-50, 0, PART * 2e50, PART * 2], rel=1e-6)


def test_updates_that_count_nothing_are_not_measured():
    model = of_many_arrays(0)
    for updates in ([], [Update("a", 1.0, model), Update("b", 0.0, model)]):
        with pytest.raises(AggregationError, match="expected updates with weights above 0"):
            weighted_mean().reduce.measured(model, updates)


@compiled
def test_what_does_not_lie_in_memory_as_it_is_goes_through_numpy():
    whole = np.zeros(2000, np.float32)
    steps = [(None, None), (None, None)]
    assert _fused.fused(whole, [whole, whole], None, steps, fresh=True) is not None
    crooked = np.frombuffer(bytes(8001), np.float32, 2000, 1)
    for other in (np.zeros(4000, np.float32)[::2], crooked, np.zeros(2000), np.zeros(2000, ">f4")):
        assert _fused.fused(whole, [whole, other], None, steps, fresh=True) is None
    assert _fused.fused(np.zeros(9, np.int64), [], None, [], fresh=False) is None


def test_a_mean_that_is_not_finite_is_refused(monkeypatch):
    for loops in (_fused.LOOPS, {}):
        monkeypatch.setattr(_fused, "LOOPS", loops)
        good, bad = np.ones(PART * 2, np.float32), np.ones(PART * 2, np.float32)
        bad[-1] = np.nan
        updates = [Update(f"n{i}", 1.0, ParametersRecord.from_numpy({"w": w})) for i, w in enumerate([good, bad])]
        with pytest.raises(Exception, match=r"1 elements of the result are NaN.*- at array 'w'"):
            weighted_mean().reduce.finish(weighted_mean().reduce.start(updates[0].record), updates)
