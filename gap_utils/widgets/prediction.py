"""A question to answer before the cell that reveals it. Introduced in lesson 00."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import ipywidgets

from gap_utils.widgets.lab import Lab

BUTTON_LAYOUT = {"width": "max-content", "max_width": "100%"}


class Prediction(Lab):
    """A question with a few answers; choosing one shows what it says about the idea.

    Args:
        question: one sentence.
        answers: answer -> feedback. The feedback on a wrong answer names the mistake.
        right: the answer that is right.

    Raises:
        ValueError: if `right` is not one of at least two answers.

    Example:
        >>> prediction = Prediction("2 + 2?", {"3": "One too few.", "4": "Two pairs."}, "4")
        >>> prediction.value = "3"
        >>> prediction.feedback
        'Not this one. One too few.'
    """

    def __init__(self, question: str, answers: Mapping[str, str], right: str):
        if not isinstance(answers, Mapping):
            raise ValueError(f"expected a dict, answer -> feedback, got {answers!r}")
        if right not in [*answers] or len(answers) < 2:
            raise ValueError(
                f"expected two or more answers with {right!r} among them, got {list(answers)}"
            )
        self.question = question
        self.answers = dict(answers)
        self.right = right
        self._chosen: str | None = None
        # buttons, not radio buttons: JupyterLab takes the arrow keys that those need
        self._buttons = {answer: ipywidgets.Button(layout=BUTTON_LAYOUT) for answer in answers}
        for answer, button in self._buttons.items():
            button.on_click(lambda _, answer=answer: setattr(self, "value", answer))
        self._feedback = ipywidgets.HTML()
        asked = ipywidgets.HTML(f"<b>Predict.</b> {escape(question)}")
        self.box = ipywidgets.VBox([asked, *self._buttons.values(), self._feedback])
        self._show()

    @property
    def value(self) -> str | None:
        """The chosen answer, None before the first choice; it can be set."""
        return self._chosen

    @value.setter
    def value(self, answer: str | None) -> None:
        if answer is not None and answer not in [*self.answers]:
            raise ValueError(f"expected one of {list(self.answers)}, got {answer!r}")
        self._chosen = answer
        self._show()

    @property
    def feedback(self) -> str:
        """What the chosen answer says, empty before the first choice."""
        if self.value is None:
            return ""
        verdict = "Right." if self.value == self.right else "Not this one."
        return f"{verdict} {self.answers[self.value]}"

    def _show(self) -> None:
        for answer, button in self._buttons.items():
            button.description = f"{'●' if answer == self.value else '○'} {answer}"
        self._feedback.value = f'<div role="status">{escape(self.feedback)}</div>'

    def __repr__(self) -> str:
        return "\n".join([f"Predict. {self.question}", *(f"  ( ) {a}" for a in self.answers)])
