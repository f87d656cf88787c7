"""The checks of lesson 05: what a study shows, where a gradient goes, what a size costs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import prod

import torch
import torch.nn.functional as F

from gap_utils.checks.calling import AnswerError, Feedback, call_answer, exercise
from gap_utils.checks.claims import Claim, check_claims
from gap_utils.checks.grading import (
    features,
    grade,
    numbers_of,
    random_features,
    say_findings,
)
from gap_utils.study import load_study, mean_and_spread

CLAIMS = {
    "A": Claim("gap", "gmp", "accuracy_against_shift", 3),
    "B": Claim("gap", "gmp", "accuracy_against_shift", 5),
    "C": Claim("gmp", "flatten", "accuracy_against_shift", 5),
    "D": Claim("flatten", "gap", "difference", 1000),
}


@exercise
def check_supported_claims(answer: Callable) -> Feedback:
    """Check lesson 05, exercise 1: the claims that hold for single runs, and on average."""
    return check_claims(answer, CLAIMS)


@exercise
def check_shift_step(answer: Callable) -> Feedback:
    """Check lesson 05, exercise 2: strides of the poolings -> the shift that changes nothing."""
    return grade(
        answer,
        lambda strides: prod(strides),
        "each pooling steps over numbers that are apart already, so the strides multiply",
        lambda strides: 1,
        "GAP is invariant, and the body in front of it need not be: after a shift of 1 pixel the "
        "windows of a pooling with stride 2 hold other pixels.",
        lambda strides: sum(strides),
        "That adds the strides. The windows of the second pooling step over numbers that are "
        "already some pixels apart: multiply.",
        lambda strides: max(strides, default=1),
        "That is the largest stride. All poolings have to fit the shift, and the next one steps "
        "over numbers that are already some pixels apart: multiply.",
        lambda strides: strides[-1] if strides else 1,
        "That is the last stride. The ones before it count too: multiply.",
        lambda strides: strides[0] if strides else 1,
        "That is the first stride. The ones behind it count too: multiply.",
        lambda strides: 2 ** len(strides),
        "That is right where each stride is 2.",
        lambda strides: len(strides),
        "That counts the poolings. Multiply their strides.",
        cases=[([2],), ([2, 2],), ([2, 2, 2],), ([3, 2],), ([1, 4, 2],), ([],)],
    )


@exercise
def check_gmp_gradient(answer: Callable) -> Feedback:
    """Check lesson 05, exercise 3: the gradient of the maximum of each map (N, C, H, W)."""

    def shared(maps, axes=(2, 3)):
        largest = (maps == maps.amax(axes, keepdim=True)).float()
        return largest / largest.sum(axes, keepdim=True)

    def one_only(maps):
        """All to the first of several maxima, as `max_pool2d` does."""
        flat = maps.flatten(2)
        return F.one_hot(flat.argmax(2), flat.shape[2]).to(maps.dtype).view_as(maps)

    return grade(
        answer,
        shared,
        "the position with the maximum gets 1, several share it, all others get 0",
        lambda maps: torch.full_like(maps, 1 / (maps.shape[2] * maps.shape[3])),
        "That is the gradient of GAP: the same for every position. A maximum changes only with "
        "the largest number.",
        one_only,
        "If several numbers are the largest, they share the 1, as amax does it: each gets 1 "
        "divided by how many they are.",
        lambda maps: (maps == maps.amax((2, 3), keepdim=True)).float(),
        "Several equal maxima share the 1. Divide by how many there are on the map.",
        lambda maps: (maps == maps.max()).float(),
        "maps.max() is the largest number of the whole batch. Each map has its own: amax over the "
        "axes 2 and 3. Several that are equal share the 1.",
        lambda maps: (maps == maps.amax((2, 3))).float(),
        "amax removes the two axes, and then maps and maxima do not fit. keepdim=True keeps them. "
        "Several that are equal share the 1.",
        lambda maps: shared(maps) / shared(maps).sum(),
        lambda maps: shared(maps).gt(0).float() / shared(maps).gt(0).sum(),
        "That shares one 1 among all maps of the batch. Each map has a 1 of its own: sum over the "
        "axes 2 and 3.",
        lambda maps: shared(maps, (1, 2, 3)),
        "That looks for one maximum in all maps of a picture. Each map has its own: amax over the "
        "axes 2 and 3.",
        lambda maps: shared(maps, (0, 1, 2, 3)),
        "That looks for one maximum in the whole batch. Each map has its own: amax over the axes "
        "2 and 3.",
        lambda maps: shared(maps, 3),
        "That gives a maximum for each row. GMP takes one of the whole map.",
        lambda maps: maps * shared(maps),
        "That keeps the number itself. The gradient says how much of a small growth of that number "
        "arrives in the maximum: all of it, 1.",
        lambda maps: torch.zeros_like(maps),
        "Then no position could ever learn. The maximum grows if the largest number grows.",
        lambda maps: torch.ones_like(maps),
        "That is the gradient of the sum of the map.",
        cases=[
            (features([[[[1, 3], [2, 0]]]]),),
            (features([[[[2, 5, 1], [0, 5, 3], [1, 0, 2]]]]),),
            (features([[[[1, 4], [4, 4]], [[-3, -1], [-2, -5]]]]),),
            (random_features(2, 3, 3, 3),),
        ],
        exact=True,
    )


@exercise
def check_canvas_sizes(answer: Callable) -> Feedback:
    """Check lesson 05, exercise 4: the canvases GAP takes, and those where it names over half."""
    accuracies = mean_and_spread(load_study(), "accuracy_against_canvas")["mean"].gap
    sizes = {int(size) for size in accuracies.index}
    good = {size for size in sizes if accuracies[size] > 0.5}
    value = call_answer(answer)
    two = value if isinstance(value, tuple | list) and len(value) == 2 else [None]
    said = [numbers_of([*item]) if isinstance(item, Collection) else None for item in two]
    if any(numbers is None or numbers.ndim != 1 for numbers in said):
        raise AnswerError(
            "Expected two lists of sizes, those that the network takes and those where it names "
            f"over half, such as ([28], [28]); your function returned {value!r}."
        )
    taken, named = ({*numbers.tolist()} for numbers in said)
    found = ", ".join(f"{size}×{size} {accuracies[size]:.1%}" for size in sorted(sizes))
    lines = [f"It takes every size, since GAP leaves one number per map. Named correctly: {found}."]
    if taken == {28}:
        lines.append("Only 28×28 is what a flatten network takes: its weights are for one size.")
    elif taken == named:
        lines.append("You named the same sizes twice. To take a size is not to be right at it.")
    return say_findings((taken, named) == (sizes, good), lines)
