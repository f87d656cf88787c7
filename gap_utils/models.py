"""One small convolutional body with three heads, lesson 04, and with three more, lesson 09."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from gap_utils.pooling import (
    generalized_mean_pool,
    global_average_pool,
    global_max_pool,
    log_sum_exp_pool,
    read_positive,
)
from gap_utils.values import read_whole_number

HEADS = ("gap", "gmp", "flatten")  # of the study, the labs and the trained networks
MORE_HEADS = ("gem", "lse", "gap+gmp")  # of lesson 09
CHANNELS = (8, 16, 32)  # of the three blocks
ASSETS = Path(__file__).parent / "assets"
# name -> what build_convnet is given, the sha256 of the weights, how they were trained
TRAINED = ASSETS / "trained.json"


class GeM(nn.Module):
    """Pool with `generalized_mean_pool`, whose `p` is learned: (N, C, H, W) -> (N, C).

    Wants features behind a ReLU: a number below 1e-6 counts as 1e-6 and gets no gradient.
    Nothing keeps the learned `p` above 0.

    Args:
        p: where the learning starts, above 0; 3 as in Radenovic, Tolias and Chum (2019).

    Raises:
        ValueError: if `p` is not above 0 and finite.

    Example:
        >>> round(GeM(p=1)(torch.tensor([[[[1.0, 3.0]]]])).item(), 4)
        2.0
    """

    def __init__(self, p: float = 3.0):
        super().__init__()
        self.p = nn.Parameter(torch.tensor(float(_read_start("p", p))))

    def forward(self, features: Tensor) -> Tensor:
        """Return the pooled features."""
        return generalized_mean_pool(features, self.p)


class LogSumExp(nn.Module):
    """Pool with `log_sum_exp_pool` of a fixed sharpness: (N, C, H, W) -> (N, C).

    Raises:
        ValueError: if the sharpness is not above 0 and finite.

    Example:
        >>> round(LogSumExp(sharpness=100)(torch.tensor([[[[1.0, 3.0]]]])).item(), 2)
        2.99
    """

    def __init__(self, sharpness: float = 1.0):
        super().__init__()
        self.sharpness = _read_start("sharpness", sharpness)

    def forward(self, features: Tensor) -> Tensor:
        """Return the pooled features."""
        return log_sum_exp_pool(features, self.sharpness)

    def extra_repr(self) -> str:
        """Return what stands in the brackets when it is printed."""
        return f"sharpness={self.sharpness}"


class AverageAndMax(nn.Module):
    """Put the averages of all maps and their maxima side by side: (N, C, H, W) -> (N, 2 C).

    Example:
        >>> AverageAndMax()(torch.tensor([[[[1.0, 3.0]]]]))
        tensor([[2., 3.]])
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return the pooled features."""
        return torch.cat([global_average_pool(features), global_max_pool(features)], dim=1)


class ConvNet(nn.Module):
    """A body of convolutions and a head that turns its maps into logits; see `build_convnet`.

    Attributes:
        body: pictures (N, in_channels, H, W) to features (N, 32, h, w).
        head: features to logits (N, num_classes).
        feature_size: height and width of the maps that a flatten head is for; None for
            the heads that take any.
    """

    def __init__(self, body: nn.Module, head: nn.Module, feature_size: tuple[int, int] | None):
        super().__init__()
        self.body, self.head, self.feature_size = body, head, feature_size

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of pictures; raise ValueError if the maps do not fit the head."""
        features = self.body(images)
        size = tuple(features.shape[2:])
        if self.feature_size is not None and size != self.feature_size:
            raise ValueError(
                f"expected maps of {self.feature_size} in front of the flatten head, whose "
                f"weights are for that size, got {size} from pictures of "
                f"{tuple(images.shape[2:])}; a gap or gmp head takes any size"
            )
        return self.head(features)


def _read_start(name: str, value: float | Tensor) -> float:
    """Read a number above 0; of a tensor, also one that is learned elsewhere, a plain copy."""
    value = read_positive(name, value.detach() if isinstance(value, Tensor) else value)
    return value.item() if isinstance(value, Tensor) else value


