"""A learner walks through the layers of lesson 05 with MapLab, and does an exercise."""

from __future__ import annotations

from playwright.sync_api import expect

from driver import choose, expect_said, make_moves, names_of, press_button, step_slider

LESSON = "05_look_inside_feature_maps.ipynb"


def test_the_lesson_as_a_learner_does_it(lesson):
    """One test, so that the lesson runs once."""
    expect(lesson.page.get_by_role("group", name="MapLab", exact=True)).to_have_count(4)
    lab = lesson.lab("MapLab")
    every_control_moves_and_nothing_jumps(lab)
    press_button(lab, "Start again")
    expect_said(lab, "Channel 0: mean -0.099, max 0.81.")
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
    assert names_of(lab.get_by_role("slider")) == ["Picture", "Map"]
    boxes = ["Layer", "View", "Colours", "Bars", "Sort by"]
    assert [lab.get_by_role("combobox", name=name, exact=True).count() for name in boxes] == [1] * 5
    moves = [
        (lambda *a: choose(*a, "End"), "Layer", "head.1 (AdaptiveAvgPool2d) gives 10 maps of 1×1."),
        (lambda *a: choose(*a, "ArrowUp"), "Layer", "head.0 (Conv2d) gives 10 maps of 3×3."),
        (step_slider, "Map", "Channel 1: mean 13.88, max 30.39. Its mean is the logit of Trouser"),
        (lambda *a: choose(*a, "ArrowUp"), "Layer", "body.14 (MaxPool2d) gives 32 maps of 3×3."),
        (choose, "Sort by", "Channel 21, place 1 by mean: mean 11.48, max 24.04."),
        (choose, "View", "Mean and max of each map shown, by channel: 21: 11.48, 24.04."),
        (choose, "Colours", "Channel 21, place 1 by mean: mean 11.48, max 24.04."),
        (lambda *a: choose(*a, "ArrowUp"), "View", "by channel: 31: 13.16, 25.62; 21: 11.48"),
        (choose, "Bars", "Channel 21, place 1 by mean: mean 11.48, max 24.04."),
        (step_slider, "Picture", "Picture 3, Trouser. body.14 (MaxPool2d) gives 32 maps of 3×3."),
    ]
    make_moves(lab, moves)
