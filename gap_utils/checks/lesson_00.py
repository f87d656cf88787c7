"""The check of lesson 00."""

from __future__ import annotations

from collections.abc import Callable

from gap_utils.checks.calling import Feedback, exercise
from gap_utils.checks.grading import grade


@exercise
def check_numbers_per_map(answer: Callable) -> Feedback:
    """Check lesson 00, exercise 1: shape (N, C, H, W) -> the numbers in one map, H * W."""
    return grade(
        answer,
        lambda shape: shape[2] * shape[3],
        "one map of one channel holds H * W numbers",
        lambda shape: shape[0] * shape[1] * shape[2] * shape[3],
        "That counts every number of the whole batch. One map is one channel of one picture.",
        lambda shape: shape[1] * shape[2] * shape[3],
        "That counts all channels of one picture. One map is one channel.",
        lambda shape: shape[2] + shape[3],
        "That adds the two sides. A grid of H rows and W columns holds H * W numbers.",
        lambda shape: shape[1] * shape[2],
        "That multiplies axes 1 and 2, which are C and H. Counting starts at 0: H and W are axes 2 "
        "and 3.",
        lambda shape: shape[0] * shape[1],
        "That multiplies N and C. These count the maps, not the numbers in one of them.",
        cases=[((1, 1, 2, 2),), ((1, 3, 4, 5),), ((8, 64, 7, 7),), ((4, 3, 600, 512),)],
    )
