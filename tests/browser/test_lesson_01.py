"""A learner works through lesson 01 in JupyterLab, with the keyboard, then with the pointer."""

from __future__ import annotations

from playwright.sync_api import expect

from driver import (
    choose,
    expect_said,
    focus_slider,
    make_moves,
    names_of,
    press_button,
    step_slider,
    text_of,
)

LESSON = "01_pool_a_4x4_map.ipynb"
LAB = "PoolLab"


def test_the_stored_picture_shows_before_anything_runs(open_lesson):
    lesson = open_lesson(LESSON)
    output = lesson.cell("PoolLab(numbers)").locator(".jp-OutputArea-output")
    expect(output.locator("img")).to_be_visible()
    assert "Error displaying widget" not in lesson.page.locator(".jp-Notebook").inner_text()


def test_a_prediction_is_not_spoilt(open_lesson):
    lesson = open_lesson(LESSON)

    def parts():
        """The question, what answers it, what does so again, and the text between these."""
        asked = lesson.cell("What is the average of the 16")
        first, second = map(lesson.cell, ("total, count, total / count", "x.amax(dim=(2, 3))"))
        text = lesson.cell("Read the answer").locator(".jp-RenderedMarkdown")
        return asked, first, second, text

    asked, first, second, text = parts()
    folded = "What comes out when you run it:"
    for cell in (first, second):
        expect(cell.locator(".jp-OutputPlaceholder")).to_have_text(folded)
        expect(cell.locator(".jp-OutputArea")).to_be_hidden()
    answer = text.get_by_text("The sum is 65")
    expect(answer).to_be_hidden()
    asked.get_by_text("about 65").click()
    expect(asked.get_by_text("65 is the sum.")).to_be_visible()
    expect(asked.get_by_text("Most numbers")).to_be_hidden()

    first.locator(".cm-content").click()
    lesson.command("notebook:run-all-above")
    question = lesson.question("What is the average of the 16")
    question.get_by_role("radio", name="about 4").check()
    expect_said(question, "Right", "Most numbers")
    expect(asked.locator(".gap-still")).to_be_hidden()
    first.locator(".cm-content").click()
    lesson.command("notebook:run-cell")
    expect(first.locator(".jp-OutputArea")).to_have_text("[5]:(65, 16, 4.0625)")
    text.get_by_text("Read the answer").click()
    expect(answer).to_be_visible()
    lesson.save()

    lesson.page.wait_for_timeout(500)
    lesson = type(lesson)(lesson.page, (lesson.address, lesson.token), lesson.name)
    _, first, second, _ = parts()
    expect(first.locator(".jp-OutputArea")).to_contain_text("(65, 16, 4.0625)")
    expect(second.locator(".jp-OutputPlaceholder")).to_have_text(folded)
    second.locator(".jp-OutputPlaceholder").click()
    expect(second.get_by_text("average: tensor([[4.0625]])")).to_be_visible()


def test_pool_lab_with_the_keyboard(lesson, lab):
    page = lesson.page
    expect_said(lab, "max(2, 2, 9, 4) = 9")
    assert "Output so far 9 ? / ? ?" in text_of(lab)

    # the window slider: arithmetic, output and words follow
    focus_slider(lab, "Window")
    page.keyboard.press("ArrowRight")
    expect_said(lab, "Window 2 of 4: rows 0 to 1, columns 2 to 3", "max(7, 3, 6, 1) = 7")
    assert "Output so far 9 7 / ? ?" in text_of(lab)
    page.keyboard.press("End")
    expect_said(lab, "max(2, 4, 2, 6) = 6")
    assert "Output so far 9 7 / 8 6" in text_of(lab)

    # a number of the map
    number = lab.get_by_label("row 1, column 0", exact=True)
    number.focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("25")
    page.keyboard.press("Enter")
    expect_said(lab, "Whole map: average 5.0625, max 25, min 1")
    expect(number).to_be_focused()
    assert "Output so far 25 7 / 8 6" in text_of(lab)

    # average, then global
    choose(lab, "Pooling")
    expect_said(lab, "(2 + 4 + 2 + 6) / 4 = 3.5")
    press_button(lab, "Global: kernel = whole map")
    expect_said(lab, "/ 16 = 5.0625", "Window 1 of 1")

    # back to the start, then roll
    press_button(lab, "Start again")
    expect_said(lab, "max(2, 2, 9, 4) = 9")
    press_button(lab, "Roll one column")
    expect_said(lab, "max(3, 2, 1, 9) = 9", "Whole map: average 4.0625, max 9, min 1")


