"""Which tensors of a state dict are one and the same memory.

Tied weights appear in a state dict once a name. Tensors that start at the same byte with the same shape, strides and
dtype are one tensor. Tensors that share some elements but not all cannot be said in a record, whose arrays are apart.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from umbel.errors import RecordError

# An exact answer to "do two strided views share an element?" can take very long; past this many steps, assume they do.
_EFFORT = 100_000


class _Extent(NamedTuple):
    """The bytes that a tensor reaches over: from ``start`` up to ``stop``."""

    start: int
    stop: int
    name: str


def find_tied(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return, for each name whose tensor is that of an earlier name, that earlier name.

    Raises:
        RecordError: if two tensors share memory without being the same tensor.

    """
    first: dict[Hashable, str] = {}
    tied = {}
    for name, tensor in tensors.items():
        kept = first.setdefault(_identity(tensor), name) if tensor.numel() else name
        if kept != name:
            tied[name] = kept
    for names in _by_storage(tensors, leave_out=tied):
        _check_apart(names, tensors)
    return tied


def _identity(tensor: torch.Tensor) -> Hashable:
    place = (tensor.device, tensor.data_ptr())
    return (*place, tensor.dtype, tensor.shape, tensor.stride(), tensor.is_conj(), tensor.is_neg())


def _by_storage(tensors: Mapping[str, torch.Tensor], leave_out: Mapping[str, str]) -> Iterable[list[str]]:
    groups = defaultdict(list)
    for name, tensor in tensors.items():
        if name not in leave_out and tensor.numel():
            groups[tensor.device, tensor.untyped_storage().data_ptr()].append(name)
    return (names for names in groups.values() if len(names) > 1)


def _check_apart(names: list[str], tensors: Mapping[str, torch.Tensor]) -> None:
    extents = sorted(_extent(name, tensors[name]) for name in names)
    if all(left.stop <= right.start for left, right in pairwise(extents)):
        return
    for place, left in enumerate(extents):
        for right in extents[place + 1 :]:
            if right.start >= left.stop:
                break
            if _share(tensors[left.name], tensors[right.name]):
                raise _overlap(*sorted((left.name, right.name), key=names.index))


def _extent(name: str, tensor: torch.Tensor) -> _Extent:
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in steps)
    start = tensor.data_ptr()
    return _Extent(start, start + (last + 1) * tensor.element_size(), name)


def _share(left: torch.Tensor, right: torch.Tensor) -> bool:
    base = min(left.data_ptr(), right.data_ptr())
    try:
        return np.shares_memory(_shadow(left, base), _shadow(right, base), max_work=_EFFORT)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _shadow(tensor: torch.Tensor, base: int) -> np.ndarray:
    """Return an array laid out like ``tensor``; only its addresses are used, its memory is never touched.

    The tensor may be on another device, so it is moved to where a NumPy array may be: the same distance from an
    address of ours as from ``base``.
    """
    size = tensor.element_size()
    interface = {
        "version": 3,
        "shape": tuple(tensor.shape),
        "typestr": f"|V{size}",
        "strides": tuple(stride * size for stride in tensor.stride()),
        "data": (2**20 + tensor.data_ptr() - base, True),
    }
    return np.asarray(type("Shadow", (), {"__array_interface__": interface})())


def _overlap(first: str, second: str) -> RecordError:
    msg = (
        f"the tensors {first!r} and {second!r} share part of their memory, but are not the same tensor, and a record "
        f"holds each array apart; pass .clone() of one of them if they need not stay tied"
    )
    return RecordError(msg, at=f"state_dict[{second!r:.80}]")
