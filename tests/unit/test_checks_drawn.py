"""A wrong answer is drawn: input, result and expected as tables whose marked squares differ."""

from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gap_utils import checks
from gap_utils.checks.calling import exercise
from gap_utils.checks.drawing import draw_case
from gap_utils.checks.grading import are_close, features, grade

NAN, INF = float("nan"), float("inf")


def parts_of(html):
    """Name and shape -> the tables under it, each a list of rows; a marked number is a tuple."""
    page = ElementTree.fromstring(f"<div>{html.replace('<br>', ' ')}</div>")
    parts = {}
    for paragraph, *tables in page.iterfind("div/div"):
        name = "".join(paragraph.itertext())
        parts[name] = [
            [[read_square(square) for square in row.iter("td")] for row in table.iter("tr")]
            for table in tables
        ]
    return parts


def read_square(square):
    thick, bold = "3px" in square.get("style"), square.find("b")
    assert thick == (bold is not None)  # not by colour alone
    return (bold.text,) if thick else square.text


def drawn(value, expected, **inputs):
    def equal(a, b):
        return are_close(a, b, 1)

    return parts_of(draw_case(inputs or {"input": torch.tensor([0.5])}, value, expected, equal))


def test_the_squares_that_differ_are_marked():
    feedback = checks.check_max_pool(lambda image: F.max_pool2d(image[None], 2)[0].clamp(min=0))
    assert parts_of(feedback.drawing) == {
        "input (2, 4) axis 0 ↓ axis 1 →": [[["-5", "-2", "1", "3"], ["-4", "-3", "0", "2"]]],
        "your result (1, 2) axis 0 ↓ axis 1 →": [[[("0",), "3"]]],
        "expected (1, 2) axis 0 ↓ axis 1 →": [[[("-2",), "3"]]],
    }


def test_where_shapes_differ_nothing_is_marked():
    feedback = checks.check_gap(lambda x: x.mean((2, 3)).T)
    parts = parts_of(feedback.drawing)
    assert parts["your result (2, 1) axis 0 ↓ axis 1 →"] == [[["3"], ["-1"]]]
    assert parts["expected (1, 2) axis 0 ↓ axis 1 →"] == [[["3", "-1"]]]
    assert parts["input (1, 2, 1, 3) axis 2 ↓ axis 3 →"] == [[["1", "2", "6"]], [["0", "-3", "0"]]]


def test_several_inputs_have_the_learners_names_and_maps_their_places():
    def relu_cam(features, weight):
        return torch.einsum("nchw,kc->nkhw", features, weight).relu()

    feedback = checks.check_cam(relu_cam)
    names = [name.split(" (")[0] for name in parts_of(feedback.drawing)]
    assert names == ["features", "weight", "your result", "expected"]
    page = ElementTree.fromstring(feedback.drawing.replace("<br>", " "))
    titles = [caption.text for caption in page[2].iter("caption")]
    assert titles == ["[0, 0]", "[0, 1]", "[0, 2]"]
    feedback = checks.check_keras_to_torch(lambda kernel, c, h, w: kernel.T)
    names = [name.split(" (")[0] for name in parts_of(feedback.drawing)]
    assert names == ["kernel", "your result", "expected"]  # numbers among the inputs are not drawn


def test_it_stands_above_the_same_words():
    feedback = checks.check_max_pool(lambda image: F.avg_pool2d(image[None], 2)[0])
    assert repr(feedback) == feedback.message
    assert "table" not in feedback.message
    html = feedback._repr_html_()
    assert html.count("<table") == 3
    assert html.index("Not right yet") < html.index("<table") < html.index("On the input")
    assert not any(word in html for word in ("<script", "<svg", "class="))


def test_a_right_answer_and_one_that_only_its_words_explain_are_not_drawn():
    assert checks.check_max_pool(lambda image: F.max_pool2d(image[None], 2)[0]).drawing == ""
    for answer in (
        lambda x: None,
        lambda x: x.nothing,
        lambda x: [[3.0]],
        lambda x: "3",
        lambda x: x.mean((2, 3)).double(),  # the numbers are right
        lambda x: x.mean((2, 3)).to_sparse(),
        lambda x: x.mean((2, 3)).to("meta"),
        lambda x: x.mean((2, 3)) * 1j,
        lambda x: np.array([["3", "words"]]),
        lambda x: 10**400,
        lambda x: x.new_zeros(7, 7),
        lambda x: x.new_zeros(0, 2),
        lambda x: x.new_zeros(5, 1, 1),
    ):
        feedback = checks.check_gap(answer)
        assert not feedback.passed
        assert feedback.drawing == ""
        assert "<table" not in feedback._repr_html_()
    assert checks.check_flatten_parameters(lambda c, h, w, k: 0).drawing == ""  # no grid goes in
    wide = {"maps": torch.zeros(1, 1, 2, 2), "large": torch.zeros(7)}
    assert drawn(torch.zeros(1), torch.ones(1), **wide) == {}
    assert drawn(torch.tensor([1.00001]), torch.tensor([1.00002])) == {}  # they look the same


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (torch.tensor([[NAN, 2.0]]), [[("nan",), "2"]]),
        (torch.tensor([[INF, -INF]]), [[("inf",), ("-inf",)]]),
        (torch.tensor([[1.0, 1 / 3]]), [["1", ("0.3333",)]]),
        (torch.tensor([[-123456789.0, 2]]), [[("-1.235e8",), "2"]]),
        (torch.tensor([[1, -2]]), [["1", ("-2",)]]),
        (torch.tensor([[True, False]]), [["True", ("False",)]]),
        (torch.tensor([[1.0, 5], [2, 0]]).T[:1].requires_grad_(), [["1", "2"]]),
        (torch.tensor([[0.0, 2], [1, 5]], requires_grad=True).T[:1], [[("0",), ("1",)]]),
        (torch.tensor([[1.5, 2]], dtype=torch.bfloat16), [[("1.5",), "2"]]),
        (np.array([[1, 3]]), [["1", ("3",)]]),
    ],
)
def test_numbers_of_every_kind(value, shown):
    parts = drawn(value, torch.tensor([[1.0, 2.0]]))
    found = parts.get("your result (1, 2) axis 0 ↓ axis 1 →")
    assert found == (None if shown == [["1", "2"]] else [shown])


def test_vectors_are_one_row_and_a_number_is_one_square():
    parts = drawn(torch.tensor(3.0), 2.5, input=torch.tensor([1.0, 4.0]))
    assert parts == {
        "input (2,) axis 0 →": [[["1", "4"]]],
        "your result": [[[("3",)]]],
        "expected": [[[("2.5",)]]],
    }
    assert drawn(7, torch.tensor([2.5]))["your result"] == [[["7"]]]


def test_a_row_of_six_fits_on_a_phone():
    numbers = torch.arange(6) * -1234.5678
    parts = drawn(numbers + 1, numbers)
    for name in ("your result (6,) axis 0 →", "expected (6,) axis 0 →"):
        ((row,),) = parts[name]
        digits = [sum(letter.isdigit() for letter in square[0]) for square in row]
        assert max(digits) <= 4


def test_the_case_that_failed_is_drawn_whatever_the_default_device():
    @exercise
    def check(answer):
        cases = [(features([[1, 2]]),), (features([[3, -4]]),)]
        return grade(answer, lambda x: 2 * x, "twice", cases=cases)

    torch.set_default_device("meta")
    try:
        feedback = check(lambda x: 2 * x.abs())
    finally:
        torch.set_default_device(None)
    assert parts_of(feedback.drawing)["your result (1, 2) axis 0 ↓ axis 1 →"] == [[["6", ("8",)]]]
