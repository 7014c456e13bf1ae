"""Certificates: made by the server itself, or given as files; renewed without a restart.

The fingerprint is the SHA-256 of the public key in the certificate (its SubjectPublicKeyInfo), not of the certificate:
a new certificate for the same key keeps every join token and every node that has pinned it.
"""

import datetime as dt
import hashlib
import ipaddress
import os
import re
import ssl
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from umbel.errors import UsageError
from umbel.records._files import sync_folder

#: From so many days before its end on, a certificate is worth a warning; one that the server made is made anew.
WARNING_DAYS: Final = 30.0

_HOST: Final = re.compile(r"(?:[A-Za-z0-9_*-]{1,63}\.)*[A-Za-z0-9-]{1,63}", re.ASCII)
_YEARS: Final = 10
_DAY: Final = 86_400.0

_Path: TypeAlias = str | os.PathLike[str]


class Certificate:
    """A certificate and its private key in files, as a server shows them.

    ``fingerprint`` is the SHA-256 of the public key, 64 hexadecimal digits; ``ends_at`` is in seconds since 1970.

    Raises ``UsageError`` if a file is missing, cannot be read, or the two do not belong together.
    """

    def __init__(self, certificate: _Path, key: _Path) -> None:
        self._paths = (Path(certificate), Path(key))
        self._stamp = self._stamps()
        self.context = self._loaded()
        self._describe()

    @classmethod
    def keep(cls, folder: _Path, names: Sequence[str]) -> "Certificate":
        """Return the certificate that the server has made for itself in ``folder``, for the host ``names``.

        It is made if there is none, and made anew, with the same key, if it ends within 30 days or lacks a name. It
        holds ten years: what is trusted is the key, and nothing is gained by a node that is locked out by a date.
        """
        key_path, path = Path(folder) / "server.key", Path(folder) / "server.crt"
        if not key_path.exists():
            _write(key_path, _key_bytes(ec.generate_private_key(ec.SECP256R1())))
        key = _read_key(key_path)
        if not _is_good(path, key, names):
            _write(path, _make(key, names).public_bytes(serialization.Encoding.PEM))
        return cls(path, key_path)

    def days_left(self, now: float | None = None) -> float:
        """Return in how many days the certificate ends; below ``WARNING_DAYS`` it is time to renew it."""
        return (self.ends_at - (time.time() if now is None else now)) / _DAY

    def reload(self) -> bool:
        """Show what is in the files now, if they have changed; connections that are open go on as they are.

        Returns whether they had changed. Raises ``UsageError`` if they are no good; then the old ones stay.
        """
        stamp = self._stamps()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self._loaded()  # in a context of its own first: a pair that does not fit would spoil the one in use
        self.context.load_cert_chain(*self._paths)
        self._describe()
        return True

    def _loaded(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.num_tickets = 0  # clients keep their connections; a ticket would be sent and never used
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(*self._paths, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            message = f"expected a certificate and its private key in PEM, got {reason}: check the two files"
            raise UsageError(message, at=" and ".join(map(str, self._paths))) from error
        return context

    def _describe(self) -> None:
        certificate = _read_certificate(self._paths[0])
        self.fingerprint = fingerprint_of(certificate)
        self.ends_at = certificate.not_valid_after_utc.timestamp()
        self.names = _names(certificate)

    def _stamps(self) -> tuple[object, ...]:
        try:
            found = [path.stat() for path in self._paths]
        except OSError as error:
            raise UsageError(f"expected a file, got {error.strerror}", at=str(error.filename)) from error
        return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in found)


def fingerprint_of(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate's public key, 64 hexadecimal digits."""
    key = certificate.public_key()
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def _no_password() -> str:
    raise UsageError("expected a private key without a password: a server starts by itself", at="certificate key")


def _read_certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(path.read_bytes())[0]


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise UsageError("expected the private key that the server made, got something else", at=str(path)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError("expected the private key that the server made, got one of another kind", at=str(path))
    return key


def _key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def _is_good(path: Path, key: ec.EllipticCurvePrivateKey, names: Sequence[str]) -> bool:
    try:
        found = _read_certificate(path)
    except (OSError, ValueError, IndexError):
        return False
    left = found.not_valid_after_utc.timestamp() - time.time()
    return found.public_key() == key.public_key() and left > WARNING_DAYS * _DAY and set(names) <= set(_names(found))


def _make(key: ec.EllipticCurvePrivateKey, names: Sequence[str]) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Umbel server")])
    # A day back: clocks that are a little slow must not find it to be of tomorrow.
    begin = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    public = key.public_key()
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + dt.timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def _general_name(name: str) -> x509.GeneralName:
    with suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    if not _HOST.fullmatch(name):
        raise UsageError(f"expected a host name or an IP address, got {name!r:.80}", at="names of the certificate")
    return x509.DNSName(name)


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = found.get_values_for_type(x509.IPAddress)
    return (*found.get_values_for_type(x509.DNSName), *map(str, addresses))


def _write(path: Path, data: bytes) -> None:
    """Write a file that its owner alone may read, whole or not at all."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        # Whatever happened, an interrupt included, no half file may stay.
        with suppress(OSError):
            Path(name).unlink()
        raise
    sync_folder(path.parent)
