"""Strategies against the pseudo-code of their papers, in float64, on nodes with losses of known gradients."""

import numpy as np
import pytest

import umbel
from umbel import strategy as named
from umbel.aggregation import by_metric, uniform, weighted_mean
from umbel.app import ClientApp
from umbel.drift import controlled, dynamic, next_control, next_linear, normaliser, zeros
from umbel.errors import RoundFailed, StrategyError
from umbel.message import MessageType
from umbel.optimizers import accumulate, momentum, replace
from umbel.personal import merge, split
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.strategy import Companion, fixed, strategy

NODES, ROUNDS, SIZE, RATE = 6, 5, 4, 0.1
_rng = np.random.default_rng(11)
CURVATURE = _rng.uniform(0.5, 2.0, (NODES, SIZE))
CENTRE = _rng.standard_normal((NODES, SIZE))
EXAMPLES = [10, 20, 30, 40, 50, 60]
STEPS = [2, 5, 3, 7, 1, 4]
FIRST = np.linspace(-1, 1, SIZE)


def gradient(node, w):
    return CURVATURE[node] * (w - CENTRE[node])


def loss(node, w):
    return float(np.sum(CURVATURE[node] * (w - CENTRE[node]) ** 2) / 2)


def descend(node, w, steps, extra=lambda w: 0.0):
    for _ in range(steps):
        w = w - RATE * (gradient(node, w) + extra(w))
    return w


def simulate(train, strategy, rounds=ROUNDS, nodes=NODES, **changes):
    """Run a federation whose nodes answer with ``train(node, content, state) -> (records, metrics)``."""
    app = ClientApp()

    @app.train()
    def handle(message, context):
        node = context.node_id - 1
        records, metrics = train(node, message.content, context.state)
        record = {name: ParametersRecord.from_numpy(arrays) for name, arrays in records.items()}
        return message.create_reply(
            RecordSet(record, {"metrics": MetricsRecord({"num-examples": EXAMPLES[node]} | metrics)})
        )

    return umbel.simulate(app, strategy, {"w": FIRST}, nodes=nodes, rounds=rounds, seed=3, **changes)


def received(content, name="model"):
    return content.parameters_records[name].to_numpy()


def cohorts(strategy, rounds=ROUNDS):
    """The nodes that the loop asks in each round, from its events."""
    asked = []
    simulate(
        lambda node, content, state: (asked.append((content.configs_records["config"]["round"], node)), plain(content))[
            1
        ],
        strategy,
        rounds,
    )
    return [[node for number, node in asked if number == each] for each in range(1, rounds + 1)]


def plain(content):
    return {"model": received(content)}, {}


def test_fednova_follows_the_paper():
    def train(node, content, state):
        w = descend(node, received(content)["w"], STEPS[node])
        return {"model": {"w": w}}, {"normaliser": normaliser(STEPS[node])}

    x = FIRST
    for _ in range(ROUNDS):
        p = np.array(EXAMPLES) / sum(EXAMPLES)
        d = [(x - descend(node, x, STEPS[node])) / (RATE * STEPS[node]) for node in range(NODES)]
        effective = sum(p[node] * STEPS[node] for node in range(NODES))
        x = x - RATE * effective * sum(p[node] * d[node] for node in range(NODES))
    found = simulate(train, named.fednova(evaluate_fraction=0)).model
    np.testing.assert_allclose(found["w"].numpy(), x, rtol=1e-12)


def test_fednova_is_fedavg_where_all_nodes_go_equally_far():
    def train(node, content, state):
        return {"model": {"w": descend(node, received(content)["w"], 3)}}, {"normaliser": 3.0}

    found, mean = (simulate(train, each).model["w"].numpy() for each in (named.fednova(), named.fedavg()))
    np.testing.assert_allclose(found, mean, rtol=1e-12)


