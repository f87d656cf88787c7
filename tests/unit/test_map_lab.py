import re
import warnings
from dataclasses import asdict, replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import frames
from frames import below, check_letters, click, control, place_of, touched
from gap_utils.data import CLASS_NAMES, load_fashion_mnist
from gap_utils.models import load_trained
from gap_utils.svg import NOTHING
from gap_utils.widgets import MapLab
from gap_utils.widgets.map_lab import ORDERS, POOLS, SCALES, VIEWS, MapState
from gap_utils.widgets.map_reader import READINGS, MapReader, Scale, scale_of

TEST = load_fashion_mnist().test  # number 2 is a trouser
GAP = load_trained("gap")
BLANK = torch.zeros(2, 1, 28, 28)
MOVED = MapState(3, "body.9", 5, "one map", "each map its own", "max", "mean")
LONG = "MOUNTAIN BIKE\nNUMBER {} " + 300 * "long "
NAMES = ["<b>&\"quoted'</b>", "自行车" * 20, "🚲" * 40, "دراجة جبلية", *map(LONG.format, range(6))]


class Gives(nn.Module):
    """The same maps (C, H, W) for every picture."""

    def __init__(self, maps):
        super().__init__()
        self.maps, self.layer = torch.as_tensor(maps, dtype=torch.float32), nn.Identity()

    def forward(self, images):
        return self.layer(self.maps[None])


@pytest.fixture(autouse=True)
def one_thread():  # two wait for each other where other programs run
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def gap_lab(model=GAP, labels=TEST.labels, **settings):
    return MapLab(model, TEST.images, labels, CLASS_NAMES, **{"picture": 2, **settings})


def shown(lab):
    return lab.shown(lab.value)


def elements(lab, name, panel=1):
    """The elements of a name in a panel: 0 holds the picture, 1 the maps."""
    return frames.elements(lab.frame.panels[panel], name)


def texts(lab, panel=1):
    return frames.texts(lab.frame.panels[panel])


def boxes(lab, class_, panel=1):
    """Left and upper edge, width and height of the boxes of a class."""
    return [place_of(box) for box in elements(lab, "rect", panel) if box.get("class") == class_]


def map_boxes(lab):
    return boxes(lab, "gap-edge")[: len(shown(lab).page)]


def levels(lab):
    """The levels of each map, as the frame shows them."""
    mosaic = lab.frame.panels[1].pixels[0]
    left, top, width, height = mosaic.box
    across, down = mosaic.levels.shape[1] / width, mosaic.levels.shape[0] / height
    return [
        mosaic.levels[
            round((y - top) * down) : round((y - top + tall) * down),
            round((x - left) * across) : round((x - left + wide) * across),
        ]
        for x, y, wide, tall in map_boxes(lab)
    ]


def squares(lab, rows, columns):
    """The levels of each map, one a square."""
    found = []
    for map_ in levels(lab):
        down, across = map_.shape[0] // rows, map_.shape[1] // columns
        found.append(map_[::down, ::across])
        assert (map_ == found[-1].repeat(down, 0).repeat(across, 1)).all()
    return found


def bars(lab):
    """Beginning and end of the bar of each map, from above, in parts of the map's height."""
    path = next(path for path in elements(lab, "path") if path.get("class") == "gap-dark")
    found = re.findall(r"M([\d.]+) ([\d.]+)h4v([\d.]+)h-4z", path.get("d"))
    result = []
    for (x, y, length), box in zip(found, map_boxes(lab), strict=True):
        assert float(x) == pytest.approx(box[0] + box[2] + 2, abs=0.02)
        begin = (float(y) - box[1]) / box[3]
        result.append((begin, begin + float(length) / box[3]))
    return result


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def close(ours, theirs, rtol=1e-5, atol=1e-5):
    np.testing.assert_allclose(ours, theirs, rtol, atol)


@torch.no_grad()
def test_maps_means_maxima_and_logits_are_those_of_pytorch():
    reader, given = MapReader(GAP, TEST.images), TEST.images[2:3]
    assert list(reader.layers) == [*(f"body.{n}" for n in range(15)), "head.0", "head.1"]
    for (name, layer), module in zip(reader.layers.items(), [*GAP.body, *GAP.head], strict=False):
        given, reading = module(given), reader.read(2, name)
        assert layer == (type(module).__name__, tuple(given.shape[1:]))
        close(reading.maps, given[0])
        close(reading.means, given[0].mean((1, 2)))
        close(reading.maxima, given[0].flatten(1).max(1).values)
        close(reading.logits, GAP(TEST.images[2:3])[0])


