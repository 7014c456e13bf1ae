"""Transforms: what each does to an update, and how both sides refuse what does not match."""

from pathlib import Path

import numpy as np
import pytest

from umbel import strategy as named
from umbel.aggregation import Update
from umbel.app import ClientApp
from umbel.context import Context
from umbel.errors import StrategyError, UpdateRejected
from umbel.gate import Gate
from umbel.message import Message, Metadata
from umbel.records import ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet, scratch
from umbel.strategy import catalogue, fedxgb_bagging, strategy
from umbel.transforms import Transform, announced, clipped, narrowed, noisy, transforming, undone

CONFIG = ConfigsRecord({"round": 1})
SENT = {
    "w": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    "wide": np.linspace(0, 1, 3),
    "half": np.ones(2, np.float16),
    "waves": np.array([1 + 2j], np.complex64),
    "count": np.arange(3),
}
FLOATS = ("w", "wide", "half", "waves")


def record(arrays):
    return ParametersRecord.from_numpy(arrays)


def trained(by=1.0):
    return record({name: array + np.array(by, array.dtype) for name, array in SENT.items()})


def apply(transform, came, seed=3):
    return transform.apply(came, record(SENT), CONFIG, seed)


def distance(one, other):
    pairs = ((one[name].numpy(), other[name].numpy()) for name in FLOATS)
    return np.sqrt(sum(np.sum(np.abs(a.astype(complex) - b.astype(complex)) ** 2) for a, b in pairs))


class TestClipped:
    def test_the_difference_is_scaled_to_the_bound(self):
        made = apply(clipped(0.5), trained())
        assert distance(made, record(SENT)) == pytest.approx(0.5, rel=1e-2)
        step = made["w"].numpy() - SENT["w"]
        np.testing.assert_allclose(step, step[0, 0], rtol=1e-5)
        assert np.array_equal(made["count"].numpy(), trained()["count"].numpy())
        assert [made[name].dtype for name in SENT] == [str(array.dtype) for array in SENT.values()]

    def test_what_is_near_enough_goes_as_it_is(self):
        came = trained()
        assert apply(clipped(1e3), came) is came

    @pytest.mark.parametrize("bound", [1e-9, 1e-7, 1e-3, 0.3, 1.0, 2.9])
    def test_the_gate_lets_pass_what_is_left(self, bound):
        check = Gate(max_norm=bound).against(record(SENT))
        rng = np.random.default_rng(7)
        for _ in range(20):
            moved = {n: a + rng.standard_normal(a.shape).astype(a.dtype) for n, a in SENT.items()}
            made = apply(clipped(bound), record(moved))
            assert check(Update("node", 1.0, made)).norm <= bound

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_what_has_no_distance_is_refused(self, value):
        came = record({**SENT, "w": np.full((2, 3), value, np.float32)})
        with pytest.raises(UpdateRejected, match="at a finite distance from the model, got"):
            apply(clipped(1.0), came)


class TestNoisy:
    def test_every_float_gets_noise_of_its_own(self):
        large = {"w": np.zeros(100_000, np.float32), "waves": np.zeros(20_000, np.complex128), "n": np.arange(3)}
        made = noisy(0.25).apply(record(large), record(large), CONFIG, 5)
        noise = made["w"].numpy()
        assert noise.std() == pytest.approx(0.25, rel=0.02)
        assert abs(noise.mean()) < 0.005
        assert len(np.unique(noise)) > 99_000
        waves = made["waves"].numpy()
        assert waves.real.std() == pytest.approx(0.25, rel=0.03)
        assert waves.imag.std() == pytest.approx(0.25, rel=0.03)
        assert made["n"] == record(large)["n"]

    def test_the_seed_decides_and_the_order_of_the_reply_does_not(self):
        came = trained()
        turned = ParametersRecord(dict(reversed(came.items())))
        assert apply(noisy(0.1), came) == apply(noisy(0.1), came) == apply(noisy(0.1), turned)
        assert apply(noisy(0.1), came) != apply(noisy(0.1), came, seed=4)


