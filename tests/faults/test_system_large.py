"""A blob of 8 GiB passes through a server into a file, with the memory of neither side knowing of it."""

import mmap
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from blake3 import blake3

from system import federating, own_memory

GIBIBYTE = 2**30
SIZE = 8 * GIBIBYTE
MOST = 64 * 2**20  # bytes of memory of its own that a side may take


class Highest:
    """The highest memory that was seen of some processes above what they had at first."""

    def __init__(self, *pids):
        self.first = {pid: own_memory(pid) for pid in pids}
        self.most = dict.fromkeys(pids, 0)
        self.calls = 0

    def __call__(self, _):
        self.calls += 1
        if self.calls % 64 == 0:
            for pid, first in self.first.items():
                self.most[pid] = max(self.most[pid], own_memory(pid) - first)


def generated(path, size):
    """A file of so many bytes, no two blocks of which are equal, with its digest."""
    hasher, seed = blake3(), blake3(b"large")
    with path.open("wb") as file:
        for begin in range(0, size, 64 * 2**20):
            data = seed.digest(min(64 * 2**20, size - begin), seek=begin)
            hasher.update(data)
            file.write(data)
    return f"blake3:{hasher.hexdigest()}"


@pytest.mark.slow
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "tls"])
def test_a_blob_of_eight_gibibytes(plain):
    with tempfile.TemporaryDirectory(prefix="umbel-large-") as name:
        folder = Path(name)
        if shutil.disk_usage(folder).free < 4 * SIZE:
            pytest.skip("there is not room for three copies here")
        _pass_through(folder, plain)


def _pass_through(folder, plain):
    sent, came = folder / "sent", folder / "came"
    digest = generated(sent, SIZE)
    with federating(folder, nodes=[], plain=plain) as federation:
        seen = Highest(os.getpid(), federation.serving.process.pid)

        async def there(client):
            with sent.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
                view = memoryview(data)
                await client.put_blob(digest, view, progress=seen)
                view.release()

        federation.ask(there)
        sent.unlink()
        assert federation.ask(lambda client: client.get_blob(digest, came, progress=seen)) == SIZE
        assert came.stat().st_size == SIZE
        print({pid: most / 2**20 for pid, most in seen.most.items()})
        assert max(seen.most.values()) < MOST
