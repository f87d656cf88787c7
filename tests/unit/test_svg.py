import json
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from frames import elements, texts
from gap_utils.svg import (
    BLACK,
    GREY,
    NOTHING,
    PALETTES,
    TOP,
    ZERO,
    Frame,
    Panel,
    Pixels,
    Readout,
    element,
    grey_levels,
    heading,
    letters_in,
    picture_of,
    signed_colours,
    signed_levels,
    text,
)

NAMES = ["a < b & 'c' \"d\"", "東京" * 20, "שלום", "🙂 cat", "x" * 300, "tab\tand\nline"]


@pytest.mark.parametrize("name", NAMES)
def test_whatever_a_name_holds_the_drawing_is_well_formed(name):
    (line,) = elements(Panel(100, 20, text(0, 9, name, letters=12)), "text")
    title = line[0].text if len(line) else line.text
    assert " ".join(title.split()) == " ".join(name.split())


@given(st.text(st.characters(), max_size=40), st.integers(2, 12))
def test_any_letters_are_drawn_and_never_more_than_asked_for(name, letters):
    (read,) = texts(Panel(100, 20, text(0, 9, name, letters=letters)))
    assert len(read or "") <= letters


def test_control_characters_are_no_xml():
    assert texts(Panel(9, 9, text(0, 9, "a\x00b\ud800"))) == ["a\ufffdb\ufffd"]


def test_attributes_are_written_as_svg_has_them():
    assert element("rect", fill_opacity=1 / 3, x=-0.001, class_="a&b", rx=None) == (
        '<rect fill-opacity="0.33" x="0" class="a&amp;b"/>'
    )
    assert element("g", element("path", d="M0 0"), id="a") == '<g id="a"><path d="M0 0"/></g>'


@pytest.mark.parametrize("name", NAMES)
def test_how_an_element_can_be_touched_is_written_as_json(name):
    touch = {"window": 3, "name": name, "none": None, "on": True}
    (rect,) = elements(Panel(9, 9, element("rect", data_set=touch, data_link="a b")), "rect")
    assert json.loads(rect.get("data-set")) == touch
    assert rect.get("data-link") == "a b"


def test_a_heading_says_what_can_be_done_where_there_is_room_and_never_in_the_file():
    wide = Panel(300, 20, heading(10, "map 4 × 4", "type into it", 280))
    (hint,) = elements(wide, "tspan")
    assert (hint.text.strip(), hint.get("class")) == ("type into it", "gap-live")
    assert texts(wide) == ["map 4 × 4"]
    long = Panel(300, 20, heading(10, "x" * 99, "type into it", 280))
    assert not elements(long, "tspan")
    assert len(elements(long, "text")[0][0].tail) <= letters_in(280, 14)
    assert texts(long)[0].startswith("xxx")
    for words in ("東京東京東京東京東", "🙂" * 9):  # as wide as 18 letters
        assert not elements(Panel(200, 20, heading(10, words, "type", 180)), "tspan")
    without = Panel(300, 20, text(0, 10, "map 4 × 4", 14))
    assert picture_of(Frame([wide], [], "")).png == picture_of(Frame([without], [], "")).png


def test_levels_of_both_signs():
    values = np.array([[-8.0, -4, 0], [2, 4, 8]])
    assert signed_levels(values, 8).tolist() == [[0, 62, 125], [156, 188, 250]]
    assert (signed_levels(values, 0) == ZERO).all()
    both = signed_levels(np.stack([values, values]), np.array([8, 16.0])[:, None, None])
    assert both[:, 1, 2].tolist() == [250, 188]


def test_what_the_palette_cannot_say_has_a_pattern():
    levels = signed_levels(np.array([[1.0, 9, -9], [np.inf, -np.inf, np.nan]]), 2)
    squares = {
        (i, j): levels[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].tolist()
        for i in range(2)
        for j in range(3)
    }
    assert squares == {
        (0, 0): [[188, 188], [188, 188]],
        (0, 1): [[TOP, ZERO], [TOP, TOP]],
        (0, 2): [[0, ZERO], [0, 0]],
        (1, 0): [[TOP, ZERO], [ZERO, TOP]],
        (1, 1): [[0, ZERO], [ZERO, 0]],
        (1, 2): [[GREY, BLACK], [BLACK, GREY]],
    }


def test_greys_go_from_the_lowest_to_the_highest():
    assert grey_levels(np.array([-1.0, 0, 1])).tolist() == [0, 128, 255]
    assert grey_levels(np.full(3, 7.0)).tolist() == [0, 0, 0]


