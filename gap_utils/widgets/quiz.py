"""A quiz: a question in each cell, and a score that follows. Introduced in lesson 09."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from gap_utils.svg import Frame
from gap_utils.values import read_whole_number
from gap_utils.widgets.lab import Lab
from gap_utils.widgets.question import Question, QuestionState

PASSING = 1.0  # seconds; arrow keys choose each answer on their way to another


@dataclass(frozen=True)
class Score:
    """How the first tries went: a lesson and an outcome of each question, in their order."""

    lessons: tuple[str, ...] = ()
    right: tuple[bool | None, ...] = ()  # None before the first try


class Quiz(Lab):
    """The score of a quiz; `ask` makes its questions, each to be shown in a cell of its own.

    Only the first try at a question counts. It is the one that stays for a second.

    Args:
        count: how many questions there will be.

    Raises:
        ValueError: if `count` is no positive integer.

    Example:
        >>> quiz = Quiz(2)
        >>> question = quiz.ask("2 + 2?", {"3": "One too few.", "4": "Two pairs."}, "4", "01")
        >>> question.value = "3"
        >>> question.feedback
        'Not this one. One too few. Lesson 01 explains it.'
        >>> quiz.text
        '1 of 2 answered, 0 right at the first try. Look again at lesson 01 (question 1).'
    """

    def __init__(self, count: int = 15):
        self.count = read_whole_number("count", count, 1)
        self._questions: dict[str, _QuizQuestion] = {}
        super().__init__(Score(), [])

    def ask(self, question: str, answers: Mapping[str, str], right: str, lesson: str) -> Question:
        """Make the next question, or the same one anew where it was asked before.

        Args:
            question: one sentence.
            answers: answer -> feedback, as for `Question`.
            right: the answer that is right.
            lesson: number of the lesson that explains it, such as "03".

        Returns:
            The question; its feedback ends with the lesson.

        Raises:
            ValueError: if there are more questions than `count`, or something is none.
        """
        if not isinstance(question, str) or not question.strip():
            raise ValueError(f"expected a question, got {question!r}")
        if not isinstance(lesson, str) or not re.fullmatch(r"\d\d", lesson, re.ASCII):
            raise ValueError(f'expected lesson to be two digits, such as "03", got {lesson!r}')
        place = [*self._questions, question].index(question)
        if place >= self.count:
            raise ValueError(
                f"expected {self.count} questions, got one more: {question!r}. To begin anew, run "
                "the cell that makes the quiz"
            )
        title = f"Question {place + 1} of {self.count}."
        asked = _QuizQuestion(question, answers, right, title, self, lesson)
        self._questions[question] = asked
        self.count_again()
        return asked

    def count_again(self) -> None:
        """Show the score of the first tries so far."""
        asked = self._questions.values()
        self.value = Score(
            tuple(question.lesson for question in asked),
            tuple(None if q.first is None else q.first == q.right for q in asked),
        )

    def draw(self, state: Score) -> Frame:
        """Say the score, and which lessons to look at again; there is nothing to draw."""
        tries = [right for right in state.right if right is not None]
        line = f"{len(tries)} of {self.count} answered, {sum(tries)} right at the first try."
        wrong: dict[str, list[int]] = {}
        for number, (lesson, right) in enumerate(zip(state.lessons, state.right, strict=True), 1):
            if right is False:
                wrong.setdefault(lesson, []).append(number)
        again = [
            f"lesson {lesson} (question{'s' if len(numbers) > 1 else ''} {_join(numbers)})"
            for lesson, numbers in sorted(wrong.items())
        ]
        words = f"Look again at {_join(again)}." if again else "Only the first try counts."
        return Frame(panels=(), pieces=((line, ""),), words=(words,), text=f"{line} {words}")

    def as_html(self) -> str:
        """Say what it takes to see the score."""
        return (
            "<p><b>The score is counted while a kernel runs.</b> Run all cells of this lesson, "
            "answer the questions, and it stands here.</p>"
        )

    def __repr__(self) -> str:
        return f"Quiz of {self.count}: {self.text}"


class _QuizQuestion(Question):
    """A question that knows the first try, and tells its quiz."""

    def __init__(
        self,
        question: str,
        answers: Mapping[str, str],
        right: str,
        title: str,
        quiz: Quiz,
        lesson: str,
    ):
        if isinstance(answers, Mapping):
            answers = {key: f"{text} Lesson {lesson} explains it." for key, text in answers.items()}
        super().__init__(question, answers, right, title)
        self.lesson = lesson
        self.first: str | None = None
        self._quiz, self._chosen_at = quiz, 0.0

    def opening(self) -> dict[str, Any]:
        """The page knows it as a question like all others."""
        return super().opening() | {"name": "Question"}

    def _adopt(self, state: QuestionState) -> None:
        super()._adopt(state)
        if state.answer is None:
            return
        now = monotonic()
        if self.first is None or now - self._chosen_at < PASSING:
            self.first, self._chosen_at = state.answer, now
            self._quiz.count_again()


def _join(parts: list) -> str:
    *most, last = map(str, parts)
    return f"{', '.join(most)} and {last}" if most else last
