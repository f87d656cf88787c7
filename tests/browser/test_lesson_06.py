"""A learner walks through the layers of lesson 06 with MapLab, and does an exercise."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from driver import (
    choose,
    click,
    expect_said,
    make_moves,
    names_of,
    point_at,
    press_button,
    step_slider,
)
from gap_utils.data import load_fashion_mnist
from gap_utils.models import load_trained

LESSON = "06_look_inside_feature_maps.ipynb"
ALSO = ("lab = MapLab(",)
SHORTER = {"(network, data, 8,": "(network, data, 2,", "epoch=8)": "epoch=2)"}  # nbval runs all


def test_the_lesson_as_a_learner_does_it(lesson):
    """One test, so that the lesson runs once."""
    expect(lesson.page.get_by_role("group", name="MapLab", exact=True)).to_have_count(3)
    lab = lesson.lab("MapLab")
    every_control_moves_and_nothing_jumps(lab)
    press_button(lab, "Start again")
    expect_said(lab, "Map 0: mean -0.099, max 0.81.")
    the_picture_can_be_touched(lab)
    for answer, said in [
        ("maps.amax((2, 3)).argmax(1), maps.mean((2, 3)).argmax(1)", "The rows are swapped"),
        ("maps.mean((2, 3)).argmax(1), maps.amax((2, 3)).argmax(1)", "✓ Right GAP takes"),
    ]:
        lesson.answer(
            "def winning_maps(maps)",
            f"def winning_maps(maps):\n    return torch.stack([{answer}])",
            "checks.check_winning_maps(winning_maps)",
            said,
        )


def every_control_moves_and_nothing_jumps(lab):
    expect_said(lab, "body.0 (Conv2d) gives 8 maps of 28×28.")
    assert names_of(lab.get_by_role("slider")) == ["Picture", "Place"]
    boxes = ["Layer", "View", "Colours", "Bars", "Sort by"]
    assert [lab.get_by_role("combobox", name=name, exact=True).count() for name in boxes] == [1] * 5
    moves = [
        (lambda *a: choose(*a, "End"), "Layer", "head.1 (AdaptiveAvgPool2d) gives 10 maps of 1×1."),
        (lambda *a: choose(*a, "ArrowUp"), "Layer", "head.0 (Conv2d) gives 10 maps of 3×3."),
        (step_slider, "Place", "Map 1: mean 13.88, max 30.39. Its mean is the logit of Trouser"),
        (lambda *a: choose(*a, "ArrowUp"), "Layer", "body.14 (MaxPool2d) gives 32 maps of 3×3."),
        (choose, "Sort by", "Map 21, place 1 by mean: mean 11.48, max 24.04."),
        (choose, "View", "Mean and max of each map shown: 21: 11.48, 24.04."),
        (choose, "Colours", "Map 21, place 1 by mean: mean 11.48, max 24.04."),
        (lambda *a: choose(*a, "ArrowUp"), "View", "each map shown: 31: 13.16, 25.62; 21: 11.48"),
        (choose, "Bars", "Map 21, place 1 by mean: mean 11.48, max 24.04."),
        (step_slider, "Picture", "Picture 3, Trouser. body.14 (MaxPool2d) gives 32 maps of 3×3."),
    ]
    make_moves(lab, moves)


def the_picture_can_be_touched(lab):
    assert "Map 5: mean -0.33" in click(lab, '"place": 5')
    assert "each map shown: 5: -0.33" in click(lab, "one map")  # again, which shows it alone
    grid = lab.locator(".gap-panel", has_text="point at a square").locator(".gap-edge").first
    number = load_trained("gap").body[0](load_fashion_mnist().test.images[2:3])[0, 5, 20, 9].item()
    place, read = point_at(grid, 20, 9, 28)
    assert place == "row 20, column 9"
    assert float(read.replace("\N{MINUS SIGN}", "-")) == pytest.approx(number, rel=1e-3)
    assert "each map shown: 0: -0.099, 0.81; 1:" in click(lab, "all maps")
    assert click(lab, '"picture": 4').startswith("Picture 4, Shirt.")
    press_button(lab, "Next wrong one")
    expect_said(lab, "wrong: it is")
    expect(lab.get_by_text("✗ wrong")).to_be_visible()
