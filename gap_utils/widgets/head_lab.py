"""Three heads on the same features, side by side. Introduced in lesson 02.

`HeadState` and `run_heads` compute, `draw_heads` draws, `HeadLab` names the controls. Shapes
and costs come from real PyTorch layers through `gap_utils.shapes`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from math import prod
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from gap_utils.shapes import MisfitError, trace_shapes
from gap_utils.svg import Frame, Panel, box, element, heading, letters_in, text
from gap_utils.values import fit_number, read_whole_numbers
from gap_utils.widgets.lab import START_AGAIN, Choice, Lab, Slider

LIMITS = {  # ResNet-50 gives 2,048 maps, RegNetY-128GF 7,392; ImageNet-21k has 21,843 classes
    "batch": (1, 256),
    "channels": (1, 8192),
    "height": (1, 224),
    "width": (1, 224),
    "num_classes": (2, 21_843),
}
BYTES = 4  # of one float32 number
LABELS = {"flatten": "flatten", "linear": "linear", "gap": "GAP", "conv": "1x1 convolution"}
COSTS = ("parameters", "multiply-adds", "activation bytes")
BOXES = (  # what can be explained: what all heads get, and two layers of each head
    "features",
    "flatten",
    "linear after flatten",
    "GAP",
    "linear after GAP",
    "1x1 convolution",
    "GAP after 1x1 convolution",
)
# of a panel, in CSS pixels
WIDTH, HEIGHT = 184, 324
FIRST, BOX, STEP = 44, 42, 60  # where the boxes begin, their height, from one to the next
EDGE = 4  # beside the boxes, for the frame of the one that is explained
BARS, BAR = 224, 34  # where the costs begin, from one to the next


@dataclass(frozen=True)
class HeadState:
    """All that `HeadLab` shows follows from this.

    Raises:
        ValueError: if a number is out of its range.
    """

    batch: int = 1  #: N of the features, whose shape is (N, C, H, W)
    channels: int = 64  #: C of the features
    height: int = 7  #: H of the features
    width: int = 7  #: W of the features
    num_classes: int = 10  #: how many numbers a head puts out for a picture
    #: (C, H, W) that the heads were built for; None builds them for the features on view
    built_for: tuple[int, int, int] | None = None
    explained: str = "linear after flatten"  #: the box whose numbers are explained, of `BOXES`

    def __post_init__(self):
        read_whole_numbers(self, **LIMITS)
        if self.explained not in BOXES:
            raise ValueError(
                f"expected explained to be one of {', '.join(BOXES)}, got {self.explained!r}"
            )
        if self.built_for is not None:
            try:
                channels, height, width = self.built_for
                built = HeadState(channels=channels, height=height, width=width)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"expected built_for to be None or (C, H, W) in the range of the sliders, "
                    f"got {self.built_for!r}"
                ) from error
            object.__setattr__(self, "built_for", built.features[1:])

    @property
    def features(self) -> tuple[int, int, int, int]:
        """Shape (N, C, H, W) of the features."""
        return (self.batch, self.channels, self.height, self.width)


def build_heads(
    channels: int, height: int, width: int, num_classes: int
) -> dict[str, nn.Sequential]:
    """Build three heads for features (C, H, W), without numbers: on PyTorch's meta device."""

    def gap() -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    with torch.device("meta"):
        layers = {
            "Flatten, then linear": {
                "flatten": nn.Flatten(),
                "linear": nn.Linear(channels * height * width, num_classes),
            },
            "GAP, then linear": {"gap": gap(), "linear": nn.Linear(channels, num_classes)},
            "1×1 convolution, then GAP": {
                "conv": nn.Conv2d(channels, num_classes, kernel_size=1),
                "gap": gap(),
            },
        }
    return {name: nn.Sequential(OrderedDict(parts)) for name, parts in layers.items()}


