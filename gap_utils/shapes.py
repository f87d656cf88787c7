"""What each layer of a network puts out, and what it costs. Introduced in lesson 02."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from copy import deepcopy
from math import prod
from operator import index
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED_CONVOLUTIONS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WINDOW_POOLINGS = {  # by the number of spatial axes
    1: (nn.AvgPool1d, nn.MaxPool1d),
    2: (nn.AvgPool2d, nn.MaxPool2d),
    3: (nn.AvgPool3d, nn.MaxPool3d),
}
ADAPTIVE_POOLINGS = {
    1: (nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d),
    2: (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    3: (nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d),
}
NOT_CALLED = "(not called)"


class Layer(NamedTuple):
    """One row of a trace.

    Attributes:
        name: the dotted name of the module, as `model.get_submodule` takes it.
        kind: its class.
        output_shape: what it puts out; a list of shapes for several tensors, None for
            what is no tensor.
        parameters: how many numbers it learns that no earlier row has counted.
        multiply_adds: multiplications with an addition each, for the whole batch; None
            where they are not counted.
    """

    name: str
    kind: str
    output_shape: Any
    parameters: int
    multiply_adds: int | None


class ShapeTrace(tuple):
    """The rows of a trace in the order of the calls; prints as a table, and so does a slice."""

    __slots__ = ()

    def __getitem__(self, key):
        rows = super().__getitem__(key)
        return ShapeTrace(rows) if isinstance(key, slice) else rows

    @property
    def parameters(self) -> int:
        """The parameters of all rows."""
        return sum(layer.parameters for layer in self)

    @property
    def multiply_adds(self) -> int:
        """The multiply-adds of all rows that have them."""
        return sum(layer.multiply_adds or 0 for layer in self)

    def __repr__(self) -> str:
        rows = [("layer", "kind", "output shape", "parameters", "multiply-adds")]
        for name, kind, shape, parameters, multiply_adds in self:
            cost = "–" if multiply_adds is None else f"{multiply_adds:,}"
            shown = "–" if shape is None else str(shape)
            rows.append((name, kind, shown, f"{parameters:,}", cost))
        rows.append(("total", "", "", f"{self.parameters:,}", f"{self.multiply_adds:,}"))
        name, kind, shape, parameters, cost = (max(map(len, c)) for c in zip(*rows, strict=True))
        return "\n".join(
            f"{a:{name}}  {b:{kind}}  {c:{shape}}  {d:>{parameters}}  {e:>{cost}}"
            for a, b, c, d, e in rows
        )


class MisfitError(ValueError):
    """A layer that does not fit what reaches it.

    Attributes:
        layer: the dotted name of the layer.
        trace: the rows of the layers before it.
    """

    def __init__(self, message: str, layer: str, trace: ShapeTrace):
        super().__init__(message, layer, trace)
        self.layer = layer
        self.trace = trace

    def __str__(self) -> str:
        return self.args[0]


def trace_shapes(model: nn.Module, input_shape: Sequence) -> ShapeTrace:
    """List the output shape, parameters and multiply-adds of every layer.

    The model is copied without its numbers and its forward hooks and called once, in
    evaluation mode, on PyTorch's meta device: nothing is computed, and the model itself is
    left alone. A row is a module that has no modules inside or has parameters of its own;
    a module that is called twice has two rows. What a `forward` does without a module,
    `x.mean((2, 3))` for example, has no row.

    Counted are the multiply-adds of convolutions and linear layers, without their biases,
    and of pooling, one for each number that a window looks at. Padding and what hangs over
    the edge count like any other number. Matrix products of attention and of recurrent
    layers are not counted, so the total of such models is too small.

    Args:
        model: any module.
        input_shape: shape of its input, batch included, such as (1, 3, 32, 32). For
            several inputs a list of shapes. In place of a shape a tensor can stand; its
            shape and dtype are used.

    Returns:
        One `Layer` for each call. Parameters of modules that were never called are in a
        last row, "(not called)", so the total is the model's. (Attention uses some of its
        parameters without calling their module.)

    Raises:
        ValueError: if `input_shape` is no shape, or the model cannot be copied.
        MisfitError: a ValueError that names the layer, if one fails on what reaches it.

    Source:
        `torch.utils.flop_counter` counts two operations for each multiply-add of
        convolutions and linear layers, and nothing for pooling. Introduced in lesson 02.

    Example:
        >>> head = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8192, 10))
        >>> trace_shapes(head, (1, 128, 8, 8))
        layer  kind     output shape  parameters  multiply-adds
        0      Flatten  (1, 8192)              0              –
        1      Linear   (1, 10)           81,930         81,920
        total                             81,930         81,920
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"expected a torch.nn.Module, got {type(model).__name__}")
    inputs = _meta_inputs(model, input_shape)
    copy = _copy_without_numbers(model).eval()
    layers: list[Layer] = []
    counted: set[int] = set()
    running: list[tuple[str, nn.Module, list[Tensor]]] = []
    failed: list[tuple[BaseException, tuple[str, nn.Module, list[Tensor]]]] = []

    def take_new_parameters(parameters: Iterable[Tensor]) -> int:
        new = {id(p): p.numel() for p in parameters if id(p) not in counted and not is_lazy(p)}
        counted.update(new)
        return sum(new.values())

    def watch(name: str, module: nn.Module) -> None:
        def enter(module, args, kwargs):
            running.append((name, module, _tensors([*args, *kwargs.values()])))

        def leave(module, args, kwargs, output):
            call, error = running.pop(), sys.exc_info()[1]
            if output is None and error is not None:
                if not any(error is earlier for earlier, _ in failed):
                    failed.append((error, call))  # the innermost module sees an error first
                return
            own = list(module.parameters(recurse=False))
            cost = _multiply_adds(module, call[2], _tensors(output))
            if any(module.children()) and not own and cost is None:
                return
            parameters = take_new_parameters(own)
            layers.append(Layer(name, type(module).__name__, _shape(output), parameters, cost))

        # before any hook of the model itself, so that an error there has a name too
        module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True)
        module.register_forward_hook(leave, with_kwargs=True, always_call=True)

    for name, module in copy.named_modules():
        watch(name or "(model)", module)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            copy(*inputs)
    except Exception as error:  # whatever a model raises: the layer it came from is what counts
        calls = [call for earlier, call in failed if earlier is error]
        name, module, arrived = calls[0] if calls else ("(model)", copy, inputs)
        what = type(module).__name__ if any(module.children()) else repr(module)
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in arrived)
        raise MisfitError(
            f"expected an input that fits, but layer {name!r}, {what}, failed on shape {shapes}: "
            f"{error}",
            name,
            ShapeTrace(layers),
        ) from error
    if rest := take_new_parameters(copy.parameters()):
        layers.append(Layer(NOT_CALLED, "", None, rest, None))
    return ShapeTrace(layers)


