"""Where the arrays of a record set stand in a container, and under which keys.

The writer computes this from the record set, the reader from META; both therefore agree, or the container is refused.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from umbel.errors import BadDtype
from umbel.records._array import Array
from umbel.records._brief import brief
from umbel.records._dtypes import PORTABLE
from umbel.records._shapes import check_size, count_bytes
from umbel.records._stypes import RAW

VERSION = 1
MAX_HEADER = 16 * 2**20
MAX_ARRAYS = 65_536
MAX_RECORDS = 65_536
MAX_VALUES = 262_144
MAX_DEPTH = 8
#: The data begin at a multiple of this, so that mapped payloads suit vector instructions.
DATA_ALIGNMENT = 64

#: Canonical dtype name -> its name in safetensors, for the dtypes whose bytes are the same there.
NATIVE = {
    "bool": "BOOL",
    "int8": "I8",
    "uint8": "U8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
}
DTYPE_OF = {code: name for name, code in NATIVE.items()}
_METADATA_KEY = "__metadata__"


class Spec(NamedTuple):
    """What a container says of an array, apart from its name."""

    stype: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def native(self) -> bool:
        """Whether the payload is a tensor of its own dtype, and not opaque."""
        return self.stype == RAW and self.dtype in NATIVE


class Form(NamedTuple):
    """How arrays of one spec stand in a container."""

    spec: Spec
    native: bool
    #: Bytes of the payload, or -1 where the stype alone knows.
    size: int
    #: The address of the payload should be a multiple of this.
    alignment: int


@lru_cache(maxsize=4096)
def form_of(stype: str, dtype: str, shape: tuple[int, ...]) -> Form:
    """Return the form of an array.

    Raises:
        RecordError: if the shape is out of range, or no raw payload can have the dtype.

    """
    spec = Spec(stype, dtype, shape)
    kind = PORTABLE.get(dtype)
    if stype != RAW:
        count_bytes(shape, 1)
        return Form(spec, native=False, size=-1, alignment=1 if kind is None else kind.itemsize)
    if kind is None:
        raise BadDtype(f"expected one of {', '.join(PORTABLE)} for a raw payload, got {brief(dtype)}")
    return Form(spec, spec.native, count_bytes(shape, kind.itemsize), kind.itemsize)


def check_payload(array: Array, form: Form) -> None:
    """Raise Truncated or TrailingBytes if the payload of ``array`` has not the size that its form tells."""
    if form.size not in (-1, len(array.data)):
        check_size(len(array.data), form.size, f"the raw payload of {array.dtype} {array.shape}")


def keys_of(records: Sequence[tuple[str, list[str]]]) -> list[str]:
    """Return the keys of all arrays, given the names of the arrays of each record."""
    if len(records) == 1 and _METADATA_KEY not in records[0][1]:
        return records[0][1]
    return [
        f"{prefix}/{name}"
        for prefix, names in ((record.replace("%", "%25").replace("/", "%2F"), names) for record, names in records)
        for name in names
    ]
