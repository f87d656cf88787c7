"""The checks of lesson 07: write CAM, break the equation, sort networks, compare boxes."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

import torch

from gap_utils.activations import class_activation_map
from gap_utils.checks.calling import AnswerError, Feedback, call_answer, exercise
from gap_utils.checks.grading import (
    features,
    grade,
    numbers_of,
    random_features,
    tell_apart,
)
from gap_utils.localisation import intersection_over_union

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
def check_cam(answer: Callable) -> Feedback:
    """Check exercise 1: class activation maps in one einsum."""
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
    """Check exercise 2: maps and weights for which max and matrix do not commute."""
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
    """Check exercise 3: which of five networks have a CAM, and where it comes from."""
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


Box = tuple[int, int, int, int]  # left, top, right, bottom


@exercise
def check_iou(answer: Callable) -> Feedback:
    """Check exercise 4: the intersection over union of two boxes."""
    return grade(
        answer,
        lambda box, other: intersection_over_union(*torch.tensor([[box], [other]])).item(),
        "what both boxes cover, divided by what they cover together; 0 where they do not meet",
        lambda box, other: _shared(box, other) / (_area(box) + _area(other)),
        "The sum of the two areas counts the shared part twice. Take it off once.",
        lambda box, other: _divide(box, other, _product(box, other)),
        lambda box, other: _divide(box, other, max(0, _product(box, other))),
        lambda box, other: _divide(box, other, abs(_product(box, other))),
        "Where the boxes do not meet, a length of the shared part comes out below 0. Take 0 then, "
        "for each of the two lengths: max(0, …).",
        lambda box, other: _shared(box, other) / min(_area(box), _area(other)),
        lambda box, other: _shared(box, other) / max(_area(box), _area(other)),
        lambda box, other: _shared(box, other) / _area(box),
        lambda box, other: _shared(box, other) / _area(other),
        "You divided by the area of one box. A box that is far too large or far too small could "
        "get 1. Divide by what the two cover together.",
        lambda box, other: _shared(box, other) / _area(_around(box, other)),
        "You divided by the box around both. It has corners that belong to neither box.",
        lambda box, other: _along(box, other, 0),
        lambda box, other: _along(box, other, 1),
        "That compares the boxes along one axis only. The area needs both: right - left and "
        "bottom - top.",
        lambda box, other: _divide(_longer(box), _longer(other)),
        "The lengths are one pixel too long: right and bottom are the first pixels behind the box, "
        "so the width is right - left.",
        lambda box, other: _divide(_from_sizes(box), _from_sizes(other)),
        "The last two numbers of a box are places, right and bottom. You took them for its width "
        "and height.",
        lambda box, other: _divide(_pairs(box), _pairs(other)),
        "The order of a box is left, top, right, bottom. You took it for left, right, top, bottom.",
        lambda box, other: float(_shared(box, other)),
        "That is the area that both share. It is not divided yet.",
        lambda box, other: float(_area(box) + _area(other) - _shared(box, other)),
        "That is the area that both cover together. Divide the shared area by it.",
        lambda box, other: _shared(box, other) // (_area(box) + _area(other) - _shared(box, other)),
        "With // the decimals are cut off. Divide with /.",
        lambda box, other: 100 * _divide(box, other),
        "That is in per cent. A part of 1 is wanted.",
        cases=[
            ((0, 0, 2, 2), (1, 1, 3, 3)),
            ((0, 0, 2, 2), (3, 0, 5, 2)),  # beside each other
            ((0, 0, 2, 2), (2, 0, 4, 2)),  # with a common edge
            ((3, 4, 5, 6), (0, 0, 2, 2)),  # apart along both axes
            ((0, 0, 6, 4), (1, 1, 3, 2)),  # one inside the other
            ((5, 0, 20, 50), (2, 10, 30, 40)),
            ((7, 3, 9, 8), (7, 3, 9, 8)),
        ],
    )


def _length(box: Box, other: Box, axis: int) -> int:
    """How far two boxes overlap along an axis; below 0 if they do not."""
    return min(box[axis + 2], other[axis + 2]) - max(box[axis], other[axis])


def _product(box: Box, other: Box) -> int:
    return _length(box, other, 0) * _length(box, other, 1)


def _shared(box: Box, other: Box) -> int:
    return max(0, _length(box, other, 0)) * max(0, _length(box, other, 1))


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _divide(box: Box, other: Box, shared: int | None = None) -> float:
    """Divide the shared area, or what is taken for it, by what is then the area of the two."""
    shared = _shared(box, other) if shared is None else shared
    return shared / (_area(box) + _area(other) - shared)


def _along(box: Box, other: Box, axis: int) -> float:
    shared = max(0, _length(box, other, axis))
    return shared / (box[axis + 2] - box[axis] + other[axis + 2] - other[axis] - shared)


def _around(box: Box, other: Box) -> Box:
    return (*map(min, box[:2], other[:2]), *map(max, box[2:], other[2:]))


# what else the four numbers may be taken for


def _longer(box: Box) -> Box:
    return (*box[:2], box[2] + 1, box[3] + 1)


def _from_sizes(box: Box) -> Box:
    return (*box[:2], box[0] + box[2], box[1] + box[3])


def _pairs(box: Box) -> Box:
    return box[0], box[2], box[1], box[3]
