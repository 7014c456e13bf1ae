"""The root of the tree."""

from typing import ClassVar


class UmbelError(Exception):
    """Base of every error that Umbel raises on purpose.

    ``at`` says where the fault was met (``parameters_records.model[3].shape``, ``header byte 120``); it ends the text.
    """

    code: ClassVar[str] = "umbel"
    http_status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, at: str = "") -> None:
        super().__init__(message, at)
        self.message = message
        self.at = at

    def __str__(self) -> str:
        """Return the message, then the place."""
        return f"{self.message} - at {self.at}" if self.at else self.message

    def __reduce__(self) -> tuple[object, ...]:
        """Let the error cross processes with its message and place."""
        return _rebuild, (type(self), self.message, self.at)


def _rebuild(kind: type[UmbelError], message: str, at: str) -> UmbelError:
    return kind(message, at=at)