def build_convnet(
    head: str = "gap",
    in_channels: int = 1,
    num_classes: int = 10,
    batch_norm: bool = False,
    last_pool: bool = True,
    input_size: int = 28,
    blur: bool = False,
) -> ConvNet:
    """Build the network of lesson 04.

    The body has six 3×3 convolutions to 8, 8, 16, 16, 32 and 32 channels, a ReLU behind
    each, and a 2×2 max pooling behind every second. The heads "gap" and "gmp" are a 1×1
    convolution to one map per class and the average or the maximum of each map; "flatten"
    is a linear layer on all numbers of the maps.

    Lesson 09 adds three. "lse" is as "gap", with log-sum-exp in place of the average: it takes
    numbers of any sign, so it can pool the maps of the classes. "gem" cannot: a logit may be
    negative, and GeM takes every negative number for 0. So it pools the features, which come
    out of a ReLU, and a linear layer makes the logits of them. "gap+gmp" pools the features
    too, to an average and a maximum of each, and a linear layer weighs both.

    Args:
        head: "gap", "gmp", "flatten", "gem", "lse" or "gap+gmp".
        in_channels: 1 for grey pictures, 3 for colour.
        num_classes: how many logits.
        batch_norm: put batch normalisation behind each 3×3 convolution, in place of its bias.
        last_pool: whether the third pooling is there; without it 28×28 gives maps of 7×7.
        input_size: height and width of the pictures; matters to "flatten" only.
        blur: average each number with its neighbours before a pooling steps over it: the
            maximum is taken at every position, then come two 2×2 averages, of which the second
            has the stride. The sizes of the maps and the weights are the same.

    Returns:
        The network with PyTorch's initial weights, in channels-last memory, which makes a step
        of training on a CPU about a quarter shorter.

    Raises:
        ValueError: if the head is unknown, a count is no positive integer, or a size leaves no
            maps.

    Source:
        A small VGG-like body; the head "gap" is that of Lin, Chen and Yan (2014), "Network In
        Network". For "gem" and "lse" see `generalized_mean_pool` and `log_sum_exp_pool`; for
        `blur` Zhang (2019), "Making Convolutional Networks Shift-Invariant Again".

    Example:
        >>> sum(parameter.numel() for parameter in build_convnet().parameters())
        18370
    """
    if not isinstance(head, str) or head not in (*HEADS, *MORE_HEADS):
        known = ", ".join(f'"{name}"' for name in (*HEADS, *MORE_HEADS))
        raise ValueError(f"expected head to be one of {known}, got {head!r}")
    num_classes = read_whole_number("num_classes", num_classes, 1)
    layers: list[nn.Module] = []
    inside = read_whole_number("in_channels", in_channels, 1)
    side = read_whole_number("input_size", input_size, 1)
    for block, outside in enumerate(CHANNELS):
        for channels in (inside, outside):
            layers.append(nn.Conv2d(channels, outside, 3, padding=1, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm2d(outside))
            layers.append(nn.ReLU())
        if last_pool or block < len(CHANNELS) - 1:
            layers += _blurred_pool() if blur else [nn.MaxPool2d(2)]
            side //= 2
        inside = outside

    if side < 1:
        raise ValueError(f"expected an input_size of which maps are left, got {input_size}")
    if head == "flatten":
        tail = [nn.Flatten(), nn.Linear(inside * side * side, num_classes)]
    elif head == "gem":
        tail = [GeM(), nn.Linear(inside, num_classes)]
    elif head == "gap+gmp":
        tail = [AverageAndMax(), nn.Linear(2 * inside, num_classes)]
    elif head == "lse":
        tail = [nn.Conv2d(inside, num_classes, kernel_size=1), LogSumExp()]
    else:
        pool = nn.AdaptiveAvgPool2d(1) if head == "gap" else nn.AdaptiveMaxPool2d(1)
        tail = [nn.Conv2d(inside, num_classes, kernel_size=1), pool, nn.Flatten()]
    feature_size = (side, side) if head == "flatten" else None
    model = ConvNet(nn.Sequential(*layers), nn.Sequential(*tail), feature_size)
    return model.to(memory_format=torch.channels_last)


def _blurred_pool() -> list[nn.Module]:
    """Halve maps as `MaxPool2d(2)` does, with a blur of 1, 2, 1 in each axis before the stride."""
    # the edge is repeated, not filled with zeros, which would darken it
    blur = [nn.ReplicationPad2d(1), nn.AvgPool2d(2, stride=1), nn.AvgPool2d(2)]
    return [nn.MaxPool2d(2, stride=1), *blur]


def load_trained(name: str) -> ConvNet:
    """Load a network whose trained weights ship here; on the CPU, in evaluation mode.

    Args:
        name: "gap", "gmp" or "flatten", the three networks of lesson 04; or "gap_7x7", with
            batch normalisation and without the last pooling, so that its maps are 7×7; or
            "gap_places" or "gmp_places", alike, for the clothes in clutter of lesson 07.
            `assets/README.md` tells how they were trained and how accurate they are.

    Raises:
        ValueError: if the name is unknown, or the file of the weights is damaged.

    Example:
        >>> load_trained("gap")(torch.zeros(1, 1, 28, 28)).shape
        torch.Size([1, 10])
    """
    trained = json.loads(TRAINED.read_text())
    if not isinstance(name, str) or name not in trained:
        raise ValueError(f"expected one of {', '.join(map(repr, trained))}, got {name!r}")
    path = ASSETS / f"{name}.safetensors"
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != trained[name]["sha256"]:
        raise ValueError(
            f"expected {path} to have the sha256 {trained[name]['sha256']}, got {found}"
        )
    # its first weights are drawn to be replaced: the caller's random state stays as it is
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        model = build_convnet(**trained[name]["network"])
    try:
        model.load_state_dict(load_tensors(content))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"expected {path} to fit {trained[name]['network']}: {error}") from error
    return model.eval()
