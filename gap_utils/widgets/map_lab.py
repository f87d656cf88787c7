"""The maps of any layer of a network, on real pictures. Introduced in lesson 05.

Three layers: `MapReader` and `look` compute, `map_picture` draws, `MapLab` holds the
controls. The capturing itself is `gap_utils.activations.capture_activations`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gap_utils.pictures import (
    DARK,
    GREY,
    PALE,
    SCALE,
    WHITE,
    Canvas,
    Picture,
    shade_grey,
    shade_signed,
    shorten,
)
from gap_utils.values import (
    check_below,
    fit_number,
    format_number,
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
    find_logits,
    for_showing,
    judge,
    name_kind,
    show_picture,
    softmax,
)

VIEWS = ("all maps", "one map")
SCALES = ("one for all maps", "each map its own")
POOLS = ("mean", "max")
ORDERS = ("index", *POOLS)
ON_A_PAGE = 64  # maps
KEPT = 16e6  # bytes of maps; the oldest are computed again
# CSS pixels
WIDTH, HEIGHT = 504, 276
IMAGE = (0, 18, 116)  # left and upper edge, side
CLASSES = (0, 154, 116, 24)  # of the table: left and upper edge, width, height of a row
MOST_CLASSES = 5
GRID = (130, 18, 320, 256)  # left and upper edge, width, height
COLOURS = (450, 40, 12, 204)  # of the colour bar: left and upper edge, width, height
BAR = 5  # width of the bar beside each map
NAMED = 4  # up to so many maps in a row have their numbers written beside them
WORDS = "max-width: 504px; min-height: 66px; line-height: 1.5"


@dataclass(frozen=True)
class MapState:
    """All that `MapLab` shows follows from this, the network and the pictures.

    Attributes:
        picture: which of the pictures.
        layer: name of the layer; None is the last layer with maps.
        place: which map is marked, or shown alone: its place in the order of `sort`.
        view: "all maps", 64 at a time, or "one map".
        scale: of the colours, "one for all maps" or "each map its own".
        pool: what the bar beside a map shows, its "mean" or its "max".
        sort: order of the maps: "index", or largest "mean" or "max" first.

    Raises:
        ValueError: if a setting is not one of these.
    """

    picture: int = 0
    layer: str | None = None
    place: int = 0
    view: str = VIEWS[0]
    scale: str = SCALES[0]
    pool: str = POOLS[0]
    sort: str = ORDERS[0]

    def __post_init__(self):
        for name in ("picture", "place"):
            object.__setattr__(self, name, read_whole_number(name, getattr(self, name), 0))
        allowed = {"view": VIEWS, "scale": SCALES, "pool": POOLS, "sort": ORDERS}
        for name, words in allowed.items():
            if getattr(self, name) not in words:
                options = " or ".join(map(repr, words))
                raise ValueError(f"expected {name} to be {options}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Reading:
    """What a layer gives for a picture.

    Attributes:
        maps: shape (C, H, W), float32.
        means: of each map, shape (C,).
        maxima: of each map, shape (C,).
        limits: the largest distance of each map's finite numbers from zero, shape (C,).
        logits: what the network gives, shape (K,), K > 1; None where that is another thing.
    """

    maps: np.ndarray
    means: np.ndarray
    maxima: np.ndarray
    limits: np.ndarray
    logits: np.ndarray | None


class MapReader:
    """Read the maps of a network's layers, and keep those of the last pictures.

    Args:
        model: any module that takes pictures; left as it was.
        images: shape (N, C, H, W).
        layers: as in `capture_activations`; when None, all modules without children.

    Attributes:
        layers: name -> kind and shape of its maps, such as ("ReLU", (8, 28, 28)), in the
            order of the calls.
        classes: how many logits the network gives; None where that is another thing.

    Raises:
        ValueError: if there are no pictures, or no layer gives maps (1, C, H, W) for one.
    """

    def __init__(self, model: nn.Module, images: Tensor, layers=None):
        check_input(model, images)
        self._model, self._images = model, images
        if layers is None:
            layers = [name for name, module in model.named_modules() if not any(module.children())]
        maps, output = self._run(0, layers)
        self.classes = None if (logits := _find_logits(output)) is None else len(logits)
        modules = model.named_modules(remove_duplicate=False)
        kinds = {name: type(module).__name__ for name, module in modules}
        self.layers = {
            name: (kinds.get(name) or kinds[name.rpartition("_")[0]], tuple(given.shape[1:]))
            for name, given in maps.items()
            if _are_maps(given)
        }
        if not self.layers:
            raise ValueError(
                "expected a layer that gives maps (1, C, H, W), got "
                + (", ".join(map(_layer_name, maps)) or "none")
            )
        self._kept: dict[tuple[int, str], Reading] = {}

    def read(self, picture: int, layer: str) -> Reading:
        """Read one layer's maps for a picture, or take them from those that are kept."""
        key = picture, layer
        if key not in self._kept:
            self._kept[key] = self._read(picture, layer)
            while sum(r.maps.nbytes for r in self._kept.values()) > KEPT and len(self._kept) > 1:
                del self._kept[next(iter(self._kept))]
        return self._kept[key]

    def _run(self, picture: int, layers) -> tuple[dict, object]:
        return show_picture(self._model, self._images[picture : picture + 1], layers)

    def _read(self, picture: int, layer: str) -> Reading:
        captured, output = self._run(picture, layer)
        given = captured.get(layer)
        if not _are_maps(given):
            raise ValueError(
                f"expected {_layer_name(layer)} to give maps (1, C, H, W) for picture {picture}, "
                f"got {name_kind(given)}"
            )
        maps = given[0].dequantize().float()  # whatever numbers they are
        logits = _find_logits(output)
        limits = maps.nan_to_num(0, 0, 0).abs().amax((1, 2))
        means = maps.mean((1, 2))
        means[means.abs() < 1e-8 * limits] = 0  # so little is what rounding leaves of 0
        return Reading(
            maps.numpy(),
            means.numpy(),
            maps.amax((1, 2)).numpy(),
            limits.numpy(),
            logits if logits is not None and len(logits) == self.classes else None,
        )


