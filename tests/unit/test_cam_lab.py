from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from frames import below, check_letters, control, elements, move, place_of, texts
from gap_utils.data import CLASS_NAMES, load_fashion_mnist
from gap_utils.models import load_trained
from gap_utils.svg import signed_colours
from gap_utils.widgets import CamLab, cam_lab
from gap_utils.widgets.cam_lab import EDGE, RANKS, SIDE, TOP, VIEWS, CamState

TEST = load_fashion_mnist().test
NAMES = ("west", "east", "none")


class Tiny(nn.Module):
    """Two maps, the picture and twice the picture; three classes."""

    def __init__(self, bias=(0.5, 0.0, -1.0)):
        super().__init__()
        self.body = nn.Conv2d(1, 2, 1, bias=False)
        self.body.weight.data = torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2, 3, bias=bias is not None)
        self.head.weight.data = torch.tensor([[1.0, 1.0], [-1.0, 0.0], [0.0, 0.0]])
        if bias is not None:
            self.head.bias.data = torch.tensor(bias)

    def forward(self, images):
        return self.head(self.pool(self.body(images)).flatten(1))


# left map 3 × the picture, right map -1 × the picture
PICTURES = torch.tensor([[[[4.0, 0.0], [2.0, -2.0]]], [[[-4.0, 0.0], [0.0, 0.0]]]])


def tiny_lab(**settings):
    return CamLab(Tiny(), PICTURES, [0, 0], NAMES, **({"right": 1} | settings))


def compared(lab):
    return lab.compare(lab.value)


def lines(panel):
    """The text elements of a panel by what is read of them."""
    return dict(zip(texts(panel), elements(panel, "text"), strict=True))


def blend(layers):
    """What is seen of layers of the same shape, red, green and blue."""
    seen = 255.0
    for pixels in layers:
        colours = pixels.colours().astype(float)
        part = pixels.opacity * colours[..., 3:] / 255
        seen = (1 - part) * seen + part * colours[..., :3]
    return seen


def test_the_maps_by_hand():
    found = compared(tiny_lab())
    assert found.cams.tolist() == [[[12, 0], [6, -6]], [[-4, 0], [-2, 2]]]
    logits = found.explanation.logits
    assert logits.tolist() == [3.5, -1, -1]  # means 3 and -1, biases 0.5 and 0
    assert found.explanation.bias.tolist() == [0.5, 0, -1]
    e = np.exp([3.5, -1, -1])
    assert found.explanation.probabilities == pytest.approx(e / e.sum())
    assert (found.classes, found.limit, found.label) == ((0, 1), 12, 0)
    assert found.explanation.image.tolist() == [[255, 85], [170, 0]]  # -2 to 4, stretched


def test_the_words_add_up():
    lab = tiny_lab()
    expected = [
        "Picture 0: west; predicted west (97.8%), right.",
        "Left, west (97.8%): mean of 4 values 3.000 + bias 0.500 = logit 3.500; "
        "the largest is 12.000 at row 0, column 0.",
        "Right, east (1.1%): mean of 4 values -1.000 + bias 0.000 = logit -1.000; "
        "the largest is 2.000 at row 1, column 1.",
    ]
    assert lab.text == " ".join([*expected, "View: overlay of 80%."])
    assert lab.describe() == "\n".join(expected)
    lab.set(view="numbers", smooth=True)
    assert lab.text == " ".join(
        [*expected, "View: numbers.", "Left 12 0 / 6 -6.", "Right -4 0 / -2 2."]
    )
    lab.set(view="map")
    assert lab.text.endswith("View: map, smooth.")
    lab.set(picture=1)
    assert lab.describe().startswith("Picture 1: west; predicted east (85.8%), wrong.\n")


def test_a_head_without_bias():
    assert not compared(CamLab(Tiny(bias=None), PICTURES)).explanation.bias.any()


def test_a_sum_that_rounding_keeps_from_adding_up():
    model = Tiny(bias=(0.0004, 0.0, -1.0))  # 0.0004 + 0.0004 = 0.0008
    lab = CamLab(model, torch.full((1, 1, 2, 2), 0.0004 / 3), left=0)
    assert "values 0.000 + bias 0.000 ≈ logit 0.001" in lab.text


