"""Policies of a round: when it is over, and what comes of nodes that train while the model moves on."""

from math import sqrt

import numpy as np
import pytest

import umbel
from arrivals import ArrivalGrid
from paced import FIRST, NODES, app, events_of, nodes_of, play, reports, slow
from umbel import strategy as named
from umbel.aggregation import median, uniform, weighted_mean
from umbel.app import ClientApp
from umbel.context import derive_seed
from umbel.engines import LocalGrid, Population, Replay, replaying
from umbel.errors import RoundFailed, StrategyError, UpdateRejected, UsageError
from umbel.gate import Gate
from umbel.history import RoundReport
from umbel.optimizers import momentum
from umbel.records import MetricsRecord, ParametersRecord, RecordSet, dumps
from umbel.rounds import NodeLost, RoundStarted, UpdateAccepted, UpdateRefused, begin, train
from umbel.rounds._rebase import rebased
from umbel.strategy import Companion, buffered, fixed, mixed, quorum, strategy, synchronous


def plan(policy, **parts):
    return strategy(policy=policy, aggregator=weighted_mean(uniform), **parts)


class TestQuorum:
    def test_the_first_to_come_are_enough(self):
        events, grid = play(plan(quorum(0.5)))
        for number in (1, 2, 3):
            assert sorted(nodes_of(events, UpdateAccepted, number)) == [f"node-{i}" for i in range(4)]
            lost = [each for each in events if isinstance(each, NodeLost) and each.round == number]
            assert {each.reason for each in lost} == {"enough others had answered"}
            assert len(lost) == 4
        assert len(grid.cancelled) == 12
        assert [report.accepted for report in reports(events)] == [4, 4, 4]
        assert grid.now == 12.0

    def test_the_result_is_that_of_a_round_with_these_alone(self):
        events, _ = play(plan(quorum(0.5)), rounds=1)
        only, _ = play(plan(synchronous()), lambda asked: slow(asked) if asked.dst_node_id <= 4 else None, rounds=1)
        assert reports(events)[0].digest == reports(only)[0].digest

    def test_refused_updates_are_not_enough(self):
        bad = ClientApp()

        @bad.train()
        def handle(message, context):
            model = {"w": np.zeros(5), "n": np.zeros(2, int)} if context.node_id > 3 else {"w": np.zeros(1)}
            record = ParametersRecord.from_numpy(model)
            return message.create_reply(RecordSet({"model": record}, {"metrics": MetricsRecord({"num-examples": 1})}))

        events = events_of(plan(quorum(0.5)), ArrivalGrid(bad, NODES, slow), rounds=1)
        assert nodes_of(events, UpdateRefused) == ["node-0", "node-1", "node-2"]
        assert nodes_of(events, UpdateAccepted) == ["node-3", "node-4", "node-5", "node-6"]

    def test_a_round_waits_for_as_many_as_it_requires(self):
        events, _ = play(plan(quorum(0.1), min_updates=3), rounds=1)
        assert len(nodes_of(events, UpdateAccepted)) == 3
        with pytest.raises(RoundFailed, match="at least 3 usable replies"):
            play(plan(quorum(0.5), min_updates=3), lambda asked: 1.0 if asked.dst_node_id < 3 else None)

    @pytest.mark.parametrize(
        ("share", "cohort", "enough"), [(0.5, 8, 4), (0.5, 7, 4), (0.7, 10, 7), (1 / 1.3, 13, 10), (0.01, 5, 1)]
    )
    def test_the_share_is_rounded_up(self, share, cohort, enough):
        assert quorum(share).enough(cohort) == enough


