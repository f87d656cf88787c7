import gc
import re
import weakref
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from operator import attrgetter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import mobilenet_v2, resnet18
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from gap_utils.activations import (
    capture_activations,
    class_activation_map,
    conv_from_linear,
    find_cam_head,
    grad_cam,
    linear_from_conv,
)
from gap_utils.models import build_convnet, load_trained
from small_networks import Call, count_hooks

HALVES = [torch.float16, torch.bfloat16]
IMAGES = torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(1))
sizes = st.integers(1, 4)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def capture(model, layers, *inputs, **options):
    with capture_activations(model, layers, **options) as maps:
        model(*inputs)
    return maps


def small_network(axes=2, pool=None, bias=True):
    """In train mode, with dropout and batch normalisation; its features are of layer "4"."""
    conv, norm, mean = nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d
    if axes != 2:
        conv, norm, mean = (getattr(nn, f"{x.__name__[:-2]}{axes}d") for x in (conv, norm, mean))
    layers = [conv(3, 6, 3), norm(6), nn.ReLU(), conv(6, 6, 3), nn.ReLU(), pool or mean(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(), nn.Linear(6, 5, bias=bias))


# capture_activations


def test_layers_are_named_matched_or_given_themselves():
    model = build_convnet()
    x = torch.rand(2, 1, 28, 28)
    conv = model.body[0]
    for layers in ("body.0", conv, ["body.0"], (conv, "body.0"), (name for name in ["body.0"])):
        maps = capture(model, layers, x)
        assert list(maps) == ["body.0"]
        same(maps["body.0"], conv(x).detach())
    inside = [f"body.{number}" for number in range(15)]
    assert list(capture(model, "body.*", x)) == inside
    few = [*inside[13:], "head.0", "head.1", "head.2"]
    assert list(capture(model, ["head.?", "body.1[34]"], x)) == few  # in the order of the calls
    everything = capture(model, "*", x)
    assert list(everything) == [*inside, "body", *few[2:], "head", ""]
    same(everything["body"], everything["body.14"])
    same(everything[""], model(x).detach())
    same(capture(model, model, x)[""], everything[""])


def test_names_and_maps_are_those_of_torchvisions_extractor():
    model = resnet18(num_classes=3).eval()
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # the extractor's maps would be changed afterwards
    x = torch.rand(1, 3, 64, 64)
    maps = capture(model, [m for m in model.modules() if not list(m.children())], x)
    nodes = get_graph_node_names(model)[1]
    wanted = [name for name in nodes if not re.search(r"^x$|add$|flatten$", name)]  # of modules
    assert list(maps) == wanted
    assert "layer4.1.relu_1" in wanted
    same(dict(maps), create_feature_extractor(model, wanted)(x))


def test_a_module_under_two_names_is_kept_under_the_one_asked_for():
    relu = nn.ReLU()
    model = Call(lambda m, x: m.b(m.a(x) - 0.5), a=relu, b=relu)
    for layers, names in {"*": ["a", "a_1", ""], "b": ["b", "b_1"], "[ab]": ["a", "a_1"]}.items():
        maps = capture(model, layers, IMAGES)
        assert list(maps) == names
        same([*maps.values()][:2], [IMAGES, (IMAGES - 0.5).relu()])
    assert list(capture(model, ["b", "a", relu], IMAGES)) == ["b", "b_1"]


def test_repeated_calls_are_numbered_around_the_names_of_others():
    model = Call(
        lambda m, x: m.relu(m.relu_1(m.relu(m.relu(x) - 0.5))), relu=nn.ReLU(), relu_1=nn.Sigmoid()
    )
    half = (IMAGES - 0.5).relu()
    expected = {"relu": IMAGES, "relu_2": half, "relu_1": half.sigmoid(), "relu_3": half.sigmoid()}
    maps = capture(model, "relu*", IMAGES)
    assert list(maps) == list(expected)
    same(dict(maps), expected)
    # the name of a repeated call may be asked for
    assert list(capture(model, "relu_3", IMAGES)) == ["relu", "relu_2", "relu_3"]
    assert list(capture(model, "relu_1", IMAGES)) == ["relu_1"]


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_a_detached_map_is_a_copy(dtype):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Identity()).to(dtype)
    maps = capture(model, "*", IMAGES.to(dtype))
    same(maps["0"], model[0](IMAGES.to(dtype)).detach())
    assert maps["0"].min() < 0 == maps["1"].min()
    assert {(value.dtype, value.requires_grad) for value in maps.values()} == {(dtype, False)}
    maps["1"].zero_()
    assert maps["2"].max() > 0


