"""A learner works through lesson 01 in JupyterLab, with the keyboard alone."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from driver import focus_slider, place_in_lab, press_button

LESSON = "01_pool_a_4x4_map.ipynb"


def alt(lab) -> str:
    return lab.locator("img").get_attribute("alt")


def test_the_stored_picture_shows_before_anything_runs(open_lesson):
    lesson = open_lesson(LESSON)
    output = lesson.cell("PoolLab(numbers)").locator(".jp-OutputArea-output")
    expect(output.locator("img")).to_be_visible()
    assert "Error displaying widget" not in lesson.page.locator(".jp-Notebook").inner_text()


def test_pool_lab_with_the_keyboard(lesson, lab):
    page = lesson.page
    expect(lab).to_contain_text("max(2, 2, 9, 4) = 9")
    assert "Output so far 9 ? / ? ?" in alt(lab)

    # the window slider: arithmetic, output and picture follow
    first = lab.locator("img").get_attribute("src")
    focus_slider(lab, "Window")
    page.keyboard.press("ArrowRight")
    expect(lab).to_contain_text("Window 2 of 4: rows 0 to 1, columns 2 to 3")
    expect(lab).to_contain_text("max(7, 3, 6, 1) = 7")
    assert "Output so far 9 7 / ? ?" in alt(lab)
    assert lab.locator("img").get_attribute("src") != first
    page.keyboard.press("End")
    expect(lab).to_contain_text("max(2, 4, 2, 6) = 6")
    assert "Output so far 9 7 / 8 6" in alt(lab)

    # a number of the map
    number = lab.get_by_label("row 1, column 0", exact=True)
    number.focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("25")
    page.keyboard.press("Enter")
    expect(lab).to_contain_text("Whole map: average 5.0625, max 25, min 1")
    expect(number).to_be_focused()
    assert "Output so far 25 7 / 8 6" in alt(lab)

    # average, then global
    press_button(lab, "average")
    expect(lab).to_contain_text("(2 + 4 + 2 + 6) / 4 = 3.5")
    press_button(lab, "Global: kernel = whole map")
    expect(lab).to_contain_text("/ 16 = 5.0625")
    expect(lab).to_contain_text("Window 1 of 1")

    # back to the start, then roll
    press_button(lab, "Start again")
    expect(lab).to_contain_text("max(2, 2, 9, 4) = 9")
    press_button(lab, "Roll one column")
    expect(lab).to_contain_text("max(3, 2, 1, 9) = 9")
    expect(lab).to_contain_text("Whole map: average 4.0625, max 9, min 1")


def test_every_slider_moves_and_nothing_jumps(lesson, lab):
    page = lesson.page
    place = pytest.approx(place_in_lab(lab), abs=1)
    for label, text in [
        ("Kernel", "max(2, 2, 7, 9, 4, 6, 8, 5, 2) = 9"),
        ("Stride", "Window 1 of 1"),
        ("Padding", "are padding)"),
    ]:
        focus_slider(lab, label)
        page.keyboard.press("ArrowRight")
        expect(lab).to_contain_text(text)
        assert place_in_lab(lab) == place
    focus_slider(lab, "Map size")
    page.keyboard.press("End")
    expect(lab.get_by_role("spinbutton")).to_have_count(64)
    page.keyboard.press("Home")
    expect(lab.get_by_role("spinbutton")).to_have_count(4)
    expect(lab).to_contain_text("kernel is now 2")
    assert "Traceback" not in lesson.page.locator(".jp-Notebook").inner_text()


def test_every_control_has_a_name(lab):
    names = [handle.get_attribute("aria-label") for handle in lab.get_by_role("slider").all()]
    assert names == ["Map size", "Kernel", "Stride", "Padding", "Window"]
    for box in lab.locator(".gap-numbers input").all():
        label = box.evaluate("box => box.labels[0]?.textContent")
        assert re.fullmatch(r"row \d, column \d", label)


def test_an_exercise_wrong_then_right(lesson):
    for answer, said in [
        ("x.sum((2, 3))", "That is the sum of each channel"),
        ("x.mean((2, 3))", "✓ Right: one average per channel"),
    ]:
        source = f"def my_gap(x):\n    return {answer}"
        lesson.answer("def my_gap", source, "checks.check_gap(my_gap)", said)


def test_a_prediction_says_what_is_behind_each_answer(lesson):
    question = lesson.page.locator(".jp-OutputArea-output", has_text="What is the average of the")
    for answer, said in [("about 65", "Not this one. 65 is the sum."), ("about 4", "Right. Most")]:
        press_button(question, answer)
        expect(question.get_by_role("status")).to_contain_text(said)
        expect(question.get_by_role("button", name=f"● {answer}")).to_be_focused()
