"""What is checked against a real Flower: run by the Python of an environment that has one, writes outcomes as JSON.

Each ``check_...`` function is one test of ``test_interop_flower.py``. No pytest here: Flower's environment has none.
"""

import json
import sys
import traceback

import ml_dtypes
import numpy as np

from umbel.errors import DuplicateName, RecordTypeError
from umbel.interop.flower import from_flower, to_flower
from umbel.records import Array, ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet, array_from_numpy

assert "flwr" not in sys.modules, "Flower was imported before it was needed"

import flwr  # noqa: E402 - its absence so far was checked
from flwr import common  # noqa: E402

OLD = flwr.__version__.startswith("1.13.")
if OLD:
    from flwr.common import Array as FlowerArray
    from flwr.common import ConfigsRecord as FlowerConfigs
    from flwr.common import MetricsRecord as FlowerMetrics
    from flwr.common import ParametersRecord as FlowerArrays
    from flwr.common import RecordSet as FlowerRecords
else:
    from flwr.app import Array as FlowerArray
    from flwr.app import ArrayRecord as FlowerArrays
    from flwr.app import ConfigRecord as FlowerConfigs
    from flwr.app import MetricRecord as FlowerMetrics
    from flwr.app import RecordDict as FlowerRecords

ARRAYS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bias": np.array([True, False]),
    "scalar": np.array(7, np.int64),
    "empty": np.zeros((3, 0, 2), np.complex64),
}
METRICS = {"loss": 0.5, "num-examples": 2**63, "curve": [1.0, 0.5], "empty": []}
CONFIGS = {
    "lr": 0.1,
    "name": "ä",
    "raw": b"\0\xff",
    "on": True,
    "layers": [1, 2],
    "flags": [True, False],
    "tags": ["a"],
}


def flower_array(array):
    """Return what Flower itself makes of ``array``."""
    return common.array_from_numpy(array) if OLD else FlowerArray(array)


def raises(kind, words, call):
    text = ""
    try:
        call()
    except kind as error:
        text = str(error)
    assert words in text, f"expected a {kind.__name__} about {words!r}, got {text!r}"


def check_an_array_becomes_what_flower_would_have_made():
    for stype in ("raw", "numpy.ndarray"):
        for array in ARRAYS.values():
            made = to_flower(array_from_numpy(array, stype))
            assert type(made) is FlowerArray
            assert made == flower_array(array)
            assert made.numpy().tobytes() == array.tobytes()


def check_an_array_of_flowers_comes_in_without_a_copy():
    theirs = flower_array(ARRAYS["weight"])
    ours = from_flower(theirs)
    assert type(ours) is Array
    assert (ours.dtype, ours.shape, ours.stype) == ("float32", [2, 3], "numpy.ndarray")
    assert ours.data is theirs.data
    assert ours.numpy().tolist() == [[0, 1, 2], [3, 4, 5]]


def check_big_endian_and_fortran_arrays_of_flowers_decode():
    assert from_flower(flower_array(np.arange(3, dtype=">f4"))).numpy().tolist() == [0, 1, 2]
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert from_flower(flower_array(fortran)).numpy().tolist() == fortran.tolist()


def check_a_record_of_arrays_keeps_names_and_order():
    record = ParametersRecord.from_numpy(ARRAYS)
    theirs = to_flower(record)
    assert type(theirs) is FlowerArrays
    assert list(theirs) == list(ARRAYS)
    assert list(record) == list(ARRAYS)
    ours = from_flower(theirs)
    assert type(ours) is ParametersRecord
    assert list(ours) == list(ARRAYS)
    for name, array in ours.to_numpy().items():
        assert (array.dtype, array.shape, array.tobytes()) == (
            ARRAYS[name].dtype,
            ARRAYS[name].shape,
            ARRAYS[name].tobytes(),
        )


def check_bfloat16_is_carried_and_not_turned_into_void():
    array = np.arange(4).astype(ml_dtypes.bfloat16)
    theirs = to_flower(array_from_numpy(array, "raw"))
    assert (theirs.dtype, theirs.stype) == ("bfloat16", "raw")
    raises(TypeError, "raw", theirs.numpy)
    assert from_flower(theirs).numpy().tobytes() == array.tobytes()


