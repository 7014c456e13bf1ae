from pathlib import Path

import pytest

from umbel.cli._settings import Settings, override, read_settings
from umbel.errors import UsageError

WHOLE = """\
[project]
name = "hello"

[tool.umbel]
client = "app:app"
initial = "app:initial"
nodes = 20
strategy = { name = "fedavg", fraction_train = 0.5 }
rounds = 3
seed = 7

[tool.umbel.config]
epochs = 2
rate = 0.5
shuffle = true
note = "x"
"""


@pytest.fixture
def read(tmp_path):
    def read_text(text):
        file = tmp_path / "pyproject.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_settings(file)

    return read_text


def refusal(read, text):
    with pytest.raises(UsageError) as caught:
        read(text)
    return str(caught.value)


def test_a_whole_table(read):
    settings = read(WHOLE)
    assert (settings.client, settings.initial, settings.nodes) == ("app:app", "app:initial", 20)
    assert (settings.rounds, settings.seed, settings.engine) == (3, 7, "local")
    assert settings.strategy == {"name": "fedavg", "fraction_train": 0.5}
    assert settings.config == {"epochs": 2, "rate": 0.5, "shuffle": True, "note": "x"}


def test_what_may_be_left_out(read):
    settings = read('[tool.umbel]\nclient = "a:b"\ninitial = "a:c"\nnodes = ["x", "y"]\n')
    assert (settings.rounds, settings.seed, settings.strategy, settings.config) == (10, 0, "fedavg", {})
    assert settings.nodes == ("x", "y")
    assert settings.evaluate is None


def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_name(read):
    message = refusal(read, WHOLE.replace("rounds = 3", "ronds = 3"))
    assert 'unknown setting "ronds"' in message
    assert 'did you mean "rounds"?' in message
    assert message.endswith("pyproject.toml line 9")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('select = "oort"', '"select" in [tool.umbel]: parts are put together in Python, strategy(select=...)'),
        ('optimizer = "adam"', "parts are put together in Python, strategy(optimizer=...)"),
        ('weigh = "uniform"', "parts are put together in Python"),
        ("fraction = 0.1", 'it belongs to a strategy, strategy = { name = "fedavg", fraction = ... }'),
        ("mu = 0.1", 'strategy = { name = "fedprox", mu = ... }'),
    ],
)
def test_what_is_of_a_strategy_is_told_where_it_belongs(read, line, expected):
    message = refusal(read, WHOLE.replace("rounds = 3", line))
    assert expected in message
    assert "did you mean" not in message
    assert message.endswith("pyproject.toml line 9")


MAIN = '[tool.umbel]\nclient = "a:b"\nnodes = 2\nmain = "a:server"\n'


def test_beside_a_main_no_model_is_needed(read):
    settings = read(MAIN)
    assert (settings.main, settings.initial) == ("a:server", "")
    assert read(MAIN + 'initial = "a:c"\n').initial == "a:c"
    assert read(WHOLE).main is None


@pytest.mark.parametrize("key", ["strategy", "rounds", "evaluate", "report"])
def test_beside_a_main_there_is_no_other_loop(read, key):
    value = {"rounds": "3", "strategy": '"fedavg"'}.get(key, '"a:d"')
    message = refusal(read, f"{MAIN}{key} = {value}\n")
    assert f"expected no {key} beside main" in message
    assert message.endswith("line 5")


@pytest.mark.parametrize("key", ["client", "initial", "nodes"])
def test_a_missing_key_is_refused_with_an_example(read, key):
    lines = [line for line in WHOLE.splitlines() if not line.startswith(key)]
    message = refusal(read, "\n".join(lines))
    assert f'expected "{key}"' in message
    assert "for example" in message
    assert message.endswith("line 4")


