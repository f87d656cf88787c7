"""The study of lesson 04: what many trainings gave, and its statistics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

STUDY = Path(__file__).parent / "assets" / "study.csv"


def load_study() -> pandas.DataFrame:
    """Load the study of lesson 04: what many trainings gave, with their seeds.

    Returns:
        A row for each number of each run: experiment, data, pictures (to train), recipe,
        epochs, model, seed; measure, at (an epoch, a shift or a canvas, in pixels) and
        value; and of the run its seconds, torch (the version), device and threads.

    Source:
        `tools/run_study.py`, which made the file.
    """
    import pandas  # takes half a second: only for those who read the study

    return pandas.read_csv(STUDY)
