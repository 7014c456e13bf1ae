"""The one driver of all optimizers that work element by element: an algorithm is a function of blocks."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isfinite, prod
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation import flat
from umbel.aggregation._layout import writable
from umbel.aggregation._memory import Memory
from umbel.aggregation._steps import blocks, real_parts
from umbel.errors import AggregationError, StrategyError
from umbel.optimizers._optimizer import ALONE, Cohort, Optimizer, OptimizerState
from umbel.records import ParametersRecord
from umbel.records._arena import allocate
from umbel.records._scratch import scratch_folder
from umbel.records._threads import cores, side_by_side

Block: TypeAlias = NDArray[Any]
# step(cohort, model, aggregate, *state) -> (model, *state), on blocks of one dtype, none of which it changes.
Step: TypeAlias = Callable[..., tuple[Block, ...]]

_FLOAT32: Final = np.dtype(np.float32)
_WIDE: Final = {name: np.dtype(name) for name in ("float64", "complex64", "complex128")}
_SIZE: Final = 2**13  # elements; the handful of blocks in use fit in a core's cache
_LEAST: Final = 2**20  # elements; fewer are done before a thread has begun
_Sizes: TypeAlias = Sequence[tuple[np.dtype[Any], int]]


def elementwise(name: str, step: Step, needs: tuple[str, ...] = (), /, **initial: float) -> Optimizer:
    """Return the optimizer that applies ``step`` to every element of the model.

    ``step(cohort, model, aggregate, *state) -> (model, *state)`` works on blocks of floats of one dtype, of up to 2**13
    elements, changes none of them and may be called by several threads at once.

    Args:
        name: what checkpoints call the optimizer; it holds the numbers, so that another number is another optimizer.
        step: the algorithm.
        needs: the sums that ``cohort.sums`` must have.
        initial: what every element of each state begins at, by name; "_" in a name becomes "-".

    Its ``consume`` puts the next model in the place of the aggregate, so that a step takes memory for the state alone.

    Its ``update`` raises ``AggregationError`` if the model, the aggregate and the state have different layouts, or the
    next model or state is not finite; ``StrategyError`` if ``step`` returns anything but a model and its states, each
    as long as the blocks that it was given.
    """
    whole = _Elementwise(
        name, step, {key.replace("_", "-"): value for key, value in initial.items()}, defaultdict(Memory)
    )
    return Optimizer(name, whole.init, whole.update, needs, whole.in_place, by_element=True)


def require(at: str, condition: bool, what: str) -> None:  # noqa: FBT001 - a condition
    """Raise ``StrategyError`` unless the condition holds."""
    if not condition:
        raise StrategyError(f"expected {what}", at=at)


def require_rate(at: str, name: str, value: float) -> None:
    """Raise ``StrategyError`` for a rate that is not a number above 0."""
    require(at, 0 < value < float("inf"), f"{name} above 0, got {value!r}")


def require_share(at: str, name: str, value: float) -> None:
    """Raise ``StrategyError`` for a share that is not from 0 to below 1."""
    require(at, 0 <= value < 1, f"{name} from 0 to below 1, got {value!r}")


class _Job(NamedTuple):
    """What is done to one array: the dtype that it is done in, what is read, and where the results go."""

    name: str
    kind: np.dtype[Any]
    sources: Sequence[Block]
    rooms: Sequence[Block]


@dataclass(frozen=True)
class _Elementwise:
    name: str
    step: Step
    initial: Mapping[str, float]
    memories: defaultdict[str, Memory] = field(compare=False, repr=False)

    def init(self, model: ParametersRecord) -> OptimizerState:
        """Return the state before the first update, each record with an array for every float of the model."""
        return {key: _filled(model, value) for key, value in self.initial.items()}

    def update(
        self, state: OptimizerState, model: ParametersRecord, aggregate: ParametersRecord, cohort: Cohort = ALONE, /
    ) -> tuple[OptimizerState, ParametersRecord]:
        """Return the next state and model, in memory of their own: they keep nothing of the aggregate."""
        slots = self._slots(state, model, aggregate)
        following = self._like("", aggregate, {name: flat(array).dtype for name, array in aggregate.items()})
        for name, array in aggregate.items():
            if _kind(array.dtype) is None:
                np.copyto(following[name].reshape(-1), flat(array))
        return self._moved(slots, model, aggregate, cohort, following)

    def in_place(
        self, state: OptimizerState, model: ParametersRecord, aggregate: ParametersRecord, cohort: Cohort = ALONE, /
    ) -> tuple[OptimizerState, ParametersRecord]:
        """Return the next state, and the next model in the memory of the aggregate."""
        slots = self._slots(state, model, aggregate)
        following = {name: writable(array).reshape(array.shape) for name, array in aggregate.items()}
        return self._moved(slots, model, aggregate, cohort, following)

    def _slots(
        self, state: OptimizerState, model: ParametersRecord, aggregate: ParametersRecord
    ) -> list[ParametersRecord]:
        slots = [state.get(key, ParametersRecord()) for key in self.initial]
        _check_layout(model, aggregate, slots)
        return slots

    def _moved(
        self,
        slots: Sequence[ParametersRecord],
        model: ParametersRecord,
        aggregate: ParametersRecord,
        cohort: Cohort,
        following: Mapping[str, Block],
    ) -> tuple[OptimizerState, ParametersRecord]:
        """Step all arrays that have a state, into ``following``, which may be the aggregate."""
        moved = [self._like(key, model, _kinds(model)) for key in self.initial]
        jobs = []
        for name, array in aggregate.items():
            mean, kind = flat(array), _kind(array.dtype)
            if kind is None:
                continue
            given = (flat(model[name]), mean, *(flat(slot[name]) for slot in slots))
            jobs.append(_job(name, kind, given, [record[name].reshape(-1) for record in (following, *moved)]))
        side_by_side([partial(self._step, cohort, share) for share in _shares(jobs, cores())])
        records = (ParametersRecord.from_numpy(slot, copy=False) for slot in moved)
        return dict(zip(self.initial, records, strict=True)), ParametersRecord.from_numpy(following, copy=False)

    def _like(self, key: str, record: ParametersRecord, kinds: Mapping[str, np.dtype[Any]]) -> dict[str, Block]:
        # Files are used again: their pages are dear, and do not count. Memory of the process is given back meanwhile.
        return _like(record, kinds, self.memories[key].allocate if scratch_folder() is not None else allocate)

    def _step(self, cohort: Cohort, jobs: Sequence[_Job]) -> None:
        """Step some arrays, a block at a time, in the dtype of their state."""
        with np.errstate(all="ignore"):
            for name, kind, sources, rooms in jobs:
                for part in blocks(sources[0].size, _SIZE):
                    given = (array[part].astype(kind, copy=False) for array in sources)
                    results = self.step(cohort, *given)
                    self._require(results, rooms[0][part].shape)
                    # The model last: its room may be that of the mean, which a state may be a view of.
                    for room, result in zip(reversed(rooms), reversed(results), strict=True):
                        np.copyto(room[part], result, casting="unsafe")
                        if not _is_finite(room[part]):
                            raise _not_finite(name)

    def _require(self, results: object, shape: tuple[int, ...]) -> None:
        """Raise ``StrategyError`` for results that are no blocks: NumPy would stretch one number over a block."""
        parts = results if isinstance(results, tuple | list) else None
        if parts and [getattr(part, "shape", None) for part in parts] == [shape] * (1 + len(self.initial)):
            return
        wanted = ", ".join(["model", *self.initial])
        came = _shown(results) if parts is None else f"({', '.join(map(_shown, parts))})"
        raise StrategyError(
            f"the step of {self.name!r} returned {came}, expected a tuple ({wanted}{'' if self.initial else ','}) of "
            f"arrays, each of shape {shape}",
            at="optimizer",
        )


def _shown(result: object) -> str:
    """Say what a step returned, by its shape where it has one."""
    return f"an array of shape {result.shape}" if isinstance(result, np.ndarray) else f"{result!r:.80}"


def _job(name: str, kind: np.dtype[Any], given: Sequence[Block], out: Sequence[Block]) -> _Job:
    sources, rooms = [real_parts(array) for array in given], [real_parts(array) for array in out]
    return _Job(name, rooms[0].dtype if kind.kind == "c" else kind, sources, rooms)


def _shares(jobs: Sequence[_Job], threads: int) -> list[list[_Job]]:
    """Deal jobs out in shares of one size, in order; a share may begin and end within an array."""
    size = sum(job.sources[0].size for job in jobs)
    goal = -(-size // (max(1, min(threads, size // _LEAST)) * _SIZE)) * _SIZE
    shares: list[list[_Job]] = [[]]
    free = goal
    for name, kind, sources, rooms in jobs:
        start = 0
        while start < sources[0].size:
            if not free:
                shares.append([])
                free = goal
            part = slice(start, min(sources[0].size, start + free))
            shares[-1].append(_Job(name, kind, [each[part] for each in sources], [each[part] for each in rooms]))
            free -= part.stop - start
            start = part.stop
    return shares


def _is_finite(block: Block) -> bool:
    """Say whether all elements are finite: a sum of squares that is finite clears a block at the price of one pass."""
    if block.dtype.char in "fd" and isfinite(block.dot(block)):
        return True
    return bool(np.isfinite(block).all())


def _kind(dtype: str) -> np.dtype[Any] | None:
    """Return the dtype of the state of an array of ``dtype``; None if it has none."""
    if dtype in _WIDE:
        return _WIDE[dtype]
    return _FLOAT32 if "float" in dtype else None


def _kinds(model: ParametersRecord) -> dict[str, np.dtype[Any]]:
    """Return the dtypes of a state by name."""
    return {name: kind for name, array in model.items() if (kind := _kind(array.dtype)) is not None}


def _like(
    record: ParametersRecord, kinds: Mapping[str, np.dtype[Any]], allocate: Callable[[_Sizes], list[Block]] = allocate
) -> dict[str, Block]:
    """Return unwritten arrays with the shapes of those of ``record`` that have a dtype among ``kinds``."""
    shapes = [record[name].shape for name in kinds]
    rooms = allocate(list(zip(kinds.values(), map(prod, shapes), strict=True)))
    return {name: room.reshape(shape) for name, room, shape in zip(kinds, rooms, shapes, strict=True)}


def _filled(model: ParametersRecord, value: float) -> ParametersRecord:
    arrays = _like(model, _kinds(model))
    for array in arrays.values():
        real_parts(array.reshape(-1)).fill(value)
    return ParametersRecord.from_numpy(arrays, copy=False)


def _not_finite(name: str) -> AggregationError:
    return AggregationError(
        "the next model, or the state, is not finite; lower the learning rate or beta, or use replace() for a model "
        "that holds infinite numbers on purpose",
        at=f"array {name!r}",
    )


def _check_layout(model: ParametersRecord, aggregate: ParametersRecord, slots: list[ParametersRecord]) -> None:
    dtypes = {name: array.dtype for name, array in model.items()}
    states = {name: kind.name for name, kind in _kinds(model).items()}
    if not _fits(aggregate, dtypes, model) or not all(_fits(slot, states, model) for slot in slots):
        raise AggregationError(
            "expected a model, an aggregate and a state of one layout; begin the state again with init(model)"
        )


def _fits(record: ParametersRecord, dtypes: Mapping[str, str], model: ParametersRecord) -> bool:
    return record.keys() == dtypes.keys() and all(
        (array.dtype, array.shape) == (dtypes[name], model[name].shape) for name, array in record.items()
    )
