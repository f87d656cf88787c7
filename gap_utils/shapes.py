"""What each layer of a network puts out, and what it costs. Introduced in lesson 02."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from math import prod
from operator import index
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gap_utils.device import keep_random_state

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
NESTS = (list, tuple, dict)
ATEN = torch.ops.aten


def _recurrent_flop(inputs: Tensor, weight: Tensor, recurrent: Tensor, *_, **__) -> int:
    steps, batch, _ = inputs.shape
    return 2 * steps * batch * (weight.numel() + recurrent.numel())


CPU_FORMULAS = {  # two operations of a CPU that PyTorch's counter leaves out
    ATEN.mkldnn_rnn_layer: _recurrent_flop,
    ATEN._scaled_dot_product_flash_attention_for_cpu: flop_registry[
        ATEN._scaled_dot_product_flash_attention
    ],
}
# names of PyTorch's other operations that multiply and add, such as mv, linalg_qr, _fft_r2c
PRODUCTS = re.compile(
    r"mm(?![aiy])|mv(?!l)|dot|matmul|conv(?!ert)|_linear$|_trilinear|rnn|(?<!fused_)(lstm|gru)"
    r"|attention|transformer|[cp]dist|_fft_|linalg_(?!vector|cross|_powsum|check)|cholesky|solve"
    r"|addr|geqrf|ormqr"
)
# what PyTorch says where the meta device has no numbers to go by
NO_NUMBERS = re.compile(r"\bmeta\b|not allocated", re.IGNORECASE)


class Layer(NamedTuple):
    """One row of a trace."""

    name: str  #: the dotted name of the module, as `model.get_submodule` takes it
    kind: str  #: its class
    output_shape: Any  #: a list of shapes for several tensors, None for what is no tensor
    parameters: int  #: how many numbers it learns that no earlier row has counted
    multiply_adds: int | None  #: as `trace_shapes` counts them, for the whole batch; or None
    uncounted: tuple[str, ...] = ()  #: names of operations whose multiply-adds are not known


class ShapeTrace(tuple):
    """The rows of a trace in the order of the calls; prints as a table, and so does a slice."""

    with_numbers: bool  #: whether a copy with numbers was called, on which the shapes may depend

    def __new__(cls, layers: Iterable[Layer] = (), with_numbers: bool = False):  # noqa: D102
        trace = super().__new__(cls, layers)
        trace.with_numbers = with_numbers
        return trace

    def __getitem__(self, key):
        rows = super().__getitem__(key)
        return ShapeTrace(rows, self.with_numbers) if isinstance(key, slice) else rows

    @property
    def parameters(self) -> int:
        """The parameters of all rows."""
        return sum(layer.parameters for layer in self)

    @property
    def multiply_adds(self) -> int:
        """The multiply-adds of all rows that have them."""
        return sum(layer.multiply_adds or 0 for layer in self)

    @property
    def at_least(self) -> bool:
        """Whether there are more multiply-adds than those, since some are not known."""
        return any(layer.uncounted for layer in self)

    def __repr__(self) -> str:
        rows = [("layer", "kind", "output shape", "parameters", "multiply-adds")]
        for name, kind, shape, parameters, multiply_adds, uncounted in self:
            cost = "at least " * bool(uncounted) + f"{multiply_adds or 0:,}"
            cost = "–" if multiply_adds is None and not uncounted else cost
            shown = "–" if shape is None else str(shape)
            rows.append((name, kind, shown, f"{parameters:,}", cost))
        total = "at least " * self.at_least + f"{self.multiply_adds:,}"
        rows.append(("total", "", "", f"{self.parameters:,}", total))
        columns = zip("<<<>>", zip(*rows, strict=True), strict=True)  # words left, numbers right
        formats = [f"{side}{max(map(len, column))}" for side, column in columns]
        lines = ["  ".join(map(format, row, formats)) for row in rows]
        if self.with_numbers:
            lines.append("Called with numbers: the shapes and costs may depend on them.")
        return "\n".join(lines)


class MisfitError(ValueError):
    """A layer that does not fit what reaches it: its dotted name, and the trace before it."""

    # pickle calls it with the message alone and puts the other two back itself
    def __init__(self, message: str, layer: str = "", trace: ShapeTrace | None = None):
        super().__init__(message)
        self.layer, self.trace = layer, trace


def trace_shapes(model: nn.Module, input_shape: Sequence) -> ShapeTrace:
    """List the output shape, parameters and multiply-adds of every layer.

    A copy of the model, without its numbers and its forward hooks, is called once in
    evaluation mode on PyTorch's meta device: nothing is computed, and the model itself is left
    alone. A row is a module that has no modules inside, has parameters of its own, or
    multiplies and adds in its own `forward`; a module that is called twice has two rows.
    What else a `forward` does without a module, `x.mean((2, 3))` for example, has no row.

    Counted are multiplications with an addition each, without biases: those of convolutions
    and of products of matrices, so of linear layers, attention and recurrent layers, too. A
    row has what its module does itself, outside the modules in it. A pooling layer has one
    for each number that a window looks at, which is an addition or a comparison. Padding and
    what hangs over the edge count. Pooling without a module, activations and normalisation do
    not. Operations that multiply and add in a way that is not known here (an FFT, those of
    other packages, NumPy) are listed in their row, and the total says "at least".

    Some models look at numbers, such as `if x.max() > 1` or the boxes of a detector, or raise
    an error that may come from the meta device or from being watched. Of those a copy with
    numbers is called on the model's own device, which takes the memory and the time of a
    call; the trace then says so.

    Args:
        model: any module written in Python; of one that `torch.compile` made, what it runs.
        input_shape: shape of its input, batch included, such as (1, 3, 32, 32). For several
            inputs a list of shapes; for a list of pictures as one input a list in that list,
            such as [[(3, 300, 400)]]. In place of a shape a tensor can stand, for its shape
            and dtype. Where numbers are needed, those of a tensor are used, and random ones
            between 0 and 1 for a shape.

    Returns:
        One `Layer` for each call. Parameters of modules that were never called are in a
        last row, "(not called)", so the total is the model's. (Attention uses some of its
        parameters without calling their module.)

    Raises:
        ValueError: if `input_shape` is no shape, the model cannot be copied or watched, or its
            shapes depend on numbers and it has none, being on the meta device.
        MisfitError: a ValueError that names the layer, if one fails on what reaches it.

    Source:
        `torch.utils.flop_counter`, whose formulas are used, counts two operations for each
        multiply-add, and nothing for pooling.

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
    inputs = _read_inputs(model, input_shape)
    tensors = find_tensors([vars(module) for module in model.modules()])
    has_numbers = not any(tensor.is_meta for tensor in tensors)
    call = _Call(model, tensors, inputs, torch.device("meta"))
    intro = "expected an input that fits, but"
    if call.needs_numbers:
        if not has_numbers:
            raise ValueError(
                "this forward needs the numbers of its input or its weights, and a model on the "
                "meta device has none"
            ) from call.error
        intro = "this forward needs the numbers; called with numbers,"
    if has_numbers and (call.needs_numbers or not (call.error is None or call.is_misfit)):
        device = next((tensor.device for tensor in tensors), torch.device("cpu"))
        call = _Call(model, tensors, inputs, device)
        if call.error is not None and _runs_unwatched(model, tensors, inputs, device):
            raise ValueError(
                "expected a model whose operations can be watched, got one that runs and cannot: "
                f"{call.error}"
            ) from call.error
    if call.error is None:
        return ShapeTrace(call.layers, call.with_numbers)
    failed, module = call.failed_in, call.failed_in.module
    what = type(module).__name__ if any(module.children()) else repr(module)
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in failed.inputs)
    message = f"{intro} layer {failed.name!r}, {what}, failed on shape {shapes}: {call.error}"
    trace = ShapeTrace(call.layers, call.with_numbers)
    raise MisfitError(message, failed.name, trace) from call.error


