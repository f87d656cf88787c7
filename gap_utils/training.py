"""Training on tensors that stay on the device, and honest accuracy. Introduced in lesson 04."""

from __future__ import annotations

import hashlib
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from gap_utils.data import Dataset, Part
from gap_utils.device import pick_device, use_suggested_threads

if TYPE_CHECKING:
    import pandas

COLUMNS = ("epoch", "train_loss", "validation_loss", "validation_accuracy", "seconds")
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))


@dataclass(frozen=True)
class Recipe:
    """How to train; Adam does the steps.

    Attributes:
        learning_rate: the highest one where `one_cycle`.
        batch_size: pictures in a step.
        one_cycle: let the learning rate rise and fall once over the whole run, or keep it.
        shuffle: draw a new order of the pictures in every epoch, or keep theirs.
        xavier: begin with Xavier weights and biases of 0.01, in place of the model's own.
        sigmoid: put a sigmoid between the logits and the cross-entropy.
    """

    learning_rate: float = 0.02
    batch_size: int = 128
    one_cycle: bool = True
    shuffle: bool = True
    xavier: bool = False
    sigmoid: bool = False

    def __post_init__(self):
        try:
            rate, size = float(self.learning_rate), index(self.batch_size)
        except (TypeError, ValueError):
            rate = size = 0
        if not (0 < rate < math.inf and size > 0):
            raise ValueError(
                "expected a learning rate above 0 and a whole batch size from 1 on, got "
                f"{self.learning_rate!r} and {self.batch_size!r}"
            )
        object.__setattr__(self, "learning_rate", rate)
        object.__setattr__(self, "batch_size", size)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of logits (N, K) for class numbers (N,)."""
        return F.cross_entropy(torch.sigmoid(logits) if self.sigmoid else logits, labels)


OURS = Recipe()
# of the best-known comparison of GAP and GMP on Fashion-MNIST, with its sigmoid
ARTICLE = Recipe(3e-4, 64, one_cycle=False, shuffle=False, xavier=True, sigmoid=True)


class Score(NamedTuple):
    """How well a model does.

    Attributes:
        loss: mean over the pictures.
        accuracy: part of the pictures whose largest logit is that of their class, 0 to 1.
    """

    loss: float
    accuracy: float


class DivergedError(ArithmeticError):
    """A loss that is no number.

    Attributes:
        history: the table of the epochs before it.
    """

    def __init__(self, message: str, history: pandas.DataFrame):
        super().__init__(message, history)
        self.history = history

    def __str__(self) -> str:
        return self.args[0]


def train_epoch(
    model: nn.Module,
    part: Part,
    batches: Iterable[Tensor],
    loss_function: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """Go through the batches once, a step for each; return the mean loss of the pictures."""
    model.train()
    total = torch.zeros((), device=part.labels.device)
    for batch in batches:
        loss = loss_function(model(part.images[batch]), part.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.detach() * len(batch)  # stays on the device: .item() would wait for it
    return total.item() / len(part)


def fit(
    model: nn.Module,
    data: Dataset,
    epochs: int = 5,
    recipe: Recipe = OURS,
    seed: int = 0,
    checkpoint: str | os.PathLike | None = None,
    progress: bool = True,
) -> pandas.DataFrame:
    """Train a model where it is; the validation part is looked at after each epoch.

    A run on the CPU with the same model, seed and number of threads gives the same numbers
    again. If it is interrupted or fails, the model is as after the last whole epoch. An
    interrupt of the kernel ends the run early and is not passed on, so a loop around `fit`
    goes on. All modules are in training mode during an epoch; afterwards their modes, the
    random state of PyTorch and the number of threads (see `device.suggest_threads`) are as
    they were before.

    Args:
        model: pictures (N, C, H, W) to logits (N, K). On a CPU one in channels-last
            memory, as `build_convnet` makes them, is about a quarter faster.
        data: its `train` and `validation` are used, `test` is not. They are moved to the
            device of the model; moving them there before saves the time.
        epochs: how often each training picture is seen.
        recipe: how to train: `OURS`, `ARTICLE` or your own.
        seed: of the order of the pictures, of dropout and of Xavier's weights. The weights of
            the model itself are drawn before: `torch.manual_seed` sets those.
        checkpoint: file to write after each epoch. If it is there already, the run in it
            goes on, with the numbers that it would have had without a break. If it cannot be
            written, a warning says so and the training goes on.
        progress: whether to show a bar.

    Returns:
        A row for each whole epoch: epoch, train_loss (mean while training), validation_loss,
        validation_accuracy (0 to 1) and seconds.

    Raises:
        ValueError: if model, data or settings do not fit each other, or the checkpoint is
            damaged or of another run.
        DivergedError: if the loss is no number.
    """
    path = Path(checkpoint).expanduser() if checkpoint is not None else None
    with use_suggested_threads(), _own_random_state(), keeping_mode(model):
        device = _check(model, data, recipe, path)
        data = replace(data, train=data.train.to(device), validation=data.validation.to(device))
        run = _Run(model, data, _whole("epochs", epochs, 1), recipe, _whole("seed", seed, 0))
        if path and path.exists():
            run.load(path)
        elif recipe.xavier:
            _draw_xavier(model, seed)
        good = deepcopy(model.state_dict())
        bar = tqdm(total=run.steps, initial=run.steps_done(), unit="batch", disable=not progress)
        try:
            for epoch in range(len(run.rows), epochs):
                start = time.perf_counter()
                batches = _count(run.batches(epoch), bar)
                loss = train_epoch(
                    model, data.train, batches, recipe.loss, run.optimizer, run.schedule
                )
                score = evaluate(model, data.validation, recipe.loss)
                if not math.isfinite(loss + score.loss):
                    raise run.diverged()
                row = [epoch + 1, loss, *score, time.perf_counter() - start]
                good = deepcopy(model.state_dict())
                run.rows.append(row)
                bar.set_postfix(
                    epoch=epoch + 1, loss=f"{loss:.3f}", validation=f"{score.accuracy:.1%}"
                )
                if path:
                    run.save(path)
        except BaseException as stop:
            model.load_state_dict(good)
            if not isinstance(stop, KeyboardInterrupt):
                raise
            print(f"Interrupted: the model is as after epoch {len(run.rows)} of {epochs}.")
        finally:
            bar.close()
    return run.table()


class _Run:
    """What a run of `fit` carries from epoch to epoch, and to its checkpoint."""

    def __init__(self, model: nn.Module, data: Dataset, epochs: int, recipe: Recipe, seed: int):
        self.model = model
        self.data = data
        self.recipe = recipe
        self.seed = seed
        self.epochs = epochs
        self.pictures = len(data.train)
        self.steps_per_epoch = math.ceil(self.pictures / recipe.batch_size)
        self.steps = epochs * self.steps_per_epoch
        self.rows: list[list[float]] = []
        self.optimizer = torch.optim.Adam(model.parameters(), recipe.learning_rate, fused=True)
        if recipe.one_cycle and self.steps > 1:
            self.schedule = torch.optim.lr_scheduler.OneCycleLR(
                self.optimizer, recipe.learning_rate, total_steps=self.steps
            )
        else:
            self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1.0)

    def steps_done(self) -> int:
        return len(self.rows) * self.steps_per_epoch

    def batches(self, epoch: int) -> tuple[Tensor, ...]:
        """The numbers of the pictures of each batch."""
        # a seed for each epoch, so that a resumed run needs no random state from its file
        torch.manual_seed(self.seed + 1_000_003 * (epoch + 1))
        draw = torch.randperm if self.recipe.shuffle else torch.arange
        order = draw(self.pictures, device="cpu")  # the same order whatever trains
        return order.to(self.data.train.labels.device).split(self.recipe.batch_size)

    def table(self) -> pandas.DataFrame:
        return _frame(self.rows, COLUMNS).astype({"epoch": int})

    def diverged(self) -> DivergedError:
        return DivergedError(
            f"expected a finite loss, got none in epoch {len(self.rows) + 1}: a learning rate of "
            f"{self.recipe.learning_rate} may be too high for this model, or a picture holds "
            f"no number; the model is as after epoch {len(self.rows)}",
            self.table(),
        )

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What tells this run from others."""
        digest = hashlib.md5(usedforsecurity=False)
        for part in (self.data.train, self.data.validation):
            for tensor in (part.images, part.labels):
                digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy())
        tensors = self.model.state_dict().items()
        return {
            "epochs": self.epochs,
            "seed": self.seed,
            "data": digest.hexdigest(),
            "model": repr(self.model),
            "shapes": {name: f"{tuple(t.shape)} {t.dtype}" for name, t in tensors},
            **asdict(self.recipe),
        }

    def save(self, path: Path) -> None:
        """Write aside, then rename, so that a crash leaves the checkpoint before it."""
        state = {
            "settings": self.settings,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rows": self.rows,
        }
        aside = path.with_name(path.name + ".part")
        try:
            torch.save(state, aside)
            aside.replace(path)
        except (OSError, RuntimeError) as error:  # PyTorch's writer raises a RuntimeError
            warnings.warn(
                f"expected to write the checkpoint {path}, got: {error}; the training goes on",
                stacklevel=3,
            )
        finally:
            if aside.is_file():
                aside.unlink()

    def load(self, path: Path) -> None:
        """Go on where a checkpoint ends; the model is left alone if that is not possible."""
        before = deepcopy(self.model.state_dict())
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict):
                raise TypeError
            there, here = state["settings"], self.settings
            different = [name for name in here if there.get(name) != here[name]]
            if not different:
                self.optimizer.load_state_dict(state["optimizer"])
                self.schedule.load_state_dict(state["schedule"])
                self.rows = [list(row) for row in state["rows"]]
                self.model.load_state_dict(state["model"])
        except Exception as error:  # a damaged file can raise nearly anything
            self.model.load_state_dict(before)
            # not PyTorch's own words: they advise to load the file in an unsafe way
            raise ValueError(
                f"expected {path} to be a checkpoint of fit, got {type(error).__name__} when "
                "reading it; delete it to begin anew"
            ) from None
        if different:
            name = different[0]
            short = name in ("epochs", "seed") or name in asdict(self.recipe)
            what = f": {there.get(name)!r} there, {here[name]!r} here" if short else ""
            raise ValueError(
                f"expected {path} to be a checkpoint of this run, got one with other {name}{what}; "
                "delete it to begin anew"
            )


