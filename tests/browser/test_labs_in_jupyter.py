"""What JupyterLab does to labs: themes, narrow windows, reloads, kernels that restart or are gone.

Each test opens a small notebook of its own.
"""

from __future__ import annotations

import nbformat
import pytest
from playwright.sync_api import expect

from driver import (
    LabPage,
    expect_said,
    focus_slider,
    open_browser,
    place_in_lab,
    press_button,
    serve_jupyterlab,
    step_slider,
    text_of,
)

SETUP = """
import sys
sys.path.insert(0, "..")
from gap_utils.widgets import PoolLab, Question
"""
POOL = "lab = PoolLab()\nlab"
QUESTION = 'Question("2 + 2?", {"3": "One too few.", "4": "Two pairs."}, "4")'
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


def notebook(*codes: str):
    cells = [nbformat.v4.new_code_cell(code.strip()) for code in (SETUP, *codes)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=kernel)


@pytest.fixture
def run(open_lesson, tmp_path):
    """Open a notebook with these cells, and run them."""

    def run_(*codes: str):
        nbformat.write(notebook(*codes), tmp_path / "labs.ipynb")
        opened = open_lesson("labs.ipynb", source=tmp_path)
        opened.run_all()
        return opened

    return run_


def test_light_and_dark_and_narrow(run):
    opened = run(POOL, QUESTION)
    page, lab = opened.page, opened.lab("PoolLab")
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


def test_a_page_that_is_loaded_again_shows_what_was_on_view(run):
    opened = run(POOL, QUESTION)
    step_slider(opened.lab("PoolLab"), "Window")
    question = opened.question("2 + 2?")
    question.get_by_role("radio", name="4").check()
    expect_said(question, "Right. Two pairs.")
    opened.save()
    opened.page.wait_for_timeout(500)  # the kernel hears of it
    opened.page.reload()
    lab = opened.lab("PoolLab")
    expect_said(lab, "max(7, 3, 6, 1) = 7")
    expect(lab.get_by_role("slider", name="Window", exact=True)).to_have_value("2")
    expect_said(question, "Right. Two pairs.")
    expect(question.get_by_role("radio", name="4")).to_be_checked()
    assert "Window 3 of 4" in step_slider(lab, "Window")


@pytest.mark.parametrize("end", ["restarted", "shut down"])
def test_a_kernel_that_is_gone_leaves_the_picture_and_one_sentence(run, end):
    opened = run(POOL, QUESTION)
    lab = opened.lab("PoolLab")
    before = step_slider(lab, "Window")
    panels = lab.locator(".gap-panels").inner_html()
    if end == "restarted":
        opened.command("kernelmenu:restart")  # asks first
        opened.page.locator(".jp-Dialog .jp-mod-accept").click()
        opened.wait_until_idle(2)
    else:
        opened.command("kernelmenu:shutdown")
    focus_slider(lab, "Kernel")
    opened.page.keyboard.press("End")
    expect(lab.get_by_role("alert")).to_have_text(GONE, timeout=3000)
    assert text_of(lab) == before
    assert lab.locator(".gap-panels").inner_html() == panels
    expect(lab.get_by_role("slider", name="Kernel", exact=True)).to_have_value("2")
    # what the page has needs no kernel
    focus_slider(lab, "Window")
    opened.page.keyboard.press("ArrowRight")
    expect_said(lab, "Window 3 of 4")
    question = opened.question("2 + 2?")
    question.get_by_role("radio", name="3").check()
    expect_said(question, "Not this one. One too few.")


@pytest.mark.parametrize("trusted", [True, False])
def test_the_next_day_the_stored_picture_shows(run, project, tmp_path, trusted):
    opened = run(POOL, QUESTION)
    step_slider(opened.lab("PoolLab"), "Window")
    opened.save()
    opened.close()
    if trusted:
        look_at_the_next_day(LabPage(opened.page, (opened.address, opened.token), opened.name))
        return
    with serve_jupyterlab(project, tmp_path) as server, open_browser() as page:
        look_at_the_next_day(LabPage(page, server, opened.name))


