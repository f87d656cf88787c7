"""A network shown one picture, and what it says: the same for all labs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from math import inf
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from gap_utils.activations import capture_activations
from gap_utils.inference import as_input, check_weights, evaluation_mode, predict
from gap_utils.svg import Box, Frame, Panel, Pixels, box, element, grey_levels, text
from gap_utils.values import check_below
from gap_utils.widgets.lab import Button, Slider

NO_NUMBER = "no number"
NEXT_WRONG = Button("wrong", "Next wrong one")
TOGETHER = 20  # pictures that are looked at together for a wrong one
PICTURES_REMEMBERED = 32  # with all that is known of them, so that the network is not asked again
# of the row of small pictures: how many, and the size of each and of the arrows, in CSS pixels
IN_A_ROW, THUMBNAIL, ARROW = 11, 32, 16
ROW = 2 * ARROW + IN_A_ROW * THUMBNAIL


def check_input(model: Any, images: Any) -> None:
    """Raise ValueError unless they are a network and pictures (N, C, H, W), at least one."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"expected a network, an nn.Module, got {type(model).__name__}")
    if isinstance(images, Tensor):
        usable = images.ndim == 4 and images.numel() and not (images.is_meta or images.is_complex())
        got = f"{tuple(images.shape)}, {images.dtype} on {images.device}"
    else:
        usable, got = False, type(images).__name__
    if not usable:
        raise ValueError(f"expected at least one picture, a tensor (N, C, H, W), got {got}")


def show_picture(
    model: nn.Module, picture: Tensor, layers: str | Sequence[str] | None = None
) -> tuple[dict[str, Any], Any]:
    """Show a network one picture.

    Args:
        model: left as it was.
        picture: shape (1, C, H, W), in any number format, on any device.
        layers: as in `capture_activations`; None for none.

    Returns:
        What the layers give, and what the network gives.

    Raises:
        ValueError: if the network has no weights yet, or raises an error.
    """
    batch = as_input(model, picture)
    captured = nullcontext({}) if layers is None else capture_activations(model, layers)
    with evaluation_mode(model), captured as maps:
        try:
            return maps, model(batch)
        except Exception as error:
            raise ValueError(
                f"expected a picture that {type(model).__name__} can take, got "
                f"{tuple(picture.shape[1:])}, where it raises {type(error).__name__}: {error}"
            ) from error


def name_kind(given: Any) -> str:
    """Say the shape of a tensor, or what else it is."""
    if given is None:
        return "none"
    return str(tuple(given.shape)) if isinstance(given, Tensor) else type(given).__name__


def find_logits(output: Any) -> np.ndarray | None:
    """Read the logits (K,) of one picture; None if the output is another thing than (1, K)."""
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != 1:
        return None
    return output[0].float().cpu().numpy() if output.numel() else None


