"""What the records have in common: typed, ordered mappings that change whole or not at all."""

import copy
import pickle
from collections import OrderedDict
from types import MappingProxyType

import numpy as np
import pytest

from umbel.errors import BadValue, RecordTypeError
from umbel.records import ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet, array_from_numpy

ONE, TWO = array_from_numpy(np.ones(2)), array_from_numpy(np.arange(3))


# How to make a mapping of each kind with two entries, and a value that it refuses.
KINDS = {
    "parameters": (lambda: ParametersRecord({"a": ONE, "b": TWO}), np.ones(2)),
    "metrics": (lambda: MetricsRecord({"a": 1, "b": [0.5, 2.0]}), "text"),
    "configs": (lambda: ConfigsRecord({"a": "x", "b": [b"", b"y"]}), None),
    "records": (
        lambda: RecordSet(None, {"a": MetricsRecord({"m": 1}), "b": MetricsRecord()}).metrics_records,
        ConfigsRecord(),
    ),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def record(kind):
    return kind[0]()


@pytest.fixture
def wrong(kind):
    return kind[1]


class TestMapping:
    def test_reads_like_a_dict(self, record):
        assert list(record) == list(record.keys()) == ["a", "b"]
        assert len(record) == 2
        assert "a" in record
        assert "c" not in record
        assert 1 not in record
        assert dict(record.items()) == dict(zip("ab", record.values(), strict=True))
        assert record.get("c") is None
        with pytest.raises(KeyError, match="c"):
            record["c"]

    def test_keeps_the_order_of_insertion(self, record):
        first, second = record["a"], record["b"]
        record["a"] = second
        assert list(record) == ["a", "b"]
        del record["a"]
        record["a"] = first
        assert list(record) == ["b", "a"]
        assert list(reversed(record.keys())) == ["a", "b"]

    def test_views_are_live(self, record):
        keys, values, items = record.keys(), record.values(), record.items()
        del record["a"]
        assert (list(keys), len(values), [key for key, _ in items]) == (["b"], 1, ["b"])

    def test_pop_clear_and_setdefault(self, record):
        first = record["a"]
        assert record.setdefault("a", record["b"]) == first
        assert record.setdefault("c", first) == first
        assert record.pop("c") == first
        assert record.pop("c", None) is None
        record.clear()
        assert len(record) == 0
        assert not record

    @pytest.mark.parametrize("kind", [ParametersRecord, MetricsRecord, ConfigsRecord])
    def test_is_empty_without_arguments(self, kind):
        assert len(kind()) == len(kind(None)) == 0


class TestChecks:
    @pytest.mark.parametrize("key", [1, None, b"a", ("a",), 1.5])
    def test_keys_are_text(self, record, key):
        value = record["a"]
        with pytest.raises(TypeError, match=f"str as key, got {type(key).__name__}") as caught:
            record[key] = value
        assert isinstance(caught.value, RecordTypeError)
        assert list(record) == ["a", "b"]

    def test_a_kind_of_str_is_stored_as_str(self, record):
        record[np.str_("c")] = record["a"]
        assert [type(key) for key in record] == [str, str, str]

    def test_a_wrong_value_is_refused_with_its_place(self, record, wrong):
        before = dict(record)
        with pytest.raises(TypeError, match=r"- at \w+\['a'\]") as caught:
            record["a"] = wrong
        assert isinstance(caught.value, RecordTypeError)
        assert type(wrong).__name__ in str(caught.value)
        assert dict(record) == before

    def test_setdefault_checks(self, record, wrong):
        with pytest.raises(RecordTypeError):
            record.setdefault("c", wrong)
        with pytest.raises(RecordTypeError):
            record.setdefault("c")
        assert list(record) == ["a", "b"]

    @pytest.mark.parametrize("how", [dict, OrderedDict, lambda pairs: pairs, iter])
    def test_update_stores_all_or_nothing(self, record, wrong, how):
        before, first, second = dict(record), record["a"], record["b"]
        with pytest.raises(RecordTypeError):
            record.update(how([("b", first), ("c", first), ("d", wrong)]))
        with pytest.raises(RecordTypeError):
            record.update(how([("b", first), (1, first)]))
        assert dict(record) == before
        record.update(how([("b", first), ("c", second)]))
        assert (list(record), record["b"], record["c"]) == (["a", "b", "c"], first, second)

    def test_update_takes_keywords_and_records(self, record):
        first = record["a"]
        record.update(c=first)
        record.update(record)
        assert list(record) == ["a", "b", "c"]

    def test_no_attribute_can_be_added(self, record):
        with pytest.raises(AttributeError):
            record.note = "x"


class TestConstruction:
    CASES = (
        (ParametersRecord, {"a": ONE, "b": TWO}, 1),
        (MetricsRecord, {"a": 1, "b": 0.5}, "x"),
        (ConfigsRecord, {"a": 1, "b": "x"}, None),
    )

    @pytest.mark.parametrize(("kind", "entries", "wrong"), CASES)
    def test_keep_input_both_ways(self, kind, entries, wrong):
        given = dict(entries)
        kept = kind(given, keep_input=True)
        assert given == entries
        taken = kind(given, keep_input=False)
        assert given == {}
        assert kept == taken == entries

    @pytest.mark.parametrize(("kind", "entries", "wrong"), CASES)
    def test_the_default_is_that_of_the_original(self, kind, entries, wrong):
        given = dict(entries)
        kind(given)
        assert given == ({} if kind is ParametersRecord else entries)

    @pytest.mark.parametrize(("kind", "entries", "wrong"), CASES)
    @pytest.mark.parametrize("keep_input", [True, False])
    @pytest.mark.parametrize("bad", [{"c": None}, {1: ONE}])
    def test_an_input_that_fails_is_left_untouched(self, kind, entries, wrong, keep_input, bad):
        given = {**entries, **({"c": wrong} if "c" in bad else {1: entries["a"]})}
        before = dict(given)
        with pytest.raises(RecordTypeError):
            kind(given, keep_input)
        assert given == before
        assert list(given) == list(before)

    @pytest.mark.parametrize(("kind", "entries", "wrong"), CASES)
    def test_an_input_that_cannot_be_emptied_is_refused_when_it_should_be(self, kind, entries, wrong):
        proxy = MappingProxyType(entries)
        assert kind(proxy, keep_input=True) == entries
        with pytest.raises(RecordTypeError, match="keep_input=False"):
            kind(proxy, keep_input=False)
        assert dict(proxy) == entries

    @pytest.mark.parametrize("kind", [ParametersRecord, MetricsRecord, ConfigsRecord])
    @pytest.mark.parametrize("given", [[("a", 1)], 1, "text", {"a"}])
    def test_takes_mappings_alone(self, kind, given):
        with pytest.raises(RecordTypeError, match="mapping"):
            kind(given)

    @pytest.mark.parametrize(("kind", "entries", "wrong"), CASES)
    def test_a_record_of_a_record(self, kind, entries, wrong):
        given = kind(dict(entries))
        assert kind(given, keep_input=True) == given
        assert kind(given, keep_input=False) == entries
        assert len(given) == 0

    @pytest.mark.parametrize(("kind", "entries", "wrong"), CASES)
    def test_the_callers_dict_is_not_the_store(self, kind, entries, wrong):
        given = dict(entries)
        record = kind(given, keep_input=True)
        del given["a"]
        assert list(record) == ["a", "b"]


class TestEquality:
    def test_ignores_the_order(self, record):
        twin = copy.copy(record)
        twin["a"] = twin.pop("a")
        assert list(twin) != list(record)
        assert twin == record
        assert not twin != record  # noqa: SIM202 - the other operator

    def test_sees_keys_and_values(self, record):
        twin = copy.copy(record)
        twin["c"] = twin["a"]
        assert twin != record
        twin["b"] = twin.pop("c")
        assert twin != record

    def test_with_a_dict(self, record):
        assert record == dict(record)
        assert dict(record) == record
        assert record != {}

    @pytest.mark.parametrize(
        "other",
        [
            *(None, 1, "ab", [], object(), {}, {1: 2}, {"a": np.ones(3), "b": np.ones(2)}),
            {"a": None, "b": None},
            {"a": 2**70, "b": "x" * 9},
        ],
    )
    def test_never_raises(self, record, other):
        assert (record == other) is False
        assert (record != other) is True
        assert (other == record) is False

    def test_is_not_hashable(self, record):
        with pytest.raises(TypeError):
            hash(record)


class TestCopies:
    @pytest.mark.parametrize("how", [copy.copy, lambda record: record.copy(), copy.deepcopy])
    def test_are_of_the_same_kind_and_independent(self, record, wrong, how):
        twin = how(record)
        assert type(twin) is type(record)
        assert twin == record
        assert list(twin) == list(record)
        del twin["a"]
        assert list(record) == ["a", "b"]
        with pytest.raises(RecordTypeError):
            twin["b"] = wrong

    @pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
    def test_pickle_by_others(self, record, wrong, protocol):
        twin = pickle.loads(pickle.dumps(record, protocol))
        assert type(twin) is type(record)
        assert twin == record
        assert list(twin) == list(record)
        with pytest.raises(RecordTypeError):
            twin["b"] = wrong

    def test_deepcopy_shares_no_list(self):
        record = MetricsRecord({"a": [1, 2]})
        copy.deepcopy(record)["a"].append(3)
        assert record["a"] == [1, 2]


def test_an_error_of_value_leaves_the_input_too():
    given = {"a": 1, "b": 2**64}
    with pytest.raises(BadValue, match="65 bits"):
        MetricsRecord(given, keep_input=False)
    assert given == {"a": 1, "b": 2**64}
