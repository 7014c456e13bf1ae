"""Which servers a client trusts: the one whose key a token names, or those that the system vouches for."""

import asyncio
import datetime as dt
import ssl
from typing import Any, Final

import aiohttp
from cryptography import x509

from umbel.errors import (
    CertificateExpired,
    CertificateNotYetValid,
    NotTls,
    TlsError,
    UnknownIssuer,
    UsageError,
    WrongFingerprint,
    WrongName,
)
from umbel.http._certificate import fingerprint_of

_DIGITS: Final = 64
_TIME: Final = "%Y-%m-%d %H:%M UTC"
# What OpenSSL calls these, in `SSLCertVerificationError.verify_code`.
_VERIFY: Final[dict[int, type[TlsError]]] = {
    9: CertificateNotYetValid,
    10: CertificateExpired,
    62: WrongName,
    64: WrongName,
}
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG")


class Pin(aiohttp.Fingerprint):
    """Trusts one public key. What OpenSSL checks by itself is that the server has its private half."""

    def __init__(self, fingerprint: str) -> None:
        if len(fingerprint) != _DIGITS or not set(fingerprint) <= set("0123456789abcdef"):
            raise UsageError(f"expected a fingerprint of {_DIGITS} hexadecimal digits, got another", at="fingerprint")
        super().__init__(bytes.fromhex(fingerprint))
        self._expected = fingerprint

    def check(self, transport: asyncio.Transport) -> None:
        """Look at the certificate of a new connection, before anything is sent.

        Raises ``TlsError`` of the kind that says what is wrong; the connection is then closed.
        """
        try:
            data = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
            _check_pinned(x509.load_der_x509_certificate(data), self._expected)
        except TlsError:
            transport.abort()
            raise


def _check_pinned(certificate: x509.Certificate, expected: str) -> None:
    got = fingerprint_of(certificate)
    if got != expected:
        message = (
            f"expected the server whose key is {expected[:16]}..., got one whose key is {got[:16]}...: somebody may be "
            "in between; if the operator has changed the key on purpose, join with a new token"
        )
        raise WrongFingerprint(message, at="certificate")
    now, begin, end = dt.datetime.now(dt.UTC), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end:
        message = f"expected a certificate that is valid, got one that ended on {end:{_TIME}}: renew it, with its key"
        raise CertificateExpired(message, at="certificate")
    if now < begin:
        message = f"expected a certificate that is valid, got one that begins on {begin:{_TIME}}: check the clocks"
        raise CertificateNotYetValid(message, at="certificate")


def trust(fingerprint: str) -> Any:
    """Return what aiohttp takes as ``ssl``: a pin, or the system's trust store."""
    if fingerprint:
        return Pin(fingerprint)
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def tls_error(error: BaseException | None, url: str) -> TlsError | None:
    """Return what a failed handshake means, ``None`` if it was not about TLS."""
    if isinstance(error, aiohttp.ClientError):
        return None  # some of aiohttp's are errors of ssl by name alone; what they were made from has the reason
    if isinstance(error, ssl.SSLCertVerificationError):
        kind = _VERIFY.get(error.verify_code, UnknownIssuer)
        advice = _ADVICE[kind]
        return kind(f"expected a certificate that this system trusts, got: {error.verify_message}; {advice}", at=url)
    if isinstance(error, ssl.SSLError):
        if error.reason in _NO_TLS:
            message = (
                "expected a server that speaks TLS, got something else: is this its port, and does it run with TLS?"
            )
            return NotTls(message, at=url)
        return TlsError(f"expected a TLS connection, got {error.reason or error}: run umbel doctor", at=url)
    return None


_ADVICE: Final[dict[type[TlsError], str]] = {
    CertificateNotYetValid: "check this machine's clock",
    CertificateExpired: "the operator has to renew it",
    WrongName: "use the name that it is for, or join with a token, which pins its key",
    UnknownIssuer: "join with a token, which pins its key, or add the issuer to the system's trust store",
}
