"""What a node knows while it handles a message: who it is, its configuration, its state, and its seed."""

import struct
from collections.abc import Mapping
from typing import Final

import msgspec
from blake3 import blake3

from umbel.errors import MessageError
from umbel.records import RecordSet

__all__ = ["Context", "derive_seed"]

_DOMAIN: Final = b"umbel seed 1\0"
_NUMBERS: Final = struct.Struct("<qqI")


class Context(msgspec.Struct, frozen=True):
    """What surrounds one message on one node.

    ``node_config`` is set by whoever runs the node, ``run_config`` by whoever starts the run. ``state`` stays on the
    node: what a handler writes into it is there at the next message, unless the handler failed. ``seed``
    (0 <= seed < 2**63) depends on the run's seed, the round, the node's name and the message type alone; a handler
    that draws all its random numbers from it trains the same way wherever and whenever it runs. Where a library
    wants 32 bits, give it ``context.seed % 2**32``.
    """

    run_id: int
    node_id: int
    node_config: Mapping[str, bool | int | float | str]
    state: RecordSet
    run_config: Mapping[str, bool | int | float | str]
    node_name: str = ""
    seed: int = 0


def derive_seed(run_seed: int, round: int, node_name: str, message_type: str) -> int:  # noqa: A002 - the field's word
    """Return the seed of one node for one message of one round: 0 <= seed < 2**63.

    It is the first 63 bits of BLAKE3 over an encoding in which no two different inputs look alike, so it is the same
    on every machine and in every version. Raises ``MessageError`` for a number that does not fit 64 bits.
    """
    name = node_name.encode()
    try:
        numbers = _NUMBERS.pack(run_seed, round, len(name))
    except struct.error as error:
        message = f"expected a run seed and a round that fit a signed 64-bit integer, got {run_seed!r} and {round!r}"
        raise MessageError(message, at=f"seed of node {node_name!r}") from error
    digest = blake3(_DOMAIN + numbers + name + message_type.encode()).digest(8)
    return int.from_bytes(digest, "little") >> 1
