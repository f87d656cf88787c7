import pickle
import re
import threading
from functools import partial
from types import MethodType

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention.flex_attention import flex_attention
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.transforms import Normalize

from gap_utils.shapes import (
    ADAPTIVE_POOLINGS,
    NOT_CALLED,
    WINDOW_POOLINGS,
    Layer,
    MisfitError,
    trace_shapes,
)

POOLINGS = sum([*WINDOW_POOLINGS.values(), *ADAPTIVE_POOLINGS.values()], ())


def one(module, *shape):
    (layer,) = trace_shapes(module, shape)
    return layer


def test_the_rows_of_a_small_network():
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    trace = trace_shapes(model, (2, 1, 7, 6))
    assert list(trace) == [
        Layer("0", "Conv2d", (2, 8, 7, 6), 80, 2 * 8 * 42 * 9),
        Layer("1", "ReLU", (2, 8, 7, 6), 0, None),
        Layer("2", "MaxPool2d", (2, 8, 3, 3), 0, 2 * 8 * 9 * 4),
        Layer("3", "AdaptiveAvgPool2d", (2, 8, 1, 1), 0, 2 * 8 * 9),
        Layer("4", "Flatten", (2, 8), 0, None),
        Layer("5", "Linear", (2, 10), 90, 160),
    ]
    assert trace.parameters == 170
    assert trace.multiply_adds == 6048 + 576 + 144 + 160


def test_the_table():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))
    trace = trace_shapes(model, (4, 512, 7, 7))
    assert repr(trace).splitlines() == [
        "layer  kind               output shape    parameters  multiply-adds",
        "0      AdaptiveAvgPool2d  (4, 512, 1, 1)           0        100,352",
        "1      Flatten            (4, 512)                 0              –",
        "2      Linear             (4, 1000)          513,000      2,048,000",
        "total                                        513,000      2,148,352",
    ]
    assert repr(trace[2:]).splitlines() == [
        "layer  kind    output shape  parameters  multiply-adds",
        "2      Linear  (4, 1000)        513,000      2,048,000",
        "total                           513,000      2,048,000",
    ]


class Block(nn.Module):
    """Nested, one layer twice, one never, a parameter of its own, two inputs, two outputs."""

    def __init__(self):
        super().__init__()
        self.body = nn.ModuleDict({"conv": nn.Conv2d(3, 3, 1, bias=False)})
        self.scale = nn.Parameter(torch.ones(3, 1, 1))
        self.spare = nn.Linear(5, 6)

    def forward(self, x, y=None):
        x = self.body["conv"](self.body["conv"](x)) * self.scale
        return {"x": x, "pooled": [x.mean((2, 3)) + y]}


def test_nested_repeated_and_uncalled_modules():
    trace = trace_shapes(Block(), [(2, 3, 4, 4), (2, 3)])
    assert list(trace) == [
        Layer("body.conv", "Conv2d", (2, 3, 4, 4), 9, 288),
        Layer("body.conv", "Conv2d", (2, 3, 4, 4), 0, 288),
        Layer("(model)", "Block", [(2, 3, 4, 4), (2, 3)], 3, None),
        Layer(NOT_CALLED, "", None, 36, None),
    ]
    assert trace.parameters == sum(p.numel() for p in Block().parameters())


def test_shared_parameters_count_once():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    trace = trace_shapes(nn.Sequential(first, second), (1, 4))
    assert [layer.parameters for layer in trace] == [20, 4]


def test_modules_called_by_keyword_and_lazy_ones():
    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.head = nn.LazyLinear(5)

        def forward(self, x):
            return self.head(input=self.pool(input=x).flatten(1))

    model = ByName()
    trace = trace_shapes(model, (2, 3, 4, 4))
    assert [(layer.parameters, layer.multiply_adds) for layer in trace] == [(0, 96), (20, 30)]
    assert torch.nn.parameter.is_lazy(model.head.weight)  # the model's own stays open
    model(torch.ones(1, 7, 2, 2))


