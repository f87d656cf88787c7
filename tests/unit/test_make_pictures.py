"""The moving picture in the README and the first lesson is of the PoolLab there is."""

from __future__ import annotations

import re
from base64 import b64decode
from importlib.metadata import version
from io import BytesIO

import nbformat
import numpy as np
import pytest
from PIL import Image, ImageSequence

from gap_utils.figures import SCALE
from gap_utils.svg import picture_of
from make_pictures import IN_A_TEXT, LESSON, MOVING, README, moving_picture, put, story
from nbval_pictures import TOLERANCE, pinned_versions

AGAIN = "make the pictures again: python -m tools.make_pictures"


def test_readme_and_lesson_show_the_same_picture_at_its_size():
    lesson = nbformat.read(LESSON, as_version=4)
    (cell,) = (cell for cell in lesson.cells if IN_A_TEXT in cell.source)
    readme = README.read_text(encoding="utf-8")
    gif = MOVING.read_bytes()
    width = Image.open(BytesIO(gif)).width // SCALE
    form = r'<img src="{}" width="(\d+)" alt="(.+)">'
    data, in_lesson, alt = re.search(form.format(f"{IN_A_TEXT}(.+?)"), cell.source).groups()
    assert b64decode(data) == gif, AGAIN
    in_readme, alt_in_readme = re.search(form.format("docs/pool_lab.gif"), readme).groups()
    assert [int(in_lesson), int(in_readme)] == [width, width]
    # the window, the map and where the story ends, for those who do not see it
    for words in (alt, alt_in_readme):
        assert all(said in words for said in ("window", "map", "output", "4.0625"))


def test_the_picture_is_small_and_comes_to_rest():
    moving = Image.open(MOVING)
    assert moving.info["loop"] == 2  # plays again twice
    stays = [frame.info["duration"] for frame in ImageSequence.Iterator(moving)]
    assert stays == [1000] * 9 + [4000]
    assert MOVING.stat().st_size < 300_000


def test_the_story_is_average_pooling_and_then_all_of_the_map():
    sums = [frame.large for frame in story()]
    assert sums[0] == "(2 + 2 + 9 + 4) / 4 = 4.25"
    assert sums[8] == "(2 + 4 + 2 + 6) / 4 = 3.5"
    assert sums[9].endswith("/ 16 = 4.0625")
    assert len(sums) == 10


def test_the_place_of_the_picture_is_found_or_it_is_said():
    assert put('<img src="a.gif" width="5">', "a.gif", "b.gif", 6) == '<img src="b.gif" width="6">'
    for text in ('<img width="5" src="a.gif">', '<img src="a.gif" width="5">' * 2):
        with pytest.raises(ValueError, match=r'one src="a\.gif" width="\.{3}", got [02]'):
            put(text, "a.gif", "b.gif", 6)


def assert_shows(gif: bytes, frames) -> None:
    """Each frame stands in the upper left of its page, and nothing beside it."""
    pages = Image.open(BytesIO(gif))
    assert pages.n_frames == len(frames), AGAIN
    for page, frame in zip(ImageSequence.Iterator(pages), frames, strict=True):
        picture = Image.open(BytesIO(picture_of(frame).png)).convert("RGB")
        expected = Image.new("RGB", page.size, "white")
        expected.paste(picture)
        assert expected.width >= picture.width and expected.height >= picture.height, AGAIN
        change = np.asarray(page.convert("RGB"), int) - np.asarray(expected, int)
        assert abs(change).max() <= TOLERANCE, AGAIN


def test_the_stored_picture_is_what_the_lab_shows_now():
    pins = pinned_versions()
    other = [name for name in ("pillow", "resvg-py") if version(name) != pins[name]]
    if other:
        pytest.skip(f"another version of {' and '.join(other)} draws it a little differently")
    assert_shows(MOVING.read_bytes(), story())


def test_a_picture_made_now_shows_the_frames_it_is_made_of():
    frames = story()[-2:]  # of different heights
    assert_shows(moving_picture(frames), frames)
