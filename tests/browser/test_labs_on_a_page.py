"""Labs that need no kernel: controls with gaps, and `page.js` with a file of frames."""

from __future__ import annotations

import gzip

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from every_control import Everything, control, focus, press, problem, words
from gap_utils.svg import PALETTES
from gap_utils.widgets import PoolLab, Question
from gap_utils.widgets.page import Tour, lab_as_html, pack
from ladder import SPECIAL, WITH_A_KERNEL, Ladder
from page_host import ADDRESS, LabOnPage, PageHost, open_page

FAILED = "The pictures of this lab could not be loaded. Load the page again."
GAPS = {
    "place": [2, 5, 6, 9, 12],
    "way": ["up"],
    "word": ["a", "c"],
    "name": [0, 42],
    "on": [False],
}
FILE = pack(Tour(Ladder()))


@pytest.fixture
def page(lab_page):
    yield lab_page
    lab_page.unroute(ADDRESS + "labs/**")


@pytest.fixture
def gaps(page):
    return PageHost(page, Everything(offered=GAPS))


def status(host):
    return host.root.locator(".gap-status")


# values with gaps


def test_a_slider_steps_over_gaps(gaps):
    slider = control(gaps, "Place")
    for key, place in [("ArrowRight", 6), ("ArrowRight", 9), ("ArrowLeft", 6), ("Home", 2)]:
        press(gaps, "Place", "slider", key)
        gaps.settle()
        assert gaps.lab.value.place == place
        expect(words(gaps)).to_have_text(f"Place {place}, count 0.")
        expect(slider).to_have_attribute("aria-valuetext", str(place))
        expect(control(gaps, "Place, as a number", "spinbutton")).to_have_value(str(place))
    assert [slider.get_attribute(name) for name in ("min", "max")] == ["0", "4"]  # its places


def test_a_slider_without_gaps_again_says_its_own_number(gaps):
    press(gaps, "Place", "slider", "End")
    gaps.settle()
    slider = control(gaps, "Place")
    assert gaps.lab.value.place == 12  # from where on there are none
    assert slider.get_attribute("aria-valuetext") is None
    assert [slider.get_attribute(name) for name in ("min", "max")] == ["0", "20"]
    expect(slider).to_have_value("12")
    press(gaps, "Place", "slider", "ArrowLeft")
    gaps.settle()
    assert gaps.lab.value.place == 11


@pytest.mark.parametrize("typed", ["7", "0", "13", "5.5", ""])
def test_a_number_in_a_gap_is_refused(gaps, typed):
    label = "Place, as a number"
    press(gaps, label, "spinbutton", "Control+A", *(typed or ["Delete"]), "Enter")
    expect(problem(gaps)).to_have_text("Place is one of these here: 2, 5, 6, 9, 12.")
    expect(control(gaps, label, "spinbutton")).to_have_value("5")
    press(gaps, label, "spinbutton", "Control+A", "9", "Enter")
    gaps.settle()
    assert gaps.lab.value.place == 9
    expect(problem(gaps)).to_have_text("")


def test_what_is_fetched_ahead_is_what_can_be(gaps):
    focus(gaps, "Place")
    (question,) = gaps.asked
    assert [fields["place"] for fields in question["ahead"]] == [6, 2, 9]


def test_play_steps_over_gaps(gaps):
    press(gaps, "▶︎ Play Place", "button", "Enter")
    for place in (6, 9):
        gaps.settle()
        assert gaps.lab.value.place == place
        gaps.wait(800)
    gaps.settle()
    assert gaps.lab.value.place == 12


def test_options_that_cannot_be_taken(gaps):
    options = control(gaps, "Word", "combobox").locator("option")
    assert [option.is_disabled() for option in options.all()] == [False, True, False]
    expect(control(gaps, "upwards", "radio")).to_be_enabled()
    expect(control(gaps, "downwards", "radio")).to_be_disabled()
    expect(control(gaps, "On", "checkbox")).to_be_disabled()
    names = control(gaps, "Name", "combobox").locator("option:enabled")
    assert names.all_inner_texts() == ["name 0", "name 42"]
    press(gaps, "Word", "combobox", "ArrowDown")
    gaps.settle()
    assert gaps.lab.value.word == "c"
    press(gaps, "Name, find by name", "searchbox", *"name 4", "Enter")
    gaps.settle()
    assert gaps.lab.value.name == 42  # name 4 is before it, and not offered
    press(gaps, "Place, as a number", "spinbutton", "Control+A", *"12", "Enter")
    gaps.settle()
    for role, label in [("radio", "downwards"), ("checkbox", "On")]:
        expect(control(gaps, label, role)).to_be_enabled()
    expect(options.nth(1)).to_be_enabled()


