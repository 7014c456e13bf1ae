import math
import xml.etree.ElementTree as ET

import pytest

from umbel.cli._plot import Panel, nice_ticks, plot

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg):
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter(f"{SVG}text")]


def test_a_panel_for_every_metric_with_its_last_value():
    panels = [Panel("train", "loss", {1: 0.5, 2: 0.25}), Panel("central", "accuracy", {1: 0.8, 2: 0.9})]
    shown = texts(plot(panels, "hello"))
    assert "loss0.25" in shown
    assert "accuracy0.9" in shown
    assert "while training" in shown
    assert "on the server" in shown
    assert shown.count("round") == 2


def test_points_lie_inside_the_panel_and_rise_with_the_value():
    root = ET.fromstring(plot([Panel("train", "loss", {1: 3.0, 2: 1.0, 3: 2.0})], "hello"))
    (line,) = root.iter(f"{SVG}polyline")
    points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert points[0][1] < points[2][1] < points[1][1]
    assert all(0 <= x <= 420 and 0 <= y <= 250 for x, y in points)


def test_what_is_not_finite_leaves_a_gap():
    root = ET.fromstring(plot([Panel("train", "loss", {1: 1.0, 2: math.nan, 3: 2.0, 4: math.inf, 5: 1.0})], "t"))
    assert len(list(root.iter(f"{SVG}polyline"))) == 3


def test_nothing_finite_is_said():
    assert "no finite value in 2 rounds" in texts(plot([Panel("train", "loss", {1: math.nan, 2: math.inf})], "t"))


def test_a_run_without_metrics_is_said():
    assert "no metrics were reported" in texts(plot([], "t"))


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", 'a" onload="x', "a&b", "\x1b[31m", "\x00", "\ud800"])
def test_names_cannot_become_markup(name):
    root = ET.fromstring(plot([Panel("train", name, {1: 1.0})], name))
    assert not list(root.iter(f"{SVG}script"))
    assert not any(key.startswith("on") for element in root.iter() for key in element.attrib)


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (0.61, 0.97), (-3, 3), (5, 5), (0, 0), (-1e308, 1e308), (1e-300, 2e-300), (1e15, 1e15 + 1), (0.1, 0.1)],
)
def test_ticks_enclose_the_values_and_are_few(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low + 1e-9 * abs(low)
    assert ticks[-1] >= high - 1e-9 * abs(high)
    assert 2 <= len(ticks) <= 12
    assert ticks == sorted(set(ticks))


def test_one_round_and_a_thousand():
    ET.fromstring(plot([Panel("train", "loss", {7: 1.0})], "t"))
    root = ET.fromstring(plot([Panel("train", "loss", {i: float(i) for i in range(1000)})], "t"))
    assert len(list(root.iter(f"{SVG}circle"))) == 1