def _read_inputs(model: nn.Module, input_shape: Sequence) -> list:
    """Read shapes as tensors without numbers, in lists as they are given."""
    floats = (p.dtype for p in model.parameters() if p.is_floating_point())
    dtype = next(floats, torch.get_default_dtype())

    def read(entry: Any) -> Any:
        if isinstance(entry, Tensor):
            return entry
        if isinstance(entry, str):
            raise TypeError("text is no shape")
        entries = list(entry)
        if any(isinstance(entry, Iterable) for entry in entries):
            return [read(entry) for entry in entries]
        return torch.empty([index(size) for size in entries], dtype=dtype, device="meta")

    try:
        inputs = read(input_shape)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"expected a shape such as (1, 3, 32, 32), or a list of shapes, got {input_shape!r}"
        ) from error
    return inputs if isinstance(inputs, list) else [inputs]


@dataclass
class _Running:
    """A module that has been called and has not returned, and the work it has done itself."""

    name: str
    module: nn.Module
    inputs: list[Tensor]
    multiply_adds: int | None = None
    uncounted: dict[str, None] = field(default_factory=dict)  # a set that keeps its order


class _Call(TorchDispatchMode):
    """One watched call of a copy of a model: without numbers on the meta device, else with them."""

    supports_higher_order_operators = True

    def __init__(self, model: nn.Module, tensors: list[Tensor], inputs: list, device: torch.device):
        super().__init__()
        self.layers: list[Layer] = []  # the rows
        self.error: Exception | None = None  # what the model raised
        self.is_misfit = False  # whether PyTorch refused the shapes that reached a layer
        self.needs_numbers = False  # which the meta device does not have
        self.with_numbers = device.type != "meta"
        self.theirs = set(map(id, tensors))
        self.running: list[_Running] = []
        self.failed: list[tuple[BaseException, _Running]] = []
        self.refused: list[Exception] = []
        self.counted: set[int] = set()
        self.escaped = False

        copy = _copy(model, tensors, self.with_numbers)
        # the innermost module that the error came from
        self.failed_in = _Running("(model)", copy, find_tensors(inputs))
        for name, module in copy.named_modules():
            self._watch(name or "(model)", module)
        self._run(copy, _fill(inputs, device), device)
        if self.escaped:
            raise ValueError(
                "expected a model that reaches its layers and numbers through self, got "
                f"{self.failed_in.name!r} with a function that uses those of the model itself, "
                "of which a copy is called here"
            ) from self.error
        rest = self._new_parameters(copy.parameters())
        if rest and self.error is None:
            self.layers.append(Layer(NOT_CALLED, "", None, rest, None))

    def _run(self, copy: nn.Module, inputs: list, device: torch.device) -> None:
        fast_path = torch.backends.mha.get_fastpath_enabled()
        try:
            torch.backends.mha.set_fastpath_enabled(False)  # it calls none of the modules inside
            watch_numbers = _OutOfPyTorch(self) if self.with_numbers else device
            with keep_random_state(), watch_numbers, self:
                torch.default_generator.manual_seed(0)  # the same random numbers each time
                copy(*inputs)
        except Exception as error:  # whatever a model raises: the layer it came from is what counts
            self.error = error
            layers = (running for earlier, running in self.failed if earlier is error)
            self.failed_in = next(layers, self.failed_in)
            self.needs_numbers |= NO_NUMBERS.search(str(error)) is not None
            self.is_misfit = any(error is earlier for earlier in self.refused)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)

    def _watch(self, name: str, module: nn.Module) -> None:
        def enter(module, args, kwargs):
            self.running.append(_Running(name, module, find_tensors([*args, *kwargs.values()])))

        def leave(module, args, kwargs, output):
            running, error = self.running.pop(), sys.exc_info()[1]
            if output is None and error is not None:
                if not any(error is earlier for earlier, _ in self.failed):
                    self.failed.append((error, running))  # the innermost sees an error first
                return
            own = list(module.parameters(recurse=False))
            cost, uncounted = running.multiply_adds, tuple(running.uncounted)
            looks = _looks(module, running.inputs, find_tensors(output))
            if looks is not None:
                cost = (cost or 0) + looks
            if any(module.children()) and not own and cost is None and not uncounted:
                return
            kind, learned = type(module).__name__, self._new_parameters(own)
            self.layers.append(Layer(name, kind, _shape(output), learned, cost, uncounted))

        # before any hook of the model itself, so that an error there has a name too
        module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True)
        module.register_forward_hook(leave, with_kwargs=True, always_call=True)

    def _new_parameters(self, parameters: Iterable[Tensor]) -> int:
        new = {id(p): p.numel() for p in parameters if id(p) not in self.counted and not is_lazy(p)}
        self.counted.update(new)
        return sum(new.values())

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if any(kind.__torch_dispatch__ is not Tensor.__torch_dispatch__ for kind in types):
            return NotImplemented  # first to the tensor that splits the work up, a nested one say
        kwargs = kwargs or {}
        arrived = find_tensors([*args, *kwargs.values()])
        if any(id(tensor) in self.theirs for tensor in arrived):
            self.escaped = True
            raise ValueError("a tensor of the model itself")
        packet = getattr(operation, "overloadpacket", operation)
        formula = CPU_FORMULAS.get(packet) or flop_registry.get(packet)
        if formula is None and packet is not operation:
            with self:
                result = operation.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        try:
            result = operation(*args, **kwargs)
        except Exception as error:  # a misfit, or what only the meta device refuses
            if isinstance(error, NotImplementedError) or NO_NUMBERS.search(str(error)):
                self.needs_numbers = True
            elif operation.namespace == "aten" and all(tensor.is_meta for tensor in arrived):
                self.refused.append(error)
            raise
        if self.running:
            running = self.running[-1]
            if formula is not None:
                flops = formula(*args, **kwargs, out_val=result)
                running.multiply_adds = (running.multiply_adds or 0) + flops // 2
            elif _is_uncounted(operation):
                running.uncounted[str(packet)] = None
        return result