class TestNarrowed:
    def test_differences_travel_in_half_the_bytes(self):
        came = trained(2.0**-20)
        made = apply(narrowed(), came)
        assert [made[name].dtype for name in SENT] == ["bfloat16", "float64", "float16", "complex64", "int64"]
        assert len(made["w"].data) * 2 == len(came["w"].data)
        assert all(made[name] == came[name] for name in SENT if name != "w")
        # In bfloat16 the model itself would not have moved.
        back = narrowed().undo(made, record(SENT))
        assert np.all(back["w"].numpy() != SENT["w"])
        np.testing.assert_allclose(back["w"].numpy(), came["w"].numpy(), atol=2.0**-24)

    def test_it_rounds_to_nearest_half_to_even(self):
        # 8 binary digits: 257/256 is half way between 256/256 and 258/256, 259/256 between 258/256 and 260/256.
        steps = np.array([257, 259, 257.01, -257, -259], np.float32) / 256
        sent = record({"w": np.zeros(5, np.float32)})
        made = narrowed().apply(record({"w": steps}), sent, CONFIG, 0)
        back = narrowed().undo(made, sent)["w"].numpy()
        assert (back * 256).tolist() == [256, 260, 258, -256, -260]

    @pytest.mark.parametrize(
        ("arrays", "reason"),
        [
            ({}, "expected an array bfloat16 [2, 3], got none of this name - at parameters_records.model['w']"),
            (SENT, "expected bfloat16 [2, 3], got float32 [2, 3]"),
            ({"w": np.zeros((3, 2), np.uint16).view("bfloat16")}, "expected bfloat16 [2, 3], got bfloat16 [3, 2]"),
        ],
    )
    def test_what_was_not_narrowed_is_not_widened(self, arrays, reason):
        with pytest.raises(UpdateRejected) as caught:
            narrowed().undo(record(arrays), record(SENT))
        assert reason in str(caught.value)


@pytest.mark.parametrize("transform", [clipped(1.0), noisy(1.0), narrowed()])
def test_an_update_of_another_layout_is_refused_by_name(transform):
    with pytest.raises(UpdateRejected, match=r"expected float32 \[2, 3\], got float64 \[2\] .*'w'"):
        apply(transform, record({**SENT, "w": np.zeros(2)}))
    with pytest.raises(UpdateRejected, match="got none of this name"):
        apply(transform, record({name: array for name, array in SENT.items() if name != "w"}))


@pytest.mark.parametrize("transform", [clipped(0.1), noisy(1.0), narrowed()])
def test_nothing_that_is_given_changes(transform):
    came, sent = trained(), record(SENT)
    made = transform.apply(came, sent, CONFIG, 1)
    transform.undo(made, sent)
    assert (came, sent) == (trained(), record(SENT))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: clipped(0), "expected a number above 0 for norm, got 0"),
        (lambda: clipped(np.inf), "got inf"),
        (lambda: clipped("1"), "got '1'"),
        (lambda: clipped(True), "got True"),
        (lambda: noisy(-1), "expected a number above 0 for std, got -1"),
        (lambda: noisy(float("nan")), "got nan"),
        (lambda: narrowed("float16"), "expected 'bfloat16', .*, got 'float16'"),
        (lambda: transforming("clipped"), "expected Transform, got str 'clipped'"),
        (lambda: strategy(transforms=[clipped]), r"got function .*: call it, clipped\(...\)"),
        (lambda: strategy(transforms=["clipped(1.0)"]), "expected Transform, got str"),
        (lambda: strategy(transforms=[narrowed(), clipped(1)]), r"clipped\(1.0\) works on a model, .* put narrowed"),
        (lambda: transforming(narrowed(), noisy(1)), r"noisy\(1.0\) works on a model"),
        (lambda: strategy(transforms=[clipped(1)], phase="query"), "answers to queries are no models"),
        (lambda: strategy(transforms=[clipped(1)], answer=dict), "answers to queries are no models"),
    ],
)
def test_senseless_ones_are_refused_in_a_sentence(make, message):
    with pytest.raises(StrategyError, match=message) as caught:
        make()
    assert caught.value.at.endswith("transforms")


