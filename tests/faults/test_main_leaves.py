"""How a run is left whose main ends early: it has failed by what the main got wrong, and by nothing else."""

import shutil
from contextlib import suppress

import numpy as np
import pytest
from typer.testing import CliRunner

from by_hand import blob, serving
from test_server_mains import answers, submit
from test_server_mains_odd import message
from umbel import errors
from umbel.cli._drive import _leaving
from umbel.cli._grid import RemoteGrid
from umbel.cli._remote import Remote
from umbel.cli._runs import app
from umbel.cli._screen import open_screen
from umbel.cli._servers import operator_of
from umbel.http import mains
from umbel.records import ParametersRecord, RecordSet

LARGE = RecordSet({"model": ParametersRecord.from_numpy({"w": np.zeros(10_000)})})


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


@pytest.fixture
def grid(operator, folder):
    remote = Remote(operator_of(folder))
    yield RemoteGrid(remote, submit(operator, 1), folder, lambda *_, **__: None)
    remote.close()


def status(operator):
    return operator.view(1).row.status


def leaving(grid):
    return _leaving(open_screen(json_wanted=False), grid, "umbel run APP --resume 1")


def test_a_blob_that_the_server_cannot_take_fails_no_run(operator, north, grid, folder):
    shutil.rmtree(folder / "uploads")
    (folder / "uploads").write_bytes(b"")
    with pytest.raises(errors.UmbelError) as caught, leaving(grid):
        grid.send([message(north.member, 1, LARGE)])
    assert grid.trouble is caught.value
    assert status(operator) == "waiting"


def test_an_answer_that_the_server_cannot_give_fails_no_run(operator, north, grid, folder):
    grid.send([message(north.member, 1)])
    said, blobs = blob(5.0)
    ((digest, data),) = blobs.items()
    north.runner.run(north.client.put_blob(digest, data))
    north.reply(north.work(), content=said)
    assert [told.message for told in answers(operator, 1)] == [1]
    name = digest.removeprefix("blake3:")
    (folder / "blobs" / name[:2] / name[2:]).unlink()
    with pytest.raises(errors.UmbelError) as caught, leaving(grid):
        next(grid.replies())
    assert grid.trouble is caught.value
    assert status(operator) == "running"


def test_what_a_main_gets_wrong_after_a_refusal_that_it_took_fails_the_run(operator, grid):
    def main():
        with suppress(errors.NotFound):
            grid.send([message(99, 1)])
        1 / 0  # noqa: B018 - it raises

    with pytest.raises(ZeroDivisionError), leaving(grid):
        main()
    assert status(operator) == "failed"


def test_what_a_main_gets_wrong_is_said_even_if_the_server_will_not_have_it(operator, grid):
    operator.call("stop_run", run=1)
    with pytest.raises(ZeroDivisionError), leaving(grid):
        1 / 0  # noqa: B018 - it raises
    assert status(operator) == "stopped"


def test_a_reason_that_cannot_be_said_as_it_is_fails_the_run_all_the_same(operator, grid):
    with pytest.raises(ValueError, match="x"), leaving(grid):
        raise ValueError("\0 \ud800" + "x" * 5_000_000)
    row = operator.view(1).row
    assert (row.status, row.reason[:18]) == ("failed", "ValueError: \ufffd ?xxx")


def test_a_content_that_cannot_be_sent_is_what_a_main_gets_wrong(operator, north, grid):
    with pytest.raises(errors.RecordError), leaving(grid):
        grid.send([message(north.member, 1, RecordSet({"\ud800": LARGE.parameters_records["model"]}))])
    assert status(operator) == "failed"


def test_a_call_that_the_server_refused_can_be_made_again(operator, north, grid):
    with pytest.raises(errors.NotFound):
        grid.send([message(99, 1)])
    grid.send([message(north.member, 1)])
    north.reply(north.work())
    assert [reply.has_error() for reply in grid.replies()] == [False]
    with pytest.raises(errors.BadValue):
        grid.nodes(1, "")
    north.poll()
    assert [node.name for node in grid.nodes(1)] == ["north"]


@pytest.mark.parametrize("reason", ["E: \0", "E: " + "x" * 5_000], ids=["illegible", "long"])
def test_a_reason_that_the_ledger_cuts_is_the_same_when_it_is_said_again(operator, reason):
    run = submit(operator, 1)
    for _ in range(2):
        operator.call("end_run", mains.Ending(reason=reason), run=run)
    assert status(operator) == "failed"


def test_a_run_that_cannot_be_stopped_again_says_how_its_main_goes_on(operator, grid, folder):
    command = ["stop", "1", "--data", str(folder)]
    assert CliRunner().invoke(app, command).exit_code == 0
    error = CliRunner().invoke(app, command).exception
    assert isinstance(error, errors.WrongState)
    said = f"run 1 cannot be stopped: it is stopped\ngo on with: umbel run APP --server {operator.url} --resume 1"
    assert error.message == said