class _OutOfPyTorch(TorchFunctionMode):
    """Notes where numbers leave PyTorch: what NumPy does with them is not counted."""

    def __init__(self, call: _Call):
        super().__init__()
        self.call = call

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (Tensor.numpy, Tensor.__array__) and self.call.running:
            self.call.running[-1].uncounted["numpy"] = None
        return function(*args, **(kwargs or {}))


def _runs_unwatched(
    model: nn.Module, tensors: list[Tensor], inputs: list, device: torch.device
) -> bool:
    try:
        with keep_random_state():
            torch.default_generator.manual_seed(0)
            _copy(model, tensors, True)(*_fill(inputs, device))
    except Exception:  # whatever a model raises: the watched call has its error already
        return False
    return True


def _is_uncounted(operation: Any) -> bool:
    namespace, _, name = operation.name().partition("::")
    if namespace == "aten":
        return PRODUCTS.search(name.partition(".")[0]) is not None
    return namespace not in ("prim", "prims", "profiler")


def _fill(inputs: list, device: torch.device) -> list:
    """Put numbers into inputs: random ones from 0 to 1 where a shape was given."""
    generator = torch.Generator().manual_seed(0)

    def fill(entry: Any) -> Any:
        if isinstance(entry, list):
            return [fill(item) for item in entry]
        if device.type == "meta":
            return torch.empty_like(entry, device=device)
        if not entry.is_meta:
            return entry.detach().clone().to(device)
        top = 1 if entry.is_floating_point() else 0
        return (top * torch.rand(entry.shape, generator=generator)).to(device, entry.dtype)

    return fill(inputs)


