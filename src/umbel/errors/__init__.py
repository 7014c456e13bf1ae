"""Every error that Umbel raises on purpose, in one tree.

UmbelError                        something Umbel refuses; never raised itself
├── RecordError                   bytes, arrays or records that cannot be what they claim (a ValueError)
│   ├── Truncated                 the data end before they should
│   ├── TrailingBytes             data go on after they should end
│   ├── BadLength                 a declared length cannot be true
│   ├── LimitExceeded             more than the format allows (header, arrays, names, rank, values)
│   │   └── HeaderTooLarge        the declared header is over the limit
│   ├── TooDeep                   JSON nested deeper than the format allows
│   ├── BadHeader                 a header that is not the one canonical form
│   ├── BadName                   a name that is not NFC, has control characters or is no Unicode text
│   ├── DuplicateName             one name twice where names are unique
│   ├── BadDtype                  a dtype outside the closed list, or one that a stype cannot carry
│   ├── BadShape                  a shape that is no list of sizes, or whose product overflows
│   ├── BadOffsets                offsets that overlap, leave a hole or point outside
│   ├── BadValue                  a metric or config value outside the permitted range
│   ├── Mismatch                  declared and found dtype, shape or size disagree
│   └── DigestMismatch            the bytes are not those that the digest names
├── RecordTypeError               a value of the wrong Python type in a record (a TypeError)
│   └── UnknownStype              an array serialised in a way that no codec is registered for
├── MessageError                  a message that breaks the rules of messages (a ValueError)
│   └── MessageExpired            a reply to a message whose time to live has passed
├── PartitionError                rows that cannot be dealt out to nodes as asked (a ValueError)
├── StrategyError                 a strategy whose parts do not go together (a ValueError)
├── UpdateRejected                one node's update, refused at the gate with the reason
├── AggregationError              updates that cannot be combined into one record (an ArithmeticError)
├── RoundFailed                   a round in which too few updates were accepted, with every reason
├── CheckpointError               a checkpoint that cannot be read or does not fit the run
├── StoreError                    what a server keeps cannot be read or written
│   ├── LedgerInUse               another process has this ledger open
│   ├── SchemaTooNew              a ledger that a newer release has written
│   ├── LedgerDamaged             a ledger that fails its integrity check
│   ├── LedgerFailed              the disk failed under the ledger, which writes nothing more
│   ├── StorageFull               no room is left for what was to be kept
│   └── AuditBroken               an audit log whose entries do not follow from one another
├── NotFound                      nothing of that name is here, or it is not yours (a LookupError)
├── Conflict                      what was asked does not fit what is there already
│   ├── NameTaken                 another member has the name
│   ├── ReplyConflict             a message was answered before, in other words
│   ├── Fenced                    a message was handed out again since, under a later number
│   ├── BlobMissing               a blob is named that the store does not have
│   ├── WrongOffset               an upload goes on elsewhere than where its bytes on disk end
│   ├── WrongState                a run, round or message is not in a state that permits this
│   └── NodeSuperseded            another process with the node's key has called since: this one must stop
├── QuotaExceeded                 more than a quota allows
├── TokenError                    a join token that opens nothing
│   ├── TokenUnknown              no token has that secret, or it is for another kind of member
│   ├── TokenUsed                 a token that was used as often as it may be
│   ├── TokenExpired              a token whose time has passed
│   └── TokenRevoked              a token that was taken back
├── MemberRevoked                 a member that was excluded
├── AppError                      an app that cannot be found, loaded or understood
├── UsageError                    a command line, a settings file or a path that cannot be used as given (a ValueError)
└── MissingExtra                  an optional dependency that is not installed (an ImportError)

Each class has a ``code`` (stable, for machines), an ``http_status`` and an ``exit_status`` (for the command line).
A message says what was expected, what came, where, and what to do next.
"""

from umbel.errors._base import UmbelError
from umbel.errors._records import (
    BadDtype,
    BadHeader,
    BadLength,
    BadName,
    BadOffsets,
    BadShape,
    BadValue,
    DigestMismatch,
    DuplicateName,
    HeaderTooLarge,
    LimitExceeded,
    Mismatch,
    RecordError,
    RecordTypeError,
    TooDeep,
    TrailingBytes,
    Truncated,
    UnknownStype,
)
from umbel.errors._rounds import (
    AggregationError,
    CheckpointError,
    MessageError,
    MessageExpired,
    PartitionError,
    RoundFailed,
    StrategyError,
    UpdateRejected,
)
from umbel.errors._storage import (
    AuditBroken,
    BlobMissing,
    Conflict,
    Fenced,
    LedgerDamaged,
    LedgerFailed,
    LedgerInUse,
    MemberRevoked,
    NameTaken,
    NodeSuperseded,
    NotFound,
    QuotaExceeded,
    ReplyConflict,
    SchemaTooNew,
    StorageFull,
    StoreError,
    TokenError,
    TokenExpired,
    TokenRevoked,
    TokenUnknown,
    TokenUsed,
    WrongOffset,
    WrongState,
)
from umbel.errors._use import AppError, MissingExtra, UsageError

__all__ = [
    "AggregationError",
    "AppError",
    "AuditBroken",
    "BadDtype",
    "BadHeader",
    "BadLength",
    "BadName",
    "BadOffsets",
    "BadShape",
    "BadValue",
    "BlobMissing",
    "CheckpointError",
    "Conflict",
    "DigestMismatch",
    "DuplicateName",
    "Fenced",
    "HeaderTooLarge",
    "LedgerDamaged",
    "LedgerFailed",
    "LedgerInUse",
    "LimitExceeded",
    "MemberRevoked",
    "MessageError",
    "MessageExpired",
    "Mismatch",
    "MissingExtra",
    "NameTaken",
    "NodeSuperseded",
    "NotFound",
    "PartitionError",
    "QuotaExceeded",
    "RecordError",
    "RecordTypeError",
    "ReplyConflict",
    "RoundFailed",
    "SchemaTooNew",
    "StorageFull",
    "StoreError",
    "StrategyError",
    "TokenError",
    "TokenExpired",
    "TokenRevoked",
    "TokenUnknown",
    "TokenUsed",
    "TooDeep",
    "TrailingBytes",
    "Truncated",
    "UmbelError",
    "UnknownStype",
    "UpdateRejected",
    "UsageError",
    "WrongOffset",
    "WrongState",
]

# A traceback names the one place that each class is imported from.
for _name in __all__:
    globals()[_name].__module__ = __name__
