"""The typed mappings do what a dict does, and refuse without a trace what they may not hold."""

import copy
import enum
import pickle

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import record_strategies as some
from umbel.errors import RecordError, RecordTypeError
from umbel.records import Array, ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet

keys = st.sampled_from(["a", "b", "c", "\u00e9", "", "a/b"])
bad_keys = st.sampled_from([1, None, b"a", ("a",), 1.5])


class Letter(enum.StrEnum):
    A = "a"


class Word(str, enum.Enum):  # noqa: UP042 - the older form, whose str() is its name
    B = "b"


class MappingMachine(RuleBasedStateMachine):
    """A record and a dict, side by side."""

    make: type
    values: st.SearchStrategy
    bad_values: st.SearchStrategy

    def __init__(self):
        super().__init__()
        self.record, self.model = self.make(), {}

    @invariant()
    def same(self):
        assert list(self.record.items()) == list(self.model.items())
        assert self.record == self.model
        assert len(self.record) == len(self.model)
        assert list(self.record) == list(self.model.keys()) == list(self.record.keys())

    @rule(key=keys, data=st.data())
    def set_item(self, key, data):
        self.record[key] = self.model[key] = data.draw(self.values)

    @rule(key=keys, data=st.data())
    def set_default(self, key, data):
        value = data.draw(self.values)
        assert self.record.setdefault(key, value) == self.model.setdefault(key, value)

    @rule(key=keys)
    def delete(self, key):
        if key in self.model:
            del self.record[key]
            del self.model[key]
        else:
            _expect(KeyError, lambda: self.record.__delitem__(key))

    @rule(key=keys)
    def pop(self, key):
        marker = object()
        assert self.record.pop(key, marker) is marker or key in self.model
        self.model.pop(key, None)

    @precondition(lambda self: self.model)
    @rule()
    def pop_first(self):
        """The record pops what comes first in it, as a MutableMapping does; a dict pops the last."""
        key, value = self.record.popitem()
        assert self.model.pop(key) == value

    @rule(data=st.data())
    def update(self, data):
        entries = data.draw(st.dictionaries(keys, self.values, max_size=3))
        how = data.draw(st.sampled_from(["mapping", "pairs", "words"]))
        if how == "words":
            self.record.update(**entries)
        else:
            self.record.update(entries if how == "mapping" else list(entries.items()))
        self.model.update(entries)

    @rule(data=st.data(), how=st.sampled_from(["set", "default", "update", "pairs"]))
    def refuse_value(self, data, how):
        key, value = data.draw(keys), data.draw(self.bad_values)
        entries = data.draw(st.dictionaries(keys, self.values, max_size=3)) | {key: value}
        if how == "default" and key in self.model:
            return
        act = {
            "set": lambda: self.record.__setitem__(key, value),
            "default": lambda: self.record.setdefault(key, value),
            "update": lambda: self.record.update(entries),
            "pairs": lambda: self.record.update(list(entries.items())),
        }[how]
        _expect((RecordTypeError, RecordError), act)
        given_ = dict(entries)
        _expect((RecordTypeError, RecordError), lambda: self.make(given_, keep_input=False))
        assert list(given_.items()) == list(entries.items())

    @rule(data=st.data(), key=bad_keys)
    def refuse_key(self, data, key):
        value = data.draw(self.values)
        _expect(RecordTypeError, lambda: self.record.__setitem__(key, value))
        _expect(RecordTypeError, lambda: self.record.update({"new": value, key: value}))
        assert key not in self.record
        assert self.record.get(key, "none") == "none"

    @rule(how=st.sampled_from([copy.copy, copy.deepcopy, lambda record: record.copy()]))
    def copied(self, how):
        twin = how(self.record)
        assert type(twin) is type(self.record)
        assert twin == self.record
        twin.clear()
        self.record, spent = how(self.record), self.record
        spent.clear()

    @rule()
    def pickled(self):
        self.record = pickle.loads(pickle.dumps(self.record))

    @rule(keep=st.booleans())
    def constructed(self, keep):
        given_ = dict(self.model)
        self.record = self.make(given_, keep_input=keep)
        assert given_ == (self.model if keep else {})

    @rule()
    def counted(self):
        assert self.record.count_bytes() == sum(len(key.encode()) + _size(value) for key, value in self.model.items())

    @rule()
    def shown(self):
        assert repr(self.record).isprintable()


def _expect(error, act):
    with pytest.raises(error):
        act()


def _size(value):
    if isinstance(value, list):
        return sum(map(_size, value))
    if isinstance(value, Array):
        return len(value.data)
    if isinstance(value, bool):
        return 1
    return len(value.encode()) if isinstance(value, str) else len(value) if isinstance(value, bytes) else 8


numbers = st.one_of(some.integers, st.floats(allow_nan=False))


class ParametersMachine(MappingMachine):
    make = ParametersRecord
    values = some.arrays
    bad_values = st.sampled_from([None, 1, b"x", "x", np.zeros(2), [], {}])


class MetricsMachine(MappingMachine):
    make = MetricsRecord
    values = st.one_of(numbers, st.lists(some.integers, max_size=3), st.lists(st.floats(allow_nan=False), max_size=3))
    bad_values = st.sampled_from(
        [
            True,
            None,
            "1",
            b"1",
            (1,),
            {},
            [True],
            [1, True],
            [1, 2.0],
            ["1"],
            [[1]],
            2**64,
            -(2**63) - 1,
            [2**64],
            1j,
            np.bool_(1),
        ]
    )


class ConfigsMachine(MappingMachine):
    make = ConfigsRecord
    values = st.one_of(
        numbers,
        st.booleans(),
        some.texts,
        st.binary(max_size=4),
        st.lists(st.booleans(), max_size=3),
        st.lists(some.texts, max_size=3),
        st.lists(st.binary(max_size=3), max_size=3),
    )
    bad_values = st.sampled_from(
        [None, bytearray(b"x"), (1,), {}, [1, True], [None], [[1]], [b"x", "x"], 2**64, 1j, object()]
    )


@pytest.mark.parametrize("machine", [ParametersMachine, MetricsMachine, ConfigsMachine])
def test_a_record_behaves_as_a_dict(machine):
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=25))


@pytest.mark.slow
@pytest.mark.parametrize("machine", [ParametersMachine, MetricsMachine, ConfigsMachine])
def test_a_record_behaves_as_a_dict_10000_times(machine):
    run_state_machine_as_test(machine, settings=settings(max_examples=10_000 // 25, stateful_step_count=25))


@pytest.mark.parametrize(("key", "text"), [(Letter.A, "a"), (Word.B, "b"), (np.str_("c"), "c")])
def test_a_key_of_a_kind_of_str_is_stored_as_its_text(key, text):
    record = ConfigsRecord({key: key})
    assert record[key] == record[text] == text
    assert [type(name) for name in record] == [str]
    assert type(record[text]) is str
    record[text] = "other"
    assert len(record) == 1


def test_the_mappings_of_a_record_set_hold_records_of_their_kind_only():
    kinds = (ParametersRecord(), MetricsRecord(), ConfigsRecord())
    records = RecordSet({"r": kinds[0]}, {"r": kinds[1]}, {"r": kinds[2]})
    mappings = (records.parameters_records, records.metrics_records, records.configs_records)
    for place, mapping in enumerate(mappings):
        for other in (*kinds[:place], *kinds[place + 1 :], {}, None, 1):
            with pytest.raises(RecordTypeError):
                mapping["r"] = other
            with pytest.raises(RecordTypeError):
                mapping.update(x=kinds[place], y=other)
            assert list(mapping) == ["r"]
            assert mapping["r"] is kinds[place]
