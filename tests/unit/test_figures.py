import base64
import math
from functools import reduce
from io import BytesIO
from operator import add
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from gap_utils.figures import BLUE, SCALE, VERMILLION, Picture, plot_maps, plot_shapes
from nbval_pictures import picture_difference

MAP = [[2, 2, 7, 3], [9, 4, 6, 1], [8, 5, 2, 4], [3, 1, 2, 6]]


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(picture.png)).convert("RGB"))


def test_a_picture_carries_its_text_everywhere():
    text = 'the "text" & <more>'
    picture = Picture(plot_maps({"a": MAP}).png, text, width=10, height=5)
    data, metadata = picture._repr_mimebundle_()
    assert data["text/plain"] == repr(picture) == text
    assert base64.b64decode(data["image/png"]) == picture.png
    assert metadata == {"image/png": {"width": 10, "height": 5, "alt": text}}
    image = ElementTree.fromstring(data["text/html"].replace(">", "/>"))
    source = f"data:image/png;base64,{data['image/png']}"
    assert image.attrib == {"width": "10", "height": "5", "alt": text, "src": source}


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


def blue_box(picture: Picture) -> tuple[int, int]:
    """Height and width of what is blue, in CSS pixels."""
    blue = (abs(pixels(picture).astype(int) - BLUE) < 20).all(axis=2)
    rows, columns = blue.nonzero()
    return tuple(round((n.max() - n.min() + 1) / SCALE) for n in (rows, columns))


@pytest.mark.parametrize(
    ("shape", "text", "size"),
    [
        ((), "1 number", (12, 12)),
        ((1,), "1 number", (12, 12)),
        ((64,), "64 numbers", (60, 12)),
        ((5120,), "5,120 numbers", (111, 12)),
        ((4, 256), "4 × 256, 1,024 numbers", (28, 76)),
        ((1, 28, 28), "1 × 28 × 28, 784 numbers", (84, 84)),
        ((1, 7, 14), "1 × 7 × 14, 98 numbers", (42, 84)),
        ((2, 8, 8), "2 × 8 × 8, 128 numbers", (88, 88)),
        ((512, 8, 8), "512 × 8 × 8, 32,768 numbers", (84 + 7 * 4, 84 + 7 * 4)),
        ((2, 1, 8, 8), "2 × 1 × 8 × 8, 128 numbers", (84, 84 + 84 + 10)),
        ((100, 1, 8, 8), "100 × 1 × 8 × 8, 6,400 numbers", (84, 3 * 84 + 20)),
    ],
)
def test_a_shape_is_drawn(shape, text, size):
    picture = plot_shapes({"it": shape})
    assert picture.text == f"it: {text}"
    assert pixels(picture).shape[:2] == (picture.height * SCALE, picture.width * SCALE)
    assert blue_box(picture) == pytest.approx(size, abs=1)


def test_maps_of_one_picture_have_one_scale():
    text = "in: 1 × 28 × 28, 784 numbers\nout: 1 × 7 × 7, 49 numbers"
    picture = plot_shapes({"in": (1, 28, 28), "out": (1, 7, 7)}, arrows=True)
    assert picture.text == text
    blue = (abs(pixels(picture).astype(int) - BLUE) < 20).all(axis=2)
    heights = {count // SCALE for count in blue.sum(0) if count}
    assert max(heights) == pytest.approx(84, abs=1)
    assert min(heights) == pytest.approx(21, abs=1)
    assert picture.png != plot_shapes({"in": (1, 28, 28), "out": (1, 7, 7)}).png


@pytest.mark.parametrize("shape", [(1, 2, 3, 4, 5), (3, 0), (2.0, 2), (-1,)])
def test_what_is_no_shape_is_refused(shape):
    with pytest.raises(ValueError, match="expected up to four axes of 1 or more in 'it', got"):
        plot_shapes({"it": shape})
    with pytest.raises(ValueError, match="expected a shape to draw, got none"):
        plot_shapes({})
