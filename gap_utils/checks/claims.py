"""Claims about a study, for single runs and on average: lessons 04 and 05."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any

from gap_utils.checks.calling import AnswerError, Feedback, call_answer
from gap_utils.checks.grading import say_findings
from gap_utils.study import (
    CLEAR,
    Comparison,
    by_seed,
    compare,
    load_study,
    train_and_test,
)


@dataclass(frozen=True)
class Claim:
    """That the number of one head is larger than that of the other."""

    one: str
    other: str
    measure: str = "test_accuracy"  # or "difference", of training and test accuracy
    at: int = 0  # as in `by_seed`; of a difference, the number of training pictures
    experiment: str = "heads"
    missed: str = ""  # said where the claim holds on average and was not named

    def test(self, study: Any) -> Comparison:
        """Compare the two heads in the table of `load_study`."""
        if self.measure == "difference":
            table = train_and_test(study).difference.loc[self.at].unstack("model")
        else:
            table = by_seed(study, self.measure, self.at, self.experiment)
        return compare(table, self.one, self.other)


def check_claims(answer: Callable, claims: dict[str, Claim]) -> Feedback:
    """Grade which claims hold: two strings of letters, for single runs and on average."""
    value = call_answer(answer)
    two = isinstance(value, tuple | list) and len(value) == 2
    said = [_letters(item, claims) for item in value] if two else [None]
    if None in said:
        first, *_, last = claims
        raise AnswerError(
            f"Expected two strings of letters of {', '.join(claims)}, first for single runs and "
            f'then on average, such as ("{first}{last}", "{last}"), with "" for none; your '
            f"function returned {value!r}."
        )
    study, numbers, verdicts, wrong = load_study(), [], [], []
    single, average = set(), set()
    for letter, claim in claims.items():
        found = claim.test(study)
        single |= {letter} if found.is_clear else set()
        average |= {letter} if found.is_supported else set()
        digits = 1 if abs(found.lead) > 0.001 else 2
        lead, interval, times = found.in_points(digits)
        numbers.append(f"{letter}: {lead}, {times}, interval {interval}.")
        verdicts.append(
            f"{letter}: {lead}, {times}: "
            f"single runs {'show' if found.is_clear else 'need not show'} it. "
            f"Interval {interval}: "
            f"on average it {'holds' if found.is_supported else 'is not shown'}."
        )
    for what, rule, letters, holds in (
        ("single runs", f"a lead of over {CLEAR} times the spread", said[0], single),
        ("the average", "an interval above 0", said[1], average),
    ):
        if letters != holds:
            named = ", ".join(sorted(letters)) or "none"
            wrong.append(f"For {what} you named {named}. Those that hold have {rule}.")
    missed = {claims[letter].missed for letter in average - said[1]}
    # the verdicts are what the exercise asks for: a wrong answer gets the numbers alone
    return say_findings(
        not wrong, [*numbers, *wrong, *sorted(missed - {""})] if wrong else verdicts
    )


def _letters(item: Any, claims: dict[str, Claim]) -> set[str] | None:
    """The letters of claims in a string or a collection of strings; None if it is neither."""
    words = [sign for sign in item if sign not in ", "] if isinstance(item, str) else item
    letters = {word.upper() for word in words} if _are_words(words) else {None}
    return letters if letters <= set(claims) else None


def _are_words(value: Any) -> bool:
    return isinstance(value, tuple | list | Set) and all(isinstance(item, str) for item in value)
