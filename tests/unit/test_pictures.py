import base64
import math
from functools import reduce
from io import BytesIO
from operator import add

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from gap_utils.figures import plot_maps
from gap_utils.pictures import (
    BLUE,
    DARK,
    GREYS,
    INK,
    SCALE,
    SHADES,
    SIGNED,
    VERMILLION,
    WHITE,
    Canvas,
    Picture,
    draw_grid,
    shade,
    shade_grey,
    shade_signed,
    shorten,
    signed_colours,
    text_width,
)
from gap_utils.values import format_number
from nbval_pictures import picture_difference

MAP = [[2, 2, 7, 3], [9, 4, 6, 1], [8, 5, 2, 4], [3, 1, 2, 6]]


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(picture.png)).convert("RGB"))


def test_numbers_are_short_and_exact_to_four_decimals():
    texts = [format_number(n) for n in (4.0625, 9, 2.0, -1 / 3, -0.00001, 12345.5, 0.1 + 0.2)]
    assert texts == ["4.0625", "9", "2", "-0.3333", "0", "12345.5", "0.3"]


def test_shades_run_from_white_to_blue():
    values = np.array([[0.0, 5.0, 10.0, 20.0, -3.0]])
    fills = shade(values, 0, 10)
    assert fills.dtype == np.uint8
    assert fills.tolist() == [[SHADES[0], 18, SHADES[-1], SHADES[-1], SHADES[0]]]
    assert (shade(np.array([7.0]), 7, 7) == SHADES[0]).all()


def test_the_colour_table():
    canvas = Canvas(32, 1)
    for fill in range(32):
        canvas.fills.rectangle((fill * SCALE, 0, fill * SCALE + 1, SCALE), fill=fill)
    colours = pixels(canvas.picture(""))[0, ::SCALE]
    assert colours[WHITE].tolist() == colours[SHADES[0]].tolist() == [255, 255, 255]
    assert colours[SHADES[-1]].tolist() == list(BLUE)
    assert (np.diff(colours[SHADES[0] :].astype(int), axis=0) <= 0).all()
    canvas.write(32, 1, "l", 2000, anchor="mm")  # its stem is wider than the page
    assert (pixels(canvas.picture("")) == INK).all()


def test_numbers_of_both_signs_have_zero_in_the_middle():
    fills = shade_signed(np.array([-3.0, -2, -0.001, 0, 0.001, 2, 3]), limit=2)
    darkest, whitest, bluest = SIGNED[0], SIGNED[len(SIGNED) // 2], SIGNED[-1]
    assert fills.tolist() == [darkest, darkest, whitest, whitest, whitest, bluest, bluest]
    own = shade_signed(np.array([[1.0], [2.0], [0.0]]), limit=np.array([[1.0], [4.0], [0.0]]))
    assert own.ravel().tolist() == [bluest, SIGNED[round(0.75 * (len(SIGNED) - 1))], whitest]


def test_a_picture_runs_from_black_to_white():
    assert shade_grey(np.array([5.0, 7.0, 9.0])).tolist() == [GREYS[0], GREYS[32], GREYS[-1]]
    assert shade_grey(np.array([3.0, 3.0])).tolist() == [GREYS[0]] * 2


def test_the_colours_of_a_canvas_for_maps():
    canvas = Canvas(30, 10, for_maps=True)
    values = np.array([[-1.0, 0.0, 1.0]])
    canvas.tiles(shade_signed(values, 1.0), 0, 0, 10)
    canvas.tiles(shade_grey(np.array([[0.0, 1.0]])), 30, 0, 10)
    canvas.fills.rectangle((50, 0, 59, 9), fill=DARK)
    row = pixels(canvas.picture(""))[5, 5::10]
    expected = [(127, 39, 4), (255, 255, 255), (8, 48, 107), (0, 0, 0), (255, 255, 255)]
    assert row.tolist() == [list(colour) for colour in [*expected, (73, 80, 87)]]
    assert signed_colours(values).tolist() == [[[127, 39, 4], [255, 255, 255], [8, 48, 107]]]
    lightness = signed_colours(np.linspace(0, 1, 50)) @ (0.299, 0.587, 0.114)
    assert (np.diff(lightness) < 0).all()  # darker with every step away from zero
    lightness = signed_colours(np.linspace(0, -1, 50)) @ (0.299, 0.587, 0.114)
    assert (np.diff(lightness) < 0).all()


def test_a_photo_lies_on_top_in_its_own_colours():
    canvas = Canvas(20, 10)
    canvas.write(0, 0, "below", 20)
    photo = np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)
    canvas.photo(photo, 10, 4, 20, 10)
    twin = canvas.copy()
    canvas.photo(photo[:, ::-1], 10, 4, 20, 10)
    found = pixels(twin.picture(""))  # what is drawn later stays off the copy
    assert found[8, 11].tolist() == [255, 0, 0]
    assert found[8, 28].tolist() == [0, 0, 255]
    assert set(found[8, 10:30, 0].tolist()) == {0, 255}
    assert found[8, 35].tolist() == [255, 255, 255]