def test_a_strategy_says_its_transforms_where_it_has_any():
    assert "transforms" not in strategy().describe()
    one = clipped(1)
    assert strategy(transforms=one).transforms == strategy(transforms=[one]).transforms == (one,)
    whole = named.fedadam(transforms=[clipped(1), narrowed()])
    assert whole.describe()["transforms"] == "clipped(1.0), narrowed('bfloat16')"


def test_plain_values_make_them_in_their_order():
    made = named.named("fedadam", {"narrowed": "bfloat16", "noisy": 0.5, "clipped": 2})
    assert [each.name for each in made.transforms] == ["clipped(2.0)", "noisy(0.5)", "narrowed('bfloat16')"]
    assert "clipped" not in {each.name for each in catalogue()["moments"].settings}
    with pytest.raises(StrategyError, match="got 0 - at strategy fedavg, transforms"):
        named.named("fedavg", {"clipped": 0})


def test_what_is_undone_is_a_file_in_a_scratch_block(tmp_path):
    sent = record({"w": np.zeros(2**21, np.float32)})
    travelling = narrowed().apply(sent, sent, CONFIG, 0)

    def files():
        return Path("/proc/self/maps").read_text().count("/.scratch-")

    with scratch(tmp_path):
        back = narrowed().undo(travelling, sent)
        assert files() == 1
    assert back == sent
    del back
    assert files() == 0


# The mod.


def asked(content, kind="train"):
    told = {"run_id": 1, "message_id": 5, "src_node_id": 0, "dst_node_id": 2, "reply_to_message": 0, "group_id": 1}
    return Message(Metadata(**told, ttl=60.0, message_type=kind), content)


def instruction(*transforms):
    content = RecordSet({"model": record(SENT)}, configs_records={"config": CONFIG})
    return announced(content, transforms) if transforms else content


def answer(app, content, kind="train"):
    return app(asked(content, kind), Context(1, 2, {}, RecordSet(), {}, "node-2", 9))


def app_with(*mods, reply=None):
    app = ClientApp(mods=mods)

    def handle(message, context):
        content = RecordSet({"model": trained(), "control": trained(5)}, {"metrics": MetricsRecord({"n": 1})})
        return reply(message) if reply else message.create_reply(content)

    app.train()(handle)
    app.query()(handle)
    return app


def test_a_reply_says_what_was_done_and_only_its_model_changes():
    content = answer(app_with(transforming(clipped(0.5), narrowed())), instruction(clipped(0.5), narrowed())).content
    assert content.configs_records["transforms"]["applied"] == ["clipped(0.5)", "narrowed('bfloat16')"]
    assert content.parameters_records["model"]["w"].dtype == "bfloat16"
    assert content.parameters_records["control"] == trained(5)
    back = undone(content, [clipped(0.5), narrowed()], record(SENT))
    assert distance(back, record(SENT)) == pytest.approx(0.5, rel=2e-2)


def test_other_messages_and_errors_pass_through():
    app = app_with(transforming(clipped(0.5)))
    assert answer(app, instruction(), "query").content.parameters_records["model"] == trained()
    plain = app_with(transforming(clipped(0.5)), reply=lambda _: "no message")
    assert "expected a Message, got str" in answer(plain, instruction(clipped(0.5))).error.reason
    empty = app_with(transforming(clipped(0.5)), reply=lambda message: message.create_reply(RecordSet()))
    assert answer(empty, instruction(clipped(0.5))).content == RecordSet()


