from unittest.mock import patch
from xml.etree import ElementTree

import pytest

from gap_utils.widgets import Question
from gap_utils.widgets.question import QuestionState


@pytest.fixture
def question():
    answers = {"1": "One for <all>?", "3": "One per map.", "512": "One per column, is it?"}
    return Question("How many?", answers, right="3")


def test_each_answer_says_what_is_behind_it(question):
    assert (question.value, question.feedback, question.describe()) == (None, "", "")
    assert (question.frame.words, question.frame.verdict) == ((), "")
    for answer, *said, verdict in [
        ("1", "Not this one", "One for <all>?", "wrong"),
        ("3", "Right", "One per map.", "right"),
        ("512", "Not this one", "One per column, is it?", "wrong"),
    ]:
        question.value = answer
        assert question.value == answer
        assert (question.feedback, question.describe()) == (". ".join(said), "\n".join(said))
        assert (question.frame.words, question.frame.verdict) == (tuple(said), verdict)
        assert question.text == f"Predict. How many? {question.feedback}"
        assert question.frame.room == ("Not this one", *question.answers.values())


def test_a_learner_may_choose_again_or_take_it_back(question):
    question.set(answer="512")
    assert question.value == "512"
    question.set(answer="3")
    assert question.feedback == "Right. One per map."
    question.value = None
    assert (question.feedback, question.text) == ("", "Predict. How many?")


def test_the_page_has_every_answer_without_a_kernel(question):
    opening = question.opening()
    (control,) = opening["controls"]
    assert control["label"] == "Predict. How many?"
    assert (control["style"], control["main"]) == ("radio", True)
    assert [*control["options"]] == [("1", "1"), ("3", "3"), ("512", "512")]
    shown = [(frame["fields"]["answer"], frame["verdict"]) for frame in opening["frames"]]
    assert shown == [(None, ""), ("1", "wrong"), ("3", "right"), ("512", "wrong")]
    assert opening["palettes"] == {}


def test_what_a_notebook_stores(question):
    with patch("gap_utils.widgets.lab.display") as display:
        question._ipython_display_()
    still, live = (call.args[0] for call in display.call_args_list)
    assert still["text/plain"] == "Predict. How many?\n  A  1\n  B  3\n  C  512"
    assert set(still) == {"text/plain", "text/html"}
    assert set(live) == {"application/vnd.jupyter.widget-view+json"}


def test_a_page_without_a_kernel_opens_each_answer(question):
    question.value = "3"  # which is no part of what is stored
    html = question.as_html()
    assert "script" not in html
    page = ElementTree.fromstring(f"<div>{html.replace('<br>', '<br/>')}</div>")
    assert "".join(page.find("p").itertext()) == (
        "Predict. How many?\nClick an answer to see whether it is right."
    )
    opened = [
        ["".join(part.itertext()) for part in d.iter() if part.tag in ("summary", "p")]
        for d in page.iter("details")
    ]
    assert opened == [
        ["1", "✗ Not this one", "One for <all>?"],
        ["3", "✓ Right", "One per map."],
        ["512", "✗ Not this one", "One per column, is it?"],
    ]
    assert not any(d.get("open") for d in page.iter("details"))


def test_an_answer_may_be_a_number():
    question = Question("2 + 2?", {3: "One too few.", 4: "Two pairs."}, right=4)
    question.value = 4
    assert question.feedback == "Right. Two pairs."
    assert "<summary>3</summary>" in question.as_html()


def test_bad_input_is_named(question):
    with pytest.raises(ValueError, match="with '4' among them"):
        Question("?", {"1": "", "2": ""}, right="4")
    with pytest.raises(ValueError, match="two or more answers"):
        Question("?", {"1": ""}, right="1")
    with pytest.raises(ValueError, match=r"a dict, answer -> feedback, got \['1', '2'\]"):
        Question("?", ["1", "2"], right="1")
    with pytest.raises(ValueError, match=r"with \['1'\] among them"):
        Question("?", {"1": "", "2": ""}, right=["1"])
    for unknown in ("7", ["1"], QuestionState("7")):
        with pytest.raises(ValueError, match=r"expected one of .* got"):
            question.value = unknown
    with pytest.raises(ValueError, match="expected one of answer, got reply"):
        question.set(reply="1")
    assert question.value is None
