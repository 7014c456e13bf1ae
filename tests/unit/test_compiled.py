"""The compiled loops are there where there is a compiler, for any processor, and the package goes on without."""

import ctypes
import importlib.util
import os
import shutil
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from house import ROOT
from umbel.aggregation import Update, _compiled, _distance, _distances, _fused, _screened, _squares, weighted_mean
from umbel.records import ParametersRecord

SOURCE = Path(_compiled.LIBRARY).with_suffix(".c")
compiled = pytest.mark.skipif(not _fused.LOOPS, reason="there was no C compiler when umbel was installed")


def test_a_library_that_is_none_is_as_good_as_none(tmp_path):
    assert _compiled.loops("add", [], path=str(tmp_path / "absent.so")) == {}
    (tmp_path / "text.so").write_text("no library")
    assert _compiled.loops("add", [], path=str(tmp_path / "text.so")) == {}


class _Interface:
    def __class_getitem__(cls, _):
        return cls


@pytest.fixture
def hook(monkeypatch):
    """The build hook, without the builder, which is there only when a package is built."""
    for name in ("hatchling", "hatchling.builders", "hatchling.builders.hooks", "hatchling.builders.hooks.plugin"):
        monkeypatch.setitem(sys.modules, name, type(sys)(name))
    interface = type(sys)("hatchling.builders.hooks.plugin.interface")
    interface.BuildHookInterface = _Interface
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured(monkeypatch, loops, arrays):
    """The bits of the distances that are found with some loops."""
    model, *records = [ParametersRecord.from_numpy({"w": array}) for array in arrays]
    updates = [Update(f"node-{place}", 1.0, record) for place, record in enumerate(records)]
    with monkeypatch.context() as patch:
        patch.setattr(_distances, "LOOPS", loops)
        return [each.tobytes() for each in _distances.distances(model, updates)]


def meant(monkeypatch, loops, arrays):
    """The bits of the mean of arrays that come one by one, with some loops."""
    fold, records = weighted_mean().reduce, [ParametersRecord.from_numpy({"w": array}) for array in arrays]
    acc = fold.start(records[0])
    with monkeypatch.context() as patch:
        for name, each in zip(("LOOPS", "_DIVIDED"), loops, strict=True):
            patch.setattr(_screened, name, each)
        assert all(fold.screened(acc, Update(f"node-{at:02}", 1.0 + at, each)) for at, each in enumerate(records))
        return fold.finish(acc)["w"].numpy().tobytes()


def measured_alone(monkeypatch, loops, arrays):
    """The squared distance of two arrays that is found with some loops."""
    with monkeypatch.context() as patch:
        patch.setattr(_squares, "LOOPS", loops)
        return _distance.squared_distance(*(ParametersRecord.from_numpy({"w": array}) for array in arrays))


class TestTheBuild:
    @pytest.mark.skipif(shutil.which(os.environ.get("CC", "cc")) is None, reason="there is no C compiler")
    def test_compiles_where_there_is_a_compiler(self, hook, tmp_path, monkeypatch):
        made = tmp_path / "made.so"
        for command in (None, "cc -pipe"):
            if command:
                monkeypatch.setenv("CC", command)
            assert hook.compiled(SOURCE, made) == ""
            for name in ("add", "apart", "divided", "each", "screened", "squares"):
                assert _compiled.loops(name, [], path=str(made)).keys() == {np.dtype("f4"), np.dtype("f8")}
            assert [path.name for path in tmp_path.iterdir()] == ["made.so"]
        built = [module.LOOPS.keys() for module in (_fused, _distances, _squares, _screened)]
        assert built == 4 * [{np.dtype("f4"), np.dtype("f8")}], "the package was built without"

    @compiled
    def test_has_the_same_bits_where_there_is_one_loop_for_all_processors(self, hook, tmp_path, monkeypatch):
        monkeypatch.setattr(hook, "_CLONES", "-DNONE")
        assert hook.compiled(SOURCE, tmp_path / "made.so") == ""
        loops = _compiled.loops("apart", _distances.ARGUMENTS, path=str(tmp_path / "made.so"))
        squares = _compiled.loops("squares", _squares.ARGUMENTS, path=str(tmp_path / "made.so"))
        made = str(tmp_path / "made.so")
        screening = [
            _compiled.loops("screened", _screened._ARGUMENTS, ctypes.c_int, made, kind=ctypes.PyDLL),
            _compiled.loops("divided", _screened._DIVISION, ctypes.c_int, made),
        ]
        for count, dtype in product((1, 2, 3, 10, 65), (np.float32, np.float64)):
            drawn = np.random.default_rng(count).standard_normal((count + 1, 5001)).astype(dtype)
            found = [measured(monkeypatch, each, drawn) for each in (_distances.LOOPS, loops, {})]
            assert found[0] == found[1] == found[2]
            found = [measured_alone(monkeypatch, each, drawn[:2]) for each in (_squares.LOOPS, squares, {})]
            assert found[0] == found[1] == found[2]
            found = [meant(monkeypatch, each, drawn) for each in ((_screened.LOOPS, _screened._DIVIDED), screening)]
            assert found[0] == found[1]

    def test_goes_on_where_there_is_none_and_leaves_nothing(self, hook, tmp_path, monkeypatch):
        (tmp_path / "made.so").write_text("of another version")
        monkeypatch.setenv("CC", "no-such-compiler")
        assert "no-such-compiler" in hook.compiled(SOURCE, tmp_path / "made.so")
        (tmp_path / "wrong.c").write_text("no C")
        monkeypatch.setenv("CC", "cc")
        assert hook.compiled(tmp_path / "wrong.c", tmp_path / "made.so")
        assert [path.name for path in tmp_path.iterdir()] == ["wrong.c"]

    @compiled
    def test_one_of_another_version_is_as_good_as_none(self, monkeypatch):
        monkeypatch.setattr(_compiled, "_VERSION", 1)
        assert _compiled.loops("add", []) == {}
