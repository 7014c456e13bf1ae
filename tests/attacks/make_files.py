"""Write the hand-made files in `files/`: ``python tests/attacks/make_files.py``.

Every file is a container that must be refused; its name begins with the class of malformed input that it stands for.
The table says with which error. Classes whose files would be large are made in the tests.
"""

from pathlib import Path

from forge import ONE_ARRAY, W, container, entry, framed, header, meta, model
from umbel.errors import (
    BadDtype,
    BadHeader,
    BadLength,
    BadName,
    BadOffsets,
    BadShape,
    BadValue,
    DuplicateName,
    HeaderTooLarge,
    LimitExceeded,
    RecordError,
    TooDeep,
    TrailingBytes,
    Truncated,
)

FOLDER = Path(__file__).parent / "files"
VALID = model(W)
HEADER = header(ONE_ARRAY, W)


def with_length(length: int) -> bytes:
    return length.to_bytes(8, "little") + VALID[8:]


def entries(**members: str) -> bytes:
    """Return a container with the arrays "a" and "b" of 4 bytes, and with other entries where they are given."""
    usual = {"a": entry("a", "F32", "1", 0, 4), "b": entry("b", "F32", "1", 4, 8)} | members
    return container(meta('[["model",["a","b"]]]'), *filter(None, usual.values()), payload=bytes(8))


def offsets(text: str) -> bytes:
    return model(f'"w":{{"dtype":"F32","shape":[2,3],"data_offsets":[{text}]}}')


def shape(text: str) -> bytes:
    return model(f'"w":{{"dtype":"F32","shape":[{text}],"data_offsets":[0,24]}}')


def dtype(name: str) -> bytes:
    return model(entry("w", name, "2,3", 0, 24))


def opaque(said: str, size: int = 24, *, kind: str = "U8", dims: str = "24") -> bytes:
    return container(meta(f'[["model",[{said}]]]'), entry("w", kind, dims, 0, size), payload=bytes(size))


def metric(value: str) -> bytes:
    return container(meta(metrics=f'[["m",[["a",{value}]]]]'))


def config(value: str) -> bytes:
    return container(meta(configs=f'[["c",[["a",{value}]]]]'))


def named(text: str) -> bytes:
    """Return a container with an array called ``text``, which is written as JSON."""
    return container(meta(f'[["model",[{text}]]]'), f'{text}:{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}')


Case = tuple[type[RecordError], bytes]

SHORT: dict[str, Case] = {
    "a01-empty": (Truncated, b""),
    "a01-one-byte": (Truncated, VALID[:1]),
    "a01-seven-bytes": (Truncated, VALID[:7]),
    "a01-length-only": (Truncated, VALID[:8]),
    "a01-payload-cut": (Truncated, VALID[:-1]),
    "a02-length-all-ones": (HeaderTooLarge, with_length(2**64 - 1)),
    "a02-length-sign-bit": (HeaderTooLarge, with_length(2**63)),
    "a02-length-over-limit": (HeaderTooLarge, with_length(2**24 + 1)),
    "a02-length-limit-beyond-end": (Truncated, with_length(2**24 - 8)),
    "a02-length-beyond-end": (Truncated, with_length(len(VALID) - len(VALID) % 64 + 56)),
    "a02-length-zero": (BadLength, with_length(0)),
    "a02-length-one-more": (BadLength, with_length(len(VALID) - 8 - 24 + 1)),
    "a02-length-too-short": (BadHeader, with_length(56)),
    "a02-padding-of-64-more": (BadHeader, framed(HEADER + b" " * 64, bytes(24))),
    "a02-padding-of-tabs": (BadHeader, VALID.replace(b"} ", b"}\t")),
    "a02-padding-of-nuls": (BadHeader, VALID.replace(b"}  ", b"}\0 ")),
}

