"""The record set: everything that one message carries."""

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Self, TypeVar

from umbel.errors import RecordTypeError
from umbel.records._brief import brief
from umbel.records._mapping import TypedMapping
from umbel.records._parameters import ParametersRecord
from umbel.records._values import ConfigsRecord, MetricsRecord

R = TypeVar("R", bound=TypedMapping[Any])


class _Records(TypedMapping[R], Generic[R]):
    """Records of one kind by name."""

    __slots__ = ()
    _kind: ClassVar[type[TypedMapping[Any]]]

    def _check_value(self, key: str, value: object) -> R:
        if not isinstance(value, self._kind):
            msg = f"expected a {self._kind.__name__}, got {type(value).__name__}"
            raise RecordTypeError(msg, at=f"RecordSet[{brief(key)}]")
        return value  # type: ignore[return-value]  # R is what _kind says

    def copy_all(self) -> Self:
        """Return a mapping of its own whose records are copies."""
        twin = type(self).__new__(type(self))
        twin._data = {name: record.copy() for name, record in self._data.items()}  # noqa: SLF001 - one of us
        return twin


class _ParametersRecords(_Records[ParametersRecord]):
    __slots__ = ()
    _kind = ParametersRecord


class _MetricsRecords(_Records[MetricsRecord]):
    __slots__ = ()
    _kind = MetricsRecord


class _ConfigsRecords(_Records[ConfigsRecord]):
    __slots__ = ()
    _kind = ConfigsRecord


class RecordSet:
    """Parameters, metrics and configs, each by name and in order.

    Args:
        parameters_records: arrays, by the name of their record.
        metrics_records: metrics, by the name of their record.
        configs_records: settings, by the name of their record.

    Raises:
        RecordTypeError: if a name is no str or a record of another kind.

    >>> records = RecordSet(metrics_records={"train": MetricsRecord({"loss": 0.5})})
    >>> records.metrics_records["train"]["loss"]
    0.5

    """

    __slots__ = ("_configs", "_metrics", "_parameters")

    def __init__(
        self,
        parameters_records: Mapping[str, ParametersRecord] | None = None,
        metrics_records: Mapping[str, MetricsRecord] | None = None,
        configs_records: Mapping[str, ConfigsRecord] | None = None,
    ) -> None:
        self._parameters = _ParametersRecords(parameters_records)
        self._metrics = _MetricsRecords(metrics_records)
        self._configs = _ConfigsRecords(configs_records)

    @property
    def parameters_records(self) -> TypedMapping[ParametersRecord]:
        """The parameters records by name."""
        return self._parameters

    @property
    def metrics_records(self) -> TypedMapping[MetricsRecord]:
        """The metrics records by name."""
        return self._metrics

    @property
    def configs_records(self) -> TypedMapping[ConfigsRecord]:
        """The configs records by name."""
        return self._configs

    def count_bytes(self) -> int:
        """Return the bytes of all records and of their names in UTF-8."""
        count = 0
        for records in (self._parameters, self._metrics, self._configs):
            for name, record in records.items():
                count += len(name.encode()) + record.count_bytes()
        return count

    def copy(self) -> Self:
        """Return a record set whose mappings and lists are its own; the arrays, which cannot change, are shared.

        Whatever is done to the copy, or to a record in it, leaves the original as it was.
        """
        twin = type(self).__new__(type(self))
        twin._parameters = self._parameters.copy_all()  # noqa: SLF001 - one of us, here and below
        twin._metrics = self._metrics.copy_all()  # noqa: SLF001
        twin._configs = self._configs.copy_all()  # noqa: SLF001
        return twin

    __copy__ = copy

    def __eq__(self, other: object) -> bool:
        """Compare the three mappings, whatever the order."""
        if not isinstance(other, RecordSet):
            return NotImplemented
        return all(getattr(self, slot) == getattr(other, slot) for slot in RecordSet.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show the three mappings."""
        return (
            f"RecordSet(parameters_records={self._parameters!r}, metrics_records={self._metrics!r}, "
            f"configs_records={self._configs!r})"
        )
