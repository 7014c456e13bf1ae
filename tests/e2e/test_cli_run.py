"""``umbel run``: what it prints and keeps, interruptions, and going on after them."""

import json
import os
import shlex
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from umbel import checkpoint
from umbel.history import History
from umbel.records import load


def test_a_run_leaves_model_history_and_plot(umbel, site, only_run):
    result = umbel("run", site())
    assert result.exit_code == 0, result.output
    run = only_run()
    history = History.from_json((run / "history.json").read_text())
    assert len(history.rounds) == 4
    weights = load(run / "model.safetensors").parameters_records["model"].to_numpy()["w"]
    assert np.allclose(weights, 1.5, atol=0.2)
    words = "".join(ET.fromstring((run / "metrics.svg").read_text()).itertext())
    assert "gap" in words
    assert "distance" in words
    assert "num-examples" not in words


def test_what_a_run_prints(umbel, site, only_run):
    lines = umbel("run", site()).stdout.splitlines()
    run = only_run()
    history = History.from_json((run / "history.json").read_text())
    rounds = [line for line in lines if line.startswith("round ")]
    assert [line.split()[1] for line in rounds] == ["1/4", "2/4", "3/4", "4/4"]
    assert all("4/4 nodes" in line and "train.gap" in line and "central.distance" in line for line in rounds)
    assert f"digest   {history.digest}" in lines
    assert f"model    runs/{run.name}/model.safetensors" in lines
    assert f"next     umbel inspect runs/{run.name}" in lines
    assert "\x1b" not in "".join(lines)


def test_what_to_type_next_works(umbel, site, tmp_path):
    lines = umbel("run", site()).stdout.splitlines()
    (command,) = [line.split("next")[1].split() for line in lines if line.startswith("next")]
    assert umbel(*command[1:]).exit_code == 0