# page.js


def html_of(lab=None, address="labs/one.frames"):
    lab = lab or Ladder()
    return lab_as_html(lab, Tour(lab), address, "https://kernel.test/")


class Files:
    """Answer requests for files of frames, when the test says so."""

    def __init__(self, page, **content):
        self.page, self.content, self.waiting, self.asked = page, content, [], []
        page.route(ADDRESS + "labs/**", self._answer)

    def _answer(self, route):
        name = route.request.url.rpartition("/")[2].removesuffix(".frames")
        self.asked.append(name)
        body = self.content.get(name)
        if body == "slow":
            self.waiting.append(route)
        elif body is None:
            route.fulfill(status=404, body=FILE)  # whatever comes with an error
        else:
            route.fulfill(body=body)

    def arrive(self):
        """Answer the request that waits, when it is there."""
        while not self.waiting:
            self.page.wait_for_timeout(10)
        self.waiting.pop().fulfill(body=FILE)


def open_ladder(page, body=FILE, lab=None):
    files = Files(page, one=body)
    host = LabOnPage(page, html_of(lab))
    return host, files


@pytest.fixture
def host(page):
    host, _ = open_ladder(page)
    host.load()
    return host


def said(host, rung, top=4, way="up", more=""):
    expect(words(host)).to_have_text(f"Rung {rung} of {top}, {way}.{more}")


def test_the_lab_takes_the_place_of_its_first_frame(page):
    host, files = open_ladder(page)
    assert files.asked == []  # not before it is to be loaded
    expect(host.root).to_have_count(1)
    expect(host.root).to_have_attribute("aria-label", "Ladder")
    said(host, 0)
    labels = host.root.locator(".gap-controls label, .gap-controls button").all_inner_texts()
    assert not any("Colour" in label or "A file" in label for label in labels)
    expect(host.root.get_by_role("button", name="Guess")).to_have_count(0)
    expect(host.root.get_by_role("button", name="Paint")).to_have_count(0)
    expect(page.get_by_role("link", name="Get one.")).to_have_attribute(
        "href", "https://kernel.test/"
    )


def test_there_is_no_barrier_before_and_after_the_lab_is_there(page):
    open_page(page, still=False)  # what looks for barriers waits itself
    lab = Ladder(wet=True, word="b")
    page.evaluate(
        "html => document.querySelector('main').insertAdjacentHTML('beforeend', html)", html_of(lab)
    )
    expect(page.locator(".gap-lab")).to_contain_text("wet as rain")
    results = Axe().run(page)
    assert results.response["violations"] == [], results.generate_report()
    open_ladder(page, lab=lab)
    press(LabOnPage(page, html_of()), "Rung", "slider", "ArrowRight")
    results = Axe().run(page)
    assert results.response["violations"] == [], results.generate_report()


def colour_of(host, n):
    """Red, green, blue and opacity of the first square of a canvas."""
    return (
        host.root.locator("canvas")
        .nth(n)
        .evaluate("canvas => [...canvas.getContext('2d').getImageData(0, 0, 1, 1).data]")
    )


def test_frames_are_found_with_all_that_they_show(host):
    for rung in (1, 2, 4):
        press(host, "Rung", "slider", "ArrowRight")
        said(host, rung)
        assert host.shown["rung"] == rung
        texts = host.root.locator(".gap-panel svg:not(.gap-over) text").all_text_contents()
        assert texts == ["what stays", f"rung {rung}"]
        for n, level in enumerate((4, rung)):
            assert colour_of(host, n) == PALETTES["signed"][level].tolist()
        canvas = host.root.locator("canvas").nth(1).bounding_box()
        host.page.mouse.move(canvas["x"] + 5, canvas["y"] + 5)
        expect(host.root.locator(".gap-bubble")).to_have_text(f"row 0, column 0{rung + 0.5}")
        host.page.mouse.move(0, 0)
    expect(problem(host)).to_have_text("")
    press(host, "Word", "combobox", "ArrowDown")
    said(host, 4, more=SPECIAL)
    expect(host.root.locator("> .gap-hidden").first).to_contain_text("word='b'")


