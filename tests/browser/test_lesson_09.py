"""A learner averages over a mask in lesson 09 in JupyterLab, and does the last quiz."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from driver import expect_said

LESSON = "09_choose_a_head.ipynb"
ALSO = ("axes[0, 0].set_ylim",)


def test_cells_run_and_a_mean_over_a_mask_is_done_wrong_then_right(lesson):
    last = lesson.cell("axes[0, 0].set_ylim")
    expect(last.locator(".jp-OutputArea-output img")).to_be_visible()
    question = lesson.question("What is twos.sum() / 90000?")
    question.get_by_role("radio", name="inf").check()
    expect_said(question, "Right", "is above 65,504, where float16 ends")
    total = "(features * mask[:, None]).sum((2, 3))"
    for answer, said in [
        ("features.mean((2, 3))", "the mean of all positions, the padding too"),
        (f"{total} / mask.sum((1, 2))[:, None]", "float16 ends at 65,504"),
        (
            f"({total.replace('features', 'features.float()')} / mask.sum((1, 2))[:, None])"
            ".to(features.dtype)",
            "✓ Right Each picture's own positions",
        ),
    ]:
        lesson.answer(
            "def masked_mean(features, mask)",
            f"def masked_mean(features, mask):\n    return {answer}",
            "checks.check_masked_mean(masked_mean)",
            said,
        )


def test_the_last_quiz(lesson):
    score = lesson.lab("Quiz")
    expect_said(score, "0 of 15 answered, 0 right at the first try.")
    asked = [source for source in lesson.cells() if source.startswith("code quiz.ask(")]
    for number, source in enumerate(asked, start=1):
        question = lesson.question(f"Question {number} of 15.")
        right, explained = re.search(r'right="(.+)",\n    lesson="(\d\d)"', source).groups()
        radios = question.get_by_role("radio")
        if number == 3:  # the first of the three answers is wrong
            radios.first.check()
            expect_said(question, "Not this one", f"Lesson {explained} explains it.")
            lesson.page.wait_for_timeout(1100)
        question.get_by_role("radio", name=right, exact=True).check()
        expect_said(question, "Right", f"Lesson {explained} explains it.")
    expect_said(score, "15 of 15 answered, 14 right at the first try.")
    expect_said(score, "Look again at lesson 03 (question 3).")
