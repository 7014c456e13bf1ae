"""Imports go down the layer table of the design note, in no circle, and stand at the top of the file."""

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from house import Module, house, imports, layers, umbel

LAZY = ("umbel", "umbel.node", "umbel.records")  # each says in its docstring what waits for its first use
SIBLINGS_APART = 5  # engines, store, http: each must be replaceable without the others


def misplaced(modules: Iterable[Module], levels: Mapping[str, int]) -> list[str]:
    """Modules that the layer table does not name."""
    parts = {mod.part for mod in modules if mod.part}
    return sorted(part for part in parts if part not in levels)


def upward(modules: Iterable[Module], levels: Mapping[str, int]) -> list[str]:
    """Imports of a higher layer, or of a sibling in the layer where siblings stay apart."""
    found = []
    for mod in modules:
        for target in imports(mod):
            part = target.full.partition(".")[2].partition(".")[0]
            if not target.is_ours or mod.part in ("", part):
                continue
            here, there = levels[mod.part], levels.get(part, max(levels.values()))
            if there > here or (there == here == SIBLINGS_APART):
                found.append(f"{mod.name}:{target.line} (layer {here}) imports {target.full} (layer {there})")
    return found


def cycle(modules: Iterable[Module]) -> list[str]:
    """One circle of imports, or nothing."""
    known = {mod.name: mod for mod in modules}
    graph = {name: {_target(i.full, known) for i in imports(mod) if i.is_ours} for name, mod in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _target(full: str, known: Mapping[str, Module]) -> str:
    """The module that an import reads: ``umbel.records._array`` for ``umbel.records._array.Array``."""
    return full if full in known else full.rpartition(".")[0]


def local(modules: Iterable[Module]) -> list[str]:
    """Imports of Umbel inside a function, where they hide a circle; a package's lazy names are the one exception."""
    return [
        f"{mod.name}:{target.line} imports {target.full} inside {target.inside}"
        for mod in modules
        for target in imports(mod)
        if target.is_ours
        and target.inside
        and not (mod.is_package and target.inside == "__getattr__" and mod.name in LAZY)
    ]


def test_every_part_has_a_layer():
    assert misplaced(umbel(), layers()) == []


def test_every_row_of_the_table_is_there():
    assert sorted(layers().keys() - {mod.part for mod in umbel()}) == []


def test_imports_go_down():
    assert upward(umbel(), layers()) == []


def test_no_import_cycle():
    assert cycle(umbel()) == []


def test_no_local_import_of_umbel():
    assert local(umbel()) == []


def test_the_table_is_read_from_the_design_note():
    assert layers()["records"] == layers()["errors"] == 0
    assert layers()["rounds"] > layers()["strategy"] > layers()["gate"] > layers()["message"] > 0


LEVELS = {"records": 0, "message": 1, "engines": 5, "store": 5}


def test_finds_a_part_without_layer():
    assert misplaced(house({"umbel/__init__.py": "", "umbel/extra.py": ""}), LEVELS) == ["extra"]


def test_finds_an_upward_import():
    bad = house({"umbel/records/_a.py": "import umbel.message", "umbel/message.py": "from umbel.records import _a"})
    assert upward(bad, LEVELS) == ["umbel.records._a:1 (layer 0) imports umbel.message (layer 1)"]


def test_finds_a_relative_upward_import():
    bad = house({"umbel/records/_a.py": "from ..message import Message"})
    assert upward(bad, LEVELS) == ["umbel.records._a:1 (layer 0) imports umbel.message.Message (layer 1)"]


def test_finds_an_import_of_the_front_door():
    text = "from umbel import simulate"
    assert len(upward(house({"umbel/message.py": text}), LEVELS)) == 1
    assert upward(house({"umbel/cli/_run.py": text}), LEVELS | {"cli": 7}) == []


def test_finds_siblings_that_import_one_another():
    bad = house({"umbel/engines/local.py": "from umbel.store import blobs"})
    assert upward(bad, LEVELS) == ["umbel.engines.local:1 (layer 5) imports umbel.store.blobs (layer 5)"]
    assert upward(house({"umbel/engines/local.py": "from umbel.engines._task import Task"}), LEVELS) == []


def test_finds_a_cycle():
    straight = {"umbel/records/__init__.py": "from umbel.records._a import A", "umbel/records/_a.py": ""}
    assert cycle(house(straight)) == []
    bent = straight | {"umbel/records/_a.py": "from umbel.records import A"}
    assert sorted(set(cycle(house(bent)))) == ["umbel.records", "umbel.records._a"]


def test_finds_a_local_import():
    text = "def f():\n    class A:\n        from umbel.records import Array\n"
    assert local(house({"umbel/message.py": text})) == ["umbel.message:3 imports umbel.records.Array inside f"]
    lazy = "def __getattr__(name):\n    from umbel._simulation import simulate\n"
    assert local(house({"umbel/__init__.py": lazy})) == []
    assert local(house({"umbel/engines/__init__.py": lazy})) != []
