"""Tiers that do not wait for one another: FedAT against its paper, and what becomes of nodes that are late or lost."""

import numpy as np
import pytest

from arrivals import ArrivalGrid
from paced import FIRST, NODES, app, events_of, nodes_of, play, reports, slow
from umbel import strategy as named
from umbel.aggregation import bagged_trees, median, weighted_mean
from umbel.app import ClientApp
from umbel.context import derive_seed
from umbel.engines import LocalGrid, Population, Replay
from umbel.errors import StrategyError
from umbel.optimizers import across, scaled
from umbel.records import MetricsRecord, ParametersRecord, RecordSet, dumps, loads
from umbel.rounds import NodeLost, UpdateAccepted, UpdateRefused
from umbel.strategy import fixed, strategy, tiered


def tiers_of(known, number):
    """The names of the nodes in tiers, by the seconds that those which were asked took; the others come first."""
    order = sorted((f"node-{i}" for i in range(NODES)), key=lambda name: known.get(name, -1.0))
    return [order[NODES * tier // number : NODES * (tier + 1) // number] for tier in range(number)]


def fedat_reference(count, number, seconds, rounds):
    """FedAT as in its paper, with tiers that are cut anew for every model, in float64."""
    first = FIRST["w"].copy()
    models, made = [first] * number, [1] * number
    x, now, order, known = first, 0.0, 0, {}
    coming, held, versions = [], [{} for _ in range(number)], {}
    finished = []
    for round_ in range(1, rounds + 1):
        versions[round_] = x
        asked, cut = set(), tiers_of(known, number)
        for tier in range(number):
            if any(each[-1] == tier for each in coming):
                continue
            tries = 0
            for _ in range(count):
                busy = {each[2] for each in coming} | asked | {node for each in held for node in each}
                free = [node for node in cut[tier] if node not in busy]
                if not free:
                    break
                while True:
                    tries += 1
                    of = f" of tier {tier + 1}" if number > 1 else ""
                    node = cut[tier][derive_seed(5, round_, "", f"draw {tries}{of}") * len(cut[tier]) >> 63]
                    if node in free:
                        break
                asked.add(node)
                order += 1
                known.setdefault(node, np.inf)
                coming.append((now + seconds(int(node[5:]) + 1), order, node, round_, tier))
        while True:
            coming.sort()
            now, _, node, version, tier = coming.pop(0)
            rng = np.random.default_rng(derive_seed(5, version, node, "train"))
            held[tier][node] = versions[version] * 0.5 + int(node[5:]) + 1 + rng.standard_normal(5)
            known[node] = seconds(int(node[5:]) + 1)
            if not any(each[-1] == tier for each in coming):
                break
        weights = np.array([int(node[5:]) + 1 for node in held[tier]])
        models[tier] = np.average(list(held[tier].values()), axis=0, weights=weights)
        made[tier] += 1
        held[tier] = {}
        finished.append(tier)
        x = np.average(models, axis=0, weights=made[::-1])
    return x, finished


MEASURING = weighted_mean()._replace(measures={"loss": lambda update, _: update.metrics["metrics"]["loss"]})
METRICS = {"metrics": MetricsRecord({"num-examples": 1})}


def at_its_own_pace(node):
    return 1.3**node


class TestTiers:
    @pytest.mark.parametrize(("count", "number"), [(2, 4), (1, 8), (2, 2), (3, 2), (2, 1)])
    def test_fedat_follows_its_paper(self, count, number):
        whole = named.fedat(count=count, number=number)
        events, _ = play(whole, lambda asked: at_its_own_pace(asked.dst_node_id), rounds=20)
        expected, finished = fedat_reference(count, number, at_its_own_pace, 20)
        np.testing.assert_allclose(events[-1].state.parameters_records["model"]["w"].numpy(), expected, rtol=1e-12)
        assert len(set(finished)) == number

    def test_fast_tiers_make_more_models_and_nobody_waits_for_another_tier(self):
        whole = named.fedat(count=2, number=4)
        events, grid = play(whole, lambda asked: 100.0 if asked.dst_node_id > 6 else 1.0, rounds=20)
        assert grid.now < 30
        made = events[-1].state.parameters_records["optimizer.tiers"]["made"].numpy()
        assert made.sum() == 20 + 4
        assert made[-1] == 1

    def test_a_tier_goes_on_without_those_who_are_lost(self):
        broken = ClientApp()

        @broken.train()
        def handle(message, context):
            if context.node_id == 1:
                raise OSError("no disk")
            return message.create_reply(RecordSet({"model": message.content.parameters_records["model"]}, METRICS))

        events = events_of(named.fedat(count=4, number=2), ArrivalGrid(broken, NODES, lambda asked: 1.0), rounds=6)
        assert set(nodes_of(events, NodeLost)) == {"node-0"}
        assert (events[-1].state.parameters_records["optimizer.tiers"]["made"].numpy() > 1).all()

    def test_others_are_asked_where_too_few_of_a_tier_answer(self):
        bad = ClientApp()

        @bad.train()
        def handle(message, context):
            shape = 1 if context.node_id <= 3 else 5
            model = ParametersRecord.from_numpy({"w": np.zeros(shape), "n": np.zeros(2, int)})
            return message.create_reply(RecordSet({"model": model}, METRICS))

        whole = named.fedat(count=2, number=2, min_updates=2)
        events = events_of(whole, ArrivalGrid(bad, NODES, slow), rounds=4)
        assert set(nodes_of(events, UpdateRefused)) <= {"node-0", "node-1", "node-2"}
        assert len(reports(events)) == 4

    def test_one_that_is_too_old_is_given_up_and_its_tier_goes_on(self):
        whole = named.fedat(count=4, number=2, most_stale=3)
        events, grid = play(whole, lambda asked: 1e6 if asked.dst_node_id == 8 else 1.0, rounds=12)
        assert {each.node for each in events if isinstance(each, NodeLost)} == {"node-7"}
        assert len(grid.cancelled) >= 1
        assert events[-1].state.parameters_records["optimizer.tiers"]["made"].numpy()[-1] > 1

    def test_gone_on_with_it_ends_with_the_same_bits(self):
        whole = named.fedat(count=3, number=2)
        uninterrupted, _ = play(whole, lambda asked: 1.0, rounds=9)
        state = None
        for rounds in (1, 2, 5, 9):
            events, _ = play(whole, lambda asked: 1.0, rounds=rounds, state=state)
            state = events[-1].state
        assert events[-1].digest == uninterrupted[-1].digest

    @pytest.mark.parametrize("aggregator", [weighted_mean(), MEASURING, median()], ids=["mean", "measuring", "median"])
    def test_what_came_of_a_tier_that_still_waits_is_kept_and_nobody_trains_it_again(self, aggregator):
        whole = named.fedat(count=4, number=2, aggregator=aggregator)
        before, _ = play(whole, slow, rounds=2)
        held = before[-1].state.parameters_records["flight.held"]
        waiting = bytes(held["names"].data).decode().split("\n")
        assert waiting
        after, grid = play(whole, slow, rounds=8, state=before[-1].state)
        first_asked = [(number, f"node-{node - 1}") for number, _, node in grid.asked]
        assert not {(2, name) for name in waiting} & set(first_asked)
        trace = reports(before) + reports(after)
        again = events_of(whole, Replay(LocalGrid(app(), Population(NODES), seed=5), trace), rounds=8)
        assert again[-1].digest == after[-1].digest
        assert b"".join(dumps(again[-1].state)) == b"".join(dumps(after[-1].state))
        assert [report.metrics for report in reports(again)] == [report.metrics for report in trace]
        assert all(report.metrics for report in trace)

    def test_a_node_may_report_much_while_its_tier_waits(self):
        """More than the head of a state may have in one container."""
        talkative = ClientApp()

        @talkative.train()
        def handle(message, context):
            much = {"metrics": MetricsRecord({"num-examples": 1, "much": [0.5] * 100_000})}
            return message.create_reply(RecordSet({"model": message.content.parameters_records["model"]}, much))

        whole = named.fedat(count=4, number=2)
        before = events_of(whole, ArrivalGrid(talkative, NODES, slow), rounds=2)
        state = loads(b"".join(dumps(before[-1].state)))
        assert len(bytes(state.parameters_records["flight.held"]["names"].data).split()) == 3
        after = events_of(whole, ArrivalGrid(talkative, NODES, slow), rounds=3, state=state)
        assert len(reports(after)) == 1

    def test_a_node_may_use_its_memory_again_while_its_tier_waits(self):
        def made(*, copy):
            thrifty, room = ClientApp(), np.zeros(5)

            @thrifty.train()
            def handle(message, context):
                room[:] = context.node_id
                w = ParametersRecord.from_numpy({"w": room, "n": np.zeros(2, int)}, copy=copy)
                return message.create_reply(RecordSet({"model": w}, METRICS))

            return events_of(named.fedat(count=4, number=2), ArrivalGrid(thrifty, NODES, slow), rounds=6)[-1].digest

        assert made(copy=False) == made(copy=True)

    def test_nodes_are_told_the_weight_of_a_proximal_term_if_there_is_one(self):
        told = []
        listening = ClientApp()

        @listening.train()
        def handle(message, context):
            told.append(message.content.configs_records["config"].get("proximal-mu"))
            return message.create_reply(RecordSet({"model": message.content.parameters_records["model"]}, METRICS))

        for mu in (0.0, 0.4):
            events_of(named.fedat(count=1, number=1, mu=mu), ArrivalGrid(listening, NODES, slow), rounds=1)
        assert told == [None, 0.4]
        with pytest.raises(StrategyError, match="the proximal term, 0 or more, got -1"):
            named.fedat(count=1, mu=-1)

    def test_a_selector_that_remembers_chooses_who_is_in_the_tiers(self):
        chosen = named.power_of_choice(6, candidates=8, loss="num-examples")
        events, _ = play(named.fedat(count=2, number=2)._replace(select=chosen), slow, rounds=8)
        assert len(reports(events)) == 8

    def test_a_round_in_which_nothing_came_is_replayed_too(self):
        """Whoever was given up may have been the last one that a tier waited for: its model needs no reply."""
        whole = named.fedat(count=4, number=2, most_stale=3)
        events, _ = play(whole, lambda asked: 1e6 if asked.dst_node_id == 8 else 1.0, rounds=12)
        assert any(not report.arrivals for report in reports(events))
        replay = Replay(LocalGrid(app(), Population(NODES), seed=5), reports(events))
        assert events_of(whole, replay, rounds=12)[-1].digest == events[-1].digest

    @pytest.mark.parametrize("left", [2, 3, 4, 5])
    def test_few_nodes_that_are_left_go_on(self, left):
        grid = ArrivalGrid(app(), NODES, slow, seed=5)
        everyone = grid.nodes
        grid.nodes = lambda number=0, phase="train": everyone(number, phase)[: NODES if number < 6 else left]
        whole = named.fedat(count=2, number=3, min_updates=2)
        events = events_of(whole, grid, rounds=30)
        late = {each.node for each in events if isinstance(each, UpdateAccepted) and each.round > 15}
        assert late == {f"node-{i}" for i in range(left)}

    def test_what_cannot_be_kept_is_refused(self):
        odd = ClientApp()

        @odd.train()
        def handle(message, context):
            named_so = {"e\u0301": MetricsRecord({"num-examples": 1})} if context.node_id == 1 else {}
            return message.create_reply(
                RecordSet({"model": message.content.parameters_records["model"]}, {**METRICS, **named_so})
            )

        events = events_of(named.fedat(count=4, number=2), ArrivalGrid(odd, NODES, slow), rounds=4)
        assert set(nodes_of(events, UpdateRefused)) == {"node-0"}

    def test_what_is_no_product(self):
        two = tiered(2, number=2)
        for options, message in [
            ({"policy": tiered(2, number=3)}, r"replace\(\) does not know them apart: use across\(3\)"),
            (
                {"optimizer": across(3)},
                r"across\(3\) wants a policy of 3 tiers, and synchronous\(\) has none: use tiered",
            ),
            ({"optimizer": scaled(across(2), float, name="twice", needs=())}, "wants a policy of 2 tiers"),
            ({"optimizer": across(2), "policy": two, "phase": "query"}, "a query"),
            ({"optimizer": across(2), "policy": two, "aggregator": bagged_trees()}, "grow"),
            ({"optimizer": across(2), "policy": two, "min_updates": 3}, "required of a tier of 2"),
            ({"policy": two, "optimizer": across(3)}, "wants a policy of 3 tiers, .* has 2: use tiered"),
            (
                {"policy": two, "optimizer": across(2), "select": fixed(3)},
                "the tiers would never be full",
            ),
        ]:
            with pytest.raises(StrategyError, match=message):
                strategy(**options)
        for numbers in ((0, 2), (2, 0), (1.0, 2), (2, 2, -1)):
            with pytest.raises(StrategyError, match="expected whole numbers, at least 1 node of each tier"):
                tiered(numbers[0], number=numbers[1], most_stale=(*numbers, 5)[2])
        with pytest.raises(StrategyError, match=r"the tiers would never be full.*10 nodes train.*asks 8 of 8"):
            play(named.fedat(count=5, number=2))
