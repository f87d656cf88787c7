"""What a layer of a network gives for a picture, and which numbers its colours stand for.

The capturing itself is `gap_utils.activations.capture_activations`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from gap_utils.widgets.one_picture import (
    Epochs,
    check_input,
    find_logits,
    name_kind,
    show_picture,
)

READINGS = 4  # are kept: another map is marked of the same; what comes again the page has kept
# more than so many times the 99th percentile is beyond a scale of colours; among few
# numbers, none is an exception
USUAL, SEVERAL, MANY = 0.99, 3, 50


@dataclass(frozen=True)
class Scale:
    """Which numbers the colours stand for."""

    limit: float  # the distance from zero with the darkest colour
    # lowest, highest: the ends of the finite numbers
    lowest: float
    highest: float
    beyond: int  # how many of them are further from zero than the limit
    others: int  # how many are infinite or no number


def scale_of(maps: np.ndarray, limit: float | None = None) -> Scale:
    """Choose a scale that a few very large numbers cannot make pale for all others.

    It ends at a given limit, else at the largest number that is at most three times the 99th
    percentile of all that are not zero.

    Example:
        >>> scale_of(np.array([*range(-60, 40), 1000.0])).limit
        60.0
    """
    finite = maps[np.isfinite(maps)]
    sizes = abs(finite[finite != 0])
    if limit is None:
        limit = sizes.max(initial=0)
        usual = int(USUAL * (len(sizes) - 1))
        # to count is quicker than to sort them all
        if len(sizes) >= MANY and (sizes >= limit / SEVERAL).sum() < len(sizes) - usual:
            limit = sizes[sizes <= SEVERAL * np.partition(sizes, usual)[usual]].max()
    ends = finite.min(initial=0), finite.max(initial=0)
    beyond = int((sizes > limit).sum())
    return Scale(float(limit), *map(float, ends), beyond, maps.size - finite.size)


@dataclass(frozen=True, eq=False)
class Reading:
    """What a layer gives for a picture."""

    maps: np.ndarray  # shape (C, H, W), float32
    means: np.ndarray  # of each map, shape (C,)
    maxima: np.ndarray  # of each map, shape (C,)
    # what the network gives, shape (K,), K > 1; None where that is another thing
    logits: np.ndarray | None
    last: Reading | None = None  # the same after the last epoch, if this one shares its scales

    @cached_property
    def scale(self) -> Scale:
        """One scale of colours for all maps."""
        return scale_of(self.maps, self.last and self.last.scale.limit)


class MapReader:
    """Read the maps of a network's layers, and keep those of the last pictures.

    Args:
        model: any module that takes pictures; left as it was.
        images: shape (N, C, H, W).
        layers: as in `capture_activations`; when None, all modules without children.
        run: as in `Epochs`.

    Attributes:
        epochs: the network at each epoch of the run.
        layers: name -> kind and shape of its maps, such as ("ReLU", (8, 28, 28)), in the
            order of the calls.
        classes: how many logits the network gives; None where that is another thing.
        read: a function of picture, layer and maybe epoch that gives a `Reading`.

    Raises:
        ValueError: if there are no pictures, no layer gives maps (1, C, H, W) for one, or the
            run is not one of this network.
    """

    def __init__(self, model: nn.Module, images: Tensor, layers=None, run=None):
        check_input(model, images)
        self.epochs, self._images = Epochs(model, run), images
        if layers is None:
            layers = [name for name, module in model.named_modules() if not any(module.children())]
        maps, output = show_picture(model, images[:1], layers)  # which may be modules of this one
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
                + (", ".join(map(layer_name, maps)) or "none")
            )
        self.read = lru_cache(READINGS)(self._read)

    def _read(self, picture: int, layer: str, epoch: int | None = None) -> Reading:
        """Read one layer's maps for a picture."""
        image = self._images[picture : picture + 1]
        captured, output = show_picture(self.epochs.at(epoch), image, layer)
        given = captured.get(layer)
        if not _are_maps(given):
            raise ValueError(
                f"expected {layer_name(layer)} to give maps (1, C, H, W) for picture {picture}, "
                f"got {name_kind(given)}"
            )
        maps = given[0].dequantize().float().cpu()  # whatever numbers they are
        logits = _find_logits(output)
        largest = maps.nan_to_num(0, 0, 0).abs().amax((1, 2))
        means = maps.mean((1, 2))
        means[means.abs() < 1e-8 * largest] = 0  # so little is what rounding leaves of 0
        last = None
        if epoch not in (None, self.epochs.last):  # what is weak yet is pale
            last = self.read(picture, layer, self.epochs.last)
        return Reading(
            maps.numpy(),
            means.numpy(),
            maps.amax((1, 2)).numpy(),
            logits if logits is not None and len(logits) == self.classes else None,
            last if last and last.scale.limit else None,
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


def layer_name(name: str) -> str:
    """Name a layer in a sentence."""
    return name or "the whole model"
