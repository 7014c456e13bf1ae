"""The state of a run: one record set, so that whatever stores records stores runs.

parameters_records   "model", "statistics" if there are any, the strategy's companions by name; "optimizer.<name>", what
                     the server optimizer keeps, and "<companion>.optimizer.<name>", what those of companions keep;
                     "nodes" and "clock", what is remembered of nodes; "flight" and "flight.<version>", who trains, and
                     from which models, while rounds overlap; "flight.held" and "flight.held.<number>", what has come
                     for a model that is not made yet, and what was reported with it
configs_records      "run": round and seed; "strategy": the names of its parts; "config": the run's config
"""

from collections.abc import Mapping, Sequence

from umbel.errors import UsageError
from umbel.optimizers import OptimizerState
from umbel.personal import split
from umbel.records import ConfigsRecord, ParametersRecord, RecordSet, dumps
from umbel.strategy import Strategy

MODEL = "model"
STATISTICS = "statistics"
CONFIG = "config"
RUN = "run"
STRATEGY = "strategy"
ROUND = "round"
SEED = "seed"

_OPTIMIZER = "optimizer."
_ConfigValue = bool | int | float | str


def begin(
    strategy: Strategy,
    initial: ParametersRecord,
    *,
    seed: int = 0,
    run_config: Mapping[str, _ConfigValue] | None = None,
) -> RecordSet:
    """Return the state of a run before its first round.

    ``run_config`` goes to every node with every instruction. Raises ``UsageError`` when it has a key "round", which
    the loop writes, and for a seed outside 0 to 2**63 - 1; ``StrategyError`` when the strategy keeps arrays local that
    the model does not have; ``RecordError`` for what no checkpoint can hold, such as the name of an array that is not
    NFC.
    """
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise UsageError(f"expected a seed from 0 to 2**63 - 1, got {seed!r}", at="seed")
    config = dict(run_config or {})
    if ROUND in config:
        raise UsageError(
            f"expected a run config without {ROUND!r}, which the loop sets itself: rename it", at="run_config"
        )
    model = split(initial, strategy.local)[0]
    records = {MODEL: model, **as_records(strategy.optimizer.init(model))}
    for companion in strategy.companions:
        first = companion.init(model)
        records |= {companion.name: first, **as_records(companion.optimizer.init(first), companion.name)}
    state = RecordSet(
        records,
        configs_records={
            RUN: ConfigsRecord({ROUND: 0, SEED: seed}),
            STRATEGY: ConfigsRecord(strategy.describe()),
            CONFIG: ConfigsRecord(config),
        },
    )
    dumps(state)  # copies nothing, and refuses now what would be refused after a round of training
    return state


def differences(state: RecordSet, fresh: RecordSet) -> list[str]:
    """Say in which ways ``state`` cannot be a later state of the run that begins with ``fresh``.

    The values of the first model do not count: an app may draw them, and a run that goes on has no use for them.
    """
    found = []
    for name in (RUN, STRATEGY, CONFIG):
        before, now = state.configs_records.get(name, ConfigsRecord()), fresh.configs_records[name]
        keys = [key for key in {**now, **before} if key != ROUND or name != RUN]
        found += [
            f"{name}.{key} is {before.get(key)!r} in the checkpoint, {now.get(key)!r} in this run"
            for key in keys
            if repr(before.get(key)) != repr(now.get(key))  # NaN is NaN here, and True is not 1
        ]
    there, here = (_layout(each.parameters_records.get(MODEL, ParametersRecord())) for each in (state, fresh))
    found += [
        f"model[{key!r}] is {there.get(key, 'absent')} in the checkpoint, {here.get(key, 'absent')} in this run"
        for key in {**here, **there}
        if there.get(key) != here.get(key)
    ]
    if not found and list(there) != list(here):
        found.append("the arrays of the model are in another order")
    return found


def round_and_seed(state: RecordSet) -> tuple[int, int]:
    """Return how many rounds are behind the state, and the run's seed."""
    run = state.configs_records[RUN]
    return int(run[ROUND]), int(run[SEED])  # type: ignore[arg-type]


def with_parameters(state: RecordSet, records: Mapping[str, ParametersRecord], *, completed: int) -> RecordSet:
    """Return the state after ``completed`` rounds, with these records in place of those of the same names."""
    following = state.copy()
    following.parameters_records.update(records)
    following.configs_records[RUN][ROUND] = completed
    return following


def optimizer_state(state: RecordSet, companion: str = "") -> OptimizerState:
    """Return what the optimizer of the model, or of a companion, keeps, under the names that it knows."""
    prefix, records = _prefix(companion), state.parameters_records.items()
    return {name.removeprefix(prefix): record for name, record in records if name.startswith(prefix)}


def as_records(kept: OptimizerState, companion: str = "") -> dict[str, ParametersRecord]:
    """Return the same under names that cannot clash with the loop's."""
    return {_prefix(companion) + name: record for name, record in kept.items()}


def _prefix(companion: str) -> str:
    return f"{companion}.{_OPTIMIZER}" if companion else _OPTIMIZER


def instruction(state: RecordSet, number: int, companions: Sequence[str] = ()) -> RecordSet:
    """Return what every node of a round is sent: the model, what there is beside it, the config and the round."""
    names = (MODEL, STATISTICS, *companions)
    records = state.parameters_records
    shared = {name: records[name].copy() for name in names if name in records}
    config = ConfigsRecord({**state.configs_records[CONFIG], ROUND: number})
    return RecordSet(shared, configs_records={CONFIG: config})


def _layout(model: ParametersRecord) -> dict[str, str]:
    # Opaque bytes may have grown.
    opaque = {name for name, array in model.items() if array.dtype == "uint8" and len(array.shape) == 1}
    return {name: f"{array.dtype}{'' if name in opaque else array.shape}" for name, array in model.items()}
