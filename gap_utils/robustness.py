"""Pictures that move or grow, what it costs a model, and remedies. Introduced in lesson 05."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gap_utils.data import Split
from gap_utils.inference import evaluate
from gap_utils.values import read_whole_number

if TYPE_CHECKING:
    import pandas

DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))


def shift(images: Tensor, dx: int, dy: int) -> Tensor:
    """Move pictures inside their frame; what leaves it is lost, zeros come in.

    Args:
        images: shape (..., H, W), which stays.
        dx: pixels to the right, or to the left where negative.
        dy: pixels down, or up where negative.

    Example:
        >>> shift(torch.tensor([[1, 2], [3, 4]]), 1, 0)
        tensor([[0, 1],
                [0, 3]])
    """
    height, width = images.shape[-2:]
    if abs(dx) >= width or abs(dy) >= height:
        return torch.zeros_like(images)
    return F.pad(images, (dx, -dx, dy, -dy))


def accuracy_against_shift(
    model: nn.Module, split: Split, shifts: Iterable[int] = range(7)
) -> pandas.DataFrame:
    """Measure the accuracy on pictures that are moved inside their frame.

    Args:
        model: pictures to logits; left as it was.
        split: pictures and their classes.
        shifts: in pixels. Each picture is moved so far in the eight directions of a
            compass; diagonally it is so far in both axes.

    Returns:
        Columns shift and accuracy (0 to 1), the mean over the directions.
    """
    import pandas  # takes a third of a second: not for those who only look at a lab

    rows = []
    for pixels in shifts:
        directions = DIRECTIONS if pixels else [(0, 0)]
        moved = (shift(split.images, pixels * dx, pixels * dy) for dx, dy in directions)
        scores = [evaluate(model, replace(split, images=images)).accuracy for images in moved]
        rows.append((pixels, sum(scores) / len(scores)))
    return pandas.DataFrame(rows, columns=["shift", "accuracy"])


def enlarge_canvas(images: Tensor, canvas: int) -> Tensor:
    """Put pictures (..., H, W) in the middle of a black square: (..., canvas, canvas).

    Raises:
        ValueError: if the pictures do not fit on it.

    Example:
        >>> enlarge_canvas(torch.ones(1, 1), 3)
        tensor([[0., 0., 0.],
                [0., 1., 0.],
                [0., 0., 0.]])
    """
    height, width = images.shape[-2:]
    if canvas < max(height, width):
        raise ValueError(f"expected a canvas of at least {height}×{width}, got {canvas}")
    top, left = (canvas - height) // 2, (canvas - width) // 2
    return F.pad(images, (left, canvas - width - left, top, canvas - height - top))


def accuracy_against_canvas(
    model: nn.Module, split: Split, canvases: Iterable[int] = (28, 32, 36, 40, 48)
) -> pandas.DataFrame:
    """Measure the accuracy on pictures in the middle of a larger black canvas.

    Args:
        model: pictures of any size to logits; left as it was.
        split: pictures and their classes.
        canvases: sides of the canvas in pixels; a ValueError if pictures or model do not fit.

    Returns:
        Columns canvas and accuracy (0 to 1).
    """
    import pandas  # takes a third of a second: not for those who only look at a lab

    rows = []
    for canvas in canvases:
        images = enlarge_canvas(split.images, canvas)
        rows.append((canvas, evaluate(model, replace(split, images=images)).accuracy))
    return pandas.DataFrame(rows, columns=["canvas", "accuracy"])


class RandomShift(nn.Module):
    """Move each picture by up to so many pixels in both axes, in training only.

    It stands in front of a model: `fit(nn.Sequential(RandomShift(4), model), data)`. What leaves
    the frame is lost, zeros come in. In evaluation mode the pictures pass as they are.

    Args:
        pixels: the farthest, from 0 on.

    Raises:
        ValueError: if `pixels` is no integer from 0 on, or if in training the pictures have
            another shape than (N, C, H, W).
    """

    def __init__(self, pixels: int):
        super().__init__()
        self.pixels = read_whole_number("pixels", pixels, 0)

    def forward(self, images: Tensor) -> Tensor:
        """Return pictures of the same shape, (N, C, H, W)."""
        if not self.training:
            return images
        if images.ndim != 4:
            raise ValueError(f"expected pictures (N, C, H, W), got {tuple(images.shape)}")
        count, _, height, width = images.shape
        padded = F.pad(images, (self.pixels,) * 4)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: (N, C, y, x, H, W)
        top, left = torch.randint(2 * self.pixels + 1, (2, count), device=images.device)
        return windows[torch.arange(count, device=images.device), :, top, left]

    def extra_repr(self) -> str:
        """Return what stands in the brackets when it is printed."""
        return f"pixels={self.pixels}"


class RandomBorder(nn.Module):
    """Put a black border around each batch, of a width drawn at random, in training only.

    So the pictures stand in the middle of a larger canvas. It stands in front of a model as
    `RandomShift` does.

    Args:
        widths: to draw from, in pixels; from 0 on.

    Raises:
        ValueError: if there are none, or one is no integer from 0 on.
    """

    def __init__(self, widths: Iterable[int]):
        super().__init__()
        try:
            self.widths = tuple(read_whole_number("each width", width, 0) for width in widths)
        except TypeError:  # of what has no items
            self.widths = ()
        if not self.widths:
            raise ValueError(f"expected a list with one width or more, in pixels, got {widths!r}")

    def forward(self, images: Tensor) -> Tensor:
        """Return pictures (N, C, H + 2 width, W + 2 width)."""
        if not self.training:
            return images
        width = self.widths[torch.randint(len(self.widths), ())]
        return F.pad(images, (width,) * 4)

    def extra_repr(self) -> str:
        """Return what stands in the brackets when it is printed."""
        return f"widths={self.widths}"