def _meta_inputs(model: nn.Module, input_shape: Sequence) -> list[Tensor]:
    floats = (p.dtype for p in model.parameters() if p.is_floating_point())
    dtype = next(floats, torch.get_default_dtype())
    entries = [input_shape] if isinstance(input_shape, Tensor) else input_shape
    try:
        entries = list(entries)
        if not any(isinstance(entry, Iterable) for entry in entries):
            entries = [entries]
        inputs = [
            torch.empty_like(entry, device="meta")
            if isinstance(entry, Tensor)
            else torch.empty([index(size) for size in entry], dtype=dtype, device="meta")
            for entry in entries
        ]
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"expected a shape such as (1, 3, 32, 32), or a list of shapes, got {input_shape!r}"
        ) from error
    return inputs


def _copy_without_numbers(model: nn.Module) -> nn.Module:
    """Copy a model with parameters and buffers that have shapes only."""

    def without_numbers(tensor: Tensor) -> Tensor:
        if is_lazy(tensor):
            return type(tensor)(device="meta", dtype=tensor.dtype)
        meta = tensor.detach().to("meta")
        return (
            nn.Parameter(meta, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else meta
        )

    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("expected a module in Python, got a TorchScript module")
    tensors = [*model.parameters(), *model.buffers()]
    for name, module in model.named_modules():
        tensors += [value for value in vars(module).values() if isinstance(value, Tensor)]
        if not isinstance(vars(module).get("forward", module.forward), MethodType):
            raise ValueError(
                f"expected a model whose modules have the forward of their class, got {name!r} "
                "with a function in its place, which would call the model itself"
            )
    memo = {id(tensor): without_numbers(tensor) for tensor in tensors}
    try:
        copy = deepcopy(model, memo)
    except Exception as error:  # whatever an attribute of the model raises
        raise ValueError(f"expected a model that can be copied, got one with: {error}") from error
    for module in copy.modules():
        module._forward_hooks.clear()
    return copy


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples and dicts, from left to right."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for item in value for t in _tensors(item)] if isinstance(value, list | tuple) else []


def _shape(output: Any) -> Any:
    if isinstance(output, Tensor):
        return tuple(output.shape)
    return [tuple(tensor.shape) for tensor in _tensors(output)] or None


def _multiply_adds(module: nn.Module, inputs: list[Tensor], outputs: list[Tensor]) -> int | None:
    if not inputs or not outputs:
        return None
    before, after = inputs[0], outputs[0]
    if isinstance(module, nn.Linear):
        return after.numel() * module.in_features
    if isinstance(module, CONVOLUTIONS):
        return after.numel() * module.in_channels // module.groups * prod(module.kernel_size)
    if isinstance(module, TRANSPOSED_CONVOLUTIONS):
        return before.numel() * module.out_channels // module.groups * prod(module.kernel_size)
    for axes, kinds in WINDOW_POOLINGS.items():
        if isinstance(module, kinds):
            kernel = module.kernel_size
            sides = kernel if isinstance(kernel, tuple | list) else (kernel,) * axes
            return after.numel() * prod(sides)
    for axes, kinds in ADAPTIVE_POOLINGS.items():
        if isinstance(module, kinds):
            sizes = zip(before.shape[-axes:], after.shape[-axes:], strict=True)
            return prod(before.shape[:-axes]) * prod(_adaptive_sum(*size) for size in sizes)
    return None


def _adaptive_sum(size: int, windows: int) -> int:
    """Sum the lengths of the windows that adaptive pooling lays over an axis."""
    return sum(-(-(i + 1) * size // windows) - i * size // windows for i in range(windows))
