"""Training on tensors that stay on the device. Introduced in lesson 04."""

from __future__ import annotations

import hashlib
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from tqdm.auto import tqdm

from gap_utils.data import Dataset, Split
from gap_utils.device import keep_random_state, use_suggested_threads
from gap_utils.inference import (
    as_input,
    check_logits,
    evaluate,
    predict,
    preserve_training_mode,
)
from gap_utils.values import read_whole_number

if TYPE_CHECKING:
    import pandas

COLUMNS = ("epoch", "train_loss", "validation_loss", "validation_accuracy", "seconds")


@dataclass(frozen=True)
class Recipe:
    """How to train; Adam does the steps."""

    learning_rate: float = 0.02  #: the highest one where `one_cycle`
    batch_size: int = 128  #: pictures in a step
    one_cycle: bool = True  #: let the learning rate rise and fall once over the run, or keep it
    shuffle: bool = True  #: draw a new order of the pictures in every epoch, or keep theirs
    xavier: bool = False  #: begin with Xavier weights and biases of 0.01, but for what is frozen
    sigmoid: bool = False  #: put a sigmoid between the logits and the cross-entropy

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
        check_logits(logits, len(labels))
        return F.cross_entropy(torch.sigmoid(logits) if self.sigmoid else logits, labels)


#: what `fit` takes where none is given
DEFAULT_RECIPE = Recipe()
#: of the best-known comparison of GAP and GMP on Fashion-MNIST, with its sigmoid
ARTICLE_RECIPE = Recipe(3e-4, 64, one_cycle=False, shuffle=False, xavier=True, sigmoid=True)


class _WithHistory:
    """An exception that keeps the table of the epochs before it."""

    # pickle calls it with the message alone and puts the history back itself
    def __init__(self, message: str, history: pandas.DataFrame | None = None):
        super().__init__(message)
        self.history = history


class DivergedError(_WithHistory, ArithmeticError):
    """A loss that is no number; `history` is the table of the epochs before it."""


class TrainingInterrupted(_WithHistory, KeyboardInterrupt):
    """An interrupt of the kernel while `fit` trained; `history` as in `DivergedError`."""


class EpochWeights(tuple):
    """State dicts of a model: at the start of a run, and after each epoch.

    A table of pandas deep-copies what is in its `attrs` with each of its own copies, and
    `pandas.concat` compares it: neither gets to the tensors.
    """

    __eq__, __ne__, __hash__ = object.__eq__, object.__ne__, object.__hash__

    def __deepcopy__(self, memo: dict) -> EpochWeights:
        return self

    def __repr__(self) -> str:
        return f"<weights at the start and after each of {len(self) - 1} epochs>"


