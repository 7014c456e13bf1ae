"""A program written for Flower 1.13: what it finds goes to standard output as JSON.

``test_original_names.py`` changes the import below to Umbel's, and nothing else, and expects the same findings.
"""

import json
import pickle
from collections import OrderedDict
from io import BytesIO

import numpy as np
from flwr.common import Array, ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet, array_from_numpy

FOUND = {}


def finding(function):
    FOUND[function.__name__] = function()


def refused(call):
    """Say which of the usual kinds of error a call raises."""
    try:
        call()
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        return next(
            kind.__name__ for kind in (TypeError, ValueError, KeyError, AttributeError) if isinstance(error, kind)
        )
    return "nothing"


def weights():
    return OrderedDict(
        [
            ("conv", np.arange(24, dtype=np.float32).reshape(2, 3, 4)),
            ("bias", np.array([0.5, -1])),
            ("steps", np.array(7)),
        ]
    )


def npy(array):
    out = BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


@finding
def an_array_by_hand():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    array = Array(dtype=str(values.dtype), shape=list(values.shape), stype="numpy.ndarray", data=npy(values))
    by_place = Array(str(values.dtype), list(values.shape), "numpy.ndarray", npy(values))
    return [array.numpy().tolist(), array.dtype, array.shape, array.stype, array.data == npy(values), array == by_place]


@finding
def an_array_from_numpy():
    found = []
    for kind in ("float16", "float32", "float64", "int8", "int64", "uint8", "bool", "complex64"):
        values = np.ones((2, 3), kind)
        array = array_from_numpy(values)
        decoded = np.load(BytesIO(array.data), allow_pickle=False)
        found.append([array.dtype, array.shape, array.stype, str(decoded.dtype), bool((decoded == values).all())])
        assert bytes(array.data) == npy(values)
    return found


@finding
def a_serialisation_of_its_own():
    values = np.arange(6, dtype=np.int16).reshape(2, 3)
    array = Array(str(values.dtype), list(values.shape), "plain bytes", values.tobytes())
    back = np.frombuffer(array.data, dtype=array.dtype).reshape(array.shape)
    return [back.tolist(), refused(array.numpy)]


@finding
def decoded_arrays_can_be_written_to():
    array = array_from_numpy(np.zeros(3))
    values = array.numpy()
    values += 1
    return [values.tolist(), array.numpy().tolist()]


@finding
def a_model_there_and_back():
    record = ParametersRecord(OrderedDict((name, array_from_numpy(values)) for name, values in weights().items()))
    back = OrderedDict((name, array.numpy()) for name, array in record.items())
    same = all(np.array_equal(back[name], values) for name, values in weights().items())
    return [list(record.keys()), list(back), same, [array.shape for array in record.values()], len(record)]


@finding
def an_average_of_two_models():
    replies = [ParametersRecord({"w": array_from_numpy(np.full(3, value))}, keep_input=False) for value in (1.0, 3.0)]
    mean = sum(reply["w"].numpy() for reply in replies) / len(replies)
    record = ParametersRecord()
    record["w"] = array_from_numpy(mean)
    return record["w"].numpy().tolist()


@finding
def whether_the_input_is_kept():
    found = []
    for kind, value in ((ParametersRecord, array_from_numpy(np.ones(2))), (MetricsRecord, 1), (ConfigsRecord, "x")):
        for arguments in ({}, {"keep_input": True}, {"keep_input": False}):
            given = OrderedDict(a=value, b=value)
            record = kind(given, **arguments)
            found.append([list(record), list(given)])
        given = OrderedDict(a=value)
        kind(given, True)
        found.append(list(given))
    return found


@finding
def the_size_of_models():
    sizes = []
    for shape, kind in (([100], "float32"), ([31, 31], "int8"), ([31, 153], "bool")):
        array = array_from_numpy(np.ones(shape, kind))
        record = ParametersRecord(OrderedDict({"first": array, "second": array}), keep_input=True)
        sizes.append([record.count_bytes(), len(array.data)])
    return sizes


@finding
def the_size_of_values():
    metrics = MetricsRecord({"aa": 1, "b": 2.0, "cc": [1, 2], "d": [0.5, 1.5, 2.5]})
    configs = ConfigsRecord(
        {"aa": 1, "b": 2.0, "c": True, "dd": "text", "e": b"by", "f": [True, False], "g": ["a", "bc"]}
    )
    return [
        metrics.count_bytes(),
        configs.count_bytes(),
        MetricsRecord().count_bytes(),
        MetricsRecord({"a": []}).count_bytes(),
    ]


