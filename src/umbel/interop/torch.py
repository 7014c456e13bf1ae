"""PyTorch: a ``state_dict`` as a record, and back, bit for bit.

Tied weights, one tensor under several names, are stored once. The first name holds the array. Each further name is kept
at its place as an empty array called ``"further name -> first name"``, which every step of a federation (averaging,
clipping, noise) leaves as it is, and ``to_state_dict`` makes both names one tensor again.
"""

from collections.abc import Mapping

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from umbel.errors import BadDtype, BadName, DuplicateName, MissingExtra, RecordTypeError
from umbel.records import ParametersRecord

try:
    import torch
except ImportError as error:
    msg = "umbel.interop.torch needs PyTorch, which is not installed; run: pip install 'umbel[torch]'"
    raise MissingExtra(msg) from error

from umbel.interop._sharing import find_tied

__all__ = ["add_proximal", "to_record", "to_state_dict"]

_ARROW = " -> "

# The names are the same on both sides; a PyTorch that lacks one of them cannot meet it.
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_FLOATS = ("float16", "float32", "float64", "complex64", "complex128", "bfloat16")
_FLOATS8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
_SHARED_NAMES = ("bool", *_INTEGERS, *_FLOATS, *_FLOATS8)
_TORCH: dict[str, torch.dtype] = {name: getattr(torch, name) for name in _SHARED_NAMES if hasattr(torch, name)}
_NUMPY: dict[torch.dtype, np.dtype] = {
    kind: np.dtype(getattr(ml_dtypes, name, None) or name) for name, kind in _TORCH.items()
}
# PyTorch hands these to NumPy only under the name of an integer of the same size.
_STAND_IN = {torch.bfloat16: torch.int16} | {_TORCH[name]: torch.uint8 for name in _FLOATS8 if name in _TORCH}


def to_record(state_dict: Mapping[str, torch.Tensor], *, copy: bool = True) -> ParametersRecord:
    """Return the tensors of ``state_dict`` as a record, names and order kept, every bit as it was.

    Gradients are left out. Tensors on other devices are brought to the CPU. Tied weights are stored once.

    Args:
        state_dict: tensors by name, as ``module.state_dict()`` gives them.
        copy: True takes a snapshot, in one allocation. False copies nothing that is on the CPU and contiguous: the
            record then shows the memory of the tensors, keeps it alive, and changes when training goes on. Save or
            send it first.

    Raises:
        RecordTypeError: for an entry that is no tensor or has no plain memory (sparse, quantised, nested, meta, or
            not yet initialised), with its name.
        BadDtype: for a dtype that records lack, with the name of the tensor.
        BadName: for a name that holds the arrow of tied weights.
        RecordError: if two tensors share some memory without being the same tensor.

    >>> import torch
    >>> record = to_record(torch.nn.Linear(2, 1).state_dict())
    >>> [(name, array.shape) for name, array in record.items()]
    [('weight', [1, 2]), ('bias', [1])]
    >>> list(to_state_dict(record))
    ['weight', 'bias']

    """
    tensors = _tensors(state_dict)
    tied = find_tied(tensors)
    arrays = {}
    for name in list(tensors):
        tensor = tensors.pop(name)
        if name in tied:
            arrays[f"{name}{_ARROW}{tied[name]}"] = np.empty(0, _NUMPY[tensor.dtype])
        else:
            arrays[name] = _to_numpy(name, tensor)
    return ParametersRecord.from_numpy(arrays, keep_input=False, copy=copy)


def to_state_dict(record: Mapping[str, object]) -> dict[str, torch.Tensor]:
    """Return the arrays of ``record`` as CPU tensors, ready for ``module.load_state_dict``.

    Each tensor has memory of its own, except tied weights, which share theirs as they did: the memory of a record is
    read-only, often a file, and PyTorch has no tensors that refuse to be written.

    Args:
        record: a ``ParametersRecord``.

    Raises:
        RecordTypeError: if ``record`` is no ParametersRecord, or an array has an unknown stype.
        BadDtype: for a dtype that PyTorch lacks, with the name of the array.
        DuplicateName: if a name holds both an array and a tied weight.
        BadName: if a tied weight points to a name that is not there, or has an array of its own.
        RecordError: if a payload does not hold what its Array says.

    """
    if not isinstance(record, ParametersRecord):
        msg = f"expected a ParametersRecord, got {type(record).__name__}"
        raise RecordTypeError(msg)
    arrays = record.to_numpy(copy=False)
    owners = {name: _to_tensor(name, array) for name, array in arrays.items() if _ARROW not in name}
    tensors = {}
    for name, array in arrays.items():
        own = name.partition(_ARROW)[0]
        if own in tensors:
            msg = f"two arrays of the record are the tensor {own!r}"
            raise DuplicateName(msg, at=f"ParametersRecord[{name!r:.80}]")
        tensors[own] = owners[name] if own == name else _tied(name, array, owners)
    return tensors


