"""Class activation maps of two classes, laid over a picture. Introduced in lesson 07.

`explain_picture` computes, `draw_cam` draws, `CamLab` names the controls.
The maps themselves come from `gap_utils.activations`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import product
from math import ceil
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from gap_utils.activations import CamHead, class_activation_map, find_cam_head
from gap_utils.inference import as_input
from gap_utils.localisation import (
    area,
    box_from_map,
    holds,
    intersection_over_union,
    largest_position,
)
from gap_utils.svg import (
    COLOUR_BAR,
    Box,
    Frame,
    Panel,
    Pixels,
    Readout,
    box,
    heading,
    shorten,
    signed_colours,
    signed_levels,
    text,
)
from gap_utils.values import (
    check_below,
    format_number,
    join_rows,
    read_labels,
    read_names,
    read_whole_number,
    read_whole_numbers,
    shorten_exponent,
)
from gap_utils.widgets.lab import START_AGAIN, Choice, Lab, Slider, Toggle
from gap_utils.widgets.one_picture import (
    NEXT_WRONG,
    NO_NUMBER,
    PICTURES_REMEMBERED,
    Epochs,
    Strip,
    best_class,
    check_input,
    draw_verdict,
    image_of,
    judge,
    name_kind,
    next_wrong,
    read_logits,
    say_best,
    say_epoch,
    show_picture,
    softmax,
)

RANKS = ("top 1", "top 2", "top 3", "top 4", "top 5")
RANK_LABELS = ("most likely", *(f"{n} most likely" for n in ("2nd", "3rd", "4th", "5th")))
VIEWS = ("map", "overlay", "numbers")
MOST_NUMBERS = 8  # rows or columns of a map whose numbers are written out
# CSS pixels
SIDE, EDGE, TOP = 272, 4, 28  # of a map: how wide it may be, and where it begins
BAR = 18  # how high the bar of colours is
VERDICT = 112  # how wide "wrong answer" is
LEGEND = 24  # how high the names of the boxes are
WIDTH = SIDE + 2 * EDGE


@dataclass(frozen=True)
class CamState:
    """All that `CamLab` shows follows from this, the network and the pictures.

    Raises:
        ValueError: if a value is out of its range.
    """

    picture: int = 0  #: which of the pictures
    #: class of the left map, its number, or "top 1" to "top 5" for the one that is 1st to 5th most
    #: likely for the picture on view
    left: int | str = "top 1"
    right: int | str = "top 2"  #: class of the right map, in the same way
    #: "map", "overlay" (the map over the picture) or "numbers" (the map with its values
    #: written on it)
    view: str = "overlay"
    strength: int = 80  #: of the map's colours in the overlay, in percent
    #: pass from position to position smoothly in map and overlay, instead of drawing the squares
    #: that the network has
    smooth: bool = False
    level: int = 40  #: of `box_from_map`, in percent, where the lab has boxes
    #: how many epochs of the lab's run the network has behind it; None for all, or without a run
    epoch: int | None = None

    def __post_init__(self):
        read_whole_numbers(self, picture=(0,), strength=(0, 100), level=(0, 100))
        if self.epoch is not None:
            read_whole_numbers(self, epoch=(0,))
        or_else = f' or "{RANKS[0]}" to "{RANKS[-1]}"'
        for name in ("left", "right"):
            value = getattr(self, name)
            if not (isinstance(value, str) and value in RANKS):
                value = read_whole_number(name, value, 0, or_else=or_else)
                object.__setattr__(self, name, value)
        if self.view not in VIEWS:
            names = '"map", "overlay" or "numbers"'
            raise ValueError(f"expected view {names}, got {self.view!r}")
        if not isinstance(self.smooth, bool):
            raise ValueError(f"expected smooth to be True or False, got {self.smooth!r}")


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a network makes of one picture, for all classes."""

    size: tuple[int, int]  # height and width of the picture, pixels
    image: np.ndarray  # for showing, uint8, shape (H, W, 3) for red, green and blue, else (H, W)
    logits: np.ndarray  # shape (K,)
    cams: np.ndarray  # class activation maps, shape (K, h, w)
    bias: np.ndarray  # of the linear layer, shape (K,)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits, shape (K,); all NaN where one would be no number."""
        return softmax(self.logits)

    @cached_property
    def grey(self) -> np.ndarray:
        """The picture without its colours, shape (H, W)."""
        return np.asarray(Image.fromarray(self.image).convert("L"))


