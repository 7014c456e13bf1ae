"""The specification, the table of endpoints and the errors say the same."""

import inspect
import re
from pathlib import Path

import pytest

from umbel import errors
from umbel.errors import UmbelError
from umbel.http import ENDPOINTS, Limits, Settings, mains, wire
from umbel.http._openapi import errors_of

SPEC = (Path(__file__).parents[2] / "docs" / "spec" / "api.md").read_text()
ALWAYS = (
    errors.MethodNotAllowed,
    errors.NotFound,
    errors.ServerFailed,
    errors.ServerStopping,
    *errors.AuthError.__subclasses__(),
)


def rows(heading):
    """The cells of the first table under a heading of the specification."""
    lines = SPEC.split(f"\n## {heading}\n", 1)[1].splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("|"))
    found = []
    for line in lines[begin + 2 :]:
        if not line.startswith("|"):
            return found
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def written(endpoint):
    """The row of the specification that an endpoint deserves."""
    query = "&".join(f"{name}={'N' if default is None else default}" for name, default in endpoint.query.items())
    size = f"{endpoint.limit // 2**20} MiB" if endpoint.limit >= 2**20 else f"{endpoint.limit // 1024} KiB"
    other = {"put_blob": "bytes"}.get(endpoint.name, "")
    said = {"stat_blob": "headers", "get_blob": "bytes", "put_blob": "headers", "openapi": "JSON", "metrics": "text"}
    return [
        str(endpoint.number),
        f"`{endpoint.name}`",
        f"`{endpoint.method} {endpoint.path}{'?' if query else ''}{query}`",
        " ".join(endpoint.who) or "anyone",
        f"`{endpoint.request.__name__}`" if endpoint.request else other,
        size if endpoint.request else {"put_blob": "none"}.get(endpoint.name, ""),
        f"`{endpoint.response.__name__}`" if endpoint.response else said[endpoint.name],
        " ".join(f"`{kind.code}`" for kind in endpoint.errors),
    ]


def test_the_specification_has_the_table_of_endpoints():
    assert rows("Endpoints") == [written(endpoint) for endpoint in ENDPOINTS]


def test_the_specification_has_every_error_with_its_status():
    kinds = {kind for endpoint in ENDPOINTS for kind in errors_of(endpoint)} | set(ALWAYS)
    expected = {(f"`{kind.code}`", str(kind.http_status)) for kind in kinds if kind is not errors.AuthError}
    listed = rows("Errors")
    assert {(code, status) for _, code, status, _ in listed} == expected
    assert [int(number) for number, *_ in listed] == list(range(1, len(listed) + 1))


def test_endpoints_are_numbered_and_named_once():
    assert [endpoint.number for endpoint in ENDPOINTS] == list(range(1, len(ENDPOINTS) + 1))
    assert len({endpoint.name for endpoint in ENDPOINTS}) == len(ENDPOINTS)
    assert len({(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}) == len(ENDPOINTS)


def test_get_and_head_change_nothing_and_take_nothing():
    assert [each.name for each in ENDPOINTS if each.method in ("GET", "HEAD") and each.request is not None] == []


def test_every_body_of_the_wire_is_used():
    parts = {"Assignment", "AuditLine", "EventLine", "Fault", "NodeRow", "Question", "RunRow", "Task", "TokenRow"}
    bodies = {kind.__name__ for each in ENDPOINTS for kind in (each.request, each.response) if kind is not None}
    assert bodies | parts | {"VERSION", "AT_ONCE", "Told"} == {*wire.__all__, *mains.__all__}


@pytest.mark.parametrize("name", sorted({*wire.__all__, *mains.__all__} - {"VERSION", "AT_ONCE"}))
def test_every_body_refuses_what_it_does_not_know(name):
    kind = getattr(wire if name in wire.__all__ else mains, name)
    assert kind.__struct_config__.forbid_unknown_fields
    assert kind.__struct_config__.frozen


def test_limits_and_times_are_those_of_the_specification():
    limits, settings = Limits(), Settings()
    text = " ".join(SPEC.split("\n## Limits\n", 1)[1].split())
    for number in (limits.member_rate, limits.member_rate * limits.burst, limits.pending, limits.uploads):
        assert f"{number:,.0f}" in text
    for number in (limits.address_rate, limits.connections, limits.handshakes, limits.buffered / 2**20):
        assert f"{number:,.0f}" in text
    assert re.search(rf"`stall` \| {settings.stall:.0f} s", SPEC)
    assert re.search(rf"`skew` \| {settings.skew:.0f} s", SPEC)


def test_errors_that_cross_are_made_of_a_message_and_a_place():
    def below(kind):
        return {kind}.union(*map(below, kind.__subclasses__()))

    for kind in below(UmbelError):
        assert list(inspect.signature(kind).parameters) == ["message", "at"], kind
