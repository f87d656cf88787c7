"""What any model may do in the labs that show pictures to one."""

import math
import warnings
from copy import deepcopy

import pytest
import torch
from torch import nn

from frames import Page, press
from gap_utils.data import Split
from gap_utils.widgets import CamLab, HeadLab, MapLab, ShiftLab
from small_networks import Call

NAN, INF = math.nan, math.inf
LABELS = torch.tensor([0, 1, 2])
# the second is dark, the others bright
IMAGES = torch.tensor([1.0, 0.0, 1.0])[:, None, None, None] * torch.eye(4)[None, None]


class Net(nn.Module):
    """GAP and a linear layer behind one convolution, and a change of what comes out."""

    def __init__(self, change=lambda logits: logits, only_dark=False):
        super().__init__()
        self.body, self.head = nn.Conv2d(1, 2, 1), nn.Linear(2, 3)
        for parameter, numbers in zip(
            self.parameters(), ([1, -2], [0, 1], [1, 0, 0, 1, -1, 1], [0.5, 0, -1]), strict=True
        ):
            parameter.data = torch.tensor(numbers).float().reshape(parameter.shape)
        self.change, self.only_dark = change, only_dark

    def forward(self, images):
        logits = self.head(self.body(images).mean((2, 3)))
        return logits if self.only_dark and images.max() > 0 else self.change(logits)


def shift_lab(model, images=IMAGES, labels=LABELS, names=None, **settings):
    numbers = torch.arange(len(images) if hasattr(images, "__len__") else 0)
    return ShiftLab({"net": model}, Split(images, labels, numbers), names, **settings)


LABS = [shift_lab, MapLab, CamLab]
every_lab = pytest.mark.parametrize("lab_of", LABS, ids=["ShiftLab", "MapLab", "CamLab"])


def said(lab):
    """The words below the panels."""
    return " ".join(lab.describe().split("\n"))


def move(lab, **fields):
    """Do what a page does when a control has moved; return the problem that came back."""
    sent = Page(lab).ask(fields=lab.to_fields(lab.value) | fields)
    return next((message["problem"] for message in sent if "problem" in message), "")


def raising(error):
    def change(logits):
        raise error

    return change


@pytest.fixture(autouse=True)
def no_warning_of_numpy():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


NO_NUMBERS = [[NAN] * 3, [0, NAN, 0], [-INF] * 3, [INF, 0, 0], [0, INF, INF]]


@pytest.mark.parametrize("logits", NO_NUMBERS, ids=str)
def test_logits_that_are_no_numbers_are_no_answer(logits):
    model = Net(lambda given: given * 0 + torch.tensor(logits))
    assert said(shift_lab(model)) == "net says no number."
    assert said(MapLab(model, IMAGES, LABELS)).endswith(
        ": mean 0.25, max 1. The network says no number."
    )
    with pytest.raises(ValueError, match="logits of the first picture, got no number among them"):
        CamLab(model, IMAGES, LABELS)


def test_a_class_that_is_ruled_out_is_a_number():
    model = Net(lambda given: given * 0 + torch.tensor([-INF, 0, 0]))
    assert said(shift_lab(model, picture=1)) == "net says 1 (50%), right."
    assert said(MapLab(model, IMAGES, LABELS, picture=1)).endswith(
        "The network says 1 (50%), right."
    )


@pytest.mark.parametrize("number", [NAN, INF, -INF])
def test_pictures_that_are_no_numbers(number):
    images = IMAGES.clone()
    images[1, 0, 0, 0] = number
    assert said(shift_lab(Net(), images, picture=1)) == "net says no number."
    lab = MapLab(Net(), images, LABELS, sort="mean", place=1, picture=1)
    for view in ("one map", "all maps"):
        lab.set(view=view)
        assert "The network says no number." in said(lab)
    images[1, 0, 0, 1] = -number
    lab = CamLab(Net(), images, LABELS, left=1)
    for view in ("map", "overlay", "numbers"):
        lab.set(picture=1, view=view)
        assert said(lab).startswith("Picture 1: 1; predicted no number. Left, 1 (no number): mean")


def test_maps_without_numbers_come_last_in_their_order():
    class Gives(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, images):
            return self.layer(torch.tensor([NAN, 1, INF, -INF, 3])[None, :, None, None])

    lab, order = MapLab(Gives(), IMAGES, sort="mean"), []
    for place in range(5):
        lab.set(place=place)
        order.append(lab.shown(lab.value).channel)
    assert order == [2, 4, 1, 3, 0]
    assert "Map 0, place 4 by mean: mean no number, max no number." in said(lab)