def _copy_tensor(tensor: Tensor, with_numbers: bool) -> Tensor:
    device = tensor.device if with_numbers else torch.device("meta")
    if is_lazy(tensor):
        return type(tensor)(device=device, dtype=tensor.dtype)
    copy = tensor.detach()
    with suppress(NotImplementedError):  # quantised; what meets it on the meta device fails
        copy = copy.to(device)
    copy = copy.clone()
    # with numbers it needs no gradient, so that no activation is kept for one
    graded = tensor.requires_grad and not with_numbers
    return nn.Parameter(copy, graded) if isinstance(tensor, nn.Parameter) else copy


def _copy(model: nn.Module, tensors: list[Tensor], with_numbers: bool) -> nn.Module:
    """Copy a model with new tensors, in evaluation mode and without its forward hooks."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                "expected modules in Python, got a TorchScript module (of torch.jit.script or "
                f"torch.jit.trace), {name or '(model)'!r}"
            )
    try:
        memo: dict[int, Any] = {id(t): _copy_tensor(t, with_numbers) for t in tensors}
        for module in reversed(list(model.modules())):
            if "_orig_mod" in module._modules:  # made by torch.compile
                memo[id(module)] = deepcopy(module._orig_mod, memo)
        copy = deepcopy(model, memo)
    except Exception as error:  # whatever an attribute of the model raises
        raise ValueError(f"expected a model that can be copied, got one with: {error}") from error
    for module in copy.modules():
        module._forward_hooks.clear()
        if isinstance(module, torch.fx.GraphModule):  # one of torch.export refuses to change mode
            vars(module).pop("train", None)
            vars(module).pop("eval", None)
    return copy.eval()


def find_tensors(value: Any, inside: tuple[int, ...] = ()) -> list[Tensor]:
    """All tensors in nested lists, tuples and dicts, from left to right."""
    if isinstance(value, Tensor):
        return [value]
    if not isinstance(value, NESTS) or not value or id(value) in inside:
        return []
    inside = (*inside, id(value))
    items = value.values() if isinstance(value, dict) else value
    return [tensor for item in items for tensor in find_tensors(item, inside)]


def _shape(output: Any) -> Any:
    if isinstance(output, Tensor):
        return tuple(output.shape)
    return [tuple(tensor.shape) for tensor in find_tensors(output)] or None


def _looks(module: nn.Module, inputs: list[Tensor], outputs: list[Tensor]) -> int | None:
    """Count the numbers that the windows of a pooling layer look at."""
    if not inputs or not outputs:
        return None
    before, after = inputs[0].shape, outputs[0].shape
    for axes in (1, 2, 3):
        if isinstance(module, WINDOW_POOLINGS[axes]):
            kernel = module.kernel_size
            return after.numel() * (prod(kernel) if isinstance(kernel, NESTS) else kernel**axes)
        if isinstance(module, ADAPTIVE_POOLINGS[axes]):
            sizes = zip(before[-axes:], after[-axes:], strict=True)
            return prod(before[:-axes]) * prod(_adaptive_sum(*size) for size in sizes)
    return None


def _adaptive_sum(size: int, windows: int) -> int:
    """Sum the lengths of the windows that adaptive pooling lays over an axis."""
    return sum(-(-(i + 1) * size // windows) - i * size // windows for i in range(windows))
