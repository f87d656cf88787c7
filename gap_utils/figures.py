"""Pictures with the text that says the same; heat maps with their numbers, lesson 01."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO

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

    png: bytes  # the picture, PNG bytes
    text: str  # the same in words and numbers
    width: int  # width on the page, in CSS pixels
    height: int  # height on the page, in CSS pixels

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
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=96 * SCALE, metadata={"Software": None})
    return Picture(buffer.getvalue(), text, width, height)
