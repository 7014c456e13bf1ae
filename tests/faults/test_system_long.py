"""A run of many rounds: nothing grows with it but the ledger, by so many bytes a round, and that can be kept short."""

import os
import re
import sqlite3
from pathlib import Path

import pytest

from federation import wait_for
from system import federating, own_memory, submit

#: Bytes of the ledger for a round of two nodes that train and evaluate: its report, and four messages with replies.
ROUND = 3_500
#: With ``keep``, the report alone is left.
KEPT_ROUND = 1_400
MEBIBYTE = 2**20


def figures(federation):
    """Memory in bytes, descriptors and threads of the server."""
    folder = Path(f"/proc/{federation.serving.process.pid}")
    threads = re.search(r"Threads:\s+(\d+)", (folder / "status").read_text())[1]
    return own_memory(federation.serving.process.pid), len(os.listdir(folder / "fd")), int(threads)  # noqa: PTH208


def ledger_bytes(federation):
    """The bytes of the ledger's pages that are in use, those included that stand in its log still."""
    ledger = sqlite3.connect(f"file:{federation.folder}/server/ledger.db?mode=ro", uri=True)
    found = {
        name: ledger.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    }
    ledger.close()
    return (found["page_count"] - found["freelist_count"]) * found["page_size"]


def completed(federation, run, number):
    def rows():
        return federation.call("list_runs").runs  # small, however long a run is

    wait_for(lambda: next(row for row in rows() if row.run == run).completed >= number, f"{number} rounds", 900)


def growth(samples):
    """By how much the middle of the last third is above the middle of the first."""
    third = len(samples) // 3
    first, last = sorted(samples[:third]), sorted(samples[-third:])
    return last[len(last) // 2] - first[len(first) // 2]


def long_run(federation, rounds, every):
    """Figures at every so many rounds of a run, and the bytes of the ledger for a round in its second half."""
    run = submit(federation, rounds=rounds)
    taken = []
    for number in range(every, rounds + 1, every):
        completed(federation, run, number)
        taken.append((*figures(federation), ledger_bytes(federation)))
    federation.completed(run, 60)
    middle = len(taken) // 2
    return taken, (taken[-1][3] - taken[middle][3]) / ((len(taken) - 1 - middle) * every)


@pytest.mark.parametrize(("keep", "most"), [(None, ROUND), (5, KEPT_ROUND)])
def test_sixty_rounds(tmp_path, keep, most):
    with federating(tmp_path, server={"keep": keep}) as federation:
        _warm_up(federation)
        before = figures(federation)
        taken, per_round = long_run(federation, 60, 10)
        memory, descriptors, threads, _ = (max(each) for each in zip(*taken, strict=True))
        assert memory < before[0] + 12 * MEBIBYTE
        assert descriptors <= before[1] + 8
        assert threads <= before[2] + 6
        assert per_round < most


def _warm_up(federation):
    federation.completed(submit(federation, rounds=20))


@pytest.mark.slow
@pytest.mark.parametrize(("keep", "most"), [(None, ROUND), (5, KEPT_ROUND)])
def test_two_thousand_rounds(tmp_path, keep, most):
    with federating(tmp_path, server={"keep": keep}) as federation:
        _warm_up(federation)
        taken, per_round = long_run(federation, 2_000, 50)
        # The events of 600 rounds are kept in memory, for whoever watches.
        memory, descriptors, threads, _ = map(list, zip(*taken[12:], strict=True))
        print(f"{per_round:.0f} bytes a round; memory {memory[0]} to {memory[-1]}")
        assert growth(memory) < 4 * MEBIBYTE
        assert growth(descriptors) <= 1
        assert growth(threads) <= 1
        assert per_round < most
        assert len(federation.view(2).reports) == 2_000
        assert len({asked.round for asked in federation.view(2).questions}) == (keep or 2_000)
