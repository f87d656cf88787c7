"""What a network computes on its way: maps of any layer, and class activation maps.

Introduced in lessons 06 and 07.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from itertools import count, islice
from traceback import walk_stack
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from gap_utils.inference import as_input, evaluation_mode, run_model


class Activations(dict):
    """Name of a layer -> what it gave in the model's last pass."""

    def __missing__(self, name: str):
        raise KeyError(f"{name!r} has given nothing; layers that have: {list(self)}")


@contextmanager
def capture_activations(
    model: nn.Module,
    layers: str | nn.Module | Sequence[str | nn.Module],
    detach: bool = True,
) -> Iterator[Activations]:
    """Keep what layers give while the model runs inside the `with` block.

    The model runs as ever: its mode, its numbers, gradients and random state are not
    touched, and the hooks are gone after the block, also after an error.

    Args:
        model: any module.
        layers: which of its modules, one or several: a dotted name as in
            `model.named_modules()`, a pattern such as "body.*" or "*", or the module itself.
            The name of a repeated call, such as "relu_1", stands for all calls of "relu".
        detach: give copies on the CPU without gradients. If False, give the very tensors
            that the model goes on with, on their device and in the graph of gradients; a
            later layer that works in place, such as `nn.ReLU(inplace=True)`, changes them.

    Yields:
        A dict, name -> tensor, in the order of the calls; where a layer gives a tuple, list
        or dict, the same with its tensors. A layer that is called more than once in a pass
        gives "name", "name_1", "name_2", ... A pass fills the dict, the next one empties it
        first. A pass is a call of the model or, from outside of such a call, of one of its
        modules or a method of theirs, such as timm's `model.forward_features(images)`; passes
        at the same time in several threads are not kept apart.

    Raises:
        ValueError: if a layer is not in the model, or was made by `torch.jit`.

    Source:
        The numbering of repeated calls is that of torchvision's `create_feature_extractor`,
        which traces a model instead of hooking it.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU())
        >>> with capture_activations(model, "0") as maps:
        ...     _ = model(torch.zeros(2, 1, 28, 28))
        >>> maps["0"].shape
        torch.Size([2, 8, 26, 26])
    """
    chosen = _choose(model, layers)
    check_python(chosen)
    modules = dict(model.named_modules())
    own = set(map(id, modules.values()))
    maps, calls = Activations(), Counter()
    outside = {frame for frame, _ in walk_stack(sys._getframe())}  # the block, and its callers
    current = None

    def begin(module: nn.Module, _inputs: Any) -> None:
        nonlocal current
        method = _find_method(own, outside)
        if module is model or method not in (None, current):
            maps.clear()
            calls.clear()
            current = method

    def keep(name: str, _module: nn.Module, _inputs: Any, given: Any) -> None:
        calls[name] += 1
        maps[name_of_call(name, calls[name], modules)] = _copy(given) if detach else given

    try:
        with ExitStack() as hooks, uncompiled():
            for module in modules.values():
                if not isinstance(module, torch.jit.ScriptModule):
                    hooks.enter_context(module.register_forward_pre_hook(begin))
            for name, module in chosen.items():
                hooks.enter_context(module.register_forward_hook(partial(keep, name)))
            yield maps
    finally:
        outside, current = set(), None  # frames keep what their variables hold


def _find_method(own: set[int], outside: set[FrameType]) -> FrameType | None:
    """Find the outermost running method of modules, given by `id`; each call has its own frame.

    A module's hooks tell of its calls, not of its methods, such as timm's `forward_features`.
    """
    found = None
    for frame, _ in walk_stack(sys._getframe()):
        if frame in outside:
            break
        if frame.f_code.co_varnames[:1] == ("self",) and id(frame.f_locals.get("self")) in own:
            found = frame
    return found


