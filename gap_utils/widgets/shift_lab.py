"""A picture moved in front of several networks. Introduced in lesson 04.

Three layers: `ShiftState` and `look` compute, `shift_picture` draws, `ShiftLab` holds the
controls. The moving itself is `gap_utils.robustness.shift`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape

import numpy as np
from torch import nn

from gap_utils.data import CLASS_NAMES, Split, load_fashion_mnist
from gap_utils.models import HEADS, load_trained
from gap_utils.pictures import (
    ACCENT,
    DARK,
    GREY,
    PALE,
    SCALE,
    SHADES,
    Canvas,
    Picture,
    shade,
    shorten,
)
from gap_utils.robustness import shift
from gap_utils.study import mean_curves
from gap_utils.values import check_below, read_labels, read_names, read_whole_number
from gap_utils.widgets.lab import StateLab
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
FAR = -FARTHEST, FARTHEST
MOST_CLASSES = 10  # rows that the picture has room for
# CSS pixels
WIDTH, HEIGHT = 526, 278
FRAME = (6, 24, 180)  # left, upper edge and side of the canvas that the picture moves on
CURVE = (36, 220, 150, 40)  # left, upper edge, width and height of the curves
NAMES, HEADER, ROW, BAR = 202, 46, 23, 74  # of the table of probabilities
MARKS = (ACCENT, SHADES[-1], DARK)  # fill of each network's mark; its form differs too
LARGEST = FRAME[2] * SCALE - 2 * FARTHEST  # pixels of a picture that still get one each
WORDS = "max-width: 526px; min-height: 66px; line-height: 1.5"


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
        for name, limits in {"picture": (0,), "dx": FAR, "dy": FAR}.items():
            object.__setattr__(self, name, read_whole_number(name, getattr(self, name), *limits))

    @property
    def distance(self) -> int:
        """The larger of the two moves, in pixels."""
        return max(abs(self.dx), abs(self.dy))


@dataclass(frozen=True)
class View:
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


def look(
    state: ShiftState,
    models: Mapping[str, nn.Module],
    split: Split,
    class_names: Sequence[str],
    curves: Mapping[str, Sequence[float]],
) -> View:
    """Show a moved picture to the networks."""
    images = split.images[state.picture : state.picture + 1]
    moved = shift(images, state.dx, state.dy)
    return View(
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


def describe_view(view: View) -> str:
    """Say what the networks say, and how accurate they are at this distance."""
    said = []
    for name, probabilities in view.probabilities.items():
        verdict = judge(probabilities, view.label)
        if (best := best_class(probabilities)) is None:
            said.append(f"{name} says {verdict}")
            continue
        said.append(f"{name} says {view.class_names[best]} ({probabilities[best]:.0%}), {verdict}")
    text = f"{'; '.join(said)}."
    if view.curves:
        distance = view.state.distance
        at = [f"{name} {accuracies[distance]:.0%}" for name, accuracies in view.curves.items()]
        text += f" Accuracy on many pictures moved by {distance} px: {', '.join(at)}."
    return text


def shift_picture(view: View) -> Picture:
    """Draw the moved picture, the probabilities of each network, and the accuracy curves.

    Returns:
        A picture whose text holds the same numbers.
    """
    canvas = _page(tuple(view.class_names), tuple(view.probabilities), _curves(view)).copy()
    _draw_image(canvas, view)
    for column, probabilities in enumerate(view.probabilities.values()):
        _draw_column(canvas, column, probabilities, view.label)
    _mark_row(canvas, view.label)
    if view.curves:
        left, top, width, height = (SCALE * n for n in CURVE)
        x = left + view.state.distance * width // FARTHEST
        canvas.fills.line((x, top, x, top + height), fill=ACCENT, width=SCALE)
    state, name = view.state, view.class_names[view.label]
    return canvas.picture(
        f"Picture {state.picture}, {name}, moved {state.dx} px right and {state.dy} px down. "
        f"{describe_view(view)}"
    )


def _curves(view: View) -> tuple[tuple[float, ...], ...]:
    """One for each network, in their order; none where a network has none."""
    return tuple(tuple(view.curves.get(name, ())) for name in view.probabilities)


@lru_cache(maxsize=4)  # all that does not change while the sliders move
def _page(
    class_names: tuple[str, ...], models: tuple[str, ...], curves: tuple[tuple[float, ...], ...]
) -> Canvas:
    canvas = Canvas(WIDTH, HEIGHT)
    for row, name in enumerate(class_names):
        y = (HEADER + row * ROW + ROW // 2) * SCALE
        cut = shorten(name, 12 * SCALE, _left(0) - (NAMES + 8) * SCALE)
        canvas.write((NAMES + 8) * SCALE, y, cut, 12 * SCALE, "lm")
    for column, name in enumerate(models):
        left = _left(column)
        _draw_mark(canvas, column, left + 6 * SCALE, 13 * SCALE)
        cut = shorten(name, 13 * SCALE, (BAR + 4 - 16) * SCALE)
        canvas.write(left + 16 * SCALE, 13 * SCALE, cut, 13 * SCALE, "lm")
    if any(curves):
        left, top, width, height = (SCALE * n for n in CURVE)
        canvas.write(FRAME[0] * SCALE, top - 7 * SCALE, "accuracy by distance", 11 * SCALE, "lb")
        for level in (0, 0.5, 1):
            y = top + round((1 - level) * height)
            canvas.fills.line((left, y, left + width, y), fill=PALE, width=SCALE)
            canvas.write(left - 3 * SCALE, y, f"{level:.0%}", 10 * SCALE, "rm")
        for distance in range(FARTHEST + 1):
            x = left + distance * width // FARTHEST
            canvas.write(x, top + height + 4 * SCALE, str(distance), 10 * SCALE, "ma")
        for column, accuracies in enumerate(curves):
            points = [
                (left + distance * width // FARTHEST, top + round((1 - accuracy) * height))
                for distance, accuracy in enumerate(accuracies)
            ]
            canvas.fills.line(points, fill=MARKS[column % len(MARKS)], width=SCALE)
            for x, y in points:
                _draw_mark(canvas, column, x, y)
    return canvas


def _draw_mark(canvas: Canvas, column: int, x: int, y: int) -> None:
    """A circle, a square or a triangle: the sign of a network."""
    fill, r = MARKS[column % len(MARKS)], 3 * SCALE
    forms = [
        lambda: canvas.fills.ellipse((x - r, y - r, x + r, y + r), fill=fill),
        lambda: canvas.fills.rectangle((x - r, y - r, x + r, y + r), fill=fill),
        lambda: canvas.fills.polygon([(x - r, y + r), (x + r, y + r), (x, y - r)], fill=fill),
    ]
    forms[column % len(forms)]()


def _left(column: int) -> int:
    return (NAMES + 88 + column * (BAR + 4)) * SCALE


def _draw_image(canvas: Canvas, view: View) -> None:
    left, top, side = (SCALE * n for n in FRAME)
    height, width = view.image.shape
    cell = side // (max(height, width) + 2 * FARTHEST)
    page = np.zeros((height + 2 * FARTHEST, width + 2 * FARTHEST))
    y, x = FARTHEST + view.state.dy, FARTHEST + view.state.dx
    page[y : y + height, x : x + width] = view.image
    canvas.write(left, 5 * SCALE, view.class_names[view.label], 13 * SCALE)
    canvas.tiles(shade(page, 0, 1), left, top, cell)
    edge = cell * FARTHEST
    inner = (left + edge, top + edge, left + edge + cell * width, top + edge + cell * height)
    canvas.fills.rectangle(inner, outline=ACCENT, width=SCALE)
    outer = (left, top, left + cell * page.shape[1], top + cell * page.shape[0])
    canvas.fills.rectangle(outer, outline=GREY, width=SCALE)


def _draw_column(canvas: Canvas, column: int, probabilities: np.ndarray, label: int) -> None:
    left = _left(column)
    canvas.write(left + 16 * SCALE, 32 * SCALE, judge(probabilities, label), 12 * SCALE, "lm")
    if best_class(probabilities) is None:
        return
    for row, probability in enumerate(probabilities):
        top = (HEADER + row * ROW + 4) * SCALE
        bottom = top + (ROW - 8) * SCALE
        canvas.fills.rectangle((left, top, left + BAR * SCALE - 1, bottom), fill=PALE)
        if length := round(BAR * SCALE * float(probability)):
            canvas.fills.rectangle((left, top, left + length - 1, bottom), fill=SHADES[-1])
        text = f"{probability:.0%}"
        canvas.write(left + 4 * SCALE, (top + bottom) // 2, text, 11 * SCALE, "lm")


def _mark_row(canvas: Canvas, label: int) -> None:
    """Point at the name of the picture's own class."""
    left, top = (NAMES - 3) * SCALE, (HEADER + label * ROW + ROW // 2) * SCALE
    tip = [(0, -5), (6, 0), (0, 5)]
    canvas.fills.polygon([(left + x * SCALE, top + y * SCALE) for x, y in tip], fill=ACCENT)


class ShiftLab(StateLab):
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
        if not isinstance(models, Mapping) or not 1 <= len(models) <= len(MARKS):
            found = [*models] if isinstance(models, Mapping) else models  # a model takes a page
            raise ValueError(f"expected a dict of one to {len(MARKS)} models, got {found!r}")
        if not isinstance(curves, Mapping):
            raise ValueError(f"expected a dict of curves, got {type(curves).__name__}")
        self._models = {str(name): model for name, model in models.items()}
        self._split = load_fashion_mnist().test if split is None else split
        self._curves = {str(name): _read_curve(name, curve) for name, curve in curves.items()}
        self._read_split(class_names)
        super().__init__(ShiftState(**settings))

    def _read_split(self, class_names: Sequence[str] | None) -> None:
        """Read the names, and check that networks, pictures, labels and names fit each other."""
        if not isinstance(self._split, Split):
            raise ValueError(f"expected a Split, got {type(self._split).__name__}")
        images = self._split.images
        for model in self._models.values():
            check_input(model, images)
        if max(images.shape[2:]) > LARGEST:
            raise ValueError(
                f"expected pictures of at most {LARGEST} pixels, got {tuple(images.shape[2:])}"
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
        self._class_names = read_names(class_names, max(counts))

    def picture(self) -> Picture:
        """Draw the state on view."""
        return shift_picture(self._look())

    def __repr__(self) -> str:
        state, names = self._state, ", ".join(self._models)
        return f"ShiftLab(picture {state.picture} moved by {state.dx}, {state.dy}: {names})"

    def _check(self, state: ShiftState) -> None:
        check_below("picture", state.picture, len(self._split))

    def _look(self) -> View:
        return look(self._state, self._models, self._split, self._class_names, self._curves)

    def _build(self) -> None:
        limits = {
            "picture": ("Picture", 0, len(self._split) - 1),
            "dx": ("Right dx", -FARTHEST, FARTHEST),
            "dy": ("Down dy", -FARTHEST, FARTHEST),
        }
        self._sliders = {
            name: self._slider(label, low, high, self._setter(name))
            for name, (label, low, high) in limits.items()
        }
        back = self._button("Back to the middle", lambda: self.set(dx=0, dy=0))
        reset = self._button("Start again", self._start_again)
        self._lay_out(*self._sliders.values(), back, reset)

    def _show(self) -> None:
        """Bring controls, picture and words in line with the state."""
        with self._controls_follow():
            self._move(self._sliders)
        view = self._look()
        words = f'<div style="{WORDS}">{escape(describe_view(view))}</div>'
        self._draw(shift_picture(view), words)


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