@dataclass(frozen=True)
class HeadRun:
    """What one head does with the features."""

    # name of each layer -> shape of what it puts out, None where nothing arrives
    steps: dict[str, tuple[int, ...] | None]
    # name of each layer -> how much it has of each of `COSTS`: numbers that it learns;
    # multiply-adds for the whole batch; bytes of what it puts out, in float32. Flatten only
    # looks at the features in another way and puts out nothing new
    costs: dict[str, tuple[int, int, int]]
    broken: str | None  # the layer that cannot take what arrives; None if there is none
    misfit: str  # why it cannot; else empty
    scrambled: bool  # whether weights meet numbers from other places than they were made for

    @property
    def parameters(self) -> int:
        """How many numbers the head learns."""
        return sum(parameters for parameters, _, _ in self.costs.values())

    @property
    def multiply_adds(self) -> int | None:
        """For the whole batch; None if the head breaks."""
        return None if self.broken else sum(number for _, number, _ in self.costs.values())

    @property
    def new_bytes(self) -> int | None:
        """Bytes of all that the layers put out; None if the head breaks."""
        return None if self.broken else sum(number for _, _, number in self.costs.values())


def run_heads(state: HeadState) -> Mapping[str, HeadRun]:
    """Feed the features on view to the three heads."""
    return _run_heads(replace(state, explained=BOXES[0]))  # the same for each box


@lru_cache(maxsize=32)  # a page asks for up to sixteen ahead, and again when it gets there
def _run_heads(state: HeadState) -> Mapping[str, HeadRun]:
    built = state.built_for or state.features[1:]
    heads = build_heads(*built, state.num_classes)
    return MappingProxyType({name: _run(head, state, built) for name, head in heads.items()})


def _run(head: nn.Sequential, state: HeadState, built: tuple[int, int, int]) -> HeadRun:
    broken = None
    try:
        trace = trace_shapes(head, state.features)
    except MisfitError as misfit:
        trace, broken = misfit.trace, misfit.layer
    steps, costs = {}, {}
    for name, layer in head.named_children():
        rows = [row for row in trace if row.name.split(".")[0] == name]
        steps[name] = rows[-1].output_shape if rows else None
        costs[name] = (
            sum(parameter.numel() for parameter in layer.parameters()),
            sum(row.multiply_adds or 0 for row in rows),
            BYTES * prod(steps[name]) if rows and name != "flatten" else 0,
        )
    misfit = _say_misfit(head, state, built) if broken else ""
    scrambled = not broken and hasattr(head, "flatten") and built != state.features[1:]
    return HeadRun(steps, costs, broken, misfit, scrambled)


def _say_misfit(head: nn.Sequential, state: HeadState, built: tuple[int, int, int]) -> str:
    arriving = state.features[1:]
    if hasattr(head, "flatten"):
        return f"its weights are for {_product(built)} numbers, {_product(arriving)} arrive"
    return f"its weights are for {built[0]:,} channels, {arriving[0]:,} arrive"


def _product(sizes: Sequence[int]) -> str:
    return f"{_join(sizes)} = {prod(sizes):,}"


def _join(sizes: Sequence[int]) -> str:
    return " × ".join(f"{size:,}" for size in sizes)


def describe_heads(state: HeadState) -> list[str]:
    """Say in a sentence or a few what to notice."""
    runs = run_heads(state)
    notes = [_describe_break(*run) for run in runs.items() if run[1].broken]
    if runs["Flatten, then linear"].scrambled:
        notes.insert(
            0,
            f"Flatten, then linear, runs, since {_product(state.built_for)} and "
            f"{_product(state.features[1:])} are equally many. But its weights meet numbers from "
            "other places than they were made for.",
        )
    if notes:
        return notes
    flatten, gap, conv = runs.values()
    if state.height * state.width == 1:
        return ["On maps of a single number flatten and GAP are the same."]
    parameters = flatten.parameters / gap.parameters
    multiply_adds = conv.multiply_adds / gap.multiply_adds
    return [
        f"Flatten, then linear, has {parameters:.1f} times the parameters of the other two.",
        f"The 1×1 convolution has {multiply_adds:.1f} times the multiply-adds of GAP, then linear.",
    ]


