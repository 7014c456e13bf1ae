"""dumps, loads and digest: one byte form, order and all, without a copy of a payload."""

import json
import math
import struct

import ml_dtypes
import numpy as np
import pytest
from blake3 import blake3

from umbel.errors import (
    BadDtype,
    BadName,
    BadShape,
    BadValue,
    DigestMismatch,
    HeaderTooLarge,
    LimitExceeded,
    RecordError,
    RecordTypeError,
    TrailingBytes,
    Truncated,
)
from umbel.records import (
    Array,
    ConfigsRecord,
    MetricsRecord,
    ParametersRecord,
    RecordSet,
    array_from_numpy,
    digest,
    dumps,
    loads,
)


def joined(records):
    return b"".join(dumps(records))


def header(container):
    (length,) = struct.unpack_from("<Q", container)
    return json.loads(container[8 : 8 + length])


def meta(container):
    return json.loads(header(container)["__metadata__"]["umbel"])


def everything():
    arrays = ParametersRecord(
        {
            "weight": array_from_numpy(np.arange(6, dtype=np.float32).reshape(2, 3), "raw"),
            "half": array_from_numpy(np.ones(3, ml_dtypes.bfloat16), "raw"),
            "npy": array_from_numpy(np.asfortranarray(np.eye(2))),
            "complex": array_from_numpy(np.array(1j), "raw"),
            "nibble": array_from_numpy(np.zeros(3, ml_dtypes.int4), "raw"),
            "own": Array("whatever", [5], "my own", b"\1\2"),
            "empty": array_from_numpy(np.zeros((0, 3), np.int64), "raw"),
        }
    )
    metrics = MetricsRecord({"loss": 0.1, "n": 3, "nan": math.nan, "inf": [math.inf, -math.inf, -0.0], "none": []})
    configs = ConfigsRecord(
        {
            "on": True,
            "n": 2**64 - 1,
            "lr": 1e-05,
            "name": "",
            "raw": b"\0\xff",
            "flags": [True, False],
            "b": [b"", b"x"],
        }
    )
    return RecordSet(
        {"model": arrays, "empty": ParametersRecord()},
        {"train": metrics, "": MetricsRecord()},
        {"config": configs, "model": ConfigsRecord()},
    )


def sequence(records):
    """All names and values with their order, kinds and bits, which == leaves out."""
    return [
        [
            (
                name,
                [
                    (key, repr(value), getattr(value, "data", b"") == getattr(value, "data", b""))
                    for key, value in record.items()
                ],
            )
            for name, record in part.items()
        ]
        for part in (records.parameters_records, records.metrics_records, records.configs_records)
    ]


class TestRoundTrip:
    def test_of_everything(self):
        given = everything()
        found = loads(joined(given))
        assert sequence(found) == sequence(given)
        assert found.parameters_records == given.parameters_records
        assert joined(found) == joined(given)
        assert digest(found) == digest(given)

    def test_of_nothing(self):
        assert loads(joined(RecordSet())) == RecordSet()

    @pytest.mark.parametrize(
        "name", ["", "a", "a/b", "a%2Fb", "%", "ü", "\N{SNOWMAN}", '"\\', "../../x", "__metadata__", "x" * 1024]
    )
    def test_of_any_name(self, name):
        given = RecordSet(
            {
                name: ParametersRecord.from_numpy({name: np.zeros(1)}),
                "b": ParametersRecord.from_numpy({name: np.ones(1)}),
            },
            {name: MetricsRecord({name: 1})},
            {name: ConfigsRecord({name: name})},
        )
        assert loads(joined(given)) == given
        alone = ParametersRecord.from_numpy({name: np.zeros(1)})
        assert loads(joined(alone)).parameters_records["model"] == alone

    @pytest.mark.parametrize(
        "value",
        [0.1, 1e16, 1e22, 1e-7, 5e-324, 1.7976931348623157e308, -0.0, 100.0, 1 / 3, math.inf, -math.inf, math.nan],
    )
    def test_of_floats_to_the_bit(self, value):
        found = loads(joined(RecordSet(metrics_records={"m": MetricsRecord({"a": value, "b": [value]})})))
        record = found.metrics_records["m"]
        assert [struct.pack("<d", number) for number in (record["a"], *record["b"])] == [struct.pack("<d", value)] * 2

    @pytest.mark.parametrize("value", [0, 1, -1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)])
    def test_of_integers(self, value):
        found = loads(joined(RecordSet(metrics_records={"m": MetricsRecord({"a": value, "b": [value]})})))
        assert (found.metrics_records["m"]["a"], found.metrics_records["m"]["b"]) == (value, [value])

    @pytest.mark.parametrize(
        "value", ["", '\0\x1f\n\t\b\f\r"\\/', "\x7f\u2028", "\N{SNOWMAN}\U0001f33c", "e\u0301", "x" * 10_000]
    )
    def test_of_text(self, value):
        found = loads(joined(RecordSet(configs_records={"c": ConfigsRecord({"a": value, "b": [value]})})))
        assert (found.configs_records["c"]["a"], found.configs_records["c"]["b"]) == (value, [value])

    @pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 255])
    def test_of_bytes(self, size):
        value = bytes(range(size))
        found = loads(joined(RecordSet(configs_records={"c": ConfigsRecord({"a": value, "b": [value]})})))
        assert (found.configs_records["c"]["a"], found.configs_records["c"]["b"]) == (value, [value])

    def test_keeps_what_is_true_apart_from_one(self):
        given = RecordSet(configs_records={"c": ConfigsRecord({"a": True, "b": 1, "c": 1.0, "d": "1"})})
        assert [type(value) for value in loads(joined(given)).configs_records["c"].values()] == [bool, int, float, str]


