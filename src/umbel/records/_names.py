"""Names in a container: what is permitted, and their JSON form."""

import unicodedata

import msgspec

from umbel.errors import BadHeader, BadName, LimitExceeded
from umbel.records._brief import brief

MAX_NAME_BYTES = 1024


def check_name(name: str, at: str) -> str:
    """Return ``name`` if a container may hold it.

    Raises:
        BadName: if it is not NFC, or holds a control character or a lone surrogate.
        LimitExceeded: if it is longer than 1,024 bytes in UTF-8.

    """
    if name.isascii() and name.isprintable() and len(name) <= MAX_NAME_BYTES:
        return name
    if len(name) > MAX_NAME_BYTES:
        raise LimitExceeded(f"expected a name of at most {MAX_NAME_BYTES} bytes, got {brief(name)}...", at=at)
    reason = _fault(name)
    if reason:
        raise BadName(f"expected an NFC name without control characters, got {brief(name)}, which {reason}", at=at)
    size = len(name.encode())
    if size > MAX_NAME_BYTES:
        raise LimitExceeded(f"expected a name of at most {MAX_NAME_BYTES} bytes, got {size}", at=at)
    return name


def check_names(names: list[str], at: str) -> None:
    """Check many names at once: what is true of them joined is true of each."""
    joined = "".join(names)
    if not (joined.isascii() and joined.isprintable() and max(map(len, names), default=0) <= MAX_NAME_BYTES):
        for name in names:
            check_name(name, at)


def _fault(name: str) -> str:
    kinds = {unicodedata.category(char) for char in name}
    if "Cs" in kinds:
        return "has a lone surrogate"
    if "Cc" in kinds:
        return "has a control character"
    return "" if unicodedata.is_normalized("NFC", name) else "is not in NFC"


def quote(text: str) -> str:
    """Return the JSON string for ``text``."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    try:
        return msgspec.json.encode(text).decode()
    except UnicodeEncodeError as error:
        raise BadName(f"expected Unicode text, got {brief(text)}, which has a lone surrogate") from error


def escape(text: bytes) -> bytes:
    """Return the JSON string for UTF-8 without control characters, such as JSON itself."""
    return b'"%b"' % text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def unescape(text: bytes, at: str) -> bytes:
    """Return what ``escape`` made this of, the quotes left out, with no more than two copies in memory.

    Raises:
        BadHeader: if another character is escaped, or a control character stands there.

    """
    if b"\0" not in text:
        plain = text.replace(b"\\\\", b"\0").replace(b'\\"', b'"')
        if b"\\" not in plain:
            return plain.replace(b"\0", b"\\")
    raise BadHeader('expected nothing but " and \\ to be escaped, and no NUL', at=at)


def unquote(quoted: bytes, place: int) -> str:
    """Return the text of a JSON string, which must be in its canonical form, at byte ``place`` of the header.

    Raises:
        BadHeader: if it is no UTF-8, or escaped in another way than the canonical one.

    """
    try:
        text = quoted[1:-1].decode() if b"\\" not in quoted else msgspec.json.decode(quoted, type=str)
    except (ValueError, msgspec.DecodeError) as error:
        raise BadHeader(f"expected a JSON string in UTF-8, got {quoted[:80]!r}", at=f"header byte {place}") from error
    if b"\\" in quoted and msgspec.json.encode(text) != quoted:
        raise BadHeader(f"expected a JSON string in canonical form, got {quoted[:80]!r}", at=f"header byte {place}")
    return text
