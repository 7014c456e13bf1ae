"""The site policy: what it lets through, by which rule it refuses, and what cannot be said in it."""

import pytest

from umbel.errors import UsageError
from umbel.node import Policy

WHOLE = """\
runs = ["heart-*", "pilot"]
types = ["train"]
apps = ["hospital.*:app"]
largest_body = "2 KiB"
tracebacks = true
memory = "1.5 GB"
handler = "2 h"
"""


def policy(tmp_path, text):
    file = tmp_path / "policy.toml"
    file.write_text(text)
    return Policy.read(file)


def test_reads_every_rule(tmp_path):
    found = policy(tmp_path, WHOLE)
    assert found == Policy(
        runs=("heart-*", "pilot"),
        types=("train",),
        apps=("hospital.*:app",),
        largest_body=2048,
        tracebacks=True,
        memory=1_500_000_000,
        handler=7200.0,
    )


def test_an_empty_file_is_the_default(tmp_path):
    assert policy(tmp_path, "") == Policy()


def test_the_default_lets_everything_through_but_tracebacks():
    assert Policy().refusal("any run", "any type", 2**40) is None
    assert Policy().reply_refusal(2**40) is None
    assert not Policy().tracebacks
    Policy().require_app("any.module:app")


@pytest.mark.parametrize(
    ("run", "kind", "size", "rule"),
    [
        ("heart-1", "train", 2048, None),
        ("pilot", "train", 0, None),
        ("Pilot", "train", 0, "runs"),
        ("lungs", "train", 0, "runs"),
        ("pilot", "evaluate", 0, "types"),
        ("pilot", "train", 2049, "largest_body"),
    ],
)
def test_a_refusal_names_its_rule(tmp_path, run, kind, size, rule):
    reason = policy(tmp_path, WHOLE).refusal(run, kind, size)
    assert reason is None if rule is None else f'by the rule "{rule}"' in reason


def test_a_large_reply_may_not_leave(tmp_path):
    found = policy(tmp_path, WHOLE)
    assert found.reply_refusal(2048) is None
    assert "2,049 bytes, and 2,048 are allowed" in found.reply_refusal(2049)


def test_an_empty_list_allows_nothing(tmp_path):
    assert "(none)" in policy(tmp_path, "runs = []").refusal("pilot", "train", 0)


def test_an_app_that_is_not_allowed_is_not_started(tmp_path):
    found = policy(tmp_path, WHOLE)
    found.require_app("hospital.heart:app")
    with pytest.raises(UsageError, match="apps"):
        found.require_app("elsewhere:app")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('runs = ["a"]\ntraceback = true\n', 2, "did you mean 'tracebacks'"),
        ("everything = 1\n", 1, "there are runs, types"),
        ("\nruns = 'pilot'\n", 2, "a list"),
        ("runs = [1]\n", 1, "a list"),
        ("types = [\n'train', '']\n", 1, "a list"),
        ("tracebacks = 1\n", 1, "true or false"),
        ("memory = '8 parsecs'\n", 1, "8 GiB"),
        ("memory = -5\n", 1, "8 GiB"),
        ("memory = true\n", 1, "8 GiB"),
        ("largest_body = '99999999999 GB'\n", 1, "8 GiB"),
        ("handler = '0 s'\n", 1, "2 h"),
        ("handler = nan\n", 1, "2 h"),
        ("handler = []\n", 1, "2 h"),
    ],
)
def test_what_no_policy_can_say_is_refused_with_its_line(tmp_path, text, line, said):
    with pytest.raises(UsageError) as caught:
        policy(tmp_path, text)
    assert said in caught.value.message
    assert caught.value.at == f"{tmp_path / 'policy.toml'} line {line}"


@pytest.mark.parametrize("text", ["runs = [", "runs = []\nruns = []\n", "a = \x00"])
def test_what_is_no_toml_is_refused(tmp_path, text):
    with pytest.raises(UsageError, match="in TOML"):
        policy(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere\.toml"):
        Policy.read(tmp_path / "nowhere.toml")


def test_bytes_and_seconds_may_be_plain_numbers(tmp_path):
    found = policy(tmp_path, "memory = 1024\nhandler = 1.5\n")
    assert (found.memory, found.handler) == (1024, 1.5)
