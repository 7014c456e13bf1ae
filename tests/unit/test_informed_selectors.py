"""Selectors that remember what nodes reported, and the memory that the loop keeps for them."""

from math import inf, nan

import numpy as np
import pytest

import umbel
from arrivals import ArrivalGrid
from umbel import strategy as named
from umbel.aggregation import uniform, weighted_mean
from umbel.app import ClientApp
from umbel.engines import Population
from umbel.errors import StrategyError
from umbel.records import MetricsRecord, ParametersRecord, RecordSet, dumps
from umbel.rounds import RoundCompleted, begin, train
from umbel.strategy import Occasion, during, everyone, fixed, oort, power_of_choice, quorum, strategy, tiers

NODES = 20


def occasion(known=None, size=NODES, seed=7, number=5, now=nan, **columns):
    places = np.arange(size) if known is None else np.array(known, int)
    full = {"round": np.ones(len(places)), "lost": np.zeros(len(places)), "seconds": np.ones(len(places))}
    full |= {name.replace("_", "-"): np.array(values, float) for name, values in columns.items()}
    return Occasion(size, seed, number, places, full, now, lambda place: f"node-{place:02}")


def drawn(selector, many=200, **options):
    """How often each node is chosen, over many seeds."""
    counts = np.zeros(options.get("size", NODES))
    for seed in range(many):
        chosen = list(selector.consult(occasion(**{**options, "seed": seed})))
        assert chosen == sorted(set(chosen))
        counts[chosen] += 1
    return counts / many


class TestPowerOfChoice:
    def test_the_highest_losses_of_the_candidates_are_chosen(self):
        losses = np.arange(NODES) / 10
        selector = power_of_choice(3, candidates=NODES)
        assert selector.consult(occasion(loss_before=losses)) == [17, 18, 19]
        shares = drawn(power_of_choice(2, candidates=8), loss_before=losses)
        assert shares[19] == pytest.approx(8 / 20, abs=0.1)  # in whenever it is drawn
        assert shares[:6].max() < 0.05
        assert shares[15] > shares[10]

    def test_nodes_that_never_took_part_come_first(self):
        selector = power_of_choice(4, candidates=NODES)
        chosen = set(selector.consult(occasion(known=range(17), loss_before=np.arange(17))))
        assert chosen == {16, 17, 18, 19}
        shares = drawn(power_of_choice(1, candidates=NODES), known=[], loss_before=[])
        assert shares.min() > 0  # nobody is behind because of a name

    def test_a_loss_that_is_none_counts_as_unknown(self):
        losses = np.where(np.arange(NODES) == 3, nan, 1.0)
        assert power_of_choice(1, candidates=NODES).consult(occasion(loss_before=losses)) == [3]

    def test_without_memory_it_is_uniform(self):
        assert len(power_of_choice(3, candidates=5).choose(NODES, 1)) == 3

    def test_numbers_that_cannot_be(self):
        for make in (lambda: power_of_choice(0, candidates=1), lambda: power_of_choice(3, candidates=2)):
            with pytest.raises(StrategyError):
                make()
        with pytest.raises(StrategyError, match="at least 3 nodes to select from, the grid has 2"):
            power_of_choice(3, candidates=3).consult(occasion(size=2, loss_before=[1, 1]))


class TestOort:
    def test_useful_nodes_are_chosen_more_often(self):
        losses = np.r_[np.full(10, 0.1), np.full(10, 5.0)]
        shares = drawn(oort(4, explore=0.0, least_explore=0.0), loss_before=losses, num_examples=np.full(NODES, 10.0))
        assert shares[10:].min() > 0.2
        assert shares[:10].max() < 0.05

    def test_slow_nodes_are_chosen_less_often(self):
        seconds = np.r_[np.full(10, 1.0), np.full(10, 30.0)]
        options = {"loss_before": np.ones(NODES), "num_examples": np.ones(NODES), "seconds": seconds}
        shares = drawn(oort(4, explore=0.0, least_explore=0.0), **options)
        assert shares[10:].max() < 0.05

    def test_whoever_was_not_asked_for_long_comes_back(self):
        rounds = np.r_[np.full(19, 100.0), 1.0]
        options = {"loss_before": np.ones(NODES), "num_examples": np.ones(NODES), "round": rounds, "number": 101}
        shares = drawn(oort(1, explore=0.0, least_explore=0.0), **options)
        assert shares[19] == 1.0

    def test_new_nodes_have_their_share_which_shrinks(self):
        options = {"known": range(10), "loss_before": np.ones(10), "num_examples": np.ones(10)}
        early = drawn(oort(8), number=1, **options)
        late = drawn(oort(8), number=500, **options)
        assert early[10:].sum() == pytest.approx(7)  # 0.9 of 8
        assert late[10:].sum() == pytest.approx(2)  # 0.2 of 8
        assert early[10:].min() > 0

    def test_all_are_new_or_none_is(self):
        assert len(oort(5).consult(occasion(known=[], loss_before=[], num_examples=[]))) == 5
        whole = oort(NODES).consult(occasion(loss_before=np.zeros(NODES), num_examples=np.zeros(NODES)))
        assert whole == list(range(NODES))

    def test_what_is_no_number_is_no_use(self):
        losses = [nan, inf, -1.0, *([1.0] * 17)]
        shares = drawn(oort(4, explore=0.0, least_explore=0.0), loss_before=losses, num_examples=np.ones(NODES))
        assert shares[:3].max() == 0

    def test_numbers_that_cannot_be(self):
        for options in ({"explore": 2.0}, {"explore": 0.1}, {"preferred": 0.0}):
            with pytest.raises(StrategyError, match="shares from 0 to 1"):
                oort(3, **options)


