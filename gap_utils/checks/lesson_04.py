"""The checks of lesson 04: loss and accuracy, what a study shows, another picture size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from math import e, log, log10, sqrt
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from gap_utils.checks.grading import NOT_ATTEMPTED, Feedback, features, grade, random_features
from gap_utils.data import load_study
from gap_utils.models import HEADS, build_convnet

CLEAR = 3  # a lead counts when it is over so many times the spread between the seeds
# letter -> measure, where, the head that is said to be ahead, the other
CLAIMS = {
    "A": ("test_accuracy", 0, "flatten", "gap"),
    "B": ("test_accuracy", 0, "gap", "gmp"),
    "C": ("accuracy_against_shift", 4, "gap", "flatten"),
}
SQUASHED = "still squeezes the logits before cross_entropy, which has its own softmax inside"


def check_loss_floor(answer: Callable) -> Feedback:
    """Check exercise 1: the smallest cross-entropy behind a sigmoid, for some classes."""
    return grade(
        answer,
        right="ln(1 + (K - 1) / e), 1.4611 for ten classes",
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


def check_mended_loss(answer: Callable) -> Feedback:
    """Check exercise 2: the loss of logits (N, K) for class numbers (N,)."""
    return grade(
        answer,
        right="the mean over the pictures of minus the log-probability, and its gradient",
        reference=F.cross_entropy,
        cases=[
            (features([[2, 0]]), torch.tensor([0])),
            (features([[0, 1], [3, 1]]), torch.tensor([1, 1])),
            (random_features(5, 10), torch.tensor([3, 0, 9, 9, 1])),
        ],
        mistakes=[
            (lambda x, y: F.cross_entropy(x.sigmoid(), y), f"The sigmoid {SQUASHED}."),
            (lambda x, y: F.cross_entropy(x.softmax(1), y), f"The softmax {SQUASHED}."),
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


def check_accuracy(answer: Callable) -> Feedback:
    """Check exercise 3: the part of the pictures that logits (N, K) name rightly."""
    feedback = grade(
        answer,
        right="the part of the pictures whose largest logit is that of their class",
        reference=lambda x, y: (x.argmax(1) == y).float().mean().item(),
        cases=[
            (features([[2, 0], [0, 1], [3, 1]]), torch.tensor([0, 1, 1])),
            (features([[0, 1, 5], [3, 1, 0]]), torch.tensor([2, 0])),
            (random_features(7, 10), random_features(7, 10).argmax(1).roll(2)),
        ],
        mistakes=[
            (
                lambda x, y: (x.argmax(1) == y).sum(),
                "That counts the right ones. Divide by how many there are.",
            ),
            (
                lambda x, y: (x.argmax(1) == y).sum() / x.numel(),
                "Divide by the number of pictures, not by the number of logits.",
            ),
            (
                lambda x, y: (x.argmax(1) != y).float().mean(),
                "That is the part of the pictures that it names wrongly.",
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
                lambda x, y: (x.argmax(1) == y).all().float(),
                "all() asks whether every picture is right.",
            ),
        ],
    )
    if feedback.passed and _walks_through_tensors(answer):
        return Feedback(
            False,
            "✗ The number is right, but Python takes the tensor apart, one picture at a time. Use "
            "the tensor's own .sum() or .mean().",
        )
    return feedback


def _walks_through_tensors(answer: Callable) -> bool:
    walked: list[int] = []
    own_iter = Tensor.__iter__

    def watched(tensor: Tensor) -> Iterator:
        walked.append(len(tensor))
        return own_iter(tensor)

    with patch.object(Tensor, "__iter__", watched):
        answer(random_features(7, 10), torch.zeros(7, dtype=torch.long))
    return bool(walked)


@lru_cache(maxsize=1)
def _heads() -> Any:
    """The study's numbers of the three heads: mean and spread by measure, place and model."""
    study = load_study()
    rows = study[study.experiment == "heads"]
    return rows.groupby(["measure", "at", "model"]).value.agg(["mean", "std"])


