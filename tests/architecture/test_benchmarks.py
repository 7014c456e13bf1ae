"""The modules of the benchmarks fit together: each can be imported, but for what its peer alone has."""

import subprocess
import sys

from house import ROOT

IMPORT_ALL = """\
import importlib, sys
from pathlib import Path

folder = Path(sys.argv[1])
sys.path.insert(0, str(folder))
for path in sorted(folder.glob("*.py")):
    try:
        importlib.import_module(path.stem)
    except ModuleNotFoundError as error:
        if error.name.partition(".")[0] not in ("blazefl", "flwr", "pfl", "sklearn", "torch", "xgboost"):
            raise
"""


def test_every_module_can_be_imported():
    command = [sys.executable, "-c", IMPORT_ALL, str(ROOT / "benchmarks")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
