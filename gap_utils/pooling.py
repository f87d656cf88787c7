"""Pooling arithmetic: output sizes, windows, local and global pooling.

Everything here is written to be read: `pool` visits one window after the other, as a
person with a pencil does. PyTorch's own functions give the same numbers much faster,
and the tests hold the two together. Introduced in lesson 01; what lies between the
average and the maximum, and the average over a mask, in lesson 09.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import inf, log, prod
from numbers import Real
from operator import index

import numpy as np
import torch
from torch import Tensor

from gap_utils.values import read_whole_number

MODES = ("max", "avg", "min")


def output_size(
    size: int,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    ceil_mode: bool = False,
) -> int:
    """Count the windows that fit along one axis, at least 1.

    Without `ceil_mode` this is floor((size + 2 * padding - kernel_size) / stride) + 1.

    Args:
        size: length of the axis.
        kernel_size: length of the window.
        stride: step from one window to the next; the kernel size when None.
        padding: positions added at each end, at most half the kernel size.
        ceil_mode: keep a last window that hangs over the far end, as long as it starts
            inside the map or its near padding.

    Raises:
        ValueError: if a number is out of range or no window fits.

    Source:
        The shape section of `torch.nn.MaxPool2d`.

    Example:
        >>> output_size(7, kernel_size=2)
        3
        >>> output_size(7, kernel_size=2, ceil_mode=True)
        4
    """
    size = read_whole_number("size", size, 1)
    kernel_size = read_whole_number("kernel_size", kernel_size, 1)
    stride = kernel_size if stride is None else read_whole_number("stride", stride, 1)
    padding = read_whole_number("padding", padding, 0)
    if padding > kernel_size // 2:
        raise ValueError(
            f"expected padding of at most half the kernel size, {kernel_size // 2}, got {padding}"
        )
    padded = size + 2 * padding
    room = padded - kernel_size + (stride - 1 if ceil_mode else 0)
    count = room // stride + 1
    if count < 1:
        raise ValueError(
            f"expected a kernel no larger than the padded map, "
            f"got kernel_size {kernel_size} on {padded} positions"
        )
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1  # the last window would lie in the far padding alone
    return count


def windows_along(
    size: int,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    ceil_mode: bool = False,
) -> list[tuple[int, int]]:
    """List where each window starts and stops along one axis; the arguments of `output_size`.

    Returns:
        One (start, stop) pair per window; `stop` is exclusive, as in a Python slice.
        Positions count from the first element of the map, so padding has negative positions
        at the near end and positions from `size` on at the far end. A window that hangs over
        the padded end (`ceil_mode`) is cut there.

    Raises:
        ValueError: as `output_size` does.

    Example:
        >>> windows_along(4, kernel_size=2)
        [(0, 2), (2, 4)]
        >>> windows_along(3, kernel_size=2, padding=1)
        [(-1, 1), (1, 3)]
    """
    count = output_size(size, kernel_size, stride, padding, ceil_mode)
    # plain integers from here on: NumPy's small ones would overflow
    size, kernel_size, padding = index(size), index(kernel_size), index(padding)
    stride = kernel_size if stride is None else index(stride)
    starts = [number * stride - padding for number in range(count)]
    return [(start, min(start + kernel_size, size + padding)) for start in starts]


def pool(
    x: Tensor | np.ndarray | Sequence,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    mode: str = "max",
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Slide a window over each channel and keep one number per window.

    Args:
        x: features of shape `(N, C, *spatial)`, as `as_features` takes them.
        kernel_size: window length, one for all axes or one per spatial axis.
        stride: step between windows, likewise; the kernel size when None.
        padding: positions added at both ends of each axis, likewise. They never win a
            maximum or minimum; to an average they add zeros.
        mode: "max", "avg" or "min".
        ceil_mode: keep a last window that hangs over the end.
        count_include_pad: whether an average divides by the padded positions too.

    Returns:
        Pooled features of shape `(N, C, *output sizes)`, in the dtype of `x`.

    Raises:
        ValueError: if the shape, the mode or a window setting cannot work.

    Source:
        Equal to `torch.nn.functional.max_pool2d` and `avg_pool2d` and their 1-D and 3-D forms.

    Example:
        >>> pool([[[1, 1, 2, 2, 5, 1, 6]]], kernel_size=3, stride=1)
        tensor([[[2., 2., 5., 5., 6.]]])
    """
    x = as_features(x)
    if not isinstance(mode, str) or mode not in MODES:
        raise ValueError(f'expected mode "max", "avg" or "min", got {mode!r}')
    sizes = tuple(x.shape[2:])
    kernel = _per_axis("kernel_size", kernel_size, len(sizes))
    strides = kernel if stride is None else _per_axis("stride", stride, len(sizes))
    paddings = _per_axis("padding", padding, len(sizes))
    axes = zip(sizes, kernel, strides, paddings, strict=True)
    windows = [windows_along(*settings, ceil_mode) for settings in axes]

    pooled = x.new_empty(*x.shape[:2], *map(len, windows))
    for position in product(*(range(len(axis)) for axis in windows)):
        window = [axis[i] for axis, i in zip(windows, position, strict=True)]
        # a stop beyond the map is as good as its end
        inside = [slice(max(start, 0), stop) for start, stop in window]
        values = x[(..., *inside)].flatten(2)  # (N, C, numbers of the map in this window)
        if mode == "max":
            result = values.amax(dim=2)
        elif mode == "min":
            result = values.amin(dim=2)
        else:
            count = prod(stop - start for start, stop in window)
            share = values.shape[2] / count if count_include_pad else 1
            result = values.mean(dim=2) * share  # padding adds zeros: same sum, larger count
        pooled[(..., *position)] = result
    return pooled