def _are_maps(given: object) -> bool:
    """Whether they are the maps (1, C, H, W) of one picture."""
    if not isinstance(given, Tensor) or given.layout != torch.strided or given.is_complex():
        return False
    return given.ndim == 4 and len(given) == 1 and given.numel() > 0


def _find_logits(output: object) -> np.ndarray | None:
    """Read logits (K,); a single one says nothing, as its softmax is always 1."""
    logits = find_logits(output)
    return None if logits is None or len(logits) == 1 else logits


@dataclass(frozen=True)
class View:
    """What is on view.

    Attributes:
        state: the state it follows from, with its layer.
        kind: of the layer, such as "ReLU".
        reading: what the layer gives.
        order: the channels in the order of the state.
        image: the picture, shape (H, W), the mean over its channels.
        label: its class number; None where it is not known.
        class_names: of the class numbers.
    """

    state: MapState
    kind: str
    reading: Reading
    order: np.ndarray
    image: np.ndarray
    label: int | None
    class_names: Sequence[str]

    @property
    def numbers(self) -> np.ndarray:
        """What the bars show: the mean or the maximum of each channel's map."""
        return self.reading.means if self.state.pool == "mean" else self.reading.maxima

    @property
    def channel(self) -> int:
        """The channel of the marked map."""
        return int(self.order[self.state.place])

    @property
    def page(self) -> np.ndarray:
        """The channels on the same page as the marked map."""
        first = self.state.place // ON_A_PAGE * ON_A_PAGE
        return self.order[first : first + ON_A_PAGE]

    @cached_property
    def are_logits(self) -> bool:
        """Whether the bars are the logits, so that a map's channel is a class."""
        logits = self.reading.logits
        if logits is None or logits.shape != self.numbers.shape:
            return False
        if not np.isfinite(logits).all():
            return False
        rounding = 0.01 * np.abs(logits).max()  # half precision has hardly three digits
        return rounding > 0 and np.abs(self.numbers - logits).max() <= rounding

    @cached_property
    def probabilities(self) -> np.ndarray | None:
        """The softmax of the logits; all NaN where one would be no number."""
        return None if self.reading.logits is None else softmax(self.reading.logits)