def check_a_serialisation_of_ones_own_passes_through():
    mine = Array("float32", [2], "my own", memoryview(b"12345678"))
    theirs = to_flower(mine)
    assert (theirs.stype, theirs.data) == ("my own", b"12345678")
    assert from_flower(theirs) == mine


def check_values_come_back_with_their_types():
    for ours, theirs, values in ((MetricsRecord, FlowerMetrics, METRICS), (ConfigsRecord, FlowerConfigs, CONFIGS)):
        out = to_flower(ours(values))
        assert type(out) is theirs
        assert dict(out) == values
        back = from_flower(out)
        assert type(back) is ours
        assert repr(dict(back)) == repr(values)
        assert list(back) == list(values)


def check_lists_are_not_shared():
    ours = MetricsRecord({"curve": [1.0]})
    theirs = to_flower(ours)
    back = from_flower(theirs)
    theirs["curve"].append(2.0)
    assert ours["curve"] == back["curve"] == [1.0]


def check_a_record_set_comes_back_equal():
    records = RecordSet(
        {"model": ParametersRecord.from_numpy(ARRAYS, stype="numpy.ndarray"), "other": ParametersRecord()},
        {"metrics": MetricsRecord(METRICS)},
        {"config": ConfigsRecord(CONFIGS)},
    )
    theirs = to_flower(records)
    assert type(theirs) is FlowerRecords
    assert from_flower(theirs) == records
    assert list(from_flower(theirs).parameters_records) == ["model", "other"]
    assert from_flower(to_flower(RecordSet())) == RecordSet()


def check_a_record_set_of_flowers_own_making_comes_in():
    model, metrics = FlowerArrays({"w": flower_array(ARRAYS["weight"])}), FlowerMetrics({"loss": 1.0})
    if OLD:
        theirs = FlowerRecords(parameters_records={"model": model}, metrics_records={"m": metrics})
    else:
        theirs = FlowerRecords({"model": model, "m": metrics})
    ours = from_flower(theirs)
    assert ours.parameters_records["model"]["w"].numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert ours.metrics_records["m"]["loss"] == 1.0
    assert len(ours.configs_records) == 0


def check_one_name_in_two_kinds():
    records = RecordSet(metrics_records={"x": MetricsRecord()}, configs_records={"x": ConfigsRecord()})
    if OLD:
        assert from_flower(to_flower(records)) == records
    else:
        raises(DuplicateName, "'x'", lambda: to_flower(records))


def check_the_old_names_of_a_current_flower_come_in():
    if OLD:
        return
    from flwr.compat.common.record import MetricsRecord as Deprecated  # noqa: PLC0415 - only current versions have it

    assert from_flower(Deprecated({"loss": 1.0})) == MetricsRecord({"loss": 1.0})


def check_what_flower_lets_pass_and_umbel_does_not_is_refused_by_name():
    raises(RecordTypeError, "hits", lambda: from_flower(FlowerMetrics({"hits": [1, True]})))


def check_flower_can_send_what_it_was_given():
    theirs = to_flower(RecordSet({"model": ParametersRecord.from_numpy(ARRAYS)}, {"m": MetricsRecord(METRICS)}))
    if OLD:
        from flwr.common.serde import recordset_from_proto, recordset_to_proto  # noqa: PLC0415 - as above

        back = recordset_from_proto(recordset_to_proto(theirs))
    else:
        from flwr.common.serde import recorddict_from_proto, recorddict_to_proto  # noqa: PLC0415 - as above

        back = recorddict_from_proto(recorddict_to_proto(theirs))
    assert from_flower(back) == from_flower(theirs)


def check_anything_else_is_refused():
    raises(RecordTypeError, "got dict", lambda: to_flower({}))
    raises(RecordTypeError, "got ndarray", lambda: from_flower(np.zeros(1)))
    raises(RecordTypeError, "got ParametersRecord", lambda: from_flower(ParametersRecord()))


def outcome(check):
    try:
        check()
    except Exception:  # noqa: BLE001 - whatever went wrong is what the test shows
        return traceback.format_exc()
    return None


if __name__ == "__main__":
    checks = {name: check for name, check in list(globals().items()) if name.startswith("check_")}
    sys.stdout.write(json.dumps({name: outcome(check) for name, check in checks.items()}) + "\n")