def check_python(layers: dict[str, nn.Module]) -> None:
    """Raise ValueError for layers that `torch.jit` made, which have no hooks."""
    for name, layer in layers.items():
        if isinstance(layer, torch.jit.ScriptModule):
            raise ValueError(
                f"expected layers that run in Python, got {repr(name) if name else 'a model'} "
                "from torch.jit, which takes no hooks: use the module that it was made of"
            )


def name_of_call(name: str, call: int, names: Container[str]) -> str:
    """Name call 1, 2, ... of a layer "relu", "relu_1", ...; leave out the names of layers."""
    numbered = (f"{name}_{number}" for number in count(1))
    free = (new for new in numbered if new not in names)
    return name if call == 1 else next(islice(free, call - 2, None))


def uncompiled() -> AbstractContextManager:
    """Run compiled models layer by layer: one that has run once would run past hooks."""
    compiler = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if compiler else nullcontext()


def _choose(model: nn.Module, layers: Any) -> dict[str, nn.Module]:
    """Find modules by name, pattern or themselves; each once, under the first name asked for."""
    known = dict(model.named_modules(remove_duplicate=False))
    single = isinstance(layers, str | nn.Module) or not isinstance(layers, Iterable)
    wanted = [layers] if single else list(layers)
    if not wanted:
        raise ValueError("expected at least one layer, got none")
    found: dict[str, nn.Module] = {}
    for layer in wanted:
        if isinstance(layer, nn.Module):
            fitting = [name for name, module in known.items() if module is layer][:1]
        elif isinstance(layer, str):
            called = layer if layer in known else re.sub(r"_[0-9]+$", "", layer)
            matching = [name for name in known if fnmatchcase(name, layer)]
            fitting = [called] if called in known else matching
        else:
            raise ValueError(f"expected a layer's name, pattern or module, got {layer!r}")
        if not fitting:
            near = isinstance(layer, str) and get_close_matches(layer, known, n=5, cutoff=0.4)
            names = near or [name for name in known if name][:10]
            asked = repr(layer) if isinstance(layer, str) else f"a {type(layer).__name__}"
            raise ValueError(
                f"expected layers of the model, got {asked}; "
                f"{'near ones are' if near else 'it has'} {', '.join(map(repr, names))}"
            )
        for name in fitting:
            if not any(known[name] is module for module in found.values()):
                found[name] = known[name]
    return found


def _copy(given: Any) -> Any:
    """Copy tensors to the CPU, inside tuples, lists and dicts too; leave the rest."""
    if isinstance(given, Tensor):
        return given.detach().to("cpu", copy=True)
    if isinstance(given, dict):
        return {key: _copy(value) for key, value in given.items()}
    if isinstance(given, tuple) and hasattr(given, "_fields"):  # a named tuple
        return type(given)._make(map(_copy, given))
    if isinstance(given, tuple | list):  # its own kind may be made of other things
        return [*map(_copy, given)] if isinstance(given, list) else tuple(map(_copy, given))
    return given


def class_activation_map(features: Tensor, weight: Tensor) -> Tensor:
    """Weigh the maps in front of global average pooling by what a linear layer gives them.

    The mean of a class's map over all positions, plus the class's bias, is its logit.

    Args:
        features: the maps that are pooled, shape `(N, C, *spatial)`.
        weight: of the linear layer behind the pooling, shape (K, C); or of a 1×1
            convolution, shape (K, C, 1, 1).

    Returns:
        A map for each class, shape `(N, K, *spatial)`, on the device of the features.

    Raises:
        ValueError: if the shapes do not fit.

    Source:
        Zhou, Khosla, Lapedriza, Oliva and Torralba (2016), "Learning Deep Features for
        Discriminative Localization".

    Example:
        >>> features = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]]])  # two maps of 1×2
        >>> class_activation_map(features, torch.tensor([[1.0, -1.0]]))
        tensor([[[[ 1., -2.]]]])
    """
    if features.ndim < 3:
        raise ValueError(f"expected features (N, C, *spatial), got {tuple(features.shape)}")
    if weight.ndim < 2 or weight.shape[1] != features.shape[1] or weight.shape[2:].numel() != 1:
        raise ValueError(
            f"expected a weight (K, {features.shape[1]}) for features of "
            f"{features.shape[1]} channels, got {tuple(weight.shape)}"
        )
    kind = torch.promote_types(features.dtype, weight.dtype)
    weight = weight.flatten(1).to(features.device, kind)
    return torch.einsum("nc...,kc->nk...", features.to(kind), weight)


