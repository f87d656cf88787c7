"""Three heads on the same features, side by side. Introduced in lesson 02.

Three layers: `HeadState` and `run_heads` compute, `head_picture` draws, `HeadLab` holds the
controls. Shapes and costs come from real PyTorch layers through `gap_utils.shapes`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from math import prod
from types import MappingProxyType

import ipywidgets
import torch
from torch import nn

from gap_utils.pictures import (
    ACCENT,
    GREY,
    PALE,
    SCALE,
    SHADES,
    WHITE,
    Canvas,
    Picture,
)
from gap_utils.shapes import MisfitError, ShapeTrace, trace_shapes
from gap_utils.values import fit_number, read_whole_number
from gap_utils.widgets.lab import StateLab

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
WIDTH = 180 * SCALE  # of a box
# room for the longest sentences, so that nothing below the lab jumps when a head breaks
WORDS = "max-width: 572px; min-height: 110px; line-height: 1.5"
WEIGHTS = SHADES[len(SHADES) * 2 // 3]  # fill of a layer that has weights


@dataclass(frozen=True)
class HeadState:
    """All that `HeadLab` shows follows from this.

    Attributes:
        batch, channels, height, width: shape (N, C, H, W) of the features.
        num_classes: how many numbers a head puts out for a picture.
        built_for: (C, H, W) that the heads were built for; None builds them for the
            features on view.

    Raises:
        ValueError: if a number is out of its range.
    """

    batch: int = 1
    channels: int = 64
    height: int = 7
    width: int = 7
    num_classes: int = 10
    built_for: tuple[int, int, int] | None = None

    def __post_init__(self):
        for name in LIMITS:
            object.__setattr__(
                self, name, read_whole_number(name, getattr(self, name), *LIMITS[name])
            )
        if self.built_for is not None:
            try:
                sizes = zip(("channels", "height", "width"), self.built_for, strict=True)
                built_for = tuple(
                    read_whole_number("built_for", size, *LIMITS[name]) for name, size in sizes
                )
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"expected built_for to be None or (C, H, W) in the range of the sliders, "
                    f"got {self.built_for!r}"
                ) from error
            object.__setattr__(self, "built_for", built_for)

    @property
    def features(self) -> tuple[int, int, int, int]:
        """Shape (N, C, H, W) of the features."""
        return (self.batch, self.channels, self.height, self.width)


def build_heads(
    channels: int, height: int, width: int, num_classes: int
) -> dict[str, nn.Sequential]:
    """Build three heads without numbers, on PyTorch's meta device.

    Args:
        channels: maps of the features that the heads are for.
        height: rows of each map.
        width: columns of each map.
        num_classes: how many numbers they put out for a picture.

    Returns:
        Name -> head.
    """

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
    """What one head does with the features.

    Attributes:
        steps: name of each layer -> shape of what it puts out, None where nothing arrives.
        parameters: numbers that the head learns.
        multiply_adds: for the whole batch; None if the head breaks.
        new_bytes: bytes of all that the layers put out, in float32; flatten only looks at
            the features in another way and adds none. None if the head breaks.
        broken: the layer that cannot take what arrives; None if there is none.
        note: a sentence on what breaks or is likely to surprise; may be empty.
    """

    steps: dict[str, tuple[int, ...] | None]
    parameters: int
    multiply_adds: int | None
    new_bytes: int | None
    broken: str | None
    note: str


@lru_cache(maxsize=4)
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
    return f"{' × '.join(map(str, sizes))} = {prod(sizes):,}"


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


def head_picture(state: HeadState) -> Picture:
    """Draw the layers of the three heads with their shapes, and bars for what they cost.

    Returns:
        A picture whose text holds the same numbers.
    """
    runs = run_heads(state)
    canvas = _page(tuple(run.broken for run in runs.values())).copy()
    for column, run in enumerate(runs.values()):
        _write_numbers(canvas, column, run, state)
        _draw_bars(canvas, column, run, list(runs.values()))
    heads = [f"{name}: {_steps_text(run)}, {_costs_text(run)}." for name, run in runs.items()]
    built = f" Heads built for C, H, W = {state.built_for}." if state.built_for else ""
    return canvas.picture(
        f"Features {state.features}, {_bytes(state)}, {state.num_classes} classes.{built} "
        f"{' '.join(heads)} {' '.join(describe_heads(state))}"
    )


def _fit(count: int, letters: int) -> str:
    """Write a count with all its digits, or with a few where there is no room for all."""
    return fit_number(f"{count:,}", count, letters)


def _bytes(state: HeadState) -> str:
    return f"{BYTES * prod(state.features):,} bytes"


def _steps_text(run: HeadRun) -> str:
    return ", ".join(
        f"{LABELS[layer]} {'does not fit' if layer == run.broken else shape or 'is not reached'}"
        for layer, shape in run.steps.items()
    )


def _costs_text(run: HeadRun) -> str:
    return ", ".join(
        f"{'no' if cost is None else f'{cost:,}'} {what}" for what, cost in _costs(run).items()
    )


def _costs(run: HeadRun) -> dict[str, int | None]:
    return dict(zip(COSTS, (run.parameters, run.multiply_adds, run.new_bytes), strict=True))


@lru_cache(maxsize=16)  # numbers and bars change with a slider, the rest seldom
def _page(broken: tuple[str | None, ...]) -> Canvas:
    """Draw all but numbers and bars, given the broken layer of each head."""
    canvas = Canvas(572, 290)
    heads = build_heads(1, 1, 1, 1)
    for column, ((name, head), breaks_at) in enumerate(zip(heads.items(), broken, strict=True)):
        left, middle = _left(column), _left(column) + WIDTH // 2
        canvas.write(left, 5 * SCALE, name.replace("×", "x"), 14 * SCALE)
        arrives = True
        for number, step in enumerate(["features", *dict(head.named_children())]):
            top = _top(number)
            arrives = arrives and step != breaks_at
            fill = WEIGHTS if step in ("linear", "conv") else WHITE
            edge, width = (ACCENT, 3 * SCALE) if step == breaks_at else (GREY, SCALE)
            corners = (left, top, left + WIDTH, top + 40 * SCALE)
            canvas.fills.rectangle(
                corners, fill=fill if arrives else PALE, outline=edge, width=width
            )
            if number:
                canvas.write(middle, top + 12 * SCALE, LABELS[step], 13 * SCALE, "mm")
                start = (middle, top - 14 * SCALE, middle, top)
                canvas.fills.line(start, fill=GREY, width=3 * SCALE)
                tip = [(-5, -7), (5, -7), (0, 0)]
                tip = [(middle + x * SCALE, top + y * SCALE) for x, y in tip]
                canvas.fills.polygon(tip, fill=GREY)
        for number, what in enumerate(COSTS):
            canvas.write(left, _cost_top(number), what, 12 * SCALE)
            _draw_bar(canvas, left, number, WIDTH, PALE)
    return canvas


def _left(column: int) -> int:
    return (4 + 192 * column) * SCALE


def _top(step: int) -> int:
    return (28 + 54 * step) * SCALE


def _cost_top(number: int) -> int:
    return (188 + 36 * number) * SCALE


def _write_numbers(canvas: Canvas, column: int, run: HeadRun, state: HeadState) -> None:
    middle = _left(column) + WIDTH // 2
    features = f"features, {_fit(BYTES * prod(state.features), 12)} bytes"
    canvas.write(middle, _top(0) + 12 * SCALE, features, 13 * SCALE, "mm")
    for number, (layer, shape) in enumerate([("features", state.features), *run.steps.items()]):
        missing = "does not fit" if layer == run.broken else "nothing arrives"
        canvas.write(middle, _top(number) + 28 * SCALE, str(shape or missing), 13 * SCALE, "mm")


def _draw_bars(canvas: Canvas, column: int, run: HeadRun, runs: list[HeadRun]) -> None:
    left = _left(column)
    for number, (what, cost) in enumerate(_costs(run).items()):
        shown = "-" if cost is None else _fit(cost, 15)
        canvas.write(left + WIDTH, _cost_top(number), shown, 12 * SCALE, "ra")
        largest = max(_costs(other)[what] or 0 for other in runs)
        length = round(WIDTH * (cost or 0) / max(largest, 1))
        if length:
            _draw_bar(canvas, left, number, length, SHADES[-1])


def _draw_bar(canvas: Canvas, left: int, number: int, length: int, fill: int) -> None:
    top = _cost_top(number)
    bar = (left, top + 18 * SCALE, left + length - 1, top + 25 * SCALE)
    canvas.fills.rectangle(bar, fill=fill)


class HeadLab(StateLab):
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
        super().__init__(HeadState(**settings))

    def picture(self) -> Picture:
        """Draw the state on view."""
        return head_picture(self._state)

    def __repr__(self) -> str:
        state, runs = self._state, run_heads(self._state).values()
        shape = "x".join(map(str, state.features))
        counts = " / ".join(f"{run.parameters:,}" for run in runs)
        broken = sum(run.broken is not None for run in runs)
        return f"HeadLab({shape}, {state.num_classes} classes: {counts} parameters" + (
            f", {broken} of 3 broken)" if broken else ")"
        )

    def _build(self) -> None:
        labels = {
            "batch": "Batch N",
            "channels": "Channels C",
            "height": "Height H",
            "width": "Width W",
            "num_classes": "Classes K",
        }
        self._sliders = {
            name: self._slider(label, *LIMITS[name], self._setter(name))
            for name, label in labels.items()
        }
        self._heads = ipywidgets.ToggleButtons(
            options=[("rebuilt for each size", False), ("kept as they are", True)],
            description="Heads",
            style={"button_width": "164px"},
            layout={"width": "300px"},
        )
        self._on_move(self._heads, self._keep)
        self._built = ipywidgets.HTML()
        reset = self._button("Start again", self._start_again)
        self._lay_out(*self._sliders.values(), self._heads, self._built, reset)

    def _keep(self, keep: bool) -> None:
        self.set(built_for=self._state.features[1:] if keep else None)

    def _show(self) -> None:
        """Bring controls, picture and words in line with the state."""
        state = self._state
        with self._controls_follow():
            self._move(self._sliders)
            self._heads.value = state.built_for is not None
        built = "Their weights follow the features."
        if state.built_for:
            built = f"Their weights are for {' × '.join(map(str, state.built_for))} (C × H × W)."
        self._built.value = f"<i>{built}</i>"
        words = "<br>".join(map(escape, describe_heads(state)))
        self._draw(head_picture(state), f'<div style="{WORDS}">{words}</div>')