def test_what_is_pulled_along_has_a_note(host):
    press(host, "Rung", "slider", "End")
    press(host, "Top", "slider", "ArrowLeft")
    said(host, 2, top=2)
    expect(status(host)).to_have_text("The rung is now 2.")
    expect(control(host, "Rung")).to_have_value("2")
    press(host, "Rung", "slider", "ArrowLeft")
    said(host, 1, top=2)
    expect(status(host)).to_have_text("")
    press(host, "Rung", "slider", "ArrowRight")  # to the same frame, which needs no note now
    said(host, 2, top=2)
    expect(status(host)).to_have_text("")


def test_a_button_leads_on_where_the_tour_does(host):
    expect(control(host, "Start again", "button")).to_have_attribute("aria-disabled", "true")
    for rung in (1, 2):
        press(host, "Climb", "button", "Enter")
        said(host, rung)
    press(host, "Climb", "button", "Enter")  # to rung 3
    expect(problem(host)).to_have_text(WITH_A_KERNEL)
    expect(control(host, "Rung")).to_have_value("2")
    press(host, "Fall", "button", "Enter")
    expect(problem(host)).to_have_text("")
    said(host, 0)
    press(host, "down", "radio", "Space")
    said(host, 0, way="down")
    press(host, "Start again", "button", "Enter")
    said(host, 0)


def test_a_touch_leads_on_where_the_tour_does(host):
    squares = host.root.locator("[data-set]")
    squares.nth(1).click()  # rung 3
    expect(problem(host)).to_have_text(WITH_A_KERNEL)
    said(host, 0)
    squares.nth(0).click()
    expect(problem(host)).to_have_text("")
    said(host, 2)


def test_a_pull_over_a_gap_goes_on_behind_it(host):
    square = host.root.locator("[data-drag]").bounding_box()
    scale = square["width"] / 90
    x, y = square["x"] + 5, square["y"] + 5
    host.page.mouse.move(x, y)
    host.page.mouse.down()
    for rung, problem_said in [(1, ""), (2, ""), (3, WITH_A_KERNEL), (4, "")]:
        host.page.mouse.move(x + 10 * rung * scale, y)
        expect(problem(host)).to_have_text(problem_said)
        assert host.shown["rung"] == (2 if rung == 3 else rung)
    host.page.mouse.move(x + 80 * scale, y)  # beyond the end
    host.page.mouse.up()
    said(host, 4)


def test_play_goes_to_the_end_and_stops(host):
    button = host.root.locator(".gap-play button")
    press(host, "▶︎ Play Rung", "button", "Enter")
    for rung in (1, 2, 4):
        said(host, rung)
        expect(button.locator(".gap-play-label")).to_have_text("■ Stop")
        host.wait(800)
    expect(button.locator(".gap-play-label")).to_have_text("▶︎ Play Rung")
    host.wait(800)
    said(host, 4)


def test_a_lab_of_the_lessons_plays_through_its_windows_and_no_further(page):
    lab = PoolLab(((1, 2, 3), (4, 5, 6), (7, 8, 9)), mode="avg", stride=1)
    host, _ = open_ladder(page, pack(Tour(lab)), lab)
    host.load()
    label = host.root.locator(".gap-play-label")
    press(host, "▶︎ Play Window", "button", "Enter")
    for window, result in [(2, 4), (3, 6), (4, 7)]:
        expect(words(host)).to_contain_text(f"= {result}")
        assert host.shown["window"] == window
        host.wait(800)
    expect(label).to_have_text("▶︎ Play Window")
    expect(control(host, "Window")).to_have_attribute("max", "4")
    press(host, "Global: kernel = whole map", "button", "Enter")
    expect(control(host, "Window")).to_be_disabled()  # one is left
    expect(control(host, "Map size")).to_have_count(0)
    # no field to type into is there, and nothing says that one is
    expect(host.root.get_by_role("spinbutton", name="row 0, column 0")).to_have_count(0)
    expect(host.root.locator(".gap-typing")).not_to_be_visible()