def train_epoch(
    model: nn.Module,
    split: Split,
    batches: Iterable[Tensor],
    loss_function: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """Go through the batches once, a step for each; return the mean loss of the pictures."""
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
    name: str = "",
    keep_epochs: bool = False,
) -> pandas.DataFrame:
    """Train a model where it is; the validation split is looked at after each epoch.

    A run on the CPU with the same model, seed and number of threads gives the same numbers
    again. If it is interrupted or fails, the model is as after the last whole epoch. The modes
    of all modules, the random state of PyTorch and the number of threads (see
    `device.suggest_threads`) are afterwards as they were before.

    What is frozen stays as it is: parameters that require no gradient, and modules that are in
    evaluation mode when `fit` begins. Those stay in that mode: BatchNorm uses and keeps what
    it remembers, dropout drops nothing. Where the whole model is in evaluation mode, as
    `load_backbone` and `load_trained` give it, only the modules whose parameters are all
    frozen stay in it, with what is inside them.

    A last batch of one picture is joined to the batch before, since BatchNorm behind GAP
    cannot be trained on a single one.

    Args:
        model: pictures (N, C, H, W) to logits (N, K). On a CPU one in channels-last
            memory, as `build_convnet` makes them, is about a quarter faster.
        data: its `train` and `validation` are used, on the device of the model: moving them
            there before saves the time.
        epochs: how often each training picture is seen.
        recipe: how to train: `DEFAULT_RECIPE`, `ARTICLE_RECIPE` or your own.
        seed: of the order of the pictures, of dropout, of random shifts and borders, and of
            Xavier's weights. The weights of the model itself are drawn before:
            `torch.manual_seed` sets those.
        checkpoint: file to write after each epoch. If it is there already, the run in it
            goes on, with the numbers that it would have had without a break. If it cannot be
            written, a warning says so and the training goes on.
        progress: whether to show a bar.
        name: of the run, for the bar and the messages.
        keep_epochs: whether to keep the weights at the start and after each epoch, for
            `MapLab(..., run=)` and `CamLab(..., run=)`. They take the memory of the model's
            weights as often, and as much room in the checkpoint. A run that goes on from a
            checkpoint with such weights keeps them in any case.

    Returns:
        A row for each whole epoch, with epoch, train_loss (mean while training), validation_loss,
        validation_accuracy (0 to 1) and seconds. With `keep_epochs`, `attrs["weights"]` of the
        table has a state dict for each: `model.load_state_dict(history.attrs["weights"][0])`
        brings back the start, as Xavier drew it where the recipe says so; place 3 is that
        after epoch 3.

    Raises:
        ValueError: if model, data or settings do not fit each other, or the checkpoint is
            damaged, of another run or without the weights that `keep_epochs` asks for.
        DivergedError: if the loss is no number. Its `history` holds the epochs before.
        TrainingInterrupted: a KeyboardInterrupt with such a `history`, if the kernel is
            interrupted; where nothing caught it, `sys.last_value` is it.
    """
    path = Path(checkpoint).expanduser() if checkpoint is not None else None
    with use_suggested_threads(), keep_random_state(), preserve_training_mode(model):
        device = _check(model, data, recipe, path)
        epochs = read_whole_number("epochs", epochs, 1)
        seed = read_whole_number("seed", seed, 0)
        if not isinstance(keep_epochs, bool):
            raise ValueError(f"expected keep_epochs to be True or False, got {keep_epochs!r}")
        train, validation = (
            # as few pictures as can be are copied to learn the format
            replace(split.to(device), images=split.images.to(as_input(model, split.images[:1])))
            for split in (data.train, data.validation)
        )
        data = replace(data, train=train, validation=validation)
        run = _Run(model, data, epochs, recipe, seed)
        prefix = f"{name}: " if name else ""  # of the messages
        _train_all_but_the_frozen(model)
        good, steps_before = deepcopy(model.state_dict()), None
        try:
            if path and path.exists():
                rows, weights = run.load(path, keep_epochs)
                good, run.rows, run.weights = deepcopy(model.state_dict()), rows, weights
            else:
                if recipe.xavier:
                    _draw_xavier(model, seed)
                if keep_epochs:
                    run.weights = [deepcopy(model.state_dict())]
            bar = tqdm(
                desc=str(name),
                total=epochs * run.steps_per_epoch,
                initial=len(run.rows) * run.steps_per_epoch,
                unit="batch",
                disable=not progress,
            )
            with bar:
                steps_before = run.schedule.last_epoch
                for epoch in range(len(run.rows), epochs):
                    start = time.perf_counter()
                    batches = _count(run.batches(epoch), bar)
                    loss = train_epoch(
                        model, train, batches, recipe.loss, run.optimizer, run.schedule
                    )
                    score = evaluate(model, validation, recipe.loss)
                    if not math.isfinite(loss + score.loss):
                        raise DivergedError(
                            f"{prefix}expected a finite loss, got none in epoch {epoch + 1}: a "
                            f"learning rate of {recipe.learning_rate} may be too high for this "
                            "model, or a picture holds no number; the model is as after epoch "
                            f"{epoch}",
                            run.table(),
                        )
                    row = [epoch + 1, loss, *score, time.perf_counter() - start]
                    state = deepcopy(model.state_dict())
                    weights = [*run.weights, state] if run.weights else []
                    # in one line, so that an interrupt leaves all as they were or none
                    good, run.rows, run.weights = state, [*run.rows, row], weights
                    bar.set_postfix(
                        epoch=epoch + 1, loss=f"{loss:.3f}", validation=f"{score.accuracy:.1%}"
                    )
                    if path:
                        run.save(path)
        except BaseException as stop:
            model.load_state_dict(good)
            if isinstance(stop, KeyboardInterrupt):
                where = f"{prefix}the model is as after epoch {len(run.rows)} of {epochs}"
                raise TrainingInterrupted(where, run.table()) from None
            if isinstance(stop, Exception) and run.schedule.last_epoch == steps_before:
                # of the first batch: the check saw the model in evaluation mode only
                shape = (min(recipe.batch_size, len(train)), *train.images.shape[1:])
                raise ValueError(
                    f"{prefix}expected a model that can be trained on a batch of shape {shape}, "
                    f"got: {stop}"
                ) from stop
            raise
    return run.table()