def explain_picture(model: nn.Module, head: CamHead, picture: Tensor) -> Explanation:
    """Show a network one picture, and split the logits of all classes into maps.

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
    size = tuple(picture.shape[2:])
    return Explanation(size, image_of(picture[0]), logits, cams, head.bias.numpy())


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two class activation maps of a picture."""

    state: CamState  # which picture, which classes and how they are drawn
    explanation: Explanation  # what the network makes of the picture, for all classes
    label: int | None  # class number of the picture, if that is known
    classes: tuple[int, int]  # numbers of the left and the right class
    class_names: Sequence[str]  # of the class numbers
    epochs: int | None = None  # how many the run has; None without one
    true_box: Tensor | None = None  # around the thing in the picture, in pixels, shape (1, 4)

    @cached_property
    def cams(self) -> np.ndarray:
        """The maps of both classes, shape (2, h, w)."""
        return self.explanation.cams[list(self.classes)].astype(float)

    @cached_property
    def limit(self) -> float:
        """The largest distance from zero in both maps; where their darkest colours are."""
        return float(np.abs(np.nan_to_num(self.cams, posinf=0, neginf=0)).max())

    @cached_property
    def box(self) -> Box:
        """Left and upper edge, width and height of a map, which is as long as the picture."""
        rows, columns = self.explanation.grey.shape
        width, height = (max(1.0, SIDE * n / max(rows, columns)) for n in (columns, rows))
        return EDGE + (SIDE - width) / 2, TOP, width, height

    @cached_property
    def cell(self) -> int:
        """Pixels of the picture for each position of a map."""
        size, maps = self.explanation.size, self.explanation.cams.shape[1:]
        cell = size[0] // maps[0]
        if size != tuple(cell * side for side in maps):
            raise ValueError(
                f"expected maps that cut the picture into whole squares, to draw boxes on them, "
                f"got maps of {maps[0]}×{maps[1]} on pictures of {size[0]}×{size[1]}"
            )
        return cell

    @cached_property
    def boxes(self) -> list[Tensor | None]:
        """The box that each map gives, (1, 4); None for one that holds infinity or no number."""
        maps = torch.from_numpy(self.explanation.cams[list(self.classes)]).split(1)
        level, cell = self.state.level / 100, self.cell
        return [box_from_map(one, level, cell) if one.isfinite().all() else None for one in maps]

    @property
    def has_numbers(self) -> bool:
        """Whether the numbers are written out, for which the squares must have room."""
        return self.state.view == "numbers" and max(self.cams.shape[1:]) <= MOST_NUMBERS


def describe_comparison(comparison: Comparison) -> list[str]:
    """Say what the network says, and how each of the two logits comes about.

    Returns:
        Sentences; rows and columns are counted from 0.
    """
    probabilities, names = comparison.explanation.probabilities, comparison.class_names
    truth = "" if comparison.label is None else f": {names[comparison.label]}"
    predicted = say_best(probabilities, names, comparison.label, decimals=1)
    when = say_epoch(comparison.state.epoch, comparison.epochs)
    begin = f"{when}{'picture' if when else 'Picture'} {comparison.state.picture}"
    sentences = [f"{begin}{truth}; predicted {predicted}."]
    sentences += [_describe_class(comparison, side) for side in (0, 1)]
    if comparison.state.view == "numbers" and not comparison.has_numbers:
        sentences.append("The squares are too small for their numbers.")
    return sentences