@pytest.mark.parametrize("learning_rate", [1.0, 0.5])
def test_scaffold_follows_algorithm_1_with_option_2(learning_rate):
    def train(node, content, state):
        first, server = received(content), received(content, "control")
        own = state.parameters_records["control"].to_numpy() if "control" in state.parameters_records else zeros(first)
        w = first
        for _ in range(STEPS[node]):
            step = controlled({"w": gradient(node, w["w"])}, own, server)
            w = {"w": w["w"] - RATE * step["w"]}
        after = next_control(own, server, first, w, steps=STEPS[node], learning_rate=RATE)
        state.parameters_records["control"] = ParametersRecord.from_numpy(after)
        return {"model": w, "control": {"w": after["w"] - own["w"]}}, {}

    whole = named.scaffold(learning_rate=learning_rate, fraction=0.5, evaluate_fraction=0)
    x, c, variates = FIRST, np.zeros(SIZE), np.zeros((NODES, SIZE))
    for cohort in cohorts(named.fedavg(fraction=0.5, evaluate_fraction=0)):
        steps, changes = [], []
        for node in cohort:
            y = descend(node, x, STEPS[node], lambda _, node=node, c=c: c - variates[node])
            after = variates[node] - c + (x - y) / (STEPS[node] * RATE)
            steps.append(y - x)
            changes.append(after - variates[node])
            variates[node] = after
        x = x + learning_rate * np.mean(steps, axis=0)
        c = c + len(cohort) / NODES * np.mean(changes, axis=0)
        np.testing.assert_allclose(c, variates.mean(axis=0), atol=1e-14)
    events = []
    found = simulate(train, whole, on_event=events.append).model
    np.testing.assert_allclose(found["w"].numpy(), x, rtol=1e-12)
    state = events[-1].state
    np.testing.assert_allclose(state.parameters_records["control"]["w"].numpy(), c, rtol=1e-11, atol=1e-14)


def test_feddyn_follows_algorithm_1():
    alpha = 0.2

    def train(node, content, state):
        assert content.configs_records["config"]["dynamic-alpha"] == alpha
        first = received(content)
        linear = state.parameters_records["linear"].to_numpy() if "linear" in state.parameters_records else zeros(first)
        w = first
        for _ in range(STEPS[node]):
            w = {"w": w["w"] - RATE * dynamic({"w": gradient(node, w["w"])}, linear, w, first, alpha)["w"]}
        state.parameters_records["linear"] = ParametersRecord.from_numpy(next_linear(linear, w, first, alpha))
        return {"model": w}, {}

    x, h, linear = FIRST, np.zeros(SIZE), np.zeros((NODES, SIZE))
    for cohort in cohorts(named.fedavg(fraction=0.5, evaluate_fraction=0)):
        thetas = []
        for node in cohort:
            theta = descend(node, x, STEPS[node], lambda w, node=node, x=x: alpha * (w - x) - linear[node])
            linear[node] = linear[node] - alpha * (theta - x)
            thetas.append(theta)
        h = h - alpha / NODES * sum(theta - x for theta in thetas)
        x = np.mean(thetas, axis=0) - h / alpha
    found = simulate(train, named.feddyn(alpha=alpha, fraction=0.5, evaluate_fraction=0)).model
    np.testing.assert_allclose(found["w"].numpy(), x, rtol=1e-11)


def test_feddyn_finds_what_fedavg_misses():
    # Many local steps on losses of different curvature: the mean of the models is not the minimum of the mean loss.
    def train(node, content, state):
        first = received(content)
        linear = state.parameters_records["linear"].to_numpy() if "linear" in state.parameters_records else zeros(first)
        w = {"w": descend(node, first["w"], 200, lambda w: 0.5 * (w - first["w"]) - linear["w"])}
        state.parameters_records["linear"] = ParametersRecord.from_numpy(next_linear(linear, w, first, 0.5))
        return {"model": w}, {}

    def alone(node, content, state):
        return {"model": {"w": descend(node, received(content)["w"], 200)}}, {}

    best = (CURVATURE * CENTRE).sum(axis=0) / CURVATURE.sum(axis=0)
    corrected = simulate(train, named.feddyn(alpha=0.5), rounds=60).model["w"].numpy()
    drifted = simulate(alone, named.fedavg(aggregator=weighted_mean(uniform)), rounds=60).model["w"].numpy()
    assert np.abs(corrected - best).max() < 1e-8
    assert np.abs(drifted - best).max() > 0.01


def test_qfedavg_follows_algorithm_2_and_is_fairer_with_q():
    q = 2.0

    def train(node, content, state):
        w = received(content)["w"]
        return {"model": {"w": descend(node, w, 3)}}, {"loss-before": loss(node, w)}

    x, big = FIRST, 1 / RATE
    for _ in range(ROUNDS):
        top, bottom = np.zeros(SIZE), 0.0
        for node in range(NODES):
            f, change = loss(node, x) + 1e-10, big * (x - descend(node, x, 3))
            top += f**q * change
            bottom += q * f ** (q - 1) * np.sum(change**2) + big * f**q
        x = x - top / bottom
    found = simulate(train, named.qfedavg(q=q, learning_rate=RATE, evaluate_fraction=0)).model
    np.testing.assert_allclose(found["w"].numpy(), x, rtol=1e-12)
    worst = [
        max(
            loss(node, simulate(train, named.qfedavg(q=q, learning_rate=RATE), rounds=80).model["w"].numpy())
            for node in range(NODES)
        )
        for q in (0, 5)
    ]
    assert worst[1] < worst[0]


