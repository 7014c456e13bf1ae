"""A full server is asked all that its OpenAPI document permits, and much that it does not, by each kind of member."""

import logging
import re
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack

import msgspec
import pytest
import requests
import schemathesis
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from by_hand import blob, serving
from federation import wait_for
from system import check, federating, own_memory, submit
from test_http_json import BAD
from test_openapi import REFUSED, whole, without_signatures
from test_sql import TEXTS
from umbel import errors
from umbel.envelope import pack
from umbel.http import ENDPOINTS, Limits, SignedRequest, mains, sign, wire
from umbel.http._signature import digest_of
from umbel.records import RecordSet

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
# What is well formed may still be refused for what is there, or not there.
CONFLICTS = [*REFUSED, 403, 409, 422]
CONFIG = SchemathesisConfig.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": CONFLICTS}}})
schema = schemathesis.openapi.from_dict(without_signatures(), config=CONFIG)
FEW = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
OF_MAINS = ("offer_nodes", "ask_nodes", "read_answers", "give_up", "end_run")
MANY = Limits(member_rate=1e6, address_rate=1e6)


class Signed(requests.auth.AuthBase):
    """Signs a request of an actor as it is about to be sent."""

    def __init__(self, actor):
        self.actor = actor

    def __call__(self, prepared):
        body = prepared.body or b""
        body = body.encode() if isinstance(body, str) else body
        path = prepared.path_url.partition("?")[0]
        is_blob = prepared.method == "PUT" and path.startswith("/v1/blobs/")
        digest = path.rpartition("/")[2].replace("%3A", ":") if is_blob else digest_of(body)
        prepared.headers["Authorization"] = sign(
            self.actor.identity,
            SignedRequest(prepared.method, prepared.path_url, digest),
            audience=self.actor.client._audience,
            member=self.actor.member,
            expires=int(time.time()) + 30,
        )
        return prepared


class Scene:
    """A server with an operator, two users with a run each, and a node that holds a message; by kind of member."""

    def __init__(self, operator, held):
        self.ada, self.eve = (held.enter_context(operator.newcomer(name, "user")) for name in ("ada", "eve"))
        self.node = held.enter_context(operator.newcomer("north"))
        self.operator = operator
        said, blobs = blob(0.0)
        ((self.digest, data),) = blobs.items()
        self.ada.runner.run(self.ada.client.put_blob(self.digest, data))
        self.runs = [self.ada.submit(1, rounds=10**6, initial=said), self.eve.submit(1, rounds=2)]
        self.node.work()
        self.driven = self.ada.submit(1, rounds=0, strategy={"main": "app:main"}, initial=pack(RecordSet(), None))
        for actor in (operator, self.ada, self.eve, self.node):
            actor.runner.run(actor.client.hello())
        self.senders = {"operator": operator, "user": self.ada, "node": self.node}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with ExitStack() as held:
        folder = tmp_path_factory.mktemp("api")
        yield Scene(
            held.enter_context(serving(folder / "server", poll=0.05, patience=600.0, mains=True, limits=MANY)), held
        )


@pytest.fixture(autouse=True)
def no_fault(caplog):
    """No request makes the server meet a fault of its own."""
    with caplog.at_level(logging.ERROR):
        yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@schema.parametrize()
@FEW
def test_every_endpoint_keeps_to_the_document(case, scene):
    """Each is asked by each kind of member that may, of runs and blobs that are there as well as of others."""
    endpoint = next(each for each in ENDPOINTS if each.name == case.operation.definition.raw["operationId"])
    case.body = whole(case.body)
    known = {"run": scene.driven if endpoint.name in OF_MAINS else scene.runs[0], "digest": scene.digest}
    if case.path_parameters and hash(str(case.body)) % 2:
        case.path_parameters = {name: known.get(name, value) for name, value in case.path_parameters.items()}
    if endpoint.name == "revoke_member":  # those who ask stay members
        case.path_parameters["member"] = 10**9
    for kind in endpoint.who or ("nobody",):
        with requests.Session() as session:
            session.auth = Signed(scene.senders[kind]) if kind in scene.senders else None
            case.call_and_validate(base_url=scene.operator.url, session=session, checks=CHECKS)


def test_the_server_is_well_after_all_that(scene):
    assert scene.ada.view(scene.runs[0]).row.owner == "ada"
    run = scene.ada.submit(1)
    scene.operator.call("stop_run", run=run)
    assert scene.operator.until(run, "stopped")


def ask(actor, endpoint, body=None, **params):
    """Send what is no body of an endpoint, signed; return the status and the code of the error."""
    given = {"digest": f"blake3:{64 * '0'}", "run": 1, "member": 10**9, "token": 10**9} | params
    url = actor.url + endpoint.path.format_map(given)
    headers = {"Umbel-Version": "1", "Content-Type": "application/json"}
    auth = Signed(actor) if endpoint.who else None
    answer = requests.request(endpoint.method, url, data=body, headers=headers, auth=auth, timeout=30)
    return answer.status_code, answer.headers.get("Umbel-Error")


@pytest.mark.parametrize("endpoint", [each for each in ENDPOINTS if each.request], ids=lambda each: each.name)
def test_json_that_is_none_is_refused_by_every_endpoint(scene, endpoint):
    senders = [scene.senders[kind] for kind in endpoint.who] or [scene.operator]
    optional = endpoint.request() if endpoint.name in ("stop_run", "resume_run") else None
    for name, data in BAD.items():
        if name == "nothing" and optional is not None:
            continue
        status, code = ask(senders[0], endpoint, data)
        assert (status, code) in ((400, "http"), (413, "http.too-large"), (411, "http.length")), name


