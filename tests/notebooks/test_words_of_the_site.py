"""docs/cells.json, with what only the pages of the site have of a lesson, fits the lessons."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import nbformat
import pytest

from nbval_pictures import ROOT
from tools.build_site import Lesson, Site

LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CELLS = {cell.id: cell for path in LESSONS for cell in nbformat.read(path, as_version=4).cells}
WORDS = json.loads((ROOT / "docs" / "cells.json").read_text(encoding="utf-8"))
LONGEST = 200  # letters of an alt: it is read aloud in one go


def without_alt(cell) -> list:
    """The stored pictures of a cell that bring no words of their own."""
    return [
        output
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
        and not output.metadata.get("image/png", {}).get("alt")
    ]


def with_a(kind: str) -> dict[str, str]:
    """The texts of one kind, by the ids of their cells."""
    return {name: more[kind] for name, more in WORDS.items() if kind in more}


def test_every_entry_is_of_a_cell_and_of_a_known_kind():
    assert len(CELLS) == sum(len(nbformat.read(path, as_version=4).cells) for path in LESSONS)
    assert set(WORDS) <= set(CELLS)
    assert [*WORDS] == sorted(WORDS)
    for name, more in WORDS.items():
        assert more and set(more) <= {"note", "formula", "alt"}, name


def test_every_stored_picture_has_words_and_no_others_have():
    pictures = {name for name, cell in CELLS.items() if without_alt(cell)}
    assert {name[:2] for name in pictures} == {path.name[:2] for path in LESSONS}
    assert set(with_a("alt")) == pictures


@pytest.mark.parametrize("name", with_a("alt"))
def test_the_words_for_a_picture_are_one_short_sentence(name):
    alt = WORDS[name]["alt"]
    assert alt == alt.strip() and 20 < len(alt) <= LONGEST
    assert alt[0].isupper() or alt[0].isdigit()
    assert alt[-1].isalnum() or alt[-1] == "%", "a sentence without its stop, as the others"
    assert "\n" not in alt and ". " not in alt
    assert "figure" not in alt.lower()


def test_no_two_pictures_have_the_same_words():
    alts = [*with_a("alt").values()]
    assert len({*alts}) == len(alts)


@pytest.mark.parametrize("name", with_a("note"))
def test_a_note_is_below_a_text_and_ends_with_a_stop(name):
    note = WORDS[name]["note"]
    assert CELLS[name].cell_type == "markdown"  # notes of other cells would not be shown
    assert note == note.strip() and len(note) > 20
    assert note.lstrip("*")[0].isupper() and note[-1] == "."


def test_every_formula_has_its_mathml():
    signs = {
        name: cell.source.count("$$")
        for name, cell in CELLS.items()
        if cell.cell_type == "markdown" and "$$" in cell.source
    }
    assert signs
    assert set(signs.values()) == {2}  # a cell has one entry, so it can have one formula
    assert set(with_a("formula")) == set(signs)
    for name, formula in with_a("formula").items():
        box = ET.fromstring(formula)
        assert (box.tag, box.get("class")) == ("div", "gap-formula"), name
        (math,) = box
        assert (math.tag, math.get("display")) == ("math", "block"), name
        assert "".join(math.itertext()).strip(), name


def test_a_page_refuses_a_picture_without_words(tmp_path):
    lesson = Lesson(LESSONS[1], Site(tmp_path))
    (cell,) = (cell for cell in lesson.notebook.cells if cell.id == "01-32")
    said = "".join(map(str, lesson.convert_outputs(cell)))
    assert f'alt="{WORDS["01-32"]["alt"]}"' in said
    del lesson.more["01-32"]
    with pytest.raises(ValueError, match=r"^expected words for the picture of cell 01-32 in docs/"):
        [*lesson.convert_outputs(cell)]