def test_ranks_without_numbers():
    model = Net()
    model.head.weight.data[1] = INF
    model.head.bias.data[1] = 0
    images = torch.cat([0 * IMAGES[:1], IMAGES[:1]])
    model.body.weight.data[1], model.body.bias.data[:] = 0, 0  # inf × 0 is no number
    with pytest.raises(ValueError, match="got no number among them"):
        CamLab(model, images)
    images[1] = NAN
    lab = CamLab(Net(), images, left="top 1", right="top 3", picture=1)
    assert lab.compare(lab.value).classes == (0, 2)  # in the order of their numbers
    assert "Right, 2 (no number): mean of 16 values no number; 16 of them" in said(lab)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@every_lab
def test_number_formats(lab_of, kind):
    expected = said(lab_of(Net(), IMAGES, LABELS))  # its numbers are exact in all formats
    assert "right" in expected and "%" in expected
    assert said(lab_of(Net().to(kind), IMAGES, LABELS)) == expected
    assert said(lab_of(Net(), IMAGES.to(kind), LABELS)) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here")
@every_lab
def test_a_model_on_a_gpu(lab_of):
    expected = lab_of(Net(), IMAGES, LABELS).text
    assert lab_of(Net().cuda(), IMAGES, LABELS).text == expected
    assert lab_of(Net().cuda(), IMAGES.cuda(), LABELS).text == expected


@every_lab
def test_pictures_of_whole_numbers(lab_of):
    class Scaling(Net):
        def forward(self, images):
            return super().forward(images / 255)

    expected = said(lab_of(Net(), IMAGES, LABELS))
    assert said(lab_of(Scaling(), (255 * IMAGES).byte(), LABELS)) == expected
    with pytest.raises(ValueError, match="where it raises RuntimeError"):
        lab_of(Net(), (255 * IMAGES).byte(), LABELS)  # from 0 to 255, not from 0 to 1


@pytest.mark.filterwarnings("ignore:.*quantize")
def test_quantised_maps():
    class Quantised(Net):
        def __init__(self):
            super().__init__()
            self.quantise = nn.Identity()

        def forward(self, images):
            maps = torch.quantize_per_tensor(images, 0.25, 0, torch.quint8)
            return super().forward(self.quantise(maps).dequantize())

    lab = MapLab(Quantised(), IMAGES * 0.75, layer="quantise")
    assert "Map 0: mean 0.19, max 0.75." in said(lab)


@pytest.mark.parametrize("change", [torch.fft.fft2, torch.Tensor.to_sparse])
def test_numbers_that_are_no_picture_are_no_maps(change):
    """Complex ones have two parts, sparse ones have no places of their own."""
    model = nn.Sequential(nn.Identity(), Call(lambda _, maps: change(maps)))
    assert list(MapLab(model, IMAGES)._reader.layers) == ["0"]
    with pytest.raises(ValueError, match="expected a layer that gives maps"):
        MapLab(model, IMAGES, layers="1")


@every_lab
def test_a_setting_that_the_lab_has_not(lab_of):
    lab = lab_of(Net(), IMAGES, LABELS)
    before, frame = lab.value, lab.frame
    with pytest.raises(ValueError, match=r"expected one of picture, .*, got colour"):
        lab.set(colour="red")
    with pytest.raises(ValueError, match="picture to be below 3, got 5000"):
        lab.set(picture=5000)
    assert lab.value == before and lab.frame is frame


def test_logits_that_float32_calls_equally_likely():
    model = Net(lambda given: given * 0 + torch.tensor([0, 1e-9, -1]))
    assert said(shift_lab(model, picture=1)) == "net says 1 (42%), right."
    assert "says 1 (42%), right" in said(MapLab(model, IMAGES, LABELS, picture=1))