@pytest.mark.parametrize("name", ["gap_7x7", "gap"])
def test_the_shipped_networks(name):
    model = load_trained(name)
    lab = CamLab(model, TEST.images, TEST.labels, CLASS_NAMES, picture=3, left=8, right="top 1")
    with torch.no_grad():
        logits = model(TEST.images[3:4])[0]
    found = compared(lab)
    assert found.cams.shape == ((2, 7, 7) if name == "gap_7x7" else (2, 3, 3))
    assert found.explanation.logits == pytest.approx(logits.numpy())
    for side, number in enumerate((8, int(logits.argmax()))):
        assert found.cams[side].mean() + found.explanation.bias[number] == pytest.approx(
            logits[number].item(), abs=1e-5
        )
        assert f"logit {logits[number]:.3f};" in lab.text
    assert found.label == TEST.labels[3]
    assert f"{found.explanation.probabilities.max():.1%}" in lab.text


def test_the_most_likely_classes_follow_the_picture():
    lab = tiny_lab(right="top 2")
    assert compared(lab).classes == (0, 1)  # logits 3.5, -1, -1: of two alike the first
    lab.set(picture=1)  # logits -2.5, 1, -1
    assert compared(lab).classes == (1, 2)
    assert repr(lab) == "CamLab(picture 1, overlay: east, none)"
    lab.set(left="top 3", right=2)
    assert compared(lab).classes == (0, 2)


def overlay(base, value, strength):
    """The formula in the docstring of `draw_cam`, for a limit of 12."""
    grey = (2 * 255 + base) / 3
    ground = (1 - strength) * base + strength * grey
    amount = strength * abs(value) / 12
    return (1 - amount) * ground + amount * signed_colours(np.array(value / 12))


@pytest.mark.parametrize("strength", [0, 60, 100])
def test_the_overlay_by_its_formula(strength):
    lab = tiny_lab(strength=strength)
    for panel, cam in zip(below(lab.frame), compared(lab).cams, strict=True):
        seen = blend(panel.pixels[:5:2])
        for place, base in zip(np.ndindex(2, 2), [255, 85, 170, 0], strict=True):
            assert seen[place] == pytest.approx(overlay(base, cam[place], strength / 100), abs=2)
    left, right = (panel.pixels for panel in below(lab.frame))
    assert (blend(left[:5:2]) == blend(right[:5:2])).all() is np.bool_(strength == 0)


def test_the_scale_has_the_colours_of_the_maps():
    overlaid = tiny_lab(strength=60).frame.panels[0]
    maps, scale = overlaid.pixels[4:]
    assert (maps.palette, maps.opacity) == (scale.palette, scale.opacity) == ("overlay", 0.6)
    assert scale.colours()[0, [0, 125, 250], 3].tolist() == [255, 0, 255]  # 0 shows what is below
    assert "0: no colour" in texts(overlaid)
    panel = tiny_lab(view="map").frame.panels[0]
    assert "0" in texts(panel)
    bar = panel.pixels[-1].colours()[0, :, :3].astype(float)
    assert bar[125].tolist() == [255] * 3
    assert bar == pytest.approx(signed_colours(np.linspace(-1, 1, 251)), abs=1)


def test_the_strength_changes_only_how_opaque_layers_are():
    lab = tiny_lab()
    one, other = lab.draw(CamState(strength=3)), lab.draw(CamState(strength=97))
    for before, after in zip(one.panels, other.panels, strict=True):
        assert before.svg == after.svg
        for first, second in zip(before.pixels, after.pixels, strict=True):
            assert (first.digest, first.box) == (second.digest, second.box)
            assert (first.opacity, second.opacity) in {(1, 1), (0.03, 0.97)}
    left, right = (panel.pixels for panel in below(one))
    assert [layer.digest for layer in left[:4]] == [layer.digest for layer in right[:4]]


def test_a_photograph_keeps_its_colours_and_grey_stays_grey():
    layers = nn.Identity(), nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    images = torch.zeros(1, 3, 8, 8)
    images[:, 0, :, :4] = 3  # red on the left
    lab = CamLab(nn.Sequential(*layers), images, strength=0)
    seen = blend(lab.frame.panels[0].pixels[:4:2])
    assert (seen[2, 1].tolist(), seen[2, 6].tolist()) == ([255, 0, 0], [0, 0, 0])
    two_channels = nn.Sequential(layers[0], nn.Conv2d(2, 4, 1), *layers[2:])
    picture = CamLab(two_channels, torch.rand(1, 2, 8, 8)).frame.panels[0].pixels[0]
    assert (picture.levels.shape, picture.palette) == ((8, 8), "grey")