def test_tensors_stand_for_their_shape_and_dtype():
    words = torch.zeros(2, 6, dtype=torch.long)
    model = nn.Sequential(nn.Embedding(10, 4), nn.LSTM(4, 5, batch_first=True))
    embedding, lstm = trace_shapes(model, words)
    assert embedding == Layer("0", "Embedding", (2, 6, 4), 40, None)
    assert lstm.output_shape == [(2, 6, 5), (1, 2, 5), (1, 2, 5)]
    assert lstm.parameters == sum(p.numel() for p in model[1].parameters())
    assert trace_shapes(nn.Linear(3, 2).half(), (1, 3))[0].output_shape == (1, 2)


def test_attention_uses_a_layer_without_calling_it():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    trace = trace_shapes(layer, (1, 5, 8))
    assert trace.parameters == sum(p.numel() for p in layer.parameters())
    products = 5 * 8 * 8 * 4 + 2 * 2 * 5 * 5 * 4  # four projections, scores and mixture of 2 heads
    assert trace[0] == Layer("self_attn", "MultiheadAttention", [(1, 5, 8)], 3 * 8 * 9, products)
    assert trace.multiply_adds == products + 2 * 5 * 8 * 16
    assert trace[-1] == Layer(NOT_CALLED, "", None, 8 * 9, None)  # the output projection


@settings(max_examples=60)
@given(
    st.integers(1, 3),
    st.booleans(),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 1),
    st.data(),
)
def test_convolutions_and_linear_layers_against_pytorchs_counter(
    axes, transposed, groups, inside, outside, stride, padding, data
):
    kernel = data.draw(st.lists(st.integers(1, 3), min_size=axes, max_size=axes))
    size = data.draw(st.lists(st.integers(3, 6), min_size=axes, max_size=axes))
    padding = min(padding, (min(kernel) - 1) // 2)
    kinds = {
        False: (nn.Conv1d, nn.Conv2d, nn.Conv3d),
        True: (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    }
    conv = kinds[transposed][axes - 1](
        inside * groups, outside * groups, kernel, stride, padding, groups=groups
    )
    shape = (2, inside * groups, *size)
    features = conv(torch.zeros(shape)).shape
    model = nn.Sequential(conv, nn.Flatten(), nn.Linear(features[1:].numel(), 4))
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(shape))
    trace = trace_shapes(model, shape)
    assert 2 * trace.multiply_adds == counter.get_total_flops()
    assert trace[0].output_shape == tuple(features)
    assert trace.parameters == sum(p.numel() for p in model.parameters())


@settings(max_examples=100)
@given(st.data(), st.integers(1, 3))
def test_adaptive_pooling_looks_at_each_window(data, axes):
    """The gradient of a sum of windows counts how often each number is looked at."""
    size = data.draw(st.lists(st.integers(1, 7), min_size=axes, max_size=axes))
    out = [data.draw(st.integers(1, n)) for n in size]
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[axes - 1]
    looks = 1
    for n, o in zip(size, out, strict=True):
        x = torch.zeros(1, n, requires_grad=True)
        averages = F.adaptive_avg_pool1d(x, o)
        shares = [torch.autograd.grad(a, x, retain_graph=True)[0] for a in averages[0]]
        looks *= sum(int((share > 0).sum()) for share in shares)
    assert one(pool(out), 2, 3, *size).multiply_adds == 6 * looks


@pytest.mark.parametrize(
    ("module", "shape", "cost"),
    [
        (nn.AvgPool2d(2), (1, 3, 7, 7), 3 * 9 * 4),
        (nn.AvgPool2d((2, 3), stride=1), (1, 3, 4, 4), 3 * 6 * 6),
        (nn.MaxPool1d(3), (2, 1, 9), 2 * 3 * 3),
        (nn.MaxPool3d(2, return_indices=True), (1, 1, 4, 4, 4), 8 * 8),
        (nn.AdaptiveMaxPool2d((None, 1)), (1, 2, 3, 5), 2 * 15),
        (nn.AdaptiveAvgPool2d(1), (3, 4, 5), 60),  # without a batch axis
        (nn.BatchNorm2d(3), (1, 3, 1, 1), None),
        (nn.ReLU(), (1, 3), None),
    ],
)
def test_the_cost_of_one_layer(module, shape, cost):
    assert one(module, *shape).multiply_adds == cost


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, generator = model.training, torch.get_rng_state()
    trace_shapes(model, (1, 1, 5, 5))
    with pytest.raises(MisfitError):
        trace_shapes(model, (1, 2, 5, 5))
    assert model.training is state is True
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_a_layer_that_does_not_fit_is_named():
    head = nn.Sequential(nn.Flatten(), nn.Linear(288, 10))
    with pytest.raises(
        MisfitError,
        match=r"^expected an input that fits, but layer '1', Linear\(in_features=288, "
        r"out_features=10, bias=True\), failed on shape \(1, 512\): .*512.*288",
    ) as raised:
        trace_shapes(head, (1, 32, 4, 4))
    assert raised.value.layer == "1"
    assert [layer.output_shape for layer in raised.value.trace] == [(1, 512)]


def test_an_error_between_layers_names_the_module_around_it():
    with pytest.raises(
        MisfitError, match=r"layer '\(model\)', Block, failed on shape \(2, 3, 4, 4\), "
    ):
        trace_shapes(Block(), [(2, 3, 4, 4), (2, 5)])  # x.mean((2, 3)) + y
    with pytest.raises(MisfitError, match=r"layer 'body\.conv'"):
        trace_shapes(Block(), [(2, 4, 4, 4), (2, 3)])


class Forgiving(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
        self.second, self.third = nn.Linear(4, 2), nn.Linear(2, 5)

    def forward(self, x):
        try:
            x = self.first(x)
        except RuntimeError:
            x = self.second(x)
        return self.third(x).view(7)


def test_an_error_that_the_model_catches_itself_names_no_layer():
    with pytest.raises(MisfitError, match=r"layer '\(model\)', Forgiving, failed on ") as raised:
        trace_shapes(Forgiving(), (1, 4))
    assert [(layer.name, layer.multiply_adds) for layer in raised.value.trace] == [
        ("first.0", None),
        ("second", 8),
        ("third", 10),
    ]


def test_an_error_before_a_lazy_layer_has_its_size_names_it():
    with pytest.raises(MisfitError) as raised:
        trace_shapes(nn.Sequential(nn.ReLU(), nn.LazyConv2d(4, 3)), (1, 5))
    assert raised.value.layer == "1"


def test_the_error_survives_pickling():
    with pytest.raises(MisfitError) as raised:
        trace_shapes(nn.Linear(3, 2), (1, 4))
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.layer) == (str(raised.value), "(model)")


@pytest.mark.parametrize(
    "norm",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        pytest.param(
            nn.utils.weight_norm, marks=pytest.mark.filterwarnings("ignore::FutureWarning")
        ),
    ],
)
def test_normalised_weights(norm):
    trace = trace_shapes(norm(nn.Linear(4, 5, bias=False)), (1, 4))
    assert trace.multiply_adds == 20
    assert trace[-1].output_shape == (1, 5)