@torch.no_grad()
def test_the_map_of_the_trouser_has_the_largest_mean():
    assert CLASS_NAMES[TEST.labels[2]] == "Trouser"
    lab, logits = gap_lab(layer="head.0", sort="mean"), GAP(TEST.images[2:3])[0]
    view = shown(lab)
    assert view.channel == logits.argmax() == 1
    close(view.probabilities, logits.softmax(0))
    assert lab.describe().startswith(
        "head.0 (Conv2d) gives 10 maps of 3×3. Map 1, place 0 by mean: "
        f"mean {view.reading.means[1]:.2f}, max {view.reading.maxima[1]:.2f}. Its mean is the "
        f"logit of Trouser, {logits[1]:.2f}. The network says Trouser (100%), right."
    )
    assert texts(lab)[2:5] == ["1 Trouser", "13.88", "30.39"]


def test_the_order_of_the_maps():
    lab = MapLab(Gives([[[1, 1, 1]], [[-9, 0, 4]], [[3, 2, 1]], [[1, 1, 1]]]), BLANK)  # two equal
    for sort, expected in {
        "index": [0, 1, 2, 3],
        "mean": [2, 0, 3, 1],
        "max": [1, 2, 0, 3],
    }.items():
        for place, channel in enumerate(expected):
            lab.set(sort=sort, place=place)
            assert shown(lab).channel == channel and f"Map {channel}" in lab.describe()
        assert texts(lab)[2:-3:3] == [*map(str, expected)]


@torch.no_grad()
def test_the_page_of_64_and_the_calls_of_a_repeated_layer():
    from torchvision.models import resnet18  # takes a second

    model, images = resnet18().eval(), torch.rand(1, 3, 64, 64)
    lab = MapLab(model, images, layer="layer4.1.relu_1", place=300)
    assert repr(lab) == "MapLab(picture 0, layer4.1.relu_1 (ReLU): 512 maps of 2×2)"
    assert shown(lab).page.tolist() == list(range(256, 320))
    maps = model.layer4[0](nn.Sequential(*list(model.children())[:7])(images))
    first, last = (block := model.layer4[1]).bn1(block.conv1(maps))[0].relu(), block(maps)[0]
    close(lab.shown(replace(lab.value, layer="layer4.1.relu")).reading.maps, first)
    close(shown(lab).reading.maps, last)
    lab.set(sort="mean", place=511)
    close(shown(lab).numbers[shown(lab).page], last.mean((1, 2)).sort().values[:64].flip(0))


def test_a_single_layer_has_no_classes():
    layer = nn.Conv2d(1, 64, 3, padding=1)
    lab = MapLab(layer, TEST.images[:3], picture=1)
    assert repr(lab) == "MapLab(picture 1, the whole model (Conv2d): 64 maps of 28×28)"
    assert lab.text.startswith("Picture 1. The whole model (Conv2d) gives 64 maps of 28×28.")
    close(shown(lab).reading.maps, layer(TEST.images[1:2]).detach()[0])
    assert shown(lab).probabilities is None and not shown(lab).are_logits
    assert texts(lab, 0) == ["picture 1"]
    # the softmax of a single logit would always be 100%
    single = nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for said in (lab.text, MapLab(single, BLANK).text):
        assert "network" not in said and "logit" not in said


@pytest.mark.parametrize("head", ["gap", "gmp", "flatten"])
def test_which_maps_have_the_logits_as_their_numbers(head):
    lab = gap_lab(load_trained(head), layer="body.14", place=1)
    for layer, pool in product(["body.14", "head.0"][: 1 if head == "flatten" else 2], POOLS):
        lab.set(layer=layer, pool=pool)
        expected = (head, layer, pool) in {("gap", "head.0", "mean"), ("gmp", "head.0", "max")}
        assert shown(lab).are_logits == expected
        assert (f"Its {pool} is the logit of Trouser" in lab.describe()) == expected
        assert ("1 Trouser" in texts(lab)) == expected


