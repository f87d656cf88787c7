import base64
import ctypes
import gc
import re
import sys
import warnings
from copy import deepcopy
from dataclasses import asdict
from io import BytesIO
from itertools import product

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import nn

from gap_utils.data import CLASS_NAMES, load_fashion_mnist
from gap_utils.models import build_convnet, load_trained
from gap_utils.pictures import SCALE, Canvas
from gap_utils.widgets import MapLab, map_lab
from gap_utils.widgets.map_lab import KEPT, ORDERS, POOLS, SCALES, VIEWS, MapReader, MapState
from lab_controls import control, walk, words

TEST = load_fashion_mnist().test  # number 2 is a trouser
GAP = load_trained("gap")
BLANK = torch.zeros(2, 1, 28, 28)
LEFT, TOP, WIDTH, HEIGHT = (n * SCALE for n in map_lab.GRID)  # of the maps, picture pixels
WHITE, DARK_BLUE, DARK_ORANGE, DARK = (255,) * 3, (8, 48, 107), (127, 39, 4), (73, 80, 87)
HALF = (132, 180, 220)  # the blue between white and dark
CONTROLS = ("Picture", "Layer", "Map", "View", "Colours", "Bars", "Sort by")
MOVED = MapState(3, "body.9", 5, "one map", "each map its own", "max", "mean")


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


def pixels(of):
    picture = of.picture("") if isinstance(of, Canvas) else of.picture()
    return np.asarray(Image.open(BytesIO(picture.png)).convert("RGB")).astype(int)


def are(drawn, colour, tolerance=4):
    return (np.abs(drawn - colour) <= tolerance).all(-1)


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
        close(reading.limits, given[0].flatten(1).abs().max(1).values)
        close(reading.logits, GAP(TEST.images[2:3])[0])


@torch.no_grad()
def test_the_map_of_the_trouser_has_the_largest_mean():
    assert CLASS_NAMES[TEST.labels[2]] == "Trouser"
    lab, logits = gap_lab(layer="head.0", sort="mean"), GAP(TEST.images[2:3])[0]
    view = lab._look()
    assert view.channel == logits.argmax() == 1
    close(view.probabilities, logits.softmax(0))
    assert (
        "head.0 (Conv2d) gives 10 maps of 3×3. Channel 1, place 0 by mean: "
        f"mean {view.reading.means[1]:.2f}, max {view.reading.maxima[1]:.2f}. Its mean is the "
        f"logit of Trouser, {logits[1]:.2f}. The network says Trouser (100%), right."
    ) in words(lab)


def test_the_order_of_the_maps():
    lab = MapLab(Gives([[[1, 1, 1]], [[-9, 0, 4]], [[3, 2, 1]], [[1, 1, 1]]]), BLANK)  # two equal
    for sort, expected in {
        "index": [0, 1, 2, 3],
        "mean": [2, 0, 3, 1],
        "max": [1, 2, 0, 3],
    }.items():
        for place, channel in enumerate(expected):
            lab.set(sort=sort, place=place)
            assert lab._look().channel == channel and f"Channel {channel}" in words(lab)


@torch.no_grad()
def test_the_page_of_64_and_the_calls_of_a_repeated_layer():
    from torchvision.models import resnet18  # takes a second

    model, images = resnet18().eval(), torch.rand(1, 3, 64, 64)
    lab = MapLab(model, images, place=300)
    assert repr(lab) == "MapLab(picture 0, layer4.1.relu_1 (ReLU): 512 maps of 2×2)"
    assert lab._look().page.tolist() == list(range(256, 320))
    maps = model.layer4[0](nn.Sequential(*list(model.children())[:7])(images))
    first, last = (block := model.layer4[1]).bn1(block.conv1(maps))[0].relu(), block(maps)[0]
    close(lab._reader.read(0, "layer4.1.relu").maps, first)
    close(lab._reader.read(0, "layer4.1.relu_1").maps, last)
    lab.set(sort="mean", place=511)
    close(lab._look().numbers[lab._look().page], last.mean((1, 2)).sort().values[:64].flip(0))


