from io import BytesIO

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from gap_utils.data import CLASS_NAMES, load_fashion_mnist
from gap_utils.models import load_trained
from gap_utils.pictures import SCALE, Canvas, signed_colours, text_width
from gap_utils.widgets import CamLab, cam_lab
from gap_utils.widgets.cam_lab import BAR, LEFTS, PANEL, RANKS, TOP, VIEWS, WIDTH, CamState
from lab_controls import control, walk, words

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


def pixels(lab):
    return np.asarray(Image.open(BytesIO(lab.picture().png)).convert("RGB")).astype(int)


def panel(lab, side):
    """A panel, one pixel for each CSS pixel."""
    left, top = LEFTS[side] * SCALE, TOP * SCALE
    return pixels(lab)[top : top + PANEL * SCALE, left : left + PANEL * SCALE][::SCALE, ::SCALE]


def test_the_maps_by_hand():
    view = tiny_lab()._look()
    assert view.cams.tolist() == [[[12, 0], [6, -6]], [[-4, 0], [-2, 2]]]
    assert view.logits.tolist() == [3.5, -1, -1]  # means 3 and -1, biases 0.5 and 0
    assert view.bias.tolist() == [0.5, 0]
    e = np.exp([3.5, -1, -1])
    assert view.probabilities == pytest.approx(e / e.sum())
    assert view.classes == (0, 1)
    assert view.limit == 12
    assert view.label == 0
    assert view.image[..., 0].tolist() == [[255, 85], [170, 0]]  # -2 to 4, stretched


def test_the_words_add_up():
    lab = tiny_lab()
    expected = [
        "Picture 0: west; predicted west (97.8%), right.",
        "Left, west (97.8%): mean of 4 contributions 3.000 + bias 0.500 = logit 3.500; "
        "the largest is 12.000 at row 0, column 0.",
        "Right, east (1.1%): mean of 4 contributions -1.000 + bias 0.000 = logit -1.000; "
        "the largest is 2.000 at row 1, column 1.",
    ]
    assert lab.picture().text == " ".join([*expected, "View: overlay of 80%."])
    assert "<br>".join(expected) in words(lab)
    lab.set(view="contributions", smooth=True)
    assert lab.picture().text == " ".join(
        [*expected, "View: contributions.", "Left 12 0 / 6 -6.", "Right -4 0 / -2 2."]
    )
    lab.set(view="map")
    assert lab.picture().text.endswith("View: map, smooth.")
    lab.set(picture=1)
    assert words(lab).count("predicted east (85.8%), wrong") == 2  # the alt text too


def test_a_sum_that_rounding_keeps_from_adding_up():
    model = Tiny(bias=(0.0004, 0.0, -1.0))  # 0.0004 + 0.0004 = 0.0008
    lab = CamLab(model, torch.full((1, 1, 2, 2), 0.0004 / 3), left=0)
    assert "contributions 0.000 + bias 0.000 ≈ logit 0.001" in words(lab)


@pytest.mark.parametrize("name", ["gap_7x7", "gap"])
def test_the_shipped_networks(name):
    model = load_trained(name)
    lab = CamLab(model, TEST.images, TEST.labels, CLASS_NAMES, picture=3, left=8, right="top 1")
    with torch.no_grad():
        logits = model(TEST.images[3:4])[0]
    view = lab._look()
    assert view.cams.shape == ((2, 7, 7) if name == "gap_7x7" else (2, 3, 3))
    assert view.logits == pytest.approx(logits.numpy())
    for side, number in enumerate((8, int(logits.argmax()))):
        assert view.cams[side].mean() + view.bias[side] == pytest.approx(
            logits[number].item(), abs=1e-5
        )
        assert f"logit {logits[number]:.3f};" in words(lab)
    assert view.label == TEST.labels[3]
    assert f"{view.probabilities.max():.1%}" in words(lab)


def test_the_most_likely_classes_follow_the_picture():
    lab = tiny_lab(right="top 2")
    assert lab._look().classes == (0, 1)  # logits 3.5, -1, -1: of two alike the first
    lab.set(picture=1)  # logits -2.5, 1, -1
    assert lab._look().classes == (1, 2)
    assert repr(lab) == "CamLab(picture 1, overlay: east, none)"
    lab.set(left="top 3", right=2)
    assert lab._look().classes == (0, 2)


def overlay(base, contribution, strength):
    """The formula in the docstring of `cam_picture`, for a limit of 12."""
    grey = (2 * 255 + base) / 3
    ground = (1 - strength) * base + strength * grey
    amount = strength * abs(contribution) / 12
    return (1 - amount) * ground + amount * signed_colours(np.array(contribution / 12))