def test_levels_have_zero_in_the_middle_and_end_at_the_limit():
    maps = Gives([[[0.0, 2.0], [1.0, -2.0]], [[0.0, 4.0], [-4.0, 2.0]]])
    by_scale = {
        SCALES[0]: [[[125, 188], [156, 62]], [[125, 250], [0, 188]]],
        SCALES[1]: [[[125, 250], [188, 0]], [[125, 250], [0, 188]]],
    }
    for scale, expected in by_scale.items():
        lab = MapLab(maps, BLANK, scale=scale)
        assert np.array_equal(squares(lab, 2, 2), expected)
        lab.set(view="one map", place=1)
        assert np.array_equal(squares(lab, 2, 2), expected[1:])


@pytest.mark.parametrize(
    ("shape", "columns"),
    [((1, 3, 3), 1), ((2, 28, 28), 1), ((10, 3, 3), 2), ((16, 10, 30), 3), ((64, 28, 28), 8),
     ((33, 1, 50), 1), ((64, 1, 1), 8), ((40, 60, 4), 14)],
)  # fmt: skip
def test_maps_lie_in_rows_and_do_not_touch(shape, columns):
    lab = MapLab(Gives(1 + noise(*shape).abs()), BLANK)
    found, panel = map_boxes(lab), lab.frame.panels[1]
    assert len({x for x, *_ in found}) == columns and len(found) == shape[0]
    for x, y, width, height in found:
        assert width / height == pytest.approx(shape[2] / shape[1], rel=0.15)
        assert x >= 0 and x + width + 6 <= panel.width and y >= 36 and y + height <= 316
    for one, other in pairwise(found):
        # a bar, and something on both sides of it
        assert other[0] >= one[0] + one[2] + 7.9 or other[1] >= one[1] + one[3] + 1.9
    mosaic = panel.pixels[0].levels
    assert sum(part.size for part in levels(lab)) == (mosaic != NOTHING).sum()


def test_another_map_marked_is_the_same_array():
    lab = MapLab(Gives(noise(100, 5, 5)), BLANK)
    pixels = lab.frame.panels[1].pixels[0]
    for place in (0, 9, 63, 64, 99):
        lab.set(place=place)
        left, top, width, height = map_boxes(lab)[place % 64]
        assert boxes(lab, "gap-frame") == [(left, top, width, height)]
        assert (lab.frame.panels[1].pixels[0] is pixels) == (place < 64)


@pytest.mark.parametrize("size", [7, 112, 500])
def test_the_maximum_of_one_map_is_framed(size):
    maps = torch.zeros(1, size, size)
    maps[0, 5, 2] = 1
    lab = MapLab(Gives(maps), BLANK, view="one map")
    ((left, top, width, height),) = map_boxes(lab)
    square = (left + width * 2 / size, top + height * 5 / size, width / size, height / size)
    for class_ in ("gap-line-black", "gap-line-white"):
        close(boxes(lab, class_), [square], atol=0.011)
    assert "mean 0.02, max 1, min 0" in texts(lab) or size > 7
    assert levels(lab)[0].shape[0] <= 224


@pytest.mark.parametrize("sort", ["index", "mean"])
def test_a_click_marks_a_map_and_another_one_shows_it_alone(sort):
    lab = MapLab(Gives(noise(128, 5, 5)), BLANK, place=70, sort=sort)  # on the second page
    found = touched(lab.frame.panels[1])
    assert [*map(place_of, found)] == map_boxes(lab)
    assert [one.get("data-link") for one in found] == [f"map{n}" for n in shown(lab).order[64:]]
    click(lab, found[3])
    assert (lab.value.place, lab.value.view) == (67, "all maps")
    assert boxes(lab, "gap-frame") == [map_boxes(lab)[3]]
    click(lab, touched(lab.frame.panels[1])[3])
    assert (lab.value.place, lab.value.view) == (67, "one map")
    (back,) = touched(lab.frame.panels[1])
    click(lab, back)
    assert lab.value == replace(lab.value, place=67, view="all maps", sort=sort)


def test_a_click_on_a_class_marks_its_map_where_maps_are_classes():
    lab = gap_lab(layer="head.0", picture=4, sort="max")
    best = np.argsort(-shown(lab).probabilities)[:5]
    of_maps = {one.get("data-link") for one in touched(lab.frame.panels[1])}
    for view, (rank, number) in product(VIEWS, enumerate(best)):
        lab.set(view=view)
        row = touched(lab.frame.panels[0])[rank]
        assert place_of(row) == boxes(lab, "gap-pale", panel=0)[rank]
        assert row.get("data-link") == f"map{number}" in of_maps
        click(lab, row)
        assert (shown(lab).channel, lab.value.view) == (number, view)
    assert not touched(gap_lab(layer="body.14").frame.panels[0])