class _Run:
    """What a run of `fit` carries from epoch to epoch, and to its checkpoint."""

    def __init__(self, model: nn.Module, data: Dataset, epochs: int, recipe: Recipe, seed: int):
        self.model, self.data, self.recipe = model, data, recipe
        self.epochs, self.seed = epochs, seed
        self.pictures = len(data.train)
        # one picture over is no batch: the last one has it, too
        over = int(recipe.batch_size > 1 and self.pictures > 1)
        self.steps_per_epoch = math.ceil((self.pictures - over) / recipe.batch_size)
        self.batch_of_one_joined = self.steps_per_epoch * recipe.batch_size < self.pictures
        self.rows: list[list[float]] = []
        # state dicts of the start and after each epoch; empty where they are not kept
        self.weights: list[dict[str, Any]] = []
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, recipe.learning_rate, fused=True)
        steps = epochs * self.steps_per_epoch
        if recipe.one_cycle and steps > 1:
            self.schedule = OneCycleLR(self.optimizer, recipe.learning_rate, total_steps=steps)
        else:
            self.schedule = LambdaLR(self.optimizer, lambda step: 1.0)

    def batches(self, epoch: int) -> tuple[Tensor, ...]:
        """The numbers of the pictures of each batch."""
        # a seed for each epoch, so that a resumed run needs no random state from its file
        torch.manual_seed(self.seed + 1_000_003 * (epoch + 1))
        draw = torch.randperm if self.recipe.shuffle else torch.arange
        order = draw(self.pictures, device="cpu")  # the same order whatever trains
        size = self.recipe.batch_size
        starts = range(size, size * self.steps_per_epoch, size)  # of all batches but the first
        return order.to(self.data.train.labels.device).tensor_split(tuple(starts))

    def table(self) -> pandas.DataFrame:
        import pandas  # takes a third of a second

        table = pandas.DataFrame(self.rows, columns=COLUMNS).astype({"epoch": int})
        if self.weights:
            table.attrs["weights"] = EpochWeights(self.weights)
        return table

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What tells this run from others."""
        digest = hashlib.md5(usedforsecurity=False)
        for split in (self.data.train, self.data.validation):
            for tensor in (split.images, split.labels):
                digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy())
        kept = self.model.state_dict().items()  # maybe not in tensors only
        tensors = [(name, found) for name, found in kept if isinstance(found, Tensor)]
        # written only where there is any, so that the checkpoints without fit as before
        special = {
            "frozen parameters": [
                n for n, p in self.model.named_parameters() if not p.requires_grad
            ],
            "modules in evaluation mode": [
                n for n, m in self.model.named_modules() if not m.training
            ],
            "a last batch of one joined": self.batch_of_one_joined,
        }
        return {
            "epochs": self.epochs,
            "seed": self.seed,
            "data": digest.hexdigest(),
            "model": repr(self.model),
            "shapes": {name: f"{tuple(t.shape)} {t.dtype}" for name, t in tensors},
            **asdict(self.recipe),
            **{what: found for what, found in special.items() if found},
        }

    def save(self, path: Path) -> None:
        """Write aside, then rename, so that a crash leaves the checkpoint before it."""
        state = {
            "settings": self.settings,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rows": self.rows,
            **({"weights": self.weights} if self.weights else {}),
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

    def load(self, path: Path, keep_epochs: bool) -> tuple[list[list[float]], list[dict]]:
        """Bring model, optimizer and schedule to where a checkpoint ends.

        Returns:
            Its rows, and the weights of the epochs, which may be none.
        """
        try:
            state = dict(torch.load(path, map_location="cpu", weights_only=True))
            there, here = state["settings"], self.settings
            different = [name for name in {**here, **there} if there.get(name) != here.get(name)]
            rows, weights = [list(row) for row in state["rows"]], [*state.get("weights", ())]
            if weights and len(weights) != len(rows) + 1:
                raise ValueError("the weights of some epochs are missing")
            lacking = keep_epochs and not weights
            if not different and not lacking:
                self.optimizer.load_state_dict(state["optimizer"])
                self.schedule.load_state_dict(state["schedule"])
                self.model.load_state_dict(state["model"])
        except Exception as error:  # a damaged file can raise nearly anything
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
        if lacking:
            raise ValueError(
                f"expected {path} to hold the weights of each epoch, got a checkpoint without "
                "them; leave out keep_epochs to go on with it, or delete it to begin anew"
            )
        return rows, weights


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
        try:  # a batch of two and one of one
            classes = predict(model, split.images[:3], batch_size=2).shape[1]
        except Exception as error:  # whatever a model raises
            raise ValueError(
                f"expected a model for pictures of shape {tuple(split.images.shape[1:])} and "
                f"{split.images.dtype}, got: {error}"
            ) from error
        if classes <= (highest := int(split.labels.max())):
            raise ValueError(
                f"expected logits of shape (N, K) with K above the highest class {highest} of the "
                f"{name} split, got K = {classes}"
            )
    return trainable[0].device


def _train_all_but_the_frozen(model: nn.Module) -> None:
    """Put a model in training mode, but for the modules that `fit` promises to leave."""
    frozen = {module for module in model.modules() if not module.training}
    if frozen == set(model.modules()):  # whoever set it meant the whole, and it is to be trained
        frozen = {
            part
            for whole in model.modules()
            if {parameter.requires_grad for parameter in whole.parameters()} == {False}
            for part in whole.modules()
        }
    model.train()  # which a module may do in a way of its own
    for module in frozen:
        module.training = False  # .eval() would reach its children, too


def _draw_xavier(model: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if module.weight.requires_grad:
                nn.init.xavier_uniform_(module.weight)
            if module.bias is not None and module.bias.requires_grad:
                nn.init.constant_(module.bias, 0.01)


def _count(batches: Iterable[Tensor], bar: tqdm) -> Iterator[Tensor]:
    for batch in batches:
        yield batch
        bar.update()