class TestDeadline:
    def test_is_learned_from_those_who_answered(self):
        policy = quorum(quantile=0.5, factor=1.5, first_deadline=100.0)
        events, _ = play(plan(policy))
        # All 8 come in the first round; their median is 4 s, so the second has 6 s, in which 5 come (not the one at 6).
        assert [report.accepted for report in reports(events)] == [8, 5, 5]
        assert nodes_of(events, NodeLost, 2) == ["node-5", "node-6", "node-7"]

    def test_holds_in_the_first_round(self):
        events, _ = play(plan(quorum(quantile=1.0, factor=1.0, first_deadline=3.5)), rounds=2)
        assert [report.accepted for report in reports(events)] == [3, 2]

    def test_is_in_the_state(self):
        policy = quorum(quantile=0.5, factor=1.5)
        whole, _ = play(plan(policy))
        half, _ = play(plan(policy), rounds=1)
        rest, _ = play(plan(policy), state=half[-1].state)
        assert reports(whole)[1].digest == reports(rest)[0].digest
        assert whole[-1].digest == rest[-1].digest

    def test_what_is_learned_from_a_moment_is_a_second(self):
        """Nodes of one process answer in microseconds; twice as long is no reason to lose them."""

        def hurried(asked):
            return 1e-4 * (1 if asked.group_id == 1 else 9_000)

        events, _ = play(plan(quorum(quantile=0.5, factor=1.5)), hurried)
        assert [report.accepted for report in reports(events)] == [8, 8, 8]

    def test_whoever_misses_it_reads_how_long_it_was(self):
        events, _ = play(plan(quorum(quantile=0.5, factor=1.5)), rounds=2)
        lost = [each for each in events if isinstance(each, NodeLost)]
        assert {each.reason for each in lost} == {"no reply came within the 6 s of the deadline"}

    def test_there_is_none_without_time(self):
        """A grid whose replies take no time that is known is waited for."""
        events = events_of(plan(quorum(quantile=0.5)), ArrivalGrid(app(), NODES, lambda asked: 0.0))
        assert [report.accepted for report in reports(events)] == [8, 8, 8]


def reference(policy, seconds, rounds, mix=False, rate=1.0):
    """FedBuff and FedAsync as in their papers, over the same nodes and draws, in float64."""
    overlap = policy.overlap
    x = FIRST["w"].copy()
    coming, now, number = [], 0.0, 1
    versions, drawn, order = {}, {}, 0
    names = [f"node-{i}" for i in range(NODES)]

    def top_up(buffer):
        nonlocal order
        busy = {node for *_, node, _ in coming} | set(buffer)
        versions[number] = x.copy()
        while len(coming) < overlap.concurrency:
            tries, asked = drawn.setdefault(number, [0, set()])
            free = [name for name in names if name not in asked and name not in busy]
            if not free:
                return
            while True:
                tries += 1
                node = names[derive_seed(5, number, "", f"draw {tries}") * NODES >> 63]
                if node in free:
                    break
            drawn[number][0] = tries
            asked.add(node)
            busy.add(node)
            order += 1
            coming.append((now + seconds(int(node[5:]) + 1), (number, order), node, number))

    for number in range(1, rounds + 1):
        buffer = {}
        top_up(buffer)
        while len(buffer) < overlap.buffer:
            coming.sort()
            now, _, node, version = coming.pop(0)
            rng = np.random.default_rng(derive_seed(5, version, node, "train"))
            trained = versions[version] * 0.5 + int(node[5:]) + 1 + rng.standard_normal(5)
            discount = (1 + number - version) ** -0.5
            buffer[node] = discount * (trained - (x if mix else versions[version]))
            if len(buffer) < overlap.buffer:
                top_up(buffer)
        x = x + rate * np.mean(list(buffer.values()), axis=0)
    return x


