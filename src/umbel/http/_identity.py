"""Who signs: an Ed25519 private key in a file that its owner alone may read."""

import os
import stat
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from umbel.errors import UsageError
from umbel.records._files import sync_folder

_SIZE = 32


class Identity:
    """A private key; ``key`` is its public half, 32 bytes."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != _SIZE:
            raise UsageError(f"expected a private key of {_SIZE} bytes, got {len(secret)}", at="identity")
        self._private = Ed25519PrivateKey.from_private_bytes(secret)
        self.key: bytes = self._private.public_key().public_bytes_raw()

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> "Identity":
        """Make a key and write it to ``path``, which only its owner may read; the folder has to be there.

        Raises ``UsageError`` if there is a file: a key is never written over.
        """
        identity = cls(os.urandom(_SIZE))
        identity.save(path)
        return identity

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Identity":
        """Read a key.

        Raises ``UsageError`` if there is none, if others may read the file, or if it holds something else.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise UsageError("expected a private key, got no file: join the server first", at=str(path)) from None
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(descriptor).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                message = "expected a private key that its owner alone may read: chmod 600, or make a new key"
                raise UsageError(message, at=str(path))
            text = file.read(2 * _SIZE + 2)
        try:
            return cls(bytes.fromhex(text.decode("ascii").strip()))
        except ValueError:
            raise UsageError(f"expected {_SIZE} bytes in hexadecimal, got something else", at=str(path)) from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the key to ``path``, whole or not at all.

        Raises ``UsageError`` if there is a file.
        """
        target = Path(path)
        descriptor, name = tempfile.mkstemp(prefix=".key.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(self._private.private_bytes_raw().hex() + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(name, target)
        except FileExistsError:
            raise UsageError("a key is there already: it is not written over", at=str(path)) from None
        finally:
            with suppress(FileNotFoundError):
                Path(name).unlink()
        sync_folder(target.parent)

    def sign(self, data: bytes) -> bytes:
        """Return the signature of ``data``, 64 bytes."""
        return self._private.sign(data)


def rotation(member: int, audience: str) -> bytes:
    """Return what a member's new key signs, so that nobody can take a key that is not theirs."""
    return f"umbel key {member} {audience}".encode()


@lru_cache(maxsize=4096)
def _public(key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(key)


def is_signed(key: bytes, signature: bytes, data: bytes) -> bool:
    """Say whether ``signature`` is that of the owner of the public key ``key`` over ``data``."""
    try:
        _public(key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
