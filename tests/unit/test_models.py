import hashlib
import json
import shutil

import pytest
import torch
from torch import nn

from gap_utils import models
from gap_utils.data import load_fashion_mnist
from gap_utils.inference import evaluate
from gap_utils.models import HEADS, build_convnet, load_trained
from gap_utils.shapes import trace_shapes
from gap_utils.study import load_study


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_parameters():
    # by hand: 3×3 convolutions from 1 to 8, 8, 16, 16, 32 and 32 channels, with biases
    body = sum(9 * a * b + b for a, b in [(1, 8), (8, 8), (8, 16), (16, 16), (16, 32), (32, 32)])
    assert count(build_convnet().body) == body
    assert count(build_convnet("gap")) == count(build_convnet("gmp")) == body + 330 == 18_370
    assert count(build_convnet("flatten")) == body + 2_890
    # two numbers for each channel in place of a bias
    assert count(build_convnet(batch_norm=True)) == 18_370 + 112
    assert count(build_convnet(num_classes=3, in_channels=3)) == body + 2 * 9 * 8 + 99


@pytest.mark.parametrize(("last_pool", "side"), [(True, 3), (False, 7)])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_shapes(head, batch_norm, last_pool, side):
    network = build_convnet(head, batch_norm=batch_norm, last_pool=last_pool)
    trace = trace_shapes(network, (4, 1, 28, 28))
    assert trace[-1].output_shape == (4, 10)
    assert network.body(torch.zeros(1, 1, 28, 28)).shape == (1, 32, side, side)
    kinds = [type(layer) for layer in network.body]
    assert kinds.count(nn.MaxPool2d) == (3 if last_pool else 2)
    assert kinds.count(nn.BatchNorm2d) == (6 if batch_norm else 0)
    assert kinds.count(nn.ReLU) == 6


@pytest.mark.parametrize("size", [(8, 8), (20, 20), (37, 51)])
@pytest.mark.parametrize("head", ["gap", "gmp"])
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
    with pytest.raises(ValueError, match='head "gap", "gmp" or "flatten", got \'gpa\''):
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


@pytest.mark.parametrize("name", ["gap", "gmp", "flatten", "gap_7x7"])
def test_trained_networks(name):
    """What is written about them must be so, as far as the test pictures that ship can tell."""
    model = load_trained(name)
    told = json.loads(models.TRAINED.read_text())[name]
    assert not model.training
    assert all(not module.training for module in model.modules())
    side = 7 if name == "gap_7x7" else 3
    assert model.body(torch.zeros(1, 1, 28, 28)).shape == (1, 32, side, side)
    found = evaluate(model, load_fashion_mnist().test).accuracy
    assert told["test_accuracy"] > 0.85
    # 1,000 of the 10,000 pictures: three standard errors are 0.03
    assert found == pytest.approx(told["test_accuracy"], abs=0.03)


def test_the_trained_networks_are_runs_of_the_study():
    study = load_study()
    told = json.loads(models.TRAINED.read_text())
    for head in HEADS:
        rows = study[
            (study.experiment == "heads")
            & (study.model == head)
            & (study.seed == told[head]["seed"])
            & (study.measure == "test_accuracy")
        ]
        assert rows.value.item() == told[head]["test_accuracy"]


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="one of 'gap', 'gmp', 'flatten', 'gap_7x7', got 'vgg'"):
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