def test_large_pictures_are_shown_smaller():
    images = torch.zeros(1, 1, 300, 600)
    images[..., 300:] = 1
    found = compared(CamLab(Tiny(), images)).explanation
    assert found.image.shape == (112, 224)
    assert (found.image[:, :100] == 0).all() and (found.image[:, 124:] == 255).all()
    assert found.cams.shape == (3, 300, 600)


@pytest.mark.parametrize("view", ["map", "numbers"])
def test_both_maps_are_on_one_scale(view):
    for panel, cam in zip(
        below(tiny_lab(view=view).frame), ([[12, 0], [6, -6]], [[-4, 0], [-2, 2]]), strict=True
    ):
        pixels, bar = panel.pixels
        assert (pixels.palette, bar.palette) == ("signed", "signed")
        expected = signed_colours(np.array(cam) / 12)
        assert pixels.colours()[..., :3] == pytest.approx(expected, abs=2)
        written = lines(panel)
        for words, x in (("against -12.0", 4), ("0", 140), ("for 12.0", 276)):
            assert float(written[words].get("x")) == x


def test_squares_or_a_smooth_passage():
    lab = tiny_lab(view="map")
    pixels = lab.frame.panels[0].pixels[0]
    assert pixels.levels.tolist() == [[250, 125], [188, 62]]
    assert not pixels.smooth
    lab.set(smooth=True)
    pixels = lab.frame.panels[0].pixels[0]
    assert pixels.smooth
    levels = pixels.levels.astype(int)
    assert levels.shape == (64, 64)
    assert [levels[0, 0], levels[0, -1], levels[-1, 0], levels[-1, -1]] == [250, 125, 188, 62]
    assert (np.diff(levels[0]) <= 0).all()  # no overshoot
    # half way from 6 to -6 is 0, which is white: colours are mixed as numbers
    assert levels[-1, 31:33] == pytest.approx(125, abs=2)
    lab.set(view="overlay")
    assert (lab.frame.panels[0].pixels[4].levels == levels).all()
    lab.set(view="numbers")
    squares = lab.frame.panels[0].pixels[0]
    assert (squares.levels.shape, squares.smooth) == ((2, 2), False)  # numbers belong to squares


@pytest.mark.parametrize("view", VIEWS)
def test_the_values_for_both_classes_are_read_out_in_both_panels(view):
    for smooth in (False, True):
        lab = tiny_lab(view=view, smooth=smooth, left=1, right=0)
        for panel in below(lab.frame):
            assert panel.readout.numbers.tolist() == [[[-4, 0], [-2, 2]], [[12, 0], [6, -6]]]
            assert [*panel.readout.names] == ["east", "west"]
            assert panel.readout.box == panel.pixels[0].box == (EDGE, TOP, SIDE, SIDE)
    images = torch.zeros(2, 1, 2, 3)
    images[1, 0, 0] = torch.tensor([np.nan, np.inf, -1.0])
    lab = CamLab(Tiny(), images, picture=1, left=0, right=1, view=view)
    for panel in below(lab.frame):
        strange = [[np.nan, np.inf, -3], [np.nan, np.nan, 1]]  # infinity times 0 is no number
        assert np.array_equal(panel.readout.numbers[:, 0], strange, equal_nan=True)
        assert panel.readout.box == (EDGE, TOP, SIDE, SIDE * 2 / 3)


@pytest.mark.parametrize(
    ("picture", "left", "right", "titles"),
    [
        (0, 0, 1, [["Left: west", "✓ right answer"], ["Right: east"]]),
        (1, 0, 1, [["Left: west"], ["Right: east", "✗ wrong answer"]]),
        (1, 0, 2, [["Left: west"], ["Right: none"]]),
    ],
)
def test_right_or_wrong_stands_at_what_the_network_says(picture, left, right, titles):
    lab = tiny_lab(picture=picture, left=left, right=right)
    for panel, title in zip(below(lab.frame), titles, strict=True):
        assert texts(panel)[:-3] == title
        if len(title) > 1:
            assert lines(panel)[title[1]].get("class") == f"gap-ink-{title[1].split()[1]}"
    for panel in below(CamLab(Tiny(), PICTURES, None, NAMES).frame):
        assert len(texts(panel)) == 4  # of no known class


