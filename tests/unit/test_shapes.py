import pickle
import threading

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gap_utils.shapes import NOT_CALLED, Layer, MisfitError, trace_shapes


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
    assert [row.parameters for row in trace if row.kind == "MultiheadAttention"] == [3 * 8 * 9]
    assert trace[-1] == Layer(NOT_CALLED, "", None, 8 * 9, None)  # the output projection


@settings(max_examples=60, deadline=None)
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


@settings(max_examples=100, deadline=None)
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


def test_a_model_that_would_be_called_itself_is_refused():
    model = nn.Sequential(nn.BatchNorm1d(4))
    own = model[0].forward
    model[0].forward = lambda x: own(x)
    with pytest.raises(ValueError, match="the forward of their class, got '0' with a function"):
        trace_shapes(model, (3, 4))
    assert model[0].num_batches_tracked == 0


def test_a_model_that_cannot_be_copied_is_refused():
    model = nn.Linear(3, 2)
    model.lock = threading.Lock()
    with pytest.raises(ValueError, match="expected a model that can be copied, got one with: "):
        trace_shapes(model, (1, 3))
    with pytest.raises(ValueError, match="got a TorchScript module"):
        trace_shapes(torch.jit.ScriptModule(), (1, 3))


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
