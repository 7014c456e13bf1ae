"""A federation over the network that does not mind being killed, by itself, in under a minute.

One server, two nodes and a user, each a process of its own, with TLS between them: the commands are those that one
would type on four machines. In the middle of the run the server is killed, with no chance to say goodbye, and started
again. The model at the end is, bit for bit, the one that `umbel run` trains in a single process.

    python examples/network/demo.py
"""

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

APP = Path(__file__).resolve().parent.parent / "rand_health"
SITES = ("site-1", "site-2")
KILLED_AFTER = 10  # rounds of thirty
UMBEL = str(Path(sys.executable).with_name("umbel"))

Process = subprocess.Popen[str]


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="umbel-network-") as name:
        folder = Path(name)
        os.environ["UMBEL_CONFIG_DIR"] = str(folder / "config")
        with umbel("run", ".", "--nodes", len(SITES), "--runs", folder / "alone", "--json") as alone:
            expected = digest_of(events(alone))
        print(f"  {expected}  in one process\n")
        found = federate(folder)
    print(f"  {found}  over the network\n")
    print("The same bytes." if found == expected else "These differ, and should not: please report it.")
    return int(found != expected)


def federate(folder: Path) -> str:
    """Train the same app over a server and two nodes, kill the server once, and return the digest of the model."""
    # A port that is free now, so that the same command line finds it again.
    serve = ("server", "--data", folder / "server", "--name", "127.0.0.1", "--port", free_port(), "--json")
    with umbel(*serve) as server:
        about = next(event for event in events(server) if "joins" in event)
        with umbel(*node(folder, about, 0)), umbel(*node(folder, about, 1)):
            ask = ("run", ".", "--server", about["url"], "--nodes", ",".join(SITES), "--runs", folder / "runs", "--json")
            with umbel(*ask) as user:
                told = events(user)
                wait_for_round(told, KILLED_AFTER)
                server.kill()
                server.wait()
                print(f"  round {KILLED_AFTER} of 30 is complete, and the server is killed; the same command starts it again")
                with umbel(*serve):
                    return digest_of(told)


def node(folder: Path, about: dict[str, Any], number: int) -> tuple[object, ...]:
    site = SITES[number]
    return ("node", "--join", about["joins"][number], "--app", "app:app", "--name", site, "--data", folder / site)


@contextmanager
def umbel(*arguments: object) -> Iterator[Process]:
    """Start a command in the folder of the app; it ends with the block."""
    command = [UMBEL, *map(str, arguments)]
    print(f"$ umbel {shlex.join(command[1:])}", flush=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=APP) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def events(process: Process) -> Iterator[dict[str, Any]]:
    """Yield what a command prints: JSON, a line each."""
    if process.stdout is not None:
        yield from map(json.loads, process.stdout)
    raise RuntimeError(f"the command ended early, with status {process.wait()}")


def wait_for_round(told: Iterator[dict[str, Any]], number: int) -> None:
    next(event for event in told if event.get("event") == "round-completed" and event["round"] == number)


def digest_of(told: Iterator[dict[str, Any]]) -> str:
    return str(next(event["digest"] for event in told if event.get("event") == "run-saved"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
