"""The reports of a run, on disk: a line of JSON for each round, which begin with 0 if statistics were collected."""

import os
from collections.abc import Sequence
from pathlib import Path

from umbel.errors import CheckpointError
from umbel.history import RoundReport


def append(path: Path, reports: Sequence[RoundReport]) -> None:
    """Append what is new, first cutting off what an interrupted round may have left behind the lines that count.

    A line is what it was if the one after it is: so only the last are compared, and a round costs no more the later.
    """
    path.touch()
    lines = path.read_bytes().split(b"\n")[:-1]
    kept = min(len(lines), len(reports))
    while kept and lines[kept - 1] != reports[kept - 1].to_json().encode():
        kept -= 1
    with path.open("r+b") as file:
        file.truncate(sum(len(line) + 1 for line in lines[:kept]))
        file.seek(0, os.SEEK_END)
        file.writelines(report.to_json().encode() + b"\n" for report in reports[kept:])
        file.flush()
        os.fsync(file.fileno())


def read(path: Path, number: int) -> tuple[RoundReport, ...]:
    """Return the reports up to round ``number``; raises ``CheckpointError`` when they are not all there."""
    lines = path.read_text("utf-8").split("\n")[:-1] if path.exists() else []
    first = 0 if lines and RoundReport.from_json(lines[0]).round == 0 else 1
    reports = tuple(RoundReport.from_json(line) for line in lines[: number + 1 - first])
    if [report.round for report in reports] != list(range(first, number + 1)):
        raise CheckpointError(f"expected the reports of rounds {first} to {number}, got {len(reports)}", at=str(path))
    return reports