def test_a_single_layer_has_no_classes():
    layer = nn.Conv2d(1, 64, 3, padding=1)
    lab = MapLab(layer, TEST.images[:3], picture=1)
    assert repr(lab) == "MapLab(picture 1, the whole model (Conv2d): 64 maps of 28×28)"
    assert "Picture 1. The whole model (Conv2d) gives 64 maps of 28×28." in words(lab)
    close(lab._look().reading.maps, layer(TEST.images[1:2]).detach()[0])
    assert lab._look().probabilities is None and not lab._look().are_logits
    # the softmax of a single logit would always be 100%
    single = nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for shown in (words(lab), words(MapLab(single, BLANK))):
        assert "network" not in shown and "logit" not in shown


@pytest.mark.parametrize("head", ["gap", "gmp", "flatten"])
def test_which_maps_have_the_logits_as_their_numbers(head):
    lab = gap_lab(load_trained(head), layer="body.14", place=1)
    for layer, pool in product(["body.14", "head.0"][: 1 if head == "flatten" else 2], POOLS):
        lab.set(layer=layer, pool=pool)
        expected = (head, layer, pool) in {("gap", "head.0", "mean"), ("gmp", "head.0", "max")}
        assert lab._look().are_logits == expected
        assert (f"Its {pool} is the logit of Trouser" in words(lab)) == expected


