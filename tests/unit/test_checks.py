"""Every check, from both sides: right answers pass, each wrong one gets its own sentence."""

import inspect
import math
import re
from copy import deepcopy
from itertools import count, permutations
from statistics import mean
from unittest.mock import patch
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import box_convert, box_iou

from gap_utils import checks
from gap_utils.activations import capture_activations
from gap_utils.checks.calling import NOT_ATTEMPTED, Feedback
from gap_utils.checks.grading import pair_up
from gap_utils.pooling import generalized_mean_pool


def max_pool_by_hand(image, start=-math.inf):
    height, width = image.shape[0] // 2, image.shape[1] // 2
    pooled = torch.zeros(height, width)
    for i in range(height):
        for j in range(width):
            best = start
            for number in image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten():
                best = max(best, number.item())
            pooled[i, j] = best
    return pooled


def maps_by_capture(model, layer, images):
    with capture_activations(model, layer) as maps:
        model(images)
    return next(iter(maps.values()))


def maps_with_try(model, layer, images, keep=lambda inputs, output: output.clone()):
    kept = []
    handle = layer.register_forward_hook(
        lambda _, inputs, output: kept.append(keep(inputs, output))
    )
    try:
        model(images)
    finally:
        handle.remove()
    return kept[0]


def replaced_in_a_copy(network, images):
    network = deepcopy(network)
    network[2] = nn.AdaptiveAvgPool2d(1)
    return network(images)


def replaced_in_place(network, images):
    network[2] = nn.AdaptiveAvgPool2d(1)
    return network(images)


def winners(maps):
    """The mean and the maximum of each map, (N, C) twice."""
    return maps.mean((2, 3)), maps.amax((2, 3))


def iou_by_hand(box, other, least=0, taken_off=1, more=0):
    """What two boxes share, divided by what they cover together; other settings are mistakes."""
    (a, b, c, d), (e, f, g, h) = box, other
    shared = max(least, min(c, g) - max(a, e) + more) * max(least, min(d, h) - max(b, f) + more)
    areas = (c - a + more) * (d - b + more) + (g - e + more) * (h - f + more)
    return shared / (areas - taken_off * shared)


def pixels_of(box):
    left, top, right, bottom = box
    return {(x, y) for x in range(left, right) for y in range(top, bottom)}


def corners_of(*boxes):
    """Take (left, top, width, height) for what the boxes are."""
    return [box_convert(torch.tensor([box]), "xywh", "xyxy") for box in boxes]


def shared_pixels(box, other):
    return len(pixels_of(box) & pixels_of(other))


def iou_by_pixels(box, other):
    return shared_pixels(box, other) / len(pixels_of(box) | pixels_of(other))


def masked_mean(x, mask):
    """The mean of each channel over the mask, added up in float32."""
    values = x.float().masked_fill(~mask.unsqueeze(1), 0)
    return (values.sum((2, 3)) / mask.flatten(1).sum(1, keepdim=True)).to(x.dtype)


def gates_of(x, first, second, middle=F.relu, last=torch.sigmoid):
    return last(second(middle(first(x.flatten(2).mean(2)))))


def squeeze_and_excite(x, first, second):
    return x * gates_of(x, first, second)[..., None, None]


def squeeze_by_convolutions(x, first, second):
    """As torchvision does it: 1×1 convolutions of maps of one position."""
    pooled = F.adaptive_avg_pool2d(x, 1)
    hidden = F.conv2d(pooled, first.weight[..., None, None], first.bias).relu()
    return x * F.conv2d(hidden, second.weight[..., None, None], second.bias).sigmoid()


def cams(features, weight):
    return torch.einsum("nchw,kc->nkhw", features, weight)


