"""A thousand nodes at one server: what they cost when idle, and when each is asked something tiny."""

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from _deploy_rounds import HERE, Cluster, federation, model, wait_ended, wait_online
from _figures import Figure, at_most
from _processes import anonymous, cpu_seconds
from _turns import PATIENCE

from umbel.http import wire


@contextmanager
def crowd(cluster: Cluster, count: int, then: str) -> Iterator[int]:
    """Start so many nodes in one process of their own, and yield that process."""
    here, about = cluster.here, cluster.here.about
    secret = here.call("make_token", wire.TokenRequest(uses=count)).secret.hex()
    told = {"url": about.url, "fingerprint": about.fingerprint, "secret": secret, "count": count, "then": then}
    command = [sys.executable, str(HERE / "_many_nodes.py"), json.dumps(told)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        if not select.select([process.stdout], [], [], PATIENCE)[0] or not process.stdout.readline():
            raise RuntimeError("expected nodes that join, got none: see above")
        wait_online(here, count)
        time.sleep(2)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def many(count: int, rounds: int, *, seconds: float) -> list[Figure]:
    """All of them at once, over TLS."""
    figures = []
    with federation(0, tls=True) as cluster:
        server, before = cluster.server, anonymous(cluster.server)
        with crowd(cluster, count, "answer"):
            held = anonymous(server) - before
            figures += [at_most(f"{count:,} idle nodes, TLS: server memory each", held / 1024 / count, "KiB", 64)]
            begun = cpu_seconds([server])
            time.sleep(seconds)
            share = 100 * (cpu_seconds([server]) - begun) / seconds
            figures += [at_most(f"{count:,} idle nodes, TLS: server", share, "% core", 2)]
            begun = cpu_seconds([server])
            view = wait_ended(cluster.here, cluster.here.submit(model(36, 1), nodes=count, rounds=rounds))
            spent = cpu_seconds([server]) - begun
        taken = median(sum(report["seconds"].values()) for report in view.reports)
        figures += [
            at_most(f"{count:,} nodes, 9 floats, TLS: a round", taken, "s", 5),
            Figure(
                f"{count:,} nodes, 9 floats, TLS: server, a message and its reply",
                1e3 * spent / rounds / count,
                "CPU ms",
            ),
        ]
    return [*figures, *handing_out(count)]


def handing_out(count: int) -> Iterator[Figure]:
    """To plan a message and to answer the poll that waits for it; and the same with the poll that follows."""
    label = f"{count:,} nodes, TLS: server, to hand out a message"
    yield at_most(label, 1e3 * handed_out(count, "rest"), "CPU ms", 0.2)
    yield Figure(f"{label}, and to take the next poll", 1e3 * handed_out(count, "poll"), "CPU ms")


def handed_out(count: int, then: str) -> float:
    """Return the CPU seconds of the server for each message, with nodes that keep what they get."""
    with federation(0, tls=True) as cluster, crowd(cluster, count, then):
        begun = cpu_seconds([cluster.server])
        cluster.here.submit(model(36, 1), nodes=count, rounds=1)
        time.sleep(3 + count / 200)  # until all have it
        return (cpu_seconds([cluster.server]) - begun) / count
