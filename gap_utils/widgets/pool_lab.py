"""Step a pooling window over a small map. Introduced in lesson 01.

`PoolState` and `pool_step` compute, `draw_pool` draws, `PoolLab` names the controls. The
arithmetic itself is in `gap_utils.pooling`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from gap_utils.pooling import MODES, global_average_pool, global_max_pool, pool, windows_along
from gap_utils.svg import Box, Frame, Panel, box, heading, letters_in, text
from gap_utils.values import fit_number, format_number, join_rows, read_whole_numbers
from gap_utils.widgets.lab import START_AGAIN, Button, Choice, Lab, Numbers, Slider

MOST = 999  # numbers beyond it would not fit their squares
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
SIDE, TOP = 268, 30  # of a grid: how wide it may be, and where it begins, in CSS pixels
SHADE = 0.85  # of the largest number's square; ink has to be read on it in the dark theme too
MODE_LABELS = (("max", "max"), ("average", "avg"), ("min", "min"))


@dataclass(frozen=True)
class PoolState:
    """All that `PoolLab` shows follows from this.

    Raises:
        ValueError: if a value is out of its range.
    """

    #: the map, square, 2 to 8 rows of numbers from -999 to 999
    values: tuple[tuple[float, ...], ...] = tuple(row[:4] for row in NUMBERS[:4])
    mode: str = "max"  #: "max", "avg" or "min"
    kernel_size: int = 2  #: side of the window, at most the side of the map
    stride: int = 2  #: step from one window to the next, at most the side of the map
    padding: int = 0  #: positions added on every side, at most half the kernel size
    window: int = 1  #: number of the window on view, counted from 1, row by row

    def __post_init__(self):
        try:
            values = np.asarray(self.values, dtype=float)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(f"expected rows of numbers, got {self.values!r}") from error
        if values.ndim != 2 or len(set(values.shape)) != 1 or len(values) not in SIZES:
            raise ValueError(f"expected a square map from 2×2 to 8×8, got shape {values.shape}")
        if not (abs(values) <= MOST).all():
            raise ValueError(f"expected numbers from -{MOST} to {MOST}, got {self.values!r}")
        object.__setattr__(self, "values", tuple(map(tuple, values.tolist())))
        if self.mode not in MODES:
            raise ValueError(f'expected mode "max", "avg" or "min", got {self.mode!r}')
        read_whole_numbers(self, kernel_size=(1, self.size), stride=(1, self.size), padding=(0,))
        # `windows` raises for too much padding
        read_whole_numbers(self, window=(1, len(self.windows) ** 2))

    @property
    def size(self) -> int:
        """Side of the map."""
        return len(self.values)

    @property
    def windows(self) -> list[tuple[int, int]]:
        """Start and stop of every window along one axis; both axes are alike."""
        return windows_along(self.size, self.kernel_size, self.stride, self.padding)


def nearest_state(state: PoolState, **changes) -> PoolState:
    """Change fields of a state, pulling the others into what is then possible.

    A smaller map shrinks kernel and stride, a smaller kernel the padding; a window that is gone
    becomes the last one.
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
    """The numbers of one window, and those of the whole map."""

    # rows, columns: start and stop of the window; positions outside the map are padding
    rows: tuple[int, int]
    columns: tuple[int, int]
    # the numbers that are pooled; an average has a 0 for each padded position
    terms: tuple[float, ...]
    positions: tuple[tuple[int, int], ...]  # row and column of each of them
    result: float  # the number they give
    output: np.ndarray  # the result of every window, shape (windows, windows)
    # average, maximum, minimum: the three global numbers of the map
    average: float
    maximum: float
    minimum: float


