"""The pages on paper: a handout with the text, and nothing to press."""

from __future__ import annotations

import re

import pytest

from built_site import LESSONS, read_pages

LEFT_OUT = ("Contents", "Solutions")  # the theme's own table, and what is not for a handout
PAGES = ["index.html", "teachers.html", *[f"notebooks/{lesson}.html" for lesson in LESSONS]]
# what is of use on a screen only, and takes room
ON_SCREEN_ONLY = """() => [...document.querySelectorAll(`
        button, summary, input, select, header, footer, nav, aside, dialog, .headerlink,
        .bd-sidebar, .gap-kernel, .gap-note, .gap-controls, .prev-next-footer`)]
    // a question stays, with its answers to tick
    .filter((e) => !e.closest(".gap-place > details, .gap-plain, .onlyprint"))
    .filter((e) => e.checkVisibility() && e.getBoundingClientRect().height > 0)
    .map((e) => `${e.tagName} ${e.className}`)"""


@pytest.mark.parametrize("name", PAGES)
def test_paper_has_the_text_and_nothing_to_press(visitor, site, name):
    page = visitor.page
    visitor.open(name)
    page.emulate_media(media="print")
    left = page.evaluate(ON_SCREEN_ONLY)
    words = page.locator("body").inner_text()
    pdf = page.pdf(format="A4", tagged=True, outline=True)
    page.emulate_media(media="screen")
    assert left == []
    headings = [text.strip() for level, text in read_pages(site)[name].headings if level <= 2]
    headings = [text for text in headings if text not in LEFT_OUT]
    titles = titles_in_pdf(pdf)
    assert headings and "Show the solution" not in words
    for heading in headings:
        assert heading in words
        assert any(title.startswith("".join(heading.split())) for title in titles), heading
    # a lesson is some pages, and not one with the rest cut off
    assert pdf.count(b"/Type /Page\n") > (3 if name.startswith("notebooks/") else 0)


def titles_in_pdf(pdf: bytes) -> list[str]:
    """The outline, which Chromium makes of the headings on paper, without spaces.

    Of a heading in two lines it keeps none between them.
    """
    plain = [re.sub(rb"\\(.)", rb"\1", text) for text in re.findall(rb"/Title \((.*?)\)\n", pdf)]
    other = [bytes.fromhex(text.decode()) for text in re.findall(rb"/Title <FEFF(\w+)>", pdf)]
    titles = [text.decode() for text in plain] + [text.decode("utf-16-be") for text in other]
    return ["".join(title.split()) for title in titles]
