"""What a lab shows, as values: panels of SVG over squares of colour, and the same in words.

A `Frame` says nothing of how it is shown. `widgets/lab.js` puts it on a page; `picture_of`
makes the PNG of it that is stored in a notebook. Plain strings do for SVG: a lab needs four
or five elements, and a reader knows them from any page on SVG.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from html import escape
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from textwrap import wrap
from unicodedata import east_asian_width

import numpy as np

from gap_utils.figures import SCALE, Picture

STYLE_SHEET = Path(__file__).with_name("widgets") / "lab.css"
NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
TAG = re.compile(r"<(/?)[^>]*?(/?)>")
SPECIAL = re.compile(f"[&<>\"']|{NOT_IN_XML.pattern}")
# of a stored picture, in CSS pixels
NARROWEST, WIDEST, MARGIN, LINE = 560, 800, 16, 20
LETTER = 7.7  # how wide one is, at the usual size

Box = tuple[float, float, float, float]  # left and upper edge, width and height, of a panel

# Levels are places in a palette: 0 to 250 for numbers of both signs, with zero in the middle.
ZERO, TOP = 125, 250
GREY, BLACK = 251, 252  # for what is no number
NOTHING = 255  # shows what is below
BELOW_ZERO = ((127, 39, 4), (230, 120, 40), (253, 208, 162))  # dark to light
ABOVE_ZERO = ((198, 219, 239), (66, 140, 200), (8, 48, 107))  # light to dark
COLOUR_BAR = np.arange(TOP + 1, dtype=np.uint8)[None]  # all of them, from left to right


def signed_colours(values: np.ndarray) -> np.ndarray:
    """Give each number from -1 to 1 a colour: orange below zero, white at zero, blue above.

    Args:
        values: any shape.

    Returns:
        Red, green and blue, 0 to 255 as floats, shape `(*values.shape, 3)`.
    """
    colours = np.array([*BELOW_ZERO, (255, 255, 255), *ABOVE_ZERO])
    places = np.linspace(-1, 1, len(colours))
    return np.stack([np.interp(values, places, channel) for channel in colours.T], axis=-1)


def _palettes() -> dict[str, np.ndarray]:
    greys = np.arange(256.0)[:, None].repeat(3, 1)
    part = np.clip((np.arange(256) - ZERO) / ZERO, -1, 1)
    signed = signed_colours(part)
    signed[GREY], signed[BLACK] = 160, 0
    opaque = np.full((256, 1), 255.0)
    seen = opaque.copy()
    seen[NOTHING] = 0
    strength = 255 * abs(part)[:, None]  # so what hardly counts shows what is below
    tables = {
        "grey": (greys, opaque),
        "pale": ((2 * 255 + greys) / 3, opaque),
        "signed": (signed, seen),
        "overlay": (signed, strength),
    }
    return {name: np.round(np.hstack(table)).astype(np.uint8) for name, table in tables.items()}


# name -> red, green, blue and alpha of each level, shape (256, 4)
PALETTES = _palettes()


def grey_levels(values: np.ndarray) -> np.ndarray:
    """Give each number its place in the palette "grey": black for the lowest, white the highest.

    Args:
        values: finite numbers, any shape.

    Returns:
        Levels as uint8, in the shape of `values`.
    """
    low, span = values.min(), np.ptp(values)
    return np.round((values - low) * (255 / span if span > 0 else 0)).astype(np.uint8)


def signed_levels(values: np.ndarray, limit: float | np.ndarray) -> np.ndarray:
    """Give each number its place in the palettes "signed" and "overlay".

    What is beyond the limit has the darkest colour with a white corner; infinity is a
    chequer of the darkest colour and white, what is no number one of grey and black. Where
    there is any of these, each number takes two rows and columns.

    Args:
        values: maps, shape (..., H, W).
        limit: the distance from zero with the darkest colour; shape as for broadcasting with
            `values`. Where it is 0, all finite numbers count as 0.

    Returns:
        Levels as uint8, shape (..., H, W) or (..., 2H, 2W).

    Example:
        >>> signed_levels(np.array([[-4.0, 0.0, 2.0]]), 4).tolist()
        [[0, 125, 188]]
    """
    values, limit = np.asarray(values, dtype=float), np.asarray(limit, dtype=float)
    with np.errstate(invalid="ignore"):  # infinity of a map that is 0 elsewhere
        part = np.nan_to_num(values / np.where(limit > 0, limit, np.inf))
    levels = np.round(ZERO * (1 + np.clip(part, -1, 1))).astype(np.uint8)
    beyond = (abs(part) > 1 + 1e-6) | np.isinf(values)
    if not (beyond | np.isnan(values)).any():
        return levels
    levels[np.isinf(values)] = np.where(values[np.isinf(values)] > 0, TOP, 0)
    levels = levels.repeat(2, -1).repeat(2, -2)
    quarters = {(i, j): levels[..., i::2, j::2] for i in (0, 1) for j in (0, 1)}
    quarters[0, 1][beyond] = ZERO
    quarters[1, 0][np.isinf(values)] = ZERO
    for (i, j), quarter in quarters.items():
        quarter[np.isnan(values)] = GREY if i == j else BLACK
    return levels


def _digest(data: bytes, of: np.ndarray) -> str:
    return blake2b(data, digest_size=9, key=str(of.shape).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Pixels:
    """Squares of colour at a place in a panel, under what is drawn there."""

    #: uint8, shape (rows, columns), places in a palette; or (rows, columns, 3), red, green and blue
    levels: np.ndarray
    box: Box  #: where it is, in the panel's units
    palette: str = "signed"  #: name of one of `PALETTES`; without meaning for red, green and blue
    opacity: float = 1.0  #: from 0 to 1
    smooth: bool = False  #: whether colours pass into each other, instead of squares with edges

    @cached_property
    def data(self) -> bytes:
        """The levels, row by row."""
        return np.ascontiguousarray(self.levels).tobytes()

    @cached_property
    def digest(self) -> str:
        """A name that equal levels share, so that they travel once."""
        return _digest(self.data, self.levels)

    def colours(self) -> np.ndarray:
        """Red, green, blue and alpha, shape (rows, columns, 4)."""
        if self.levels.ndim == 2:
            return PALETTES[self.palette][self.levels]
        return np.dstack([self.levels, np.full(self.levels.shape[:2], 255, np.uint8)])


@dataclass(frozen=True, eq=False)
class Readout:
    """Numbers that are read out where one points at a panel."""

    numbers: np.ndarray  #: shape (n, rows, columns)
    box: Box  #: where they are, in the panel's units
    names: Sequence[str] = ("",)  #: what each of the n is

    @cached_property
    def data(self) -> bytes:
        """The numbers as float32, lowest byte first."""
        with np.errstate(over="ignore"):  # what is too large for it becomes infinite
            return np.ascontiguousarray(self.numbers, "<f4").tobytes()

    @cached_property
    def digest(self) -> str:
        """A name that equal numbers share, so that they travel once."""
        return _digest(self.data, self.numbers)


@dataclass(frozen=True, eq=False)
class Panel:
    """A part of a frame that stays whole where a narrow page breaks the frame."""

    width: int  #: at which letters have their size, in CSS pixels; on a wide page it grows
    height: int  #: in CSS pixels
    svg: str  #: elements, as `element` and `text` write them
    pixels: Sequence[Pixels] = ()  #: drawn below them, the first at the bottom
    readout: Readout | None = None
    above: bool = False  #: whether it stands above the others, in a row of its own


@dataclass(frozen=True, eq=False)
class Frame:
    """What a lab shows of a state."""

    panels: Sequence[Panel]  #: side by side, or below each other where the page is narrow
    words: Sequence[str]  #: sentences below the panels, a paragraph each
    text: str  #: all that the panels show, in words and numbers
    #: of a line in large letters above the words: the words of each, and its link, as for `element`
    pieces: Sequence[tuple[str, str]] = ()
    #: the longest of `large` and `words` that are to be expected; they keep the place, so that
    #: nothing jumps
    room: Sequence[str] = ()
    verdict: str = ""  #: "right" or "wrong", which marks the words; else empty

    @property
    def large(self) -> str:
        """The line in large letters, maybe empty."""
        return "".join(words for words, _ in self.pieces)


def element(name: str, *inside: str, **attributes: object) -> str:
    """Write an SVG element.

    An element of a live lab can be touched, if it says so. `data_set={"window": 3}`: a click
    sets these fields. `data_drag={"dx": ("x", 8)}`: pulling it changes a field by one for so
    many units. `data_focus="values"`: a click lets one type the next number of that control,
    the first such element is the first number. `data_link="t1 w2"`: pointing at it lights up
    all elements that have one of these words.

    Args:
        name: such as "rect".
        inside: what is in it, written already.
        attributes: `stroke_width=2` becomes stroke-width="2"; `class_` becomes class. None
            leaves one out.

    Example:
        >>> element("rect", x=1 / 3, width=2.0, class_="gap-bar")
        '<rect x="0.33" width="2" class="gap-bar"/>'
    """
    written = "".join(
        [_attribute(key, value) for key, value in attributes.items() if value is not None]
    )
    return f"<{name}{written}>{''.join(inside)}</{name}>" if inside else f"<{name}{written}/>"


@lru_cache(16)  # many frames share a panel
def cut(svg: str) -> tuple[str, ...]:
    """Cut SVG into the elements that it holds.

    Example:
        >>> cut("<g><rect/></g><rect/>")
        ('<g><rect/></g>', '<rect/>')
    """
    parts, depth, start = [], 0, 0
    for tag in TAG.finditer(svg):
        closes, is_whole = tag.groups()
        depth += -1 if closes else 0 if is_whole else 1
        if depth == 0:
            parts.append(svg[start : tag.end()])
            start = tag.end()
    return tuple(parts)


def box(place: Box, class_: str, **more: object) -> str:
    """Write a rectangle at a place, with the colours of a class of lab.css.

    Example:
        >>> box((0, 2, 10, 4.5), "gap-bar")
        '<rect x="0" y="2" width="10" height="4.5" class="gap-bar"/>'
    """
    x, y, width, height = place
    return element("rect", x=x, y=y, width=width, height=height, class_=class_, **more)


def _attribute(key: str, value: object) -> str:
    if isinstance(value, dict):
        value = json.dumps(value, ensure_ascii=False)
    return _plain_attribute(key, value)


@lru_cache(4096, typed=True)  # most frames of a lab have the same ones
def _plain_attribute(key: str, value: Hashable) -> str:
    if isinstance(value, float | np.floating):
        value = f"{round(float(value), 2) + 0.0:.10g}"  # turns -0.0 into 0.0
    return f' {key.rstrip("_").replace("_", "-")}="{_escape(str(value))}"'


def _escape(words: str) -> str:
    """Write a text as XML has it, which has no place for control characters."""
    if not SPECIAL.search(words):
        return words
    return escape(NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", words))


def text(
    x: float,
    y: float,
    words: str,
    size: int = 12,
    anchor: str = "start",
    class_: str = "gap-ink",
    letters: int | None = None,
) -> str:
    """Write a line of text.

    Args:
        x: of its start, middle or end.
        y: of its middle.
        words: what to write.
        size: of the letters, at least 12: a panel may shrink by a twelfth.
        anchor: what is at x: "start", "middle" or "end".
        class_: its colour, a class of lab.css.
        letters: room for so many; a longer text is cut, and the whole in its tooltip.

    Example:
        >>> text(0, 9, "a < b")
        '<text x="0" y="9" font-size="12" class="gap-ink" dy=".36em">a &lt; b</text>'
    """
    shown = shorten(words, letters) if letters else words
    title = [element("title", _escape(words))] if shown != words else []
    return element(
        "text",
        *title,
        _escape(shown),
        x=x,
        y=y,
        font_size=size,
        text_anchor=None if anchor == "start" else anchor,
        class_=class_,
        dy=".36em",  # dominant-baseline is not known to all who draw SVG
    )


def heading(
    y: float, words: str, hint: str, width: float, x: float = 0, class_: str = "gap-live"
) -> str:
    """Write a title of a panel, cut to its width, and what can be done there if there is room.

    The hint is shown on a live page only, and what else its class says.

    Example:
        >>> heading(9, "map", "type into it", 280).count("<tspan")
        1
        >>> heading(9, "a long name of a map", "type into it", 180).count("<tspan")
        0
    """
    title = text(x, y, words, 14, letters=letters_in(width, 14))
    if shorten(words, letters_in(width - 12 * len(hint) * 0.62, 14)) != words:
        return title
    more = element("tspan", f" {_escape(hint)}", font_size=12, class_=class_, dx=8)
    return title.replace("</text>", f"{more}</text>")


def letters_in(width: float, size: int = 12) -> int:
    """Say how many letters of a size are sure to fit, even in the wide ones of a stored picture."""
    return int(width / (0.62 * size))


def shorten(words: str, letters: int) -> str:
    """Cut a text that takes the room of more letters than that, and end it with an ellipsis.

    Example:
        >>> shorten("military uniform", 9), shorten("cup", 9), shorten("军装军装军装", 9)
        ('military…', 'cup', '军装军装…')
    """
    # a Chinese letter or an emoji is as wide as two others
    ends = [*accumulate(1 + (east_asian_width(letter) in "WF") for letter in words)]
    if not ends or ends[-1] <= letters:
        return words
    return f"{words[: sum(end < letters for end in ends)].rstrip()}…"


def picture_of(frame: Frame) -> Picture:
    """Make the PNG of a frame that a notebook stores: light, and the same on every machine."""
    import matplotlib
    import resvg_py

    drawn, left, top, bottom, width = [], 0, 0, 0, NARROWEST
    for panel in sorted(frame.panels, key=lambda panel: not panel.above):
        if left and left + panel.width > WIDEST:
            left, top = 0, bottom + MARGIN
        drawn.append(element("g", whole_svg(panel), transform=f"translate({left} {top})"))
        width, bottom = max(width, left + panel.width), max(bottom, top + panel.height)
        left += WIDEST if panel.above else panel.width + MARGIN
    for paragraph, size in [(frame.large, 17), *((words, 13) for words in frame.words)]:
        for line in wrap(paragraph, int(width / LETTER * 13 / size)):
            bottom += LINE * size / 13
            drawn.append(text(0, bottom, line, size))
    height = round(bottom) + 2 * MARGIN
    svg = element(
        "svg",
        element("style", _still_style()),
        element("g", *drawn, transform=f"translate({MARGIN} {MARGIN})"),
        xmlns="http://www.w3.org/2000/svg",
        width=(width := width + 2 * MARGIN),
        height=height,
    )
    # each pixel of a photograph takes room in the lesson's file
    photographs = any(each.levels.ndim == 3 for panel in frame.panels for each in panel.pixels)
    font = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    png = resvg_py.svg_to_bytes(
        svg_string=svg,
        zoom=1 if photographs else SCALE,
        background="white",
        skip_system_fonts=True,
        font_files=[str(font)],
        font_family="DejaVu Sans",
    )
    return Picture(bytes(png), frame.text, width, height)


def whole_svg(panel: Panel) -> str:
    """Write a panel with its squares of colour, as elements for an <svg>."""
    return "".join(map(_image, panel.pixels)) + panel.svg


def _image(pixels: Pixels) -> str:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(pixels.colours()).save(buffer, "PNG")
    x, y, width, height = pixels.box
    return element(
        "image",
        x=x,
        y=y,
        width=width,
        height=height,
        opacity=float(pixels.opacity),
        preserveAspectRatio="none",
        image_rendering="optimizeQuality" if pixels.smooth else "optimizeSpeed",
        href=f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}",
    )


@lru_cache
def _still_style() -> str:
    """The rules of lab.css for drawings, with the light colours written out."""
    css = STYLE_SHEET.read_text(encoding="utf-8")
    light = dict(re.findall(r"(--gap-[\w-]+): light-dark\(([^,]+),", css))
    drawing = css.partition("/* drawings */")[2].partition("/* end of drawings */")[0]
    return re.sub(r"var\((--gap-[\w-]+)\)", lambda name: light[name[1]], drawing)
