"""Strategies beside Flower's of the same name, on the same replies: run by the Python of an environment that has one.

Each ``check_...`` function is one test of ``test_flower_strategies.py``. No pytest here: Flower's environment has none;
nor XGBoost, so ensembles of trees come in a file, which is the argument.
"""

import json
import logging
import sys
import traceback
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.supercore.task_identity import TaskIdentity

import umbel.strategy as ours
from umbel.aggregation import by_examples, multi_krum
from umbel.app import ClientApp
from umbel.engines import LocalGrid, Population
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.rounds import RoundCompleted, begin, train

ROUNDS, NODES = 6, 7
TOLERANCE = 1e-6

logging.disable(logging.CRITICAL)
TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1  # what a message of Flower's is made from


def initial(dtype):
    rng = np.random.default_rng(99)
    return {"weight": rng.standard_normal((5, 8)).astype(dtype), "bias": rng.standard_normal(8).astype(dtype)}


def reply(node, number, dtype):
    """What a node answers in a round, whatever it was sent."""
    rng = np.random.default_rng([node, number])
    arrays = {
        name: (array + rng.standard_normal(array.shape) / 4).astype(dtype) for name, array in initial(dtype).items()
    }
    loss = float(rng.random()) + 0.1
    return arrays, {"num-examples": 10 * (node + 1), "train_loss": loss, "normaliser": float(node + 1)}


class FlowerGrid:
    """As much of Flower's grid as choosing nodes takes."""

    def get_node_ids(self):
        return list(range(1, NODES + 1))


def of_flower(strategy, dtype):
    """Run Flower's strategy; return the model and the config sent to nodes, after every round."""
    arrays = ArrayRecord({name: Array(array) for name, array in initial(dtype).items()})
    for number in range(1, ROUNDS + 1):
        config, replies = ConfigRecord({}), []
        for message in strategy.configure_train(number, arrays, config, FlowerGrid()):
            answer, metrics = reply(message.metadata.dst_node_id - 1, number, dtype)
            record = ArrayRecord({name: Array(array) for name, array in answer.items()})
            content = RecordDict({"arrays": record, "metrics": MetricRecord(metrics)})
            replies.append(Message(content, reply_to=message))
            config = message.content["config"]
        arrays, _ = strategy.aggregate_train(number, sorted(replies, key=lambda each: each.metadata.src_node_id))
        yield {name: array.numpy() for name, array in arrays.items()}, dict(config)


def of_umbel(strategy_of, dtype, change=lambda state: state):
    """Run Umbel's strategy of each round, a round at a time; return the same."""
    told = {}
    app = ClientApp()

    @app.train()
    def handle(message, context):
        told.update(message.content.configs_records["config"])
        arrays, metrics = reply(context.node_id - 1, context_round(message), dtype)
        model = ParametersRecord.from_numpy(arrays)
        return message.create_reply(RecordSet({"model": model}, {"metrics": MetricsRecord(metrics)}))

    grid = LocalGrid(app, Population([f"node-{i}" for i in range(NODES)]))
    state = change(begin(strategy_of(1), ParametersRecord.from_numpy(initial(dtype))))
    for number in range(1, ROUNDS + 1):
        events = list(train(grid, strategy_of(number), state, rounds=number))
        state = next(event.state for event in events if isinstance(event, RoundCompleted))
        yield state.parameters_records["model"].to_numpy(), told


def context_round(message):
    return message.content.configs_records["config"]["round"]


def agree(theirs, strategy_of, change=lambda state: state, **told):
    for dtype in ("float64", "float32"):
        pairs = zip(of_flower(theirs(), dtype), of_umbel(strategy_of, dtype, change), strict=True)
        for (expected, their_config), (found, our_config) in pairs:
            for name, array in expected.items():
                assert found[name].dtype == dtype
                np.testing.assert_allclose(found[name], array, rtol=TOLERANCE, atol=TOLERANCE * np.abs(array).max())
            for name, value in told.items():
                assert their_config[name] == our_config[name] == value


