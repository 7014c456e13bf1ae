"""Containers of every class of malformed input: each file in `files/` ends in its own error, without effect."""

import mmap

import numpy as np
import pytest

from forge import ONE_ARRAY, W, container, entry, meta, refuse
from make_files import CASES, FOLDER, VALID, entries
from solid_records import forget
from umbel.errors import BadName, BadValue, DigestMismatch, LimitExceeded, RecordTypeError
from umbel.records import (
    Array,
    ConfigsRecord,
    MetricsRecord,
    ParametersRecord,
    RecordSet,
    digest,
    dumps,
    load,
    loads,
    save,
)


def of(number):
    names = [name for name in CASES if name.startswith(f"{number}-")]
    return pytest.mark.parametrize("name", names)


def check(name):
    data = (FOLDER / f"{name}.bin").read_bytes()
    before = bytes(data)
    texts = set()
    for known in ([], [VALID, entries()]):
        forget()
        for each in known:
            loads(each)
        texts.add(str(refuse(CASES[name][0], lambda: loads(data), len(data))))
    assert len(texts) == 1, "what was read before says what is wrong"
    assert data == before


def roundtrip(data):
    assert b"".join(dumps(loads(data))) == data
    return loads(data)


def test_the_files_are_what_the_generator_makes():
    assert sorted(path.stem for path in FOLDER.glob("*.bin")) == sorted(CASES)
    assert [name for name, (_, data) in CASES.items() if (FOLDER / f"{name}.bin").read_bytes() != data] == []


def test_the_file_that_all_others_vary_is_valid():
    assert roundtrip(VALID).parameters_records["model"]["w"].shape == [2, 3]


@of("a01")
def test_a01_empty_or_short(name):
    check(name)


@of("a02")
def test_a02_header_length_lies(name):
    check(name)


@of("a04")
def test_a04_nesting(name):
    check(name)


@of("a05")
def test_a05_one_name_twice(name):
    check(name)


@of("a06")
def test_a06_order(name):
    check(name)


def test_a06_permuted_arrays_stay_permuted():
    first = ParametersRecord.from_numpy({"a": np.zeros(2), "b": np.ones(2)})
    second = ParametersRecord.from_numpy({"b": np.ones(2), "a": np.zeros(2)})
    assert first == second
    assert digest(first) != digest(second)
    assert list(loads(b"".join(dumps(second))).parameters_records["model"]) == ["b", "a"]


@of("a07")
def test_a07_offsets(name):
    check(name)


@of("a08")
def test_a08_trailing_bytes_and_polyglots(name):
    check(name)


@of("a09")
def test_a09_shape(name):
    check(name)


@of("a10")
def test_a10_dtype(name):
    check(name)


@of("a11")
def test_a11_header_and_payload_disagree(name):
    check(name)


@of("a12")
def test_a12_declared_size(name):
    check(name)


@of("a13")
def test_a13_values(name):
    check(name)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_a13_a_metric_may_be_no_number(text):
    said = meta(metrics=f'[["m",[["a",{{"float":"{text}"}}],["l",[{{"float":"{text}"}},-0.0,5e-324]]]]]')
    record = roundtrip(container(said)).metrics_records["m"]
    assert str(record["a"]) == text
    assert str(record["l"]) == f"[{text}, -0.0, 5e-324]"


@pytest.mark.parametrize("bits", ["0000c07f", "0100807f", "000080ff", "00000080", "01000000"])
def test_a13_a_payload_keeps_every_bit(bits):
    """Quiet and signalling NaN, infinity, minus zero and the smallest denormal."""
    data = container(ONE_ARRAY, entry("w", "F32", "1", 0, 4), payload=bytes.fromhex(bits))
    array = roundtrip(data).parameters_records["model"]["w"].numpy()
    assert array.tobytes().hex() == bits


def test_a13_a_bool_of_two_passes_as_it_is():
    """A record carries bytes; what a value may be is for the gate to say."""
    data = container(ONE_ARRAY, entry("w", "BOOL", "2", 0, 2), payload=b"\2\0")
    array = roundtrip(data).parameters_records["model"]["w"].numpy()
    assert array.view(np.uint8).tolist() == [2, 0]


@pytest.mark.parametrize("value", [2**64 - 1, -(2**63), 0])
def test_a13_integers_at_their_limits(value):
    assert roundtrip(container(meta(metrics=f'[["m",[["a",{value}]]]]'))).metrics_records["m"]["a"] == value


@of("a16")
def test_a16_names(name):
    check(name)


