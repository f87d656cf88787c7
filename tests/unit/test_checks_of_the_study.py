"""The two checks of lesson 04 that ask what the study says, on studies made up for it."""

import numpy as np
import pandas
import pytest

from gap_utils import checks
from gap_utils.checks import lesson_04

NOT_ATTEMPTED = "not attempted yet"


def raise_not_implemented():
    raise NotImplementedError


def with_spread(mean, spread):
    return [mean + spread * step for step in (-1, 0, 1)]  # their standard deviation is `spread`


@pytest.fixture
def study(monkeypatch):
    """Set mean and spread of each head: centred, moved, and training minus test accuracy."""

    def says(centred, moved, overfitted=None):
        tables = {("test_accuracy", 0): centred}
        tables |= {("accuracy_against_shift", at): moved for at in (3, 4, 5)}
        rows = [
            ("heads", measure, at, 55000, model, seed, value)
            for (measure, at), table in tables.items()
            for model, numbers in table.items()
            for seed, value in enumerate(with_spread(*numbers))
        ]
        for model, numbers in (overfitted or SAME).items():
            for seed, difference in enumerate(with_spread(*numbers)):
                for measure, value in [
                    ("train_accuracy", 0.5 + difference),
                    ("test_accuracy", 0.5),
                ]:
                    rows.append(("overfitting", measure, 0, 1000, model, seed, value))
                rows.append(("overfitting", "train_loss", 60, 1000, model, seed, 2.0))
        columns = ["experiment", "measure", "at", "pictures", "model", "seed", "value"]
        frame = pandas.DataFrame(rows, columns=columns)
        monkeypatch.setattr(lesson_04, "load_study", lambda: frame)
        forget()

    yield says
    forget()


def forget():
    lesson_04._heads.cache_clear()
    lesson_04._differences.cache_clear()


SAME = {"gap": (0.2, 0.01), "gmp": (0.2, 0.01), "flatten": (0.2, 0.01)}
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


LESS = {"gap": (0.1, 0.01), "gmp": (0.2, 0.03), "flatten": (0.15, 0.02)}  # by 2.5 spreads


def test_the_claims(study):
    study(CLOSE, {"gap": (0.6, 0.01), "gmp": (0.5, 0.02), "flatten": (0.46, 0.01)}, LESS)
    for right in ("AB", "ba", {"A", "B"}, frozenset("AB"), ["A", "B"], ("A", "B"), "A, B"):
        assert checks.check_supported_claims(lambda right=right: right).passed
    for wrong in ("", "A", "C", "ABC", "ABD", "ABCD", []):
        feedback = checks.check_supported_claims(lambda wrong=wrong: wrong)
        assert not feedback.passed
        for line in [
            "A: ahead by 10.0 points, 5.0 times the spread of 2.0; clearly.",
            "B: ahead by 10.0 points, 5.0 times the spread of 2.0; clearly.",
            "C: ahead by 4.0 points, 2.0 times the spread of 2.0; not clearly.",
            "D: smaller by 5.0 points, 2.5 times the spread of 2.0; not clearly.",
            f"You named {', '.join(wrong) or 'none'}. A claim needs a lead of over 3 times",
        ]:
            assert line in feedback.message


def test_the_claims_of_another_study(study):
    study(CLOSE, APART, {**LESS, "gap": (0.08, 0.01)})  # smaller by 3.5 spreads
    assert checks.check_supported_claims(lambda: "ABD").passed
    study(CLOSE, APART, {**LESS, "gap": (0.22, 0.01)})  # larger
    assert checks.check_supported_claims(lambda: "AB").passed
    assert "D: smaller by -7.0 points" in checks.check_supported_claims(lambda: "D").message


def test_the_claims_of_the_shipped_study():
    assert checks.check_supported_claims(lambda: "BC").passed
    for wrong in ("", "A", "B", "C", "D", "AB", "ABC", "BCD", "ABCD"):
        assert not checks.check_supported_claims(lambda wrong=wrong: wrong).passed


def test_a_lead_of_three_spreads_is_not_enough(study):
    tie = {"gap": (0.8, 0.01), "gmp": (0.7701, 0.01), "flatten": (0.7402, 0.01)}
    study(tie, tie)
    assert checks.check_supported_claims(lambda: "").passed
    tie["gmp"] = (0.7699, 0.01)
    study(tie, tie)
    assert checks.check_supported_claims(lambda: "AB").passed


@pytest.mark.parametrize("check", [checks.check_winners, checks.check_supported_claims])
def test_whatever_comes_back_gets_a_sentence(check):
    assert repr(check(raise_not_implemented)) == NOT_ATTEMPTED
    for answer, sentence in [
        (lambda: None, "returned None. Does it end with return?"),
        (lambda: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda x: "A", "with 0 arguments, and it is written for (x)"),
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