RIGHT = {
    checks.check_numbers_per_map: [
        lambda shape: shape[-1] * shape[-2],
        lambda shape: torch.tensor(shape[2:]).prod(),
        lambda shape: np.prod(shape[2:]),
        lambda shape: np.array(shape[2] * shape[3]),
    ],
    checks.check_gap: [
        lambda x: x.flatten(2).mean(2),
        lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        lambda x: x.sum((2, 3)) / x.shape[2] / x.shape[3],
        lambda x: torch.tensor([[sum(m.flatten().tolist()) / m.numel() for m in p] for p in x]),
        lambda x: torch.nn.Parameter(x).mean((2, 3)),
    ],
    checks.check_max_pool: [
        lambda image: F.max_pool2d(image[None], 2)[0],
        max_pool_by_hand,
        lambda image: (
            image[: len(image) // 2 * 2, : image.shape[1] // 2 * 2]
            .unfold(0, 2, 2)
            .unfold(1, 2, 2)
            .amax((2, 3))
        ),
    ],
    checks.check_gap_after_change: [
        lambda gap, count, old, new: (gap * count - old + new) / count,
    ],
    checks.check_output_size: [
        lambda n, k, s, p: len(range(0, n + 2 * p - k + 1, s)),
        lambda n, k, s, p: np.int64((n + 2 * p - k) // s + 1),
    ],
    checks.check_min_pool: [
        lambda x: -F.max_pool2d(-x, 2),
        lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).amin((4, 5)),
    ],
    checks.check_gap_from_windows: [
        lambda means, counts: np.average(means, weights=counts),
        lambda means, counts: sum(np.multiply(means, counts)) / sum(counts),
    ],
    checks.check_flatten_parameters: [lambda c, h, w, k: (c * h * w + 1) * k],
    checks.check_gap_head: [
        lambda x, weight, bias: x.mean((2, 3)) @ weight.T + bias,
        lambda x, weight, bias: F.conv2d(x, weight[..., None, None], bias).mean((2, 3)),
        lambda x, weight, bias: torch.einsum("nchw,kc->nk", x, weight) / x[0, 0].numel() + bias,
        lambda x, weight, bias: (
            x.movedim(1, 3).reshape(len(x), -1, len(weight[0])) @ weight.T + bias
        ).mean(1),
    ],
    checks.check_keras_to_torch: [
        lambda kernel, c, h, w: kernel.T.reshape(-1, h, w, c).permute(0, 3, 1, 2).flatten(1),
        # height and width may change places in between: their order is put back by flatten
        lambda kernel, c, h, w: kernel.T.reshape(-1, w, h, c).permute(0, 3, 1, 2).flatten(1),
        lambda kernel, c, h, w: kernel[
            torch.arange(h * w * c).reshape(h * w, c).T.flatten()
        ].T.contiguous(),
    ],
    checks.check_pool_any_batch: [
        lambda x, pool: pool(x).flatten(-3),
        lambda x, pool: nn.Sequential(pool, nn.Flatten(-3))(x),
        lambda x, pool: pool(x).view(x.shape[:-2]),
        lambda x, pool: pool(x)[..., 0, 0],
        lambda x, pool: pool(x).squeeze(-1).squeeze(-1),
        lambda x, pool: pool(x).mean((-2, -1)),
        lambda x, pool: pool(x).flatten(1) if x.ndim == 4 else pool(x).flatten(),
    ],
    checks.check_pool_channels_last: [
        lambda x: x.permute(0, 3, 1, 2).mean((2, 3)),
        lambda x: x.flatten(1, 2).mean(1),
        lambda x: x.mean(2).mean(1),
    ],
    checks.check_pool_any_size: [
        lambda network, x: network[4](network[:2](x).mean((2, 3))),
        lambda network, x: nn.Sequential(
            *network[:2], nn.AdaptiveAvgPool2d(1), nn.Flatten(), network[-1]
        )(x),
        lambda network, x: nn.Sequential(
            *(nn.AdaptiveAvgPool2d(1) if isinstance(m, nn.AvgPool2d) else m for m in network)
        )(x),
        lambda network, x: F.linear(
            F.avg_pool2d(network[:2](x), x.shape[2:]).flatten(1), *network[4].parameters()
        ),
    ],
    checks.check_pool_any_axes: [
        lambda t: t.flatten(2).mean(2),
        lambda t: t.mean(tuple(range(2, t.ndim))),
        lambda t: t.reshape(t.size(0), t.size(1), -1).mean(-1),
        lambda t: F.adaptive_avg_pool1d(t.flatten(2), 1).squeeze(2),
        lambda t: t.flatten(2).sum(2) / t[0, 0].numel(),
    ],
    checks.check_pool_then_linear: [
        lambda x, linear: linear(nn.AdaptiveAvgPool2d(1)(x).flatten(1)),
        lambda x, linear: linear(x.permute(0, 2, 3, 1)).mean((1, 2)),
    ],
    checks.check_any_size_network: [
        lambda images, body: F.adaptive_avg_pool2d(body(images), 1).view(-1, 10),
        lambda images, body: torch.cat([body(image[None]).mean((2, 3)) for image in images]),
    ],
    checks.check_loss_floor: [
        lambda k: -math.log(math.e / (math.e + k - 1)),
        lambda k: F.cross_entropy(torch.eye(k)[:1], torch.tensor([0])),
    ],
    checks.check_mended_loss: [
        F.cross_entropy,
        lambda x, y: F.nll_loss(x.log_softmax(1), y),
        lambda x, y: (x.logsumexp(1) - x.gather(1, y[:, None])[:, 0]).mean(),
        nn.CrossEntropyLoss(),
    ],
    checks.check_accuracy: [
        lambda x, y: (x.argmax(1) == y).float().mean(),
        lambda x, y: (x.argmax(1) == y).sum().item() / len(y),
        lambda x, y: (x.argmax(1).numpy() == y.numpy()).mean(),
        lambda x, y: (x.max(dim=1).indices - y == 0).double().mean(),
    ],
    checks.check_gmp_gradient: [
        lambda maps: torch.autograd.functional.vjp(
            lambda x: x.amax((2, 3)), maps, torch.ones(maps.shape[:2])
        )[1],
        lambda maps: torch.stack(
            [torch.stack([(m == m.max()) / (m == m.max()).sum() for m in p]) for p in maps]
        ),
    ],
    checks.check_maps_of: [
        maps_by_capture,
        maps_with_try,
    ],
    checks.check_winning_maps: [
        lambda maps: torch.stack([maps.sum((2, 3)).argmax(1), maps.flatten(2).amax(2).argmax(1)]),
    ],
    checks.check_features_of: [
        lambda model, images: model.forward_features(images),
        lambda model, images: model.final_act(model.final_conv(model.stages(model.stem(images)))),
        lambda model, images: maps_by_capture(model, "final_act", images),
    ],
    checks.check_mean_of_patches: [
        lambda tokens, prefix: tokens[:, prefix:].mean(1),
        lambda tokens, prefix: tokens[:, prefix:].mT.mean(2),
        lambda tokens, prefix: tokens[:, prefix:].sum(1) / (tokens.shape[1] - prefix),
    ],
    checks.check_cam: [
        lambda features, weight: torch.einsum("nchw,kc->nkhw", features, weight),
        lambda features, weight: F.conv2d(features, weight[:, :, None, None]),
        lambda features, weight: (weight @ features.flatten(2)).unflatten(2, features.shape[2:]),
        lambda features, weight: (features[:, None] * weight[None, :, :, None, None]).sum(2),
    ],
    checks.check_iou: [
        iou_by_hand,
        lambda a, b: box_iou(torch.tensor([a]), torch.tensor([b])).item(),
        iou_by_pixels,
    ],
    checks.check_gem: [
        lambda x, p: x.pow(p).flatten(2).mean(2).pow(1 / p),
        generalized_mean_pool,
        lambda x, p: F.adaptive_avg_pool2d(x**p, 1).flatten(1) ** (1 / p),
        lambda x, p: torch.linalg.vector_norm(x, p, (2, 3)) / x[0, 0].numel() ** (1 / p),
        lambda x, p: ((x**p).sum((2, 3)) / x.shape[2] / x.shape[3]) ** (1 / p),
    ],
    checks.check_masked_mean: [
        masked_mean,
        lambda x, mask: torch.stack(
            [picture[:, own].mean(1) for picture, own in zip(x, mask, strict=True)]
        ),
        lambda x, mask: (
            torch.einsum("nchw,nhw->nc", x.float(), mask.float()) / mask.sum((1, 2))[:, None]
        ).type_as(x),
        lambda x, mask: (
            (x / mask.sum((1, 2))[:, None, None, None] * mask[:, None])
            .sum((2, 3), dtype=torch.float32)
            .to(x.dtype)
            if x.dtype == torch.float32
            else masked_mean(x, mask)
        ),
    ],
    checks.check_squeeze_excitation: [
        squeeze_and_excite,
        lambda x, first, second: torch.einsum("nchw,nc->nchw", x, gates_of(x, first, second)),
        lambda x, first, second: squeeze_by_convolutions(x, first, second),
    ],
}

# Mistakes written in another way than in the check, or that no check names.
WRONG = [
    (checks.check_numbers_per_map, lambda s: math.prod(s), "whole batch"),
    (checks.check_numbers_per_map, lambda s: sum(s[-2:]), "adds the two sides"),
    (checks.check_numbers_per_map, lambda s: 307200, "returned 307200, expected 4"),
    (checks.check_gap, lambda x: x.flatten(2).max(2).values, "global max pooling"),
    (checks.check_gap, lambda x: -(-x).amax((2, 3)), "smallest number"),
    (checks.check_gap, lambda x: F.avg_pool2d(x, x.shape[2:]), "keepdim"),
    (checks.check_gap, lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(), "squeeze()"),
    (checks.check_gap, lambda x: x.mean((2, 3)).int().float(), "decimals are cut off"),
    (checks.check_gap, lambda x: x.sum((2, 3)) // (x.shape[2] * x.shape[3]), "rounded down"),
    (checks.check_gap, lambda x: x.sum((2, 3)) / 4, "returned [[2.25, -0.75]]"),
    (checks.check_gap, lambda x: torch.zeros(x.shape[:2]), "returned [[0]], expected [[3]]"),
    (checks.check_gap, lambda x: x.mean((2, 3))[:1], "returned shape (1, 3), expected (4, 3)"),
    (checks.check_gap, lambda x: nn.AvgPool2d(x.size(2))(x), "Give F.avg_pool2d both"),
    (checks.check_gap, lambda x: F.avg_pool2d(x, x.shape[-2])[..., 0, 0], "a square, and a map"),
    (checks.check_max_pool, lambda m: -F.max_pool2d(-m[None], 2)[0], "smallest number"),
    (checks.check_max_pool, lambda m: F.max_pool2d(m.T[None], 2)[0], "swapped"),
    (checks.check_max_pool, lambda m: m[:-1:2, :-1:2], "top left number"),
    (checks.check_max_pool, lambda m: max_pool_by_hand(m, start=0), "Does your maximum start at 0"),
    (checks.check_max_pool, lambda m: max_pool_by_hand(m, start=-999.0), "returned [[-999]]"),
    (checks.check_max_pool, lambda m: max_pool_by_hand(m, start=-1e9), "returned [[-1000000000]]"),
    (checks.check_min_pool, lambda x: (-F.max_pool2d(-x, 2)).clamp(max=1e9), "[[[[1000000000]]]]"),
    (
        checks.check_max_pool,
        lambda m: F.max_pool2d(m[None], 2)[0] + (len(m) == 7),
        "On the input a tensor of shape (7, 4): your function returned",
    ),
    (checks.check_gap_after_change, lambda g, c, o, n: (g * c + n) / c, "old number is still"),
    (checks.check_gap_after_change, lambda g, c, o, n: g, "returned 2, expected 3"),
    (checks.check_gap_after_change, lambda g, c, o, n: round(g + (n - o) / c, 4), "do not round"),
    (checks.check_output_size, lambda n, k, s, p: int((n + 2 * p - k) / s), "add 1"),
    (checks.check_output_size, lambda n, k, s, p: -((k - n - 2 * p) // s) + 1, "rounds up"),
    (checks.check_output_size, lambda n, k, s, p: (n + 2 * p - k) // min(s, 2) + 1, "expected 3"),
    (checks.check_output_size, lambda n, k, s, p: (n - k) // s + 2 * p // s + 1, "2, expected 3"),
    (
        checks.check_output_size,
        lambda n, k, s, p: (n + 2 * p - k) // s + 1.0,
        "returned the float 2.0, expected the integer 2. Use // where you divide",
    ),
    (checks.check_min_pool, lambda x: -F.max_pool2d(x, 2), "before the pooling too"),
    (checks.check_min_pool, lambda x: F.avg_pool2d(x, 2), "average pooling"),
    (checks.check_gap_from_windows, lambda m, c: mean(m), "mean of the window means"),
    (checks.check_gap_from_windows, lambda m, c: np.dot(m, c), "sum of the whole map"),
    (checks.check_gap_from_windows, lambda m, c: round(np.dot(m, c) / sum(c), 4), "do not round"),
    (checks.check_flatten_parameters, lambda c, h, w, k: (k + 1) * c * h * w, "what comes out"),
    (checks.check_gap_head, lambda x, w, b: w @ x[0].mean((1, 2)) + b, "first picture only"),
    (checks.check_gap_head, lambda x, w, b: w @ x.mean((2, 3)).T + b[:, None], "that is (K, N)"),
    (checks.check_gap_head, lambda x, w, b: F.linear(x.mean((2, 3)), w.T, b), "does that itself"),
    (checks.check_gap_head, lambda x, w, b: torch.matmul(w, x.mean((2, 3))) + b, "the channels"),
    (
        checks.check_keras_to_torch,
        lambda kernel, c, h, w: kernel.reshape(h, w, c, -1).movedim(2, 0).flatten(1),
        "begin with their axis",
    ),
    (
        checks.check_gap_head,
        lambda x, w, b: torch.einsum("nchw,kc->nkhw", x, w) + b[:, None, None],
        "Those are maps",
    ),
    (
        checks.check_keras_to_torch,
        lambda kernel, c, h, w: kernel.T.reshape(-1, c, h, w).permute(0, 2, 3, 1).flatten(1),
        "the other way",
    ),
    (
        checks.check_keras_to_torch,
        lambda kernel, c, h, w: kernel.T.reshape(-1, h, w, c).transpose(1, 3).flatten(1),
        "swapped in the result",
    ),
    (
        checks.check_keras_to_torch,
        lambda kernel, c, h, w: kernel.reshape(h * w, c, -1).transpose(0, 1).flatten(0, 1),
        "as in Keras",
    ),
    (
        checks.check_keras_to_torch,
        lambda kernel, c, h, w: kernel.reshape(h, w, c).permute(2, 0, 1).flatten(),
        "fourth axis",
    ),
    (checks.check_pool_any_batch, lambda x, pool: pool(x)[..., 0], "are left over"),
    (checks.check_pool_any_batch, lambda x, pool: pool(x).view(-1), "one long row"),
    (checks.check_pool_any_batch, lambda x, pool: F.adaptive_avg_pool2d(x, 1)[..., 0, 0], "Call"),
    (checks.check_pool_any_batch, lambda x, pool: pool(x).squeeze(0)[..., 0, 0], "returned shape"),
    (checks.check_pool_any_batch, lambda x, pool: torch.squeeze(pool(x)), "batch axis is gone"),
    (
        checks.check_pool_any_batch,
        lambda x, pool: nn.Sequential(pool, nn.Flatten())(x),
        "count from the end",
    ),
    (checks.check_pool_any_batch, lambda x, pool: pool(x).squeeze((2, 3)), "has no axis 3"),
    (checks.check_pool_any_batch, lambda x, pool: pool(x)[..., 0].squeeze(2), "count from the end"),
    (checks.check_pool_channels_last, lambda x: x.mean((-1, -2)), "width and channels"),
    (
        checks.check_pool_channels_last,
        lambda x: x.reshape(x.shape[0], x.shape[3], -1).mean(-1),
        "use permute",
    ),
    (
        checks.check_pool_any_size,
        lambda network, x: nn.Sequential(*network)(x),
        "its window is the whole map at one size only",
    ),
    (
        checks.check_pool_any_size,
        lambda network, x: network[4](nn.AdaptiveAvgPool2d(1)(network[:2](x)).squeeze()),
        "batch axis is gone",
    ),
    (
        checks.check_pool_any_size,
        lambda network, x: network[3:](nn.AvgPool2d(x.size(2))(network[:2](x))),
        "is a square",
    ),
    (
        checks.check_pool_any_size,
        lambda network, x: network[4](network[:3](x).mean((2, 3))),
        "windows that fit",
    ),
    (
        checks.check_pool_any_size,
        lambda network, x: F.linear(network[:2](x).mean((2, 3)), network[4].weight),
        "expected",
    ),
    (checks.check_pool_any_size, replaced_in_place, "its layers are others. Work on a copy"),
    (checks.check_pool_any_axes, lambda t: t.mean([2, 3, 4]), "right for volumes"),
    (checks.check_pool_any_axes, lambda t: t.mean(3).mean(2), "IndexError"),
    (checks.check_pool_any_axes, lambda t: nn.AdaptiveAvgPool3d(1)(t).flatten(1), "wants three"),
    (checks.check_pool_any_axes, lambda t: nn.AdaptiveAvgPool2d(1)(t).flatten(1), "for pictures"),
    (checks.check_pool_any_axes, lambda t: t.view(*t.shape[:2], -1).mean(2), "reshape"),
    (checks.check_pool_then_linear, lambda x, linear: linear(x.permute(0, 2, 3, 1)), "at every"),
    (
        checks.check_pool_then_linear,
        lambda x, linear: F.linear(x.mean((2, 3)), linear.weight),
        "bias of the linear layer",
    ),
    (
        checks.check_any_size_network,
        lambda images, body: nn.AvgPool2d(28)(body(images)).flatten(1),
        "window of 28",
    ),
    (
        checks.check_any_size_network,
        lambda images, body: F.conv2d(images, body.weight, body.bias, padding=1).mean((2, 3)),
        "raised AttributeError: 'Sequential' object has no attribute 'weight'",
    ),
    (checks.check_loss_floor, lambda k: math.log(math.e) - math.log(math.e + k - 1), "its sign"),
    (checks.check_loss_floor, lambda k: round(math.log(1 + (k - 1) / math.e), 3), "expected"),
    (
        checks.check_mended_loss,
        lambda x, y: -x.softmax(1).gather(1, y[:, None]).log().mean(),
        "comes out as 0, and its logarithm is infinite",
    ),
    (checks.check_mended_loss, lambda x, y: F.cross_entropy(x, y).item(), "a float, expected"),
    (checks.check_mended_loss, lambda x, y: F.cross_entropy(x, y).item(), "Return the tensor."),
    (
        checks.check_mended_loss,
        lambda x, y: F.cross_entropy(x.sigmoid().log(), y),
        "The sigmoid is still there.",
    ),
    (checks.check_accuracy, lambda x, y: (x.max(1) == y).float().mean(), "gives two tensors"),
    (checks.check_gmp_gradient, lambda maps: (maps == maps.max()).float(), "the whole batch"),
    (checks.check_gmp_gradient, lambda maps: (maps == maps.amax((2, 3))).float(), "keepdim=True"),
    (
        checks.check_gmp_gradient,
        lambda maps: (m := (maps == maps.amax((2, 3), keepdim=True)).float()) / m.sum(),
        "Each map has a 1 of its own",
    ),
    (checks.check_accuracy, lambda x, y: (x.argmax(1) == y).sum() // len(y), "all() and //"),
    (
        checks.check_accuracy,
        lambda x, y: (x.numpy().argmax(1) == y.numpy()).mean(),
        "numpy() on Tensor that requires grad",
    ),
    (checks.check_gmp_gradient, lambda maps: maps.argmax(3), "returned shape (1, 1, 2), expect"),
    (
        checks.check_maps_of,
        lambda *a: maps_with_try(*a, keep=lambda inputs, output: output),
        "Keep a copy, output.clone()",
    ),
    (
        checks.check_winning_maps,
        lambda x: torch.stack([pooled.argmax(1) for pooled in winners(x.relu())]),
        "Do not cut them off",
    ),
    (
        checks.check_winning_maps,
        lambda x: torch.stack([pooled.argmax() for pooled in winners(x)]),
        "one winner for all pictures together",
    ),
    (checks.check_cam, lambda f, w: torch.einsum("nchw,kc->nhwk", f, w), "the classes come last"),
    (checks.check_cam, lambda f, w: cams(f, w) / f.shape[2] / f.shape[3], "number of positions"),
    (checks.check_cam, lambda f, w: torch.einsum("nchw,kc->nkchw", f, w), "leave c out"),
    (checks.check_iou, lambda a, b: iou_by_hand(a, b, taken_off=0), "Take it off once"),
    (checks.check_iou, lambda a, b: iou_by_hand(a, b, least=-math.inf), "below 0. Take 0 then"),
    (checks.check_iou, lambda a, b: box_iou(*corners_of(a, b)).item(), "for its width and height"),
    (checks.check_iou, lambda a, b: iou_by_hand(a, b, more=1), "one pixel too long"),
    (
        checks.check_iou,
        lambda a, b: iou_by_hand(*([c[i] for i in (0, 2, 1, 3)] for c in (a, b))),
        "You took it for left, right, top, bottom",
    ),
    (checks.check_iou, lambda a, b: shared_pixels(a, b) / len(pixels_of(b)), "area of one box"),
    (checks.check_iou, lambda a, b: len(pixels_of(a) | pixels_of(b)), "Divide the shared area"),
    (checks.check_iou, lambda a, b: shared_pixels(a, b) / 7, "returned 0.2857, expected 0.0833"),
    (checks.check_features_of, lambda m, x: m.stem(x), "returned shape (1, "),
    (checks.check_mean_of_patches, lambda t, prefix: t.mean((2, 3)), "raised IndexError"),
    (checks.check_gem, lambda x, p: x.flatten(2).mean(2), "GAP for every p"),
    (checks.check_gem, lambda x, p: x.flatten(2).max(2).values, "as p grows"),
    (checks.check_gem, lambda x, p: x.pow(p).flatten(2).mean(2), "The root is missing"),
    (checks.check_gem, lambda x, p: x.pow(p).flatten(2).mean(2) / p, "Put brackets around it"),
    (checks.check_gem, lambda x, p: x.flatten(2).norm(p, 2), "root of the sum"),
    (checks.check_gem, lambda x, p: x.pow(1 / p).flatten(2).mean(2).pow(p), "changed places"),
    (checks.check_gem, lambda x, p: F.avg_pool2d(x**p, x.shape[2:]) ** (1 / p), "left over"),
    (checks.check_gem, lambda x, p: x.pow(3).mean((2, 3)).pow(1 / 3), "right for one p only"),
    (checks.check_masked_mean, lambda x, mask: x.flatten(2).mean(2), "the padding too"),
    (
        checks.check_masked_mean,
        lambda x, mask: x.masked_fill(~mask[:, None], 0).flatten(2).mean(2),
        "The padding adds 0, and yet it is counted",
    ),
    (
        checks.check_masked_mean,
        lambda x, mask: torch.einsum("nchw,nhw->nc", x, mask.to(x.dtype)),
        "That is the sum.",
    ),
    (
        checks.check_masked_mean,
        lambda x, mask: masked_mean(x, mask) * mask.sum((1, 2))[:, None] / mask.sum(),
        "counts the whole batch",
    ),
    (
        checks.check_masked_mean,
        lambda x, mask: (x * mask.unsqueeze(1)).flatten(2).sum(2) / mask.flatten(1).sum(1, True),
        "float16 ends at 65,504",
    ),
    (
        checks.check_masked_mean,
        lambda x, mask: masked_mean(x.float(), mask),
        "returned torch.float32 numbers, expected torch.float16\nThe means are right.",
    ),
    (checks.check_masked_mean, lambda x, mask: masked_mean(x, ~mask), "returned [[99]], expected"),
    *(
        (
            checks.check_masked_mean,
            lambda x, mask, read=read: (
                (read(x) * mask[:, None]).sum((2, 3)) / (x * mask[:, None]).count_nonzero((2, 3))
            ).type_as(x),
            "the numbers that are not 0",
        )
        for read in (lambda x: x, torch.Tensor.float)
    ),
    (
        checks.check_masked_mean,
        lambda x, mask: (x * mask).flatten(2).sum(2) / mask.flatten(1).sum(1, True),
        "no axis for the channels",
    ),
    (
        checks.check_masked_mean,
        lambda x, mask: masked_mean(x.detach(), mask),
        "no gradient reaches x",
    ),
    (
        checks.check_squeeze_excitation,
        lambda x, first, second: gates_of(x, first, second),
        "Those are the gates",
    ),
    (
        checks.check_squeeze_excitation,
        lambda x, first, second: torch.mul(x, gates_of(x, first, second)),
        "gates[:, :, None, None]",
    ),
    *(
        (
            checks.check_squeeze_excitation,
            lambda *case, ways=ways: case[0] * gates_of(*case, *ways)[..., None, None],
            sentence,
        )
        for ways, sentence in [
            ((lambda y: y, torch.sigmoid), "The ReLU between the two"),
            ((F.relu, lambda y: y), "The sigmoid is missing"),
            ((torch.sigmoid, F.relu), "changed places"),
            ((F.relu, lambda y: torch.softmax(y, 1)), "add up to 1"),
            ((F.relu, torch.relu), "The sigmoid is missing"),
            ((F.relu, lambda y: torch.sigmoid(torch.relu(y))), "a ReLU too many"),
            ((F.relu, torch.tanh), "your function returned"),
        ]
    ),
    (
        checks.check_squeeze_excitation,
        lambda x, first, second: x * second(first(F.adaptive_avg_pool2d(x, 1)).relu()).sigmoid(),
        "Leave keepdim out",
    ),
    (
        checks.check_squeeze_excitation,
        lambda x, first, second: gates_of(x, first, second) * x.flatten(2).mean(2),
        "multiplies the means",
    ),
    (
        checks.check_squeeze_excitation,
        lambda x, first, second: x + squeeze_and_excite(x, first, second),
        "adds the features once more",
    ),
    (
        checks.check_squeeze_excitation,
        lambda x, first, second: squeeze_and_excite(x, first, second).data,
        "no gradient reaches x",
    ),
    (
        checks.check_mean_of_patches,
        lambda t, prefix: torch.tensor(t.numpy()[:, prefix:].mean(1)),
        "with gradients your function raised RuntimeError",
    ),
]


# tested in files of their own
STATEMENTS = [
    checks.check_head_claims,
    checks.check_supported_claims,
    checks.check_halving_layer,
    checks.check_max_counterexample,
    checks.check_cam_families,
    checks.check_gap_locations,
    checks.check_new_head,
    checks.check_canvas_sizes,
    checks.check_gap_twins,
    checks.check_shift_step,
    checks.check_single_batches,
]
CHECKS = [
    check
    for name, check in inspect.getmembers(checks)
    if name.startswith("check_") and check not in STATEMENTS
]


def by_the_sides(first, second, way, other):
    """Take one way where one side is longer than another, and else the other way."""
    return lambda x, *more: (way if x.shape[first] > x.shape[second] else other)(x, *more)


PER_CHANNEL = {  # what pools features, and the axes of C, H and W in it
    checks.check_gap: (1, 2, 3),
    checks.check_gap_head: (1, 2, 3),
    checks.check_pool_channels_last: (3, 1, 2),
    checks.check_pool_then_linear: (1, 2, 3),
    checks.check_gem: (1, 2, 3),
}


def pool_over(check, *axes):
    """An answer that is right but for the axes that it averages."""
    if check is checks.check_gap_head:
        return lambda x, weight, bias: F.linear(x.mean(axes), weight, bias)
    if check is checks.check_gem:
        return lambda x, p: (x**p).mean(axes) ** (1 / p)
    if check is checks.check_pool_then_linear:
        return lambda x, linear: linear(x.mean(axes))
    return lambda x: x.mean(axes)


@pytest.mark.parametrize("check", PER_CHANNEL)
def test_no_comparison_of_sides_gives_the_layout_away(check):
    channels, height, width = PER_CHANNEL[check]
    right = pool_over(check, height, width)
    wrong = pool_over(check, 1, 2) if channels == 1 else pool_over(check, 2, 3)
    assert check(right).passed
    for first, second in permutations((0, channels, height, width), 2):
        assert not check(by_the_sides(first, second, right, wrong)).passed
        assert not check(by_the_sides(first, second, wrong, right)).passed


def known_mistakes(check):
    """What a check hands to `grade` as mistakes, behind the right answer."""
    found = []

    def collect(answer, *ways, **rest):
        found.extend(pair_up(ways)[1:])
        return NOT_ATTEMPTED

    with patch.object(inspect.getmodule(check), "grade", collect):
        check(raise_not_implemented)
    return found


def raise_not_implemented(*arguments):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("check", "answer"), [(check, answer) for check, answers in RIGHT.items() for answer in answers]
)
def test_right_answers_pass(check, answer):
    feedback = check(answer)
    assert feedback.passed, feedback
    assert repr(feedback).startswith("✓ Right: ")
    assert "\n" not in repr(feedback)


def test_right_and_wrong_look_different_and_a_stub_like_neither():
    right, wrong = (checks.check_gap(lambda x, n=n: x.mean(n)) for n in ((2, 3), 1))
    seen = []
    for feedback, headline, words in [
        (right, "✓ Right", "One average per channel, for batch 1 and batch 4, "),
        (wrong, "✗ Not right yet", wrong.message.removeprefix("✗ ")),
        (NOT_ATTEMPTED, "○ Not attempted yet", ""),
        (Feedback(False, "✗ Not so:\n<a>"), "✗ Not right yet", "<a>"),
        (Feedback(True, "✓ Right: my_gap does."), "✓ Right", "my_gap does."),
        (Feedback(False, "✗ maxpool gives 56×56."), "✗ Not right yet", "maxpool gives"),
        (Feedback(True, "Well done."), "✓ Right", "Well done."),  # of a check of one's own
        (Feedback(False, ""), "✗ Not right yet", ""),
    ]:
        shown = ElementTree.fromstring(feedback._repr_html_().replace("<br>", "&#10;"))
        assert shown.get("role") == "status"
        first, *others = ("".join(part.itertext()) for part in shown)
        assert first == headline
        assert (others or [""])[-1].startswith(words)  # a drawing may stand above them
        assert bool(others) == bool(words)
        seen.append([shown.get("style"), shown[0].get("style")])
    # a bar and large letters in one colour, seen on white and on black
    for (bar, letters), colour in zip(
        seen, ["0, 148, 95", "213, 94, 0", "118, 118, 118"], strict=False
    ):
        assert f"solid rgb({colour})" in bar and f"color: rgb({colour})" in letters


@pytest.mark.parametrize(("check", "answer", "sentence"), WRONG)
def test_wrong_answers_are_named(check, answer, sentence):
    feedback = check(answer)
    assert not feedback.passed
    assert feedback.message.startswith("✗ On the input ")
    assert sentence in feedback.message


@pytest.mark.parametrize("check", CHECKS)
def test_every_known_mistake_gets_its_own_sentence(check):
    mistakes = known_mistakes(check)
    assert mistakes
    for mistake, sentence in mistakes:
        feedback = check(mistake)
        assert not feedback.passed
        assert feedback.message.startswith("✗ On the input ")
        assert feedback.message.endswith(f"\n{sentence}")


def raise_without_words(*arguments):
    raise AssertionError


def divide_by_zero(*arguments):
    return 1 / 0


@pytest.mark.parametrize("check", CHECKS)
def test_whatever_comes_back_gets_a_sentence(check):
    assert check in RIGHT
    assert repr(check(raise_not_implemented)) == "not attempted yet"
    for answer, sentence in [
        (lambda *a: None, "returned None. Does it end with return?"),
        (divide_by_zero, "raised ZeroDivisionError: division by zero"),
        (lambda: 0, "and it is written for (). Leave the first line as it was"),
        (lambda *a: "4", "returned a str, expected"),
        (lambda *a: {}, "returned a dict, expected"),
        (lambda *a: True, "returned a bool, expected"),
        (lambda *a: float("nan"), "expected"),
        (lambda *a: 10**400, "expected"),
        (raise_without_words, "raised AssertionError"),
        (None, "needs your function itself, got a NoneType"),
        (torch.zeros(1, 1), "needs your function itself, got a tensor of shape (1, 1)"),
    ]:
        feedback = check(answer)
        assert not feedback.passed
        assert sentence in feedback.message


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda y: y.tolist(), "returned a list, expected a tensor of shape (1, 1)"),
        (lambda y: y.numpy(), "returned a NumPy array, expected a tensor"),
        (lambda y: y.double(), "returned torch.float64 numbers, expected torch.float32"),
        (lambda y: y.long(), "returned torch.int64 numbers, expected torch.float32"),
        (lambda y: y * 1j, "returned torch.complex64 numbers"),
        (lambda y: y.to("meta"), "on the device meta, expected cpu"),
        (lambda y: y.to_sparse(), "returned a sparse tensor"),
        (lambda y: y * float("nan"), "returned [[nan]], expected [[3]]"),
        (lambda y: (y,), "returned a tuple"),
    ],
)
def test_right_numbers_in_the_wrong_wrapping(change, sentence):
    feedback = checks.check_gap(lambda x: change(x.mean((2, 3))))
    assert not feedback.passed
    assert sentence in feedback.message


def test_an_answer_must_leave_its_input_alone():
    def spoil(x):
        pooled = x.mean((2, 3))
        x.zero_()
        return pooled

    assert "changed its input" in checks.check_gap(spoil).message

    def spoil_list(means, counts):
        total = sum(m * c for m, c in zip(means, counts, strict=True))
        return total / sum(counts.pop() for _ in range(len(counts)))

    assert "changed its input" in checks.check_gap_from_windows(spoil_list).message

    def spoil_one_number(means, counts):
        total = sum(m * c for m, c in zip(means, counts, strict=True)) / sum(counts)
        means[0] = np.array([1.0, 2.0])
        return total

    assert "changed its input" in checks.check_gap_from_windows(spoil_one_number).message
    assert checks.check_gap(lambda x: x.mean((2, 3))).passed  # the cases are as before


def test_rounding_is_told_from_other_small_errors():
    feedback = checks.check_gap(lambda x: torch.round(x.mean((2, 3)), decimals=4))
    assert "with more decimals: do not round" in feedback.message
    for check, answer in [
        (checks.check_gap, lambda x: x.mean((2, 3)) * (1 + 5e-6 * (len(x) == 4))),
        (checks.check_min_pool, lambda x: 100 - F.max_pool2d(100 - x, 2)),
        (checks.check_loss_floor, lambda k: math.log(1 + (k - 1) / math.e) * 1.00002),
    ]:
        feedback = check(answer)
        assert not feedback.passed
        assert "do not round" not in feedback.message
        assert re.search(r"; it is off by \d\.\de-0[56], more than the order", feedback.message)


def one_percent_off(answer, case):
    """Right, but for one number of one case: the smallest that is not 0."""
    calls = count()

    def almost(*arguments):
        value = answer(*arguments)
        if next(calls) != case:
            return value
        if not isinstance(value, torch.Tensor):
            return value * 1.01
        value = value.detach().clone()
        sizes = value.abs().flatten()
        sizes[sizes == 0] = math.inf
        value.view(-1)[sizes.argmin()] *= 1.01
        return value

    return almost


def of_half_precision(answer, kind):
    def detour(*arguments):
        return answer(
            *(
                a.to(kind).float() if isinstance(a, torch.Tensor) and a.is_floating_point() else a
                for a in arguments
            )
        )

    return detour


def half_result(answer, kind):
    return lambda *a: answer(*a).to(kind).to(torch.float32)


def rounded(answer):
    return lambda *a: torch.round(answer(*a), decimals=4)


SUMS = [  # what compares float32 numbers that may have been computed in several ways
    checks.check_gap,
    checks.check_min_pool,
    checks.check_max_pool,
    checks.check_gap_head,
    checks.check_pool_any_batch,
    checks.check_pool_channels_last,
    checks.check_pool_any_size,
    checks.check_pool_any_axes,
    checks.check_pool_then_linear,
    checks.check_any_size_network,
    checks.check_mended_loss,
    checks.check_cam,
    checks.check_mean_of_patches,
    checks.check_features_of,
    checks.check_gem,
    checks.check_masked_mean,
    checks.check_squeeze_excitation,
]


@pytest.mark.parametrize("check", SUMS)
def test_a_tolerance_for_sums_forgives_nothing_else(check):
    answer = RIGHT[check][0]
    for kind in (torch.float16, torch.bfloat16):
        assert not check(of_half_precision(answer, kind)).passed
        assert not check(half_result(answer, kind)).passed
    assert not check(rounded(answer)).passed


@pytest.mark.parametrize("check", [c for c in SUMS if c is not checks.check_features_of])
def test_one_percent_in_one_number_is_wrong(check):
    """But in an NFNet some activations are so close to 0 that 1 % of them is nothing."""
    seen = []

    def collect(answer, *ways, cases, **rest):
        seen.extend(cases)
        return NOT_ATTEMPTED

    with patch.object(inspect.getmodule(check), "grade", collect):
        check(raise_not_implemented)
    for case in range(len(seen)):
        assert not check(one_percent_off(RIGHT[check][0], case)).passed, case


def test_the_smallest_failing_input_is_shown():
    fails_at_batch_4 = checks.check_gap(lambda x: x.mean((2, 3)) * (1 + (len(x) == 4)))
    assert "On the input a tensor of shape (4, 3, 2, 5)" in fails_at_batch_4.message
    fails_everywhere = checks.check_gap(lambda x: x.mean((2, 3)) + 1)
    assert "On the input [[[[1, 2], [3, 6]]]]: your function returned [[4]], expected [[3]]" in (
        fails_everywhere.message
    )


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            lambda x: x.detach().mean((2, 3)),
            "no gradient reaches x: neither it nor what it was made from could learn",
        ),
        (
            lambda x: torch.tensor(x.mean((2, 3)).tolist()),
            "no gradient reaches x: neither it nor what it was made from could learn",
        ),
        (lambda x: x.mean((2, 3)) * 0.5 + x.data.mean((2, 3)) * 0.5, "x, so training would go a"),
        (lambda x: x.mean((2, 3)) * 0.99 + x.data.mean((2, 3)) * 0.01, "a wrong gradient reach"),
        (lambda x: torch.tensor(x.numpy().mean((2, 3))), "with gradients your function raised"),
    ],
)
def test_gradients_must_be_right_too(answer, sentence):
    feedback = check_mean(answer)
    assert not feedback.passed
    assert "the numbers are right, but" in feedback.message
    assert sentence in feedback.message


