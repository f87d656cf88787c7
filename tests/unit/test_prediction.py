import pytest

from gap_utils.widgets import Prediction


@pytest.fixture
def prediction():
    answers = {"1": "One for <all>?", "3": "One per map.", "512": "One per column?"}
    return Prediction("How many?", answers, right="3")


def test_each_answer_says_what_is_behind_it(prediction):
    assert prediction.feedback == ""
    prediction.value = "1"
    assert prediction.feedback == "Not this one. One for <all>?"
    shown = prediction.box.children[-1]
    assert shown.value == '<div role="status">Not this one. One for &lt;all&gt;?</div>'
    prediction.value = "3"
    assert "Right. One per map." in shown.value


def test_a_learner_may_choose_again_and_nothing_is_chosen_at_first(prediction):
    buttons = prediction.box.children[1:-1]

    def shown():
        return [button.description for button in buttons]

    assert shown() == ["○ 1", "○ 3", "○ 512"]
    assert prediction.value is None
    buttons[2].click()
    assert prediction.value == "512"
    assert shown() == ["○ 1", "○ 3", "● 512"]
    buttons[1].click()
    assert prediction.feedback.startswith("Right.")
    assert shown() == ["○ 1", "● 3", "○ 512"]
    prediction.value = None
    assert shown() == ["○ 1", "○ 3", "○ 512"]


def test_what_a_notebook_stores(prediction):
    data, metadata = prediction._repr_mimebundle_()
    assert data["text/plain"] == "Predict. How many?\n  ( ) 1\n  ( ) 3\n  ( ) 512"
    assert set(data) == {"text/plain", "application/vnd.jupyter.widget-view+json"}
    assert metadata == {}


def test_bad_input_is_named(prediction):
    with pytest.raises(ValueError, match="with '4' among them"):
        Prediction("?", {"1": "", "2": ""}, right="4")
    with pytest.raises(ValueError, match="two or more answers"):
        Prediction("?", {"1": ""}, right="1")
    with pytest.raises(ValueError, match=r"expected one of .* got '7'"):
        prediction.value = "7"
    with pytest.raises(ValueError, match=r"a dict, answer -> feedback, got \['1', '2'\]"):
        Prediction("?", ["1", "2"], right="1")
    with pytest.raises(ValueError, match=r"with \['1'\] among them"):
        Prediction("?", {"1": "", "2": ""}, right=["1"])
    with pytest.raises(ValueError, match=r"expected one of .* got \['1'\]"):
        prediction.value = ["1"]
