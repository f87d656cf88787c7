"""A learner trains in lesson 04, and does two exercises."""

from __future__ import annotations

from playwright.sync_api import expect

LESSON = "04_train_on_fashion_mnist.ipynb"
ALSO = ("histories[head] = train(head)",)
SHORTER = {  # nbval runs all of them
    "EPOCHS = 12": "EPOCHS = 2",
    r"in (\"gap\", \"gmp\", \"flatten\")": r"in (\"gap\",)",
}


def test_the_lesson_as_a_learner_does_it(lesson):
    """One test, so that its network is trained once, for two epochs."""
    bar = lesson.cell("histories[head] = train(head)").locator(".jp-OutputArea-output .widget-hbox")
    expect(bar).to_contain_text("validation=")

    for answer, said in [
        ("F.cross_entropy(logits.sigmoid(), labels)", "The sigmoid still squeezes the logits"),
        ("F.cross_entropy(logits, labels)", "✓ Right The mean over the pictures"),
    ]:
        lesson.answer(
            "def mended_loss(logits, labels)",
            f"def mended_loss(logits, labels):\n    return {answer}",
            "checks.check_mended_loss(mended_loss)",
            said,
        )
    for answer, said in [
        ('"A", "ABC"', "For the average you named A, B, C."),
        ('"A", "AB"', "✓ Right"),
    ]:
        lesson.answer(
            "def head_claims()",
            f"def head_claims():\n    return {answer}",
            "checks.check_head_claims(head_claims)",
            said,
        )
