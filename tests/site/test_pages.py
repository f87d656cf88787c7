"""The pages as a reader has them: light and dark, on a phone, without JavaScript."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from built_site import LESSONS, TRAINED, in_python, lab_in_python, labs_of
from gap_utils.widgets import PoolLab
from tools.build_site import STARTS_WITH

NARROW = 400  # CSS pixels
# of pages that are made in the same way, one or two
PAGES = [
    "index.html",
    *[f"notebooks/{lesson}.html" for lesson in LESSONS],
    *[f"{name}.html" for name in ("install", "teachers", "engineers", "data", "api", "search")],
    *[f"{name}.html" for name in ("api/localisation", "api/lab", "_modules/index")],
    "_modules/gap_utils/localisation.html",
]
# what axe says of the theme: the name of the site is in no landmark, in the sidebar or, on a
# phone, in the dialog that opens it
OF_THE_THEME = {("region", ".sidebar-primary-items__start > .sidebar-primary-item:nth-child(1)")}

# the smallest letters that can be seen, with their size in CSS pixels
SMALLEST = """() => {
    const sizes = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode.nodeValue.trim();
        const of = walker.currentNode.parentElement;
        const seen = { visibilityProperty: true, opacityProperty: true };
        if (!text || of.closest("script, style, noscript, .gap-hidden")) continue;
        if (!of.checkVisibility(seen)) continue;
        const scale = of.ownerSVGElement ? of.ownerSVGElement.getScreenCTM().a : 1;
        sizes.push([parseFloat(getComputedStyle(of).fontSize) * scale, text]);
    }
    return sizes.sort((a, b) => a[0] - b[0])[0];
}"""
# what is wider than the page, outside of what scrolls by itself
TOO_WIDE = """() => [...document.querySelectorAll("body *")]
    .filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1)
    .map((e) => `${e.tagName} ${e.className} ${e.textContent.trim().slice(0, 40)}`).slice(0, 5)"""


@pytest.fixture(scope="module", params=PAGES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def page(only_visitor, name):
    """A page, opened once."""
    only_visitor.wrong.clear()
    only_visitor.page.emulate_media(reduced_motion="reduce")
    only_visitor.open(name)
    yield only_visitor.page
    assert only_visitor.wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_of_ours(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    # without its preload, which looks for styles in wrong places
    options = {"preload": False}
    if scheme == "dark":  # where only the colours are others
        options["runOnly"] = ["color-contrast", "link-in-text-block"]
    results = Axe().run(page, options=options)
    page.emulate_media(color_scheme="light")
    found = {
        (violation["id"], *node["target"])
        for violation in results.response["violations"]
        for node in violation["nodes"]
    }
    assert found - OF_THE_THEME == set(), results.generate_report()
    brightest = max(map(int, re.findall(r"\d+", colour)[:3]))
    assert brightest < 50 if scheme == "dark" else brightest > 200


def test_a_phone_shows_it_without_scrolling_sideways(page):
    page.set_viewport_size({"width": NARROW, "height": 800})
    width = page.evaluate("document.documentElement.scrollWidth")
    too_wide = page.evaluate(TOO_WIDE) if width > NARROW else []
    smallest = page.evaluate(SMALLEST)
    page.set_viewport_size({"width": 1200, "height": 900})
    assert width <= NARROW, too_wide
    assert smallest[0] >= 11, smallest


@pytest.fixture(scope="module")
def still(visit, only_visitor):
    """A browser without JavaScript; Playwright's own scripts run there too."""
    only_visitor.page.goto("about:blank")
    context = only_visitor.page.context.browser.new_context(java_script_enabled=False)
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("name", [f"notebooks/{lesson}.html" for lesson in LESSONS])
def test_without_javascript_the_first_frames_and_the_questions_are_there(
    still, address, site, name
):
    still.goto(address + name)
    for lab in (lab for lab in labs_of(site).values() if lab.page == name):
        root = still.locator(f"[data-frames$='/{lab.frames}.frames']")
        first = lab.opening["frames"][0]
        assert root.locator(".gap-hidden").text_content() == first["text"]
        assert root.locator(".gap-words p").all_inner_texts() == words_of(first)
        for picture in root.locator("svg").all():
            assert picture.bounding_box()["height"] > 50
        if lab.frames not in TRAINED:
            assert first["text"] == lab_in_python(lab).text
    questions = in_python(name.removeprefix("notebooks/").removesuffix(".html")).questions
    roots = still.locator("[data-lab$=Question]").all()
    assert len(roots) == len(questions) >= 1
    for root, question in zip(roots, questions, strict=True):
        expect(root).to_contain_text(question.question)
        for place, answer in enumerate(question.answers):
            folded = root.locator("details").nth(place)
            feedback = folded.get_by_text(question.answers[answer], exact=True)
            expect(feedback).to_be_hidden()
            folded.locator("summary").click()
            expect(feedback).to_be_visible()
            sign = "✓ Right" if answer == question.right else "✗ Not this one"
            expect(folded).to_contain_text(sign)
    for folded in still.locator(".tag_reveal details").all():
        assert folded.get_attribute("open") is None


def words_of(frame) -> list[str]:
    return [*filter(None, ["".join(words for words, _ in frame["large"]), *frame["words"]])]


def test_the_first_lab_moves_by_itself(visitor):
    visitor.page.emulate_media(reduced_motion="no-preference")
    visitor.open("index.html")
    lab = visitor.page.get_by_role("group", name="PoolLab")
    expect(lab.get_by_role("button", name="Stop")).to_be_visible()
    for window in (2, 3):
        expect(lab.get_by_role("slider", name="Window", exact=True)).to_have_value(str(window))
        python = PoolLab(**STARTS_WITH, window=window)
        expect(lab.locator(".gap-hidden").first).to_have_text(python.text)
    lab.get_by_role("button", name="Stop").click()
    expect(lab.get_by_role("button", name="Play Window")).to_be_visible()


def test_the_first_lab_stands_still_for_who_asked_for_it(visitor):
    visitor.page.emulate_media(reduced_motion="reduce")
    visitor.open("index.html")
    lab = visitor.page.get_by_role("group", name="PoolLab")
    expect(lab.get_by_role("button", name="Play Window")).to_be_visible()
    visitor.page.wait_for_timeout(2000)  # more than two steps
    expect(lab.get_by_role("button", name="Play Window")).to_be_visible()
    expect(lab.locator(".gap-hidden").first).to_have_text(PoolLab(**STARTS_WITH).text)
    lab.get_by_role("button", name="Play Window").click()  # who wants it gets it
    expect(lab.get_by_role("slider", name="Window", exact=True)).to_have_value("2")