def test_numbers_are_written_on_their_squares():
    written = lines(tiny_lab(view="numbers").frame.panels[0])
    dark_blue, other = "gap-white", "gap-black"
    for number, row, column, ink in (
        ("12.0", 0, 0, dark_blue),
        ("0.0", 0, 1, other),
        ("6.0", 1, 0, other),
        ("-6.0", 1, 1, other),
    ):
        line = written[number]
        assert float(line.get("x")) == 4 + SIDE * (column + 0.5) / 2
        assert float(line.get("y")) == TOP + SIDE * (row + 0.5) / 2
        assert (line.get("text-anchor"), line.get("class")) == ("middle", ink)


@pytest.mark.parametrize(("size", "room"), [(8, True), (9, False)])
def test_numbers_are_written_where_they_fit(size, room):
    lab = CamLab(Tiny(), torch.rand(1, 1, size, size), view="numbers")
    for panel in lab.frame.panels:
        assert len(elements(panel, "text")) == 4 + size**2 * room
    assert ("too small for their numbers" in lab.describe()) is not room
    assert (lab.text.count(" / ") > 0) is room


@pytest.mark.parametrize(
    ("value", "limit", "text"),
    [
        (-123.4, 200, "-123"),
        (12.34, 20, "12.3"),
        (-0.04, 20, "0.0"),
        (0.123, 0.5, "0.12"),
        (-0.0123, 0.05, "-0.01"),
        (-23456, 23456, "-2e4"),
        (0.00012, 0.00012, "1e-4"),
        (0, 0.00012, "0"),
    ],
)
def test_numbers_in_few_characters(value, limit, text):
    assert cam_lab._brief(value, limit) == text
    assert len(text) <= 5


def test_the_numbers_stand_once():
    """Below, in words; in the panels only class names, the scale and numbers on squares."""
    lab = CamLab(load_trained("gap_7x7"), TEST.images, TEST.labels, CLASS_NAMES)
    titles = ["Left: Ankle boot", "✓ right answer"], ["Right: Sneaker"]
    for panel, title in zip(below(lab.frame), titles, strict=True):
        assert texts(panel) == [*title, "against -21.3", "0: no colour", "for 21.3"]


def test_controls_ask_for_states():
    lab = CamLab(load_trained("gap_7x7"), TEST.images, TEST.labels, CLASS_NAMES)
    assert repr(lab) == "CamLab(picture 0, overlay: Ankle boot, Sneaker)"
    names = [one["name"] for one in lab.opening()["controls"]]
    assert names == ["picture", "left", "right", "view", "wrong", "reset", "strength", "smooth"]
    assert control(lab, "picture")["main"]
    assert lab.limits(lab.value)["picture"] == {"high": len(TEST) - 1, "hidden": False}
    move(lab, picture=4, left="top 3", right=9, strength=80, smooth=True)
    assert lab.value == CamState(4, "top 3", 9, "overlay", 80, True)
    assert lab.text.startswith("Picture 4: ")
    assert lab.press("reset", lab.value) == CamState()
    hidden = {
        view: [name for name, limits in lab.limits(CamState(view=view)).items() if limits["hidden"]]
        for view in VIEWS
    }
    assert hidden == {"map": ["strength"], "overlay": [], "numbers": ["strength", "smooth"]}


def test_the_choice_of_classes():
    assert [*control(tiny_lab(), "left")["options"]] == [
        ("most likely", "top 1"),
        ("2nd most likely", "top 2"),
        ("3rd most likely", "top 3"),
        ("0 west", 0),
        ("1 east", 1),
        ("2 none", 2),
    ]
    lab = CamLab(Tiny(), PICTURES, class_names=["crane", "drake", "crane"])
    labels = [label for label, _ in control(lab, "right")["options"]]
    assert len({*labels}) == len(labels)  # though names repeat in ImageNet
    numbered = control(CamLab(Tiny(), PICTURES), "left")
    assert [label for label, _ in numbered["options"]][3:] == ["0", "1", "2"]


