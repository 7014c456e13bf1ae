"""What messages, updates, rounds and checkpoints can be refused for."""

from umbel.errors._base import UmbelError


class MessageError(UmbelError, ValueError):
    """A message that breaks the rules of messages."""

    code = "message"
    http_status = 422
    exit_status = 65


class MessageExpired(MessageError):
    """A reply to a message whose time to live has passed."""

    code = "message.expired"
    http_status = 410


class PartitionError(UmbelError, ValueError):
    """Rows that cannot be dealt out to nodes as asked."""

    code = "partition"
    http_status = 422
    exit_status = 64


class StrategyError(UmbelError, ValueError):
    """A strategy whose parts or numbers do not go together."""

    code = "strategy"
    http_status = 422
    exit_status = 64


class UpdateRejected(UmbelError):
    """One node's update, refused at the gate with the reason."""

    code = "update.rejected"
    http_status = 422


class AggregationError(UmbelError, ArithmeticError):
    """Updates that cannot be combined: no weight, another layout, or a result outside the dtype."""

    code = "aggregation"
    exit_status = 70


class RoundFailed(UmbelError):
    """A round in which too few updates were accepted; the message lists every reason."""

    code = "round.failed"
    exit_status = 70


class CheckpointError(UmbelError):
    """A checkpoint that cannot be read or does not fit the run."""

    code = "checkpoint"
    exit_status = 65
