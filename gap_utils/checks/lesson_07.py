"""The checks of lesson 07: find the GAP, tap its features, average patches, write a head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gap_utils.checks.calling import Feedback, call_answer, exercise, listen
from gap_utils.checks.grading import grade, random_features

# network -> where its GAP is, and why
LOCATIONS = {
    "efficientnet_b0": ("avgpool", "the layer avgpool averages the maps of `features`"),
    "maxvit_t": ("classifier.0", "GAP is the first layer of the classifier; its full name is "
                                 "classifier.0"),
    "mobilenet_v2": ("forward", "no layer pools; forward calls adaptive_avg_pool2d between "
                                "features and classifier"),
    "alexnet": ("none", "avgpool makes 6×6 positions, which forward puts side by side: each has "
                        "weights of its own"),
}  # fmt: skip


@exercise
def check_gap_locations(answer: Callable) -> Feedback:
    """Check exercise 1: where four networks pool."""
    problem, value = call_answer(answer)
    if problem:
        return problem
    if not isinstance(value, dict) or set(value) != set(LOCATIONS):
        return Feedback(
            False, f"✗ Expected a dict with the keys {', '.join(LOCATIONS)}, got {value!r}."
        )
    said = {name: str(place).strip() for name, place in value.items()}
    lines = [
        f"{name}: not {said[name]!r}; {why}."
        for name, (place, why) in LOCATIONS.items()
        if said[name].lower() not in (place, "_forward_impl" if place == "forward" else place)
    ]
    if lines:
        return Feedback(False, "\n".join(["✗ Not so:", *lines]))
    whys = "; ".join(f"{name}: {why}" for name, (_, why) in LOCATIONS.items())
    return Feedback(True, f"✓ Right: {whys}")


@exercise
def check_feature_side(answer: Callable) -> Feedback:
    """Check exercise 2: how long the sides of the last maps are."""

    def halve(size: int) -> int:
        for _ in range(5):
            size = ceil(size / 2)
        return size

    return grade(
        answer,
        right="five halvings, each rounded up; 320 gives 10",
        reference=halve,
        cases=[(320,), (400,), (33,), (1,), (223,), (352,)],
        mistakes=[
            (lambda size: size // 32, "Each halving rounds up: 25 becomes 13. // rounds down."),
            (lambda size: round(size / 32), "Each halving rounds up, what is below .5 too."),
            (lambda size: size / 32, "A side is a whole number: each halving rounds up."),
            (lambda size: ceil(size / 16), "That is four halvings. There are five."),
            (lambda size: size // 32 + 1, "320 is 10 times 32: there is nothing to round up."),
        ],
    )


@exercise
def check_features_of(answer: Callable) -> Feedback:
    """Check exercise 3: the features of an NFNet, with the activation."""
    import timm

    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        model = timm.create_model("test_nfnet").eval().float().requires_grad_(False)
    model.final_act.register_forward_hook(listen)
    other = deepcopy(model)
    other.final_act = nn.Tanh()

    def without_activation(model: nn.Module, images: Tensor) -> Tensor:
        return model.final_conv(model.stages(model.stem(images)))

    return grade(
        answer,
        right="the features that the head pools, with the activation",
        reference=lambda model, images: model.forward_features(images),
        cases=[
            (model, random_features(1, 3, 64, 64)),
            (model, random_features(2, 3, 64, 48)),
            (other, random_features(1, 3, 32, 64)),
        ],
        sums=True,
        mistakes=[
            (
                without_activation,
                "These are the numbers before final_act. The network goes on with what comes out "
                "of it.",
            ),
            (
                lambda model, images: without_activation(model, images).relu(),
                "The activation of this network is no ReLU. Call its own final_act.",
            ),
            (
                lambda model, images: F.silu(without_activation(model, images)),
                "That is right where the activation is a SiLU. Other networks have others: call "
                "the network's own final_act.",
            ),
            (
                lambda model, images: model.stages(model.stem(images)),
                "final_conv and final_act are missing: the head pools what comes after them.",
            ),
            (
                lambda model, images: model.forward_features(images).mean((2, 3)),
                "That is pooled already. Return the maps before the pooling.",
            ),
            (
                lambda model, images: model(images),
                "These are the logits. Return the maps before the pooling.",
            ),
        ],
    )


@exercise
def check_mean_of_patches(answer: Callable) -> Feedback:
    """Check exercise 4: the mean of a ViT's patch tokens."""

    def mean(tokens: Tensor, prefix: int) -> Tensor:
        return tokens[:, prefix:].mean(1)

    return grade(
        answer,
        right="the mean of the patch tokens, a number for each channel",
        reference=mean,
        cases=[
            (torch.tensor([[[9.0, 9.0], [1.0, 2.0], [3.0, 6.0]]]), 1),
            (random_features(2, 197, 8), 1),
            (random_features(3, 14, 5), 5),
            (random_features(2, 16, 6), 0),
            (random_features(4, 3, 9), 1),
            (random_features(2, 5, 1), 2),
        ],
        gradients=True,
        sums=True,
        mistakes=[
            (
                lambda tokens, prefix: tokens.mean(1),
                "The tokens in front are in the mean too. They are no places of the picture: "
                "leave the first `prefix` of them out.",
            ),
            (
                lambda tokens, prefix: tokens[:, 1:].mean(1),
                "That leaves one token out, always. Leave out as many as `prefix` says; there may "
                "be none, or several.",
            ),
            (
                lambda tokens, prefix: tokens[:, prefix:].mean(2),
                "That is the mean over the channels of each token. The tokens are on axis 1.",
            ),
            (
                lambda tokens, prefix: tokens[:, prefix:].mean((2, 3)),
                "Tokens have three axes, (N, L, C): no height and width. Average over axis 1.",
            ),
            (
                lambda tokens, prefix: tokens[:, prefix:].sum(1) / tokens.shape[1],
                "The sum is right, but it is divided by the number of all tokens.",
            ),
            (
                lambda tokens, prefix: tokens[:, prefix:].mean((1, 2)),
                "That is one number for a picture. Keep the channels: axis 1 alone.",
            ),
            (
                lambda tokens, prefix: tokens[:, 0],
                "That is the first token. The mean of the patch tokens is wanted.",
            ),
            (
                lambda tokens, prefix: tokens[prefix:].mean(1),
                "That leaves out the first pictures. The tokens are on axis 1: tokens[:, prefix:].",
            ),
            (
                lambda tokens, prefix: tokens[..., prefix:].mean(1),
                "That leaves out the first channels. The tokens are on axis 1: tokens[:, prefix:].",
            ),
            (
                lambda tokens, prefix: tokens[:, prefix:].sum(1),
                "That is the sum. Divide it by the number of patch tokens.",
            ),
            (
                lambda tokens, prefix: tokens[:, prefix:].amax(1),
                "That is the maximum of each channel, not the mean.",
            ),
            (
                lambda tokens, prefix: tokens[:, prefix:].mean(1, keepdim=True),
                "The numbers are right, but an axis of length 1 is left: no keepdim.",
            ),
        ],
    )


