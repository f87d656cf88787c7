"""Pictures that move or grow, and what it costs a model. Introduced in lesson 05."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gap_utils.data import Split
from gap_utils.inference import evaluate

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