class TestTiers:
    def test_a_cohort_is_about_equally_fast(self):
        seconds = np.random.default_rng(0).permutation(NODES).astype(float)
        tier_of = np.argsort(np.argsort(seconds)) // 5
        seen = set()
        for seed in range(60):
            chosen = tiers(3, number=4).consult(occasion(seed=seed, seconds=seconds))
            assert len(chosen) == 3
            (tier,) = {int(tier_of[place]) for place in chosen}
            seen.add(tier)
        assert seen == {0, 1, 2, 3}

    def test_tiers_have_a_cohort_each(self):
        assert len(tiers(12, number=5).consult(occasion())) == 12

    def test_nodes_that_are_not_known_are_asked_first(self):
        chosen = tiers(4, number=2).consult(occasion(known=range(18), seconds=np.arange(18, 0, -1)))
        assert set(chosen) >= {18, 19}
        assert set(chosen) - {18, 19} == {16, 17}  # the fastest of the others


class TestDuring:
    HOUR = 3600.0

    def test_nodes_are_asked_when_it_is_their_time(self):
        selector = during({"node-0?": (22, 6), "node-1?": (6, 22)}, everyone())
        assert list(selector.consult(occasion(now=23 * self.HOUR))) == list(range(10))
        assert list(selector.consult(occasion(now=(24 * 19_000 + 12) * self.HOUR))) == list(range(10, 20))
        assert list(selector.consult(occasion(now=6 * self.HOUR))) == list(range(10, 20))

    def test_whoever_has_no_window_is_always_there(self):
        selector = during({"node-00": (1, 2)}, everyone())
        assert list(selector.consult(occasion(now=0.0))) == list(range(1, 20))

    def test_everyone_is_there_before_the_time_is_known_or_when_it_is_nobodys(self):
        selector = during({"*": (1, 2)}, everyone())
        assert len(selector.consult(occasion())) == len(selector.consult(occasion(now=0.0))) == NODES

    def test_it_selects_among_them_and_what_is_known_of_them(self):
        selector = during({"node-1?": (8, 20), "*": (0, 8)}, power_of_choice(2, candidates=10))
        chosen = selector.consult(occasion(now=9 * self.HOUR, loss_before=[*range(100, 110), *range(10)]))
        assert chosen == [18, 19]
        assert selector.remembers == ("loss-before",)
        assert during({"*": (0, 8)}, fixed(3)).most == 3

    def test_windows_that_cannot_be(self):
        for options in ({"windows": {"*": (0, 25)}}, {"windows": {"*": (-1, 2)}}, {"windows": {}, "period": 0}):
            with pytest.raises(StrategyError, match="windows within a period"):
                during(select=everyone(), **options)


def app():
    made = ClientApp()

    @made.train()
    def handle(message, context):
        w = message.content.parameters_records["model"]["w"].numpy()
        if context.node_name == "node-3":
            raise ValueError("never works")
        loss = float(np.abs(w - context.node_id).sum())
        trained = ParametersRecord.from_numpy({"w": w + 0.1 * (context.node_id - w)})
        metrics = {"metrics": MetricsRecord({"num-examples": 5 + context.node_id, "loss-before": loss})}
        return message.create_reply(RecordSet({"model": trained}, metrics))

    return made


