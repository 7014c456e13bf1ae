"""Robust strategies in the loop: what they need of a round, what they cost, and that attackers do not win."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

import umbel
from umbel import strategy as named
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
from umbel.app import ClientApp
from umbel.errors import RoundFailed, StrategyError
from umbel.optimizers import accumulate, momentum
from umbel.records import MetricsRecord, ParametersRecord, RecordSet, load, save
from umbel.strategy import Companion, fixed, strategy

MIB = 2**20
BEST = np.linspace(-1, 1, 8)
ATTACKERS = (0, 3, 7)


def app(attack):
    made = ClientApp()
    room = np.empty(8)  # all nodes reply with views of one buffer, as one PyTorch module for all of them does

    @made.train()
    def train(message, context):
        w = message.content.parameters_records["model"]["w"].numpy()
        rng = np.random.default_rng(context.seed)
        step = 0.3 * (BEST - w) + 0.05 * rng.standard_normal(8)
        room[:] = w + (attack(step, rng) if context.node_config["partition-id"] in ATTACKERS else step)
        record = ParametersRecord.from_numpy({"w": room}, copy=False)
        return message.create_reply(RecordSet({"model": record}, {"metrics": MetricsRecord({"num-examples": 1})}))

    return made


ATTACKS = {
    "sign flip": lambda step, rng: -10 * step,
    "noise": lambda step, rng: 100 * rng.standard_normal(8),
    "one place": lambda step, rng: np.full(8, 1e6),
    "little": lambda step, rng: step + 0.1,
}
ROBUST = {
    "fedmedian": named.fedmedian(),
    "fedtrimmedavg": named.fedtrimmedavg(share=0.3),
    "krum": named.krum(byzantine=3),
    "multikrum": named.multikrum(byzantine=3),
    "bulyan": named.bulyan(byzantine=3),
    "rfa": named.rfa(),
    "normclip": named.normclip(),
    "centredclip": named.centredclip(),
    "median with momentum": named.fedmedian(optimizer=momentum(beta=0.5)),
}


def gap(strategy, attack):
    model = umbel.simulate(app(ATTACKS[attack]), strategy, {"w": np.zeros(8)}, nodes=15, rounds=25, seed=3).model
    return float(np.abs(model["w"].numpy() - BEST).max())


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("attack", ATTACKS)
def test_attackers_do_not_win(name, attack):
    assert gap(ROBUST[name], attack) < (0.5 if attack == "little" else 0.35)


def test_they_win_over_the_mean():
    assert gap(named.fedavg(), "noise") > 5
    assert gap(named.fedavg(), "one place") > 1e5


def test_a_round_needs_as_many_updates_as_the_rule():
    assert named.krum(byzantine=2).min_updates == 7
    assert named.krum(byzantine=2, min_updates=9).min_updates == 9
    assert named.multikrum(byzantine=1, count=8).min_updates == 8
    assert named.bulyan(byzantine=2).min_updates == 11
    assert named.fedmedian().min_updates == 1
    companion = Companion("extra", lambda model: model, krum(byzantine=1), accumulate())
    assert strategy(companions=[companion]).min_updates == 5
    with pytest.raises(StrategyError, match="every round would fail: 7 updates are required of a cohort of 6"):
        strategy(select=fixed(6), aggregator=krum(byzantine=2))
    with pytest.raises(StrategyError, match="at least 1, not 0"):
        named.krum(byzantine=1, min_updates=0)
    with pytest.raises(RoundFailed, match=r"of at least 7, as krum\(byzantine=2\) needs, got 6 of 6"):
        umbel.simulate(app(ATTACKS["noise"]), named.krum(byzantine=2), {"w": np.zeros(8)}, nodes=6, rounds=1)


def test_the_aggregator_is_what_makes_them():
    with pytest.raises(StrategyError, match="aggregator is what makes fedmedian"):
        named.fedmedian(aggregator=weighted_mean())


RULES = [
    median(),
    trimmed_mean(),
    krum(byzantine=2),
    multi_krum(byzantine=2),
    bulyan(byzantine=2),
    geometric_median(),
    clipped_mean(),
    centred_clipping(),
]


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_memory_is_some_blocks_and_does_not_grow_with_the_model(rule, threads):
    """Beside the result, whatever the blocks of a thread hold: K rows of some KiB, and a few more."""
    extra = {}
    fold = replace(rule.reduce, reduce=replace(rule.reduce.reduce, threads=threads))
    for size in (2**19, 2**20):
        rng = np.random.default_rng(0)
        models = [ParametersRecord.from_numpy({"w": rng.random(size, np.float32)}) for _ in range(12)]
        updates = [Update(f"n{i:02}", 1.0, model) for i, model in enumerate(models[1:])]
        tracemalloc.start()
        found = fold.finish(fold.start(models[0]), updates)
        extra[size] = tracemalloc.get_traced_memory()[1] - 4 * size
        tracemalloc.stop()
        del found
    assert extra[2**20] < threads * 3 * MIB
    if threads == 1:
        assert extra[2**20] - extra[2**19] < MIB / 16


def test_updates_in_mapped_files_are_not_copied(tmp_path):
    """The loop copies what a node may write to again, and nothing else."""
    size = 2**20
    made = ClientApp()

    @made.train()
    def train(message, context):
        path = tmp_path / f"{context.node_name}.safetensors"
        model = ParametersRecord.from_numpy({"w": np.full(size, float(context.node_id))})
        save(RecordSet({"model": model}), path)
        record = load(path).parameters_records["model"]
        return message.create_reply(RecordSet({"model": record}, {"metrics": MetricsRecord({"num-examples": 1})}))

    whole = strategy(aggregator=median())
    tracemalloc.start()
    history = umbel.simulate(made, whole, {"w": np.zeros(size)}, nodes=9, rounds=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert history.model["w"].numpy()[::1000].tolist() == [5.0] * (size // 1000 + 1)
    assert peak < 8 * 8 * size  # the model, the next one, and what one node holds; not nine updates


def test_weights_of_zero_are_left_out():
    updates = [
        Update(f"n{i}", float(i % 2), ParametersRecord.from_numpy({"w": np.array([float(i)])})) for i in range(6)
    ]
    assert aggregate(median(), updates[0].record, updates)["w"].numpy().tolist() == [3.0]
    assert aggregate(geometric_median(), updates[0].record, updates)["w"].numpy().tolist() == [pytest.approx(3.0)]
    assert median().weigh is uniform


@pytest.mark.parametrize(("share", "count", "cut"), [(0.29, 100, 29), (0.285, 200, 57), (0.5 - 1e-11, 4, 1)])
def test_a_trimmed_mean_leaves_out_the_share_that_is_meant(share, count, cut):
    values = [ParametersRecord.from_numpy({"w": np.array([4.0**place])}) for place in range(count)]
    updates = [Update(f"n{place:03}", 1.0, value) for place, value in enumerate(values)]
    found = aggregate(trimmed_mean(share=share), values[0], updates).to_numpy()["w"]
    expected = np.mean([4.0**place for place in range(cut, count - cut)])
    np.testing.assert_allclose(found, [expected], rtol=1e-9)


@pytest.mark.parametrize("count", [3, 5, 10, 49, 98, 103, 107, 161])
def test_a_trimmed_mean_is_of_use_from_the_first_cohort_that_it_trims(count):
    rule = trimmed_mean(share=1 / count)
    assert rule.useful_from == count
    strategy(select=fixed(count), aggregator=rule)
