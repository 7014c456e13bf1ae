"""A federation of real processes for tests: a server and nodes that can be killed anywhere, and the operator's client.

Run as a program it is one of them: ``federation.py server|node|main JSON [FAILPOINT]``.
"""

import asyncio
import importlib
import json
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from blake3 import blake3

from umbel.context import Context
from umbel.envelope import Content, Part, pack
from umbel.failpoint import arm
from umbel.http import Client, Identity, Limits, wire
from umbel.node import Node, Policy, Status, read_status
from umbel.node import Settings as NodeSettings
from umbel.records import ParametersRecord, RecordSet

PATIENCE = 60.0  # seconds before a test gives up


def wait_for(condition, what, seconds=PATIENCE):
    """Return what the condition returns once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)
    return found


class Process:
    """A process of this file, with what it said on standard error in ``log``; ``prefix`` is a command that runs it."""

    def __init__(self, role, settings, log, failpoint="", prefix=()):
        self.log = log
        command = [*prefix, sys.executable, __file__, role, json.dumps(settings), failpoint]
        with log.open("ab") as stream:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)

    def end(self, number=signal.SIGKILL):
        """Send a signal and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def wait(self):
        """Wait for the end and return the exit status."""
        return self.process.wait(PATIENCE)

    @property
    def is_running(self):
        return self.process.poll() is None


@dataclass
class Federation:
    """A server with its data in ``folder/server`` and nodes with theirs in ``folder/<name>``."""

    folder: Path
    app_folder: Path
    app: str = "site_app:app"
    poll: float = 25.0
    processes: list = field(default_factory=list)
    port: int = 0
    plain: bool = True
    settings: dict = field(default_factory=dict)

    def serve(self, failpoint="", prefix=()):
        """Start the server, on the port of its last start, and wait until it listens."""
        (self.folder / "server").mkdir(parents=True, exist_ok=True)
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        told = {"data": str(self.folder / "server"), "port": self.port, "poll": self.poll, "plain": self.plain}
        told |= self.settings | {"ready": str(ready)}
        server = Process("server", told, self.folder / "server.log", failpoint, prefix)
        self.processes.append(server)
        wait_for(lambda: ready.exists() or not server.is_running, "the server listens")
        assert server.is_running or failpoint or prefix, server.log.read_text()
        if ready.exists():
            self.port = int(self.about.url.rpartition(":")[2])
        return server

    @property
    def about(self):
        from umbel.server import read_about  # noqa: PLC0415 - a node needs none

        return read_about(self.folder / "server")

    def node(self, name, failpoint="", *, place="", url="", secret=True, prefix=(), **told):
        """Start a node, in a folder of its name or called ``place``; it joins with a token of its own."""
        place = place or name
        joins = secret and not (self.folder / place / "member.json").exists()
        settings = {
            "url": url or self.about.url,
            "app": self.app,
            "folder": str(self.folder / place),
            "secret": self.call("make_token", wire.TokenRequest()).secret.hex() if joins else "",
            "fingerprint": self.about.fingerprint,
            "name": name,
            "app_folder": str(self.app_folder),
            **told,
        }
        node = Process("node", settings, self.folder / f"{place}.log", failpoint, prefix)
        self.processes.append(node)
        return node

    def main(self, run, failpoint="", **told):
        """Start a process that runs ``site_app:server`` for a run, and that writes what becomes of it to ``main``."""
        settings = {"data": str(self.folder / "server"), "run": run, "folder": str(self.folder)} | told
        settings["app_folder"] = str(self.app_folder)
        main = Process("main", settings, self.folder / "main.log", failpoint)
        self.processes.append(main)
        return main

    def status(self, name) -> Status | None:
        """Return what a node says of itself, None before its first word."""
        path = self.folder / name
        return read_status(path) if (path / "status.json").exists() else None

    def state(self, name):
        """Return in which state a node is."""
        status = self.status(name)
        return status and status.state

    def call(self, name, body=None, **params):
        """Ask the server as its operator."""
        return self.ask(lambda client: client.call(name, body, **params))

    def ask(self, question):
        """Return what a question to a client of the operator returns."""

        async def main():
            about = self.about
            identity = Identity.load(about.key_file)
            async with Client(about.url, identity, about.member, fingerprint=about.fingerprint) as client:
                return await question(client)

        return asyncio.run(main())

    def submit(self, model, *, nodes, rounds=3, seed=7, strategy=None, **config):
        """Submit a run over a model of NumPy arrays, and return its number."""
        blobs = {}

        def put(segments):
            data = b"".join(segments)
            digest = f"blake3:{blake3(data).hexdigest()}"
            blobs[digest] = data
            return Part(digest, len(data))

        initial: Content = pack(RecordSet({"model": ParametersRecord.from_numpy(model)}), put)
        for digest, data in blobs.items():
            self.ask(lambda client, digest=digest, data=data: client.put_blob(digest, data))
        spec = wire.RunSpec(
            app=self.app,
            strategy=strategy or {"name": "fedavg"},
            rounds=rounds,
            seed=seed,
            config=config,
            nodes=nodes,
            initial=initial,
        )
        return self.call("submit_run", spec).run

    def view(self, run) -> wire.RunView:
        """Return a run in full."""
        return self.call("show_run", run=run)

    def completed(self, run, seconds=PATIENCE) -> wire.RunView:
        """Wait until a run is completed and return it in full."""
        ended = ("completed", "failed", "stopped")
        view = wait_for(lambda: (each := self.view(run)).row.status in ended and each, "the run ends", seconds)
        assert view.row.status == "completed", view.row
        return view

    def close(self):
        """Kill what is left."""
        for process in self.processes:
            process.end()


