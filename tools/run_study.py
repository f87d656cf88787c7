"""Run the study of lessons 04, 05, 07, 08 and 09: many trainings, into assets/study.csv.

    python -m tools.run_study [--jobs N] [--threads N] [EXPERIMENT ...]

Each finished run is written at once, and a run that the file holds already is left out, so
the study can be stopped and started again. It needs the full Fashion-MNIST (see
gap_utils.data) and, for "digits", MNIST in data/MNIST/raw, from where torchvision reads it
or to where it fetches it. All of it takes about four hours on two cores. By lesson:

    04: "learning rate", "heads", "article", "digits"
    05: "heads", "overfitting", "one side", "remedies", "remedies, one side"
    07: "places"
    08: "fine-tuning rate", "fine-tuning"
    09: "heads", "more heads", "one side"

Runs of an experiment with the same seed make a pair: what two networks have in common begins
with the same weights, and they get the same pictures in the same order. The test part is looked
at after the last epoch of a run, and nothing is chosen with it: learning rates, and in "places"
the level of the boxes, are chosen on the validation part.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import astuple, dataclass, fields, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gap_utils.backbones import load_backbone, replace_head
from gap_utils.data import Dataset, Split, load_fashion_mnist
from gap_utils.inference import evaluate, evaluation_mode, predict
from gap_utils.localisation import (
    CANVAS,
    area,
    box_from_map,
    holds,
    intersection,
    intersection_over_union,
    largest_position,
    place_in_clutter,
)
from gap_utils.models import HEADS, MORE_HEADS, build_convnet
from gap_utils.robustness import (
    RandomBorder,
    RandomShift,
    accuracy_against_canvas,
    accuracy_against_shift,
)
from gap_utils.study import STUDY
from gap_utils.training import ARTICLE_RECIPE, DEFAULT_RECIPE, Recipe, fit

RATES = {
    f"ours, {rate}": replace(DEFAULT_RECIPE, learning_rate=rate)
    for rate in (0.005, 0.01, 0.02, 0.03)
}
RECIPES = {
    "ours": DEFAULT_RECIPE,
    "article": ARTICLE_RECIPE,
    "article, plain logits": replace(ARTICLE_RECIPE, sigmoid=False),
    **RATES,
}
CLASSIC = ("classic", "classic, dropout")
# of lesson 05, in front of a network or in it; the numbers were settled before any was trained
REMEDIES = {
    "shifts": lambda: [RandomShift(4)],
    "sizes": lambda: [RandomBorder((0, 2, 4, 6))],  # canvases of 28, 32, 36 and 40
    "blur": lambda: [],  # in the network
}
REMEDIED = (
    *(f"gap, {remedy}" for remedy in ("shifts", "sizes", "blur")),
    "gmp, sizes",
    "flatten, shifts",  # it takes one size
)
BASELINES = ("centre", "random", "brightness")  # boxes without a network
LEVELS = [round(0.05 * n, 2) for n in range(2, 19)]  # of box_from_map, to choose one of
CELL = 4  # pixels for each position of the maps of 21×21
LARGE = "Fashion-MNIST, 96×96"
# what EfficientNet-Lite0 does on it -> epochs; all but the last begin with its ImageNet weights
EPOCHS = {
    "frozen": 20,  # of the head alone
    "fine-tuned": 10,  # of all weights, after those 20; BatchNorm in evaluation mode
    "from nothing": 20,
}
BATCH = 50
FINE_TUNING_RATES = {
    "frozen": (1e-3, 3e-3, 1e-2),
    "fine-tuned": (1e-4, 3e-4, 1e-3, 3e-3),
}
# chosen on the validation part, but for the last
FINE_TUNING = {"frozen": 1e-3, "fine-tuned": 1e-3, "from nothing": 3e-3}
CURVES = ("heads", "article")
SEEDS = range(5)
SOME = 6000  # pictures


@dataclass(frozen=True)
class Run:
    """One training: what tells it from all others."""

    experiment: str
    data: str
    pictures: int
    recipe: str
    epochs: int
    model: str
    seed: int


# of a run: measure, at, value; and its seconds of training
Found = tuple[list[tuple[str, float, float]], float]
RESULT = ("measure", "at", "value", "seconds", "torch", "device", "threads")
COLUMNS = (*(field.name for field in fields(Run)), *RESULT)


def plan() -> Iterator[Run]:
    """List all runs of the study."""
    for recipe in RATES:  # to choose the rate of "ours" with
        for head in HEADS:
            yield Run("learning rate", "Fashion-MNIST", 55_000, recipe, 3, head, 100)
    for seed in SEEDS:
        for head in HEADS:
            yield Run("heads", "Fashion-MNIST", 55_000, "ours", 5, head, seed)
    for seed in SEEDS:
        for model in (*HEADS, *CLASSIC):
            yield Run("overfitting", "Fashion-MNIST", 1000, "ours", 60, model, seed)
            yield Run("overfitting", "Fashion-MNIST", SOME, "ours", 20, model, seed)
        for model in CLASSIC:  # the other three are in "heads"
            yield Run("overfitting", "Fashion-MNIST", 55_000, "ours", 5, model, seed)
    for seed in SEEDS:
        for head in HEADS:
            yield Run("one side", "Fashion-MNIST, right half", SOME, "ours", 20, head, seed)
    for seed in SEEDS:
        for head in HEADS:
            yield Run("digits", "MNIST", 55_000, "ours", 5, head, seed)
    for seed in SEEDS:
        for head in MORE_HEADS:
            yield Run("more heads", "Fashion-MNIST", 55_000, "ours", 5, head, seed)
    for model in REMEDIED:
        for seed in SEEDS:
            yield Run("remedies", "Fashion-MNIST", 55_000, "ours", 5, model, seed)
    for model in REMEDIED[:3]:  # of GAP, the one that is best on the other side
        for seed in SEEDS:
            data = "Fashion-MNIST, right half"
            yield Run("remedies, one side", data, SOME, "ours", 20, model, seed)
    for seed in SEEDS:
        for head in ("gap", "gmp"):
            yield Run("places", "Fashion-MNIST, in clutter", SOME, "ours", 10, head, seed)
        for baseline in BASELINES:
            yield Run("places", "Fashion-MNIST, in clutter", 0, "none", 0, baseline, seed)
    for model, rates in FINE_TUNING_RATES.items():  # to choose the rates of "fine-tuning" with
        for rate in rates:
            yield Run("fine-tuning rate", LARGE, 1000, f"rate {rate}", EPOCHS[model], model, 100)
    for model, rate in FINE_TUNING.items():
        for seed in range(3):
            yield Run("fine-tuning", LARGE, 1000, f"rate {rate}", EPOCHS[model], model, seed)
    for recipe in ("article", "article, plain logits"):
        for seed in range(2):
            for head in ("gap", "gmp"):
                yield Run("article", "Fashion-MNIST", 55_000, recipe, 60, head, seed)


def build(model: str, wide: bool = False) -> nn.Module:
    """Build a network by its name in the study; a wide one takes pictures of 28×56."""
    model, _, remedy = model.partition(", ")
    if remedy in REMEDIES:
        network = build(model, wide) if remedy != "blur" else build_convnet(model, blur=True)
        return nn.Sequential(*REMEDIES[remedy](), network)
    if model in (*HEADS, *MORE_HEADS) and not (wide and model == "flatten"):
        return build_convnet(model)
    body = build_convnet().body  # to 32 maps of 3×3, or 3×7
    if model == "flatten":
        return nn.Sequential(body, nn.Flatten(), nn.Linear(32 * 3 * 7, 10))
    dropout = nn.Dropout(0.5 if remedy == "dropout" else 0.0)
    hidden = [nn.Linear(288, 256), nn.ReLU(), dropout, nn.Linear(256, 10)]
    return nn.Sequential(body, nn.Flatten(), *hidden)


@lru_cache(maxsize=1)
def load(name: str) -> Dataset:
    """Load one of the two data sets whole; "MNIST" or "Fashion-MNIST"."""
    if name == "Fashion-MNIST":
        return load_fashion_mnist("full")
    from torchvision.datasets import MNIST  # takes a second

    official = [MNIST("data", train=train, download=True) for train in (True, False)]
    (images, labels), test = [(d.data.unsqueeze(1) / 255, d.targets) for d in official]
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(labels)))
    parts = [Split(images[i], labels[i], i) for i in (order[5000:], order[:5000])]
    parts.append(Split(*test, torch.arange(10_000)))
    return Dataset("MNIST", *parts, source="torchvision", class_names=tuple("0123456789"))


def choose(part: Split, count: int, seed: int) -> Split:
    """Draw some pictures of a part; all of them in their order if it has no more."""
    if count >= len(part):
        return part
    places = torch.from_numpy(np.random.RandomState(seed).permutation(len(part))[:count])
    return Split(*(tensor[places] for tensor in vars(part).values()))


def on_side(part: Split, side: str) -> Split:
    """Put the pictures on the left or right half of a black canvas twice as wide."""
    padding = (0, 28) if side == "left" else (28, 0)
    return replace(part, images=F.pad(part.images, padding))


def mean_gradient(model: nn.Module, part: Split) -> Tensor:
    """Average, over pictures, the gradient of their class's logit on its map, flattened."""
    model.eval()
    convolution, *pool = model.head
    with torch.no_grad():
        maps = torch.cat([convolution(model.body(batch)) for batch in part.images.split(500)])
    maps.requires_grad_()
    logits = nn.Sequential(*pool)(maps)
    rows = torch.arange(len(part))
    logits[rows, part.labels].sum().backward()
    return maps.grad[rows, part.labels].mean(0).flatten()


