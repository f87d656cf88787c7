"""What the guide for teachers says of the lessons and their checks is so."""

from __future__ import annotations

import inspect
import json
import re

import pytest
from test_wrong_answers import SAID

from docs import wrong_answers
from gap_utils.checks.__main__ import line_of
from gap_utils.checks.marking import EXERCISES, Mark
from nbval_pictures import ROOT

GUIDE = (ROOT / "docs" / "teachers.md").read_text(encoding="utf-8")


def rows_below(heading):
    """The cells of the table in a section."""
    section = GUIDE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    _, _, *rows = [line for line in section.splitlines() if line.startswith("|")]
    return [row.strip("| ").split(" | ") for row in rows]


def test_each_exercise_has_its_wrong_answer_in_the_table():
    rows = rows_below("Common wrong answers")
    names = [
        f"{lesson}.{number} `{name}`"
        for lesson, answers in EXERCISES.items()
        for number, name in enumerate(answers, start=1)
    ]
    assert [exercise for exercise, *_ in rows] == names
    for exercise, code, said in rows:
        name = re.search("`(.+)`", exercise)[1]
        assert code.strip("`") in inspect.getsource(getattr(wrong_answers, name))
        assert said == SAID[name]  # which the check says to it, as test_wrong_answers.py sees


@pytest.mark.parametrize(("lesson", "question", "answer"), rows_below("Ask your class"))
def test_what_a_class_is_asked_is_answered_in_the_lesson(lesson, question, answer):
    assert question.endswith("?")
    (path,) = (ROOT / "notebooks").glob(f"{lesson}_*.ipynb")
    assert path.name in answer
    text = "".join(
        "".join(part)
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        for part in [
            cell["source"],
            *(output.get("text", "") for output in cell.get("outputs", [])),
        ]
    )
    for number in re.findall(r"\d+\.\d+(?: %)?|\d+×\d+", re.sub(r"\(.*?\)", "", answer)):
        assert number in text


def test_the_marks_in_the_guide_look_as_they_are_printed():
    (shown,) = re.findall(r"```text\n(handed_in.+?)```", GUIDE, re.S)
    results = [
        ("passed",),
        (
            "not right yet",
            "On the input [[1, 2]]: ...\nRows and columns are swapped in the result.",
        ),
        ("not attempted",),
        ("stopped", "the code did not end within 60 s"),
        ("its cell failed", "SyntaxError: '(' was never closed (line 1)"),
        ("passed", "", True),
    ]
    marks = [
        Mark(number, name, *result)
        for number, (name, result) in enumerate(zip(EXERCISES["01"], results, strict=True), 1)
    ]
    assert shown.splitlines()[1:-1] == [line_of(each) for each in marks]