def test_colours_are_white_at_zero_and_dark_at_the_limit():
    maps = Gives([[[0.0, 2.0], [1.0, -2.0]], [[0.0, 4.0], [-4.0, 2.0]]])
    cell = (HEIGHT - 18 * SCALE) // 2  # one map is as high as the grid, without its caption
    first, second = slice(TOP + cell // 2, None, cell), slice(LEFT + cell // 2, None, cell)

    def cells(**settings):
        return pixels(MapLab(maps, BLANK, view="one map", **settings))[first, second][:2, :2]

    assert are(cells(place=1), [[WHITE, DARK_BLUE], [DARK_ORANGE, HALF]]).all()
    assert are(cells()[0], [WHITE, HALF]).all()
    own = [[WHITE, DARK_BLUE], [HALF, DARK_ORANGE]]
    assert are(cells(scale="each map its own"), own).all()
    for scale, right in zip(SCALES, (HALF, DARK_BLUE), strict=True):
        drawn = pixels(MapLab(maps, BLANK, scale=scale, sort="max"))[TOP:, LEFT : LEFT + WIDTH]
        for half, colour in zip(np.split(drawn, 2, axis=1), (DARK_BLUE, right), strict=True):
            rows, _ = np.nonzero(are(half, colour))  # the upper right number of each map
            assert len(rows) > 100 and rows.mean() < HEIGHT / 4


def test_the_marked_map_has_a_dark_frame_and_all_its_pixels():
    maps = Gives(torch.arange(1.0, 65)[:, None, None].expand(64, 28, 28))
    for marked in (0, 9, 63):
        drawn = pixels(MapLab(maps, BLANK, place=marked, sort="mean", scale="each map its own"))
        for place in range(64):
            x, y = LEFT + place % 8 * (WIDTH // 8) + 4, TOP + place // 8 * (HEIGHT // 8) + 4
            assert are(drawn[y - 4, x : x + 56], DARK, 0).all() == (place == marked)
            assert are(drawn[y : y + 56, x : x + 56], DARK_BLUE, 0).all()


@pytest.mark.parametrize(("size", "cell"), [(7, 68), (112, 4)])
def test_the_maximum_of_one_map_is_framed_and_seen(size, cell):
    maps = torch.zeros(1, size, size)
    maps[0, 5, 2] = 1
    drawn = pixels(MapLab(Gives(maps), BLANK, view="one map"))[TOP + 5 * cell - 6 :]
    drawn = drawn[:, LEFT + 2 * cell : LEFT + 3 * cell]
    for rows, colour in [(drawn[:4], DARK), (drawn[4:6], WHITE), (drawn[6 : 6 + cell], DARK_BLUE)]:
        assert are(rows, colour, 0).all()


def test_the_bars_are_as_long_as_their_numbers():
    maps = Gives([[[-2.0, 4.0]], [[-1.0, -3.0]]])  # mean 1 and -2, max 4 and -1
    for pool, expected in {"mean": (1 / 3, 2 / 3), "max": (4 / 5, 1 / 5)}.items():
        drawn = are(pixels(MapLab(maps, BLANK, pool=pool))[TOP:, LEFT : LEFT + WIDTH], DARK, 0)
        for half, part in zip(
            (drawn[:, : WIDTH // 2], drawn[:, WIDTH // 2 :]), expected, strict=True
        ):
            bar = np.nonzero(half.any(0))[0].max() - 3  # a column of it, right of the map
            assert half[:, bar].sum() == pytest.approx(part * 148, abs=2)


def test_the_colour_bar_ends_at_the_limit():
    left, top, width, height = (n * SCALE for n in map_lab.COLOURS)
    for lowest, dark, zero in [(-1.0, DARK_ORANGE, height // 2), (1.0, WHITE, height)]:
        drawn = pixels(MapLab(Gives([[[lowest, 4.0, torch.nan]]]), BLANK))[top:, left + 2]
        assert are(drawn[[2, height - 3, zero]], [DARK_BLUE, dark, DARK], 8).all()

    def numbers(*maps, **settings):
        return pixels(MapLab(Gives(maps), BLANK, **settings))[top - 20 :, left + width :]

    two, three, four = ([[-1.0, 4.0]], [[-3.0, 1.0]]), numbers([[3.0, -3.0]]), numbers([[-4.0]])
    assert (numbers(*two, place=1) == four).all() and (three != four).any()
    assert (numbers(*two, place=1, scale="each map its own") == three).all()


def test_the_text_holds_the_numbers_of_the_page_and_the_verdict():
    maps, lab = noise(100, 5, 5), MapLab(Gives(noise(100, 5, 5)), BLANK, place=70)

    def rows():
        found = re.findall(r"(\d+): (-?[.\d]+), (-?\d[.\d]*?)[;.](?= |$)", lab.picture().text)
        return {int(channel): [float(n) for n in numbers] for channel, *numbers in found}

    assert list(rows()) == list(range(64, 100))
    for channel, numbers in rows().items():
        close(numbers, [maps[channel].mean(), maps[channel].max()], atol=0.006)
    lab.set(view="one map")
    assert list(rows()) == [70]
    assert gap_lab().picture().text.startswith("Picture 2, Trouser. head.0 (Conv2d) gives 10 maps")
    assert gap_lab(labels=None).picture().text.startswith("Picture 2. ")
    left, bottom, width, _ = (n * SCALE for n in map_lab.CLASSES)
    for labels in (TEST.labels, TEST.labels.tolist(), np.full(len(TEST), 4)):
        lab, is_right = gap_lab(labels=labels), labels[2] == 1
        verdict = "right." if is_right else "wrong: it is Coat."
        assert f"says Trouser (100%), {verdict}" in lab.picture().text
        page = Canvas(504, 276, for_maps=True)
        page.write(left, bottom - 3 * SCALE, f"the network is {verdict[:5]}", 11 * SCALE, "lb")
        there = slice(bottom - 30, bottom), slice(left, left + width)
        assert (pixels(lab)[there] == pixels(page)[there]).all()
    assert "says Trouser (100%).<" in words(gap_lab(labels=None))
    assert "says 1 (100%).<" in words(MapLab(GAP, TEST.images, picture=2))  # without names


def test_the_picture_keeps_its_size_in_all_states():
    lab = gap_lab()
    for layer, *rest in product(("body.0", "body.12", "head.1"), VIEWS, SCALES, POOLS, ORDERS):
        lab.value = MapState(2, layer, 0, *rest)
        assert (lab.picture().width, lab.picture().height) == (504, 276)
    assert 504 * 276 < 170_000  # more takes a browser over 50 ms


@pytest.mark.parametrize(("label", "field"), [*zip(CONTROLS, asdict(MOVED), strict=True)])
def test_the_controls_and_the_state_follow_each_other(label, field):
    lab, new = gap_lab(), getattr(MOVED, field)
    start, shown = lab.value, lab.box.children[1].value
    control(lab, label).value = new
    assert asdict(lab.value) == {**asdict(start), field: new}
    assert lab.box.children[1].value != shown
    next(w for w in walk(lab.box) if getattr(w, "description", None) == "Start again").click()
    assert lab.value == start and control(lab, label).value == getattr(start, field)
    assert lab.box.children[1].value == shown
    lab.set(**{field: new})
    assert control(lab, label).value == new


def test_the_map_slider_follows_the_layer():
    lab = gap_lab(layer="body.12", place=31)
    assert control(lab, "Map").max == 31 and control(lab, "Picture").max == len(TEST) - 1
    control(lab, "Layer").value = "head.0"
    assert control(lab, "Map").max == lab.value.place == control(lab, "Map").value == 9
    control(lab, "Layer").value = "body.12"
    assert control(lab, "Map").max == 31 and lab.value.place == 9


def test_a_picture_runs_through_the_network_once_for_each_layer(monkeypatch):
    monkeypatch.setattr(map_lab, "KEPT", KEPT / 8)
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
    assert passes_of(MapState(1, "1", sort="max"), MapState(0, "1"), MapState(1, "0")) == 0
    room = int(map_lab.KEPT // (8 * 26 * 26 * 4))
    assert passes_of(*(MapState(n, "0") for n in range(2, room + 2))) == room
    assert passes_of(MapState(2, "0")) == 0
    assert passes_of(MapState(1, "0")) == 1  # so many others came since


def test_the_model_is_left_as_it_was_and_read_in_evaluation_mode():
    model = build_convnet(batch_norm=True).train()
    model.head.eval()
    model(TEST.images[:8]).sum().backward()
    before, modes = deepcopy(model.state_dict()), [m.training for m in model.modules()]
    gradients = [p.grad.clone() for p in model.parameters()]
    expected = deepcopy(model).eval().body[:2](TEST.images[5:6]).detach()[0]
    close(MapLab(model, TEST.images, layer="body.1", picture=5)._look().reading.maps, expected)
    with pytest.raises(
        ValueError, match=r"\(3, 28, 28\), where it raises RuntimeError: .*channels"
    ):
        MapLab(model, torch.zeros(1, 3, 28, 28))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.requires_grad and torch.equal(parameter.grad, gradient)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_models_of_other_number_formats(kind):
    model = build_convnet().to(kind)
    reading = gap_lab(model, layer="body.0")._look().reading
    assert reading.maps.dtype == reading.logits.dtype == np.float32
    expected = model.body[0](TEST.images[2:3].to(kind)).detach()[0].float()
    close(reading.maps, expected, rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("side", [120, 224, 256])
def test_colour_pictures_fill_their_space(side):
    images = torch.zeros(1, 3, side, side)  # black
    images[0, 2, 0, 0] = 1
    lab = MapLab(nn.Conv2d(3, 8, 3, stride=2, padding=1), images)
    assert f"8 maps of {side // 2}×{side // 2}" in repr(lab)
    assert lab._look().image[0, 0] == pytest.approx(1 / 3)
    space = (map_lab.IMAGE[2] * SCALE) ** 2
    assert 0.9 * space < (pixels(lab) == 0).all(-1).sum() < space


@pytest.mark.parametrize("size", [1e6, 123.45, 0.0123, 1e-6])
def test_numbers_of_any_size_and_long_names_stay_in_their_place(size):
    names, maps = [f"MOUNTAIN BIKE\nNUMBER {n}" for n in range(10)], noise(16, 10, 30) * size
    named = MapLab(nn.Sequential(Gives(maps[:10]), *GAP.head[1:]), BLANK, [3, 4], names)
    for lab in (named, MapLab(Gives(maps), BLANK), MapLab(Gives(-maps.abs()), BLANK)):
        drawn = pixels(lab)
        assert (drawn[:, -1] == 255).all()  # right of the colour bar's numbers
        assert (drawn[:, LEFT - 7 : LEFT - 4] == 255).all()  # right of the picture's name
        for column in (1, 2, 3):
            assert (drawn[TOP:, LEFT + column * (WIDTH // 4)] == 255).all()
        said = re.sub('src=".*?"', "", words(lab))
        assert not re.search("(mean|max) 0[,.] |e[+-]0", said)
    assert "says MOUNTAIN BIKE NUMBER" in words(named)


def test_a_diverged_network_is_shown():
    maps = noise(16, 4, 4) / 100
    maps[3], maps[5, 0, 0], maps[6] = torch.nan, torch.inf, -torch.inf
    lost = nn.Sequential(Gives(maps), *GAP.head[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lab = MapLab(lost, BLANK, [1, 0])
        for rest in product((3, 5, 15), VIEWS, SCALES, POOLS, ORDERS):
            lab.value = MapState(0, "0.layer", *rest)
    assert "mean no number, max no number. The network says no number." in words(lab)


def test_only_the_layers_asked_for_are_offered():
    lab = MapLab(GAP, TEST.images, layers="body.[03]")
    options = ("body.0: Conv2d 8×28×28", "body.0"), ("body.3: ReLU 8×28×28", "body.3")
    assert control(lab, "Layer").options == options and lab.value.layer == "body.3"
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
        ({"images": TEST.images[0]}, r"one picture, a tensor \(N, C, H, W\), got \(1, 28, 28\)"),
        ({"images": TEST.images[:0]}, r"at least one picture, .* got \(0, 1, 28, 28\)"),
        ({"images": TEST.images.numpy()}, "at least one picture, .* got ndarray"),
        ({"labels": [1, 2]}, "a label for each of 1000 pictures, got 2"),
        ({"labels": torch.zeros(1000, 10).int()}, r"integers from 0 to 9, got \[0, 0"),
        ({"labels": [0.5] * 1000}, "labels to be integers from 0 to 9, got 0.5"),
        ({"labels": [-1] * 1000}, "labels to be integers from 0 to 9, got -1"),
        ({"class_names": ["a", "b"]}, "a name for each of 10 classes, got 2"),
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


def test_an_impossible_move_changes_nothing():
    lab = gap_lab(place=4)
    start, shown = lab.value, words(lab)
    for change in ({"picture": 5000}, {"place": 10}, {"layer": "conv"}, {"pool": "sum"}):
        with pytest.raises(ValueError):
            lab.set(**change)
    with pytest.raises(ValueError, match="a MapState, got dict"):
        lab.value = {"picture": 1}
    assert lab.value == start and words(lab) == shown and control(lab, "Map").value == 4


def test_what_a_notebook_keeps():
    lab = gap_lab()
    data, metadata = lab._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]) == lab.picture().png
    assert data["text/plain"] == repr(lab) == "MapLab(picture 2, head.0 (Conv2d): 10 maps of 3×3)"
    assert metadata["image/png"] == {"width": 504, "height": 276, "alt": lab.picture().text}
    widget = {"model_id": lab.box.model_id, "version_major": 2, "version_minor": 0}
    assert data["application/vnd.jupyter.widget-view+json"] == widget


def test_a_state_may_leave_the_layer_open():
    lab = gap_lab(layer="body.0")
    lab.value = MapState(picture=1)
    assert lab.value == MapState(picture=1, layer="head.0")


@pytest.mark.parametrize("labels", [[np.int64(1), torch.tensor(9)], np.array([1, 9])])
def test_labels_of_many_kinds(labels):
    lab = MapLab(GAP, TEST.images[:2], labels)
    assert [lab._look().label, (lab.set(picture=1), lab._look().label)[1]] == [1, 9]


def test_what_goes_wrong_in_a_move_is_said():
    class Shy(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1)

        def forward(self, images):
            return self.conv(images) if images.max() > 0 else images

    lab = MapLab(Shy(), torch.stack([torch.ones(1, 4, 4), torch.zeros(1, 4, 4)]))
    with pytest.raises(ValueError):
        control(lab, "Picture").value = 1
    refusal = "expected conv to give maps (1, C, H, W) for picture 1, got none"
    assert f"<b>ValueError: {refusal}</b>" in words(lab)
    assert lab.value.picture == control(lab, "Picture").value == 0


@pytest.mark.slow
def test_four_hundred_moves_add_no_memory(monkeypatch):
    monkeypatch.setattr(map_lab, "KEPT", KEPT / 8)  # full after 80 pictures
    lab = MapLab(nn.Conv2d(1, 8, 3, padding=1), TEST.images)
    picture, place = control(lab, "Picture"), control(lab, "Map")

    def megabytes_after(moves):
        for _ in range(moves // 2):
            picture.value = (picture.value + 1) % len(TEST)
            place.value = (place.value + 1) % 8
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)  # hand back what is free already
        return psutil.Process().memory_info().rss / 2**20

    warm = megabytes_after(200)
    assert abs(megabytes_after(400) - warm) <= 1
