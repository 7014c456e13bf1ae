"""A node: it asks for work, runs the app in a process of its own, and never repeats what is finished.

Names are brought in on first use: the process in which handlers run needs the records, and no network.

Places where a test may kill the node, by the names of ``umbel.failpoint``:

node.leased        N1  a message is in the spool, and nothing was done for it
node.training      N2  the handler runs
node.trained       N3  the reply and the new state are in the spool
node.uploading     N4  the first buffer of a blob of the reply is on its way
node.uploaded      N5  the server has the blobs, and not the reply
node.acknowledged  N6  the server has the reply, and the spool does not know
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umbel.node._membership import Membership, read_membership
    from umbel.node._node import Node
    from umbel.node._policy import Policy
    from umbel.node._settings import Settings
    from umbel.node._spool import Spool
    from umbel.node._status import Running, Status, read_status
    from umbel.node._worker import Worker

__all__ = [
    "Membership",
    "Node",
    "Policy",
    "Running",
    "Settings",
    "Spool",
    "Status",
    "Worker",
    "read_membership",
    "read_status",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'umbel.node' has no attribute {name!r}; it has {', '.join(__all__)}")
    from umbel.node import (  # noqa: PLC0415 - waits for the first use
        _membership,
        _node,
        _policy,
        _settings,
        _spool,
        _status,
        _worker,
    )

    for module in (_membership, _node, _policy, _settings, _spool, _status, _worker):
        globals().update({public: value for public, value in vars(module).items() if public in __all__})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
