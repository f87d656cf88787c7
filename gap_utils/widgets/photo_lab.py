"""`CamLab` for a pretrained network and photographs, the learner's own too. Lesson 08."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gap_utils.activations import CamHead
from gap_utils.backbones import Backbone
from gap_utils.photos import read_photo
from gap_utils.widgets.cam_lab import RANKS, VIEWS, CamLab, CamState
from gap_utils.widgets.lab import File
from gap_utils.widgets.one_picture import Strip


class PhotoLab(CamLab):
    """Class activation maps of photographs, with a button for more of them.

    Args:
        backbone: from `load_backbone`.
        photos: Pillow pictures in RGB, or tensors (3, size, size) from `backbone.preprocess`;
            several or one.
        size: sides of the square that the network gets; None for its own.
        crop_pct: how much of a photograph it gets, as for `backbone.preprocess`.
        settings: as in `CamLab`.

    Raises:
        ValueError: if the maps of this network do not add up to its logits, with the reason;
            if the photographs are of several sizes, or cannot be prepared; or if the network
            cannot take them.

    Example:
        >>> from gap_utils.backbones import load_backbone
        >>> from gap_utils.photos import load_photo
        >>> PhotoLab(load_backbone(), [load_photo("espresso")])
        PhotoLab(picture 0, overlay: espresso, cup)
    """

    def __init__(
        self,
        backbone: Backbone,
        photos: Iterable[Image.Image | Tensor] | Image.Image | Tensor,
        size: int | None = None,
        crop_pct: float | None = None,
        **settings,
    ):
        if not isinstance(backbone, Backbone):
            raise ValueError(f"expected a backbone of load_backbone, got {type(backbone).__name__}")
        self._backbone, self._square = backbone, (size, crop_pct)
        if isinstance(photos, Image.Image) or getattr(photos, "ndim", 4) < 4:  # a single one
            photos = [photos]
        if not isinstance(photos, Iterable) or isinstance(photos, str | bytes | Mapping):
            raise ValueError(f"expected a list of photographs, got {type(photos).__name__}")
        images = [self._prepare(photo) for photo in photos]
        shapes = {tuple(image.shape) for image in images}
        if len(shapes) != 1:
            raise ValueError(f"expected photographs of one size, got {sorted(shapes) or 'none'}")
        images = torch.stack(images)
        super().__init__(backbone.model, images, class_names=backbone.class_names, **settings)

    def add(self, photo: Image.Image | Tensor) -> None:
        """Put another photograph on view, behind those that are there."""
        image = self._prepare(photo)
        if image.shape != self._images.shape[1:]:
            expected, got = tuple(self._images.shape[1:]), tuple(image.shape)
            raise ValueError(f"expected size= to fit the photographs, {expected}, got {got}")
        self._explain_picture(image[None], self._state.epoch)  # raises where it cannot be shown
        self._images = torch.cat([self._images, image[None]])
        self._strip = Strip(self._images)
        if self._labels is not None:
            self._labels.append(None)
        self.set(picture=len(self._images) - 1)

    with_a_kernel = (
        "With a kernel you choose among all classes, and look at photographs of your own."
    )

    def tour(self) -> Iterator[CamState]:
        """The five best classes of each photograph, on all of them."""
        pictures = range(len(self._images))
        best = {n for picture in pictures for n in self._best_classes(picture)}
        for picture, left, right, view in product(pictures, (*RANKS, *best), RANKS, VIEWS):
            yield CamState(picture, left, right, view, epoch=self.value.epoch)

    def _best_classes(self, picture: int) -> list[int]:
        """The numbers of the five most likely classes."""
        logits = self._explain(picture, self.value.epoch).logits
        return np.argsort(-logits, kind="stable")[: len(RANKS)].tolist()

    def receive(self, content: bytes) -> None:
        """Add the photograph in a JPEG or PNG file; raise ValueError if it cannot be shown."""
        self.add(read_photo(content))

    def to_fields(self, state: CamState) -> dict[str, Any]:
        """Add how many photographs there are: a page keeps frames with their limits by fields."""
        return {**super().to_fields(state), "photos": len(self._images)}

    def from_fields(self, values: dict[str, Any]) -> CamState:
        """Make the state that the controls ask for."""
        return super().from_fields({k: v for k, v in values.items() if k != "photos"})

    def _prepare(self, photo: Image.Image | Tensor) -> Tensor:
        if isinstance(photo, Tensor) and not photo.is_meta:
            return photo.detach().cpu()
        return self._backbone.preprocess(photo, *self._square)

    def _find_head(self) -> CamHead:
        return self._backbone.cam_head  # its refusal says more

    def _make_controls(self) -> list[Any]:
        *controls, strength, smooth = super()._make_controls()
        file = File("photo", "Your photograph", ".jpg,.jpeg,.png")
        return [*controls, file, strength, smooth]
