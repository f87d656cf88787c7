"""Running a model and leaving it as it was: predictions and accuracy. Introduced in lesson 04."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gap_utils.data import Split


class Score(NamedTuple):
    """How well a model does.

    Attributes:
        loss: mean over the pictures.
        accuracy: share of the pictures whose largest logit is that of their class, 0 to 1.
    """

    loss: float
    accuracy: float


@contextmanager
def preserve_training_mode(model: nn.Module) -> Iterator[None]:
    """Put every module back in training or evaluation mode as it was, also after an error."""
    before = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Run a model in evaluation mode without gradients, then put its modes back."""
    with preserve_training_mode(model), torch.no_grad():
        model.eval()
        yield


def as_input(model: nn.Module, images: Tensor) -> Tensor:
    """Bring pictures to the device and number format of a model's weights, if it has any."""
    weights = next((p for p in model.parameters() if p.is_floating_point()), images)
    return images.to(weights.device, weights.dtype)


def predict(model: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """Return the logits of pictures, in evaluation mode; the model is left as it was.

    Args:
        model: pictures (N, C, H, W) to logits (N, K).
        images: shape (N, C, H, W), on any device.
        batch_size: how many pictures the model gets at once.

    Returns:
        Logits, shape (N, K), on the device of the model, without gradients.
    """
    with evaluation_mode(model):
        return torch.cat([model(as_input(model, batch)) for batch in images.split(batch_size)])


def evaluate(
    model: nn.Module,
    split: Split,
    loss_function: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> Score:
    """Measure loss and accuracy of a model.

    Args:
        model: pictures (N, C, H, W) to logits (N, K); left as it was.
        split: pictures and their classes.
        loss_function: (logits, labels) to their mean loss.

    Returns:
        Loss and accuracy (0 to 1).

    Example:
        >>> images = torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 0.0]]).reshape(3, 2, 1, 1)
        >>> split = Split(images, torch.tensor([0, 1, 1]), torch.arange(3))
        >>> round(evaluate(nn.Flatten(), split).accuracy, 4)
        0.6667
    """
    logits = predict(model, split.images)
    labels = split.labels.to(logits.device)
    correct = (logits.argmax(1) == labels).sum().item()
    return Score(loss_function(logits, labels).item(), correct / len(split))
