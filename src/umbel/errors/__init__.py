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
│   ├── StoreUnavailable          a database or a disk that cannot be reached at present
│   ├── StorageFull               no room is left for what was to be kept
│   └── AuditBroken               an audit log whose entries do not follow from one another
├── NotFound                      nothing of that name is here, or it is not yours (a LookupError)
├── Conflict                      what was asked does not fit what is there already
│   ├── NameTaken                 another member has the name
│   ├── ReplyConflict             a message was answered before, in other words
│   ├── Fenced                    a message was handed out again since, under a later number
│   ├── BlobMissing               a blob is named that the store does not have
│   ├── WrongOffset               an upload goes on elsewhere than where its bytes on disk end
│   ├── MainDiffers               a main that was run again does not ask what it asked before
│   ├── WrongState                a run, round or message is not in a state that permits this
│   └── NodeSuperseded            another process with the node's key has called since: this one must stop
├── QuotaExceeded                 more than a quota allows
├── TokenError                    a join token that opens nothing
│   ├── TokenUnknown              no token has that secret, or it is for another kind of member
│   ├── TokenUsed                 a token that was used as often as it may be
│   ├── TokenExpired              a token whose time has passed
│   └── TokenRevoked              a token that was taken back
├── MemberRevoked                 a member that was excluded
├── HttpError                     a request or an answer that breaks the rules of the protocol
│   ├── BodyTooLarge              a body of more bytes than the endpoint takes
│   ├── WrongMediaType            a body in another form than the endpoint takes
│   ├── LengthRequired            a body that does not say how long it is
│   ├── MethodNotAllowed          a path that is there, asked by a method that is not
│   ├── BadAnswer                 an answer that says yes, and then what cannot be read
│   ├── BadRange                  a range that a blob does not have, or more than one range
│   ├── VersionMismatch           no version of the protocol that both sides speak
│   └── TooManyRequests           more at once than a quota allows
├── AuthError                     a request whose sender is not known, or not allowed what it asks
│   ├── BadSignature              a signature that is missing, malformed, or not the sender's over this request
│   ├── WrongAudience             a signature for another server, or for an earlier start of this one
│   ├── SignatureExpired          a signature whose time has passed or lies too far ahead: the clocks differ
│   ├── Replayed                  a request that was accepted once already
│   ├── UnknownMember             a sender that is no member of this server, or no longer
│   └── Forbidden                 a member that may not do this
├── ServerFailed                  the server met a fault of its own
├── ServerUnreachable             no answer: no connection, or one that was cut or made no progress
│   └── ServerStopping            the server is about to end
├── TlsError                      a certificate or a TLS connection that cannot be trusted
│   ├── CertificateExpired        the server's certificate is no longer valid
│   ├── CertificateNotYetValid    the server's certificate is not valid yet
│   ├── WrongFingerprint          the server's key is not the one that the join token names
│   ├── WrongName                 the server's certificate is for another name
│   ├── UnknownIssuer             the server's certificate is signed by nobody whom this system trusts
│   └── NotTls                    the other side does not speak TLS
├── SpoolError                    the folder in which a node keeps its work cannot be used
│   ├── SpoolInUse                another process uses the folder
│   └── SpoolDamaged              a file in the folder is not what was written there
├── AppError                      an app that cannot be found, loaded or understood
├── UsageError                    a command line, a settings file or a path that cannot be used as given (a ValueError)
└── MissingExtra                  an optional dependency that is not installed (an ImportError)

Each class has a ``code`` (stable, for machines), an ``http_status`` and an ``exit_status`` (for the command line).
A message says what was expected, what came, where, and what to do next.
"""

from umbel.errors._base import UmbelError
from umbel.errors._network import (
    AuthError,
    BadAnswer,
    BadRange,
    BadSignature,
    BodyTooLarge,
    CertificateExpired,
    CertificateNotYetValid,
    Forbidden,
    HttpError,
    LengthRequired,
    MethodNotAllowed,
    NotTls,
    Replayed,
    ServerFailed,
    ServerStopping,
    ServerUnreachable,
    SignatureExpired,
    TlsError,
    TooManyRequests,
    UnknownIssuer,
    UnknownMember,
    VersionMismatch,
    WrongAudience,
    WrongFingerprint,
    WrongMediaType,
    WrongName,
)
from umbel.errors._node import SpoolDamaged, SpoolError, SpoolInUse
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
    MainDiffers,
    MemberRevoked,
    NameTaken,
    NodeSuperseded,
    NotFound,
    QuotaExceeded,
    ReplyConflict,
    SchemaTooNew,
    StorageFull,
    StoreError,
    StoreUnavailable,
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
    "AuthError",
    "BadDtype",
    "BadHeader",
    "BadLength",
    "BadName",
    "BadOffsets",
    "BadAnswer",
    "BadRange",
    "BadShape",
    "BadSignature",
    "BadValue",
    "BlobMissing",
    "BodyTooLarge",
    "CertificateExpired",
    "CertificateNotYetValid",
    "CheckpointError",
    "Conflict",
    "DigestMismatch",
    "DuplicateName",
    "Fenced",
    "Forbidden",
    "HeaderTooLarge",
    "HttpError",
    "LedgerDamaged",
    "LedgerFailed",
    "LedgerInUse",
    "StoreUnavailable",
    "LengthRequired",
    "LimitExceeded",
    "MainDiffers",
    "MemberRevoked",
    "MessageError",
    "MessageExpired",
    "MethodNotAllowed",
    "Mismatch",
    "MissingExtra",
    "NameTaken",
    "NodeSuperseded",
    "NotFound",
    "NotTls",
    "PartitionError",
    "QuotaExceeded",
    "RecordError",
    "RecordTypeError",
    "Replayed",
    "ReplyConflict",
    "RoundFailed",
    "SchemaTooNew",
    "ServerFailed",
    "ServerStopping",
    "ServerUnreachable",
    "SignatureExpired",
    "SpoolDamaged",
    "SpoolError",
    "SpoolInUse",
    "StorageFull",
    "StoreError",
    "StrategyError",
    "TlsError",
    "TokenError",
    "TokenExpired",
    "TokenRevoked",
    "TokenUnknown",
    "TokenUsed",
    "TooDeep",
    "TooManyRequests",
    "TrailingBytes",
    "Truncated",
    "UmbelError",
    "UnknownIssuer",
    "UnknownMember",
    "UnknownStype",
    "UpdateRejected",
    "UsageError",
    "VersionMismatch",
    "WrongAudience",
    "WrongFingerprint",
    "WrongMediaType",
    "WrongName",
    "WrongOffset",
    "WrongState",
]

# A traceback names the one place that each class is imported from.
for _name in __all__:
    globals()[_name].__module__ = __name__