class TestOverlap:
    @pytest.mark.parametrize(("concurrency", "buffer"), [(4, 1), (4, 3), (8, 8), (3, 2)])
    def test_fedbuff_follows_its_paper(self, concurrency, buffer):
        whole = named.fedbuff(concurrency=concurrency, buffer=buffer)
        events, _ = play(whole, rounds=12)
        expected = reference(whole.policy, float, 12)
        np.testing.assert_allclose(events[-1].state.parameters_records["model"]["w"].numpy(), expected, rtol=1e-12)

    @pytest.mark.parametrize("alpha", [0.6, 1.0])
    def test_fedasync_follows_its_paper(self, alpha):
        whole = named.fedasync(concurrency=4, alpha=alpha)
        events, _ = play(whole, rounds=15)
        expected = reference(whole.policy, float, 15, mix=True, rate=alpha)
        np.testing.assert_allclose(events[-1].state.parameters_records["model"]["w"].numpy(), expected, rtol=1e-12)

    def test_so_many_train_at_a_time(self):
        events, grid = play(named.fedbuff(concurrency=5, buffer=2), rounds=6)
        assert [each.cohort for each in events if isinstance(each, RoundStarted)] == [5] * 6
        assert [report.accepted for report in reports(events)] == [2] * 6
        assert len(grid.asked) == len(set(grid.asked)) == 5 + 2 * 5 + 1
        assert grid.cancelled == []

    def test_slow_nodes_count_less(self):
        policy = buffered(concurrency=4, buffer=2)
        assert [policy.overlap.discount(s) for s in (0, 1, 3)] == [1.0, 1 / sqrt(2), 0.5]
        assert buffered(concurrency=4, buffer=2, exponent=0).overlap.discount(9) == 1.0
        assert mixed(concurrency=4, exponent=2).overlap.discount(1) == 0.25

    def test_a_model_that_is_too_old_is_given_up(self):
        def seconds(asked):
            return 1000.0 if asked.dst_node_id == 1 else 1.0

        events, grid = play(named.fedbuff(concurrency=8, buffer=2, most_stale=3), seconds, rounds=8)
        lost = [each for each in events if isinstance(each, NodeLost)]
        assert [(each.node, each.round) for each in lost] == [("node-0", 5)]
        assert lost[0].reason == "the model that it was sent is more than 3 versions old"
        assert len(grid.cancelled) == 1

    def test_nodes_that_never_answer_are_lost_when_nothing_else_comes(self):
        with pytest.raises(RoundFailed, match=r"got 0 from a cohort of 3.*\n.*no reply came"):
            play(named.fedbuff(concurrency=3, buffer=2), lambda asked: None)
        events, _ = play(named.fedbuff(concurrency=8, buffer=8), lambda asked: None if asked.dst_node_id == 2 else 1.0)
        assert [report.accepted for report in reports(events)] == [7, 7, 7]

    def test_gone_on_with_on_the_local_engine_ends_with_the_same_bits(self):
        whole = named.fedbuff(concurrency=5, buffer=2)

        def grid():
            return LocalGrid(app(), Population(NODES), seed=5)

        uninterrupted = events_of(whole, grid(), rounds=9)
        state = None
        for rounds in (1, 2, 5, 9):
            events = events_of(whole, grid(), rounds=rounds, state=state)
            state = events[-1].state
        assert events[-1].digest == uninterrupted[-1].digest
        assert b"".join(dumps(state)) == b"".join(dumps(uninterrupted[-1].state))

    def test_resuming_through_a_checkpoint(self, tmp_path):
        whole = named.fedasync(concurrency=3)
        options = {"nodes": NODES, "seed": 5}
        expected = umbel.simulate(app(), whole, FIRST, rounds=7, **options)
        umbel.simulate(app(), whole, FIRST, rounds=4, checkpoint=tmp_path / "run", **options)
        found = umbel.simulate(app(), whole, FIRST, rounds=7, checkpoint=tmp_path / "run", resume=True, **options)
        assert found.digest == expected.digest
        assert found.rounds[-1].arrivals[0].message_id == expected.rounds[-1].arrivals[0].message_id

    def test_nodes_that_have_left_before_a_run_goes_on_are_lost(self):
        whole = named.fedbuff(concurrency=5, buffer=2)
        before = events_of(whole, LocalGrid(app(), Population(NODES), seed=5), rounds=3)
        flying = bytes(before[-1].state.parameters_records["flight"]["names"].data).decode().split("\n")
        here = [f"node-{place}" for place in range(NODES) if f"node-{place}" != flying[0]]
        after = events_of(whole, LocalGrid(app(), Population(here), seed=5), rounds=5, state=before[-1].state)
        lost = [each for each in after if isinstance(each, NodeLost)]
        assert [(each.node, each.round) for each in lost] == [(flying[0], 4)]
        assert lost[0].reason == "it was asked before the run was stopped, and has left since"
        assert reports(after)[0].lost == ((flying[0], lost[0].reason),)

    def test_versions_nobody_trains_from_are_let_go_of(self):
        events, _ = play(named.fedbuff(concurrency=4, buffer=2), rounds=30)
        kept = [name for name in events[-1].state.parameters_records if name.startswith("flight.")]
        assert 1 <= len(kept) <= 5

    def test_the_gate_judges_by_the_model_that_was_sent(self):
        made = ClientApp()

        @made.train()
        def handle(message, context):
            w = message.content.parameters_records["model"]["w"].numpy()
            record = ParametersRecord.from_numpy({"w": w + 1})
            return message.create_reply(RecordSet({"model": record}, {"metrics": MetricsRecord({"num-examples": 1})}))

        whole = named.fedbuff(concurrency=6, buffer=1, exponent=0.0, gate=Gate(max_norm=1.5))
        state = begin(whole, ParametersRecord.from_numpy({"w": np.zeros(1)}))
        events = list(train(ArrivalGrid(made, NODES, slow), whole, state, rounds=9))
        assert nodes_of(events, UpdateRefused) == []
        assert events[-1].state.parameters_records["model"]["w"].numpy() == [9.0]

    def test_aggregators_and_optimizers_mix(self):
        whole = strategy(policy=buffered(concurrency=6, buffer=3), aggregator=median(), optimizer=momentum())
        events, _ = play(whole, rounds=4)
        assert [report.accepted for report in reports(events)] == [3] * 4


