"""A server, as the commands of a user or an operator use it."""

import asyncio
import contextlib
import getpass
import mmap
import platform
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from blake3 import blake3

from umbel.cli._address import typed_address, typed_join_line
from umbel.cli._servers import About, Known, find_known, new_identity, operator_of, remember
from umbel.cli._text import safe
from umbel.envelope import Content, Part, blobs_of, unpack
from umbel.errors import NameTaken, ServerUnreachable, TooManyRequests
from umbel.http import Client, Token, join_line, keep_trying, wire
from umbel.records import RecordSet

_AT_ONCE: Final = 0.5  # seconds
_PATIENCE: Final = 900.0  # seconds for which a server that is away is waited for

T = TypeVar("T")


class Say(Protocol):
    """Says something that no event of the loop says."""

    def __call__(self, text: str, kind: str, **fields: Any) -> None:
        """Print ``text``, or in JSON an event of this kind with these fields."""
        ...


class Remote:
    """What a member asks of a server. Every call waits for its answer; one thread uses an instance."""

    def __init__(self, known: Known) -> None:
        self.url = known.about.url
        self.fingerprint = known.about.fingerprint
        self._runner = asyncio.Runner()
        self._client = client_of(known)

    def close(self) -> None:
        """Close all connections, also after several interrupts at once."""
        loop = self._runner.get_loop()
        loop.call_soon(loop.stop)  # a call that was interrupted twice may have left the same behind
        loop.run_forever()
        self._runner.run(self._client.close())
        self._runner.close()

    def _ask(self, name: str, body: Any = None, **params: int) -> Any:
        return self._runner.run(self._client.call(name, body, **params))

    def _keep_asking(self, say: Say | None, operation: Callable[[], Awaitable[T]]) -> T:
        waiting = _Waiting(self.url, say)

        async def keep() -> T:
            return await keep_trying(operation, waiting=waiting)

        return self._runner.run(keep())

    def hello(self) -> wire.Hello:
        """Return who the server is."""
        return self._runner.run(self._client.hello())

    @property
    def clock_offset(self) -> float:
        """By how many seconds the server's clock is ahead of ours, once it said hello."""
        return self._client.clock_offset

    def runs(self) -> list[wire.RunRow]:
        """Return the runs that one may see, the newest first."""
        rows: list[wire.RunRow] = self._ask("list_runs").runs
        return rows

    def run(self, run: int, say: Say | None = None) -> wire.RunView:
        """Return a run in full; with ``say``, once the server is there."""
        view: wire.RunView
        if say is None:
            view = self._ask("show_run", run=run)
        else:
            view = self._keep_asking(say, lambda: self._client.call("show_run", run=run))
        return view

    def drive(self, name: str, run: int, body: Any = None, *, say: Say, **params: int) -> Any:
        """Make a call of the main of a run, until the server answers it: one that is repeated changes nothing."""
        return self._keep_asking(say, lambda: self._client.call(name, body, run=run, **params))

    def submit(self, spec: wire.RunSpec) -> int:
        """Start a run and return its number; it is asked for once, since a second time it would be another run."""
        try:
            made: wire.RunMade = self._ask("submit_run", spec)
        except ServerUnreachable as error:
            hint = "the run may have been accepted: look at umbel runs list before you submit it again"
            raise type(error)(f"{error.message}; {hint}", at=error.at) from error
        return made.run

    def events(self, run: int, after: int, say: Say) -> wire.Events:
        """Return the events of a run after a number, as soon as there is one, over restarts of the server."""
        told: wire.Events = self._keep_asking(say, lambda: self._client.call("run_events", run=run, after=after))
        return told

    def stop(self, run: int) -> None:
        """Stop a run."""
        self._ask("stop_run", run=run)

    def resume(self, run: int, rounds: int | None) -> None:
        """Go on with a run."""
        self._ask("resume_run", wire.Resume(rounds=rounds), run=run)

    def nodes(self) -> list[wire.NodeRow]:
        """Return all nodes."""
        rows: list[wire.NodeRow] = self._ask("list_nodes").nodes
        return rows

    def revoke(self, member: int) -> None:
        """Shut a member out."""
        self._ask("revoke_member", member=member)

    def token(self, wish: wire.TokenRequest) -> wire.TokenMade:
        """Make a join token."""
        made: wire.TokenMade = self._ask("make_token", wish)
        return made

    def tokens(self) -> list[wire.TokenRow]:
        """Return all join tokens."""
        rows: list[wire.TokenRow] = self._ask("list_tokens").tokens
        return rows

    def revoke_token(self, token: int) -> None:
        """Take a join token back."""
        self._ask("revoke_token", token=token)

    def line(self, secret: bytes) -> str:
        """Return the address with which whoever has the secret joins."""
        return join_line(self.url, Token(secret, self.fingerprint))

    def put(self, segments: Sequence[bytes | memoryview], folder: Path) -> Part:
        """Upload a blob, by way of a file without a name in ``folder``, so that it is never in memory twice."""
        hasher = blake3()
        with tempfile.TemporaryFile(dir=folder) as file:
            for segment in segments:
                hasher.update(segment)
                file.write(segment)
            file.flush()
            part = Part(f"blake3:{hasher.hexdigest()}", file.tell())
            # Not closed here: a connection that was cut may still have a view of it, which unmaps it when it goes.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._keep_asking(None, lambda: self._client.put_blob(part.digest, mapped))
        return part

    def fetch(self, content: Content, folder: Path) -> RecordSet:
        """Download a record set, verified; its arrays are views of files in ``folder`` that have no name any more."""
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as name:
            found = {digest: self._download(digest, Path(name) / str(i)) for i, digest in enumerate(blobs_of(content))}
        return unpack(content, found.__getitem__)

    def _download(self, digest: str, path: Path) -> mmap.mmap:
        self._keep_asking(None, lambda: self._client.get_blob(digest, path))
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class _Waiting:
    """Says once that a server is away, unless it is back at once, and gives up when it has been for long."""

    def __init__(self, url: str, say: Say | None) -> None:
        self._url = url
        self._say = say
        self._since: float | None = None

    def __call__(self, error: ServerUnreachable | TooManyRequests) -> None:
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if self._say is not None and now - self._since >= _AT_ONCE:
            self._say(f"no answer from {safe(self._url)}; waiting for it: {safe(error.message)}", "server-away")
            self._say = None
        if now - self._since > _PATIENCE:
            raise error


