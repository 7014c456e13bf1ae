"""A node: it asks for work, runs the app in a process of its own, and never repeats what is finished.

Names are brought in on first use: the process in which handlers run needs the records, and no network.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umbel.node._spool import Spool
    from umbel.node._worker import Worker

__all__ = ["Spool", "Worker"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'umbel.node' has no attribute {name!r}; it has {', '.join(__all__)}")
    from umbel.node._spool import Spool  # noqa: PLC0415 - waits for the first use
    from umbel.node._worker import Worker  # noqa: PLC0415 - likewise

    globals().update(Spool=Spool, Worker=Worker)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
