"""Compiles the loops of the package that are not Python, if there is a compiler; if not, NumPy does their work."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SOURCE: Final = "src/umbel/aggregation/_loops.c"
# Each product and each sum has to round by itself, so nothing may contract or reorder them.
_OPTIONS: Final = ("-O3", "-ffp-contract=off", "-fno-fast-math", "-shared", "-fPIC")
# Loops for processors with AVX2 beside those for all, where the compiler and the C library can choose between them.
_CLONES: Final = "-DCLONES"


class Hook(BuildHookInterface[Any]):
    """Puts the compiled loops beside their source, and into the wheel, whose tag then names the platform."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the package is put together; ``version`` is "editable" where the sources are used in place."""
        del version
        if self.target_name != "wheel":
            return
        source = Path(self.root, _SOURCE)
        library = source.with_suffix(".so")
        if not compiled(source, library):
            self.app.display_warning("no C compiler: NumPy does all the work, with the same bits in twice the time")
            return
        build_data["artifacts"].append(f"/{library.relative_to(self.root)}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def compiled(source: Path, library: Path) -> bool:
    """Compile a library; return whether that was possible."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return False
    made = library.with_suffix(f".{os.getpid()}")
    for options in ((_CLONES,), ()):
        command = [compiler, *_OPTIONS, *options, str(source), "-o", str(made)]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:  # noqa: S603 - the user's compiler
            made.replace(library)
            return True
    return False
