"""Apps that cannot be found or loaded: each ends in a message with the place, and never in a traceback."""

import pytest

BROKEN = [
    ([('"app:app"', '"app:ap"')], [], 64, 'did you mean "app"?'),
    ([('"app:app"', '"ap:app"')], [], 64, 'did you mean "app"?'),
    ([('"app:app"', '"app"')], [], 2, '"module:name"'),
    ([('"app:app"', '"os.path;rm:app"')], [], 2, '"module:name"'),
    ([('"app:app"', '"app:initial"')], [], 64, "an umbel.app.ClientApp"),
    ([('"app:initial"', '"app:np"')], [], 64, "ParametersRecord"),
    ([('"app:initial"', '"gone.safetensors"')], [], 2, "there is no file"),
    ([('"app:nodes"', '"app:np"')], [], 64, "mapping of node names"),
    ([("rounds = 4", 'strategy = "fedvag"')], [], 2, 'did you mean "fedavg"?'),
    ([("rounds = 4", 'strategy = { name = "fedavg", fractoin = 0.5 }')], [], 2, 'did you mean "fraction"?'),
    ([("rounds = 4", 'strategy = { name = "fedavg", fraction = 7 }')], [], 2, "above 0 and at most 1"),
    ([("rounds = 4", 'strategy = { name = "fedavg", fraction = "x" }')], [], 2, "fedavg"),
    ([], [("import numpy as np", "import numpyy as np")], 64, "app.py line 1"),
    ([], [("import numpy as np", "import numpy as np\n1 / 0")], 64, "app.py line 2"),
    ([], [("import numpy as np", "import numpy as np\ndef f(:")], 64, "app.py line 2"),
    ([], [("import numpy as np", "raise SystemExit(3)")], 64, "app.py line 1"),
    ([("rate = 0.5", "rat = 0.5")], [], 70, "rate"),
    ([], [("def initial(config)", "def initial()")], 64, "takes (config), got one that takes ()"),
    ([], [("def nodes(config)", "def nodes(config, more)")], 64, "nodes to be a function that takes (config)"),
    ([], [("def evaluate(round, model)", "def evaluate(model)")], 64, "(round, model), got one that takes (model)"),
    ([('"app:evaluate"', '"app:train"')], [], 64, "(round, model) -> metrics, which the server calls, got the node's"),
    ([('"app:evaluate"', '"evaluate"')], [], 2, 'for example "app:measure"'),
    (
        [("rounds = 4", 'strategy = "app:initial"')],
        [("np.zeros(3)", "np.zeros((3, 2))")],
        64,
        "got dict {'w': array([[0., 0.], [0., 0.], [0., 0.]])}",
    ),
    (
        [("rounds = 4", 'rounds = 4\nreport = "app:nodes"')],
        [],
        64,
        "takes (history, config), got one that takes (config)",
    ),
]


@pytest.mark.parametrize(("settings", "code", "status", "expected"), BROKEN)
def test_an_app_that_cannot_be_loaded(umbel, site, settings, code, status, expected):
    result = umbel("run", site(settings, code))
    assert result.exit_code == status, result.output
    assert expected in result.stderr
    assert "Traceback" not in result.output
    assert "src/umbel" not in result.stderr


def test_more_nodes_than_there_are(umbel, site):
    result = umbel("run", site(), "--nodes", 5)
    assert result.exit_code == 2
    assert "at most the 4 nodes" in result.stderr


def test_the_module_of_an_app_may_be_named(umbel, site, tmp_path, monkeypatch):
    folder = site(name="package")
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert umbel("run", "package.app", "--rounds", 1).exit_code == 0


@pytest.mark.parametrize("target", ["nothing", "my ap", "my app/app.py", "a/b/c", "../../etc", "\x1b[31m"])
def test_an_app_that_is_not_there(umbel, site, target):
    site()
    result = umbel("run", target)
    assert result.exit_code == 2
    assert "\x1b" not in result.output
