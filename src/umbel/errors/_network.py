"""What can be wrong between a client and a server: the protocol, signatures, the line, TLS."""

from umbel.errors._base import UmbelError


class HttpError(UmbelError):
    """A request or an answer that breaks the rules of the protocol."""

    code = "http"
    http_status = 400
    exit_status = 76


class BodyTooLarge(HttpError):
    """A body of more bytes than the endpoint takes."""

    code = "http.too-large"
    http_status = 413


class WrongMediaType(HttpError):
    """A body in another form than the endpoint takes."""

    code = "http.media-type"
    http_status = 415


class LengthRequired(HttpError):
    """A body that does not say how long it is."""

    code = "http.length"
    http_status = 411


class MethodNotAllowed(HttpError):
    """A path that is there, asked by a method that is not."""

    code = "http.method"
    http_status = 405


class BadAnswer(HttpError):
    """An answer that says yes, and then what cannot be read: a fault of the server, or of what stands before it."""

    code = "http.answer"
    http_status = 502


class BadRange(HttpError):
    """A range that a blob does not have, or more than one range."""

    code = "http.range"
    http_status = 416


class VersionMismatch(HttpError):
    """No version of the protocol that both sides speak."""

    code = "http.version"
    http_status = 426


class TooManyRequests(HttpError):
    """More requests, connections or uploads at once than a quota allows; ``retry_after`` is in seconds."""

    code = "http.quota"
    http_status = 429
    exit_status = 75

    retry_after: float = 1.0


class AuthError(UmbelError):
    """A request whose sender is not known, or not allowed what it asks."""

    code = "auth"
    http_status = 401
    exit_status = 77


class BadSignature(AuthError):
    """A signature that is missing, malformed, or not the sender's over this request."""

    code = "auth.signature"


class WrongAudience(AuthError):
    """A signature for another server, or for an earlier start of this one."""

    code = "auth.audience"


class SignatureExpired(AuthError):
    """A signature whose time has passed or lies too far ahead: the clocks differ."""

    code = "auth.expired"


class Replayed(AuthError):
    """A request that was accepted once already."""

    code = "auth.replayed"


class UnknownMember(AuthError):
    """A sender that is no member of this server, or no longer."""

    code = "auth.member"


class Forbidden(AuthError):
    """A member that may not do this."""

    code = "auth.forbidden"
    http_status = 403


class ServerFailed(UmbelError):
    """The server met a fault of its own; it says no more than that."""

    code = "server"
    exit_status = 70


class ServerUnreachable(UmbelError):
    """No answer: no connection, or one that was cut or made no progress. Worth trying again."""

    code = "unreachable"
    http_status = 503
    exit_status = 69


class ServerStopping(ServerUnreachable):
    """The server is about to end, and answers nothing that takes time."""

    code = "unreachable.stopping"


class TlsError(UmbelError):
    """A certificate or a TLS connection that cannot be trusted."""

    code = "tls"
    http_status = 502
    exit_status = 76


class CertificateExpired(TlsError):
    """The server's certificate is no longer valid."""

    code = "tls.expired"


class CertificateNotYetValid(TlsError):
    """The server's certificate is not valid yet: the clocks differ, or it was made for later."""

    code = "tls.not-yet-valid"


class WrongFingerprint(TlsError):
    """The server's key is not the one that the join token names."""

    code = "tls.fingerprint"


class WrongName(TlsError):
    """The server's certificate is for another name."""

    code = "tls.name"


class UnknownIssuer(TlsError):
    """The server's certificate is signed by nobody whom this system trusts."""

    code = "tls.issuer"


class NotTls(TlsError):
    """The other side does not speak TLS."""

    code = "tls.plain"
