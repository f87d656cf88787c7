import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from frames import check_letters, elements, move, press, texts
from gap_utils.data import CLASS_NAMES, Split, load_fashion_mnist
from gap_utils.models import load_trained
from gap_utils.robustness import accuracy_against_shift, shift
from gap_utils.study import mean_curves
from gap_utils.svg import picture_of
from gap_utils.widgets import ShiftLab
from gap_utils.widgets.shift_lab import (
    ShiftReading,
    ShiftState,
    describe_reading,
    draw_shift,
    show_shifted,
)

TEST = load_fashion_mnist().test
CURVES = {"left": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]}


class SaysWhere(nn.Module):
    """Class 0 if the white is in the left half of 4×4, class 1 otherwise."""

    def forward(self, images):
        left = images[..., :2].sum((1, 2, 3)) > 0
        return torch.stack([left * 2.0, ~left * 2.0], 1)


@pytest.fixture
def split():
    images = torch.zeros(2, 1, 4, 4)
    images[:, :, 1, 1] = 1
    return Split(images, torch.tensor([0, 1]), torch.arange(2))


def reading_of(split, *state, curves=CURVES):
    return show_shifted(ShiftState(*state), {"left": SaysWhere()}, split, ("west", "east"), curves)


def test_the_networks_see_the_moved_picture(split):
    sure = np.exp(2) / (np.exp(2) + 1)
    for dx, expected in [(0, [sure, 1 - sure]), (1, [1 - sure, sure]), (-1, [sure, 1 - sure])]:
        reading = reading_of(split, 0, dx)
        assert reading.probabilities["left"] == pytest.approx(expected)
        assert reading.image[1, 1] == 1  # the picture itself stays
    assert describe_reading(reading_of(split, 0, 1)) == (
        "left says east (88%), wrong. Accuracy on many pictures moved by 1 px: left 80%."
    )
    assert describe_reading(reading_of(split, 1, 1, -6)) == (
        "left says east (88%), right. Accuracy on many pictures moved by 6 px: left 30%."
    )
    assert describe_reading(reading_of(split, 1, 1, curves={})) == "left says east (88%), right."


def test_the_shipped_networks():
    reading = show_shifted(
        ShiftState(3, 2, -1), {"gap": load_trained("gap")}, TEST, CLASS_NAMES, mean_curves()
    )
    moved = shift(TEST.images[3:4], 2, -1)
    with torch.no_grad():
        expected = load_trained("gap")(moved).softmax(1)[0].numpy()
    assert reading.probabilities["gap"] == pytest.approx(expected)
    assert reading.label == TEST.labels[3]


def test_the_picture_moves_on_a_black_canvas(split):
    cell = 180 / 16  # 4 pixels, and 6 on each side
    for dx, dy in [(0, 0), (6, -6), (-3, 2)]:
        panel = draw_shift(reading_of(split, 0, dx, dy)).panels[0]
        black, picture = panel.pixels
        assert black.box == (0, 28, 180, 180)
        assert black.levels.tolist() == [[0]]
        assert picture.box == pytest.approx(
            (cell * (6 + dx), 28 + cell * (6 + dy), cell * 4, cell * 4)
        )
        expected = np.zeros((4, 4))
        expected[1, 1] = 255  # white, the highest
        assert (picture.levels == expected).all()
        assert {black.palette, picture.palette} == {"grey"}
        edge, canvas = elements(panel, "rect")
        assert [edge.get(name) for name in ("x", "y", "width")] == ["67.5", "95.5", "45"]
        assert [canvas.get(name) for name in ("x", "y", "width")] == ["0", "28", "180"]
        assert json.loads(canvas.get("data-drag")) == {"dx": ["x", cell], "dy": ["y", cell]}


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((0, 0), "in the middle"),
        ((6, 0), "moved 6 right"),
        ((0, -2), "moved 2 up"),
        ((-1, 3), "moved 1 left, 3 down"),
    ],
)
def test_where_the_picture_is(split, place, words):
    assert texts(draw_shift(reading_of(split, 0, *place)).panels[0]) == ["west", words]


