"""Pictures of noise in three classes, and a network for them."""

import torch
from torch import nn

from gap_utils.data import Dataset, Split


def make_split(count, seed=0, size=8):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, size, size, generator=generator)
    labels = torch.randint(0, 3, (count,), generator=generator)
    return Split(images, labels, torch.arange(count))


def make_dataset():
    splits = make_split(20), make_split(10, 1), make_split(10, 2)
    return Dataset("noise", *splits, source="a test", class_names=("a", "b", "c"))


def make_model(dropout=0.5, norm=True):
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4) if norm else nn.Identity(),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(4, 3),
    )
