"""Arrays to pictures: number grids drawn fast for the labs, heat maps for the text.

A `Picture` is always a PNG together with the text that says the same, so that a reader
who cannot see the picture, and a test that cannot compare it, still have its numbers.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SCALE = 2  # picture pixels per CSS pixel, so that numbers stay sharp on dense screens
INK = (33, 37, 41)
BLUE = (116, 178, 232)  # light enough for INK to be read on it
VERMILLION = (213, 94, 0)  # blue and vermillion are told apart with every kind of colour vision

# What a square can be filled with: numbers in a colour table of 32 entries.
WHITE, GREY, PALE, ACCENT, DARK = range(5)
SHADES = range(5, 32)  # from white to BLUE
INK_LEVELS = 8  # from no ink to all ink, for smooth edges of letters

# On a canvas for maps nothing is written on the shades. So their ink bits are free, and
# there is room for many more of them: shades of grey for pictures, and of two colours for
# numbers of both signs, white at zero.
MAP_SHADES = np.add.outer(32 * np.arange(INK_LEVELS), SHADES).ravel().astype(np.uint8)
GREYS, SIGNED = MAP_SHADES[:65], MAP_SHADES[65:]
BELOW_ZERO = ((127, 39, 4), (230, 120, 40), (253, 208, 162))  # dark to light
ABOVE_ZERO = ((198, 219, 239), (66, 140, 200), (8, 48, 107))  # light to dark


@dataclass(frozen=True)
class Picture:
    """A PNG and the text that says the same.

    Attributes:
        png: the picture, PNG bytes.
        text: the same in words and numbers.
        width: width on the page, in CSS pixels.
        height: height on the page, in CSS pixels.
    """

    png: bytes
    text: str
    width: int
    height: int

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, include=None, exclude=None):
        size = {"width": self.width, "height": self.height, "alt": self.text}
        return (
            {"image/png": b64encode(self.png).decode(), "text/plain": self.text},
            {"image/png": size},
        )

    def html(self, onload: str = "") -> str:
        """Return an <img> element that carries the picture and, as its alt text, the words.

        Args:
            onload: JavaScript to run each time the picture has been put on the page.
        """
        # a fixed size and sync decoding keep the page still while the picture changes
        return (
            f'<img width="{self.width}" height="{self.height}" decoding="sync" '
            f'alt="{escape(self.text)}" onload="{escape(onload)}" '
            f'src="data:image/png;base64,{b64encode(self.png).decode()}">'
        )


def shade(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Give each number a fill from white (`low`) to light blue (`high`).

    Args:
        values: numbers, any shape; what lies outside low and high takes the end fill.
        low: the number that is white.
        high: the number that is blue; where it equals `low`, all is white.

    Returns:
        Numbers of `SHADES` as uint8, in the shape of `values`.

    Example:
        >>> shade(np.array([0.0, 9.0]), low=0, high=9).tolist()
        [5, 31]
    """
    span = high - low
    part = np.clip((np.asarray(values) - low) / span, 0, 1) if span > 0 else np.zeros_like(values)
    return np.round(SHADES[0] + part * (SHADES[-1] - SHADES[0])).astype(np.uint8)


def shade_grey(values: np.ndarray) -> np.ndarray:
    """Give each number a fill from black (the lowest) to white, on a canvas for maps.

    Args:
        values: a picture, any shape.

    Returns:
        Fills as uint8, in the shape of `values`.
    """
    low, span = values.min(), np.ptp(values)
    part = (values - low) / span if span > 0 else np.zeros_like(values)
    return GREYS[np.round(part * (len(GREYS) - 1)).astype(int)]


def shade_signed(values: np.ndarray, limit: float | np.ndarray) -> np.ndarray:
    """Give each number a fill, orange below zero, white at zero, blue above, for maps.

    Args:
        values: numbers, any shape.
        limit: the distance from zero with the darkest fill, above 0; shape as for
            broadcasting with `values`. Where it is 0, all is white.

    Returns:
        Fills as uint8, in the shape of `values`.
    """
    limit = np.asarray(limit)
    part = np.clip(values / np.where(limit > 0, limit, np.inf), -1, 1)
    return SIGNED[np.round((part + 1) / 2 * (len(SIGNED) - 1)).astype(int)]


