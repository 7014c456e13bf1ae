"""``umbel run`` over several processes: the settings and options for it, and the same output."""

import importlib.util
import json
import os

import pytest


def digest_of(result):
    assert result.exit_code == 0, result.output
    return next(line for line in result.stdout.splitlines() if line.startswith("digest"))


@pytest.mark.parametrize(
    "options", [["--engine", "processes"], ["--workers", "2"], ["--engine", "processes", "--workers", "1"]]
)
def test_an_option_chooses_the_engine(umbel, site, options):
    folder = site()
    assert digest_of(umbel("run", folder, *options)) == digest_of(umbel("run", folder))


def test_a_setting_chooses_it_and_an_option_overrules_it(umbel, site):
    local = digest_of(umbel("run", site()))
    # An app that says in which process it runs, through a metric that does not change the model.
    told = [('"gap": float(np.abs(gap).mean())', '"pid": __import__("os").getpid()')]
    several = site([("seed = 3", "seed = 3\nworkers = 2")], told, name="several")
    pids = {}
    for options in ([], ["--engine", "local"]):
        result = umbel("run", several, "--json", *options)
        assert result.exit_code == 0, result.output
        events = [json.loads(line) for line in result.stdout.splitlines()]
        pids[len(options)] = {e["metrics"]["train.pid"] for e in events if e["event"] == "round-completed"}
        assert events[-1]["digest"] in local
    assert pids[2] == {float(os.getpid())}
    assert pids[0] & pids[2] == set()


def test_a_run_goes_on_with_another_engine(umbel, site, only_run):
    folder = site()
    straight = digest_of(umbel("run", folder, "--runs", "straight"))
    umbel("run", folder, "--rounds", "2")
    resumed = umbel("run", "--resume", only_run().name, "--rounds", "4", "--workers", "2")
    assert digest_of(resumed) == straight


def test_the_place_of_a_fault_is_told_as_without_workers(umbel, site):
    broken = site(
        code=[
            (
                "    gap = context",
                "    if context.node_name == 'site-2': raise ValueError('no data')\n    gap = context",
            )
        ]
    )
    local, several = (umbel("run", broken, "--rounds", "1", *more) for more in ([], ["--workers", "2"]))
    for result in (local, several):
        (line,) = [line for line in result.stdout.splitlines() if "site-2 lost" in line]
        assert "ValueError: no data - at my app/app.py line" in line
    assert "in train" in line


def test_what_nodes_print_is_not_among_the_json(umbel, site):
    chatty = site(code=[("    gap = context", "    print('hello')\n    gap = context")])
    result = umbel("run", chatty, "--json", "--workers", "2")
    assert [json.loads(line)["event"] for line in result.stdout.splitlines()][-1] == "run-saved"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "process"], 'there is no engine "process"; did you mean "processes"?'),
        (["--engine", "gpu"], "known: local, processes, ray"),
        (["--engine", "local", "--workers", "2"], "the engine local has no workers"),
    ],
)
def test_what_cannot_be_is_refused(umbel, site, options, said):
    result = umbel("run", site(), *options)
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="says what happens where Ray is not installed")
def test_an_engine_that_is_not_installed_says_how_to_get_it(umbel, site):
    result = umbel("run", site(), "--engine", "ray")
    assert result.exit_code == 69
    assert 'pip install "umbel[ray]"' in result.output