def _describe_break(name: str, run: HeadRun) -> str:
    layer = "The 1×1 convolution" if run.broken == "conv" else f"{name},"
    return f"{layer} breaks: {run.misfit}."


def explain(state: HeadState) -> list[tuple[str, str]]:
    """Say where the numbers of a box come from, in pieces, each with its link."""
    number = BOXES.index(state.explained)
    if number == 0:
        all_ = prod(state.features)
        said = [
            (None, f"{_product(state.features)} numbers"),
            (None, f"{all_:,} × {BYTES} = {BYTES * all_:,} bytes"),
        ]
    else:
        run = [*run_heads(state).values()][(number - 1) // 2]
        said = _explain_layer([*run.steps][(number - 1) % 2], run, state)
    pieces = [(f"{_name(state.explained)}: ", "")]
    for cost, words in said:
        pieces += [(words, _link(number, cost)), ("; ", "")]
    return pieces[:-1]


def _explain_layer(layer: str, run: HeadRun, state: HeadState) -> list[tuple[int | None, str]]:
    """Write a sum for each of `COSTS`, with its number, and what else is to be said, with None."""
    (batch, *arriving), classes = state.features, state.num_classes
    height, width = arriving[1:]
    pictures = (batch,) * (batch > 1)  # a single one is no factor
    shape = run.steps[layer]
    if shape is None and layer != run.broken:
        return [(None, "nothing arrives, since the 1×1 convolution does not fit")]
    if layer == "flatten":
        row = f"{_product(arriving)} numbers in a row"
        each = f", for each of {batch} pictures" if pictures else ""
        return [(None, f"{row}{each}, no weights, nothing new")]
    parameters, multiply_adds, new_bytes = (f"{cost:,}" for cost in run.costs[layer])
    if layer == "gap":
        factors = *pictures, shape[1], height, width
        each = f"each over {_product((height, width))} positions"
        said = [(None, f"{_join((*pictures, shape[1]))} means, {each}, no weights")]
    else:
        what, axes = ("numbers", 3) if "flatten" in run.steps else ("channels", 1)
        inputs = prod((state.built_for or arriving)[:axes])
        factors = *pictures, *((height, width) * (layer == "conv")), inputs, classes
        weights = f"{_join((inputs, classes))} weights + {classes:,} biases"
        said = [(0, f"{weights} = {parameters} parameters")]
        if layer == run.broken:
            return [(None, f"made for {inputs:,} {what}, {prod(arriving[:axes]):,} arrive"), *said]
    return [
        *said,
        (1, f"{_join(factors)} = {multiply_adds} multiply-adds"),
        (2, f"{_join((*pictures, *shape[1:], BYTES))} = {new_bytes} bytes"),
    ]


def _link(number: int, cost: int | None = None) -> str:
    """Name what lights up together: a box, or what it costs."""
    return f"box{number}" if cost is None else f"box{number}cost{cost}"


def _name(words: str) -> str:
    return words.replace("1x1", "1×1")


@lru_cache
def _longest_explanation() -> str:
    """The longest that is to be expected, which keeps the place."""
    largest = {name: high for name, (_, high) in LIMITS.items()}
    built = (None, (8192, 112, 223), (4096, 224, 224))
    states = [HeadState(**largest, built_for=of, explained=box) for of in built for box in BOXES]
    return max(map(_explain_in_words, states), key=len)


def _explain_in_words(state: HeadState) -> str:
    return "".join(words for words, _ in explain(state))


def describe_weights(state: HeadState) -> str:
    """Say which features the heads are for."""
    if state.built_for is None:
        return "The weights of the heads follow the features."
    return f"The weights of the heads are for {_join(state.built_for)} (C × H × W)."


def draw_heads(state: HeadState) -> Frame:
    """Draw the layers of the three heads with their shapes, and bars for what they cost."""
    runs, notes = run_heads(state), describe_heads(state)
    most = [max(cost or 1 for cost in of) for of in zip(*map(_costs, runs.values()), strict=True)]
    built = f" Heads built for C, H, W = {state.built_for}." if state.built_for else ""
    heads = " ".join(_describe_run(*run) for run in runs.items())
    longest = HeadState(channels=4096, height=224, width=224, built_for=(8192, 112, 224))
    explanation = _explain_in_words(state)
    return Frame(
        panels=[_head_panel(n, *run, state, most) for n, run in enumerate(runs.items())],
        words=(describe_weights(state), *notes),
        text=f"Features {state.features}, {_bytes(state):,} bytes, {state.num_classes} classes."
        f"{built} {heads} {' '.join(notes)} {explanation[0].upper()}{explanation[1:]}.",
        pieces=explain(state),
        room=(_longest_explanation(), describe_weights(longest), *describe_heads(longest)),
    )


def _bytes(state: HeadState) -> int:
    return BYTES * prod(state.features)


def _costs(run: HeadRun) -> tuple[int | None, ...]:
    """How much of each of `COSTS`."""
    return run.parameters, run.multiply_adds, run.new_bytes


def _describe_run(name: str, run: HeadRun) -> str:
    steps = [
        f"{LABELS[layer]} {'does not fit' if layer == run.broken else shape or 'is not reached'}"
        for layer, shape in run.steps.items()
    ]
    costs = [
        f"{'no' if cost is None else f'{cost:,}'} {what}"
        for what, cost in zip(COSTS, _costs(run), strict=True)
    ]
    return f"{name}: {', '.join(steps + costs)}."


def _head_panel(
    number: int, name: str, run: HeadRun, state: HeadState, most: Sequence[int]
) -> Panel:
    """The steps of a head, and bars for its costs."""
    first, then = name.split(", ")
    boxes = 0, 2 * number + 1, 2 * number + 2  # where they are in `BOXES`
    links = {
        place: [_link(place, n) for n, cost in enumerate(costs) if cost]
        for place, costs in zip(boxes, ((), *run.costs.values()), strict=True)
    }
    shown = _fit(_bytes(state), "features,  bytes")
    steps = [(f"features, {shown} bytes", str(state.features), "gap-edge", 3)]
    for layer, shape in run.steps.items():
        class_, ends = ("gap-square", 0) if layer in ("linear", "conv") else ("gap-edge", BOX / 2)
        label, result = _name(LABELS[layer]), str(shape)
        if layer == run.broken:
            class_, result = "gap-mark", "does not fit"
        elif shape is None:
            class_, result = "gap-padding", "nothing arrives"
        elif layer == "linear" and run.scrambled:
            label += " ⚠ other places"
        steps.append((label, result, class_, ends))
    drawn = [text(0, 10, f"{first},", 14), heading(29, then, "click a box", WIDTH)]
    for step, (place, what) in enumerate(zip(boxes, steps, strict=True)):
        touch = {
            "data_set": {"explained": BOXES[place]},
            "data_link": " ".join([_link(place), *links[place]]),
        }
        drawn.append(_step(step, *what, is_explained=BOXES[place] == state.explained, **touch))
    for n, (what, cost) in enumerate(zip(COSTS, _costs(run), strict=True)):
        y = BARS + BAR * n
        causes = [link for place in boxes for link in links[place] if link == _link(place, n)]
        drawn += [
            text(0, y + 8, what),
            text(WIDTH, y + 8, _fit(cost, f"{what} "), anchor="end"),
            box((0, y + 18, WIDTH, 8), "gap-pale"),
            box((0, y + 18, WIDTH * (cost or 0) / most[n], 8), "gap-blue"),
            box((-3, y - 2, WIDTH + 6, BAR - 3), "gap-clear", data_link=" ".join(causes) or None),
        ]
    return Panel(WIDTH, HEIGHT, "".join(drawn))


def _fit(number: int | None, beside: str) -> str:
    """Write a number that has a line of the panel with other words."""
    letters = letters_in(WIDTH) - len(beside)
    return "–" if number is None else fit_number(f"{number:,}", number, letters)


def _step(
    step: int, label: str, result: str, class_: str, ends: float, is_explained: bool, **touch: Any
) -> str:
    """Draw a step; one without weights has round ends, so that colour is not all that tells."""
    y = FIRST + STEP * step
    place = EDGE, y, WIDTH - 2 * EDGE, BOX
    arrow = f"M{WIDTH // 2 - 5} {y - 12}h10l-5 7zm4 -6h2v6h-2z"
    drawn = [
        element("path", d=arrow, class_="gap-dark") if step else "",
        box(place, class_, fill_opacity=0.6 if class_ == "gap-square" else None, rx=ends, **touch),
        text(WIDTH / 2, y + 13, label, 12, "middle"),
        text(WIDTH / 2, y + 29, result, 13, "middle"),
    ]
    if "⚠" in label:
        drawn.append(box(place, "gap-mark", stroke_dasharray="8 5"))
    if is_explained:
        drawn.append(box((1.5, y - 2.5, WIDTH - 3, BOX + 5), "gap-frame", rx=ends and ends + 2.5))
    return "".join(drawn)


class HeadLab(Lab):
    """Move the shape of the features and see what each of three heads makes of it.

    Args:
        batch, channels, height, width, num_classes, built_for, explained: as in `HeadState`.

    Attributes:
        value: the `HeadState` on view; it can be set. `lab.set(height=9)` changes single
            fields.

    Raises:
        ValueError: if a setting is not possible.

    Example:
        >>> HeadLab(channels=128, height=8, width=8)
        HeadLab(1x128x8x8, 10 classes: 81,930 / 1,290 / 1,290 parameters)
    """

    def __init__(self, **settings):
        controls = [
            Slider("channels", "Channels C", *LIMITS["channels"], main=True),
            Slider("height", "Height H", *LIMITS["height"], main=True),
            Slider("width", "Width W", *LIMITS["width"], main=True),
            Slider("batch", "Batch N", *LIMITS["batch"]),
            Slider("num_classes", "Classes K", *LIMITS["num_classes"]),
            Choice(
                "kept",
                "Heads",
                [("rebuilt for each size", False), ("kept as they are", True)],
                style="radio",
            ),
            Choice("explained", "Explain", [(_name(box), box) for box in BOXES]),
            START_AGAIN,
        ]
        super().__init__(HeadState(**settings), controls)

    def __repr__(self) -> str:
        state, runs = self.value, run_heads(self.value).values()
        shape = "x".join(map(str, state.features))
        counts = " / ".join(f"{run.parameters:,}" for run in runs)
        broken = sum(run.broken is not None for run in runs)
        return f"HeadLab({shape}, {state.num_classes} classes: {counts} parameters" + (
            f", {broken} of 3 broken)" if broken else ")"
        )

    with_a_kernel = "With a kernel all sizes go further, and the batch has a slider too."

    def tour(self) -> Iterator[HeadState]:
        """Small maps of about as many channels as on view, with heads kept and rebuilt."""
        channels = self.value.channels
        low, high = LIMITS["channels"]
        counts = sorted(
            {channels - 1, channels, channels + 1, 2 * channels} & {*range(low, high + 1)}
        )
        sides, kept = range(1, 7), (None, self.value.features[1:])
        for values in product(counts, sides, sides, (10, 100), kept, BOXES):
            yield HeadState(self.value.batch, *values)

    def draw(self, state: HeadState) -> Frame:
        """Draw the three heads."""
        return draw_heads(state)

    def to_fields(self, state: HeadState) -> dict[str, Any]:
        """Add whether the heads are kept, which is a control."""
        return {**super().to_fields(state), "kept": state.built_for is not None}

    def from_fields(self, values: dict[str, Any]) -> HeadState:
        """Keep the heads that there are, or build them for the features on view."""
        given = {name: value for name, value in values.items() if name != "kept"}
        state = HeadState(**{**given, "built_for": None})
        if not values["kept"]:
            return state
        return replace(state, built_for=values["built_for"] or state.features[1:])