def from_zero(state):
    """Begin the second moment at zero, as Flower does; the paper begins it at tau**2 or more."""
    changed = state.copy()
    zeros = {k: np.zeros_like(v) for k, v in state.parameters_records["optimizer.second-moment"].to_numpy().items()}
    changed.parameters_records["optimizer.second-moment"] = ParametersRecord.from_numpy(zeros)
    return changed


def corrected(number):
    """Flower corrects the bias of Adam, by a factor of the rate that depends on the round; the paper does not."""
    return 0.05 * np.sqrt(1 - 0.95 ** (number + 1)) / (1 - 0.8 ** (number + 1))


def check_fedavg():
    agree(flower.FedAvg, lambda _: ours.fedavg(evaluate_fraction=0))


def check_fedavgm():
    agree(
        lambda: flower.FedAvgM(server_learning_rate=0.5, server_momentum=0.8),
        lambda _: ours.fedavgm(learning_rate=0.5, beta=0.8, evaluate_fraction=0),
    )


def check_fedadagrad():
    agree(
        lambda: flower.FedAdagrad(eta=0.05, tau=0.01),
        lambda _: ours.fedadagrad(learning_rate=0.05, tau=0.01, evaluate_fraction=0),
        from_zero,
    )


def check_fedadam():
    agree(
        lambda: flower.FedAdam(eta=0.05, beta_1=0.8, beta_2=0.95, tau=0.01),
        lambda number: ours.fedadam(
            learning_rate=float(corrected(number)), beta1=0.8, beta2=0.95, tau=0.01, evaluate_fraction=0
        ),
        from_zero,
    )


def check_fedyogi():
    agree(
        lambda: flower.FedYogi(eta=0.05, beta_1=0.8, beta_2=0.95, tau=0.01),
        lambda _: ours.fedyogi(learning_rate=0.05, beta1=0.8, beta2=0.95, tau=0.01, evaluate_fraction=0),
        from_zero,
    )


def check_fedprox():
    agree(
        lambda: flower.FedProx(proximal_mu=0.25),
        lambda _: ours.fedprox(mu=0.25, evaluate_fraction=0),
        **{"proximal-mu": 0.25},
    )


def check_qfedavg():
    for q in (0.0, 0.2, 1.0, 3.0):
        agree(
            lambda q=q: flower.QFedAvg(client_learning_rate=0.1, q=q),
            lambda _, q=q: ours.qfedavg(q=q, learning_rate=0.1, loss="train_loss", evaluate_fraction=0),
        )


def check_fedmedian():
    agree(flower.FedMedian, lambda _: ours.fedmedian(evaluate_fraction=0))


def check_fedtrimmedavg():
    for share in (0.0, 0.2, 0.45):
        agree(
            lambda share=share: flower.FedTrimmedAvg(beta=share),
            lambda _, share=share: ours.fedtrimmedavg(share=share, evaluate_fraction=0),
        )


def check_krum():
    for f in (0, 1, 2):
        agree(
            lambda f=f: flower.Krum(num_malicious_nodes=f),
            lambda _, f=f: ours.krum(byzantine=f, evaluate_fraction=0),
        )


def check_multikrum():
    """Flower weights what it selects by examples."""
    for f, m in ((0, 3), (1, 6), (2, 2)):
        rule = multi_krum(byzantine=f, count=m, weigh=by_examples)
        agree(
            lambda f=f, m=m: flower.MultiKrum(num_malicious_nodes=f, num_nodes_to_select=m),
            lambda _, rule=rule: ours.fedavg(aggregator=rule, evaluate_fraction=0),
        )


def one_after_the_other(contents, f, count):
    """Bulyan's first half as in the paper, ties to the first: Flower's own default selects all at once."""
    arrays = [content["arrays"].to_numpy_ndarrays() for content in contents]
    points = np.array([np.concatenate([array.ravel() for array in each]) for each in arrays], float)
    left, chosen = list(range(len(contents))), []
    while len(chosen) < count:
        apart = np.sort(((points[left][:, None] - points[left][None]) ** 2).sum(axis=2), axis=1)
        scores = apart[:, 1 : 1 + max(1, len(left) - f - 2)].sum(axis=1)
        chosen.append(left.pop(int(np.argmin(scores))))
    return [contents[place] for place in sorted(chosen)]


