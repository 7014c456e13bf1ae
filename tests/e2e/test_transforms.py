"""Transforms in whole runs: on every engine, with late updates, after a resume, and between real processes over TLS."""

import sys
import tracemalloc

import numpy as np
import pytest

import umbel
from federation import Federation
from umbel import strategy as named
from umbel.aggregation import median
from umbel.app import ClientApp
from umbel.errors import RoundFailed, StrategyError, UmbelError
from umbel.gate import Gate
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.rounds import NodeLost, UpdateRefused
from umbel.strategy import buffered, mixed, strategy
from umbel.transforms import Transform, clipped, narrowed, noisy, transforming

APP = """
import numpy as np

from umbel.app import ClientApp
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.transforms import clipped, narrowed, noisy, transforming

app = ClientApp(mods=[transforming(clipped(1.0), noisy(0.001), narrowed("bfloat16"))])


@app.train()
def train(message, context):
    rng = np.random.default_rng(context.seed)
    records = message.content.parameters_records
    made = {n: a + rng.standard_normal(a.shape, np.float32) for n, a in records["model"].to_numpy().items()}
    whole = {**records, "model": ParametersRecord.from_numpy(made)}
    return message.create_reply(RecordSet(whole, {"metrics": MetricsRecord({"num-examples": 1 + context.seed % 9})}))


@app.evaluate()
def evaluate(message, context):
    return message.create_reply(RecordSet(metrics_records={"metrics": MetricsRecord({"num-examples": 1})}))
"""
PLAIN = {"clipped": 1.0, "noisy": 0.001, "narrowed": "bfloat16"}
LIST = [clipped(1.0), noisy(0.001), narrowed("bfloat16")]
SIZE = 40_000
MODEL = {"w": np.linspace(-1, 1, SIZE, dtype=np.float32)}
OVERLAPPING = [buffered(concurrency=4, buffer=2), mixed(concurrency=2)]
NODES = {"north": {}, "south": {}, "west": {}}


@pytest.fixture
def app_folder(tmp_path, monkeypatch):
    (tmp_path / "transforming_app.py").write_text(APP)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("transforming_app", None)


@pytest.fixture
def app(app_folder):
    import transforming_app  # noqa: PLC0415 - it is there now

    return transforming_app.app


def run(app, plan, rounds=3, **options):
    return umbel.simulate(app, plan, MODEL, nodes=NODES, rounds=rounds, seed=5, **options)


def test_the_same_bits_on_two_engines(app):
    plan = named.fedavg(transforms=LIST, evaluate_fraction=0)
    local = run(app, plan)
    assert run(app, plan, engine="processes", workers=2).digest == local.digest
    assert run(app, named.fedavg(transforms=LIST[:-1]), rounds=0).digest != local.digest


def test_the_reply_takes_half_the_bytes(app):
    report = run(app, named.fedavg(transforms=LIST, evaluate_fraction=0), rounds=1).rounds[0]
    assert report.accepted == 3
    assert 2 * SIZE * 3 <= report.bytes["received"] <= 2 * SIZE * 3 + 500
    assert 4 * SIZE * 3 <= report.bytes["sent"] <= 4 * SIZE * 3 + 500


def test_the_gate_sees_what_was_undone(app):
    # Rounding to bfloat16 may add 2**-8 to a norm, and the noise its own.
    loose = Gate(max_norm=1.0 + 2**-8 + 0.001 * SIZE**0.5 * 1.1)
    assert run(app, strategy(transforms=LIST, gate=loose)).rounds[-1].accepted == 3
    with pytest.raises(RoundFailed, match=r"expected a norm of at most 0\.9 from the model, got 1\.0"):
        run(app, strategy(transforms=LIST, gate=Gate(max_norm=0.9)))


def counted(came, sent, *_):
    return ParametersRecord.from_numpy({"n": came["n"].numpy() - sent["n"].numpy()})


def summed(came, sent):
    return ParametersRecord.from_numpy({"n": came["n"].numpy() + sent["n"].numpy()})


@pytest.mark.parametrize("policy", OVERLAPPING)
def test_late_differences_come_back_to_the_bit(policy):
    def train(message, context):
        n = message.content.parameters_records["model"]["n"].numpy()
        metrics = MetricsRecord({"num-examples": 1})
        trained = ParametersRecord.from_numpy({"n": n + 1 + context.seed % 99})
        return message.create_reply(RecordSet({"model": trained}, {"metrics": metrics}))

    def end(mods, plan):
        made = ClientApp(mods=mods)
        made.train()(train)
        return umbel.simulate(made, plan, {"n": np.zeros(2, np.int64)}, nodes=6, rounds=8, seed=1).digest

    exact = Transform("counted()", counted, summed)
    plain = end([], strategy(policy=policy))
    assert end([transforming(exact)], strategy(policy=policy, transforms=[exact])) == plain