def test_tensors_that_are_no_parameters_and_new_ones():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift, self.linear = torch.ones(4), nn.Linear(4, 2)

        def forward(self, x):
            self.last = self.linear(x - self.shift + torch.arange(4) + torch.rand(4))
            return self.last

    model = Shifted()
    model(torch.ones(1, 4))  # keeps its last result, which has a graph
    last, state = model.last, torch.get_rng_state()
    assert trace_shapes(model, (3, 4))[-1].output_shape == (3, 2)
    assert model.last is last
    assert torch.equal(torch.get_rng_state(), state)


def test_forward_hooks_of_the_model_are_left_out():
    seen = []
    model = nn.Linear(4, 5)
    model.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model.register_forward_hook(lambda module, inputs, output: output[:, :1])
    assert trace_shapes(model, (1, 4))[0] == Layer("(model)", "Linear", (1, 5), 25, 20)
    assert seen == []
    assert len(model._forward_hooks) == 2


def calls_itself_by(how):
    model = nn.Sequential(nn.BatchNorm1d(4))
    own = model[0].forward
    if how == "a function":
        model[0].forward = lambda x: own(x)
    elif how == "a method":
        model[0].forward = MethodType(lambda self, x: own(x), model[0])
    elif how == "an attribute":
        model[0].after = lambda x: model[0].running_mean.add_(1)
        model[0].forward = MethodType(lambda self, x: self.after(x), model[0])
    else:
        model[0].register_forward_pre_hook(lambda self, inputs: (model[0].weight + inputs[0],))
    return model


