"""Every check, from both sides: right answers pass, each wrong one gets its own sentence."""

import inspect
import math
from statistics import mean

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gap_utils import checks
from gap_utils.activations import capture_activations
from gap_utils.checks.grading import NOT_ATTEMPTED


def first_rows_pool(image):
    """2×2 max pooling by hand, with a maximum that starts at zero."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    pooled = torch.zeros(height, width)
    for i in range(height):
        for j in range(width):
            best = 0.0
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


def winners(maps):
    """The mean and the maximum of each map, (N, C) twice."""
    return maps.mean((2, 3)), maps.amax((2, 3))


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
        lambda x: torch.nn.Parameter(x).mean((2, 3)),
    ],
    checks.check_max_pool: [
        lambda image: F.max_pool2d(image[None], 2)[0],
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
    checks.check_gap_parameters: [lambda c, h, w, k: sum([c, 1]) * k],
    checks.check_halvings: [
        lambda n: int(math.log2(n)),
        lambda n: len(bin(n)) - 3,
        lambda n: sum(n // 2**i > 0 for i in range(1, 20)),
    ],
    checks.check_gap_head: [
        lambda x, weight, bias: x.mean((2, 3)) @ weight.T + bias,
        lambda x, weight, bias: F.conv2d(x, weight[..., None, None], bias).mean((2, 3)),
        lambda x, weight, bias: torch.einsum("nchw,kc->nk", x, weight) / x[0, 0].numel() + bias,
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
        lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        lambda x: F.avg_pool2d(x, x.shape[2:])[:, :, 0, 0],
        lambda x: x.flatten(2).mean(2),
    ],
    checks.check_pool_channels_last: [
        lambda x: x.permute(0, 3, 1, 2).mean((2, 3)),
        lambda x: x.flatten(1, 2).mean(1),
    ],
    checks.check_pool_any_size: [
        lambda x: F.avg_pool2d(x, x.shape[2:]).flatten(1),
        lambda x: nn.AdaptiveAvgPool2d(1)(x).flatten(1),
    ],
    checks.check_pool_volumes: [
        lambda t: F.avg_pool3d(t, t.size()[2:]).view(t.size(0), -1),
        lambda t: t.flatten(2).mean(2),
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
        lambda x, y: np.mean(x.numpy().argmax(1) == y.numpy()),
    ],
    checks.check_flatten_any_size: [
        lambda model, images: model.head(F.adaptive_avg_pool2d(model.body(images), 3)),
        lambda model, images: nn.Sequential(model.body, nn.AdaptiveAvgPool2d(3), *model.head)(
            images
        ),
    ],
    checks.check_maps_of: [
        maps_by_capture,
        maps_with_try,
    ],
    checks.check_winning_maps: [
        lambda maps: torch.stack([maps.sum((2, 3)).argmax(1), maps.flatten(2).amax(2).argmax(1)]),
    ],
    checks.check_feature_side: [
        lambda size: -(-size // 32),
        lambda size: math.ceil(size / 32),
        lambda size: (size + 31) // 32,
        lambda size: len(F.max_pool1d(torch.zeros(1, 1, size), 32, ceil_mode=True)[0, 0]),
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
    ],
}

WRONG = [
    (checks.check_numbers_per_map, lambda s: s[0] * s[1] * s[2] * s[3], "whole batch"),
    (checks.check_numbers_per_map, lambda s: s[1] * s[2] * s[3], "all channels"),
    (checks.check_numbers_per_map, lambda s: s[2] + s[3], "adds the two sides"),
    (checks.check_numbers_per_map, lambda s: s[1] * s[2], "which are C and H"),
    (checks.check_numbers_per_map, lambda s: s[0] * s[1], "multiplies N and C"),
    (checks.check_numbers_per_map, lambda s: 307200, "returned 307200, expected 4"),
    (checks.check_gap, lambda x: x.flatten(2).sum(2), "sum of each channel"),
    (checks.check_gap, lambda x: x.flatten(2).max(2).values, "global max pooling"),
    (checks.check_gap, lambda x: -(-x).amax((2, 3)), "smallest number"),
    (checks.check_gap, lambda x: x.flatten(2).median(2)[0], "median"),
    (checks.check_gap, lambda x: x.mean((1, 2)), "(N, H, W, C)"),
    (checks.check_gap, lambda x: F.adaptive_avg_pool2d(x, 1), "keepdim"),
    (checks.check_gap, lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(), "squeeze()"),
    (checks.check_gap, lambda x: x.mean(), "one average for the whole batch"),
    (checks.check_gap, lambda x: x.mean((0, 2, 3)), "Leave axis 0 alone"),
    (checks.check_gap, lambda x: x.mean(1), "keeps the channels and averages"),
    (checks.check_gap, lambda x: x.mean((1, 2, 3)), "over the channels too"),
    (checks.check_gap, lambda x: x.mean(2), "one average per column"),
    (checks.check_gap, lambda x: x.mean(3), "one average per row"),
    (checks.check_gap, lambda x: x.mean((2, 3)).T, "axes are swapped"),
    (checks.check_gap, lambda x: x.mean((2, 3)).int().float(), "decimals are cut off"),
    (checks.check_gap, lambda x: x.sum((2, 3)) // (x.shape[2] * x.shape[3]), "rounded down"),
    (checks.check_gap, lambda x: x.sum((2, 3)) / 4, "returned [[2.25, -0.75]]"),
    (checks.check_gap, lambda x: torch.zeros(x.shape[:2]), "returned [[0]], expected [[3]]"),
    (checks.check_gap, lambda x: x.mean((2, 3))[:1], "returned shape (1, 3), expected (4, 3)"),
    (checks.check_max_pool, lambda m: F.avg_pool2d(m[None], 2)[0], "average of each window"),
    (checks.check_max_pool, lambda m: -F.max_pool2d(-m[None], 2)[0], "smallest number"),
    (checks.check_max_pool, lambda m: F.max_pool2d(m[None], 2, 1)[0], "do not overlap"),
    (checks.check_max_pool, lambda m: F.max_pool2d(m[None], 2, ceil_mode=True)[0], "left over"),
    (checks.check_max_pool, lambda m: F.max_pool2d(m.T[None], 2)[0], "swapped"),
    (checks.check_max_pool, lambda m: m.max(), "whole map"),
    (checks.check_max_pool, lambda m: m[:-1:2, :-1:2], "top left number"),
    (checks.check_max_pool, first_rows_pool, "Does your maximum start at 0"),
    (
        checks.check_max_pool,
        lambda m: F.max_pool2d(m[None], 2)[0] + (len(m) == 7),
        "On the input a tensor of shape (7, 4): your function returned",
    ),
    (checks.check_gap_after_change, lambda g, c, o, n: g + (n - o), "divide the change by count"),
    (checks.check_gap_after_change, lambda g, c, o, n: g + (o - n) / c, "wrong sign"),
    (checks.check_gap_after_change, lambda g, c, o, n: g + n / c, "old number is still"),
    (checks.check_gap_after_change, lambda g, c, o, n: (g * c + n) / (c + 1), "one more number"),
    (checks.check_gap_after_change, lambda g, c, o, n: g * c - o + n, "new sum"),
    (checks.check_gap_after_change, lambda g, c, o, n: g, "returned 2, expected 3"),
    (checks.check_output_size, lambda n, k, s, p: (n + 2 * p - k) // s, "add 1"),
    (checks.check_output_size, lambda n, k, s, p: (n + p - k) // s + 1, "counts twice"),
    (checks.check_output_size, lambda n, k, s, p: (n - k) // s + 1, "Padding is left out"),
    (checks.check_output_size, lambda n, k, s, p: -((k - n - 2 * p) // s) + 1, "rounds up"),
    (checks.check_output_size, lambda n, k, s, p: (n + 2 * p - k) / s + 1, "fraction of a window"),
    (checks.check_output_size, lambda n, k, s, p: n + 2 * p - k + 1, "stride is left out"),
    (checks.check_output_size, lambda n, k, s, p: (n + 2 * p) // s, "kernel is left out"),
    (
        checks.check_output_size,
        lambda n, k, s, p: (n + 2 * p - k) // s + 1.0,
        "returned the float 2.0, expected the integer 2. Use // where you divide",
    ),
    (checks.check_min_pool, lambda x: F.max_pool2d(x, 2), "That is max pooling"),
    (checks.check_min_pool, lambda x: F.max_pool2d(-x, 2), "sign of the result"),
    (checks.check_min_pool, lambda x: -F.max_pool2d(x, 2), "before the pooling too"),
    (checks.check_min_pool, lambda x: F.avg_pool2d(x, 2), "average pooling"),
    (checks.check_min_pool, lambda x: -F.max_pool2d(-x, 2, ceil_mode=True), "left over"),
    (checks.check_min_pool, lambda x: x.amin((2, 3)), "one minimum per channel"),
    (checks.check_gap_from_windows, lambda m, c: mean(m), "mean of the window means"),
    (checks.check_gap_from_windows, lambda m, c: np.dot(m, c), "sum of the whole map"),
    (checks.check_gap_from_windows, lambda m, c: np.dot(m, c) / len(c), "number of windows"),
    (checks.check_gap_from_windows, lambda m, c: sum(m) / sum(c), "mean * count"),
    (checks.check_flatten_parameters, lambda c, h, w, k: k * c * h * w, "biases are missing"),
    (checks.check_flatten_parameters, lambda c, h, w, k: k * c * h * w + 1, "Each class has its"),
    (checks.check_flatten_parameters, lambda c, h, w, k: (k + 1) * c * h * w, "what comes out"),
    (checks.check_flatten_parameters, lambda c, h, w, k: (c + 1) * k, "one number per channel"),
    (checks.check_flatten_parameters, lambda c, h, w, k: (h * w + 1) * k, "There are C maps"),
    (checks.check_flatten_parameters, lambda c, h, w, k: (c * (h + w) + 1) * k, "adds height"),
    (checks.check_flatten_parameters, lambda c, h, w, k: k + c * h * w, "multiply by the classes"),
    (checks.check_flatten_parameters, lambda c, h, w, k: h * w * c, "how many numbers go in"),
    (checks.check_flatten_parameters, lambda c, h, w, k: h * w * c * k + c, "for each channel"),
    (checks.check_gap_parameters, lambda c, h, w, k: k * c, "biases are missing"),
    (checks.check_gap_parameters, lambda c, h, w, k: c * h * w * k, "weights of the flatten"),
    (checks.check_gap_parameters, lambda c, h, w, k: (c * h * w + 1) * k, "the flatten head"),
    (checks.check_gap_parameters, lambda c, h, w, k: (k + 1) * c, "one bias for each channel"),
    (checks.check_gap_parameters, lambda c, h, w, k: k + c, "adds channels and classes"),
    (checks.check_gap_parameters, lambda c, h, w, k: (c + 1) * k + h * w, "no parameters"),
    (checks.check_halvings, lambda n: math.ceil(math.log2(n)), "drops it"),
    (checks.check_halvings, lambda n: len(bin(n)) - 2, "one too many"),
    (checks.check_halvings, lambda n: math.log(n) / math.log(2), "fraction of a layer"),
    (checks.check_halvings, lambda n: n >> 1, "size after one pooling"),
    (checks.check_halvings, lambda n: len(range(1, n)), "one row away at a time"),
    (checks.check_gap_head, lambda x, w, b: x.mean((2, 3)) @ w.T, "bias is missing"),
    (checks.check_gap_head, lambda x, w, b: x.sum((2, 3)) @ w.T + b, "grow with the picture"),
    (checks.check_gap_head, lambda x, w, b: x.amax((2, 3)) @ w.T + b, "with the maximum"),
    (checks.check_gap_head, lambda x, w, b: w @ x[0].mean((1, 2)) + b, "first picture only"),
    (checks.check_gap_head, lambda x, w, b: (x.mean((2, 3)) @ w.T + b).squeeze(), "squeeze()"),
    (
        checks.check_gap_head,
        lambda x, w, b: (x.mean((2, 3)) @ w.T + b).softmax(-1),
        "Those are probabilities",
    ),
    (checks.check_gap_head, lambda x, w, b: w @ x.mean((2, 3)).T + b[:, None], "that is (K, N)"),
    (checks.check_gap_head, lambda x, w, b: x.mean((2, 3)) @ w + b, "With @ it has to"),
    (checks.check_gap_head, lambda x, w, b: F.linear(x.flatten(1), w, b), "That flattens"),
    (
        checks.check_gap_head,
        lambda x, w, b: F.linear(x.mean((2, 3)), w.T, b),
        "F.linear does that itself",
    ),
    (checks.check_gap_head, lambda x, w, b: w @ x.mean((2, 3)).T + b, "the other way round"),
    (
        checks.check_gap_head,
        lambda x, w, b: F.linear(F.adaptive_avg_pool2d(x, 1), w, b),
        "or no keepdim",
    ),
    (
        checks.check_gap_head,
        lambda x, w, b: torch.einsum("nchw,kc->nkhw", x, w) + b[:, None, None],
        "Those are maps",
    ),
    (checks.check_keras_to_torch, lambda kernel, c, h, w: kernel.t(), "no more"),
    (
        checks.check_keras_to_torch,
        lambda kernel, c, h, w: kernel.view(-1, c * h * w),
        "it does not turn",
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
        lambda kernel, c, h, w: kernel.T.reshape(-1, c, h, w),
        "has four axes",
    ),
    (
        checks.check_keras_to_torch,
        lambda kernel, c, h, w: kernel.T.reshape(-1, h, w, c).permute(0, 3, 1, 2),
        "The order is right",
    ),
    (checks.check_pool_any_batch, lambda x: nn.AdaptiveAvgPool2d(1)(x).squeeze(), "batch axis is"),
    (checks.check_pool_any_batch, lambda x: x.mean((2, 3), keepdim=True), "are left over"),
    (checks.check_pool_any_batch, lambda x: x.mean((2, 3))[..., None], "are left over"),
    (checks.check_pool_any_batch, lambda x: x.mean((2, 3)).view(-1), "one long row"),
    (
        checks.check_pool_any_batch,
        lambda x: x.mean((2, 3)).squeeze().unsqueeze(0),
        "spoils the others",
    ),
    (checks.check_pool_any_batch, lambda x: F.adaptive_max_pool2d(x, 1)[..., 0, 0], "global max"),
    (checks.check_pool_any_batch, lambda x: x.flatten(2).sum(2), "sum of each map"),
    (
        checks.check_pool_any_batch,
        lambda x: x.mean((2, 3)).view(-1, 10),
        "right for 10 classes and no others",
    ),
    (checks.check_pool_any_batch, lambda x: x.mean(1).flatten(1), "averages over the classes"),
    (checks.check_pool_channels_last, lambda x: x.mean((-1, -2)), "width and channels"),
    (checks.check_pool_channels_last, lambda x: x.mean((1, 2), True), "Leave keepdim out"),
    (checks.check_pool_channels_last, lambda x: x.mean((1, 2)).squeeze(), "batch axis is gone"),
    (checks.check_pool_channels_last, lambda x: x.mean((1, 3)), "one pair of axes too far"),
    (checks.check_pool_channels_last, lambda x: x.flatten(1).mean(1), "Keep the last axis"),
    (
        checks.check_pool_channels_last,
        lambda x: x.view(x.shape[0], x.shape[3], -1).mean(-1),
        "use permute",
    ),
    (
        checks.check_pool_channels_last,
        lambda x: x.reshape(x.shape[0], x.shape[3], -1).mean(-1),
        "use permute",
    ),
    (checks.check_pool_channels_last, lambda x: x.flatten(1, 2).amax(1), "global max"),
    (checks.check_pool_channels_last, lambda x: x.flatten(1, 2).sum(1), "sum of each map"),
    (checks.check_pool_any_size, lambda x: nn.AvgPool2d(3)(x).flatten(1), "flatten makes 4"),
    (checks.check_pool_any_size, lambda x: nn.AvgPool2d(x.size(2))(x).flatten(1), "right part out"),
    (checks.check_pool_any_size, lambda x: nn.AvgPool2d(3)(x).mean((2, 3)), "window averages"),
    (checks.check_pool_any_size, lambda x: nn.AvgPool2d(x.size(3))(x).flatten(1), "side W"),
    (checks.check_pool_any_size, nn.AvgPool2d(3), "Those are maps still"),
    (
        checks.check_pool_any_size,
        lambda x: nn.AvgPool2d(3, stride=1)(x).flatten(2).mean(2),
        "counts more often",
    ),
    (checks.check_pool_any_size, lambda x: x[:, :, :3, :3].mean((2, 3)), "first window only"),
    (
        checks.check_pool_any_size,
        lambda x: F.interpolate(x, size=(3, 3)).flatten(2).mean(2),
        "Resizing picks",
    ),
    (checks.check_pool_any_size, lambda x: x.mean((2, 3), keepdim=True), "are left over"),
    (checks.check_pool_any_size, lambda x: x.mean((2, 3)).squeeze(0), "returned shape"),
    (checks.check_pool_any_size, lambda x: x.mean((2, 3)).squeeze(), "batch axis is gone"),
    (checks.check_pool_any_size, lambda x: x.flatten(2).amax(2), "global max"),
    (checks.check_pool_any_size, lambda x: x.flatten(2).sum(2), "sum of each map"),
    (
        checks.check_pool_any_size,
        lambda x: F.avg_pool2d(x, 7).flatten(1),
        "your function raised RuntimeError",
    ),
    (
        checks.check_pool_volumes,
        lambda t: F.avg_pool3d(t, t.size()[2:]).view(t.size(), -1),
        "The number of pictures is x.size(0)",
    ),
    (checks.check_pool_volumes, lambda t: F.adaptive_avg_pool3d(t, 1), "are left over"),
    (checks.check_pool_volumes, lambda t: t.mean((2, 3, 4)).squeeze(), "batch axis is gone"),
    (checks.check_pool_volumes, lambda t: t.mean((2, 3, 4)).view(-1), "one long row"),
    (checks.check_pool_volumes, lambda t: t.mean((2, 3)), "so the width is left"),
    (checks.check_pool_volumes, lambda t: t.mean((-1, -2)), "leaves the depth"),
    (
        checks.check_pool_volumes,
        lambda t: F.avg_pool2d(t, t.shape[3:]).flatten(2),
        "it is avg_pool3d",
    ),
    (
        checks.check_pool_volumes,
        lambda t: nn.AdaptiveAvgPool2d(1)(t).flatten(1),
        "is adaptive_avg_pool3d",
    ),
    (checks.check_pool_volumes, lambda t: t.flatten(2).amax(2), "global max"),
    (checks.check_pool_volumes, lambda t: t.flatten(2).sum(2), "sum of each map"),
    (
        checks.check_pool_then_linear,
        lambda x, linear: linear(nn.AdaptiveAvgPool2d(1)(x)),
        "works on the last axis",
    ),
    (checks.check_pool_then_linear, lambda x, linear: linear(x.flatten(1)), "Pool first"),
    (
        checks.check_pool_then_linear,
        lambda x, linear: linear(x.mean((2, 3)).squeeze()),
        "batch axis is gone",
    ),
    (
        checks.check_pool_then_linear,
        lambda x, linear: linear(x.mean((2, 3)).flatten()),
        "one long row",
    ),
    (checks.check_pool_then_linear, lambda x, linear: linear(x.amax((2, 3))), "global max"),
    (checks.check_pool_then_linear, lambda x, linear: linear(x.sum((2, 3))), "sum of each map"),
    (
        checks.check_pool_then_linear,
        lambda x, linear: linear(x.permute(0, 2, 3, 1)),
        "at every position",
    ),
    (checks.check_pool_then_linear, lambda x, linear: x.mean((2, 3)), "linear layer is missing"),
    (
        checks.check_pool_then_linear,
        lambda x, linear: F.linear(x.mean((2, 3)), linear.weight),
        "bias of the linear layer",
    ),
    (
        checks.check_any_size_network,
        lambda images, body: body(images.view(-1, 1, 28, 28)).mean((2, 3)).view(-1, 10),
        "cuts larger pictures",
    ),
    (
        checks.check_any_size_network,
        lambda images, body: body(images.view(images.size(0), 1, 28, 28)).mean((2, 3)),
        "That wants 28×28",
    ),
    (
        checks.check_any_size_network,
        lambda images, body: body(images[:, :, :28, :28]).mean((2, 3)),
        "cuts the pictures off",
    ),
    (
        checks.check_any_size_network,
        lambda images, body: body(F.interpolate(images, 28)).mean((2, 3)),
        "needs no fixed size",
    ),
    (checks.check_any_size_network, lambda images, body: body(images), "Those are the maps"),
    (
        checks.check_any_size_network,
        lambda images, body: body(images).view(-1, 10),
        "in rows of ten",
    ),
    (
        checks.check_any_size_network,
        lambda images, body: body(images).flatten(2).amax(2),
        "global max",
    ),
    (
        checks.check_any_size_network,
        lambda images, body: body(images).mean((2, 3), keepdim=True),
        "are left over",
    ),
    (
        checks.check_any_size_network,
        lambda images, body: body(images).mean((2, 3)).squeeze(),
        "batch axis is gone",
    ),
    (
        checks.check_any_size_network,
        lambda images, body: nn.AvgPool2d(28)(body(images)).flatten(1),
        "window of 28",
    ),
    (checks.check_loss_floor, lambda k: math.log(k), "same probability"),
    (checks.check_loss_floor, lambda k: 0.0, "without the sigmoid"),
    (checks.check_loss_floor, lambda k: math.e / (math.e + k - 1), "minus its logarithm"),
    (checks.check_loss_floor, lambda k: -math.log(1 + (k - 1) / math.e), "but for its sign"),
    (checks.check_loss_floor, lambda k: math.log(1 + k / math.e), "one less than"),
    (checks.check_loss_floor, lambda k: math.log10(1 + (k - 1) / math.e), "natural logarithm"),
    (
        checks.check_loss_floor,
        lambda k: -math.log(math.e / (math.e + (k - 1) * math.exp(0.5))),
        "sigmoid(0) = 0.5",
    ),
    (checks.check_loss_floor, lambda k: math.log(math.e + k - 1), "above the line"),
    (checks.check_loss_floor, lambda k: math.log(1 + 9 / math.e), "any number of them"),
    (checks.check_loss_floor, lambda k: round(math.log(1 + (k - 1) / math.e), 3), "expected"),
    (checks.check_mended_loss, lambda x, y: F.cross_entropy(x.sigmoid(), y), "The sigmoid still"),
    (checks.check_mended_loss, lambda x, y: F.cross_entropy(x.softmax(1), y), "The softmax still"),
    (
        checks.check_mended_loss,
        lambda x, y: F.cross_entropy(x, y, reduction="sum"),
        "sum over the pictures",
    ),
    (
        checks.check_mended_loss,
        lambda x, y: F.cross_entropy(x, y, reduction="none"),
        "one loss for each picture",
    ),
    (
        checks.check_mended_loss,
        lambda x, y: F.nll_loss(x.sigmoid().log(), y),
        "do not add up to 1",
    ),
    (
        checks.check_mended_loss,
        lambda x, y: -(x.exp() / x.exp().sum(1, keepdim=True)).gather(1, y[:, None]).log().mean(),
        "more than a float can hold",
    ),
    (checks.check_mended_loss, F.nll_loss, "takes the logits as they are"),
    (
        checks.check_mended_loss,
        lambda x, y: F.nll_loss(x.softmax(1), y),
        "softmax gives probabilities",
    ),
    (
        checks.check_mended_loss,
        lambda x, y: F.binary_cross_entropy_with_logits(x, F.one_hot(y, x.shape[1]).float()),
        "exclude each other",
    ),
    (
        checks.check_mended_loss,
        lambda x, y: F.cross_entropy(x.detach(), y),
        "no gradient reaches x",
    ),
    (checks.check_mended_loss, lambda x, y: F.cross_entropy(x, y).item(), "a float, expected"),
    (checks.check_accuracy, lambda x, y: (x.argmax(1) == y).sum(), "Divide by how many"),
    (
        checks.check_accuracy,
        lambda x, y: (x.argmax(1) == y).sum() / x.numel(),
        "not by the number of logits",
    ),
    (checks.check_accuracy, lambda x, y: (x.argmax(1) != y).float().mean(), "names wrongly"),
    (
        checks.check_accuracy,
        lambda x, y: (x.max(1).values == y).float().mean(),
        "largest logit itself",
    ),
    (
        checks.check_accuracy,
        lambda x, y: (x.argmax(0) == y).float().mean(),
        "argmax(0) looks for",
    ),
    (checks.check_accuracy, lambda x, y: (x.argmax(1) == y).all().float(), "all() and //"),
    (checks.check_accuracy, lambda x, y: (x.argmax(1) == y).sum() // len(y), "all() and //"),
    (checks.check_accuracy, lambda x, y: (x.argmax(1) == y).mean(), "Make numbers of them"),
    (checks.check_accuracy, lambda x, y: 100 * (x.argmax(1) == y).float().mean(), "in percent"),
    (checks.check_accuracy, lambda x, y: (x.argmax() == y).float().mean(), "without an axis"),
    (
        checks.check_flatten_any_size,
        lambda model, images: model(images),
        "Bring them to 3×3 in front of model.head",
    ),
    (
        checks.check_flatten_any_size,
        lambda model, images: model.head(model.body(images)),
        "Bring them to 3×3 in front of model.head",
    ),
    (
        checks.check_flatten_any_size,
        lambda model, images: model.head(model.body(images).mean((2, 3), keepdim=True)),
        "That is GAP",
    ),
    (
        checks.check_flatten_any_size,
        lambda model, images: model.head(F.adaptive_max_pool2d(model.body(images), 3)),
        "The task asks for averages",
    ),
    (
        checks.check_flatten_any_size,
        lambda model, images: model.head(model.body(images)[:, :, :3, :3]),
        "cuts the maps",
    ),
    (
        checks.check_flatten_any_size,
        lambda model, images: model(images[:, :, :28, :28]),
        "cuts the picture",
    ),
    (
        checks.check_flatten_any_size,
        lambda model, images: model.head(F.adaptive_avg_pool2d(model.body(images), 3)).softmax(1),
        "leave the softmax out",
    ),
    (
        checks.check_flatten_any_size,
        lambda model, images: model(F.interpolate(images, (28, 28))),
        "the maps behind the body",
    ),
    (checks.check_maps_of, lambda model, layer, images: layer(images), "to the layer yourself"),
    (
        checks.check_maps_of,
        lambda *a: maps_with_try(*a, keep=lambda inputs, output: inputs[0]),
        "what goes into the layer",
    ),
    (checks.check_maps_of, lambda model, layer, images: model(images), "the whole network gives"),
    (
        checks.check_maps_of,
        lambda *a: maps_with_try(*a, keep=lambda inputs, output: output),
        "Keep a copy: output.clone()",
    ),
    (
        checks.check_maps_of,
        lambda *a: maps_with_try(*a, keep=lambda inputs, output: (output.clone(),)),
        "inside a tuple",
    ),
    (
        checks.check_winning_maps,
        lambda x: torch.stack([pooled.argmax(1) for pooled in reversed(winners(x))]),
        "The rows are swapped",
    ),
    (
        checks.check_winning_maps,
        lambda x: torch.stack([winners(x)[0].argmax(1)] * 2),
        "Both rows hold the map with the largest mean",
    ),
    (
        checks.check_winning_maps,
        lambda x: torch.stack([winners(x)[1].argmax(1)] * 2),
        "Both rows hold the map with the largest number",
    ),
    (
        checks.check_winning_maps,
        lambda x: torch.stack([pooled.argmax(1) for pooled in winners(x)], 1),
        "The rows are pictures here",
    ),
    (
        checks.check_winning_maps,
        lambda x: torch.stack([pooled.argmax(0) for pooled in winners(x)]),
        "the winning picture of each map",
    ),
    (
        checks.check_winning_maps,
        lambda x: torch.stack([pooled.amax(1) for pooled in winners(x)]),
        "argmax gives their places",
    ),
    (
        checks.check_winning_maps,
        lambda x: torch.stack(winners(x)),
        "the pooled numbers of all maps",
    ),
    (
        checks.check_winning_maps,
        lambda x: torch.stack([pooled.argmax(1) for pooled in winners(x.abs())]),
        "without the sign",
    ),
    (
        checks.check_winning_maps,
        lambda x: torch.stack([pooled.argmax(1) for pooled in winners(x.relu())]),
        "Do not cut them off",
    ),
    (checks.check_cam, lambda f, w: torch.einsum("nchw,kc->nckhw", f, w), "leave c out"),
    (checks.check_cam, lambda f, w: cams(f, w).mean((2, 3)), "the logits without the bias"),
    (checks.check_cam, lambda f, w: cams(f, w).sum((2, 3)), "The positions have been added up"),
    (checks.check_cam, lambda f, w: torch.einsum("nchw,kc->nhwk", f, w), "the classes come last"),
    (checks.check_cam, lambda f, w: torch.einsum("nchw,kc->knhw", f, w), "the classes come first"),
    (checks.check_cam, lambda f, w: torch.einsum("nchw,kc->nkwh", f, w), "rows and columns"),
    (checks.check_cam, lambda f, w: F.relu(cams(f, w)), "The negative numbers are gone"),
    (checks.check_cam, lambda f, w: torch.einsum("nchw,kc->nkchw", f, w), "leave c out"),
    (checks.check_cam, lambda f, w: cams(f, w) / w.shape[1], "the mean over the channels"),
    (checks.check_feature_side, lambda size: size // 32, "25 becomes 13. // rounds down"),
    (checks.check_feature_side, lambda size: round(size / 32), "what is below .5 too"),
    (checks.check_feature_side, lambda size: size / 32, "A side is a whole number"),
    (checks.check_feature_side, lambda size: math.ceil(size / 16), "That is four halvings"),
    (checks.check_feature_side, lambda size: size // 32 + 1, "there is nothing to round up"),
    (checks.check_feature_side, lambda size: math.ceil(size / 32) + 1, "returned 11, expected 10"),
    (checks.check_feature_side, lambda size: float(math.ceil(size / 32)), "expected the integer"),
    (
        checks.check_features_of,
        lambda m, x: m.final_conv(m.stages(m.stem(x))),
        "the numbers before final_act",
    ),
    (
        checks.check_features_of,
        lambda m, x: F.relu(m.final_conv(m.stages(m.stem(x)))),
        "The activation of this network is no ReLU",
    ),
    (
        checks.check_features_of,
        lambda m, x: m.stages(m.stem(x)),
        "final_conv and final_act are missing",
    ),
    (
        checks.check_features_of,
        lambda m, x: m.forward_features(x).mean((2, 3)),
        "That is pooled already",
    ),
    (checks.check_features_of, lambda m, x: m(x), "These are the logits"),
    (checks.check_features_of, lambda m, x: m.stem(x), "returned shape (1, "),
    (checks.check_mean_of_patches, lambda t, prefix: t.mean(1), "leave the first `prefix` of them"),
    (checks.check_mean_of_patches, lambda t, prefix: t[:, 1:].mean(1), "leaves one token out, al"),
    (checks.check_mean_of_patches, lambda t, prefix: t[:, prefix:].mean(2), "are on axis 1."),
    (checks.check_mean_of_patches, lambda t, prefix: t[:, prefix:].mean((1, 2)), "is one number"),
    (checks.check_mean_of_patches, lambda t, prefix: t[:, 0], "That is the first token"),
    (checks.check_mean_of_patches, lambda t, prefix: t.mean((2, 3)), "raised IndexError"),
    (checks.check_mean_of_patches, lambda t, prefix: t[:, prefix:].mean((2, 3)), "no height and"),
    (
        checks.check_mean_of_patches,
        lambda t, prefix: t[:, prefix:].sum(1) / t.shape[1],
        "divided by the number of all tokens",
    ),
    (checks.check_mean_of_patches, lambda t, prefix: t[prefix:].mean(1), "the first pictures"),
    (checks.check_mean_of_patches, lambda t, prefix: t[..., prefix:].mean(1), "the first channels"),
    (checks.check_mean_of_patches, lambda t, prefix: t[:, prefix:].sum(1), "That is the sum"),
    (checks.check_mean_of_patches, lambda t, prefix: t[:, prefix:].amax(1), "That is the maximum"),
    (
        checks.check_mean_of_patches,
        lambda t, prefix: t[:, prefix:].mean(1, keepdim=True),
        "no keepdim",
    ),
]

# tested in files of their own
STATEMENTS = [
    checks.check_winners,
    checks.check_supported_claims,
    checks.check_halving_layer,
    checks.check_two_maps,
    checks.check_linear_head,
    checks.check_max_counterexample,
    checks.check_cam_families,
    checks.check_gap_locations,
    checks.check_new_head,
]
CHECKS = [
    check
    for name, check in inspect.getmembers(checks)
    if name.startswith("check_") and check not in STATEMENTS
]


@pytest.mark.parametrize(
    ("check", "answer"), [(check, answer) for check, answers in RIGHT.items() for answer in answers]
)
def test_right_answers_pass(check, answer):
    feedback = check(answer)
    assert feedback.passed, feedback
    assert repr(feedback).startswith("✓ Right: ")
    assert "\n" not in repr(feedback)


@pytest.mark.parametrize(("check", "answer", "sentence"), WRONG)
def test_wrong_answers_are_named(check, answer, sentence):
    feedback = check(answer)
    assert not feedback.passed
    assert feedback.message.startswith("✗ On the input ")
    assert sentence in feedback.message


def test_every_known_mistake_is_among_the_wrong_answers(monkeypatch):
    known = set()

    def collect(answer, mistakes, **rest):
        known.update(sentence for _, sentence in mistakes)
        return NOT_ATTEMPTED

    with monkeypatch.context() as patch:
        for check in CHECKS:
            patch.setattr(inspect.getmodule(check), "grade", collect)
            check(None)
    messages = "\n".join(check(answer).message for check, answer, _ in WRONG)
    assert [sentence for sentence in known if sentence not in messages] == []
    assert len(known) > 80


def raise_not_implemented(*arguments):
    raise NotImplementedError


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
        (lambda: 0, "raised TypeError"),
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


def test_rounding_is_seen_even_where_four_decimals_agree():
    feedback = checks.check_gap(lambda x: torch.round(x.mean((2, 3)), decimals=4))
    assert "with more decimals: do not round" in feedback.message


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
            "no gradient reaches x, so nothing before it could learn",
        ),
        (
            lambda x: torch.tensor(x.mean((2, 3)).tolist()),
            "no gradient reaches x, so nothing before it could learn",
        ),
        (lambda x: x.mean((2, 3)) * 0.5 + x.data.mean((2, 3)) * 0.5, "a wrong gradient reaches"),
        (lambda x: torch.tensor(x.numpy().mean((2, 3))), "with gradients your function raised"),
    ],
)
@pytest.mark.parametrize(
    "check", [checks.check_pool_any_batch, checks.check_pool_any_size], ids=lambda c: c.__name__
)
def test_gradients_must_be_right_too(check, answer, sentence):
    feedback = check(answer)
    assert not feedback.passed
    assert "the numbers are right, but" in feedback.message
    assert sentence in feedback.message


def test_an_answer_must_leave_its_layer_alone():
    def spoil(x, linear):
        logits = linear(x.mean((2, 3)))
        with torch.no_grad():
            linear.weight.zero_()
        return logits

    assert "changed its input" in checks.check_pool_then_linear(spoil).message


def test_memory_layouts_are_tried_and_named():
    def only_contiguous(x):
        return x.mean((2, 3)) + (not x.is_contiguous())

    feedback = checks.check_pool_any_batch(only_contiguous)
    assert "a tensor of shape (4, 3, 2, 5), channels-last in memory: " in feedback.message

    def view(x):
        return x.view(len(x), x.shape[1], -1).mean(2)

    feedback = checks.check_pool_any_batch(view)
    assert "a tensor of shape (4, 3, 2, 5), cut out of larger maps: your function raised" in (
        feedback.message
    )


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
        (
            checks.check_any_size_network,
            lambda images, body: F.conv2d(images, body.weight, body.bias.detach(), padding=1).mean(
                (2, 3)
            ),
            "body.bias",
        ),
    ],
)
def test_weights_must_get_a_gradient_too(check, answer, name):
    assert f"no gradient reaches {name}, so" in check(answer).message


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_the_notebook_switched_off_does_not_count(mode):
    with mode():
        assert checks.check_pool_any_batch(lambda x: x.mean((2, 3))).passed


def test_what_goes_wrong_with_gradients_only_is_said():
    def answer(x):
        return (x.mean((2, 3)),) if x.requires_grad else x.mean((2, 3))

    assert "no gradient reaches x" in checks.check_pool_any_batch(answer).message

    def refuse(x):
        if x.requires_grad:
            raise KeyError("no")
        return x.mean((2, 3))

    assert "with gradients your function raised KeyError" in (
        checks.check_pool_any_batch(refuse).message
    )


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

    feedback = checks.check_pool_any_size(Typo())
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
    ):
        feedback = checks.check_accuracy(answer)
        assert not feedback.passed
        assert "one picture at a time" in feedback.message


def test_an_answer_must_leave_the_network_alone():
    def answer(model, images):
        logits = model.head(F.adaptive_avg_pool2d(model.body(images), 3))
        model.train()
        return logits

    assert "changed its input" in checks.check_flatten_any_size(answer).message
    message = checks.check_flatten_any_size(lambda model, images: None).message
    assert "On the input model=a ConvNet, images=a tensor of shape (2, 1, 28, 28)" in message


def test_checks_of_lesson_04_mind_no_default_device():
    torch.set_default_device("meta")
    try:
        assert checks.check_mended_loss(F.cross_entropy).passed
        assert checks.check_accuracy(lambda x, y: (x.argmax(1) == y).float().mean()).passed
        assert checks.check_flatten_any_size(
            lambda model, images: model.head(F.adaptive_avg_pool2d(model.body(images), 3))
        ).passed
    finally:
        torch.set_default_device(None)