@pytest.mark.parametrize("strength", [0, 60, 100])
def test_the_overlay_by_its_formula(strength):
    lab = tiny_lab(strength=strength)
    low, high = PANEL // 4, 3 * PANEL // 4
    for side, places in enumerate([[12, 0, 6, -6], [-4, 0, -2, 2]]):
        drawn = panel(lab, side)
        for (y, x), base, contribution in zip(
            [(low, low), (low, high), (high, low), (high, high)],
            [255, 85, 170, 0],
            places,
            strict=True,
        ):
            expected = overlay(base, contribution, strength / 100)
            assert drawn[y, x] == pytest.approx(expected, abs=3)
    if strength == 0:
        assert (panel(lab, 0) == panel(lab, 1)).all()


def test_a_photograph_keeps_its_colours_and_grey_stays_grey():
    model = nn.Sequential(nn.Identity(), nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    image = torch.zeros(1, 3, 8, 8)
    image[:, 0, :, :4] = 3  # red on the left
    drawn = panel(CamLab(model, image, strength=0), 0)
    assert drawn[100, 10].tolist() == [255, 0, 0]
    assert drawn[100, 200].tolist() == [0, 0, 0]
    two_channels = nn.Sequential(
        nn.Identity(), nn.Conv2d(2, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    drawn = panel(CamLab(two_channels, torch.rand(1, 2, 8, 8), strength=0), 0)
    assert (drawn == drawn[..., :1]).all()


def test_map_and_contributions_are_on_one_scale():
    corner, middle = 8, 3 * PANEL // 4
    for view in ("map", "contributions"):
        lab = tiny_lab(view=view)
        for side, top, bottom in ((0, 12, -6), (1, -4, 2)):
            drawn = panel(lab, side)
            for place, contribution in ((corner, top), (middle + 40, bottom)):
                expected = signed_colours(np.array(contribution / 12))
                assert drawn[place, place] == pytest.approx(expected, abs=6)
    bar = pixels(lab)[:, (BAR[0] + 5) * SCALE]
    assert bar[TOP * SCALE] == pytest.approx(signed_colours(np.array(1.0)), abs=2)
    assert bar[(TOP + PANEL // 2) * SCALE] == pytest.approx([255] * 3, abs=4)
    assert bar[(TOP + PANEL) * SCALE - 1] == pytest.approx(signed_colours(np.array(-1.0)), abs=2)


def test_squares_or_a_smooth_passage():
    lab = tiny_lab(view="map")
    assert len(np.unique(panel(lab, 0).reshape(-1, 3), axis=0)) == 4
    lab.set(smooth=True)
    drawn = panel(lab, 0)
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 50
    assert drawn[0, 0] == pytest.approx(signed_colours(np.array(1.0)), abs=4)  # no overshoot
    lab.set(view="overlay")
    assert (panel(lab, 0) != drawn).any()
    lab.set(view="contributions")
    smooth = lab.picture().png
    lab.set(smooth=False)
    assert lab.picture().png == smooth  # numbers belong to squares


def test_numbers_are_written_where_they_fit(monkeypatch):
    written = []
    monkeypatch.setattr(
        cam_lab,
        "render_text",
        lambda text, *how: written.append(text) or (0, 0, Image.new("L", (1, 1))),
    )
    tiny_lab(view="contributions")
    assert written == ["12.0", "0.0", "6.0", "-6.0", "-4.0", "0.0", "-2.0", "2.0"]
    for size, room in ((8, True), (9, False)):
        written.clear()
        lab = CamLab(Tiny(), torch.rand(1, 1, size, size), view="contributions")
        assert len(written) == 2 * size**2 * room
        assert ("too small for their numbers" in words(lab)) is not room
        assert (lab.picture().text.count(" / ") > 0) is room


@pytest.mark.parametrize(
    ("value", "limit", "text"),
    [
        (-123.4, 200, "-123"),
        (12.34, 20, "12.3"),
        (-0.04, 20, "0.0"),
        (0.123, 0.5, "0.12"),
        (-0.0123, 0.05, "-0.012"),
        (-23456, 23456, "-2e4"),
        (0.00012, 0.00012, "1e-4"),
        (0, 0.00012, "0"),
    ],
)
def test_numbers_in_few_characters(value, limit, text):
    assert cam_lab._brief(value, limit) == text
    assert text_width(text, 11 * SCALE) / SCALE <= WIDTH - sum(BAR) - 5


def test_controls_and_state_follow_each_other():
    lab = CamLab(load_trained("gap_7x7"), TEST.images, TEST.labels, CLASS_NAMES)
    assert repr(lab) == "CamLab(picture 0, overlay: Ankle boot, Sneaker)"
    control(lab, "Picture").value = 4
    control(lab, "Left class").value = "top 3"
    control(lab, "Right class").value = 9
    control(lab, "Strength %").value = 80
    control(lab, "Smooth").value = True
    assert lab.value == CamState(4, "top 3", 9, "overlay", 80, True)
    lab.set(view="map", right=0)
    assert control(lab, "View").value == "map"
    assert control(lab, "Right class").value == 0
    assert control(lab, "Strength %").disabled
    assert not control(lab, "Smooth").disabled
    control(lab, "View").value = "contributions"
    assert lab.value.view == "contributions"
    assert control(lab, "Smooth").disabled
    assert lab.picture().text.startswith("Picture 4: ")
    next(w for w in walk(lab.box) if getattr(w, "description", None) == "Start again").click()
    assert lab.value == CamState()
    assert not control(lab, "Strength %").disabled
    assert control(lab, "Picture").max == len(TEST) - 1
    assert lab.picture().html().split('onload="')[0] in lab.box.children[1].value


def test_the_choice_of_classes():
    options = dict(control(tiny_lab(), "Left class").options)
    assert list(options.items()) == [
        ("most likely", "top 1"),
        ("2nd most likely", "top 2"),
        ("3rd most likely", "top 3"),
        ("0 west", 0),
        ("1 east", 1),
        ("2 none", 2),
    ]
    lab = CamLab(Tiny(), PICTURES, class_names=["crane", "drake", "crane"])
    control(lab, "Left class").value = 2  # names repeat in ImageNet
    assert control(lab, "Left class").label == "2 crane"
    assert lab.value.left == 2
    numbered = control(CamLab(Tiny(), PICTURES), "Left class")
    assert [label for label, _ in numbered.options][3:] == ["0", "1", "2"]


def test_a_network_of_one_class():
    lab = CamLab(
        nn.Sequential(nn.Identity(), nn.Conv2d(1, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        PICTURES,
    )
    assert lab.value.right == "top 1"
    assert len(control(lab, "Right class").options) == 2


def test_names_are_text_and_may_be_long():
    written = []

    class Watched(Canvas):
        def write(self, x, y, text, size, anchor="la"):
            written.append((x / SCALE, y / SCALE, text, size / SCALE))
            super().write(x, y, text, size, anchor)

    names = ["<b>W\nW</b>", "W" * 300, "a word " * 50]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cam_lab, "Canvas", Watched)
        lab = CamLab(Tiny(), 12345 * PICTURES, [1, 0], names)
        for view in VIEWS:
            lab.set(view=view, left=1)
            lab.set(view=view, right=2)
    assert "&lt;b&gt;W W&lt;/b&gt;" in words(lab)
    assert "<b>W" not in words(lab)
    ends = {}  # of each line, from left to right
    for x, y, text, size in sorted(written):
        assert size >= 11
        right = x + text_width(text, int(size) * SCALE) / SCALE
        assert right <= WIDTH
        for other, (start, end) in ends.items():
            assert other[1] != y or start == x or end < x or right < start
        ends[x, y] = x, max(right, ends.get((x, y), (x, right))[1])


def test_one_size_in_all_states():
    sizes = set()
    for images in (PICTURES, torch.rand(1, 1, 40, 10), torch.rand(1, 1, 9, 300)):
        lab = CamLab(Tiny(), images)
        for view in VIEWS:
            for smooth in (False, True):
                for left in ("top 1", 2):
                    lab.set(view=view, smooth=smooth, left=left)
                    picture = lab.picture()
                    sizes.add((picture.width, picture.height))
                    assert Image.open(BytesIO(picture.png)).size == (2 * WIDTH, 2 * picture.height)
    assert sizes == {(525, 285)}
    assert 525 * 285 <= 150_000  # more takes a browser too long


def test_a_resnet_and_its_1000_classes():
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=7)
    images = torch.randn(2, 3, 64, 96)
    lab = CamLab(model, images, view="contributions")
    view = lab._look()
    assert view.cams.shape == (2, 2, 3)
    with torch.no_grad():
        logits = model.eval()(images[:1])[0].numpy()
    assert view.logits == pytest.approx(logits, abs=1e-5)
    for side, number in enumerate(view.classes):
        assert view.cams[side].mean() + view.bias[side] == pytest.approx(logits[number], abs=1e-4)
    wide = CamLab(
        nn.Sequential(nn.Identity(), nn.Conv2d(1, 1000, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        PICTURES,
    )
    assert len(control(wide, "Left class").options) == 1005


def test_a_relu_that_is_called_twice():
    class Shared(Tiny):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, images):
            return self.head(self.relu(self.body(self.relu(images))).mean((2, 3)))

    lab = CamLab(Shared(), PICTURES, left=0, right=1)
    assert lab._head.layer == "relu_1"
    assert lab._look().cams.tolist() == [[[12, 0], [6, 0]], [[-4, 0], [-2, 0]]]


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_other_kinds_of_numbers(kind):
    lab = CamLab(Tiny().to(kind), PICTURES, right=1)  # its pictures are float32
    assert lab._look().cams.tolist() == [[[12, 0], [6, -6]], [[-4, 0], [-2, 2]]]


def test_a_head_without_bias():
    assert CamLab(Tiny(bias=None), PICTURES, left=0)._look().bias.tolist() == [0, 0]


def test_the_model_is_left_as_it_was_and_runs_once_for_a_picture():
    model = Tiny()
    model.pool.eval()
    modes = [module.training for module in model.modules()]
    runs = []
    model.register_forward_hook(
        lambda module, inputs, given: runs.append((module.training, given.requires_grad))
    )
    lab = CamLab(model, PICTURES)
    runs.clear()
    lab.set(picture=1)
    lab.set(left=2, view="map", strength=3)
    lab.set(picture=0)
    lab.set(picture=1)
    assert runs == [(False, False)]
    assert [module.training for module in model.modules()] == modes
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.is_grad_enabled()
    assert not model.body._forward_hooks


def test_few_pictures_are_remembered():
    lab = CamLab(Tiny(), torch.rand(40, 1, 2, 2))
    for picture in range(40):
        lab.set(picture=picture)
    assert lab._see.cache_info().currsize == cam_lab.KEPT


def test_a_diverged_picture_is_shown():
    images = torch.cat([PICTURES, torch.full((1, 1, 2, 2), torch.nan), 0 * PICTURES[:1]])
    lab = CamLab(Tiny(), images, left=0, right=1)
    for picture in (2, 3):
        for view in VIEWS:
            lab.set(picture=picture, view=view)
    lab.set(picture=2)
    assert (
        "Picture 2; predicted no number.<br>Left, 0 (no number): mean of 4 contributions "
        "no number; 4 of them are no number."
    ) in words(lab)


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
        ({"view": "heat"}, 'view "map", "overlay" or "contributions", got \'heat\''),
        ({"strength": 101}, "strength to be an integer from 0 to 100, got 101"),
        ({"strength": "top 1"}, "strength to be an integer from 0 to 100, got 'top 1'"),
        ({"smooth": 1}, "smooth to be True or False, got 1"),
        ({"images": PICTURES[:0]}, r"a tensor \(N, C, H, W\), got \(0, 1, 2, 2\)"),
        ({"images": PICTURES[0]}, r"a tensor \(N, C, H, W\), got \(1, 2, 2\)"),
        ({"images": PICTURES.numpy()}, "got ndarray"),
        ({"labels": [0]}, "a label for each of 2 pictures, got 1"),
        ({"labels": [[0], [1]]}, r"labels to be integers from 0 to 2, got \[0\]"),
        ({"labels": torch.tensor([0, 3])}, "labels to be integers from 0 to 2, got 3"),
        ({"labels": [0.5, 1]}, "labels to be integers from 0 to 2, got 0.5"),
        ({"class_names": ["a", "b"]}, "a name for each of 3 classes, got 2"),
        ({"class_names": "abc"}, "a list of class names, got 'abc'"),
        ({"class_names": list("abcd")}, "a name for each of 3 classes, got 4"),
        ({"model": nn.Flatten()}, "no linear layer or 1×1 convolution"),
        ({"model": FlatMaps()}, r"features \(N, C, h, w\) from 'flat', got \(1, 2, 4\)"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=f"expected .*{message}"):
        CamLab(**({"model": Tiny(), "images": PICTURES} | settings))


def test_a_network_with_layers_behind_the_pooling_is_refused():
    vgg = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 4),
        nn.ReLU(),
        nn.Linear(4, 3),
    )
    with pytest.raises(ValueError, match=r"logits are mean\(CAM\) \+ bias, but with the maps of"):
        CamLab(vgg, torch.rand(2, 1, 8, 8))


def test_an_impossible_move_changes_nothing():
    lab = tiny_lab()
    before = words(lab)
    for change in ({"picture": 5000}, {"left": 9}, {"right": "top 5"}, {"view": None}):
        with pytest.raises(ValueError):
            lab.set(**change)
    assert lab.value == CamState(right=1)
    assert words(lab) == before
    assert RANKS[0] == control(lab, "Left class").value
