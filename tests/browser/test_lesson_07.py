"""A learner asks CamLab where a logit comes from and where a thing is, and does an exercise."""

from __future__ import annotations

from playwright.sync_api import expect

from driver import (
    changed,
    choose,
    click,
    expect_said,
    make_moves,
    names_of,
    point_at,
    press_button,
    step_slider,
    text_of,
)

LESSON = "07_explain_with_class_activation_maps.ipynb"


def test_the_lesson_as_a_learner_does_it(lesson):
    """One test, so that the lesson runs once."""
    expect(lesson.page.get_by_role("group", name="CamLab", exact=True)).to_have_count(2)
    lab = lesson.lab("CamLab")
    every_control_moves_and_nothing_jumps(lab)
    press_button(lab, "Start again")
    expect_said(lab, "mean of 49 values 6.956 + bias -0.190 = logit 6.766")
    the_picture_can_be_touched(lab)
    the_box_follows_the_level(lesson.page.get_by_role("group", name="CamLab", exact=True).last)
    for arrow, said in [("nhwk", "the classes come last"), ("nkhw", "✓ Right A map for each")]:
        lesson.answer(
            "def cam_by_einsum(features, weight)",
            "def cam_by_einsum(features, weight):\n"
            f'    return torch.einsum("nchw,kc->{arrow}", features, weight)',
            "checks.check_cam(cam_by_einsum)",
            said,
        )


def every_control_moves_and_nothing_jumps(lab):
    expect_said(lab, "Picture 0: Ankle boot; predicted Ankle boot (99.6%), right.")
    assert names_of(lab.get_by_role("slider")) == ["Picture", "Strength %"]
    for name in ("Left class", "Right class"):
        expect(lab.get_by_role("combobox", name=name, exact=True)).to_have_count(1)
    moves = [
        (step_slider, "Strength %", "Left, Ankle boot (99.6%): mean of 49 values 6.956"),
        (choose, "Left class", "Left, Sneaker (0.4%): mean of 49 values 1.251"),
        (choose, "Right class", "Right, Sandal (0.0%): mean of 49 values"),
        (tick, "Smooth", "View: overlay"),
        (choose, "View", "View: numbers. Left 1.0096 3.8338 "),
        (step_slider, "Picture", "Picture 1: Pullover; predicted Pullover"),
    ]
    make_moves(lab, moves)


def the_picture_can_be_touched(lab):
    panels = lab.locator(".gap-panel", has_text="against")
    for side in (0, 1):  # what both classes get is read in both
        read = point_at(panels.nth(side).locator(".gap-edge").first, 3, 2, 7)
        assert read[:2] == ["row 3, column 2", "Ankle boot: 21.33"]
        assert read[2].startswith("Sneaker: ")
    assert "Picture 3: Trouser; " in click(lab, '"picture": 3')
    press_button(lab, "Next wrong one")
    expect_said(lab, ", wrong.")
    expect(lab.get_by_text("✗ wrong")).to_be_visible()


def the_box_follows_the_level(lab):
    lab.scroll_into_view_if_needed()
    expect_said(lab, "Its box at 40% and the true box: intersection over union 0.")
    assert "Its box at 41% and the true box" in step_slider(lab, "Box level %")


def tick(lab, label):
    with changed(lab):
        lab.get_by_role("checkbox", name=label).focus()
        lab.page.keyboard.press("Space")
    return text_of(lab)
