"""What is known of records that were read: until when, by whom, how much of it, and that it holds on to nothing."""

import copy
import gc
import pickle
import sys
import tracemalloc
import weakref
from threading import Barrier, Thread

import numpy as np
import pytest

from forge import container, entry, meta
from solid_records import composed, content, forget, joined, plain, solid
from umbel.errors import RecordError, TrailingBytes, Truncated
from umbel.records import Arena, Array, ParametersRecord, RecordSet, _solid, array_from_numpy, digest, dumps, loads
from umbel.records._parameters import solid_of


@pytest.fixture(autouse=True)
def _nothing_known():
    forget()
    yield
    forget()


def model(value=1.0):
    return {"w": np.full((2, 3), value, np.float32), "n": np.arange(2), "": np.float32(value), "e": np.zeros((0, 2))}


def record(value=1.0):
    return ParametersRecord.from_numpy(model(value))


def data_of(value=1.0):
    return composed(RecordSet({"model": plain(record(value))}))


class TestReading:
    def test_a_known_header_does_not_stand_for_the_payload(self):
        data = data_of()
        header = data[: 8 + int.from_bytes(data[:8], "little")]
        loads(data)
        for changed, error in ((header, Truncated), (data[:-1], Truncated), (data + b"\0", TrailingBytes)):
            with pytest.raises(error, match="the container"):
                loads(changed)

    def test_every_byte_of_a_header_counts(self):
        data = data_of()
        loads(data)
        for place in range(8 + int.from_bytes(data[:8], "little")):
            changed = bytearray(data)
            changed[place] ^= 1
            found = _outcome(changed)
            forget()
            assert found == _outcome(changed)
            loads(data)

    def test_containers_that_are_refused_are_not_known_the_next_time(self):
        said = meta('[["model",["w"]]]')
        wrong = [container(said, entry("w", "F32", "1", 0, 8), payload=bytes(8)), data_of()[:-1], data_of() + b"\0"]
        for data in wrong:
            first = _outcome(data)
            assert isinstance(first, tuple)
            assert _outcome(data) == first
        assert _solid._recent._layouts == ()

    def test_the_arrays_of_two_records_are_their_own(self):
        first, second = loads(data_of(1)), loads(data_of(2))
        one, two = (records.parameters_records["model"] for records in (first, second))
        one["w"].shape[0] = 9
        assert two["w"].shape == loads(data_of()).parameters_records["model"]["w"].shape == [2, 3]
        assert two["w"].numpy()[0, 0] == 2

    def test_what_has_more_than_one_record_of_raw_arrays_is_not_kept(self):
        from_npy = ParametersRecord({"w": array_from_numpy(np.ones(2))})
        opaque = ParametersRecord({"w": Array("int4", [2], "raw", b"ab")})
        for parameters in ({}, {"a": record(), "b": record()}, {"a": from_npy}, {"a": opaque}):
            loads(joined(RecordSet(parameters)))
        assert _solid._recent._layouts == ()

    def test_the_newest_layouts_are_known_and_not_too_many(self):
        datas = [composed(RecordSet({f"{place}": plain(record())})) for place in range(20)]
        for data in datas:
            loads(data)
            loads(datas[0])
        assert [layout.record for layout in _solid._recent._layouts][:1] == ["19"]
        assert len(_solid._recent._layouts) == 8
        for data in datas:
            assert composed(loads(data)) == data

    def test_long_headers_are_not_kept_and_few_of_those_that_are_nearly_too_long(self):
        small = data_of()
        for letter, count, kept in (("a", 15_500, 1), ("b", 15_500, 2), ("c", 15_500, 2), ("d", 17_000, 2)):
            names = [f"{letter}{place}" for place in range(count)]
            said = meta(f'[["m",[{",".join(map(chr(34).__add__, (name + chr(34) for name in names)))}]]]')
            data = container(said, *map(entry, names))
            assert list(loads(data).parameters_records["m"]) == names
            assert len(_solid._recent._layouts) == kept
            assert sum(len(layout.header) for layout in _solid._recent._layouts) <= 2 * 2**20
        loads(small)
        assert _solid._recent._layouts[0].record == "model"

    def test_what_is_kept_costs_a_few_times_the_headers(self):
        def names(letter):
            return [f"{letter}{place}" for place in range(2500)]

        datas = [
            composed(
                RecordSet({"m": ParametersRecord({name: Array("int8", [0], "raw", b"") for name in names(letter)})})
            )
            for letter in "abcdefghijklm"
        ]
        tracemalloc.start()
        try:
            for data in datas:
                loads(data)
            kept = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert len(_solid._recent._layouts) == 8
        assert kept < 8 * sum(len(layout.header) for layout in _solid._recent._layouts)

    def test_many_threads_may_read_at_once(self):
        datas = [composed(RecordSet({f"{place}": plain(record(place))})) for place in range(12)]
        start, wrong = Barrier(4), []

        def read(shift):
            start.wait()
            for turn in range(300):
                data = datas[(turn * 5 + shift) % len(datas)]
                records = loads(data)
                if joined(records) != data or composed(records) != data:
                    wrong.append(turn)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            threads = [Thread(target=read, args=(shift,)) for shift in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert wrong == []
        assert len(_solid._recent._layouts) <= 8


def _outcome(data):
    try:
        return joined(loads(data))
    except RecordError as error:
        return type(error), str(error)


class TestWriting:
    def test_the_name_of_the_record_is_written_not_the_one_that_was_read(self):
        read = loads(composed(RecordSet({"a": plain(record())}))).parameters_records["a"]
        for name in ("a", "b", "__metadata__", ""):
            for each in (read, plain(read), record()):
                assert joined(RecordSet({name: each})) == composed(RecordSet({name: each}))
        assert digest(read) == digest(plain(read)) != digest(RecordSet({"a": read}))

    def test_two_records_of_one_layout_in_one_container(self):
        read = solid(record())
        records = RecordSet({"model": read, "other": read})
        assert joined(records) == composed(records)
        assert loads(joined(records)) == records

    @pytest.mark.parametrize("change", ["dtype", "stype", "short", "long"])
    def test_an_array_that_only_looks_like_the_one_that_was_read(self, change):
        solid(record())
        fields = {"dtype": "float32", "shape": [2, 3], "stype": "raw", "data": bytes(24)}
        fields |= {
            "dtype": {"dtype": "int32"},
            "stype": {"stype": "mine"},
            "short": {"data": bytes(23)},
            "long": {"data": bytes(25)},
        }[change]
        twin = record()
        twin["w"] = Array(**fields)
        if change in ("short", "long"):
            with pytest.raises((Truncated, TrailingBytes), match=r"raw payload of float32 \[2, 3\].*\['w'\]"):
                dumps(twin)
        else:
            assert joined(twin) == composed(RecordSet({"model": twin}))

    def test_a_read_record_is_two_segments_that_copy_nothing(self):
        data = data_of()
        (_, payload) = dumps(loads(data).parameters_records["model"])
        assert payload.obj is data


class TestMakingOneLikeIt:
    def test_the_buffer_of_a_model_is_laid_out_like_the_container(self):
        cold = record()
        loads(data_of())
        warm = record()
        assert (solid_of(cold), solid_of(warm) is None) == (None, False)
        assert content(cold) == content(warm)
        assert cold == warm
        assert joined(cold) == joined(warm) == data_of()
        assert bytes(solid_of(warm).data) == data_of()[-len(solid_of(warm).data) :]

    def test_other_arrays_are_not(self):
        loads(data_of())
        shape, dtype, order = model(), model(), dict(reversed(model().items()))
        shape["w"], dtype["w"] = shape["w"].T, dtype["w"].view(np.int32)
        for arrays in (shape, dtype, order, model() | {"more": np.ones(1)}, {"w": model()["w"]}):
            made = ParametersRecord.from_numpy(arrays)
            assert solid_of(made) is None
            assert joined(made) == composed(RecordSet({"model": made}))

    def test_an_arena_that_is_used_again_overwrites_the_record_and_what_is_written_of_it(self):
        loads(data_of())
        arena = Arena()
        first = ParametersRecord.from_numpy(model(1), arena=arena)
        kept = joined(first)
        second = ParametersRecord.from_numpy(model(2), arena=arena)
        assert kept == data_of(1)
        assert joined(first) == composed(RecordSet({"model": first})) == joined(second) == data_of(2)
        ParametersRecord.from_numpy({"other": np.full(99, 7, np.uint8)}, arena=arena)
        assert joined(second) == composed(RecordSet({"model": second}))

    def test_views_follow_the_arrays_that_they_show(self):
        loads(data_of())
        arrays = model()
        views = ParametersRecord.from_numpy(arrays, copy=False)
        assert solid_of(views) is None
        arrays["w"][:] = 3
        assert views["w"].numpy()[0, 0] == 3
        assert joined(views) == composed(RecordSet({"model": views})) != data_of()

    def test_arrays_are_let_go_of_one_by_one(self):
        loads(data_of())
        arrays = model()
        gone = [weakref.ref(array) for array in arrays.values() if isinstance(array, np.ndarray)]
        made = ParametersRecord.from_numpy(arrays, keep_input=False)
        assert arrays == {}
        assert [ref() for ref in gone] == [None] * 3
        assert joined(made) == data_of()


class TestCopies:
    @pytest.mark.parametrize(
        "twin", [copy.copy, ParametersRecord.copy, copy.deepcopy, lambda record: pickle.loads(pickle.dumps(record))]
    )
    def test_copies_are_equal_and_on_their_own(self, twin):
        for read in (solid(record()), record()):
            other = twin(read)
            assert other == read
            assert repr(other) == repr(read) == repr(plain(read))
            assert joined(other) == joined(read) == data_of()
            other["w"] = array_from_numpy(np.zeros(1), "raw")
            assert joined(read) == data_of()
            assert joined(other) == composed(RecordSet({"model": other})) != data_of()

    def test_a_deep_copy_has_bytes_of_its_own(self):
        arena = Arena()
        solid(record())
        first = ParametersRecord.from_numpy(model(1), arena=arena)
        twin = copy.deepcopy(first)
        ParametersRecord.from_numpy(model(2), arena=arena)
        assert joined(twin) == data_of(1)

    def test_a_record_set_that_is_copied_is_changed_alone(self):
        records = loads(data_of())
        twin = records.copy()
        del twin.parameters_records["model"]["w"]
        assert joined(records) == data_of()
        assert joined(twin) == composed(twin)

    def test_one_record_may_take_the_arrays_of_another(self):
        read = solid(record())
        taken = ParametersRecord(read)
        assert (len(read), joined(read)) == (0, composed(RecordSet({"model": ParametersRecord()})))
        assert joined(taken) == data_of()


class _Bytes(np.ndarray):
    """A buffer that can be watched."""


def _watched(data):
    buffer = np.frombuffer(bytearray(data), np.uint8).view(_Bytes)
    return buffer, weakref.ref(buffer)


@pytest.mark.parametrize("change", ["delete", "exchange", "clear", "update", "shape"])
def test_a_record_without_its_arrays_lets_go_of_their_buffer(change):
    buffer, gone = _watched(data_of())
    read = loads(buffer).parameters_records["model"]
    del buffer
    gc.collect()
    assert gone() is not None
    zeros = {name: array_from_numpy(array, "raw") for name, array in record(0).to_numpy().items()}
    if change == "delete":
        for name in list(read):
            del read[name]
    elif change == "exchange":
        for name, array in zeros.items():
            read[name] = array
    elif change == "clear":
        read.clear()
    elif change == "update":
        read.update(zeros)
    else:
        read["w"].shape[0] = 7
        del read
    gc.collect()
    assert gone() is None


def test_what_is_remembered_holds_no_payload():
    buffer, gone = _watched(data_of())
    loads(buffer)
    del buffer
    gc.collect()
    assert len(_solid._recent._layouts) == 1
    assert gone() is None