def test_an_attached_map_is_the_tensor_itself_in_the_graph():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 2, 3))
    outputs = []
    model[0].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with capture_activations(model, "0", detach=False) as maps:
        score = model(IMAGES).sum()
    assert maps["0"] is outputs[0]
    (slope,) = torch.autograd.grad(score, maps["0"])
    assert slope.abs().min() > 0
    maps["0"].sum().backward()
    same(model[0].bias.grad, torch.full((4,), 2.0 * 6 * 7))  # pictures, rows, columns
    changed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    assert capture(changed, "0", IMAGES, detach=False)["0"].min() == 0  # as the docstring says


Pair = namedtuple("Pair", "left right")


class Wide(tuple):
    def __new__(cls, left, right):
        return super().__new__(cls, (left, right))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda x: [x, (x, None, 3)], list),
        (lambda x: {"logits": x, 3: [x]}, dict),
        (lambda x: Pair(x, {"x": x}), Pair),
        (lambda x: Wide(x, x + 1), tuple),
        (lambda x: x.max(1), tuple),
    ],
)
def test_tensors_in_containers(make, kind):
    model = Call(
        lambda m, x: [m.give(x := m.conv(x)), x.zero_()],  # which a copy does not see
        **{"conv": nn.Conv2d(3, 4, 3), "give": Call(lambda m, x: make(x))},
    )
    found = capture(model, "give", IMAGES)["give"]
    assert type(found) is kind
    expected = make(model.conv(IMAGES).detach())
    same(found, tuple(expected) if kind is tuple else expected)


def test_layers_with_several_outputs_and_named_inputs():
    words = torch.rand(2, 4, 6)
    lstm, attention = nn.LSTM(6, 3, batch_first=True), nn.MultiheadAttention(6, 2, batch_first=True)
    same(capture(nn.Sequential(lstm), "0", words)["0"], lstm(words))
    packed = nn.utils.rnn.pack_sequence([torch.rand(4, 6), torch.rand(2, 6)])
    output, _ = capture(nn.Sequential(lstm), "0", packed)["0"]
    assert isinstance(output, nn.utils.rnn.PackedSequence)
    same(output.data, lstm(packed)[0].data)
    model = Call(lambda m, *, x, by: {"logits": m.attention(x, x, x)[0] * by}, attention=attention)
    with capture_activations(model, "*") as maps:
        outputs = model(x=words, by=2)
    same(maps["attention"], attention(words, words, words))
    same(maps[""], {"logits": outputs["logits"].detach()})
    with pytest.raises(KeyError, match=r"'attention\.out_proj' has given nothing; .*'attention'"):
        maps["attention.out_proj"]


def test_each_pass_begins_with_nothing():
    model = Call(lambda m, x, way: getattr(m, way)(x), a=nn.ReLU(), b=nn.Sigmoid())
    with capture_activations(model, ["a", "b"]) as maps:
        with pytest.raises(KeyError, match=r"'a' has given nothing; layers that have: \[\]"):
            maps["a"]
        model(IMAGES, "a")
        assert list(maps) == ["a"]
        model(IMAGES[:1], "b")
        with pytest.raises(KeyError, match=r"'a' has given nothing; layers that have: \['b'\]"):
            maps["a"]
        with pytest.raises(AttributeError):
            model(IMAGES, "c")
        assert maps == {}  # of a pass that broke off
        model(IMAGES, "a")
    model(IMAGES, "b")  # behind the block nothing is kept
    assert list(maps) == ["a"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("layer4.1.cnov1", "got 'layer4.1.cnov1'; near ones are 'layer4.1.conv1', "),
        ("zzz", "got 'zzz'; it has 'conv1', 'bn1', 'relu', "),
        ("zzz*", "got 'zzz*'; it has 'conv1'"),
        (["conv1", "bn9"], "got 'bn9'; near ones are 'bn1'"),
        (nn.ReLU(), "got a ReLU; it has 'conv1', 'bn1'"),
        ([], "at least one layer, got none"),
        (["conv1", 3], "name, pattern or module, got 3"),
        (None, "name, pattern or module, got None"),
    ],
)
def test_a_wrong_choice_is_told_and_leaves_no_hook(layers, message):
    model = resnet18()
    with pytest.raises(ValueError, match=re.escape(message)), capture_activations(model, layers):
        raise AssertionError("the block is not entered")
    assert count_hooks(model) == 0