class TestRebase:
    def test_keeps_dtypes_and_takes_the_rest_as_it_is(self):
        def record(shift):
            return ParametersRecord.from_numpy(
                {
                    "half": np.full(3, 1.0 + shift, np.float16),
                    "single": np.full(3, 1.0 + shift, np.float32),
                    "wave": np.full(2, 1.0 + 2j * shift, np.complex64),
                    "count": np.array([int(8 * shift)]),
                }
            )

        found = rebased(record(2.0), record(1.0), record(0.25), 0.5).to_numpy()
        assert found["half"].dtype == np.float16
        assert found["half"].tolist() == found["single"].tolist() == [1.75] * 3
        assert found["wave"].tolist() == [1 + 1.5j] * 2
        assert found["count"].tolist() == [16]

    def test_an_update_of_today_is_itself_in_memory_of_its_own(self):
        room = np.array([0.1, 0.2])
        update = ParametersRecord.from_numpy({"w": room}, copy=False)
        model = ParametersRecord.from_numpy({"w": np.array([0.3, 0.7])})
        found = rebased(update, model, model, 1.0)
        room[:] = 9
        assert found["w"].numpy().tolist() == [0.1, 0.2]

    def test_an_update_that_overflows_costs_the_node_alone(self):
        big = np.finfo(np.float32).max
        x, y = (ParametersRecord.from_numpy({"w": np.float32([v])}) for v in (big, -big))
        with pytest.raises(UpdateRejected, match="finite where the model is today"):
            rebased(x, y, x, 1.0)


POLICIES = {
    "quorum": plan(quorum(0.6)),
    "deadline": plan(quorum(0.9, quantile=0.5, factor=1.3)),
    "fedbuff": named.fedbuff(concurrency=5, buffer=3),
    "fedasync": named.fedasync(concurrency=3),
    "fedat": named.fedat(count=2, number=2),
    "tiers": plan(synchronous(), select=named.tiers(3, number=2)),
    "oort": plan(quorum(0.7), select=named.oort(5, loss="num-examples")),
}