def measure(run: Run, threads: int) -> list[tuple]:
    """Do a run; return the rows of the table that are the run's."""
    torch.set_num_threads(threads)
    measures = {"places": measure_places, "fine-tuning": measure_fine_tuning}
    found, seconds = measures.get(run.experiment.removesuffix(" rate"), measure_heads)(run)
    made_with = (round(seconds, 1), torch.__version__, "cpu", threads)
    return [(*astuple(run), what, at, f"{value:.6g}", *made_with) for what, at, value in found]


def measure_heads(run: Run) -> Found:
    """Train a network of lessons 04, 05 or 09; return what it gave, and the seconds."""
    wide = run.data.endswith("right half")
    data = load("MNIST" if run.data == "MNIST" else "Fashion-MNIST")
    data = replace(data, train=choose(data.train, run.pictures, run.seed))
    if wide:
        data = replace(
            data, train=on_side(data.train, "right"), validation=on_side(data.validation, "right")
        )
    torch.manual_seed(run.seed)
    model = build(run.model, wide)
    history = fit(model, data, run.epochs, RECIPES[run.recipe], run.seed, progress=False)

    found = []
    # the whole curve where the lesson may draw it, otherwise its end
    for row in history.tail(run.epochs if run.experiment in CURVES else 1).itertuples():
        found.append(("train_loss", row.epoch, row.train_loss))
        found.append(("validation_accuracy", row.epoch, row.validation_accuracy))
    found.append(("parameters", 0, sum(p.numel() for p in model.parameters())))
    if not run.experiment.startswith("remedies"):
        found.append(("train_accuracy", 0, evaluate(model, data.train).accuracy))
    if run.experiment == "learning rate":
        pass  # a choice: the test part stays unseen
    elif wide:
        for side in ("left", "right"):
            score = evaluate(model, on_side(data.test, side))
            found.append((f"test_accuracy_{side}", 0, score.accuracy))
        if run.model == "gap":  # untreated: does what it loses follow the steps of its poolings?
            for left in range(0, 29, 4):
                images = F.pad(data.test.images, (28 - left, left))
                score = evaluate(model, replace(data.test, images=images))
                found.append(("accuracy_moved_left", left, score.accuracy))
    else:
        found.append(("test_accuracy", 0, evaluate(model, data.test).accuracy))
    if run.experiment in ("heads", "more heads", "remedies"):
        shifts = {"heads": range(7), "more heads": (0, 2, 4, 6), "remedies": (0, 4)}
        for row in accuracy_against_shift(model, data.test, shifts[run.experiment]).itertuples():
            found.append(("accuracy_against_shift", row.shift, row.accuracy))
        if not run.model.startswith("flatten"):
            for row in accuracy_against_canvas(model, data.test).itertuples():
                found.append(("accuracy_against_canvas", row.canvas, row.accuracy))
        if run.model == "gem":
            found.append(("p", 0, model.head[0].p.item()))
        if run.experiment == "heads" and run.model != "flatten":
            for place, value in enumerate(mean_gradient(model, data.test).tolist()):
                found.append(("mean_gradient", place, value))
    return found, history.seconds.sum()


