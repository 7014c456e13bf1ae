"""Addresses of servers as people type them."""

from typing import Final

from umbel.cli._text import safe
from umbel.errors import UsageError
from umbel.http import Token, read_address, read_join_line

_TLS: Final = "https://"
_PLAIN: Final = "http://"


def typed_address(text: str) -> str:
    """Return the address of a server in one form; one that says neither https nor http is meant to be https.

    Raises ``UsageError``, with what to type instead.
    """
    try:
        return read_address(_with_scheme(text))
    except UsageError as error:
        if text.lower().startswith(_PLAIN):
            raise UsageError(f"{error.message}; try {_TLS}{safe(text[len(_PLAIN) :])}") from None
        if "#" in text:
            raise UsageError("expected an address, got one with a token behind it: leave out # and the rest") from None
        raise UsageError(f"expected the address of a server, such as {_TLS}host:8443, got {text!r:.200}") from None


def typed_join_line(text: str) -> tuple[str, Token]:
    """Return the address and the token in a copied line.

    Raises ``UsageError``, which never repeats the token; also for plain HTTP to a server whose key the token names.
    """
    address, _, secret = text.strip().partition("#")
    url = typed_address(address)
    token = read_join_line(f"{url}#{secret}")[1]
    if token.fingerprint and url.startswith(_PLAIN):
        right = f"{_TLS}{url[len(_PLAIN) :]}"
        raise UsageError(f"expected https, since the token is for a server with TLS, got {url}: say {right}#TOKEN")
    return url, token


def _with_scheme(text: str) -> str:
    return text if "://" in text else f"{_TLS}{text.strip()}"