@pytest.mark.filterwarnings("ignore")
def test_hooks_are_gone_and_the_users_own_stay():
    model = small_network()
    calls = []
    model[0].register_forward_hook(lambda module, inputs, output: calls.append("hook"))
    model.register_forward_pre_hook(lambda module, inputs: calls.append("pre-hook"))
    with capture_activations(model, "*") as maps:
        assert count_hooks(model) == 2 + 2 * len(list(model.modules()))
        model(IMAGES)
    assert count_hooks(model) == 2
    with pytest.raises(ZeroDivisionError), capture_activations(model, "*"):
        raise ZeroDivisionError
    assert count_hooks(model) == 2
    with pytest.raises(RuntimeError, match="channels"), capture_activations(model, "*") as maps:
        model(IMAGES[:, :2])
    assert (count_hooks(model), maps) == (2, {})
    calls.clear()
    model(IMAGES)
    assert calls == ["pre-hook", "hook"]
    doubled = nn.Sequential(nn.Identity())
    doubled[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    same(capture(doubled, "0", IMAGES)["0"], 2 * IMAGES)


@pytest.mark.parametrize("detach", [True, False])
def test_the_model_runs_as_ever(detach):
    def run(options):
        torch.manual_seed(0)
        model = small_network()
        model[3].requires_grad_(False)
        model[4].eval()
        with capture_activations(model, *options) if options else nullcontext():
            outputs = model(IMAGES)
        outputs.square().sum().backward()
        grads = [p.grad for p in model.parameters()]
        return {
            "numbers": [outputs.detach(), model.state_dict(), torch.get_rng_state()],
            "grads": [grad for grad in grads if grad is not None],
            "flags": [grad is None for grad in grads],
            "frozen": [p.requires_grad for p in model.parameters()],
            "modes": [module.training for module in model.modules()],
        }

    expected = run(None)
    assert len(expected["grads"]) == 6
    assert expected["modes"].count(False) == 1
    same(run(("*", detach)), expected)


def test_two_captures_of_one_model():
    model = small_network().eval()
    with capture_activations(model, "2", detach=False) as outer:
        with capture_activations(model, ["2", "4"]) as inner:
            model(IMAGES)
        assert (list(outer), list(inner)) == (["2"], ["2", "4"])
        assert (outer["2"].requires_grad, inner["2"].requires_grad) == (True, False)
        same(outer["2"].detach(), inner["2"])
        model(IMAGES[:1])
    assert (len(outer["2"]), len(inner["2"])) == (1, 2)
    assert count_hooks(model) == 0


@pytest.mark.parametrize("detach", [True, False])
def test_two_thousand_passes_keep_no_more_than_one(detach):
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    known = []
    with capture_activations(model, "*", detach) as maps:
        for _ in range(2000):
            model(IMAGES[0, :, :1, 0].T)
            known.extend(weakref.ref(value) for value in maps.values())
    gc.collect()
    assert len(known) == 6000
    alive = {id(ref()) for ref in known if ref() is not None}
    assert alive == {id(value) for value in maps.values()}


class Parts(nn.Module):
    """As timm's networks have it: methods that run layers without a call of the model."""

    def __init__(self):
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 4, 3), nn.ReLU()
        self.body, self.fc = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()), nn.Linear(4, 2)

    def forward_features(self, x):
        return self.act(self.body(self.act(self.stem(x)) - 0.1))

    def forward_head(self, features):
        return self.fc(features.mean((2, 3)))

    def forward(self, x):
        return self.forward_head(self.forward_features(x))

    def run_twice(self, x):
        with capture_activations(self, "*") as maps:
            self.forward_features(x)
            self.forward_features(x[:1])
        return maps