def measure_places(run: Run) -> Found:
    """Look for clothes in clutter: with a network trained on their class alone, or without."""
    data, known = put_in_clutter(run)
    test, boxes = data.test, known["test"]
    found, seconds = [], 0.0
    if run.model in ("centre", "random"):
        size = (known["validation"][:, 2:] - known["validation"][:, :2]).float().mean(0).round()
        room = torch.tensor([CANVAS, CANVAS]) - size
        generator = torch.Generator().manual_seed(run.seed)
        where = torch.rand(len(test), 2, generator=generator) if run.model == "random" else 0.5
        start = (where * room).round().expand(len(test), 2)
        guessed, points = torch.cat([start, start + size], 1), start + size / 2
    else:
        both = data.validation.images, test.images
        if run.model == "brightness":
            maps = [F.avg_pool2d(images, CELL)[:, 0] for images in both]
        else:
            torch.manual_seed(run.seed)
            model = build_convnet(run.model, batch_norm=True, last_pool=False)
            history = fit(model, data, run.epochs, RECIPES[run.recipe], run.seed, progress=False)
            seconds = history.seconds.sum()
            maps = [map_of_answer(model, images) for images in both]
            score = evaluate(model, data.validation)
            found.append(("validation_accuracy", run.epochs, score.accuracy))
            right = predict(model, test.images).argmax(1) == test.labels
            found.append(("test_accuracy", 0, mean(right)))
        tried = try_levels(maps[0], known["validation"])
        for level, measures in tried.items():
            for what, value in measures.items():
                found.append((f"{what}_validation", round(100 * level), value))
        level = best_level(tried)
        found.append(("level", 0, level))
        guessed, points = box_from_map(maps[1], level, CELL), largest_position(maps[1], CELL)
    compared = compare_boxes(guessed, boxes) | {"pointed": holds(boxes, points)}
    if run.pictures:  # a network
        compared["named_and_found"] = compared["found"] & right
    return found + [(what, 0, mean(value)) for what, value in compared.items()], seconds


