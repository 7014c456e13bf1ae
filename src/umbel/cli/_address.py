"""Addresses of servers as they are typed and printed: ``https://host:8443``, with ``#TOKEN`` to join.

The token is the secret of the ledger's token and the fingerprint of the server's key, parted by a point. What stands
behind ``#`` is never sent: a browser keeps it to itself as well.
"""

import base64
import binascii
import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from umbel.cli._text import safe
from umbel.errors import UsageError

PORT: Final = 8443

_SCHEMES: Final = ("https", "http")
_TOKEN: Final = re.compile(r"(?P<secret>[\w-]{8,64})(?:\.(?P<fingerprint>[\w:+/=-]{16,128}))?", re.ASCII)
_EXAMPLE: Final = "https://host:8443#TOKEN"


class Address(NamedTuple):
    """Where a server is; ``secret`` and ``fingerprint`` are those of a token, if there is one."""

    url: str
    secret: bytes = b""
    fingerprint: str = ""

    def __str__(self) -> str:
        """Return what is typed to join."""
        secret = base64.urlsafe_b64encode(self.secret).decode().rstrip("=")
        return f"{self.url}#{secret}{'.' if self.fingerprint else ''}{self.fingerprint}"


def parse_address(text: str, *, at: str = "--server") -> Address:
    """Return the parts of an address; raises ``UsageError``, which never repeats the token, if it is none."""
    shown = safe(text.partition("#")[0][:200])
    try:
        parts = urlsplit(text.strip())
        port = parts.port or PORT
    except ValueError as error:
        raise UsageError(f"expected an address such as {_EXAMPLE}, got {shown}: {error}", at=at) from None
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise UsageError(f"expected an address such as {_EXAMPLE}, got {shown}", at=at)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(f"{parts.scheme}://{host}:{port}", *_token(parts.fragment, at))


def _token(fragment: str, at: str) -> tuple[bytes, str]:
    if not fragment:
        return b"", ""
    found = _TOKEN.fullmatch(fragment)
    try:
        if found is not None:
            secret = base64.b64decode(found["secret"] + "=" * (-len(found["secret"]) % 4), altchars="-_", validate=True)
            return secret, found["fingerprint"] or ""
    except binascii.Error:
        pass
    raise UsageError(
        "expected behind # what umbel token prints, got something else: copy the whole line, within quotes", at=at
    )
