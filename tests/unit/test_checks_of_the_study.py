"""The checks of lessons 04 and 05 that ask what the study says, on studies made up for it."""

import numpy as np
import pandas
import pytest

from gap_utils import checks
from gap_utils.checks import claims

NOT_ATTEMPTED = "not attempted yet"


def raise_not_implemented():
    raise NotImplementedError


@pytest.fixture
def study(monkeypatch):
    """Set the runs of each head, seed by seed: centred, moved, and training minus test accuracy.

    And those on the digits.
    """

    def says(centred, moved, overfitted, digits):
        tables = {("heads", "test_accuracy", 0): centred, ("digits", "test_accuracy", 0): digits}
        tables |= {("heads", "accuracy_against_shift", at): moved for at in (3, 5)}
        rows = [
            (experiment, measure, at, 55000, model, seed, value)
            for (experiment, measure, at), table in tables.items()
            for model, numbers in table.items()
            for seed, value in enumerate(numbers)
        ]
        for model, numbers in overfitted.items():
            for seed, difference in enumerate(numbers):
                for measure, value in [
                    ("train_accuracy", 0.5 + difference),
                    ("test_accuracy", 0.5),
                ]:
                    rows.append(("overfitting", measure, 0, 1000, model, seed, value))
                rows.append(("overfitting", "train_loss", 60, 1000, model, seed, 2.0))
        columns = ["experiment", "measure", "at", "pictures", "model", "seed", "value"]
        frame = pandas.DataFrame(rows, columns=columns)
        monkeypatch.setattr(claims, "load_study", lambda: frame)

    return says


def runs(gap, gmp, flatten):
    """Three runs of each head, a step apart in the order of their seeds: mean, step."""
    heads = {"gap": gap, "gmp": gmp, "flatten": flatten}
    return {
        head: [mean + step * seed for seed in (-1, 0, 1)] for head, (mean, step) in heads.items()
    }


SAME = runs((0.2, 0.01), (0.2, 0.01), (0.2, 0.01))
CLOSE = runs((0.90, 0.002), (0.88, 0.01), (0.903, 0.002))
APART = runs((0.60, 0.01), (0.45, 0.02), (0.40, 0.01))


def test_the_claims_about_heads(study):
    # flatten before GAP by 0.3 points with each seed; before GMP by 2.3, of a spread of 1.0
    study(CLOSE, SAME, SAME, SAME)
    for right in [("", "AB"), ["", "ba"], (set(), {"A", "B"})]:
        assert checks.check_head_claims(lambda right=right: right).passed
    for wrong in [("A", "AB"), ("", "ABC"), ("", "A"), ("AB", "")]:
        feedback = checks.check_head_claims(lambda wrong=wrong: wrong)
        assert not feedback.passed
        for line in [
            "A: 2.3 points, 2.3 times the spread of 1.0, interval",
            "B: 0.3 points, 1.5 times the spread of 0.2, interval 0.3 to 0.3.",
            "C: 0.00 points, 0.0 times the spread of 1.00, interval 0.00 to 0.00.",
        ]:
            assert line in feedback.message
        assert "single runs need not" not in feedback.message  # nor the answer itself
        assert "on average it" not in feedback.message
    feedback = checks.check_head_claims(lambda: ("", "AB"))
    for line in [
        "B: 0.3 points, 1.5 times the spread of 0.2: single runs need not show it. "
        "Interval 0.3 to 0.3: on average it holds.",
        "C: 0.00 points, 0.0 times the spread of 1.00: single runs need not show it. "
        "Interval 0.00 to 0.00: on average it is not shown.",
    ]:
        assert line in feedback.message


def test_the_claims_about_heads_of_another_study(study):
    study(APART, SAME, SAME, runs((0.3, 0.01), (0.2, 0.01), (0.4, 0.01)))
    assert checks.check_head_claims(lambda: ("C", "C")).passed
    feedback = checks.check_head_claims(lambda: ("", "AB"))
    assert not feedback.passed
    assert "For single runs you named none. Those that hold have a lead of over" in feedback.message
    assert "For the average you named A, B. Those that hold have an interval" in feedback.message


