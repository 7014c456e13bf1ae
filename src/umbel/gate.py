"""The gate: what an update must be to count. One that is not is refused with the reason, and the round goes on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from math import inf, isfinite, sqrt
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation import Update, flat, squared_distance
from umbel.aggregation._layout import Columns, Slot, columns, dtype_of, plain, slots
from umbel.errors import AggregationError, StrategyError, UpdateRejected
from umbel.records import Array, ParametersRecord
from umbel.records._parameters import solid_of
from umbel.records._solid import Run

__all__ = ["Gate", "Verdict"]

_Block: TypeAlias = NDArray[Any]

# A node that counts more examples than this is mistaken, or greedy.
_MAX_WEIGHT: Final = 1e9
_BLOCK: Final = 2**16  # elements
_SHOWN: Final = 3
_AT: Final = "parameters_records.model"


class Verdict(NamedTuple):
    """An accepted update: its node, and the norm of its difference from the model if the gate has a bound for it."""

    node: str
    norm: float | None


@dataclass(frozen=True)
class Gate:
    """What is asked of an update.

    Names, dtypes and shapes must be those of the template, names in any order; payloads must hold what they declare;
    the bytes of bools must be 0 or 1. A strategy is given its gate as ``fedavg(gate=Gate(max_norm=2.0))``; the template
    of a model is the one that the node was sent.

    Args:
        max_norm: largest Euclidean norm of ``update - template`` over all float and complex arrays together; None for
            no bound. The norm is the same on every machine, to the last bit.
        max_weight: largest weight. The smallest is above 0.
        finite: refuse NaN and infinite elements.
        any_length: names of arrays whose first size may be any: what is opaque, such as an ensemble of trees.

    Raises:
        StrategyError: for a bound that is not above 0.

    """

    max_norm: float | None = None
    max_weight: float = _MAX_WEIGHT
    finite: bool = True
    any_length: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Check the bounds."""
        for name, bound in (("max_norm", self.max_norm), ("max_weight", self.max_weight)):
            if bound is not None and not 0 < bound < inf:
                raise StrategyError(f"expected a number above 0 for {name}, got {bound!r}", at="Gate")

    def check(self, template: ParametersRecord, update: Update) -> Verdict:
        """Return a verdict on an update that passes.

        Raises:
            UpdateRejected: with the reason, whatever is wrong with the update.

        """
        try:
            return self.against(template)(update)
        except UpdateRejected as error:
            raise UpdateRejected(f"update of node {update.node!r}: {error.message}", at=error.at) from error

    def against(self, template: ParametersRecord) -> Callable[[Update], Verdict]:
        """Return ``check`` for one template: what is known from the template alone is found out once.

        Its reasons do not name the node, for whoever groups them.
        """
        # Solid records are seldom looked at array by array, and not every gate is asked in each round.
        return partial(self._check, template, cache(partial(_expected, template)))

    def _check(self, template: ParametersRecord, expected: "_Find", update: Update) -> Verdict:
        try:
            _check_weight(update.weight, self.max_weight)
            _check_kind(update.record)
            # Whoever asks nothing of numbers does not pay for their warnings.
            computes = self.finite or self.max_norm is not None
            with np.errstate(all="ignore") if computes else nullcontext():
                return Verdict(update.node, self._checked(template, expected, update.record))
        except _Fault as fault:
            raise UpdateRejected(fault.reason, at=fault.at) from fault.__cause__

    def _checked(self, template: ParametersRecord, expected: "_Find", record: ParametersRecord) -> float | None:
        """Return the norm of a record that passes; where that is finite all numbers are, so nobody reads them twice."""
        if self.max_norm is None:
            self._check_arrays(template, expected, record, finite=self.finite)
            return None
        self._check_arrays(template, expected, record, finite=False)
        norm = _norm(template, record)
        if self.finite and not isfinite(norm):
            self._check_arrays(template, expected, record, finite=True)
        if not norm <= self.max_norm:
            raise _Fault(f"expected a norm of at most {self.max_norm!r} from the model, got {norm:.6g}", _AT)
        return norm

    def _check_arrays(
        self, template: ParametersRecord, expected: "_Find", record: ParametersRecord, *, finite: bool
    ) -> None:
        if _is_alike(template, record, finite=finite):
            return
        declared, checks, columns = expected(finite)
        found = plain(columns, record)
        if found is None or not _are_good(checks, declared, found):
            arrays = _check_names(template, record)
            for slot, check in zip(declared, checks, strict=True):
                _check_array(slot, check, arrays[slot.name], any_length=slot.name in self.any_length)


