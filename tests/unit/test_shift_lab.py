from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gap_utils.data import CLASS_NAMES, Split, load_fashion_mnist
from gap_utils.models import load_trained
from gap_utils.pictures import SCALE, SHADES
from gap_utils.robustness import accuracy_against_shift, shift
from gap_utils.study import mean_curves
from gap_utils.widgets import ShiftLab
from gap_utils.widgets.shift_lab import (
    FRAME,
    ShiftState,
    describe_view,
    look,
    shift_picture,
)
from lab_controls import control, walk, words

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


def view_of(split, *state, curves=CURVES):
    return look(ShiftState(*state), {"left": SaysWhere()}, split, ("west", "east"), curves)


def test_the_networks_see_the_moved_picture(split):
    sure = np.exp(2) / (np.exp(2) + 1)
    for dx, expected in [(0, [sure, 1 - sure]), (1, [1 - sure, sure]), (-1, [sure, 1 - sure])]:
        view = view_of(split, 0, dx)
        assert view.probabilities["left"] == pytest.approx(expected)
        assert view.image[1, 1] == 1  # the picture itself stays
    assert describe_view(view_of(split, 0, 1)) == (
        "left says east (88%), wrong. Accuracy on many pictures moved by 1 px: left 80%."
    )
    assert describe_view(view_of(split, 1, 1, -6)) == (
        "left says east (88%), right. Accuracy on many pictures moved by 6 px: left 30%."
    )
    assert describe_view(view_of(split, 1, 1, curves={})) == "left says east (88%), right."


def test_the_shipped_networks():
    view = look(
        ShiftState(3, 2, -1), {"gap": load_trained("gap")}, TEST, CLASS_NAMES, mean_curves()
    )
    moved = shift(TEST.images[3:4], 2, -1)
    with torch.no_grad():
        expected = load_trained("gap")(moved).softmax(1)[0].numpy()
    assert view.probabilities["gap"] == pytest.approx(expected)
    assert view.label == TEST.labels[3]


def pixels(picture):
    return np.asarray(Image.open(BytesIO(picture.png)))


def test_the_picture_moves_on_its_canvas(split):
    left, top, side = (SCALE * n for n in FRAME)
    cell = side // 16  # 4 and 6 on each side
    for dx, dy in [(0, 0), (6, -6), (-3, 2)]:
        drawn = pixels(shift_picture(view_of(split, 0, dx, dy)))
        seen = drawn[top : top + 16 * cell, left : left + 16 * cell] & 31
        middles = seen[cell // 2 :: cell, cell // 2 :: cell]
        assert np.argwhere(middles == SHADES[-1]).tolist() == [[7 + dy, 7 + dx]]
        assert np.count_nonzero(middles == SHADES[0]) == 255


def test_the_picture_and_its_words(split):
    picture = shift_picture(view_of(split, 0, 1, -2))
    assert picture.text == (
        "Picture 0, west, moved 1 px right and -2 px down. left says east (88%), wrong. "
        "Accuracy on many pictures moved by 2 px: left 70%."
    )
    assert (picture.width, picture.height) == (526, 278)
    assert picture.width * picture.height < 170_000  # more takes a browser over 50 ms
    assert picture.png == shift_picture(view_of(split, 0, 1, -2)).png
    assert picture.png != shift_picture(view_of(split, 0, 1, -1)).png
    assert picture.png != shift_picture(view_of(split, 0, 1, -2, curves={})).png


def test_the_controls_and_the_state_follow_each_other():
    lab = ShiftLab()
    assert repr(lab) == "ShiftLab(picture 0 moved by 0, 0: gap, gmp, flatten)"
    control(lab, "Right dx").value = 3
    control(lab, "Down dy").value = -2
    control(lab, "Picture").value = 5
    assert lab.value == ShiftState(5, 3, -2)
    assert "moved by 3 px" in words(lab)
    lab.set(dx=-6)
    assert control(lab, "Right dx").value == -6
    assert control(lab, "Picture").max == len(TEST) - 1
    press(lab, "Back to the middle")
    assert lab.value == ShiftState(5)
    press(lab, "Start again")
    assert lab.value == ShiftState()
    assert lab.picture().text in lab.box.children[1].value


def press(lab, label):
    next(w for w in walk(lab.box) if getattr(w, "description", None) == label).click()


def test_own_networks_and_pictures(split):
    lab = ShiftLab({"left": SaysWhere()}, split, ("west", "east"), CURVES, dx=1)
    assert "left says east" in words(lab)
    assert "moved by 1 px: left 80%" in words(lab)
    assert "Accuracy" not in words(ShiftLab({"left": SaysWhere()}, split, ("west", "east")))


def test_numbers_of_another_part_are_not_those_of_the_study(split):
    text = words(ShiftLab(split=TEST))
    assert "Accuracy" not in text
    assert "says 9" in text  # its classes have numbers, not the names of clothes
    assert "Accuracy" not in words(ShiftLab(curves={}))
    assert "Ankle boot" in words(ShiftLab())


def test_a_curve_has_the_mark_of_its_network(split):
    """Whatever the order of the curves, and if only some networks have one."""
    models = {"left": SaysWhere(), "right": SaysWhere()}
    flat, falling = [0.5] * 7, [0.9 - 0.1 * n for n in range(7)]

    def drawn(**curves):
        return ShiftLab(models, split, ("west", "east"), curves).picture().png

    assert drawn(left=flat, right=falling) == drawn(right=falling, left=flat)
    assert drawn(left=flat) != drawn(right=flat)


def test_a_table_of_training_makes_a_curve(split):
    table = accuracy_against_shift(SaysWhere(), split)
    lab = ShiftLab({"left": SaysWhere()}, split, curves={"left": table.accuracy}, dx=1)
    assert f"left {table.accuracy[1]:.0%}" in words(lab)


def test_colour_pictures_that_are_not_square_and_long_names():
    split = Split(torch.rand(3, 3, 20, 60), torch.tensor([0, 1, 1]), torch.arange(3))
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    lab = ShiftLab({"global average pooling": model}, split, ["the first class of all", "b"])
    assert "global average pooling says" in words(lab)
    assert (lab.picture().width, lab.picture().height) == (526, 278)


def test_a_diverged_network_is_shown():
    class Lost(nn.Module):
        def forward(self, images):
            return torch.full((len(images), 2), torch.nan)

    split = Split(torch.rand(1, 1, 4, 4), torch.tensor([1]), torch.arange(1))
    assert ">lost says no number.<" in words(ShiftLab({"lost": Lost()}, split))


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
        ({"class_names": ["a"]}, "a name for each of 10 classes, got 1"),
        ({"split": many_classes()}, "labels to be integers from 0 to 9, got 1[01]"),
        ({"models": {"a": nn.Flatten()}}, "networks of 2 to 10 classes, got a of 784"),
        ({"split": replace(TEST, images=torch.zeros(1000, 1, 400, 20))}, "at most 348 pixels"),
        (
            {"split": replace(TEST, **{n: t[:0] for n, t in vars(TEST).items()})},
            "at least one picture",
        ),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ShiftLab(**settings)


def test_an_impossible_move_changes_nothing():
    lab = ShiftLab(dx=2)
    before = words(lab)
    for change in ({"picture": 5000}, {"dx": 9}):
        with pytest.raises(ValueError):
            lab.set(**change)
    assert lab.value == ShiftState(dx=2)
    assert words(lab) == before