def look_at_the_next_day(opened):
    """A kernel has been started, but it knows nothing of the labs in the file."""
    page = opened.page
    outputs = opened.cell("lab = PoolLab()").locator(".jp-OutputArea")
    expect(outputs.locator("img")).to_be_visible()
    page.wait_for_timeout(2000)  # whatever else may come
    seen = page.locator(".jp-Notebook").inner_text()
    for odd in ("Error displaying", "Loading widget", "model not found", "{display"):
        assert odd not in seen
    assert outputs.inner_text().strip() in ("", "[2]:")
    assert "( ) 3" in opened.cell("2 + 2?").locator(".jp-OutputArea").inner_text()
    opened.close()


def test_a_busy_kernel(run):
    """Frames in store answer at once; others are made when the cell has ended, not beside it."""
    opened = run(
        """
import threading, time
from dataclasses import asdict
drawn = []
class Watched(PoolLab):
    def draw(self, state):
        drawn.append((time.time(), threading.current_thread() is threading.main_thread()))
        return super().draw(state)
Watched()
""",
        "began = time.time(); time.sleep(busy := globals().get('busy', 0)); ended = time.time()",
        "print([(now, main) for now, main in drawn if began < now < ended],"
        " {main for _, main in drawn}, len(drawn))",
    )
    page, lab = opened.page, opened.lab("Watched")
    focus_slider(lab, "Window")
    page.wait_for_timeout(1000)
    opened.execute("busy = 3")
    opened.run_cell(2)
    page.wait_for_timeout(500)
    page.keyboard.press("ArrowRight")
    expect(lab.locator(".gap-words")).to_contain_text("Window 2 of 4", timeout=300)
    step = lab.get_by_role("slider", name="Kernel", exact=True)
    step.focus()
    page.keyboard.press("End")
    expect(lab.get_by_role("status")).to_have_text("Waiting for the kernel…", timeout=1500)
    expect_said(lab, "Window 1 of 1")
    expect(lab.get_by_role("status")).not_to_have_text("Waiting for the kernel…")
    opened.run_cell(3)
    expect(opened.cell("print([(now").locator(".jp-OutputArea-output")).to_contain_text("[] {True}")


def test_python_moves_the_page_and_two_views_move_in_step(run):
    opened = run(POOL, "lab")
    labs = opened.page.get_by_role("group", name="PoolLab", exact=True)
    expect(labs).to_have_count(2)
    opened.execute("lab.set(kernel_size=3, stride=1, window=2)")
    for view in labs.all():
        expect_said(view, "Window 2 of 4: rows 0 to 2, columns 1 to 3")
        expect(view.get_by_role("slider", name="Kernel", exact=True)).to_have_value("3")
    step_slider(labs.nth(1), "Window")
    for view in labs.all():
        expect_said(view, "Window 3 of 4: rows 1 to 3, columns 0 to 2")
        expect(view.get_by_role("slider", name="Window", exact=True)).to_have_value("3")
    opened.execute("print(lab.value.window)", said="3")


def test_keys_go_to_the_lab_and_not_to_jupyterlab(run):
    """In command mode too, where letters and arrows are JupyterLab's."""
    opened = run(POOL)
    page, lab = opened.page, opened.lab("PoolLab")
    page.locator(".jp-Cell .jp-InputPrompt").first.click()
    page.keyboard.press("Escape")
    before = opened.cells()
    slider = focus_slider(lab, "Window")
    for key, value in [("End", "4"), ("ArrowLeft", "3"), ("Home", "1"), ("ArrowUp", "2")]:
        page.keyboard.press(key)
        expect(slider).to_have_value(value)
    for letter in "abdxmy":
        page.keyboard.press(letter)
    page.keyboard.press("d")
    page.keyboard.press("d")
    typed = lab.get_by_label("Window, as a number", exact=True)
    typed.focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("4")
    page.keyboard.press("Enter")
    expect_said(lab, "Window 4 of 4")
    page.keyboard.press("ArrowDown")
    expect_said(lab, "Window 3 of 4")
    lab.get_by_role("radio", name="max").focus()
    page.keyboard.press("ArrowDown")
    expect(lab.get_by_role("radio", name="average")).to_be_focused()
    press_button(lab, "Start again")
    expect_said(lab, "max(2, 2, 9, 4) = 9")
    assert opened.cells() == before
