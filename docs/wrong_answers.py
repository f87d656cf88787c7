"""A wrong answer to each exercise, with a mistake that learners often make.

The site of the lessons shows it beside what the check says to it, since no kernel runs there.

An answer stands in for the stub of its name in a lesson. `inspect.getsource` gives it as a
learner would write it. It is run among the names that the lesson imports, so it uses no others.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

# Lesson 00: start here


def numbers_per_map(shape):
    return shape[1] * shape[2] * shape[3]


# Lesson 01: pool a 4×4 map


def my_gap(features):
    return features.mean(dim=(1, 2))


def my_max_pool(image):
    height, width = image.shape
    pooled = torch.empty(height // 2, width // 2)
    for i in range(height // 2):
        for j in range(width // 2):
            pooled[i, j] = image[i : i + 2, j : j + 2].max()
    return pooled


def gap_after_change(gap, count, old, new):
    return gap + new - old


def my_output_size(size, kernel_size, stride, padding):
    return (size + 2 * padding - kernel_size) // stride


def my_min_pool(features):
    return -F.max_pool2d(features, 2)


def gap_from_windows(means, counts):
    return sum(means) / len(means)


# Lesson 02: compare flatten and GAP


def flatten_parameters(channels, height, width, num_classes):
    return channels * height * width * num_classes


def my_head(features, weight, bias):
    pooled = features.mean((2, 3))
    return pooled @ weight + bias


def keras_to_torch(kernel, channels, height, width):
    return kernel.T


# Lesson 03: write GAP in PyTorch


def pool_any_batch(maps, pool):
    return pool(maps).squeeze()


def pool_channels_last(features):
    return features.mean((2, 3))


def pool_any_size(network, images):
    maps = network[:2](images)
    pooled = F.avg_pool2d(maps, maps.shape[2])
    return network[4](pooled.flatten(1))


def pool_any_axes(features):
    return features.mean((2, 3))


def pool_then_linear(features, linear):
    pooled = F.adaptive_avg_pool2d(features, 1)
    return linear(pooled)


def any_size_network(images, body):
    images = images.view(-1, 1, 28, 28)
    return body(images).mean((2, 3))


# Lesson 04: train on Fashion-MNIST


def loss_floor(num_classes):
    return -math.log(1)


def mended_loss(logits, labels):
    return F.cross_entropy(logits.softmax(1), labels)


def accuracy(logits, labels):
    return (logits.argmax(1) == labels).mean()


def head_claims():
    return "A", "A"


# Lesson 05: move and enlarge the picture


def supported_claims():
    return "ABC", "ABC"


def shift_step(strides):
    return sum(strides)


def gmp_gradient(maps):
    largest = maps.amax((2, 3), keepdim=True)
    return (maps == largest).float()


def canvas_sizes():
    return [28, 32, 36, 40, 48], [28, 32, 36, 40, 48]


# Lesson 06: look inside feature maps


def maps_of(model, layer, images):
    kept = []
    handle = layer.register_forward_hook(lambda layer, inputs, output: kept.append(output))
    try:
        model(images)
    finally:
        handle.remove()
    return kept[0]


def halving_layer():
    return "layer4"


def winning_maps(maps):
    under_gap = maps.mean((2, 3)).amax(1)
    under_gmp = maps.amax((2, 3)).amax(1)
    return torch.stack([under_gap, under_gmp])


# Lesson 07: explain with class activation maps


def cam_by_einsum(features, weight):
    return torch.einsum("nchw,kc->nk", features, weight)


def maximum_is_different():
    return [[[1, 2]], [[3, 4]]], [1, 2]


def families():
    return {"our gap network": "A", "NiN": "A", "SqueezeNet": "A", "ResNet": "B", "VGG": "D"}


def iou(box, other):
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (box, other)]
    return width * height / (sum(areas) - width * height)


# Lesson 08: use pretrained backbones


def gap_locations():
    return {
        "efficientnet_b0": "avgpool",
        "mobilenet_v2": "none",
        "alexnet": "avgpool",
    }


def features_of(model, images):
    return model.final_conv(model.stages(model.stem(images)))


def mean_of_patches(tokens, prefix):
    return tokens[:, 1:].mean(1)


def new_head(in_channels, num_classes):
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.BatchNorm1d(in_channels),
        nn.Linear(in_channels, num_classes),
    )


def refused_batches(pictures, batch_size):
    return pictures % batch_size


# Lesson 09: choose a head


def twin_maps():
    return [[[2, 2], [2, 2]], [[1, 2], [2, 3]]]


def my_gem(features, p):
    return (features**p).mean((2, 3)) ** 1 / p


def masked_mean(features, mask):
    return (features * mask[:, None]).mean((2, 3))


def squeeze_and_excite(features, first, second):
    squeezed = features.mean((2, 3))
    hidden = F.relu(first(squeezed))
    gates = torch.sigmoid(second(hidden))
    return features * gates
