"""What is copied to join: the address of a server, with a token behind ``#``.

    https://host:8443#TOKEN
    TOKEN = base64url(version 1 | length of the secret | secret | fingerprint, 32 bytes or none | check, 4 bytes)

The check is the beginning of the BLAKE3 of what stands before it: a character that got lost is found before anything
is sent. What stands behind ``#`` is never sent to the address.
"""

import base64
import binascii
import ipaddress
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from blake3 import blake3

from umbel.errors import UsageError

#: The port of a server unless its address says another.
PORT: Final = 8443

_VERSION: Final = 1
_CHECK: Final = 4
_FINGERPRINT: Final = 32
_EXAMPLE: Final = "https://host:8443#TOKEN"


class Token(NamedTuple):
    """The secret of a join token, and the fingerprint of the server's key: 64 hexadecimal digits.

    Without a fingerprint the system's trust store decides who the server is.
    """

    secret: bytes
    fingerprint: str = ""

    def __str__(self) -> str:
        """Return the token as it is copied."""
        start = bytes((_VERSION, len(self.secret))) + self.secret + bytes.fromhex(self.fingerprint)
        return base64.urlsafe_b64encode(start + _check(start)).rstrip(b"=").decode()


def _check(data: bytes) -> bytes:
    return blake3(data).digest(_CHECK)


def read_token(text: str) -> Token:
    """Return the token that ``text`` is.

    Raises ``UsageError``, which never repeats the token, if a character is missing or wrong.
    """
    message = "expected a token as `umbel token` prints it, got one that is cut or misspelt: copy the whole line again"
    try:
        padded = text.replace("=", "?") + "=" * (-len(text) % 4)
        data = base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise UsageError(message, at="token") from None
    start, check = data[:-_CHECK], data[-_CHECK:]
    if len(start) < 2 or check != _check(start):  # noqa: PLR2004
        raise UsageError(message, at="token")
    if start[0] != _VERSION:
        raise UsageError(f"expected a token of version {_VERSION}, got {start[0]}: update this side", at="token")
    end = 2 + start[1]
    if len(start) - end not in (0, _FINGERPRINT):
        raise UsageError(message, at="token")
    return Token(start[2:end], start[end:].hex())


def join_line(url: str, token: Token) -> str:
    """Return what is copied to join the server at ``url``."""
    return f"{read_address(url)}#{token}"


def read_join_line(text: str) -> tuple[str, Token]:
    """Return the address and the token in a copied line.

    Raises ``UsageError``, which never repeats the token.
    """
    address, _, token = text.strip().partition("#")
    if not token:
        raise UsageError(f"expected {_EXAMPLE}, got no token behind #: copy the whole line, within quotes", at="token")
    return read_address(address), read_token(token)


def read_address(text: str) -> str:
    """Return the address of a server in one form: ``https://host:port``.

    Plain ``http`` is for this machine alone: anything else would send what is trained on in the open.

    Raises ``UsageError`` for anything else.
    """
    try:
        parts = urlsplit(text.strip())
        port = parts.port or PORT
    except ValueError as error:
        raise UsageError(f"expected {_EXAMPLE}, got {text!r:.200}: {error}", at="address") from None
    host = parts.hostname or ""
    bare = not parts.username and parts.path in ("", "/") and not parts.query and not parts.fragment
    if parts.scheme not in ("https", "http") or not host or not bare or not host.isascii():
        raise UsageError(f"expected {_EXAMPLE}, got {text!r:.200}", at="address")
    if parts.scheme == "http" and not is_loopback(host):
        raise UsageError(f"expected https, since {host} is not this machine; plain http is for loopback", at="address")
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine, as far as its name alone tells."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
