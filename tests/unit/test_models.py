import hashlib
import json
import shutil

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gap_utils import models
from gap_utils.activations import find_cam_head
from gap_utils.data import load_fashion_mnist
from gap_utils.inference import evaluate
from gap_utils.localisation import place_in_clutter
from gap_utils.models import (
    HEADS,
    MORE_HEADS,
    AverageAndMax,
    GeM,
    LogSumExp,
    build_convnet,
    load_trained,
)
from gap_utils.pooling import generalized_mean_pool, log_sum_exp_pool
from gap_utils.robustness import enlarge_canvas, shift
from gap_utils.shapes import trace_shapes
from gap_utils.study import load_study
from gap_utils.widgets import CamLab, MapLab


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_parameters():
    # by hand: 3×3 convolutions from 1 to 8, 8, 16, 16, 32 and 32 channels, with biases
    body = sum(9 * a * b + b for a, b in [(1, 8), (8, 8), (8, 16), (16, 16), (16, 32), (32, 32)])
    assert count(build_convnet().body) == body
    assert count(build_convnet("gap")) == count(build_convnet("gmp")) == body + 330 == 18_370
    assert count(build_convnet("flatten")) == body + 2_890
    assert count(build_convnet("lse")) == body + 330
    assert count(build_convnet("gem")) == body + 331  # and its p
    assert count(build_convnet("gap+gmp")) == body + 2 * 320 + 10
    # two numbers for each channel in place of a bias
    assert count(build_convnet(batch_norm=True)) == 18_370 + 112
    assert count(build_convnet(num_classes=3, in_channels=3)) == body + 2 * 9 * 8 + 99


@pytest.mark.parametrize(("last_pool", "side"), [(True, 3), (False, 7)])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("head", [*HEADS, *MORE_HEADS])
def test_shapes(head, batch_norm, last_pool, side):
    network = build_convnet(head, batch_norm=batch_norm, last_pool=last_pool)
    trace = trace_shapes(network, (4, 1, 28, 28))
    assert trace[-1].output_shape == (4, 10)
    assert network.body(torch.zeros(1, 1, 28, 28)).shape == (1, 32, side, side)
    kinds = [type(layer) for layer in network.body]
    assert kinds.count(nn.MaxPool2d) == (3 if last_pool else 2)
    assert kinds.count(nn.BatchNorm2d) == (6 if batch_norm else 0)
    assert kinds.count(nn.ReLU) == 6


@hypothesis.settings(max_examples=50)
@hypothesis.given(height=st.integers(2, 12), width=st.integers(2, 12), channels=st.integers(1, 3))
def test_a_blurred_pool_is_a_maximum_and_a_convolution_with_a_stride(height, width, channels):
    """As Zhang (2019) writes it, with an edge that is repeated."""
    maps = torch.randn(2, channels, height, width, dtype=torch.float64)
    line = torch.tensor([1, 2, 1], dtype=torch.float64) / 4
    kernel = line.outer(line).expand(channels, 1, 3, 3)
    largest = F.pad(F.max_pool2d(maps, 2, stride=1), (1,) * 4, mode="replicate")
    expected = F.conv2d(largest, kernel, stride=2, groups=channels)
    pooled = build_convnet(blur=True).body[4](maps)
    torch.testing.assert_close(pooled, expected)
    assert pooled.shape == F.max_pool2d(maps, 2).shape


@pytest.mark.parametrize("last_pool", [True, False])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("head", [*HEADS, *MORE_HEADS])
def test_a_blur_changes_neither_sizes_nor_weights(head, batch_norm, last_pool):
    plain, blurred = (
        build_convnet(head, batch_norm=batch_norm, last_pool=last_pool, blur=blur)
        for blur in (False, True)
    )
    blurred.load_state_dict(plain.state_dict())  # the same names and shapes
    shapes = [
        [row.output_shape for row in trace_shapes(net, (2, 1, 28, 28)) if row.kind == "Conv2d"]
        for net in (plain, blurred)
    ]
    assert shapes[0] == shapes[1]
    images = torch.rand(2, 1, 28, 28)
    assert blurred(images).shape == (2, 10)
    assert blurred.body(images).shape == plain.body(images).shape
    pools = [type(layer) for layer in blurred.body.modules()]
    assert pools.count(nn.MaxPool2d) == pools.count(nn.ReplicationPad2d) == 2 + last_pool


