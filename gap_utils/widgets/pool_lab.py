"""Step a pooling window over a small map. Introduced in lesson 01.

Three layers: `PoolState` and `pool_step` compute, `pool_picture` draws, `PoolLab` holds
the controls. The arithmetic itself is in `gap_utils.pooling`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from html import escape
from math import inf

import ipywidgets
import numpy as np

from gap_utils.pictures import (
    ACCENT,
    GREY,
    PALE,
    SCALE,
    WHITE,
    Canvas,
    Picture,
    draw_grid,
    shade,
)
from gap_utils.pooling import MODES, global_average_pool, global_max_pool, pool, windows_along
from gap_utils.values import format_number, join_rows, read_whole_number
from gap_utils.widgets.lab import StateLab, side_by_side

LARGEST = 999  # numbers beyond it would not fit their squares
SIZES = range(2, 9)
# the 4×4 map of lesson 01 in the corner; the rest appears when the map grows
NUMBERS = (
    (2, 2, 7, 3, 5, 1, 4, 8),
    (9, 4, 6, 1, 2, 7, 3, 5),
    (8, 5, 2, 4, 6, 3, 9, 1),
    (3, 1, 2, 6, 8, 4, 5, 7),
    (4, 7, 1, 5, 3, 9, 2, 6),
    (6, 2, 8, 3, 1, 5, 7, 4),
    (1, 9, 4, 7, 2, 6, 8, 3),
    (5, 3, 6, 2, 7, 8, 1, 9),
)
MAP_LEFT, OUTPUT_LEFT, TOP = 8 * SCALE, 302 * SCALE, 40 * SCALE  # where the grids begin
MODE_LABELS = {"max": "max", "avg": "average", "min": "min"}


@dataclass(frozen=True)
class PoolState:
    """All that `PoolLab` shows follows from this.

    Attributes:
        values: the map, square, 2 to 8 rows of numbers from -999 to 999.
        mode: "max", "avg" or "min".
        kernel_size: side of the window, at most the side of the map.
        stride: step from one window to the next, at most the side of the map.
        padding: positions added on every side, at most half the kernel size.
        window: number of the window on view, counted from 1, row by row.

    Raises:
        ValueError: if a value is out of its range.
    """

    values: tuple[tuple[float, ...], ...] = tuple(row[:4] for row in NUMBERS[:4])
    mode: str = "max"
    kernel_size: int = 2
    stride: int = 2
    padding: int = 0
    window: int = 1

    def __post_init__(self):
        try:
            values = np.asarray(self.values, dtype=float)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(f"expected rows of numbers, got {self.values!r}") from error
        if values.ndim != 2 or len(set(values.shape)) != 1 or len(values) not in SIZES:
            raise ValueError(f"expected a square map from 2×2 to 8×8, got shape {values.shape}")
        if not (abs(values) <= LARGEST).all():
            raise ValueError(f"expected numbers from -{LARGEST} to {LARGEST}, got {self.values!r}")
        object.__setattr__(self, "values", tuple(map(tuple, values.tolist())))
        if self.mode not in MODES:
            raise ValueError(f'expected mode "max", "avg" or "min", got {self.mode!r}')
        self._read("kernel_size", 1, self.size)
        self._read("stride", 1, self.size)
        self._read("padding", 0)
        self._read("window", 1, len(self.windows) ** 2)  # raises for too much padding

    def _read(self, name: str, low: int, high: float = inf) -> None:
        object.__setattr__(self, name, read_whole_number(name, getattr(self, name), low, high))

    @property
    def size(self) -> int:
        """Side of the map."""
        return len(self.values)

    @property
    def windows(self) -> list[tuple[int, int]]:
        """Start and stop of every window along one axis; both axes are alike."""
        return windows_along(self.size, self.kernel_size, self.stride, self.padding)


def nearest_state(state: PoolState, **changes) -> PoolState:
    """Change a state, pulling the other settings into what is then possible.

    Args:
        state: where to start.
        changes: new values of its fields.

    Returns:
        The new state. A smaller map shrinks kernel and stride, a smaller kernel the
        padding; a window that is gone becomes the last one.
    """
    values = changes.get("values", state.values)
    wanted = vars(state) | changes
    wanted["kernel_size"] = min(wanted["kernel_size"], len(values))
    wanted["stride"] = min(wanted["stride"], len(values))
    wanted["padding"] = min(wanted["padding"], wanted["kernel_size"] // 2)
    window = wanted.pop("window")
    first = PoolState(**wanted, window=1)
    return replace(first, window=min(window, len(first.windows) ** 2))


@dataclass(frozen=True)
class PoolStep:
    """The numbers of one window, and those of the whole map.

    Attributes:
        rows, columns: start and stop of the window; positions outside the map are padding.
        terms: the numbers that are pooled; an average has a 0 for each padded position.
        result: the number they give.
        output: the result of every window, shape (windows, windows).
        average, maximum, minimum: the three global numbers of the map.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    terms: tuple[float, ...]
    result: float
    output: np.ndarray
    average: float
    maximum: float
    minimum: float


