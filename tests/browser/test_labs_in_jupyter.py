"""What JupyterLab does to labs: themes, narrow windows, reloads, kernels that restart or are gone.

Each test opens a small notebook of its own.
"""

from __future__ import annotations

import nbformat
import pytest
from playwright.sync_api import expect

from driver import (
    LabPage,
    NotebookPage,
    expect_said,
    focus_slider,
    new_page,
    place_in_lab,
    press_button,
    step_slider,
    text_of,
)

CELLS = [
    """
import sys
sys.path.insert(0, "..")
import threading, time
from gap_utils.widgets import PoolLab, Question

drawn = []

class Lab(PoolLab):
    def draw(self, state):
        drawn.append((time.time(), threading.current_thread() is threading.main_thread()))
        return super().draw(state)

lab = Lab()
""",
    "lab",
    "lab, _ = lab, print('the same lab')\nlab",
    'Question("2 + 2?", {"3": "One too few.", "4": "Two pairs."}, "4")',
    """
from gap_utils.widgets import Quiz
quiz = Quiz(2)
quiz.ask("1 + 3?", {"3": "One too few.", "4": "A pair of pairs.", "5": "Odd."}, "4", "01")
""",
    'quiz.ask("6 - 2?", {"3": "One too few.", "4": "Two pairs."}, "4", "03")',
    "quiz",
]
FOLDED = """<details><summary>Read the answer</summary>

**Four**, `2 + 2` or $2^2$, see [this](labs.ipynb).

</details>

Go on."""
GONE = "The kernel behind this lab is gone. Run its cell again to go on."

# the contrast of letters with the colour behind them, as WCAG reckons it
CONTRAST = """element => {
    const light = colour => {
        const canvas = new OffscreenCanvas(1, 1).getContext('2d');
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(
            x => x / 255 > 0.04045 ? ((x / 255 + 0.055) / 1.055) ** 2.4 : x / 255 / 12.92);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    let behind = element;
    const colourOf = e => getComputedStyle(e).backgroundColor;
    while (colourOf(behind) === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
    const style = getComputedStyle(element);
    const ink = element instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(ink), light(colourOf(behind))];
    return {ink: a, behind: b, contrast: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)};
}"""


@pytest.fixture(scope="module")
def opened(project, server, browser):
    """A notebook with a lab in two cells and a question; its tests leave the lab as it began."""
    cells = [nbformat.v4.new_code_cell(code.strip()) for code in CELLS]
    cells.append(nbformat.v4.new_markdown_cell(FOLDED))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, project / "notebooks" / "labs.ipynb")
    with new_page(browser) as page:
        opened = LabPage(page, server, "notebooks/labs.ipynb")
        opened.run_all()
        opened.save()
        yield opened
        opened.close()


@pytest.fixture
def lab(opened):
    lab = opened.lab("Lab")
    press_button(lab, "Start again")
    expect_said(lab, "max(2, 2, 9, 4) = 9")
    return lab


def test_light_and_dark_and_narrow(opened, lab):
    page = opened.page
    for theme, dark in [("JupyterLab Light", False), ("JupyterLab Dark", True)]:
        opened.command("apputils:change-theme", theme=theme)
        expect(
            page.locator(f'body[data-jp-theme-light="{str(not dark).lower()}"]')
        ).to_be_attached()
        written = lab.locator(".gap-words p, .gap-panel text.gap-ink, label > span, button, input")
        seen = [element.evaluate(CONTRAST) for element in written.all()[:40]]
        assert {each["ink"] > each["behind"] for each in seen} == {dark}
        assert min(each["contrast"] for each in seen) >= 4.5
    # one below the other, and nothing sticks out
    page.set_viewport_size({"width": 400, "height": 900})
    lab.scroll_into_view_if_needed()
    inside = lab.evaluate(
        """lab => [...lab.querySelectorAll('*')].every(
            e => e.closest('.gap-hidden, svg') || e.getBoundingClientRect().right
                 <= lab.getBoundingClientRect().right + 1)"""
    )
    assert inside
    first, second = (place_in_lab(lab)[start : start + 2] for start in (4, 8))
    assert (first[0], first[1] < second[1]) == (second[0], True)
    letters = lab.evaluate(
        """lab => Math.min(...[...lab.querySelectorAll('svg text')].map(
            e => parseFloat(getComputedStyle(e).fontSize) * e.getScreenCTM().a))"""
    )
    assert letters >= 11
    opened.command("apputils:change-theme", theme="JupyterLab Light")
    page.set_viewport_size({"width": 1400, "height": 1000})


