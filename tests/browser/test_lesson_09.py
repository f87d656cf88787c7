"""A learner averages over a mask in lesson 09 in JupyterLab."""

from __future__ import annotations

from playwright.sync_api import expect

from driver import expect_said

LESSON = "09_choose_a_head.ipynb"


def test_all_cells_run_and_a_mean_over_a_mask_is_done_wrong_then_right(lesson):
    last = lesson.cell("plt.yticks([0, -1, -2, -3], tables)")
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
