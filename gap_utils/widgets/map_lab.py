"""The maps of any layer of a network, on real pictures. Introduced in lesson 06.

`map_reader.py` reads the maps and computes, `draw_maps` draws, `MapLab` names the controls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import product
from math import ceil, inf
from typing import Any

import numpy as np
from torch import Tensor, nn

from gap_utils.svg import (
    COLOUR_BAR,
    NOTHING,
    ZERO,
    Box,
    Frame,
    Panel,
    Pixels,
    Readout,
    box,
    element,
    grey_levels,
    letters_in,
    signed_levels,
    text,
)
from gap_utils.values import (
    check_below,
    fit_number,
    format_number,
    read_labels,
    read_names,
    read_whole_numbers,
    shorten_exponent,
)
from gap_utils.widgets.lab import START_AGAIN, Choice, Lab, Slider
from gap_utils.widgets.map_reader import MapReader, Reading, Scale, layer_name, scale_of
from gap_utils.widgets.one_picture import (
    NEXT_WRONG,
    NO_NUMBER,
    PICTURES_REMEMBERED,
    Strip,
    best_class,
    draw_verdict,
    for_showing,
    judge,
    next_wrong,
    picture_slider,
    say_best,
    say_epoch,
    softmax,
)

VIEWS = ("all maps", "one map")
SCALES = ("one for all maps", "each map its own")
POOLS = ("mean", "max")
ORDERS = ("index", *POOLS)
CHOICES = {  # of words: label and words
    "view": ("View", VIEWS),
    "scale": ("Colours", SCALES),
    "pool": ("Bars", POOLS),
    "sort": ("Sort by", ORDERS),
}
CUT = "A bar with a line across its end goes beyond the scale of the last epoch."
ON_A_PAGE = 64  # maps
WITH_NUMBERS = 16  # so many maps on a page have their numbers written beside them
# CSS pixels
HEIGHT, TOP = 354, 36  # of both panels; where picture and maps begin
WIDTH, MAPS = 300, 280  # of the maps: their panel's width, their height
GAP, BAR, NUMBERS = 4, 4, 50  # between maps; the bar beside a map; the numbers beside the bar
COLOURS = (56, 322, 188, 12)  # the colour bar
BACK = (WIDTH - 70, 15, 70, 20)  # leads from one map to all
MOST_NUMBERS = 128**2  # of one map that can be read out where one points; squares of 2 pixels
PICTURE, ROW, MOST_CLASSES = 184, 22, 5  # side of the picture; of the classes below it
LONGEST_WORDS = (
    "layer4.1.relu_1 (MaxPool2d) gives 2048 maps of 28×28. Map 2047, place 2047 by mean: "
    "mean -12.34, max -12.34. Its mean is the logit of {0}, -12.34. The network says {0} (100%), "
    "wrong: it is {0}.",
    "The colours end at ±12.34. Numbers beyond it have a white corner: 12, as far as -123.45.",
)


@dataclass(frozen=True)
class MapState:
    """All that `MapLab` shows follows from this, the network and the pictures.

    Raises:
        ValueError: if a setting is not one of these.
    """

    picture: int = 0  #: which of the pictures
    #: name of the layer; None is the first layer with maps larger than 1×1
    layer: str | None = None
    place: int = 0  #: which map is marked, or shown alone: its place in the order of `sort`
    view: str = VIEWS[0]  #: "all maps", 64 at a time, or "one map"
    scale: str = SCALES[0]  #: of the colours, "one for all maps" or "each map its own"
    pool: str = POOLS[0]  #: what the bar beside a map shows, its "mean" or its "max"
    sort: str = ORDERS[0]  #: order of the maps: "index", or largest "mean" or "max" first
    #: how many epochs of the lab's run the network has behind it; None for all, or without a run
    epoch: int | None = None

    def __post_init__(self):
        read_whole_numbers(self, picture=(0,), place=(0,))
        if self.epoch is not None:
            read_whole_numbers(self, epoch=(0,))
        for name, (_, words) in CHOICES.items():
            if getattr(self, name) not in words:
                options = " or ".join(map(repr, words))
                raise ValueError(f"expected {name} to be {options}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Shown:
    """What is on view."""

    state: MapState  # the state it follows from, with its layer
    kind: str  # of the layer, such as "ReLU"
    reading: Reading  # what the layer gives
    image: np.ndarray  # the picture, shape (H, W), the mean over its channels
    label: int | None  # its class number; None where it is not known
    class_names: Sequence[str]  # of the class numbers
    epochs: int | None = None  # how many the run has; None without one

    @cached_property
    def order(self) -> np.ndarray:
        """The channels in the order of the state."""
        reading = self.reading
        index = np.zeros(len(reading.maps))
        numbers = {"index": index, "mean": reading.means, "max": reading.maxima}[self.state.sort]
        return np.argsort(-numbers, kind="stable")

    @property
    def numbers(self) -> np.ndarray:
        """What the bars show: the mean or the maximum of each channel's map."""
        return self._pooled(self.reading)

    @property
    def last_numbers(self) -> np.ndarray:
        """The same after the last epoch, if the bars share its scale."""
        return self._pooled(self.reading.last or self.reading)

    def _pooled(self, reading: Reading) -> np.ndarray:
        return reading.means if self.state.pool == "mean" else reading.maxima

    @property
    def channel(self) -> int:
        """The channel of the marked map."""
        return int(self.order[self.state.place])

    @property
    def is_alone(self) -> bool:
        """Whether a single map is shown."""
        return self.state.view == VIEWS[1] or len(self.reading.maps) == 1

    @property
    def page(self) -> np.ndarray:
        """The channels of the maps shown."""
        place = self.state.place
        if self.is_alone:
            return self.order[place : place + 1]
        first = place // ON_A_PAGE * ON_A_PAGE
        return self.order[first : first + ON_A_PAGE]

    @cached_property
    def scale(self) -> Scale:
        """The scale of the marked map's colours."""
        if self.state.scale == SCALES[0]:
            return self.reading.scale
        return scale_of(self.reading.maps[self.channel])

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


