"""The checks of lesson 03: repairs of global average pooling that looks right and is not."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from gap_utils.checks.grading import Feedback, features, grade, random_features

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


def check_pool_any_batch(answer: Callable) -> Feedback:
    """Check exercise 1: one map per class (N, K, H, W) -> logits (N, K)."""

    def pooled(x):
        return F.adaptive_avg_pool2d(x, 1)

    return grade(
        answer,
        right=RIGHT,
        reference=lambda x: x.mean((2, 3)),
        cases=[
            (features([[[[1, 5]], [[2, 4]]]]),),
            (random_features(1, 3, 4, 4),),
            (random_features(4, 1, 3, 3),),
            *_maps(4, 3, 2, 5),
        ],
        mistakes=[
            (lambda x: pooled(x).squeeze(), SQUEEZED),
            (pooled, LEFT_OVER),
            (lambda x: pooled(x).squeeze(-1), LEFT_OVER),
            (
                lambda x: pooled(x).view(-1, 10),
                "That is right for 10 classes and no others. Name the batch axis instead of the "
                "classes: flatten(1).",
            ),
            (
                lambda x: pooled(x).flatten(),
                "flatten() without a number makes one long row of the whole batch. flatten(1) "
                "starts at axis 1.",
            ),
            (
                lambda x: pooled(x).squeeze()[None],
                "A new axis in front mends batch 1 and spoils the others: with 4 pictures the "
                "shape is (1, 4, K).",
            ),
            (lambda x: x.amax((2, 3)), LARGEST),
            (lambda x: x.sum((2, 3)), TOTAL),
            (
                lambda x: x.mean(1).flatten(1),
                "That averages over the classes. Keep axis 1 and average height and width.",
            ),
        ],
        gradients=True,
    )


def check_pool_channels_last(answer: Callable) -> Feedback:
    """Check exercise 2: features (N, H, W, C) -> averages (N, C)."""
    return grade(
        answer,
        right=RIGHT,
        reference=lambda x: x.mean((1, 2)),
        cases=[
            (features([[[[1, 2], [5, 4]]]]),),
            (random_features(1, 4, 4, 4),),
            (random_features(4, 2, 5, 3),),
            (random_features(4, 2, 6, 3)[:, :, 1:],),
        ],
        mistakes=[
            (
                lambda x: x.mean((2, 3)),
                "That averages width and channels, and leaves one number per row of the picture. "
                "Here height and width are axes 1 and 2.",
            ),
            (
                lambda x: x.mean((1, 2), keepdim=True),
                "The averages are right. Leave keepdim out, and the shape is (N, C).",
            ),
            (lambda x: x.mean((1, 2), keepdim=True).squeeze(), SQUEEZED),
            (
                lambda x: x.mean((1, 3)),
                "That is one pair of axes too far. In (N, H, W, C) height and width are axes 1 and "
                "2; behind permute(0, 3, 1, 2) they are axes 2 and 3.",
            ),
            (
                lambda x: x.mean((1, 2, 3)),
                "That averages the channels too. Keep the last axis.",
            ),
            (
                lambda x: x.reshape(len(x), x.shape[3], -1).mean(2),
                NOT_MOVED,
            ),
            (lambda x: x.view(len(x), x.shape[3], -1).mean(2), NOT_MOVED),
            (lambda x: x.amax((1, 2)), LARGEST),
            (lambda x: x.sum((1, 2)), TOTAL),
        ],
        gradients=True,
    )


def check_pool_any_size(answer: Callable) -> Feedback:
    """Check exercise 3: features (N, C, H, W) of any size -> averages (N, C)."""

    def windows(x, size):
        return F.avg_pool2d(x, size)

    return grade(
        answer,
        right="one number per channel at every size; " + RIGHT,
        reference=lambda x: x.mean((2, 3)),
        cases=[
            (features([[[[1, 2, 3], [4, 5, 6], [7, 8, 18]]]]),),
            (random_features(1, 2, 7, 7),),
            *_maps(4, 3, 4, 6),
        ],
        mistakes=[
            (
                lambda x: windows(x, 3).flatten(1),
                "A window of 3 is the whole map only while the map is 3×3. On 7×7 four windows "
                "fit, and flatten makes 4 numbers of each channel.",
            ),
            (
                lambda x: windows(x, x.shape[2]).flatten(1),
                "A window of side H is square. On maps that are wider than high it leaves the "
                "right part out. Give the window both sides: x.shape[2:].",
            ),
            (
                lambda x: windows(x, x.shape[3]).flatten(1),
                "A window of side W is square, and does not fit on maps that are wider than high. "
                "Give the window both sides: x.shape[2:].",
            ),
            (
                lambda x: windows(x, 3),
                "Those are maps still, one number for each window. GAP has one window, as large "
                "as the map.",
            ),
            (
                lambda x: F.avg_pool2d(x, 3, stride=1).mean((2, 3)),
                "With overlapping windows the middle of the map counts more often than its edge. "
                "Average the map itself.",
            ),
            (
                lambda x: windows(x, 3).mean((2, 3)),
                "An average of window averages leaves out the rows and columns that no window "
                "reaches. Average the map itself.",
            ),
            (
                lambda x: windows(x, 3)[:, :, 0, 0],
                "That is the first window only, the top left 3×3 of the map.",
            ),
            (
                lambda x: F.interpolate(x, 3).mean((2, 3)),
                "Resizing picks some of the numbers. The average is over all of them.",
            ),
            (lambda x: F.adaptive_avg_pool2d(x, 1), LEFT_OVER),
            (lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(), SQUEEZED),
            (lambda x: x.amax((2, 3)), LARGEST),
            (lambda x: x.sum((2, 3)), TOTAL),
        ],
        gradients=True,
    )


def check_pool_volumes(answer: Callable) -> Feedback:
    """Check exercise 4: features (N, C, D, H, W) -> averages (N, C)."""

    def pooled(x):
        return F.avg_pool3d(x, x.shape[2:])

    return grade(
        answer,
        right="three axes pooled; " + RIGHT,
        reference=lambda x: x.mean((2, 3, 4)),
        cases=[
            (features([[[[[1, 3]], [[5, 7]]]]]),),
            (random_features(1, 2, 3, 3, 3),),
            (random_features(4, 2, 2, 3, 5),),
            (random_features(4, 2, 2, 3, 6)[..., 1:],),
        ],
        mistakes=[
            (
                lambda x: pooled(x).view(x.size(), -1),
                "x.size() is the whole shape. The number of pictures is x.size(0), and view takes "
                "numbers, not a shape and a number.",
            ),
            (pooled, LEFT_OVER),
            (lambda x: pooled(x).squeeze(), SQUEEZED),
            (
                lambda x: pooled(x).view(-1),
                "That makes one long row of the whole batch. Keep the batch: view(x.size(0), -1).",
            ),
            (
                lambda x: x.mean((2, 3)),
                "That pools two of the three axes, so the width is left. Average axis 4 too.",
            ),
            (
                lambda x: x.mean((3, 4)),
                "That pools height and width and leaves the depth. Average axis 2 too.",
            ),
            (
                lambda x: F.avg_pool2d(x, x.shape[3:]).flatten(2),
                "PyTorch refuses avg_pool2d here, since there are three spatial axes: it is "
                "avg_pool3d.",
            ),
            (
                lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
                "PyTorch refuses adaptive_avg_pool2d here, since there are three spatial axes: it "
                "is adaptive_avg_pool3d.",
            ),
            (lambda x: x.amax((2, 3, 4)), LARGEST),
            (lambda x: x.sum((2, 3, 4)), TOTAL),
        ],
        gradients=True,
    )


def _layer(kind: type[nn.Module], *settings: int, **more: int) -> nn.Module:
    """Make a layer with numbers that are the same at every call, whatever the seed."""
    module = skip_init(kind, *settings, **more, dtype=torch.float32, device="cpu")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(random_features(*parameter.shape))
    return module


def check_pool_then_linear(answer: Callable) -> Feedback:
    """Check exercise 5: features (N, C, H, W) and a linear layer C -> K, to logits (N, K)."""

    def pooled(x):
        return F.adaptive_avg_pool2d(x, 1)

    return grade(
        answer,
        right="one row of logits for each picture; " + RIGHT,
        reference=lambda x, linear: linear(x.mean((2, 3))),
        cases=[
            (features([[[[1, 3]], [[2, 8]]]]), _layer(nn.Linear, 2, 3)),
            (random_features(1, 5, 4, 4), _layer(nn.Linear, 5, 3)),
            (random_features(4, 5, 2, 3), _layer(nn.Linear, 5, 3)),
            *((x, _layer(nn.Linear, 5, 3)) for (x,) in _maps(4, 5, 2, 3)),
        ],
        mistakes=[
            (
                lambda x, linear: linear(pooled(x)),
                "The pooled features still end in an axis of length 1, and a linear layer works on "
                "the last axis. Flatten between them.",
            ),
            (
                lambda x, linear: linear(x.flatten(1)),
                "All numbers of each picture reach the linear layer. Pool first, then flatten.",
            ),
            (
                lambda x, linear: linear(pooled(x).squeeze()),
                SQUEEZED,
            ),
            (
                lambda x, linear: linear(pooled(x).flatten()),
                "flatten() without a number makes one long row of the whole batch. flatten(1) "
                "starts at axis 1.",
            ),
            (
                lambda x, linear: linear(F.adaptive_max_pool2d(x, 1).flatten(1)),
                LARGEST,
            ),
            (
                lambda x, linear: linear(x.sum((2, 3))),
                TOTAL,
            ),
            (
                lambda x, linear: linear(x.movedim(1, -1)),
                "The linear layer was used at every position. Average height and width as well.",
            ),
            (
                lambda x, linear: x.mean((2, 3)) @ linear.weight.T,
                "The bias of the linear layer is missing. Call the layer itself: linear(pooled).",
            ),
            (
                lambda x, linear: x.mean((2, 3)),
                "The linear layer is missing: those are the pooled features.",
            ),
        ],
        gradients=True,
    )


def check_any_size_network(answer: Callable) -> Feedback:
    """Check exercise 6: images (N, 1, H, W) and a body with 10 maps, to logits (N, 10)."""

    def body() -> nn.Module:
        return _layer(nn.Conv2d, 1, 10, 3, padding=1)

    return grade(
        answer,
        right="one row for each picture, whatever its size; " + RIGHT,
        reference=lambda images, body: body(images).mean((2, 3)),
        cases=[
            (random_features(1, 1, 28, 28), body()),
            (random_features(2, 1, 56, 56), body()),
            (random_features(4, 1, 20, 37), body()),
        ],
        mistakes=[
            (
                lambda images, body: body(images.view(-1, 1, 28, 28)).mean((2, 3)).view(-1, 10),
                "view(-1, 1, 28, 28) cuts larger pictures into pieces and calls each piece a "
                "picture. Hand the images to the body as they are.",
            ),
            (
                lambda images, body: body(images.view(len(images), 1, 28, 28)).mean((2, 3)),
                "That wants 28×28 pictures. Hand the images to the body as they are.",
            ),
            (
                lambda images, body: body(images[..., :28, :28]).mean((2, 3)),
                "That cuts the pictures off at 28. The rest of them counts too.",
            ),
            (
                lambda images, body: body(F.interpolate(images, (28, 28))).mean((2, 3)),
                "That resizes the pictures to 28×28 first. GAP needs no fixed size.",
            ),
            (
                lambda images, body: body(images),
                "Those are the maps. Average each of them.",
            ),
            (
                lambda images, body: body(images).reshape(-1, 10),
                "Those are all numbers of the maps in rows of ten. Average each map first.",
            ),
            (
                lambda images, body: body(images).amax((2, 3)),
                LARGEST,
            ),
            (
                lambda images, body: F.adaptive_avg_pool2d(body(images), 1),
                LEFT_OVER,
            ),
            (
                lambda images, body: F.adaptive_avg_pool2d(body(images), 1).squeeze(),
                SQUEEZED,
            ),
            (
                lambda images, body: F.avg_pool2d(body(images), 28).flatten(1),
                "A window of 28 is the whole map only while the map is 28×28.",
            ),
        ],
        gradients=True,
    )
