"""The checks of lesson 01."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import torch
import torch.nn.functional as F
from torch import nn

from gap_utils.checks.calling import Feedback, exercise
from gap_utils.checks.grading import features, grade, random_features
from gap_utils.pooling import global_average_pool, output_size, pool

OVER_THE_EDGE = (
    "A window hangs over the edge, as with ceil_mode=True. When a row or column is left over, "
    "drop it."
)
SHORTENED = (  # what people do about the last two axes of a pooled tensor
    lambda pooled: pooled,
    lambda pooled: pooled.flatten(1),
    lambda pooled: pooled[:, :, 0, 0],
    lambda pooled: pooled.squeeze(),
)


@exercise
def check_gap(answer: Callable) -> Feedback:
    """Check lesson 01, exercise 1: features (N, C, H, W) -> their global averages (N, C)."""
    mean = torch.mean
    return grade(
        answer,
        global_average_pool,
        "one average per channel, for batch 1 and batch 4, square maps and others",
        lambda x: x.sum((2, 3)),
        "That is the sum of each channel. Divide it by the number of positions, H * W.",
        lambda x: x.amax((2, 3)),
        "That is the largest number of each channel: global max pooling.",
        lambda x: x.amin((2, 3)),
        "That is the smallest number of each channel.",
        lambda x: x.flatten(2).median(2).values,
        "That is the median of each channel, the middle number. The average is the sum divided by "
        "the count.",
        lambda x: mean(x, (1, 2)),
        "That averages axes 1 and 2. They are height and width in (N, H, W, C); here the shape is "
        "(N, C, H, W), so average axes 2 and 3.",
        lambda x: mean(x, (2, 3), True),
        "The averages are right, but two axes of length 1 are left over, as keepdim=True leaves "
        "them. The shape should be (N, C).",
        lambda x: mean(x, (2, 3), True).squeeze(),
        "With one picture the batch axis is gone: squeeze() removes every axis of length 1. Use "
        "flatten(1) instead, or no keepdim.",
        *(
            lambda x, side=side, way=way: way(F.avg_pool2d(x, x.shape[side]))
            for side in (2, 3)
            for way in SHORTENED
        ),
        "A window with one side given is a square, and a map need not be one. Give F.avg_pool2d "
        "both sides, x.shape[2:], and take the two axes of length 1 away with flatten(1).",
        lambda x: mean(x),
        "That is one average for the whole batch. GAP keeps one number per channel of each "
        "picture.",
        lambda x: mean(x, (0, 2, 3)),
        "That averages over the pictures of the batch too. Leave axis 0 alone.",
        lambda x: mean(x, 1),
        "That averages over the channels. GAP keeps the channels and averages the positions.",
        lambda x: mean(x, (1, 2, 3)),
        "That averages over the channels too. GAP keeps one number per channel.",
        lambda x: mean(x, 2),
        "That gives one average per column: only axis 2 is averaged. Average axis 3 too.",
        lambda x: mean(x, 3),
        "That gives one average per row: only axis 3 is averaged. Average axis 2 too.",
        lambda x: mean(x, (2, 3)).T,
        "The numbers are right, but the axes are swapped: that is (C, N).",
        lambda x: mean(x, (2, 3)).trunc(),
        "The decimals are cut off. Is there an integer division, //, or a conversion to int?",
        lambda x: mean(x, (2, 3)).round(),
        "The averages are rounded to whole numbers. Leave them as they are.",
        lambda x: mean(x, (2, 3)).floor(),
        "The decimals are rounded down. Is there an integer division, //?",
        cases=[
            (features([[[[1, 2], [3, 6]]]]),),
            (features([[[[1, 2, 6]], [[0, -3, 0]]]]),),
            (random_features(1, 3, 4, 4),),
            (random_features(4, 3, 2, 5),),
            (random_features(4, 7, 3, 2),),
        ],
    )


@exercise
def check_max_pool(answer: Callable) -> Feedback:
    """Check lesson 01, exercise 2: map (H, W) -> 2×2 max pooling with stride 2."""

    def pooled(image, **settings):
        return F.max_pool2d(image[None], 2, **settings)[0]

    return grade(
        answer,
        lambda image: pool(image[None, None], 2)[0, 0],
        "2×2 max pooling with stride 2, also where the size is odd",
        lambda image: F.avg_pool2d(image[None], 2)[0],
        "That is the average of each window, not its largest number.",
        lambda image: -pooled(-image),
        "That is the smallest number of each window, not the largest.",
        lambda image: pooled(image, stride=1),
        "The window moves by one. With stride 2 it moves by two: windows do not overlap.",
        lambda image: pooled(image, ceil_mode=True),
        OVER_THE_EDGE,
        lambda image: F.max_pool2d(image[None], 2, stride=1)[
            0, : len(image) // 2, : image.shape[1] // 2
        ],
        "The result has the right size, but its windows overlap: the window for row i and column "
        "j begins in row 2 * i and column 2 * j.",
        lambda image: pooled(image).T,
        "Rows and columns are swapped in the result.",
        lambda image: image.amax(),
        "That is the largest number of the whole map: global max pooling.",
        lambda image: image[: len(image) // 2 * 2 : 2, : image.shape[1] // 2 * 2 : 2],
        "That keeps the top left number of each window instead of comparing its four numbers.",
        lambda image: pooled(image).clamp(min=0),
        "Where all four numbers are negative your function returns 0. Does your maximum start at "
        "0? Start it with a number of the window.",
        cases=[
            (features([[1, 2], [3, 4]]),),
            (features([[-5, -2, 1, 3], [-4, -3, 0, 2]]),),
            (features([[1, 2, 9], [3, 4, 9], [9, 9, 9]]),),
            (random_features(7, 4),),
            # below the numbers that a maximum is started at
            (features([[-2e10, -3e10, 0], [-4e10, -2.5e10, 0]]),),
        ],
        exact=True,
    )


@exercise
def check_output_size(answer: Callable) -> Feedback:
    """Check lesson 01, exercise 4: (size, kernel_size, stride, padding) -> number of windows."""
    return grade(
        answer,
        output_size,
        "floor((size + 2 * padding - kernel_size) / stride) + 1",
        lambda n, k, s, p: (n + 2 * p - k) // s,
        "That counts the steps between windows. The first window needs no step: add 1.",
        lambda n, k, s, p: (n + p - k) // s + 1,
        "Padding is added at both ends, so it counts twice.",
        lambda n, k, s, p: (n - k) // s + 1,
        "Padding is left out. It makes the axis longer by 2 * padding.",
        lambda n, k, s, p: ceil((n + 2 * p - k) / s) + 1,
        "That rounds up. A window that hangs over the end is dropped: round down, with //.",
        lambda n, k, s, p: (n + 2 * p - k) / s + 1,
        "That is a fraction of a window. Round down: use // instead of /.",
        lambda n, k, s, p: n + 2 * p - k + 1,
        "The stride is left out: divide the room by it.",
        lambda n, k, s, p: (n + 2 * p) // s,
        "The kernel is left out. The last window must end inside the padded axis.",
        cases=[
            (4, 2, 2, 0),
            (7, 3, 1, 0),
            (7, 2, 2, 0),
            (7, 3, 1, 1),
            (28, 3, 2, 1),
            (32, 7, 2, 3),
            (7, 7, 1, 0),
            (10, 3, 3, 0),
            (11, 2, 5, 0),
            (8, 3, 3, 1),
        ],
    )


@exercise
def check_min_pool(answer: Callable) -> Feedback:
    """Check lesson 01, exercise 5: features (N, C, H, W) -> 2×2 min pooling with stride 2."""
    pooled = nn.MaxPool2d(2)
    return grade(
        answer,
        lambda x: pool(x, 2, mode="min"),
        "2×2 min pooling with stride 2; in one line, -max_pool(-x)",
        pooled,
        "That is max pooling.",
        lambda x: pooled(-x),
        "The sign of the result is wrong: turn it back with a minus in front of the pooling.",
        lambda x: -pooled(x),
        "The minus in front turns the maximum over. The numbers must change sign before the "
        "pooling too.",
        lambda x: F.avg_pool2d(x, 2),
        "That is average pooling.",
        lambda x: x.amin((2, 3)),
        "That is one minimum per channel, over the whole map. Keep one per 2×2 window.",
        lambda x: -F.max_pool2d(-x, 2, ceil_mode=True),
        OVER_THE_EDGE,
        cases=[
            (features([[[[1, 2], [3, 4]]]]),),
            (features([[[[-1, 2, 5, 7], [3, -4, 6, 8]]]]),),
            (features([[[[1, 2, 0], [3, 4, 0], [0, 0, 0]]]]),),
            (random_features(4, 3, 6, 4),),
            (features([[[[2e10, 3e10], [4e10, 2.5e10], [0, 0]]]]),),
        ],
        exact=True,
    )


@exercise
def check_gap_after_change(answer: Callable) -> Feedback:
    """Check lesson 01, exercise 3: (gap, count, old, new) -> GAP after one number changed."""
    return grade(
        answer,
        lambda gap, count, old, new: gap + (new - old) / count,
        "one number moves the average by (new - old) / count",
        lambda gap, count, old, new: gap + new - old,
        "The average moves by the whole change. Each number is only one of count numbers: divide "
        "the change by count.",
        lambda gap, count, old, new: gap - (new - old) / count,
        "The change has the wrong sign: new minus old, not old minus new.",
        lambda gap, count, old, new: gap + new / count,
        "The old number is still in the sum: take it out before the new one goes in.",
        lambda gap, count, old, new: (gap * count + new) / (count + 1),
        "That adds one more number. Here a number is replaced, so the count stays.",
        lambda gap, count, old, new: gap * count + new - old,
        "That is the new sum. Divide it by count.",
        cases=[
            (2.0, 4, 1.0, 5.0),
            (4.0625, 16, 9.0, 25.0),
            (0.5, 10, 3.0, -2.0),
            (1.0, 3, 1.0, 2.0),  # a third more: to round it is wrong
        ],
    )


@exercise
def check_gap_from_windows(answer: Callable) -> Feedback:
    """Check lesson 01, exercise 6: (means, counts) of windows -> the average of the whole map."""

    def total(means, counts):
        return sum(mean * count for mean, count in zip(means, counts, strict=True))

    return grade(
        answer,
        lambda means, counts: total(means, counts) / sum(counts),
        "each window counts as often as it has numbers",
        lambda means, counts: sum(means) / len(means),
        "That is the mean of the window means. A window with one number then weighs as much as a "
        "window with four: weight each mean by its count.",
        total,
        "That is the sum of the whole map. Divide it by how many numbers there are.",
        lambda means, counts: total(means, counts) / len(means),
        "That divides by the number of windows. Divide by the number of numbers, sum(counts).",
        lambda means, counts: sum(means) / sum(counts),
        "That divides the sum of the means by all numbers. First turn each mean back into a sum: "
        "mean * count.",
        cases=[
            ([4.0, 1.0], [2, 1]),
            ([3.0, 4.5, 7.5, 9.0], [4, 2, 2, 1]),
            ([4.25, 4.25, 4.25, 3.5], [4, 4, 4, 4]),
            ([1.0, 2.0], [1, 2]),
        ],
    )
