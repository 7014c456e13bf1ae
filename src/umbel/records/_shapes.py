"""Shapes and sizes: the checks that every payload shares."""

from umbel.errors import BadShape, TrailingBytes, Truncated
from umbel.records._brief import brief

MAX_RANK = 32
#: Offsets stay below 2**53, so that any JSON reader keeps them exact.
MAX_BYTES = 2**53


def count_bytes(shape: list[int] | tuple[int, ...], itemsize: int) -> int:
    """Return the bytes of a C-order array of ``shape``.

    Raises:
        BadShape: if the rank is over 32, a size is negative, or the product is 2**53 bytes or more. Sizes of an empty
            array count too: (0, 2**62, 2**62) is refused, because other readers overflow on it.

    """
    if len(shape) > MAX_RANK:
        msg = f"expected at most {MAX_RANK} dimensions, got {len(shape)}"
        raise BadShape(msg)
    product, bound = itemsize, itemsize
    for size in shape:
        if size < 0:
            msg = f"expected sizes of 0 or more, got shape {brief(list(shape))}"
            raise BadShape(msg)
        product *= size
        bound *= size or 1
    if bound >= MAX_BYTES:
        msg = f"expected an array of less than 2**53 bytes, got shape {brief(list(shape))}"
        raise BadShape(msg)
    return product


def check_size(found: int, expected: int, what: str) -> None:
    """Raise Truncated or TrailingBytes if ``found`` bytes are not the ``expected`` ones."""
    if found < expected:
        msg = f"{what} should have {expected} bytes of data, but ends after {found}"
        raise Truncated(msg)
    if found > expected:
        msg = f"{what} should have {expected} bytes of data, but {found - expected} more follow"
        raise TrailingBytes(msg)
