"""Running a model and leaving it as it was: predictions and accuracy. Introduced in lesson 04."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from gap_utils.data import Split
from gap_utils.values import read_whole_number


class Score(NamedTuple):
    """How well a model does."""

    loss: float  #: mean over the pictures
    #: share of the pictures whose largest logit is that of their class, 0 to 1; one whose largest
    #: logit is no number, or infinite, has no answer and is not in it
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
        try:
            model.eval()
        except NotImplementedError as error:
            raise ValueError(
                "expected a model with an evaluation mode, which those of torch.export lack: use "
                "the module that it was made of"
            ) from error
        yield


def check_weights(model: nn.Module) -> None:
    """Raise ValueError for a model whose weights have no numbers yet."""
    for name, weight in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(weight) or weight.is_meta:
            why = "gets its shape from a first call" if is_lazy(weight) else "is on 'meta'"
            raise ValueError(f"expected weights with numbers, but {name!r} {why}")


def as_input(model: nn.Module, images: Tensor) -> Tensor:
    """Copy pictures to the device and number format of a model's weights, if it has any.

    A copy, as a first layer that works in place would change the pictures. Integers stay
    integers: an embedding looks rows up by them, and pixels from 0 to 255 are not those from
    0 to 1 that a network was trained on. Raises ValueError as `check_weights` does.
    """
    check_weights(model)
    tensors = chain(model.parameters(), model.buffers())
    weights = next((tensor for tensor in tensors if tensor.is_floating_point()), images)
    dtype = weights.dtype if images.is_floating_point() else images.dtype
    return images.to(weights.device, dtype, copy=True)


def run_model(model: nn.Module, images: Tensor) -> Any:
    """Call a model on pictures that `as_input` has prepared, and say so if it takes no integers."""
    try:
        return model(images)
    except RuntimeError as error:
        if images.is_floating_point():
            raise
        raise ValueError(
            f"expected pictures in floating-point numbers, got {images.dtype}: {error}"
        ) from error


def check_logits(logits: Tensor, pictures: int) -> None:
    """Raise ValueError if these are not logits (N, K) of so many pictures."""
    is_tensor = isinstance(logits, Tensor)
    if not is_tensor or logits.ndim != 2 or len(logits) != pictures:
        found = tuple(logits.shape) if is_tensor else f"a {type(logits).__name__}"
        raise ValueError(f"expected logits of shape (N, K) with N = {pictures}, got {found}")


def predict(model: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """Return the logits (N, K) of pictures, in evaluation mode and without gradients.

    Args:
        model: pictures (N, C, H, W) to logits (N, K), on its device; left as it was.
        images: shape (N, C, H, W), on any device; in any floating-point format, or integers
            where the model takes those.
        batch_size: how many pictures the model gets at once.

    Raises:
        ValueError: if these are no tensor or no pictures, the batch size is not from 1 on, the
            model has no evaluation mode or weights without numbers, the pictures are integers
            and the model takes none, or what it returns are not logits.
    """
    size = read_whole_number("batch_size", batch_size, 1)
    if not isinstance(images, Tensor) or len(images) == 0:
        found = "none" if isinstance(images, Tensor) else f"a {type(images).__name__}"
        raise ValueError(f"expected a tensor with one picture or more, got {found}")
    found = []
    with evaluation_mode(model):
        for batch in images.split(size):
            found.append(run_model(model, as_input(model, batch)))
            check_logits(found[-1], len(batch))
        return torch.cat(found)


def evaluate(
    model: nn.Module,
    split: Split,
    loss_function: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> Score:
    """Measure loss and accuracy of a model.

    Args:
        model: pictures (N, C, H, W) to logits (N, K); left as it was.
        split: pictures and their classes.
        loss_function: (logits, labels) to their mean loss. It gets the logits in float32
            where the model gives shorter ones.

    Raises:
        ValueError: as `predict` does.

    Example:
        >>> images = torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 0.0]]).reshape(3, 2, 1, 1)
        >>> split = Split(images, torch.tensor([0, 1, 1]), torch.arange(3))
        >>> round(evaluate(nn.Flatten(), split).accuracy, 4)
        0.6667
    """
    logits = predict(model, split.images)
    labels = split.labels.to(logits.device)
    largest, answer = logits.max(1)  # not argmax alone: it takes NaN for the largest number
    correct = ((answer == labels) & largest.isfinite()).sum().item()
    loss = loss_function(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels)
    return Score(loss.item(), correct / len(split))
