"""The context of a handler, and seeds that are the same everywhere."""

import itertools

import pytest

from umbel.context import Context, derive_seed
from umbel.errors import MessageError
from umbel.records import RecordSet


@pytest.mark.parametrize(
    ("arguments", "seed"),
    [
        ((0, 0, "", ""), 7340969214765743239),
        ((1, 2, "site-3", "train"), 6666298421817560997),
        ((-1, 2**62, "Zürich", "evaluate"), 8105939476045224756),
    ],
)
def test_golden_seeds(arguments: tuple[int, int, str, str], seed: int) -> None:
    assert derive_seed(*arguments) == seed


def test_every_argument_changes_the_seed() -> None:
    runs, rounds, names, kinds = (0, 1), (0, 1), ("", "a", "at", "b"), ("", "train", "rain")
    inputs = list(itertools.product(runs, rounds, names, kinds))
    seeds = [derive_seed(*each) for each in inputs]
    assert len(set(seeds)) == len(inputs)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(("run_seed", "round_"), [(2**63, 0), (0, -(2**63) - 1), (1.5, 0), (0, None)])
def test_numbers_out_of_range_are_refused_by_name(run_seed: int, round_: int) -> None:
    with pytest.raises(MessageError, match="64-bit"):
        derive_seed(run_seed, round_, "a", "train")


def test_a_context_is_frozen_and_its_state_is_the_nodes_own() -> None:
    state = RecordSet()
    context = Context(1, 2, {"shard": 3}, state, {"lr": 0.1})
    assert context.state is state
    assert (context.node_name, context.seed) == ("", 0)
    with pytest.raises(AttributeError):
        context.seed = 1  # type: ignore[misc]
