"""The two checks of lesson 04 that ask what the study says, on studies made up for it."""

import numpy as np
import pandas
import pytest

from gap_utils import checks
from gap_utils.checks import lesson_04

NOT_ATTEMPTED = "not attempted yet"


def raise_not_implemented():
    raise NotImplementedError


@pytest.fixture
def study(monkeypatch):
    """Set mean and spread of each head, centred and moved."""

    def says(centred, moved):
        rows = [
            ("heads", measure, at, model, mean + spread * step)
            for measure, at, table in [
                ("test_accuracy", 0, centred),
                ("accuracy_against_shift", 4, moved),
            ]
            for model, (mean, spread) in table.items()
            for step in (-1, 0, 1)  # their standard deviation is `spread`
        ]
        frame = pandas.DataFrame(rows, columns=["experiment", "measure", "at", "model", "value"])
        monkeypatch.setattr(lesson_04, "load_study", lambda: frame)
        lesson_04._heads.cache_clear()

    yield says
    lesson_04._heads.cache_clear()


CLOSE = {"gap": (0.90, 0.002), "gmp": (0.88, 0.01), "flatten": (0.903, 0.002)}
APART = {"gap": (0.60, 0.01), "gmp": (0.45, 0.02), "flatten": (0.40, 0.01)}


def test_the_winners(study):
    study(CLOSE, APART)
    assert checks.check_winners(lambda: ("none", "gap")).passed
    assert checks.check_winners(lambda: ["None", "GAP"]).passed
    assert not checks.check_winners(lambda: {"none", "gap"}).passed  # a set has no order
    for wrong in [("flatten", "gap"), ("none", "none"), ("gap", "gap"), ("none", "gmp")]:
        feedback = checks.check_winners(lambda wrong=wrong: wrong)
        assert not feedback.passed
        assert "as they are: gap 90.0 ± 0.2 %, gmp 88.0 ± 1.0 %" in feedback.message
        assert "no head is clearly ahead of both others" in feedback.message
        assert "gap is clearly ahead of both" in feedback.message
    assert "and you say flatten" in checks.check_winners(lambda: ("flatten", "gap")).message


def test_the_winners_of_another_study(study):
    study(APART, CLOSE)
    assert checks.check_winners(lambda: ["gap", "none"]).passed
    assert not checks.check_winners(lambda: ("none", "gap")).passed


def test_the_claims(study):
    study(CLOSE, APART)
    for right in ("C", "c", {"C"}, frozenset("C"), ["C"], ("C",)):
        assert checks.check_supported_claims(lambda right=right: right).passed
    for wrong in ("", "A", "AC", "BC", "ABC", []):
        feedback = checks.check_supported_claims(lambda wrong=wrong: wrong)
        assert not feedback.passed
        assert (
            "A: ahead by 0.3 points, 1.5 times the spread of 0.2; not clearly" in feedback.message
        )
        assert (
            "B: ahead by 2.0 points, 2.0 times the spread of 1.0; not clearly" in feedback.message
        )
        assert (
            "C: ahead by 20.0 points, 20.0 times the spread of 1.0; clearly ahead"
            in feedback.message
        )
    study(APART, CLOSE)
    assert checks.check_supported_claims(lambda: "B").passed
    assert not checks.check_supported_claims(lambda: "C").passed


def test_a_lead_of_three_spreads_is_not_enough(study):
    tie = {"gap": (0.8, 0.01), "gmp": (0.7701, 0.01), "flatten": (0.8299, 0.01)}
    study(tie, tie)
    assert checks.check_supported_claims(lambda: "").passed
    tie["gmp"] = (0.7699, 0.01)
    study(tie, tie)
    assert checks.check_supported_claims(lambda: "B").passed


@pytest.mark.parametrize("check", [checks.check_winners, checks.check_supported_claims])
def test_whatever_comes_back_gets_a_sentence(check):
    assert repr(check(raise_not_implemented)) == NOT_ATTEMPTED
    for answer, sentence in [
        (lambda: None, "returned None. Does it end with return?"),
        (lambda: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda x: "A", "raised TypeError"),
        (lambda: 4, "returned 4"),
        (lambda: ("resnet", "gap"), "returned ('resnet', 'gap')"),
        (lambda: [["gap"], {}], "returned [['gap'], {}]"),
        (lambda: "ABX", "returned 'ABX'"),
        (lambda: (np.array(["none", "gap"]), "gap"), "returned (array("),
        ("A", "needs your function itself"),
    ]:
        feedback = check(answer)
        assert not feedback.passed
        assert feedback.message.startswith("✗ ")
        assert sentence in feedback.message
