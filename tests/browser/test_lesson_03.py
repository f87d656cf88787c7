"""A learner repairs a snippet of lesson 03 in JupyterLab."""

from __future__ import annotations

from playwright.sync_api import expect

LESSON = "03_write_gap_in_pytorch.ipynb"
ALSO = ("alone.argmax(1)", "plt.subplots(6, 3")


def test_cells_run_and_a_repair_is_done_wrong_then_right(lesson):
    expect(lesson.cell("alone.argmax(1)")).to_contain_text("IndexError")
    # an error shown on purpose has not stopped it
    expect(lesson.cell("plt.subplots(6, 3").locator(".jp-OutputArea-output img")).to_be_visible()
    for answer, said in [
        ("pool(maps).squeeze()", "With one picture the batch axis is gone"),
        ("pool(maps).flatten(1)", "count from the end"),
        ("pool(maps).detach().flatten(-3)", "no gradient reaches maps"),
        ("pool(maps).flatten(-3)", "✓ Right A batch of four, a batch of one"),
    ]:
        lesson.answer(
            "def pool_any_batch(maps, pool)",
            f"def pool_any_batch(maps, pool):\n    return {answer}",
            "checks.check_pool_any_batch(pool_any_batch)",
            said,
        )