@pytest.mark.parametrize(
    "error", [KeyError("a"), IndexError("b"), OverflowError("c"), TypeError("d"), ValueError("e")]
)
@every_lab
def test_what_a_model_raises_becomes_a_sentence(lab_of, error):
    expected = (
        rf"a picture that Net can take, got \(1, 4, 4\), where it raises {type(error).__name__}: "
    )
    model = Net(raising(error), only_dark=True).train()
    lab = lab_of(model, IMAGES, LABELS)
    before, shown = lab.value, lab.frame
    with pytest.raises(ValueError, match=f"expected {expected}"):
        lab.set(picture=1)
    assert f"where it raises {type(error).__name__}: " in move(lab, picture=1)
    assert (lab.value, lab.frame) == (before, shown)
    with pytest.raises(ValueError, match=f"expected {expected}"):
        lab_of(Net(raising(error)), IMAGES, LABELS)
    assert all(module.training for module in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.is_grad_enabled()


def test_what_goes_wrong_behind_a_button_is_said():
    class Shy(Net):
        def forward(self, images):
            if images[..., 0, 0] > 0 and self.shy:
                raise KeyError("gone")
            return super().forward(images)

    model = Shy()
    model.shy = False
    lab = shift_lab(model, dx=1)
    model.shy = True
    with pytest.raises(ValueError, match="where it raises KeyError"):
        press(lab, "back")
    assert lab.value.dx == 1


@every_lab
def test_models_without_numbers_in_their_weights(lab_of):
    with pytest.raises(ValueError, match=r"with numbers, but 'body.weight' is on 'meta'"):
        lab_of(Net().to("meta"), IMAGES, LABELS)
    lazy = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(3)
    )
    with pytest.raises(ValueError, match=r"with numbers, but '3.weight' gets its shape"):
        lab_of(lazy, IMAGES, LABELS)
    assert nn.parameter.is_lazy(lazy[3].weight)


OUTPUTS = {
    "tuple": lambda logits: (logits, logits),
    "dict": lambda logits: {"out": logits},
    r"\(1,\)": lambda logits: logits[:, 0],
    r"\(3,\)": lambda logits: logits[0],
    r"\(1, 3, 1, 1\)": lambda logits: logits[..., None, None],
    r"\(2, 3\)": lambda logits: logits.repeat(2, 1),
    r"\(1, 0\)": lambda logits: logits[:, :0],
}


@pytest.mark.parametrize("got", OUTPUTS)
def test_outputs_that_are_no_logits(got):
    for lab_of in (shift_lab, CamLab):
        with pytest.raises(
            ValueError, match=rf"a model that gives logits \(1, K\) for a picture, got {got}"
        ):
            lab_of(Net(OUTPUTS[got]), IMAGES, LABELS)
    assert "network" not in said(MapLab(Net(OUTPUTS[got]), IMAGES, LABELS))


def test_other_logits_for_a_later_picture():
    more = Net(lambda logits: torch.zeros(1, 20), only_dark=True)
    with pytest.raises(ValueError, match=r"of at most 3 classes, for a picture, got \(1, 20\)"):
        shift_lab(more).set(picture=1)
    assert "network" not in said(MapLab(more, IMAGES, LABELS, picture=1))
    for change in (lambda logits: torch.zeros(1, 20), lambda logits: logits + 1):
        with pytest.raises(ValueError, match=r"mean\(CAM\) \+ bias for every picture"):
            CamLab(Net(change, only_dark=True), IMAGES, LABELS, picture=1)


class Changing(nn.Module):
    """Four maps for a bright picture, two or none for a dark one."""

    def __init__(self, of_dark):
        super().__init__()
        self.maps, self.of_dark = nn.Identity(), of_dark

    def forward(self, images):
        given = images.expand(-1, 4, -1, -1) * torch.arange(1.0, 5)[:, None, None]
        if images.max() > 0:
            return self.maps(given)
        return self.of_dark(self, given)


def test_fewer_maps_for_a_later_picture():
    lab = MapLab(Changing(lambda self, given: self.maps(given[:, :2])), IMAGES, place=3)
    with pytest.raises(ValueError, match="place to be below 2, got 3"):
        lab.set(picture=1)
    assert lab.value.picture == 0
    assert move(lab, picture=1) == ""  # goes to the last one that is there
    assert (lab.value.picture, lab.value.place) == (1, 1)
    assert lab.limits(lab.value)["place"]["high"] == 1
    assert repr(lab) == "MapLab(picture 1, maps (Identity): 2 maps of 4×4)"
    assert move(lab, picture=2) == ""
    assert lab.limits(lab.value)["place"]["high"] == 3


@pytest.mark.parametrize(
    ("of_dark", "got"),
    [
        (lambda self, given: given, "none"),
        (lambda self, given: self.maps(given[0]), r"\(4, 4, 4\)"),
        (lambda self, given: self.maps((given,)), "tuple"),
        (lambda self, given: self.maps(given[..., :0]), r"\(1, 4, 4, 0\)"),
    ],
)
def test_a_layer_without_maps_for_a_later_picture(of_dark, got):
    lab = MapLab(Changing(of_dark), IMAGES)
    with pytest.raises(
        ValueError, match=rf"maps to give maps \(1, C, H, W\) for picture 1, got {got}"
    ):
        lab.set(picture=1)
    assert "to give maps (1, C, H, W) for picture 1" in move(lab, picture=1)
    assert lab.value.picture == 0