def test_diloco_tells_the_steps_and_counts_nodes_alike():
    def train(node, content, state):
        return {
            "model": {"w": descend(node, received(content)["w"], content.configs_records["config"]["local-steps"])}
        }, {}

    x, v = FIRST, np.zeros(SIZE)
    for _ in range(ROUNDS):
        d = x - np.mean([descend(node, x, 9) for node in range(NODES)], axis=0)
        v = 0.9 * v + d
        x = x - 0.7 * (d + 0.9 * v)
    found = simulate(train, named.diloco(local_steps=9, evaluate_fraction=0)).model
    np.testing.assert_allclose(found["w"].numpy(), x, rtol=1e-12)


def test_a_metric_of_ones_own_is_the_weight():
    def train(node, content, state):
        return {"model": {"w": np.full(SIZE, float(node))}}, {"quality": node % 3}

    found = simulate(train, named.fedavg(aggregator=weighted_mean(by_metric("quality")), evaluate_fraction=0), rounds=1)
    assert found.model["w"].numpy().tolist() == [(1 * 1 + 2 * 2 + 4 * 1 + 5 * 2) / 6] * SIZE
    reason = "expected a weight above 0 and at most 1e+09, got 0 - at weight"  # of both, so that they can be grouped
    assert found.rounds[0].refused == (("node-0", reason), ("node-3", reason))


PERSONAL = {"base": np.zeros(2), "head.weight": np.ones(2), "head.bias": np.ones(1)}


class TestPersonal:
    def run(self, strategy, leak=False):
        app, seen = ClientApp(), []

        @app.train()
        def handle(message, context):
            config = message.content.configs_records["config"]
            template = ParametersRecord.from_numpy(PERSONAL)
            own = context.state.parameters_records.get("own", ParametersRecord())
            whole = merge(template, message.content.parameters_records["model"], own).to_numpy()
            seen.append((context.node_id, {name: array.tolist() for name, array in whole.items()}))
            trained = ParametersRecord.from_numpy({name: array + context.node_id for name, array in whole.items()})
            shared, context.state.parameters_records["own"] = split(trained, config["local-arrays"])
            reply = trained if leak else shared
            return message.create_reply(RecordSet({"model": reply}, {"metrics": MetricsRecord({"num-examples": 1})}))

        return umbel.simulate(app, strategy, PERSONAL, nodes=3, rounds=3), seen

    def test_local_arrays_stay_where_they_are(self):
        history, seen = self.run(named.fedper(local="head.*", evaluate_fraction=0))
        assert {name: array.tolist() for name, array in history.model.to_numpy().items()} == {"base": [6.0, 6.0]}
        last = dict(seen[-3:])
        assert last[3] == {"base": [4.0, 4.0], "head.weight": [7.0, 7.0], "head.bias": [7.0]}
        assert last[1]["head.weight"] == [3.0, 3.0]

    def test_a_node_that_sends_them_is_refused(self):
        with pytest.raises(RoundFailed, match=r"unexpected 'head\.weight'"):
            self.run(named.fedbn(local=["head.*"], evaluate_fraction=0), leak=True)

    def test_what_makes_no_sense_is_refused(self):
        with pytest.raises(StrategyError, match=r"got 'bn\*'; it has 'base', 'head.weight', 'head.bias'"):
            self.run(named.fedbn(local=["bn*"]))
        with pytest.raises(StrategyError, match="some arrays to share"):
            self.run(named.fedbn(local="*"))
        with pytest.raises(StrategyError, match="expected patterns"):
            named.fedper(local=[])


def test_an_update_counts_as_a_whole_or_not_at_all():
    def train(node, content, state):
        control = {0: {"w": np.zeros(SIZE + 1)}, 1: {"w": np.full(SIZE, np.nan)}}.get(node, {"w": np.ones(SIZE)})
        records = {"model": {"w": np.full(SIZE, float(node))}, "control": control}
        return ({"model": records["model"]} if node == 2 else records), {}

    events = []
    history = simulate(train, named.scaffold(evaluate_fraction=0), rounds=1, on_event=events.append)
    reasons = dict(history.rounds[0].refused)
    assert "expected shape [4], got [5] - at parameters_records.control['w'].shape" in reasons["node-0"]
    assert "4 NaN" in reasons["node-1"]
    assert "'control', got 'model': the strategy trains it beside the model" in reasons["node-2"]
    assert history.model["w"].numpy().tolist() == [4.0] * SIZE
    assert events[-1].state.parameters_records["control"]["w"].numpy().tolist() == [0.5] * SIZE


