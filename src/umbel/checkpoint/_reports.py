"""The reports of a run, on disk: a line of JSON for each round."""

import os
from collections.abc import Sequence
from pathlib import Path

from umbel.errors import CheckpointError
from umbel.history import RoundReport


def append(path: Path, reports: Sequence[RoundReport]) -> None:
    """Append what is new, first cutting off what an interrupted round may have left behind the lines that count."""
    path.touch()
    written, kept = path.read_bytes(), 0
    lines = [(report.to_json() + "\n").encode() for report in reports]
    while lines and written.startswith(lines[0], kept):
        kept += len(lines.pop(0))
    with path.open("r+b") as file:
        file.truncate(kept)
        file.seek(kept)
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path, number: int) -> tuple[RoundReport, ...]:
    """Return the reports of the first ``number`` rounds; raises ``CheckpointError`` when they are not all there."""
    lines = path.read_text("utf-8").split("\n")[:-1][:number] if path.exists() else []
    reports = tuple(RoundReport.from_json(line) for line in lines)
    if [report.round for report in reports] != list(range(1, number + 1)):
        raise CheckpointError(f"expected the reports of rounds 1 to {number}, got {len(reports)}", at=str(path))
    return reports