def grad_cam(features: Tensor, score: Tensor) -> Tensor:
    """Weigh maps by the mean of the score's gradient on them, without the usual ReLU.

    Args:
        features: maps of any layer, shape `(N, C, *spatial)`, in the graph of the score: from
            `capture_activations(..., detach=False)`.
        score: what is to be explained, one number for each picture, shape (N,), such as the
            logits of one class. Its graph is kept.

    Returns:
        A map for each picture, shape `(N, *spatial)`.

    Raises:
        ValueError: if the shapes do not fit, or the score does not depend on the features.

    Source:
        Selvaraju and others (2017), "Grad-CAM: Visual Explanations from Deep Networks via
        Gradient-based Localization", equations 1 and 2; the ReLU is left to the caller.

    Example:
        >>> features = torch.tensor([[[[1.0, 3.0]]]], requires_grad=True)
        >>> grad_cam(features, 5 * features.mean((1, 2, 3)))
        tensor([[[2.5000, 7.5000]]])
    """
    if features.ndim < 3 or score.ndim > 1:
        raise ValueError(
            "expected features (N, C, *spatial) and a score (N,), got "
            f"{tuple(features.shape)} and {tuple(score.shape)}"
        )
    try:
        (slope,) = torch.autograd.grad(score.sum(), features, retain_graph=True)
    except RuntimeError as error:
        raise ValueError(
            "expected features in the graph of the score: capture them with detach=False and "
            f"compute the score with gradients ({error})"
        ) from error
    weight = slope.flatten(2).mean(2)
    return torch.einsum("nc...,nc->n...", features.detach(), weight)


def linear_from_conv(convolution: nn.Conv2d) -> nn.Linear:
    """Turn the head "1×1 convolution → GAP" into "GAP → linear" with equal logits.

    Weight and bias are copies.

    Args:
        convolution: from C channels to K, kernel 1×1, stride 1, no padding, one group.

    Raises:
        ValueError: if the convolution is another.

    Example:
        >>> linear_from_conv(nn.Conv2d(64, 10, 1))
        Linear(in_features=64, out_features=10, bias=True)
    """
    if not _is_one_by_one(convolution):
        raise ValueError(
            f"expected a 1×1 convolution of stride 1 without padding and groups, got {convolution}"
        )
    return _convert(convolution, nn.Linear, convolution.in_channels, convolution.out_channels)


def conv_from_linear(linear: nn.Linear) -> nn.Conv2d:
    """Turn the head "GAP → linear" into "1×1 convolution → GAP" with equal logits.

    Weight and bias are copies; a ValueError is raised for what is no linear layer.

    Example:
        >>> conv_from_linear(nn.Linear(64, 10))
        Conv2d(64, 10, kernel_size=(1, 1), stride=(1, 1))
    """
    if not isinstance(linear, nn.Linear):
        raise ValueError(f"expected an nn.Linear, got {type(linear).__name__}")
    return _convert(linear, nn.Conv2d, linear.in_features, linear.out_features, 1)


def _is_one_by_one(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        and {*layer.kernel_size, *layer.stride, layer.groups} == {1}
        and (layer.padding in ("valid", "same") or not any(layer.padding))
    )


