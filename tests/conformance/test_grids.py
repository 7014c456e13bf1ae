"""Every engine passes the suite that is shipped for engines."""

from contextlib import closing

import pytest

from umbel.engines import LocalGrid, Population, ProcessGrid
from umbel.testing import GridTests, grid_app


class TestLocalGrid(GridTests):
    def open_grid(self, nodes, seed):
        return closing(LocalGrid(grid_app, Population(nodes), seed=seed))


class TestProcessGrid(GridTests):
    @pytest.fixture(autouse=True, params=[1, 3])
    def _workers(self, request):
        self.workers = request.param

    def open_grid(self, nodes, seed):
        return closing(ProcessGrid(grid_app, Population(nodes), workers=self.workers, seed=seed))