JSON: dict[str, Case] = {
    "a04-brackets": (TooDeep, framed(b"[" * 100_000)),
    "a04-braces": (TooDeep, framed(b'{"a":' * 2_000)),
    "a04-in-meta": (TooDeep, container(meta("[" * 10_000))),
    "a04-in-metric": (TooDeep, metric("[" * 600 + "]" * 600)),
    "a04-in-shape": (TooDeep, shape("[" * 5_000)),
    "a04-after-entries": (TooDeep, model(W + ',"x":' + "[" * 5_000)),
    "a04-list-in-list": (BadHeader, metric("[[1]]")),
    "a05-array-twice": (DuplicateName, container(meta('[["model",["w","w"]]]'), W, payload=bytes(24))),
    "a05-entry-twice": (DuplicateName, entries(b=entry("a", "F32", "1", 4, 8))),
    "a05-entry-twice-same-bytes": (BadOffsets, entries(b=entry("a", "F32", "1", 0, 4))),
    "a05-record-twice": (DuplicateName, container(meta('[["r",[]],["r",[]]]'))),
    "a05-metrics-record-twice": (DuplicateName, container(meta(metrics='[["r",[]],["r",[]]]'))),
    "a05-configs-record-twice": (DuplicateName, container(meta(configs='[["r",[]],["r",[]]]'))),
    "a05-metric-twice": (DuplicateName, container(meta(metrics='[["r",[["a",1],["a",1]]]]'))),
    "a05-config-twice": (DuplicateName, container(meta(configs='[["r",[["a",1],["a",2]]]]'))),
    "a05-key-in-entry": (BadHeader, model(W.replace('"dtype":"F32"', '"dtype":"F32","dtype":"F32"'))),
    "a05-key-in-meta": (BadHeader, container(meta().replace('"version":1', '"version":1,"version":1'))),
    "a05-metadata-twice": (BadHeader, framed(HEADER[:-1] + b',"__metadata__":{"umbel":""}}', bytes(24))),
    "a05-umbel-twice": (BadHeader, framed(HEADER.replace(b'"},"w"', b'","umbel":""},"w"'), bytes(24))),
    "a08-one-byte-more": (TrailingBytes, VALID + b"\0"),
    "a08-zip-behind": (TrailingBytes, VALID + b"PK\5\6" + bytes(18)),
    "a08-zip-before": (HeaderTooLarge, b"PK\3\4" + bytes(26) + VALID),
    "a08-pdf-before": (HeaderTooLarge, b"%PDF-1.7\n" + VALID),
    "a08-space-before-header": (BadHeader, framed(b" " + HEADER, bytes(24))),
    "a08-mark-before-header": (BadHeader, framed(b"\xef\xbb\xbf" + HEADER, bytes(24))),
    "a08-after-header": (BadHeader, framed(HEADER + b"{}", bytes(24))),
    "a08-space-behind-meta": (BadHeader, container(ONE_ARRAY + " ", W, payload=bytes(24))),
    "a08-newline-behind-meta": (BadHeader, framed(HEADER.replace(b'}"}', b'}\\n"}'), bytes(24))),
    "a08-white-space": (BadHeader, framed(HEADER.replace(b",", b", "), bytes(24))),
    "a08-foreign-safetensors": (
        BadHeader,
        framed(b'{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}', bytes(24)),
    ),
    "a08-foreign-metadata": (BadHeader, framed(b'{"__metadata__":{"format":"pt"}}')),
    "a08-second-metadata-key": (BadHeader, framed(HEADER.replace(b'"},"w"', b'","format":"pt"},"w"'), bytes(24))),
}

