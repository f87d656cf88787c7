"""Three heads on the same features, side by side. Introduced in lesson 02.

`HeadState` and `run_heads` compute, `draw_heads` draws, `HeadLab` names the controls. Shapes
and costs come from real PyTorch layers through `gap_utils.shapes`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from gap_utils.shapes import MisfitError, ShapeTrace, trace_shapes
from gap_utils.svg import Frame, Panel, box, element, letters_in, text
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
# of a panel, in CSS pixels
WIDTH, HEIGHT = 184, 324
BOXES, BOX, STEP = 44, 42, 60  # where the boxes begin, their height, from one to the next
BARS, BAR = 224, 34  # where the costs begin, from one to the next


@dataclass(frozen=True)
class HeadState:
    """All that `HeadLab` shows follows from this.

    Raises:
        ValueError: if a number is out of its range.
    """

    # batch, channels, height, width: shape (N, C, H, W) of the features
    batch: int = 1
    channels: int = 64
    height: int = 7
    width: int = 7
    num_classes: int = 10  # how many numbers a head puts out for a picture
    # (C, H, W) that the heads were built for; None builds them for the features on view
    built_for: tuple[int, int, int] | None = None

    def __post_init__(self):
        read_whole_numbers(self, **LIMITS)
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
    parameters: int  # numbers that the head learns
    multiply_adds: int | None  # for the whole batch; None if the head breaks
    # bytes of all that the layers put out, in float32; flatten only looks at the features in
    # another way and adds none. None if the head breaks
    new_bytes: int | None
    broken: str | None  # the layer that cannot take what arrives; None if there is none
    note: str  # a sentence on what breaks or is likely to surprise; may be empty


@lru_cache(maxsize=32)  # a page asks for up to sixteen ahead, and again when it gets there
def run_heads(state: HeadState) -> Mapping[str, HeadRun]:
    """Feed the features on view to the three heads."""
    built = state.built_for or state.features[1:]
    heads = build_heads(*built, state.num_classes)
    return MappingProxyType({name: _run(head, state, built) for name, head in heads.items()})


def _run(head: nn.Sequential, state: HeadState, built: tuple[int, int, int]) -> HeadRun:
    broken = None
    try:
        trace = trace_shapes(head, state.features)
    except MisfitError as misfit:
        trace, broken = misfit.trace, misfit.layer
    steps = {name: _output_shape(trace, name) for name, _ in head.named_children()}
    shapes = [shape for name, shape in steps.items() if name != "flatten"]
    return HeadRun(
        steps=steps,
        parameters=sum(parameter.numel() for parameter in head.parameters()),
        multiply_adds=None if broken else trace.multiply_adds,
        new_bytes=None if broken else BYTES * sum(map(prod, shapes)),
        broken=broken,
        note=_note(head, state, built, broken),
    )


def _output_shape(trace: ShapeTrace, name: str) -> tuple[int, ...] | None:
    rows = [layer for layer in trace if layer.name.split(".")[0] == name]
    return rows[-1].output_shape if rows else None


def _note(
    head: nn.Sequential, state: HeadState, built: tuple[int, int, int], broken: str | None
) -> str:
    arriving = state.features[1:]
    if broken and hasattr(head, "flatten"):
        return (
            "Flatten, then linear, breaks: its weights are for "
            f"{_product(built)} numbers, {_product(arriving)} arrive."
        )
    if broken:
        layer = "The 1×1 convolution" if broken == "conv" else "GAP, then linear,"
        return f"{layer} breaks: its weights are for {built[0]} channels, {arriving[0]} arrive."
    if hasattr(head, "flatten") and built != arriving:
        return (
            f"Flatten, then linear, runs, since {_product(built)} and {_product(arriving)} are "
            "equally many. But its weights meet numbers from other places than they were made for."
        )
    return ""


def _product(sizes: tuple[int, ...]) -> str:
    return f"{_join(sizes)} = {prod(sizes):,}"


def _join(sizes: tuple[int, ...]) -> str:
    return " × ".join(map(str, sizes))


def describe_heads(state: HeadState) -> list[str]:
    """Say in a sentence or a few what to notice."""
    runs = run_heads(state)
    notes = [run.note for run in runs.values() if run.note]
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
    return Frame(
        panels=[_head_panel(name, run, state, most) for name, run in runs.items()],
        words=(describe_weights(state), *notes),
        text=f"Features {state.features}, {_bytes(state):,} bytes, {state.num_classes} classes."
        f"{built} {heads} {' '.join(notes)}",
        room=(describe_weights(longest), *describe_heads(longest)),
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


def _head_panel(name: str, run: HeadRun, state: HeadState, most: list[int]) -> Panel:
    first, then = name.split(", ")
    shown = _fit(_bytes(state), "features,  bytes")
    drawn = [
        text(0, 10, f"{first},", 15),
        text(0, 29, then, 15),
        _step(0, f"features, {shown} bytes", str(state.features), "gap-edge"),
    ]
    for place, (layer, shape) in enumerate(run.steps.items(), start=1):
        has_weights, result = layer in ("linear", "conv"), str(shape)
        class_ = "gap-square" if has_weights else "gap-edge"
        if layer == run.broken:
            class_, result = "gap-mark", "does not fit"
        elif shape is None:
            class_, result = "gap-padding", "nothing arrives"
        arrow = f"M{WIDTH // 2 - 5} {BOXES + STEP * place - 9}h10l-5 8zm4 -9h2v9h-2z"
        drawn.append(element("path", d=arrow, class_="gap-dark"))
        label = LABELS[layer].replace("x", "×")
        drawn.append(_step(place, label, result, class_, is_round=not has_weights))
    for place, (what, cost) in enumerate(zip(COSTS, _costs(run), strict=True)):
        y = BARS + BAR * place
        drawn += [
            text(0, y + 8, what),
            text(WIDTH, y + 8, _fit(cost, f"{what} "), anchor="end"),
            box((0, y + 18, WIDTH, 8), "gap-pale"),
            box((0, y + 18, WIDTH * (cost or 0) / most[place], 8), "gap-blue"),
        ]
    return Panel(WIDTH, HEIGHT, "".join(drawn))


def _fit(number: int | None, beside: str) -> str:
    """Write a number that has a line of the panel with other words."""
    letters = letters_in(WIDTH) - len(beside)
    return "–" if number is None else fit_number(f"{number:,}", number, letters)


def _step(place: int, label: str, result: str, class_: str, is_round: bool = False) -> str:
    """Draw a step; one without weights has round ends, so that colour is not all that tells."""
    y = BOXES + STEP * place
    opacity = 0.6 if class_ == "gap-square" else None
    ends = BOX / 2 if is_round else None
    return "".join(
        [
            box((1.5, y, WIDTH - 3, BOX), class_, fill_opacity=opacity, rx=ends),
            text(WIDTH / 2, y + 13, label, 12, "middle"),
            text(WIDTH / 2, y + 29, result, 13, "middle"),
        ]
    )


class HeadLab(Lab):
    """Move the shape of the features and see what each of three heads makes of it.

    Args:
        batch, channels, height, width, num_classes, built_for: as in `HeadState`.

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
            Slider("width", "Width W", *LIMITS["width"]),
            Slider("batch", "Batch N", *LIMITS["batch"]),
            Slider("num_classes", "Classes K", *LIMITS["num_classes"]),
            Choice(
                "kept",
                "Heads",
                [("rebuilt for each size", False), ("kept as they are", True)],
                style="radio",
            ),
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
