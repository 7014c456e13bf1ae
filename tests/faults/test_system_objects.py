"""A server whose blobs are in an object store, named by a URL: a whole run, with a restart in the middle of it."""

import shutil
import uuid

import pytest

from federation import wait_for
from system import LARGE, begin, begun, check, each_once, federating, handled, runs
from umbel.store import ObjectBlobs

pytestmark = pytest.mark.slow


@pytest.fixture
def url(s3, monkeypatch):
    """The URL of an empty place in the store; how it is reached stands in the environment, as operators have it."""
    for name, value in s3.items():
        monkeypatch.setenv(f"AWS_{name.upper()}", value)
    return f"s3://umbel/{uuid.uuid4()}"


@pytest.mark.parametrize("emptied", [False, True], ids=["copies", "no-copies"])
@pytest.mark.parametrize("failpoint", ["server.aggregating:kill:3", "server.state-stored:kill:2"])
def test_a_run_over_an_object_store_goes_on_after_a_restart(tmp_path, url, failpoint, emptied):
    with federating(tmp_path, server={"blobs": url}, failpoint=failpoint) as federation:
        begin(federation, LARGE)
        federation.serving.wait()
        if emptied:
            shutil.rmtree(federation.folder / "server" / "blobs")
        federation.serving = federation.serve()
        run = begun(federation, set(), LARGE)
        view = check(federation, run, LARGE)
        assert handled(federation) == each_once()
        assert runs(federation) == {run}
        federation.serving.end()
        there = ObjectBlobs(url, tmp_path / "copies")
        assert bytes(there.get(view.digest))


def test_a_server_whose_copies_are_gone_gives_out_what_the_object_store_has(tmp_path, url):
    with federating(tmp_path, server={"blobs": url}) as federation:
        begin(federation, LARGE)
        run = begun(federation, set(), LARGE)
        view = check(federation, run, LARGE)
        federation.serving.end()
        shutil.rmtree(federation.folder / "server" / "blobs")
        federation.serving = federation.serve()
        fetched = tmp_path / "model"
        federation.ask(lambda client: client.get_blob(view.digest, fetched))
        assert fetched.stat().st_size > 4 * LARGE
        wait_for(lambda: federation.status("north").state == "connected", "the nodes are back")
        again = begun(federation, {run}, LARGE)
        check(federation, again, LARGE)
