"""The checks of lesson 08: find the GAP, tap its features, average patches, write a head, count."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gap_utils.checks.calling import AnswerError, Feedback, call_answer, exercise
from gap_utils.checks.grading import grade, gradients_of, random_features

# network -> where its GAP is, and why
LOCATIONS = {
    "efficientnet_b0": ("avgpool", "the layer avgpool averages the maps of `features`"),
    "mobilenet_v2": ("forward", "no layer pools; forward calls adaptive_avg_pool2d between "
                                "features and classifier"),
    "alexnet": ("none", "avgpool makes 6×6 positions, which forward puts side by side: each has "
                        "weights of its own"),
}  # fmt: skip


@exercise
def check_gap_locations(answer: Callable) -> Feedback:
    """Check exercise 1: where three networks pool."""
    value = call_answer(answer)
    if not isinstance(value, dict) or set(value) != set(LOCATIONS):
        raise AnswerError(f"Expected a dict with the keys {', '.join(LOCATIONS)}, got {value!r}.")
    said = {name: str(place).strip() for name, place in value.items()}
    lines = [
        f"{name} is not {said[name]!r}: {why}."
        for name, (place, why) in LOCATIONS.items()
        if said[name].lower() not in (place, "_forward_impl" if place == "forward" else place)
    ]
    if lines:
        raise AnswerError("\n".join(["Not so:", *lines]))
    whys = "; ".join(f"{name}: {why}" for name, (_, why) in LOCATIONS.items())
    return Feedback(True, f"✓ Right: {whys}")


@exercise
def check_features_of(answer: Callable) -> Feedback:
    """Check exercise 2: the features of an NFNet, with the activation."""
    import timm

    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        model = timm.create_model("test_nfnet").eval().float().requires_grad_(False)
    model.final_act.register_forward_hook(lambda *_: None)  # somebody else's, which must stay
    other = deepcopy(model)
    other.final_act = nn.Tanh()

    def without_activation(model: nn.Module, images: Tensor) -> Tensor:
        return model.final_conv(model.stages(model.stem(images)))

    return grade(
        answer,
        lambda model, images: model.forward_features(images),
        "the features that the head pools, with the activation",
        without_activation,
        "These are the numbers before final_act. The network goes on with what comes out of it.",
        lambda model, images: without_activation(model, images).relu(),
        "The activation of this network is no ReLU. Call its own final_act.",
        lambda model, images: F.silu(without_activation(model, images)),
        "That is right where the activation is a SiLU. Other networks have others: call the "
        "network's own final_act.",
        lambda model, images: model.stages(model.stem(images)),
        "final_conv and final_act are missing: the head pools what comes after them.",
        lambda model, images: model.forward_features(images).mean((2, 3)),
        "That is pooled already. Return the maps before the pooling.",
        lambda model, images: model(images),
        "These are the logits. Return the maps before the pooling.",
        cases=[
            (model, random_features(1, 3, 64, 64)),
            (model, random_features(2, 3, 64, 48)),
            (other, random_features(1, 3, 32, 64)),
        ],
    )


@exercise
def check_mean_of_patches(answer: Callable) -> Feedback:
    """Check exercise 3: the mean of a ViT's patch tokens."""
    return grade(
        answer,
        lambda tokens, prefix: tokens[:, prefix:].mean(1),
        "the mean of the patch tokens, a number for each channel",
        lambda tokens, prefix: tokens.mean(1),
        "The tokens in front are in the mean too. They are no places of the picture: leave the "
        "first `prefix` of them out.",
        lambda tokens, prefix: tokens[:, 1:].mean(1),
        "That leaves one token out, always. Leave out as many as `prefix` says; there may be none, "
        "or several.",
        lambda tokens, prefix: tokens[:, prefix:].mean(2),
        "That is the mean over the channels of each token. The tokens are on axis 1.",
        lambda tokens, prefix: tokens[:, prefix:].mean((2, 3)),
        "Tokens have three axes, (N, L, C): no height and width. Average over axis 1.",
        lambda tokens, prefix: tokens[:, prefix:].sum(1) / tokens.shape[1],
        "The sum is right, but it is divided by the number of all tokens.",
        lambda tokens, prefix: tokens[:, prefix:].mean((1, 2)),
        "That is one number for a picture. Keep the channels: axis 1 alone.",
        lambda tokens, prefix: tokens[:, 0],
        "That is the first token. The mean of the patch tokens is wanted.",
        lambda tokens, prefix: tokens[prefix:].mean(1),
        "That leaves out the first pictures. The tokens are on axis 1: tokens[:, prefix:].",
        lambda tokens, prefix: tokens[..., prefix:].mean(1),
        "That leaves out the first channels. The tokens are on axis 1: tokens[:, prefix:].",
        lambda tokens, prefix: tokens[:, prefix:].sum(1),
        "That is the sum. Divide it by the number of patch tokens.",
        lambda tokens, prefix: tokens[:, prefix:].amax(1),
        "That is the maximum of each channel, not the mean.",
        lambda tokens, prefix: tokens[:, prefix:].mean(1, keepdim=True),
        "The numbers are right, but an axis of length 1 is left: no keepdim.",
        cases=[
            (torch.tensor([[[9.0, 9.0], [1.0, 2.0], [3.0, 6.0]]]), 1),
            (random_features(2, 197, 8), 1),
            (random_features(3, 14, 5), 5),
            (random_features(2, 16, 6), 0),
            (random_features(4, 3, 9), 1),
            (random_features(2, 5, 1), 2),
        ],
        gradients=True,
    )