def test_keys_go_to_the_lab_and_not_to_jupyterlab(opened, lab):
    """In command mode too, where letters and arrows are JupyterLab's."""
    page = opened.page
    page.locator(".jp-Cell .jp-InputPrompt").first.click()
    page.keyboard.press("Escape")
    before = opened.cells()
    slider = focus_slider(lab, "Window")
    for key, value in [("End", "4"), ("ArrowLeft", "3"), ("Home", "1"), ("ArrowUp", "2")]:
        page.keyboard.press(key)
        expect(slider).to_have_value(value)
    for letter in "abdxmydd":
        page.keyboard.press(letter)
    typed = lab.get_by_label("Window, as a number", exact=True)
    typed.focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("4")
    page.keyboard.press("Enter")
    expect_said(lab, "Window 4 of 4")
    typed.press("Control+A")
    page.keyboard.type("5")
    page.keyboard.press("Enter")
    expect(lab.get_by_role("alert")).to_have_text("Window goes from 1 to 4, by whole numbers.")
    lab.get_by_role("radio", name="max").focus()
    page.keyboard.press("ArrowDown")
    expect(lab.get_by_role("radio", name="average")).to_be_focused()
    # a click into the picture selects its cell, and keys go to the control that it moved
    page.locator(".jp-Cell .jp-InputPrompt").first.click()
    for square, role, name in [
        ("[data-set] >> nth=2", "slider", "Window"),
        ("[data-focus] >> nth=5", "spinbutton", "row 1, column 1"),
    ]:
        lab.locator(square).click()
        page.wait_for_timeout(300)  # JupyterLab may want the focus
        expect(lab.get_by_role(role, name=name, exact=True)).to_be_focused()
        for letter in "abdxmydd":
            page.keyboard.press(letter)
    page.keyboard.type("50")
    page.keyboard.press("Enter")
    expect_said(lab, "(8 + 5 + 3 + 1) / 4 = 4.25", "average 6.9375, max 50")
    assert opened.cells() == before


def test_python_moves_the_page_and_two_views_move_in_step(opened, lab):
    labs = opened.page.get_by_role("group", name="Lab", exact=True)
    expect(labs).to_have_count(2)
    opened.execute("lab.set(kernel_size=3, stride=1, window=2)")
    for view in labs.all():
        expect_said(view, "Window 2 of 4: rows 0 to 2, columns 1 to 3")
        expect(view.get_by_role("slider", name="Kernel", exact=True)).to_have_value("3")
    step_slider(labs.nth(1), "Window")
    for view in labs.all():
        expect_said(view, "Window 3 of 4: rows 1 to 3, columns 0 to 2")
        expect(view.get_by_role("slider", name="Window", exact=True)).to_have_value("3")
    opened.page.wait_for_timeout(300)
    opened.execute("print(lab.value.window)", said="3")


def test_a_busy_kernel(opened, lab):
    """Frames in store answer at once; others are made when the cell has ended, not beside it."""
    page, status = opened.page, lab.get_by_role("status")
    focus_slider(lab, "Window")
    page.wait_for_timeout(700)  # what is beside it is fetched
    opened.begin("began = time.time(); time.sleep(3); ended = time.time()")
    page.wait_for_timeout(300)
    page.keyboard.press("ArrowRight")
    expect_said(lab, "Window 2 of 4", timeout=500)
    focus_slider(lab, "Kernel")
    page.keyboard.press("End")
    expect(status).to_have_text("Waiting for the kernel…", timeout=1500)
    expect_said(lab, "Window 1 of 1")
    expect(status).not_to_have_text("Waiting for the kernel…")
    opened.execute(
        "print([at for at, _ in drawn if began < at < ended], {main for _, main in drawn})",
        said="[] {True}",
    )


def test_a_page_that_is_loaded_again_shows_what_was_on_view(opened, lab):
    step_slider(lab, "Window")
    question = opened.question("2 + 2?")
    question.get_by_role("radio", name="4").check()
    expect_said(question, "Right", "Two pairs.")
    opened.save()
    opened.page.wait_for_timeout(500)  # the kernel hears of it
    opened.page.reload()
    expect_said(lab, "max(7, 3, 6, 1) = 7")
    expect(lab.get_by_role("slider", name="Window", exact=True)).to_have_value("2")
    expect_said(question, "Right", "Two pairs.")
    expect(question.get_by_role("radio", name="4")).to_be_checked()
    assert "Window 3 of 4" in step_slider(lab, "Window")


def test_notebook_7_shows_the_same_lab_and_leaves_it_its_keys(opened, lab, server, page):
    other = NotebookPage(page, server, opened.name).lab("Lab")
    slider = focus_slider(other, "Window")
    for key, value in [("End", "4"), ("ArrowLeft", "3"), ("Home", "1"), ("ArrowUp", "2")]:
        page.keyboard.press(key)
        expect(slider).to_have_value(value)
    for letter in "abdd":
        page.keyboard.press(letter)
    expect(slider).to_be_focused()
    expect_said(other, "max(7, 3, 6, 1) = 7")
    expect(page.locator(".jp-Cell")).to_have_count(len(opened.cells()))
    opened.execute("print(lab.value.window)", said="2")