def pool_step(state: PoolState) -> PoolStep:
    """Compute the numbers of the window on view."""
    output, average, maximum, minimum = _pool(replace(state, window=1))
    row, column = divmod(state.window - 1, len(state.windows))
    rows, columns = state.windows[row], state.windows[column]
    inside = range(state.size)
    terms = {
        (i, j): state.values[i][j] if i in inside and j in inside else 0.0
        for i in range(*rows)
        for j in range(*columns)
        if state.mode == "avg" or (i in inside and j in inside)
    }
    result, global_ = float(output[row, column]), (average, maximum, minimum)
    return PoolStep(rows, columns, (*terms.values(),), (*terms,), result, output, *global_)


@lru_cache(maxsize=4)  # the same for all windows
def _pool(state: PoolState) -> tuple[np.ndarray, float, float, float]:
    """Pool the whole map: the output, and the three global numbers."""
    x = np.array(state.values)[None, None]
    return (
        pool(x, state.kernel_size, state.stride, state.padding, state.mode)[0, 0].numpy(),
        global_average_pool(x).item(),
        global_max_pool(x).item(),
        -global_max_pool(-x).item(),
    )


def arithmetic(mode: str, terms: Sequence[float], result: float) -> str:
    """Write out how the numbers of a window give its result.

    Example:
        >>> arithmetic("avg", [2, 2, 9, 4], 4.25)
        '(2 + 2 + 9 + 4) / 4 = 4.25'
        >>> arithmetic("max", [2, -3], 2)
        'max(2, -3) = 2'
    """
    return "".join(words for words, _ in _cut(mode, terms, result, [""] * len(terms)))


def _cut(
    mode: str, terms: Sequence[float], result: float, links: Sequence[str]
) -> list[tuple[str, str]]:
    """Write the same in pieces, each term with its link."""
    numbers = [format_number(term) for term in terms]
    shown = format_number(result)
    equals = "=" if abs(float(shown) - result) < 1e-9 else "≈"
    begin, between, end = f"{mode}(", ", ", ")"
    if mode == "avg":
        begin, between, end = "(", " + ", f") / {len(numbers)}"
        numbers = [f"({number})" if number.startswith("-") else number for number in numbers]
    pieces = [(begin, "")]
    for piece in zip(numbers, links, strict=True):
        pieces += [piece, (between, "")]
    pieces[-1] = f"{end} {equals} {shown}", ""
    return pieces


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


def draw_pool(state: PoolState) -> Frame:
    """Draw the map with the window on it, and the output as far as it has come."""
    step = pool_step(state)
    links = [_link(*position) for position in step.positions]
    pieces = _cut(state.mode, step.terms, step.result, links)
    sum_ = "".join(piece for piece, _ in pieces)
    words = describe_globals(step), describe_window(state, step)
    results = [format_number(number) for number in step.output.flat]
    results[state.window :] = "?" * (len(results) - state.window)
    rows = join_rows(map(format_number, line) for line in state.values)
    # so that the room is the same in whatever order the numbers are
    longest = max(np.ravel(state.values), key=lambda number: len(arithmetic("avg", [number], 0)))
    return Frame(
        panels=[_map_panel(state, step), _output_panel(state, step)],
        words=words,
        text=f"Map {rows}. {words[1]}. {sum_}. "
        f"Output so far {join_rows(np.reshape(results, step.output.shape))}. {words[0]}.",
        pieces=pieces,
        room=(arithmetic("avg", [longest] * state.size**2, step.average), *words),
    )


def _link(row: int, column: int) -> str:
    """Name what lights up together: a number of the map, and the same in the arithmetic."""
    return f"term{row},{column}"


