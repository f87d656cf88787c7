"""A question to answer before the cell that reveals it. Introduced in lesson 00."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from gap_utils.svg import Frame
from gap_utils.verdict import RIGHT, WRONG, verdict_as_html
from gap_utils.widgets.lab import Choice, Lab


@dataclass(frozen=True)
class QuestionState:
    """The answer on view, None before the first choice."""

    answer: str | None = None


class Question(Lab):
    """A question with a few answers; choosing one shows what it says about the idea.

    Args:
        question: one sentence.
        answers: answer -> feedback. The feedback on a wrong answer names the mistake.
        right: the answer that is right.
        title: what stands in front of the question.

    Raises:
        ValueError: if `right` is not one of at least two answers.

    Example:
        >>> question = Question("2 + 2?", {"3": "One too few.", "4": "Two pairs."}, "4")
        >>> question.value = "3"
        >>> question.feedback
        'Not this one. One too few.'
    """

    def __init__(
        self, question: str, answers: Mapping[str, str], right: str, title: str = "Predict."
    ):
        if not isinstance(answers, Mapping):
            raise ValueError(f"expected a dict, answer -> feedback, got {answers!r}")
        if right not in [*answers] or len(answers) < 2:
            raise ValueError(
                f"expected two or more answers with {right!r} among them, got {list(answers)}"
            )
        self.question = question
        self._asked = f"{title} {question}"
        self.answers = dict(answers)
        self.right = right
        options = [(answer, answer) for answer in answers]
        choice = Choice("answer", self._asked, options, main=True, style="radio")
        super().__init__(QuestionState(), [choice])

    @property
    def value(self) -> str | None:
        """The chosen answer, None before the first choice; it can be set."""
        return self._state.answer

    @value.setter
    def value(self, answer: str | None) -> None:
        state = answer if isinstance(answer, QuestionState) else QuestionState(answer)
        Lab.value.fset(self, state)

    @property
    def feedback(self) -> str:
        """What the chosen answer says, empty before the first choice."""
        return ". ".join(self._say(self.value))

    def draw(self, state: QuestionState) -> Frame:
        """Say what the answer says; there is nothing to draw."""
        said = self._say(state.answer)
        verdict = "right" if state.answer == self.right else "wrong"
        return Frame(
            panels=(),
            words=said,
            text=f"{self._asked} {'. '.join(said)}".rstrip(),
            room=("Not this one", *self.answers.values()),
            verdict=verdict if said else "",
        )

    def complete(self, state: QuestionState) -> QuestionState:
        """Refuse what is none of the answers."""
        if state.answer is not None and state.answer not in [*self.answers]:
            raise ValueError(f"expected one of {list(self.answers)}, got {state.answer!r}")
        return state

    def prepared(self) -> Sequence[QuestionState]:
        """All answers, so that each is there without a kernel."""
        return [*map(QuestionState, self.answers)]

    def as_html(self) -> str:
        """The question and its answers, each of which opens to what is behind it."""
        lines = [
            f"<p><b>{escape(self._asked, quote=False)}</b><br>",
            "Click an answer to see whether it is right.</p>",
        ]
        for answer in self.answers:
            sign = RIGHT if answer == self.right else WRONG
            lines += [
                f'<details style="padding: 2px 0"><summary>{escape(str(answer), False)}</summary>',
                verdict_as_html(sign, *self._say(answer)),
                "</details>",
            ]
        return "\n".join(lines)

    def _say(self, answer: str | None) -> tuple[str, ...]:
        """The verdict on an answer and what is behind it; nothing before the first choice."""
        if answer is None:
            return ()
        return "Right" if answer == self.right else "Not this one", self.answers[answer]

    def __repr__(self) -> str:
        answers = [f"  {chr(65 + n)}  {answer}" for n, answer in enumerate(self.answers)]
        return "\n".join([self._asked, *answers])
