"""How server, nodes and users talk: signed requests over TLS, small JSON, and blobs that stream."""

from umbel.http._calls import BlobState, Call, Handler, Handlers, Hooks, Lookup, Member, Sink, Source
from umbel.http._certificate import WARNING_DAYS, Certificate, fingerprint_of
from umbel.http._client import Client
from umbel.http._identity import Identity, is_signed, rotation
from umbel.http._retry import backoff, keep_trying
from umbel.http._service import Service, serve
from umbel.http._settings import Limits, Settings
from umbel.http._signature import Signature, SignedRequest, read_signature, sign, verify
from umbel.http._table import ENDPOINTS, Endpoint
from umbel.http._token import PORT, Token, is_loopback, join_line, read_address, read_join_line, read_token

__all__ = [
    "ENDPOINTS",
    "PORT",
    "WARNING_DAYS",
    "BlobState",
    "Call",
    "Certificate",
    "Client",
    "Endpoint",
    "Handler",
    "Handlers",
    "Hooks",
    "Identity",
    "Limits",
    "Lookup",
    "Member",
    "Service",
    "Settings",
    "Signature",
    "SignedRequest",
    "Sink",
    "Source",
    "Token",
    "backoff",
    "fingerprint_of",
    "is_loopback",
    "is_signed",
    "join_line",
    "keep_trying",
    "read_address",
    "read_join_line",
    "read_signature",
    "read_token",
    "rotation",
    "serve",
    "sign",
    "verify",
]