OF_RUNS = [each for each in ENDPOINTS if "{run}" in each.path]
NOTHING = pack(RecordSet(), None)
BODIES = {
    "offer_nodes": mains.Wanted(call=1, round=1, message_type="train"),
    "ask_nodes": mains.Asking(call=1, round=1, message_type="train", ttl=9.0, content=NOTHING, messages=[1], nodes=[1]),
    "give_up": mains.GivenUp(messages=[1]),
}


@pytest.mark.parametrize("endpoint", OF_RUNS, ids=lambda each: each.name)
def test_the_run_of_another_user_is_not_there(scene, endpoint):
    """It is answered with the very words for a run that does not exist."""
    answers = []
    after = {"after": 0} if "after" in endpoint.query else {}
    for run in (scene.runs[0], 10**15):
        with pytest.raises(errors.NotFound) as caught:
            scene.eve.call(endpoint.name, BODIES.get(endpoint.name), run=run, **after)
        answers.append(str(caught.value).replace(str(run), "N"))
    assert answers[0] == answers[1]
    assert [row.owner for row in scene.eve.call("list_runs").runs] == ["eve"] * len(scene.eve.call("list_runs").runs)


@pytest.mark.parametrize("endpoint", [each for each in ENDPOINTS if each.who], ids=lambda each: each.name)
def test_a_kind_of_member_that_may_not_ask_is_refused(scene, endpoint):
    for kind in {"operator", "user", "node"} - set(endpoint.who):
        status, code = ask(scene.senders[kind], endpoint)
        assert (status, code) == (403, "auth.forbidden"), kind


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """An operator and a node of a server that nobody has tried out."""
    folder = tmp_path_factory.mktemp("texts")
    with serving(folder / "server", poll=0.5, limits=MANY) as operator, operator.newcomer("north") as node:
        yield operator, node


@pytest.mark.parametrize("text", [*TEXTS, "\N{RIGHT-TO-LEFT OVERRIDE}a\nb\x1b[31m"], ids=lambda text: ascii(text)[:20])
def test_text_that_would_be_sql_is_text(pair, text):
    """In names, settings, reasons and figures; each comes back as it was, or as its beginning."""
    operator, node = pair
    run = operator.submit(1, config={"text": text[:1000]}, app=text[:1000])
    task = node.work()
    assert (task.run, task.run_config["text"]) == (run, text[:1000])
    node.reply(task, content=None, error_code=2, error_reason=text)
    view = operator.until(run, "failed")
    assert (view.spec.config, view.row.app) == ({"text": text[:1000]}, text[:1000])
    (asked,) = view.questions
    assert asked.reason
    assert text.startswith(asked.reason[:10])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.text(max_size=200))
def test_a_member_of_any_name_is_listed_by_it_or_refused(scene, name):
    try:
        with scene.operator.newcomer(name) as member:
            number = member.member
    except (errors.BadName, errors.NameTaken):
        return
    assert next(row.name for row in scene.operator.call("list_nodes").nodes if row.member == number) == name


# A17: many of everything.


BATCH = 500


def flood(url, path, bodies):
    """Send requests over few connections, many at a time; return how often each status came."""
    host, _, port = url.removeprefix("http://").partition(":")
    counts = Counter()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: "
    for begin in range(0, len(bodies), BATCH):
        batch = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies[begin : begin + BATCH]]
        batch[-1] = batch[-1].replace(b"\r\nContent-Type", b"\r\nConnection: close\r\nContent-Type")
        with socket.create_connection((host, int(port)), timeout=120) as sock:
            sender = threading.Thread(target=sock.sendall, args=(b"".join(batch),))
            sender.start()
            answer = b"".join(iter(lambda sock=sock: sock.recv(2**16), b""))
            sender.join()
        counts.update(int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answer))
    return counts


@pytest.mark.parametrize("number", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_flood_of_registrations(tmp_path, number):
    """One token lets one in; whoever comes too often is told so, and neither memory nor ledger grows with them."""
    limits = {"address_rate": 1e6} if number > BATCH * 10 else {}
    with federating(tmp_path, nodes=["south", "north"], server={"limits": limits}) as federation:
        wait_for(lambda: len(federation.call("list_nodes").nodes) == 2, "they have joined")
        secret = federation.call("make_token", wire.TokenRequest()).secret
        told = {"secret": secret, "kind": "node", "app": "a", "types": [], "release": "0"}
        keys = (blake3(str(each).encode()).digest() for each in range(number))
        bodies = [msgspec.json.encode(told | {"key": key, "name": f"node-{each}"}) for each, key in enumerate(keys)]
        flood(federation.about.url, "/v1/join", bodies[:BATCH])
        memory = own_memory(federation.serving.process.pid)
        counts = flood(federation.about.url, "/v1/join", bodies[BATCH:])
        assert counts.keys() <= {403, 429}
        assert counts.total() == number - BATCH
        assert counts[403] > 0
        assert own_memory(federation.serving.process.pid) < memory + 16 * 2**20
        assert len(federation.call("list_nodes").nodes) == 3
        check(federation, submit(federation))


def test_a_node_that_asks_too_often_is_told_when_to_come_again(tmp_path):
    with serving(tmp_path / "server", limits=Limits(member_rate=5.0, burst=2.0)) as operator:
        endpoint = next(each for each in ENDPOINTS if each.name == "list_runs")
        operator.call("list_runs")
        answers = [ask(operator, endpoint) for _ in range(30)]
        assert set(answers) == {(200, None), (429, "http.quota")}
        assert operator.call("list_runs").runs == [], "a client of ours waits, and is answered"
