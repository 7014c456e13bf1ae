"""What members say of themselves and of their work, kept within bounds: it goes into rows that people read."""

from collections.abc import Mapping, Sequence
from itertools import islice
from math import isfinite
from typing import Final

from umbel.errors import BadValue
from umbel.http.wire import Answer

_MOST_TYPES: Final = 64
_LONGEST: Final = 256
_PHASES: Final = 16
_PHASE: Final = 40
_REASON: Final = 4_000


def check_description(app: str, types: Sequence[str], release: str) -> None:
    """Raise ``BadValue`` unless what a node says that it runs is short, and can be printed."""
    told = {"app": app, "release": release} | {f"types[{place}]": each for place, each in enumerate(types)}
    if len(types) > _MOST_TYPES:
        raise BadValue(f"expected at most {_MOST_TYPES} message types, got {len(types)}", at="types")
    for name, text in told.items():
        if len(text) > _LONGEST or not (text.isprintable() or not text):
            raise BadValue(f"expected at most {_LONGEST} characters that can be printed, got {text!a:.80}", at=name)


def check_instance(instance: str) -> None:
    """Raise ``BadValue`` unless what a process of a node calls itself is short: some of these are remembered."""
    if len(instance) > _LONGEST:
        raise BadValue(f"expected at most {_LONGEST} characters, got {len(instance)}", at="instance")


def check_answer(answer: Answer) -> None:
    """Raise ``BadValue`` unless an answer has content or an error, and not both."""
    if (answer.content is None) is (answer.error_code is None):
        both = "neither" if answer.content is None else "both"
        raise BadValue(f"expected content or an error code, got {both}", at="answer")


def reason_of(answer: Answer) -> str | None:
    """Return why there is an error, as Unicode text of bounded length."""
    reason = answer.error_reason
    return None if reason is None else reason[:_REASON].encode(errors="replace").decode()


def seconds_of(answer: Answer) -> dict[str, float]:
    """Return where a node says that its seconds went: some phases of short names, and numbers that can be."""
    told: Mapping[str, float] = answer.seconds
    good = ((name, seconds) for name, seconds in told.items() if _is_phase(name) and isfinite(seconds) and seconds >= 0)
    return dict(islice(good, _PHASES))


def _is_phase(name: str) -> bool:
    return 0 < len(name) <= _PHASE and name.isprintable()
