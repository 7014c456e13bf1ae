import pytest
from rich.cells import cell_len

from umbel.cli._table import Column, omitted, shorten, table
from umbel.cli._text import counted, duration, figure, nearest, printable, safe, size


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("layer.0.weight", "layer.0.weight"),
        ("naïve Größe 重み", "naïve Größe 重み"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\tc\x00", r"a\x0ab\x09c\x00"),
        ("evil\u202egnp", r"evil\u202egnp"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("line\u2028end", r"line\u2028end"),
        (r"back\slash", r"back\\slash"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("lone\ud800", r"lone\ud800"),
    ],
)
def test_names_reach_the_terminal_escaped(name, shown):
    assert safe(name) == shown


def test_an_escape_and_the_text_of_an_escape_look_different():
    assert safe("\x1b") != safe(r"\x1b")


def test_printable_keeps_lines_and_escapes_the_rest():
    assert printable("one\n\ttwo\x1b[2J") == "one\n\ttwo\\x1b[2J"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (46_800_000, "46.8 MB"),
        (10**18, "1000.0 PB"),
        (10**19, "10000.0 PB"),
    ],
)
def test_sizes(count, shown):
    assert size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0.00 s"), (0.423, "0.42 s"), (42.4, "42 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations(seconds, shown):
    assert duration(seconds) == shown


def test_counts_know_one_from_many():
    assert counted(1, "array") == "1 array"
    assert counted(12_000, "array") == "12,000 arrays"


def test_figures_of_every_kind():
    assert figure(0.123456789) == "0.123457"
    assert figure(7) == "7"
    assert figure(True) == "True"
    assert figure("a\x1bb") == r"a\x1bb"
    assert figure(b"abc") == "3 B of bytes"
    assert figure([1, 2]) == "[1, 2]"
    assert figure(list(range(100))) == "[0, 1, 2, 3, 4, 5, 6, 7, ... 100 in all]"


def test_the_nearest_name_or_the_known_ones():
    assert nearest("ronds", ["rounds", "seed"]) == '; did you mean "rounds"?'
    assert nearest("zzz", ["rounds", "seed"]) == " (known: rounds, seed)"
    assert nearest("zzz", []) == ""


COLUMNS = [Column("array", elastic=True), Column("size", right=True), Column("last")]


def test_columns_are_aligned_and_never_cut_in_a_pipe():
    rows = [["a" * 200, "1", "x"], ["b", "1000", "y"]]
    lines = [text.plain for text in table(COLUMNS, rows, None)]
    assert lines[1] == "a" * 200 + "     1  x"
    assert lines[2] == "b" + " " * 199 + "  1000  y"


def test_the_elastic_column_gives_way_on_a_terminal():
    rows = [["model.layers.0.attention.query.weight", "1", "x"], ["重" * 40, "1000", "y"]]
    lines = [text.plain for text in table(COLUMNS, rows, 40)]
    assert all(cell_len(line) <= 40 for line in lines)
    assert lines[1].startswith("model.layers.0")
    assert "query.weight  " in lines[1]


def test_the_lightest_columns_are_left_out_of_a_narrow_terminal():
    columns = [Column("round"), *(Column(f"phase {i}", weight=weight) for i, weight in enumerate((2.0, 0.5, 1.0)))]
    rows = [["1", "2.00 s", "0.50 s", "1.00 s"]]
    assert [omitted(columns, rows, width) for width in (None, 32, 31, 20, 1)] == [[], [], [2], [2, 3], [1, 2, 3]]


def test_shortening_keeps_both_ends():
    assert shorten("abcdefghij", 5) == "ab…ij"
    assert shorten("abc", 3) == "abc"
    assert cell_len(shorten("重" * 9, 6)) <= 6
