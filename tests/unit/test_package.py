"""``import umbel`` offers one name, which waits for its first use."""

import subprocess
import sys

import pytest

import umbel
from umbel.aggregation import krum
from umbel.app import ClientApp
from umbel.errors import UsageError
from umbel.optimizers import adam
from umbel.strategy import fedavg

SCRIPT = """
import sys, umbel
assert not any(name.startswith("umbel.") for name in sys.modules), sys.modules.keys()
assert "simulate" in dir(umbel)
umbel.simulate
assert "umbel.rounds" in sys.modules
"""


def test_importing_umbel_imports_nothing_else():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)


def test_another_name_is_refused_with_a_hint():
    with pytest.raises(AttributeError, match="has no attribute 'fedavg'; import its modules"):
        _ = umbel.fedavg


@pytest.mark.parametrize(
    ("app", "plan", "message"),
    [
        (lambda message, context: None, fedavg(), "expected a ClientApp, got function"),
        (ClientApp(), fedavg, r"expected a Strategy, got function.*call it, fedavg\(\.\.\.\)"),
        (ClientApp(), "fedavg", "expected a Strategy, got str"),
        (
            ClientApp(),
            krum(byzantine=1),
            r"a Strategy, got Aggregator.*: use fedavg\(aggregator=\.\.\.\) of umbel.strategy",
        ),
        (
            ClientApp(),
            adam(),
            r"expected a Strategy, got Optimizer.*: use fedavg\(optimizer=\.\.\.\) of umbel.strategy",
        ),
    ],
)
def test_an_app_and_a_strategy_are_asked_for(app, plan, message):
    with pytest.raises(UsageError, match=message):
        umbel.simulate(app, plan, {}, nodes=1, rounds=1)
