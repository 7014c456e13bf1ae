"""Few large pieces from many small segments.

A system call or a hash update for each of 10,000 arrays of 64 bytes costs more than the bytes. Small segments are
copied together, a bounded number of bytes at a time; large ones are passed on as they are.
"""

from collections.abc import Iterable, Iterator, Sequence

_SMALL = 64 * 1024
_PIECE = 1024 * 1024
# Joined once for all who go over them, if they are this few bytes.
_FEW = 8 * _PIECE


def gather(segments: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of ``segments`` in order, runs of small ones joined to pieces of about 1 MiB."""
    run: list[bytes | memoryview] = []
    size = 0
    for segment in segments:
        if len(segment) < _SMALL and size < _PIECE:
            run.append(segment)
            size += len(segment)
            continue
        if run:
            yield b"".join(run)
        run, size = ([segment], len(segment)) if len(segment) < _SMALL else ([], 0)
        if not run:
            yield segment
    if run:
        yield b"".join(run)


def gathered(segments: Sequence[bytes | memoryview]) -> Sequence[bytes | memoryview]:
    """Return segments to go over more than once: in few pieces, unless that would take much memory."""
    return list(gather(segments)) if sum(map(len, segments)) <= _FEW else segments
