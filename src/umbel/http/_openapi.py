"""The table of endpoints as an OpenAPI document."""

import re
from functools import cache
from typing import Any, Final

import msgspec

from umbel.errors import (
    AuthError,
    BodyTooLarge,
    HttpError,
    LengthRequired,
    NotFound,
    TooManyRequests,
    UmbelError,
    VersionMismatch,
    WrongMediaType,
)
from umbel.http import _json
from umbel.http._table import ENDPOINTS, Endpoint
from umbel.http.wire import VERSION, Fault

_REF: Final = "#/components/schemas/{name}"
_ALWAYS: Final[tuple[type[UmbelError], ...]] = (HttpError, TooManyRequests)
_SIGNED: Final[tuple[type[UmbelError], ...]] = (AuthError, VersionMismatch)
_BODY: Final[tuple[type[UmbelError], ...]] = (LengthRequired, BodyTooLarge, WrongMediaType)
_BYTES: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_NUMBER: Final = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_DIGEST: Final = {"type": "string", "pattern": "^blake3:[0-9a-f]{64}$"}
_BASE64: Final = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_SCHEME: Final = {
    "type": "apiKey",
    "in": "header",
    "name": "Authorization",
    "description": "An Ed25519 signature over the request, see docs/spec/api.md.",
}
# What the endpoints of blobs answer: it is in headers, or no JSON.
_ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "stat_blob": {"200": {"description": "It is whole."}, "204": {"description": "A part of it has come."}},
    "get_blob": {
        "200": {"description": "All of it.", "content": _BYTES},
        "206": {"description": "A range of it.", "content": _BYTES},
    },
    "put_blob": {
        "200": {"description": "It was there already."},
        "201": {"description": "It is there now."},
        "202": {"description": "These bytes have come; more are to follow."},
    },
    "openapi": {"200": {"description": "This document.", "content": {"application/json": {"schema": {}}}}},
    "metrics": {"200": {"description": "Figures.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
}


@cache
def document() -> bytes:
    """Return the document as JSON."""
    return _json.encode(describe())


def describe() -> dict[str, Any]:
    """Return the document."""
    bodies = {kind for each in ENDPOINTS for kind in (each.request, each.response) if kind is not None}
    _, schemas = msgspec.json.schema_components(
        sorted({*bodies, Fault}, key=lambda kind: kind.__name__), ref_template=_REF
    )
    _narrow(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Umbel", "version": str(VERSION)},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"signature": _SCHEME}},
    }


def _narrow(schema: Any) -> None:
    """Say of integers and bytes what JSON Schema would leave open: 64 bits with sign, and base64."""
    for part in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(part, dict | list):
            _narrow(part)
    if isinstance(schema, dict) and schema.get("type") == "integer":
        schema |= {"minimum": -(2**63), "maximum": 2**63 - 1}
    if isinstance(schema, dict) and schema.get("contentEncoding") == "base64":
        schema["pattern"] = _BASE64


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    said: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.text,
        "x-umbel-number": endpoint.number,
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint), *_headers(endpoint)],
        "responses": {**_answers(endpoint), **_refusals(endpoint)},
    }
    if endpoint.who:
        said |= {"x-umbel-who": list(endpoint.who), "security": [{"signature": []}]}
    if endpoint.request is not None:
        said["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(endpoint.request)}}}
    if endpoint.name == "put_blob":
        said["requestBody"] = {"required": True, "content": _BYTES}
    return said


def _ref(kind: type) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)\}", endpoint.path)
    schemas = {name: _DIGEST if name == "digest" else _NUMBER for name in names}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name, schema in schemas.items()]


def _query_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": default is None, "schema": _NUMBER}
        for name, default in endpoint.query.items()
    ]


def _headers(endpoint: Endpoint) -> list[dict[str, Any]]:
    if not endpoint.who:
        return []
    return [{"name": "Umbel-Version", "in": "header", "required": True, "schema": {"enum": [str(VERSION)]}}]


def _answers(endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.response is None:
        return _ANSWERS[endpoint.name]
    return {"200": {"description": "Done.", "content": {"application/json": {"schema": _ref(endpoint.response)}}}}


def _refusals(endpoint: Endpoint) -> dict[str, Any]:
    by_status: dict[str, list[str]] = {}
    for kind in errors_of(endpoint):
        by_status.setdefault(str(kind.http_status), []).append(kind.code)
    content = {} if endpoint.method == "HEAD" else {"content": {"application/json": {"schema": _ref(Fault)}}}
    return {status: {"description": ", ".join(sorted(codes)), **content} for status, codes in sorted(by_status.items())}


def errors_of(endpoint: Endpoint) -> tuple[type[UmbelError], ...]:
    """Return every error that an endpoint may answer with, those of all requests among them; never a 500."""
    signed = _SIGNED if endpoint.who else ()
    body = _BODY if endpoint.request is not None or endpoint.name == "put_blob" else ()
    named = (NotFound,) if "{" in endpoint.path else ()
    return (*_ALWAYS, *signed, *body, *named, *endpoint.errors)