@pytest.mark.parametrize("how", ["a function", "a method", "an attribute", "a hook"])
def test_a_model_that_would_be_called_itself_is_refused(how):
    model = calls_itself_by(how)
    with pytest.raises(
        ValueError, match="through self, got '0' with a function that uses those of"
    ):
        trace_shapes(model, (3, 4))
    assert model[0].num_batches_tracked == 0
    assert model[0].running_mean.eq(0).all()


def test_a_function_in_place_of_a_forward_that_is_given_the_module():
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6))
    model[0].forward = MethodType(lambda self, x: F.linear(x, self.weight), model[0])
    model[1].own_forward = model[1].forward
    model[1].forward = partial(lambda self, x: self.own_forward(x), model[1])  # like accelerate
    assert trace_shapes(model, (3, 4)).multiply_adds == 3 * 20 + 3 * 30


def test_a_model_that_cannot_be_copied_is_refused():
    model = nn.Linear(3, 2)
    model.lock = threading.Lock()
    with pytest.raises(ValueError, match="expected a model that can be copied, got one with: "):
        trace_shapes(model, (1, 3))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ["(model)", "0"])
@pytest.mark.parametrize(
    "make", [torch.jit.script, partial(torch.jit.trace, example_inputs=torch.ones(1, 3))]
)
def test_a_torchscript_module_is_refused(make, name):
    model = make(nn.Linear(3, 2))
    with pytest.raises(ValueError, match=rf"got a TorchScript module \(of .*'{re.escape(name)}'$"):
        trace_shapes(model if name == "(model)" else nn.Sequential(model), (1, 3))


def test_compiled_models_are_traced_as_what_they_run():
    plain = nn.Sequential(nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), nn.Linear(5, 6))
    rows = list(trace_shapes(plain, (3, 4)))
    compiled = torch.compile(plain, backend="eager")
    assert list(trace_shapes(compiled, (3, 4))) == rows
    assert compiled._orig_mod is plain
    assert compiled(torch.ones(3, 4)).shape == (3, 6)
    assert list(trace_shapes(compiled, (3, 4))) == rows
    plain.compile(backend="eager")
    assert list(trace_shapes(plain, (3, 4))) == rows
    assert plain._compiled_call_impl is not None
    inside = nn.Sequential(torch.compile(plain[0], backend="eager"), plain[1])
    assert list(trace_shapes(inside, (3, 4))) == rows


def test_an_exported_graph_is_left_in_its_mode():
    linear = nn.Sequential(nn.Linear(4, 5), nn.Dropout())
    graph = torch.export.export(linear.eval(), (torch.ones(3, 4),)).module()
    trace = trace_shapes(nn.Sequential(graph), (3, 4))
    assert (trace.multiply_adds, trace.parameters) == (60, 25)
    with pytest.raises(NotImplementedError):
        graph.eval()


def test_a_number_has_the_shape_of_no_axes():
    class Mean(nn.Module):
        def forward(self, x):
            return x.mean()

    assert repr(trace_shapes(Mean(), (2, 3))).splitlines()[1].split() == (
        ["(model)", "Mean", "()", "0", "–"]
    )


@pytest.mark.parametrize("shape", [5, "abc", (1, -2), (1, 2.5), [(1, 2), 3], None, [None]])
def test_what_is_no_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"expected a shape such as \(1, 3, 32, 32\)"):
        trace_shapes(nn.Linear(3, 2), shape)


def test_what_is_no_model_is_refused():
    with pytest.raises(ValueError, match=r"expected a torch\.nn\.Module, got function"):
        trace_shapes(F.relu, (1, 3))


class Between(nn.Module):
    """A convolution, any step, a mean and a linear layer."""

    def __init__(self, step, **attributes):
        super().__init__()
        self.conv, self.linear, self.step = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), step
        vars(self).update(attributes)

    def forward(self, x):
        return self.linear(self.step(self, self.conv(x)).mean((2, 3)))


BETWEEN = [
    Layer("conv", "Conv2d", (1, 4, 6, 6), 112, 4 * 36 * 27),
    Layer("linear", "Linear", (1, 2), 10, 8),
]
NOTE = "Called with numbers: the shapes and costs may depend on them."


class Holder:
    def __init__(self, value):
        self.value = value


def only_on_a_processor(self, x):
    if x.device.type not in ("cpu", "cuda"):
        raise ValueError("expected a tensor of the CPU or of CUDA")
    return x


