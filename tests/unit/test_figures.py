import base64
import math
from functools import reduce
from io import BytesIO
from operator import add
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from gap_utils.figures import SCALE, VERMILLION, Picture, plot_maps
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