@pytest.mark.parametrize(
    ("strategy", "metrics", "message"),
    [
        (named.fednova(), {}, "umbel.drift.normaliser"),
        (named.fednova(), {"normaliser": 0.0}, "above 0 and at most 1e.09, got 0.0"),
        (named.fednova(), {"normaliser": 1e300}, "at most 1e.09, got 1e.300"),
        (named.qfedavg(q=1, learning_rate=1), {}, "report it as the metric 'loss-before'"),
        (named.qfedavg(q=1, learning_rate=1), {"loss-before": -1.0}, "0 or more, got -1.0"),
        (named.qfedavg(q=9, learning_rate=1), {"loss-before": 1e200}, "weight above 0 and at most"),
        (named.fedavg(aggregator=weighted_mean(by_metric("x"))), {"x": [1]}, "the metric 'x', by which .* got a list"),
    ],
)
def test_a_report_that_is_missing_costs_the_node_its_update(strategy, metrics, message):
    with pytest.raises(RoundFailed, match=message):
        simulate(lambda node, content, state: (plain(content)[0], metrics), strategy, rounds=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: named.fedprox(mu=-1), "0 or more, got -1"),
        (lambda: named.feddyn(alpha=0), "alpha above 0"),
        (lambda: named.scaffold(learning_rate=0), "learning rate above 0"),
        (lambda: named.qfedavg(q=-1, learning_rate=1), "q from 0"),
        (lambda: named.diloco(local_steps=0), "at least 1"),
        (lambda: named.fedadam(optimizer=replace()), "optimizer is what makes fedadam"),
        (lambda: named.scaffold(optimizer=replace()), "optimizer is what makes scaffold"),
        (lambda: named.fednova(aggregator=weighted_mean()), "aggregator is what makes fednova"),
        (
            lambda: strategy(optimizer=named.fednova().optimizer),
            "works with the sums of 'examples', .* weighted_mean does not measure",
        ),
        (lambda: strategy(companions=[Companion("model", split, weighted_mean(), replace())]), "names of their own"),
        (lambda: strategy(companions=["control"]), "expected Companion, got str"),
        (lambda: strategy(local=[5]), "expected str, got int"),
    ],
)
def test_senseless_products_are_refused_in_a_sentence(make, message):
    with pytest.raises(StrategyError, match=message):
        make()


def test_parts_of_named_strategies_mix():
    robust = named.fednova(optimizer=momentum(), fraction=0.5)
    assert robust.optimizer.name == "normalised momentum(learning_rate=1.0, beta=0.9)"
    assert named.fedadam(aggregator=weighted_mean(uniform)).describe()["aggregator"] == "weighted_mean by uniform"
    assert named.scaffold(aggregator=weighted_mean()).companions[0].aggregator.weigh is uniform


def test_two_numbers_are_two_descriptions():
    for one, other in (
        (named.fedprox(mu=1), named.fedprox(mu=2)),
        (named.qfedavg(q=1, learning_rate=1), named.qfedavg(q=2, learning_rate=1)),
        (named.feddyn(alpha=1), named.feddyn(alpha=2)),
        (named.fedbn(local="a"), named.fedbn(local="b")),
        (named.diloco(local_steps=1), named.diloco(local_steps=2)),
        (
            named.fedavg(aggregator=weighted_mean(by_metric("a"))),
            named.fedavg(aggregator=weighted_mean(by_metric("b"))),
        ),
    ):
        assert one.describe() != other.describe()


def test_only_train_messages_carry_companions():
    app, seen = ClientApp(), {}

    @app.train()
    def train(message, context):
        seen[MessageType.TRAIN] = list(message.content.parameters_records)
        return message.create_reply(RecordSet(dict(message.content.parameters_records), {"m": MetricsRecord({"x": 1})}))

    @app.evaluate()
    def evaluate(message, context):
        seen[MessageType.EVALUATE] = list(message.content.parameters_records)
        return message.create_reply(RecordSet())

    companion = Companion("extra", lambda model: model, weighted_mean(uniform), accumulate())
    parts = strategy(select=fixed(1), evaluate=fixed(1), aggregator=weighted_mean(uniform), companions=[companion])
    history = umbel.simulate(app, parts, {"w": FIRST}, nodes=2, rounds=1)
    assert seen == {"train": ["model", "extra"], "evaluate": ["model"]}
    assert history.rounds[0].bytes["sent"] > 0