def _frame(rows: list, columns: Sequence[str]) -> pandas.DataFrame:
    import pandas  # takes a third of a second: not for those who only look at a lab

    return pandas.DataFrame(rows, columns=columns)


def _whole(name: str, value: int, lowest: int) -> int:
    try:
        number = index(value)
    except TypeError:
        number = None
    if number is None or number < lowest:
        raise ValueError(f"expected {name} to be a whole number from {lowest} on, got {value!r}")
    return number


def _check(
    model: nn.Module, data: Dataset, recipe: Recipe, checkpoint: Path | None
) -> torch.device:
    """Complain about what cannot be trained; return the device of the model."""
    if not isinstance(recipe, Recipe):
        raise ValueError(f"expected a Recipe such as OURS or ARTICLE, got {recipe!r}")
    if checkpoint and (checkpoint.is_dir() or not checkpoint.absolute().parent.is_dir()):
        raise ValueError(f"expected a checkpoint file in a folder that exists, got {checkpoint}")
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("expected a model with parameters to train, got one without")
    for name, part in (("train", data.train), ("validation", data.validation)):
        if len(part) == 0:
            raise ValueError(f"expected pictures in the {name} part, got none")
        if part.labels.dtype != torch.int64 or part.labels.ndim != 1 or part.labels.min() < 0:
            raise ValueError(
                f"expected the labels of the {name} part to be int64 class numbers from 0 on, of "
                f"shape (N,), got {part.labels.dtype} of shape {tuple(part.labels.shape)} from "
                f"{part.labels.min()} on"
            )
        try:
            shape = tuple(predict(model, part.images[:1]).shape)
        except Exception as error:  # whatever a model raises
            raise ValueError(
                f"expected a model for pictures of shape {tuple(part.images.shape[1:])} and "
                f"{part.images.dtype}, got: {error}"
            ) from error
        highest = int(part.labels.max())
        if len(shape) != 2 or shape[1] <= highest:
            raise ValueError(
                f"expected logits of shape (N, K) with K above the highest class {highest}, got "
                f"{shape} for one picture"
            )
    return trainable[0].device


