"""How long training takes, the article's way and ours, in one run. Run with `make bench`.

It needs the full Fashion-MNIST (see gap_utils.data), and about six minutes on two cores.
What decides is the ratio: seconds alone depend on the machine.
"""

from __future__ import annotations

import gzip
import time
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from gap_utils.data import DEBIAN, load_fashion_mnist
from gap_utils.inference import evaluate
from gap_utils.models import build_convnet
from gap_utils.training import ARTICLE_RECIPE, fit

ARTICLE_EPOCHS = 60
ENOUGH = 0.87  # validation accuracy, that of the article after its 60 epochs
SEED = 0


@pytest.fixture(scope="module")
def data():
    try:
        return load_fashion_mnist("full")
    except FileNotFoundError as error:
        pytest.skip(str(error))


def new_network(**options):
    torch.manual_seed(SEED)
    return build_convnet(**options)


@pytest.fixture(scope="module")
def article_epoch(tmp_path_factory) -> float:
    """Seconds of one epoch in the article's way, retyped from what it describes."""
    from torchvision.datasets import FashionMNIST
    from torchvision.transforms import ToTensor

    root = tmp_path_factory.mktemp("data")
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in DEBIAN.glob("*.gz"):  # other gzip bytes than torchvision's, the same inside
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    sets = [FashionMNIST(root, train=part, transform=ToTensor()) for part in (True, False)]
    train, test = (DataLoader(s, batch_size=ARTICLE_RECIPE.batch_size) for s in sets)
    network = new_network()
    optimizer = torch.optim.Adam(network.parameters(), ARTICLE_RECIPE.learning_rate)

    def accuracy(loader) -> float:
        right = count = 0
        with torch.no_grad():
            for images, labels in loader:
                predictions = torch.sigmoid(network(images)).argmax(1)
                right += sum(predictions == labels)
                count += len(labels)
        return float(right / count)

    start = time.perf_counter()
    for images, labels in train:
        loss = F.cross_entropy(torch.sigmoid(network(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    accuracy(train), accuracy(test)
    return time.perf_counter() - start


def test_one_epoch(data, article_epoch):
    seconds = fit(new_network(), data, 1, progress=False).seconds.item()
    print(f"\n\none epoch: the article's way {article_epoch:.1f} s, ours {seconds:.1f} s, ", end="")
    print(f"ratio {article_epoch / seconds:.1f}")


def passed_after(history, target: float) -> float:
    """Seconds until the validation accuracy was first above a target; nan if it never was."""
    above = history.validation_accuracy > target
    return history.seconds.cumsum()[above].min()


def test_seconds_to_the_articles_accuracy(data, article_epoch):
    hour = ARTICLE_EPOCHS * article_epoch
    print(f"\n\n{ARTICLE_EPOCHS} epochs the article's way, from one of them: {hour:.0f} s")
    for epochs, norm in [(2, False), (3, False), (1, True), (2, True)]:
        network = new_network(batch_norm=norm)
        history = fit(network, data, epochs, seed=SEED, progress=False)
        seconds = passed_after(history, ENOUGH)
        test = evaluate(network, data.test).accuracy  # looked at once, at the end
        print(
            f"  {epochs} epochs{', BatchNorm' * norm}: {ENOUGH:.0%} on the validation part ", end=""
        )
        print(f"after {seconds:.1f} s, ratio {hour / seconds:.0f}; test accuracy {test:.4f}")


def test_as_accurate_as_a_minute_gets(data):
    network = new_network(batch_norm=True)
    seconds = fit(network, data, 5, seed=SEED, progress=False).seconds.sum()
    test = evaluate(network, data.test).accuracy
    print(f"\n\n5 epochs with BatchNorm: {seconds:.1f} s, test accuracy {test:.4f}")


def test_progressive_resizing(data):
    """Small pictures first: only a head that takes any size can do it."""
    print("\n\nprogressive resizing, with BatchNorm: 20×20 first, then 28×28")

    def small(part):
        images = F.interpolate(part.images, size=(20, 20), mode="area")
        return replace(part, images=images)

    smaller = replace(data, train=small(data.train), validation=small(data.validation))
    for before, after in [(0, 4), (3, 2)]:
        network = new_network(batch_norm=True)
        seconds = 0.0
        if before:
            seconds = fit(network, smaller, before, seed=SEED, progress=False).seconds.sum()
        history = fit(network, data, after, seed=SEED, progress=False)
        seconds += history.seconds.sum()
        accuracy = history.validation_accuracy.iloc[-1]
        print(f"  {before} + {after} epochs: {seconds:.1f} s, validation accuracy {accuracy:.4f}")