@lru_cache(maxsize=4)
def pool_step(state: PoolState) -> PoolStep:
    """Compute the numbers of the window on view."""
    x = np.array(state.values)[None, None]
    output = _output(replace(state, window=1))
    row, column = divmod(state.window - 1, len(state.windows))
    rows, columns = state.windows[row], state.windows[column]
    inside = range(state.size)
    terms = [
        state.values[i][j] if i in inside and j in inside else 0.0
        for i in range(*rows)
        for j in range(*columns)
        if state.mode == "avg" or (i in inside and j in inside)
    ]
    return PoolStep(
        rows=rows,
        columns=columns,
        terms=tuple(terms),
        result=float(output[row, column]),
        output=output,
        average=global_average_pool(x).item(),
        maximum=global_max_pool(x).item(),
        minimum=-global_max_pool(-x).item(),
    )


@lru_cache(maxsize=4)
def _output(state: PoolState) -> np.ndarray:
    x = np.array(state.values)[None, None]
    return pool(x, state.kernel_size, state.stride, state.padding, state.mode)[0, 0].numpy()


def arithmetic(mode: str, terms: Sequence[float], result: float) -> str:
    """Write out how the numbers of a window give its result.

    Example:
        >>> arithmetic("avg", [2, 2, 9, 4], 4.25)
        '(2 + 2 + 9 + 4) / 4 = 4.25'
        >>> arithmetic("max", [2, -3], 2)
        'max(2, -3) = 2'
    """
    numbers = [format_number(term) for term in terms]
    shown = format_number(result)
    equals = "=" if abs(float(shown) - result) < 1e-9 else "≈"
    if mode != "avg":
        return f"{mode}({', '.join(numbers)}) {equals} {shown}"
    sum_ = " + ".join(f"({number})" if number.startswith("-") else number for number in numbers)
    return f"({sum_}) / {len(numbers)} {equals} {shown}"


def describe_window(state: PoolState, step: PoolStep) -> str:
    """Say which window is on view and where it lies, rows and columns counted from 0."""
    text = (
        f"Window {state.window} of {step.output.size}: "
        f"rows {step.rows[0]} to {step.rows[1] - 1}, "
        f"columns {step.columns[0]} to {step.columns[1] - 1}"
    )
    in_map = [min(stop, state.size) - max(start, 0) for start, stop in (step.rows, step.columns)]
    padded = state.kernel_size**2 - in_map[0] * in_map[1]
    return text + (f" ({padded} of {state.kernel_size**2} are padding)" if padded else "")


def describe_globals(step: PoolStep) -> str:
    """Say the three global numbers."""
    return (
        f"Whole map: average {format_number(step.average)}, "
        f"max {format_number(step.maximum)}, min {format_number(step.minimum)}"
    )


def pool_picture(state: PoolState) -> Picture:
    """Draw the map with the window on it, and the output as far as it has come.

    Returns:
        A picture whose text holds the same numbers.
    """
    step = pool_step(state)
    empty, full, cell = _pages(replace(state, window=1))
    row, column = divmod(state.window - 1, len(state.windows))
    right = OUTPUT_LEFT + len(state.windows) * cell + SCALE
    canvas = empty.copy()
    canvas.paste(full, (OUTPUT_LEFT, TOP, right, TOP + row * cell))
    end = OUTPUT_LEFT + (column + 1) * cell
    canvas.paste(full, (OUTPUT_LEFT, TOP + row * cell, end, TOP + (row + 1) * cell))
    for left, rows, columns in (
        (
            MAP_LEFT,
            [p + state.padding for p in step.rows],
            [p + state.padding for p in step.columns],
        ),
        (OUTPUT_LEFT, (row, row + 1), (column, column + 1)),
    ):
        corners = [(left + j * cell, TOP + i * cell) for i, j in zip(rows, columns, strict=True)]
        canvas.fills.rectangle(corners, outline=ACCENT, width=3 * SCALE)

    results = [format_number(number) for number in step.output.flat]
    results[state.window :] = "?" * (len(results) - state.window)
    numbers = (map(format_number, line) for line in state.values)
    return canvas.picture(
        f"Map {join_rows(numbers)}. {describe_window(state, step)}. "
        f"{arithmetic(state.mode, step.terms, step.result)}. "
        f"Output so far {join_rows(np.reshape(results, step.output.shape))}. "
        f"{describe_globals(step)}."
    )