class TestOrder:
    def test_of_arrays_is_kept_although_payloads_stand_by_alignment(self):
        record = ParametersRecord.from_numpy(
            {"byte": np.zeros(3, np.int8), "double": np.zeros(2), "half": np.zeros(1, np.float16), "twice": np.ones(1)}
        )
        container = joined(record)
        assert list(loads(container).parameters_records["model"]) == ["byte", "double", "half", "twice"]
        assert list(header(container)) == ["__metadata__", "double", "twice", "half", "byte"]

    def test_gives_other_bytes_to_equal_records(self):
        left = ParametersRecord.from_numpy({"a": np.zeros(1), "b": np.ones(1)})
        right = ParametersRecord.from_numpy({"b": np.ones(1), "a": np.zeros(1)})
        assert left == right
        assert digest(left) != digest(right)

    def test_equal_values_in_one_order_give_equal_bytes(self):
        assert joined(everything()) == joined(everything())
        fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
        assert digest(ParametersRecord.from_numpy([fortran])) == digest(
            ParametersRecord.from_numpy([fortran.copy("C")])
        )
        assert digest(ParametersRecord.from_numpy([fortran])) == digest(
            ParametersRecord.from_numpy([fortran.astype(">f8")])
        )

    def test_payloads_begin_at_multiples_of_their_item_size(self):
        container = joined(everything())
        buffer = np.empty(len(container) + 64, np.uint8)
        start = -buffer.ctypes.data % 64
        aligned = buffer[start : start + len(container)]
        aligned[:] = np.frombuffer(container, np.uint8)
        arrays = loads(aligned).parameters_records["model"]
        for name in ("weight", "half", "complex", "nibble"):
            assert arrays[name].numpy(copy=False).flags.aligned
            assert arrays[name].numpy(copy=False).ctypes.data % arrays[name].numpy().dtype.itemsize == 0


