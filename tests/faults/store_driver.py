"""A process that uses a store until something kills it: ``python store_driver.py WHAT FOLDER LEDGER_URL [FAILPOINT]``.

It prints a line once what the line names is durable, and is the same whenever it is started again.
"""

import sys
from collections import deque
from pathlib import Path

from umbel.envelope import Part
from umbel.errors import UmbelError
from umbel.failpoint import arm
from umbel.store import DirectoryBlobs, Ledger, Uploads, audit, collect, references
from umbel.store._blobs import part_of
from umbel.testing._scene import NOW, submit

ENTRIES = 40
OUTSTANDING = 4
BLOBS = 6
SIZE = 100_000


def say(line):
    print(line, flush=True)


def blob(number):
    return bytes([number]) * SIZE


def write(ledger, _):
    """Append entries to the audit log, a few at a time, going on where an earlier process ended."""
    waiting = deque()
    done = ledger.read(audit.verify)
    for number in range(done + 1, ENTRIES + 1):
        try:
            waiting.append(ledger.write(lambda c, n=number: audit.append(c, actor="a", action=f"{n}", now=NOW)))
        except UmbelError as error:
            settle(waiting)  # so that what is said stands in the order of the entries
            say(f"refused {error.code}")
        if len(waiting) == OUTSTANDING:
            settle([waiting.popleft()])
    settle(waiting)


def settle(waiting):
    """Say what became of entries, which are none that wait then."""
    for future in waiting:
        try:
            say(f"entry {future.result().seq}")
        except UmbelError as error:
            say(f"refused {error.code}")
    waiting.clear()


def put(_, folder):
    """Put blobs."""
    blobs = DirectoryBlobs(folder / "blobs")
    for number in range(BLOBS):
        say(f"blob {blobs.put([blob(number)]).digest}")


def upload(_, folder):
    """Upload blobs, in pieces, each from where an earlier process ended."""
    blobs = DirectoryBlobs(folder / "blobs")
    uploads = Uploads(folder / "staging", blobs)
    for number in range(BLOBS):
        part: Part = part_of([blob(number)])
        if blobs.has(part.digest) is None:
            with uploads.begin(part.digest, part.size) as begun:
                rest = memoryview(blob(number))[begun.offset :]
                for start in range(0, len(rest), 30_000):
                    begun.append(rest[start : start + 30_000])
                begun.finish()
        say(f"blob {part.digest}")


def garbage(ledger, folder):
    """Put blobs, of which a run needs every second, and collect the others."""
    blobs = DirectoryBlobs(folder / "blobs")
    parts = [blobs.put([blob(number)]) for number in range(BLOBS)]
    run = submit(ledger, f"user {ledger.read(audit.verify)}").id
    needed = {part.digest: part.size for part in parts[::2]}
    ledger.write(lambda c: references.hold(c, run, "state", needed, present=blobs.has)).result()
    ledger.write(lambda c: audit.append(c, actor="a", action="held", now=NOW)).result()
    for digest in needed:
        say(f"blob {digest}")
    seen = collect(ledger, blobs).seen
    collect(ledger, blobs, seen=seen)


def main():
    what, folder, url, *failpoints = sys.argv[1:]
    for each in failpoints:
        arm(each)
    with Ledger.open(url) as ledger:
        {"write": write, "put": put, "upload": upload, "garbage": garbage}[what](ledger, Path(folder))
    say("closed")


if __name__ == "__main__":
    main()
