"""What a store, and whoever keeps order in it, can refuse."""

from umbel.errors._base import UmbelError


class StoreError(UmbelError):
    """What a server keeps cannot be read or written."""

    code = "store"
    http_status = 500
    exit_status = 74


class LedgerInUse(StoreError):
    """Another process has this ledger open; one server serves one ledger."""

    code = "store.in-use"
    http_status = 503
    exit_status = 75


class SchemaTooNew(StoreError):
    """A ledger that a newer release has written."""

    code = "store.schema-too-new"
    http_status = 500
    exit_status = 78


class LedgerDamaged(StoreError):
    """A ledger that fails its integrity check."""

    code = "store.damaged"


class LedgerFailed(StoreError):
    """The disk failed under the ledger: what was not acknowledged may be lost, and nothing more is written."""

    code = "store.failed"
    http_status = 503


class StoreUnavailable(StoreError):
    """A database or a disk that cannot be reached at present; what was asked may be asked again."""

    code = "store.unavailable"
    http_status = 503
    exit_status = 75


class StorageFull(StoreError):
    """There is no room left for what was to be kept."""

    code = "store.full"
    http_status = 507


class AuditBroken(StoreError):
    """An audit log whose entries do not follow from one another."""

    code = "store.audit-broken"
    exit_status = 65


class NotFound(UmbelError, LookupError):
    """Nothing of that name is here, or it is not yours; which of the two is not said."""

    code = "not-found"
    http_status = 404
    exit_status = 66


class Conflict(UmbelError):
    """What was asked does not fit what is there already."""

    code = "conflict"
    http_status = 409
    exit_status = 1


class NameTaken(Conflict):
    """Another member has the name."""

    code = "conflict.name-taken"


class ReplyConflict(Conflict):
    """A message was answered before, in other words."""

    code = "conflict.reply"


class Fenced(Conflict):
    """A message was handed out again since, under a later fencing number."""

    code = "conflict.fenced"


class BlobMissing(Conflict):
    """A blob is named that the store does not have."""

    code = "conflict.blob-missing"


class WrongOffset(Conflict):
    """An upload goes on at another place than where the bytes on disk end."""

    code = "conflict.offset"


class WrongState(Conflict):
    """A run, round or message is not in a state that permits this."""

    code = "conflict.state"


class MainDiffers(Conflict):
    """A main that was run again does not ask what it asked before."""

    code = "conflict.main"


class NodeSuperseded(Conflict):
    """Another process with the node's key has called since: this one must stop."""

    code = "conflict.superseded"
    exit_status = 75


class QuotaExceeded(UmbelError):
    """More than a quota allows."""

    code = "quota"
    http_status = 413
    exit_status = 1


class TokenError(UmbelError):
    """A join token that opens nothing."""

    code = "token"
    http_status = 403
    exit_status = 77


class TokenUnknown(TokenError):
    """No token has that secret, or it is for another kind of member."""

    code = "token.unknown"


class TokenUsed(TokenError):
    """A token that was used as often as it may be."""

    code = "token.used"


class TokenExpired(TokenError):
    """A token whose time has passed."""

    code = "token.expired"


class TokenRevoked(TokenError):
    """A token that was taken back."""

    code = "token.revoked"


class MemberRevoked(UmbelError):
    """A member that was excluded."""

    code = "member-revoked"
    http_status = 403
    exit_status = 77