def says_no(self, x):
    assert x.shape[2] == 6, "six"
    return x


def gives_up(self, x):
    try:
        return x[x == x].view(1, 4, 6, 6)
    except RuntimeError:
        return x.new_zeros(1, 5, 1, 1)


@pytest.mark.parametrize(
    "network",
    [
        Between(lambda self, x: Normalize([0.5] * 4, [0.5] * 4)(x)),
        Between(lambda self, x: x.to(self.device), device=torch.device("cpu")),
        Between(lambda self, x: x / 255 if x.max() > 1 else x),
        Between(lambda self, x: x * x.std().item()),
        Between(lambda self, x: x * x.flatten().tolist()[0]),
        Between(lambda self, x: x[x == x].view(1, 4, 6, 6)),
        Between(lambda self, x: x - self.held.value, held=Holder(torch.ones(4, 1, 1))),
        Between(lambda self, x: x + self.held.value[(x > 9).long()], held=Holder(torch.ones(2))),
        Between(only_on_a_processor),
        Between(gives_up),
    ],
)
def test_a_forward_that_needs_the_numbers_is_called_with_them(network):
    trace = trace_shapes(network, (1, 3, 8, 8))
    assert list(trace) == BETWEEN
    assert trace.with_numbers
    assert trace[:1].with_numbers
    assert repr(trace).splitlines()[-1] == NOTE


endless = [torch.ones(4, 1, 1)]
endless.append(endless)


@pytest.mark.parametrize(
    "network",
    [
        Between(lambda self, x: x - self.means[0], means=endless),
        Between(lambda self, x: x - self.means["of"][0], means={"of": (torch.ones(4, 1, 1),)}),
    ],
)
def test_tensors_in_lists_and_dicts_need_no_numbers(network):
    trace = trace_shapes(network, (1, 3, 8, 8))
    assert list(trace) == BETWEEN
    assert not trace.with_numbers
    assert NOTE not in repr(trace)


def test_the_numbers_of_a_tensor_are_used_and_others_are_random():
    class Largest(nn.Module):
        def forward(self, x):
            return x.new_zeros(int(x.max() * 1000), 2)

    assert one(Largest(), 2, 3) == one(Largest(), 2, 3)
    assert 0 < one(Largest(), 2, 3).output_shape[0] < 1000
    assert trace_shapes(Largest(), torch.tensor([1, 7]))[0].output_shape == (7000, 2)
    assert trace_shapes(Largest(), torch.empty(2, device="meta"))[0] == one(Largest(), 2)


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation:UserWarning")
def test_quantised_layers():
    model = nn.Sequential(torch.ao.nn.quantized.dynamic.Linear(4, 5), nn.Linear(5, 6))
    trace = trace_shapes(model, (2, 4))
    assert trace.with_numbers
    assert trace[0] == Layer("0", "Linear", (2, 5), 0, None, ("quantized.linear_dynamic",))
    assert trace[1].multiply_adds == 60
    with pytest.raises(MisfitError, match=r"needs the numbers; called with numbers, layer '0', "):
        trace_shapes(model, (2, 3))


def test_a_detector_and_a_list_of_pictures_as_one_input():
    body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.ReLU())
    body.out_channels = 8
    anchors = AnchorGenerator(sizes=((16,),), aspect_ratios=((1.0,),))
    detector = FasterRCNN(body, 2, rpn_anchor_generator=anchors, min_size=64, max_size=80)
    pictures = [torch.rand(3, 64, 80), torch.rand(3, 80, 64)]
    trace = trace_shapes(detector, [pictures])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        detector.eval()(pictures)
    assert 2 * without_pooling(detector, trace) == counter.get_total_flops()
    assert trace.with_numbers
    assert {name for row in trace for name in row.uncounted} >= {"torchvision.roi_align"}
    shapes = trace_shapes(detector, [[(3, 64, 80), (3, 80, 64)]])
    assert shapes[1] == trace[1]


def without_pooling(model, trace):
    rows = [row for row in trace if row.name != NOT_CALLED]
    return sum(
        row.multiply_adds or 0
        for row in rows
        if not isinstance(model.get_submodule(row.name.replace("(model)", "")), POOLINGS)
    )


