"""Both sides of the onion: a mod for nodes, and what the server says before and does after."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

from umbel.context import Context, derive_seed
from umbel.errors import StrategyError, UmbelError, UpdateRejected
from umbel.message import Message, MessageType
from umbel.records import ConfigsRecord, ParametersRecord, RecordSet
from umbel.transforms._transform import Transform, require_order

_MODEL: Final = "model"
_CONFIG: Final = "config"
# The configs record that says which transforms: "names" in an instruction, "applied" in a reply. Two keys, so that a
# handler which replies with what it was sent has not transformed anything.
_RECORD: Final = "transforms"
_NAMES: Final = "names"
_APPLIED: Final = "applied"
_MOST: Final = 4  # names in an error

_Handler: TypeAlias = Callable[[Message, Context], Message]


def transforming(*transforms: Transform) -> Callable[[Message, Context, _Handler], Message]:
    """Return the mod that applies transforms, in order, to the models that an app's handler of "train" replies with.

    It looks before anything is trained: where the server asks for other transforms, or for none, the reply is an error
    that says so. Messages of other types pass through.

    Raises:
        StrategyError: for what is no transform, or cannot come after the one before it.

    >>> from umbel.app import ClientApp
    >>> from umbel.transforms import clipped, narrowed
    >>> app = ClientApp(mods=[transforming(clipped(1.0), narrowed())])

    """
    require_order(transforms)
    return partial(_train, transforms)


def _train(transforms: Sequence[Transform], message: Message, context: Context, call_next: _Handler) -> Message:
    if message.metadata.message_type != MessageType.TRAIN:
        return call_next(message, context)
    _require_same(transforms, message.content)
    if not transforms:
        return call_next(message, context)
    # A handler may change the record that it was sent; its arrays cannot change.
    sent = message.content.parameters_records[_MODEL].copy()
    reply: object = call_next(message, context)
    if not isinstance(reply, Message) or reply.has_error() or _MODEL not in reply.content.parameters_records:
        return reply  # type: ignore[return-value]  # the app says what is wrong with it, or the server
    if _RECORD in reply.content.configs_records and _APPLIED in reply.content.configs_records[_RECORD]:
        raise StrategyError("the reply is transformed already: give the app one mod transforming(...)", at=_RECORD)
    config = message.content.configs_records.get(_CONFIG, ConfigsRecord())
    record = reply.content.parameters_records[_MODEL]
    for place, each in enumerate(transforms):
        seed = derive_seed(context.seed, place, "", f"transform {each.name}")
        record = _applied(each, record, sent, config, seed)
    content = _with(reply.content, _APPLIED, transforms)
    content.parameters_records[_MODEL] = record
    return Message(reply.metadata, content)


def _applied(
    each: Transform, record: ParametersRecord, sent: ParametersRecord, config: ConfigsRecord, seed: int
) -> ParametersRecord:
    try:
        return each.apply(record, sent, config, seed)
    except Exception as error:
        error.add_note(f"in the transform {each.name}")  # which goes to the server with the error
        raise


def _require_same(transforms: Sequence[Transform], content: RecordSet) -> None:
    asked, mine = _listed(content, _NAMES), _names(transforms)
    if asked == mine:
        return
    if not asked:
        raise StrategyError(
            f"this node transforms its updates with {_shown(mine)}, and the server asks for no transforms: give its "
            "strategy the same list, strategy(transforms=[...]), or take the mod off the app",
            at=_RECORD,
        )
    raise StrategyError(
        f"the server asks for updates transformed with {_shown(asked)}, and this node has {_shown(mine)}: give both "
        "the same list",
        at=_RECORD,
    )


def announced(content: RecordSet, transforms: Sequence[Transform]) -> RecordSet:
    """Return an instruction that tells nodes which transforms to apply."""
    return _with(content, _NAMES, transforms)


def undone(node: str, content: RecordSet, transforms: Sequence[Transform], sent: ParametersRecord) -> ParametersRecord:
    """Return the model of a reply as it was before the transforms, which are undone in reverse order.

    Args:
        node: whose reply it is.
        content: the reply, with the record "model".
        transforms: which it should have gone through.
        sent: the model that the node was sent.

    Raises:
        UpdateRejected: naming the node, and the transform if one cannot be undone, if the reply is not transformed, or
            otherwise.

    """
    applied = _listed(content, _APPLIED)
    if applied != _names(transforms):
        came = f"one transformed with {_shown(applied)}" if applied else "one that is not transformed"
        raise UpdateRejected(
            f"update of node {node!r}: expected one transformed with {_shown(_names(transforms))}, got {came}: make "
            "its app with the same list, ClientApp(mods=[transforming(...)])",
            at=f"configs_records[{_RECORD!r}]",
        )
    record = content.parameters_records[_MODEL]
    for each in reversed(transforms):
        try:
            record = _undone(each, record, sent)
        except UmbelError as error:
            raise _rejected(node, each, error.message, error.at) from error
        except Exception as error:  # a function of anybody's meets a record that a node made up
            reason = f"{type(error).__name__}: {error!s:.200}"
            raise _rejected(node, each, reason, f"parameters_records.{_MODEL}") from error
    return record


def _undone(each: Transform, came: ParametersRecord, sent: ParametersRecord) -> ParametersRecord:
    record: object = each.undo(came, sent)
    if not isinstance(record, ParametersRecord):
        raise TypeError(f"expected a ParametersRecord, got {type(record).__name__}")
    return record


def _rejected(node: str, each: Transform, reason: str, at: str) -> UpdateRejected:
    return UpdateRejected(f"update of node {node!r}: {each.name} cannot be undone: {reason}", at=at)


def _with(content: RecordSet, key: str, transforms: Sequence[Transform]) -> RecordSet:
    told = RecordSet(content.parameters_records, content.metrics_records, content.configs_records)
    told.configs_records[_RECORD] = ConfigsRecord({key: _names(transforms)})
    return told


def _names(transforms: Sequence[Transform]) -> list[str]:
    return [each.name for each in transforms]


def _listed(content: RecordSet, key: str) -> list[object]:
    record = content.configs_records.get(_RECORD)
    value: object = None if record is None else record.get(key)
    return value if isinstance(value, list) else []


def _shown(names: Sequence[object]) -> str:
    shown = [str(name) if str(name).isprintable() else ascii(name) for name in names[:_MOST]]
    return ", ".join(f"{name:.80}" for name in shown) + (", ..." if len(names) > _MOST else "") or "nothing"