def look(
    state: MapState,
    reader: MapReader,
    images: Tensor,
    labels: Sequence[int] | None,
    class_names: Sequence[str],
) -> View:
    """Read what is to be shown."""
    reading = reader.read(state.picture, state.layer)
    numbers = {"index": None, "mean": reading.means, "max": reading.maxima}[state.sort]
    count = len(reading.maps)
    order = np.arange(count) if numbers is None else np.argsort(-numbers, kind="stable")
    return View(
        state,
        reader.layers[state.layer][0],
        reading,
        order,
        for_showing(images[state.picture]).mean(0),
        None if labels is None else labels[state.picture],
        class_names,
    )


def describe_view(view: View) -> str:
    """Say what the marked map and the network say."""
    state, reading, channel = view.state, view.reading, view.channel
    count, height, width = reading.maps.shape
    place = "" if state.sort == "index" else f", place {state.place} by {state.sort}"
    text = (
        f"{state.layer or 'The whole model'} ({view.kind}) gives {count} maps of {height}×{width}. "
        f"Channel {channel}{place}: mean {_number(reading.means[channel])}, "
        f"max {_number(reading.maxima[channel])}."
    )
    if view.are_logits:
        name, logit = view.class_names[channel], _number(reading.logits[channel])
        text += f" Its {state.pool} is the logit of {name}, {logit}."
    if view.probabilities is not None:
        text += f" The network says {_verdict(view)}."
    return text


def _verdict(view: View) -> str:
    best = best_class(view.probabilities)
    if best is None:
        return NO_NUMBER
    text = f"{view.class_names[best]} ({view.probabilities[best]:.0%})"
    if view.label is None:
        return text
    right = best == view.label
    return f"{text}, {'right' if right else f'wrong: it is {view.class_names[view.label]}'}"


def _number(value: float) -> str:
    """Write a number with two or three decimals; with three digits where it is tiny."""
    if 0 < abs(value) < 0.001:
        return shorten_exponent(f"{value:.3g}")
    return format_number(value, 2 if abs(value) >= 0.1 else 3)


def _layer_name(name: str) -> str:
    return name or "the whole model"


def map_picture(view: View) -> Picture:
    """Draw the picture and its classes, the maps with a bar for each, and the colour bar.

    Returns:
        A picture whose text holds mean and maximum of every map on the page.
    """
    canvas = Canvas(WIDTH, HEIGHT, for_maps=True)
    _draw_image(canvas, view)
    limits = view.reading.limits
    if view.state.scale == SCALES[0]:
        limits = np.full_like(limits, limits.max())
    if view.state.view == "all maps":
        shown = view.page
        _draw_all(canvas, view, limits)
    else:
        shown = view.order[view.state.place : view.state.place + 1]
        _draw_one(canvas, view, limits)
    _draw_colours(canvas, view, float(limits[view.channel]))
    rows = [
        f"{c}: {_number(view.reading.means[c])}, {_number(view.reading.maxima[c])}" for c in shown
    ]
    name = "" if view.label is None else f", {view.class_names[view.label]}"
    return canvas.picture(
        f"Picture {view.state.picture}{name}. {describe_view(view)} "
        f"Mean and max of each map shown, by channel: {'; '.join(rows)}."
    )


