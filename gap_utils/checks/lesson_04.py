"""The checks of lesson 04: loss and accuracy, what a study shows, another picture size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack, suppress
from copy import deepcopy
from functools import lru_cache
from math import e, log, log10, sqrt
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gap_utils.checks.calling import Feedback, call_answer, exercise
from gap_utils.checks.grading import features, grade, random_features
from gap_utils.models import HEADS, load_trained
from gap_utils.study import load_study

CLEAR = 3  # a lead counts when it is over so many times the spread between the seeds
# letter -> measure, where, the head that is said to be ahead, the other
CLAIMS = {
    "A": ("accuracy_against_shift", 3, "gap", "gmp"),
    "B": ("accuracy_against_shift", 5, "gap", "gmp"),
    "C": ("accuracy_against_shift", 5, "gmp", "flatten"),
    "D": ("difference", 1000, "gap", "flatten"),
}
PARTS = ("__iter__", "__getitem__", "tolist", "unbind")  # ways to take a tensor apart
SQUASHED = "still squeezes the logits before cross_entropy, which has its own softmax inside"


@exercise
def check_loss_floor(answer: Callable) -> Feedback:
    """Check exercise 1: the smallest cross-entropy behind a sigmoid, for some classes."""
    return grade(
        answer,
        right="ln(1 + (K - 1) / e), which is 1.46115 for ten classes",
        reference=lambda k: log(1 + (k - 1) / e),
        cases=[(2,), (10,), (100,)],
        mistakes=[
            (
                lambda k: log(k),
                "That is the loss when all classes get the same probability. At best the right "
                "class gets the score 1 and the others 0.",
            ),
            (lambda k: 0.0, "0 is the floor without the sigmoid, when a logit may be any number."),
            (
                lambda k: e / (e + k - 1),
                "That is the largest probability the right class can get. The loss is minus its "
                "logarithm.",
            ),
            (lambda k: log(e / (e + k - 1)), "Right but for its sign: the loss is minus that."),
            (
                lambda k: log(e + k - 1),
                "That is minus the logarithm of 1 / (e + K - 1). The right class has e above the "
                "line: exp(1).",
            ),
            (
                lambda k: log(1 + 9 / e),
                "That is right for ten classes. Write it for any number of them.",
            ),
            (
                lambda k: log(1 + k / e),
                "Count the wrong classes: there is one less than there are classes.",
            ),
            (
                lambda k: log10(1 + (k - 1) / e),
                "PyTorch's loss uses the natural logarithm, math.log.",
            ),
            (
                lambda k: log(1 + (k - 1) * sqrt(e) / e),
                "You left the wrong classes at sigmoid(0) = 0.5. Their logits may be very "
                "negative; then the sigmoid gives 0.",
            ),
        ],
    )


@exercise
def check_mended_loss(answer: Callable) -> Feedback:
    """Check exercise 2: the loss of logits (N, K) for class numbers (N,)."""
    return grade(
        answer,
        right="the mean over the pictures of minus the log-probability, and its gradient",
        reference=F.cross_entropy,
        cases=[
            (features([[2, 0]]), _labels(1)),
            (features([[0, 1], [3, 1]]), _labels(1, 1)),
            (features([[0, 200]]), _labels(0)),
            (random_features(5, 10), _labels(3, 0, 9, 9, 1)),
        ],
        sums=True,
        mistakes=[
            (lambda x, y: F.cross_entropy(x.sigmoid(), y), f"The sigmoid {SQUASHED}."),
            (lambda x, y: F.cross_entropy(x.softmax(1), y), f"The softmax {SQUASHED}."),
            (
                lambda x, y: F.cross_entropy(x, y, reduction="none"),
                "That is one loss for each picture. Leave reduction out, and it is their mean.",
            ),
            (
                lambda x, y: F.nll_loss(x.sigmoid().log(), y),
                "The sigmoids of the classes do not add up to 1. cross_entropy takes the logits as "
                "they are and has a softmax inside.",
            ),
            (
                lambda x, y: (
                    -(x.exp() / x.exp().sum(1, keepdim=True)).gather(1, y[:, None]).log().mean()
                ),
                "With logits as far apart as 0 and 200 a probability comes out as 0, and its "
                "logarithm is infinite. cross_entropy works with the logits and has no such limit.",
            ),
            (
                lambda x, y: F.cross_entropy(x, y, reduction="sum"),
                "That is the sum over the pictures. Leave reduction out, and it is their mean.",
            ),
            (
                lambda x, y: F.nll_loss(x, y),
                "nll_loss wants log-probabilities. cross_entropy takes the logits as they are.",
            ),
            (
                lambda x, y: F.nll_loss(x.softmax(1), y),
                "nll_loss wants log-probabilities, and softmax gives probabilities. cross_entropy "
                "takes the logits as they are.",
            ),
            (
                lambda x, y: F.binary_cross_entropy_with_logits(
                    x, F.one_hot(y, x.shape[1]).to(x.dtype)
                ),
                "That asks ten questions with yes or no. Here the classes exclude each other: "
                "cross_entropy.",
            ),
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
        right="the share of the pictures whose largest logit is that of their class",
        reference=lambda x, y: (x.argmax(1) == y).float().mean().item(),
        cases=cases,
        mistakes=[
            (
                lambda x, y: (x.argmax(1) == y).sum(),
                "That counts the right ones. Divide by how many there are.",
            ),
            (
                lambda x, y: (x.argmax(1) == y).mean(),
                "True and False have no mean in PyTorch. Make numbers of them: .float().mean().",
            ),
            (
                lambda x, y: (x.argmax(1) == y).sum() / x.numel(),
                "Divide by the number of pictures, not by the number of logits.",
            ),
            (
                lambda x, y: 100 * (x.argmax(1) == y).float().mean(),
                "That is in percent. Here all right is 1.0.",
            ),
            (
                lambda x, y: (x.argmax(1) != y).float().mean(),
                "That is the share of the pictures that it names wrongly.",
            ),
            (
                lambda x, y: (x.max(1).values == y).float().mean(),
                "That compares the largest logit itself with the class number. argmax(1) says "
                "where the largest logit is.",
            ),
            (
                lambda x, y: (x.argmax(0) == y).float().mean(),
                "argmax(0) looks for the best picture of each class. The classes are on axis 1.",
            ),
            (
                lambda x, y: (x.argmax() == y).float().mean(),
                "argmax() without an axis looks for the largest number of the whole batch. The "
                "classes are on axis 1.",
            ),
            (
                lambda x, y: (x.argmax(1) == y).all().float(),
                "That is 1 only if every picture is right, and 0 otherwise: all() and // do that.",
            ),
        ],
    )
    if feedback.passed and _takes_apart(answer, cases[-1]):
        return Feedback(
            False,
            "✗ The number is right, but Python takes the tensor apart, one picture at a time. Use "
            "the tensor's own .sum() or .mean().",
        )
    return feedback


def _takes_apart(answer: Callable, case: tuple[Tensor, Tensor]) -> bool:
    """Whether the answer asks a tensor for its numbers one by one, or for a list of them."""
    taken: list[str] = []

    def watch(name: str) -> Callable:
        own = getattr(Tensor, name)

        def watched(tensor: Tensor, *arguments) -> Any:
            if name != "__getitem__" or isinstance(arguments[0], int):
                taken.append(name)
            return own(tensor, *arguments)

        return watched

    class Watched(np.ndarray):
        def __iter__(self) -> Iterator:
            taken.append("numpy")
            return super().__iter__()

    numpy = Tensor.numpy
    with ExitStack() as stack:
        as_array = patch.object(Tensor, "numpy", lambda *given: numpy(*given).view(Watched))
        stack.enter_context(as_array)
        for name in PARTS:
            stack.enter_context(patch.object(Tensor, name, watch(name)))
        with suppress(Exception):  # it has answered before: what it does now is no matter
            answer(*case)
    return bool(taken)


@lru_cache(maxsize=1)
def _heads() -> Any:
    """The study's numbers of the three heads: mean and spread by measure, place and model."""
    study = load_study()
    rows = study[study.experiment == "heads"]
    return rows.groupby(["measure", "at", "model"]).value.agg(["mean", "std"])


