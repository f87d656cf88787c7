"""A learner moves the sliders of HeadLab in lesson 02, with the keyboard alone."""

from __future__ import annotations

from playwright.sync_api import expect

from driver import focus_slider, make_moves, press_button, step_slider

LESSON = "02_compare_flatten_and_gap.ipynb"


def alt(lab) -> str:
    return lab.locator("img").get_attribute("alt")


def test_the_stored_picture_shows_before_anything_runs(open_lesson):
    lesson = open_lesson(LESSON)
    output = lesson.cell("HeadLab(channels=32").locator(".jp-OutputArea-output")
    expect(output.locator("img")).to_be_visible()
    assert "Error displaying widget" not in lesson.page.locator(".jp-Notebook").inner_text()


def test_every_slider_moves_and_nothing_jumps(lesson, lab):
    expect(lab).to_contain_text("has 8.8 times the parameters")
    moves = [
        ("Batch N", "Features (2, 32, 3, 3)"),
        ("Channels C", "Features (2, 33, 3, 3)"),
        ("Height H", "Features (2, 33, 4, 3)"),
        ("Width W", "Features (2, 33, 4, 4)"),
        ("Classes K", "11 classes"),
    ]
    make_moves(lab, [(step_slider, *move) for move in moves])
    assert "linear (2, 11), 5,819 parameters" in alt(lab)  # 33 * 4 * 4 * 11 + 11


def test_heads_that_are_kept_break(lesson, lab):
    page = lesson.page
    height = lab.bounding_box()["height"]
    press_button(lab, "kept as they are")
    expect(lab).to_contain_text("Their weights are for 32 × 3 × 3 (C × H × W).")
    focus_slider(lab, "Height H")
    page.keyboard.press("ArrowRight")
    expect(lab).to_contain_text(
        "Flatten, then linear, breaks: its weights are for 32 × 3 × 3 = 288"
    )
    expect(lab).not_to_contain_text("GAP, then linear, breaks")
    assert "linear does not fit" in alt(lab)
    page.keyboard.press("ArrowLeft")
    expect(lab).to_contain_text("has 8.8 times the parameters")
    focus_slider(lab, "Channels C")
    page.keyboard.press("ArrowRight")
    expect(lab).to_contain_text("The 1×1 convolution breaks: its weights are for 32 channels, 33")
    expect(lab).to_contain_text("GAP, then linear, breaks")
    assert lab.bounding_box()["height"] == height  # what is below stays where it is
    press_button(lab, "Start again")
    expect(lab).to_contain_text("Their weights follow the features.")
    expect(lab).to_contain_text("has 8.8 times the parameters")


def test_every_control_has_a_name(lab):
    names = [handle.get_attribute("aria-label") for handle in lab.get_by_role("slider").all()]
    assert names == ["Batch N", "Channels C", "Height H", "Width W", "Classes K"]