def check_mean(answer):
    """Check GAP of features (N, C, H, W), and its gradient."""
    return checks.check_pool_any_axes(lambda x: answer(x.flatten(2)[..., None]))  # W is 1


def test_an_answer_must_leave_its_layer_alone():
    def spoil(x, linear):
        logits = linear(x.mean((2, 3)))
        with torch.no_grad():
            linear.weight.zero_()
        return logits

    assert "changed its input" in checks.check_pool_then_linear(spoil).message


def test_memory_layouts_are_tried_and_named():
    def only_contiguous(x, pool):
        return pool(x).flatten(-3) + (not x.is_contiguous())

    feedback = checks.check_pool_any_batch(only_contiguous)
    assert "a tensor of shape (4, 3, 2, 5), channels-last in memory, " in feedback.message

    def view(x, pool):
        return pool(x.view(*x.shape[:-2], 1, -1)).flatten(-3)

    feedback = checks.check_pool_any_batch(view)
    assert "cut out of larger maps, pool=AdaptiveAvgPool2d(output_size=1): your function" in (
        feedback.message
    )
    assert " raised RuntimeError: view size is not compatible" in feedback.message


def copied_head(x, weight, bias):
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
    return linear(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("check", "answer", "name"),
    [
        (checks.check_gap_head, copied_head, "weight"),
        (
            checks.check_gap_head,
            lambda x, weight, bias: F.linear(x.mean((2, 3)), weight, bias.detach()),
            "bias",
        ),
        (
            checks.check_pool_then_linear,
            lambda x, linear: F.linear(x.mean((2, 3)), linear.weight.data, linear.bias),
            "linear.weight",
        ),
        (checks.check_pool_any_size, replaced_in_a_copy, "network.0.weight"),
        (
            checks.check_any_size_network,
            lambda images, body: (
                F.conv2d(images, body[0].weight, body[0].bias.detach(), padding=1)
                .relu()
                .mean((2, 3))
            ),
            "body.0.bias",
        ),
    ],
)
def test_weights_must_get_a_gradient_too(check, answer, name):
    assert f"no gradient reaches {name}: neither" in check(answer).message


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_the_notebook_switched_off_does_not_count(mode):
    with mode():
        assert check_mean(lambda x: x.mean((2, 3))).passed