def test_the_claims_about_heads_of_the_shipped_study():
    assert checks.check_head_claims(lambda: ("A", "AB")).passed
    for wrong in [("A", "ABC"), ("", "AB"), ("AB", "AB"), ("A", "A")]:
        feedback = checks.check_head_claims(lambda wrong=wrong: wrong)
        assert not feedback.passed
        assert "C: 0.02 points, 0.2 times the spread of 0.08" in feedback.message
        not_named = not {"A", "B"} <= set(wrong[1])
        assert feedback.message.count("fewer parameters are not higher accuracy") == not_named


# GAP before GMP by 4 points, of a spread of 2: single runs need not show it, but seed by seed
# it is 4 each time. GMP before flatten by 3 points on the average, and by -1, 3 and 7.
MOVED = runs((0.60, 0.02), (0.56, 0.02), (0.53, -0.02))
LESS = runs((0.10, 0.01), (0.2, 0.01), (0.15, 0.01))


def test_the_claims(study):
    study(CLOSE, MOVED, LESS, SAME)
    for right in [
        ("D", "ABD"),
        ["d", "bad"],
        ("D", {"A", "B", "D"}),
        (["D"], ("A", "B", "D")),
        (frozenset("D"), "A, B, D"),
    ]:
        assert checks.check_supported_claims(lambda right=right: right).passed
    for wrong in [("ABD", "ABD"), ("D", "D"), ("", "ABD"), ("D", "ABCD"), ("", ""), ("ABD", "D")]:
        feedback = checks.check_supported_claims(lambda wrong=wrong: wrong)
        assert not feedback.passed
        for line in [
            "A: 4.0 points, 2.0 times the spread of 2.0, interval 4.0 to 4.0.",
            "C: 3.0 points, 1.5 times the spread of 2.0, interval -6.9 to 12.9.",
            "D: 5.0 points, 5.0 times the spread of 1.0, interval 5.0 to 5.0.",
        ]:
            assert line in feedback.message
        single, average = (", ".join(letters) or "none" for letters in wrong)
        said = (
            f"For single runs you named {single}. Those that hold have a lead of over 3 times the"
        )
        assert (said in feedback.message) == (wrong[0] != "D")
        said = f"For the average you named {average}. Those that hold have an interval above 0."
        assert (said in feedback.message) == (wrong[1] != "ABD")


def test_a_claim_that_is_the_wrong_way_around_holds_in_neither_sense(study):
    study(CLOSE, MOVED, runs((0.22, 0.01), (0.2, 0.01), (0.15, 0.01)), SAME)  # GAP's is larger
    assert checks.check_supported_claims(lambda: ("", "AB")).passed
    assert "D: -7.0 points" in checks.check_supported_claims(lambda: ("D", "ABD")).message


def test_the_claims_of_the_shipped_study():
    assert checks.check_supported_claims(lambda: ("BC", "ABC")).passed
    for wrong in [("BC", "BC"), ("ABC", "ABC"), ("ABC", "BC"), ("BC", "ABCD"), ("B", "ABC")]:
        assert not checks.check_supported_claims(lambda wrong=wrong: wrong).passed


def test_one_string_answers_one_question_only():
    for answer in ["BC", ("BC",), {"BC", "ABC"}, ("BC", "ABC", ""), ("BC", None), ["B", {"X"}]]:
        for check, example in [
            (checks.check_supported_claims, '("AD", "D")'),
            (checks.check_head_claims, '("AC", "C")'),
        ]:
            feedback = check(lambda answer=answer: answer)
            assert not feedback.passed
            assert f"first for single runs and then on average, such as {example}" in (
                feedback.message
            )


@pytest.mark.parametrize("check", [checks.check_head_claims, checks.check_supported_claims])
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