def test_the_table(split):
    panel = draw_shift(reading_of(split, 0, 1)).panels[2]
    assert texts(panel) == ["west", "east", "true class", "left", "✗ wrong", "12%", "88%"]
    sure = np.exp(2) / (np.exp(2) + 1)
    bars = [box for box in elements(panel, "rect") if box.get("class") == "gap-blue"]
    assert [float(bar.get("width")) for bar in bars] == pytest.approx(
        [195 * (1 - sure), 195 * sure], abs=0.01
    )
    for label in (0, 1):  # triangle and frame are at the picture's own class
        panel = draw_shift(reading_of(split, label)).panels[2]
        height = float(elements(panel, "text")[label].get("y"))
        assert elements(panel, "path")[1].get("d") == f"M2 {height - 5:.2f}l6 5l-6 5z"
        (frame,) = (box for box in elements(panel, "rect") if box.get("class") == "gap-line-accent")
        top, row = (float(frame.get(name)) for name in ("y", "height"))
        assert (top + row / 2, row) == (height, 32)


@pytest.mark.parametrize(("label", "verdict"), [(0, "right"), (1, "wrong")])
def test_right_and_wrong_are_told_by_word_sign_and_colour(split, label, verdict):
    panel = draw_shift(reading_of(split, label)).panels[2]
    (line,) = (line for line in elements(panel, "text") if verdict in line.text)
    assert line.text == {"right": "✓ right", "wrong": "✗ wrong"}[verdict]
    assert int(line.get("font-size")) >= 13
    coloured = [e.tag for e in elements(panel, "*") if e.get("class") == f"gap-ink-{verdict}"]
    assert coloured == ["rect", "text"]


def test_the_curves(split):
    panel = draw_shift(reading_of(split, 0, 1, -2)).panels[1]
    assert texts(panel)[0] == "accuracy"
    assert texts(panel)[-2:] == ["left", "70%"]
    points = np.array([(40 + 136 * n / 6, 92 + 96 * (0.1 + 0.1 * n)) for n in range(7)])
    marks = [(float(mark.get("cx")), float(mark.get("cy"))) for mark in elements(panel, "circle")]
    assert np.array(marks[:-1]) == pytest.approx(points, abs=0.01)
    lines = [line.get("points").replace(",", " ").split() for line in elements(panel, "polyline")]
    begins, middles, ends = np.array(lines, float).reshape(7, 3, 2).swapaxes(0, 1)
    assert middles == pytest.approx(points, abs=0.01)
    halfways = (points[1:] + points[:-1]) / 2  # where one line ends and the next begins
    assert begins == pytest.approx(np.array([points[0], *halfways]), abs=0.01)
    assert ends == pytest.approx(np.array([*halfways, points[-1]]), abs=0.01)
    here = next(path for path in elements(panel, "path") if path.get("stroke-dasharray"))
    assert here.get("d") == f"M{40 + 136 * 2 / 6:.2f} 92v96"


def test_a_click_on_the_curves_moves_the_picture_so_far_to_the_right(split):
    lab = ShiftLab({"left": SaysWhere()}, split, curves=CURVES, dx=-2, dy=5)
    (panel,) = (panel for panel in lab.frame.panels if elements(panel, "polyline"))
    where = {"rect": [], "g": []}  # beside the marks, and on them
    for kind, states in where.items():
        for found in elements(panel, kind):
            if found.get("data-set"):
                fields = lab.to_fields(lab.value) | json.loads(found.get("data-set"))
                states.append(lab.from_fields(fields))
    assert where["rect"] == where["g"] == [ShiftState(0, n, 0) for n in range(7)]
    columns = [box for box in elements(panel, "rect") if box.get("data-set")]
    middles = [float(box.get("x")) + float(box.get("width")) / 2 for box in columns]
    assert middles == pytest.approx([40 + 136 * n / 6 for n in range(7)], abs=0.02)


def test_all_that_is_of_a_network_lights_up_together(split):
    models = {name: SaysWhere() for name in ("left", "right", "third")}
    curves = {name: [0.5] * 7 for name in ("left", "third")}
    lab = ShiftLab(models, split, curves=curves)
    links = [
        (panel, found.get("data-link"))
        for panel in lab.frame.panels
        for found in elements(panel, "*")
        if found.get("data-link")
    ]
    places = {panel: [link for of, link in links if of is panel] for panel, _ in links}
    curve, table = places.values()
    assert table == ["network0", "network1", "network2"]
    assert sorted(curve) == sorted(table + 7 * ["network0", "network2"])