def read_logits(output: Any, most: float = inf) -> np.ndarray:
    """Read the logits (K,) of one picture; raise ValueError if the output is another thing."""
    logits = find_logits(output)
    if logits is None or len(logits) > most:
        got = name_kind(output)
        limit = "" if most == inf else f", of at most {most} classes,"
        raise ValueError(
            f"expected a model that gives logits (1, K){limit} for a picture, got {got}"
        )
    return logits


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turn logits (K,) into probabilities, all NaN where one would be no number.

    In float64: in float32 two logits that differ may get the same probability.
    """
    return torch.from_numpy(logits).double().softmax(0).numpy()


def best_class(probabilities: np.ndarray) -> int | None:
    """Say which class is the most likely; None where the probabilities are no numbers."""
    return None if np.isnan(probabilities).any() else int(probabilities.argmax())


def judge(probabilities: np.ndarray, label: int) -> str:
    """Say "right", "wrong" or "no number"."""
    best = best_class(probabilities)
    return NO_NUMBER if best is None else "right" if best == label else "wrong"


def draw_verdict(place: Box, judged: str, size: int = 13, what: str = "") -> str:
    """Write right or wrong so that they are told apart at a glance, by sign and colour too.

    Args:
        place: where it stands in the middle.
        judged: what `judge` says; what is neither is written in small letters.
        size: of the letters.
        what: is right or wrong, where that has to be said.
    """
    x, y, width, height = place
    middle = x + width / 2, y + height / 2
    sign = {"right": "✓", "wrong": "✗"}.get(judged)
    if sign is None:
        return text(*middle, judged, anchor="middle")
    class_ = f"gap-ink-{judged}"
    wash = box(place, class_, fill_opacity=0.14, rx=3)
    return wash + text(*middle, f"{sign} {judged} {what}".rstrip(), size, "middle", class_)


def say_best(
    probabilities: np.ndarray, class_names: Sequence[str], label: int | None, decimals: int = 0
) -> str:
    """Say what a network says, and whether it is right where that is known.

    Example:
        >>> say_best(np.array([0.1, 0.9]), ["cat", "cup"], label=0)
        'cup (90%), wrong'
    """
    if (best := best_class(probabilities)) is None:
        return NO_NUMBER
    said = f"{class_names[best]} ({probabilities[best]:.{decimals}%})"
    return said if label is None else f"{said}, {judge(probabilities, label)}"


def for_showing(picture: Tensor) -> np.ndarray:
    """Copy a picture as float32; 0 where it is no number or infinite."""
    return picture.detach().float().nan_to_num(0, 0, 0).cpu().numpy()


class Strip:
    """Small pictures in a row, to choose one by looking.

    Args:
        images: shape (N, C, H, W).
    """

    def __init__(self, images: Tensor):
        self._images = images
        self._row = lru_cache(4)(self._read_row)

    def put_above(self, frame: Frame, picture: int) -> Frame:
        """Put the row with that picture above a frame; a single picture needs none."""
        count = len(self._images)
        if count == 1:
            return frame
        first = picture // IN_A_ROW * IN_A_ROW
        last = min(first + IN_A_ROW, count) - 1
        boxes = [
            (THUMBNAIL * n + 2, 2, THUMBNAIL - 4, THUMBNAIL - 4) for n in range(last - first + 1)
        ]
        drawn = [
            box(place, "gap-edge", data_set={"picture": first + n}) for n, place in enumerate(boxes)
        ]
        drawn.append(box(boxes[picture - first], "gap-mark"))
        if first > 0:
            drawn += _arrow(ROW - 2 * ARROW, -1, first - 1)
        if last + 1 < count:
            drawn += _arrow(ROW - ARROW, 1, last + 1)
        levels = self._row(first)
        x, y, _, height = boxes[0]
        pixels = Pixels(levels, (x - 2, y - 2, THUMBNAIL * len(boxes), height + 4), "grey")
        panel = Panel(ROW, THUMBNAIL, "".join(drawn), [pixels], above=True)
        return replace(frame, panels=[*frame.panels, panel])

    def _read_row(self, first: int) -> np.ndarray:
        """Put the pictures from `first` on side by side, each in a square with an edge."""
        squares = []
        for picture in self._images[first : first + IN_A_ROW]:
            image = Image.fromarray(image_of(picture))
            side = 2 * THUMBNAIL - 8
            # not by `pad`, which makes nothing of a picture that is very long
            size = [max(1, round(n * side / max(image.size))) for n in image.size]
            image = ImageOps.pad(image.resize(size, Image.Resampling.BOX), (side, side))
            squares.append(np.asarray(ImageOps.expand(image, 4)))
        return np.concatenate(squares, axis=1)


def _arrow(left: float, way: int, picture: int) -> list[str]:
    """Draw an arrow that leads to a picture of another row."""
    middle, half = left + ARROW / 2, way * (ARROW / 2 - 2)
    shape = f"M{middle + half} {THUMBNAIL / 2}l{-2 * half} -7v14z"
    place = left, 0, ARROW, THUMBNAIL
    return [
        element("path", d=shape, class_="gap-dark"),
        box(place, "gap-unseen", data_set={"picture": picture}),
    ]


def image_of(picture: Tensor, sharpest: int = 224) -> np.ndarray:
    """Stretch a picture (C, H, W) to 0 to 255; where it is not of three colours, in grey.

    Returns:
        uint8, shape (H, W, 3) or (H, W), at most so many pixels a side.
    """
    values = for_showing(picture)
    values = values.transpose(1, 2, 0) if len(values) == 3 else values.mean(0)
    image = Image.fromarray(grey_levels(values))
    image.thumbnail((sharpest, sharpest))
    return np.asarray(image)


def picture_slider(count: int) -> list[Slider]:
    """Make the control that chooses one of several pictures; a single one needs none."""
    return [Slider("picture", "Picture", 0, count - 1, main=True)] * (count > 1)


def next_wrong(
    models: Collection[nn.Module],
    images: Tensor,
    labels: Sequence[int | None],
    picture: int,
    move: Callable[[Tensor], Tensor] = lambda images: images,
) -> int:
    """Find the next picture, around the end, that one of the networks gets wrong.

    Args:
        models: pictures (N, C, H, W), or single ones, to logits (N, K); left as they were.
        images: shape (N, C, H, W).
        labels: class number of each picture; None where it is not known.
        picture: number of the one on view, where the search begins and which it never gives.
        move: what is done to pictures before the networks see them.

    Raises:
        ValueError: if there is none, or a network cannot take a picture or gives no logits.
    """
    numbers = [n % len(images) for n in range(picture + 1, picture + len(images))]
    numbers = [number for number in numbers if labels[number] is not None]
    for first in range(0, len(numbers), TOGETHER):
        some = numbers[first : first + TOGETHER]
        batch, known = move(images[some]), [labels[number] for number in some]
        maybe: set[int] = set()
        for model in models:
            try:
                logits = predict(model, batch).float().cpu().numpy()
                maybe.update(n for n in range(len(some)) if _is_wrong(logits[n], known[n]))
            except Exception:  # a model may take single pictures only
                maybe.update(range(len(some)))
        for n in sorted(maybe):  # one by one as the lab shows them: rounding differs in a batch
            shown = (show_picture(model, batch[n : n + 1])[1] for model in models)
            if any(_is_wrong(read_logits(output), known[n]) for output in shown):
                return some[n]
    raise ValueError(
        f"expected another picture that a network gets wrong, got none among the {len(numbers):,} "
        "others"
    )


def _is_wrong(logits: np.ndarray, label: int) -> bool:
    return judge(softmax(logits), label) != "right"


class Epochs:
    """A network at the start of its training and after each epoch.

    Args:
        model: the network that was trained, or one like it; left as it was.
        run: what `fit(..., keep_epochs=True)` returned; None for the network as it is.

    Attributes:
        last: how many epochs there are; None without a run.

    Raises:
        ValueError: if the run is not such a table, or that of another network.
    """

    def __init__(self, model: nn.Module, run: Any = None):
        self._model, self.last = model, None
        if run is None:
            return
        attrs = getattr(run, "attrs", None)
        self._weights = attrs.get("weights") if isinstance(attrs, Mapping) else None
        if not isinstance(self._weights, tuple) or not self._weights:
            got = type(run).__name__ if attrs is None else "a table without weights"
            raise ValueError(
                f"expected run to be what fit(..., keep_epochs=True) returned, got {got}"
            )
        check_weights(model)
        here = _shapes(model.state_dict())
        for there in map(_shapes, self._weights):
            for name in {**here, **there}:
                if here.get(name) != there.get(name):
                    raise ValueError(
                        f"expected run to be of this network, got one whose {name!r} is "
                        f"{there.get(name, 'not there')}, and {here.get(name, 'not there')} here"
                    )
        try:
            self._model = deepcopy(model)  # which takes on the weights of the epoch asked for
        except Exception as error:  # whatever a model raises
            raise ValueError(
                f"expected a network that can be copied, got {type(error).__name__}: {error}"
            ) from error
        self.last = len(self._weights) - 1

    def at(self, epoch: int | None) -> nn.Module:
        """Give the network as it was after an epoch, until another one is asked for."""
        if self.last is not None:
            self._model.load_state_dict(self._weights[self.last if epoch is None else epoch])
        return self._model

    def complete(self, epoch: int | None) -> int | None:
        """Make None the last epoch, if there is a run; raise ValueError for one that is not."""
        if self.last is None:
            if epoch is not None:
                raise ValueError(f"expected no epoch where the lab has no run, got {epoch}")
            return None
        if epoch is None:
            return self.last
        check_below("epoch", epoch, self.last + 1)
        return epoch

    def slider(self) -> list[Slider]:
        """Make the control that chooses the epoch, if there are several."""
        return [Slider("epoch", "Epoch", 0, self.last or 0, main=True)] * bool(self.last)


def _shapes(weights: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(getattr(numbers, "shape", ())) for name, numbers in weights.items()}


def say_epoch(epoch: int | None, last: int | None) -> str:
    """Begin a sentence with how far the network is; empty where there is no run.

    Example:
        >>> say_epoch(3, 5), say_epoch(0, 5), say_epoch(None, None)
        ('After epoch 3 of 5, ', 'Before training, ', '')
    """
    if epoch is None or last is None:
        return ""
    return f"After epoch {epoch} of {last}, " if epoch else "Before training, "