class TestReplay:
    @staticmethod
    def jittered(asked):
        return float(np.random.default_rng([asked.message_id % 2**32, asked.dst_node_id]).gamma(2.0) + 0.1)

    @pytest.mark.parametrize("name", POLICIES)
    def test_a_run_replayed_from_its_arrivals_is_the_same_run(self, name):
        whole = POLICIES[name]
        events, _ = play(whole, self.jittered, rounds=6)
        saved = [RoundReport.from_json(report.to_json()) for report in reports(events)]
        assert all(report.arrivals for report in saved)
        replay = Replay(LocalGrid(app(), Population(NODES), seed=5), saved)
        again = events_of(whole, replay, rounds=6)
        assert again[-1].digest == events[-1].digest
        assert [report.arrivals for report in reports(again)] == [report.arrivals for report in saved]
        assert b"".join(dumps(again[-1].state)) == b"".join(dumps(events[-1].state))
        assert events_of(whole, LocalGrid(app(), Population(NODES), seed=5), rounds=6)[-1].digest != events[-1].digest

    def test_a_trace_of_another_run_is_refused(self):
        events, _ = play(POLICIES["fedbuff"], self.jittered)
        replay = Replay(LocalGrid(app(), Population(NODES), seed=5), reports(events))
        with pytest.raises(UsageError, match="expected the trace of this run, got one with a reply of 'node-"):
            events_of(named.fedbuff(concurrency=2, buffer=1), replay)

    def test_runs_that_go_by_no_arrivals_record_none(self):
        events, _ = play(plan(synchronous()))
        assert [report.arrivals for report in reports(events)] == [(), (), ()]
        grid = replaying(reports(events), LocalGrid)(app(), Population(NODES), seed=5)
        assert events_of(plan(synchronous()), grid)[-1].digest == events[-1].digest


class OneCohort:
    """A grid that takes one cohort at a time."""

    def nodes(self, round=0, message_type="train"):  # noqa: A002
        return Population(NODES).nodes


def test_senseless_products_are_refused_in_a_sentence():
    companion = Companion("extra", lambda model: model, weighted_mean(uniform), momentum())
    for make, message in (
        (lambda: quorum(0), "shares up to 1"),
        (lambda: quorum(1.5), "shares up to 1"),
        (lambda: quorum(factor=0.5), "factor of 1 or more"),
        (lambda: quorum(quantile=0), "shares up to 1"),
        (lambda: quorum(0.5, factor=3.0), r"a factor of 3\.0 stretches a deadline, and there is none: give a quantile"),
        (lambda: quorum(first_deadline=0), "seconds above 0"),
        (lambda: buffered(concurrency=3, buffer=4), "at most as many as nodes train at a time"),
        (lambda: buffered(concurrency=3, buffer=0), "at least 1 update"),
        (lambda: mixed(concurrency=0), "at most as many as nodes train at a time"),
        (lambda: mixed(concurrency=1, exponent=-1), "exponent"),
        (
            lambda: strategy(policy=buffered(concurrency=9, buffer=2), min_updates=3),
            "3 updates are required of a buffer of 2",
        ),
        (lambda: strategy(policy=mixed(concurrency=9), companions=[companion]), "belong to one version of it"),
        (lambda: strategy(policy=mixed(concurrency=9), evaluate=fixed(2)), "rounds that overlap have no between"),
        (
            lambda: named.krum(byzantine=1, evaluate_fraction=0, policy=mixed(concurrency=9)),
            "5 updates are required of a buffer of 1",
        ),
        (lambda: named.fedasync(concurrency=9, policy=synchronous()), "policy is what makes fedasync"),
        (lambda: strategy(policy=quorum), r"expected Policy, got function .*call it, policy=quorum\(...\)"),
    ):
        with pytest.raises(StrategyError, match=message):
            make()
    with pytest.raises(StrategyError, match="which this grid cannot: it takes one cohort at a time"):
        events_of(named.fedbuff(concurrency=2, buffer=1), OneCohort())


def test_two_policies_are_two_descriptions():
    plain = strategy().describe()
    assert "policy" not in plain
    assert strategy(policy=quorum(0.5)).describe()["policy"].startswith("quorum(0.5, ")
    assert named.fedbuff(concurrency=3, buffer=2).describe() != named.fedbuff(concurrency=3, buffer=3).describe()
