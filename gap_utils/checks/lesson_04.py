"""The checks of lesson 04: loss and accuracy, what a study shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from math import e, log, log10, sqrt
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gap_utils.checks.calling import AnswerError, Feedback, exercise
from gap_utils.checks.claims import Claim, check_claims
from gap_utils.checks.grading import features, grade, random_features

FEWER = (
    "GAP and GMP have 330 parameters in their head, flatten has 2,890: fewer parameters are not "
    "higher accuracy."
)
CLAIMS = {
    "A": Claim("flatten", "gmp", missed=FEWER),
    "B": Claim("flatten", "gap", missed=FEWER),
    "C": Claim("flatten", "gap", experiment="digits"),
}
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
        "0 is the loss where the right class has the probability 1. Here it has the score 1, and "
        "the softmax inside cross_entropy makes a smaller probability of that.",
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
        lambda x, y: F.cross_entropy(x, y).item(),
        "item() makes a Python number, and then loss.backward() has nothing to go back from. "
        "Return the tensor.",
        lambda x, y: F.cross_entropy(x.sigmoid().log(), y),
        "The sigmoid is still there. cross_entropy takes the logits as they are.",
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
        lambda x, y: (x.max(1) == y).float().mean(),
        "max(1) gives two tensors, the largest logits and where they are. argmax(1) gives the "
        "second alone.",
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
def check_head_claims(answer: Callable) -> Feedback:
    """Check exercise 4: the leads of a head that hold for single runs, and on average."""
    return check_claims(answer, CLAIMS)