def test_a_question_waits_for_the_file(page):
    host, files = open_ladder(page, "slow")
    press(host, "Rung", "slider", "ArrowRight")
    host.begin_to_load()
    expect(status(host)).to_have_text("")  # it may come at once
    host.wait(400)
    expect(status(host)).to_have_text("Loading…")
    expect(control(host, "Rung")).to_have_value("1")
    said(host, 0)
    host.wait(2000)  # asks again whether there is somebody
    # a key that is held, a button pressed after it, and another control after that
    press(host, "Rung", "slider", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowLeft")
    press(host, "Climb", "button", "Enter")
    press(host, "down", "radio", "Space")
    files.arrive()
    said(host, 2, way="down")
    expect(status(host)).to_have_text("")
    expect(problem(host)).to_have_text("")
    assert files.asked == ["one"]
    is_quiet(host)
    press(host, "Rung", "slider", "ArrowRight")
    said(host, 4, way="down")


def is_quiet(host):
    """Nothing is waited for, and the controls show what the frame shows."""
    assert host.run("({ lab }) => [lab.waiting, lab.isPressed(), lab.isStale()]") == [False] * 3


def test_what_is_beyond_the_file_is_said_when_it_has_come(page):
    host, files = open_ladder(page, "slow")
    press(host, "Rung", "slider", "ArrowRight")
    host.root.locator("[data-set]").nth(1).click()  # rung 3, which is not in the file
    press(host, "Climb", "button", "Enter")  # and nothing leads on from there
    host.begin_to_load()
    expect(problem(host)).to_have_text("")
    files.arrive()
    expect(problem(host)).to_have_text(WITH_A_KERNEL)
    said(host, 0)
    is_quiet(host)
    press(host, "Rung", "slider", "ArrowRight")
    expect(problem(host)).to_have_text("")
    said(host, 1)


BROKEN = {
    "missing": None,
    "empty": b"",
    "no frames": b"<html>not found</html>",
    "cut short": FILE[: len(FILE) // 2],
    "cut short and unzipped": gzip.decompress(FILE)[:1000],
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_read_is_said(page, body):
    host, _ = open_ladder(page, body)
    host.load()
    expect(problem(host)).to_have_text("")  # nothing was asked yet
    for label, role, key in [("Rung", "slider", "ArrowRight"), ("Climb", "button", "Enter")]:
        press(host, label, role, key)
        expect(problem(host)).to_have_text(FAILED)
        expect(control(host, "Rung")).to_have_value("0")
        said(host, 0)


def test_what_was_asked_before_a_file_failed_is_said_too(page):
    host, _ = open_ladder(page, None)
    press(host, "Rung", "slider", "ArrowRight", "ArrowRight")
    host.load()
    expect(problem(host)).to_have_text(FAILED)
    expect(control(host, "Rung")).to_have_value("0")


def test_a_server_may_have_unzipped_the_file(page):
    host, _ = open_ladder(page, gzip.decompress(FILE))
    host.load()
    press(host, "Rung", "slider", "ArrowRight")
    said(host, 1)
    assert colour_of(host, 1) == PALETTES["signed"][1].tolist()


def test_a_file_is_fetched_once(page):
    host, files = open_ladder(page)
    host.run("({ load }) => Promise.all([load(), load()])")
    host.load()
    assert files.asked == ["one"]


def test_two_labs_on_a_page_know_nothing_of_each_other(page):
    other = Ladder(top=7, rung=1)
    Files(page, one=FILE, two=pack(Tour(other)))
    one, two = LabOnPage(page, html_of()), LabOnPage(page, html_of(other, "labs/two.frames"))
    two.load()
    press(two, "down", "radio", "Space")
    said(two, 1, top=7, way="down")
    said(one, 0)
    expect(control(one, "up", "radio")).to_be_checked()
    one.load()
    press(one, "Rung", "slider", "ArrowRight")
    said(one, 1)
    said(two, 1, top=7, way="down")


def test_a_lab_that_is_taken_away_while_its_file_comes(page):
    host, files = open_ladder(page, "slow")
    press(host, "Rung", "slider", "ArrowRight")
    host.begin_to_load()
    host.run("({ el }) => el.remove()")
    page.keyboard.press("Escape")
    files.arrive()
    assert host.run("async ({ lab, load }) => (await load(), lab.frame.fields.rung)") == 1


def test_a_question_needs_no_file(page):
    files = Files(page)
    question = Question("How many?", {"one <b>": "No & no.", "two": "Yes."}, "two")
    host = LabOnPage(page, lab_as_html(question))
    host.load()
    for answer, feedback in [("one <b>", "Not this one"), ("two", "Right")]:
        host.root.get_by_role("radio", name=answer).check()
        expect(words(host)).to_contain_text(feedback)
    host.wait(5000)
    expect(status(host)).to_have_text("")
    expect(problem(host)).to_have_text("")
    is_quiet(host)
    assert files.asked == []
