"""What nodes keep, on disk: a log whose files are written once.

After a round the states that changed in it go into files "new"; once those weigh as much as the last complete set,
or everything changed anyway, the complete set goes into files "all" and what is older is deleted. So a round costs what
changed in it, and the folder holds a small multiple of what is kept.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from umbel.errors import CheckpointError, RecordError
from umbel.records import ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet, dumps, load, save

# Well inside the limits of one container: 65,536 arrays, as many records, 262,144 values and 16 MiB of header.
_NODES_A_FILE: Final = 1_024
_ENTRIES_A_FILE: Final = 32_768
_HEADER_OF_A_FILE: Final = 2**22
_NAME: Final = re.compile(r"nodes-(\d+)-(all|new)-(\d+)")
_INDEX: Final = "index"
_SHOWN: Final = 3
_T = TypeVar("_T", str, int)


class _File(NamedTuple):
    round: int
    kind: str
    part: int
    path: Path


def write(folder: Path, number: int, nodes: Mapping[str, RecordSet], changed: Collection[str]) -> None:
    """Write the states that changed in round ``number``; an absent one is written as empty."""
    for file in _files(folder):
        if file.round >= number:
            file.path.unlink()
    if not changed:
        return
    complete = len(changed) >= len(nodes) or _outgrown(_files(folder))
    names = sorted(nodes) if complete else sorted(changed)
    for part, chunk in enumerate(_chunks(names, nodes)):
        kind = "all" if complete else "new"
        _save(chunk, folder / f"nodes-{number:08d}-{kind}-{part:04d}.safetensors")


def read(folder: Path, number: int) -> dict[str, RecordSet]:
    """Return the states as of round ``number``."""
    states: dict[str, RecordSet] = {}
    for file in _since_complete([file for file in _files(folder) if file.round <= number]):
        states.update(_unpack(load(file.path), file.path))
    return {name: state for name, state in states.items() if state != RecordSet()}


def forget_older(folder: Path, number: int) -> None:
    """Delete what the last complete set up to round ``number`` made superfluous."""
    files = [file for file in _files(folder) if file.round <= number]
    needed = set(_since_complete(files))
    for file in files:
        if file not in needed:
            file.path.unlink()


def _files(folder: Path) -> list[_File]:
    files = []
    for path in folder.glob("nodes-*.safetensors"):
        found = _NAME.fullmatch(path.stem)
        if found is not None:
            files.append(_File(int(found[1]), found[2], int(found[3]), path))
    return sorted(files)


def _since_complete(files: list[_File]) -> list[_File]:
    start = max((file.round for file in files if file.kind == "all"), default=0)
    return [file for file in files if file.round >= start]


def _outgrown(files: list[_File]) -> bool:
    sizes = {"all": 0, "new": 0}
    for file in _since_complete(files):
        sizes[file.kind] += file.path.stat().st_size
    return sizes["new"] > sizes["all"]


def _chunks(names: list[str], nodes: Mapping[str, RecordSet]) -> Iterator[dict[str, RecordSet]]:
    chunk: dict[str, RecordSet] = {}
    entries = header = 0
    for name in names:
        state = nodes.get(name, RecordSet())
        more, text = _count_entries(state), len(dumps(state)[0])
        full = entries + more > _ENTRIES_A_FILE or header + text > _HEADER_OF_A_FILE
        if chunk and (full or len(chunk) == _NODES_A_FILE):
            yield chunk
            chunk, entries, header = {}, 0, 0
        chunk[name] = state
        entries, header = entries + more, header + text
    yield chunk


def _count_entries(state: RecordSet) -> int:
    """Return how many records, arrays and values there are, the items of lists counted one by one."""
    records: list[Mapping[str, object]] = [*state.metrics_records.values(), *state.configs_records.values()]
    values = sum(len(value) if isinstance(value, list) else 1 for record in records for value in record.values())
    arrays = sum(map(len, state.parameters_records.values()))
    return len(state.parameters_records) + len(records) + arrays + values


def _save(states: Mapping[str, RecordSet], path: Path) -> None:
    try:
        save(_pack(states), path)
    except RecordError as error:
        names = ", ".join(list(states)[:_SHOWN])
        message = f"expected states that one file can hold, got those of the nodes {names}: {error.message}"
        raise CheckpointError(message, at=error.at) from error


def _pack(states: Mapping[str, RecordSet]) -> RecordSet:
    """Put many record sets into one: their records numbered, an index of whose they are and what they are called."""
    packed, index = RecordSet(), ConfigsRecord({"nodes": list(states)})
    for kind in ("parameters", "metrics", "configs"):
        found = [
            (place, name, record)
            for place, state in enumerate(states.values())
            for name, record in getattr(state, f"{kind}_records").items()
        ]
        index[f"{kind}-of"] = [place for place, _, _ in found]
        index[f"{kind}-names"] = [name for _, name, _ in found]
        getattr(packed, f"{kind}_records").update({str(i): record for i, (_, _, record) in enumerate(found)})
    packed.configs_records[_INDEX] = index
    return packed


def _unpack(packed: RecordSet, path: Path) -> dict[str, RecordSet]:
    try:
        index = packed.configs_records[_INDEX]
        names = _list(index, "nodes", str)
        states = {name: RecordSet() for name in names}
        for kind in ("parameters", "metrics", "configs"):
            records: Mapping[str, ParametersRecord | MetricsRecord | ConfigsRecord] = getattr(packed, f"{kind}_records")
            owners = zip(_list(index, f"{kind}-of", int), _list(index, f"{kind}-names", str), strict=True)
            for place, (owner, name) in enumerate(owners):
                getattr(states[names[owner]], f"{kind}_records")[name] = records[str(place)]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"expected the states of nodes, got a file without them: {error!r}", at=str(path)
        ) from error
    return states


def _list(index: ConfigsRecord, key: str, kind: type[_T]) -> list[_T]:
    found = index[key]
    if not isinstance(found, list):
        raise TypeError(f"expected a list, got {type(found).__name__}")
    values = [value for value in found if isinstance(value, kind)]
    if len(values) != len(found):
        raise TypeError(f"expected a list of {kind.__name__}")
    return values
