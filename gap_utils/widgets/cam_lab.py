"""Class activation maps of two classes, laid over a picture. Introduced in lesson 06.

Three layers: `CamState`, `run_model` and `look` compute, `cam_picture` draws, `CamLab` holds
the controls. The maps themselves come from `gap_utils.activations`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from html import escape

import ipywidgets
import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor, nn

from gap_utils.activations import CamHead, class_activation_map, find_cam_head
from gap_utils.inference import as_input
from gap_utils.pictures import (
    SCALE,
    Canvas,
    Picture,
    render_text,
    shade_signed,
    shorten,
    signed_colours,
    text_width,
)
from gap_utils.values import (
    check_below,
    format_number,
    join_rows,
    read_labels,
    read_names,
    read_whole_number,
    shorten_exponent,
)
from gap_utils.widgets.lab import StateLab
from gap_utils.widgets.one_picture import (
    NO_NUMBER,
    best_class,
    check_input,
    for_showing,
    judge,
    name_kind,
    read_logits,
    show_picture,
    softmax,
    write_share,
)

RANKS = ("top 1", "top 2", "top 3", "top 4", "top 5")
RANK_LABELS = ("most likely", *(f"{n} most likely" for n in ("2nd", "3rd", "4th", "5th")))
VIEWS = ("map", "overlay", "contributions")
KEPT = 32  # pictures whose features a lab remembers
MOST_NUMBERS = 8  # rows or columns of a map whose numbers are written out
ZERO = 127  # in a map of bytes from 0 (lowest) to 254 (highest)
# CSS pixels
WIDTH, HEIGHT = 525, 285
PANEL = 224  # side
LEFTS, TOP = (6, 242), 40  # of the panels
BAR = (473, 10)  # left edge and width of the colour bar
NEAREST, BILINEAR = Image.Resampling.NEAREST, Image.Resampling.BILINEAR
WORDS = "max-width: 525px; min-height: 130px; line-height: 1.5"


@dataclass(frozen=True)
class CamState:
    """All that `CamLab` shows follows from this, the network and the pictures.

    Attributes:
        picture: which of the pictures.
        left: class of the left map, its number, or "top 1" to "top 5" for the one that is
            1st to 5th most likely for the picture on view.
        right: class of the right map, in the same way.
        view: "map", "overlay" (the map over the picture) or "contributions" (the map with
            its numbers).
        strength: of the map's colours in the overlay, in percent.
        smooth: pass from position to position smoothly in map and overlay, instead of
            drawing the squares that the network has.

    Raises:
        ValueError: if a value is out of its range.
    """

    picture: int = 0
    left: int | str = "top 1"
    right: int | str = "top 2"
    view: str = "overlay"
    strength: int = 80
    smooth: bool = False

    def __post_init__(self):
        a_rank = f' or "{RANKS[0]}" to "{RANKS[-1]}"'
        for name, limits, or_else in (
            ("picture", (0, math.inf), ""),
            ("left", (0, math.inf), a_rank),
            ("right", (0, math.inf), a_rank),
            ("strength", (0, 100), ""),
        ):
            value = getattr(self, name)
            if not (or_else and isinstance(value, str) and value in RANKS):
                value = read_whole_number(name, value, *limits, or_else)
            object.__setattr__(self, name, value)
        if self.view not in VIEWS:
            raise ValueError(
                f'expected view "map", "overlay" or "contributions", got {self.view!r}'
            )
        if not isinstance(self.smooth, bool):
            raise ValueError(f"expected smooth to be True or False, got {self.smooth!r}")


@dataclass(frozen=True)
class Seen:
    """What a network makes of one picture, for all classes.

    Attributes:
        image: for showing, red, green and blue as uint8, shape (H, W, 3).
        logits: shape (K,).
        cams: class activation maps, shape (K, h, w).
        bias: of the linear layer, shape (K,).
    """

    image: np.ndarray
    logits: np.ndarray
    cams: np.ndarray
    bias: np.ndarray


def run_model(model: nn.Module, head: CamHead, picture: Tensor) -> Seen:
    """Show a network one picture.

    Args:
        model: pictures to logits; left as it was.
        head: what `find_cam_head` found in it.
        picture: shape (1, C, H, W), on any device.

    Raises:
        ValueError: if it cannot take the picture, the features are not maps of two
            dimensions, or do not add up to the logits.
    """
    layer = head.layer
    maps, output = show_picture(model, picture, layer)
    logits = read_logits(output).astype(float)
    features = maps.get(layer)
    if not isinstance(features, Tensor) or features.ndim != 4:
        raise ValueError(
            f"expected features (N, C, h, w) from {layer!r}, got {name_kind(features)}"
        )
    given = class_activation_map(features, head.weight)[0].float()
    sums, cams = (given.mean((1, 2)) + head.bias).numpy(), given.numpy()
    # as rough as bfloat16 is, compared with the parts of the sum
    rough = 0.02 * np.nan_to_num(np.abs(cams).mean((1, 2)), posinf=0).max()
    if sums.shape != logits.shape or not np.allclose(sums, logits, 0.02, rough, equal_nan=True):
        raise ValueError(
            f"expected a network whose logits are mean(CAM) + bias for every picture; with the "
            f"maps of {layer!r} they are not for this one"
        )
    return Seen(_show_in_colour(picture[0]), logits, cams, head.bias.numpy())


def _show_in_colour(picture: Tensor) -> np.ndarray:
    """Stretch a picture (C, H, W) to 0 to 255; where it is not of three colours, in grey."""
    values = for_showing(picture)
    if len(values) != 3:
        values = values.mean(0, keepdims=True).repeat(3, 0)
    stretched = (values - values.min()) * (255 / (np.ptp(values) or 1))
    return np.round(stretched).astype(np.uint8).transpose(1, 2, 0)


@dataclass(frozen=True)
class View:
    """Two class activation maps of a picture.

    Attributes:
        state: which picture, which classes and how they are drawn.
        image: the picture for showing, red, green and blue as uint8, shape (H, W, 3).
        label: its class number, if that is known.
        logits: shape (K,).
        probabilities: their softmax, shape (K,); all NaN where one would be no number.
        classes: numbers of the left and the right class.
        cams: their class activation maps, shape (2, h, w).
        bias: of the two classes, shape (2,).
        class_names: of the class numbers.
    """

    state: CamState
    image: np.ndarray
    label: int | None
    logits: np.ndarray
    probabilities: np.ndarray
    classes: tuple[int, int]
    cams: np.ndarray
    bias: np.ndarray
    class_names: Sequence[str]

    @cached_property
    def limit(self) -> float:
        """The largest distance from zero in both maps; where their darkest colours are."""
        return float(np.abs(np.nan_to_num(self.cams, posinf=0, neginf=0)).max())


def look(state: CamState, seen: Seen, label: int | None, class_names: Sequence[str]) -> View:
    """Pick the two chosen classes out of what the network makes of a picture.

    Args:
        state: which classes.
        seen: what the network makes of the picture.
        label: class number of the picture, if it is known.
        class_names: of the class numbers.
    """
    order = np.argsort(-seen.logits, kind="stable")
    classes = tuple(
        int(order[RANKS.index(chosen)]) if isinstance(chosen, str) else chosen
        for chosen in (state.left, state.right)
    )
    return View(
        state,
        seen.image,
        label,
        seen.logits,
        softmax(seen.logits),
        classes,
        seen.cams[list(classes)].astype(float),
        seen.bias[list(classes)].astype(float),
        class_names,
    )


def describe_view(view: View) -> list[str]:
    """Say what the network says, and how each of the two logits comes about.

    Returns:
        Sentences; rows and columns are counted from 0.
    """
    best = best_class(view.probabilities)
    truth = "" if view.label is None else f": {view.class_names[view.label]}"
    predicted = NO_NUMBER
    if best is not None:
        predicted = f"{view.class_names[best]} ({view.probabilities[best]:.1%})"
        if view.label is not None:
            predicted += f", {judge(view.probabilities, view.label)}"
    sentences = [f"Picture {view.state.picture}{truth}; predicted {predicted}."]
    for side, name in enumerate(("Left", "Right")):
        number, cam = view.classes[side], view.cams[side]
        row, column = np.unravel_index(cam.argmax(), cam.shape)  # NaN is taken for the largest
        largest = format_number(cam[row, column], 3, fixed=True)
        sentences.append(
            f"{name}, {view.class_names[number]} ({write_share(view.probabilities[number], 1)}): "
            f"mean of {cam.size} contributions {_add_up(view, side)}; "
            + (
                f"{np.isnan(cam).sum()} of them are {NO_NUMBER}."
                if np.isnan(cam).any()
                else f"the largest is {largest} at row {row}, column {column}."
            )
        )
    if view.state.view == "contributions" and _numbers(view) is None:
        sentences.append("The squares are too small for their numbers.")
    return sentences


def _add_up(view: View, side: int, decimals: int = 3, about: str = "≈") -> str:
    """Write the sum behind a logit; `about` is for one that only rounding keeps from adding up."""
    with np.errstate(invalid="ignore"):  # infinity of both signs has no mean
        mean = view.cams[side].mean()
    parts = mean, view.bias[side], view.logits[view.classes[side]]
    if np.isnan(parts).any():
        return NO_NUMBER
    mean, bias, logit = (format_number(part, decimals, fixed=True) for part in parts)
    rest = abs(float(mean) + float(bias) - float(logit))
    equals = about if rest >= 0.5 * 10**-decimals else "="
    return f"{mean} + bias {bias} {equals} logit {logit}"


def cam_picture(view: View) -> Picture:
    """Draw both maps on one scale: orange below zero, white at zero, blue above.

    In the overlay each place is (1 - a) · base + a · colour, where a = s · |contribution| /
    (largest |contribution| of both maps) and s is the strength. So what hardly counts shows
    the base: (1 - s) · picture + s · (2 · white + grey picture) / 3, as dark colours would be
    lost on the black of a picture, and coloured ones taken for colours of the photograph.

    Returns:
        A picture of one size in all states, whose text holds the same numbers.
    """
    canvas = Canvas(WIDTH, HEIGHT, for_maps=True)
    best, number = best_class(view.probabilities), view.state.picture

    def name_of(label):
        return shorten(view.class_names[label], 12 * SCALE, 170 * SCALE)

    truth = "" if view.label is None else f": {name_of(view.label)}"
    headline = f"picture {number}{truth}; predicted: {NO_NUMBER if best is None else name_of(best)}"
    if best is not None and view.label is not None:
        headline += f" ({judge(view.probabilities, view.label)})"
    _write(canvas, LEFTS[0], 10, headline, 12)
    for side, left in enumerate(LEFTS):
        number = view.classes[side]
        probability = f": {write_share(view.probabilities[number], 1)}"
        name = shorten(
            view.class_names[number],
            13 * SCALE,
            PANEL * SCALE - text_width(probability, 13 * SCALE),
        )
        _write(canvas, left, 29, name + probability, 13)
        _draw_panel(canvas, view, side, left)
        for decimals in (3, 2, 1, 0):  # what fits; the exact sum is under the picture
            text = f"mean of {view.cams[side].size}: {_add_up(view, side, decimals, about='=')}"
            if text_width(text, 11 * SCALE) <= (LEFTS[1] - LEFTS[0] - 8) * SCALE:
                _write(canvas, left, TOP + PANEL + 12, text, 11)
                break
    _draw_bar(canvas, view.limit)
    return canvas.picture(_as_text(view))


def _as_text(view: View) -> str:
    state = view.state
    how = {"overlay": f"overlay of {state.strength}%"}.get(state.view, state.view)
    smooth = ", smooth" if state.smooth and state.view != "contributions" else ""
    sentences = [*describe_view(view), f"View: {how}{smooth}."]
    if state.view == "contributions" and max(view.cams.shape[1:]) <= MOST_NUMBERS:
        for name, cam in zip(("Left", "Right"), view.cams, strict=True):
            sentences.append(f"{name} {join_rows(map(format_number, row) for row in cam)}.")
    return " ".join(sentences)


def _write(canvas: Canvas, x: float, y: float, text: str, size: int) -> None:
    """Write from x on, around the height y, in CSS pixels."""
    canvas.write(x * SCALE, y * SCALE, text, size * SCALE, "lm")


def _panel_size(view: View) -> tuple[int, int]:
    """Width and height that fit the panel, in CSS pixels."""
    rows, columns = view.image.shape[:2]
    return tuple(max(1, round(PANEL * n / max(rows, columns))) for n in (columns, rows))


def _draw_panel(canvas: Canvas, view: View, side: int, left: int) -> None:
    width, height = _panel_size(view)
    x, y = SCALE * left + (PANEL - width), SCALE * TOP + (PANEL - height)  # in the middle
    part = np.nan_to_num(view.cams[side] / (view.limit or 1), posinf=1, neginf=-1)
    levels = Image.fromarray(np.round(ZERO * (1 + part)).astype(np.uint8))
    if view.state.view == "contributions":
        levels = levels.resize((width * SCALE, height * SCALE), NEAREST)
        panel = _colour(levels)
        _write_numbers(panel, view, side)
        canvas.photo(np.asarray(panel), x, y, *panel.size)
    else:  # a pixel for each CSS pixel
        levels = levels.resize((width, height), BILINEAR if view.state.smooth else NEAREST)
        if view.state.view == "map":
            fills = shade_signed(np.linspace(-1, 1, 2 * ZERO + 1), 1)
            canvas.tiles(fills[np.asarray(levels)], x, y, SCALE)
        else:
            panel = _lay_over(view, levels)
            canvas.photo(np.asarray(panel), x, y, width * SCALE, height * SCALE)
    canvas.frame((x, y, x + width * SCALE, y + height * SCALE))


def _lay_over(view: View, levels: Image.Image) -> Image.Image:
    few = 2 * max(view.image.shape) <= PANEL  # so few pixels are shown as squares
    image = Image.fromarray(view.image).resize(levels.size, NEAREST if few else BILINEAR)
    strength = view.state.strength / 100
    pale = image.convert("L").point([round((2 * 255 + n) / 3) for n in range(256)])
    base = Image.blend(image, pale.convert("RGB"), strength)
    amounts = [round(255 * strength * min(abs(n - ZERO) / ZERO, 1)) for n in range(256)]
    return Image.composite(_colour(levels), base, levels.point(amounts))


def _colour(levels: Image.Image) -> Image.Image:
    coloured = levels.copy()
    coloured.putpalette(_colours())
    return coloured.convert("RGB")


@lru_cache(maxsize=1)
def _colours() -> bytes:
    return np.round(signed_colours(np.linspace(-1, 1, 2 * ZERO + 1))).astype(np.uint8).tobytes()


def _numbers(view: View) -> tuple[list[list[list[str]]], int] | None:
    """The numbers for the squares of both maps and their size, or None if there is no room."""
    rows, columns = view.cams.shape[1:]
    if max(rows, columns) > MOST_NUMBERS:
        return None
    width, height = _panel_size(view)
    square = min(width / columns, height / rows)
    size = round(min(18, max(11, square / 3)))
    texts = [[[_brief(n, view.limit) for n in row] for row in cam] for cam in view.cams]
    longest = max((text for cam in texts for row in cam for text in row), key=len)
    room = (square - 2) * SCALE - text_width(longest, size * SCALE)
    return (texts, size) if room >= 0 and size < square else None


def _brief(value: float, limit: float) -> str:
    """Write a number in about five characters, with as many decimals as its largest one needs."""
    if np.isnan(value) or (limit and not 0.01 <= limit < 1e4):
        return shorten_exponent(f"{value:.0e}") if value else "0"
    decimals = 0 if limit >= 100 else 1 if limit >= 10 else 2 if limit >= 0.1 else 3
    return format_number(value, decimals, fixed=True)


def _write_numbers(panel: Image.Image, view: View, side: int) -> None:
    """Write the number of each position on its square, black or white as is better to read."""
    if not (numbers := _numbers(view)):
        return
    texts, size = numbers
    draw, (rows, columns) = ImageDraw.Draw(panel), view.cams.shape[1:]
    for row in range(1, rows):
        y = round(row * panel.height / rows)
        draw.line((0, y, panel.width, y), "gray")
    for column in range(1, columns):
        x = round(column * panel.width / columns)
        draw.line((x, 0, x, panel.height), "gray")
    for row, column in np.ndindex(rows, columns):
        left, top, letters = render_text(texts[side][row][column], size * SCALE, "mm")
        x, y = int((column + 0.5) * panel.width / columns), int((row + 0.5) * panel.height / rows)
        red, green, blue = ((n / 255) ** 2.2 for n in panel.getpixel((x, y)))
        light = 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18  # WCAG's middle
        ink = "black" if light else "white"
        panel.paste(ink, (x + left, y + top), letters)


def _draw_bar(canvas: Canvas, limit: float) -> None:
    left, width = BAR
    fills = shade_signed(np.linspace(1, -1, PANEL), 1)
    canvas.tiles(fills[:, None].repeat(width, 1), left * SCALE, TOP * SCALE, SCALE)
    edges = left, TOP, left + width, TOP + PANEL
    canvas.frame(tuple(SCALE * edge for edge in edges))
    for value, y in ((limit, TOP + 5), (0, TOP + PANEL / 2), (-limit, TOP + PANEL - 5)):
        _write(canvas, left + width + 4, y, _brief(value, limit) if value else "0", 11)


class CamLab(StateLab):
    """Compare what speaks for two classes, and where in the picture it does.

    The network is looked at as it is when the lab is made and when a picture is first on
    view. After more training make a new lab.

    Args:
        model: pictures to logits (N, K) through global average pooling and a linear layer, or
            a 1×1 convolution and global average pooling; left as it was.
        images: shape (N, C, H, W), as the model takes them.
        labels: class number of each picture, if they are known.
        class_names: of the K class numbers; when None, the numbers.
        picture, left, right, view, strength, smooth: as in `CamState`.

    Attributes:
        value: the `CamState` on view; it can be set. `lab.set(right=3)` changes single fields.

    Raises:
        ValueError: if a setting is not possible, or the maps of this model do not add up to
            its logits.

    Example:
        >>> import torch
        >>> body, head = nn.Conv2d(1, 8, 3), nn.Linear(8, 10)
        >>> model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
        >>> CamLab(model, torch.rand(2, 1, 28, 28), left=3, right=5)
        CamLab(picture 0, overlay: 3, 5)
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Sequence[int] | Tensor | None = None,
        class_names: Sequence[str] | None = None,
        **settings,
    ):
        check_input(model, images)
        self._model, self._images = model, images
        self._head = self._find_head()
        self._count = len(self._head.bias)  # of the classes
        self._labels = None if labels is None else read_labels(labels, len(images), self._count)
        self._class_names = read_names(class_names, self._count)
        if len(self._class_names) != self._count:
            raise ValueError(
                f"expected a name for each of {self._count} classes, got {len(self._class_names)}"
            )
        self._see = lru_cache(KEPT)(self._run)
        settings.setdefault("right", RANKS[min(2, self._count) - 1])
        super().__init__(CamState(**settings))

    def _find_head(self) -> CamHead:
        first = self._images[:1]
        if not np.isfinite(read_logits(show_picture(self._model, first)[1])).all():
            raise ValueError(f"expected logits of the first picture, got {NO_NUMBER} among them")
        return find_cam_head(self._model, as_input(self._model, first))

    def _run(self, picture: int) -> Seen:
        return run_model(self._model, self._head, self._images[picture : picture + 1])

    def picture(self) -> Picture:
        """Draw the state on view."""
        return cam_picture(self._look())

    def __repr__(self) -> str:
        view = self._look()
        left, right = (view.class_names[number] for number in view.classes)
        name, state = type(self).__name__, view.state
        return f"{name}(picture {state.picture}, {state.view}: {left}, {right})"

    def _look(self) -> View:
        number = self._state.picture
        label = None if self._labels is None else self._labels[number]
        return look(self._state, self._see(number), label, self._class_names)

    def _check(self, state: CamState) -> None:
        check_below("picture", state.picture, len(self._images))
        for name in ("left", "right"):
            chosen = getattr(state, name)
            place = RANKS.index(chosen) if isinstance(chosen, str) else chosen
            if place >= self._count:
                raise ValueError(
                    f"expected {name} to be one of {self._count} classes, got {chosen!r}"
                )

    def _build(self) -> None:
        named = self._class_names != tuple(map(str, range(self._count)))
        names = [f"{n} {name}" if named else name for n, name in enumerate(self._class_names)]
        classes = [
            *zip(RANK_LABELS[: self._count], RANKS, strict=False),
            *zip(names, range(self._count), strict=True),
        ]
        self._controls = {
            "picture": self._slider("Picture", 0, len(self._images) - 1, self._setter("picture")),
            "left": self._dropdown("Left class", classes, self._setter("left")),
            "right": self._dropdown("Right class", classes, self._setter("right")),
            "view": self._dropdown("View", VIEWS, self._setter("view")),
            "strength": self._slider("Strength %", 0, 100, self._setter("strength")),
            "smooth": ipywidgets.Checkbox(description="Smooth", layout={"width": "300px"}),
        }
        self._on_move(self._controls["smooth"], self._setter("smooth"))
        reset = self._button("Start again", self._start_again)
        self._lay_out(*self._controls.values(), reset)

    def _show(self) -> None:
        """Bring controls, picture and words in line with the state."""
        with self._controls_follow():
            self._move(self._controls)
            self._controls["strength"].disabled = self._state.view != "overlay"
            self._controls["smooth"].disabled = self._state.view == "contributions"
        view = self._look()
        lines = "<br>".join(map(escape, describe_view(view)))
        self._draw(cam_picture(view), f'<div style="{WORDS}">{lines}</div>')
