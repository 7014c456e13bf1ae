"""Whatever the transforms: in order on the node, reversed on the server; what goes through nothing is as it was."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import umbel
from umbel.aggregation import squared_distance
from umbel.app import ClientApp
from umbel.context import Context
from umbel.message import Message, Metadata
from umbel.records import ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet
from umbel.strategy import strategy
from umbel.transforms import Transform, announced, clipped, narrowed, noisy, transforming, undone

CONFIG = ConfigsRecord({"round": 1})
numbers = st.floats(-1e6, 1e6, width=32)
models = st.lists(numbers, min_size=1, max_size=8).map(lambda values: {"w": np.array(values, np.float32)})


def record(arrays):
    return ParametersRecord.from_numpy(arrays)


def step(kind, number):
    """Return a transform of whole numbers that does not commute with those of the other kind."""

    def apply(came, sent, config, seed):
        n = came["n"].numpy()
        return record({"n": n + number if kind == "add" else n * number})

    def undo(came, sent):
        n = came["n"].numpy()
        return record({"n": n - number if kind == "add" else n // number})

    return Transform(f"{kind}({number})", apply, undo)


steps = st.lists(st.builds(step, st.sampled_from(["add", "times"]), st.integers(2, 9)), max_size=6)


def through(transforms, came, sent, seed=3):
    """Send an update through both sides, and return what travels and what the server has."""
    app = ClientApp(mods=[transforming(*transforms)])
    app.train()(lambda message, context: message.create_reply(RecordSet({"model": came})))
    content = RecordSet({"model": sent}, configs_records={"config": CONFIG})
    metadata = Metadata(1, 5, 0, 2, 0, 1, 60.0, "train")
    reply = app(Message(metadata, announced(content, transforms)), Context(1, 2, {}, RecordSet(), {}, "north", seed))
    return reply.content.parameters_records["model"], undone("north", reply.content, transforms, sent)


@given(steps, st.integers(-99, 99))
def test_in_order_on_the_node_and_reversed_on_the_server(transforms, number):
    came, sent = record({"n": np.array([number])}), record({"n": np.array([0])})
    expected = number
    for each in transforms:
        kind, _, value = each.name.rstrip(")").partition("(")
        expected = expected + int(value) if kind == "add" else expected * int(value)
    travelling, back = through(transforms, came, sent)
    assert travelling["n"].numpy().tolist() == [expected]
    assert back == came


@given(models, models, st.floats(1e-3, 1e3))
def test_a_clipped_update_is_within_the_bound_and_on_the_way(one, other, bound):
    size = min(one["w"].size, other["w"].size)
    came, sent = (record({"w": each["w"][:size]}) for each in (one, other))
    made, back = through([clipped(bound)], came, sent)
    assert back == made
    assert squared_distance(sent, made) ** 0.5 <= bound
    if squared_distance(sent, came) ** 0.5 <= bound:
        assert made == came
    low, high = np.minimum(one["w"][:size], other["w"][:size]), np.maximum(one["w"][:size], other["w"][:size])
    slack = np.spacing(np.abs(other["w"][:size]))
    assert np.all((low - slack <= made["w"].numpy()) & (made["w"].numpy() <= high + slack))


@given(models, models)
def test_a_narrowed_update_is_off_by_no_more_than_its_rounding(one, other):
    size = min(one["w"].size, other["w"].size)
    came, sent = one["w"][:size], other["w"][:size]
    travelling, back = through([narrowed()], record({"w": came}), record({"w": sent}))
    assert len(travelling["w"].data) == 2 * size
    went = np.abs(came.astype(float) - sent)
    rounding = went * 2**-8 + np.abs(came) * 2.0**-23 + np.abs(sent) * 2.0**-22 + 2.0**-133
    assert np.all(np.abs(back["w"].numpy().astype(float) - came) <= rounding)


@given(st.integers(0, 2**63 - 1))
def test_noise_is_a_function_of_the_seed(seed):
    came, sent = record({"w": np.ones(9)}), record({"w": np.zeros(9)})
    plan = [noisy(1.0), noisy(1.0)]
    made, _ = through(plan, came, sent, seed)
    assert made == through(plan, came, sent, seed)[0]
    assert made != through(plan, came, sent, seed ^ 1)[0]


@settings(max_examples=15)
@given(steps.filter(len), st.integers(1, 4))
def test_a_run_through_transforms_that_are_undone_ends_as_one_without(transforms, nodes):
    def train(message, context):
        n = message.content.parameters_records["model"]["n"].numpy()
        metrics = MetricsRecord({"num-examples": context.node_id})
        trained = record({"n": n + np.int64(context.seed % 9)})
        return message.create_reply(RecordSet({"model": trained}, {"metrics": metrics}))

    def run(mods, plan):
        app = ClientApp(mods=mods)
        app.train()(train)
        return umbel.simulate(app, plan, {"n": np.arange(3)}, nodes=nodes, rounds=2)

    plain = run([], strategy())
    assert run([transforming(*transforms)], strategy(transforms=transforms)).digest == plain.digest
    assert run([transforming()], strategy(transforms=[])).digest == plain.digest
