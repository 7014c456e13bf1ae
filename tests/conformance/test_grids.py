"""Every engine passes the suite that is shipped for engines."""

from contextlib import closing

from umbel.engines import LocalGrid, Population, ProcessGrid, VirtualGrid, drawn
from umbel.testing import GridTests, grid_app


class TestLocalGrid(GridTests):
    def open_grid(self, nodes, seed):
        return closing(LocalGrid(grid_app, Population(nodes), seed=seed))


class TestProcessGrid(GridTests):
    def open_grid(self, nodes, seed):
        return closing(ProcessGrid(grid_app, Population(nodes), workers=2, seed=seed))


class TestVirtualGrid(GridTests):
    def open_grid(self, nodes, seed):
        return closing(VirtualGrid(grid_app, Population(nodes), devices=drawn(seconds=5, spread=0.5), seed=seed))