def test_a_run_as_json_is_one_object_a_line(umbel, site):
    result = umbel("run", site(), "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    names = [event["event"] for event in events]
    assert names[0] == "run-started"
    assert names.count("round-completed") == 4
    assert names[-1] == "run-saved"
    (completed,) = [event for event in events if event["event"] == "run-completed"]
    assert completed["digest"] == events[-1]["digest"]
    assert "evaluating" in result.stderr


def test_the_report_comes_last_with_escapes_of_the_terminal_shown(umbel, site):
    folder = site([("seed = 3", 'seed = 3\nreport = "app:report"')])
    assert umbel("run", folder).stdout.rstrip().splitlines()[-1] == r"report after 4 rounds\x1b[31m with rate 0.5"
    last = umbel("run", folder, "--json").stdout.splitlines()[-1]
    assert json.loads(last)["text"].startswith("report after 4 rounds")


def digest_of(result):
    assert result.exit_code == 0, result.output
    return next(line for line in result.stdout.splitlines() if line.startswith("digest")).split()[1]


def test_a_seed_decides_the_digest(umbel, site):
    folder = site()
    first = digest_of(umbel("run", folder))
    assert digest_of(umbel("run", folder)) == first
    assert digest_of(umbel("run", folder, "--seed", 4)) != first


def test_options_override_the_settings(umbel, site, only_run):
    result = umbel("run", site(), "--rounds", 2, "--nodes", 3, "--set", "rate=0.25")
    assert result.exit_code == 0
    assert "3 nodes, 2 rounds" in result.stdout
    start = json.loads((only_run() / "run.json").read_text())
    assert start["settings"]["config"] == {"rate": 0.25}


@pytest.mark.parametrize("nodes", ["20", '["a", "b"]'])
def test_nodes_may_be_a_number_or_names(umbel, site, nodes):
    changes = [('context.node_config["target"]', 'context.node_config["partition-id"]')]
    assert umbel("run", site([('"app:nodes"', nodes)], changes)).exit_code == 0


def test_strategies_take_numbers(umbel, site):
    folder = site([("rounds = 4", 'rounds = 4\nstrategy = { name = "fedavg", fraction = 0.5 }')])
    assert "2/2 nodes" in umbel("run", folder).stdout


def test_a_strategy_of_the_app(umbel, site):
    code = [("app = ClientApp()", "app = ClientApp()\nfrom umbel.strategy import fedavg\nhalf = fedavg(fraction=0.5)")]
    assert "2/2 nodes" in umbel("run", site([("rounds = 4", 'rounds = 4\nstrategy = "app:half"')], code)).stdout


def test_training_goes_on_from_a_model_file(umbel, site, tmp_path, only_run):
    first = umbel("run", site())
    shutil.copy(only_run() / "model.safetensors", tmp_path / "my app" / "start.safetensors")
    result = umbel("run", site([('"app:initial"', '"start.safetensors"')]))
    assert digest_of(result) != digest_of(first)


def test_two_apps_in_one_process_do_not_meet(umbel, site):
    first = digest_of(umbel("run", site()))
    other = site(code=[("np.zeros(3)", "np.zeros(5)"), ("0.01, 3)", "0.01, 5)")], name="other")
    assert digest_of(umbel("run", other)) != first
    assert digest_of(umbel("run", site())) == first


def test_a_node_that_fails_is_named_and_the_round_goes_on(umbel, site):
    code = [("    gap =", '    assert context.node_config["target"] != 2.0, "broken\\x1b[31m"\n    gap =')]
    result = umbel("run", site(code=code))
    assert result.exit_code == 0
    place = " - at my app/app.py line 20, in train"
    assert f"round 1: site-2 lost: AssertionError: broken\\x1b[31m{place}\n" in result.stdout
    assert "3/4 nodes" in result.stdout


def test_a_round_in_which_all_fail_ends_the_run_with_every_reason(umbel, site, tmp_path):
    result = umbel("run", site(code=[("    gap =", "    raise ValueError('no data')\n    gap =")]))
    assert result.exit_code == 70
    assert "site-0, site-1, site-2, site-3: ValueError: no data" in result.stderr
    assert not list((tmp_path / "runs").iterdir())


INTERRUPTED = ("    print(", "    if round == 3:\n        raise KeyboardInterrupt\n    print(")


def test_ctrl_c_says_how_to_go_on_and_going_on_gives_the_same_model(umbel, site, only_run):
    whole = digest_of(umbel("run", site(), "--runs", "elsewhere"))
    stopped = umbel("run", site(code=[INTERRUPTED]))
    assert stopped.exit_code == 130
    run = only_run()
    assert f"umbel run --resume {run.name}" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    site()
    resumed = umbel("run", "--resume", run.name)
    assert "2 of them done" in resumed.stdout
    assert digest_of(resumed) == whole
    assert only_run() == run
    assert len(History.from_json((run / "history.json").read_text()).rounds) == 4


def test_a_failure_in_the_apps_own_code_shows_its_line(umbel, site, tmp_path):
    result = umbel("run", site(code=[("    print(", "    1 / 0\n    print(")]))
    assert result.exit_code == 1
    assert "ZeroDivisionError: division by zero" in result.stderr
    assert "my app/app.py line 27, in evaluate" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in umbel("run", tmp_path / "my app", "--debug").stderr


def test_more_rounds_for_a_finished_run(umbel, site, only_run):
    whole = digest_of(umbel("run", site(), "--rounds", 6, "--runs", "elsewhere"))
    digest_of(umbel("run", site(), "--rounds", 2))
    assert digest_of(umbel("run", "my app", "--resume", only_run(), "--rounds", 6)) == whole


def test_a_finished_run_may_be_resumed_and_changes_nothing(umbel, site, only_run):
    first = digest_of(umbel("run", site()))
    assert digest_of(umbel("run", "--resume", only_run().name)) == first


def test_a_run_keeps_the_settings_it_was_begun_with(umbel, site, only_run):
    first = digest_of(umbel("run", site(), "--set", "rate=0.25", "--rounds", 3))
    site([("rate = 0.5", "rate = 0.9"), ("seed = 3", "seed = 8")])
    assert digest_of(umbel("run", "--resume", only_run().name)) == first


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--resume", "nope"], "there is no run"),
        (["--resume", "RUN", "--seed", "9"], "leave --seed out"),
        (["--resume", "RUN", "--nodes", "2"], "leave --nodes out"),
        (["--resume", "RUN", "--set", "rate=1"], "leave --set out"),
        (["other", "--resume", "RUN"], "was begun with"),
        ([], "umbel new NAME"),
    ],
)
def test_a_run_that_cannot_go_on(umbel, site, args, expected, only_run):
    umbel("run", site())
    site(name="other")
    name = only_run().name
    result = umbel("run", *[name if arg == "RUN" else arg for arg in args])
    assert result.exit_code == 2
    assert expected in result.stderr