@contextmanager
def _own_random_state() -> Iterator[None]:
    """Give PyTorch's random state back as it was, on the CPU and on the accelerator."""
    kind = pick_device().type
    on_apple = torch.mps.get_rng_state() if kind == "mps" else None
    started = kind in ("cuda", "xpu") and getattr(torch, kind).is_initialized()
    devices = range(torch.accelerator.device_count()) if started else []
    try:
        with torch.random.fork_rng(devices, device_type=kind if started else "cuda"):
            yield
    finally:
        if on_apple is not None:
            torch.mps.set_rng_state(on_apple)


def _draw_xavier(model: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.constant_(module.bias, 0.01)


def _count(batches: Iterable[Tensor], bar: tqdm) -> Iterator[Tensor]:
    for batch in batches:
        yield batch
        bar.update()


@contextmanager
def keeping_mode(model: nn.Module) -> Iterator[None]:
    """Put every module back in training or evaluation mode as it was, also after an error."""
    before = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


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
    device = next((p.device for p in model.parameters()), images.device)
    with keeping_mode(model), torch.no_grad():
        model.eval()
        return torch.cat([model(batch.to(device)) for batch in images.split(batch_size)])


def evaluate(
    model: nn.Module,
    part: Part,
    loss_function: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> Score:
    """Measure loss and accuracy of a model.

    Args:
        model: pictures (N, C, H, W) to logits (N, K); left as it was.
        part: pictures and their classes.
        loss_function: (logits, labels) to their mean loss.

    Returns:
        Loss and accuracy (0 to 1).

    Example:
        >>> images = torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 0.0]]).reshape(3, 2, 1, 1)
        >>> part = Part(images, torch.tensor([0, 1, 1]), torch.arange(3))
        >>> round(evaluate(nn.Flatten(), part).accuracy, 4)
        0.6667
    """
    logits = predict(model, part.images)
    labels = part.labels.to(logits.device)
    correct = (logits.argmax(1) == labels).sum().item()
    return Score(loss_function(logits, labels).item(), correct / len(part))


def shift(images: Tensor, dx: int, dy: int) -> Tensor:
    """Move pictures inside their frame; what leaves it is lost, zeros come in.

    Args:
        images: shape (..., H, W).
        dx: pixels to the right, or to the left where negative.
        dy: pixels down, or up where negative.

    Returns:
        Pictures of the same shape.

    Example:
        >>> shift(torch.tensor([[1, 2], [3, 4]]), 1, 0)
        tensor([[0, 1],
                [0, 3]])
    """
    height, width = images.shape[-2:]
    if abs(dx) >= width or abs(dy) >= height:
        return torch.zeros_like(images)
    return F.pad(images, (dx, -dx, dy, -dy))


def accuracy_against_shift(
    model: nn.Module, part: Part, shifts: Iterable[int] = range(7)
) -> pandas.DataFrame:
    """Measure the accuracy on pictures that are moved inside their frame.

    Args:
        model: pictures to logits; left as it was.
        part: pictures and their classes.
        shifts: in pixels. Each picture is moved so far in the eight directions of a
            compass; diagonally it is so far in both axes.

    Returns:
        Columns shift and accuracy (0 to 1), the mean over the directions.
    """
    rows = []
    for pixels in shifts:
        directions = DIRECTIONS if pixels else [(0, 0)]
        moved = (shift(part.images, pixels * dx, pixels * dy) for dx, dy in directions)
        scores = [evaluate(model, replace(part, images=images)).accuracy for images in moved]
        rows.append((pixels, sum(scores) / len(scores)))
    return _frame(rows, ["shift", "accuracy"])


def enlarge_canvas(images: Tensor, canvas: int) -> Tensor:
    """Put pictures in the middle of a black square.

    Args:
        images: shape (..., H, W).
        canvas: height and width of the square, in pixels.

    Returns:
        Pictures of shape (..., canvas, canvas).

    Raises:
        ValueError: if the pictures do not fit on it.

    Example:
        >>> enlarge_canvas(torch.ones(1, 1), 3)
        tensor([[0., 0., 0.],
                [0., 1., 0.],
                [0., 0., 0.]])
    """
    height, width = images.shape[-2:]
    if canvas < max(height, width):
        raise ValueError(f"expected a canvas of at least {height}×{width}, got {canvas}")
    top, left = (canvas - height) // 2, (canvas - width) // 2
    return F.pad(images, (left, canvas - width - left, top, canvas - height - top))


def accuracy_against_canvas(
    model: nn.Module, part: Part, canvases: Iterable[int] = (28, 32, 36, 40, 48)
) -> pandas.DataFrame:
    """Measure the accuracy on pictures in the middle of a larger black canvas.

    Args:
        model: pictures of any size to logits; left as it was.
        part: pictures and their classes.
        canvases: heights and widths of the canvas, in pixels.

    Returns:
        Columns canvas and accuracy (0 to 1).

    Raises:
        ValueError: if the pictures do not fit on a canvas, or the model on its size.
    """
    rows = []
    for canvas in canvases:
        images = enlarge_canvas(part.images, canvas)
        rows.append((canvas, evaluate(model, replace(part, images=images)).accuracy))
    return _frame(rows, ["canvas", "accuracy"])
