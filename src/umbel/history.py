"""What a run leaves behind: one report a round, its metrics as columns, and the model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec

from umbel.errors import CheckpointError, MissingExtra, RecordError
from umbel.records import ParametersRecord, digest

__all__ = ["Arrival", "History", "MetricColumns", "RoundReport"]

_FORM: Final = 1


class Arrival(NamedTuple):
    """A reply that came in a round: whose it was, to which message, when, and how long after that was sent.

    ``at`` is a time on the grid's clock, in seconds since 1970 on most; ``seconds`` is a duration on it. Where rounds
    overlap, an error is an arrival as well, which is ``lost``: another node is asked in its place.
    """

    node: str
    message_id: int
    at: float
    seconds: float
    lost: bool = False


@dataclass(frozen=True)
class RoundReport:
    """What happened in one round; round 0 is the phase that sums statistics before training.

    ``refused`` and ``lost`` are pairs of a node's name and the reason: an update or evaluation that did not pass, and a
    reply that was an error or never came. Where rounds overlap, those lost may be of an earlier round's ``cohort``. A
    metric's name begins with where it is from: ``train.`` and ``evaluate.`` are means over the nodes, ``central.`` is
    what the run's own evaluation function returned. ``bytes`` counts what was ``sent`` and ``received``; ``seconds``
    are by phase; ``digest`` is the model's after the round. ``arrivals`` are the replies to train messages in the order
    in which they came, if the strategy goes by that or remembers nodes; one that was an error is among them only where
    rounds overlap. ``accepted`` came in the round; where tiers wait for their nodes, some count in a later model, and
    metrics of the phase are over what the model is made of. ``not_finite`` says, for each metric of which that is true,
    how many nodes reported NaN or infinity: they are left out of its mean.
    """

    round: int
    cohort: int
    accepted: int
    refused: tuple[tuple[str, str], ...]
    lost: tuple[tuple[str, str], ...]
    metrics: Mapping[str, int | float | list[int | float | None] | None]
    bytes: Mapping[str, int]
    seconds: Mapping[str, float]
    digest: str
    arrivals: tuple[Arrival, ...] = ()
    not_finite: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the report as one line of JSON."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "RoundReport":
        """Read what ``to_json`` wrote; raises ``CheckpointError`` for anything else."""
        report: RoundReport = _decode(text, RoundReport, at="RoundReport")
        return report


class MetricColumns(Mapping[str, list[Any]]):
    """Metrics as columns of one length: ``round`` and one for each metric, with None where a round has none."""

    def __init__(self, reports: tuple[RoundReport, ...]) -> None:
        names = dict.fromkeys(name for report in reports for name in report.metrics)
        self._columns: dict[str, list[Any]] = {"round": [report.round for report in reports]}
        for name in names:
            self._columns[name] = [report.metrics.get(name) for report in reports]

    def __getitem__(self, name: str) -> list[Any]:
        """Return one column."""
        return self._columns[name].copy()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, ``round`` first."""
        return iter(self._columns)

    def __len__(self) -> int:
        """Return how many columns there are."""
        return len(self._columns)

    def __repr__(self) -> str:
        """Show the columns as a dict would."""
        return f"MetricColumns({self._columns!r})"

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the columns by name."""
        return {name: column.copy() for name, column in self._columns.items()}

    def to_pandas(self) -> Any:
        """Return the columns as a ``pandas.DataFrame`` indexed by round; raises ``MissingExtra`` without pandas."""
        try:
            import pandas as pd  # noqa: PLC0415 - optional, and half a second to import
        except ImportError as error:
            raise MissingExtra(
                "to_pandas() needs pandas, which is not installed: `pip install pandas`, or use to_dict()"
            ) from error
        return pd.DataFrame(self._columns).set_index("round")


@dataclass(frozen=True)
class History:
    """A finished run: ``rounds`` in order, and the ``digest`` of the model it ended with.

    ``statistics`` reports, as round 0, on the phase before training in which statistics were summed; None without one.

    >>> report = RoundReport(1, 2, 2, (), (), {"train.loss": 0.5}, {}, {}, "blake3:00")
    >>> history = History((report,), "blake3:00")
    >>> history.metrics.to_dict()
    {'round': [1], 'train.loss': [0.5]}
    >>> History.from_json(history.to_json()) == history
    True
    """

    rounds: tuple[RoundReport, ...]
    digest: str
    _model: ParametersRecord | None = field(default=None, repr=False, compare=False)
    statistics: RoundReport | None = field(default=None, kw_only=True)

    @property
    def model(self) -> ParametersRecord:
        """The final model; raises ``RecordError`` for a history read from JSON, which does not carry it."""
        if self._model is None:
            raise RecordError(
                f"this history was read from JSON, which does not carry the model {self.digest}: "
                "load it with umbel.records.load(...)",
                at="History.model",
            )
        return self._model

    @property
    def metrics(self) -> MetricColumns:
        """The metrics of all rounds as columns."""
        return MetricColumns(self.rounds)

    def to_json(self) -> str:
        """Return everything but the model."""
        form = _Form(_FORM, self.digest, self.rounds, self.statistics)
        return msgspec.json.format(msgspec.json.encode(form), indent=2).decode()

    @classmethod
    def from_json(cls, text: str, model: ParametersRecord | None = None) -> "History":
        """Read what ``to_json`` wrote, adding the model if there is one.

        Raises ``CheckpointError`` for anything else, and for a model that is not the one that the run ended with.
        """
        form: _Form = _decode(text, _Form, at="History")
        if form.form != _FORM:
            raise CheckpointError(
                f"expected a history of form {_FORM}, got form {form.form}: read it with the version that wrote it"
            )
        if model is not None:
            _require_model(model, form.digest)
        return cls(form.rounds, form.digest, model, statistics=form.statistics)


class _Form(msgspec.Struct, forbid_unknown_fields=True):
    """A history as it stands in JSON."""

    form: int = msgspec.field(name="umbel-history")
    digest: str
    rounds: tuple[RoundReport, ...]
    statistics: RoundReport | None = None


def _decode(text: str, kind: Any, at: str) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"expected the JSON that to_json() writes, got something else: {error}", at=at) from error


def _require_model(model: object, expected: str) -> None:
    came = digest(model) if isinstance(model, ParametersRecord) else f"a {type(model).__name__}"
    if came != expected:
        raise CheckpointError(
            f"expected the model {expected}, with which this history ended, got {came}: give the record "
            'load("model.safetensors").parameters_records["model"] of its run, with load of umbel.records',
            at="History.model",
        )
