"""Fashion-MNIST as tensors: the small part that ships, or all of it. Introduced in lesson 04.

Nothing is downloaded unless `download=True` asks for it.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zipfile
import zlib
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

NAME = "Fashion-MNIST"
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SMALL = Path(__file__).parent / "assets" / "fashion_mnist_small.npz"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
# the four files, in the order that _split takes them, with the md5 of what is inside: the gzip
# around it differs between sources
FILES = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
VALIDATION = 5000  # of the 60,000 official training pictures
IN_TORCHVISION = Path("FashionMNIST", "raw")  # where torchvision keeps the files in its root


@dataclass(frozen=True)
class Split:
    """Pictures with their classes, equally many of each."""

    images: Tensor  #: shape (N, 1, 28, 28), float32 in [0, 1]
    labels: Tensor  #: class numbers, shape (N,), int64
    numbers: Tensor  #: place of each picture in the official training or test file, shape (N,)

    def __post_init__(self):
        images, labels, numbers = map(len, vars(self).values())
        if not images == labels == numbers:
            raise ValueError(
                f"expected a label and a number for each of {images} images, got {labels} labels "
                f"and {numbers} numbers"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str | torch.device) -> Split:
        """Return the part on a device."""
        return Split(*(tensor.to(device) for tensor in vars(self).values()))


@dataclass(frozen=True, repr=False)
class Dataset:
    """Pictures and their classes, split in three."""

    name: str  #: what the pictures are
    train: Split  #: to learn from
    validation: Split  #: to choose with
    test: Split  #: for the last number only
    source: str  #: where the pictures came from
    class_names: tuple[str, ...]  #: of the class numbers, from 0 on

    def to(self, device: str | torch.device) -> Dataset:
        """Return the data on a device."""
        parts = {name: getattr(self, name).to(device) for name in ("train", "validation", "test")}
        return replace(self, **parts)

    def __repr__(self) -> str:
        return (
            f"{self.name}: {len(self.train):,} pictures to train, {len(self.validation):,} to "
            f"validate, {len(self.test):,} to test, from {self.source}"
        )


def load_fashion_mnist(
    size: str = "small", folder: str | os.PathLike | None = None, download: bool = False
) -> Dataset:
    """Load Fashion-MNIST as tensors.

    Args:
        size: "small", 4,000, 1,000 and 1,000 pictures that ship with `gap_utils`; or "full",
            all 55,000, 5,000 and 10,000, of which the small parts are.
        folder: where the four files of the full set are, packed (.gz) or not. When None:
            torchvision's folder `data/FashionMNIST/raw` here, this user's cache, and the
            folder of Debian's package dataset-fashion-mnist.
        download: fetch the full set (31 MB) into the cache if it is nowhere.

    Raises:
        ValueError: if `size` is unknown, or a file is damaged.
        FileNotFoundError: if the full set is nowhere and `download` is False.
        OSError: if the download fails, for want of a network or of room on the disk.

    Source:
        Xiao, Rasul and Vollgraf (2017), "Fashion-MNIST: a Novel Image Dataset for
        Benchmarking Machine Learning Algorithms". MIT licence, Zalando SE.

    Example:
        >>> load_fashion_mnist().test.images.shape
        torch.Size([1000, 1, 28, 28])
    """
    if size == "small":
        return _load_small()
    if size != "full":
        raise ValueError(f'expected size "small" or "full", got {size!r}')
    place = _find_full(folder, download)
    return _split(*(_read(place, name, md5) for name, md5 in FILES.items()))


def _load_small() -> Dataset:
    try:
        with np.load(SMALL) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"expected the pictures in {SMALL.name} to be whole: {error}") from error
    parts = {
        name: _part(*(arrays[f"{name}_{what}"] for what in ("images", "labels", "numbers")))
        for name in ("train", "validation", "test")
    }
    return Dataset(
        NAME, **parts, source="the small part that ships with gap_utils", class_names=CLASS_NAMES
    )


def _part(images: np.ndarray, labels: np.ndarray, numbers: np.ndarray) -> Split:
    return Split(
        torch.from_numpy(images).unsqueeze(1) / 255,
        torch.from_numpy(labels.astype(np.int64)),
        torch.from_numpy(numbers.astype(np.int64)),
    )


def cache_folder() -> Path:
    """The folder that a download goes to; the variable GAP_UTILS_CACHE moves it."""
    own = os.environ.get("GAP_UTILS_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base, "gap_utils")


def _find_full(folder: str | os.PathLike | None, download: bool) -> Path:
    if folder is not None:
        return Path(folder)
    cached = cache_folder() / IN_TORCHVISION
    places = [Path("data") / IN_TORCHVISION, cached, DEBIAN]
    for place in places:
        if all(_file(place, name) for name in FILES):
            return place
    if not download:
        raise FileNotFoundError(
            f"expected the full Fashion-MNIST in one of {', '.join(map(str, places))}, found none "
            "of them; load_fashion_mnist('full', download=True) fetches 31 MB, and "
            "load_fashion_mnist() needs nothing"
        )
    _download(cached)
    return cached


def _download(target: Path) -> None:
    """Fetch the files aside, then rename their folder, so that no half of them is left."""
    from torchvision.datasets import FashionMNIST as Download  # takes a second

    print(f"Downloading Fashion-MNIST (31 MB) to {target}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent, ignore_cleanup_errors=True) as aside:
            Download(aside, download=True)
            Path(aside, IN_TORCHVISION).rename(target)
    except (OSError, RuntimeError, HTTPException) as error:
        raise OSError(
            f"expected to download Fashion-MNIST to {target}, got: {error}. The small set, "
            "load_fashion_mnist(), needs no network"
        ) from error


def _file(folder: Path, name: str) -> Path | None:
    """One of the four files, unpacked or packed; None where neither is there."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read(folder: Path, name: str, md5: str) -> np.ndarray:
    path = _file(folder, name)
    if path is None:
        raise FileNotFoundError(f"expected {name} or {name}.gz in {folder}, found neither")
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"expected {path} to be whole: {error}") from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise ValueError(f"expected {path} to hold data with the md5 {md5}, got {found}")
    axes = content[3]  # the header: two zeros, the type, the number of axes, 4 bytes for each
    shape = np.frombuffer(content, ">u4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


def _split(
    images: np.ndarray, labels: np.ndarray, test_images: np.ndarray, test_labels: np.ndarray
) -> Dataset:
    order = np.random.RandomState(0).permutation(len(labels))  # the same in every NumPy
    train, validation = np.sort(order[VALIDATION:]), np.sort(order[:VALIDATION])
    return Dataset(
        NAME,
        train=_part(images[train], labels[train], train),
        validation=_part(images[validation], labels[validation], validation),
        test=_part(test_images, test_labels, np.arange(len(test_labels))),
        source="the full set",
        class_names=CLASS_NAMES,
    )
