"""What a node, and the folder in which it keeps its work, can refuse."""

from umbel.errors._base import UmbelError


class SpoolError(UmbelError):
    """The folder in which a node keeps its work cannot be used."""

    code = "spool"
    http_status = 500
    exit_status = 74


class SpoolInUse(SpoolError):
    """Another process uses this folder; one node has one."""

    code = "spool.in-use"
    exit_status = 75


class SpoolDamaged(SpoolError):
    """A file in the folder is not what was written there."""

    code = "spool.damaged"
    exit_status = 65