@pytest.mark.parametrize("anchor", ["la", "mm", "ra"])
def test_writing_is_pillows_own(anchor):
    canvas = Canvas(120, 40)
    page = Image.new("L", (120 * SCALE, 40 * SCALE), 0)
    for text, place in [("Wij, 4.25", (120, 40)), ("max", (30, 10)), ("max", (120, 10))]:
        canvas.write(*place, text, 28, anchor)
        font = ImageFont.load_default(28)
        ImageDraw.Draw(page).text(place, text, 255, font, anchor)
    ink = np.asarray(page) >> 5  # three bits of ink
    drawn = pixels(canvas.picture(""))[..., 0].astype(int)
    np.testing.assert_allclose(drawn, 255 + ink / 7 * (INK[0] - 255), atol=1)


def test_a_frame_lies_outside_its_box():
    canvas = Canvas(10, 10)
    canvas.frame((4, 6, 10, 8), DARK, 2)
    dark = (pixels(canvas.picture("")) == (73, 80, 87)).all(-1)
    expected = np.zeros((20, 20), bool)
    expected[4:10, 2:12] = True
    expected[6:8, 4:10] = False
    assert (dark == expected).all()


def test_a_text_is_cut_to_its_room():
    assert shorten("Ankle boot", 22, text_width("Ankle boot", 22)) == "Ankle boot"
    short = shorten("Ankle boot", 22, text_width("Ankle boot", 22) - 1)
    assert short == "Ankle boo."
    assert shorten("Ankle boot", 22, text_width("Ankle.", 22)) == "Ankle."  # no space at the end
    assert shorten("Ankle boot", 22, 1) == ""
    assert text_width("Ankle", 44) == pytest.approx(2 * text_width("Ankle", 22), rel=0.05)


def test_black_numbers_can_be_read_on_the_darkest_shade():
    def luminance(colour):
        parts = [part / 255 for part in colour]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return np.dot(linear, [0.2126, 0.7152, 0.0722])

    ink, blue, accent = luminance(INK), luminance(BLUE), luminance(VERMILLION)
    assert (blue + 0.05) / (ink + 0.05) > 4.5  # WCAG AA for text
    assert 1.05 / (accent + 0.05) > 3  # WCAG for graphics, on white


def test_a_grid_has_its_colours_where_its_numbers_are():
    canvas = Canvas(40, 20)
    fills = np.array([[SHADES[0], SHADES[-1]]])
    draw_grid(canvas, [["1", None]], fills, left=0, top=0, cell=20 * SCALE)
    picture = canvas.picture("white, blue")
    assert (picture.width, picture.height) == (40, 20)
    array = pixels(picture)
    assert array.shape == (20 * SCALE, 40 * SCALE, 3)
    assert array[5 * SCALE, 5 * SCALE].tolist() == [255, 255, 255]
    assert array[5 * SCALE, 25 * SCALE].tolist() == list(BLUE)
    assert (array[:, : 20 * SCALE] == INK).all(axis=2).any()  # the ink of the 1
    assert (array[3:-3, 21 * SCALE + 1 : 39 * SCALE] == BLUE).all()


