"""Ways to turn a model into bytes and back: Umbel's, and each peer's own, as its documentation does it.

``WAYS[side](arrays, folder)`` returns functions by name. A function does one whole piece of work and returns what it
made, so that giving a model's memory back is in nobody's time.
"""

import io
import mmap
import os
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["LARGE", "WAYS"]

Arrays = dict[str, np.ndarray]
Ways = dict[str, Callable[[], Any]]

#: From this size on, NumPy asks the kernel for huge pages.
LARGE = 4 * 2**20


def umbel(arrays: Arrays, folder: Path) -> Ways:
    from umbel.records import Arena, ParametersRecord, dumps, loads  # noqa: PLC0415 - not in a peer's environment

    arena = Arena()
    record = ParametersRecord.from_numpy(arrays)
    container = _joined(dumps(record))
    views = [name for name, array in arrays.items() if array.nbytes < LARGE]

    def round_trip() -> Any:
        segments = dumps(ParametersRecord.from_numpy(arrays, copy=False))
        received = loads(_joined(segments))
        return received.parameters_records["model"].to_numpy(copy=False)

    return {
        **_copies(arrays, {"all": list(arrays), "small": views, "large": [n for n in arrays if n not in set(views)]}),
        "record": lambda: ParametersRecord.from_numpy(arrays).to_numpy(copy=False),
        "record, copied out": lambda: ParametersRecord.from_numpy(arrays).to_numpy(),
        "record, arena": lambda: ParametersRecord.from_numpy(arrays, arena=arena).to_numpy(copy=False),
        "container": round_trip,
        "dumps + loads": lambda: (dumps(record), loads(container)),
        "loads": lambda: loads(container),
        **_arrays(arrays, views),
        **_files(arrays, folder),
    }


def _copies(arrays: Arrays, groups: dict[str, list[str]]) -> Ways:
    """One warm memcpy of the bytes of each group of arrays."""
    ways: Ways = {}
    for group, names in groups.items():
        size = sum(arrays[name].nbytes for name in names)
        source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
        ways[f"memcpy {group}"] = lambda source=source, target=target: np.copyto(target, source)
    return ways


def _arrays(arrays: Arrays, small: list[str]) -> Ways:
    from umbel.records import array_from_numpy  # noqa: PLC0415 - as above

    # `.npy` cannot name bfloat16, and the error that says so is not what is measured here.
    stype = "raw" if any(array.dtype.kind == "V" for array in arrays.values()) else "numpy.ndarray"
    groups = {"all": list(arrays.values()), "small": [arrays[name] for name in small]}
    groups["large"] = [array for name, array in arrays.items() if name not in set(small)]

    def trip(group: str) -> list[Any]:
        made = [array_from_numpy(array, stype) for array in groups[group]]
        return [(array, array.numpy(copy=False)) for array in made]

    return {f"arrays {group}": lambda group=group: trip(group) for group in groups}


def _files(arrays: Arrays, folder: Path) -> Ways:
    from blake3 import blake3  # noqa: PLC0415 - as above

    from umbel.records import ParametersRecord, digest, dumps, load, save  # noqa: PLC0415 - as above

    record = ParametersRecord.from_numpy(arrays)
    flat = _joined(dumps(record))
    kept, saved, written = folder / "kept", folder / "saved", folder / "written"
    save(record, kept)

    # The bytes are read in the same pieces either way, so that what differs is finding them.
    ends = list(accumulate(len(segment) for segment in dumps(record)))

    def read() -> list[Any]:
        return [_pass(array.data) for array in load(kept).parameters_records["model"].values()]

    return {
        "digest": lambda: digest(record),
        "blake3": lambda: blake3(flat).hexdigest(),
        "save": lambda: save(record, saved),
        "writev": lambda: _write(written, flat),
        "load": lambda: load(kept),
        "load and read": read,
        "map and read": lambda: _read_pieces(_mapped(kept), ends),
    }