@pytest.mark.parametrize(
    ("old", "new", "expected", "line"),
    [
        ("rounds = 3", "rounds = 3.5", "whole number from 1", 9),
        ("rounds = 3", "rounds = true", "got True (boolean)", 9),
        ("rounds = 3", "rounds = 0", "got 0 (integer)", 9),
        ("rounds = 3", 'rounds = "3"', "got '3' (string)", 9),
        ("rounds = 3", f"rounds = {10**30}", "whole number from 1", 9),
        ("seed = 7", "seed = -1", "whole number from 0", 10),
        ("seed = 7", f"seed = {2**63}", "whole number from 0", 10),
        ("nodes = 20", "nodes = []", "different, non-empty names", 7),
        ("nodes = 20", 'nodes = ["a", "a"]', "different, non-empty names", 7),
        ("nodes = 20", "nodes = [1]", "different, non-empty names", 7),
        ("nodes = 20", "nodes = -4", "whole number from 1", 7),
        ("nodes = 20", "nodes = { a = 1 }", "a number, a list of names", 7),
        ('client = "app:app"', "client = 5", "non-empty string", 5),
        ('client = "app:app"', 'client = ""', "non-empty string", 5),
        ("seed = 7", 'engine = "gpu"', "known: local, processes, ray", 10),
        ("seed = 7", 'engine = "proceses"', 'no engine "proceses"; did you mean "processes"?', 10),
        ("seed = 7", "engine = 5", '"local" or "processes" or "ray", got 5', 10),
        ("seed = 7", "evaluate = false", "non-empty string", 10),
        ('{ name = "fedavg", fraction_train = 0.5 }', "{ fraction_train = 0.5 }", "a table such as", 8),
        ('{ name = "fedavg", fraction_train = 0.5 }', "7", "a table such as", 8),
        ("epochs = 2", "epochs = [1, 2]", "boolean, number or string", 13),
        ("epochs = 2", "epochs = 1979-05-27", "boolean, number or string", 13),
        ("epochs = 2", f"epochs = {2**64}", "at most 64 bits", 13),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected_and_where(read, old, new, expected, line):
    message = refusal(read, WHOLE.replace(old, new))
    assert expected in message
    assert message.endswith(f"pyproject.toml line {line}")


GPUS = 'cluster = { address = "auto", num_cpus = 2, num_gpus = 0.25 }'


@pytest.mark.parametrize(
    "text", [WHOLE.replace("seed = 7", GPUS), WHOLE.replace("seed = 7", f'engine = "ray"\n{GPUS}')]
)
def test_a_cluster_is_for_the_engine_that_has_one(read, text):
    settings = read(text)
    assert settings.engine == "ray"
    assert settings.cluster == {"address": "auto", "num_cpus": 2, "num_gpus": 0.25}
    assert read(WHOLE).cluster == {}


@pytest.mark.parametrize(
    ("table", "expected", "line"),
    [
        ("cluster = 2", "expected cluster to be a table such as { address", 10),
        (
            "cluster = { num_cpu = 2 }",
            'unknown setting "num_cpu" in cluster of [tool.umbel]; did you mean "num_cpus"?',
            10,
        ),
        ("cluster = { gpus = 2, workers = 2 }", "unknown setting", 10),
        ('cluster = { address = "here" }', '"host:6379" or "ray://host:10001", or none to start one', 10),
        ("cluster = { num_cpus = -1 }", "a node takes, 0, or 0.0001 or more, got -1 for num_cpus of cluster", 10),
        ("cluster = { num_gpus = nan }", "got nan for num_gpus", 10),
        ("cluster = { num_gpus = true }", "got True for num_gpus", 10),
        (
            'engine = "processes"\ncluster = { num_cpus = 2 }',
            "the engine processes has no cluster, only ray has one",
            11,
        ),
        ("\n[tool.umbel.cluster]\nnum_cpus = 1\nnum_gpus = 1.5\n", "a share of one GPU, or a whole number of them", 13),
        ("\n[tool.umbel.cluster]\naddres = 'auto'\n", 'did you mean "address"?', 12),
    ],
)
def test_a_cluster_that_cannot_be(read, table, expected, line):
    message = refusal(read, WHOLE.replace("seed = 7", table))
    assert expected in message
    assert message.endswith(f"pyproject.toml line {line}")


def test_an_option_of_a_cluster_leaves_the_others(read):
    settings = read(WHOLE.replace("seed = 7", GPUS))
    changed = override(settings, [], cluster={"num_gpus": 1.0})
    assert changed.cluster == {"address": "auto", "num_cpus": 2, "num_gpus": 1.0}
    assert override(settings, [], cluster=None).cluster == settings.cluster
    with pytest.raises(
        UsageError, match=r"write it in \[tool.umbel\] of the app's pyproject.toml: cluster = \{ address"
    ):
        override(settings, ["cluster=auto"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[tool.umbel]\nrounds = 1\nrounds = 2\n", "line 3"),
        ("[tool.umbel\n", "line 1"),
        ("[tool.umbel]\nseed = " + "9" * 5000 + "\n", "4300"),
        ("x = " + "[" * 100_000, "nested"),
        (b"\xff\xfe[tool.umbel]", "utf-8"),
        ("", "[tool.umbel]"),
        ("tool = 5\n", "[tool.umbel]"),
        ("[tool]\numbel = 5\n", "[tool.umbel]"),
        ("[tool.umbel]\nconfig = 5\n", "expected"),
    ],
)
def test_a_file_that_cannot_be(read, text, expected):
    assert expected in refusal(read, text)


def test_a_missing_file_says_what_to_type(tmp_path):
    with pytest.raises(UsageError, match="umbel new NAME"):
        read_settings(tmp_path / "pyproject.toml")


def test_names_are_escaped_in_messages(read):
    message = refusal(read, WHOLE.replace("rounds", '"ro\\u001b[31m"'))
    assert "\x1b" not in message


@pytest.fixture
def settings():
    config = {"epochs": 2, "rate": 0.5, "shuffle": True, "note": "x"}
    return Settings(file=Path("pyproject.toml"), client="a:b", initial="a:c", nodes=3, config=config)


def test_overrides_have_the_type_of_what_they_replace(settings):
    changed = override(settings, ["epochs=5", "rate=1", "shuffle=FALSE", "note=a=b"], rounds=4, seed=None)
    assert changed.config == {"epochs": 5, "rate": 1.0, "shuffle": False, "note": "a=b"}
    assert isinstance(changed.config["rate"], float)
    assert (changed.rounds, changed.seed) == (4, 0)
    assert settings.config["epochs"] == 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("epoch=5", 'did you mean "epochs"?'),
        ("zzz=5", "known: epochs, rate"),
        ("epochs", "--set key=value"),
        ("epochs=1.5", "expected integer, like the 2"),
        (f"epochs={2**63}", "integer"),
        ("epochs=" + "9" * 5000, "integer"),
        ("rate=fast", "expected float, like the 0.5"),
        ("shuffle=1", "true or false"),
    ],
)
def test_an_override_that_cannot_be(settings, change, expected):
    with pytest.raises(UsageError) as caught:
        override(settings, [change])
    assert expected in str(caught.value)
    assert "--set" in str(caught.value)
