from unittest.mock import patch

import pytest

from gap_utils.widgets import Question, Quiz
from gap_utils.widgets import quiz as quiz_module
from gap_utils.widgets.quiz import Score

SUMS = {"3": "One too few.", "4": "Two pairs.", "5": "One too many."}


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless one moves it."""
    time = [100.0]
    monkeypatch.setattr(quiz_module, "monotonic", lambda: time[0])
    return time


@pytest.fixture
def quiz(clock):
    return Quiz(3)


def choose(question, answer, clock):
    """Choose an answer and look at it for a while."""
    question.value = answer
    clock[0] += 5


def test_a_question_has_its_number_and_ends_with_its_lesson(quiz):
    first = quiz.ask("2 + 2?", SUMS, "4", "01")
    second = quiz.ask("1 + 3?", SUMS, "4", lesson="03")
    assert isinstance(first, Question)
    assert repr(first) == "Question 1 of 3. 2 + 2?\n  A  3\n  B  4\n  C  5"
    assert second.opening()["controls"][0]["label"] == "Question 2 of 3. 1 + 3?"
    assert "<b>Question 2 of 3. 1 + 3?</b>" in second.as_html()
    assert second.opening()["name"] == "Question"
    second.value = "3"
    assert second.feedback == "Not this one. One too few. Lesson 03 explains it."
    assert second.text == f"Question 2 of 3. 1 + 3? {second.feedback}"
    second.value = "4"
    assert second.feedback == "Right. Two pairs. Lesson 03 explains it."
    assert [frame["verdict"] for frame in second.opening()["frames"]][1:] == [
        "wrong",
        "right",
        "wrong",
    ]


def test_only_the_first_try_counts(quiz, clock):
    assert quiz.text == "0 of 3 answered, 0 right at the first try. Only the first try counts."
    first, second, third = (
        quiz.ask(question, SUMS, "4", lesson)
        for question, lesson in [("2 + 2?", "03"), ("1 + 3?", "01"), ("4 + 0?", "03")]
    )
    choose(first, "4", clock)
    assert quiz.text == "1 of 3 answered, 1 right at the first try. Only the first try counts."
    choose(first, "3", clock)
    assert first.feedback.startswith("Not this one.")  # and yet:
    assert quiz.text.startswith("1 of 3 answered, 1 right")
    choose(second, "5", clock)
    assert quiz.describe() == (
        "2 of 3 answered, 1 right at the first try.\nLook again at lesson 01 (question 2)."
    )
    choose(second, "4", clock)
    second.value = None
    assert quiz.text.startswith("2 of 3 answered, 1 right")
    choose(third, "3", clock)
    assert quiz.text == (
        "3 of 3 answered, 1 right at the first try. "
        "Look again at lesson 01 (question 2) and lesson 03 (question 3)."
    )
    assert quiz.value == Score(("03", "01", "03"), (True, False, False))


def test_questions_of_one_lesson_are_named_together(quiz, clock):
    for question in ("2 + 2?", "1 + 3?", "4 + 0?"):
        choose(quiz.ask(question, SUMS, "4", "03"), "3", clock)
    assert quiz.text.endswith("Look again at lesson 03 (questions 1, 2 and 3).")


def test_arrow_keys_may_pass_over_answers(quiz, clock):
    """In a group of radio buttons each answer on the way is chosen."""
    question = quiz.ask("2 + 2?", SUMS, "4", "03")
    question.value = "3"
    clock[0] += 0.4
    question.value = "4"
    clock[0] += 1.5
    question.value = "5"
    assert quiz.text.startswith("1 of 3 answered, 1 right")


def test_the_same_question_again_begins_anew_and_does_not_count_twice(quiz, clock):
    old = quiz.ask("2 + 2?", SUMS, "4", "03")
    choose(quiz.ask("1 + 3?", SUMS, "4", "03"), "4", clock)
    choose(old, "3", clock)
    new = quiz.ask("2 + 2?", SUMS, "4", "03")
    assert repr(new).startswith("Question 1 of 3.")
    assert quiz.text.startswith("1 of 3 answered, 1 right")
    choose(new, "4", clock)
    choose(old, "5", clock)  # still on a page somewhere
    assert quiz.text.startswith("2 of 3 answered, 2 right")


def test_the_page_is_told_when_a_question_is_answered(quiz, clock):
    question = quiz.ask("2 + 2?", SUMS, "4", "03")
    sent = []
    quiz._widget = question._widget = type(
        "Widget", (), {"send": lambda _, *m: sent.append(m[0])}
    )()
    fields = {"fields": {"answer": "4"}, "missing": False, "ahead": [], "have": []}
    question.answer({"ask": 1, **fields}, [])  # as a click on the page has it
    shown = [message for message in sent if message.get("show")]
    assert [message["frame"]["large"] for message in shown] == [
        (("1 of 3 answered, 1 right at the first try.", ""),)
    ]
    assert shown[0]["frame"]["words"] == ("Only the first try counts.",)


def test_what_a_notebook_stores(quiz, clock):
    quiz.ask("2 + 2?", SUMS, "4", "03")
    with patch("gap_utils.widgets.lab.display") as display:
        quiz._ipython_display_()
    still, live = (call.args[0] for call in display.call_args_list)
    assert set(still) == {"text/plain", "text/html"}
    assert still["text/plain"].startswith("Quiz of 3: 0 of 3 answered, 0 right")
    assert "Run all cells of this lesson, answer the questions" in still["text/html"]
    assert set(live) == {"application/vnd.jupyter.widget-view+json"}
    assert quiz.opening()["controls"] == []


def test_bad_input_is_named(quiz):
    for count in (0, -1, 1.5, "3", None):
        with pytest.raises(ValueError, match="expected count to be an integer from 1 on, got"):
            Quiz(count)
    for question in ("", "  ", 7, None):
        with pytest.raises(ValueError, match="expected a question, got"):
            quiz.ask(question, SUMS, "4", "03")
    for lesson in (3, "3", "003", "ab", None, "\N{ARABIC-INDIC DIGIT THREE}3"):
        with pytest.raises(ValueError, match='expected lesson to be two digits, such as "03", got'):
            quiz.ask("2 + 2?", SUMS, "4", lesson)
    with pytest.raises(ValueError, match="with '7' among them"):
        quiz.ask("2 + 2?", SUMS, "7", "03")
    with pytest.raises(ValueError, match=r"a dict, answer -> feedback, got \['3', '4'\]"):
        quiz.ask("2 + 2?", ["3", "4"], "4", "03")
    with pytest.raises(ValueError, match="two or more answers"):
        quiz.ask("2 + 2?", {"4": "Yes."}, "4", "03")
    assert quiz.value == Score()  # none of these has become a question
    for number in range(3):
        quiz.ask(f"{number}?", SUMS, "4", "03")
    with pytest.raises(ValueError, match="expected 3 questions, got one more: '2 \\+ 2\\?'"):
        quiz.ask("2 + 2?", SUMS, "4", "03")
    quiz.ask("1?", SUMS, "4", "03")  # asked before
    assert len(quiz.value.right) == 3