def test_the_words_and_the_size(split):
    frame = draw_shift(reading_of(split, 0, 1, -2))
    assert frame.text == (
        "Picture 0, west, moved 1 px right and -2 px down. left says east (88%), wrong. "
        "Accuracy on many pictures moved by 2 px: left 70%."
    )
    sizes = [(panel.width, panel.height) for panel in frame.panels]
    assert sizes == [(180, 236), (188, 236), (292, 236)]
    assert len(draw_shift(reading_of(split, 0, 1, -2, curves={})).panels) == 2


NAMES = ["x" * 300, "<b>&'\"", "军服" * 20, "الشبكة العصبية", "🎉", "W", "a b"]


@st.composite
def readings(draw):
    classes = draw(st.integers(2, 10))
    networks = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    part = st.floats(0, 1)
    found = st.lists(part, min_size=classes, max_size=classes).map(np.array)
    nothing = st.just(np.full(classes, np.nan))
    far = st.integers(-6, 6)
    return ShiftReading(
        ShiftState(draw(st.integers(0, 10**6)), draw(far), draw(far)),
        np.zeros((draw(st.integers(1, 9)), draw(st.integers(1, 348)))),
        draw(st.integers(0, classes - 1)),
        {name: draw(found | nothing) for name in networks},
        [draw(st.sampled_from(NAMES)) for _ in range(classes)],
        {
            name: draw(st.lists(part, min_size=7, max_size=7))
            for name in networks[: draw(st.integers(0, 3))]
        },
    )


@settings(max_examples=60)
@given(readings())
def test_all_that_is_drawn_is_well_formed_and_fits(reading):
    frame, again = draw_shift(reading), draw_shift(reading)
    assert [panel.svg for panel in frame.panels] == [panel.svg for panel in again.panels]
    assert len(frame.words[0]) <= len(frame.room[0])
    for panel in frame.panels:
        check_letters(panel)
        for pixels in panel.pixels:
            left, top, width, height = pixels.box
            assert left >= -1e-6 and top >= 28 - 1e-6
            assert left + width <= panel.width + 1e-6
            assert top + height <= panel.height + 1e-6


def test_the_controls():
    lab = ShiftLab(dx=3)
    assert repr(lab) == "ShiftLab(picture 0 moved by 3, 0: gap, gmp, flatten)"
    found = {control["label"]: control for control in lab.opening()["controls"]}
    buttons = ["Back to the middle", "Next wrong one", "Start again"]
    assert [*found] == ["Picture", "Right dx", "Down dy", *buttons]
    assert (found["Picture"]["high"], found["Down dy"]["low"]) == (len(TEST) - 1, -6)
    move(lab, picture=5, dy=-2)
    assert lab.value == ShiftState(5, 3, -2)
    assert "moved by 3 px" in lab.describe() and lab.text.endswith(lab.describe())
    assert lab.limits(lab.value)["back"] == {"idle": False}
    press(lab, "back")
    assert lab.value == ShiftState(5)
    assert lab.limits(lab.value)["back"] == {"idle": True}
    press(lab, "reset")
    assert lab.value == ShiftState(dx=3)


def test_a_single_picture_needs_no_slider(split):
    alone = Split(*(part[:1] for part in vars(split).values()))
    controls = ShiftLab({"left": SaysWhere()}, alone).opening()["controls"]
    assert controls[0]["label"] == "Right dx"


def test_curves_and_names_are_those_of_the_pictures(split):
    lab = ShiftLab({"left": SaysWhere()}, split, ("west", "east"), CURVES, dx=1)
    assert lab.describe() == (
        "left says east (88%), wrong. Accuracy on many pictures moved by 1 px: left 80%."
    )
    assert "Ankle boot" in ShiftLab().text
    for other in (ShiftLab(split=TEST), ShiftLab({"left": SaysWhere()}, split)):
        assert "Accuracy" not in other.text
        assert re.search("says [0-9]", other.text)  # numbers, not the names of clothes
    assert "Accuracy" not in ShiftLab(curves={}).text


def test_a_network_may_have_a_name_from_right_to_left(split):
    lab = ShiftLab({"שלום": SaysWhere()}, split, curves={"שלום": [0.5] * 7})
    name = "\N{FIRST STRONG ISOLATE}שלום\N{POP DIRECTIONAL ISOLATE}"  # or all else is turned round
    assert lab.describe().startswith(f"{name} says ")
    assert lab.describe().endswith(f"moved by 0 px: {name} 50%.")


