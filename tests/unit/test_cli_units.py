"""Durations, sizes and nodes as they are typed."""

import pytest
import typer

from umbel.cli._units import number_or_names, seconds, size_in_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("10 min", 600),
        ("24h", 86_400),
        ("7d", 604_800),
        ("1.5h", 5400),
        ("500ms", 0.5),
    ],
)
def test_durations(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "h", "-1h", "0", "0.0s", "1y", "1h30m", "1e3", "nan", "inf", "\u0661h", "9" * 16])
def test_what_is_no_duration(text):
    with pytest.raises(typer.BadParameter, match="expected a duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1), ("800MB", 800_000_000), ("8GB", 8 * 10**9), ("8gb", 8 * 10**9), ("4GiB", 4 * 2**30), ("1.5 kB", 1500)],
)
def test_sizes(text, expected):
    assert size_in_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "8G B", "8XB", "1e9", "inf"])
def test_what_is_no_size(text):
    with pytest.raises(typer.BadParameter, match="expected a size"):
        size_in_bytes(text)


def test_nodes_are_a_number_or_names():
    assert number_or_names("3") == 3
    assert number_or_names("site-1, site-2,") == ["site-1", "site-2"]
    assert number_or_names("site-1") == ["site-1"]


@pytest.mark.parametrize("text", ["0", "-1", "1000000001", "+0"])
def test_a_number_of_nodes_has_limits(text):
    with pytest.raises(typer.BadParameter, match="than or equal to"):
        number_or_names(text)
