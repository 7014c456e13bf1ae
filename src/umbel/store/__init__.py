"""What a server keeps: blobs, named by digest, and the ledger of everything that happened.

Operations on the ledger are functions in ``members``, ``runs``, ``messages``, ``replies``, ``references`` and ``audit``;
each takes a connection first, so that several make one transaction. ``docs/spec/storage.md`` says what is on the disk.
"""

from umbel.store._ledger import Ledger

__all__ = ["Ledger"]