def describe_maps(shown: Shown) -> str:
    """Say what the marked map and the network say."""
    state, reading, channel = shown.state, shown.reading, shown.channel
    count, height, width = reading.maps.shape
    place = "" if state.sort == "index" else f", place {state.place} by {state.sort}"
    when = say_epoch(state.epoch, shown.epochs)
    layer = state.layer or ("the whole model" if when else "The whole model")
    said = (
        f"{when}{layer} ({shown.kind}) gives {count} map{'s' * (count > 1)} of "
        f"{height}×{width}. Map {channel}{place}: mean {_number(reading.means[channel])}, "
        f"max {_number(reading.maxima[channel])}."
    )
    if shown.are_logits:
        name, logit = shown.class_names[channel], _number(reading.logits[channel])
        said += f" Its {state.pool} is the logit of {name}, {logit}."
    if shown.probabilities is not None:
        said += f" The network says {_verdict(shown)}."
    return said


def _verdict(shown: Shown) -> str:
    said = say_best(shown.probabilities, shown.class_names, shown.label)
    return f"{said}: it is {shown.class_names[shown.label]}" if said.endswith(", wrong") else said


def describe_scale(scale: Scale) -> str:
    """Say what the colours do not show; empty where they show all."""
    said = ""
    if scale.beyond:
        furthest = max(scale.lowest, scale.highest, key=abs)
        said = (
            f"The colours end at ±{_number(scale.limit)}. Numbers beyond it have a white corner: "
            f"{scale.beyond}, as far as {_number(furthest)}. "
        )
    if scale.others:
        said += f"Infinite or no number, and chequered: {scale.others}."
    return said.strip()


def _number(value: float) -> str:
    """Write a number with two or three decimals; with three digits where it is tiny."""
    if 0 < abs(value) < 0.001:
        return shorten_exponent(f"{value:.3g}")
    return format_number(value, 2 if abs(value) >= 0.1 else 3)