class _Expected(NamedTuple):
    """What a template says of its arrays, the check of each one's elements, and what most updates look like."""

    slots: tuple[Slot, ...]
    checks: list[Callable[[_Block], str] | None]
    columns: Columns


_Find: TypeAlias = Callable[[bool], _Expected]


def _expected(template: ParametersRecord, finite: bool) -> _Expected:  # noqa: FBT001 - an option of the gate
    declared = slots(template)
    return _Expected(declared, [_check_of(slot.kind, finite) for slot in declared], columns(declared))


def _is_alike(template: ParametersRecord, record: ParametersRecord, *, finite: bool) -> bool:
    """Say whether a record is known to pass array by array: it and the template are solid, in one layout."""
    ours = solid_of(template)
    theirs = None if ours is None else solid_of(record)
    if ours is None or theirs is None or ours.layout != theirs.layout:
        return False
    return not any(_problem(run, theirs.data, finite=finite) for run in theirs.layout.runs)


def _norm(template: ParametersRecord, record: ParametersRecord) -> float:
    try:
        return sqrt(squared_distance(template, record))
    except AggregationError as error:  # arrays that may have any length have no distance
        raise _Fault(f"{error.message}, and a norm was asked for", error.at) from error


def _are_good(
    checks: Sequence[Callable[[_Block], str] | None], declared: Sequence[Slot], payloads: Sequence[memoryview]
) -> bool:
    """Say whether elements are known to pass: a sum of squares is finite only if every element is."""
    squares: Any = 0.0
    for check, slot, payload in zip(checks, declared, payloads, strict=True):
        if check is None:
            continue
        elements = np.frombuffer(payload, slot.kind)
        if check is _check_reals and elements.size <= _BLOCK:
            squares += elements.dot(elements)
        elif check(elements):
            return False
    return isfinite(squares)


def _check_array(slot: Slot, check: Callable[[_Block], str] | None, array: Array, *, any_length: bool) -> None:
    name, dtype, shape = slot.name, slot.dtype, slot.shape
    if array.dtype != dtype:
        raise _Fault(f"expected dtype {dtype}, got {array.dtype!r}", f"{_AT}[{name!r}].dtype")
    if array.shape != shape and not (any_length and shape and array.shape and array.shape[1:] == shape[1:]):
        raise _Fault(f"expected shape {shape}, got {array.shape}", f"{_AT}[{name!r}].shape")
    elements = _decode(array, name)
    problem = check(elements) if check is not None else ""
    if problem:
        raise _Fault(problem, f"{_AT}[{name!r}]")


def _problem(run: Run, data: memoryview, *, finite: bool) -> str:
    kind = dtype_of(run.dtype)
    check = _check_of(kind, finite)
    return "" if check is None else check(np.frombuffer(data[run.start : run.stop], kind))


class _Fault(Exception):
    """A reason, before it is known whose."""

    def __init__(self, reason: str, at: str) -> None:
        super().__init__(reason, at)
        self.reason, self.at = reason, at


def _check_weight(weight: object, most: float) -> None:
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= most:
        raise _Fault(f"expected a weight above 0 and at most {most:g}, got {_shown(weight)}", "weight")


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**18:  # its digits may be endless
        return f"an int of {value.bit_length()} bits"
    return f"{value!r:.40}" if isinstance(value, int | float) else f"a {type(value).__name__}"