def test_a_curve_has_the_mark_of_its_network(split):
    """Whatever the order of the curves, and if only some networks have one."""
    models = {"left": SaysWhere(), "right": SaysWhere()}
    flat, falling = [0.5] * 7, [0.9 - 0.1 * n for n in range(7)]

    def drawn(**curves):
        panels = ShiftLab(models, split, ("west", "east"), curves).frame.panels
        return next(panel for panel in panels if elements(panel, "polyline"))

    assert drawn(left=flat, right=falling).svg == drawn(right=falling, left=flat).svg
    for name, line, circles in [("left", "gap-line-accent", 8), ("right", "gap-line-blue", 1)]:
        panel = drawn(**{name: flat})
        assert {piece.get("class") for piece in elements(panel, "polyline")} == {line}
        assert len(elements(panel, "circle")) == circles  # one stands before the name
        assert "no curve" in texts(panel)


def test_a_table_of_training_makes_a_curve(split):
    table = accuracy_against_shift(SaysWhere(), split)
    lab = ShiftLab({"left": SaysWhere()}, split, curves={"left": table.accuracy}, dx=1)
    assert f"left {table.accuracy[1]:.0%}" in lab.text


def test_colour_pictures_that_are_not_square_and_networks_of_fewer_classes():
    pictures = torch.rand(3, 3, 20, 60)
    split = Split(pictures, torch.tensor([0, 1, 1]), torch.arange(3))
    models = {
        f"network {classes}": nn.Sequential(
            nn.Conv2d(3, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        for classes in (2, 3)
    }
    names = ["the first class of all", "b", "c", "never given"]
    frame = ShiftLab(models, split, names).frame
    picture, table = (panel for panel in frame.panels if panel.height == 236)  # not the row
    grey = pictures[0].mean(0)
    assert abs(picture.pixels[1].levels - 255 * grey.numpy()).max() <= 0.51
    assert picture.pixels[0].box == pytest.approx((0, 28 + 90 - 16 * 180 / 72, 180, 180 * 32 / 72))
    assert texts(table)[:3] == ["the first…", "b", "c"]
    assert [share[-1] for share in texts(table)].count("%") == 2 + 3


def test_the_stored_picture_is_as_wide_as_the_panels():
    assert picture_of(ShiftLab().frame).width == 180 + 188 + 292 + 4 * 16


def test_a_diverged_network_is_shown():
    class Lost(nn.Module):
        def forward(self, images):
            return torch.full((len(images), 2), torch.nan)

    split = Split(torch.rand(1, 1, 4, 4), torch.tensor([1]), torch.arange(1))
    lab = ShiftLab({"lost": Lost()}, split)
    assert lab.describe() == "lost says no number."
    assert texts(lab.frame.panels[1]) == ["0", "1", "true class", "lost", "no number"]


def many_classes():
    return replace(TEST, labels=TEST.labels + 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dx": 7}, "dx to be an integer from -6 to 6, got 7"),
        ({"dy": -7}, "dy to be an integer from -6 to 6, got -7"),
        ({"dx": 0.5}, "dx to be an integer from -6 to 6, got 0.5"),
        ({"picture": -1}, "picture to be an integer from 0 on, got -1"),
        ({"picture": 1000}, "picture to be below 1000, got 1000"),
        ({"models": {}}, r"a dict of one to 3 models, got \[\]"),
        ({"models": dict.fromkeys("abcd", SaysWhere())}, r"got \['a', 'b', 'c', 'd'\]"),
        ({"models": SaysWhere()}, "a dict of one to 3 models, got SaysWhere"),
        ({"curves": {"gap": [1]}}, r"'gap' to be 7 accuracies from 0 to 1, got \[1\]"),
        ({"curves": {"gap": [90] * 7}}, "7 accuracies from 0 to 1, got .90"),
        ({"curves": {"gap": 0.5}}, "7 accuracies from 0 to 1, got 0.5"),
        ({"curves": {"vgg": [1] * 7}}, "curves of gap, gmp, flatten, got one of 'vgg'"),
        ({"split": many_classes()}, "labels to be integers from 0 to 9, got 1[01]"),
        ({"models": {"a": nn.Flatten()}}, "networks of 2 to 10 classes, got a of 784"),
        ({"split": replace(TEST, images=torch.zeros(1000, 1, 400, 20))}, "at most 348 pixels"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ShiftLab(**settings)