def test_what_goes_wrong_with_gradients_only_is_said():
    def answer(x):
        return (x.mean((2, 3)),) if x.requires_grad else x.mean((2, 3))

    assert "no gradient reaches x" in check_mean(answer).message

    def refuse(x):
        if x.requires_grad:
            raise KeyError("no")
        return x.mean((2, 3))

    assert "with gradients your function raised KeyError" in (check_mean(refuse).message)


def test_checks_leave_the_seed_alone_and_mind_no_defaults():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        for check, answers in RIGHT.items():
            assert check(answers[0]).passed
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), state)


def test_whole_numbers_are_compared_exactly():
    def nearly(c, h, w, k):
        return c * h * w * k + k + 50 * (c == 512)

    assert (
        "returned 102764594, expected 102764544" in checks.check_flatten_parameters(nearly).message
    )


def test_a_module_without_forward_is_an_attempt():
    class Typo(nn.Module):
        def foward(self, x):
            return x.mean((2, 3))

    feedback = checks.check_gap(Typo())
    assert 'missing the required "forward"' in feedback.message


def test_arguments_have_the_learners_names():
    def flatten_parameters(channels, height, width, classes):
        return 0

    feedback = checks.check_flatten_parameters(flatten_parameters)
    assert "On the input channels=2, height=1, width=2, classes=3: your" in feedback.message
    feedback = checks.check_flatten_parameters(lambda *sizes: 0)
    assert "On the input argument 1=2, argument 2=1, " in feedback.message