def test_features_that_are_not_there_for_a_later_picture():
    class Branch(Net):
        def forward(self, images):
            return super().forward(images) if images.max() > 0 else torch.zeros(1, 3)

    with pytest.raises(ValueError, match=r"features \(N, C, h, w\) from 'body', got none"):
        CamLab(Branch(), IMAGES, LABELS, picture=1)


@pytest.mark.parametrize(
    ("images", "got"),
    [
        ([*IMAGES], "list"),
        (IMAGES.numpy(), "ndarray"),
        (IMAGES[:, 0], r"\(3, 4, 4\), torch.float32 on cpu"),
        (IMAGES[..., :0], r"\(3, 1, 4, 0\)"),
        (IMAGES[:0], r"\(0, 1, 4, 4\)"),
        (IMAGES.to("meta"), r"\(3, 1, 4, 4\), torch.float32 on meta"),
        (IMAGES.cfloat(), r"\(3, 1, 4, 4\), torch.complex64"),
    ],
)
@every_lab
def test_what_are_no_pictures(lab_of, images, got):
    with pytest.raises(ValueError, match=f"at least one picture, a tensor .*, got {got}"):
        lab_of(Net(), images, LABELS[: len(images)])


@every_lab
def test_what_is_no_network(lab_of):
    with pytest.raises(ValueError, match=r"a network, an nn.Module, got function"):
        lab_of(lambda images: images, IMAGES, LABELS)


@every_lab
def test_labels_and_names_are_read_alike(lab_of):
    for labels in ([0, 1, 3], [0, 1, 0.5], [0, -1, 2]):
        with pytest.raises(
            ValueError, match=f"integers from 0 to 2, got ({'|'.join(map(str, labels))})"
        ):
            lab_of(Net(), IMAGES, labels)
    with pytest.raises(ValueError, match="a name for each of 3 classes, got 2"):
        lab_of(Net(), IMAGES, LABELS, ["a", "b"])
    for names in ("abc", {0: "a", 1: "b", 2: "c"}):
        with pytest.raises(ValueError, match="a list of class names, got"):
            lab_of(Net(), IMAGES, LABELS, names)
    assert "a b" in said(lab_of(Net(), IMAGES, LABELS, ["a  b\n", "c", "d"]))


@every_lab
def test_the_model_is_left_as_it_was_and_runs_once_for_a_picture(lab_of):
    model, runs = Net().train(), []
    model.body.eval()
    model(IMAGES).sum().backward()
    modes, before = [module.training for module in model.modules()], deepcopy(model.state_dict())
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    hook = model.register_forward_hook(
        lambda module, _, given: runs.append((module.training, given.requires_grad))
    )
    lab = lab_of(model, IMAGES, LABELS)
    runs.clear()
    for picture in (1, 0, 1):
        lab.set(picture=picture)
    assert runs == [(False, False)]
    hook.remove()
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(numbers, before[name]) for name, numbers in model.state_dict().items())
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.requires_grad and torch.equal(parameter.grad, gradient)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.is_grad_enabled()


@every_lab
def test_the_pictures_stay_as_they_are(lab_of):
    images = (IMAGES - 0.5).requires_grad_()
    before = images.detach().clone()
    model = nn.Sequential(nn.ReLU(inplace=True), Net())
    lab_of(model, images, LABELS).set(picture=1)
    assert torch.equal(images, before) and images.grad is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": (IMAGES, LABELS)}, "expected a Split, got tuple"),
        ({"curves": [1] * 7}, "expected a dict of curves, got list"),
        ({"models": {"one": nn.Sequential(nn.Flatten(), nn.Linear(784, 1))}}, "got one of 1"),
    ],
)
def test_shift_lab_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        ShiftLab(**{"models": {"net": Net()}} | settings)


@pytest.mark.parametrize(
    "state",
    [
        {"channels": 2048},  # ResNet-50
        {"channels": 7392, "batch": 128},  # RegNetY-128GF
        {"channels": 64, "height": 112, "width": 112},  # behind a ResNet's first layer
        {"channels": 1024, "num_classes": 21843},  # ImageNet-21k
    ],
)
def test_head_lab_takes_the_sizes_of_real_networks(state):
    lab = HeadLab(**state)
    channels, classes = state["channels"], state.get("num_classes", 10)
    assert f"{channels * classes + classes:,} parameters" in lab.text
    assert lab.to_fields(lab.value)["channels"] == channels