def first_maps(network, images):
    """What comes out of the first pooling."""
    with torch.no_grad():
        return network.body[:5](images)


def test_a_blur_makes_the_averages_of_maps_move_less_with_a_picture():
    torch.manual_seed(0)
    plain, blurred = build_convnet(), build_convnet(blur=True)
    blurred.load_state_dict(plain.state_dict())
    images = enlarge_canvas(load_fashion_mnist().test.images[:100], 36)
    moves = {}
    for net in (plain, blurred):
        before, once, twice = (first_maps(net, shift(images, dx, dx)) for dx in (0, 1, 2))
        # two pixels are one place of these maps; at the edge the convolutions see their padding
        torch.testing.assert_close(twice[..., 3:-3, 3:-3], before[..., 2:-4, 2:-4])
        moves[net] = (once.mean((2, 3)) - before.mean((2, 3))).abs().mean(1)
    assert (moves[blurred] < 0.5 * moves[plain]).all()  # of every picture


def test_what_shows_maps_shows_those_of_a_blurred_network():
    torch.manual_seed(0)
    network = build_convnet(blur=True, last_pool=False).eval()
    part = load_fashion_mnist().test
    images, labels = part.images[:3], part.labels[:3]
    assert find_cam_head(network, images).layer == "body"
    lab = MapLab(network, images, labels, layer="body.4.3")
    assert "body.4.3 (AvgPool2d) gives 8 maps of 14×14" in lab.describe()
    assert "mean of 49 values" in CamLab(network, images, labels).describe()


@pytest.mark.parametrize("size", [(8, 8), (20, 20), (37, 51)])
@pytest.mark.parametrize("head", ["gap", "gmp", *MORE_HEADS])
def test_any_size(head, size):
    assert build_convnet(head)(torch.zeros(2, 1, *size)).shape == (2, 10)


def test_the_heads_pool_as_they_say():
    torch.manual_seed(0)
    images = torch.rand(2, 1, 28, 28)
    for head, pool in [("gap", lambda x: x.mean((2, 3))), ("gmp", lambda x: x.amax((2, 3)))]:
        network = build_convnet(head)
        features = network.body(images)
        maps = torch.einsum("nchw,kc->nkhw", features, network.head[0].weight[:, :, 0, 0])
        expected = pool(maps) + network.head[0].bias
        torch.testing.assert_close(network(images), expected)
    network = build_convnet("flatten")
    linear = network.head[1]
    expected = network.body(images).flatten(1) @ linear.weight.T + linear.bias
    torch.testing.assert_close(network(images), expected)


def test_the_heads_of_lesson_09_pool_as_they_say():
    torch.manual_seed(0)
    images = torch.rand(2, 1, 28, 28)
    network = build_convnet("lse").double()
    maps = network.head[0](network.body(images.double()))
    by_hand = maps.exp().mean((2, 3)).log()
    torch.testing.assert_close(network(images.double()), by_hand)

    network = build_convnet("gem").double()
    features = network.body(images.double())
    assert (features >= 0).all()  # what GeM wants
    by_hand = (features.clamp(min=1e-6) ** 3).mean((2, 3)) ** (1 / 3)
    torch.testing.assert_close(network(images.double()), network.head[1](by_hand))

    network = build_convnet("gap+gmp")
    features = network.body(images)
    weight, bias = network.head[1].weight, network.head[1].bias
    by_hand = features.mean((2, 3)) @ weight[:, :32].T + features.amax((2, 3)) @ weight[:, 32:].T
    torch.testing.assert_close(network(images), by_hand + bias)