def global_average_pool(x: Tensor | np.ndarray | Sequence) -> Tensor:
    """Average each channel over all its positions: `(N, C, *spatial)` -> `(N, C)`.

    Args:
        x: features with one to three spatial axes, as `as_features` takes them.

    Raises:
        ValueError: as `as_features` does.

    Source:
        Lin, Chen and Yan (2014), "Network In Network", section 3.2.

    Example:
        >>> global_average_pool([[[[1, 2], [3, 6]]]])
        tensor([[3.]])
    """
    return as_features(x).flatten(2).mean(dim=2)


def global_max_pool(x: Tensor | np.ndarray | Sequence) -> Tensor:
    """Keep the largest number of each channel: `(N, C, *spatial)` -> `(N, C)`.

    Args:
        x: features with one to three spatial axes, as `as_features` takes them.

    Raises:
        ValueError: as `as_features` does.

    Source:
        Oquab et al. (2015), "Is object localization for free?", section 3.

    Example:
        >>> global_max_pool([[[[1, 2], [3, 6]]]])
        tensor([[6.]])
    """
    return as_features(x).flatten(2).amax(dim=2)


def log_sum_exp_pool(x: Tensor | np.ndarray | Sequence, sharpness: float | Tensor = 1.0) -> Tensor:
    """Pool each channel between its average and its maximum: `(N, C, *spatial)` -> `(N, C)`.

    That is log(mean(exp(sharpness * x))) / sharpness. Towards a sharpness of 0 it becomes the
    average, towards infinity the maximum. The largest number is taken out before exp, as in
    `torch.logsumexp`, and what is smaller than float32 is computed in float32: nothing overflows.

    Args:
        x: features with one to three spatial axes, as `as_features` takes them.
        sharpness: a number above 0, or a tensor of one that is learned.

    Returns:
        Pooled features in the dtype of `x`.

    Raises:
        ValueError: as `as_features` does, or if the sharpness is not above 0 and finite in
            float32.

    Source:
        Pinheiro and Collobert (2015), "From Image-level to Pixel-level Labeling with
        Convolutional Networks".

    Example:
        >>> log_sum_exp_pool([[[[0, 100]]]])
        tensor([[99.3069]])
    """
    x = as_features(x)
    sharpness = read_positive("sharpness", sharpness)
    values = _at_least_float32(x).flatten(2)
    limits = torch.finfo(values.dtype)
    largest = values.detach().amax(dim=2, keepdim=True).clamp(limits.min, limits.max)
    below = sharpness * (values - largest)
    # a mean of powers that are all nearly 1: its logarithm is small, and log would lose its digits
    near = torch.expm1(below.clamp(min=-1)).mean(dim=2).log1p()
    far = torch.logsumexp(below, dim=2) - log(values.shape[2])
    logarithm = torch.where(below.detach().amin(dim=2) > -1, near, far)
    return (largest.squeeze(2) + logarithm / sharpness).to(x.dtype)