def test_every_slider_moves_and_nothing_jumps(lesson, lab):
    moves = [
        ("Stride", "Window 1 of 1"),
        ("Kernel", "max(2, 2, 7, 9, 4, 6, 8, 5, 2) = 9"),
        ("Padding", "are padding)"),
    ]
    make_moves(lab, [(step_slider, *move) for move in moves])
    step_slider(lab, "Map size", "End")
    grid = lab.get_by_role("spinbutton", name="row")
    expect(grid).to_have_count(64)
    step_slider(lab, "Map size", "Home")
    expect(grid).to_have_count(4)
    expect(lab.get_by_role("status")).to_contain_text("kernel is now 2")
    assert "Traceback" not in lesson.page.locator(".jp-Notebook").inner_text()


def test_every_control_has_a_name(lab):
    sliders = ["Window", "Kernel", "Stride", "Padding", "Map size"]
    assert names_of(lab.get_by_role("slider")) == sliders
    squares = [f"row {row}, column {column}" for row in range(4) for column in range(4)]
    numbers = names_of(lab.get_by_role("spinbutton"))
    assert sorted(numbers) == sorted([*squares, *(f"{name}, as a number" for name in sliders)])


def test_the_picture_can_be_touched(lesson, lab):
    page = lesson.page
    press_button(lab, "Start again")
    output = lab.locator("[data-set]")
    output.nth(3).hover()  # its window lights up in the map
    expect(lab.locator("rect.gap-lit")).to_have_count(2)
    output.nth(3).click()
    expect_said(lab, "max(2, 4, 2, 6) = 6")
    page.keyboard.press("ArrowLeft")  # goes on from there
    expect_said(lab, "max(8, 5, 3, 1) = 8")

    lab.locator("[data-focus]").nth(8).click()
    page.keyboard.type("80")
    page.keyboard.press("Enter")
    expect_said(lab, "max(80, 5, 3, 1) = 80")
    lab.locator(".gap-large > p > span").nth(1).hover()  # a term lights its square up
    expect(lab.locator("rect.gap-lit")).to_have_count(1)

    choose(lab, "Pooling")
    focus_slider(lab, "Window")
    page.keyboard.press("Home")
    press_button(lab, "Play Window")
    expect_said(lab, "(2 + 4 + 2 + 6) / 4 = 3.5")
    expect(lab.get_by_role("button", name="Play Window")).to_be_visible()  # it has ended


def test_an_exercise_wrong_then_right(lesson):
    for answer, said in [
        ("x.sum((2, 3))", "That is the sum of each channel"),
        ("x.mean((2, 3))", "✓ Right One average per channel"),
    ]:
        source = f"def my_gap(x):\n    return {answer}"
        lesson.answer("def my_gap", source, "checks.check_gap(my_gap)", said)


def test_a_question_says_what_is_behind_each_answer(lesson):
    question = lesson.question("What is the average of the")
    question.get_by_role("radio", name="about 2").focus()
    for key, answer, *said in [
        ("ArrowUp", "about 65", "Not this one", "65 is the sum."),
        ("ArrowUp", "about 9", "Not this one", "9 is the largest"),
        ("ArrowUp", "about 4", "Right", "Most"),
    ]:
        lesson.page.keyboard.press(key)
        expect_said(question, *said)
        expect(question.get_by_role("radio", name=answer)).to_be_checked()