def run(whole, rounds, state=None, nodes=12):
    grid = ArrivalGrid(app(), nodes, lambda asked: 0.5 * asked.dst_node_id, seed=3)
    begun = begin(whole, ParametersRecord.from_numpy({"w": np.zeros(2)}), seed=3) if state is None else state
    return list(train(grid, whole, begun, rounds=rounds))


def plan(select, **parts):
    return strategy(select=select, aggregator=weighted_mean(uniform), **parts)


WHOLE = {
    "power of choice": plan(power_of_choice(3, candidates=6)),
    "oort": plan(oort(4)),
    "tiers": plan(tiers(2, number=3)),
    "during": plan(during({"node-1*": (0, 0.01)}, fixed(3))),
    "a deadline beside them": plan(oort(6), policy=quorum(0.8, quantile=0.9)),
}


class TestMemory:
    def test_has_a_row_for_each_node_that_was_asked(self):
        whole = plan(oort(12, explore=1.0))
        state = run(whole, 2)[-1].state
        record = state.parameters_records["nodes"]
        names = bytes(record["names"].data).decode().split("\n")
        assert names == sorted(f"node-{i}" for i in range(12))
        place = names.index("node-10")
        columns = {name: array.numpy()[place] for name, array in record.items() if name != "names"}
        assert columns["round"] == 2
        assert columns["lost"] == 0
        assert columns["seconds"] == 5.5
        assert columns["num-examples"] == 16
        bad = names.index("node-3")
        assert record["lost"].numpy()[bad] == 2
        assert np.isnan(record["seconds"].numpy()[bad])
        assert state.parameters_records["clock"]["now"].numpy() == [12.0]

    @pytest.mark.parametrize("name", WHOLE)
    def test_a_run_that_goes_on_has_the_same_cohorts_and_bits(self, name):
        whole = WHOLE[name]
        expected = run(whole, 6)
        state = None
        for rounds in (1, 3, 6):
            events = run(whole, rounds, state)
            state = events[-1].state
        assert events[-1].digest == expected[-1].digest
        without_time = [each.parameters_records["nodes"] for each in (state, expected[-1].state)]
        assert without_time[0] == without_time[1]

    @pytest.mark.parametrize("name", WHOLE)
    def test_cohorts_go_by_it(self, name):
        """Not only by the seed: other losses and durations, another selection."""
        reports = [each.report for each in run(WHOLE[name], 5) if isinstance(each, RoundCompleted)]
        assert all(report.arrivals for report in reports)

    def test_through_a_checkpoint(self, tmp_path):
        whole = plan(power_of_choice(3, candidates=6))
        options = {"nodes": 12, "seed": 3, "rounds": 5}
        expected = umbel.simulate(app(), whole, {"w": np.zeros(2)}, **options)
        umbel.simulate(app(), whole, {"w": np.zeros(2)}, checkpoint=tmp_path / "c", **{**options, "rounds": 2})
        found = umbel.simulate(app(), whole, {"w": np.zeros(2)}, checkpoint=tmp_path / "c", resume=True, **options)
        assert found.digest == expected.digest

    def test_nodes_that_left_are_left_out_and_come_back(self):
        whole = plan(power_of_choice(12, candidates=12))
        first = run(whole, 1)[-1].state
        fewer = run(plan(power_of_choice(6, candidates=6)), 2, first, nodes=6)[-1].state
        assert len(bytes(fewer.parameters_records["nodes"]["names"].data).split(b"\n")) == 12

    def test_nothing_is_kept_for_strategies_that_go_by_nothing(self):
        state = run(plan(fixed(5)), 2)[-1].state
        assert list(state.parameters_records) == ["model"]
        assert b"".join(dumps(state))

    def test_power_of_choice_asks_those_who_are_worst_off(self):
        events = run(plan(power_of_choice(2, candidates=12)), 30)
        late = [each.report for each in events if isinstance(each, RoundCompleted)][8:]
        asked = [arrival.node for report in late for arrival in report.arrivals]
        # The losses are distances from 1 to 12, so the model goes back and forth between the two ends.
        ends = {"node-0", "node-1", "node-10", "node-11", "node-2", "node-9"}
        assert np.mean([node in ends for node in asked]) > 0.8


def test_names_tell_them_apart():
    names = {
        each.name
        for each in (
            power_of_choice(3, candidates=6),
            power_of_choice(3, candidates=7),
            oort(3),
            oort(3, preferred=0.4),
            tiers(3),
            during({"a": (1, 2)}, fixed(3)),
            during({"a": (1, 3)}, fixed(3)),
        )
    }
    assert len(names) == 7
    assert Population(3).nodes[0].name == "node-0"
    assert named.everyone().consult is None