INSIDE = ["body.0", "body.1", "body"]
FEATURES = ["stem", "act", *INSIDE, "act_1"]
METHODS = {
    "forward_features": FEATURES,
    "forward": [*FEATURES, "fc"],
    "__call__": [*FEATURES, "fc", ""],
    "body": INSIDE,
    "body.forward": INSIDE[:2],
    "body.0": ["body.0"],
    "forward_head": ["fc"],
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_a_pass_is_a_call_of_any_method(name, detach):
    model = Parts()
    method = attrgetter(name)(model)
    channels = 3 if "stem" in METHODS[name] else 4
    known = []
    with capture_activations(model, "*", detach=detach) as maps:
        model(IMAGES)
        for number in range(100):
            images = torch.full((2, channels, 6, 6), 0.01 * number)
            method(images)
            assert list(maps) == METHODS[name]
            known.extend(weakref.ref(value) for value in maps.values())
        found = {layer: value.detach() for layer, value in maps.items()}
    if "stem" in found:
        same(found["stem"], model.stem(images).detach())
    gc.collect()
    assert {id(ref()) for ref in known if ref() is not None} == {id(v) for v in maps.values()}


def test_what_a_pass_did_not_run_is_not_there():
    model = Parts()
    with capture_activations(model, "stem") as maps:
        features = model.forward_features(IMAGES)
        assert list(maps) == ["stem"]
        model.forward_head(features)  # no stem
        assert maps == {}
        model.forward_features(IMAGES)
        with pytest.raises(RuntimeError, match="channels"):
            model.forward_features(IMAGES[:, :2])  # breaks off in the stem
        assert maps == {}
        model.forward_features(IMAGES)
        with capture_activations(model, "act") as inner:
            model.forward_features(IMAGES[:1])
        assert (len(maps["stem"]), list(inner)) == (1, ["act", "act_1"])


def test_a_block_inside_a_method_of_the_model():
    maps = Parts().run_twice(IMAGES)
    assert (list(maps), len(maps["act_1"])) == (FEATURES, 1)


def test_methods_in_other_threads_and_in_wrappers():
    model = Parts()
    with capture_activations(model, "*") as maps, ThreadPoolExecutor(1) as other:
        for images in (IMAGES, IMAGES[:1]):
            other.submit(model.forward_features, images).result()
            assert (list(maps), len(maps["stem"])) == (FEATURES, len(images))
    for wrapper, name in (
        (nn.DataParallel(model), "module"),
        (torch.compile(model, backend="eager"), "_orig_mod"),
    ):
        with capture_activations(wrapper, f"{name}.act") as maps:
            for images in (IMAGES, IMAGES[:1]):  # DataParallel moves a model to the GPU
                getattr(wrapper, name).forward_features(images.to(model.stem.weight.device))
                assert (list(maps), len(maps[f"{name}.act"])) == (
                    [f"{name}.act", f"{name}.act_1"],
                    len(images),
                )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here")
def test_on_a_real_gpu():
    model, images = build_convnet(num_classes=5).cuda().eval(), torch.rand(2, 1, 28, 28).cuda()
    state = torch.cuda.get_rng_state()
    assert not capture(model, "body", images)["body"].is_cuda
    head = find_cam_head(model, images.cpu())
    assert [head.layer, head.weight.is_cuda, head.bias.is_cuda] == ["body", False, False]
    cam = class_activation_map(capture(model, "body", images, detach=False)["body"], head.weight)
    assert cam.is_cuda
    found, expected = cam.mean((2, 3)).cpu() + head.bias, model(images).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)  # convolutions in TF32
    assert conv_from_linear(linear_from_conv(model.head[0])).weight.is_cuda
    assert torch.equal(torch.cuda.get_rng_state(), state)


# class_activation_map and grad_cam


def test_a_class_activation_map_by_hand():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -4.0]]]])
    weight = torch.tensor([[10.0, 1.0], [0.0, 0.5], [-1.0, 2.0]])
    expected = torch.tensor([[[[13.0, 16.0]], [[1.5, -2.0]], [[5.0, -10.0]]]])
    same(class_activation_map(features, weight), expected)
    same(class_activation_map(features, weight[:, :, None, None]), expected)
    same(class_activation_map(features, weight.double()), expected.double())