LAYOUT: dict[str, Case] = {
    "a06-entries-permuted": (
        BadHeader,
        entries(a=entry("b", "F32", "1", 0, 4), b=entry("a", "F32", "1", 4, 8)),
    ),
    "a06-small-before-large": (
        BadHeader,
        container(
            meta('[["model",["a","b"]]]'), entry("a", "U8", "1", 0, 1), entry("b", "F32", "1", 1, 5), payload=bytes(5)
        ),
    ),
    "a06-members-permuted": (BadHeader, model('"w":{"shape":[2,3],"dtype":"F32","data_offsets":[0,24]}')),
    "a07-overlap": (BadOffsets, entries(b=entry("b", "F32", "1", 0, 4))),
    "a07-hole": (BadOffsets, entries(b=entry("b", "F32", "1", 5, 9))),
    "a07-not-from-zero": (BadOffsets, offsets("1,25")),
    "a07-reversed": (BadOffsets, offsets("24,0")),
    "a07-negative": (BadOffsets, offsets("-24,0")),
    "a07-minus-zero": (BadOffsets, offsets("-0,24")),
    "a07-beyond-end": (BadOffsets, offsets("0,25")),
    "a07-over-2-53": (BadOffsets, offsets(f"0,{2**53}")),
    "a07-over-2-64": (BadOffsets, offsets(f"0,{2**64 + 24}")),
    "a07-fraction": (BadOffsets, offsets("0.0,24")),
    "a07-exponent": (BadOffsets, offsets("0,24e0")),
    "a07-leading-zero": (BadOffsets, offsets("0,024")),
    "a07-bool": (BadOffsets, offsets("false,24")),
    "a07-text": (BadOffsets, offsets('"0","24"')),
    "a07-null": (BadOffsets, offsets("null,24")),
    "a07-one": (BadOffsets, offsets("24")),
    "a07-three": (BadOffsets, offsets("0,24,24")),
    "a07-none": (BadOffsets, offsets("")),
    "a07-nested": (BadHeader, offsets("[0,24]")),
    "a09-negative": (BadShape, shape("-2,-3")),
    "a09-minus-one": (BadShape, shape("-1")),
    "a09-2-63": (BadShape, shape(f"{2**63}")),
    "a09-product-overflows": (BadShape, shape(f"{2**32},{2**32}")),
    "a09-product-wraps-to-six": (BadShape, shape(f"6,{2**62},4")),
    "a09-zero-and-huge": (BadShape, container(ONE_ARRAY, entry("w", "F32", f"0,{2**63},{2**63}", 0, 0))),
    "a09-rank-33": (BadShape, shape(",".join(["1"] * 33))),
    "a09-rank-65": (BadShape, shape(",".join(["1"] * 65))),
    "a09-rank-1000": (BadShape, shape(",".join(["10"] * 1000))),
    "a09-bool": (BadShape, shape("true,24")),
    "a09-fraction": (BadShape, shape("2.0,3")),
    "a09-leading-zero": (BadShape, shape("02,3")),
    "a09-text": (BadShape, shape('"2","3"')),
    "a09-opaque-negative": (BadHeader, opaque('["w","own","float32",[-1]]')),
    "a09-opaque-rank-33": (BadHeader, opaque(f'["w","own","float32",[{",".join(["1"] * 33)}]]')),
    "a09-opaque-overflow": (BadShape, opaque(f'["w","own","float32",[{2**52},2]]')),
    "a09-opaque-entry-of-rank-2": (BadHeader, opaque('["w","own","float32",[24]]', dims="4,6")),
    "a10-unknown": (BadDtype, dtype("F128")),
    "a10-lower-case": (BadDtype, dtype("f32")),
    "a10-numpy-letter": (BadDtype, dtype("<f4")),
    "a10-long-name": (BadDtype, dtype("float32")),
    "a10-object": (BadDtype, dtype("O")),
    "a10-empty": (BadDtype, dtype("")),
    "a10-escape": (BadHeader, dtype("F\\u0033\\u0032")),
    "a10-not-text": (BadHeader, model('"w":{"dtype":32,"shape":[2,3],"data_offsets":[0,24]}')),
    "a10-raw-unknown": (BadDtype, opaque('["w","raw","object",[24]]')),
    "a10-raw-void": (BadDtype, opaque('["w","raw","void",[24]]')),
    "a10-raw-platform": (BadDtype, opaque('["w","raw","float128",[1]]', 16, dims="16")),
    "a10-native-made-opaque": (BadHeader, opaque('["w","raw","float32",[2,3]]')),
    "a10-opaque-not-bytes": (BadHeader, opaque('["w","own","float32",[24]]', kind="I8")),
    "a11-size-of-dtype": (BadOffsets, model(entry("w", "F64", "2,3", 0, 24))),
    "a11-size-of-shape": (BadOffsets, model(entry("w", "F32", "2,4", 0, 24))),
    "a11-raw-size": (TrailingBytes, opaque('["w","raw","int4",[23]]')),
    "a11-raw-too-small": (Truncated, opaque('["w","raw","complex128",[2]]')),
    "a11-entry-missing": (BadHeader, container(meta('[["model",["a","w"]]]'), W, payload=bytes(24))),
    "a11-entry-unknown": (BadHeader, container(meta('[["model",[]]]'), W, payload=bytes(24))),
    "a11-entry-of-other-record": (BadHeader, container(meta('[["r",["w"]],["s",[]]]'), W, payload=bytes(24))),
    "a12-claims-2-52-bytes": (Truncated, container(ONE_ARRAY, entry("w", "U8", f"{2**52}", 0, 2**52))),
    "a12-claims-2-53-bytes": (BadShape, container(ONE_ARRAY, entry("w", "U8", f"{2**53}", 0, 2**53))),
    "a12-claims-2-53-together": (
        BadShape,
        container(
            meta('[["model",["a","b"]]]'),
            entry("a", "U8", f"{2**52}", 0, 2**52),
            entry("b", "U8", f"{2**52}", 2**52, 2**53),
        ),
    ),
}

