"""What those who call Umbel can get wrong."""

from umbel.errors._base import UmbelError


class AppError(UmbelError):
    """An app that cannot be found, loaded or understood."""

    code = "app"
    http_status = 422
    exit_status = 64


class UsageError(UmbelError, ValueError):
    """A command line, a settings file or a path that cannot be used as it was given."""

    code = "usage"
    http_status = 400
    exit_status = 2


class MissingExtra(UmbelError, ImportError):
    """An optional dependency that is not installed."""

    code = "missing-extra"
    exit_status = 69