def _convert(old: nn.Module, kind: type[nn.Module], *sizes: int) -> nn.Module:
    """Make a layer of another kind with copies of weight and bias; only their shape differs."""
    bias, weight = old.bias is not None, old.weight
    new = nn.utils.skip_init(kind, *sizes, bias=bias, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        for name, parameter in new.named_parameters():
            source = getattr(old, name)
            parameter.copy_(source.reshape(parameter.shape))
            parameter.requires_grad_(source.requires_grad)
    return new.train(old.training)


@dataclass(frozen=True, eq=False)
class CamHead:
    """Where a network pools, and the linear map around it."""

    layer: str  #: gives the features; its name as `capture_activations` has it
    weight: Tensor  #: shape (K, C), on the CPU
    bias: Tensor  #: shape (K,), on the CPU
    linear: str  #: name of the linear layer or 1×1 convolution that they are of

    def of(self, model: nn.Module) -> CamHead:
        """Read the same head of the same network with other weights."""
        return CamHead(self.layer, *_read_linear(model.get_submodule(self.linear)), self.linear)


def _read_linear(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Copy weight (K, C) and bias (K,) of a linear layer or 1×1 convolution."""
    weight = _copy(layer.weight).float().flatten(1)
    return weight, torch.zeros(len(weight)) if layer.bias is None else _copy(layer.bias).float()


def find_cam_head(model: nn.Module, images: Tensor) -> CamHead:
    """Find the features whose class activation maps add up to the logits.

    Tries each linear layer or 1×1 convolution to as many outputs as there are logits with each
    layer that gives maps of as many channels as it takes, the last ones first, and keeps the
    first pair with `mean(CAM) + bias = logits` on the pictures.

    Args:
        model: pictures to logits (N, K); left as it was.
        images: one or a few, shape (N, C, H, W).

    Raises:
        ValueError: if there is no such pair, with the reason.

    Example:
        >>> body, head = nn.Conv2d(1, 8, 3), nn.Linear(8, 10)
        >>> model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
        >>> find_cam_head(model, torch.rand(2, 1, 28, 28)).layer
        '0'
    """
    images = as_input(model, images)
    with evaluation_mode(model), capture_activations(model, "*") as maps:
        logits = run_model(model, images)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or not logits.numel():
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"expected a model that gives logits (N, K), got {found}")
    if not logits.isfinite().all():
        raise ValueError("expected logits that are finite numbers, got NaN or infinite ones")
    kind, logits = logits.dtype, logits.cpu().float()
    heads = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or _is_one_by_one(module)
        if len(module.weight) == logits.shape[1]
    ]
    reason = "no linear layer or 1×1 convolution gives as many numbers as there are logits"
    if heads:
        name, module = heads[-1]
        reason = (
            f"no layer gives maps of the {module.weight.shape[1]} channels that {name!r} takes, "
            "with more than one position"
        )
    tried = ""
    for name, module in reversed(heads):
        weight, bias = _read_linear(module)
        for layer, given in reversed(maps.items()):
            if not isinstance(given, Tensor) or given.shape[2:].numel() < 2:  # pooled already
                continue
            if given.shape[:2] != (len(logits), weight.shape[1]):
                continue
            cam = class_activation_map(given.float(), weight)
            error = (cam.flatten(2).mean(2) + bias - logits).abs().max().item()
            # as exact as the parts of the sum are large; bfloat16 has no three digits
            parts = class_activation_map(given.float().abs(), weight.abs()).flatten(2).mean(2)
            kinds = [k for k in (torch.float32, given.dtype, kind) if k.is_floating_point]
            rounding = max(torch.finfo(k).eps for k in kinds)
            # an accelerator may multiply with three digits (TF32)
            exact = max(1e-4 if images.device.type == "cpu" else 1e-3, rounding)
            if not weight.any():
                found = f"the weights of {name!r} are all zero, which fits any maps"
            elif error <= exact * parts.max() + rounding * logits.abs().max():
                return CamHead(layer, weight, bias, name)
            else:
                found = (
                    f"with the maps of {layer!r} and the weights of {name!r} that is up to "
                    f"{error:.3g} off: something other than a mean is between them"
                )
            tried = tried or found
    raise ValueError(f"expected a model whose logits are mean(CAM) + bias, but {tried or reason}")