def test_palettes():
    signed, overlay = PALETTES["signed"], PALETTES["overlay"]
    assert signed[[0, ZERO, TOP], :3].tolist() == [[127, 39, 4], [255, 255, 255], [8, 48, 107]]
    np.testing.assert_array_equal(signed[[62, 188], :3], np.round(signed_colours([-0.504, 0.504])))
    assert signed[[ZERO, NOTHING], 3].tolist() == [255, 0]
    assert overlay[[0, ZERO, TOP, GREY], 3].tolist() == [255, 0, 255, 255]
    assert PALETTES["grey"][7].tolist() == [7, 7, 7, 255]
    assert PALETTES["pale"][[0, 255], 0].tolist() == [170, 255]


def test_equal_levels_have_one_name_and_others_another():
    levels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    names = {Pixels(some, (0, 0, 1, 1)).digest for some in (levels, levels.copy())}
    names |= {Pixels(levels.T.reshape(3, 2), (0, 0, 1, 1)).digest}
    names |= {Pixels(np.arange(6, dtype=np.uint8).reshape(3, 2), (0, 0, 1, 1)).digest}
    assert len(names) == 3
    assert Pixels(levels.T, (0, 0, 1, 1)).data == bytes([0, 3, 1, 4, 2, 5])


def test_numbers_to_read_out_travel_as_float32():
    numbers = np.array([[[1.5, np.nan, -np.inf], [1e300, 0, 3]]]).T  # in another order in memory
    readout = Readout(numbers, (0, 0, 1, 1))
    read = np.frombuffer(readout.data, "<f4").reshape(numbers.shape)
    np.testing.assert_array_equal(read[:, :, 0].T, [[1.5, np.nan, -np.inf], [np.inf, 0, 3]])
    assert readout.digest == Readout(numbers.copy(), (9, 9, 1, 1), ["a"]).digest
    assert readout.digest != Readout(numbers.reshape(1, 3, 2), (0, 0, 1, 1)).digest


def drawn(frame):
    picture = picture_of(frame)
    image = Image.open(BytesIO(picture.png))
    assert image.size == (2 * picture.width, 2 * picture.height)
    return picture, np.asarray(image.convert("RGB")).astype(int)


def test_the_stored_picture():
    levels = np.array([[0, 125, 250]], np.uint8)
    squares = element("rect", x=10, y=50, width=30, height=10, class_="gap-accent")
    panel = Panel(100, 60, squares, [Pixels(levels, (0, 0, 90, 30))])
    picture, pixels = drawn(Frame([panel], ["Some words."], "all in words"))
    assert picture.text == "all in words"
    left = top = 2 * 16  # the margin
    for column, colour in enumerate([(127, 39, 4), (255, 255, 255), (8, 48, 107)]):
        square = pixels[top + 4 : top + 56, left + 60 * column + 4 : left + 60 * column + 56]
        assert (abs(square - colour) <= 1).all(), column  # edges are sharp
    assert (pixels[top + 110, left + 40] == (213, 94, 0)).all()  # the light accent of lab.css
    assert (pixels[0, 0] == 255).all()
    assert picture.png == picture_of(Frame([panel], ["Some words."], "")).png


def test_a_stored_photograph_has_a_pixel_for_each_of_the_page():
    photograph = Pixels(np.zeros((5, 7, 3), np.uint8), (0, 0, 90, 30))
    picture = picture_of(Frame([Panel(100, 60, "", [photograph])], [], ""))
    assert Image.open(BytesIO(picture.png)).size == (picture.width, picture.height)


def test_a_stored_picture_breaks_where_panels_are_too_many():
    panels = [Panel(300, 50, "")] * 3
    widths = [picture_of(Frame(panels[:n], [], "")).width for n in (1, 2, 3)]
    heights = [picture_of(Frame(panels[:n], [], "")).height for n in (1, 2, 3)]
    assert widths == [560 + 32, 616 + 32, 616 + 32]
    assert heights[0] == heights[1] == heights[2] - 66


def test_smooth_and_opacity():
    levels = np.array([[0, 250]], np.uint8)
    for smooth, opacity in [(False, 0.5), (True, 1.0)]:
        pixels = Pixels(levels, (0, 0, 100, 40), opacity=opacity, smooth=smooth)
        _, page = drawn(Frame([Panel(100, 40, "", [pixels])], [], ""))
        row = page[32 + 40, 32 : 32 + 200]
        if smooth:
            assert len(np.unique(row, axis=0)) > 20
        else:
            assert (abs(row[10] - (np.array([127, 39, 4]) + 255) / 2) <= 1).all()
