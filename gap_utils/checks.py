"""Feedback on the exercises: one check for each.

A check runs the learner's function on inputs from the smallest up, compares it with a
plain reference, and, where the answers are those of a known mistake, names the mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import ceil, isclose
from numbers import Real
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gap_utils.pooling import global_average_pool, output_size, pool


@dataclass(frozen=True)
class Feedback:
    """What a check says.

    Attributes:
        passed: whether the answer is right.
        message: what the learner reads.
    """

    passed: bool
    message: str

    def __repr__(self) -> str:
        return self.message


SHOWN = 12  # tensors with more numbers are named by their shape
OVER_THE_EDGE = (
    "A window hangs over the edge, as with ceil_mode=True. When a row or column is left over, "
    "drop it."
)
NOT_ATTEMPTED = Feedback(False, "not attempted yet")


@dataclass(frozen=True)
class _Outcome:
    """What a function did with one input: a value, or an exception."""

    value: Any = None
    error: Exception | None = None
    changed_input: bool = False


def check_numbers_per_map(answer: Callable) -> Feedback:
    """Check lesson 00, exercise 1: shape (N, C, H, W) -> the numbers in one map, H * W."""
    return _check(
        answer,
        right="one map of one channel holds H * W numbers",
        reference=lambda shape: shape[2] * shape[3],
        cases=[((1, 1, 2, 2),), ((1, 3, 4, 5),), ((8, 64, 7, 7),), ((4, 3, 600, 512),)],
        mistakes=[
            (
                lambda shape: shape[0] * shape[1] * shape[2] * shape[3],
                "That counts every number of the whole batch. One map is one channel of one "
                "picture.",
            ),
            (
                lambda shape: shape[1] * shape[2] * shape[3],
                "That counts all channels of one picture. One map is one channel.",
            ),
            (
                lambda shape: shape[2] + shape[3],
                "That adds the two sides. A grid of H rows and W columns holds H * W numbers.",
            ),
            (
                lambda shape: shape[1] * shape[2],
                "That multiplies axes 1 and 2, which are C and H. Counting starts at 0: H and W "
                "are axes 2 and 3.",
            ),
            (
                lambda shape: shape[0] * shape[1],
                "That multiplies N and C. These count the maps, not the numbers in one of them.",
            ),
        ],
    )


def check_gap(answer: Callable) -> Feedback:
    """Check lesson 01, exercise 1: features (N, C, H, W) -> their global averages (N, C)."""
    mean = torch.mean
    return _check(
        answer,
        right="one average per channel, for batch 1 and batch 4, square maps and others",
        reference=global_average_pool,
        cases=[
            (_features([[[[1, 2], [3, 6]]]]),),
            (_features([[[[1, 2, 6]], [[0, -3, 0]]]]),),
            (_random_features(1, 3, 4, 4),),
            (_random_features(4, 3, 2, 5),),
        ],
        mistakes=[
            (
                lambda x: x.sum((2, 3)),
                "That is the sum of each channel. Divide it by the number of positions, H * W.",
            ),
            (
                lambda x: x.amax((2, 3)),
                "That is the largest number of each channel: global max pooling.",
            ),
            (lambda x: x.amin((2, 3)), "That is the smallest number of each channel."),
            (
                lambda x: x.flatten(2).median(2).values,
                "That is the median of each channel, the middle number. The average is the sum "
                "divided by the count.",
            ),
            (
                lambda x: mean(x, (1, 2)),
                "That averages axes 1 and 2. They are height and width in (N, H, W, C); here the "
                "shape is (N, C, H, W), so average axes 2 and 3.",
            ),
            (
                lambda x: mean(x, (2, 3), True),
                "The averages are right, but two axes of length 1 are left over, as keepdim=True "
                "leaves them. The shape should be (N, C).",
            ),
            (
                lambda x: mean(x, (2, 3), True).squeeze(),
                "With one picture the batch axis is gone: squeeze() removes every axis of length "
                "1. Use flatten(1) instead, or no keepdim.",
            ),
            (
                lambda x: mean(x),
                "That is one average for the whole batch. GAP keeps one number per channel of "
                "each picture.",
            ),
            (
                lambda x: mean(x, (0, 2, 3)),
                "That averages over the pictures of the batch too. Leave axis 0 alone.",
            ),
            (
                lambda x: mean(x, 1),
                "That averages over the channels. GAP keeps the channels and averages the "
                "positions.",
            ),
            (
                lambda x: mean(x, (1, 2, 3)),
                "That averages over the channels too. GAP keeps one number per channel.",
            ),
            (
                lambda x: mean(x, 2),
                "That gives one average per column: only axis 2 is averaged. Average axis 3 too.",
            ),
            (
                lambda x: mean(x, 3),
                "That gives one average per row: only axis 3 is averaged. Average axis 2 too.",
            ),
            (
                lambda x: mean(x, (2, 3)).T,
                "The numbers are right, but the axes are swapped: that is (C, N).",
            ),
            (
                lambda x: mean(x, (2, 3)).trunc(),
                "The decimals are cut off. Is there an integer division, //, or a conversion to "
                "int?",
            ),
            (
                lambda x: mean(x, (2, 3)).floor(),
                "The decimals are rounded down. Is there an integer division, //?",
            ),
        ],
    )


def check_max_pool(answer: Callable) -> Feedback:
    """Check lesson 01, exercise 2: map (H, W) -> 2×2 max pooling with stride 2."""

    def pooled(image, **settings):
        return F.max_pool2d(image[None], 2, **settings)[0]

    return _check(
        answer,
        right="2×2 max pooling with stride 2, also where the size is odd",
        reference=lambda image: pool(image[None, None], 2)[0, 0],
        cases=[
            (_features([[1, 2], [3, 4]]),),
            (_features([[-5, -2, 1, 3], [-4, -3, 0, 2]]),),
            (_features([[1, 2, 9], [3, 4, 9], [9, 9, 9]]),),
            (_random_features(7, 4),),
        ],
        mistakes=[
            (
                lambda image: F.avg_pool2d(image[None], 2)[0],
                "That is the average of each window, not its largest number.",
            ),
            (
                lambda image: -pooled(-image),
                "That is the smallest number of each window, not the largest.",
            ),
            (
                lambda image: pooled(image, stride=1),
                "The window moves by one. With stride 2 it moves by two: windows do not overlap.",
            ),
            (
                lambda image: pooled(image, ceil_mode=True),
                OVER_THE_EDGE,
            ),
            (lambda image: pooled(image).T, "Rows and columns are swapped in the result."),
            (
                lambda image: image.amax(),
                "That is the largest number of the whole map: global max pooling.",
            ),
            (
                lambda image: image[: len(image) // 2 * 2 : 2, : image.shape[1] // 2 * 2 : 2],
                "That keeps the top left number of each window instead of comparing its four "
                "numbers.",
            ),
            (
                lambda image: pooled(image).clamp(min=0),
                "Where all four numbers are negative your function returns 0. Does your maximum "
                "start at 0? Start it with a number of the window.",
            ),
        ],
    )


def check_output_size(answer: Callable) -> Feedback:
    """Check lesson 01, exercise 4: (size, kernel_size, stride, padding) -> number of windows."""
    return _check(
        answer,
        right="floor((size + 2 * padding - kernel_size) / stride) + 1",
        reference=output_size,
        cases=[
            (4, 2, 2, 0),
            (7, 3, 1, 0),
            (7, 2, 2, 0),
            (7, 3, 1, 1),
            (28, 3, 2, 1),
            (32, 7, 2, 3),
        ],
        mistakes=[
            (
                lambda n, k, s, p: (n + 2 * p - k) // s,
                "That counts the steps between windows. The first window needs no step: add 1.",
            ),
            (
                lambda n, k, s, p: (n + p - k) // s + 1,
                "Padding is added at both ends, so it counts twice.",
            ),
            (
                lambda n, k, s, p: (n - k) // s + 1,
                "Padding is left out. It makes the axis longer by 2 * padding.",
            ),
            (
                lambda n, k, s, p: ceil((n + 2 * p - k) / s) + 1,
                "That rounds up. A window that hangs over the end is dropped: round down, with //.",
            ),
            (
                lambda n, k, s, p: (n + 2 * p - k) / s + 1,
                "That is a fraction of a window. Round down: use // instead of /.",
            ),
            (
                lambda n, k, s, p: n + 2 * p - k + 1,
                "The stride is left out: divide the room by it.",
            ),
            (
                lambda n, k, s, p: (n + 2 * p) // s,
                "The kernel is left out. The last window must end inside the padded axis.",
            ),
        ],
    )


def check_min_pool(answer: Callable) -> Feedback:
    """Check lesson 01, exercise 5: features (N, C, H, W) -> 2×2 min pooling with stride 2."""

    def pooled(x):
        return F.max_pool2d(x, 2)

    return _check(
        answer,
        right="2×2 min pooling with stride 2; in one line, -max_pool(-x)",
        reference=lambda x: pool(x, 2, mode="min"),
        cases=[
            (_features([[[[1, 2], [3, 4]]]]),),
            (_features([[[[-1, 2, 5, 7], [3, -4, 6, 8]]]]),),
            (_features([[[[1, 2, 0], [3, 4, 0], [0, 0, 0]]]]),),
            (_random_features(4, 3, 6, 4),),
        ],
        mistakes=[
            (pooled, "That is max pooling."),
            (
                lambda x: pooled(-x),
                "The sign of the result is wrong: turn it back with a minus in front of the "
                "pooling.",
            ),
            (
                lambda x: -pooled(x),
                "The minus in front turns the maximum over. The numbers must change sign before "
                "the pooling too.",
            ),
            (lambda x: F.avg_pool2d(x, 2), "That is average pooling."),
            (
                lambda x: x.amin((2, 3)),
                "That is one minimum per channel, over the whole map. Keep one per 2×2 window.",
            ),
            (
                lambda x: -F.max_pool2d(-x, 2, ceil_mode=True),
                OVER_THE_EDGE,
            ),
        ],
    )


def check_gap_after_change(answer: Callable) -> Feedback:
    """Check lesson 01, exercise 3: (gap, count, old, new) -> GAP after one number changed."""
    return _check(
        answer,
        right="one number moves the average by (new - old) / count",
        reference=lambda gap, count, old, new: gap + (new - old) / count,
        cases=[(2.0, 4, 1.0, 5.0), (4.0625, 16, 9.0, 25.0), (0.5, 10, 3.0, -2.0)],
        mistakes=[
            (
                lambda gap, count, old, new: gap + new - old,
                "The average moves by the whole change. Each number is only one of count "
                "numbers: divide the change by count.",
            ),
            (
                lambda gap, count, old, new: gap - (new - old) / count,
                "The change has the wrong sign: new minus old, not old minus new.",
            ),
            (
                lambda gap, count, old, new: gap + new / count,
                "The old number is still in the sum: take it out before the new one goes in.",
            ),
            (
                lambda gap, count, old, new: (gap * count + new) / (count + 1),
                "That adds one more number. Here a number is replaced, so the count stays.",
            ),
            (
                lambda gap, count, old, new: gap * count + new - old,
                "That is the new sum. Divide it by count.",
            ),
        ],
    )


def check_gap_from_windows(answer: Callable) -> Feedback:
    """Check lesson 01, exercise 6: (means, counts) of windows -> the average of the whole map."""

    def total(means, counts):
        return sum(mean * count for mean, count in zip(means, counts, strict=True))

    return _check(
        answer,
        right="each window counts as often as it has numbers",
        reference=lambda means, counts: total(means, counts) / sum(counts),
        cases=[
            ([4.0, 1.0], [2, 1]),
            ([3.0, 4.5, 7.5, 9.0], [4, 2, 2, 1]),
            ([4.25, 4.25, 4.25, 3.5], [4, 4, 4, 4]),
        ],
        mistakes=[
            (
                lambda means, counts: sum(means) / len(means),
                "That is the mean of the window means. A window with one number then weighs as "
                "much as a window with four: weight each mean by its count.",
            ),
            (total, "That is the sum of the whole map. Divide it by how many numbers there are."),
            (
                lambda means, counts: total(means, counts) / len(means),
                "That divides by the number of windows. Divide by the number of numbers, "
                "sum(counts).",
            ),
            (
                lambda means, counts: sum(means) / sum(counts),
                "That divides the sum of the means by all numbers. First turn each mean back "
                "into a sum: mean * count.",
            ),
        ],
    )


def _features(values: Sequence) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def _random_features(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3


def _check(
    answer: Callable,
    *,
    right: str,
    reference: Callable,
    cases: Sequence[tuple],
    mistakes: Sequence[tuple[Callable, str]],
) -> Feedback:
    """Grade an answer.

    Args:
        answer: the learner's function.
        right: what a right answer has shown, for the line that says so.
        reference: a plain function that is right.
        cases: arguments to try, the smallest first.
        mistakes: functions that make a known mistake, each with the sentence that names it.
    """
    if not callable(answer):
        return Feedback(
            False,
            f"✗ The check needs your function itself, got {_kind(answer)}. Write its name alone, "
            "without brackets behind it.",
        )
    outcomes = [_outcome(answer, case) for case in cases]
    if any(isinstance(outcome.error, NotImplementedError) for outcome in outcomes):
        return NOT_ATTEMPTED
    expected = [reference(*case) for case in cases]
    for case, outcome, wanted in zip(cases, outcomes, expected, strict=True):
        problem = _problem(outcome, wanted)
        if problem:
            named = _name_mistake(outcomes, cases, mistakes)
            lines = [f"✗ On {_show_case(case)} {problem}", *([named] if named else [])]
            return Feedback(False, "\n".join(lines))
    for case, outcome in zip(cases, outcomes, strict=True):
        if outcome.changed_input:
            return Feedback(
                False,
                f"✗ On {_show_case(case)} the result is right, but your function changed its "
                "input. Work on a copy: whoever called it still needs the numbers.",
            )
    return Feedback(True, f"✓ Right: {right}.")


def _outcome(function: Callable, case: tuple) -> _Outcome:
    arguments = deepcopy(case)
    try:
        value = function(*arguments)
    except Exception as error:  # whatever a learner's code raises becomes a sentence
        return _Outcome(error=error)
    changed = not all(_same(a, b) for a, b in zip(arguments, case, strict=True))
    return _Outcome(value=value, changed_input=changed)


def _problem(outcome: _Outcome, expected: Tensor | float) -> str | None:
    """Say what is wrong with an outcome; None where nothing is."""
    if outcome.error is not None:
        return f"your function raised {_show_error(outcome.error)}"
    value = outcome.value
    if value is None:
        return "your function returned None. Does it end with return?"
    if isinstance(expected, Tensor):
        return _tensor_problem(value, expected)
    value = _plain_number(value)
    if not isinstance(value, Real) or isinstance(value, bool):
        return f"your function returned {_kind(value)}, expected a number, {_show(expected)}"
    if not _close(value, expected):
        return _differs(value, expected)
    if isinstance(expected, int) and not isinstance(value, int):
        return (
            f"your function returned the float {value}, expected the integer {expected}. "
            "Use // where you divide, or int() at the end."
        )
    return None


def _tensor_problem(value: Any, expected: Tensor) -> str | None:
    shape = tuple(expected.shape)
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return f"your function returned {_kind(value)}, expected a tensor of shape {shape}"
    if value.device != expected.device:
        return (
            f"your function returned a tensor on the device {value.device}, expected "
            f"{expected.device}, where the features are"
        )
    if value.shape != expected.shape:
        return f"your function returned shape {tuple(value.shape)}, expected {shape}"
    if value.dtype != expected.dtype:
        return f"your function returned {value.dtype} numbers, expected {expected.dtype}"
    wrong = ~torch.isclose(value, expected, rtol=1e-5, atol=1e-6)
    if not wrong.any():
        return None
    if expected.numel() <= SHOWN:
        return _differs(value, expected)
    place = tuple(wrong.nonzero()[0].tolist())
    return f"at position {list(place)} " + _differs(value[place].item(), expected[place].item())


def _differs(value: Any, expected: Any) -> str:
    shown, wanted = _show(value), _show(expected)
    hint = " with more decimals: do not round" if shown == wanted else ""
    return f"your function returned {shown}, expected {wanted}{hint}"


def _show_error(error: Exception) -> str:
    name, text = type(error).__name__, str(error)
    return f"{name}: {text}" if text else name


def _close(a: Real, b: Real) -> bool:
    try:
        return isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
    except OverflowError:  # an integer beyond the range of floats
        return a == b


def _name_mistake(
    outcomes: Sequence[_Outcome], cases: Sequence[tuple], mistakes: Sequence[tuple[Callable, str]]
) -> str | None:
    """Find the mistake whose results are the learner's on every input."""
    if any(outcome.error for outcome in outcomes):
        return None
    for mistake, sentence in mistakes:
        made = [_outcome(mistake, case).value for case in cases]
        if all(_same(o.value, m) for o, m in zip(outcomes, made, strict=True)):
            return sentence
    return None