def draw_maps(shown: Shown, width: int = PICTURE) -> Frame:
    """Draw the picture, so wide, with the most probable classes, and a bar beside each map."""
    reading, state = shown.reading, shown.state
    rows = [f"{c}: {_number(reading.means[c])}, {_number(reading.maxima[c])}" for c in shown.page]
    name = "" if shown.label is None else f", {shown.class_names[shown.label]}"
    cut = CUT if any(find_cut(shown).values()) else ""
    words = describe_maps(shown), f"{describe_scale(shown.scale)} {cut}".strip()
    said = (
        f"Picture {state.picture}{name}. {words[0]} "
        f"Mean and max of each map shown: {'; '.join(rows)}. {words[1]}"
    )
    longest = max(shown.class_names, key=len, default="")[:40]
    room = [line.format(longest) for line in LONGEST_WORDS]
    room[0] = say_epoch(shown.epochs, shown.epochs) + room[0]
    room[1] += f" {CUT}" * (shown.epochs is not None)
    return Frame([_picture_panel(shown, width), _maps_panel(shown)], words, said.strip(), room=room)


def _picture_panel(shown: Shown, width: int) -> Panel:
    """The picture, what the network says, and the most probable classes."""
    title = f"picture {shown.state.picture}"
    if shown.label is not None:
        title = shown.class_names[shown.label]
    drawn = [text(0, 9, title, 13, letters=letters_in(width, 13))]
    image = _thin_out(shown.image, 224)
    tall, wide = (n * width / max(shown.image.shape) for n in shown.image.shape)
    place = (width - wide) / 2, TOP + (width - tall) / 2, wide, tall
    probabilities = shown.probabilities
    if probabilities is not None:
        known = best_class(probabilities) is not None
        y = TOP + width + 24
        if known and shown.label is not None:
            verdict = judge(probabilities, shown.label)
            drawn.append(draw_verdict((0, y - 22, width, 20), verdict))
        else:
            drawn.append(text(0, y - 12, "the network says" if known else f"it says {NO_NUMBER}"))
        for number in np.argsort(-probabilities, kind="stable")[: MOST_CLASSES * known]:
            share = float(probabilities[number])
            drawn += [
                box((0, y, width, ROW - 4), "gap-pale"),
                box((0, y, width * share, ROW - 4), "gap-grey"),
                text(4, y + 9, shown.class_names[number], letters=letters_in(width - 44)),
                text(width - 4, y + 9, f"{share:.0%}", anchor="end"),
            ]
            if shown.are_logits:
                rank = int(np.flatnonzero(shown.order == number)[0])
                drawn.append(box((0, y, width, ROW - 4), "gap-unseen", **_touch(number, rank)))
            y += ROW
    return Panel(width, HEIGHT, "".join(drawn), [Pixels(grey_levels(image), place, "grey")])


def _thin_out(maps: np.ndarray, most: int) -> np.ndarray:
    """Leave out rows and columns of maps (..., H, W), evenly, where there are more than so many."""
    step = ceil(max(maps.shape[-2:]) / most)
    return maps[..., ::step, ::step]


def _maps_panel(shown: Shown) -> Panel:
    """The maps with a bar beside each, and the colour bar."""
    state, reading, channel = shown.state, shown.reading, shown.channel
    pixels, places = _page(reading, tuple(shown.page.tolist()), state.scale)
    touches = [{}] if shown.is_alone else _touch_maps(shown)
    drawn = [box(place, "gap-edge", **touch) for place, touch in zip(places, touches, strict=True)]
    drawn.append(_draw_bars(shown, places))
    readout = None
    if shown.is_alone:
        title, hint = f"map {channel}; bar: {state.pool}; framed: max", ""
        drawn += _explain_map(shown, places[0])
        if len(reading.maps) > 1:
            drawn += _draw_back()
        if reading.maps[channel].size <= MOST_NUMBERS:
            hint, readout = "point at a square", Readout(reading.maps[[channel]], places[0])
    else:
        title, hint = f"bar: {state.pool}", "click a map to mark it, again: it alone"
        drawn.append(box(places[state.place % ON_A_PAGE], "gap-frame"))
        if _has_numbers(len(places)):
            title = f"each map: number, mean, max; {title}"
            drawn += _write_numbers(shown, places)
    colours = COLOUR_BAR if reading.scale.lowest < 0 else COLOUR_BAR[:, ZERO:]
    above = [text(0, 9, title), *([text(0, 25, hint, class_="gap-live")] * bool(hint))]
    svg = "".join([*above, *drawn, *_explain_colours(shown)])
    return Panel(WIDTH, HEIGHT, svg, [pixels, Pixels(colours, COLOURS)], readout)