def test_a_damaged_start_of_a_run(umbel, site, only_run):
    umbel("run", site())
    (only_run() / "run.json").write_text("{")
    assert umbel("run", "--resume", only_run().name).exit_code == 2


def test_an_app_that_has_moved_is_named_anew(umbel, site, tmp_path, only_run):
    first = digest_of(umbel("run", site()))
    (tmp_path / "my app").rename(tmp_path / "moved")
    alone = umbel("run", "--resume", only_run().name)
    assert alone.exit_code == 2
    assert f"umbel run ITS-FOLDER --resume {only_run().name}" in alone.stderr
    assert digest_of(umbel("run", "moved", "--resume", only_run().name)) == first


def test_two_processes_do_not_go_on_with_one_run(umbel, site, only_run):
    umbel("run", site())
    with checkpoint.hold(only_run()):
        result = umbel("run", "--resume", only_run().name)
    assert result.exit_code == 65
    assert "another process" in result.stderr
    assert umbel("run", "--resume", only_run().name).exit_code == 0


def test_a_run_does_not_go_back(umbel, site, only_run):
    digest_of(umbel("run", site()))
    result = umbel("run", "--resume", only_run().name, "--rounds", 2)
    assert result.exit_code == 2
    assert "4 rounds" in result.stderr


def test_a_report_that_fails_hides_nothing(umbel, site):
    folder = site(
        [("seed = 3", 'seed = 3\nreport = "app:evaluate"')],
        [("    print(", "    1 / (round is None or round < 9)\n    print(")],
    )
    result = umbel("run", folder)
    assert result.exit_code == 1
    assert "next     umbel inspect" in result.stdout
    assert "TypeError" in result.stderr


def test_debug_adds_the_traceback_of_a_node(umbel, site):
    code = [("    gap =", '    assert context.node_config["target"] != 2.0, "broken"\n    gap =')]
    result = umbel("run", site(code=code), "--rounds", 1, "--debug")
    assert result.exit_code == 0
    assert "\n      Traceback (most recent call last):" in result.stdout


def test_an_app_in_a_folder_whose_name_is_no_text_runs_and_goes_on(umbel, site, tmp_path, only_run):
    folder = site(name=os.fsdecode(b"caf\xe9"))
    first = digest_of(umbel("run", folder, "--rounds", 1))
    assert first.startswith("blake3:")
    assert umbel("run", "--resume", only_run().name, "--rounds", 2).exit_code == 0


def failing_in(number):
    """What makes every node of the app fail in a round."""
    asked = 'message.content.configs_records["config"]["round"]'
    return [("    gap =", f'    assert {asked} != {number}, "broken"\n    gap =')]


def test_a_run_that_failed_says_how_it_goes_on_in_words_that_can_be_pasted(umbel, site, tmp_path):
    folder = site(code=failing_in(3))
    result = umbel("run", folder, "--runs", "other runs")
    assert result.exit_code == 70
    (run,) = (tmp_path / "other runs").iterdir()
    command = f"umbel run --resume {run.name} --runs 'other runs'"
    assert f"go on with: {command}\n" in result.stderr
    looked = umbel("inspect", run.relative_to(tmp_path))
    assert looked.exit_code == 2
    assert "stopped after round 2 of 4" in looked.stderr
    assert f"go on with: {command}\n" in looked.stderr
    app = folder / "app.py"
    app.write_text(app.read_text().replace("!= 3", "!= 9"))
    resumed = umbel(*shlex.split(command)[1:])
    assert resumed.exit_code == 0, resumed.output
    inspect = next(line for line in resumed.stdout.splitlines() if line.startswith("next "))
    assert umbel(*shlex.split(inspect)[2:]).exit_code == 0


def test_a_run_that_failed_in_its_first_round_promises_nothing_that_is_not_there(umbel, site, tmp_path):
    result = umbel("run", site(code=failing_in(1)))
    assert result.exit_code == 70
    assert "next: mend what the reasons say, or ask more nodes\n" in result.stderr
    assert "--resume" not in result.output
    assert not list((tmp_path / "runs").iterdir())


def test_a_folder_that_only_looks_like_one_of_a_run_has_no_model(umbel, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    result = umbel("inspect", "run")
    assert result.exit_code == 2
    assert 'but "run" holds no model.safetensors' in result.stderr
