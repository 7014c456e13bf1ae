"""Products of parts that make no sense are refused in a sentence; those beside them that do are not."""

import numpy as np
import pytest

import umbel
from umbel import strategy as named
from umbel.aggregation import (
    bagged_trees,
    bulyan,
    by_metric,
    centred_clipping,
    clipped_mean,
    geometric_median,
    krum,
    last_trees,
    median,
    multi_krum,
    total,
    trimmed_mean,
    uniform,
    weighted_mean,
)
from umbel.aggregation._rules import trimmed
from umbel.app import ClientApp
from umbel.errors import StrategyError
from umbel.gate import Gate
from umbel.optimizers import (
    Optimizer,
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
from umbel.records import MetricsRecord, RecordSet
from umbel.rounds import RoundStarted
from umbel.strategy import Companion, buffered, during, everyone, fixed, in_turn, mixed, quorum, strategy, tell

TREES = Gate(any_length=("trees",))
RULES = {
    "median": (median(), 3),
    "trimmed mean": (trimmed_mean(share=0.49), 3),
    "trimmed mean, wider": (trimmed_mean(share=0.2), 5),
    "krum of none": (krum(byzantine=0), 3),
    "multi-krum of none": (multi_krum(byzantine=0), 3),
    "bulyan of none": (bulyan(byzantine=0), 3),
    "geometric median": (geometric_median(), 2),
    "clipping": (clipped_mean(), 2),
    "centred clipping": (centred_clipping(), 2),
}
TRAINING = [momentum(), nesterov(), adagrad(), adagrad(beta1=0.5), adam(), yogi(), dynamic()]


def companion(name="extra", aggregator=None, optimizer=None, **parts):
    return Companion(name, lambda model: model, aggregator or weighted_mean(uniform), optimizer or replace(), **parts)


def refused(message, **parts):
    with pytest.raises(StrategyError, match=message) as caught:
        strategy(**parts)
    return caught.value.at


def my_own(content, number):
    del number
    return content


class TestBuffers:
    @pytest.mark.parametrize("select", [fixed(3), in_turn(3), during({"*": (0, 8)}, fixed(3))], ids=lambda s: s.name)
    def test_one_that_can_never_be_full(self, select):
        policy = buffered(concurrency=9, buffer=4)
        message = r"never be full: .* makes a model of 4 updates, and .* asks no more than 3 for each model"
        assert refused(message, select=select, policy=policy) == "policy"
        assert strategy(select=select, policy=buffered(concurrency=9, buffer=3)).policy.overlap.buffer == 3

    def test_fewer_than_train_at_a_time_may_be_asked_for_each_model(self):
        assert strategy(select=fixed(1), policy=mixed(concurrency=9)).select.most == 1


class TestRobustRules:
    @pytest.mark.parametrize("name", RULES)
    def test_too_few_to_choose_from(self, name):
        rule, enough = RULES[name]
        few = f"pass on fewer than {enough} updates, and no more than {enough - 1} come together"
        assert refused(few, aggregator=rule, select=fixed(enough - 1)) == "aggregator"
        assert refused(few, aggregator=rule, policy=buffered(concurrency=9, buffer=enough - 1)) == "aggregator"
        assert refused(few, aggregator=rule, select=fixed(9), policy=quorum((enough - 1) / 9)) == "aggregator"
        assert refused("no more than 1 come together", aggregator=rule, policy=mixed(concurrency=9)) == "aggregator"
        assert refused(few, companions=[companion(aggregator=rule)], select=fixed(enough - 1)) == "aggregator"

    @pytest.mark.parametrize("name", RULES)
    def test_enough_to_choose_from(self, name):
        rule, enough = RULES[name]
        for parts in (
            {"select": fixed(enough)},
            {"select": everyone()},
            {"policy": buffered(concurrency=9, buffer=enough)},
            {"select": fixed(9), "policy": quorum(enough / 9)},
            {"select": fixed(9), "policy": quorum(1 / 9), "min_updates": enough},
        ):
            assert strategy(aggregator=rule, **parts).aggregator is rule

    @pytest.mark.parametrize("rule", [clipped_mean(bound=1.0), centred_clipping(radius=1.0), trimmed_mean(share=0)])
    def test_a_bound_that_is_given_is_one_for_a_single_update_too(self, rule):
        assert strategy(aggregator=rule, policy=mixed(concurrency=9)).aggregator is rule

    @pytest.mark.parametrize("share", [0.49, 1 / 3, 0.3, 0.2, 0.1, 1 / 7, 0.07, 1 / 49, 0.001, 1e-9, 5e-324])
    def test_from_how_many_on_somebody_is_trimmed(self, share):
        first = trimmed_mean(share=share).useful_from
        assert trimmed(share, first - 1) == 0
        assert trimmed(share, first) == 1 or share < 1e-300


class TestTrees:
    @pytest.mark.parametrize("rule", [bagged_trees(), last_trees()], ids=lambda rule: rule.name)
    @pytest.mark.parametrize("gate", [Gate(), Gate(any_length=("w",)), Gate(max_norm=1.0, any_length=("trees",))])
    def test_a_gate_that_refuses_what_grows(self, rule, gate):
        message = r"trees\(most=100\) grow, .* would refuse them: Gate\(any_length=\('trees',\)\) does not"
        assert refused(message, aggregator=rule, gate=gate, select=fixed(1)) == "gate"
        extra = companion(aggregator=rule, gate=gate)
        assert refused(message, companions=[extra], select=fixed(1)) == "gate"

    def test_without_a_gate_of_its_own(self):
        assert refused("any_length", aggregator=bagged_trees()) == "gate"
        with pytest.raises(StrategyError, match="any_length"):
            named.fedxgb_bagging(gate=Gate(max_weight=2.0))
        assert named.fedxgb_bagging(gate=Gate(max_weight=2.0, any_length=("trees",))).gate.max_weight == 2.0

    @pytest.mark.parametrize("step", [adam(), sgd(), momentum(), accumulate(), elementwise("mine()", max)])
    def test_an_optimizer_that_steps_by_element(self, step):
        assert refused("from element to element", aggregator=bagged_trees(), gate=TREES, optimizer=step) == "optimizer"
        with pytest.raises(StrategyError, match=r"trees\(rounds=1\) grow: use replace\(\)"):
            named.fedxgb_bagging(optimizer=step)

    def test_an_optimizer_of_ones_own_may_prune(self):
        pruned = Optimizer("pruned()", replace().init, replace().update)
        assert strategy(aggregator=bagged_trees(), gate=TREES, optimizer=pruned).optimizer is pruned

    @pytest.mark.parametrize(
        ("parts", "count"),
        [({"select": fixed(2)}, 2), ({"policy": buffered(concurrency=3, buffer=3)}, 3)],
        ids=["asked", "buffered"],
    )
    def test_the_one_that_goes_round_takes_one_update(self, parts, count):
        message = f"takes 1 update of a round, and {count} can come together"
        assert refused(message, aggregator=last_trees(), gate=TREES, **parts) == "aggregator"

    def test_one_of_those_who_are_asked_is_one(self):
        for parts in ({"select": fixed(1)}, {"select": fixed(3), "policy": quorum(0.1)}, {"select": in_turn()}):
            assert strategy(aggregator=last_trees(), gate=TREES, **parts).aggregator.most == 1


class TestQueries:
    @pytest.mark.parametrize("step", TRAINING, ids=lambda step: step.name)
    def test_one_that_would_train(self, step):
        assert refused("a query trains nothing, and ", phase="query", optimizer=step) == "optimizer"
        inner = scaled(step, lambda cohort: 1.0, name="scaled", needs=())
        assert refused("a query trains nothing", phase="query", aggregator=total(), optimizer=inner) == "optimizer"
        assert strategy(optimizer=inner, instruct=tell(dynamic_alpha=0.01)).optimizer is inner

    def test_companions(self):
        message = "a query trains nothing, and companions are trained"
        assert refused(message, phase="query", companions=[companion()]) == "companions"

    def test_rounds_that_overlap(self):
        policy = buffered(concurrency=4, buffer=2)
        message = "a query needs a policy that waits"
        assert refused(message, phase="query", aggregator=total(), policy=policy) == "policy"

    @pytest.mark.parametrize("step", [replace(), sgd(learning_rate=0.1), accumulate(), elementwise("mine()", max, n=0)])
    def test_answers_may_be_smoothed_or_added_up(self, step):
        whole = strategy(phase="query", aggregator=total(), optimizer=step, evaluate=fixed(2), policy=quorum(0.5))
        assert whole.optimizer is step


class TestHalves:
    def test_a_server_whose_nodes_are_told_nothing(self):
        message = r"nodes are told 'dynamic-alpha', 0.5, and instruct tells them nothing of it: use instruct=tell\(dyn"
        inner = scaled(dynamic(alpha=0.5), lambda cohort: 1.0, name="scaled", needs=())
        for step in (dynamic(alpha=0.5), inner):
            assert refused(message, optimizer=step) == "optimizer"
            assert refused(message, optimizer=step, instruct=tell(local_steps=3)) == "optimizer"
        with pytest.raises(StrategyError, match=message):
            named.fedprox(mu=0.1, optimizer=dynamic(alpha=0.5))

    def test_a_server_whose_nodes_are_told_another_number(self):
        message = "nodes are told 'dynamic-alpha', 0.5, and instruct tells them 0.1"
        assert refused(message, optimizer=dynamic(alpha=0.5), instruct=tell(dynamic_alpha=0.1)) == "optimizer"

    def test_both_halves(self):
        assert named.feddyn(alpha=0.5).optimizer.tells == {"dynamic-alpha": 0.5}
        for instruct in (tell(dynamic_alpha=0.5, local_steps=3), my_own):
            assert strategy(optimizer=dynamic(alpha=0.5), instruct=instruct).instruct is instruct


class TestChanges:
    def test_models_are_none(self):
        message = r"accumulate\(\) adds what comes to what was there, .* use replace\(\) or sgd"
        inner = scaled(accumulate(), lambda cohort: 1.0, name="scaled", needs=())
        for step in (accumulate(), inner):
            assert refused("adds what comes", optimizer=step) == "optimizer"
        assert refused(message, aggregator=median(), optimizer=accumulate()) == "optimizer"
        with pytest.raises(StrategyError, match="adds what comes"):
            named.fednova(optimizer=accumulate())

    def test_companions_and_answers_may_be(self):
        assert strategy(companions=companion(optimizer=accumulate())).companions[0].optimizer.adds
        assert strategy(optimizer=accumulate(), answer=lambda model: model).optimizer.adds
        assert strategy(optimizer=accumulate(), phase="query").optimizer.adds


class TestOneNode:
    @pytest.mark.parametrize("select", [in_turn(), fixed(1), during({"*": (0, 8)}, fixed(1))], ids=lambda s: s.name)
    def test_has_no_share(self, select):
        message = "does not wait for all who are asked, and .* asks one node at a time: leave the share out"
        assert refused(message, select=select, policy=quorum(0.5)) == "policy"
        with pytest.raises(StrategyError, match=message):
            named.named("fedxgb_cyclic", {"quorum": 0.5})

    def test_may_have_a_deadline(self):
        policy = quorum(first_deadline=60.0)
        assert named.fedxgb_cyclic(policy=policy).policy is policy

    def test_hands_on_what_grows_alone(self):
        message = r"of 3 nodes that train at a time all but one have an older one: use concurrency=1, or in_turn"
        parts = {"aggregator": last_trees(), "gate": TREES}
        assert refused(message, policy=mixed(concurrency=3), **parts) == "policy"
        assert strategy(policy=mixed(concurrency=1), **parts).aggregator.most == 1
        assert strategy(policy=mixed(concurrency=3), aggregator=bagged_trees(), gate=TREES).gate is TREES


class TestLengths:
    @pytest.mark.parametrize("rule", [weighted_mean(), median(), krum(byzantine=1)], ids=lambda rule: rule.name)
    def test_that_nobody_can_take(self, rule):
        message = r"the gate lets 'w' have any length, .* leave it out of any_length, or say opaque=\('w',\)"
        loose = Gate(any_length=("w",))
        assert refused(message, aggregator=rule, gate=loose) == "gate"
        assert refused(message, companions=companion(aggregator=rule, gate=loose)) == "gate"
        assert refused(message, aggregator=bagged_trees(), gate=Gate(any_length=("trees", "w"))) == "gate"

    def test_of_an_aggregator_of_ones_own(self):
        longest = weighted_mean()._replace(name="longest", opaque=("w",))
        assert strategy(aggregator=longest, gate=Gate(any_length=("w",))).aggregator is longest


class TestWhenARunBegins:
    @staticmethod
    def run(whole, nodes, rounds=2):
        app, started = ClientApp(), []

        @app.train()
        def train(message, context):
            model = message.content.parameters_records["model"]
            metrics = {"metrics": MetricsRecord({"num-examples": 1})}
            return message.create_reply(RecordSet({"model": model}, metrics))

        def watch(event):
            started.append(isinstance(event, RoundStarted))

        history = umbel.simulate(app, whole, {"w": np.zeros(2)}, nodes=nodes, rounds=rounds, on_event=watch)
        return history, sum(started)

    def test_with_fewer_nodes_than_its_buffer_takes(self):
        whole = named.fedbuff(concurrency=9, buffer=5, fraction=0.02)
        message = r"makes a model of 5 updates, and fraction\(0.02, min_nodes=1\) asks 2 of 100 nodes: start more"
        with pytest.raises(StrategyError, match=message) as caught:
            self.run(whole, 100)
        assert caught.value.at == "policy"

    def test_with_as_many(self):
        history, started = self.run(named.fedbuff(concurrency=9, buffer=2, fraction=0.02), 100)
        assert started == 2
        assert [report.accepted for report in history.rounds] == [2, 2]


class TestPartsOfOnesOwn:
    def test_a_fold_has_all_that_folds_have(self):
        class Half:
            def start(self, template): ...

            def add(self, acc, updates): ...

        with pytest.raises(StrategyError, match="got a Half without streaming, finish"):
            named.strategy(aggregator=weighted_mean()._replace(reduce=Half()))

    def test_a_weight_is_no_aggregator_and_makes_one(self):
        with pytest.raises(StrategyError, match=r"make one of it, aggregator=weighted_mean\(\.\.\.\)"):
            named.fedavg(aggregator=by_metric("quality"))

    def test_a_buffer_that_few_nodes_never_fill_is_said_by_its_name(self):
        with pytest.raises(StrategyError, match=r"concurrency=8, buffer=10, .*: take a buffer of at most 8"):
            named.fedbuff(concurrency=8)