def _describe_class(comparison: Comparison, side: int) -> str:
    """Write the sum behind a logit, with ≈ where only rounding keeps it from adding up."""
    explanation, number = comparison.explanation, comparison.classes[side]
    cam, share = comparison.cams[side], explanation.probabilities[number]
    with np.errstate(invalid="ignore"):  # infinity of both signs has no mean
        parts = cam.mean(), explanation.bias[number], explanation.logits[number]
    sum_ = NO_NUMBER
    if not np.isnan(parts).any():
        mean, bias, logit = (_fixed(part) for part in parts)
        equals = "≈" if abs(float(mean) + float(bias) - float(logit)) >= 0.5e-3 else "="
        sum_ = f"{mean} + bias {bias} {equals} logit {logit}"
    row, column = np.unravel_index(cam.argmax(), cam.shape)
    largest = f"the largest is {_fixed(cam[row, column])} at row {row}, column {column}"
    if np.isnan(cam).any():
        largest = f"{np.isnan(cam).sum()} of them are {NO_NUMBER}"
    found = ""
    if comparison.true_box is not None:
        where, found = _describe_box(comparison, side)
        largest += where
    return (
        f"{('Left', 'Right')[side]}, {comparison.class_names[number]} "
        f"({NO_NUMBER if np.isnan(share) else f'{share:.1%}'}): "
        f"mean of {cam.size} values {sum_}; {largest}.{found}"
    )


def _describe_box(comparison: Comparison, side: int) -> tuple[str, str]:
    """Say whether the largest value is in the true box, and how well the map's box fits it."""
    found, true = comparison.boxes[side], comparison.true_box
    if found is None:
        return "", " No box, as not all values are finite numbers."
    cam = torch.from_numpy(comparison.cams[[side]])
    inside = holds(true, largest_position(cam, comparison.cell)).item()
    overlap = intersection_over_union(found, true).item()
    return (
        f", {'in' if inside else 'outside'} the true box",
        f" Its box at {comparison.state.level}% and the true box: intersection over union "
        f"{_fixed(overlap)}.",
    )


def _fixed(number: float) -> str:
    return format_number(number, 3, fixed=True)


def _as_text(comparison: Comparison, words: Sequence[str]) -> str:
    state, cams = comparison.state, comparison.cams
    how = {"overlay": f"overlay of {state.strength}%"}.get(state.view, state.view)
    smooth = ", smooth" if state.smooth and state.view != "numbers" else ""
    sentences = [*words, f"View: {how}{smooth}."]
    if comparison.has_numbers:
        for name, cam in zip(("Left", "Right"), cams, strict=True):
            sentences.append(f"{name} {join_rows(map(format_number, row) for row in cam)}.")
    if comparison.true_box is not None:
        names = "Left box", "Right box", "True box"
        for name, found in zip(names, [*comparison.boxes, comparison.true_box], strict=True):
            if found is not None:
                left, top, right, bottom = map(format_number, found[0].tolist())
                sentences.append(f"{name}: x {left} to {right}, y {top} to {bottom} pixels.")
    return " ".join(sentences)


def draw_cam(comparison: Comparison) -> Frame:
    """Draw both maps on one scale: orange below zero, white at zero, blue above.

    In the overlay each place is (1 - a) · base + a · colour, where a = s · |value| /
    (largest |value| of both maps) and s is the strength. So what hardly counts shows
    the base: (1 - s) · picture + s · (2 · white + grey picture) / 3, as dark colours would be
    lost on the black of a picture, and coloured ones taken for colours of the photograph.
    These are three layers, of which only the opacity follows the strength.
    """
    longest = shorten(max(comparison.class_names, key=len), 40)
    names = [longest] * len(comparison.class_names)
    # which may have a sentence more, and the longest word for the epoch
    state = replace(comparison.state, view="numbers", epoch=comparison.epochs, level=100)
    roomy = replace(comparison, state=state, class_names=names)
    words = describe_comparison(comparison)
    panels = [_panel(comparison, side) for side in (0, 1)]
    return Frame(panels, words, _as_text(comparison, words), room=describe_comparison(roomy))


