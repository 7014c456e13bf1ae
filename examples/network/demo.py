"""A federation over the network that does not mind being killed, by itself, in under a minute.

One server, two nodes and a user, each a process of its own, with TLS between them: the commands are those that one
would type on four machines. In the middle of the run the server is killed, with no chance to say goodbye, and started
again. The model at the end is, bit for bit, the one that `umbel run` trains in a single process.

    python examples/network/demo.py
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

APP = Path(__file__).resolve().parent.parent / "rand_health"
SITES = ("site-1", "site-2")
ROUNDS, KILLED_AFTER = 30, 10
UMBEL = str(Path(sys.executable).with_name("umbel"))
BOLD, DIM, PLAIN = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if sys.stdout.isatty() else ("", "", "")

Process = subprocess.Popen[str]


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="umbel-network-") as name:
        os.environ["UMBEL_CONFIG_DIR"] = f"{name}/config"
        os.chdir(name)
        shutil.copytree(APP, "rand_health")
        say("First in one process, with nobody in between.")
        with umbel("run", "rand_health", "--nodes", str(len(SITES)), "--runs", "alone") as alone:
            expected = value_after("digest", alone.stdout or ())
        say(f"Then over a server and two nodes. After round {KILLED_AFTER} of {ROUNDS} the server is killed.")
        found = federate()
    print(f"\none process  {expected}\nfederation   {found}")
    print(f"{BOLD}The same bytes.{PLAIN}" if found == expected else "These differ, and should not: please report it.")
    return int(found != expected)


def federate() -> str:
    """Train the same app over a server and two nodes, kill the server once, and return the digest of the model."""
    # A port that is free now, so that the same command line finds it again.
    serve = ("server", "--data", "server", "--name", "127.0.0.1", "--port", str(free_port()))
    with umbel(*serve) as server:
        joins = [value_after("umbel node --join", server.stdout or ()) for _ in SITES]
        url = joins[0].partition("#")[0]
        ask = ("run", "rand_health", "--server", url, "--nodes", ",".join(SITES), "--runs", "runs")
        with node(joins[0], SITES[0]), node(joins[1], SITES[1]), umbel(*ask) as user:
            told = echoed(user)
            next(line for line in told if re.search(rf"\b{KILLED_AFTER}/{ROUNDS}\b", line))
            server.kill()
            server.wait()
            say("The server is killed. The same command line starts it again.")
            with umbel(*serve):
                return value_after("digest", told)


@contextmanager
def node(join: str, site: str) -> Iterator[Process]:
    """Start a node in the folder of the app that its operator has installed."""
    with umbel(
        "node", "--join", join, "--app", "app:app", "--name", site, "--data", f"../{site}", cwd="rand_health"
    ) as it:
        yield it


@contextmanager
def umbel(*arguments: str, cwd: str = ".") -> Iterator[Process]:
    """Start a command, which ends with the block."""
    print(f"{BOLD}$ umbel {shlex.join(shown(part) for part in arguments)}{PLAIN}", flush=True)
    process = subprocess.Popen(  # noqa: S603 - the commands above
        [UMBEL, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=cwd,
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()
            process.communicate()


def shown(argument: str) -> str:
    """A join line without the most of its secret, which is too long for a terminal and nobody's business."""
    return re.sub(r"#(.{6}).*", r"#\1...", argument)


def echoed(process: Process) -> Iterator[str]:
    for line in process.stdout or ():
        print(f"{DIM}  {line.rstrip()}{PLAIN}", flush=True)
        yield line


def value_after(words: str, lines: Iterable[str]) -> str:
    """Return the word that follows ``words`` at the beginning of a line."""
    for line in lines:
        if line.startswith(words):
            return line.removeprefix(words).split()[0].strip("\"'")
    raise RuntimeError(f"the command ended without a line that begins with {words!r}")


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