@lru_cache(maxsize=4)  # while the window moves, all but the window stays
def _pages(state: PoolState) -> tuple[Canvas, Canvas, int]:
    """Draw the map with the output still empty and with all of it; also the side of a square."""
    step = pool_step(state)
    size, padding, windows = state.size, state.padding, len(state.windows)
    cell = min(62 * SCALE, 250 * SCALE // max(size + 2 * padding, windows))
    decimals = 4 if cell > 36 * SCALE else 2  # what fits; the exact result is under the picture

    def write(values):
        return [[format_number(number, decimals) for number in line] for line in values]

    pad_label = "0" if state.mode == "avg" else None
    labels = np.full((size + 2 * padding,) * 2, pad_label, dtype=object)
    fills = np.full(labels.shape, PALE)
    inside = slice(padding, padding + size)
    labels[inside, inside] = write(state.values)
    fills[inside, inside] = shade(np.array(state.values), step.minimum, step.maximum)

    empty = Canvas(560, 310)
    padded = f", padding {padding}" if padding else ""
    empty.write(MAP_LEFT, 8 * SCALE, f"map {size} x {size}{padded}", 15 * SCALE)
    empty.write(OUTPUT_LEFT, 8 * SCALE, f"output {windows} x {windows}", 15 * SCALE)
    draw_grid(empty, labels, fills, MAP_LEFT, TOP, cell)
    middle = TOP + cell * len(labels) // 2
    empty.fills.line((268 * SCALE, middle, 288 * SCALE, middle), fill=GREY, width=3 * SCALE)
    tip = [(286, -7), (286, 7), (295, 0)]
    empty.fills.polygon([(x * SCALE, middle + y * SCALE) for x, y in tip], fill=GREY)
    full = empty.copy()
    nothing = np.full((windows, windows), None)
    draw_grid(empty, nothing, np.full((windows, windows), WHITE), OUTPUT_LEFT, TOP, cell)
    shades = shade(step.output, step.minimum, step.maximum)
    draw_grid(full, write(step.output), shades, OUTPUT_LEFT, TOP, cell)
    return empty, full, cell


class PoolLab(StateLab):
    """Edit a small map, choose a pooling, and step its window with a slider.

    Args:
        values, mode, kernel_size, stride, padding, window: as in `PoolState`.

    Attributes:
        value: the `PoolState` on view; it can be set. `lab.set(kernel_size=3)` changes
            single fields.

    Raises:
        ValueError: if a setting is not possible.

    Example:
        >>> lab = PoolLab(mode="avg")
        >>> lab.set(window=4)
        >>> lab
        PoolLab(4x4, avg, kernel 2, stride 2, padding 0, window 4 of 4: (2 + 4 + 2 + 6) / 4 = 3.5)
    """

    def __init__(self, values: Sequence[Sequence[float]] = PoolState.values, **settings):
        self._random = random.Random(0)
        self._numbers_shown = None
        super().__init__(PoolState(values, **settings))

    def picture(self) -> Picture:
        """Draw the state on view."""
        return pool_picture(self._state)

    def __repr__(self) -> str:
        state, step = self._state, pool_step(self._state)
        return (
            f"PoolLab({state.size}x{state.size}, {state.mode}, kernel {state.kernel_size}, "
            f"stride {state.stride}, padding {state.padding}, "
            f"window {state.window} of {step.output.size}: "
            f"{arithmetic(state.mode, step.terms, step.result)})"
        )

    def _build(self) -> None:
        self._cells = {}
        self._grid = ipywidgets.GridBox()
        self._grid.add_class("gap-numbers")
        self._size = self._slider("Map size", SIZES[0], SIZES[-1], self._resize)
        self._mode = ipywidgets.ToggleButtons(
            options=[(label, mode) for mode, label in MODE_LABELS.items()],
            description="Pooling",
            style={"button_width": "84px"},
            layout={"width": "300px"},
        )
        self._on_move(self._mode, lambda mode: self._change(mode=mode))
        most = SIZES[-1]
        self._sliders = {
            "kernel_size": self._slider("Kernel", 1, most, lambda n: self._change(kernel_size=n)),
            "stride": self._slider("Stride", 1, most, lambda n: self._change(stride=n)),
            "padding": self._slider("Padding", 0, most // 2, lambda n: self._change(padding=n)),
            "window": self._slider("Window", 1, 100, lambda n: self._change(window=n)),
        }
        self._sliders["window"].layout = {"width": "540px", "max_width": "100%"}
        self._note = ipywidgets.HTML()
        roll = self._button("Roll one column", self._roll)
        shuffle = self._button("Shuffle", self._shuffle)
        whole = self._button("Global: kernel = whole map", self._make_global)
        reset = self._button("Start again", self._start_again)
        # the label of each number stays readable to a screen reader, out of sight
        style = ipywidgets.HTML(
            "<style>.gap-numbers .widget-label {position: absolute; clip-path: inset(50%); "
            "width: 1px; height: 1px; min-width: 0; overflow: hidden} "
            ".gap-numbers input {appearance: textfield; text-align: center}</style>"
        )
        left = ipywidgets.VBox(
            [
                ipywidgets.HTML("<b>The map</b> (change any number)"),
                self._grid,
                ipywidgets.HBox([roll, shuffle, reset]),
                self._size,
                self._mode,
                self._sliders["kernel_size"],
                self._sliders["stride"],
                self._sliders["padding"],
                whole,
                self._note,
                style,
            ],
            layout={"width": "316px"},
        )
        right = ipywidgets.VBox([self._sliders["window"], self._view])
        self.box = side_by_side(left, right)

    def _cell(self, row: int, column: int) -> ipywidgets.BoundedFloatText:
        if (row, column) not in self._cells:
            cell = ipywidgets.BoundedFloatText(
                min=-LARGEST,
                max=LARGEST,
                description=f"row {row}, column {column}",
                layout={"width": "auto", "margin": "1px"},
            )
            self._on_move(cell, lambda number: self._change_number(row, column, number))
            self._cells[row, column] = cell
        return self._cells[row, column]

    def _change_number(self, row: int, column: int, number: float) -> None:
        values = [list(line) for line in self._state.values]
        if row < len(values) and column < len(values):
            values[row][column] = number
            self._change(values=values)

    def _resize(self, size: int) -> None:
        old = self._state
        kept = range(min(size, old.size))
        values = [list(row[:size]) for row in NUMBERS[:size]]
        for i in kept:
            values[i][: len(kept)] = old.values[i][: len(kept)]
        self._change(values=values)

    def _roll(self) -> None:
        self._change(values=np.roll(self._state.values, 1, axis=1))

    def _shuffle(self) -> None:
        numbers = np.ravel(self._state.values).tolist()
        self._random.shuffle(numbers)
        self._change(values=np.reshape(numbers, (self._state.size,) * 2))

    def _make_global(self) -> None:
        size = self._state.size
        self._change(kernel_size=size, stride=size, padding=0, window=1)

    def _change(self, **changes) -> None:
        before, self._state = self._state, nearest_state(self._state, **changes)
        pulled = [
            f"{name.replace('_size', '')} is now {getattr(self._state, name)}"
            for name in ("kernel_size", "stride", "padding")
            if name not in changes and getattr(self._state, name) != getattr(before, name)
        ]
        self._show(", ".join(pulled))

    def _show(self, pulled: str = "") -> None:
        """Bring controls, picture and words in line with the state."""
        state, step = self._state, pool_step(self._state)
        reason = "the kernel fits the map, the padding is at most half the kernel"
        self._note.value = f"<i>{pulled}: {reason}.</i>" if pulled else ""
        with self._controls_follow():
            self._size.value = state.size
            self._mode.value = state.mode
            limits = {
                "kernel_size": state.size,
                "stride": state.size,
                "padding": state.kernel_size // 2,
                "window": step.output.size,
            }
            for name, limit in limits.items():
                self._sliders[name].max = limit
                self._sliders[name].value = getattr(state, name)
            if state.values != self._numbers_shown:
                self._show_numbers(state)
        sum_ = arithmetic(state.mode, step.terms, step.result)
        self._draw(
            pool_picture(state),
            f"<b>{escape(describe_globals(step))}</b><br>{escape(describe_window(state, step))}"
            f'<div style="font-size: 130%; margin-top: 6px">{escape(sum_)}</div>',
        )

    def _show_numbers(self, state: PoolState) -> None:
        self._numbers_shown = state.values
        cells = [self._cell(i, j) for i in range(state.size) for j in range(state.size)]
        for cell, number in zip(cells, np.ravel(state.values).tolist(), strict=True):
            cell.value = number
        if len(cells) != len(self._grid.children):  # else the cell in use loses focus
            self._grid.children = cells
            self._grid.layout = {
                "grid_template_columns": f"repeat({state.size}, minmax(0, 1fr))",
                "width": f"{min(56 * state.size, 300)}px",
            }