class Unchanged(nn.Module):
    """Would change in every way that a forward can change a module."""

    def __init__(self):
        super().__init__()
        self.norm, self.lazy = nn.BatchNorm1d(4), nn.LazyLinear(3)
        self.register_buffer("calls", torch.zeros(()))
        self.seen = []

    def forward(self, x):
        self.calls += 1
        self.seen.append(x)
        self.norm.running_mean.add_(torch.rand(4))
        return self.lazy(self.norm(x)) if x.max() < 9 else x


@pytest.mark.parametrize("shape", [(2, 4), (2, 5)])
def test_a_model_called_with_numbers_is_left_as_it_was(shape):
    model, state = Unchanged(), torch.get_rng_state()
    if shape == (2, 4):
        trace = trace_shapes(model, shape)
        assert trace[1] == Layer("lazy", "Linear", (2, 3), 15, 24)
        assert trace.with_numbers
    else:
        with pytest.raises(MisfitError):
            trace_shapes(model, shape)
    assert model.training
    assert model.calls == 0
    assert model.seen == []
    assert model.norm.running_mean.eq(0).all()
    assert torch.nn.parameter.is_lazy(model.lazy.weight)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.mha.get_fastpath_enabled()
    assert not any(m._forward_hooks or m.training is False for m in model.modules())


def test_a_misfit_that_pytorch_tells_needs_no_copy_with_numbers():
    devices = []

    class Seen(nn.Identity):
        def forward(self, x):
            devices.append(x.device.type)
            return x

    with pytest.raises(MisfitError, match=r"^expected an input that fits, but layer '1', Conv2d"):
        trace_shapes(nn.Sequential(Seen(), nn.Conv2d(4, 8, 3)), (1, 3, 8, 8))
    assert devices == ["meta"]


def test_misfits_of_models_that_need_the_numbers_or_say_no_themselves():
    normalised = nn.Sequential(Normalize([0.5], [0.5]), nn.Conv2d(4, 8, 3))
    with pytest.raises(
        MisfitError,
        match=r"^this forward needs the numbers; called with numbers, layer '1', Conv2d\(4, 8, .*"
        r"\), failed on shape \(1, 3, 8, 8\): .*channels",
    ) as raised:
        trace_shapes(normalised, (1, 3, 8, 8))
    assert raised.value.layer == "1"
    assert [row.name for row in raised.value.trace] == ["0"]
    particular = Between(says_no)
    with pytest.raises(
        MisfitError, match=r"^expected an input that fits, but layer '\(model\)', Between, .*: six"
    ):
        trace_shapes(particular, (1, 3, 9, 9))


def test_a_model_that_needs_numbers_and_has_none_is_refused():
    network = Between(lambda self, x: x / 255 if x.max() > 1 else x).to("meta")
    with pytest.raises(
        ValueError, match=r"^this forward needs the numbers of its input or"
    ) as raised:
        trace_shapes(network, (1, 3, 8, 8))
    assert not isinstance(raised.value, MisfitError)
    with pytest.raises(MisfitError, match="layer 'conv'"):
        trace_shapes(network, (1, 4, 8, 8))


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("swin_t", 64, {}),
        ("vit_b_32", 224, {}),
        ("googlenet", 64, {"init_weights": False}),
        ("deeplabv3_mobilenet_v3_large", 64, {"weights_backbone": None}),
    ],
)
def test_whole_networks_against_pytorchs_counter(name, size, options):
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None, **options).eval()
        inputs = torch.empty(1, 3, size, size)
    with FlopCounterMode(display=False) as counter:
        model(inputs)
    trace = trace_shapes(model, inputs)
    assert 2 * without_pooling(model, trace) == counter.get_total_flops()
    assert trace.parameters == sum(p.numel() for p in model.parameters())
    assert not trace.at_least


class Peeks(nn.Module):
    def __init__(self, inside, looks):
        super().__init__()
        self.inside, self.looks = inside, looks

    def forward(self, x):
        if self.looks and x.max() > 9:
            return x
        several = isinstance(self.inside, nn.MultiheadAttention)
        return self.inside(x, x, x) if several else self.inside(x)