def _serve(told):
    from umbel.server import Server  # noqa: PLC0415 - a node needs none
    from umbel.server import Settings as ServerSettings  # noqa: PLC0415 - likewise

    ready = Path(told.pop("ready"))
    _limit(told.pop("rlimits", {}))
    paths = {name: Path(told[name]) for name in ("data", "certificate", "key") if told.get(name)}
    quotas = {"limits": Limits(**told["limits"])} if "limits" in told else {}
    settings = ServerSettings(**told | paths | quotas)
    Server(settings, lambda _: ready.touch()).run()


def _limit(limits):
    for name, most in limits.items():
        resource.setrlimit(getattr(resource, name), (most, most))


def _be_node(told):
    _limit(told.pop("limits", {}))
    kinds = {"folder": Path, "app_folder": Path, "secret": bytes.fromhex, "policy": lambda rules: Policy(**rules)}
    settings = NodeSettings(**{name: kinds.get(name, lambda same: same)(value) for name, value in told.items()})

    async def main():
        await Node(settings).run()

    asyncio.run(main())


def _be_main(told):
    from umbel.cli._grid import RemoteGrid  # noqa: PLC0415 - a node needs none
    from umbel.cli._remote import Remote  # noqa: PLC0415 - likewise
    from umbel.cli._servers import operator_of  # noqa: PLC0415 - likewise

    sys.path.insert(0, told["app_folder"])
    app, folder = importlib.import_module("site_app").server, Path(told["folder"])
    remote = Remote(operator_of(Path(told["data"])))
    grid = RemoteGrid(remote, told["run"], folder, lambda text, kind, **_: print(text, flush=True))
    context = Context(run_id=told["run"], node_id=0, node_config={}, state=RecordSet(), run_config={})
    app(grid, context)
    grid.end(context.state.parameters_records["model"])
    remote.close()


def main(role, told, failpoint):
    """Be a server, a node, or the main of a run."""
    if failpoint:
        arm(failpoint)
    {"server": _serve, "node": _be_node, "main": _be_main}[role](msgspec.json.decode(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