def test_a_score_follows_the_first_tries(opened):
    opened.run_all()
    page = opened.page
    score = opened.lab("Quiz")
    expect_said(score, "0 of 2 answered, 0 right at the first try.", "Only the first try counts.")
    first = opened.question("Question 1 of 2. 1 + 3?")
    first.get_by_role("radio", name="3").focus()
    for key in ("Space", "ArrowDown"):  # over one answer to the next
        page.keyboard.press(key)
    expect_said(first, "Right", "A pair of pairs. Lesson 01 explains it.")
    expect_said(score, "1 of 2 answered, 1 right at the first try.")
    second = opened.question("Question 2 of 2. 6 - 2?")
    second.get_by_role("radio", name="3").check()
    expect_said(score, "2 of 2 answered, 1 right", "Look again at lesson 03 (question 2).")
    page.wait_for_timeout(1100)
    second.get_by_role("radio", name="4").check()
    expect_said(second, "Right", "Two pairs. Lesson 03 explains it.")
    first.get_by_role("radio", name="5").check()
    expect_said(first, "Not this one", "Odd. Lesson 01 explains it.")
    said = ["2 of 2 answered, 1 right at the first try.", "Look again at lesson 03 (question 2)."]
    opened.execute("print(quiz.text)", said=" ".join(said))
    expect_said(score, *said)


@pytest.mark.parametrize("end", ["restarted", "shut down"])
def test_a_kernel_that_is_gone_leaves_the_picture_and_one_sentence(opened, end):
    opened.run_all()
    lab = opened.lab("Lab")
    before = step_slider(lab, "Window")
    panels = lab.locator(".gap-panel").first.inner_html()
    if end == "restarted":
        opened.command("kernelmenu:restart")  # asks first
        opened.page.locator(".jp-Dialog .jp-mod-accept").click()
        expect(lab.get_by_role("alert")).to_have_text(GONE)
    else:
        opened.command("kernelmenu:shutdown")
    focus_slider(lab, "Kernel")
    opened.page.keyboard.press("End")
    expect(lab.get_by_role("alert")).to_have_text(GONE)
    assert text_of(lab) == before
    assert lab.locator(".gap-panel").first.inner_html() == panels
    expect(lab.get_by_role("slider", name="Kernel", exact=True)).to_have_value("2")
    # what the page has needs no kernel
    focus_slider(lab, "Window")
    opened.page.keyboard.press("ArrowLeft")
    expect_said(lab, "Window 1 of 4")
    question = opened.question("2 + 2?")
    question.get_by_role("radio", name="3").check()
    expect_said(question, "Not this one", "One too few.")


@pytest.mark.parametrize(
    ("whose", "front_end"),
    [("one's own", LabPage), ("one's own", NotebookPage), ("somebody else's", LabPage)],
)
def test_the_next_day_the_stored_picture_shows(opened, project, server, whose, front_end):
    """A kernel has been started, but it knows nothing of the labs in the file."""
    opened.close()
    path = project / opened.name
    if whose == "somebody else's":  # what was changed outside is not trusted
        path.write_text(path.read_text().replace("the same lab", "the same PoolLab"))
    page = opened.page
    again = front_end(page, server, opened.name)
    outputs = page.locator(".jp-CodeCell").nth(1).locator(".jp-OutputArea")
    expect(outputs.locator("img")).to_be_visible()
    page.wait_for_timeout(1500)  # whatever else may come
    seen = page.locator(".jp-Notebook").inner_text()
    for odd in ("Error displaying", "Loading widget", "model not found", "{display"):
        assert odd not in seen
    assert outputs.inner_text().strip() in ("", "[2]:")
    question = page.locator(".jp-CodeCell").nth(3).locator(".jp-OutputArea")
    expect(question.get_by_text("Predict. 2 + 2?")).to_be_visible()
    expect(question.get_by_text("Two pairs.")).to_be_hidden()
    question.get_by_text("4", exact=True).click()
    expect(question.get_by_text("✓ Right")).to_be_visible()
    expect(question.get_by_text("Two pairs.")).to_be_visible()
    expect(question.get_by_text("One too few.")).to_be_hidden()
    assert question.get_by_text("✓ Right").evaluate("e => getComputedStyle(e).fontSize") == "24px"
    text = page.locator(".jp-RenderedMarkdown")
    expect(text.get_by_text("Go on.")).to_be_visible()
    for what in ("strong", "code", "mjx-container", "a"):
        expect(text.locator(f"details {what}")).to_be_hidden()
    text.get_by_text("Read the answer").click()
    for what in ("strong", "code", "mjx-container", "a"):
        expect(text.locator(f"details {what}")).to_be_visible()
    trusted = """Array.from(jupyterapp.shell.currentWidget.content.model.cells)
        .every(cell => cell.type !== "code" || cell.trusted)"""
    if front_end is LabPage:
        assert page.evaluate(trusted) == (whose == "one's own")
    again.close()
