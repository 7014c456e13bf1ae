"""Flower: its arrays, records and record sets as Umbel's, and back.

Works with Flower 1.13 (``ParametersRecord``, ``MetricsRecord``, ``ConfigsRecord``, ``RecordSet``) and with current
versions, where the same things are called ``ArrayRecord``, ``MetricRecord``, ``ConfigRecord`` and ``RecordDict``:
whichever is installed. Flower is imported at the first call, because that takes about a second.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from umbel.errors import BadDtype, DuplicateName, MissingExtra, RecordTypeError
from umbel.records import Array, ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet, array_from_numpy

__all__ = ["from_flower", "to_flower"]

_Convertible = Array | ParametersRecord | MetricsRecord | ConfigsRecord | RecordSet


def to_flower(value: _Convertible) -> Any:
    """Return the Flower object that says the same as ``value``, made with Flower's public constructors.

    Arrays become ``.npy`` bytes, which is all that Flower can decode. Those that ``.npy`` cannot name (bfloat16,
    float8 ...) and those of other stypes keep their bytes and their stype: Flower carries them, but its ``numpy()``
    refuses them, where its own conversion would have returned anonymous bytes.

    Args:
        value: an Array, one of the three records, or a RecordSet.

    Raises:
        MissingExtra: if Flower is not installed.
        DuplicateName: if records of two kinds have one name, which current versions of Flower cannot tell apart.
        RecordTypeError: for anything else than the five.
        RecordError: if a payload does not hold what its Array says.

    """
    flower = _flower()
    for kind, convert in flower.outward.items():
        if isinstance(value, kind):
            return convert(value)
    raise _wrong(value, flower.outward)


def from_flower(value: object) -> _Convertible:
    """Return the Umbel object that says the same as a Flower object; payloads are shared, not copied.

    Args:
        value: an ``Array``, one of the three records, or a ``RecordSet`` (``RecordDict``) of the installed Flower.

    Raises:
        MissingExtra: if Flower is not installed.
        RecordTypeError: for anything else, and for values that Flower lets pass and Umbel does not, such as a list of
            ints with a bool in it.

    """
    flower = _flower()
    for kind, convert in flower.inward.items():
        if isinstance(value, kind):
            return convert(value)
    raise _wrong(value, flower.inward)


class _Flower(NamedTuple):
    """What to do with each class of Umbel's, and with each class of the installed Flower."""

    outward: Mapping[type, Callable[[Any], Any]]
    inward: Mapping[type, Callable[[Any], _Convertible]]


class _Names(NamedTuple):
    """The classes of the installed Flower."""

    array: Any
    parameters: Any
    metrics: Any
    configs: Any
    records: Any


@cache
def _flower() -> _Flower:
    try:
        import flwr  # noqa: F401, PLC0415 - a second and a thousand modules, so not before it is needed
    except ImportError as error:
        msg = "umbel.interop.flower needs Flower, which is not installed; run: pip install 'umbel[flower]'"
        raise MissingExtra(msg) from error
    return _current() or _of_1_13()


def _current() -> _Flower | None:
    try:
        from flwr.app import Array as Item  # noqa: PLC0415 - as above
        from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict  # noqa: PLC0415
    except ImportError:
        return None
    names = _Names(Item, ArrayRecord, MetricRecord, ConfigRecord, RecordDict)
    return _table(names, tuple, lambda value: RecordDict(_flat(value, to_flower)), _from_record_dict)


def _of_1_13() -> _Flower:
    from flwr import common  # noqa: PLC0415 - as above

    kinds = (common.ParametersRecord, common.MetricsRecord, common.ConfigsRecord)
    names = _Names(common.Array, *kinds, common.RecordSet)
    return _table(names, list, lambda value: common.RecordSet(**_apart(value, to_flower)), _from_record_set)


def _table(
    names: _Names,
    sizes: Callable[[list[int]], object],
    outward: Callable[[RecordSet], Any],
    inward: Callable[[Any], RecordSet],
) -> _Flower:
    def item(value: Array) -> Any:
        array = _decodable(value)
        return names.array(dtype=array.dtype, shape=sizes(array.shape), stype=array.stype, data=bytes(array.data))

    return _Flower(
        {
            Array: item,
            ParametersRecord: lambda value: names.parameters(OrderedDict((key, item(value[key])) for key in value)),
            MetricsRecord: lambda value: names.metrics(_values(value)),
            ConfigsRecord: lambda value: names.configs(_values(value)),
            RecordSet: outward,
        },
        {
            names.array: _from_array,
            names.parameters: lambda value: ParametersRecord({key: _from_array(value[key]) for key in value}),
            names.metrics: lambda value: MetricsRecord(dict(value)),
            names.configs: lambda value: ConfigsRecord(dict(value)),
            names.records: inward,
        },
    )


def _decodable(array: Array) -> Array:
    if array.stype != "raw":
        return array
    try:
        return array_from_numpy(array.numpy(copy=False))
    except BadDtype:
        return array


def _values(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries with lists of their own, so that changing one record leaves the other as it was."""
    return {key: list(value) if isinstance(value, list) else value for key, value in record.items()}


def _from_array(value: Any) -> Array:
    return Array(value.dtype, list(value.shape), value.stype, value.data)


def _apart(value: Any, convert: Callable[[Any], Any]) -> dict[str, Any]:
    kinds = ("parameters_records", "metrics_records", "configs_records")
    return {kind: {name: convert(record) for name, record in getattr(value, kind).items()} for kind in kinds}


def _flat(value: RecordSet, convert: Callable[[Any], Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for kind, records in _apart(value, convert).items():
        for name in flat.keys() & records.keys():
            msg = f"records of two kinds are called {name!r}, which this version of Flower cannot hold; rename one"
            raise DuplicateName(msg, at=f"RecordSet.{kind}")
        flat.update(records)
    return flat


def _from_record_set(value: Any) -> RecordSet:
    return RecordSet(**_apart(value, from_flower))


def _from_record_dict(value: Any) -> RecordSet:
    converted = {name: from_flower(record) for name, record in value.items()}
    return RecordSet(
        {name: record for name, record in converted.items() if isinstance(record, ParametersRecord)},
        {name: record for name, record in converted.items() if isinstance(record, MetricsRecord)},
        {name: record for name, record in converted.items() if isinstance(record, ConfigsRecord)},
    )


def _wrong(value: object, known: Mapping[type, object]) -> RecordTypeError:
    names = ", ".join(kind.__name__ for kind in known)
    return RecordTypeError(f"expected one of {names}, got {type(value).__name__}")