class Dot(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x[None], x[None], x[None])


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize(
    "inside",
    [
        nn.MultiheadAttention(8, 2, batch_first=True),
        nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
        nn.LSTM(8, 5, num_layers=2, bidirectional=True),
        nn.GRU(8, 5),
        Dot(),
    ],
)
def test_the_same_is_counted_with_numbers(inside, gradients):
    with torch.set_grad_enabled(gradients):
        plain = trace_shapes(Peeks(inside, False), (2, 3, 8))
        looked = trace_shapes(Peeks(inside, True), (2, 3, 8))
    assert (plain.with_numbers, looked.with_numbers) == (False, True)
    assert list(looked) == list(plain)
    assert plain.multiply_adds > 0
    assert not looked.at_least


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")
@pytest.mark.parametrize("looks", [False, True])
def test_nested_tensors_take_the_work_of_what_is_in_them(looks):
    class Nests(nn.Module):
        def forward(self, x):
            return torch.nested.nested_tensor([x[0], x[1, :2]], layout=torch.jagged)

    class Joins(nn.Module):
        def forward(self, x):
            return x.values()

    model = Peeks(nn.Sequential(Nests(), nn.Linear(4, 2), Joins()), looks)
    assert trace_shapes(model, (2, 3, 4)).multiply_adds == 5 * 4 * 2


def test_the_work_of_recurrent_layers_by_hand():
    assert one(nn.LSTM(4, 5), 7, 2, 4).multiply_adds == 7 * 2 * 4 * 5 * (4 + 5)
    assert one(nn.GRU(4, 5), 7, 2, 4).multiply_adds == 7 * 2 * 3 * 5 * (4 + 5)


def test_work_between_modules_is_in_the_row_of_the_module_around_it():
    class Gram(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 6)

        def forward(self, x):
            x = self.linear(x)
            return torch.einsum("bij,bkj->bik", x, x)

    assert list(trace_shapes(nn.Sequential(Gram()), (2, 3, 4))) == [
        Layer("0.linear", "Linear", (2, 3, 6), 30, 2 * 3 * 4 * 6),
        Layer("0", "Gram", (2, 3, 3), 0, 2 * 3 * 3 * 6),
    ]


def in_numpy(x):
    return torch.from_numpy(x.numpy() @ x.numpy().T)


@pytest.mark.parametrize(
    ("work", "name"),
    [
        (lambda x: torch.mv(x, x[0]), "aten.mv"),
        (lambda x: torch.fft.rfft(x), "aten._fft_r2c"),
        (lambda x: torch.linalg.qr(x)[0], "aten.linalg_qr"),
        (lambda x: torch.cdist(x, x), "aten._cdist_forward"),
        (lambda x: F.bilinear(x, x, x.expand(2, 4, 4)), "aten._trilinear"),
        (
            lambda x: torchvision.ops.deform_conv2d(
                x.view(1, 1, 4, 4), x.new_zeros(1, 2, 4, 4), x.new_ones(1, 1, 1, 1)
            ),
            "torchvision.deform_conv2d",
        ),
        (in_numpy, "numpy"),
    ],
)
def test_work_that_is_not_known_is_named_and_the_total_says_at_least(work, name):
    class Worker(nn.Module):
        def forward(self, x):
            return work(x)

    trace = trace_shapes(nn.Sequential(nn.Linear(4, 4), Worker()), (4, 4))
    assert [row.uncounted for row in trace] == [(), (name,)]
    assert (trace.multiply_adds, trace.at_least, trace[:1].at_least) == (64, True, False)
    lines = repr(trace).splitlines()
    assert lines[2].endswith("at least 0")
    assert lines[3].endswith("at least 64")


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
def test_a_model_that_runs_and_cannot_be_watched_is_not_told_that_its_input_does_not_fit():
    class Flexible(nn.Module):
        def forward(self, x):
            return flex_attention(x, x, x)

    with pytest.raises(
        ValueError, match=r"can be watched, got one that runs and cannot: "
    ) as raised:
        trace_shapes(Flexible(), (1, 2, 16, 16))
    assert not isinstance(raised.value, MisfitError)


def test_what_multiplies_no_matrices_is_no_work():
    class Shapes(nn.Module):
        def forward(self, x):
            x = torch.lgamma(x.cummax(0)[0]) + torch.linalg.vector_norm(x) + torch.hamming_window(4)
            return F.interpolate(x.view(1, 1, 4, 4), scale_factor=2, mode="bilinear")

    assert one(Shapes(), 4, 4) == Layer("(model)", "Shapes", (1, 1, 8, 8), 0, None)