@settings(max_examples=80)
@given(
    st.lists(sizes, min_size=4, max_size=6),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    st.integers(0, 99),
)
def test_the_mean_of_the_map_and_the_bias_are_the_logit(shape, dtype, number):
    n, k, c, *spatial = shape
    generator = torch.Generator().manual_seed(number)
    shapes = [(n, c, *spatial), (k, c), (k,)]
    values = (torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes)
    features, weight, bias = (value.to(dtype) for value in values)
    maps = class_activation_map(features, weight)
    assert (maps.dtype, maps.shape) == (dtype, (n, k, *spatial))
    pooled = getattr(F, f"adaptive_avg_pool{len(spatial)}d")(features.double(), 1).flatten(1)
    logits = F.linear(pooled, weight.double(), bias.double())
    found = maps.double().flatten(2).mean(2) + bias.double()
    # each product and each sum is rounded once
    room = F.linear(features.abs().double().flatten(2).mean(2), weight.abs().double())
    assert ((found - logits).abs() <= torch.finfo(dtype).eps * (c + 1) * room + 1e-14).all()


def test_shapes_that_do_not_fit_are_refused():
    for features, weight, message in [
        ((2, 3), (5, 3), "features (N, C, *spatial), got (2, 3)"),
        ((2, 3, 4), (5, 4), "weight (K, 3) for features of 3 channels, got (5, 4)"),
        ((2, 3, 4, 4), (3,), "got (3,)"),
        ((2, 3, 4, 4), (5, 3, 3, 3), "got (5, 3, 3, 3)"),
        ((2, 3, 4, 4), (0, 3, 3, 3), "got (0, 3, 3, 3)"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            class_activation_map(torch.zeros(features), torch.zeros(weight))


def test_grad_cam_by_hand():
    features = torch.tensor([[[1.0, 2.0], [3.0, 5.0]]], requires_grad=True)  # two maps of two
    score = (features * torch.tensor([[[2.0, 4.0], [0.0, -1.0]]])).sum((1, 2))
    # the mean slopes are 3 and -1/2
    same(grad_cam(features, score), torch.tensor([[3 - 1.5, 6 - 2.5]]))
    same(grad_cam(features, -score), torch.tensor([[-1.5, -3.5]]))  # no ReLU; the graph is kept


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_grad_cam_of_a_gap_network_is_its_cam_over_the_positions(axes):
    model = small_network(axes).eval()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    with capture_activations(model, "4", detach=False) as maps:
        logits = model(torch.rand(2, 3, *[8] * axes))
    cam = class_activation_map(maps["4"], model[8].weight).detach()
    for label in range(5):
        found = grad_cam(maps["4"], logits[:, label])
        assert not found.requires_grad
        torch.testing.assert_close(found, cam[:, label] / 4**axes)
    assert cam.min() < 0  # so a ReLU would be seen
    assert all((parameter.grad == 7).all() for parameter in model.parameters())


def test_grad_cam_is_torchcams_before_its_relu():
    methods = pytest.importorskip("torchcam.methods")
    model = small_network(pool=nn.AdaptiveMaxPool2d(1)).eval()
    with methods.GradCAM(model, "2") as extractor:
        (expected,) = extractor([3, 1], model(IMAGES), normalized=False)
    with capture_activations(model, "2", detach=False) as maps:
        logits = model(IMAGES)
    found = grad_cam(maps["2"], logits[[0, 1], [3, 1]])
    assert found.min() < 0 < expected.max()
    torch.testing.assert_close(found.relu(), expected)


@pytest.mark.parametrize("why", ["detached", "score without gradients", "another pass"])
def test_grad_cam_needs_the_features_in_the_graph(why):
    model = small_network()
    with capture_activations(model, "4", detach=why == "detached") as maps:
        logits = model(IMAGES)
    if why != "detached":
        logits = model(IMAGES) if why == "another pass" else logits.detach()
    with pytest.raises(ValueError, match="features in the graph of the score: capture them with d"):
        grad_cam(maps["4"], logits[:, 0])


def test_a_compiled_model_that_has_run_is_captured_too():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    compiled = torch.compile(model, backend="eager")
    expected = compiled(torch.ones(1, 1, 5, 5))
    with capture_activations(compiled, "*1") as maps:
        compiled(torch.ones(1, 1, 5, 5))
    torch.testing.assert_close(maps["_orig_mod.1"], expected.detach())


def test_a_compiled_part_of_a_model():
    model = small_network().eval()
    model[0] = torch.compile(model[0], backend="eager")
    expected = model[0](IMAGES).detach()
    same(capture(model, "0", IMAGES)["0"], expected)
    assert find_cam_head(model, IMAGES).layer == "4"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [torch.jit.script, lambda model: torch.jit.trace(model, IMAGES)])
def test_what_torch_jit_has_made_is_refused(make):
    model = make(small_network().eval())
    for call in (find_cam_head, lambda model, _: capture(model, "*", IMAGES)):
        with pytest.raises(ValueError, match=r"run in Python, got a model from torch\.jit, which"):
            call(model, IMAGES)
    half = nn.Sequential(nn.ReLU(), make(nn.ReLU()))
    with pytest.raises(ValueError, match=r"run in Python, got '1' from torch\.jit"):
        capture(half, "*", IMAGES)
    assert count_hooks(half) == 0
    assert list(capture(half, "0", IMAGES)) == ["0"]


@pytest.mark.parametrize(
    ("features", "score"), [((2, 3, 4, 4), (2, 5)), ((2, 3), (2,)), ((2, 3, 4), (2, 5, 4))]
)
def test_grad_cam_explains_one_number_for_each_picture(features, score):
    message = f"a score (N,), got {features} and {score}"
    with pytest.raises(ValueError, match=re.escape(message)):
        grad_cam(torch.zeros(features), torch.zeros(score))


# linear_from_conv and conv_from_linear


@settings(max_examples=40)
@given(sizes, sizes, sizes, sizes, st.booleans(), st.sampled_from([torch.float32, torch.float64]))
def test_both_heads_give_equal_logits(c, k, height, width, bias, dtype):
    features = torch.randn(2, c, height, width, dtype=dtype)
    for layer in (nn.Conv2d(c, k, 1, bias=bias, dtype=dtype), nn.Linear(c, k, bias, dtype=dtype)):
        state = torch.get_rng_state()
        conv = layer if isinstance(layer, nn.Conv2d) else conv_from_linear(layer)
        linear = layer if isinstance(layer, nn.Linear) else linear_from_conv(layer)
        assert torch.equal(torch.get_rng_state(), state)
        assert (linear.bias is None) == (conv.bias is None) == (not bias)
        found = linear(F.adaptive_avg_pool2d(features, 1).flatten(1))
        torch.testing.assert_close(found, conv(features).mean((2, 3)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_the_other_head_has_copies(dtype):
    conv, linear = nn.Conv2d(4, 3, 1, padding="same"), nn.Linear(4, 3)
    ways = [linear_from_conv, conv_from_linear]
    for layer, (convert, back) in [(conv, ways), (linear, ways[::-1])]:
        layer.to(dtype).eval().weight.requires_grad_(False)
        old = {name: value.clone() for name, value in layer.state_dict().items()}
        new = convert(layer)
        assert new.weight.dtype == dtype
        assert [new.weight.requires_grad, new.bias.requires_grad] == [False, True]
        assert [new.training, convert(layer.train()).training] == [False, True]
        for parameter in new.parameters():
            parameter.data += 1
        same(dict(layer.state_dict()), old)
        same(dict(back(convert(layer)).state_dict()), old)


def test_other_layers_are_refused():
    for layer in (
        *(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, (1, 3)), nn.Conv2d(4, 4, 1, stride=2)),
        *(nn.Conv2d(4, 4, 1, padding=1), nn.Conv2d(4, 4, 1, groups=2)),
        *(nn.ConvTranspose2d(4, 4, 1), nn.Linear(4, 4), None),
    ):
        message = f"1×1 convolution of stride 1 without padding and groups, got {layer}"
        with pytest.raises(ValueError, match=re.escape(message)):
            linear_from_conv(layer)
    for layer, kind in [(nn.Conv2d(4, 4, 1), "Conv2d"), (None, "NoneType")]:
        with pytest.raises(ValueError, match=f"expected an nn.Linear, got {kind}"):
            conv_from_linear(layer)


# find_cam_head


def logits_by(head, model, images):
    """From the head that was found, in another way than the search does it."""
    features = capture(model, head.layer, images)[head.layer]
    return F.linear(features.flatten(2).mean(2), head.weight, head.bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES])
def test_the_networks_that_ship(dtype):
    images = torch.rand(3, 1, 28, 28).to(dtype)
    for name, side in [("gap", 3), ("gap_7x7", 7)]:
        model = load_trained(name).to(dtype)
        head = find_cam_head(model, images)
        assert head.layer == "body"
        assert capture(model, "body", images)["body"].shape == (3, 32, side, side)
        same(head.weight, model.head[0].weight.detach()[:, :, 0, 0].float())
        same(head.bias, model.head[0].bias.detach().float())
        assert head.linear == "head.0"
        other = Call(lambda m, x: m.body(x), body=model.body, head=nn.Sequential(nn.Linear(32, 10)))
        same(head.of(other).weight, other.head[0].weight.detach())
        same(head.of(other).bias, other.head[0].bias.detach())
        if dtype == torch.float32:
            torch.testing.assert_close(logits_by(head, model, images), model(images).detach())
            rounded = Call(lambda m, x: m.model(x).bfloat16(), model=model)
            assert find_cam_head(rounded, images).layer == "model.body"
        rounded = Call(lambda m, x: m.model(x).float(), model=model)
        assert find_cam_head(rounded, images).layer == "model.body"
    model = load_trained("gmp").to(dtype)
    with pytest.raises(ValueError, match="something other than a mean"):
        find_cam_head(model, images)
    with pytest.raises(ValueError, match=r"maps of the 288 channels that 'head\.1' takes"):
        find_cam_head(load_trained("flatten").to(dtype), images)


@pytest.mark.parametrize(
    ("build", "layer", "linear"),
    [(resnet18, "layer4", "fc"), (mobilenet_v2, "features", "classifier.1")],
)
def test_torchvisions_networks_agree_with_torchcam(build, layer, linear):
    methods = pytest.importorskip("torchcam.methods")
    model = build(num_classes=7).eval()
    images = torch.rand(2, 3, 64, 64)
    head = find_cam_head(model, images)
    assert head.layer == layer
    found = class_activation_map(capture(model, layer, images)[layer], head.weight)
    with methods.CAM(model, layer, linear) as extractor, torch.no_grad():
        logits = model(images)
        (expected,) = extractor([6, 2], normalized=False)
    assert found.abs().max() > 0
    torch.testing.assert_close(found[[0, 1], [6, 2]], expected)
    torch.testing.assert_close(found.mean((2, 3)) + head.bias, logits)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_search_leaves_networks_of_one_to_three_axes_as_they_were(axes, bias):
    model, images = small_network(axes, bias=bias), torch.rand(2, 3, *[8] * axes)
    model[4].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    head = find_cam_head(model, images)
    assert head.layer == "4"
    same(head.weight, model[8].weight.detach())
    same(head.bias, model[8].bias.detach() if bias else torch.zeros(5))
    head.weight.zero_()  # a copy
    with pytest.raises(RuntimeError):
        find_cam_head(model, images[:, :2])
    assert count_hooks(model) == 0
    assert torch.equal(torch.get_rng_state(), state)
    assert [number for number, layer in enumerate(model) if not layer.training] == [4]
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    same(dict(model.state_dict()), before)


def test_pooling_by_a_function_behind_a_shared_activation():
    model = Call(
        lambda m, x: m.fc(m.relu(m.b(m.relu(m.a(x)))).mean((2, 3))),
        **{"a": nn.Conv2d(3, 6, 3), "b": nn.Conv2d(6, 6, 3), "relu": nn.ReLU(inplace=True)},
        fc=nn.Linear(6, 5),
    )
    head = find_cam_head(model, IMAGES)
    assert head.layer == "relu_1"  # a name that capture_activations takes
    torch.testing.assert_close(logits_by(head, model, IMAGES), model(IMAGES).detach())
    assert find_cam_head(nn.DataParallel(model), IMAGES).layer == "module.relu_1"


def refused_networks():
    mean, flat, conv = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Conv2d(3, 6, 3)
    nearest = "up to .* off: something other than a mean"
    yield small_network(pool=nn.AdaptiveMaxPool2d(1)), "the weights of '8' that is " + nearest
    yield nn.Sequential(conv, nn.Conv2d(6, 5, 1), nn.ReLU(), mean, flat), nearest  # SqueezeNet
    vgg = [nn.AdaptiveAvgPool2d(2), flat, nn.Linear(12, 5), nn.Linear(5, 5)]
    yield nn.Sequential(*vgg), "no layer gives maps of the 5 channels that '3' takes"
    pointwise = [conv, nn.Conv2d(6, 6, 1), nn.AdaptiveMaxPool2d(1), flat, nn.Linear(6, 5)]
    yield nn.Sequential(*pointwise), nearest
    yield nn.Sequential(conv, mean, flat), "no linear layer or 1×1 convolution gives as many numb"
    yield conv, r"gives logits \(N, K\), got \(2, 6, 6, 7\)"
    yield Call(lambda m, x: {"logits": x}), r"gives logits \(N, K\), got dict"
    yield Call(lambda m, x: x[:0].mean((2, 3))), r"gives logits \(N, K\), got \(0, 3\)"
    yield Call(lambda m, x: m.net(x).long(), net=small_network()), nearest
    blank = small_network()
    blank[8].weight.data.zero_()  # would go with any maps
    yield blank, "the weights of '8' are all zero, which fits any maps"
    # three frames for a picture, so more maps than logits
    frames = Call(
        lambda m, x: m.fc(m.conv(torch.cat([x] * 3)).unflatten(0, (3, 2)).mean((0, 3, 4))),
        **{"conv": conv, "fc": nn.Linear(6, 5)},
    )
    yield frames, "no layer gives maps of the 6 channels that 'fc' takes"


def test_networks_without_a_cam_are_refused_with_the_reason():
    for model, message in refused_networks():
        with pytest.raises(ValueError, match=message):
            find_cam_head(model, IMAGES)


@pytest.mark.parametrize("scale", [1e-5, 1e-2, 1e3])
def test_the_size_of_the_logits_does_not_matter(scale):
    """In small ones a maximum is no mean, and large ones are rounded more."""
    mean, maximum = small_network(), small_network(pool=nn.AdaptiveMaxPool2d(1))
    mean[8].weight.data *= scale
    maximum[8].weight.data *= scale
    assert find_cam_head(mean, IMAGES).layer == "4"
    with pytest.raises(ValueError, match="something other than a mean"):
        find_cam_head(maximum, IMAGES)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_bias_may_take_or_leave_most_digits(dtype):
    model, image = small_network().to(dtype).eval(), IMAGES[:1].to(dtype)
    model[8].bias.data -= model(image)[0].detach()  # logits of next to nothing
    assert find_cam_head(model, image).layer == "4"
    model[8].bias.data += 100
    assert find_cam_head(model, image).layer == "4"


@pytest.mark.parametrize("dtype", [torch.float64, *HALVES])
def test_pictures_of_another_kind_of_numbers(dtype):
    model = small_network().to(dtype).eval()
    for images in (IMAGES, IMAGES.double()):
        assert find_cam_head(model, images).layer == "4"
    with pytest.raises(ValueError, match=r"in floating-point numbers, got torch\.uint8"):
        find_cam_head(model, IMAGES.to(torch.uint8))


def test_networks_without_numbers_are_refused():
    lazy = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    lazy.append(nn.LazyLinear(5))
    blank, infinite = small_network(), small_network()
    blank[8].bias.data[3] = torch.nan
    infinite[8].weight.data.fill_(torch.inf)
    for model, message in [
        (small_network().to("meta"), r"weights with numbers, but '0\.weight' is on 'meta'"),
        (lazy, r"weights with numbers, but '3\.weight' gets its shape from a first call"),
        (blank, "logits that are finite numbers, got NaN or infinite ones"),
        (infinite, "logits that are finite numbers, got NaN or infinite ones"),
    ]:
        with pytest.raises(ValueError, match=f"expected {message}"):
            find_cam_head(model, IMAGES)
    assert isinstance(lazy[3], nn.LazyLinear)