def test_a_handler_that_changes_what_it_was_sent_changes_no_difference():
    def reply(message):
        arrays = message.content.parameters_records["model"]
        arrays["w"] = trained()["w"]
        return message.create_reply(RecordSet({"model": arrays}))

    content = answer(app_with(transforming(narrowed()), reply=reply), instruction(narrowed())).content
    assert np.all(content.parameters_records["model"]["w"].numpy() == 1)


def _never(message):
    raise AssertionError("trained in vain")


@pytest.mark.parametrize(
    ("told", "mine", "reason"),
    [
        ([], [clipped(1)], "this node transforms its updates with clipped(1.0), and the server asks for no transforms"),
        ([clipped(2)], [clipped(1)], "transformed with clipped(2.0), and this node has clipped(1.0)"),
        ([clipped(1)], [], "transformed with clipped(1.0), and this node has nothing"),
        ([noisy(1), clipped(1)], [clipped(1), noisy(1)], "with noisy(1.0), clipped(1.0), and this node has clipped"),
    ],
)
def test_a_node_refuses_before_it_trains(told, mine, reason):
    reply = answer(app_with(transforming(*mine), reply=_never), instruction(*told))
    assert reason in reply.error.reason
    assert "the same list" in reply.error.reason


def test_a_reply_is_not_transformed_twice():
    app = app_with(transforming(clipped(1)), transforming(clipped(1)))
    assert "transformed already" in answer(app, instruction(clipped(1))).error.reason


def test_an_error_on_the_node_names_the_transform():
    def burst(came, sent, config, seed):
        raise ValueError("too large")

    odd = Transform("odd()", burst)
    reason = answer(app_with(transforming(odd)), instruction(odd)).error.reason
    assert "ValueError: too large" in reason
    assert "in the transform odd()" in reason


# The server.


def reply_of(arrays, *applied):
    configs = {"transforms": ConfigsRecord({"applied": list(applied)})} if applied else {}
    return RecordSet({"model": record(arrays)}, configs_records=configs)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            reply_of(SENT),
            "expected an update transformed with narrowed('bfloat16'), got one that is not",
        ),
        (announced(reply_of(SENT), [narrowed()]), "got one that is not transformed"),
        (reply_of(SENT, "clipped(1.0)"), "got one transformed with clipped(1.0)"),
        (RecordSet({"model": record(SENT)}, configs_records={"transforms": ConfigsRecord({"applied": 3})}), "is not"),
        (reply_of(SENT, *[1.5] * 99), "got one transformed with 1.5, 1.5, 1.5, 1.5, ...: make the node's app"),
        (reply_of(SENT, "\x1b[2J"), r"got one transformed with '\x1b[2J': make the node's app"),
        (
            reply_of(SENT, "narrowed('bfloat16')"),
            "narrowed('bfloat16') cannot be undone: expected",
        ),
    ],
)
def test_what_cannot_be_undone_is_refused_with_the_transform(content, reason):
    with pytest.raises(UpdateRejected) as caught:
        undone(content, [narrowed()], record(SENT))
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("undo", "reason"),
    [
        (lambda came, sent: came["v"], "KeyError: 'v'"),
        (lambda came, sent: None, "TypeError: expected a ParametersRecord, got NoneType"),
    ],
)
def test_any_failure_to_undo_is_the_updates(undo, reason):
    odd = Transform("odd()", lambda came, sent, config, seed: came, undo)
    with pytest.raises(UpdateRejected, match=rf"odd\(\) cannot be undone: {reason}"):
        undone(reply_of(SENT, "odd()"), [odd], record(SENT))


def test_what_has_no_numbers_has_no_transforms():
    with pytest.raises(
        StrategyError, match=r"transforms work on numbers, and what bagged_trees\(rounds=1\) takes is bytes"
    ):
        fedxgb_bagging(transforms=[clipped(1.0)])


def test_nothing_to_narrow_is_refused():
    wide = ParametersRecord.from_numpy({"w": np.zeros(3)})
    with pytest.raises(StrategyError, match="expected a model with arrays of float32, got none"):
        narrowed().apply(wide, wide, ConfigsRecord(), 1)
