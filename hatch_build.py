"""Compiles the loops of the package that are not Python, if there is a compiler; if not, NumPy does their work."""

import os
import shlex
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
        source = Path(self.root, _SOURCE)
        library = source.with_suffix(".so")
        failure = compiled(source, library)
        if failure:
            instead = "NumPy does all the work, with the same bits in twice the time"
            self.app.display_warning(f"{source.name} was not compiled ({failure}): {instead}")
            return
        build_data["artifacts"].append(f"/{library.relative_to(self.root)}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def compiled(source: Path, library: Path) -> str:
    """Compile a library in the place of the one before; return why that was not possible, or nothing."""
    made, failure = library.with_suffix(f".{os.getpid()}"), ""
    try:
        library.unlink(missing_ok=True)
        command = shlex.split(os.environ.get("CC") or "cc")
        for options in ((_CLONES,), ()):
            whole = [*command, *_OPTIONS, *options, str(source), "-o", str(made)]
            done = subprocess.run(whole, capture_output=True, text=True, check=False)  # noqa: S603 - the user's compiler
            if done.returncode == 0:
                made.replace(library)
                return ""
            failure = (done.stderr.strip() or "no reason given").splitlines()[-1]
    except (OSError, ValueError) as error:
        return str(error)
    return failure
