"""From the first line of a request to a row of the table."""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from umbel.errors import HttpError, MethodNotAllowed, NotFound
from umbel.http._table import ENDPOINTS, Endpoint

_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_DIGEST: Final = re.compile(r"blake3:[0-9a-f]{64}", re.ASCII)
_INT64: Final = 2**63


class Route(NamedTuple):
    """An endpoint, and what stands in its path and query."""

    endpoint: Endpoint
    params: Mapping[str, Any]


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path)))


def _table() -> tuple[dict[str, dict[str, Endpoint]], list[tuple[re.Pattern[str], dict[str, Endpoint]]]]:
    paths: dict[str, dict[str, Endpoint]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    plain = {path: methods for path, methods in paths.items() if "{" not in path}
    return plain, [(_pattern(path), methods) for path, methods in paths.items() if "{" in path]


_PLAIN, _PATTERNS = _table()


#: Where path and query say nothing more.
_KNOWN: Final = {
    (method, path): Route(endpoint, {})
    for path, methods in _PLAIN.items()
    for method, endpoint in methods.items()
    if not endpoint.query
}


def route(method: str, target: str) -> Route:
    """Find the endpoint for ``method`` and ``target`` (the path with the query, as sent).

    Raises:
        NotFound: if there is no such path.
        MethodNotAllowed: if the path knows other methods only; ``at`` lists them.
        HttpError: for a query that the endpoint does not take.

    """
    known = _KNOWN.get((method, target))
    if known is not None:
        return known
    path, _, query = target.partition("?")
    methods, found = _find(path)
    if method not in methods:
        listed = ", ".join(sorted(methods))
        raise MethodNotAllowed(f"expected one of {listed}, got {method:.20}", at=f"{path:.200}")
    endpoint = methods[method]
    return Route(endpoint, _path_values(found) | _query_values(endpoint, query))


def allowed(target: str) -> str:
    """Return the methods that a path knows, as an ``Allow`` header lists them."""
    return ", ".join(sorted(_find(target.partition("?")[0])[0]))


def _find(path: str) -> tuple[dict[str, Endpoint], dict[str, str]]:
    if path in _PLAIN:
        return _PLAIN[path], {}
    for pattern, methods in _PATTERNS:
        match = pattern.fullmatch(path)
        if match:
            return methods, match.groupdict()
    raise NotFound("expected a path that docs/spec/api.md lists", at=f"{path:.200}")


def _path_values(found: Mapping[str, str]) -> dict[str, Any]:
    return {name: _digest(text) if name == "digest" else _number(name, text) for name, text in found.items()}


def _digest(text: str) -> str:
    digest = text.replace("%3A", ":", 1)  # as some clients write a colon
    if not _DIGEST.fullmatch(digest):
        raise NotFound(f"expected blake3: and 64 hexadecimal digits, got {text!r:.80}", at="{digest} in the path")
    return digest


def _number(name: str, text: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) >= _INT64:
        raise NotFound(f"expected a number, got {text!r:.80}", at=f"{{{name}}} in the path")
    return int(text)


def _query_values(endpoint: Endpoint, query: str) -> dict[str, Any]:
    given: dict[str, int] = {}
    for pair in query.split("&") if query else ():
        name, _, text = pair.partition("=")
        if name not in endpoint.query or name in given:
            raise HttpError(f"expected {_wanted(endpoint)}, each once, got {pair!r:.80}", at="query")
        if not _NUMBER.fullmatch(text) or int(text) >= _INT64:
            raise HttpError(f"expected a number of at most 63 bits, got {text!r:.80}", at=f"query, {name}")
        given[name] = int(text)
    missing = [name for name, default in endpoint.query.items() if default is None and name not in given]
    if missing:
        raise HttpError(f"expected {missing[0]}=NUMBER, got none", at="query")
    return {**endpoint.query, **given}


def _wanted(endpoint: Endpoint) -> str:
    return " and ".join(f"{name}=NUMBER" for name in endpoint.query) or "no query"