def _check_kind(record: object) -> None:
    if not isinstance(record, ParametersRecord):
        raise _Fault(f"expected a ParametersRecord, got a {type(record).__name__}", _AT)


def _check_names(template: ParametersRecord, record: ParametersRecord) -> dict[str, Array]:
    if record.keys() == template.keys():
        return dict(record.items())
    missing = [name for name in template if name not in record]
    extra = [name for name in record if name not in template]
    parts = [f"{what} {_listed(names)}" for what, names in (("missing", missing), ("unexpected", extra)) if names]
    renamed = [(old, new) for old, new in zip(missing, extra, strict=False) if _alike(template[old], record[new])]
    if renamed and len(missing) == len(extra) == len(renamed):
        parts = ["renamed " + _listed([f"{old!r} to {new!r}" for old, new in renamed], quote=False)]
    raise _Fault(f"expected the names of the model's arrays: {', '.join(parts)}", _AT)


def _alike(ours: Array, theirs: Array) -> bool:
    return ours.dtype == theirs.dtype and ours.shape == theirs.shape


def _listed(names: list[str], *, quote: bool = True) -> str:
    shown = [f"{name!r:.80}" if quote else f"{name:.160}" for name in names[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _decode(array: Array, name: str) -> _Block:
    try:
        return flat(array)
    except Exception as error:
        reason = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
        raise _Fault(f"the payload cannot be decoded: {reason:.300}", f"{_AT}[{name!r}].data") from error


# Values.


@lru_cache(maxsize=256)
def _check_of(dtype: np.dtype[Any], finite: bool) -> Callable[[_Block], str] | None:  # noqa: FBT001 - an option of the gate
    """Return the check of the elements of a dtype, which gives a reason or nothing; None if any value will do."""
    if dtype.kind == "b":
        return _check_bools
    if not finite:
        return None
    if dtype in (np.float32, np.float64):
        return _check_reals
    if dtype.kind == "c":
        return partial(_check_complex, np.empty(0, dtype).real.dtype)
    if dtype.name in ("float16", "bfloat16"):
        return partial(_check_halves, np.array(inf, dtype).view(np.uint16))
    return _check_any if "float" in dtype.name else None


def _blocks(elements: _Block) -> Iterator[_Block]:
    if elements.size <= _BLOCK:
        return iter((elements,))
    return (elements[start : start + _BLOCK] for start in range(0, elements.size, _BLOCK))


def _check_bools(elements: _Block) -> str:
    codes = elements.view(np.uint8)
    bad = sum(int(np.count_nonzero(block > 1)) for block in _blocks(codes)) if codes.size and codes.max() > 1 else 0
    return f"expected bytes of 0 or 1 for bool, got {bad} others among {codes.size}" if bad else ""


def _check_reals(elements: _Block) -> str:
    """Check float32 and float64: a sum of squares is finite only if every element is."""
    if elements.size <= _BLOCK:
        return "" if isfinite(elements.dot(elements)) else _check_any(elements)
    return "" if all(isfinite(block.dot(block)) for block in _blocks(elements)) else _check_any(elements)


def _check_complex(real: np.dtype[Any], elements: _Block) -> str:
    return _check_reals(elements.view(real))


def _check_halves(infinity: _Block, elements: _Block) -> str:
    """Check numbers of 16 bits: below the bits of infinity, sign aside, is what is finite."""
    magnitude = infinity.dtype.type(0x7FFF)
    bits = elements.view(infinity.dtype)
    if all((block & magnitude).max() < infinity for block in _blocks(bits) if block.size):
        return ""
    return _check_any(elements)


def _check_any(elements: _Block) -> str:
    nan = infinite = 0
    for block in _blocks(elements):
        bad = block[~np.isfinite(block)]
        nan += int(np.count_nonzero(np.isnan(bad)))
        infinite += bad.size
    infinite -= nan
    if not nan and not infinite:
        return ""
    return f"expected finite numbers, got {nan} NaN and {infinite} infinite among {elements.size}"
