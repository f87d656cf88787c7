"""The checks of lesson 05: what a study shows, another picture size."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from math import prod
from typing import Any

import torch
import torch.nn.functional as F

from gap_utils.checks.calling import AnswerError, Feedback, call_answer, exercise
from gap_utils.checks.grading import are_words, grade, random_features, say_findings
from gap_utils.models import load_trained
from gap_utils.study import CLEAR, by_seed, compare, load_study, train_and_test

# letter -> measure, where, the head whose number is said to be larger, the other
CLAIMS = {
    "A": ("accuracy_against_shift", 3, "gap", "gmp"),
    "B": ("accuracy_against_shift", 5, "gap", "gmp"),
    "C": ("accuracy_against_shift", 5, "gmp", "flatten"),
    "D": ("difference", 1000, "flatten", "gap"),
}


@exercise
def check_supported_claims(answer: Callable) -> Feedback:
    """Check lesson 05, exercise 1: the claims that hold for single runs, and on average."""
    value = call_answer(answer)
    two = isinstance(value, tuple | list) and len(value) == 2
    said = [_letters(item) for item in value] if two else [None]
    if None in said:
        raise AnswerError(
            f"Expected two strings of letters of {', '.join(CLAIMS)}, first for single runs and "
            f'then on average, such as ("AD", "D"), with "" for none; your function returned '
            f"{value!r}."
        )
    study, lines, single, average = load_study(), [], set(), set()
    for letter, (measure, at, one, other) in CLAIMS.items():
        if measure == "difference":  # of training and test accuracy, at so many pictures
            table = train_and_test(study).difference.loc[at].unstack("model")
        else:
            table = by_seed(study, measure, at)
        found = compare(table, one, other)
        single |= {letter} if found.is_clear else set()
        average |= {letter} if found.is_supported else set()
        lines.append(
            f"{letter}: {100 * found.lead:.1f} points, {found.lead / found.spread:.1f} times the "
            f"spread of {100 * found.spread:.1f}: "
            f"single runs {'show' if found.is_clear else 'need not show'} it. "
            f"Interval {100 * found.low:.1f} to {100 * found.high:.1f}: "
            f"on average it {'holds' if found.is_supported else 'is not shown'}."
        )
    for what, rule, letters, holds in (
        ("single runs", f"a lead of over {CLEAR} times the spread", said[0], single),
        ("the average", "an interval above 0", said[1], average),
    ):
        if letters != holds:
            named = ", ".join(sorted(letters)) or "none"
            lines.append(f"For {what} you named {named}. A claim needs {rule}.")
    return say_findings(said == [single, average], lines)


def _letters(item: Any) -> set[str] | None:
    """The letters of claims in a string or a collection of strings; None if it is neither."""
    words = [sign for sign in item if sign not in ", "] if isinstance(item, str) else item
    letters = {word.upper() for word in words} if are_words(words) else {None}
    return letters if letters <= set(CLAIMS) else None


@exercise
def check_flatten_any_size(answer: Callable) -> Feedback:
    """Check lesson 05, exercise 2: a trained flatten network and pictures of any size -> logits."""

    def to_3x3(model, images, pool=F.adaptive_avg_pool2d):
        return model.head(pool(model.body(images), 3))

    network = load_trained("flatten").float()
    other = deepcopy(network)  # so that a network of the notebook is no substitute for `model`
    with torch.no_grad():
        other.head[-1].bias += torch.arange(10, dtype=torch.float32, device="cpu")
    return grade(
        answer,
        to_3x3,
        "pictures of 28×28 get the logits they had, others are averaged to 3×3 maps",
        lambda model, images: model(images),
        lambda model, images: model.head(model.body(images)),
        "The maps of 32×32 pictures are 4×4. Bring them to 3×3 in front of model.head.",
        lambda model, images: model.head(F.adaptive_avg_pool2d(model.body(images), 1)),
        "That is GAP: 32 numbers are left, and the head has weights for 32 × 3 × 3.",
        lambda model, images: to_3x3(model, images).softmax(1),
        "Those are probabilities. The task asks for logits: leave the softmax out.",
        lambda model, images: to_3x3(model, images, F.adaptive_max_pool2d),
        "That takes the largest number of each window. The task asks for averages.",
        lambda model, images: model.head(model.body(images)[..., :3, :3]),
        "That cuts the maps and drops what is on the right and below. Let adaptive pooling average "
        "all of it.",
        lambda model, images: model(images[..., :28, :28]),
        "That cuts the picture and drops what is on the right and below.",
        lambda model, images: model(F.interpolate(images, size=(28, 28))),
        "That makes the picture smaller before the body sees it. It works; the task is about the "
        "maps behind the body.",
        cases=[
            (network, random_features(2, 1, 28, 28)),
            (network, random_features(1, 1, 32, 32)),
            (network, random_features(2, 1, 40, 51)),
            (other, random_features(1, 1, 52, 36)),
        ],
    )


@exercise
def check_shift_step(answer: Callable) -> Feedback:
    """Check lesson 05: strides of a body's poolings -> the shift that changes no average."""
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