class TestForm:
    def test_a_single_record_shows_plain_names(self):
        assert list(header(joined(ParametersRecord.from_numpy({"a/b": np.zeros(1)})))) == ["__metadata__", "a/b"]

    def test_several_records_are_told_apart_by_prefix(self):
        record = ParametersRecord.from_numpy({"w": np.zeros(1)})
        container = joined(RecordSet({"a/b%": record, "c": record}))
        assert list(header(container)) == ["__metadata__", "a%2Fb%25/w", "c/w"]

    def test_a_record_alone_is_called_model(self):
        record = ParametersRecord.from_numpy({"w": np.zeros(1)})
        assert joined(record) == joined(RecordSet({"model": record}))
        assert digest(record) == digest(RecordSet({"model": record}))

    def test_what_safetensors_has_no_dtype_for_is_opaque_with_its_truth_in_meta(self):
        container = joined(everything())
        found = header(container)
        assert found["model/weight"]["dtype"] == "F32"
        assert found["model/half"]["dtype"] == "BF16"
        opaque = ("npy", "complex", "nibble", "own")
        assert [(found[f"model/{name}"]["dtype"], len(found[f"model/{name}"]["shape"])) for name in opaque] == [
            ("U8", 1)
        ] * 4
        said = dict([*entry[:1], entry[1:]] for entry in meta(container)["parameters"][0][1] if isinstance(entry, list))
        assert said["complex"] == ["raw", "complex128", []]
        assert said["npy"] == ["numpy.ndarray", "float64", [2, 2]]
        assert said["nibble"] == ["raw", "int4", [3]]
        assert said["own"] == ["my own", "whatever", [5]]

    def test_the_header_ends_at_a_multiple_of_64(self):
        for size in range(70):
            container = joined(ParametersRecord.from_numpy({"x" * size: np.zeros(1, np.uint8)}))
            (length,) = struct.unpack_from("<Q", container)
            assert (8 + length) % 64 == 0
            assert len(container) == 8 + length + 1

    def test_not_a_number_has_no_place_in_json(self):
        container = joined(RecordSet(metrics_records={"m": MetricsRecord({"a": math.nan, "b": [math.inf]})}))
        assert meta(container)["metrics"] == [["m", [["a", {"float": "nan"}], ["b", [{"float": "inf"}]]]]]


class TestCopies:
    def test_segments_are_the_payloads_themselves(self):
        record = ParametersRecord.from_numpy({"a": np.arange(1000.0), "b": np.arange(10, dtype=np.int8)})
        segments = dumps(record)
        assert type(segments[0]) is bytes
        assert len(segments) == 3
        assert all(segment is record[name].data for segment, name in zip(segments[1:], "ab", strict=True))

    @pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
    def test_arrays_are_views_of_the_buffer(self, wrap):
        buffer = wrap(joined(everything()))
        whole = np.frombuffer(buffer, np.uint8)
        for array in loads(buffer).parameters_records["model"].values():
            assert isinstance(array.data, memoryview)
            assert array.data.readonly
            assert len(array.data) == 0 or np.shares_memory(np.frombuffer(array.data, np.uint8), whole)

    def test_no_two_arrays_share_bytes(self):
        arrays = [
            np.frombuffer(array.data, np.uint8)
            for array in loads(joined(everything())).parameters_records["model"].values()
        ]
        full = [array for array in arrays if len(array)]
        assert not any(np.shares_memory(left, right) for i, left in enumerate(full) for right in full[:i])

    def test_one_array_under_two_names_is_written_twice(self):
        array = array_from_numpy(np.zeros(4), "raw")
        assert len(dumps(ParametersRecord({"a": array, "b": array}))) == 3