NAMES = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "/abs",
    "C:\\x",
    "\u202egnp.exe",
    "zero\u200bwidth",
    "W",
    "CON",
    "aux.txt",
    "__metadata__",
    "__proto__",
    "a" * 1024,
    "%2F",
    "a%/b",
    '"',
    "\\",
    "${HOME}`id`;$(id)",
    "\U0001f469\u200d\U0001f4bb",
    "\ufeff",
    "\ufffd",
    "\u2028",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a16_names_are_opaque_data(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = RecordSet(
        {name: ParametersRecord.from_numpy({name: np.ones(2), "w": np.zeros(2)})},
        {name: MetricsRecord({name: 1})},
        {name: ConfigsRecord({name: name})},
    )
    save(records, "file")
    again = load("file")
    assert again == records
    assert list(again.parameters_records[name]) == [name, "w"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert repr(again).isprintable()


def test_a16_twins_stay_apart():
    names = ["a", "A", "\u0430", "a\u200b", "a ", " a", "a\u0301\u0323".replace("a\u0301\u0323", "\u1ea1\u0301")]
    records = ParametersRecord.from_numpy({name: np.full(1, place) for place, name in enumerate(names)})
    again = loads(b"".join(dumps(records))).parameters_records["model"]
    assert [int(again[name].numpy()[0]) for name in names] == list(range(len(names)))


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("a\0b", BadName),
        ("a\nb", BadName),
        ("\x1b[31m", BadName),
        ("\x9b31m", BadName),
        ("e\u0301", BadName),
        ("\ud800", BadName),
        ("\u212b", BadName),
        ("a" * 1025, LimitExceeded),
        ("\u6f22" * 342, LimitExceeded),
        ("e\u0301" * 5_000_000, LimitExceeded),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_a16_names_that_cannot_be_written(name, error):
    number = np.zeros(1)
    metrics, configs = MetricsRecord({name: 1}), ConfigsRecord({name: 1})
    for records in (
        RecordSet({"r": ParametersRecord.from_numpy({name: number})}),
        RecordSet({name: ParametersRecord()}),
        RecordSet({"r": ParametersRecord({"w": Array("float32", [1], name, b"")})}),
        RecordSet({"r": ParametersRecord({"w": Array(name, [1], "own", b"")})}),
        RecordSet(None, {"r": metrics}),
        RecordSet(None, {name: MetricsRecord()}),
        RecordSet(None, None, {"r": configs}),
        RecordSet(None, None, {name: ConfigsRecord()}),
    ):
        refuse(error, lambda records=records: dumps(records), 4 * len(name))


def test_a16_a_config_with_a_lone_surrogate_cannot_be_written():
    for value in ("\udcff", ["a", "\udcff"]):
        refuse(BadValue, lambda value=value: dumps(RecordSet(None, None, {"c": ConfigsRecord({"k": value})})), 1000)


@of("a18")
def test_a18_numbers_and_json_of_meta(name):
    check(name)


RIGHT = digest(loads(VALID))


@pytest.mark.parametrize(
    "expect",
    [
        "blake3:" + "0" * 64,
        RIGHT.upper(),
        "blake3:" + RIGHT[7:].upper(),
        RIGHT[:-1],
        RIGHT + "0",
        RIGHT + "\n",
        " " + RIGHT,
        RIGHT[7:],
        "sha256:" + RIGHT[7:],
        "blake2b:" + RIGHT[7:],
        "",
        "\x1b[31m\u202e" * 1000,
        "blake3:" + "\uff10" * 64,
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_a20_digest(expect, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(VALID)
    refuse(DigestMismatch, lambda: loads(VALID, expect=expect), len(VALID))
    refuse(DigestMismatch, lambda: load(path, expect=expect), len(VALID))


def test_a20_the_right_digest(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(VALID)
    assert loads(VALID, expect=RIGHT) == load(path, expect=RIGHT) == loads(VALID)


def test_a20_the_digest_comes_before_the_container():
    broken = VALID[:-1]
    refuse(DigestMismatch, lambda: loads(broken, expect=RIGHT), len(VALID))


def test_a20_any_other_byte_is_another_digest():
    for place in range(len(VALID)):
        other = bytearray(VALID)
        other[place] ^= 1
        with pytest.raises(DigestMismatch):
            loads(other, expect=RIGHT)


def test_a20_a_digest_of_another_type_is_refused():
    for expect in (RIGHT.encode(), 7):
        refuse(RecordTypeError, lambda expect=expect: loads(VALID, expect=expect), len(VALID))


def test_any_buffer_of_the_same_bytes_is_the_same_container(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(VALID)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for data in (bytearray(VALID), memoryview(VALID), memoryview(b"x" + VALID)[1:], np.frombuffer(VALID, np.int8)):
            assert loads(data) == loads(VALID)
        records = loads(mapped)
        assert records == loads(VALID)
        del records


@pytest.mark.parametrize("data", [None, "text", 7, [1, 2], memoryview(VALID)[::2], np.zeros((4, 4)).T[:, :2]], ids=type)
def test_what_is_no_buffer_is_refused(data):
    refuse(RecordTypeError, lambda: loads(data), 1000)


def test_w_is_the_entry_of_the_valid_file():
    assert W.encode() in VALID