def test_copy_and_paste():
    full, empty = Canvas(20, 10), Canvas(20, 10)
    full.fills.rectangle((0, 0, 99, 99), fill=SHADES[-1])
    before = pixels(empty.picture(""))
    mixed = empty.copy()
    mixed.paste(full, (0, 0, 10 * SCALE, 10 * SCALE))
    array = pixels(mixed.picture(""))
    assert (array[:, : 10 * SCALE] == BLUE).all()
    assert (array[:, 10 * SCALE :] == 255).all()
    assert (pixels(empty.picture("")) == before).all()


def test_a_picture_carries_its_text_everywhere():
    picture = Canvas(10, 5).picture('the "text" & <more>')
    data, metadata = picture._repr_mimebundle_()
    assert data["text/plain"] == repr(picture) == picture.text
    assert base64.b64decode(data["image/png"]) == picture.png
    assert metadata["image/png"]["width"] == 10
    html = picture.html(onload="f('x')")
    assert 'alt="the &quot;text&quot; &amp; &lt;more&gt;"' in html
    assert 'width="10" height="5"' in html
    assert 'onload="f(&#x27;x&#x27;)"' in html


def test_maps_are_drawn_with_their_numbers_and_boxes():
    picture = plot_maps({"a": MAP, "b": [[4.25, 3.5]]}, boxes={"a": [(0, 0, 2, 2)]})
    assert picture.text == "a: 2 2 7 3 / 9 4 6 1 / 8 5 2 4 / 3 1 2 6\nb: 4.25 3.5"
    assert pixels(picture).shape[:2] == (picture.height * SCALE, picture.width * SCALE)
    plain = plot_maps({"a": MAP, "b": [[4.25, 3.5]]})
    assert picture.png == plot_maps({"a": MAP, "b": [[4.25, 3.5]]}, {"a": [(0, 0, 2, 2)]}).png
    boxed = (abs(pixels(picture).astype(int) - VERMILLION) < 20).all(axis=2)
    assert boxed.sum() > 500
    assert (abs(pixels(plain).astype(int) - VERMILLION) < 20).all(axis=2).sum() == 0
    rows, columns = boxed.nonzero()  # the box lies on the first two of four rows of squares
    assert rows.max() - rows.min() == pytest.approx(columns.max() - columns.min(), abs=3)
    assert rows.max() < picture.height * SCALE * 0.6


def test_a_picture_has_one_size_however_python_adds(monkeypatch):
    """From 3.12 on Python adds floats more exactly than before, as math.fsum does."""
    maps = {name: np.ones((side, side)) for name, side in [("the map", 4), ("to 3", 3)]}
    maps |= {name: np.ones((side, side)) for name, side in [("to 2", 2), ("to 1", 1)]}
    for add_all in (lambda numbers: reduce(add, numbers), math.fsum):
        monkeypatch.setattr("gap_utils.figures.sum", add_all, raising=False)
        picture = plot_maps(maps)
        assert (picture.width, picture.height) == (720, 284)
        assert pixels(picture).shape[:2] == (568, 1440)


def test_drawing_leaves_no_figure_open():
    from matplotlib import pyplot as plt

    before = plt.get_fignums()
    plot_maps({"a": MAP})
    assert plt.get_fignums() == before


def test_bad_maps_are_named():
    with pytest.raises(ValueError, match=r"map 'a' of shape \(H, W\), got \(3,\)"):
        plot_maps({"a": [1, 2, 3]})
    with pytest.raises(ValueError, match=r"boxes on \['a'\], got one on 'b'"):
        plot_maps({"a": MAP}, boxes={"b": []})


def test_picture_difference_finds_a_changed_number():
    def png(values):
        return plot_maps({"a": values})._repr_mimebundle_()[0]["image/png"]

    changed = [row[:] for row in MAP]
    changed[2][1] = 6
    assert picture_difference(png(MAP), png(MAP)) is None
    assert "pixels changed" in picture_difference(png(MAP), png(changed))
    assert "pixels, drawn" in picture_difference(png(MAP), png([[1]]))