def _same(a: Any, b: Any) -> bool:
    a, b = _plain_number(a), _plain_number(b)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return (
            a.device == b.device
            and a.layout == b.layout
            and a.is_complex() == b.is_complex()
            and a.shape == b.shape
            and torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-6)
        )
    if isinstance(a, Real) and isinstance(b, Real):
        return _close(a, b)
    if isinstance(a, list | tuple) and type(a) is type(b):
        return len(a) == len(b) and all(map(_same, a, b))
    return False


def _plain_number(value: Any) -> Any:
    """Take a NumPy number or a tensor of no axes for the Python number it holds."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    if isinstance(value, Tensor) and value.ndim == 0 and value.device.type != "meta":
        return value.item()
    return value


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return "a NumPy array"
    if isinstance(value, Tensor):
        layout = "a tensor" if value.layout == torch.strided else "a sparse tensor"
        return f"{layout} of shape {tuple(value.shape)}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _show_case(case: tuple) -> str:
    return f"the input {', '.join(map(_show, case))}:"


def _show(value: Any) -> str:
    """Write a value briefly: small tensors as lists, large ones by their shape."""
    if isinstance(value, Tensor):
        if value.numel() > SHOWN:
            return f"features of shape {tuple(value.shape)}"
        return str(_rounded(value.tolist()))
    return str(_rounded(value))


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if not isinstance(value, float):
        return value
    return int(value) if value.is_integer() else round(value, 4)
