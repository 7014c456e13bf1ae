"""JSON columns: frozen values in, the same frozen values out."""

from functools import cache
from typing import Any, Final

import msgspec

from umbel.errors import LedgerDamaged

_ENCODER: Final = msgspec.json.Encoder()
_REASON_MAX: Final = 4_000


def packed(value: object) -> str:
    """Return a value as JSON text."""
    return _ENCODER.encode(value).decode()


def unpacked(text: str, kind: Any, at: str) -> Any:
    """Return the value of a type that ``packed`` wrote; ``at`` names the column.

    Raises ``LedgerDamaged`` for any other text.
    """
    try:
        return _decoder(kind).decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise LedgerDamaged(
            f"expected the JSON that this ledger was given, got something else: {error}: restore a backup", at=at
        ) from error


@cache
def _decoder(kind: Any) -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(kind)


def legible(reason: str) -> str:
    """Return a reason as any database keeps it: without NUL and lone surrogates, at most 4,000 characters."""
    return reason[:_REASON_MAX].replace("\0", "\ufffd").encode(errors="replace").decode()