@pytest.mark.parametrize("module", [GeM(), LogSumExp(), AverageAndMax()])
def test_pooling_modules_give_vectors_of_any_size(module):
    channels = 6 if isinstance(module, AverageAndMax) else 3
    for shape in [(1, 3, 1, 1), (2, 3, 5, 4), (1, 3, 7)]:
        assert module(torch.rand(shape)).shape == (shape[0], channels)
    half = module(torch.full((1, 3, 300, 300), 200.0, dtype=torch.float16))
    assert half.dtype == torch.float16
    torch.testing.assert_close(half, torch.full((1, channels), 200.0, dtype=torch.float16))


def test_average_and_max_is_what_timm_has():
    layers = pytest.importorskip("timm.layers")
    features = torch.randn(2, 3, 5, 4)
    theirs = layers.SelectAdaptivePool2d(pool_type="catavgmax", flatten=True)(features)
    torch.testing.assert_close(AverageAndMax()(features), theirs)


def test_p_of_gem_is_learned_and_saved():
    torch.manual_seed(0)
    module, features = GeM(), torch.rand(2, 3, 4, 4)
    assert list(module.state_dict()) == ["p"]
    before = module(features)
    torch.testing.assert_close(before, generalized_mean_pool(features, 3))
    before.sum().backward()
    assert module.p.grad > 0  # a larger p gives larger numbers
    torch.optim.SGD(module.parameters(), 1.0).step()
    assert (module(features) < before).all()
    again = GeM(p=1)
    again.load_state_dict(module.state_dict())
    assert again.p == module.p


def test_the_sharpness_is_that_of_the_function_and_is_printed():
    features = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(LogSumExp(5)(features), log_sum_exp_pool(features, 5))
    assert repr(LogSumExp(5)) == "LogSumExp(sharpness=5)"
    assert not [*LogSumExp().parameters()]


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "3"])
def test_modules_refuse_what_is_not_above_0(value):
    with pytest.raises(ValueError, match="expected p to be a finite number above 0, got"):
        GeM(value)
    with pytest.raises(ValueError, match="expected sharpness to be a finite number above 0, got"):
        LogSumExp(value)


@pytest.mark.parametrize("value", [1e300, 1e-300, 10**400])
def test_modules_refuse_what_float32_cannot_hold(value):
    for make in (GeM, LogSumExp):
        with pytest.raises(ValueError, match=r"to be from 1\.2e-38 to 3\.4e\+38, as float32 has"):
            make(value)


def test_modules_take_a_copy_of_what_is_learned_elsewhere():
    for make in (GeM, LogSumExp):
        with pytest.raises(ValueError, match="to be a finite number above 0, got tensor"):
            make(torch.nn.Parameter(torch.tensor(-3.0)))
    learned = torch.nn.Parameter(torch.tensor([3.0]))
    assert GeM(learned).p.shape == ()
    assert GeM(learned).p is not learned
    module = LogSumExp(learned)
    assert repr(module) == "LogSumExp(sharpness=3.0)"
    assert not [*module.parameters()]  # it is fixed


@pytest.mark.parametrize("name", ["in_channels", "num_classes", "input_size"])
@pytest.mark.parametrize("value", [0, -1, 2.5, 28.0, "3", (28, 28), None])
def test_counts_of_a_network_are_integers_from_1(name, value):
    with pytest.raises(ValueError, match=f"expected {name} to be an integer from 1 on, got"):
        build_convnet(**{name: value})


@pytest.mark.parametrize("head", MORE_HEADS)
def test_they_have_no_class_activation_map(head):
    torch.manual_seed(0)
    network = build_convnet(head).eval()
    with torch.no_grad():  # logits of the size that a trained network has
        for parameter in network.head[-1 if head != "lse" else 0].parameters():
            parameter *= 30
    with pytest.raises(ValueError, match=r"expected a model whose logits are mean\(CAM\) \+ bias"):
        find_cam_head(network, torch.rand(2, 1, 28, 28))


