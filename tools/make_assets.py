"""Make the files in gap_utils/assets again, byte for byte.

    python -m tools.make_assets [FOLDER]

FOLDER holds the four files of the full Fashion-MNIST; without it the usual places are
looked through.
"""

from __future__ import annotations

import sys

import numpy as np

from gap_utils.data import SMALL, Dataset, Split, load_fashion_mnist

PER_CLASS = {"train": 400, "validation": 100, "test": 100}
FIRST_TEST_PICTURES = 10  # the official test pictures 0 to 9, which the lessons name


def choose(part: Split, per_class: int, first: int = 0) -> np.ndarray:
    """Choose equally many pictures of each class; the first of all are always among them."""
    labels = part.labels.numpy()
    order = np.random.RandomState(0).permutation(len(labels))
    order = np.concatenate([np.arange(first), order[order >= first]])
    chosen = [order[labels[order] == label][:per_class] for label in range(10)]
    return np.sort(np.concatenate(chosen))


def small_arrays(full: Dataset) -> dict[str, np.ndarray]:
    """Take the small part out of the full set, as the arrays of its file."""
    arrays = {}
    for name, per_class in PER_CLASS.items():
        part = getattr(full, name)
        places = choose(part, per_class, FIRST_TEST_PICTURES if name == "test" else 0)
        images = (part.images[places, 0] * 255).round().byte().numpy()
        arrays[f"{name}_images"] = images
        arrays[f"{name}_labels"] = part.labels[places].byte().numpy()
        arrays[f"{name}_numbers"] = part.numbers[places].numpy().astype(np.uint16)
    return arrays


def main() -> None:
    """Write the small part of Fashion-MNIST."""
    full = load_fashion_mnist("full", folder=sys.argv[1] if len(sys.argv) > 1 else None)
    np.savez_compressed(SMALL, **small_arrays(full))
    print(f"{SMALL.name}: {SMALL.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