@exercise
def check_new_head(answer: Callable) -> Feedback:
    """Check exercise 5: GAP, BatchNorm and a linear layer."""
    for channels, classes in ((8, 3), (5, 2)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            problem, head = call_answer(answer, channels, classes)
        if problem:
            return problem
        if not isinstance(head, nn.Module):
            return Feedback(False, f"✗ Expected an nn.Module, got {head!r}.")
        head = head.to("cpu", torch.float32)  # under any default device and kind of numbers
        said = _problem_of_head(head, channels, classes)
        if said:
            return Feedback(False, f"✗ {said}")
        if channels == 8:
            parameters = sum(p.numel() for p in head.parameters())
    return Feedback(
        True,
        "✓ Right: maps of any size, GAP, BatchNorm and 3 logits; "
        f"{parameters} parameters for 8 channels and 3 classes.",
    )


def _problem_of_head(head: nn.Module, channels: int, classes: int) -> str | None:
    """Say what is wrong with a head; None where nothing is."""
    maps = random_features(4, channels, 5, 7) + 1
    try:
        with torch.random.fork_rng(devices=[]):
            head(maps)  # layers that wait for their first input get their sizes
    except Exception as error:  # whatever a learner's code raises becomes a sentence
        said = f"On maps {tuple(maps.shape)} your head raised {type(error).__name__}: {error}"
        if "got 4D input" in str(error):
            said += "\nBehind nn.AdaptiveAvgPool2d(1) the shape is (N, C, 1, 1): flatten it."
        return said
    if any(isinstance(layer, nn.modules.dropout._DropoutNd) for layer in head.modules()):
        return "Expected GAP, BatchNorm and a linear layer, got a Dropout too."
    norms = [layer for layer in head.modules() if isinstance(layer, _BatchNorm)]
    linears = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    for found, kind in ((norms, "BatchNorm"), (linears, "linear layer")):
        if len(found) != 1:
            return f"Expected one {kind}, got {len(found)}."
    (norm,), (linear,) = norms, linears
    sizes = norm.num_features, linear.in_features, linear.out_features
    if sizes != (channels, channels, classes):
        return (
            f"For {channels} channels and {classes} classes, GAP gives {channels} numbers, "
            f"BatchNorm keeps them and the linear layer makes {classes}. Got a BatchNorm of "
            "{} and a linear layer from {} to {}.".format(*sizes)
        )
    if not all(layer.training for layer in head.modules()):
        return (
            "The head comes in evaluation mode, in which BatchNorm learns nothing about its "
            "numbers. Leave .eval() to those who use the trained head."
        )
    with torch.no_grad():  # as if trained, so that the order of the layers shows
        for numbers, low, high in (
            (norm.weight, 0.5, 2),
            (norm.bias, -1, 1),
            (norm.running_mean, 0, 0.5),
            (norm.running_var, 1, 3),
        ):
            if numbers is not None:
                numbers.copy_(torch.linspace(low, high, len(numbers)))
    for size in ((5, 7), (1, 1), (9, 4)):
        for training in (True, False):
            problem = _compare_heads(head.train(training), norm, linear, maps, size)
            if problem:
                return problem
    return _what_cannot_learn(head.train(), norm, maps)


def _what_cannot_learn(head: nn.Module, norm: nn.Module, maps: Tensor) -> str | None:
    """Name what does not learn in a head whose logits are right; None if all of it does."""
    before = norm.running_mean.clone()
    frozen = [name for name, parameter in head.named_parameters() if not parameter.requires_grad]
    if frozen:
        return (
            f"The logits are right, but {', '.join(frozen)} can never learn: requires_grad is "
            "False. It is the backbone that is frozen, and this is the head to be trained."
        )
    with torch.inference_mode(False), torch.enable_grad():
        leaves = {"the maps": maps.clone().requires_grad_(), **dict(head.named_parameters())}
        logits = head(leaves["the maps"])
        gradients = [None] * len(leaves)
        if logits.requires_grad:
            weighted = (logits * random_features(*logits.shape)).sum()
            gradients = torch.autograd.grad(weighted, [*leaves.values()], allow_unused=True)
    without = [name for name, gradient in zip(leaves, gradients, strict=True) if gradient is None]
    if without:
        return (
            f"The logits are right, but no gradient reaches {', '.join(without)}. Is there a "
            ".detach(), .data or no_grad() in forward?"
        )
    if torch.equal(norm.running_mean, before):
        return (
            "The logits are right, but the running mean of BatchNorm stays as it is in training, "
            "and evaluation goes by it. Leave its momentum alone, and call the layer itself."
        )
    return None


def _compare_heads(
    head: nn.Module, norm: nn.Module, linear: nn.Linear, maps: Tensor, size: tuple[int, int]
) -> str | None:
    """Say what is wrong with a head on maps of one size; None where nothing is."""
    maps = F.interpolate(maps, size=size)
    if not head.training:
        maps = maps[:1]
    mode = "training" if head.training else "evaluation, one picture"
    where = f"On maps {tuple(maps.shape)} ({mode}):"
    try:
        with torch.no_grad():
            given = deepcopy(head)(maps)
    except Exception as error:  # whatever a learner's code raises becomes a sentence
        return f"{where} your head raised {type(error).__name__}: {error}"
    if not isinstance(given, Tensor) or given.shape != (len(maps), linear.out_features):
        got = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        return f"{where} expected logits {(len(maps), linear.out_features)}, got {got}"
    with torch.no_grad():
        ways = list(_ways(maps, deepcopy(norm), linear))
    matching = [
        sentence for tried, sentence in ways if torch.allclose(given, tried, rtol=1e-5, atol=1e-5)
    ]
    if matching and matching[0] is None:
        return None
    return " ".join([where, "the logits are others.", *filter(None, matching[:1])])


def _ways(maps: Tensor, norm: nn.Module, linear: nn.Linear) -> Iterator[tuple[Tensor, str | None]]:
    """The right logits first, then those of known mistakes, made with the learner's weights."""

    def normalise(x: Tensor) -> Tensor:
        again = deepcopy(norm)
        return F.batch_norm(
            x,
            again.running_mean,
            again.running_var,
            again.weight,
            again.bias,
            training=norm.training or again.running_mean is None,
            eps=norm.eps,
        )

    mean, largest = maps.mean((2, 3)), maps.amax((2, 3))
    right = linear(normalise(mean))
    yield right, None
    yield linear(normalise(largest)), "That is the maximum of each map. GAP takes the mean."
    before = normalise(maps).mean((2, 3))
    yield linear(before), "BatchNorm comes before GAP here. It is wanted behind it: BatchNorm1d."
    yield linear(mean), "The BatchNorm is there, but nothing goes through it."
    softmax = "Softmax does not belong here: the loss makes it of the logits (lesson 04)."
    yield right.softmax(1), softmax
    yield right.relu(), "A ReLU cuts the logits off at 0."
    yield right.sigmoid(), "A sigmoid does not belong here: the loss wants logits (lesson 04)."
    yield linear(normalise(mean).relu()), "There is a ReLU in front of the linear layer."