def put_in_clutter(run: Run) -> tuple[Dataset, dict[str, Tensor]]:
    """Place some pictures to train, 2,000 to validate and all to test; return their boxes too.

    The training part stays as it is where the run takes no pictures of it.
    """
    data, boxes = load("Fashion-MNIST"), {}
    for name, count in {"train": run.pictures, "validation": 2000, "test": 10_000}.items():
        if count:
            some = choose(getattr(data, name), count, run.seed)
            placed, boxes[name] = place_in_clutter(some, run.seed)
            data = replace(data, **{name: placed})
    return data, boxes


def try_levels(maps: Tensor, known: Tensor) -> dict[float, dict[str, float]]:
    """Average, for each level, what `compare_boxes` says of the boxes from the maps."""
    return {
        level: {
            what: mean(values)
            for what, values in compare_boxes(box_from_map(maps, level, CELL), known).items()
        }
        for level in LEVELS
    }


def best_level(tried: dict[float, dict[str, float]]) -> float:
    """Choose the level that finds the most clothes."""
    return max(tried, key=lambda level: tried[level]["found"])


def compare_boxes(guessed: Tensor, true: Tensor) -> dict[str, Tensor]:
    """Say of each box how well it fits; (N, 4), (N, 4) -> names of the measures and (N,)."""
    overlap, shared = intersection_over_union(guessed, true), intersection(guessed, true)
    return {
        "overlap": overlap,
        "found": overlap >= 0.5,
        "covered": shared / area(true),  # how much of the clothes is in the box
        "filled": shared / area(guessed),  # how much of the box is clothes' box
        "size": area(guessed) / area(true),
    }


