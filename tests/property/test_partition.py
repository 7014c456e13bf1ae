"""Partitioners: every row once, the same parts again, and the skew that each one promises."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.errors import PartitionError
from umbel.partition import dirichlet, iid, natural, shards

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=200)
SEEDS = st.integers(0, 2**63 - 1)
ALPHAS = st.floats(0, 1e9, exclude_min=True)


def assert_partition(parts: list[np.ndarray], rows: int) -> None:
    """Every row is in exactly one part, and each part is ascending."""
    assert sorted(np.concatenate(parts).tolist()) == list(range(rows))
    for part in parts:
        assert part.dtype == np.intp
        assert (np.diff(part) > 0).all()


@given(size=st.integers(1, 500), data=st.data(), seed=SEEDS)
def test_iid_parts_differ_by_one_row_at_most(size: int, data: st.DataObject, seed: int) -> None:
    nodes = data.draw(st.integers(1, size))
    parts = iid(size, nodes, seed=seed)
    assert_partition(parts, size)
    sizes = [len(part) for part in parts]
    assert len(parts) == nodes
    assert max(sizes) - min(sizes) <= 1


@given(labels=LABELS, data=st.data(), alpha=ALPHAS, seed=SEEDS)
def test_dirichlet_gives_every_node_its_minimum(
    labels: list[int], data: st.DataObject, alpha: float, seed: int
) -> None:
    nodes = data.draw(st.integers(1, len(labels)))
    min_size = data.draw(st.integers(0, len(labels) // nodes))
    parts = dirichlet(labels, nodes, alpha=alpha, seed=seed, min_size=min_size)
    assert_partition(parts, len(labels))
    assert len(parts) == nodes
    assert all(len(part) >= min_size for part in parts)


@given(labels=LABELS, data=st.data(), seed=SEEDS)
def test_shards_are_few_runs_of_the_sorted_labels(labels: list[int], data: st.DataObject, seed: int) -> None:
    nodes = data.draw(st.integers(1, len(labels)))
    each = data.draw(st.integers(1, len(labels) // nodes))
    parts = shards(labels, nodes, seed=seed, shards_per_node=each)
    assert_partition(parts, len(labels))
    place = np.argsort(np.argsort(labels, kind="stable"))
    for part in parts:
        runs = 1 + int((np.diff(np.sort(place[part])) > 1).sum())
        assert runs <= each
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= each


@given(column=st.one_of(LABELS, st.lists(st.text(max_size=3), min_size=1), st.lists(st.floats(), min_size=1)))
def test_natural_gives_each_value_a_node(column: list[object]) -> None:
    parts = natural(column)
    assert_partition(parts, len(column))
    values = np.asarray(column)
    distinct = np.unique(values)
    assert len(parts) == len(distinct)
    for value, part in zip(distinct, parts, strict=True):
        np.testing.assert_array_equal(values[part], np.full(len(part), value))


@given(seed=SEEDS)
def test_the_same_arguments_give_the_same_parts(seed: int) -> None:
    labels = np.arange(300) % 7
    calls: list[Callable[[int], list[np.ndarray]]] = [
        lambda s: iid(300, 9, seed=s),
        lambda s: dirichlet(labels, 9, alpha=0.5, seed=s),
        lambda s: shards(labels, 9, seed=s),
    ]
    for call in calls:
        first, again, other = (np.concatenate(call(s)) for s in (seed, seed, seed ^ 1))
        assert (first == again).all()
        assert (first != other).any()


def test_golden_parts() -> None:
    labels = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    skewed = [[0], [4, 6, 8, 9, 10, 11], [1, 2, 3, 5, 7]]
    assert [part.tolist() for part in iid(7, 3, seed=0)] == [[2, 3, 5], [1, 6], [0, 4]]
    assert [part.tolist() for part in shards(labels, 3, seed=0)] == [[8, 9, 10, 11], [0, 1, 2, 3], [4, 5, 6, 7]]
    assert [part.tolist() for part in dirichlet(labels, 3, alpha=0.5, seed=0)] == skewed


def test_a_small_alpha_skews_labels_and_a_large_one_does_not() -> None:
    labels = np.repeat(np.arange(10), 1_000)

    def largest_share(alpha: float) -> float:
        parts = dirichlet(labels, 20, alpha=alpha, seed=1, min_size=50)
        return float(np.mean([np.bincount(labels[part]).max() / len(part) for part in parts]))

    assert largest_share(0.05) > 0.6
    assert largest_share(1_000) < 0.12


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (lambda: iid(3, 4, seed=0), "nodes"),
        (lambda: iid(3, 0, seed=0), "nodes"),
        (lambda: iid(0, 1, seed=0), "size"),
        (lambda: iid(3, 2.0, seed=0), "nodes"),
        (lambda: iid(3, True, seed=0), "nodes"),
        (lambda: iid(3, 2, seed=-1), "seed"),
        (lambda: iid(3, 2, seed=None), "seed"),
        (lambda: dirichlet([], 1, alpha=1.0, seed=0), "labels"),
        (lambda: dirichlet([[1, 2]], 1, alpha=1.0, seed=0), "labels"),
        (lambda: dirichlet([1, 2], 1, alpha=0.0, seed=0), "alpha"),
        (lambda: dirichlet([1, 2], 1, alpha=float("nan"), seed=0), "alpha"),
        (lambda: dirichlet([1, 2], 1, alpha="1", seed=0), "alpha"),
        (lambda: dirichlet([1, 2], 1, alpha=1e300, seed=0), "alpha"),
        (lambda: dirichlet([1, 2], 1, alpha=1.0, seed=0, min_size=3), "nodes"),
        (lambda: dirichlet([1, 2], 1, alpha=1.0, seed=0, min_size=-1), "min_size"),
        (lambda: shards([1, 2, 3], 2, seed=0), "nodes"),
        (lambda: shards([1, 2, 3], 2, seed=0, shards_per_node=0), "shards_per_node"),
        (lambda: natural(np.array([1, "a", None], dtype=object)), "labels"),
    ],
)
def test_what_cannot_be_dealt_out_is_refused_by_name(call: Callable[[], object], place: str) -> None:
    with pytest.raises(PartitionError) as caught:
        call()
    assert caught.value.at == place


@pytest.mark.parametrize("alpha", [np.float32(0.5), 1, np.int64(1)])
def test_any_real_number_is_an_alpha(alpha: float) -> None:
    assert_partition(dirichlet([1, 2, 3], np.int64(2), alpha=alpha, seed=0), 3)


def test_too_few_rows_are_said_with_the_number_that_asks_for_them() -> None:
    with pytest.raises(PartitionError, match=r"18 rows for 3 nodes with min_size=6, got 10.* or a smaller min_size"):
        dirichlet(np.arange(10) % 2, 3, alpha=0.5, seed=0, min_size=6)
    with pytest.raises(PartitionError, match="with shards_per_node=2, got 3"):
        shards([1, 2, 3], 2, seed=0)
    with pytest.raises(PartitionError, match="3 rows for 3 nodes, got 2: ask for fewer nodes"):
        iid(2, 3, seed=0)