@torch.no_grad()
def test_the_numbers_of_one_map_are_read_out():
    lab = gap_lab(layer="body.4", view="one map", place=5)
    assert lab.frame.panels[1].readout.numbers.shape == (1, 14, 14)
    close(lab.frame.panels[1].readout.numbers[0], GAP.body[:5](TEST.images[2:3])[0, 5])
    maps = noise(3, 2, 7)
    maps[1, 0] = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e-30, 1e30, 0, 1 / 3])
    lab = MapLab(Gives(maps), BLANK, view="one map", place=2, sort="max")
    for place, channel in enumerate(shown(lab).order):
        lab.set(place=place)
        readout = lab.frame.panels[1].readout
        assert np.array_equal(readout.numbers, maps[[channel]], equal_nan=True)
        assert readout.names == ("",)
        close(readout.box, map_boxes(lab)[0], atol=0.01)
    lab.set(view="all maps")
    assert lab.frame.panels[1].readout is None


@pytest.mark.parametrize(("shape", "small"), [((128, 128), True), ((127, 130), False)])
def test_squares_that_can_be_pointed_at_are_two_pixels_large(shape, small):
    lab = MapLab(Gives(noise(1, *shape)), BLANK)
    assert " gives 1 map of " in lab.text
    assert not touched(lab.frame.panels[1])  # it is alone as it is
    assert (lab.frame.panels[1].readout is not None) == small
    assert ("point at a square" in texts(lab)) == small
    if small:
        assert min(lab.frame.panels[1].readout.box[2:]) >= 2 * 128


def test_the_bars_are_as_long_as_their_numbers():
    maps = Gives(
        [[[-2.0, 4.0]], [[-1.0, -3.0]], [[torch.inf, torch.nan]]]
    )  # mean 1 and -2, max 4 and -1
    for pool, expected in {
        "mean": [(0, 1 / 3), (1 / 3, 1)],
        "max": [(0, 4 / 5), (4 / 5, 1)],
    }.items():
        close(bars(MapLab(maps, BLANK, pool=pool))[:2], expected, atol=0.001)
    # nothing is a line, infinity a bar from end to end
    maps = Gives([[[0.0]], [[torch.nan]], [[torch.inf]], [[-torch.inf]], [[3.0]]])
    lab = MapLab(maps, BLANK)
    line = 1 / map_boxes(lab)[0][3]
    close(bars(lab), [(1 - line, 1), (1 - line, 1), (0, 1), (1 - line, 1), (0, 1)], atol=0.001)


def test_the_colour_bar_says_where_it_ends_and_whose_it_is():
    def said(*maps, **settings):
        lab = MapLab(Gives(maps), BLANK, **settings)
        return texts(lab)[-3:], lab.frame.panels[1].pixels[1].levels[0, [0, -1]].tolist()

    two = [[-1.0, 4.0]], [[-3.0, 1.0]]
    assert said(*two, place=1) == (["-4", "4", "all maps, 0 is white"], [0, 250])
    assert said(*two, place=1, scale=SCALES[1])[0] == ["-3", "3", "map 1 only: 0 is white"]
    assert said([[1.0, 4.0, torch.nan]]) == (["0", "4", "all maps, 0 is white"], [125, 250])
    assert said([[0.0, 0.0]])[0][:2] == ["0", "0"]
    assert said([[-1.23456e-7, 0.0]])[0][:2] == ["-1e-7", "1e-7"]


def test_a_few_very_large_numbers_do_not_own_the_scale():
    numbers = np.linspace(-1, 1, 200)
    assert scale_of(numbers).limit == 1
    outlier = scale_of(np.array([*numbers, -3.1, 0.0]))
    assert outlier == Scale(limit=1, lowest=-3.1, highest=1, beyond=1, others=0)
    assert scale_of(np.array([*numbers, 2.9, 9])).limit == 2.9  # not three times as far
    assert scale_of(np.array([*numbers, *[9.0] * 4])).limit == 9  # they are too many
    assert scale_of(np.array([*numbers[:48], 9.0])).limit == 9  # of too few
    strange = scale_of(np.array([np.nan, np.inf, -np.inf, 2.0]))
    assert (strange.limit, strange.others, strange.beyond) == (2, 3, 0)
    assert scale_of(np.array([np.nan])).limit == 0


