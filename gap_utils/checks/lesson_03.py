"""The checks of lesson 03: repairs of global average pooling that looks right and is not."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gap_utils.checks.calling import Feedback, exercise
from gap_utils.checks.grading import features, grade, make_layer, random_features

RIGHT = "batch 1 and batch 4, square maps and others, and the gradients are right"
SQUEEZED = (
    "With one picture the batch axis is gone: squeeze() removes every axis of length 1. "
    "flatten(1) removes only those behind the first."
)
LEFT_OVER = "Axes of length 1 are left over. flatten(1) removes them and keeps the batch axis."
LARGEST = "That keeps the largest number of each map: global max pooling."
NOT_MOVED = (
    "reshape and view do not move the channels: they cut the same row of numbers elsewhere. To "
    "move an axis, use permute."
)
TOTAL = "That is the sum of each map. Divide it by how many numbers the map has."


def _maps(*shape: int) -> list[tuple[Tensor]]:
    """Two inputs of one shape, channels-last in memory and cut out of larger maps."""
    n, c, h, w = shape
    channels_last = random_features(n, c, h, w).contiguous(memory_format=torch.channels_last)
    return [(channels_last,), (random_features(n, c, h, w + 1)[..., 1:],)]


@exercise
def check_pool_any_batch(answer: Callable) -> Feedback:
    """Check exercise 1: maps (N, K, H, W) and a layer that pools them -> logits (N, K)."""
    mean, largest = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
    return grade(
        answer,
        lambda x, pool: pool(x)[:, :, 0, 0],
        RIGHT,
        lambda x, pool: pool(x).squeeze(),
        SQUEEZED,
        lambda x, pool: pool(x),
        lambda x, pool: pool(x).squeeze(-1),
        LEFT_OVER,
        lambda x, pool: pool(x).view(-1, 10),
        "That is right for 10 classes and no others. Name the batch axis instead of the classes: "
        "flatten(1).",
        lambda x, pool: pool(x).flatten(),
        "flatten() without a number makes one long row of the whole batch. flatten(1) starts at "
        "axis 1.",
        lambda x, pool: pool(x).squeeze()[None],
        "A new axis in front mends batch 1 and spoils the others: with 4 pictures the shape is (1, "
        "4, K).",
        lambda x, pool: x.mean((2, 3)),
        "That is the average, and the layer that is handed over need not take averages: here it "
        "takes the maximum. Call it: pool(maps).",
        lambda x, pool: x.amax((2, 3)),
        "That is the maximum, and the layer that is handed over need not take the maximum: here it "
        "takes the average. Call it: pool(maps).",
        lambda x, pool: x.mean(1).flatten(1),
        "That averages over the classes. Keep axis 1 and pool height and width.",
        lambda x, pool: x.flatten(1),
        "The maps have not been pooled. Call the layer first: pool(maps).",
        cases=[
            *((features([[[[1, 5]], [[2, 4]]]]), pool) for pool in (mean, largest)),
            (random_features(1, 3, 4, 4), mean),
            (random_features(4, 1, 3, 3), mean),
            (random_features(3, 7, 4, 2), largest),
            *((x, mean) for (x,) in _maps(4, 3, 2, 5)),
        ],
        gradients=True,
    )


@exercise
def check_pool_channels_last(answer: Callable) -> Feedback:
    """Check exercise 2: features (N, H, W, C) -> averages (N, C)."""
    return grade(
        answer,
        lambda x: x.mean((1, 2)),
        RIGHT,
        lambda x: x.mean((2, 3)),
        "That averages width and channels, and leaves one number per row of the picture. Here "
        "height and width are axes 1 and 2.",
        lambda x: x.mean((1, 2), keepdim=True),
        "The averages are right. Leave keepdim out, and the shape is (N, C).",
        lambda x: x.mean((1, 2), keepdim=True).squeeze(),
        SQUEEZED,
        lambda x: x.mean((1, 3)),
        "That is one pair of axes too far. In (N, H, W, C) height and width are axes 1 and 2; "
        "behind permute(0, 3, 1, 2) they are axes 2 and 3.",
        lambda x: x.mean((1, 2, 3)),
        "That averages the channels too. Keep the last axis.",
        lambda x: x.reshape(len(x), x.shape[3], -1).mean(2),
        lambda x: x.view(len(x), x.shape[3], -1).mean(2),
        NOT_MOVED,
        lambda x: x.amax((1, 2)),
        LARGEST,
        lambda x: x.sum((1, 2)),
        TOTAL,
        cases=[
            (features([[[[1, 2], [5, 4]]]]),),
            (random_features(1, 4, 4, 4),),
            (random_features(4, 2, 5, 3),),
            (random_features(4, 2, 6, 3)[:, :, 1:],),
            (random_features(2, 5, 3, 4),),
            (random_features(3, 4, 2, 1),),
            (random_features(2, 3, 4, 7),),
        ],
        gradients=True,
    )


@exercise
def check_pool_any_size(answer: Callable) -> Feedback:
    """Check exercise 3: features of any size -> the averages of a grid, (N, C, rows, columns)."""
    grid = F.adaptive_avg_pool2d
    return grade(
        answer,
        lambda x, rows, columns: grid(x, (rows, columns)),
        "one average per window at every size; " + RIGHT,
        lambda x, rows, columns: F.avg_pool2d(x, 3),
        "A window of 3 is the whole map only while the map is 3×3. Compute the window from the "
        "sides of the map and of the grid.",
        lambda x, rows, columns: F.avg_pool2d(x, x.shape[2] // rows),
        lambda x, rows, columns: F.avg_pool2d(x, x.shape[3] // columns),
        "A window with one side given is a square. Give it two: its height from H and rows, its "
        "width from W and columns.",
        lambda x, rows, columns: F.avg_pool2d(x, (rows, columns)),
        "rows and columns say how many windows there are. Here they became the size of the window.",
        lambda x, rows, columns: F.avg_pool2d(x, x.shape[2:]),
        "That window is the whole map: it makes a grid of 1×1, whatever rows and columns say.",
        lambda x, rows, columns: x.mean((2, 3)),
        "That is one average for the whole map, without axes for the grid. The shape should be (N, "
        "C, rows, columns), for a grid of 1×1 too.",
        lambda x, rows, columns: grid(x, (columns, rows)),
        "Rows and columns of the grid are swapped.",
        lambda x, rows, columns: grid(x, (rows, columns)).flatten(1),
        "The averages are right, but they stand in one row. Leave the axes of the grid.",
        lambda x, rows, columns: F.interpolate(x, (rows, columns)),
        "Resizing picks some of the numbers. The average is over all of them.",
        lambda x, rows, columns: F.adaptive_max_pool2d(x, (rows, columns)),
        "That keeps the largest number of each window. The average is asked for.",
        lambda x, rows, columns: grid(x, (rows, columns)) * (x[0, 0].numel() // (rows * columns)),
        "That is the sum of each window. Divide it by how many numbers the window has.",
        cases=[
            (features([[[[1, 2, 3], [4, 5, 6], [7, 8, 18]]]]), 1, 1),
            (features([[[[1, 3, 5, 9], [3, 5, 1, 5]]]]), 1, 2),
            (random_features(1, 2, 7, 7), 1, 1),
            (random_features(2, 3, 6, 6), 2, 2),
            (random_features(1, 1, 9, 2), 3, 1),
            *((x, 2, 3) for (x,) in _maps(2, 3, 4, 6)),
            (random_features(3, 7, 6, 4), 3, 2),
        ],
        gradients=True,
    )


@exercise
def check_pool_volumes(answer: Callable) -> Feedback:
    """Check exercise 4: features (N, C, D, H, W) -> averages (N, C)."""
    pooled = nn.AdaptiveAvgPool3d(1)
    return grade(
        answer,
        lambda x: x.mean((2, 3, 4)),
        "three axes pooled; " + RIGHT,
        lambda x: pooled(x).view(x.size(), -1),
        "x.size() is the whole shape. The number of pictures is x.size(0), and view takes numbers, "
        "not a shape and a number.",
        pooled,
        LEFT_OVER,
        lambda x: pooled(x).squeeze(),
        SQUEEZED,
        lambda x: pooled(x).view(-1),
        "That makes one long row of the whole batch. Keep the batch: view(x.size(0), -1).",
        lambda x: x.mean((2, 3)),
        "That pools two of the three axes, so the width is left. Average axis 4 too.",
        lambda x: x.mean((3, 4)),
        "That pools height and width and leaves the depth. Average axis 2 too.",
        lambda x: F.avg_pool2d(x, x.shape[3:]).flatten(2),
        "avg_pool2d is for two spatial axes. Here are three: avg_pool3d.",
        lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        "adaptive_avg_pool2d averages height and width and leaves the depth. With three spatial "
        "axes it is adaptive_avg_pool3d.",
        lambda x: x.amax((2, 3, 4)),
        LARGEST,
        lambda x: x.sum((2, 3, 4)),
        TOTAL,
        cases=[
            (features([[[[[1, 3]], [[5, 7]]]]]),),
            (random_features(1, 2, 3, 3, 3),),
            (random_features(4, 2, 2, 3, 5),),
            (random_features(4, 2, 2, 3, 6)[..., 1:],),
            (random_features(2, 5, 4, 3, 2),),
            (random_features(3, 1, 2, 4, 3),),
        ],
        gradients=True,
    )


@exercise
def check_pool_then_linear(answer: Callable) -> Feedback:
    """Check exercise 5: features (N, C, H, W) and a linear layer C -> K, to logits (N, K)."""
    pooled = nn.AdaptiveAvgPool2d(1)
    return grade(
        answer,
        lambda x, linear: linear(x.mean((2, 3))),
        "one row of logits for each picture; " + RIGHT,
        lambda x, linear: linear(pooled(x)),
        "The pooled features still end in an axis of length 1, and a linear layer works on the "
        "last axis. Flatten between them.",
        lambda x, linear: linear(x.flatten(1)),
        "All numbers of each picture reach the linear layer. Pool first, then flatten.",
        lambda x, linear: linear(pooled(x).squeeze()),
        SQUEEZED,
        lambda x, linear: linear(pooled(x).flatten()),
        "flatten() without a number makes one long row of the whole batch. flatten(1) starts at "
        "axis 1.",
        lambda x, linear: linear(F.adaptive_max_pool2d(x, 1).flatten(1)),
        LARGEST,
        lambda x, linear: linear(x.sum((2, 3))),
        TOTAL,
        lambda x, linear: linear(x.movedim(1, -1)),
        "The linear layer was used at every position. Average height and width as well.",
        lambda x, linear: x.mean((2, 3)) @ linear.weight.T,
        "The bias of the linear layer is missing. Call the layer itself: linear(pooled).",
        lambda x, linear: x.mean((2, 3)),
        "The linear layer is missing: those are the pooled features.",
        cases=[
            (features([[[[1, 3]], [[2, 8]]]]), make_layer(nn.Linear, 2, 3)),
            (random_features(1, 5, 4, 4), make_layer(nn.Linear, 5, 3)),
            (random_features(4, 5, 2, 3), make_layer(nn.Linear, 5, 3)),
            *((x, make_layer(nn.Linear, 5, 3)) for (x,) in _maps(4, 5, 2, 3)),
            (random_features(3, 2, 4, 3), make_layer(nn.Linear, 2, 2)),
            (random_features(2, 1, 3, 2), make_layer(nn.Linear, 1, 1)),
        ],
        gradients=True,
    )


@exercise
def check_any_size_network(answer: Callable) -> Feedback:
    """Check exercise 6: images (N, 1, H, W) and a body with 10 maps, to logits (N, 10)."""
    body = nn.Sequential(make_layer(nn.Conv2d, 1, 10, 3, padding=1), nn.ReLU())
    return grade(
        answer,
        lambda images, body: body(images).mean((2, 3)),
        "one row for each picture, whatever its size; " + RIGHT,
        lambda images, body: body(images.view(-1, 1, 28, 28)).mean((2, 3)).view(-1, 10),
        "view(-1, 1, 28, 28) cuts larger pictures into pieces and calls each piece a picture. Hand "
        "the images to the body as they are.",
        lambda images, body: body(images.view(len(images), 1, 28, 28)).mean((2, 3)),
        "That wants 28×28 pictures. Hand the images to the body as they are.",
        lambda images, body: body(images[..., :28, :28]).mean((2, 3)),
        "That cuts the pictures off at 28. The rest of them counts too.",
        lambda images, body: body(F.interpolate(images, (28, 28))).mean((2, 3)),
        "That resizes the pictures to 28×28 first. GAP needs no fixed size.",
        lambda images, body: body(images),
        "Those are the maps. Average each of them.",
        lambda images, body: body(images).reshape(-1, 10),
        "Those are all numbers of the maps in rows of ten. Average each map first.",
        lambda images, body: body(images).amax((2, 3)),
        LARGEST,
        lambda images, body: F.adaptive_avg_pool2d(body(images), 1),
        LEFT_OVER,
        lambda images, body: F.adaptive_avg_pool2d(body(images), 1).squeeze(),
        SQUEEZED,
        lambda images, body: F.avg_pool2d(body(images), 28).flatten(1),
        "A window of 28 is the whole map only while the map is 28×28.",
        cases=[
            (random_features(1, 1, 28, 28), body),
            (random_features(2, 1, 56, 56), body),
            (random_features(4, 1, 20, 37), body),
            (random_features(3, 1, 6, 4), body),
        ],
        gradients=True,
    )
