"""What many trainings gave, and the statistics of it. Introduced in lesson 04."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from gap_utils.models import HEADS

if TYPE_CHECKING:
    import pandas

STUDY = Path(__file__).parent / "assets" / "study.csv"
CLEAR = 3  # single runs are told apart by a lead of over so many times their spread
# Student's t for a 95 % interval of a mean, by the number of values
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


def load_study() -> pandas.DataFrame:
    """Load the study that the lessons read, made by `tools/run_study.py`.

    Returns:
        A row for each number of each run, with the columns experiment, data, pictures (to
        train), recipe, epochs, model, seed; measure, at (an epoch, a shift or a canvas in
        pixels, the level of a box in percent, or 0) and value; and of the run its seconds of
        training, torch (the version), device and threads.

    Example:
        >>> study = load_study()
        >>> sorted(study[study.experiment == "heads"].model.unique())
        ['flatten', 'gap', 'gmp']
    """
    import pandas  # takes half a second: only for those who read the study

    return pandas.read_csv(STUDY)


def by_seed(
    study: pandas.DataFrame,
    measure: str,
    at: float = 0,
    experiment: str | Sequence[str] = "heads",
) -> pandas.DataFrame:
    """Put one number of every run into a table: a row for each seed, a column for each model.

    Args:
        study: from `load_study`.
        measure: such as "test_accuracy" or "accuracy_against_shift".
        at: the epoch, shift or canvas.
        experiment: of which the runs are, one or several; each model and seed has one run.

    Raises:
        ValueError: if the study holds no such numbers, or several of a model and seed.

    Example:
        >>> by_seed(load_study(), "test_accuracy").mean().round(3).to_dict()
        {'flatten': 0.902, 'gap': 0.897, 'gmp': 0.884}
    """
    rows = _select(study, measure, experiment)
    if at not in set(rows["at"]):
        places = ", ".join(f"{place}" for place in sorted(set(rows["at"])))
        raise ValueError(f"expected at to be one of {places}, got {at!r}")
    rows = rows[rows["at"] == at]
    return rows.pivot(index="seed", columns="model", values="value")


def mean_and_spread(
    study: pandas.DataFrame, measure: str, experiment: str | Sequence[str] = "heads"
) -> pandas.DataFrame:
    """Average a measure over the runs that differ in their seed only; arguments as `by_seed`.

    Returns:
        A row for each epoch, shift or canvas; columns mean and std (the spread between the
        seeds), each with a column for each model.

    Raises:
        ValueError: as `by_seed` does.

    Example:
        >>> table = mean_and_spread(load_study(), "accuracy_against_shift")
        >>> table.round(3).loc[4].unstack().gap.to_dict()
        {'mean': 0.576, 'std': 0.015}
    """
    rows = _select(study, measure, experiment)
    return rows.groupby(["at", "model"]).value.agg(["mean", "std"]).unstack()


def _select(
    study: pandas.DataFrame, measure: str, experiment: str | Sequence[str]
) -> pandas.DataFrame:
    names = [experiment] if isinstance(experiment, str) else list(experiment)
    rows = study[study.experiment.isin(names) & (study.measure == measure)]
    if rows.empty or rows.duplicated(["at", "model", "seed"]).any():
        raise ValueError(
            f"expected a measure with one number of each model and seed, got {len(rows)} numbers "
            f"of {measure!r} in {' and '.join(map(repr, names))}"
        )
    return rows


def train_and_test(study: pandas.DataFrame) -> pandas.DataFrame:
    """Put training accuracy, test accuracy and their difference beside each other.

    Taken are the runs of "heads" and "overfitting" of what `load_study` gives.

    Returns:
        A row for each number of training pictures, model and seed; columns train_accuracy,
        test_accuracy and difference, the first minus the second.

    Example:
        >>> table = train_and_test(load_study()).difference.loc[6000].unstack("model")
        >>> table[["gap", "flatten"]].mean().round(3).to_dict()
        {'gap': 0.069, 'flatten': 0.109}
    """
    measures = ["train_accuracy", "test_accuracy"]
    rows = study[study.experiment.isin(["heads", "overfitting"]) & study.measure.isin(measures)]
    table = rows.pivot(index=["pictures", "model", "seed"], columns="measure", values="value")
    table = table[measures].rename_axis(columns=None)
    return table.assign(difference=table.train_accuracy - table.test_accuracy)


@dataclass(frozen=True)
class Comparison:
    """One model beside another over the same seeds, and what it tells; printed, in points."""

    one: str  #: the model that may be ahead
    other: str
    differences: tuple[float, ...]  #: the first minus the second, seed by seed
    lead: float  #: the mean of the differences
    #: the 95 % interval of the lead, by Student's t, which takes the differences for a sample of
    #: normally distributed ones
    low: float
    high: float
    spread: float  #: the standard deviation of the model's own runs, the larger of the two

    @property
    def is_clear(self) -> bool:
        """Whether two single runs can be told apart: a lead of over three times the spread."""
        return self.lead > CLEAR * self.spread

    @property
    def is_supported(self) -> bool:
        """Whether the runs together show that the first is ahead: an interval above 0."""
        return self.low > 0

    def describe(self, digits: int = 1) -> str:
        """Say both in a line, in points: of accuracies as parts, from 0 to 1.

        Example:
            >>> digits = by_seed(load_study(), "test_accuracy", experiment="digits")
            >>> compare(digits, "gap", "gmp").describe(2)
            'gap leads gmp by 0.30 points, interval 0.17 to 0.43; 2.2 times the spread of 0.13'
        """
        lead, interval, times = self.in_points(digits)
        return f"{self.one} leads {self.other} by {lead}, interval {interval}; {times}"

    def in_points(self, digits: int = 1) -> tuple[str, str, str]:
        """Write the lead, its interval, and how many times the spread it is.

        Example:
            >>> compare(by_seed(load_study(), "test_accuracy"), "gap", "gmp").in_points()
            ('1.3 points', '0.8 to 1.7', '2.2 times the spread of 0.6')
        """
        lead, low, high, spread = (
            f"{100 * number:.{digits}f}" for number in (self.lead, self.low, self.high, self.spread)
        )
        times = f"{self.lead / self.spread:.1f} times the spread of {spread}"
        return f"{lead} points", f"{low} to {high}", times

    def __str__(self) -> str:
        return self.describe()


def compare(table: pandas.DataFrame, one: str, other: str) -> Comparison:
    """Compare two models seed by seed: `one`, which may be ahead, with `other`.

    Args:
        table: from `by_seed`, a row for each seed.
        one: a column of it, the name of a model.
        other: another.

    Raises:
        ValueError: if a column is missing, or the two share fewer than 2 seeds or more than 10.

    Source:
        Student (1908), "The probable error of a mean", for the interval.

    Example:
        >>> found = compare(by_seed(load_study(), "accuracy_against_shift", 3), "gap", "gmp")
        >>> [round(100 * difference, 1) for difference in found.differences]
        [13.8, 7.4, 16.1, 7.4, 7.1]
        >>> round(100 * found.lead, 1), round(100 * found.low, 1), round(100 * found.high, 1)
        (10.4, 5.1, 15.6)
        >>> found.is_clear, found.is_supported
        (False, True)
        >>> print(found)
        gap leads gmp by 10.4 points, interval 5.1 to 15.6; 2.6 times the spread of 4.0
    """
    for name in (one, other):
        if name not in table:
            raise ValueError(f"expected one of {', '.join(map(str, table))}, got {name!r}")
    differences = (table[one] - table[other]).dropna()
    count = len(differences)
    if count not in T_95:
        raise ValueError(
            f"expected {min(T_95)} to {max(T_95)} seeds that both models have, got {count}"
        )
    lead = float(differences.mean())
    half = T_95[count] * float(differences.std()) / sqrt(count)
    spread = max(float(table.loc[differences.index, name].std()) for name in (one, other))
    differences = tuple(map(float, differences))
    return Comparison(one, other, differences, lead, lead - half, lead + half, spread)


def mean_curves() -> dict[str, list[float]]:
    """Average over the seeds: name of the head -> accuracies at shifts of 0, 1, ... 6 pixels.

    Example:
        >>> [round(accuracy, 3) for accuracy in mean_curves()["gap"]]
        [0.897, 0.859, 0.772, 0.677, 0.576, 0.463, 0.393]
    """
    found: dict[tuple[str, int], list[float]] = {}
    with STUDY.open(newline="", encoding="utf-8") as file:  # without pandas: a lab asks for it
        for row in csv.DictReader(file):
            if (row["experiment"], row["measure"]) == ("heads", "accuracy_against_shift"):
                found.setdefault((row["model"], int(row["at"])), []).append(float(row["value"]))
    shifts = sorted({at for _, at in found})
    return {head: [fmean(found[head, at]) for at in shifts] for head in HEADS}