def _panel(comparison: Comparison, side: int) -> Panel:
    """Draw a map with its class above and the scale below; its numbers are in the words."""
    state, cam, limit = comparison.state, comparison.cams[side], comparison.limit
    place, bar = comparison.box, (EDGE, TOP + ceil(comparison.box[3]) + 8, SIDE, BAR)
    levels, layers = signed_levels(cam, limit), []
    smooth = state.smooth and state.view != "numbers" and levels.shape == cam.shape
    if smooth:
        levels = _finer(levels)
    palette, part, zero = "signed", 1.0, "0"
    if state.view == "overlay":
        palette, part, zero = "overlay", state.strength / 100, "0: no colour"
        image, grey = comparison.explanation.image, comparison.explanation.grey
        soft = 2 * max(grey.shape) > SIDE  # fewer pixels are shown as squares
        usual = np.uint8([[grey.mean()]])  # so that 0 looks alike on the bar
        layers += [Pixels(image, place, "grey", smooth=soft), Pixels(usual, bar, "grey")]
        layers += [Pixels(grey, place, "pale", part, soft), Pixels(usual, bar, "pale", part)]
    layers.append(Pixels(levels, place, palette, part, smooth))
    layers.append(Pixels(COLOUR_BAR, bar, palette, part))
    y = bar[1] + BAR + 11
    drawn = [
        _write_title(comparison, side),
        *(_write_numbers(comparison, side) if comparison.has_numbers else ()),
        box(place, "gap-edge"),
        box(bar, "gap-edge"),
        text(EDGE, y, f"against {_brief(-limit, limit)}"),
        text(WIDTH / 2, y, zero, anchor="middle"),
        text(WIDTH - EDGE, y, f"for {_brief(limit, limit)}", anchor="end"),
    ]
    if comparison.true_box is not None:
        y += LEGEND
        drawn += _draw_boxes(comparison, side, y)
    names = [comparison.class_names[number] for number in comparison.classes]
    readout = Readout(comparison.cams, place, names)
    return Panel(WIDTH, y + 11, "".join(drawn), layers, readout)


def _draw_boxes(comparison: Comparison, side: int, y: float) -> list[str]:
    """Draw the box of a map and the true one on it, and a legend at that height.

    Black on white is seen on all that a map may have. The true one is thick and in dashes, so
    that both are seen where one lies on the other.
    """
    left, top, width, height = comparison.box
    across, down = width / comparison.explanation.size[1], height / comparison.explanation.size[0]
    samples = {"gap-box": EDGE + 4, "gap-box-true": EDGE + 174}
    drawn = [(class_, (x, y - 7, 28, 14)) for class_, x in samples.items()]
    found = comparison.boxes[side], comparison.true_box
    for class_, edges in zip(samples, found, strict=True):
        if edges is not None:
            x0, y0, x1, y1 = edges[0].tolist()
            place = left + across * x0, top + down * y0, across * (x1 - x0), down * (y1 - y0)
            drawn.append((class_, place))
    names = zip(samples.values(), ("box from the map", "true box"), strict=True)
    return [
        *(box(place, "gap-box-below") for _, place in drawn),
        *(box(place, class_) for class_, place in drawn),
        *(text(x + 36, y, name) for x, name in names),
    ]


def _write_title(comparison: Comparison, side: int) -> str:
    """Write the class, and at what the network says whether that is right."""
    number, label = comparison.classes[side], comparison.label
    probabilities = comparison.explanation.probabilities
    width, verdict = SIDE, ""
    if label is not None and number == best_class(probabilities):
        place = WIDTH - EDGE - VERDICT, 4, VERDICT, 20
        width = SIDE - VERDICT - 8
        verdict = draw_verdict(place, judge(probabilities, label), 12, "answer")
    title = f"{('Left', 'Right')[side]}: {comparison.class_names[number]}"
    return heading(14, title, "point at it", width, EDGE) + verdict


