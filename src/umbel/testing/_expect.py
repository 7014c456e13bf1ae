"""Assertions that say what was expected, wherever they run: a suite that is shipped is not rewritten by pytest."""

from collections.abc import Iterator
from contextlib import contextmanager


def equal(found: object, expected: object, what: str) -> None:
    """Fail unless two values are equal."""
    if found != expected:
        raise AssertionError(f"{what}: expected {expected!r:.300}, got {found!r:.300}")


def true(condition: object, what: str) -> None:
    """Fail unless a condition holds."""
    if not condition:
        raise AssertionError(f"expected that {what}")


@contextmanager
def refused(kind: type[Exception], what: str) -> Iterator[None]:
    """Fail unless the block raises exactly this kind of error."""
    try:
        yield
    except kind as error:
        equal(type(error), kind, what)
        return
    raise AssertionError(f"{what}: expected {kind.__name__}, and nothing was raised")
