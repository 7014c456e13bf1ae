"""Records: named, ordered sets of serialised arrays and values, with one byte form everywhere.

The byte form (``dumps``, ``loads``, ``save``, ``load``, ``digest``) is brought in on first use: an array alone costs
NumPy and little more.
"""

from typing import TYPE_CHECKING, Any

from umbel.records._arena import Arena
from umbel.records._array import Array, array_from_numpy
from umbel.records._parameters import ParametersRecord
from umbel.records._recordset import RecordSet
from umbel.records._scratch import scratch
from umbel.records._stypes import register_stype
from umbel.records._values import ConfigsRecord, MetricsRecord

if TYPE_CHECKING:
    from umbel.records._container import digest, dumps, loads
    from umbel.records._files import load, save, write

__all__ = [
    "Arena",
    "Array",
    "ConfigsRecord",
    "MetricsRecord",
    "ParametersRecord",
    "RecordSet",
    "array_from_numpy",
    "digest",
    "dumps",
    "load",
    "loads",
    "register_stype",
    "save",
    "scratch",
    "write",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'umbel.records' has no attribute {name!r}; it has {', '.join(__all__)}")
    from umbel.records._container import digest, dumps, loads  # noqa: PLC0415 - waits for the first use
    from umbel.records._files import load, save, write  # noqa: PLC0415 - likewise

    globals().update(digest=digest, dumps=dumps, loads=loads, load=load, save=save, write=write)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