def test_a_network_of_one_class_and_a_single_picture():
    layers = nn.Identity(), nn.Conv2d(1, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    lab = CamLab(nn.Sequential(*layers), PICTURES[:1])
    assert lab.value.right == "top 1"
    assert len(control(lab, "right")["options"]) == 2
    assert lab.limits(lab.value)["picture"]["hidden"]


NAMES_OF_ALL_KINDS = (
    "<b>W\nW</b>",
    "W" * 300,
    "a word " * 50,
    "a & \"b\" 'c'",
    "中文" * 30,
    "שלום עולם",
    "😀" * 20,
    "",
)


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(NAMES_OF_ALL_KINDS) | st.text(max_size=40), min_size=3, max_size=3),
    st.sampled_from(RANKS[:3]) | st.integers(0, 2),
    st.sampled_from(VIEWS),
    st.integers(0, 100),
    st.booleans(),
    st.sampled_from([1e-8, 1.0, 12345.0, np.nan, np.inf]),
    st.sampled_from([(2, 2), (8, 8), (40, 10), (9, 300), (1, 3)]),
)
def test_every_state_is_a_frame_of_one_size(names, left, view, strength, smooth, number, shape):
    images = torch.linspace(-1, 1, shape[0] * shape[1]).reshape(1, 1, *shape).repeat(2, 1, 1, 1)
    images[1, 0, 0, 0] = number
    lab = CamLab(Tiny(), images, [1, 0], [name.translate(NOT_XML) for name in names])
    state = CamState(1, left, "top 1", view, strength, smooth)
    frame = lab.draw(state)
    height = 76 + ceil(272 * shape[0] / max(shape))  # as high as the picture needs
    assert [(panel.width, panel.height) for panel in below(frame)] == [(280, height)] * 2
    again = lab.draw(state)
    assert [panel.svg for panel in frame.panels] == [panel.svg for panel in again.panels]
    for panel in below(frame):
        check_letters(panel)
        for pixels in panel.pixels:
            x, y, width, height = pixels.box
            assert x >= 4 and x + width <= 276.01 and y >= TOP and y + height <= panel.height - 22
    assert len(frame.room) >= len(frame.words)


NOT_XML = dict.fromkeys(
    [*range(9), 11, 12, *range(14, 32), 127, *range(0xD800, 0xE000), 0xFFFE, 0xFFFF]
)


def test_a_long_name_is_whole_in_its_tooltip_and_in_the_words():
    lab = CamLab(Tiny(), PICTURES, class_names=["<b>W\nW</b>", "W" * 300, "a"], left=0, right=1)
    left, right = below(lab.frame)
    assert "Left: <b>W W</b>" in texts(left)
    assert elements(right, "title")[0].text == "Right: " + "W" * 300
    assert "Right, " + "W" * 300 in lab.describe()
    assert all(len(words) < 250 for words in lab.frame.room)  # no place is kept for so much


def test_a_relu_that_is_called_twice():
    class Shared(Tiny):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, images):
            return self.head(self.relu(self.body(self.relu(images))).mean((2, 3)))

    lab = CamLab(Shared(), PICTURES, left=0, right=1)
    assert lab._head.layer == "relu_1"
    assert compared(lab).cams.tolist() == [[[12, 0], [6, 0]], [[-4, 0], [-2, 0]]]


def test_few_pictures_are_remembered():
    lab = CamLab(Tiny(), torch.rand(40, 1, 2, 2))
    for picture in range(40):
        lab.set(picture=picture)
    assert lab._explain.cache_info().currsize == cam_lab.PICTURES_REMEMBERED


def test_a_diverged_picture_is_shown():
    images = torch.cat([PICTURES, torch.full((1, 1, 2, 2), torch.nan), 0 * PICTURES[:1]])
    lab = CamLab(Tiny(), images, left=0, right=1)
    for picture in (2, 3):
        for view in VIEWS:
            lab.set(picture=picture, view=view)
    lab.set(picture=2)
    assert (
        "Picture 2; predicted no number.\nLeft, 0 (no number): mean of 4 values "
        "no number; 4 of them are no number."
    ) in lab.describe()


class Coarse(Tiny):
    """Maps of half the picture's height and width."""

    def __init__(self):
        super().__init__()
        self.shrink = nn.AvgPool2d(2)

    def forward(self, images):
        return super().forward(self.shrink(images))


LARGE = PICTURES.repeat_interleave(2, 2).repeat_interleave(2, 3)  # the same maps
BOXES = torch.tensor([[0, 0, 4, 2], [1, 1, 4, 4]])


def boxes_lab(**settings):
    return CamLab(Coarse(), LARGE, [0, 0], NAMES, boxes=BOXES, **({"right": 1} | settings))