VALUES: dict[str, Case] = {
    "a13-bool-metric": (BadValue, metric("true")),
    "a13-bool-among-ints": (BadValue, metric("[1,true]")),
    "a13-int-among-floats": (BadValue, metric("[1.0,1]")),
    "a13-text-metric": (BadValue, metric('"1"')),
    "a13-bytes-metric": (BadValue, metric('{"bytes":"AA=="}')),
    "a13-unknown-float": (BadValue, metric('{"float":"infinity"}')),
    "a13-finite-float-as-text": (BadValue, metric('{"float":"1.0"}')),
    "a13-null": (BadHeader, config("null")),
    "a13-object": (BadHeader, config('{"a":1}')),
    "a13-no-base64": (BadValue, config('{"bytes":"A"}')),
    "a13-base64-url": (BadValue, config('{"bytes":"-_8="}')),
    "a13-base64-loose-bits": (BadHeader, config('{"bytes":"AB=="}')),
    "a13-base64-no-padding": (BadValue, config('{"bytes":"AA"}')),
    "a16-nul": (BadName, named('"a\\u0000b"')),
    "a16-newline": (BadName, named('"a\\nb"')),
    "a16-escape": (BadName, named('"\\u001b[31mred"')),
    "a16-delete": (BadName, named('"a\x7fb"')),
    "a16-next-line": (BadName, named('"a\x85b"')),
    "a16-decomposed": (BadName, named('"e\u0301"')),
    "a16-ligature-k": (BadName, named('"\u212a"')),
    "a16-lone-surrogate": (BadHeader, named('"\ud800"')),
    "a16-lone-surrogate-escaped": (BadHeader, named('"\\ud800"')),
    "a16-overlong-utf8": (BadHeader, framed(header(ONE_ARRAY, W).replace(b"model", b"m\xc0\xaf"), bytes(24))),
    "a16-latin-1": (BadHeader, framed(header(ONE_ARRAY, W).replace(b"model", b"mod\xe8l"), bytes(24))),
    "a16-replacement-key": (
        BadHeader,
        framed(header(meta('[["m",["\ufffd"]]]'), entry("?")).replace(b'"?"', b'"\xff"')),
    ),
    "a16-1025-bytes": (LimitExceeded, named('"' + "a" * 1025 + '"')),
    "a16-342-wide": (LimitExceeded, named('"' + "\u6f22" * 342 + '"')),
    "a16-record": (BadName, container(meta('[["a\\tb",[]]]'))),
    "a16-metric": (BadName, container(meta(metrics='[["m",[["a\\tb",1]]]]'))),
    "a16-stype": (BadName, opaque('["w","o\\twn","float32",[24]]')),
    "a16-dtype": (BadName, opaque('["w","own","\\u001b[31m",[24]]')),
    "a16-escaped-letter": (BadHeader, named('"\\u0061"')),
    "a16-escaped-slash": (BadHeader, named('"a\\/b"')),
    "a16-unescaped-separator": (
        BadHeader,
        container(meta('[["a/b",["w"]],["c",[]]]'), W.replace('"w"', '"a/b/w"'), payload=bytes(24)),
    ),
    "a18-nan": (BadHeader, metric("NaN")),
    "a18-infinity": (BadHeader, metric("-Infinity")),
    "a18-1e999": (BadHeader, metric("1e999")),
    "a18-5000-digits": (BadHeader, metric("1" * 5000)),
    "a18-5000-digit-version": (BadHeader, container(meta().replace('"version":1', '"version":' + "1" * 5000))),
    "a18-minus-zero": (BadHeader, metric("-0")),
    "a18-leading-zero": (BadHeader, metric("01")),
    "a18-plus": (BadHeader, metric("+1")),
    "a18-over-2-64": (BadValue, metric(f"{2**64}")),
    "a18-under-minus-2-63": (BadValue, metric(f"{-(2**63) - 1}")),
    "a18-long-fraction": (BadHeader, metric("0.1000")),
    "a18-long-float": (BadHeader, metric("0.1000000000000000055")),
    "a18-bare-exponent": (BadHeader, metric("1e5")),
    "a18-upper-exponent": (BadHeader, metric("1E+300")),
    "a18-no-fraction": (BadHeader, metric("1.")),
    "a18-denormal-to-zero": (BadHeader, metric("1e-400")),
    "a18-hex": (BadHeader, metric("0x10")),
    "a18-underscore": (BadHeader, metric("1_000")),
    "a18-arabic-digits": (BadHeader, metric("\u0661")),
    "a18-version-0": (BadHeader, container(meta().replace('"version":1', '"version":0'))),
    "a18-version-2": (BadHeader, container(meta().replace('"version":1', '"version":2'))),
    "a18-version-text": (BadHeader, container(meta().replace('"version":1', '"version":"1"'))),
    "a18-version-missing": (BadHeader, container(meta().replace('"version":1,', ""))),
    "a18-unknown-member": (BadHeader, container(meta().replace('"configs":[]', '"configs":[],"\\u001b[31m":1'))),
    "a18-member-missing": (BadHeader, container(meta().replace(',"configs":[]', ""))),
    "a18-members-permuted": (BadHeader, container('{"version":1,"metrics":[],"parameters":[],"configs":[]}')),
    "a18-utf-16": (BadHeader, framed(HEADER.decode().encode("utf-16-le"), bytes(24))),
    "a18-meta-no-text": (BadHeader, framed(b'{"__metadata__":{"umbel":{"version":1}}}')),
    "a18-meta-single-quotes": (BadHeader, framed(header(meta().replace('"', "'")))),
    "a18-meta-escaped-as-unicode": (BadHeader, framed(HEADER.replace(b'\\"', b"\\u0022"), bytes(24))),
}

CASES = SHORT | JSON | LAYOUT | VALUES


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, (_, data) in CASES.items():
        (FOLDER / f"{name}.bin").write_bytes(data)


if __name__ == "__main__":
    main()