@exercise
def check_new_head(answer: Callable) -> Feedback:
    """Check exercise 4: GAP, BatchNorm and a linear layer."""
    parameters = []
    for channels, classes in ((8, 3), (5, 2)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            head = call_answer(answer, channels, classes)
        if not isinstance(head, nn.Module):
            raise AnswerError(f"Expected an nn.Module, got {head!r}.")
        head = head.to("cpu", torch.float32)  # under any default device and kind of numbers
        _grade_head(head, channels, classes)
        parameters.append(sum(p.numel() for p in head.parameters()))
    return Feedback(
        True,
        "✓ Right: maps of any size, GAP, BatchNorm and 3 logits; "
        f"{parameters[0]} parameters for 8 channels and 3 classes.",
    )


def _grade_head(head: nn.Module, channels: int, classes: int) -> None:
    """Raise AnswerError where a head is not right."""
    maps = random_features(4, channels, 5, 7) + 1
    _run_head(head, maps)  # layers that wait for their first input get their sizes
    norm, linear = _layers_of(head)
    sizes = norm.num_features, linear.in_features, linear.out_features
    if sizes != (channels, channels, classes):
        raise AnswerError(
            f"For {channels} channels and {classes} classes, GAP gives {channels} numbers, "
            f"BatchNorm keeps them and the linear layer makes {classes}. Got a BatchNorm of "
            "{} and a linear layer from {} to {}.".format(*sizes)
        )
    if not all(layer.training for layer in head.modules()):
        raise AnswerError(
            "The head comes in evaluation mode, in which BatchNorm learns nothing about its "
            "numbers. Leave .eval() to those who use the trained head."
        )
    low = {"weight": 0.5, "bias": -1, "running_mean": 0, "running_var": 1}
    with torch.no_grad():
        for name, numbers in norm.state_dict().items():
            if name in low:  # as if trained, so that the order of the layers shows
                numbers.copy_(torch.linspace(low[name], low[name] + 2, len(numbers)))
        for size in ((5, 7), (1, 1), (9, 4)):
            resized = F.interpolate(maps, size=size)
            _compare_logits(head.train(), norm, linear, resized, "training")
            _compare_logits(head.eval(), norm, linear, resized[:1], "evaluation, one picture")
    _refuse_what_cannot_learn(head.train(), norm, maps)


def _run_head(head: nn.Module, maps: Tensor, mode: str = "") -> Any:
    try:
        with torch.random.fork_rng(devices=[]):
            return head(maps)
    except Exception as error:  # whatever a learner's code raises becomes a sentence
        raised = f"{type(error).__name__}: {error}"
        if "got 4D input" in raised and not mode:
            raised += "\nBehind nn.AdaptiveAvgPool2d(1) the shape is (N, C, 1, 1): flatten it."
        raise AnswerError(f"On maps {tuple(maps.shape)}{mode} your head raised {raised}") from None


def _layers_of(head: nn.Module) -> tuple[_BatchNorm, nn.Linear]:
    if any(isinstance(layer, nn.modules.dropout._DropoutNd) for layer in head.modules()):
        raise AnswerError("Expected GAP, BatchNorm and a linear layer, got a Dropout too.")
    layers = []
    for kind, name in ((_BatchNorm, "BatchNorm"), (nn.Linear, "linear layer")):
        found = [layer for layer in head.modules() if isinstance(layer, kind)]
        if len(found) != 1:
            raise AnswerError(f"Expected one {name}, got {len(found)}.")
        layers += found
    return tuple(layers)


def _compare_logits(
    head: nn.Module, norm: _BatchNorm, linear: nn.Linear, maps: Tensor, mode: str
) -> None:
    """Compare a head's logits with the right ones, and with those of known mistakes."""

    def normalise(x: Tensor) -> Tensor:
        own = deepcopy(norm)  # training changes its running mean
        training = norm.training or own.running_mean is None
        return F.batch_norm(
            x, own.running_mean, own.running_var, own.weight, own.bias, training, eps=norm.eps
        )

    given = _run_head(deepcopy(head), maps, f" ({mode}):")
    where = f"On maps {tuple(maps.shape)} ({mode}):"
    if not isinstance(given, Tensor) or given.shape != (len(maps), linear.out_features):
        got = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise AnswerError(f"{where} expected logits {(len(maps), linear.out_features)}, got {got}")
    mean, largest = maps.mean((2, 3)), maps.amax((2, 3))
    right, are_equal = linear(normalise(mean)), partial(torch.allclose, rtol=1e-5, atol=1e-5)
    if are_equal(given, right):
        return
    softmax = "Softmax does not belong here: the loss makes it of the logits (lesson 04)."
    early = "BatchNorm comes before GAP here. It is wanted behind it: BatchNorm1d."
    for logits, sentence in (
        (linear(normalise(largest)), "That is the maximum of each map. GAP takes the mean."),
        (linear(normalise(maps).mean((2, 3))), early),
        (linear(mean), "The BatchNorm is there, but nothing goes through it."),
        (right.softmax(1), softmax),
        (right.relu(), "A ReLU cuts the logits off at 0."),
        (right.sigmoid(), "A sigmoid does not belong here: the loss wants logits (lesson 04)."),
        (linear(normalise(mean).relu()), "There is a ReLU in front of the linear layer."),
    ):
        if are_equal(given, logits):
            raise AnswerError(f"{where} the logits are others. {sentence}")
    raise AnswerError(f"{where} the logits are others.")


def _refuse_what_cannot_learn(head: nn.Module, norm: _BatchNorm, maps: Tensor) -> None:
    """Raise AnswerError where a part of a head whose logits are right learns nothing."""
    frozen = [name for name, parameter in head.named_parameters() if not parameter.requires_grad]
    if frozen:
        raise AnswerError(
            f"The logits are right, but {', '.join(frozen)} can never learn: requires_grad is "
            "False. It is the backbone that is frozen, and this is the head to be trained."
        )
    found = gradients_of(lambda maps, head: head(maps), (maps, head), ["the maps", "head"])
    without = [name.removeprefix("head.") for name, gradient in found.items() if gradient is None]
    if without:
        raise AnswerError(
            f"The logits are right, but no gradient reaches {', '.join(without)}. Is there a "
            ".detach(), .data or no_grad() in forward?"
        )
    before = norm.running_mean.clone()
    head(maps)
    if torch.equal(norm.running_mean, before):
        raise AnswerError(
            "The logits are right, but the running mean of BatchNorm stays as it is in training, "
            "and evaluation goes by it. Leave its momentum alone, and call the layer itself."
        )


@exercise
def check_single_batches(answer: Callable) -> Feedback:
    """Check exercise 5: how many batches of an epoch BatchNorm refuses."""
    return grade(
        answer,
        lambda pictures, size: pictures if size == 1 else int(pictures % size == 1),
        "a batch of one picture is refused, and only the last can be one, or all are",
        lambda pictures, size: 0,
        "In training BatchNorm takes a standard deviation, and behind GAP one picture has one "
        "number for each channel. So a batch of one picture is refused.",
        lambda pictures, size: pictures % size,
        "That is how many pictures the last batch has, or 0 if it is full. It is refused if it "
        "has one.",
        lambda pictures, size: int(pictures % size > 0),
        "A last batch that is smaller is fine while it has two pictures or more.",
        lambda pictures, size: int(pictures % size == 1),
        "If each batch has one picture, each is refused.",
        lambda pictures, size: pictures if size == 1 else 0,
        "The last batch may have one picture too, the one that is left over.",
        lambda pictures, size: pictures // size,
        "Those are the full batches. Look at the last one, where one picture may be left over.",
        cases=[(5, 2), (4, 2), (5, 3), (3, 1), (65, 64), (1, 8), (1000, 100), (7, 4)],
    )
