"""A learner moves a picture in lesson 05, and does two exercises."""

from __future__ import annotations

from playwright.sync_api import expect

from driver import drag_picture, expect_said, make_moves, names_of, press_button, step_slider

LESSON = "05_move_and_enlarge_the_picture.ipynb"


def test_the_lesson_as_a_learner_does_it(lesson):
    every_slider_moves_and_nothing_jumps(lesson.lab("ShiftLab"))
    the_picture_can_be_dragged(lesson.lab("ShiftLab"))
    largest = "(maps == maps.amax((2, 3), keepdim=True)).float()"
    for answer, said in [
        (largest, "Several equal maxima share the 1."),
        (f"{largest} / {largest}.sum((2, 3), keepdim=True)", "✓ Right"),
    ]:
        lesson.answer(
            "def gmp_gradient(maps)",
            f"def gmp_gradient(maps):\n    return {answer}",
            "checks.check_gmp_gradient(gmp_gradient)",
            said,
        )
    for answer, said in [
        ("sum(strides)", "That adds the strides."),
        ("int(torch.tensor(strides).prod())", "✓ Right"),
    ]:
        lesson.answer(
            "def shift_step(strides)",
            f"def shift_step(strides):\n    return {answer}",
            "checks.check_shift_step(shift_step)",
            said,
        )


def every_slider_moves_and_nothing_jumps(lab):
    expect_said(lab, "gap says Ankle boot (100%), right")
    assert names_of(lab.get_by_role("slider")) == ["Picture", "Right dx", "Down dy"]
    moves = [
        ("Right dx", "Picture 0, Ankle boot, moved 1 px right and 0 px down."),
        ("Down dy", "Picture 0, Ankle boot, moved 1 px right and 1 px down."),
        ("Picture", "Picture 1, Pullover, moved 1 px right and 1 px down."),
    ]
    make_moves(lab, [(step_slider, *move) for move in moves])
    expect_said(lab, "many pictures moved by 1 px")
    press_button(lab, "Back to the middle")
    expect_said(lab, "many pictures moved by 0 px")
    press_button(lab, "Start again")
    expect_said(lab, "gap says Ankle boot (100%), right")


def the_picture_can_be_dragged(lab):
    drag_picture(lab, 3, -2)
    expect(lab.locator(".gap-hidden").first).to_contain_text("moved 3 px right and -2 px down")
    press_button(lab, "Next wrong one")
    expect_said(lab, ", wrong")
    press_button(lab, "Start again")
