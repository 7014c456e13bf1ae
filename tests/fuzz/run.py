"""Run each fuzz target for a number of seconds, one after the other: ``python tests/fuzz/run.py SECONDS [NAME ...]``.

A target is a file ``fuzz_<name>.py`` that hands its arguments to atheris and starts from the inputs in
``corpus/<name>/``. What reaches new code goes to ``.bench/fuzz/<name>/``, what breaks a promise to
``.bench/fuzz/<name>-...``. To keep the former:
``PATH=.venv/bin:$PATH tests/fuzz/fuzz_<name>.py -merge=1 tests/fuzz/corpus/<name> .bench/fuzz/<name>``.
"""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FINDINGS = HERE.parents[1] / ".bench" / "fuzz"


def fuzz(target: Path, seconds: int) -> int:
    """Run one target; print how often it ran; return its exit status."""
    name = target.stem.removeprefix("fuzz_")
    found, corpus = FINDINGS / name, HERE / "corpus" / name
    for folder in (found, corpus):
        folder.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-artifact_prefix={FINDINGS}/{name}-",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    done = subprocess.run(
        [sys.executable, str(target), *options, str(found), str(corpus)], stderr=subprocess.PIPE, text=True, check=False
    )
    executions = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    if done.returncode or not executions:
        print(done.stderr[-10_000:], file=sys.stderr)
    print(
        f"{name}: {int(executions[1]) if executions else 0:,} executions in {seconds} s, exit {done.returncode}",
        flush=True,
    )
    return done.returncode


def main(seconds: str, *names: str) -> int:
    targets = [path for path in sorted(HERE.glob("fuzz_*.py")) if not names or path.stem.removeprefix("fuzz_") in names]
    if not targets:
        print("no fuzz target of that name", file=sys.stderr)
        return 2
    return max(fuzz(target, int(seconds)) != 0 for target in targets)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