class TestRefusals:
    @pytest.mark.parametrize("wrong", [None, {}, MetricsRecord(), array_from_numpy(np.zeros(1)), b"bytes"])
    @pytest.mark.parametrize("verb", [dumps, digest])
    def test_of_what_is_no_record_set(self, verb, wrong):
        with pytest.raises(RecordTypeError, match=f"RecordSet or a ParametersRecord, got {type(wrong).__name__}"):
            verb(wrong)

    @pytest.mark.parametrize("wrong", [None, "text", 1, [b""], np.arange(6)[::2]])
    def test_of_what_is_no_buffer(self, wrong):
        with pytest.raises(RecordTypeError, match="bytes-like"):
            loads(wrong)

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("a\nb", BadName),
            ("\0", BadName),
            ("\x85", BadName),
            ("e\u0301", BadName),
            ("\ud800", BadName),
            ("ü" * 513, LimitExceeded),
        ],
    )
    @pytest.mark.parametrize("where", ["array", "parameters", "metrics", "metric", "configs", "config", "stype"])
    def test_of_a_name_that_a_container_cannot_hold(self, where, name, error):
        one = array_from_numpy(np.zeros(1))
        records = {
            "array": lambda: RecordSet({"r": ParametersRecord({name: one})}),
            "stype": lambda: RecordSet({"r": ParametersRecord({"a": Array("float32", [1], name, b"")})}),
            "parameters": lambda: RecordSet({name: ParametersRecord()}),
            "metrics": lambda: RecordSet(metrics_records={name: MetricsRecord()}),
            "metric": lambda: RecordSet(metrics_records={"r": MetricsRecord({name: 1})}),
            "configs": lambda: RecordSet(configs_records={name: ConfigsRecord()}),
            "config": lambda: RecordSet(configs_records={"r": ConfigsRecord({name: 1})}),
        }[where]()
        with pytest.raises(error) as caught:
            dumps(records)
        assert type(caught.value) is error

    @pytest.mark.parametrize(
        ("array", "error"),
        [
            (Array("float32", [2], "raw", b"1234567"), Truncated),
            (Array("float32", [2], "raw", b"123456789"), TrailingBytes),
            (Array("float32", [-1], "raw", b""), BadShape),
            (Array("float32", [1] * 33, "raw", b"1234"), BadShape),
            (Array("float33", [1], "raw", b"1234"), BadDtype),
            (Array("float32", [0, 2**60], "mine", b""), BadShape),
        ],
    )
    def test_of_an_array_that_is_not_what_it_says_with_its_place(self, array, error):
        with pytest.raises(error, match=r"parameters_records\['r'\]\['a'\]") as caught:
            dumps(RecordSet({"r": ParametersRecord({"a": array})}))
        assert type(caught.value) is error

    def test_of_a_list_that_was_changed_after_it_was_checked(self):
        record = MetricsRecord({"a": [1, 2]})
        record["a"].append("x")
        with pytest.raises(RecordTypeError):
            dumps(RecordSet(metrics_records={"m": record}))

    def test_of_text_that_is_not_unicode(self):
        with pytest.raises(BadValue, match="surrogate"):
            dumps(RecordSet(configs_records={"c": ConfigsRecord({"a": "\ud800"})}))

    def test_of_too_many_arrays(self):
        one = array_from_numpy(np.zeros(1, np.uint8), "raw")
        record = ParametersRecord({str(place): one for place in range(65_536)})
        assert len(dumps(record)) == 65_537
        record["one more"] = one
        with pytest.raises(LimitExceeded, match="65536 arrays"):
            dumps(record)

    def test_of_too_many_values(self):
        record = MetricsRecord({"a": [1] * 262_144})
        assert len(dumps(RecordSet(metrics_records={"m": record}))) == 1
        record["b"] = 1
        with pytest.raises(LimitExceeded, match="262144 values"):
            dumps(RecordSet(metrics_records={"m": record}))

    def test_of_too_many_records(self):
        records = RecordSet(metrics_records=dict.fromkeys(map(str, range(65_536)), MetricsRecord()))
        assert len(dumps(records)) == 1
        records.configs_records["one more"] = ConfigsRecord()
        with pytest.raises(LimitExceeded, match="65536 records"):
            dumps(records)

    def test_of_a_header_over_its_limit(self):
        one = array_from_numpy(np.zeros(1, np.uint8), "raw")
        with pytest.raises(HeaderTooLarge, match="16777216 bytes"):
            dumps(ParametersRecord({f"{place:01000}": one for place in range(9_000)}))

    def test_of_bytes_that_are_no_container_says_what_to_use(self):
        text = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  '
        plain = struct.pack("<Q", len(text)) + text + bytes(4)
        with pytest.raises(RecordError, match=r"umbel\.interop\.safetensors"):
            loads(plain)


class TestDigest:
    def test_is_blake3_of_the_container(self):
        container = joined(everything())
        assert digest(everything()) == digest(loads(container)) == f"blake3:{blake3(container).hexdigest()}"

    def test_of_many_small_and_some_large_arrays(self):
        record = ParametersRecord.from_numpy([np.full(size, 1.5) for size in (1, 20_000, 3, 3, 200_000, *([7] * 3000))])
        assert digest(record) == f"blake3:{blake3(joined(record)).hexdigest()}"

    def test_is_checked_before_anything_is_read(self):
        container = joined(everything())
        assert loads(container, expect=digest(everything())) is not None
        with pytest.raises(DigestMismatch, match="fetch it again") as caught:
            loads(container, expect=digest(RecordSet()))
        assert digest(RecordSet()) in str(caught.value)
        assert digest(everything()) in str(caught.value)
        with pytest.raises(DigestMismatch):
            loads(b"no container", expect=digest(everything()))

    @pytest.mark.parametrize("wrong", ["", "blake3:", "sha256:" + "0" * 64, "blake3:" + "G" * 64, "blake3:" + "A" * 64])
    def test_of_another_form_is_refused(self, wrong):
        with pytest.raises(DigestMismatch, match="64 lower-case hex digits"):
            loads(joined(RecordSet()), expect=wrong)
