"""A learner moves the sliders of HeadLab in lesson 02, with the keyboard alone."""

from __future__ import annotations

from playwright.sync_api import expect

from driver import (
    choose,
    expect_said,
    make_moves,
    names_of,
    place_in_lab,
    press_button,
    step_slider,
    text_of,
)

LESSON = "02_compare_flatten_and_gap.ipynb"
LAB = "HeadLab"


def test_the_stored_picture_shows_before_anything_runs(open_lesson):
    lesson = open_lesson(LESSON)
    output = lesson.cell("HeadLab(channels=32").locator(".jp-OutputArea-output")
    expect(output.locator("img")).to_be_visible()
    assert "Error displaying widget" not in lesson.page.locator(".jp-Notebook").inner_text()


def test_every_slider_moves_and_nothing_jumps(lab):
    expect_said(lab, "has 8.8 times the parameters")
    moves = [
        ("Batch N", "Features (2, 32, 3, 3)"),
        ("Channels C", "Features (2, 33, 3, 3)"),
        ("Height H", "Features (2, 33, 4, 3)"),
        ("Width W", "Features (2, 33, 4, 4)"),
        ("Classes K", "11 classes"),
    ]
    make_moves(lab, [(step_slider, *move) for move in moves])
    assert "linear (2, 11), 5,819 parameters" in text_of(lab)  # 33 * 4 * 4 * 11 + 11


def test_heads_that_are_kept_break(lab):
    place = place_in_lab(lab)
    choose(lab, "Heads")
    expect_said(lab, "The weights of the heads are for 32 × 3 × 3 (C × H × W).")
    step_slider(lab, "Height H")
    expect_said(lab, "Flatten, then linear, breaks: its weights are for 32 × 3 × 3 = 288")
    expect(lab.locator(".gap-words > [aria-live]")).not_to_contain_text("GAP, then linear, breaks")
    assert "linear does not fit" in text_of(lab)
    step_slider(lab, "Height H", "ArrowLeft")
    expect_said(lab, "has 8.8 times the parameters")
    step_slider(lab, "Channels C")
    expect_said(lab, "The 1×1 convolution breaks: its weights are for 32 channels, 33")
    expect_said(lab, "GAP, then linear, breaks")
    assert place_in_lab(lab) == place  # what is below stays where it is
    press_button(lab, "Start again")
    expect_said(lab, "has 8.8 times the parameters")


def test_a_box_says_where_its_numbers_come_from(lab):
    expect_said(lab, "linear after flatten: 288 × 10 weights + 10 biases = 2,890 parameters")
    place = place_in_lab(lab)
    lab.locator("[data-set]").nth(5).click()
    expect_said(lab, "linear after GAP: 32 × 10 weights + 10 biases = 330 parameters")
    choose(lab, "Explain", "ArrowUp")
    expect_said(lab, "GAP: 32 means, each over 3 × 3 = 9 positions, no weights")
    assert place_in_lab(lab) == place
    press_button(lab, "Start again")


def test_every_control_has_a_name(lab):
    sliders = ["Channels C", "Height H", "Width W", "Batch N", "Classes K"]
    assert names_of(lab.get_by_role("slider")) == sliders