@lru_cache(maxsize=1)
def _differences() -> Any:
    """Training minus test accuracy: mean and spread by number of pictures and model."""
    study = load_study()
    both = study.measure.isin(["train_accuracy", "test_accuracy"])
    rows = study[(study.experiment == "overfitting") & both]
    rows = rows.pivot(index=["pictures", "model", "seed"], columns="measure", values="value")
    difference = rows.train_accuracy - rows.test_accuracy
    return difference.groupby(["pictures", "model"]).agg(["mean", "std"])


def _lead(measure: str, at: int, first: str, second: str) -> tuple[float, float]:
    """How far one head is ahead of another, and the larger spread of the two."""
    is_difference = measure == "difference"  # then the smaller one is ahead
    table = _differences() if is_difference else _heads().loc[measure]
    (one, spread), (other, other_spread) = (table.loc[(at, head)] for head in (first, second))
    return other - one if is_difference else one - other, max(spread, other_spread)


def _clear_winner(measure: str, at: int) -> str:
    for head in HEADS:
        leads = [_lead(measure, at, head, other) for other in HEADS if other != head]
        if all(lead > CLEAR * spread for lead, spread in leads):
            return head
    return "none"


def _accuracies(measure: str, at: int) -> str:
    table = _heads().loc[(measure, at)]
    return ", ".join(
        f"{head} {100 * table.loc[head, 'mean']:.1f} ± {100 * table.loc[head, 'std']:.1f} %"
        for head in HEADS
    )