def _finer(levels: np.ndarray) -> np.ndarray:
    """Pass from place to place smoothly, as numbers: colours would miss the white between."""
    rows, columns = levels.shape
    times = max(1, 64 // max(rows, columns))
    size = times * columns, times * rows
    return np.asarray(Image.fromarray(levels).resize(size, Image.Resampling.BILINEAR))


def _write_numbers(comparison: Comparison, side: int) -> list[str]:
    """Write the number of each position on its square, black or white as is better to read."""
    cam, limit = comparison.cams[side], comparison.limit
    left, top, width, height = comparison.box
    width, height = width / cam.shape[1], height / cam.shape[0]
    light = (signed_colours(cam / (limit or 1)) / 255) ** 2.2 @ (0.2126, 0.7152, 0.0722)
    drawn = []
    for (row, column), number in np.ndenumerate(cam):
        x, y = left + column * width, top + row * height
        drawn.append(box((x, y, width, height), "gap-edge"))
        if np.isfinite(number):  # else it has a pattern
            ink = "gap-black" if light[row, column] > 0.18 else "gap-white"  # WCAG's middle
            words = _brief(number, limit)
            drawn.append(text(x + width / 2, y + height / 2, words, 12, "middle", ink))
    return drawn


def _brief(value: float, limit: float) -> str:
    """Write a number in five characters, with as many decimals as the largest one needs."""
    if limit and not 0.05 <= limit < 1e4:
        return shorten_exponent(f"{value:.0e}") if value else "0"
    return format_number(value, 0 if limit >= 100 else 1 if limit >= 10 else 2, fixed=True)


class CamLab(Lab):
    """Compare what speaks for two classes, and where in the picture it does.

    The network is asked as it is when the lab is made and when a picture is first on view.
    After more training make a new lab. With a run only its weights are looked at.

    Args:
        model: pictures to logits (N, K) through global average pooling and a linear layer, or
            a 1×1 convolution and global average pooling; left as it was.
        images: shape (N, C, H, W), as the model takes them.
        labels: class number of each picture, if they are known.
        class_names: of the K class numbers; when None, the numbers.
        run: what `fit(model, ..., keep_epochs=True)` returned, to look at the network before
            training and after each epoch.
        boxes: around the thing in each picture, if that is known, (N, 4), as in
            `gap_utils.localisation`. They are drawn beside the boxes that the maps give, and
            compared.
        picture, left, right, view, strength, smooth, level, epoch: as in `CamState`.

    Attributes:
        value: the `CamState` on view; it can be set. `lab.set(right=3)` changes single fields.

    Raises:
        ValueError: if a setting is not possible, the maps of this model do not add up to
            its logits, the run has no weights or is that of another network, or a box is not
            inside its picture or the maps do not cut the picture into whole squares.

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
        run=None,
        boxes: Tensor | None = None,
        **settings,
    ):
        check_input(model, images)
        self._epochs, self._images, self._strip = Epochs(model, run), images, Strip(images)
        self._head = self._find_head()
        self._count = len(self._head.bias)  # of the classes
        self._labels = None if labels is None else read_labels(labels, len(images), self._count)
        self._class_names = read_names(class_names, self._count)
        if len(self._class_names) != self._count:
            raise ValueError(
                f"expected a name for each of {self._count} classes, got {len(self._class_names)}"
            )
        self._boxes = None if boxes is None else _read_boxes(boxes, images)
        self._explain = lru_cache(PICTURES_REMEMBERED)(
            lambda n, epoch: self._explain_picture(self._images[n : n + 1], epoch)
        )
        self._next_wrong = lru_cache(PICTURES_REMEMBERED)(
            lambda n, epoch: next_wrong([self._epochs.at(epoch)], images, self._labels, n)
        )
        settings.setdefault("right", RANKS[min(2, self._count) - 1])
        super().__init__(CamState(**settings), self._make_controls())

    def __repr__(self) -> str:
        comparison = self.compare(self._state)
        left, right = (comparison.class_names[number] for number in comparison.classes)
        name, state = type(self).__name__, self._state
        when = "" if state.epoch is None else f"epoch {state.epoch} of {self._epochs.last}, "
        boxes = "" if self._boxes is None else f"; boxes at {state.level}%"
        return f"{name}(picture {state.picture}, {when}{state.view}: {left}, {right}{boxes})"

    def compare(self, state: CamState) -> Comparison:
        """Pick the two chosen classes out of what the network makes of a picture."""
        explanation = self._explain(state.picture, state.epoch)
        order = np.argsort(-explanation.logits, kind="stable")
        classes = tuple(
            int(order[RANKS.index(chosen)]) if isinstance(chosen, str) else chosen
            for chosen in (state.left, state.right)
        )
        label = None if self._labels is None else self._labels[state.picture]
        names, last = self._class_names, self._epochs.last
        true = None if self._boxes is None else self._boxes[state.picture][None]
        return Comparison(state, explanation, label, classes, names, last, true)

    def draw(self, state: CamState) -> Frame:
        """Draw both maps."""
        return self._strip.put_above(draw_cam(self.compare(state)), state.picture)

    def complete(self, state: CamState) -> CamState:
        """Raise ValueError if there is no such picture or class."""
        check_below("picture", state.picture, len(self._images))
        for name in ("left", "right"):
            chosen = getattr(state, name)
            place = RANKS.index(chosen) if isinstance(chosen, str) else chosen
            if place >= self._count:
                raise ValueError(
                    f"expected {name} to be one of {self._count} classes, got {chosen!r}"
                )
        return replace(state, epoch=self._epochs.complete(state.epoch))

    with_a_kernel = (
        "With a kernel you compare any two classes, in all views, on every picture, and bring your "
        "own network."
    )

    def tour(self) -> Iterator[CamState]:
        """Every class beside the likeliest, on twenty pictures; with boxes, every tenth level."""
        value, pictures = self.value, range(min(20, len(self._images)))
        left, right = (value.left, *range(min(10, self._count))), RANKS[: min(3, self._count)]
        views, smooth, levels = VIEWS, (False, True), (value.level,)
        if self._boxes is not None:
            views, smooth, levels, right = VIEWS[1:2], (False,), range(0, 101, 10), (value.right,)
        options = product(pictures, left, right, views, (value.strength,), smooth, levels)
        return (replace(CamState(*state), epoch=value.epoch) for state in options)

    def press(self, name: str, state: CamState) -> CamState:
        """Go to the next picture that the network gets wrong."""
        if name != NEXT_WRONG.name:
            return super().press(name, state)
        return replace(state, picture=self._next_wrong(state.picture, state.epoch))

    def limits(self, state: CamState) -> dict[str, dict[str, Any]]:
        """Say how many pictures there are, and hide what does nothing in the view on hand."""
        last = len(self._images) - 1
        return {
            "picture": {"high": last, "hidden": last == 0},
            "strength": {"hidden": state.view != "overlay"},
            "smooth": {"hidden": state.view == "numbers"},
        }

    def _explain_picture(self, picture: Tensor, epoch: int | None) -> Explanation:
        model = self._epochs.at(epoch)
        return explain_picture(model, self._head.of(model), picture)

    def _find_head(self) -> CamHead:
        """Find it after the last epoch: at the start it may be all zero, which fits any maps."""
        model, first = self._epochs.at(None), self._images[:1]
        if not np.isfinite(read_logits(show_picture(model, first)[1])).all():
            raise ValueError(f"expected logits of the first picture, got {NO_NUMBER} among them")
        return find_cam_head(model, as_input(model, first))

    def _make_controls(self) -> list[Any]:
        named = self._class_names != tuple(map(str, range(self._count)))
        names = [f"{n} {name}" if named else name for n, name in enumerate(self._class_names)]
        classes = [  # no two labels are alike, as a number is in each
            *zip(RANK_LABELS[: self._count], RANKS, strict=False),
            *zip(names, range(self._count), strict=True),
        ]
        return [
            Slider("picture", "Picture", 0, 0, main=True),
            *self._epochs.slider(),
            Choice("left", "Left class", classes),
            Choice("right", "Right class", classes),
            Choice("view", "View", [(view, view) for view in VIEWS], style="radio"),
            *([NEXT_WRONG] * bool(self._labels and len(self._images) > 1)),
            START_AGAIN,
            *([Slider("level", "Box level %", 0, 100)] * (self._boxes is not None)),
            # last, since they leave a gap where they do nothing
            Slider("strength", "Strength %", 0, 100),
            Toggle("smooth", "Smooth"),
        ]


def _read_boxes(boxes: Any, images: Tensor) -> Tensor:
    """Read a box (left, top, right, bottom) for each picture (N, C, H, W)."""
    try:
        found = torch.as_tensor(boxes).cpu()
    except (TypeError, ValueError, RuntimeError):
        found = torch.empty(0)
    count, (height, width) = len(images), images.shape[2:]
    if found.shape != (count, 4):
        raise ValueError(
            f"expected a box for each of {count} pictures, ({count}, 4), got {name_kind(boxes)}"
        )
    area(found)  # which refuses those without one
    outside = (found < 0).any(1) | (found[:, 2:] > torch.tensor([width, height])).any(1)
    if outside.any():
        raise ValueError(
            f"expected boxes inside their pictures of {height}×{width}, got "
            f"{tuple(found[outside][0].tolist())}"
        )
    return found
