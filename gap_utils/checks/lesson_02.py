"""The checks of lesson 02."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gap_utils.checks.calling import Feedback, exercise
from gap_utils.checks.grading import features, grade, random_features

SIZES = [(2, 1, 2, 3), (8, 3, 3, 10), (64, 8, 10, 5), (128, 8, 8, 10), (512, 7, 7, 4096)]


@exercise
def check_flatten_parameters(answer: Callable) -> Feedback:
    """Check exercise 1: (C, H, W, K) -> number of parameters of the flatten head."""
    return grade(
        answer,
        lambda c, h, w, k: c * h * w * k + k,
        "one weight for each number and class, one bias for each class",
        lambda c, h, w, k: c * h * w * k,
        "The biases are missing: a linear layer adds one number to each class.",
        lambda c, h, w, k: c * h * w * k + 1,
        "That counts one bias for the whole layer. Each class has its own.",
        lambda c, h, w, k: c * h * w * k + c * h * w,
        "That counts one bias for each number that goes in. Biases belong to what comes out: one "
        "for each class.",
        lambda c, h, w, k: c * h * w * k + c,
        "That counts one bias for each channel. Biases belong to what comes out: one for each "
        "class.",
        lambda c, h, w, k: c * k + k,
        "That is a linear layer on one number per channel. Flatten keeps all C * H * W numbers.",
        lambda c, h, w, k: c * h * w,
        "That is how many numbers go in. Each class has a weight for each of them, and a bias.",
        lambda c, h, w, k: h * w * k + k,
        "That counts the numbers of one map. There are C maps.",
        lambda c, h, w, k: c * (h + w) * k + k,
        "That adds height and width. A map holds H * W numbers.",
        lambda c, h, w, k: c * h * w + k,
        "That is one weight for each number that goes in. Every class has a weight of its own for "
        "each of them: multiply by the classes.",
        cases=SIZES,
    )


@exercise
def check_gap_head(answer: Callable) -> Feedback:
    """Check exercise 2: features (N, C, H, W), weight (K, C), bias (K,) -> logits (N, K)."""

    def head(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x.mean((2, 3)), weight, bias)

    weight = features([[1, 0], [0, 1], [2, -1]])
    bias = features([0.5, 0, -1])
    wide = random_features(4, 3)
    return grade(
        answer,
        head,
        "logits for any height and width, for batch 1 and batch 4, with right gradients",
        lambda x, weight, bias: head(x, weight, None),
        "The bias is missing. Add it to every row.",
        lambda x, weight, bias: F.linear(x.sum((2, 3)), weight, bias),
        "That sums each map instead of averaging it: the logits grow with the picture.",
        lambda x, weight, bias: F.linear(x.amax((2, 3)), weight, bias),
        "That pools with the maximum. GAP takes the average.",
        lambda x, weight, bias: head(x, weight, bias)[0],
        "That is the first picture only. Return one row for each picture.",
        lambda x, weight, bias: head(x, weight, bias).squeeze(),
        "With one picture the batch axis is gone: squeeze() removes every axis of length 1.",
        lambda x, weight, bias: head(x, weight, bias).softmax(1),
        "Those are probabilities. The head returns logits, as they are.",
        lambda x, weight, bias: head(x, weight, bias).T,
        "The axes are swapped: that is (K, N).",
        lambda x, weight, bias: x.mean((2, 3)) @ weight + bias,
        lambda x, weight, bias: x.mean((2, 3)) @ weight,
        "The weight is (K, C): one row for each class. With @ it has to be turned over with .T "
        "first; F.linear does that itself.",
        lambda x, weight, bias: weight @ x.mean((2, 3)) + bias,
        lambda x, weight, bias: weight @ x.mean((2, 3)),
        "weight is (K, C) and the pooled features are (N, C). @ multiplies the last axis of the "
        "first with axis 0 of the second, and both have to be the channels: pooled @ weight.T.",
        lambda x, weight, bias: weight @ x.mean((2, 3)).T + bias,
        "weight @ pooled.T is (K, N), one column for each picture, and there the bias does not "
        "fit. Write it the other way round: pooled @ weight.T + bias.",
        lambda x, weight, bias: F.linear(x.mean((2, 3), True), weight, bias),
        "The pooled features still have axes of length 1, and F.linear works on the last axis. "
        "Take flatten(1), or no keepdim.",
        lambda x, weight, bias: F.conv2d(x, weight[..., None, None], bias),
        "Those are maps, one for each class. Average each of them.",
        lambda x, weight, bias: F.linear(x.flatten(1), weight, bias),
        "That flattens. Average height and width, so that one number per channel is left.",
        cases=[
            (features([[[[1, 3]], [[2, 8]]]]), weight, bias),
            (random_features(1, 3, 4, 4), wide, features([0.0, 1, 2, 3])),
            (random_features(4, 3, 2, 5), wide, features([0.0, 1, 2, 3])),
            (random_features(4, 5, 4, 3), random_features(3, 5), features([3.0, 2, 1])),
            (random_features(2, 3, 3, 2), random_features(3, 3), features([2.0, 1, 3])),
            (random_features(2, 1, 3, 2), random_features(1, 1), features([1.0])),
        ],
        gradients=True,
    )


@exercise
def check_keras_to_torch(answer: Callable) -> Feedback:
    """Check exercise 3: Keras kernel (H * W * C, K), C, H, W -> PyTorch weight (K, C * H * W)."""

    def moved(kernel: Tensor, shape: tuple[int, ...], order: tuple[int, ...]) -> Tensor:
        return kernel.reshape(*shape, kernel.shape[1]).permute(*order).flatten(1)

    return grade(
        answer,
        lambda kernel, c, h, w: moved(kernel, (h, w, c), (3, 2, 0, 1)),
        "each weight meets the number that it was learned for",
        lambda kernel, c, h, w: kernel.T,
        "That turns rows into columns and no more. The columns still stand in the order H, W, C, "
        "and PyTorch flattens in the order C, H, W.",
        lambda kernel, c, h, w: kernel.reshape(kernel.shape[1], -1),
        "reshape writes the same numbers into rows of another length; it does not turn rows into "
        "columns. And the order of the axes has to change.",
        lambda kernel, c, h, w: moved(kernel, (c, h, w), (3, 1, 2, 0)),
        "That goes the other way, from PyTorch's order to Keras's. The kernel comes in the order "
        "H, W, C.",
        lambda kernel, c, h, w: moved(kernel, (h, w, c), (3, 2, 1, 0)),
        "Height and width are swapped in the result.",
        lambda kernel, c, h, w: moved(kernel, (h, w, c), (3, 2, 0, 1)).T,
        "The order is right, but the result is (C * H * W, K), as in Keras. PyTorch wants (K, C * "
        "H * W).",
        lambda kernel, c, h, w: moved(kernel, (h, w, c), (2, 0, 1, 3)),
        lambda kernel, c, h, w: kernel.reshape(h, w, c, -1).permute(2, 0, 1, 3),
        "C, H, W is the right order, but the classes still stand behind it. PyTorch has a row for "
        "each class: begin with their axis, and flatten the three behind it.",
        lambda kernel, c, h, w: kernel.reshape(h, w, c, -1).permute(3, 2, 0, 1),
        "The order is right. Flatten the last three axes.",
        lambda kernel, c, h, w: torch.reshape(kernel.T, (-1, c, h, w)),
        "The weight has four axes. Flatten the last three; and the order of the axes has to "
        "change, not only their names.",
        lambda kernel, c, h, w: kernel.reshape(h, w, c).permute(2, 0, 1).flatten(),
        lambda kernel, c, h, w: kernel.reshape(h, w, c).permute(2, 0, 1).flatten()[None],
        lambda kernel, c, h, w: kernel.reshape(h, w, c).permute(2, 0, 1).flatten(1),
        "That is how one row is reordered. The kernel has K columns, and they are a fourth axis: "
        "give reshape a fourth length, and begin the new order with that axis.",
        cases=[  # the first digit names the map, as in the lesson
            (features([[11], [21], [12], [22]]), 2, 1, 2),
            (features([[11, 51], [21, 61], [12, 52], [22, 62]]), 2, 2, 1),
            (random_features(5 * 2 * 3, 4), 3, 5, 2),
            (random_features(2 * 2 * 2, 8), 2, 2, 2),
        ],
        exact=True,
    )