def generalized_mean_pool(
    x: Tensor | np.ndarray | Sequence, p: float | Tensor = 3.0, eps: float = 1e-6
) -> Tensor:
    """Pool each channel by its generalized mean (GeM): `(N, C, *spatial)` -> `(N, C)`.

    That is mean(x ** p) ** (1 / p): with p = 1 the average, towards infinity the maximum. A
    negative number has no such power for most p, so numbers below `eps` are taken for `eps`:
    GeM is for features behind a ReLU. Computed as the exponential of `log_sum_exp_pool` of the
    logarithms, which is the same, and large powers do not overflow.

    Args:
        x: features with one to three spatial axes, as `as_features` takes them.
        p: a number above 0, or a tensor of one that is learned.
        eps: the smallest number that counts, above 0: at 0 itself the gradient is infinite.

    Returns:
        Pooled features in the dtype of `x`, all of them `eps` or more.

    Raises:
        ValueError: as `as_features` does, or if `p` or `eps` is not above 0 and finite in
            float32.

    Source:
        Radenovic, Tolias and Chum (2019), "Fine-tuning CNN Image Retrieval with No Human
        Annotation".

    Example:
        >>> generalized_mean_pool([[[[3, 4]]]], p=2)  # the root of (9 + 16) / 2
        tensor([[3.5355]])
    """
    x = as_features(x)
    logarithms = _at_least_float32(x).clamp(min=read_positive("eps", eps)).log()
    return log_sum_exp_pool(logarithms, read_positive("p", p)).exp().to(x.dtype)


def masked_average_pool(x: Tensor | np.ndarray | Sequence, mask: Tensor) -> Tensor:
    """Average each channel over the positions of a mask: `(N, C, *spatial)` -> `(N, C)`.

    For a batch of pictures of several sizes, which were padded to one: the padding does not
    count. What stands there may be anything, also infinity or no number (nan).

    Args:
        x: features with one to three spatial axes, as `as_features` takes them.
        mask: True at the positions that count, shape `(N, *spatial)`, at least one a picture.

    Returns:
        Averages in the dtype of `x`; they are added up in float32 at least.

    Raises:
        ValueError: as `as_features` does, if the mask has another shape or other numbers than
            True and False, or if it leaves no position of a picture.

    Example:
        >>> mask = torch.tensor([[[True, True, False]]])
        >>> masked_average_pool([[[[1, 3, 99]]]], mask)
        tensor([[2.]])
    """
    x = as_features(x)
    expected = (x.shape[0], *x.shape[2:])
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != expected:
        got = f"{mask.dtype} of {tuple(mask.shape)}" if isinstance(mask, Tensor) else repr(mask)
        raise ValueError(f"expected a mask of torch.bool and shape {expected}, got {got}")
    mask = mask.flatten(1)[:, None]  # (N, 1, positions)
    count = mask.sum(dim=2)
    if not count.all():
        empty = int((count == 0).nonzero()[0, 0])
        raise ValueError(f"expected a position of each picture in the mask, got none of {empty}")
    values = _at_least_float32(x).flatten(2).masked_fill(~mask, 0)
    return (values.sum(dim=2) / count).to(x.dtype)


def as_features(x: Tensor | np.ndarray | Sequence) -> Tensor:
    """Return `x` as floating-point features of shape `(N, C, *spatial)`.

    A floating-point tensor comes back as it is. NumPy floats keep their precision; lists
    and integers take PyTorch's default float type. A ValueError is raised for what is no array
    of real numbers with one to three non-empty spatial axes.

    Example:
        >>> as_features([[[1, 2, 3]]])
        tensor([[[1., 2., 3.]]])
    """
    if not isinstance(x, Tensor):
        try:
            # np.array makes a copy in C order: negative strides and read-only memory are fine
            is_array = isinstance(x, np.ndarray)
            x = torch.from_numpy(np.array(x, order="C")) if is_array else torch.tensor(x)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(
                f"expected numbers in a rectangular array, got {type(x).__name__}: {error}"
            ) from error
    if x.is_complex() or x.is_quantized or x.layout != torch.strided:
        raise ValueError(
            f"expected a dense tensor of real numbers, got {x.dtype} in layout {x.layout}"
        )
    shape = tuple(x.shape)
    if not 3 <= len(shape) <= 5:
        raise ValueError(
            f"expected features of shape (N, C, *spatial) with one to three spatial axes, "
            f"got {shape}"
        )
    if 0 in shape[2:]:
        raise ValueError(f"expected at least one position on every spatial axis, got {shape}")
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def read_positive(name: str, value: float | Tensor) -> float | Tensor:
    """Return a number above 0 as it is, without axes, or raise ValueError with its name."""
    one = isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1)
    # one that is learned is not looked at: that would wait for the device at every step
    learned = isinstance(value, Tensor) and value.requires_grad
    if not one or not (learned or 0 < value < inf):
        raise ValueError(f"expected {name} to be a finite number above 0, got {value!r}")
    limits = torch.finfo(torch.float32)
    if not learned and not limits.tiny <= value <= limits.max:
        raise ValueError(
            f"expected {name} to be from {limits.tiny:.2g} to {limits.max:.2g}, as float32 has "
            f"it, got {value!r}"
        )
    return value.reshape(()) if isinstance(value, Tensor) else value


def _per_axis(name: str, value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,) * axes
    if len(values) != axes:
        raise ValueError(f"expected one {name} or {axes}, one per spatial axis, got {value!r}")
    return values