def check_bulyan():
    for f in (0, 1):
        agree(
            lambda f=f: flower.Bulyan(num_malicious_nodes=f, selection_rule=one_after_the_other),
            lambda _, f=f: ours.bulyan(byzantine=f, evaluate_fraction=0),
        )


def trees(record):
    """An ensemble as a dict: the JSON of XGBoost is the same whatever wrote it."""
    return json.loads(record.numpy().tobytes())


def trees_of_flower(strategy, first, reply_of):
    """Run Flower's strategy over ensembles; return the model after every round."""
    arrays = ArrayRecord([np.frombuffer(first.encode(), np.uint8)])
    for number in range(1, ROUNDS + 1):
        replies = []
        for message in strategy.configure_train(number, arrays, ConfigRecord({}), FlowerGrid()):
            answer = reply_of(number, message.metadata.dst_node_id - 1).encode()
            metrics = MetricRecord({"num-examples": 10})
            content = RecordDict({"arrays": ArrayRecord([np.frombuffer(answer, np.uint8)]), "metrics": metrics})
            replies.append(Message(content, reply_to=message))
        arrays, _ = strategy.aggregate_train(number, sorted(replies, key=lambda each: each.metadata.src_node_id))
        yield trees(arrays["0"])


def trees_of_umbel(strategy, first, reply_of):
    """Run Umbel's over the same; return the same."""
    app = ClientApp()

    def record(text):
        return ParametersRecord.from_numpy({"trees": np.frombuffer(text.encode(), np.uint8)})

    @app.train()
    def handle(message, context):
        answer = {"model": record(reply_of(context_round(message), context.node_id - 1))}
        return message.create_reply(RecordSet(answer, {"metrics": MetricsRecord({"num-examples": 10})}))

    grid = LocalGrid(app, Population([f"node-{i}" for i in range(NODES)]))
    for event in train(grid, strategy, begin(strategy, record(first)), rounds=ROUNDS):
        if isinstance(event, RoundCompleted):
            assert not event.report.refused, event.report.refused
            yield trees(event.state.parameters_records["model"]["trees"])


def agree_on_trees(theirs, strategy, reply_of):
    first = ENSEMBLES["first"]
    pairs = zip(trees_of_flower(theirs, first, reply_of), trees_of_umbel(strategy, first, reply_of), strict=True)
    counts = []
    for expected, found in pairs:
        assert found == expected
        counts.append(len(found["learner"]["gradient_booster"]["model"]["trees"]))
    assert counts == sorted(set(counts))
    assert len(counts) == ROUNDS


def check_fedxgb_bagging():
    """One tree of each node a round, of one class: of more, Flower takes the first."""
    agree_on_trees(
        flower.FedXgbBagging(),
        ours.fedxgb_bagging(evaluate_fraction=0),
        lambda number, node: ENSEMBLES["added"][number - 1][node],
    )


def check_fedxgb_cyclic():
    """Flower's nodes take turns in an order that it draws; here it is that of their names."""
    theirs = flower.FedXgbCyclic()
    theirs.registered_nodes = {node: node for node in range(1, NODES + 1)}
    agree_on_trees(
        theirs,
        ours.fedxgb_cyclic(evaluate_fraction=0),
        lambda number, node: ENSEMBLES["whole"][f"{number}, {node}"],
    )


def outcome(check):
    try:
        check()
    except Exception:  # noqa: BLE001 - whatever went wrong is what the test shows
        return traceback.format_exc()
    return None


if __name__ == "__main__":
    ENSEMBLES = json.loads(Path(sys.argv[1]).read_text())
    checks = {name: check for name, check in list(globals().items()) if name.startswith("check_")}
    sys.stdout.write(json.dumps({name: outcome(check) for name, check in checks.items()}) + "\n")
