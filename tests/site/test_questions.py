"""Questions on the site answer as they do in a lesson, and open what is behind them."""

from __future__ import annotations

import random

import pytest
from playwright.sync_api import expect

from built_site import LESSONS, in_python, read_pages
from gap_utils.widgets import Quiz, quiz
from gap_utils.widgets.question import QuestionState

SHOWN = """(el) => {
    const behind = [];
    let cell = el.closest(".cell").nextElementSibling;
    for (; cell?.matches(".tag_reveal"); cell = cell.nextElementSibling) {
        behind.push(...cell.querySelectorAll("details"));
    }
    return {
        asked: el.querySelector("legend").textContent,
        answers: [...el.querySelectorAll("fieldset label")].map((label) => label.textContent),
        said: [...el.querySelectorAll(".gap-words > [aria-live] > p")].map((p) => p.textContent),
        verdict: el.querySelector(".gap-words > [aria-live]").className,
        open: behind.map((details) => details.open),
        // of the folded ones: what a reader sees of what is inside
        seen: behind.filter((details) => details.checkVisibility()).map((details) =>
            [...details.children].slice(1).some((inside) => inside.checkVisibility())),
    };
}"""
LATER = """() => {
    const now = performance.now.bind(performance);
    window.passed = 0;
    performance.now = () => now() + window.passed;
}"""


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_answer_shows_its_verdict_and_opens_what_is_behind(visitor, lesson):
    questions = in_python(lesson).questions
    visitor.open(f"notebooks/{lesson}.html")
    roots = visitor.page.locator("[data-lab$=Question]")
    expect(roots.locator(".gap-lab")).to_have_count(len(questions))
    assert questions
    opened = 0
    for root, question in zip(roots.all(), questions, strict=True):
        shown = root.evaluate(SHOWN)
        assert shown["asked"] == question._asked
        assert shown["answers"] == [*question.answers]
        assert shown["said"] == []
        assert not any(shown["open"]) and not any(shown["seen"])
        for place, answer in enumerate(question.answers):
            root.get_by_role("radio").nth(place).evaluate("radio => radio.click()")
            shown = root.evaluate(SHOWN)
            frame = question.draw(QuestionState(answer))
            assert shown["said"] == [*frame.words]
            assert shown["verdict"] == f"gap-{frame.verdict}"
            assert all(shown["open"]) and all(shown["seen"])
        opened += len(shown["open"])
    assert opened >= (0 if lesson.startswith("04") else 1)


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_page_gives_nothing_away(site, lesson):
    """No answer is marked in its code, no solution is unfolded, and there is no setup cell."""
    page = (site / "notebooks" / f"{lesson}.html").read_text(encoding="utf-8")
    html = read_pages(site)[f"notebooks/{lesson}.html"]
    for code in html.cells:
        assert "right=" not in code.source
        assert "pip install" not in code.source
        if "tag_solution" in code.tags:
            assert "tag_hide-cell" in code.tags
    assert "gap_utils @ git" not in page
    assert [cell.tags for cell in html.cells if "tag_setup" in cell.tags] == []
    assert len(html.cells) > 10


@pytest.fixture
def quiz_page(visitor):
    visitor.open("notebooks/09_choose_a_head.html")
    visitor.page.evaluate(LATER)
    return visitor.page


@pytest.fixture
def python_quiz(monkeypatch):
    """The same quiz in Python, and its clock."""
    clock = [0.0]
    monkeypatch.setattr(quiz, "monotonic", lambda: clock[0])
    asked = [q for q in in_python("09_choose_a_head").questions if hasattr(q, "lesson")]
    made = Quiz(len(asked))
    return made, [made.ask(q.question, plain_answers(q), q.right, q.lesson) for q in asked], clock


def plain_answers(question):
    """The answers as they were written, without what the quiz adds."""
    tail = f" Lesson {question.lesson} explains it."
    assert all(said.endswith(tail) for said in question.answers.values())
    return {answer: said.removesuffix(tail) for answer, said in question.answers.items()}


def said(quiz) -> list[str]:
    return [quiz.frame.large, *quiz.frame.words]


def test_the_quiz_counts_as_python_does(quiz_page, python_quiz):
    """Random answers, some within a second, as an arrow key passes over them."""
    counted, questions, clock = python_quiz
    roots = quiz_page.locator("[data-lab=_QuizQuestion]").all()
    score = quiz_page.locator(".gap-score p")
    chance = random.Random(0)
    assert len(roots) == len(questions) == 15
    assert score.all_text_contents() == said(counted)
    seen = set()
    for _ in range(60):
        place = chance.randrange(len(questions))
        answer = chance.choice([*questions[place].answers])
        if answer == questions[place].value:
            continue
        waited = chance.choice([100, 1500, 5000])
        clock[0] += waited / 1000
        quiz_page.evaluate("waited => { window.passed += waited }", waited)
        number = [*questions[place].answers].index(answer)
        roots[place].get_by_role("radio").nth(number).evaluate("radio => radio.click()")
        questions[place].value = answer
        assert score.all_text_contents() == said(counted)
        seen.add(counted.text)
    assert len(seen) > 10
    assert "Look again at lesson" in counted.text


def test_arrow_keys_pass_over_answers(quiz_page):
    score = quiz_page.locator(".gap-score")
    third = quiz_page.locator("[data-lab=_QuizQuestion]").nth(2)
    questions = [q for q in in_python("09_choose_a_head").questions if hasattr(q, "lesson")]
    answers = [*questions[2].answers]
    right = answers.index(questions[2].right)
    assert right > 0
    radios = third.get_by_role("radio")
    radios.first.focus()
    quiz_page.keyboard.press("Space")
    expect(score).to_contain_text("1 of 15 answered, 0 right at the first try.")
    expect(score).to_contain_text(f"Look again at lesson {questions[2].lesson} (question 3).")
    for _ in range(right):
        quiz_page.keyboard.press("ArrowDown")
    expect(radios.nth(right)).to_be_checked()
    expect(score).to_contain_text("1 of 15 answered, 1 right at the first try.")
    quiz_page.evaluate("() => { window.passed += 1100 }")
    quiz_page.keyboard.press("ArrowUp")
    expect(third).to_contain_text("Not this one")
    expect(score).to_contain_text("1 of 15 answered, 1 right at the first try.")
