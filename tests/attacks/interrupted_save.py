"""Save one container over another and die, or be interrupted, at the N-th step: ``interrupted_save.py FOLDER HOW``.

A child is forked for each line of the module that writes files, and stopped when it gets there. Prints a line for each:
what is under the name afterwards, how many other files there are, and how the child ended.
"""

import os
import signal
import sys
from pathlib import Path

from umbel.records import ConfigsRecord, RecordSet, _files, digest, load, save


def model(text: str) -> RecordSet:
    return RecordSet(configs_records={"c": ConfigsRecord({"text": text})})


OLD, NEW = model("old"), model("new" * 1000)
NAMES = {digest(OLD): "old", digest(NEW): "new"}


def stop(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise {"interrupt": KeyboardInterrupt, "error": OSError}[how]


def run(target: Path, step: int, how: str) -> None:
    """Save in this process, which is stopped before its ``step``-th line."""
    steps = 0

    def trace(frame, event, _arg):
        nonlocal steps
        if frame.f_code.co_filename != _files.__file__:
            return None
        if event == "line":
            steps += 1
            if steps == step:
                stop(how)
        return trace

    sys.settrace(trace)
    try:
        save(NEW, target)
    finally:
        sys.settrace(None)


def child(target: Path, step: int, how: str) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            run(target, step, how)
        except (KeyboardInterrupt, OSError):
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def main(folder: str, how: str) -> None:
    target = Path(folder) / "model"
    status = -1
    step = 0
    while status != 0:
        step += 1
        for path in Path(folder).iterdir():
            path.unlink()
        save(OLD, target)
        status = child(target, step, how)
        others = [path.name for path in Path(folder).iterdir() if path != target]
        sys.stdout.write(f"{NAMES[digest(load(target))]} {len(others)} {status}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