class Canvas:
    """A white page for squares and numbers that turns into a small PNG fast.

    Fills and ink are drawn apart, each in one byte per pixel, and meet in a palette: an
    index is five bits of fill and three bits of ink. That is several times faster than true
    colour, to encode here as well as to send and to show.

    Args:
        width: in CSS pixels.
        height: in CSS pixels.
        for_maps: whether its colour table is the one of `shade_grey` and `shade_signed`, on
            whose fills nothing can be written, instead of the one of `shade`.

    Attributes:
        fills: draw fills here, numbers of the colour table; lengths in picture pixels.
    """

    def __init__(self, width: int, height: int, for_maps: bool = False):
        size = width * SCALE, height * SCALE
        self._for_maps = for_maps
        self._photos: list[tuple[Image.Image, tuple[int, int]]] = []
        self._draw_on(Image.new("L", size, WHITE), Image.new("L", size, 0))

    def _draw_on(self, *layers: Image.Image) -> None:
        self._layers = layers
        self.fills, self._ink = map(ImageDraw.Draw, layers)

    def write(self, x: float, y: float, text: str, size: int, anchor: str = "la") -> None:
        """Write a line of text.

        Args:
            x: from the left edge, in picture pixels.
            y: from the upper edge.
            text: what to write; the font has Latin letters, no arrows and no long dashes.
            size: font size in picture pixels.
            anchor: what of the text is at (x, y), as Pillow's `ImageDraw.text` has it.
        """
        left, top, letters = render_text(text, size, anchor)
        self._ink.bitmap((round(x) + left, round(y) + top), letters, fill=255)

    def tiles(self, fills: np.ndarray, left: int, top: int, side: int) -> None:
        """Draw a square for each number, without edges: quick for many of them.

        Args:
            fills: numbers of the colour table as uint8, shape (rows, columns).
            left: left edge, in picture pixels.
            top: upper edge.
            side: of a square.
        """
        squares = Image.fromarray(fills).resize((fills.shape[1] * side, fills.shape[0] * side), 0)
        self._layers[0].paste(squares, (left, top))

    def frame(self, box: tuple[int, int, int, int], fill: int = GREY, width: int = SCALE) -> None:
        """Draw a frame around a box.

        Args:
            box: left and upper edge; and where right and lower edge begin, in picture pixels.
            fill: number of the colour table.
            width: of the frame, outside the box.
        """
        left, top, right, bottom = box
        outside = (left - width, top - width, right + width - 1, bottom + width - 1)
        self.fills.rectangle(outside, outline=fill, width=width)

    def photo(self, pixels: np.ndarray, left: int, top: int, width: int, height: int) -> None:
        """Put a picture in true colour on top of all else; slower than `tiles`.

        Args:
            pixels: red, green and blue as uint8, shape (rows, columns, 3).
            left: left edge, in picture pixels.
            top: upper edge.
            width: on the page.
            height: on the page.
        """
        photo = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
        self._photos.append((photo, (left, top)))

    def copy(self) -> Canvas:
        """Return another canvas with the same drawn on it."""
        twin = copy(self)
        twin._photos = list(self._photos)
        twin._draw_on(*(layer.copy() for layer in self._layers))
        return twin

    def paste(self, other: Canvas, box: tuple[int, int, int, int]) -> None:
        """Take over what another canvas of the same size has in a box.

        Args:
            other: where to take it from.
            box: left, upper, right and lower edge, in picture pixels.
        """
        for mine, theirs in zip(self._layers, other._layers, strict=True):
            mine.paste(theirs.crop(box), box)

    def picture(self, text: str) -> Picture:
        """Return what has been drawn.

        Args:
            text: the same in words and numbers.
        """
        fills, ink = map(np.asarray, self._layers)
        image = Image.fromarray(fills | (ink & 0b11100000))  # 5 bits of fill, 3 bits of ink
        image.putpalette(_palette(self._for_maps))
        if self._photos:
            image = image.convert("RGB")
        for photo, place in self._photos:
            image.paste(photo, place)
        buffer = BytesIO()
        image.save(buffer, "PNG", compress_level=1)  # quick: it travels once
        return Picture(buffer.getvalue(), text, image.width // SCALE, image.height // SCALE)


@lru_cache
def _palette(for_maps: bool) -> bytes:
    blues = np.linspace((255, 255, 255), BLUE, len(SHADES))
    fills = np.vstack(
        [(255, 255, 255), (206, 212, 218), (241, 243, 245), VERMILLION, (73, 80, 87), blues]
    )
    inks = np.linspace(0, 1, INK_LEVELS)[:, None, None]
    table = (fills * (1 - inks) + np.array(INK) * inks).reshape(-1, 3)
    if for_maps:
        table[GREYS] = np.linspace(0, 255, len(GREYS))[:, None]
        table[SIGNED] = signed_colours(np.linspace(-1, 1, len(SIGNED)))
    return np.round(table).astype(np.uint8).tobytes()


def signed_colours(values: np.ndarray) -> np.ndarray:
    """Give each number from -1 to 1 the colour that `shade_signed` has for it.

    Args:
        values: any shape.

    Returns:
        Red, green and blue, 0 to 255 as floats, shape (*values.shape, 3).
    """
    colours = np.array([*BELOW_ZERO, (255, 255, 255), *ABOVE_ZERO])
    places = np.linspace(-1, 1, len(colours))
    return np.stack([np.interp(values, places, channel) for channel in colours.T], axis=-1)


def draw_grid(
    canvas: Canvas,
    labels: Sequence[Sequence[str | None]],
    fills: np.ndarray,
    left: int,
    top: int,
    cell: int,
) -> None:
    """Draw a grid of squares with a word or number in each.

    Args:
        canvas: where to draw; all lengths are in its picture pixels.
        labels: rows of texts; None leaves a square empty.
        fills: fill of each square, shape (rows, columns).
        left: left edge of the grid.
        top: upper edge of the grid.
        cell: side of a square.
    """
    longest = max((len(label) for row in labels for label in row if label), default=1)
    size = round(max(8, min(0.42 * cell, 1.45 * cell / max(longest, 3))))
    for i, row in enumerate(labels):
        for j, label in enumerate(row):
            x, y = left + j * cell, top + i * cell
            square = (x, y, x + cell, y + cell)
            canvas.fills.rectangle(square, fill=int(fills[i, j]), outline=GREY, width=SCALE)
            if label:
                canvas.write(x + cell / 2, y + cell / 2, label, size, anchor="mm")


@lru_cache(maxsize=512)  # most words are written again at every move of a slider
def render_text(text: str, size: int, anchor: str) -> tuple[int, int, Image.Image]:
    """Draw the letters of a text.

    Args:
        text: what to write.
        size: font size in picture pixels.
        anchor: as Pillow's `ImageDraw.text` has it.

    Returns:
        Where the letters begin, to the right of the anchor and below it, and the letters,
        from 0 to 255.
    """
    width, height = (len(text) + 1) * size, 2 * size  # no letter is wider than its size
    page = Image.new("L", (2 * width, 2 * height), 0)
    font = _load_font(size)
    ImageDraw.Draw(page).text((width, height), text, font=font, fill=255, anchor=anchor)
    box = page.getbbox() or (0, 0, 1, 1)
    return box[0] - width, box[1] - height, page.crop(box)


@lru_cache(maxsize=2048)  # measuring takes its time
def text_width(text: str, size: int) -> float:
    """Say how wide a text is, in picture pixels, written in a font of that size."""
    return _load_font(size).getlength(text)


def shorten(text: str, size: int, width: float) -> str:
    """Cut a text that is wider than that, in picture pixels, and end it with a full stop."""
    if text_width(text, size) <= width:
        return text
    cuts = (f"{text[:end].rstrip()}." for end in range(len(text) - 1, 0, -1))
    return next((cut for cut in cuts if text_width(cut, size) <= width), "")


@lru_cache
def _load_font(size: int) -> ImageFont.FreeTypeFont:
    """The font that ships inside Pillow, the same on every machine."""
    return ImageFont.load_default(size)