@pytest.mark.parametrize("policy", OVERLAPPING)
def test_late_updates_are_undone_on_the_model_that_they_were_sent(app, policy):
    history = run(app, strategy(policy=policy, transforms=LIST), rounds=6)
    assert not [each for report in history.rounds for each in report.refused]
    assert history.digest == run(app, strategy(policy=policy, transforms=LIST), rounds=6).digest
    went = np.linalg.norm(history.model.to_numpy()["w"] - MODEL["w"])
    assert 0.5 < went < 6.5


def test_a_run_that_goes_on_ends_with_the_same_bits_and_other_transforms_are_named(app, tmp_path):
    plan = named.fedbuff(concurrency=2, buffer=2, transforms=LIST)
    whole = run(app, plan, rounds=4)
    run(app, plan, rounds=2, checkpoint=tmp_path / "kept")
    with pytest.raises(UmbelError, match=r"strategy\.transforms is \"clipped\(1\.0\), noisy"):
        run(app, plan._replace(transforms=()), rounds=4, checkpoint=tmp_path / "kept", resume=True)
    assert run(app, plan, rounds=4, checkpoint=tmp_path / "kept", resume=True).digest == whole.digest


def test_companions_go_as_they_are(app):
    plan = named.scaffold(transforms=LIST, evaluate_fraction=0)
    seen = []
    history = run(app, plan, rounds=1, on_event=seen.append)
    assert history.rounds[0].accepted == 3
    assert seen[-1].state.parameters_records["control"]["w"].dtype == "float32"
    received = history.rounds[0].bytes["received"]
    assert 6 * SIZE * 3 <= received <= 6 * SIZE * 3 + 500


def test_rules_that_see_everybody_take_them(app):
    assert run(app, strategy(aggregator=median(), transforms=LIST)).rounds[-1].accepted == 3


# Refusals.


def plain_app(*mods, odd=()):
    """An app whose nodes named in ``odd`` do not transform."""
    made, whole = ClientApp(mods=mods), ClientApp()

    @made.train()
    @whole.train()
    def train(message, context):
        model = message.content.parameters_records["model"]
        metrics = MetricsRecord({"num-examples": 1})
        return message.create_reply(RecordSet({"model": model}, {"metrics": metrics}))

    def except_odd(message, context, call_next):
        return whole(message, context) if context.node_name in odd else call_next(message, context)

    if not odd:
        return made
    mixed_app = ClientApp(mods=[except_odd, *mods])
    mixed_app.train()(train)
    return mixed_app


def test_one_node_that_does_not_transform_costs_its_own_update():
    events = []
    app = plain_app(transforming(narrowed()), odd=("south",))
    history = run(app, strategy(transforms=[narrowed()]), rounds=1, on_event=events.append)
    assert history.rounds[0].accepted == 2
    (refused,) = (event for event in events if isinstance(event, UpdateRefused))
    assert refused.node == "south"
    assert "expected one transformed with narrowed('bfloat16'), got one that is not transformed" in refused.reason


def test_a_node_that_transforms_unasked_says_so():
    events = []
    with pytest.raises(RoundFailed, match="the server asks for no transforms"):
        run(plain_app(transforming(clipped(1))), strategy(), rounds=1, on_event=events.append)
    assert len([event for event in events if isinstance(event, NodeLost)]) == 3


def test_an_instruct_that_sends_another_model_is_refused():
    def other(content, round):  # noqa: A002 - the field's word
        content.parameters_records["model"] = ParametersRecord.from_numpy({"w": MODEL["w"] * 2})
        return content

    app = plain_app(transforming(clipped(1)))
    assert run(plain_app(), strategy(instruct=other), rounds=1).rounds[0].accepted == 3
    with pytest.raises(StrategyError, match="this function sends another one than the round's"):
        run(app, strategy(instruct=other, transforms=[clipped(1)]), rounds=1)


def test_a_failure_to_undo_is_a_refusal_of_the_update():
    def burst(came, sent):
        raise ZeroDivisionError("by zero")

    odd = Transform("odd()", lambda came, sent, config, seed: came, burst)
    with pytest.raises(RoundFailed, match=r"'west': odd\(\) cannot be undone: ZeroDivisionError: by zero"):
        run(plain_app(transforming(odd)), strategy(transforms=[odd]), rounds=1)


def test_memory_holds_one_update_that_was_undone(app):
    def peak(nodes):
        tracemalloc.start()
        umbel.simulate(app, strategy(transforms=LIST), {"w": np.zeros(500_000, np.float32)}, nodes=nodes, rounds=1)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(12) - peak(3) < 1_000_000  # half of one


@pytest.mark.slow
def test_over_a_network_the_same_bits_as_in_one_process(app_folder, app):
    strategy_ = {"name": "fedavg", **PLAIN}
    alone = run(app, named.named("fedavg", PLAIN))
    federation = Federation(app_folder / "federation", app_folder, app="transforming_app:app", plain=False)
    try:
        federation.serve()
        for name in NODES:
            federation.node(name)
        number = federation.submit(MODEL, nodes=list(NODES), rounds=3, seed=5, strategy=strategy_)
        view = federation.completed(number)
    finally:
        federation.close()
    assert view.digest == alone.digest
    assert [report["bytes"] for report in view.reports] == [dict(each.bytes) for each in alone.rounds]