def test_the_flatten_head_explains_its_size():
    network = build_convnet("flatten")
    assert network(torch.zeros(1, 1, 31, 24)).shape == (1, 10)  # 3×3 maps as well
    with pytest.raises(
        ValueError, match=r"expected maps of \(3, 3\) .* got \(4, 4\) from pictures of \(32, 32\)"
    ):
        network(torch.zeros(1, 1, 32, 32))
    # 288 numbers too, but from other places
    with pytest.raises(ValueError, match=r"got \(1, 9\)"):
        network(torch.zeros(1, 1, 8, 72))
    assert build_convnet("flatten", input_size=32)(torch.zeros(1, 1, 32, 32)).shape == (1, 10)


def test_impossible_settings_are_refused():
    known = '"gap", "gmp", "flatten", "gem", "lse", "gap\\+gmp"'
    with pytest.raises(ValueError, match=f"expected head to be one of {known}, got 'gpa'"):
        build_convnet("gpa")
    with pytest.raises(ValueError, match="input_size of which maps are left, got 7"):
        build_convnet("flatten", input_size=7)
    assert build_convnet(last_pool=False, input_size=7)(torch.zeros(1, 1, 7, 7)).shape == (1, 10)


@pytest.fixture
def own_assets(tmp_path, monkeypatch):
    """A copy of the weights that a test may spoil."""
    for path in [models.TRAINED, *models.ASSETS.glob("*.safetensors")]:
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(models, "ASSETS", tmp_path)
    monkeypatch.setattr(models, "TRAINED", tmp_path / "trained.json")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "side"),
    [("gap", 3), ("gmp", 3), ("flatten", 3), ("gap_7x7", 7), ("gap_places", 7), ("gmp_places", 7)],
)
def test_trained_networks(name, side):
    """What is written about them must be so, as far as the test pictures that ship can tell."""
    model = load_trained(name)
    told = json.loads(models.TRAINED.read_text())[name]
    assert not model.training
    assert all(not module.training for module in model.modules())
    assert model.body(torch.zeros(1, 1, 28, 28)).shape == (1, 32, side, side)
    test = load_fashion_mnist().test
    if name.endswith("places"):
        test, _ = place_in_clutter(test, seed=told["seed"])
    found = evaluate(model, test).accuracy
    assert told["test_accuracy"] > (0.75 if name.endswith("places") else 0.85)
    # 1,000 of the 10,000 pictures: three standard errors
    share = told["test_accuracy"]
    assert found == pytest.approx(share, abs=3 * (share * (1 - share) / 1000) ** 0.5)


@pytest.mark.parametrize(
    ("name", "experiment"),
    [*((head, "heads") for head in HEADS), ("gap_places", "places"), ("gmp_places", "places")],
)
def test_the_trained_networks_are_runs_of_the_study(name, experiment):
    study, told = load_study(), json.loads(models.TRAINED.read_text())[name]
    rows = study[
        (study.experiment == experiment)
        & (study.model == told["network"]["head"])
        & (study.seed == told["seed"])
        & (study["at"] == 0)
    ]
    value = rows.set_index("measure").value
    assert value["test_accuracy"] == told["test_accuracy"]
    assert value.get("level") == told.get("box_level")


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="'gap_7x7', 'gap_places', 'gmp_places', got 'vgg'"):
        load_trained("vgg")


def test_damaged_weights_are_named(own_assets):
    path = own_assets / "gap.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"gap\.safetensors to have the sha256"):
        load_trained("gap")
    load_trained("gmp")


@pytest.mark.parametrize("change", ["other head", "no safetensors"])
def test_weights_of_another_shape_are_named(own_assets, change):
    """Also where the table itself was changed."""
    path = own_assets / "gap.safetensors"
    path.write_bytes((own_assets / "flatten.safetensors").read_bytes())
    if change == "no safetensors":
        path.write_bytes(b"nothing of the kind")
    table = json.loads(models.TRAINED.read_text())
    table["gap"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    models.TRAINED.write_text(json.dumps(table))
    with pytest.raises(ValueError, match=r"gap\.safetensors to fit {'head': 'gap'}"):
        load_trained("gap")
