"""Boxes: where a thing is, and where a map says that it is. Introduced in lesson 07.

A box is (left, top, right, bottom), as torchvision has it: pixels from the left and upper edge of
the picture, right and bottom exclusive, so that right - left is the width.
"""

from __future__ import annotations

from dataclasses import replace
from numbers import Real

import torch
from torch import Tensor
from torch.nn import functional as F

from gap_utils.data import Split
from gap_utils.values import read_whole_number

CANVAS = 84  # height and width, pixels
PIECES = 24  # cut-outs on a canvas
PIECE = 10  # height and width of each, pixels
VISIBLE = 0.1  # a pixel belongs to the clothes from this brightness on


def place_in_clutter(split: Split, seed: int) -> tuple[Split, Tensor]:
    """Put each picture somewhere on a black canvas of 84×84, over pieces of other pictures.

    The pieces are 24 squares of 10×10 pixels, cut out of any pictures of the split.

    Args:
        split: square pictures of 10×10 to 84×84, such as those of Fashion-MNIST, 28×28.
        seed: of the places and the pieces, which are the same on every device.

    Returns:
        The split with pictures (N, 1, 84, 84), and the box around the clothes in each, (N, 4). It
        is around their pixels brighter than 0.1, which alone cover the pieces.

    Raises:
        ValueError: if the pictures have another shape, or one is nowhere brighter than 0.1.
    """
    shape = tuple(split.images.shape)
    square = len(shape) == 4 and shape[1] == 1 and shape[2] == shape[3]
    if not (square and shape[0] and PIECE <= shape[2] <= CANVAS):
        raise ValueError(
            f"expected at least one picture, (N, 1, S, S) with S from {PIECE} to {CANVAS}, got "
            f"{shape}"
        )
    generator, count, device = torch.Generator().manual_seed(seed), len(split), split.images.device

    def draw(high: int) -> Tensor:  # on the CPU, since other devices draw other numbers
        return torch.randint(high, (count, 1, 1), generator=generator).to(device)

    pictures = split.images[:, 0]
    canvas = pictures.new_zeros(count, CANVAS, CANVAS)
    size, rows = shape[2], torch.arange(count, device=device)[:, None, None]
    along = torch.arange(PIECE, device=device)
    for _ in range(PIECES):
        y, x = (draw(size - PIECE + 1) + axis for axis in (along[:, None], along))
        piece = pictures[draw(count), y, x]
        y, x = (draw(CANVAS - PIECE + 1) + axis for axis in (along[:, None], along))
        canvas[rows, y, x] = piece
    along = torch.arange(size, device=device)
    y, x = (draw(CANVAS - size + 1) + axis for axis in (along[:, None], along))
    shown = pictures > VISIBLE
    canvas[rows, y, x] = torch.where(shown, pictures, canvas[rows, y, x])
    boxes = box_around(shown) + torch.stack([x[:, 0, 0], y[:, 0, 0]], 1).repeat(1, 2)
    return replace(split, images=canvas[:, None]), boxes


