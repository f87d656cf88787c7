import math

import numpy as np
import pandas
import pytest
import torch

from gap_utils.values import (
    check_below,
    fit_number,
    format_number,
    join_rows,
    read_labels,
    read_names,
    read_whole_number,
    shorten_exponent,
)

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("value", [3, np.int64(3), torch.tensor(3), np.array(3)])
def test_whole_numbers_of_many_kinds(value):
    number = read_whole_number("size", value, 3, 3)
    assert number == 3 and type(number) is int


@pytest.mark.parametrize("value", [2, 9, 3.0, "3", None, NAN, INF, [3], torch.tensor(3.0)])
def test_what_is_no_whole_number_in_range(value):
    with pytest.raises(ValueError, match="expected size to be an integer from 3 to 8, got "):
        read_whole_number("size", value, 3, 8)


@pytest.mark.parametrize("value", [True, False])
def test_a_flag_is_no_whole_number(value):
    with pytest.raises(ValueError, match=f"to be an integer from 0 on, got {value}"):
        read_whole_number("size", value, 0)


def test_a_refusal_says_what_else_is_allowed():
    with pytest.raises(ValueError, match="rank to be an integer from 0 on or 'all', got -1"):
        read_whole_number("rank", -1, 0, or_else=" or 'all'")
    with pytest.raises(ValueError, match="picture to be below 2, got 2"):
        check_below("picture", 2, 2)
    check_below("picture", 1, 2)


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (None, ("0", "1")),
        (["a", "b"], ("a", "b")),
        (("a  b\nc", 7, "more"), ("a b c", "7", "more")),
        (np.array(["a", "b"]), ("a", "b")),
        (["caf\udce9", "\ud800"], ("caf?", "?")),
        ((name for name in "ab"), ("a", "b")),
    ],
)
def test_names(names, read):
    assert read_names(names, 2) == read


def test_a_name_from_right_to_left_is_set_apart_in_a_sentence():
    hebrew, arabic, others = "שלום", "cat مرحبا", ("cat", "東京")
    apart = (f"\u2068{name}\u2069" for name in (hebrew, arabic))
    assert read_names([hebrew, arabic, *others], 4) == (*apart, *others)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], "a name for each of 2 classes, got 1"),
        ("ab", "a list of class names, got 'ab'"),
        ({0: "a", 1: "b"}, "a list of class names, got {0: 'a'"),  # its keys are no names
        ({"a", "b"}, "a list of class names, got {"),  # in no order
        (2, "a list of class names, got 2"),
    ],
)
def test_what_is_no_list_of_names(names, message):
    with pytest.raises(ValueError, match=message):
        read_names(names, 2)


@pytest.mark.parametrize(
    "labels",
    [
        [1, 0],
        (np.int64(1), torch.tensor(0)),
        np.array([1, 0], np.uint8),
        torch.tensor([1, 0]),
        pandas.Series([1, 0], index=[5, 6]),
        iter([1, 0]),
    ],
)
def test_labels(labels):
    read = read_labels(labels, 2, 2)
    assert read == [1, 0] and {type(label) for label in read} == {int}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 1], "a label for each of 2 pictures, got 3"),
        ([0, 2], "labels to be integers from 0 to 1, got 2"),
        ([0, -1], "labels to be integers from 0 to 1, got -1"),
        ([0, 1.0], "labels to be integers from 0 to 1, got 1.0"),
        (torch.tensor([0.0, NAN]), "labels to be integers from 0 to 1, got 0.0"),
        (torch.eye(2).long(), r"labels to be integers from 0 to 1, got \[1, 0\]"),
        (["0", "1"], "labels to be integers from 0 to 1, got '0'"),
        ("01", "a list of labels, got '01'"),
        ({0: 1, 1: 0}, "a list of labels, got {0: 1"),
        (1, "a list of labels, got 1"),
        (torch.tensor(1), r"a list of labels, got tensor\(1\)"),
    ],
)
def test_what_is_no_list_of_labels(labels, message):
    with pytest.raises(ValueError, match=f"expected {message}"):
        read_labels(labels, 2, 2)


@pytest.mark.parametrize(
    ("value", "how", "text"),
    [
        (4.0625, {}, "4.0625"),
        (-1 / 3, {}, "-0.3333"),
        (-0.00001, {}, "0"),
        (1234567.0, {}, "1234567"),
        (torch.tensor(2.5), {"decimals": 1}, "2.5"),
        (-0.0004, {"decimals": 3, "fixed": True}, "0.000"),
        (2, {"decimals": 3, "fixed": True}, "2.000"),
        (1e300, {"decimals": 3, "fixed": True}, "1e300"),
        (-2.5e12, {}, "-2.5e12"),
        (NAN, {}, "no number"),
        (np.float32(NAN), {"decimals": 3, "fixed": True}, "no number"),
        (-INF, {"decimals": 3, "fixed": True}, "-inf"),
    ],
)
def test_numbers_are_written(value, how, text):
    assert format_number(value, **how) == text


@pytest.mark.parametrize(
    ("text", "value", "short"),
    [
        ("12.34", 12.34, "12.34"),
        ("-123.46", -123.456, "-123.5"),
        ("1234567", 1234567, "1.23e6"),
        ("-0.000123", -0.000123, "-1e-4"),
        ("no number", NAN, "nan"),
        ("inf", INF, "inf"),
    ],
)
def test_numbers_are_fitted_into_six_letters(text, value, short):
    assert fit_number(text, value, 6) == short


def test_exponents_and_rows():
    assert [*map(shorten_exponent, ("1e+05", "-2.5e-07", "1000"))] == ["1e5", "-2.5e-7", "1000"]
    assert join_rows([["1", "2"], ["3"]]) == "1 2 / 3"