def _map_panel(state: PoolState, step: PoolStep) -> Panel:
    size, padding = state.size, state.padding
    zero = 0.0 if state.mode == "avg" else np.nan  # no number at all for the others
    numbers = np.pad(np.array(state.values), padding, constant_values=zero)
    inside = np.pad(np.ones((size, size), bool), padding)
    title = f"map {size} × {size}" + (f", padding {padding}" if padding else "")
    grid = _Grid(len(numbers))

    def touch(row: int, column: int) -> dict[str, Any]:
        position = row - padding, column - padding
        link = _link(*position) if position in step.positions else None
        return {"data_link": link, "data_focus": "values" if inside[row, column] else None}

    drawn = [grid.draw(numbers, inside, "gap-padding", step, touch)]
    for number, (rows, columns) in enumerate(product(state.windows, repeat=2), start=1):
        window = grid.box(rows[0] + padding, columns[0] + padding, state.kernel_size)
        drawn.append(box(window, "gap-unseen", data_link=f"window{number}"))
    mark = grid.box(step.rows[0] + padding, step.columns[0] + padding, state.kernel_size)
    return grid.panel(title, "type into it", "".join(drawn), mark, "gap-live gap-typing")


def _output_panel(state: PoolState, step: PoolStep) -> Panel:
    windows = len(state.windows)
    known = np.arange(windows**2).reshape(windows, windows) < state.window
    numbers = np.where(known, step.output, np.nan)
    grid = _Grid(windows)

    def touch(row: int, column: int) -> dict[str, Any]:
        number = row * windows + column + 1
        return {"data_link": f"window{number}", "data_set": {"window": number}}

    drawn = grid.draw(numbers, known, "gap-edge", step, touch)
    mark = grid.box(*divmod(state.window - 1, windows))
    return grid.panel(f"output {windows} × {windows}", "click a square", drawn, mark)


class _Grid:
    """A square of so many squares a side, as a panel."""

    def __init__(self, side: int):
        self.cell = min(67, SIDE / side)

    def box(self, row: int, column: int, side: int = 1) -> Box:
        """Where some squares are, or one."""
        return 4 + column * self.cell, TOP + row * self.cell, side * self.cell, side * self.cell

    def draw(
        self,
        numbers: np.ndarray,
        shaded: np.ndarray,
        other: str,
        step: PoolStep,
        touch: Callable[[int, int], dict[str, Any]],
    ) -> str:
        """Draw the squares.

        Args:
            numbers: written into the squares where they fit; NaN where there is none.
            shaded: which squares are the bluer the larger their number.
            other: class of the other squares.
            step: whose smallest number is white and whose largest is blue.
            touch: row and column of a square -> how it can be touched.
        """
        cell, letters = self.cell, letters_in(self.cell - 2)
        parts = (numbers - step.minimum) / (step.maximum - step.minimum or 1)
        shades = SHADE * np.clip(np.nan_to_num(parts), 0, 1)
        drawn = []
        for (row, column), number in np.ndenumerate(numbers):
            x, y, *_ = square = self.box(row, column)
            is_shaded = shaded[row, column]
            class_, opacity = ("gap-square", shades[row, column]) if is_shaded else (other, None)
            drawn.append(box(square, class_, fill_opacity=opacity, **touch(row, column)))
            if not np.isnan(number):
                written = fit_number(format_number(number, 4 if cell > 36 else 2), number, letters)
                if len(written) > letters:
                    written = "…"  # the exact result is under the picture
                size = round(max(12, min(0.42 * cell, 1.45 * cell / max(len(written), 3))))
                drawn.append(text(x + cell / 2, y + cell / 2, written, size, "middle"))
        return "".join(drawn)

    def panel(
        self, title: str, hint: str, drawn: str, mark: Box, class_: str = "gap-live"
    ) -> Panel:
        """Put a title above, say what can be done, and frame what is on view."""
        svg = heading(14, title, hint, SIDE, 4, class_) + drawn + box(mark, "gap-mark")
        return Panel(SIDE + 8, SIDE + TOP + 8, svg)


