"""What every named strategy keeps: one seed gives one digest, resuming changes nothing, callers' values stay theirs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import umbel
from umbel import strategy as named
from umbel.aggregation import geometric_median, median
from umbel.app import ClientApp
from umbel.checkpoint import read
from umbel.optimizers import momentum
from umbel.records import MetricsRecord, ParametersRecord, RecordSet, digest
from umbel.strategy import buffered, in_turn, power_of_choice, quorum, strategy

COMMON = {"fraction": 0.6, "evaluate_fraction": 0}
MODEL = {
    "w": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    "head": np.ones(2, np.float16),
    "count": np.arange(3),
}

# Each with the records that its optimizers and companions keep in a checkpoint, beside the model.
STRATEGIES = {
    "fedavg": (named.fedavg(**COMMON), []),
    "fedavgm": (named.fedavgm(**COMMON), ["optimizer.momentum"]),
    "fedadagrad": (named.fedadagrad(**COMMON), ["optimizer.second-moment"]),
    "fedadam": (named.fedadam(**COMMON), ["optimizer.momentum", "optimizer.second-moment"]),
    "fedyogi": (named.fedyogi(**COMMON), ["optimizer.momentum", "optimizer.second-moment"]),
    "diloco": (named.diloco(**COMMON), ["optimizer.momentum"]),
    "fedprox": (named.fedprox(mu=0.1, **COMMON), []),
    "fednova": (named.fednova(**COMMON), []),
    "fednova with momentum": (named.fednova(optimizer=momentum(), **COMMON), ["optimizer.momentum"]),
    "scaffold": (named.scaffold(learning_rate=0.5, **COMMON), ["control"]),
    "feddyn": (named.feddyn(alpha=0.5, **COMMON), ["optimizer.correction"]),
    "qfedavg": (named.qfedavg(q=0.5, learning_rate=0.1, **COMMON), []),
    "fedbn": (named.fedbn(local="head", **COMMON), []),
    "fedper": (named.fedper(local="head", **COMMON), []),
    "fedmedian": (named.fedmedian(**COMMON), []),
    "fedtrimmedavg": (named.fedtrimmedavg(share=0.4, **COMMON), []),
    "krum": (named.krum(byzantine=1, evaluate_fraction=0), []),
    "multikrum": (named.multikrum(byzantine=1, evaluate_fraction=0), []),
    "bulyan": (named.bulyan(byzantine=0, **COMMON), []),
    "rfa": (named.rfa(**COMMON), []),
    "normclip": (named.normclip(**COMMON), []),
    "centredclip": (named.centredclip(**COMMON), []),
    "trimmed mean with momentum": (
        named.fedtrimmedavg(share=0.4, optimizer=momentum(), **COMMON),
        ["optimizer.momentum"],
    ),
    "adam over the geometric median": (
        named.fedadam(aggregator=geometric_median(), **COMMON),
        ["optimizer.momentum", "optimizer.second-moment"],
    ),
}
# What these keep is about nodes: tests of their own look at it.
OTHERS = {
    "ditto": (named.ditto(strength=0.1, **COMMON), []),
    "fedbuff": (named.fedbuff(concurrency=3, buffer=2), []),
    "fedbuff of medians": (
        strategy(policy=buffered(concurrency=4, buffer=3), aggregator=median(), optimizer=momentum()),
        [],
    ),
    "fedasync": (named.fedasync(concurrency=2), []),
    "fedat": (named.fedat(count=1, number=2), []),
    "a quorum": (named.fedavg(policy=quorum(0.6), evaluate_fraction=0), []),
    "power of choice": (strategy(select=power_of_choice(3, candidates=4)), []),
    "in turn": (strategy(select=in_turn(2)), []),
}
WHOLE = STRATEGIES | OTHERS
EVERY = pytest.mark.parametrize("name", WHOLE)

app = ClientApp()


@app.train()
def answer(message, context):
    """Answer as any of the strategies wants it, with a state of the node's own that goes into the answer."""
    rng = np.random.default_rng(context.seed)
    before = context.state.metrics_records.get("rounds", MetricsRecord({"seen": 0}))["seen"]
    context.state.metrics_records["rounds"] = MetricsRecord({"seen": before + 1})
    records = {}
    for name, record in message.content.parameters_records.items():
        arrays = record.to_numpy()
        moved = {
            key: array + (before + rng.standard_normal(array.shape) / 8).astype(array.dtype)
            for key, array in arrays.items()
        }
        records[name] = ParametersRecord.from_numpy(moved)
    metrics = {"num-examples": context.node_id, "normaliser": 1.0 + context.node_id, "loss-before": rng.random()}
    return message.create_reply(RecordSet(records, {"metrics": MetricsRecord(metrics)}))


def simulate(name, rounds, **changes):
    strategy, _ = WHOLE[name]
    return umbel.simulate(app, strategy, MODEL, nodes=5, rounds=rounds, seed=17, **changes)


@EVERY
@pytest.mark.parametrize("stop", [0, 1, 3])
def test_a_run_that_goes_on_ends_with_the_same_bits(name, stop, tmp_path):
    whole = simulate(name, 4)
    assert simulate(name, stop, checkpoint=tmp_path).digest != whole.digest
    resumed = simulate(name, 4, checkpoint=tmp_path, resume=True)
    assert resumed.digest == whole.digest == digest(resumed.model)
    assert resumed.rounds[-1].digest == whole.rounds[-1].digest


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_checkpoint_holds_what_the_strategy_keeps(name, tmp_path):
    simulate(name, 2, checkpoint=tmp_path)
    state = read(tmp_path).state
    assert sorted(state.parameters_records) == sorted(["model", *WHOLE[name][1]])
    assert dict(state.configs_records["strategy"]) == WHOLE[name][0].describe()
    for kept in WHOLE[name][1]:
        arrays = state.parameters_records[kept].to_numpy()
        assert any(np.any(array != 0) for array in arrays.values())
        assert "count" not in arrays


@EVERY
def test_the_arrays_of_the_caller_stay_as_they_were(name):
    initial = ParametersRecord.from_numpy(MODEL)
    before = digest(initial)
    states = []
    umbel.simulate(
        app,
        WHOLE[name][0],
        initial,
        nodes=5,
        rounds=3,
        on_event=lambda event: states.append((event.state, digest(event.state))) if hasattr(event, "state") else None,
    )
    assert digest(initial) == before
    assert all(digest(state) == seen for state, seen in states)


@EVERY
def test_dtypes_shapes_and_order_are_those_of_the_model(name):
    model = simulate(name, 2).model
    local = WHOLE[name][0].local
    expected = {key: (array.dtype.name, array.shape) for key, array in MODEL.items() if key not in local}
    assert {key: (array.dtype, tuple(array.shape)) for key, array in model.items()} == expected
    assert list(model) == list(expected)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(STRATEGIES)), st.integers(0, 2**63 - 1))
def test_one_seed_gives_one_digest(name, seed):
    runs = [umbel.simulate(app, WHOLE[name][0], MODEL, nodes=5, rounds=2, seed=seed).digest for _ in range(2)]
    assert runs[0] == runs[1]