def test_numbers_beyond_the_scale_are_marked_and_said():
    lab = gap_lab(layer="head.0")
    assert shown(lab).reading.maps.min() == pytest.approx(-108.91, abs=0.01)
    assert lab.frame.words[1] == (
        "The colours end at ±31.58. Numbers beyond it have a white corner: 1, as far as -108.91."
    )
    assert lab.text.endswith(lab.frame.words[1])
    assert texts(lab)[-3:] == ["-31.6", "31.6", "all maps, 0 is white"]
    row, column = np.unravel_index(shown(lab).reading.maps[7].argmin(), (3, 3))
    cell = squares(lab, 6, 6)[7][2 * row :, 2 * column :][:2, :2]
    assert cell.tolist() == [[0, 125], [0, 0]]
    lab.set(layer="body.0")
    assert lab.frame.words[1] == ""
    assert lab.text.endswith("7: -0.048, 1.41.")


def test_ordinary_layers_have_no_marks():
    reader = MapReader(GAP, TEST.images)
    marked = {name for name in reader.layers for n in range(8) if reader.read(n, name).scale.beyond}
    assert marked <= {"head.0"}


def test_a_diverged_network_is_shown():
    maps = noise(16, 4, 4) / 100
    maps[3], maps[5, 0, 0], maps[6] = torch.nan, torch.inf, -torch.inf
    lost = nn.Sequential(Gives(maps), *GAP.head[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lab = MapLab(lost, BLANK, [1, 0])
        for rest in product((3, 5, 15), VIEWS, SCALES, POOLS, ORDERS):
            lab.value = MapState(0, "0.layer", *rest)
    assert "mean no number, max no number. The network says no number." in lab.describe()
    assert texts(lab, 0) == ["1", "it says no number"]
    lab.set(scale=SCALES[0], view=VIEWS[0], sort=ORDERS[0])
    assert lab.describe().endswith("Infinite or no number, and chequered: 33.")
    chequered = {3: [[251, 252], [252, 251]], 6: [[0, 125], [125, 0]]}
    for channel, expected in chequered.items():
        assert (squares(lab, 8, 8)[channel] == np.tile(expected, (4, 4))).all()


def test_the_text_holds_the_numbers_of_the_page_and_the_verdict():
    maps, lab = noise(100, 5, 5), MapLab(Gives(noise(100, 5, 5)), BLANK, place=70)

    def rows():
        found = re.findall(r"(\d+): (-?[.\d]+), (-?\d[.\d]*?)[;.](?= |$)", lab.text)
        return {int(channel): [float(n) for n in numbers] for channel, *numbers in found}

    assert list(rows()) == list(range(64, 100))
    for channel, numbers in rows().items():
        close(numbers, [maps[channel].mean(), maps[channel].max()], atol=0.006)
    lab.set(view="one map")
    assert list(rows()) == [70]
    assert gap_lab().text.startswith("Picture 2, Trouser. body.0 (Conv2d) gives 8 maps")
    assert gap_lab(labels=None).text.startswith("Picture 2. ")
    for labels in (TEST.labels, TEST.labels.tolist(), np.full(len(TEST), 4)):
        lab, is_right = gap_lab(labels=labels), labels[2] == 1
        verdict = "right." if is_right else "wrong: it is Coat."
        assert f"says Trouser (100%), {verdict}" in lab.text
        assert texts(lab, 0)[1] == {"r": "✓ right", "w": "✗ wrong"}[verdict[0]]
        line = elements(lab, "text", 0)[1]
        assert line.get("class") == f"gap-ink-{verdict[:5]}"
    assert gap_lab(labels=None).describe().endswith("says Trouser (100%).")
    assert "says 1 (100%)." in MapLab(GAP, TEST.images, picture=2).text  # without names


def test_the_most_probable_classes():
    lab = gap_lab(picture=4)
    probabilities = shown(lab).probabilities
    best = np.argsort(-probabilities)[:5]
    said = texts(lab, 0)
    assert said[2::2] == [CLASS_NAMES[number] for number in best]
    assert said[3::2] == [f"{probabilities[number]:.0%}" for number in best]
    width = lab.frame.panels[0].width
    found = [width for _, _, width, _ in boxes(lab, "gap-grey", panel=0)]
    close(found, width * probabilities[best], atol=0.006)


def test_the_panels_keep_their_size_in_all_states():
    lab, sizes = gap_lab(), set()
    for layer, *rest in product(("body.0", "body.12", "head.1"), VIEWS, SCALES, POOLS, ORDERS):
        state = MapState(2, layer, 0, *rest)
        frame = lab.draw(state)
        sizes.add(tuple((panel.width, panel.height) for panel in below(frame)))
        again = lab.draw(state)
        assert [panel.svg for panel in again.panels] == [panel.svg for panel in frame.panels]
    assert sizes == {((184, 354), (300, 354))}


@settings(max_examples=40)
@given(st.data())
def test_any_state_is_drawn_within_its_panels(data):
    count, *size = data.draw(st.tuples(*map(st.integers, (1, 1, 1), (100, 40, 40))))
    maps = noise(count, *size) * 10.0 ** data.draw(st.integers(-7, 8))
    for strange in data.draw(st.lists(st.sampled_from([torch.nan, torch.inf, -torch.inf, 1e12]))):
        maps.view(-1)[data.draw(st.integers(0, maps.numel() - 1))] = strange
    choices = map(st.sampled_from, (VIEWS, SCALES, POOLS, ORDERS))
    place = st.integers(0, count - 1)
    state = data.draw(st.builds(MapState, st.just(0), st.none(), place, *choices))
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), *[nn.Linear(count, 10)] * (count % 2)
    )
    lab = MapLab(nn.Sequential(Gives(maps), head), BLANK, class_names=NAMES * 10, **asdict(state))
    for panel in lab.frame.panels:
        check_letters(panel)