class PoolLab(Lab):
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
        most = SIZES[-1]
        controls = [
            Slider("window", "Window", 1, 1, main=True),
            Choice("mode", "Pooling", MODE_LABELS, style="radio"),
            Slider("kernel_size", "Kernel", 1, most),
            Slider("stride", "Stride", 1, most),
            Slider("padding", "Padding", 0, most // 2),
            Slider("size", "Map size", SIZES[0], most),
            Button("global", "Global: kernel = whole map"),
            Button("roll", "Roll one column"),
            Button("shuffle", "Shuffle"),
            START_AGAIN,
            Numbers("values", "The map", -MOST, MOST),
        ]
        super().__init__(PoolState(values, **settings), controls)

    def __repr__(self) -> str:
        state, step = self.value, pool_step(self.value)
        return (
            f"PoolLab({state.size}x{state.size}, {state.mode}, kernel {state.kernel_size}, "
            f"stride {state.stride}, padding {state.padding}, "
            f"window {state.window} of {step.output.size}: "
            f"{arithmetic(state.mode, step.terms, step.result)})"
        )

    def draw(self, state: PoolState) -> Frame:
        """Draw map and output."""
        return draw_pool(state)

    def to_fields(self, state: PoolState) -> dict[str, Any]:
        """Add the size of the map, which has a slider of its own."""
        return {**super().to_fields(state), "size": state.size}

    def from_fields(self, values: dict[str, Any]) -> PoolState:
        """Make the nearest state; a map of another size keeps the numbers that have a place."""
        numbers, size = values["values"], values["size"]
        if size != len(numbers):
            kept = min(size, len(numbers))
            larger = np.array(NUMBERS, dtype=float)[:size, :size]
            larger[:kept, :kept] = np.array(numbers)[:kept, :kept]
            numbers = larger.tolist()
        changes = {name: value for name, value in values.items() if name != "size"}
        return nearest_state(self.value, **{**changes, "values": numbers})

    def limits(self, state: PoolState) -> dict[str, dict[str, Any]]:
        """Say how far kernel, stride, padding and window go, and what would change nothing."""
        return {
            "kernel_size": {"high": state.size},
            "stride": {"high": state.size},
            "padding": {"high": state.kernel_size // 2},
            "window": {"high": len(state.windows) ** 2},
            **{name: {"idle": self.press(name, state) == state} for name in ("global", "roll")},
        }

    def note(self, wanted: dict[str, Any], state: PoolState) -> str:
        """Say which settings were pulled along, and why."""
        pulled = [
            f"{name.replace('_size', '')} is now {getattr(state, name)}"
            for name in ("kernel_size", "stride", "padding")
            if wanted[name] != getattr(state, name)
        ]
        reason = "the kernel fits the map, the padding is at most half the kernel"
        return f"{', '.join(pulled)}: {reason}." if pulled else ""

    needs_kernel = ("shuffle",)
    with_a_kernel = (
        "With a kernel you also type your own numbers, shuffle them and change the size of the map."
    )

    def tour(self) -> Iterator[PoolState]:
        """Every window of every setting, for the map on view, rolled too."""
        size, value = self.value.size, self.value
        sides = range(1, size + 1)
        for roll, mode, kernel, stride in product(range(size), MODES, sides, sides):
            rolled = np.roll(value.values, roll, axis=1)
            for padding in range(kernel // 2 + 1):
                windows = len(windows_along(size, kernel, stride, padding)) ** 2
                for window in range(1, windows + 1):
                    yield PoolState(rolled, mode, kernel, stride, padding, window)

    def press(self, name: str, state: PoolState) -> PoolState:
        """Roll or shuffle the numbers, or make the kernel as large as the map."""
        if name == "roll":
            return replace(state, values=np.roll(state.values, 1, axis=1))
        if name == "shuffle":
            numbers = np.ravel(state.values).tolist()
            self._random.shuffle(numbers)
            return replace(state, values=np.reshape(numbers, (state.size,) * 2))
        if name == "global":
            return nearest_state(
                state, kernel_size=state.size, stride=state.size, padding=0, window=1
            )
        return super().press(name, state)
