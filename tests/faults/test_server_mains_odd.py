"""What is rare between the main of a run and its server: nodes of one name, repeats, bounds, ends that meet a stop."""

import pytest

from by_hand import Actor, serving
from test_server_mains import answers, asking, submit
from umbel.message import ErrorCode


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "server"


@pytest.fixture
def operator(folder):
    with serving(folder, poll=0.5, patience=30.0) as made:
        yield made


@pytest.fixture
def north(operator):
    with operator.newcomer("north") as made:
        yield made


def test_two_nodes_of_one_name_are_asked_in_one_call_over_a_restart(folder):
    with serving(folder) as operator, operator.newcomer("north") as gone:
        operator.call("revoke_member", member=gone.member)
        with operator.newcomer("north") as north:
            run = submit(operator, 1)
            first = operator.call("ask_nodes", asking(1, [gone, north]), run=run)
            assert north.work().message == 101
    with serving(folder) as operator, Actor(operator.url, north.identity, north.member) as north:
        assert operator.call("ask_nodes", asking(1, [gone, north]), run=run) == first
        north.reply(north.work())
        codes = {told.message: told.error_code for told in answers(operator, run)}
        codes |= {told.message: told.error_code for told in answers(operator, run, after=len(codes))}
        assert codes == {100: ErrorCode.NODE_UNAVAILABLE, 101: None}