def mean(values: Tensor) -> float:
    """Average numbers, or count what is True as a share."""
    return values.float().mean().item()


def map_of_answer(model: nn.Module, images: Tensor) -> Tensor:
    """Return, of each picture, the map of the class that the network names: (N, h, w)."""
    found = []
    with evaluation_mode(model):
        for batch in images.split(500):
            maps = model.head[0](model.body(batch))  # a map for each class
            said = model.head[1:](maps).argmax(1)
            found.append(maps[torch.arange(len(batch)), said])
    return torch.cat(found)


def enlarge(part: Split) -> Split:
    """Scale pictures to what EfficientNet-Lite0 takes here: (N, 3, 96, 96), from -1 to 1."""
    images = F.interpolate(2 * part.images - 1, size=(96, 96), mode="bilinear")
    return replace(part, images=images.expand(-1, 3, -1, -1))


def through(body: nn.Module, part: Split) -> Split:
    """Put the maps of a body in the place of the pictures."""
    with evaluation_mode(body):
        return replace(part, images=torch.cat([body(batch) for batch in part.images.split(100)]))


def measure_fine_tuning(run: Run) -> Found:
    """Train EfficientNet-Lite0 on few clothes: its new head, all of it, or without its weights."""
    full = load("Fashion-MNIST")
    parts = {
        "train": enlarge(choose(full.train, run.pictures, run.seed)),
        "validation": enlarge(choose(full.validation, 1000, run.seed)),
    }
    data = replace(full, **parts)
    rate = float(run.recipe.removeprefix("rate "))
    torch.manual_seed(run.seed)
    weights = "random" if run.model == "from nothing" else "pretrained"
    model = replace_head(load_backbone(weights=weights).model, num_classes=10)
    model = model.to(memory_format=torch.channels_last)
    seconds = 0.0
    if run.model != "from nothing":  # the head alone
        start = time.perf_counter()
        maps = replace(data, **{name: through(model.body, part) for name, part in parts.items()})
        seconds += time.perf_counter() - start
        first = rate if run.model == "frozen" else FINE_TUNING["frozen"]
        recipe = Recipe(first, BATCH)  # the body is frozen: its maps are made once
        history = fit(model[1:], maps, EPOCHS["frozen"], recipe, run.seed, progress=False)
        seconds += history.seconds.sum()
    if run.model != "frozen":
        model.train()
        if run.model == "fine-tuned":
            for layer in model.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
        history = fit(model, data, run.epochs, Recipe(rate, BATCH), run.seed, progress=False)
        seconds += history.seconds.sum()
    last = history.iloc[-1]
    found = [("train_loss", run.epochs, last.train_loss)]
    found.append(("validation_accuracy", run.epochs, last.validation_accuracy))
    if run.experiment == "fine-tuning":
        found.append(("test_accuracy", 0, evaluate(model, enlarge(full.test)).accuracy))
    return found, seconds


def finished() -> set[tuple[str, ...]]:
    """The runs that the file holds."""
    if not STUDY.exists():
        return set()
    with STUDY.open(newline="") as file:
        return {tuple(row[: len(fields(Run))]) for row in csv.reader(file) if row != [*COLUMNS]}


def main() -> None:
    """Do the runs that are asked for and not done yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiments", nargs="*", help="names of experiments; all if none")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each")
    options = parser.parse_args()
    done = finished()
    runs = [
        run
        for run in plan()
        if not options.experiments or run.experiment in options.experiments
        if tuple(map(str, astuple(run))) not in done
    ]
    if not STUDY.exists():
        with STUDY.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(COLUMNS)
    spawn = multiprocessing.get_context("spawn")  # threads and forks do not mix
    pool = ProcessPoolExecutor(options.jobs, spawn)
    try:
        waiting = [pool.submit(measure, run, options.threads) for run in runs]
        for number, result in enumerate(as_completed(waiting), 1):
            rows = result.result()
            with STUDY.open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)
            print(f"{number} of {len(runs)}:", *rows[0][:7], rows[0][-4], "s", flush=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


if __name__ == "__main__":
    main()