@pytest.mark.parametrize(
    ("level", "left", "right", "overlaps"),
    [
        # from -6 to 12, and from -4 to 2
        (0, (0, 0, 4, 4), (0, 0, 4, 4), ("0.500", "0.500")),
        (40, (0, 0, 2, 4), (2, 0, 4, 4), ("0.333", "0.333")),  # from 1.2, and from -1.6 on
        (66, (0, 0, 2, 4), (2, 0, 4, 4), ("0.333", "0.333")),  # from 5.9, and from -0.04 on
        (67, (0, 0, 2, 2), (2, 2, 4, 4), ("0.500", "0.000")),  # from 6.06, and from 0.02 on
        (100, (0, 0, 2, 2), (2, 2, 4, 4), ("0.500", "0.000")),
    ],
)
def test_the_boxes_by_hand(level, left, right, overlaps):
    lab = boxes_lab(level=level)
    assert repr(lab) == f"CamLab(picture 0, overlay: west, east; boxes at {level}%)"
    assert lab.describe().splitlines()[1:] == [
        "Left, west (97.8%): mean of 4 values 3.000 + bias 0.500 = logit 3.500; the largest is "
        f"12.000 at row 0, column 0, in the true box. Its box at {level}% and the true box: "
        f"intersection over union {overlaps[0]}.",
        "Right, east (1.1%): mean of 4 values -1.000 + bias 0.000 = logit -1.000; the largest is "
        f"2.000 at row 1, column 1, outside the true box. Its box at {level}% and the true box: "
        f"intersection over union {overlaps[1]}.",
    ]
    said = zip(("Left", "Right", "True"), (left, right, (0, 0, 4, 2)), strict=True)
    in_pixels = (f"{name} box: x {b[0]} to {b[2]}, y {b[1]} to {b[3]} pixels." for name, b in said)
    assert lab.text.endswith(" ".join(["View: overlay of 80%.", *in_pixels]))
    for panel, found in zip(below(lab.frame), (left, right), strict=True):
        assert boxes_on_map(panel) == {"gap-box": found, "gap-box-true": (0, 0, 4, 2)}
        assert texts(panel)[-2:] == ["box from the map", "true box"]


def boxes_on_map(panel, pixel=SIDE / 4, top=TOP):
    """The boxes that are drawn on a map, in pixels; each is seen on black and on white."""
    found, under = {}, []
    for one in elements(panel, "rect"):
        x, y, width, height = place_of(one)
        if one.get("class") == "gap-box-below":
            under.append((x, y, width, height))
        elif one.get("class").startswith("gap-box") and width != 28:  # of the legend
            assert (x, y, width, height) in under
            x, y = x - EDGE, y - top
            edges = [edge / pixel for edge in (x, y, x + width, y + height)]
            found[one.get("class")] = pytest.approx(edges, abs=0.01)
    return found


def test_the_true_box_is_that_of_the_picture_and_the_other_that_of_the_class():
    lab = boxes_lab(picture=1, left=1, right=0)  # maps 4 0 / 0 0 and -12 0 / 0 0
    left, right = below(lab.frame)
    assert boxes_on_map(left) == {"gap-box": (0, 0, 2, 2), "gap-box-true": (1, 1, 4, 4)}
    assert boxes_on_map(right) == {"gap-box": (0, 0, 4, 4), "gap-box-true": (1, 1, 4, 4)}
    assert "intersection over union 0.083." in lab.frame.words[1]  # 1 of 4 + 9 - 1
    assert "column 0, in the true box" in lab.frame.words[1]  # whose middle is at 1, 1


def test_the_level_moves_boxes_and_nothing_else():
    lab = boxes_lab()
    assert control(lab, "level")["label"] == "Box level %"
    before = lab.frame
    move(lab, level=90)
    assert lab.value == CamState(right=1, level=90)
    for one, other in zip(before.panels, lab.frame.panels, strict=True):
        assert (one.height, [*texts(one)]) == (other.height, [*texts(other)])
        assert [pixels.digest for pixels in one.pixels] == [p.digest for p in other.pixels]
    for level in (0, 9, 100):
        frame = lab.draw(CamState(right=1, level=level))
        assert [*map(len, frame.room)] == [*map(len, before.room)]
        assert all(len(w) <= len(r) for w, r in zip(frame.words, frame.room, strict=False))


def test_without_boxes_there_are_none():
    lab = CamLab(Coarse(), LARGE, [0, 0], NAMES, right=1, level=90)
    assert "level" not in [one["name"] for one in lab.opening()["controls"]]
    assert lab.frame.panels[0].svg == tiny_lab().frame.panels[0].svg
    assert lab.text == tiny_lab().text
    assert repr(lab) == repr(tiny_lab())