def add_proximal(module: torch.nn.Module, received: Mapping[str, torch.Tensor], mu: float) -> None:
    """Add ``mu*(parameter - received)`` to every gradient: FedProx, Li et al. 2020, arXiv:1812.06127.

    Call it between ``loss.backward()`` and ``optimizer.step()``. Parameters without a gradient are left alone.

    Args:
        module: what is trained; only its gradients change.
        received: the parameters that the node received, by name, for example from ``to_state_dict``.
        mu: weight of the proximal term, 0 or more.

    Raises:
        BadName: if ``received`` lacks a parameter that has a gradient.

    >>> import torch
    >>> module = torch.nn.Linear(1, 1, bias=False)
    >>> received = {"weight": module.weight.detach() - 2.0}
    >>> module(torch.ones(1, 1)).sum().backward()
    >>> add_proximal(module, received, mu=0.5)
    >>> module.weight.grad
    tensor([[2.]])

    """
    for name, parameter in module.named_parameters():
        if parameter.grad is None:
            continue
        if name not in received:
            msg = f"expected the parameter {name!r} among those that were received: pass all of the model"
            raise BadName(msg, at=f"received[{name!r:.80}]")
        with torch.no_grad():
            parameter.grad.add_(parameter - received[name].to(parameter), alpha=mu)


def _tensors(state_dict: object) -> dict[str, torch.Tensor]:
    if not isinstance(state_dict, Mapping):
        msg = f"expected a mapping from names to tensors, got {type(state_dict).__name__}; pass module.state_dict()"
        raise RecordTypeError(msg)
    return {name: _plain(name, value) for name, value in state_dict.items()}


def _plain(name: object, value: object) -> torch.Tensor:
    """Return ``value`` without its gradient, once it is known to be a tensor that a record can carry."""
    at = f"state_dict[{name!r:.80}]"
    if not isinstance(name, str):
        msg = f"expected a str as name, got {type(name).__name__}"
        raise RecordTypeError(msg, at=at)
    if _ARROW in name:
        msg = f"{_ARROW!r} in a name marks a tied weight; rename the tensor"
        raise BadName(msg, at=at)
    if not isinstance(value, torch.Tensor):
        msg = f"expected a tensor, got {type(value).__name__}; leave the entry out, or send it in a ConfigsRecord"
        raise RecordTypeError(msg, at=at)
    advice = _advice(value)
    if advice:
        raise RecordTypeError(advice, at=at)
    if value.dtype not in _NUMPY:
        msg = f"records have no {value.dtype}; convert the tensor, or pass .view(torch.uint8) to send its bytes"
        raise BadDtype(msg, at=at)
    return value.detach()


def _advice(tensor: torch.Tensor) -> str:
    """Return why ``tensor`` has no plain memory and what to do, or nothing."""
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        kind = type(tensor).__name__
        return f"a {kind} keeps its values elsewhere; pass a plain tensor (of a DTensor, .full_tensor())"
    if torch.nn.parameter.is_lazy(tensor):
        return "the tensor has no shape yet; run the module once before you take its state_dict"
    if tensor.is_meta:
        return "the tensor is on the meta device and has no data; materialise it with .to_empty(...) and load it"
    if tensor.is_quantized:
        return "the tensor is quantised; pass .dequantize(), or .int_repr() and the scales as entries of their own"
    if tensor.is_nested or tensor.layout != torch.strided:
        return f"the tensor is not dense (layout {tensor.layout}); pass .to_dense(), or its parts as entries"
    return ""


def _to_numpy(name: str, tensor: torch.Tensor) -> NDArray[np.generic]:
    # Conjugation and negation may be pending as a bit on the tensor: NumPy knows no such bits.
    here = tensor.cpu().resolve_conj().resolve_neg()
    try:
        return here.view(_STAND_IN.get(here.dtype, here.dtype)).numpy().view(_NUMPY[here.dtype])
    except (RuntimeError, TypeError) as error:
        msg = f"this {type(tensor).__name__} cannot be read as plain memory ({error}); pass a plain torch.Tensor"
        raise RecordTypeError(msg, at=f"state_dict[{name!r:.80}]") from error


def _to_tensor(name: str, array: NDArray[np.generic]) -> torch.Tensor:
    kind = _TORCH.get(array.dtype.name)
    if kind is None:
        msg = f"PyTorch has no dtype {array.dtype.name}; convert the array first, for example to float32"
        raise BadDtype(msg, at=f"ParametersRecord[{name!r:.80}]")
    tensor = torch.empty(array.shape, dtype=kind)
    _to_numpy(name, tensor)[...] = array
    return tensor


def _tied(name: str, array: NDArray[np.generic], owners: Mapping[str, torch.Tensor]) -> torch.Tensor:
    kept = name.partition(_ARROW)[2]
    if kept not in owners:
        msg = f"the name says that this is the same tensor as {kept!r}, which the record does not have"
        raise BadName(msg, at=f"ParametersRecord[{name!r:.80}]")
    if array.size:
        msg = f"the name says that this is the same tensor as {kept!r}, yet the array has {array.size} elements"
        raise BadName(msg, at=f"ParametersRecord[{name!r:.80}]")
    return owners[kept].detach()
