"""A picture moved in front of several networks. Introduced in lesson 05.

`ShiftState` and `show_shifted` compute, `draw_shift` draws, `ShiftLab` names the controls. The
moving itself is `gap_utils.robustness.shift`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise, product, starmap
from typing import Any

import numpy as np
from torch import nn

from gap_utils.data import CLASS_NAMES, Split, load_fashion_mnist
from gap_utils.models import HEADS, load_trained
from gap_utils.robustness import shift
from gap_utils.study import mean_curves
from gap_utils.svg import Box, Frame, Panel, Pixels, box, element, heading, letters_in, text
from gap_utils.values import check_below, read_labels, read_names, read_whole_numbers
from gap_utils.widgets.lab import START_AGAIN, Button, Lab, Slider
from gap_utils.widgets.one_picture import (
    IN_A_ROW,
    NEXT_WRONG,
    Strip,
    best_class,
    check_input,
    draw_verdict,
    for_showing,
    judge,
    next_wrong,
    picture_slider,
    read_logits,
    say_best,
    show_picture,
    softmax,
)

FARTHEST = 6  # pixels in any direction
MOST_CLASSES = 10  # rows that the table has room for
MOST_PIXELS = 348  # of a side of a picture
READINGS = 32  # kept: a page asks for up to sixteen ahead, and again when it gets there
# colour of each network; its mark has another form too
COLOURS = ("accent", "blue", "dark")
# of the panels, in CSS pixels
HEIGHT = 236
SIDE, TOP = 180, 28  # of the canvas that the picture moves on: its side, and where it begins
TABLE, NAMES, ROWS = 292, 92, 48  # width, that of the class names, where the rows begin
CURVES, PLOT = 188, (40, 92, 136, 96)  # width; left, top, width and height of the plot


@dataclass(frozen=True)
class ShiftState:
    """All that `ShiftLab` shows follows from this, the networks and the pictures.

    Raises:
        ValueError: if a number is out of its range.
    """

    picture: int = 0  #: which picture of the split
    dx: int = 0  #: pixels that it is moved to the right; to the left where negative
    dy: int = 0  #: pixels that it is moved down; up where negative

    def __post_init__(self):
        far = -FARTHEST, FARTHEST
        read_whole_numbers(self, picture=(0,), dx=far, dy=far)

    @property
    def distance(self) -> int:
        """The larger of the two moves, in pixels."""
        return max(abs(self.dx), abs(self.dy))


@dataclass(frozen=True)
class ShiftReading:
    """What the networks make of a moved picture."""

    state: ShiftState  # which picture, and where it is
    image: np.ndarray  # the picture before the move, shape (H, W), from 0 to 1
    label: int  # its class number
    # name of each network -> softmax of its logits, shape (K,); all NaN where one would be no
    # number
    probabilities: Mapping[str, np.ndarray]
    class_names: Sequence[str]  # of the class numbers
    # name of each network -> accuracy on many pictures moved by 0, 1, ... pixels
    curves: Mapping[str, Sequence[float]]


def show_shifted(
    state: ShiftState,
    models: Mapping[str, nn.Module],
    split: Split,
    class_names: Sequence[str],
    curves: Mapping[str, Sequence[float]],
) -> ShiftReading:
    """Show a moved picture to the networks."""
    images = split.images[state.picture : state.picture + 1]
    moved = shift(images, state.dx, state.dy)
    return ShiftReading(
        state,
        for_showing(images[0]).mean(0),
        int(split.labels[state.picture]),
        {
            name: softmax(read_logits(show_picture(model, moved)[1], len(class_names)))
            for name, model in models.items()
        },
        class_names,
        curves,
    )


def describe_reading(reading: ShiftReading) -> str:
    """Say what the networks say, and how accurate they are at this distance."""
    said = [
        f"{name} says {say_best(probabilities, reading.class_names, reading.label)}"
        for name, probabilities in reading.probabilities.items()
    ]
    words = f"{'; '.join(said)}."
    if reading.curves:
        distance = reading.state.distance
        at = [f"{name} {curve[distance]:.0%}" for name, curve in reading.curves.items()]
        words += f" Accuracy on many pictures moved by {distance} px: {', '.join(at)}."
    return words


def draw_shift(reading: ShiftReading) -> Frame:
    """Draw the moved picture, the probabilities of each network, and the accuracy curves."""
    state, name = reading.state, reading.class_names[reading.label]
    words = describe_reading(reading)
    curves = [_curve_panel(reading)] * bool(reading.curves)
    return Frame(
        # picture and curves have room side by side on a phone, all three in a notebook
        panels=[_picture_panel(reading), *curves, _table_panel(reading)],
        words=(words,),
        text=f"Picture {state.picture}, {name}, moved {state.dx} px right and {state.dy} px down. "
        f"{words}",
        room=(_longest_words(reading),),
    )


def _longest_words(reading: ShiftReading) -> str:
    """What is said where all networks are sure of the class with the longest name, and wrong."""
    names = max(reading.class_names, key=len), ""
    sure = dict.fromkeys(reading.probabilities, np.array([1.0, 0.0]))
    curves = {name: [1.0] * (FARTHEST + 1) for name in reading.curves}
    return describe_reading(
        replace(
            reading,
            state=ShiftState(),
            label=1,
            probabilities=sure,
            class_names=names,
            curves=curves,
        )
    )


def _picture_panel(reading: ShiftReading) -> Panel:
    """The moved picture on a black canvas, and a frame where it was; it can be dragged."""
    state, (height, width) = reading.state, reading.image.shape
    rows, columns = height + 2 * FARTHEST, width + 2 * FARTHEST
    cell = SIDE / max(rows, columns)
    left, top = (SIDE - cell * columns) / 2, TOP + (SIDE - cell * rows) / 2
    x, y = left + cell * FARTHEST, top + cell * FARTHEST  # of the picture in the middle
    size = cell * width, cell * height
    levels = np.round(255 * np.clip(reading.image, 0, 1)).astype(np.uint8)
    black = np.zeros((1, 1), np.uint8)
    canvas = left, top, cell * columns, cell * rows
    pixels = [
        Pixels(black, canvas, "grey"),
        Pixels(levels, (x + cell * state.dx, y + cell * state.dy, *size), "grey"),
    ]
    drawn = [
        heading(12, reading.class_names[reading.label], "drag it", SIDE),
        box((x, y, *size), "gap-line-accent"),
        text(0, HEIGHT - 11, _say_where(state)),
        box(canvas, "gap-unseen", data_drag={"dx": ("x", cell), "dy": ("y", cell)}),
    ]
    return Panel(SIDE, HEIGHT, "".join(drawn), pixels)


def _say_where(state: ShiftState) -> str:
    ways = [(state.dx, "right", "left"), (state.dy, "down", "up")]
    moved = [f"{abs(n)} {more if n > 0 else less}" for n, more, less in ways if n]
    return f"moved {', '.join(moved)}" if moved else "in the middle"


def _table_panel(reading: ShiftReading) -> Panel:
    """The probabilities: a row for each class, a column for each network."""
    row = min(32, (HEIGHT - ROWS) / len(reading.class_names))
    bar = row - 3
    pitch = (TABLE - NAMES) / len(reading.probabilities)
    middles = [ROWS + row * (place + 0.5) for place in range(len(reading.class_names))]
    drawn = [
        text(10, y, name, letters=letters_in(NAMES - 10))
        for name, y in zip(reading.class_names, middles, strict=True)
    ]
    here = middles[reading.label]
    drawn.append(text(10, 33, "true class"))
    drawn += [
        element("path", d=f"M2 {y - 5:.2f}l6 5l-6 5z", class_="gap-accent") for y in (33, here)
    ]
    for column, (name, probabilities) in enumerate(reading.probabilities.items()):
        left, width = NAMES + column * pitch, pitch - 5
        drawn.append(_sign(column, name, left, 12, pitch))
        verdict = judge(probabilities, reading.label)
        drawn.append(draw_verdict((left, 23, width, 20), verdict))
        if best_class(probabilities) is None:
            continue
        for y, probability in zip(middles, probabilities, strict=False):  # some have fewer
            place = left, y - bar / 2, width, bar
            share = left, y - bar / 2, width * probability, bar
            drawn += [
                box(place, "gap-pale"),
                box(share, "gap-blue", fill_opacity=0.7),  # letters stand on it
                text(left + 4, y, f"{probability:.0%}"),
            ]
    drawn.append(box((0.75, here - row / 2, TABLE - 1.5, row), "gap-line-accent", rx=3))
    drawn += [
        _network((NAMES + column * pitch - 2, 0, pitch - 1, HEIGHT), column)
        for column in range(len(reading.probabilities))
    ]
    return Panel(TABLE, HEIGHT, "".join(drawn))


def _curve_panel(reading: ShiftReading) -> Panel:
    """How accurate the networks are on pictures moved so far, and a line at this distance."""
    left, top, width, height = PLOT
    distance, step = reading.state.distance, width / FARTHEST
    at = [left + step * pixels for pixels in range(FARTHEST + 1)]
    drawn = [heading(12, "accuracy", "click a point", CURVES)]
    for level in (0, 0.25, 0.5, 0.75, 1):
        y = top + height * (1 - level)
        drawn.append(element("path", d=f"M{left} {y:.2f}h{width}", class_="gap-line-soft"))
        drawn.append(text(left - 6, y, f"{level:.0%}", anchor="end"))
    drawn += [text(x, top + height + 14, str(n), anchor="middle") for n, x in enumerate(at)]
    drawn.append(text(left + width / 2, HEIGHT - 11, "pixels moved", anchor="middle"))
    here = f"M{at[distance]:.2f} {top}v{height}"
    drawn.append(element("path", d=here, class_="gap-line-dark", stroke_dasharray="5 3"))
    for pixels, x in enumerate(at):  # narrower than a step, so that their frames can be told apart
        place = x - step / 2 + 2, top - 8, step - 4, height + 30
        drawn.append(box(place, "gap-unseen", data_set={"dx": pixels, "dy": 0}))
    for number, name in enumerate(reading.probabilities):
        curve, result, y = reading.curves.get(name), "no curve", 34 + 18 * number
        if curve:
            result = f"{curve[distance]:.0%}"
            heights = [top + height * (1 - part) for part in curve]
            drawn += _draw_curve(number, [*zip(at, heights, strict=True)])
        drawn.append(_sign(number, name, 3, y, CURVES - 64))
        drawn.append(text(CURVES - 4, y, result, anchor="end"))
        drawn.append(_network((0, y - 9, CURVES, 18), number))
    return Panel(CURVES, HEIGHT, "".join(drawn))


def _draw_curve(number: int, points: list[tuple[float, float]]) -> list[str]:
    """Draw a mark for each distance, and the line from halfway before it to halfway behind it."""
    halfways = [((x + u) / 2, (y + v) / 2) for (x, y), (u, v) in pairwise(points)]
    ends = zip([points[0], *halfways], points, [*halfways, points[-1]], strict=True)
    return [
        element(
            "g",
            element(
                "polyline",
                points=" ".join(f"{x:.2f},{y:.2f}" for x, y in piece),
                class_=f"gap-line-{COLOURS[number]}",
            ),
            _mark(number, *piece[1]),
            data_link=f"network{number}",
            data_set={"dx": pixels, "dy": 0},
        )
        for pixels, piece in enumerate(ends)
    ]


def _network(place: Box, number: int) -> str:
    """Let a place light up with all that is of the same network."""
    return box(place, "gap-clear", data_link=f"network{number}")


def _sign(number: int, name: str, x: float, y: float, width: float) -> str:
    """Write the name of a network behind its mark."""
    return _mark(number, x + 5, y) + text(x + 13, y, name, letters=letters_in(width - 13))


def _mark(number: int, x: float, y: float) -> str:
    """A circle, a square or a triangle: the sign of a network."""
    class_ = f"gap-{COLOURS[number]}"
    if number == 0:
        return element("circle", cx=x, cy=y, r=4.5, class_=class_)
    if number == 1:
        return box((x - 4, y - 4, 8, 8), class_)
    return element("path", d=f"M{x - 5:.2f} {y + 4:.2f}h10l-5 -9z", class_=class_)


class ShiftLab(Lab):
    """Move a picture and see what networks with different heads make of it.

    Args:
        models: name -> network for pictures of the size in `split`; three at most. When
            None: the three that ship. After more training, make a new lab.
        split: the pictures, of up to ten classes; when None, the test part that ships.
        class_names: of the class numbers; when None, those of Fashion-MNIST for the part that
            ships and the numbers for another.
        curves: name -> accuracy on pictures moved by 0, 1, ... 6 pixels, such as
            `robustness.accuracy_against_shift(model, split).accuracy`. When None: those of the
            stored study for the networks and pictures that ship, none for others.
        picture, dx, dy: as in `ShiftState`.

    Attributes:
        value: the `ShiftState` on view; it can be set. `lab.set(dx=3)` changes single fields.

    Raises:
        ValueError: if a setting is not possible.

    Example:
        >>> ShiftLab(dx=3)
        ShiftLab(picture 0 moved by 3, 0: gap, gmp, flatten)
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module] | None = None,
        split: Split | None = None,
        class_names: Sequence[str] | None = None,
        curves: Mapping[str, Sequence[float]] | None = None,
        **settings,
    ):
        if curves is None:
            curves = mean_curves() if models is None and split is None else {}
        if class_names is None and split is None:
            class_names = CLASS_NAMES
        if models is None:
            models = {head: load_trained(head) for head in HEADS}
        if not isinstance(models, Mapping) or not 1 <= len(models) <= len(COLOURS):
            found = [*models] if isinstance(models, Mapping) else models  # a model takes a page
            raise ValueError(f"expected a dict of one to {len(COLOURS)} models, got {found!r}")
        if not isinstance(curves, Mapping):
            raise ValueError(f"expected a dict of curves, got {type(curves).__name__}")
        self._models, curves = map(_with_names, (models, curves))
        self._split = load_fashion_mnist().test if split is None else split
        self._curves = {name: _read_curve(name, curve) for name, curve in curves.items()}
        self._read_split(class_names)
        self._reading = lru_cache(READINGS)(
            lambda state: show_shifted(
                state, self._models, self._split, self._class_names, self._curves
            )
        )
        self._strip = Strip(self._split.images)
        limits = -FARTHEST, FARTHEST
        controls = [
            *picture_slider(len(self._split)),
            Slider("dx", "Right dx", *limits, main=True),
            Slider("dy", "Down dy", *limits, main=True),
            Button("back", "Back to the middle"),
            *([NEXT_WRONG] * (len(self._split) > 1)),
            START_AGAIN,
        ]
        super().__init__(ShiftState(**settings), controls)

    def _read_split(self, class_names: Sequence[str] | None) -> None:
        """Read the names, and check that networks, pictures, labels and names fit each other."""
        if not isinstance(self._split, Split):
            raise ValueError(f"expected a Split, got {type(self._split).__name__}")
        images = self._split.images
        for model in self._models.values():
            check_input(model, images)
        if max(images.shape[2:]) > MOST_PIXELS:
            raise ValueError(
                f"expected pictures of at most {MOST_PIXELS} pixels, got {tuple(images.shape[2:])}"
            )
        if unknown := set(self._curves) - set(self._models):
            raise ValueError(
                f"expected curves of {', '.join(self._models)}, got one of {unknown.pop()!r}"
            )
        outputs = [show_picture(model, images[:1])[1] for model in self._models.values()]
        counts = [len(read_logits(output)) for output in outputs]
        if not 2 <= min(counts) <= max(counts) <= MOST_CLASSES:
            raise ValueError(
                f"expected networks of 2 to {MOST_CLASSES} classes, got "
                + ", ".join(f"{name} of {n}" for name, n in zip(self._models, counts, strict=True))
            )
        self._labels = read_labels(self._split.labels, len(images), max(counts))
        self._class_names = read_names(class_names, max(counts))[: max(counts)]

    def __repr__(self) -> str:
        state, names = self.value, ", ".join(self._models)
        return f"ShiftLab(picture {state.picture} moved by {state.dx}, {state.dy}: {names})"

    needs_kernel = (NEXT_WRONG.name,)
    with_a_kernel = (
        "With a kernel you move every test picture, look for the next wrong one, and bring your "
        "own networks."
    )

    def tour(self) -> Iterator[ShiftState]:
        """A row of pictures, each moved to every place."""
        ways = range(-FARTHEST, FARTHEST + 1)
        pictures = range(min(IN_A_ROW, len(self._split)))
        return starmap(ShiftState, product(pictures, ways, ways))

    def complete(self, state: ShiftState) -> ShiftState:
        """Refuse a picture that the split has not."""
        check_below("picture", state.picture, len(self._split))
        return state

    def draw(self, state: ShiftState) -> Frame:
        """Show the moved picture to the networks, and draw what they say."""
        return self._strip.put_above(draw_shift(self._reading(state)), state.picture)

    def limits(self, state: ShiftState) -> dict[str, dict[str, Any]]:
        """Say when the picture is in the middle already."""
        return {"back": {"idle": state.distance == 0}}

    def press(self, name: str, state: ShiftState) -> ShiftState:
        """Bring the picture back to the middle, or go to one that a network gets wrong there."""
        if name == NEXT_WRONG.name:
            models, images = self._models.values(), self._split.images
            move = partial(shift, dx=state.dx, dy=state.dy)
            return replace(
                state, picture=next_wrong(models, images, self._labels, state.picture, move)
            )
        return ShiftState(state.picture) if name == "back" else super().press(name, state)


def _with_names(things: Mapping[Any, Any]) -> dict[str, Any]:
    return dict(zip(read_names([*things], 0), things.values(), strict=True))


def _read_curve(name: str, accuracies: Sequence[float]) -> tuple[float, ...]:
    try:
        curve = tuple(map(float, accuracies))
    except (TypeError, ValueError):
        curve = ()
    if len(curve) != FARTHEST + 1 or not all(0 <= accuracy <= 1 for accuracy in curve):
        raise ValueError(
            f"expected the curve of {name!r} to be {FARTHEST + 1} accuracies from 0 to 1, got "
            f"{accuracies!r}"
        )
    return curve