def _lead(measure: str, at: int, first: str, second: str) -> tuple[float, float]:
    """How far one head is ahead of another, and the larger spread of the two."""
    (one, spread), (other, other_spread) = (
        _heads().loc[(measure, at, head)] for head in (first, second)
    )
    return one - other, max(spread, other_spread)


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


def check_winners(answer: Callable) -> Feedback:
    """Check exercise 4: which head is clearly ahead, centred and moved by 4 px."""
    value = _call(answer)
    if isinstance(value, Feedback):
        return value
    names = (*HEADS, "none")
    if isinstance(value, set) or not _is_some_of(value, names) or len(value) != 2:
        return Feedback(False, f"✗ Expected two of {names}, your function returned {value!r}.")
    asked = {"centred": ("test_accuracy", 0), "moved by 4 px": ("accuracy_against_shift", 4)}
    lines = []
    for (place, where), said in zip(asked.items(), value, strict=True):
        verdict = "as you say" if said == _clear_winner(*where) else f"and you say {said}"
        winner = _clear_winner(*where)
        ahead = "no head is clearly ahead" if winner == "none" else f"{winner} is clearly ahead"
        lines.append(f"{place}: {_accuracies(*where)}; {ahead}, {verdict}.")
    passed = all(line.endswith("as you say.") for line in lines)
    return Feedback(passed, "\n".join(["✓ Right:" if passed else "✗ Not so:", *lines]))


def check_supported_claims(answer: Callable) -> Feedback:
    """Check exercise 5: the letters of the claims that the study supports."""
    value = _call(answer)
    if isinstance(value, Feedback):
        return value
    if not _is_some_of(value, tuple(CLAIMS)):
        return Feedback(
            False,
            f"✗ Expected some of the letters {''.join(CLAIMS)}, your function returned {value!r}.",
        )
    lines, wrong = [], False
    for letter, claim in CLAIMS.items():
        lead, spread = _lead(*claim)
        holds = lead > CLEAR * spread
        wrong |= holds != (letter in value)
        lines.append(
            f"{letter}: ahead by {100 * lead:.1f} points, {lead / spread:.1f} times the spread of "
            f"{100 * spread:.1f}; {'supported' if holds else 'not supported'}."
        )
    if wrong:
        said = ", ".join(sorted(value)) or "none"
        lines.append(f"You named {said}. A claim needs a lead of over {CLEAR} times the spread.")
    return Feedback(not wrong, "\n".join(["✗ Not so:" if wrong else "✓ Right:", *lines]))


def _is_some_of(value: Any, names: tuple[str, ...]) -> bool:
    return isinstance(value, str | set | tuple | list) and all(item in names for item in value)


def _call(answer: Callable) -> Any:
    """What the learner's function returns, or the feedback on why it returns nothing."""
    if not callable(answer):
        return Feedback(
            False, "✗ The check needs your function itself: its name, without brackets behind it."
        )
    try:
        value = answer()
    except NotImplementedError as error:
        if not error.args:
            return NOT_ATTEMPTED
        return Feedback(False, f"✗ Your function raised NotImplementedError: {error}")
    except Exception as error:  # whatever a learner's code raises becomes a sentence
        return Feedback(False, f"✗ Your function raised {type(error).__name__}: {error}")
    if value is None:
        return Feedback(False, "✗ Your function returned None. Does it end with return?")
    return value


def check_flatten_any_size(answer: Callable) -> Feedback:
    """Check exercise 6: a trained flatten network and pictures of any size -> logits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_convnet("flatten").float().eval()

    def to_3x3(model, images, pool=F.adaptive_avg_pool2d):
        return model.head(pool(model.body(images), 3))

    return grade(
        answer,
        right="pictures of 28×28 get the logits they had, others are pooled to 3×3 maps",
        reference=to_3x3,
        cases=[
            (network, random_features(2, 1, 28, 28)),
            (network, random_features(1, 1, 32, 32)),
            (network, random_features(2, 1, 40, 51)),
        ],
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
        gradients=True,
    )