def test_an_accuracy_line_that_walks_through_the_tensor_is_found_out():
    for answer in (
        lambda x, y: sum(x.argmax(1) == y) / len(y),
        lambda x, y: sum(a == b for a, b in zip(x.argmax(1), y, strict=True)).item() / len(y),
        lambda x, y: sum(x[i].argmax().item() == y[i].item() for i in range(len(y))) / len(y),
        lambda x, y: sum((x.argmax(1) == y).tolist()) / len(y),
        lambda x, y: sum((x.argmax(1) == y).unbind()) / len(y),
        lambda x, y: sum(x.argmax(1).numpy() == y.numpy()) / len(y),
    ):
        feedback = checks.check_accuracy(answer)
        assert not feedback.passed
        assert "one picture at a time" in feedback.message


@pytest.mark.parametrize(
    "middle", [lambda maps: maps.median(2).values, lambda maps: maps.quantile(0.5, 2)]
)
def test_the_median_is_not_taken_for_numbers_cut_off(middle):
    def by_the_median(maps):
        return torch.stack([middle(maps.flatten(2)).argmax(1), winners(maps)[1].argmax(1)])

    feedback = checks.check_winning_maps(by_the_median)
    assert not feedback.passed
    assert "Do not cut them off" not in feedback.message


def test_checks_of_lessons_04_and_05_mind_no_default_device():
    torch.set_default_device("meta")
    try:
        assert checks.check_mended_loss(F.cross_entropy).passed
        assert checks.check_accuracy(lambda x, y: (x.argmax(1) == y).float().mean()).passed
        assert checks.check_gmp_gradient(RIGHT[checks.check_gmp_gradient][1]).passed
    finally:
        torch.set_default_device(None)
