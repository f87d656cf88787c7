"""Pictures with the text that says the same: heat maps with numbers, shapes as blocks."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from math import log2, prod

import numpy as np

from gap_utils.values import format_number, join_rows

SCALE = 2  # pixels of a picture per CSS pixel, so that numbers stay sharp on dense screens
BLUE = (116, 178, 232)  # light enough for black to be read on it
VERMILLION = (213, 94, 0)  # blue and vermillion are told apart with every kind of colour vision


@dataclass(frozen=True)
class Picture:
    """A PNG and the text that says the same.

    So a reader who cannot see the picture, and a test that cannot compare it, have its numbers.
    """

    png: bytes  #: the picture, PNG bytes
    text: str  #: the same in words and numbers
    width: int  #: width on the page, in CSS pixels
    height: int  #: height on the page, in CSS pixels

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, include=None, exclude=None):
        size = {"width": self.width, "height": self.height, "alt": self.text}
        png = b64encode(self.png).decode()
        html = (  # JupyterLab shows no alternative text of a bare PNG
            f'<img width="{self.width}" height="{self.height}" alt="{escape(self.text)}" '
            f'src="data:image/png;base64,{png}">'
        )
        data = {"image/png": png, "text/html": html, "text/plain": self.text}
        return data, {"image/png": size}


def plot_maps(
    maps: Mapping[str, Sequence[Sequence[float]] | np.ndarray],
    boxes: Mapping[str, Sequence[tuple[int, int, int, int]]] | None = None,
) -> Picture:
    """Draw maps side by side as heat maps with their numbers, on one colour scale.

    Args:
        maps: title -> numbers of shape (H, W).
        boxes: title -> windows to outline on that map, each (row, column, height, width).

    Returns:
        A picture whose text holds every title and number.

    Raises:
        ValueError: if a map is not two-dimensional or a box names no map.

    Example:
        >>> plot_maps({"map": [[1, 2], [3, 4]]})
        map: 1 2 / 3 4
    """
    import seaborn  # takes a second: only for those who draw
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    arrays = {title: np.asarray(values, dtype=float) for title, values in maps.items()}
    for title, values in arrays.items():
        if values.ndim != 2 or values.size == 0:
            raise ValueError(f"expected map {title!r} of shape (H, W), got {values.shape}")
    boxes = boxes or {}
    if unknown := set(boxes) - set(arrays):
        raise ValueError(f"expected boxes on {list(arrays)}, got one on {unknown.pop()!r}")

    # in whole CSS pixels: a sum of inches may end beside a whole number of pixels, or on it
    square, gap, title_height, letter = 58, 28, 38, 10
    # a long title may be wider than its map
    widths = [max(v.shape[1] * square, len(t) * letter) for t, v in arrays.items()]
    rows = max(values.shape[0] for values in arrays.values())
    width = sum(widths) + gap * (len(widths) + 1)
    height = rows * square + title_height + gap // 2
    figure = Figure(figsize=(width / 96, height / 96))
    left = gap
    low = min(values.min() for values in arrays.values())
    high = max(values.max() for values in arrays.values())
    blue, accent = (tuple(part / 255 for part in colour) for colour in (BLUE, VERMILLION))
    colours = seaborn.blend_palette(["white", blue], as_cmap=True)
    for (title, values), room in zip(arrays.items(), widths, strict=True):
        across, down = (count * square for count in values.shape[::-1])
        bottom = height - title_height - down
        place = (left + (room - across) / 2, bottom, across, down)
        axis = figure.add_axes(np.divide(place, (width, height, width, height)))
        left += room + gap
        seaborn.heatmap(
            values,
            vmin=low,
            vmax=high,
            cmap=colours,
            annot=np.vectorize(format_number, otypes=[object])(values),
            fmt="",
            annot_kws={"color": "black", "fontsize": 12},
            linewidths=1,
            linecolor="lightgrey",
            clip_on=False,
            cbar=False,
            xticklabels=False,
            yticklabels=False,
            ax=axis,
        )
        axis.set_title(title, fontsize=12)
        for row, column, box_height, box_width in boxes.get(title, ()):
            inset = 0.06  # neighbouring boxes stay apart
            corner = (column + inset, row + inset)
            sides = (box_width - 2 * inset, box_height - 2 * inset)
            axis.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=accent, linewidth=2.5))
    text = "\n".join(
        f"{title}: {join_rows(map(format_number, row) for row in values)}"
        for title, values in arrays.items()
    )
    return _store(figure, text, width, height)


def plot_shapes(shapes: Mapping[str, Sequence[int]], arrows: bool = False) -> Picture:
    """Draw shapes side by side: maps as a stack of sheets, a matrix as a table, a vector as a bar.

    Heights and widths of maps are to scale. A stack shows at most eight sheets and a batch at
    most three stacks. The sides of a matrix and a vector grow with the logarithm of their length.

    Args:
        shapes: title -> shape: (), (C,), (N, C), (C, H, W) or (N, C, H, W).
        arrows: whether an arrow leads from each to the next.

    Returns:
        A picture whose text holds every title, shape and count of numbers.

    Raises:
        ValueError: if there is no shape, or one has more than four axes or an axis below 1.

    Example:
        >>> plot_shapes({"features": (64, 8, 10), "flattened": (5120,)})
        features: 64 × 8 × 10, 5,120 numbers
        flattened: 5,120 numbers
    """
    from matplotlib.figure import Figure  # takes a second: only for those who draw
    from matplotlib.patches import Rectangle

    if not shapes:
        raise ValueError("expected a shape to draw, got none")
    for title, shape in shapes.items():
        if len(shape) > 4 or not all(isinstance(n, int) and n > 0 for n in shape):
            raise ValueError(f"expected up to four axes of 1 or more in {title!r}, got {shape}")
    maps = [shape for shape in shapes.values() if len(shape) > 2]
    longest = max((side for shape in maps for side in shape[-2:]), default=1)
    drawn = [(title, *_say_shape(shape)) for title, shape in shapes.items()]
    blocks = [_blocks(shape, 84 / longest) for shape in shapes.values()]
    sizes = [tuple(max(b[n] + b[n + 2] for b in each) for n in (0, 1)) for each in blocks]

    gap, letter, line = 26, 8, 18
    rooms = [
        max(across, *(letter * len(words) for words in lines))
        for (across, _), lines in zip(sizes, drawn, strict=True)
    ]
    tall, words_height = max(down for _, down in sizes), 3 * line + 8
    width, height = sum(rooms) + gap * (len(rooms) + 1), tall + words_height + 10
    figure = Figure(figsize=(width / 96, height / 96))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axis.axis("off")
    style = {"facecolor": [part / 255 for part in BLUE], "edgecolor": "black", "linewidth": 0.6}
    middle = {"ha": "center", "va": "center"}
    left = gap
    for lines, each, (across, down), room in zip(drawn, blocks, sizes, rooms, strict=True):
        x, y = left + room / 2, words_height + tall / 2
        for dx, dy, w, h in each:  # the last one is in front
            axis.add_patch(Rectangle((x - across / 2 + dx, y - down / 2 + dy), w, h, **style))
        for number, words in enumerate(lines):
            at = (x, words_height - 14 - line * number)
            axis.text(*at, words, fontsize=9, weight="normal" if number else "bold", **middle)
        if arrows and left > gap:
            axis.text(left - gap / 2, y, "→", fontsize=16, **middle)
        left += room + gap
    text = "\n".join(f"{title}: {', '.join(said)}" for title, *said in drawn)
    return _store(figure, text, width, height)


def _say_shape(shape: Sequence[int]) -> list[str]:
    count = prod(shape)
    numbers = f"{count:,} number{'s' if count > 1 else ''}"
    return [" × ".join(map(str, shape)), numbers] if len(shape) > 1 else [numbers]


def _blocks(shape: Sequence[int], scale: float) -> list[tuple[int, int, int, int]]:
    """The rectangles of a shape from back to front, each (left, bottom, width, height)."""
    if len(shape) < 3:
        rows, columns = shape if len(shape) == 2 else (prod(shape), 1)
        return [(0, 0, round(12 + 8 * log2(columns)), round(12 + 8 * log2(rows)))]
    *outer, channels, height, width = shape
    sheets, stacks = min(channels, 8), min(prod(outer), 3)
    w, h, step = max(round(width * scale), 3), max(round(height * scale), 3), 4
    stride = w + step * sheets + 6  # from one stack to the next
    return [
        (stack * stride + step * back, step * back, w, h)
        for stack in range(stacks)
        for back in reversed(range(sheets))
    ]


def _store(figure, text: str, width: int, height: int) -> Picture:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=96 * SCALE, metadata={"Software": None})
    return Picture(buffer.getvalue(), text, width, height)