def _touch(channel: int, place: int) -> dict[str, Any]:
    """Let a click mark a map; and light up with all that is of the same channel."""
    return {"data_link": f"map{channel}", "data_set": {"place": place}}


def _touch_maps(shown: Shown) -> list[dict[str, Any]]:
    """Let a click mark a map of the page, and another on it show it alone."""
    first = shown.state.place // ON_A_PAGE * ON_A_PAGE
    touches = [_touch(channel, first + n) for n, channel in enumerate(shown.page)]
    touches[shown.state.place - first]["data_set"] = {"view": VIEWS[1]}
    return touches


def _draw_back() -> list[str]:
    x, y, width, height = BACK
    return [
        box(BACK, "gap-edge gap-live", rx=4),
        text(x + width / 2, y + height / 2, VIEWS[0], anchor="middle", class_="gap-live"),
        box(BACK, "gap-unseen", rx=4, data_set={"view": VIEWS[0]}),
    ]


@lru_cache(maxsize=2)  # the same while another map is marked
def _page(reading: Reading, channels: tuple[int, ...], scale: str) -> tuple[Pixels, list[Box]]:
    """The colours of all maps of a page, and where each map is."""
    maps, limits = reading.maps[list(channels)], reading.scale.limit
    if scale != SCALES[0]:
        limits = np.array([scale_of(one).limit for one in maps])[:, None, None]
    most = 224 // min(len(maps), 4)
    levels = signed_levels(_thin_out(maps, most), limits)
    if max(levels.shape[1:]) > most:  # numbers with a pattern take two rows and columns
        levels = signed_levels(_thin_out(maps, most // 2), limits)
    return _arrange(levels)


def _has_numbers(count: int) -> bool:
    """Whether so many maps leave room for numbers; one alone has them below."""
    return 1 < count <= WITH_NUMBERS


def _arrange(levels: np.ndarray) -> tuple[Pixels, list[Box]]:
    """Put maps (C, H, W) into rows, with room beside each for a bar and maybe numbers.

    Returns:
        The whole as one array, and the box of each map.
    """
    count, height, width = levels.shape
    beside = 2 + BAR + GAP + NUMBERS * _has_numbers(count)
    room = MAPS if count > 1 else MAPS - 16

    def square(columns: int) -> float:
        """How large a square can be."""
        rows = ceil(count / columns)
        return min((WIDTH / columns - beside) / width, (room / rows - GAP) / height)

    fewest = ceil(count / 6) if _has_numbers(count) else 1  # three lines need their height
    columns = max(range(fewest, count + 1), key=square)
    rows, side = ceil(count / columns), square(columns)
    times = ceil(2 * side / GAP)  # in smaller squares, since gaps are whole squares too
    levels = levels.repeat(times, 1).repeat(times, 2)
    height, width, side = height * times, width * times, side / times
    down, across = int(room / rows / side), int(WIDTH / columns / side)  # from map to map
    cells = np.full((rows * columns, down, across), NOTHING, np.uint8)
    above = (down - height) // 2
    cells[:count, above : above + height, :width] = levels
    mosaic = cells.reshape(rows, columns, down, across).swapaxes(1, 2)
    mosaic = mosaic.reshape(rows * down, columns * across)
    size, step = (width * side, height * side), (across * side, down * side)
    places = [divmod(number, columns) for number in range(count)]
    top = TOP + above * side
    boxes = [(column * step[0], top + row * step[1], *size) for row, column in places]
    return Pixels(mosaic, (0, TOP, columns * step[0], rows * step[1])), boxes


def _bar_ends(shown: Shown) -> tuple[float, float]:
    """Which numbers the lower and the upper end of a bar's room stand for."""
    scaled = shown.last_numbers[np.isfinite(shown.last_numbers)].astype(float)
    return scaled.min(initial=0), scaled.max(initial=0)


def find_cut(shown: Shown) -> dict[int, int]:
    """Say of each map shown whether its bar is cut below (-1), above (1) or nowhere (0).

    The bars have the scale of the last epoch, and the numbers of others may lie beyond.
    """
    low, high = _bar_ends(shown)
    return {
        int(c): int(high < number < inf) - int(-inf < number < low)
        for c, number in zip(shown.page, shown.numbers[shown.page], strict=True)
    }


def _draw_bars(shown: Shown, places: Sequence[Box]) -> str:
    """Draw a bar beside each map, all to one scale, up from zero or down."""
    low, high = _bar_ends(shown)
    numbers = np.nan_to_num(shown.numbers.astype(float), nan=0, posinf=high, neginf=low)
    numbers, cut = np.clip(numbers, low, high), find_cut(shown)
    span = max(high - low, shown.reading.scale.limit / 50) or 1.0  # next to nothing stays short
    pale, dark, lines = [], [], []
    for channel, (x, y, width, height) in zip(shown.page, places, strict=True):
        x += width + 2
        if cut[channel]:
            line = y + (3 if cut[channel] > 0 else height - 5)
            lines.append(f"M{x:.2f} {line:.2f}h{BAR}v2h-{BAR}z")
        ends = [height * (high - number) / span for number in (0.0, numbers[channel])]
        first = min(*ends, height - 1)  # a bar of nothing is a line
        length = max(*ends, first + 1) - first
        pale.append(f"M{x:.2f} {y:.2f}h{BAR}v{height:.2f}h-{BAR}z")
        dark.append(f"M{x:.2f} {y + first:.2f}h{BAR}v{length:.2f}h-{BAR}z")
    paths = (pale, "gap-pale"), (dark, "gap-dark"), (lines, "gap-pale")
    return "".join(element("path", d="".join(d), class_=class_) for d, class_ in paths if d)


def _write_numbers(shown: Shown, places: Sequence[Box]) -> list[str]:
    """Write beside each map its number, maybe its class, its mean and its maximum."""
    names, reading = shown.class_names, shown.reading
    step = places[1][0] or WIDTH  # from one map to the next
    letters = letters_in(step - places[0][2] - BAR - GAP - 6)
    drawn = []
    for channel, (x, y, width, height) in zip(shown.page, places, strict=True):
        named = shown.are_logits and names[channel] != str(channel)
        numbers = reading.means[channel], reading.maxima[channel]
        lines = [f"{channel} {names[channel]}" if named else str(channel)]
        lines += [fit_number(_number(number), number, letters) for number in numbers]
        x, y = x + width + BAR + 6, y + height / 2
        drawn += [text(x, y + 14 * n, lines[n + 1], letters=letters) for n in (-1, 0, 1)]
    return drawn


def _explain_map(shown: Shown, place: Box) -> list[str]:
    """Frame the largest number of the one map, to be seen on every colour, and write below."""
    numbers, (left, top, width, height) = shown.reading.maps[shown.channel], place
    row, column = np.unravel_index(numbers.argmax(), numbers.shape)
    width, tall = width / numbers.shape[1], height / numbers.shape[0]
    largest = left + column * width, top + row * tall, width, tall
    mean = shown.reading.means[shown.channel]
    below = {"mean": mean, "max": numbers.max(), "min": numbers.min()}
    words = ", ".join(f"{name} {_number(number)}" for name, number in below.items())
    return [
        box(largest, "gap-line-black"),
        box(largest, "gap-line-white"),
        text(0, top + height + 10, words, letters=letters_in(WIDTH)),
    ]


def _explain_colours(shown: Shown) -> list[str]:
    """Write at the colour bar where it ends, and whose it is."""
    limit, (left, top, width, height) = shown.scale.limit, COLOURS
    lowest = -limit if shown.reading.scale.lowest < 0 else 0.0
    zero = left if lowest == 0 else left + width / 2
    is_shared = shown.reading.last or shown.state.epoch == shown.epochs
    whose = "all maps and epochs," if shown.epochs and is_shared else "all maps,"
    if shown.state.scale != SCALES[0]:
        whose = f"map {shown.channel} only:"
    return [
        box(COLOURS, "gap-edge"),
        element("path", d=f"M{zero} {top}v{height + 3}", class_="gap-line-dark"),
        text(left - 4, top + 6, _tick(lowest), anchor="end"),
        text(left + width + 4, top + 6, _tick(limit)),
        text(WIDTH / 2, top + 23, f"{whose} 0 is white", anchor="middle"),
    ]


def _tick(value: float) -> str:
    """Write a number at the colour bar in at most six letters."""
    size = fit_number(shorten_exponent(f"{abs(value):.3g}"), abs(value), 5)
    return f"-{size}" if value < 0 else size


class MapLab(Lab):
    """See the maps of any layer of a network, and the number that pooling makes of each.

    Orange is below zero, white is zero, blue is above. The bar beside a map is its mean or
    its maximum. Of more than 64 maps those around the marked one are shown.

    Args:
        model: a network that takes pictures; in evaluation mode while it is read, and left
            as it was. After more training, make a new lab: this one and its page
            keep what they have read. With a run only its weights are read.
        images: shape (N, C, H, W).
        labels: class numbers of the pictures, shape (N,); None if they are not known.
        class_names: of the class numbers; when None, the numbers themselves.
        layers: which to offer, as in `capture_activations`; when None, all modules without
            children that give maps.
        run: what `fit(model, ..., keep_epochs=True)` returned, to look at the network before
            training and after each epoch.
        picture, layer, place, view, scale, pool, sort, epoch: as in `MapState`.

    Attributes:
        value: the `MapState` on view; it can be set. `lab.set(place=3)` changes single fields.

    Raises:
        ValueError: if pictures, labels and names do not fit, a setting is not possible, or the
            run has no weights or is that of another network.

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
        run=None,
        **settings,
    ):
        self._reader = MapReader(model, images, layers, run)
        self._images, self._strip = images, Strip(images)
        known = self._reader.classes
        self._labels = None if labels is None else read_labels(labels, len(images), known or inf)
        self._next_wrong = lru_cache(PICTURES_REMEMBERED)(
            lambda picture, epoch: next_wrong(
                [self._reader.epochs.at(epoch)], images, self._labels, picture
            )
        )
        self._class_names = read_names(class_names, known or max(self._labels or [-1]) + 1)
        offered = [
            (f"{layer_name(name)}: {kind} {'×'.join(map(str, size))}", name)
            for name, (kind, size) in self._reader.layers.items()
        ]
        controls = [
            *picture_slider(len(images)),
            *self._reader.epochs.slider(),
            *([Choice("layer", "Layer", offered, main=True)] * (len(offered) > 1)),
            Slider("place", "Place", 0, 0, main=True),
            *(
                Choice(name, label, [(word, word) for word in words])
                for name, (label, words) in CHOICES.items()
            ),
            *([NEXT_WRONG] * bool(known and self._labels and len(images) > 1)),
            START_AGAIN,
        ]
        super().__init__(MapState(**settings), controls)

    def __repr__(self) -> str:
        state = self.value
        kind, _ = self._reader.layers[state.layer]
        count, height, width = self._read(state).maps.shape
        when = "" if state.epoch is None else f"epoch {state.epoch} of {self._reader.epochs.last}, "
        return (
            f"MapLab(picture {state.picture}, {when}{layer_name(state.layer)} ({kind}): "
            f"{count} map{'s' * (count > 1)} of {height}×{width})"
        )

    def shown(self, state: MapState) -> Shown:
        """Find what is to be shown of a state."""
        return Shown(
            state,
            self._reader.layers[state.layer][0],
            self._read(state),
            for_showing(self._images[state.picture]).mean(0),
            None if self._labels is None else self._labels[state.picture],
            self._class_names,
            self._reader.epochs.last,
        )

    def draw(self, state: MapState) -> Frame:
        """Draw picture and maps; without classes below it, the picture is larger."""
        frame = draw_maps(self.shown(state), PICTURE if self._reader.classes else WIDTH)
        return self._strip.put_above(frame, state.picture)

    def complete(self, state: MapState) -> MapState:
        """Begin at the first layer that is not pooled yet; refuse what this lab has not."""
        layers = self._reader.layers
        if state.layer is None:
            names = [name for name, (_, size) in layers.items() if size[1:] > (1, 1)]
            state = replace(state, layer=(names or [*layers])[0])
        state = replace(state, epoch=self._reader.epochs.complete(state.epoch))
        check_below("picture", state.picture, len(self._images))
        if state.layer not in [*layers]:  # it may be anything
            names = ", ".join(map(repr, layers))
            raise ValueError(f"expected layer to be one of {names}, got {state.layer!r}")
        check_below("place", state.place, self._count(state))
        return state

    with_a_kernel = (
        "With a kernel there are all pictures and layers, more orders and scales, every map alone, "
        "and your own networks."
    )

    def tour(self) -> Iterator[MapState]:
        """All maps of every layer for some pictures; alone, those of the last and that on view.

        With a run, the maps of the layer on view after every epoch.
        """
        layers, last = [*self._reader.layers], self._reader.epochs.last
        if last is not None:
            layers = [self.value.layer]
        pictures = range(min(8 if last is None else 3, len(self._images)))
        sizes = {name: size[1:] for name, (_, size) in self._reader.layers.items()}
        alone = {self.value.layer, *[name for name in layers if sizes[name] > (1, 1)][-1:]}
        epochs = [None] if last is None else range(last + 1)
        for picture, layer, sort, epoch in product(pictures, layers, ("index", "mean"), epochs):
            for view in VIEWS if layer in alone else VIEWS[:1]:
                state = MapState(picture, layer, view=view, sort=sort, epoch=epoch)
                for place in range(self._count(state)):
                    yield replace(state, place=place)

    def press(self, name: str, state: MapState) -> MapState:
        """Go to the next picture that the network gets wrong."""
        if name != NEXT_WRONG.name:
            return super().press(name, state)
        picture = self._next_wrong(state.picture, state.epoch)
        return self.from_fields({**self.to_fields(state), "picture": picture})

    def _read(self, state: MapState) -> Reading:
        return self._reader.read(state.picture, state.layer, state.epoch)

    def _count(self, state: MapState) -> int:
        """How many maps the layer gives for the picture."""
        return len(self._read(state).maps)

    def from_fields(self, values: dict[str, Any]) -> MapState:
        """Mark the last map where the layer has fewer than the place asked for."""
        state = super().from_fields(values)
        first = self.complete(replace(state, place=0))
        return replace(first, place=min(state.place, self._count(first) - 1))

    def limits(self, state: MapState) -> dict[str, dict[str, Any]]:
        """Say how many maps there are, and hide what makes no difference."""
        count, *size = self._read(state).maps.shape
        single = {"hidden": count == 1}
        return {
            "place": {"high": count - 1, **single},
            "view": single,
            "scale": single,
            "sort": single,
            "pool": {"hidden": size == [1, 1]},  # mean and maximum are the same
        }

    def note(self, wanted: dict[str, Any], state: MapState) -> str:
        """Say where another map is marked than was asked for."""
        if wanted["place"] == state.place:
            return ""
        return f"The place is now {state.place}: {layer_name(state.layer)} has no more."
