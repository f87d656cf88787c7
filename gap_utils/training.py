"""Training on tensors that stay on the device. Introduced in lesson 04."""

from __future__ import annotations

import hashlib
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from gap_utils.data import Dataset, Split
from gap_utils.device import pick_device, use_suggested_threads
from gap_utils.inference import evaluate, predict, preserve_training_mode
from gap_utils.values import read_whole_number

if TYPE_CHECKING:
    import pandas

COLUMNS = ("epoch", "train_loss", "validation_loss", "validation_accuracy", "seconds")


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


DEFAULT_RECIPE = Recipe()
# of the best-known comparison of GAP and GMP on Fashion-MNIST, with its sigmoid
ARTICLE_RECIPE = Recipe(3e-4, 64, one_cycle=False, shuffle=False, xavier=True, sigmoid=True)


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
    split: Split,
    batches: Iterable[Tensor],
    loss_function: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """Go through the batches once, a step for each; return the mean loss of the pictures."""
    model.train()
    total = torch.zeros((), device=split.labels.device)
    for batch in batches:
        loss = loss_function(model(split.images[batch]), split.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.detach() * len(batch)  # stays on the device: .item() would wait for it
    return total.item() / len(split)


def fit(
    model: nn.Module,
    data: Dataset,
    epochs: int = 5,
    recipe: Recipe = DEFAULT_RECIPE,
    seed: int = 0,
    checkpoint: str | os.PathLike | None = None,
    progress: bool = True,
) -> pandas.DataFrame:
    """Train a model where it is; the validation split is looked at after each epoch.

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
        recipe: how to train: `DEFAULT_RECIPE`, `ARTICLE_RECIPE` or your own.
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
    with use_suggested_threads(), _own_random_state(), preserve_training_mode(model):
        device = _check(model, data, recipe, path)
        data = replace(data, train=data.train.to(device), validation=data.validation.to(device))
        run = _Run(
            model,
            data,
            read_whole_number("epochs", epochs, 1),
            recipe,
            read_whole_number("seed", seed, 0),
        )
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
        import pandas  # takes a third of a second

        return pandas.DataFrame(self.rows, columns=COLUMNS).astype({"epoch": int})

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
        for split in (self.data.train, self.data.validation):
            for tensor in (split.images, split.labels):
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


def _check(
    model: nn.Module, data: Dataset, recipe: Recipe, checkpoint: Path | None
) -> torch.device:
    """Complain about what cannot be trained; return the device of the model."""
    if not isinstance(recipe, Recipe):
        raise ValueError(
            f"expected a Recipe such as DEFAULT_RECIPE or ARTICLE_RECIPE, got {recipe!r}"
        )
    if checkpoint and (checkpoint.is_dir() or not checkpoint.absolute().parent.is_dir()):
        raise ValueError(f"expected a checkpoint file in a folder that exists, got {checkpoint}")
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("expected a model with parameters to train, got one without")
    for name, split in (("train", data.train), ("validation", data.validation)):
        if len(split) == 0:
            raise ValueError(f"expected pictures in the {name} split, got none")
        if split.labels.dtype != torch.int64 or split.labels.ndim != 1 or split.labels.min() < 0:
            raise ValueError(
                f"expected the labels of the {name} split to be int64 class numbers from 0 on, of "
                f"shape (N,), got {split.labels.dtype} of shape {tuple(split.labels.shape)} from "
                f"{split.labels.min()} on"
            )
        try:
            shape = tuple(predict(model, split.images[:1]).shape)
        except Exception as error:  # whatever a model raises
            raise ValueError(
                f"expected a model for pictures of shape {tuple(split.images.shape[1:])} and "
                f"{split.images.dtype}, got: {error}"
            ) from error
        highest = int(split.labels.max())
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