@pytest.mark.parametrize("size", [1e6, 123.45, 0.0123, 1e-6])
def test_numbers_of_any_size_and_long_names(size):
    maps = noise(16, 10, 30) * size
    named = MapLab(nn.Sequential(Gives(maps[:10]), *GAP.head[1:]), BLANK, [3, 4], NAMES)
    for lab in (named, MapLab(Gives(maps), BLANK), MapLab(Gives(-maps.abs()), BLANK)):
        for panel in lab.frame.panels:
            check_letters(panel)
        assert not re.search("(mean|max) 0[,.] |e[+-]0", lab.text)
    assert texts(named, 0)[0].startswith(f"\N{FIRST STRONG ISOLATE}{NAMES[3]}")
    assert {"gap-ink", "gap-live"} == {line.get("class") for line in elements(named, "text")}


def test_controls_and_fields():
    lab = gap_lab()
    start = lab.value
    assert lab.from_fields(lab.to_fields(MOVED)) == MOVED
    assert lab.to_fields(start) == asdict(start)
    assert lab.press("reset", MOVED) == start
    controls = {control["name"]: control for control in lab.opening()["controls"]}
    labels = [control["label"] for control in controls.values()]
    assert labels == [
        *("Picture", "Layer", "Place", "View", "Colours", "Bars", "Sort by"),
        *("Next wrong one", "Start again"),
    ]
    assert controls["picture"]["high"] == len(TEST) - 1
    assert ("body.0: Conv2d 8×28×28", "body.0") in controls["layer"]["options"]
    one = MapLab(nn.Conv2d(1, 2, 3), BLANK[:1]).opening()["controls"]
    assert {"picture", "layer"}.isdisjoint(control["name"] for control in one)


def test_what_makes_no_difference_is_hidden():
    def hidden(lab):
        return {name for name, limit in lab.limits(lab.value).items() if limit.get("hidden")}

    assert hidden(gap_lab()) == set()
    assert hidden(gap_lab(layer="head.1")) == {"pool"}
    assert hidden(MapLab(nn.Conv2d(1, 1, 3), BLANK)) == {"place", "view", "scale", "sort"}


def test_the_marked_map_is_one_that_the_layer_has():
    lab = gap_lab(layer="body.12", place=31)
    assert lab.limits(lab.value)["place"]["high"] == 31
    wanted = {**lab.to_fields(lab.value), "layer": "head.0"}
    state = lab.from_fields(wanted)
    assert state == replace(lab.value, layer="head.0", place=9)
    assert lab.note(wanted, state) == "The place is now 9: head.0 has no more."
    assert lab.note(lab.to_fields(state), state) == ""
    assert lab.limits(state)["place"] == {"high": 9, "hidden": False}


