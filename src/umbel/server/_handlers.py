"""Every endpoint of the table, answered: those of nodes, of users and of the operator."""

from collections.abc import Callable

from prometheus_client import generate_latest

from umbel.http import Call, Handlers, wire
from umbel.server import _views as views
from umbel.server._delivery import Delivery
from umbel.server._main_calls import is_driven
from umbel.server._members import Members
from umbel.server._metrics import Metrics
from umbel.server._registry import Registry
from umbel.server._runs import Runs
from umbel.server._transfers import Transfers
from umbel.store import runs as stored

_OPERATOR = "operator"


class NodeEndpoints:
    """What members are asked of, whatever they are, and nodes in particular."""

    def __init__(
        self, delivery: Delivery, members: Members, transfers: Transfers, audience: Callable[[], str], hold: float
    ) -> None:
        self._delivery = delivery
        self._members = members
        self._transfers = transfers
        self._audience = audience
        self._hold = hold

    async def join(self, call: Call) -> wire.Joined:
        """Let a member in."""
        return await self._members.join(call.body, call.address)

    async def rotate(self, call: Call) -> wire.Done:
        """Change the sender's key."""
        return await self._members.rotate(call.member, call.body, self._audience())

    async def poll(self, call: Call) -> wire.Polled:
        """Hand out work."""
        return await self._delivery.poll(call.member, call.body, self._hold)

    async def reply(self, call: Call) -> wire.Replied:
        """Take a reply in."""
        return await self._delivery.reply(call.member, call.body)

    def all(self) -> Handlers:
        """Return the handlers by endpoint."""
        return {
            "join": self.join,
            "rotate": self.rotate,
            "poll": self.poll,
            "reply": self.reply,
            "stat_blob": self._transfers.stat,
            "get_blob": self._transfers.get,
            "put_blob": self._transfers.put,
        }


class RunEndpoints:
    """What users are answered about their runs; the operator, about all."""

    def __init__(self, runs: Runs, registry: Registry) -> None:
        self._runs = runs
        self._registry = registry

    async def _find(self, call: Call) -> stored.Run:
        return await self._runs.get(call.params["run"], _owner(call))

    async def submit(self, call: Call) -> wire.RunMade:
        """Accept a run."""
        if is_driven(call.body):
            self._runs.mains.permit(call.kind)
        return await self._runs.submit(call.member, call.body, self._registry.actor(call.member))

    async def list(self, call: Call) -> wire.Runs:
        """List runs."""
        return wire.Runs(runs=[self._row(run) for run in await self._runs.every(_owner(call))])

    def _row(self, run: stored.Run) -> wire.RunRow:
        owner = self._registry.name(run.owner)
        return views.run_row(run, views.spec_of(run), owner, self._runs.waits_for(run.id))

    async def show(self, call: Call) -> wire.RunView:
        """Show a run in full."""
        run = await self._find(call)
        asked = await self._runs.questions(run.id)
        return wire.RunView(
            row=self._row(run),
            spec=views.spec_of(run),
            reports=views.parsed(await self._runs.reports(run.id)),
            questions=[views.question(row, is_sent=self._runs.is_sent(run.id, row.message)) for row in asked],
            restarts=list(run.restarts),
            digest=run.digest,
            model=views.model_of(await self._runs.state(run.id)),
        )

    async def events(self, call: Call) -> wire.Events:
        """Tell what happens in a run."""
        run = await self._find(call)
        return await self._runs.events(run.id, call.params["after"])

    async def stop(self, call: Call) -> wire.Done:
        """Stop a run."""
        await self._runs.stop((await self._find(call)).id, self._registry.actor(call.member))
        return wire.Done()

    async def resume(self, call: Call) -> wire.Done:
        """Let a run go on."""
        await self._runs.resume((await self._find(call)).id, call.body.rounds, self._registry.actor(call.member))
        return wire.Done()

    def all(self) -> Handlers:
        """Return the handlers by endpoint."""
        return {
            "submit_run": self.submit,
            "list_runs": self.list,
            "show_run": self.show,
            "run_events": self.events,
            "stop_run": self.stop,
            "resume_run": self.resume,
        }


class OperatorEndpoints:
    """What the operator is answered, and who is there."""

    def __init__(self, members: Members, delivery: Delivery, registry: Registry, metrics: Metrics) -> None:
        self._members = members
        self._delivery = delivery
        self._registry = registry
        self._metrics = metrics

    async def nodes(self, _call: Call) -> wire.Nodes:
        """List the nodes."""
        return wire.Nodes(nodes=self._registry.rows())

    async def revoke(self, call: Call) -> wire.Done:
        """Exclude a member, and give up what it holds."""
        member = await self._members.revoke(call.params["member"], call.member)
        await self._delivery.revoked(member.id)
        return wire.Done()

    async def make_token(self, call: Call) -> wire.TokenMade:
        """Make a join token."""
        return await self._members.make_token(call.body, call.member)

    async def tokens(self, _call: Call) -> wire.Tokens:
        """List the join tokens."""
        return wire.Tokens(tokens=[views.token_row(token) for token in await self._members.tokens()])

    async def revoke_token(self, call: Call) -> wire.Done:
        """Take a join token back."""
        return await self._members.revoke_token(call.params["token"], call.member)

    async def audit(self, call: Call) -> wire.Audit:
        """Show the audit log."""
        entries = await self._members.entries(call.params["after"])
        return wire.Audit(entries=[views.audit_line(entry) for entry in entries])

    async def metrics(self, _call: Call) -> bytes:
        """Return the figures for Prometheus."""
        return generate_latest(self._metrics.registry)

    def all(self) -> Handlers:
        """Return the handlers by endpoint."""
        return {
            "list_nodes": self.nodes,
            "revoke_member": self.revoke,
            "make_token": self.make_token,
            "list_tokens": self.tokens,
            "revoke_token": self.revoke_token,
            "read_audit": self.audit,
            "metrics": self.metrics,
        }


def _owner(call: Call) -> int | None:
    """Return whose runs a call is about: the operator's are those of all."""
    return None if call.kind == _OPERATOR else call.member
