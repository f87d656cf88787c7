"""Boxes: where a thing is, and where a map says that it is. Introduced in lesson 07.

A box is (left, top, right, bottom), as torchvision has it: pixels from the left and upper edge of
the picture, right and bottom exclusive, so that right - left is the width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from gap_utils.data import Split

CANVAS = 84  # height and width, pixels
PIECES = 24  # cut-outs on a canvas
PIECE = 10  # height and width of each, pixels
VISIBLE = 0.1  # a pixel belongs to the clothes from this brightness on


def place_in_clutter(split: Split, seed: int) -> tuple[Split, Tensor]:
    """Put each picture somewhere on a black canvas of 84×84, over pieces of other pictures.

    The pieces are 24 squares of 10×10 pixels, cut out of any pictures of the split.

    Args:
        split: pictures of 28×28.
        seed: of the places and the pieces.

    Returns:
        The split with pictures (N, 1, 84, 84), and the box around the clothes in each, (N, 4).
    """
    generator, count = torch.Generator().manual_seed(seed), len(split)
    rows = torch.arange(count)[:, None, None]

    def draw(high: int) -> Tensor:
        return torch.randint(high, (count, 1, 1), generator=generator)

    pictures, canvas = split.images[:, 0], torch.zeros(count, CANVAS, CANVAS)
    size = pictures.shape[1]
    along = torch.arange(PIECE)
    for _ in range(PIECES):
        y, x = (draw(size - PIECE + 1) + axis for axis in (along[:, None], along))
        piece = pictures[draw(count), y, x]
        y, x = (draw(CANVAS - PIECE + 1) + axis for axis in (along[:, None], along))
        canvas[rows, y, x] = piece
    along = torch.arange(size)
    y, x = (draw(CANVAS - size + 1) + axis for axis in (along[:, None], along))
    shown = pictures > VISIBLE
    canvas[rows, y, x] = torch.where(shown, pictures, canvas[rows, y, x])
    boxes = box_around(shown) + torch.stack([x[:, 0, 0], y[:, 0, 0]], 1).repeat(1, 2)
    return replace(split, images=canvas[:, None]), boxes


def box_around(mask: Tensor) -> Tensor:
    """Find the smallest box around what is True: (N, H, W) -> (N, 4).

    Example:
        >>> box_around(torch.tensor([[[False, True, True], [False, False, True]]]))
        tensor([[1, 0, 3, 2]])
    """
    ends = []
    for axis in (1, 2):  # columns, then rows
        line = mask.any(axis).int()
        ends.append((line.argmax(1), line.shape[1] - line.flip(1).argmax(1)))
    (left, right), (top, bottom) = ends
    return torch.stack([left, top, right, bottom], 1)


def box_from_map(maps: Tensor, level: float, cell: int) -> Tensor:
    """Find the box around the largest value of each map and the high values connected to it.

    Args:
        maps: shape (N, h, w).
        level: how high is high: a part of the way from the smallest value of the map, 0, to its
            largest, 1.
        cell: pixels of the picture for each position of the map, in both axes.

    Returns:
        Boxes in pixels, (N, 4).

    Source:
        Zhou and others (2016), "Learning Deep Features for Discriminative Localization", section
        3.2. They take the largest of the regions above a fifth of the maximum.
    """
    low, top = (maps.flatten(1).aminmax(dim=1)[i][:, None, None] for i in (0, 1))
    high = (maps >= low + level * (top - low)).float()
    region = (maps == top).float()
    while True:
        grown = F.max_pool2d(region, 3, stride=1, padding=1) * high
        if grown.equal(region):
            return cell * box_around(region > 0)
        region = grown


def intersection_over_union(boxes: Tensor, others: Tensor) -> Tensor:
    """Divide the area that two boxes share by the area that they cover together, row by row.

    Args:
        boxes, others: shape (N, 4).

    Returns:
        Numbers from 0 to 1, shape (N,).

    Example:
        >>> a, b = torch.tensor([[0, 0, 4, 4]]), torch.tensor([[2, 0, 6, 4]])
        >>> intersection_over_union(a, b)
        tensor([0.3333])
    """
    shared = intersection(boxes, others)
    return shared / (area(boxes) + area(others) - shared)


def intersection(boxes: Tensor, others: Tensor) -> Tensor:
    """Measure the area that two boxes share, row by row: (N, 4), (N, 4) -> (N,)."""
    start = torch.maximum(boxes[:, :2], others[:, :2])
    end = torch.minimum(boxes[:, 2:], others[:, 2:])
    return (end - start).clamp(min=0).prod(1)


def area(boxes: Tensor) -> Tensor:
    """Measure boxes: (N, 4) -> (N,)."""
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def largest_position(maps: Tensor, cell: int) -> Tensor:
    """Find the middle of the square with the largest value: (N, h, w) -> x and y in pixels, (N, 2).

    Args:
        maps: shape (N, h, w).
        cell: as for `box_from_map`.
    """
    place = maps.flatten(1).argmax(1)
    return cell * torch.stack([place % maps.shape[2], place // maps.shape[2]], 1) + cell // 2


def holds(boxes: Tensor, points: Tensor) -> Tensor:
    """Say which points (N, 2), x and y, lie in their box (N, 4): the pointing game. -> (N,)

    Source:
        Zhang and others (2016), "Top-down Neural Attention by Excitation Backprop".
    """
    return ((points >= boxes[:, :2]) & (points < boxes[:, 2:])).all(1)
