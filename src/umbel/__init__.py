"""Umbel: federated learning built on one idea, the parameter record.

``umbel.simulate`` is all that this module offers, and it is looked up on first use: importing a part of Umbel, such as
``umbel.records``, costs that part alone.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umbel._simulation import simulate

__all__ = ["simulate"]


def __getattr__(name: str) -> Any:
    if name != "simulate":
        raise AttributeError(f"module 'umbel' has no attribute {name!r}; import its modules, such as umbel.{name}")
    from umbel._simulation import simulate  # noqa: PLC0415 - the one import that waits for its first use

    globals()[name] = simulate
    return simulate


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
