"""Which Ray cluster runs nodes: checked before Ray is there, which would say it later, or of itself."""

import socket
from collections.abc import Collection
from dataclasses import dataclass
from math import inf
from typing import Final

from umbel.errors import UsageError

#: The cluster that is there, on this machine or in RAY_ADDRESS.
AUTO: Final = "auto"
_CLIENT: Final = "ray://"
_LEAST: Final = 0.0001  # what Ray counts in
_PORTS: Final = 2**16


@dataclass(frozen=True)
class RayCluster:
    """Which Ray cluster runs nodes, and what a node takes of it.

    ``address`` is that of a cluster (``"auto"``, ``"host:6379"``, ``"ray://host:10001"``); None starts one on this
    machine. A node takes ``num_cpus`` and ``num_gpus`` while it runs; fractions let nodes share a GPU, and above 1 GPUs
    are whole.

    Raises ``UsageError`` for what is no address, and for amounts that Ray does not have.
    """

    address: str | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0

    def __post_init__(self) -> None:
        """Check what was given."""
        if self.address is not None and not _is_address(self.address):
            raise UsageError(
                'expected the address of a Ray cluster, "auto", "host:6379" or "ray://host:10001", or none to start '
                f"one on this machine, got {self.address!r:.80}",
                at="address",
            )
        for name, amount in (("num_cpus", self.num_cpus), ("num_gpus", self.num_gpus)):
            if not _is_amount(amount):
                msg = f"expected how much of the cluster a node takes, 0, or {_LEAST} or more, got {amount!r:.80}"
                raise UsageError(msg, at=name)
        if self.num_gpus > 1 and self.num_gpus != int(self.num_gpus):
            raise UsageError(
                f"expected a share of one GPU, or a whole number of them, got {self.num_gpus!r}", at="num_gpus"
            )


def host_and_port(address: str) -> tuple[str, str]:
    """Return the two halves of an address; without a port, the second is empty."""
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    return (host.strip("[]"), port) if host and port.isdigit() else (address, "")


def may_lead_to(asked: str, known: Collection[str], here: str, *, by_client: bool) -> bool:
    """Say whether an address may be that of the cluster of which others are known; ``here`` is this machine's.

    The port for clients says nothing of the other one, so that of these the host alone counts; where this process is a
    client itself, through who knows what, nothing does.
    """
    if asked == AUTO or "://" in asked.removeprefix(_CLIENT):
        return True
    by_host = [each for each in known if _machines(each, here) & _machines(asked, here)]
    alike = [each for each in known if each.startswith(_CLIENT) == asked.startswith(_CLIENT)]
    if alike:
        return any(each in by_host and host_and_port(each)[1] == host_and_port(asked)[1] for each in alike)
    return by_client or bool(by_host)


def _machines(address: str, here: str) -> set[str]:
    """Return what the host of an address may be called as well."""
    host, _ = host_and_port(address)
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, None)}
    except OSError:
        return {host}
    own = {here, "127.0.0.1", "::1"}
    return found | own if found & own else found


def _is_address(address: object) -> bool:
    if not isinstance(address, str) or not address.isprintable() or " " in address:
        return False
    scheme, found, rest = address.rpartition("://")
    if found and scheme != _CLIENT.removesuffix("://"):
        return bool(scheme and rest)  # one of Ray's further ways to a cluster
    port = host_and_port(address)[1]
    return address == AUTO or (port.isascii() and port.isdigit() and 0 < int(port) < _PORTS)


def _is_amount(amount: object) -> bool:
    return isinstance(amount, int | float) and not isinstance(amount, bool) and (amount == 0 or _LEAST <= amount < inf)