@finding
def what_metrics_take():
    good = [1, 2.5, [1, 2], [0.5, 1.5], [], 2**64 - 1, [2**64 - 1, 0], np.float64(0.5), [np.float64(0.5)]]
    bad = ["x", True, ["x"], [True], np.ones(2), {}, {"a": 1}, [{}], [1, 2.5], None, (1, 2), [[1]], b"x"]
    keys = [1, 1.5, None]
    return [
        [bool(MetricsRecord({"k": value})["k"] == value) for value in good],
        [refused(lambda value=value: MetricsRecord({"k": value})) for value in bad],
        [refused(lambda key=key: MetricsRecord({key: 1})) for key in keys],
    ]


@finding
def what_configs_take():
    good = ["x", 1, 2.5, True, b"x", ["x"], [1], [2.5], [True, False], [b"x"], [], 2**64 - 1, np.str_("x")]
    bad = [None, {}, {"a": 1}, (1,), [1, "x"], [1, 2.5], [[1]], np.ones(2), bytearray(b"x"), {"a"}]
    return [
        [ConfigsRecord({"k": value})["k"] == value for value in good],
        [refused(lambda value=value: ConfigsRecord({"k": value})) for value in bad],
        refused(lambda: ConfigsRecord({1: 1})),
    ]


@finding
def what_models_take():
    array = array_from_numpy(np.ones(2))
    pairs = [(1, array), ("k", np.ones(2)), ("k", b"x"), ("k", None), (None, array), ("k", [array])]
    record = ParametersRecord()

    def store(key, value):
        record[key] = value

    found = [refused(lambda key=key, value=value: store(key, value)) for key, value in pairs]
    found += [refused(lambda key=key, value=value: record.update({key: value})) for key, value in pairs]
    record.update({"a": array})
    record.update(b=array)
    return [found, list(record), refused(lambda: record["none"])]


@finding
def a_set_of_records():
    records = RecordSet(
        parameters_records={"model": ParametersRecord({"w": array_from_numpy(np.ones(2))})},
        metrics_records={"train": MetricsRecord({"loss": 0.5})},
        configs_records={"config": ConfigsRecord({"lr": 0.1})},
    )
    by_place = RecordSet(
        {"model": ParametersRecord({"w": array_from_numpy(np.ones(2))})},
        {"train": MetricsRecord({"loss": 0.5})},
        {"config": ConfigsRecord({"lr": 0.1})},
    )
    records.metrics_records["evaluate"] = MetricsRecord({"accuracy": 0.9})
    different = records == by_place
    del records.metrics_records["evaluate"]
    wrong = [
        refused(lambda: records.parameters_records.update({"x": MetricsRecord()})),
        refused(lambda: records.metrics_records.update({"x": ParametersRecord()})),
        refused(lambda: records.configs_records.update({1: ConfigsRecord()})),
        refused(lambda: setattr(records, "metrics_records", {})),
    ]
    empty = RecordSet()
    sizes = [len(empty.parameters_records), len(empty.metrics_records), len(empty.configs_records)]
    return [records == by_place, different, wrong, sizes, records.metrics_records["train"]["loss"]]


@finding
def equality_and_order():
    one, two = array_from_numpy(np.ones(2)), array_from_numpy(np.zeros(2))
    left, right = ParametersRecord({"a": one, "b": two}), ParametersRecord({"b": two, "a": one})
    return [
        left == right,
        list(left),
        list(right),
        left == {"a": one, "b": two},
        left == {"a": one},
        left == 1,
        one == two,
    ]


@finding
def pickles():
    array = array_from_numpy(np.arange(3.0))
    parts = [ParametersRecord({"w": array}), MetricsRecord({"a": [1, 2]}), ConfigsRecord({"a": ["x"]})]
    parts += [array, RecordSet({"p": parts[0]}, {"m": parts[1]}, {"c": parts[2]})]
    return [pickle.loads(pickle.dumps(part)) == part for part in parts]


@finding
def layouts():
    given = [np.array(1.5), np.zeros((3, 0, 2)), np.asfortranarray(np.eye(3)), np.arange(9.0)[::-2], np.float32(2)]
    arrays = [array_from_numpy(values) for values in given]
    return [
        [array.shape, array.numpy().tolist(), bytes(array.data) == npy(values)]
        for array, values in zip(arrays, given, strict=True)
    ]


print(json.dumps(FOUND))
