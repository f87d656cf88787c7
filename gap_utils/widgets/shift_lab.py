"""A picture moved in front of several networks. Introduced in lesson 04.

`ShiftState` and `show_shifted` compute, `draw_shift` draws, `ShiftLab` names the controls. The
moving itself is `gap_utils.robustness.shift`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch import nn

from gap_utils.data import CLASS_NAMES, Split, load_fashion_mnist
from gap_utils.models import HEADS, load_trained
from gap_utils.robustness import shift
from gap_utils.study import mean_curves
from gap_utils.svg import Frame, Panel, Pixels, element, text
from gap_utils.values import check_below, read_labels, read_names, read_whole_number
from gap_utils.widgets.lab import START_AGAIN, Button, Lab, Slider
from gap_utils.widgets.one_picture import (
    best_class,
    check_input,
    for_showing,
    judge,
    read_logits,
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
HEIGHT, LETTER = 256, 7.44  # how wide a letter of 12 pixels is
SIDE, TOP = 224, 28  # of the canvas that the picture moves on: its side, and where it begins
TABLE, NAMES, ROWS = 292, 90, 48  # width, that of the class names, where the rows begin
CURVES, PLOT = 252, (40, 72, 206, 136)  # width; left, top, width and height of the plot


@dataclass(frozen=True)
class ShiftState:
    """All that `ShiftLab` shows follows from this, the networks and the pictures.

    Attributes:
        picture: which picture of the split.
        dx: pixels that it is moved to the right; to the left where negative.
        dy: pixels that it is moved down; up where negative.

    Raises:
        ValueError: if a number is out of its range.
    """

    picture: int = 0
    dx: int = 0
    dy: int = 0

    def __post_init__(self):
        far = -FARTHEST, FARTHEST
        for name, limits in {"picture": (0,), "dx": far, "dy": far}.items():
            object.__setattr__(self, name, read_whole_number(name, getattr(self, name), *limits))

    @property
    def distance(self) -> int:
        """The larger of the two moves, in pixels."""
        return max(abs(self.dx), abs(self.dy))


@dataclass(frozen=True)
class ShiftReading:
    """What the networks make of a moved picture.

    Attributes:
        state: which picture, and where it is.
        image: the picture before the move, shape (H, W), from 0 to 1.
        label: its class number.
        probabilities: name of each network -> softmax of its logits, shape (K,); all NaN
            where one would be no number.
        class_names: of the class numbers.
        curves: name of each network -> accuracy on many pictures moved by 0, 1, ... pixels.
    """

    state: ShiftState
    image: np.ndarray
    label: int
    probabilities: Mapping[str, np.ndarray]
    class_names: Sequence[str]
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
    said = []
    for name, probabilities in reading.probabilities.items():
        verdict = judge(probabilities, reading.label)
        if (best := best_class(probabilities)) is None:
            said.append(f"{name} says {verdict}")
            continue
        said.append(
            f"{name} says {reading.class_names[best]} ({probabilities[best]:.0%}), {verdict}"
        )
    words = f"{'; '.join(said)}."
    if reading.curves:
        distance = reading.state.distance
        at = [f"{name} {accuracies[distance]:.0%}" for name, accuracies in reading.curves.items()]
        words += f" Accuracy on many pictures moved by {distance} px: {', '.join(at)}."
    return words


def draw_shift(reading: ShiftReading) -> Frame:
    """Draw the moved picture, the probabilities of each network, and the accuracy curves."""
    state, name = reading.state, reading.class_names[reading.label]
    words = describe_reading(reading)
    panels = [_picture_panel(reading), _table_panel(reading)]
    if reading.curves:
        panels.append(_curve_panel(reading))
    return Frame(
        panels=panels,
        words=(words,),
        text=f"Picture {state.picture}, {name}, moved {state.dx} px right and {state.dy} px down. "
        f"{words}",
        room=(_longest_words(reading),),
    )


def _longest_words(reading: ShiftReading) -> str:
    longest = max(reading.class_names, key=len)
    said = [f"{name} says {longest} (100%), wrong" for name in reading.probabilities]
    at = [f"{name} 100%" for name in reading.curves]
    words = f"{'; '.join(said)}."
    return words + f" Accuracy on many pictures moved by 0 px: {', '.join(at)}." if at else words


def _picture_panel(reading: ShiftReading) -> Panel:
    state, (height, width) = reading.state, reading.image.shape
    rows, columns = height + 2 * FARTHEST, width + 2 * FARTHEST
    cell = SIDE / max(rows, columns)
    left, top = (SIDE - cell * columns) / 2, TOP + (SIDE - cell * rows) / 2
    x, y = left + cell * FARTHEST, top + cell * FARTHEST  # of the picture in the middle
    size = cell * width, cell * height
    levels = np.round(255 * np.clip(reading.image, 0, 1)).astype(np.uint8)
    black = np.zeros((1, 1), np.uint8)
    title = f"picture {state.picture}: {reading.class_names[reading.label]}"
    drawn = [
        text(0, 12, title, 14, letters=int(SIDE / LETTER * 12 / 14)),
        element("rect", x=x, y=y, width=size[0], height=size[1], class_="gap-line-accent"),
    ]
    return Panel(
        SIDE,
        HEIGHT,
        "".join(drawn),
        [
            Pixels(black, (left, top, cell * columns, cell * rows), "grey"),
            Pixels(levels, (x + cell * state.dx, y + cell * state.dy, *size), "grey"),
        ],
    )


def _table_panel(reading: ShiftReading) -> Panel:
    row = min(32, (HEIGHT - ROWS) / len(reading.class_names))
    pitch = (TABLE - NAMES) / len(reading.probabilities)
    middles = [ROWS + row * (place + 0.5) for place in range(len(reading.class_names))]
    drawn = [
        text(8, y, name, letters=int((NAMES - 8) / LETTER))
        for name, y in zip(reading.class_names, middles, strict=True)
    ]
    tip = f"M0 {middles[reading.label] - 5:.2f}l6 5l-6 5z"
    drawn.append(element("path", d=tip, class_="gap-accent"))
    for column, (name, probabilities) in enumerate(reading.probabilities.items()):
        left, width = NAMES + column * pitch, pitch - 4
        drawn.append(_heading(column, name, judge(probabilities, reading.label), left, 12, pitch))
        if best_class(probabilities) is None:
            continue
        for y, probability in zip(middles, probabilities, strict=False):  # some have fewer
            box = {"x": left, "y": y - 8, "height": 16}
            bar = {"width": width * probability, "fill_opacity": 0.7}  # letters stand on it
            drawn += [
                element("rect", **box, width=width, class_="gap-pale"),
                element("rect", **box, **bar, class_="gap-blue"),
                text(left + 4, y, f"{probability:.0%}"),
            ]
    return Panel(TABLE, HEIGHT, "".join(drawn))


def _curve_panel(reading: ShiftReading) -> Panel:
    left, top, width, height = PLOT
    distance = reading.state.distance
    at = [left + width * pixels / FARTHEST for pixels in range(FARTHEST + 1)]
    drawn = [text(0, 12, f"accuracy, moved by {distance} px", 14)]
    for level in (0, 0.25, 0.5, 0.75, 1):
        y = top + height * (1 - level)
        line = f"M{left} {y:.2f}h{width}"
        drawn.append(element("path", d=line, class_="gap-line-soft"))
        drawn.append(text(left - 6, y, f"{level:.0%}", anchor="end"))
    drawn += [
        text(x, top + height + 14, str(pixels), anchor="middle") for pixels, x in enumerate(at)
    ]
    drawn.append(text(left + width / 2, HEIGHT - 14, "pixels moved", anchor="middle"))
    here = f"M{at[distance]:.2f} {top}v{height}"
    drawn.append(element("path", d=here, class_="gap-line-dark", stroke_dasharray="5 3"))
    pitch = CURVES / len(reading.probabilities)
    for place, name in enumerate(reading.probabilities):
        curve, result = reading.curves.get(name), "no curve"
        if curve:
            result = f"{curve[distance]:.0%}"
            points = [(x, top + height * (1 - part)) for x, part in zip(at, curve, strict=True)]
            line = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
            drawn.append(element("polyline", points=line, class_=f"gap-line-{COLOURS[place]}"))
            drawn += [_mark(place, *point) for point in points]
        drawn.append(_heading(place, name, result, pitch * place, 32, pitch))
    return Panel(CURVES, HEIGHT, "".join(drawn))


def _heading(place: int, name: str, result: str, x: float, y: float, width: float) -> str:
    """Write the name of a network behind its mark, and its result below."""
    letters = int((width - 13) / LETTER)
    return _mark(place, x + 5, y) + text(x + 13, y, name, letters=letters) + text(x, y + 18, result)


def _mark(place: int, x: float, y: float) -> str:
    """A circle, a square or a triangle: the sign of a network."""
    class_ = f"gap-{COLOURS[place]}"
    if place == 0:
        return element("circle", cx=x, cy=y, r=4.5, class_=class_)
    forms = {1: f"M{x - 4:.2f} {y - 4:.2f}h8v8h-8z", 2: f"M{x - 5:.2f} {y + 4:.2f}h10l-5 -9z"}
    return element("path", d=forms[place], class_=class_)


class ShiftLab(Lab):
    """Move a picture and see what networks with different heads make of it.

    Args:
        models: name -> network for pictures of the size in `split`; three at most. When
            None: the three that ship.
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
        self._models = {str(name): model for name, model in models.items()}
        self._split = load_fashion_mnist().test if split is None else split
        self._curves = {str(name): _read_curve(name, curve) for name, curve in curves.items()}
        self._read_split(class_names)
        self._reading = lru_cache(READINGS)(self._show_networks)
        limits = -FARTHEST, FARTHEST
        controls = [
            Slider("picture", "Picture", 0, len(self._split) - 1, main=True),
            Slider("dx", "Right dx", *limits, main=True),
            Slider("dy", "Down dy", *limits),
            Button("back", "Back to the middle"),
            START_AGAIN,
        ]
        if len(self._split) == 1:
            del controls[0]
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
        read_labels(self._split.labels, len(images), max(counts))
        self._class_names = read_names(class_names, max(counts))[: max(counts)]

    def __repr__(self) -> str:
        state, names = self.value, ", ".join(self._models)
        return f"ShiftLab(picture {state.picture} moved by {state.dx}, {state.dy}: {names})"

    def complete(self, state: ShiftState) -> ShiftState:
        """Refuse a picture that the split has not."""
        check_below("picture", state.picture, len(self._split))
        return state

    def draw(self, state: ShiftState) -> Frame:
        """Show the moved picture to the networks, and draw what they say."""
        return draw_shift(self._reading(state))

    def press(self, name: str, state: ShiftState) -> ShiftState:
        """Bring the picture back to the middle."""
        return ShiftState(state.picture) if name == "back" else super().press(name, state)

    def _show_networks(self, state: ShiftState) -> ShiftReading:
        return show_shifted(state, self._models, self._split, self._class_names, self._curves)


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
