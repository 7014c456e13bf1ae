"""How server, nodes and users talk: signed requests over TLS, small JSON, and blobs that stream."""

from umbel.http._calls import BlobState, Call, Handler, Handlers, Hooks, Lookup, Member, Sink, Source
from umbel.http._client import Client
from umbel.http._identity import Identity, is_signed
from umbel.http._retry import backoff, keep_trying
from umbel.http._service import Service, serve
from umbel.http._settings import Limits, Settings
from umbel.http._table import ENDPOINTS, Endpoint

__all__ = [
    "ENDPOINTS",
    "BlobState",
    "Call",
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
    "Sink",
    "Source",
    "backoff",
    "is_signed",
    "keep_trying",
    "serve",
]
