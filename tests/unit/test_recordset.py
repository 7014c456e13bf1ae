"""RecordSet: three typed ordered mappings of records."""

import copy
import pickle

import numpy as np
import pytest

from umbel.errors import RecordTypeError
from umbel.records import ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet, array_from_numpy

KINDS = {
    "parameters_records": ParametersRecord,
    "metrics_records": MetricsRecord,
    "configs_records": ConfigsRecord,
}


def records():
    return RecordSet(
        parameters_records={"model": ParametersRecord.from_numpy({"a": np.arange(3.0)}), "x": ParametersRecord()},
        metrics_records={"train": MetricsRecord({"loss": [0.5, 0.25]}), "x": MetricsRecord()},
        configs_records={"config": ConfigsRecord({"lr": 0.1}), "x": ConfigsRecord()},
    )


def test_is_empty_without_arguments():
    empty = RecordSet()
    assert [len(getattr(empty, name)) for name in KINDS] == [0, 0, 0]
    assert empty == RecordSet({}, {}, {})


def test_takes_its_parts_in_the_order_of_the_original():
    one = RecordSet({"p": ParametersRecord()}, {"m": MetricsRecord()}, {"c": ConfigsRecord()})
    assert (list(one.parameters_records), list(one.metrics_records), list(one.configs_records)) == (["p"], ["m"], ["c"])


@pytest.mark.parametrize("name", KINDS)
def test_its_parts_cannot_be_replaced_but_filled(name):
    given = records()
    with pytest.raises(AttributeError):
        setattr(given, name, {})
    getattr(given, name)["new"] = KINDS[name]()
    assert list(getattr(given, name))[-1] == "new"


def test_nothing_can_be_added():
    with pytest.raises(AttributeError):
        records().note = "x"


def test_one_name_may_stand_in_all_three():
    assert all("x" in getattr(records(), name) for name in KINDS)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "wrong",
    [{}, None, RecordSet(), ParametersRecord(), MetricsRecord(), ConfigsRecord(), array_from_numpy(np.zeros(1))],
)
def test_takes_records_of_the_right_kind_alone(name, wrong):
    if isinstance(wrong, KINDS[name]):
        wrong = [wrong]
    with pytest.raises(TypeError, match=f"{KINDS[name].__name__}, got {type(wrong).__name__}") as caught:
        RecordSet(**{name: {"x": wrong}})
    assert isinstance(caught.value, RecordTypeError)
    with pytest.raises(RecordTypeError):
        getattr(records(), name)["x"] = wrong


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("wrong", [[], "x", 1, [("x", MetricsRecord())]])
def test_takes_mappings_alone(name, wrong):
    with pytest.raises(RecordTypeError, match="mapping"):
        RecordSet(**{name: wrong})


@pytest.mark.parametrize("name", KINDS)
def test_names_are_text(name):
    with pytest.raises(RecordTypeError, match="str as key, got int"):
        RecordSet(**{name: {1: KINDS[name]()}})


def test_the_callers_dict_is_left_alone():
    given = {"model": ParametersRecord()}
    one = RecordSet(given)
    assert list(given) == ["model"]
    given.clear()
    assert list(one.parameters_records) == ["model"]


def test_holds_the_records_themselves():
    metrics = MetricsRecord()
    one = RecordSet(metrics_records={"train": metrics})
    metrics["loss"] = 1.0
    assert one.metrics_records["train"]["loss"] == 1.0


def test_equality_is_by_content_whatever_the_order():
    left, right = records(), records()
    right.metrics_records["train"] = right.metrics_records.pop("train")
    assert list(left.metrics_records) != list(right.metrics_records)
    assert left == right
    right.metrics_records["train"]["loss"] = [0.5]
    assert left != right


@pytest.mark.parametrize("name", KINDS)
def test_equality_sees_every_part(name):
    changed = records()
    del getattr(changed, name)["x"]
    assert changed != records()


@pytest.mark.parametrize("other", [None, 1, "x", {}, (), object(), ParametersRecord(), np.float64(1)])
def test_equality_never_raises(other):
    assert (records() == other) is False
    assert (other == records()) is False
    assert (records() != other) is True


def test_is_not_hashable():
    with pytest.raises(TypeError):
        hash(records())


@pytest.mark.parametrize(
    "how",
    [
        copy.copy,
        copy.deepcopy,
        lambda value: value.copy(),
        *(lambda value, protocol=protocol: pickle.loads(pickle.dumps(value, protocol)) for protocol in range(2, 6)),
    ],
)
class TestCopies:
    def test_are_equal_and_in_order(self, how):
        twin = how(records())
        assert type(twin) is RecordSet
        assert twin == records()
        assert all(list(getattr(twin, name)) == list(getattr(records(), name)) for name in KINDS)

    def test_are_independent_down_to_the_records(self, how):
        given = records()
        twin = how(given)
        twin.parameters_records["model"]["b"] = array_from_numpy(np.zeros(1))
        twin.metrics_records["train"]["loss"] = 0.0
        twin.configs_records["new"] = ConfigsRecord()
        assert given == records()

    def test_check_what_is_stored(self, how):
        twin = how(records())
        for name in KINDS:
            with pytest.raises(RecordTypeError):
                getattr(twin, name)["x"] = None


def test_a_shallow_copy_shares_the_bytes():
    given = records()
    assert copy.copy(given).parameters_records["model"]["a"] is given.parameters_records["model"]["a"]


def test_a_shallow_copy_has_lists_of_its_own():
    given = records()
    copy.copy(given).metrics_records["train"]["loss"].append(1.0)
    given.metrics_records["train"].copy()["loss"].append(1.0)
    assert given == records()


def test_a_deep_copy_and_a_pickle_are_free_of_a_shared_arena():
    values = np.arange(4.0)
    given = RecordSet({"model": ParametersRecord.from_numpy([values], copy=False)})
    twins = copy.deepcopy(given), pickle.loads(pickle.dumps(given))
    values[:] = -1
    assert [twin.parameters_records["model"]["0"].numpy()[3] for twin in twins] == [3, 3]


def test_bytes_are_counted_with_the_names_of_records():
    assert RecordSet().count_bytes() == 0
    expected = sum(
        len(name.encode()) + record.count_bytes() for kind in KINDS for name, record in getattr(records(), kind).items()
    )
    assert records().count_bytes() == expected == len("modelxtrainxconfigx") + (1 + 24) + (4 + 16) + (2 + 8)
    assert RecordSet(metrics_records={"ü": MetricsRecord()}).count_bytes() == 2


def test_repr_shows_all_three_and_stays_short():
    text = repr(RecordSet({"model": ParametersRecord.from_numpy([np.zeros(10)] * 500)}))
    assert text.startswith("RecordSet(parameters_records={'model': ParametersRecord(")
    assert text.endswith("metrics_records={}, configs_records={})")
    assert len(text) < 2500
