"""What a refused name was meant to be: the end of a sentence such as ``there is no engine 'proces'``."""

import difflib
from collections.abc import Iterable
from typing import Final

_READ: Final = 80  # characters of a name that somebody made up
_SHOWN: Final = 40


def nearest(name: object, known: Iterable[str]) -> str:
    """Return ``; did you mean "processes"?``, or the known names when none is near; nothing if there are none."""
    names = list(known)
    close = difflib.get_close_matches(str(name)[:_READ], names, n=1)
    if close:
        return f'; did you mean "{close[0]}"?'
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f" (known: {', '.join(names[:_SHOWN])}{more})" if names else ""
