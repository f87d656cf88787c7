"""The checks of lesson 07: convert a head, write CAM, break the equation, sort networks."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from gap_utils.activations import class_activation_map
from gap_utils.checks.calling import AnswerError, Feedback, call_answer, exercise
from gap_utils.checks.grading import (
    are_close,
    count_summed,
    features,
    grade,
    make_layer,
    numbers_of,
    random_features,
    tell_apart,
)

# network -> letter of the family, and why
FAMILIES = {
    "our gap network": ("A", "its 1×1 convolution makes a map for each class, and GAP's mean of "
                             "it is the logit"),
    "ResNet": ("B", "GAP comes first, and the linear layer behind it has a weight for each map"),
    "NiN": ("C", "its paper puts a ReLU between the maps of the classes and their mean"),
    "SqueezeNet": ("C", "a ReLU stands between the maps of the classes and their mean"),
    "VGG": ("D", "it flattens its maps: each position has weights of its own"),
}  # fmt: skip


@exercise
def check_linear_head(answer: Callable) -> Feedback:
    """Check exercise 1: a linear layer behind GAP in place of a 1×1 convolution before it."""
    small = make_layer(nn.Conv2d, 2, 1, 1, numbers=(features([2, -1]), features([1])))
    large = make_layer(nn.Conv2d, 64, 10, 1)
    for convolution, maps in (
        (small, features([[[[1, 3]], [[2, 0]]]])),
        (make_layer(nn.Conv2d, 1, 3, 1), random_features(2, 1, 2, 3)),
        (make_layer(nn.Conv2d, 3, 3, 1), random_features(2, 3, 3, 2)),
        (large, random_features(4, 64, 7, 7)),
    ):
        try:
            linear = call_answer(answer, convolution)
        except AnswerError as wrong:
            if "shape" not in str(wrong):
                raise
            hint = (
                "Here one map goes in. Does a squeeze() remove that axis too? flatten(1) keeps it."
                if convolution.in_channels == 1
                else "nn.Linear wants what goes in first: in_channels, then out_channels."
            )
            raise AnswerError(f"{wrong}\n{hint}") from None
        said = _problem_of_linear(linear, convolution, maps)
        if said:
            named = _what_was_not_copied(call_answer(answer, large), large)
            raise AnswerError(f"On the input {convolution}: {said}{named}")
    return Feedback(
        True,
        "✓ Right: the same weights and the same bias give the same logits, with 650 parameters "
        "each.",
    )


def _problem_of_linear(linear: Any, convolution: nn.Conv2d, maps: Tensor) -> str | None:
    if not isinstance(linear, nn.Linear):
        return f"expected an nn.Linear, got {linear!r}."
    wanted, got = tuple(convolution.weight.shape[:2]), tuple(linear.weight.shape)
    if got != wanted:
        said = f"expected a weight of shape {wanted}, (K, C), got {got}."
        if got == wanted[::-1]:
            said = f"{said} nn.Linear wants what goes in first."
        elif len(got) != 2:
            said = f"{said} flatten(1) makes (K, C) of (K, C, 1, 1)."
        return said
    if linear.bias is None:
        return "the convolution has a bias, and your linear layer has none."
    with torch.no_grad():
        expected = convolution(maps).mean((2, 3))
        try:
            logits = linear(maps.mean((2, 3)))
        except RuntimeError as error:
            return f"your linear layer raised RuntimeError: {error}."
    wrong = ~are_close(logits, expected, count_summed((maps,), expected))
    if wrong.any():
        place = tuple(wrong.nonzero()[0].tolist())
        _, (got, wanted) = tell_apart(logits[place].item(), expected[place].item(), size=0)
        return f"a logit is {got}, expected {wanted}."
    if not (linear.weight.requires_grad and linear.bias.requires_grad):
        return (
            "the logits are right, but the layer can never learn: requires_grad is False, and in "
            "the convolution it is True."
        )
    return None


def _what_was_not_copied(linear: Any, convolution: nn.Conv2d) -> str:
    """Name a mistake in the weight or the bias, seen on a convolution with many numbers."""
    if not isinstance(linear, nn.Linear) or linear.bias is None:
        return ""
    for name, copied, own in (
        ("weight", linear.weight, convolution.weight[:, :, 0, 0]),
        ("bias", linear.bias, convolution.bias),
    ):
        if copied.shape != own.shape:
            return ""
        a, b = copied.double(), own.double()
        if torch.allclose(a, b):
            continue
        factor = (a / b).mean()
        if torch.allclose(a, factor * b):
            return f" The {name} is {factor:.4g} times the convolution's. Copy it as it is."
        if torch.allclose(a, b, rtol=0.01, atol=0.01):
            return f" The {name} is off by up to {(a - b).abs().max():.1e}: copy all its digits."
        return (
            f" The {name} is another. nn.Linear draws random numbers of its own; copy the "
            "convolution's into it."
        )
    return ""


@exercise
def check_cam(answer: Callable) -> Feedback:
    """Check exercise 2: class activation maps in one einsum."""
    return grade(
        answer,
        class_activation_map,
        "a map for each picture and class, of the size of the features",
        lambda maps, weight: class_activation_map(maps, weight).mean((2, 3)),
        "That is the mean of each map, the logits without the bias. Keep h and w behind the arrow.",
        lambda maps, weight: class_activation_map(maps, weight).sum((2, 3)),
        "The positions have been added up. Keep h and w behind the arrow.",
        lambda maps, weight: class_activation_map(maps, weight) / maps[0, 0].numel(),
        "That is divided by the number of positions, H * W. The logit is the mean of the map, so "
        "the map itself is not divided.",
        lambda maps, weight: class_activation_map(maps, weight).movedim(1, -1),
        "The numbers are right, but the classes come last. Behind the arrow: nkhw.",
        lambda maps, weight: class_activation_map(maps, weight).transpose(0, 1),
        "The numbers are right, but the classes come first. Behind the arrow: nkhw.",
        lambda maps, weight: class_activation_map(maps, weight).transpose(2, 3),
        "The numbers are right, but rows and columns are swapped. Behind the arrow: nkhw.",
        lambda maps, weight: class_activation_map(maps, weight).relu(),
        "The negative numbers are gone. They speak against a class and count in its logit.",
        lambda maps, weight: maps[:, None] * weight[None, :, :, None, None],
        lambda maps, weight: torch.einsum("nchw,kc->nckhw", maps, weight),
        "The channels are still apart. A letter that is missing behind the arrow is summed: leave "
        "c out.",
        lambda maps, weight: torch.einsum("nchw,kc->nkhw", maps, weight / weight.shape[1]),
        "That is the mean over the channels. Their sum is wanted.",
        cases=[
            (features([[[[1, 0]], [[0, 2]]]]), features([[1, -1], [3, 0], [0, 1]])),
            (random_features(2, 3, 4, 5), random_features(6, 3)),
            (random_features(1, 5, 3, 2), random_features(2, 5)),
            (random_features(2, 3, 3, 3), random_features(3, 3)),
        ],
    )


@exercise
def check_max_counterexample(answer: Callable) -> Feedback:
    """Check exercise 3: maps and weights for which max and matrix do not commute."""
    value = call_answer(answer)
    two = isinstance(value, list | tuple) and len(value) == 2
    maps, weight = map(numbers_of, value) if two else (None, None)
    fits = maps is not None and weight is not None and maps.ndim == 3 and maps.numel() > 0
    if not fits or weight.shape != maps.shape[:1]:
        raise AnswerError(
            "Expected maps (C, H, W) and a weight for each of the C maps, such as "
            f"[[[1, 0]], [[2, 0]]], [1, 1], got {value!r}."
        )
    if not (maps.isfinite().all() and weight.isfinite().all()):
        raise AnswerError(f"Expected numbers that are finite, got {value!r}.")
    first = class_activation_map(maps[None], weight[None]).amax().item() + 0.0  # no -0
    last = (weight @ maps.amax((1, 2))).item() + 0.0
    if not isfinite(first) or not isfinite(last):
        raise AnswerError(f"Expected numbers of ordinary size, got {value!r}.")
    size = (weight.abs() @ maps.abs().amax((1, 2))).item()
    differ, (largest, maxima) = tell_apart(first, last, size)
    said = f"the largest number of the weighted map is {largest}, the weighted maxima give {maxima}"
    if not differ:
        raise AnswerError(
            f"Here {said} too. Let the two maps have their maxima at different positions, or make "
            "a weight negative."
        )
    return Feedback(True, f"✓ Right: {said}. With max the order matters.")


@exercise
def check_cam_families(answer: Callable) -> Feedback:
    """Check exercise 4: which of five networks have a CAM, and where it comes from."""
    value = call_answer(answer)
    letters = {letter for letter, _ in FAMILIES.values()}
    if not isinstance(value, dict) or set(value) != set(FAMILIES):
        raise AnswerError(f"Expected a dict with the keys {', '.join(FAMILIES)}, got {value!r}.")
    said = {name: str(letter).strip().upper() for name, letter in value.items()}
    if not set(said.values()) <= letters:
        raise AnswerError(f"Expected the letters {', '.join(sorted(letters))}, got {value!r}.")
    lines = [
        f"{name} is not {said[name]}: {why}."
        for name, (letter, why) in FAMILIES.items()
        if said[name] != letter
    ]
    if lines:
        raise AnswerError("\n".join(["Not so:", *lines]))
    whys = "; ".join(f"{name}: {why}" for name, (_, why) in FAMILIES.items())
    return Feedback(True, f"✓ Right: {whys}")