@pytest.mark.parametrize(
    ("shape", "true", "pixel"),
    [((2, 4), (1, 0, 3, 2), 68), ((230, 230), (0, 0, 115, 230), SIDE / 230)],
)
def test_boxes_on_long_and_on_large_pictures(shape, true, pixel):
    """Also where the picture is shown with fewer pixels."""
    lab = CamLab(Tiny(), torch.zeros(1, 1, *shape), boxes=torch.tensor([true]))
    drawn = boxes_on_map(lab.frame.panels[0], pixel)
    assert drawn == {"gap-box": (0, 0, *shape[::-1]), "gap-box-true": true}


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_map_that_is_not_finite_gives_no_box(number):
    images = LARGE.clone()
    images[0, 0, 0, 0] = number
    lab = CamLab(Coarse(), images.flip(0), boxes=BOXES)
    lab.set(picture=1)
    for words in lab.frame.words[1:]:
        assert words.endswith("No box, as not all values are finite numbers.")
        assert "the true box" not in words
    for panel in below(lab.frame):
        assert boxes_on_map(panel) == {"gap-box-true": (1, 1, 4, 4)}
    assert "Left box" not in lab.text
    assert lab.text.endswith("True box: x 1 to 4, y 1 to 4 pixels.")


class FlatMaps(Tiny):
    def __init__(self):
        super().__init__()
        self.flat = nn.Flatten(2)

    def forward(self, images):
        return self.head(self.pool(self.flat(self.body(images)).unsqueeze(3)).flatten(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"picture": -1}, "picture to be an integer from 0 on, got -1"),
        ({"picture": 2}, "picture to be below 2, got 2"),
        ({"picture": "1"}, "picture to be an integer from 0 on, got '1'"),
        ({"left": 3}, "left to be one of 3 classes, got 3"),
        ({"right": "top 4"}, "right to be one of 3 classes, got 'top 4'"),
        ({"right": -1}, 'right to be an integer from 0 on or "top 1" to "top 5", got -1'),
        ({"left": "top 6"}, 'left to be an integer from 0 on or "top 1" to "top 5", got \'top 6\''),
        ({"left": "west"}, "got 'west'"),
        ({"left": 1.0}, "got 1.0"),
        ({"view": "heat"}, 'view "map", "overlay" or "numbers", got \'heat\''),
        ({"strength": 101}, "strength to be an integer from 0 to 100, got 101"),
        ({"strength": "top 1"}, "strength to be an integer from 0 to 100, got 'top 1'"),
        ({"level": 101}, "level to be an integer from 0 to 100, got 101"),
        ({"level": 0.4}, "level to be an integer from 0 to 100, got 0.4"),
        ({"boxes": BOXES[:1]}, r"a box for each of 2 pictures, \(2, 4\), got \(1, 4\)"),
        ({"boxes": BOXES[0]}, r"a box for each of 2 pictures, \(2, 4\), got \(4,\)"),
        ({"boxes": "here"}, r"a box for each of 2 pictures, \(2, 4\), got str"),
        ({"boxes": BOXES}, r"boxes inside their pictures of 2×2, got \(0, 0, 4, 2\)"),
        ({"boxes": BOXES - 1}, r"boxes inside their pictures of 2×2, got \(-1, -1, 3, 1\)"),
        ({"boxes": 0 * BOXES}, r"boxes with left < right .* got \(0, 0, 0, 0\)"),
        (
            {"model": Coarse(), "images": torch.rand(2, 1, 5, 4), "boxes": BOXES},
            "maps that cut the picture into whole squares, .* got maps of 2×2 on pictures of 5×4",
        ),
        ({"smooth": 1}, "smooth to be True or False, got 1"),
        ({"labels": [0]}, "a label for each of 2 pictures, got 1"),
        ({"labels": [[0], [1]]}, r"labels to be integers from 0 to 2, got \[0\]"),
        ({"class_names": list("abcd")}, "a name for each of 3 classes, got 4"),
        ({"model": nn.Flatten()}, "no linear layer or 1×1 convolution"),
        ({"model": FlatMaps()}, r"features \(N, C, h, w\) from 'flat', got \(1, 2, 4\)"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=f"expected .*{message}"):
        CamLab(**({"model": Tiny(), "images": PICTURES} | settings))
