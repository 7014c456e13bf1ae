"""``umbel run`` over several processes: the settings and options for it, and the same output."""

import importlib.util
import json
import os

import pytest

from umbel.engines import LocalGrid, RayCluster, _named


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
        (["--engine", "local", "--num-gpus", "1"], "the engine local has no cluster, only ray has one; leave one out"),
        (["--engine", "processes", "--cluster", "auto"], "at: --cluster"),
        (["--cluster", "somewhere"], 'expected the address of a Ray cluster, "auto", "host:6379"'),
        (["--num-cpus", "-1"], "at: --num-cpus"),
        (["--engine", "ray", "--num-gpus", "nan"], "at: --num-gpus"),
        (["--num-gpus", "1.5"], "a share of one GPU, or a whole number of them, got 1.5"),
        (["--server", "https://127.0.0.1:1", "--num-gpus", "1"], "the nodes of a server are no engine's"),
        (["--server", "https://127.0.0.1:1", "--workers", "2"], "at: --workers"),
        (["--server", "https://127.0.0.1:1", "--engine", "processes"], "at: --engine"),
    ],
)
def test_what_cannot_be_is_refused(umbel, site, options, said):
    result = umbel("run", site(), *options)
    assert result.exit_code == 2
    assert said in result.output


@pytest.fixture
def made(monkeypatch):
    """Put another grid in the place of Ray's, and return what each was made with."""
    told = []

    def make(app, population, *, cluster=None, workers=None, **shared):
        told.append((cluster, workers))
        return LocalGrid(app, population, **shared)

    monkeypatch.setitem(_named._ENGINES, "ray", make)
    return told


@pytest.mark.parametrize(
    ("setting", "options", "cluster"),
    [
        ("", ["--engine", "ray"], None),
        ("", ["--cluster", "host:6379"], RayCluster("host:6379")),
        ("", ["--engine", "ray", "--num-cpus", "0.5", "--num-gpus", "2"], RayCluster(None, 0.5, 2.0)),
        ('cluster = { address = "auto", num_cpus = 2 }', [], RayCluster("auto", 2)),
        ('cluster = { address = "auto", num_cpus = 2 }', ["--num-gpus", "0.5"], RayCluster("auto", 2, 0.5)),
        ('cluster = { address = "auto", num_cpus = 2 }', ["--cluster", "host:6379"], RayCluster("host:6379", 2)),
        ('engine = "processes"', ["--cluster", "host:6379"], RayCluster("host:6379")),
    ],
)
def test_what_ray_is_told(umbel, site, made, only_run, setting, options, cluster):
    folder = site([("seed = 3", f"seed = 3\n{setting}")])
    assert umbel("run", folder, "--workers", "3", *options).exit_code == 0
    assert made == [(cluster, 3)]
    assert umbel("run", "--resume", only_run().name, "--rounds", "5").exit_code == 0
    assert made == [(cluster, 3)] * 2


def test_another_engine_needs_no_cluster(umbel, site, made):
    folder = site([("seed = 3", 'seed = 3\ncluster = { address = "auto" }')])
    assert umbel("run", folder, "--engine", "local").exit_code == 0
    assert made == []


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="says what happens where Ray is not installed")
def test_an_engine_that_is_not_installed_says_how_to_get_it(umbel, site):
    result = umbel("run", site(), "--engine", "ray")
    assert result.exit_code == 69
    assert 'pip install "umbel[ray]"' in result.output
