"""The checks of lesson 08 that ask for names or for a module."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gap_utils import checks
from gap_utils.backbones import find_pooling, load_backbone

LOCATIONS = {
    "efficientnet_b0": "avgpool",
    "mobilenet_v2": "forward",
    "alexnet": "none",
}


def raise_not_implemented(*arguments):
    raise NotImplementedError


@pytest.mark.parametrize("check", [checks.check_gap_locations, checks.check_new_head])
def test_no_answer_is_no_mistake_and_no_function_is_one(check):
    assert repr(check(raise_not_implemented)) == "not attempted yet"
    assert "needs your function itself, got a str" in check("avgpool").message
    assert "raised ZeroDivisionError" in check(lambda *a: 1 / 0).message
    assert "returned None" in check(lambda *a: None).message


@pytest.mark.parametrize("value", [0, "", [], {}, {"alexnet": "none"}, float("nan"), object()])
def test_whatever_comes_back_gets_a_sentence(value):
    for check in (checks.check_gap_locations, checks.check_new_head):
        feedback = check(lambda *a: value)
        assert not feedback.passed
        assert feedback.message.startswith("✗ Expected ")


def test_the_places_of_the_pooling():
    feedback = checks.check_gap_locations(lambda: LOCATIONS)
    assert feedback.passed
    assert feedback.message.startswith("✓ Right: ")
    assert checks.check_gap_locations(lambda: LOCATIONS | {"alexnet": "None"}).passed
    assert checks.check_gap_locations(lambda: LOCATIONS | {"mobilenet_v2": "_forward_impl"}).passed
    for name, place in LOCATIONS.items():
        for other in {*LOCATIONS.values(), "features", ""} - {place}:
            feedback = checks.check_gap_locations(lambda n=name, o=other: LOCATIONS | {n: o})
            assert not feedback.passed
            assert f"{name} is not {other!r}: " in feedback.message
            assert feedback.message.count(" is not ") == 1


@pytest.mark.slow
def test_the_places_are_what_the_networks_do():
    for name, place in LOCATIONS.items():
        pooling = find_pooling(load_backbone(name, weights="random").model)
        found = (pooling.module or "forward") if pooling.kind == "mean" else "none"
        assert found == place


class Head(nn.Module):
    """Parts of a head in an order to be given; `pick` takes the layers by name."""

    def __init__(self, channels, classes, *order):
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(channels), nn.Linear(channels, classes)
        self.order = order

    def forward(self, x):
        for step in self.order:
            x = getattr(self, step)(x) if isinstance(step, str) else step(x)
        return x


def head(*order):
    return lambda channels, classes: Head(channels, classes, *order)


def mean(x):
    return x.mean((2, 3))


def behind(*layers):
    """GAP, BatchNorm and a linear layer, and more."""
    return lambda c, k: nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(c), nn.Linear(c, k), *layers
    )


@pytest.mark.parametrize(
    "answer",
    [
        behind(),
        head(mean, "norm", "linear"),
        lambda c, k: nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(c), nn.Flatten(), nn.Linear(c, k)
        ),
        lambda c, k: nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyBatchNorm1d(), nn.LazyLinear(k)
        ),
        lambda c, k: nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.BatchNorm1d(c, affine=False),
            nn.Linear(c, k, bias=False),
        ),
    ],
)
def test_right_heads_pass(answer):
    random_state = torch.get_rng_state()
    feedback = checks.check_new_head(answer)
    assert feedback.passed, feedback
    assert feedback.message.startswith("✓ Right: ")
    assert torch.equal(torch.get_rng_state(), random_state)


def with_frozen_norm(channels, classes):
    frozen = behind()(channels, classes)
    frozen[2].requires_grad_(False)
    return frozen


class Forgetful(Head):
    """Normalises the pooled numbers in training, and remembers nothing for evaluation."""

    def forward(self, x):
        x, norm = mean(x), self.norm
        if self.training:
            x = F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)
        return self.linear(x if self.training else norm(x))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (head(lambda x: x.amax((2, 3)), "norm", "linear"), "That is the maximum of each map"),
        (head(mean, "linear"), "nothing goes through it"),
        (head(mean, "norm", torch.relu, "linear"), "a ReLU in front of the linear layer"),
        (head(lambda x: x.mean((2, 3)).squeeze(), "norm", "linear"), "one picture): your head"),
        (head(lambda x: x.mean((1, 2)), "norm", "linear"), "your head raised"),
        (head(mean, "norm", "linear", lambda x: x[:, None]), "expected logits (4, 3), got"),
        (head(mean, "norm", "linear", lambda x: x * 2), "the logits are others."),
        (head(mean, "norm", "linear", lambda x: x * 1.001), "the logits are others."),
        (head(lambda x: x.half().float(), mean, "norm", "linear"), "the logits are others."),
        (behind(nn.Softmax(1)), "Softmax does not belong here"),
        (behind(nn.Sigmoid()), "A sigmoid does not belong here"),
        (behind(nn.ReLU()), "A ReLU cuts the logits off at 0"),
        (
            lambda c, k: nn.Sequential(
                nn.BatchNorm2d(c), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, k)
            ),
            "BatchNorm comes before GAP here",
        ),
        (
            lambda c, k: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, k)),
            "Expected one BatchNorm, got 0",
        ),
        (
            lambda c, k: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(c)),
            "Expected one linear layer, got 0",
        ),
        (
            lambda c, k: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(35 * c), nn.Linear(35 * c, k)),
            "Got a BatchNorm of 280 and a linear layer from 280 to 3",
        ),
        (behind(nn.Linear(3, 3)), "Expected one linear layer, got 2"),
        (behind(nn.Dropout()), "got a Dropout too"),
        (
            lambda c, k: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm1d(c), nn.Linear(c, k)),
            "the shape is (N, C, 1, 1): flatten it",
        ),
        (
            lambda c, k: nn.Sequential(
                nn.AvgPool2d((5, 7)), nn.Flatten(), nn.BatchNorm1d(c), nn.Linear(c, k)
            ),
            "On maps (4, 8, 1, 1) (training): your head raised",
        ),
        (
            lambda c, k: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(k)),
            "On maps (4, 8, 5, 7) your head raised",
        ),
        (lambda c, k: behind()(8, 3), "On maps (4, 5, 5, 7) your head raised"),
        (
            lambda c, k: behind()(c, 3),
            "For 5 channels and 2 classes, GAP gives 5 numbers, BatchNorm keeps them and the "
            "linear layer makes 2. Got a BatchNorm of 5 and a linear layer from 5 to 3.",
        ),
        (lambda c, k: behind()(c, k).eval(), "The head comes in evaluation mode"),
        (
            lambda c, k: behind()(c, k).requires_grad_(False),
            "The logits are right, but 2.weight, 2.bias, 3.weight, 3.bias can never learn",
        ),
        (Forgetful, "the running mean of BatchNorm stays as it is in training"),
        (with_frozen_norm, "The logits are right, but 2.weight, 2.bias can never learn"),
        (head(torch.detach, mean, "norm", "linear"), "but no gradient reaches the maps. Is there"),
        (head(mean, torch.detach, "norm", "linear"), "but no gradient reaches the maps. Is there"),
        (
            head(mean, "norm", torch.detach, "linear"),
            "but no gradient reaches the maps, norm.weight, norm.bias.",
        ),
        (
            head(mean, "norm", "linear", torch.detach),
            "no gradient reaches the maps, norm.weight, norm.bias, linear.weight, linear.bias.",
        ),
    ],
)
def test_wrong_heads_are_named(answer, said):
    feedback = checks.check_new_head(answer)
    assert not feedback.passed
    assert said in feedback.message


def test_a_head_is_right_inside_no_grad_too():
    with torch.no_grad():
        assert checks.check_new_head(behind()).passed


def keep_the_last(model, images, remove=True):
    kept = []
    handle = model.final_act.register_forward_hook(lambda _, inputs, given: kept.append(given))
    model(images)
    if remove:
        handle.remove()
    return kept[0]


def test_features_are_tapped_without_a_trace_and_with_the_network_s_own_activation():
    assert checks.check_features_of(keep_the_last).passed
    message = checks.check_features_of(partial(keep_the_last, remove=False)).message
    assert "the result is right, but your function changed its input: your hook stays" in message

    def clear(model, images):
        features = keep_the_last(model, images)
        model.final_act._forward_hooks.clear()
        return features

    assert "a hook is gone that was not yours" in checks.check_features_of(clear).message

    def silu(model, images):
        return nn.functional.silu(model.final_conv(model.stages(model.stem(images))))

    assert "right where the activation is a SiLU" in checks.check_features_of(silu).message

    def without_head(model, images):
        model.reset_classifier(0, "")
        return model(images)

    assert "its layers are others" in checks.check_features_of(without_head).message
