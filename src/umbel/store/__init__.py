"""What a server keeps: blobs, named by digest, and the ledger of everything that happened.

Operations on the ledger are functions in ``members``, ``runs``, ``messages``, ``replies``, ``references`` and
``audit``; each takes a connection first, so that several make one transaction. ``docs/spec/storage.md`` says what is on
the disk.
"""

from umbel.store._blobs import Blobs, DirectoryBlobs, here, verify
from umbel.store._collect import Collected, collect
from umbel.store._ledger import Ledger
from umbel.store._objects import ObjectBlobs
from umbel.store._uploads import Upload, Uploads

__all__ = [
    "Blobs",
    "Collected",
    "DirectoryBlobs",
    "Ledger",
    "ObjectBlobs",
    "Upload",
    "Uploads",
    "collect",
    "here",
    "verify",
]
