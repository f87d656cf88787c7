"""A wrong answer as squares: the input, your result and what was expected, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from itertools import product
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gap_utils.values import fit_number, format_number
from gap_utils.verdict import OPEN, RIGHT, WRONG, grid_as_html

SQUARES, SIDE, MAPS = 36, 6, 4  # what is larger, or has more maps, is not drawn
ROW, LETTER, LONGEST = 258, 9, 9  # pixels of a row on a phone, of a digit; digits of a number


def draw_case(
    inputs: Mapping[str, Any],
    value: Any,
    expected: Any,
    are_close: Callable[[Tensor, Tensor], Tensor],
) -> str:
    """Draw the tensors that go in, the result and the expected one, as HTML.

    Args:
        inputs: name -> argument; only the tensors among them are drawn.
        value: what the learner's function returned.
        expected: what it should have returned.
        are_close: says which numbers of two tensors of one shape are the same.

    Returns:
        Tables, side by side where there is room. Where both results have one shape, the
        squares that differ are marked. Empty where something is too large to be drawn or is no
        grid of numbers, or where no difference would be seen.
    """
    given = {name: _as_grid(each) for name, each in inputs.items() if isinstance(each, Tensor)}
    result, wanted = _as_grid(value), _as_grid(expected)
    if not given or any(grid is None for grid in (*given.values(), result, wanted)):
        return ""
    marked = None
    if result.shape == wanted.shape:
        marked = ~are_close(result, wanted)
        if not marked.any() or _as_words(result) == _as_words(wanted):
            return ""
    parts = [_draw(name, grid) for name, grid in given.items()]
    parts += [_draw("your result", result, marked, WRONG), _draw("expected", wanted, marked, RIGHT)]
    row = "display: flex; flex-wrap: wrap; gap: 10px 28px; margin: 8px 0 10px"
    return f'<div style="{row}"> {" ".join(parts)} </div>'


def _as_grid(value: Any) -> Tensor | None:
    """Read a small tensor, array or number; None for what cannot be drawn."""
    if not isinstance(value, Tensor | np.ndarray | np.generic | Real):
        return None
    try:
        grid = torch.as_tensor(value, device="cpu").detach()
        if grid.layout != torch.strided or grid.is_complex() or not 0 < grid.numel() <= SQUARES:
            return None
        maps = grid.numel() // grid.shape[-2:].numel()
        return None if max((*grid.shape[-2:], 0)) > SIDE or maps > MAPS else grid
    except (TypeError, ValueError, RuntimeError, OverflowError):  # such as words in an array
        return None


def _draw(name: str, grid: Tensor, marked: Tensor | None = None, sign: str = OPEN) -> str:
    """Draw the maps of a tensor, each its last two axes, below the tensor's name and shape."""
    shape = tuple(grid.shape)
    above = f"<b>{escape(name)}</b>"
    if shape:
        arrows = zip([*range(len(shape))][-2:], "↓→"[-len(shape) :], strict=True)
        above += f" {shape}<br>" + " ".join(f"axis {axis} {arrow}" for axis, arrow in arrows)
    marked = torch.zeros_like(grid, dtype=torch.bool) if marked is None else marked
    places = [*product(*map(range, shape[:-2]))]
    tables = [
        grid_as_html(numbers, marks, sign, title=str([*place]) if len(places) > 1 else "")
        for place, numbers, marks in zip(places, _as_words(grid), _as_maps(marked), strict=True)
    ]
    return f'<div><p style="margin: 0">{above}</p> {" ".join(tables)}</div>'


def _as_maps(grid: Tensor) -> list[list[list[Any]]]:
    return grid.reshape(-1, *(1, 1, *grid.shape)[-2:]).tolist()


def _as_words(grid: Tensor) -> list[list[list[str]]]:
    return [[[_write(each, len(row)) for each in row] for row in rows] for rows in _as_maps(grid)]


def _write(number: float, columns: int) -> str:
    if isinstance(number, bool) or not isfinite(number):
        return str(number)
    letters = min((ROW // columns - 6) // LETTER + (number < 0), LONGEST)
    return fit_number(format_number(number), number, letters)
