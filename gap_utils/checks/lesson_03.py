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
    """Check exercise 1: a layer that pools maps (N, K, H, W) -> (N, K), and (K, H, W) -> (K,)."""
    mean, largest = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
    return grade(
        answer,
        lambda x, pool: pool(x).flatten(-3),
        "a batch of four, a batch of one and a picture without a batch; " + RIGHT,
        lambda x, pool: pool(x).squeeze(),
        "With one picture the batch axis is gone: squeeze() removes every axis of length 1. Say "
        "which axes are to go.",
        lambda x, pool: pool(x).flatten(1),
        lambda x, pool: pool(x).view(len(x), -1),
        "That is right with a batch axis. In one picture, (K, H, W), the classes are axis 0, and "
        "height and width are the last two axes in both cases: count from the end.",
        lambda x, pool: pool(x).mean((2, 3)),
        lambda x, pool: pool(x)[:, :, 0, 0],
        lambda x, pool: pool(x).squeeze(2).squeeze(2),
        lambda x, pool: pool(x).squeeze(3).squeeze(2),
        "One picture, (K, H, W), has no axis 3. Height and width are the last two axes in both "
        "cases: count from the end.",
        lambda x, pool: pool(x),
        lambda x, pool: pool(x).squeeze(-1),
        lambda x, pool: pool(x).flatten(-2),
        "Axes of length 1 are left over. Both height and width have to go.",
        lambda x, pool: pool(x).view(-1, 10),
        "That is right for 10 classes and no others. Do not name the number of classes.",
        lambda x, pool: pool(x).flatten(),
        "flatten() without a number makes one long row of the whole batch. Say at which axis it "
        "is to start.",
        lambda x, pool: pool(x).squeeze()[None],
        "A new axis in front mends batch 1 and spoils the others: with 4 pictures the shape is (1, "
        "4, K).",
        lambda x, pool: x.mean((2, 3)),
        lambda x, pool: x.mean((-2, -1)),
        "That is the average, and the layer that is handed over need not take averages: here it "
        "takes the maximum. Call it: pool(maps).",
        lambda x, pool: x.amax((2, 3)),
        lambda x, pool: x.amax((-2, -1)),
        "That is the maximum, and the layer that is handed over need not take the maximum: here it "
        "takes the average. Call it: pool(maps).",
        lambda x, pool: x.mean(-3).flatten(1),
        "That averages over the classes. Keep their axis and pool height and width.",
        lambda x, pool: x.flatten(-3),
        lambda x, pool: x.flatten(1),
        "The maps have not been pooled. Call the layer first: pool(maps).",
        cases=[
            *((features([[[[1, 5]], [[2, 4]]]]), pool) for pool in (mean, largest)),
            *((features([[[1, 5]], [[2, 4]]]), pool) for pool in (mean, largest)),
            (random_features(1, 3, 4, 4), mean),
            (random_features(4, 1, 3, 3), mean),
            (random_features(1, 4, 3), mean),
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


def _fixed_network(classes: int, maps: int, window: int) -> nn.Sequential:
    """A network whose pooling is GAP for maps of one size."""
    return nn.Sequential(
        make_layer(nn.Conv2d, 1, maps, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(window),
        nn.Flatten(),
        make_layer(nn.Linear, maps, classes),
    )


@exercise
def check_pool_any_size(answer: Callable) -> Feedback:
    """Check exercise 3: a network with a fixed window, images of any size -> logits (N, K)."""
    small, large = _fixed_network(3, 2, 3), _fixed_network(2, 4, 4)

    def with_pool(pool: Callable) -> Callable:
        return lambda network, x: network[4](pool(network[:2](x), network[2].kernel_size))

    return grade(
        answer,
        with_pool(lambda maps, k: maps.mean((2, 3))),
        "the layers of the network, and GAP at every size; " + RIGHT,
        lambda network, x: network(x),
        "That is the network as it was: its window is the whole map at one size only. Leave out "
        "network[2] and pool with something else.",
        with_pool(lambda maps, k: F.avg_pool2d(maps, k).mean((2, 3))),
        "Those are the windows that fit. What is left at the edges is in none of them.",
        with_pool(lambda maps, k: F.avg_pool2d(maps, k, ceil_mode=True).mean((2, 3))),
        with_pool(lambda maps, k: F.adaptive_avg_pool2d(maps, k).mean((2, 3))),
        "That is a mean of means. Where windows differ in size or overlap, some numbers count for "
        "more than others. Average the whole map at once.",
        with_pool(lambda maps, k: F.avg_pool2d(maps, maps.shape[2]).flatten(1)),
        with_pool(lambda maps, k: F.avg_pool2d(maps, maps.shape[3]).flatten(1)),
        "A window with one side given is a square. A map need not be one.",
        lambda network, x: network(F.interpolate(x, (network[2].kernel_size,) * 2)),
        with_pool(lambda maps, k: F.interpolate(maps, (k, k)).mean((2, 3))),
        "Resizing picks some of the numbers. GAP takes all of them and needs no fixed size.",
        lambda network, x: network(x[..., : network[2].kernel_size, : network[2].kernel_size]),
        "That cuts the pictures to one size. The rest of them counts too.",
        with_pool(lambda maps, k: F.adaptive_avg_pool2d(maps, 1)),
        "The flatten is missing: a linear layer works on the last axis.",
        with_pool(lambda maps, k: F.adaptive_avg_pool2d(maps, 1).squeeze()),
        SQUEEZED,
        with_pool(lambda maps, k: maps.amax((2, 3))),
        LARGEST,
        with_pool(lambda maps, k: maps.sum((2, 3))),
        TOTAL,
        lambda network, x: x.mean((2, 3)),
        "Those are the averages of the pictures. They go through the layers of the network first.",
        lambda network, x: network[:2](x).mean((2, 3)),
        "Those are the pooled maps. The linear layer, network[4], is missing.",
        lambda network, x: network[4](network[:2](x)),
        lambda network, x: network[4](network[:2](x).flatten(1)),
        "The pooling is missing: average each map before the linear layer.",
        lambda network, x: network[4](network[0](x).mean((2, 3))),
        "The ReLU, network[1], is missing. All layers but the pooling stay.",
        cases=[
            (small, random_features(1, 1, 3, 3)),
            (small, random_features(1, 1, 5, 5)),
            (small, random_features(1, 1, 7, 7)),
            (small, random_features(1, 1, 4, 6)),
            (small, random_features(4, 1, 4, 6)),
            *((large, x) for (x,) in _maps(3, 1, 7, 5)),
            (large, random_features(2, 1, 3, 2)),
        ],
        gradients=True,
    )


@exercise
def check_pool_any_axes(answer: Callable) -> Feedback:
    """Check exercise 4: features (N, C, L), (N, C, H, W) or (N, C, D, H, W) -> averages (N, C)."""
    return grade(
        answer,
        lambda x: x.flatten(2).mean(2),
        "it pools one, two and three axes; " + RIGHT,
        lambda x: F.avg_pool3d(x, x.size()[2:]).view(x.size(), -1),
        lambda x: F.avg_pool3d(x, x.size()[2:]).view(x.size(0), -1),
        lambda x: F.avg_pool3d(x, x.shape[2:]).flatten(1),
        lambda x: F.adaptive_avg_pool3d(x, 1).view(x.size(), -1),
        lambda x: F.adaptive_avg_pool3d(x, 1).flatten(1),
        "A 3-D pooling wants three spatial axes. Here there may be one, two or three: make one of "
        "them first, or name them by x.ndim.",
        lambda x: x.mean((2, 3, 4)),
        "That is right for volumes. A picture has no axis 4, and a signal has no axis 3: make one "
        "axis of them first, or name them by x.ndim.",
        lambda x: x.mean((2, 3)),
        lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        "That is right for pictures. A signal has one spatial axis and a volume three: make one "
        "axis of them first, or name them by x.ndim.",
        lambda x: x.mean(2),
        lambda x: x.mean(-1),
        "That averages one axis. It is right for signals only.",
        lambda x: x.mean((-2, -1)),
        lambda x: x.mean((-3, -2, -1)),
        "Counted from the end, a fixed number of axes reaches the channels or leaves an axis over. "
        "Start at axis 2 instead.",
        lambda x: x.flatten(1).mean(1),
        "That averages the channels too. Start at axis 2: axis 1 holds the channels.",
        lambda x: x.flatten(2),
        "Those are all numbers of each channel in a row. Average them.",
        lambda x: x.flatten(2).mean(2, keepdim=True),
        "The averages are right. Leave keepdim out, and the shape is (N, C).",
        lambda x: x.flatten(2).mean(2).squeeze(),
        SQUEEZED,
        lambda x: x.flatten(2).amax(2),
        LARGEST,
        lambda x: x.flatten(2).sum(2),
        TOTAL,
        cases=[
            (features([[[1, 3], [5, 8]]]),),
            (features([[[[1, 3]], [[5, 7]]]]),),
            (features([[[[[1, 3]], [[5, 7]]]]]),),
            (random_features(4, 2, 9),),
            (random_features(1, 2, 3, 3, 3),),
            (random_features(2, 3, 4, 3),),
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
        lambda images, body: body(F.adaptive_avg_pool2d(images, 28)).mean((2, 3)),
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
