"""The OpenAPI document is true: what it permits is understood, what it does not is refused, and nothing is a 5xx.

Requests are made from the document and signed; handlers do as little as possible.
"""

import asyncio
import threading
import time
from typing import Any

import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_schema_conformance,
    status_code_conformance,
)

from http_stand import KEYS, Stand, digest_of
from umbel.envelope import Content, Part
from umbel.http import ENDPOINTS, Limits, Settings, SignedRequest, sign, wire
from umbel.http._openapi import describe

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    positive_data_acceptance,
    negative_data_rejection,
]
SENDERS = {"node": 7, "user": 8, "operator": 9}
EMPTY = Content((), Part(digest_of(b""), 0, b""))
SPEC = wire.RunSpec(app="a", strategy={}, rounds=1, seed=0, config={}, nodes=1, initial=EMPTY)
ROW = wire.RunRow(
    run=1,
    name="r",
    app="a",
    strategy="fedavg",
    status="running",
    reason="",
    completed=0,
    rounds=1,
    owner="u",
    created_at=0.0,
    ended_at=None,
)
ANSWERS = {
    "submit_run": wire.RunMade(run=1, name="r"),
    "list_runs": wire.Runs(runs=[ROW]),
    "show_run": wire.RunView(row=ROW, spec=SPEC, reports=[], questions=[], restarts=[], digest="", model=EMPTY),
    "run_events": wire.Events(events=[wire.EventLine(number=1, kind="x", fields={})], ended=True),
    "list_nodes": wire.Nodes(nodes=[]),
    "make_token": wire.TokenMade(token=1, secret=b"s", expires_at=1.0),
    "list_tokens": wire.Tokens(tokens=[]),
    "read_audit": wire.Audit(entries=[]),
}


class Signer(requests.auth.AuthBase):
    """Signs a request as it is about to be sent."""

    def __init__(self, audience: str, member: int) -> None:
        self._audience = audience
        self._member = member

    def __call__(self, prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        body = prepared.body or b""
        body = body.encode() if isinstance(body, str) else body
        path = prepared.path_url.partition("?")[0]
        is_blob = prepared.method == "PUT" and path.startswith("/v1/blobs/")
        digest = path.rpartition("/")[2].replace("%3A", ":") if is_blob else digest_of(body)
        prepared.headers["Authorization"] = sign(
            KEYS[self._member],
            SignedRequest(prepared.method or "", prepared.path_url, digest),
            audience=self._audience,
            member=self._member,
            expires=int(time.time()) + 30,
        )
        return prepared


@pytest.fixture(scope="module")
def stand():
    """A server in a thread of its own."""
    made, ended = Stand(), threading.Event()
    ready = threading.Event()

    async def main() -> None:
        await made.start(Settings(port=0, limits=Limits(member_rate=1e6, address_rate=1e6)))
        for name, answer in ANSWERS.items():
            made.handlers[name] = lambda _, answer=answer: asyncio.sleep(0, answer)
        ready.set()
        await asyncio.to_thread(ended.wait)
        await made.service.close()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(10)
    yield made
    ended.set()
    thread.join(10)
    assert made.faults == []


def without_signatures() -> dict[str, Any]:
    """The document as it is to one for whom requests are signed on their way."""
    document = describe()
    for methods in document["paths"].values():
        for operation in methods.values():
            operation.pop("security", None)
    return document


REFUSED = [400, 401, 404, 405, 411, 413, 415, 416, 426]
CONFIG = SchemathesisConfig.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": REFUSED}}})
schema = schemathesis.openapi.from_dict(without_signatures(), config=CONFIG)
# The same examples each time: what a change breaks is then its own.
FEW = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@schema.parametrize()
@FEW
def test_every_endpoint_keeps_to_the_document(case, stand):
    endpoint = next(each for each in ENDPOINTS if each.name == case.operation.definition.raw["operationId"])
    member = SENDERS[endpoint.who[0]] if endpoint.who else 0
    case.body = whole(case.body)
    # Beyond the document: a body is not longer than `size` says, and integers in free fields have 64 bits too.
    excluded = [positive_data_acceptance] if endpoint.name in ("put_blob", "submit_run") else []
    with requests.Session() as session:
        session.auth = Signer(stand.service.audience, member) if member else None
        case.call_and_validate(base_url=stand.url, session=session, checks=CHECKS, excluded_checks=excluded)


def whole(value: Any) -> Any:
    """The same with 1 for 1.0: one number for JSON Schema, but an integer is written without a fraction here."""
    if isinstance(value, dict):
        return {name: whole(part) for name, part in value.items()}
    if isinstance(value, list):
        return [whole(part) for part in value]
    is_integer = isinstance(value, float) and value.is_integer() and abs(value) < 2**63
    return int(value) if is_integer else value


def test_the_server_gives_the_document(stand):
    given = requests.get(f"{stand.url}/v1/openapi.json", timeout=10)
    assert given.json() == msgspec.json.decode(msgspec.json.encode(describe()))


def test_the_document_has_every_endpoint():
    listed = {
        (operation["x-umbel-number"], method.upper(), path)
        for path, methods in describe()["paths"].items()
        for method, operation in methods.items()
    }
    assert listed == {(each.number, each.method, each.path) for each in ENDPOINTS}