def test_a_picture_runs_through_the_network_once_for_each_layer():
    model, passes = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU()), []
    lab = MapLab(model, TEST.images)
    model.register_forward_hook(lambda *_: passes.append(1))

    def passes_of(*states):
        before = len(passes)
        for state in states:
            lab.value = state
        return len(passes) - before

    assert passes_of(MapState(1, "1")) == passes_of(MapState(1, "0")) == 1
    assert passes_of(*(MapState(1, "0", 3, *rest) for rest in product(VIEWS, SCALES, POOLS))) == 0
    assert passes_of(MapState(1, "0", sort="max"), MapState(0, "0"), MapState(1, "1")) == 0
    assert passes_of(*(MapState(n, "0") for n in range(2, 2 + READINGS))) == READINGS
    assert passes_of(MapState(2, "0")) == 0
    assert passes_of(MapState(1, "0")) == 1  # so many others came since


@pytest.mark.parametrize("shape", [(120, 120), (64, 256), (300, 100)])
def test_colour_pictures_fill_their_space(shape):
    images = torch.zeros(1, 3, *shape)  # black
    images[0, 2, 0, 0] = 1
    lab = MapLab(nn.Conv2d(3, 8, 3, padding=1), images)
    assert f"8 maps of {shape[0]}×{shape[1]}" in repr(lab)
    assert shown(lab).image[0, 0] == pytest.approx(1 / 3)
    (pixels,) = lab.frame.panels[0].pixels
    left, top, width, height = pixels.box
    assert 112 < max(pixels.levels.shape) <= 224 and pixels.levels[0, 0] == 255
    assert max(width, height) == 300 and width / height == pytest.approx(shape[1] / shape[0])
    assert (2 * left + width, 2 * (top - 36) + height) == pytest.approx((300, 300))


def test_only_the_layers_asked_for_are_offered():
    lab = MapLab(GAP, TEST.images, layers="body.[03]")
    assert control(lab, "layer")["options"] == [
        ("body.0: Conv2d 8×28×28", "body.0"),
        ("body.3: ReLU 8×28×28", "body.3"),
    ]
    assert lab.value.layer == "body.0"
    model = Gives(noise(2, 3, 4))
    model.twin = model.layer  # one module of two names
    assert MapReader(model, BLANK, ["twin"]).layers == {"twin": ("Identity", (2, 3, 4))}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"picture": -1}, "picture to be an integer from 0 on, got -1"),
        ({"picture": 1000}, "picture to be below 1000, got 1000"),
        ({"place": "3"}, "place to be an integer from 0 on, got '3'"),
        ({"place": 1.5}, "place to be an integer from 0 on, got 1.5"),
        ({"layer": "body.8", "place": 16}, "place to be below 16, got 16"),
        ({"layer": "head.2"}, "layer to be one of 'body.0', .*, 'head.1', got 'head.2'"),
        ({"layer": ["body.0"]}, r"layer to be one of .*, got \['body.0'\]"),
        ({"view": "two maps"}, "view to be 'all maps' or 'one map', got 'two maps'"),
        ({"scale": None}, "scale to be 'one for all maps' or 'each map its own', got None"),
        ({"pool": "sum"}, "pool to be 'mean' or 'max', got 'sum'"),
        ({"sort": "min"}, "sort to be 'index' or 'mean' or 'max', got 'min'"),
        ({"labels": [1, 2]}, "a label for each of 1000 pictures, got 2"),
        ({"labels": torch.zeros(1000, 10).int()}, r"integers from 0 to 9, got \[0, 0"),
        (
            {"labels": [11] * 1000, "class_names": CLASS_NAMES},
            "integers from 0 to 9, got 11",
        ),
        ({"model": nn.Flatten()}, r"a layer that gives maps \(1, C, H, W\), got the whole model"),
        ({"layers": ["head.2"]}, r"a layer that gives maps \(1, C, H, W\), got head.2"),
        ({"layers": ["body.0", "bodi.1"]}, "layers of the model, got 'bodi.1'; near ones are"),
        ({"layers": []}, "at least one layer, got none"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        MapLab(**{"model": GAP, "images": TEST.images, **settings})


def test_the_first_layer_with_maps_is_where_a_lab_begins():
    lab = gap_lab(layer="body.5")
    lab.value = MapState(picture=1)
    assert lab.value == MapState(picture=1, layer="body.0")
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample(2))
    assert MapLab(pooled, BLANK).value.layer == "1"
    assert MapLab(pooled[0], BLANK).value.layer == ""
    assert repr(gap_lab()) == "MapLab(picture 2, body.0 (Conv2d): 8 maps of 28×28)"
