import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from gap_utils.pictures import (
    ACCENT,
    BLUE,
    SCALE,
    Picture,
    canvas,
    draw_grid,
    encode,
    format_number,
    plot_maps,
    shade,
)
from nbval_pictures import picture_difference

MAP = [[2, 2, 7, 3], [9, 4, 6, 1], [8, 5, 2, 4], [3, 1, 2, 6]]


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(picture.png)).convert("RGB"))


def test_numbers_are_short_and_exact_to_four_decimals():
    texts = [format_number(n) for n in (4.0625, 9, 2.0, -1 / 3, -0.00001, 12345.5, 0.1 + 0.2)]
    assert texts == ["4.0625", "9", "2", "-0.3333", "0", "12345.5", "0.3"]


def test_shades_run_from_white_to_blue():
    values = np.array([[0.0, 5.0, 10.0, 20.0, -3.0]])
    colours = shade(values, 0, 10)
    assert colours.dtype == np.uint8
    assert colours[0, 0].tolist() == colours[0, 4].tolist() == [255, 255, 255]
    assert colours[0, 2].tolist() == colours[0, 3].tolist() == list(BLUE)
    assert colours[0, 1].tolist() == [round((255 + part) / 2) for part in BLUE]
    assert (shade(np.array([7.0]), 7, 7) == 255).all()


def test_black_numbers_can_be_read_on_the_darkest_shade():
    def luminance(colour):
        parts = [part / 255 for part in colour]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return np.dot(linear, [0.2126, 0.7152, 0.0722])

    ink, blue, accent = luminance((33, 37, 41)), luminance(BLUE), luminance(ACCENT)
    assert (blue + 0.05) / (ink + 0.05) > 4.5  # WCAG AA for text
    assert 1.05 / (accent + 0.05) > 3  # WCAG for graphics, on white


def test_a_grid_has_its_colours_where_its_numbers_are():
    image, draw = canvas(40, 20)
    colours = np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)
    draw_grid(draw, [["1", None]], colours, left=0, top=0, cell=20 * SCALE)
    picture = encode(image, "red, blue")
    assert (picture.width, picture.height) == (40, 20)
    array = pixels(picture)
    assert array.shape == (20 * SCALE, 40 * SCALE, 3)
    assert array[5 * SCALE, 5 * SCALE].tolist() == [255, 0, 0]
    assert array[5 * SCALE, 25 * SCALE].tolist() == [0, 0, 255]
    assert (array[:, : 20 * SCALE].sum(axis=2) < 150).any()  # the ink of the 1
    assert not (array[2:-2, 21 * SCALE : 39 * SCALE] != [0, 0, 255]).any()


def test_a_picture_carries_its_text_everywhere():
    picture = encode(canvas(10, 5)[0], 'the "text" & <more>')
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
    boxed = (abs(pixels(picture).astype(int) - ACCENT) < 20).all(axis=2)
    assert boxed.sum() > 500
    assert (abs(pixels(plain).astype(int) - ACCENT) < 20).all(axis=2).sum() == 0
    rows, columns = boxed.nonzero()  # the box lies on the first two of four rows of squares
    assert rows.max() - rows.min() == pytest.approx(columns.max() - columns.min(), abs=3)
    assert rows.max() < picture.height * SCALE * 0.6


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