def client_of(known: Known) -> Client:
    """Return a client that signs as the member that one is there."""
    about = known.about
    return Client(about.url, known.identity, about.member, fingerprint=about.fingerprint)


@contextlib.contextmanager
def open_remote(server: str | None, data: Path | None = None) -> Iterator[Remote]:
    """Give the server at an address, or the one whose data folder is named; join it first if there is a token."""
    remote = Remote(_known(server, data))
    try:
        yield remote
    finally:
        remote.close()


def _known(server: str | None, data: Path | None) -> Known:
    if data is not None:
        return operator_of(data)
    if server is None:
        return find_known(None)
    return _join(*typed_join_line(server)) if "#" in server else find_known(typed_address(server))


def _join(url: str, token: Token) -> Known:
    """Become a user of a server; somebody of the same name who came before keeps it."""
    identity, name = new_identity(url), f"{_user()}@{platform.node() or 'localhost'}"

    async def join(name: str) -> wire.Joined:
        wish = wire.Join(secret=token.secret, key=identity.key, kind="user", name=name, release=version("umbel"))
        async with Client(url, identity, fingerprint=token.fingerprint) as client:
            joined: wire.Joined = await client.call("join", wish)
            return joined

    try:
        joined = asyncio.run(join(name))
    except NameTaken:
        joined = asyncio.run(join(f"{name}-{identity.key.hex()[:6]}"))
    return remember(About(url, token.fingerprint, joined.member, joined.name))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "user"