def _fill(shape: tuple[int, int], width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Say which rows and columns to draw, again and again or not at all, to fill a space.

    All are drawn equally often, unless that leaves more than a fifth of the space empty.
    """
    scale = min(height / shape[0], width / shape[1])
    if int(scale) > 0.8 * scale:
        scale = int(scale)
    lengths = (max(1, round(count * scale)) for count in shape)
    rows, columns = (np.arange(n) * count // n for n, count in zip(lengths, shape, strict=True))
    return np.ix_(rows, columns)


def _shade(maps: np.ndarray, limits: np.ndarray, space: tuple[np.ndarray, ...]) -> np.ndarray:
    """Shade the maps (C, H, W) by their limits (C,), and fill spaces with them."""
    limits = limits[:, None, None]
    maps = np.clip(np.nan_to_num(maps), -limits, limits)
    rows, columns = space
    if len(rows) < maps.shape[1]:  # shade the fewer numbers
        return shade_signed(maps[:, rows, columns], limits)
    return shade_signed(maps, limits)[:, rows, columns]


def _draw_image(canvas: Canvas, view: View) -> None:
    """The picture, what the network says, and the most probable classes."""
    left, top, side = (n * SCALE for n in IMAGE)
    title = f"picture {view.state.picture}"
    if view.label is not None:
        title = shorten(view.class_names[view.label], 13 * SCALE, (GRID[0] - 8) * SCALE)
    canvas.write(left, 8 * SCALE, title, 13 * SCALE, "lm")
    image = shade_grey(view.image)[_fill(view.image.shape, side, side)]
    canvas.tiles(image, left, top, 1)
    probabilities = view.probabilities
    if probabilities is None:
        return
    known = best_class(probabilities) is not None
    verdict = "the network says" if known else f"it says {NO_NUMBER}"
    if known and view.label is not None:
        verdict = f"the network is {judge(probabilities, view.label)}"
    left, top, width, row = (n * SCALE for n in CLASSES)
    canvas.write(left, top - 3 * SCALE, verdict, 11 * SCALE, "lb")
    best = np.argsort(-probabilities, kind="stable") if known else []
    for place, number in enumerate(best[:MOST_CLASSES]):
        y = top + place * row
        canvas.fills.rectangle((left, y, left + width - 1, y + row - 4 * SCALE), fill=PALE)
        if length := round(width * float(probabilities[number])):
            canvas.fills.rectangle((left, y, left + length - 1, y + row - 4 * SCALE), fill=GREY)
        middle = y + (row - 4 * SCALE) // 2
        name = shorten(view.class_names[number], 11 * SCALE, width - 40 * SCALE)
        canvas.write(left + 4 * SCALE, middle, name, 11 * SCALE, "lm")
        percent = f"{probabilities[number]:.0%}"
        canvas.write(left + width - 4 * SCALE, middle, percent, 11 * SCALE, "rm")


def _draw_all(canvas: Canvas, view: View, limits: np.ndarray) -> None:
    """A page of maps, each with a bar beside it, and with its numbers where there is room."""
    left, top, width, height = (n * SCALE for n in GRID)
    page = view.page
    columns = int(np.ceil(np.sqrt(len(page))))
    rows = -(-len(page) // columns)
    across, down = width // columns, height // rows
    named = columns <= NAMED
    caption = 13 * SCALE if named else 0  # above and below the map
    gap, bar = 4 * SCALE, BAR * SCALE
    maps = view.reading.maps[page]
    # the bar is nearer to its own map than to the next
    room = across - gap * 3 // 2 - bar - SCALE, down - gap - 2 * caption
    fills = _shade(maps, limits[page], _fill(maps.shape[1:], *room))
    tall, wide = fills.shape[1:]
    numbers = np.nan_to_num(view.numbers).astype(float)
    low = min(0.0, numbers.min())
    span = (max(0.0, numbers.max()) - low) or 1.0
    sheet = np.full((height, width), WHITE, np.uint8)  # much faster than drawing one by one
    for place, channel in enumerate(page):
        x = place % columns * across + gap // 2
        y = place // columns * down + gap // 2 + caption
        frame, fill = (2 * SCALE, DARK) if channel == view.channel else (SCALE, GREY)
        sheet[y - frame : y + tall + frame, x - frame : x + wide + frame] = fill
        sheet[y : y + tall, x : x + wide] = fills[place]
        edge = x + wide + 2 * SCALE
        sheet[y : y + tall, edge : edge + bar] = PALE
        # the bar is between these two rows, and one thick if it is nothing
        ends = [round(tall * (1 - (number - low) / span)) for number in (0.0, numbers[channel])]
        first = min(*ends, tall - 1)
        sheet[y + first : y + max(*ends, first + 1), edge : edge + bar] = DARK
        if named:
            name = str(channel)
            if view.are_logits:
                name = shorten(f"{channel} {view.class_names[channel]}", 11 * SCALE, across - gap)
            canvas.write(left + x, top + y - 5 * SCALE, name, 11 * SCALE, "ls")
            pair = view.reading.means[channel], view.reading.maxima[channel]
            words = " / ".join(fit_number(_number(number), number, 6) for number in pair)
            canvas.write(left + x, top + y + tall + SCALE, words, 11 * SCALE, "la")
    canvas.tiles(sheet, left, top, 1)
    below = ", mean / max below" if named else ""
    canvas.write(left, 8 * SCALE, f"bars: {view.state.pool}{below}", 11 * SCALE, "lm")


def _draw_one(canvas: Canvas, view: View, limits: np.ndarray) -> None:
    """The marked map alone, as large as there is room, with a frame around its maximum."""
    left, top, width, height = (n * SCALE for n in GRID)
    reading, channel = view.reading, view.channel
    maps = reading.maps[channel]
    space = _fill(maps.shape, width, height - 18 * SCALE)
    fills = _shade(maps[None], limits[channel, None], space)[0]
    canvas.tiles(fills, left, top, 1)
    tall, wide = fills.shape
    canvas.frame((left, top, left + wide, top + tall))
    peak = np.unravel_index(maps.argmax(), maps.shape)
    (y, x), (bottom, right) = (
        [np.searchsorted(drawn.ravel(), at, side) for drawn, at in zip(space, peak, strict=True)]
        for side in ("left", "right")
    )
    box = (left + x, top + y, left + right, top + bottom)
    canvas.frame(box, DARK, 3 * SCALE)
    canvas.frame(box, WHITE)  # so that it is seen on every colour
    pair = _number(reading.means[channel]), _number(reading.maxima[channel])
    words = f"mean {pair[0]}, max {pair[1]}, min {_number(maps.min())}"
    canvas.write(left, top + tall + 4 * SCALE, words, 12 * SCALE)


def _draw_colours(canvas: Canvas, view: View, limit: float) -> None:
    """The colour bar of the marked map's scale, with zero marked."""
    left, top, width, height = (n * SCALE for n in COLOURS)
    lowest = -limit if (view.reading.maps < 0).any() else 0.0
    fills = shade_signed(np.linspace(limit, lowest, height)[:, None], limit)
    canvas.tiles(fills.repeat(width, 1), left, top, 1)
    canvas.frame((left, top, left + width, top + height))
    for value in {limit, 0.0, lowest}:
        part = (limit - value) / (limit - lowest) if limit > lowest else 0
        y = top + round(part * height)
        canvas.fills.line((left, y, left + width + 3 * SCALE, y), fill=DARK, width=SCALE)
        size = fit_number(shorten_exponent(f"{abs(value):.3g}"), abs(value), 5)
        words = f"-{size}" if value < 0 else size
        canvas.write(left + width + 5 * SCALE, y, words, 11 * SCALE, "lm")
    whose = "all maps" if view.state.scale == SCALES[0] else f"map {view.channel}"
    canvas.write((WIDTH - 1) * SCALE, 8 * SCALE, whose, 11 * SCALE, "rm")


class MapLab(StateLab):
    """See the maps of any layer of a network, and the number that pooling makes of each.

    Orange is below zero, white is zero, blue is above. The bar beside a map is its mean or
    its maximum. Of more than 64 maps those around the marked one are shown.

    Args:
        model: a network that takes pictures; in evaluation mode while it is read, and left
            as it was. After more training, make a new lab: this one keeps what it has read.
        images: shape (N, C, H, W).
        labels: class numbers of the pictures, shape (N,); None if they are not known.
        class_names: of the class numbers; when None, the numbers themselves.
        layers: which to offer, as in `capture_activations`; when None, all modules without
            children that give maps.
        picture, layer, place, view, scale, pool, sort: as in `MapState`.

    Attributes:
        value: the `MapState` on view; it can be set. `lab.set(place=3)` changes single fields.

    Raises:
        ValueError: if pictures, labels and names do not fit, or a setting is not possible.

    Example:
        >>> import torch
        >>> MapLab(nn.Conv2d(1, 64, 3, padding=1), torch.zeros(1, 1, 28, 28))
        MapLab(picture 0, the whole model (Conv2d): 64 maps of 28×28)
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Sequence[int] | Tensor | None = None,
        class_names: Sequence[str] | None = None,
        layers=None,
        **settings,
    ):
        self._reader = MapReader(model, images, layers)
        self._images = images
        known = self._reader.classes
        self._labels = None if labels is None else read_labels(labels, len(images), known or inf)
        self._class_names = read_names(class_names, known or max(self._labels or [-1]) + 1)
        super().__init__(MapState(**settings))

    def _complete(self, state: MapState) -> MapState:
        if state.layer is not None:
            return state
        # the last one that is not pooled yet
        names = [name for name, (_, size) in self._reader.layers.items() if size[1:] > (1, 1)]
        return replace(state, layer=(names or list(self._reader.layers))[-1])

    def picture(self) -> Picture:
        """Draw the state on view."""
        return map_picture(self._look())

    def __repr__(self) -> str:
        kind, _ = self._reader.layers[self._state.layer]
        count, height, width = self._reader.read(self._state.picture, self._state.layer).maps.shape
        layer = _layer_name(self._state.layer)
        return (
            f"MapLab(picture {self._state.picture}, {layer} ({kind}): "
            f"{count} maps of {height}×{width})"
        )

    def _check(self, state: MapState) -> None:
        check_below("picture", state.picture, len(self._images))
        if state.layer not in [*self._reader.layers]:  # it may be anything
            names = ", ".join(map(repr, self._reader.layers))
            raise ValueError(f"expected layer to be one of {names}, got {state.layer!r}")
        check_below("place", state.place, self._count(state))

    def _look(self) -> View:
        return look(self._state, self._reader, self._images, self._labels, self._class_names)

    def _build(self) -> None:
        layers = [
            (f"{_layer_name(name)}: {kind} {'×'.join(map(str, size))}", name)
            for name, (kind, size) in self._reader.layers.items()
        ]
        self._controls = {
            "picture": self._slider("Picture", 0, len(self._images) - 1, self._goer("picture")),
            "layer": self._dropdown("Layer", layers, self._goer("layer")),
            "place": self._slider("Map", 0, 0, self._setter("place")),
            "view": self._dropdown("View", VIEWS, self._setter("view")),
            "scale": self._dropdown("Colours", SCALES, self._setter("scale")),
            "pool": self._dropdown("Bars", POOLS, self._setter("pool")),
            "sort": self._dropdown("Sort by", ORDERS, self._setter("sort")),
        }
        reset = self._button("Start again", self._start_again)
        self._lay_out(*self._controls.values(), reset)

    def _count(self, state: MapState) -> int:
        """How many maps the layer gives for the picture."""
        return len(self._reader.read(state.picture, state.layer).maps)

    def _goer(self, field: str) -> Callable[[Any], None]:
        """Make the action that goes to a picture or layer, which may have fewer maps."""

        def go(value):
            state = replace(self._state, **{field: value})
            self.value = replace(state, place=min(state.place, self._count(state) - 1))

        return go

    def _show(self) -> None:
        """Bring controls, picture and words in line with the state."""
        state = self._state
        with self._controls_follow():
            self._controls["place"].max = self._count(state) - 1
            self._move(self._controls)
        view = self._look()
        words = f'<div style="{WORDS}">{escape(describe_view(view))}</div>'
        self._draw(map_picture(view), words)