def box_around(mask: Tensor) -> Tensor:
    """Find the smallest box around what is True: (N, H, W) -> (N, 4).

    Raises:
        ValueError: if the shape is another, or a mask has nothing True: no box is around nothing.

    Example:
        >>> box_around(torch.tensor([[[False, True, True], [False, False, True]]]))
        tensor([[1, 0, 3, 2]])
    """
    if mask.ndim != 3 or mask.dtype != torch.bool:
        raise ValueError(
            f"expected masks of True and False, (N, H, W), got {tuple(mask.shape)}, {mask.dtype}"
        )
    if not (something := mask.flatten(1).any(1)).all():
        number = something.int().argmin().item()
        raise ValueError(f"expected something True in each mask, got nothing in number {number}")
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
        Boxes in pixels, (N, 4). Positions that touch at a corner are connected. Where several
        values are the largest, the box is around all of them: on a flat map it is the whole
        picture.

    Raises:
        ValueError: if the maps are not (N, h, w) or hold a number that is not finite, or the
            level or the cell is out of its range.

    Source:
        Zhou and others (2016), "Learning Deep Features for Discriminative Localization", section
        3.2. They do not begin at the minimum, and take the largest region, wherever the maximum
        is: of those above a fifth of the maximum.
    """
    cell = _check_maps(maps, cell)
    if not isinstance(level, Real) or not 0 <= level <= 1:
        raise ValueError(f"expected level to be a number from 0 to 1, got {level!r}")
    low, top = (end[:, None, None] for end in maps.flatten(1).aminmax(dim=1))
    # rounding may put a level of 1 above the top
    high = (maps >= torch.minimum(low + level * (top - low), top)).float()
    region = (maps == top).float()
    while True:
        grown = F.max_pool2d(region, 3, stride=1, padding=1) * high
        if grown.equal(region):
            return cell * box_around(region > 0)
        region = grown


def intersection_over_union(boxes: Tensor, others: Tensor) -> Tensor:
    """Divide the area that two boxes share by the area that they cover together, row by row.

    Args:
        boxes: shape (N, 4).
        others: shape (N, 4).

    Returns:
        Numbers from 0 to 1, shape (N,).

    Raises:
        ValueError: as `intersection`.

    Example:
        >>> a, b = torch.tensor([[0, 0, 4, 4]]), torch.tensor([[2, 0, 6, 4]])
        >>> intersection_over_union(a, b)
        tensor([0.3333])
    """
    shared = intersection(boxes, others)
    return shared / (area(boxes) + area(others) - shared)


def intersection(boxes: Tensor, others: Tensor) -> Tensor:
    """Measure the area that two boxes share, row by row: (N, 4), (N, 4) -> (N,).

    Raises:
        ValueError: if the shapes differ or are others, or a box has no area.
    """
    boxes, others = _read_boxes(boxes), _read_boxes(others)
    if len(boxes) != len(others):
        raise ValueError(f"expected equally many boxes, got {len(boxes)} and {len(others)}")
    start = torch.maximum(boxes[:, :2], others[:, :2])
    end = torch.minimum(boxes[:, 2:], others[:, 2:])
    return (end - start).clamp(min=0).prod(1)


def area(boxes: Tensor) -> Tensor:
    """Measure boxes: (N, 4) -> (N,).

    Raises:
        ValueError: if the shape is another, or a box has no area.
    """
    boxes = _read_boxes(boxes)
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def _read_boxes(boxes: Tensor) -> Tensor:
    """Check boxes (N, 4), and make room for their areas: a byte holds no more than 255."""
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"expected boxes of shape (N, 4), got {tuple(boxes.shape)}")
    good = (boxes[:, :2] < boxes[:, 2:]).all(1) & boxes.isfinite().all(1)
    if not good.all():
        raise ValueError(
            "expected boxes with left < right and top < bottom, as (left, top, right, bottom), "
            f"got {tuple(boxes[good.int().argmin()].tolist())}"
        )
    room = torch.float32 if boxes.is_floating_point() else torch.int64
    return boxes.to(torch.promote_types(boxes.dtype, room))


def largest_position(maps: Tensor, cell: int) -> Tensor:
    """Find the middle of the square with the largest value: (N, h, w) -> x and y in pixels, (N, 2).

    Args:
        maps: shape (N, h, w).
        cell: as for `box_from_map`.

    Returns:
        The first of several largest. The middle of a square of 4 pixels is between two of them,
        2 from its left and upper edge.

    Raises:
        ValueError: as `box_from_map`.
    """
    cell = _check_maps(maps, cell)
    place = maps.flatten(1).argmax(1)
    return cell * torch.stack([place % maps.shape[2], place // maps.shape[2]], 1) + cell // 2


def _check_maps(maps: Tensor, cell: int) -> int:
    if maps.ndim != 3 or 0 in maps.shape[1:] or not maps.isfinite().all():
        what = tuple(maps.shape) if maps.isfinite().all() else "one that is no finite number"
        raise ValueError(f"expected maps of finite numbers, (N, h, w), got {what}")
    return read_whole_number("cell", cell, 1)


def holds(boxes: Tensor, points: Tensor) -> Tensor:
    """Play the pointing game, row by row: does the point lie in the box? (N, 4), (N, 2) -> (N,).

    A point is x and y. The right and lower edge of a box are outside.

    Raises:
        ValueError: if the shapes are others, or a box has no area.

    Source:
        Zhang and others (2016), "Top-down Neural Attention by Excitation Backprop".
    """
    boxes = _read_boxes(boxes)
    if points.shape != (len(boxes), 2):
        raise ValueError(
            f"expected points of shape ({len(boxes)}, 2), one for each box, got "
            f"{tuple(points.shape)}"
        )
    return ((points >= boxes[:, :2]) & (points < boxes[:, 2:])).all(1)
