"""The checks of lesson 04: loss and accuracy, what a study shows, another picture size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from copy import deepcopy
from math import e, log, log10, sqrt
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gap_utils.checks.calling import AnswerError, Feedback, call_answer, exercise
from gap_utils.checks.grading import features, grade, random_features
from gap_utils.models import HEADS, load_trained
from gap_utils.study import CLEAR, by_seed, compare, load_study, train_and_test

# letter -> measure, where, the head whose number is said to be larger, the other
CLAIMS = {
    "A": ("accuracy_against_shift", 3, "gap", "gmp"),
    "B": ("accuracy_against_shift", 5, "gap", "gmp"),
    "C": ("accuracy_against_shift", 5, "gmp", "flatten"),
    "D": ("difference", 1000, "flatten", "gap"),
}
NONE_AHEAD = "no head is clearly ahead of both others"
SQUASHED = "still squeezes the logits before cross_entropy, which has its own softmax inside"


@exercise
def check_loss_floor(answer: Callable) -> Feedback:
    """Check exercise 1: the smallest cross-entropy behind a sigmoid, for some classes."""
    return grade(
        answer,
        lambda k: log(1 + (k - 1) / e),
        "ln(1 + (K - 1) / e), which is 1.46115 for ten classes",
        lambda k: log(k),
        "That is the loss when all classes get the same probability. At best the right class gets "
        "the score 1 and the others 0.",
        lambda k: 0.0,
        "0 is the floor without the sigmoid, when a logit may be any number.",
        lambda k: e / (e + k - 1),
        "That is the largest probability the right class can get. The loss is minus its logarithm.",
        lambda k: log(e / (e + k - 1)),
        "Right but for its sign: the loss is minus that.",
        lambda k: log(e + k - 1),
        "That is minus the logarithm of 1 / (e + K - 1). The right class has e above the line: "
        "exp(1).",
        lambda k: log(1 + 9 / e),
        "That is right for ten classes. Write it for any number of them.",
        lambda k: log(1 + k / e),
        "Count the wrong classes: there is one less than there are classes.",
        lambda k: log10(1 + (k - 1) / e),
        "PyTorch's loss uses the natural logarithm, math.log.",
        lambda k: log(1 + (k - 1) * sqrt(e) / e),
        "You left the wrong classes at sigmoid(0) = 0.5. Their logits may be very negative; then "
        "the sigmoid gives 0.",
        cases=[(2,), (10,), (100,)],
    )


@exercise
def check_mended_loss(answer: Callable) -> Feedback:
    """Check exercise 2: the loss of logits (N, K) for class numbers (N,)."""
    return grade(
        answer,
        F.cross_entropy,
        "the mean over the pictures of minus the log-probability, and its gradient",
        lambda x, y: F.cross_entropy(x.sigmoid(), y),
        f"The sigmoid {SQUASHED}.",
        lambda x, y: F.cross_entropy(x.softmax(1), y),
        f"The softmax {SQUASHED}.",
        lambda x, y: F.cross_entropy(x, y, reduction="none"),
        "That is one loss for each picture. Leave reduction out, and it is their mean.",
        lambda x, y: F.nll_loss(x.sigmoid().log(), y),
        "The sigmoids of the classes do not add up to 1. cross_entropy takes the logits as they "
        "are and has a softmax inside.",
        lambda x, y: -(x.exp() / x.exp().sum(1, keepdim=True)).gather(1, y[:, None]).log().mean(),
        "With logits as far apart as 0 and 200 a probability comes out as 0, and its logarithm is "
        "infinite. cross_entropy works with the logits and has no such limit.",
        lambda x, y: F.cross_entropy(x, y, reduction="sum"),
        "That is the sum over the pictures. Leave reduction out, and it is their mean.",
        lambda x, y: F.nll_loss(x, y),
        "nll_loss wants log-probabilities. cross_entropy takes the logits as they are.",
        lambda x, y: F.nll_loss(x.softmax(1), y),
        "nll_loss wants log-probabilities, and softmax gives probabilities. cross_entropy takes "
        "the logits as they are.",
        lambda x, y: F.binary_cross_entropy_with_logits(x, F.one_hot(y, x.shape[1]).to(x.dtype)),
        "That asks ten questions with yes or no. Here the classes exclude each other: "
        "cross_entropy.",
        cases=[
            (features([[2, 0]]), _labels(1)),
            (features([[0, 1], [3, 1]]), _labels(1, 1)),
            (features([[0, 200]]), _labels(0)),
            (random_features(5, 10), _labels(3, 0, 9, 9, 1)),
        ],
        gradients=True,
    )


def _labels(*classes: int) -> Tensor:
    return torch.tensor(classes, device="cpu")


@exercise
def check_accuracy(answer: Callable) -> Feedback:
    """Check exercise 3: the share of the pictures that logits (N, K) name correctly."""
    cases = [
        (features([[2, 0], [0, 1], [3, 1]]), _labels(0, 1, 1)),
        (features([[0, 1, 5], [3, 1, 0]]), _labels(2, 0)),
        (features([[4, 1]]), _labels(0)),
        (random_features(7, 10), random_features(7, 10).argmax(1).roll(2)),
        # as in training: such a tensor does not become a NumPy array
        (random_features(8, 4).requires_grad_(), random_features(8, 4).argmax(1) // 2),
    ]
    feedback = grade(
        answer,
        lambda x, y: (x.argmax(1) == y).float().mean().item(),
        "the share of the pictures whose largest logit is that of their class",
        lambda x, y: (x.argmax(1) == y).sum(),
        "That counts the right ones. Divide by how many there are.",
        lambda x, y: (x.argmax(1) == y).mean(),
        "True and False have no mean in PyTorch. Make numbers of them: .float().mean().",
        lambda x, y: (x.argmax(1) == y).sum() / x.numel(),
        "Divide by the number of pictures, not by the number of logits.",
        lambda x, y: 100 * (x.argmax(1) == y).float().mean(),
        "That is in percent. Here all right is 1.0.",
        lambda x, y: (x.argmax(1) != y).float().mean(),
        "That is the share of the pictures that it names wrongly.",
        lambda x, y: (x.max(1).values == y).float().mean(),
        "That compares the largest logit itself with the class number. argmax(1) says where the "
        "largest logit is.",
        lambda x, y: (x.argmax(0) == y).float().mean(),
        "argmax(0) looks for the best picture of each class. The classes are on axis 1.",
        lambda x, y: (x.argmax() == y).float().mean(),
        "argmax() without an axis looks for the largest number of the whole batch. The classes are "
        "on axis 1.",
        lambda x, y: (x.argmax(1) == y).all().float(),
        "That is 1 only if every picture is right, and 0 otherwise: all() and // do that.",
        cases=cases,
    )
    if _takes_apart(answer, cases[-1]):
        raise AnswerError(
            "The number is right, but Python takes the tensor apart, one picture at a time. Use "
            "the tensor's own .sum() or .mean()."
        )
    return feedback


def _takes_apart(answer: Callable, case: tuple[Tensor, Tensor]) -> bool:
    """Whether the answer asks a tensor for its numbers one by one, or for a list of them."""
    taken = []

    class Array(np.ndarray):
        def __iter__(self) -> Iterator:
            taken.append("numpy")
            return super().__iter__()

    class Watch(TorchFunctionMode):
        def __torch_function__(self, called, types, given=(), more=None) -> Any:
            one_by_one = called == Tensor.__getitem__ and isinstance(given[1], int)
            if one_by_one or called in (Tensor.unbind, Tensor.tolist):  # a loop calls unbind
                taken.append(called)
            result = called(*given, **(more or {}))
            return result.view(Array) if called == Tensor.numpy else result

    with suppress(Exception), Watch():  # it has answered before: what it does now is no matter
        answer(*case)
    return bool(taken)


@exercise
def check_winners(answer: Callable) -> Feedback:
    """Check exercise 4: which head is clearly ahead of both others, as they are and moved."""
    value = call_answer(answer)
    names = (*HEADS, "none")
    said = [item.lower() for item in value] if _are_words(value) and len(value) == 2 else [None]
    if isinstance(value, Set) or not set(said) <= set(names):
        raise AnswerError(
            f'Expected two of {names}, such as ("gmp", "gmp"), your function returned {value!r}.'
        )
    study, lines, winners = load_study(), [], []
    for place, table, name in (
        ("as they are", by_seed(study, "test_accuracy"), said[0]),
        ("moved by 4 px", by_seed(study, "accuracy_against_shift", 4), said[1]),
    ):
        ahead = [
            head
            for head in HEADS
            if all(compare(table, head, other).is_clear for other in HEADS if other != head)
        ]
        winners += ahead or ["none"]
        accuracies = ", ".join(
            f"{head} {100 * table[head].mean():.1f} ± {100 * table[head].std():.1f} %"
            for head in HEADS
        )
        found = f"{ahead[0]} is clearly ahead of both" if ahead else NONE_AHEAD
        verdict = "as you say" if name == winners[-1] else f"and you say {name}"
        lines.append(f"{place}: {accuracies}; {found}, {verdict}.")
    return _verdict(said == winners, lines)


def _verdict(passed: bool, lines: list[str]) -> Feedback:
    """What the study shows, in lines, behind the verdict."""
    return Feedback(passed, "\n".join(["✓ Right:" if passed else "✗ Not so:", *lines]))


@exercise
def check_supported_claims(answer: Callable) -> Feedback:
    """Check exercise 5: the letters of the claims that hold for single runs, and on average."""
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
    return _verdict(said == [single, average], lines)


def _letters(item: Any) -> set[str] | None:
    """The letters of claims in a string or a collection of strings; None if it is neither."""
    words = [sign for sign in item if sign not in ", "] if isinstance(item, str) else item
    letters = {word.upper() for word in words} if _are_words(words) else {None}
    return letters if letters <= set(CLAIMS) else None


def _are_words(value: Any) -> bool:
    return isinstance(value, tuple | list | Set) and all(isinstance(item, str) for item in value)


@exercise
def check_flatten_any_size(answer: Callable) -> Feedback:
    """Check exercise 6: a trained flatten network and pictures of any size -> logits."""

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