@exercise
def check_winners(answer: Callable) -> Feedback:
    """Check exercise 4: which head is clearly ahead of both others, as they are and moved."""
    problem, value = call_answer(answer)
    if problem:
        return problem
    names = (*HEADS, "none")
    said = [item.lower() for item in value] if _are_words(value) and len(value) == 2 else None
    if said is None or isinstance(value, Set) or not set(said) <= set(names):
        return Feedback(
            False,
            f'✗ Expected two of {names}, such as ("gmp", "gmp"), your function returned {value!r}.',
        )
    asked = {"as they are": ("test_accuracy", 0), "moved by 4 px": ("accuracy_against_shift", 4)}
    lines, right = [], []
    for (place, where), name in zip(asked.items(), said, strict=True):
        winner = _clear_winner(*where)
        right.append(name == winner)
        ahead = f"{winner} is clearly ahead of both"
        if winner == "none":
            ahead = "no head is clearly ahead of both others"
        verdict = "as you say" if right[-1] else f"and you say {name}"
        lines.append(f"{place}: {_accuracies(*where)}; {ahead}, {verdict}.")
    return Feedback(all(right), "\n".join(["✓ Right:" if all(right) else "✗ Not so:", *lines]))


@exercise
def check_supported_claims(answer: Callable) -> Feedback:
    """Check exercise 5: the letters of the claims that the study supports."""
    problem, value = call_answer(answer)
    if problem:
        return problem
    words = [sign for sign in value if sign not in ", "] if isinstance(value, str) else value
    letters = {word.upper() for word in words} if _are_words(words) else None
    if letters is None or not letters <= set(CLAIMS):
        return Feedback(
            False,
            f'✗ Expected letters of {", ".join(CLAIMS)} in one string, such as "AD", or "" for '
            f"none; your function returned {value!r}.",
        )
    lines, supported = [], set()
    for letter, claim in CLAIMS.items():
        lead, spread = _lead(*claim)
        if lead > CLEAR * spread:
            supported.add(letter)
        is_how = "smaller" if claim[0] == "difference" else "ahead"
        lines.append(
            f"{letter}: {is_how} by {100 * lead:.1f} points, {lead / spread:.1f} times the spread "
            f"of {100 * spread:.1f}; {'clearly' if letter in supported else 'not clearly'}."
        )
    if letters != supported:
        said = ", ".join(sorted(letters)) or "none"
        lines.append(f"You named {said}. A claim needs a lead of over {CLEAR} times the spread.")
        return Feedback(False, "\n".join(["✗ Not so:", *lines]))
    return Feedback(True, "\n".join(["✓ Right:", *lines]))


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
        right="pictures of 28×28 get the logits they had, others are averaged to 3×3 maps",
        reference=to_3x3,
        cases=[
            (network, random_features(2, 1, 28, 28)),
            (network, random_features(1, 1, 32, 32)),
            (network, random_features(2, 1, 40, 51)),
            (other, random_features(1, 1, 52, 36)),
        ],
        sums=True,
        mistakes=[
            (
                lambda model, images: model(images),
                "The maps of 32×32 pictures are 4×4. Bring them to 3×3 in front of model.head.",
            ),
            (
                lambda model, images: model.head(model.body(images)),
                "The maps of 32×32 pictures are 4×4. Bring them to 3×3 in front of model.head.",
            ),
            (
                lambda model, images: model.head(F.adaptive_avg_pool2d(model.body(images), 1)),
                "That is GAP: 32 numbers are left, and the head has weights for 32 × 3 × 3.",
            ),
            (
                lambda model, images: to_3x3(model, images).softmax(1),
                "Those are probabilities. The task asks for logits: leave the softmax out.",
            ),
            (
                lambda model, images: to_3x3(model, images, F.adaptive_max_pool2d),
                "That takes the largest number of each window. The task asks for averages.",
            ),
            (
                lambda model, images: model.head(model.body(images)[..., :3, :3]),
                "That cuts the maps and drops what is on the right and below. Let adaptive "
                "pooling average all of it.",
            ),
            (
                lambda model, images: model(images[..., :28, :28]),
                "That cuts the picture and drops what is on the right and below.",
            ),
            (
                lambda model, images: model(F.interpolate(images, size=(28, 28))),
                "That makes the picture smaller before the body sees it. It works; the task is "
                "about the maps behind the body.",
            ),
        ],
    )
