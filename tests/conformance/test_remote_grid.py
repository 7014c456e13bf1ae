"""The grid of a main passes the suite that is shipped for engines, over a server and nodes that are processes."""

from contextlib import contextmanager

import pytest

from federation import Federation, wait_for
from umbel.cli._grid import RemoteGrid
from umbel.cli._remote import Remote
from umbel.cli._servers import operator_of
from umbel.envelope import pack
from umbel.http import wire
from umbel.records import RecordSet
from umbel.testing import GridTests

MOST = 12
NAMES = [f"node-{place:02}" for place in range(MOST)]


class Waits(Exception):
    """What a run waits for, which will not come."""


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("federation")
    made = Federation(folder, folder, app="umbel.testing:grid_app")
    try:
        made.serve()
        for name in NAMES:
            made.node(name)
        wait_for(lambda: sum(row.status == "online" for row in made.call("list_nodes").nodes) == MOST, "all are there")
        yield made
    finally:
        made.close()


@pytest.mark.slow
class TestRemoteGrid(GridTests):
    @pytest.fixture(autouse=True)
    def _over(self, federation, tmp_path):
        self.federation, self.folder = federation, tmp_path

    def say(self, text, kind, **_):
        if "unheard-of" in text:
            raise Waits(text)

    def test_a_type_that_no_handler_knows_is_not_offered_or_has_an_error_reply(self):
        # Nodes come and go: a server waits for one that handles the type, and says so.
        with self.open_grid(2, 7) as grid, pytest.raises(Waits, match=r"nodes that handle 'test\.unheard-of': node-00"):
            grid.nodes(1, "test.unheard-of")

    @contextmanager
    def open_grid(self, nodes, seed):
        remote = Remote(operator_of(self.federation.folder / "server"))
        try:
            spec = wire.RunSpec(
                app=self.federation.app,
                strategy={"main": "app:main"},
                rounds=0,
                seed=seed,
                config={},
                nodes=NAMES[:nodes],
                initial=pack(RecordSet(), None),
            )
            self.run_id = remote.submit(spec)
            grid = RemoteGrid(remote, self.run_id, self.folder, self.say)
            yield grid
            grid.end(None)
        finally:
            remote.close()
