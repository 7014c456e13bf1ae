"""What an import costs: `import umbel` nothing, a record NumPy and at most forty modules more."""

import subprocess
import sys

import pytest

MODULES_BEYOND_NUMPY = 40
NEVER = {"socket", "sqlite3", "asyncio", "aiohttp", "torch", "logging", "pickle"}


def loaded(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a statement."""
    script = f"import sys; before = set(sys.modules)\n{statement}\nprint(*set(sys.modules) - before, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def numpy_alone():
    return loaded("import numpy")


def test_a_record_costs_numpy_and_forty_modules(numpy_alone):
    beyond = loaded("from umbel.records import Array") - numpy_alone
    assert len(beyond) <= MODULES_BEYOND_NUMPY, sorted(beyond)


def test_a_record_needs_no_network_database_or_framework(numpy_alone):
    assert sorted((loaded("from umbel.records import Array") - numpy_alone) & NEVER) == []


def test_import_umbel_is_lazy():
    assert loaded("import typing, umbel") - loaded("import typing") == {"umbel"}


def test_the_lazy_name_resolves():
    assert "umbel._simulation" in loaded("from umbel import simulate")


def test_sees_what_an_import_loads():
    assert "wave" in loaded("import wave")
    assert "wave" not in loaded("pass")