def _joined(segments: list[Any]) -> np.ndarray:
    """Return the segments one after the other in one array, as someone who receives them would have them."""
    buffer = np.empty(sum(map(len, segments)), np.uint8)
    view, place = memoryview(buffer), 0
    for segment in segments:
        view[place : place + len(segment)] = segment
        place += len(segment)
    return buffer


def _write(path: Path, data: np.ndarray) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        assert os.writev(descriptor, [data]) == len(data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _read_pieces(mapped: mmap.mmap, ends: list[int]) -> list[Any]:
    view = memoryview(mapped)
    return [_pass(view[start:end]) for start, end in pairwise(ends)]


def _pass(data: Any) -> np.generic:
    """Look at every byte once, at the speed of memory."""
    return np.bitwise_or.reduce(np.frombuffer(data, np.uint64))


def flower_1_13(arrays: Arrays, folder: Path) -> Ways:  # noqa: ARG001 - one signature for all
    from flwr.common import ParametersRecord, array_from_numpy  # noqa: PLC0415 - only in its own environment
    from flwr.common.serde import parameters_record_from_proto, parameters_record_to_proto  # noqa: PLC0415
    from flwr.proto.recordset_pb2 import ParametersRecord as Wire  # noqa: PLC0415

    def made() -> Any:
        return ParametersRecord({name: array_from_numpy(array) for name, array in arrays.items()}, keep_input=True)

    def wire() -> Any:
        data = parameters_record_to_proto(made()).SerializeToString()
        return _read(parameters_record_from_proto(Wire.FromString(data)))

    return {"Array": lambda: _with(made()), "Array and wire form": wire}


def flower_1_41(arrays: Arrays, folder: Path) -> Ways:  # noqa: ARG001 - one signature for all
    from flwr.app import Array, ArrayRecord  # noqa: PLC0415 - only in its own environment
    from flwr.supercore.inflatable.inflatable_object import (  # noqa: PLC0415
        get_all_nested_objects,
        no_object_id_recompute,
    )
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents  # noqa: PLC0415

    def made() -> Any:
        return ArrayRecord({name: Array(array) for name, array in arrays.items()})

    def wire() -> Any:
        record = made()
        # What Flower does around its own uploads, or each digest would be computed several times.
        with no_object_id_recompute():
            contents = {name: item.deflate() for name, item in get_all_nested_objects(record).items()}
            return _read(inflate_object_from_contents(record.object_id, contents))

    return {"Array": lambda: _with(made()), "Array and wire form": wire}


def _with(record: Any) -> Any:
    return record, _read(record)


def _read(record: Any) -> list[np.ndarray]:
    return [array.numpy() for array in record.values()]


def safetensors(arrays: Arrays, folder: Path) -> Ways:  # noqa: ARG001 - one signature for all
    from safetensors.numpy import load, save  # noqa: PLC0415 - only in its own environment

    return {"bytes": lambda: load(save(arrays))}


def torch(arrays: Arrays, folder: Path) -> Ways:  # noqa: ARG001 - one signature for all
    import torch as library  # noqa: PLC0415 - only in its own environment

    def tensor(array: np.ndarray) -> Any:
        if array.dtype.name == "bfloat16":
            return library.from_numpy(array.view(np.int16)).view(library.bfloat16)
        return library.from_numpy(np.atleast_1d(array)).reshape(array.shape)

    state = {name: tensor(array) for name, array in arrays.items()}

    def trip() -> Any:
        buffer = io.BytesIO()
        library.save(state, buffer)
        buffer.seek(0)
        return library.load(buffer, weights_only=True)

    return {"bytes": trip}


WAYS: dict[str, Callable[[Arrays, Path], Ways]] = {
    "umbel": umbel,
    "flwr-1.13.1": flower_1_13,
    "flwr-1.41.0": flower_1_41,
    "safetensors": safetensors,
    "torch": torch,
}
