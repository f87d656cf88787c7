"""Every check, from both sides: right answers pass, each wrong one gets its own sentence."""

import inspect
from statistics import mean

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gap_utils import checks


def first_rows_pool(image):
    """2×2 max pooling by hand, with a maximum that starts at zero."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    pooled = torch.zeros(height, width)
    for i in range(height):
        for j in range(width):
            best = 0.0
            for number in image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten():
                best = max(best, number.item())
            pooled[i, j] = best
    return pooled


RIGHT = {
    checks.check_numbers_per_map: [
        lambda shape: shape[-1] * shape[-2],
        lambda shape: torch.tensor(shape[2:]).prod(),
        lambda shape: np.prod(shape[2:]),
        lambda shape: np.array(shape[2] * shape[3]),
    ],
    checks.check_gap: [
        lambda x: x.flatten(2).mean(2),
        lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        lambda x: x.sum((2, 3)) / x.shape[2] / x.shape[3],
        lambda x: torch.nn.Parameter(x).mean((2, 3)),
    ],
    checks.check_max_pool: [
        lambda image: F.max_pool2d(image[None], 2)[0],
        lambda image: (
            image[: len(image) // 2 * 2, : image.shape[1] // 2 * 2]
            .unfold(0, 2, 2)
            .unfold(1, 2, 2)
            .amax((2, 3))
        ),
    ],
    checks.check_gap_after_change: [
        lambda gap, count, old, new: (gap * count - old + new) / count,
    ],
    checks.check_output_size: [
        lambda n, k, s, p: len(range(0, n + 2 * p - k + 1, s)),
        lambda n, k, s, p: np.int64((n + 2 * p - k) // s + 1),
    ],
    checks.check_min_pool: [
        lambda x: -F.max_pool2d(-x, 2),
        lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).amin((4, 5)),
    ],
    checks.check_gap_from_windows: [
        lambda means, counts: np.average(means, weights=counts),
        lambda means, counts: sum(np.multiply(means, counts)) / sum(counts),
    ],
}

WRONG = [
    (checks.check_numbers_per_map, lambda s: s[0] * s[1] * s[2] * s[3], "whole batch"),
    (checks.check_numbers_per_map, lambda s: s[1] * s[2] * s[3], "all channels"),
    (checks.check_numbers_per_map, lambda s: s[2] + s[3], "adds the two sides"),
    (checks.check_numbers_per_map, lambda s: s[1] * s[2], "which are C and H"),
    (checks.check_numbers_per_map, lambda s: s[0] * s[1], "multiplies N and C"),
    (checks.check_numbers_per_map, lambda s: 307200, "returned 307200, expected 4"),
    (checks.check_gap, lambda x: x.flatten(2).sum(2), "sum of each channel"),
    (checks.check_gap, lambda x: x.flatten(2).max(2).values, "global max pooling"),
    (checks.check_gap, lambda x: -(-x).amax((2, 3)), "smallest number"),
    (checks.check_gap, lambda x: x.flatten(2).median(2)[0], "median"),
    (checks.check_gap, lambda x: x.mean((1, 2)), "(N, H, W, C)"),
    (checks.check_gap, lambda x: F.adaptive_avg_pool2d(x, 1), "keepdim"),
    (checks.check_gap, lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(), "squeeze()"),
    (checks.check_gap, lambda x: x.mean(), "one average for the whole batch"),
    (checks.check_gap, lambda x: x.mean((0, 2, 3)), "Leave axis 0 alone"),
    (checks.check_gap, lambda x: x.mean(1), "keeps the channels and averages"),
    (checks.check_gap, lambda x: x.mean((1, 2, 3)), "over the channels too"),
    (checks.check_gap, lambda x: x.mean(2), "one average per column"),
    (checks.check_gap, lambda x: x.mean(3), "one average per row"),
    (checks.check_gap, lambda x: x.mean((2, 3)).T, "axes are swapped"),
    (checks.check_gap, lambda x: x.mean((2, 3)).int().float(), "decimals are cut off"),
    (checks.check_gap, lambda x: x.sum((2, 3)) // (x.shape[2] * x.shape[3]), "rounded down"),
    (checks.check_gap, lambda x: x.sum((2, 3)) / 4, "returned [[2.25, -0.75]]"),
    (checks.check_gap, lambda x: torch.zeros(x.shape[:2]), "returned [[0]], expected [[3]]"),
    (checks.check_gap, lambda x: x.mean((2, 3))[:1], "returned shape (1, 3), expected (4, 3)"),
    (checks.check_max_pool, lambda m: F.avg_pool2d(m[None], 2)[0], "average of each window"),
    (checks.check_max_pool, lambda m: -F.max_pool2d(-m[None], 2)[0], "smallest number"),
    (checks.check_max_pool, lambda m: F.max_pool2d(m[None], 2, 1)[0], "do not overlap"),
    (checks.check_max_pool, lambda m: F.max_pool2d(m[None], 2, ceil_mode=True)[0], "left over"),
    (checks.check_max_pool, lambda m: F.max_pool2d(m.T[None], 2)[0], "swapped"),
    (checks.check_max_pool, lambda m: m.max(), "whole map"),
    (checks.check_max_pool, lambda m: m[:-1:2, :-1:2], "top left number"),
    (checks.check_max_pool, first_rows_pool, "Does your maximum start at 0"),
    (
        checks.check_max_pool,
        lambda m: F.max_pool2d(m[None], 2)[0] + (len(m) == 7),
        "On the input features of shape (7, 4): your function returned",
    ),
    (checks.check_gap_after_change, lambda g, c, o, n: g + (n - o), "divide the change by count"),
    (checks.check_gap_after_change, lambda g, c, o, n: g + (o - n) / c, "wrong sign"),
    (checks.check_gap_after_change, lambda g, c, o, n: g + n / c, "old number is still"),
    (checks.check_gap_after_change, lambda g, c, o, n: (g * c + n) / (c + 1), "one more number"),
    (checks.check_gap_after_change, lambda g, c, o, n: g * c - o + n, "new sum"),
    (checks.check_gap_after_change, lambda g, c, o, n: g, "returned 2, expected 3"),
    (checks.check_output_size, lambda n, k, s, p: (n + 2 * p - k) // s, "add 1"),
    (checks.check_output_size, lambda n, k, s, p: (n + p - k) // s + 1, "counts twice"),
    (checks.check_output_size, lambda n, k, s, p: (n - k) // s + 1, "Padding is left out"),
    (checks.check_output_size, lambda n, k, s, p: -((k - n - 2 * p) // s) + 1, "rounds up"),
    (checks.check_output_size, lambda n, k, s, p: (n + 2 * p - k) / s + 1, "fraction of a window"),
    (checks.check_output_size, lambda n, k, s, p: n + 2 * p - k + 1, "stride is left out"),
    (checks.check_output_size, lambda n, k, s, p: (n + 2 * p) // s, "kernel is left out"),
    (
        checks.check_output_size,
        lambda n, k, s, p: (n + 2 * p - k) // s + 1.0,
        "returned the float 2.0, expected the integer 2. Use // where you divide",
    ),
    (checks.check_min_pool, lambda x: F.max_pool2d(x, 2), "That is max pooling"),
    (checks.check_min_pool, lambda x: F.max_pool2d(-x, 2), "sign of the result"),
    (checks.check_min_pool, lambda x: -F.max_pool2d(x, 2), "before the pooling too"),
    (checks.check_min_pool, lambda x: F.avg_pool2d(x, 2), "average pooling"),
    (checks.check_min_pool, lambda x: -F.max_pool2d(-x, 2, ceil_mode=True), "left over"),
    (checks.check_min_pool, lambda x: x.amin((2, 3)), "one minimum per channel"),
    (checks.check_gap_from_windows, lambda m, c: mean(m), "mean of the window means"),
    (checks.check_gap_from_windows, lambda m, c: np.dot(m, c), "sum of the whole map"),
    (checks.check_gap_from_windows, lambda m, c: np.dot(m, c) / len(c), "number of windows"),
    (checks.check_gap_from_windows, lambda m, c: sum(m) / sum(c), "mean * count"),
]

CHECKS = [f for name, f in inspect.getmembers(checks) if name.startswith("check_")]


@pytest.mark.parametrize(
    ("check", "answer"), [(check, answer) for check, answers in RIGHT.items() for answer in answers]
)
def test_right_answers_pass(check, answer):
    feedback = check(answer)
    assert feedback.passed, feedback
    assert repr(feedback).startswith("✓ Right: ")
    assert "\n" not in repr(feedback)


@pytest.mark.parametrize(("check", "answer", "sentence"), WRONG)
def test_wrong_answers_are_named(check, answer, sentence):
    feedback = check(answer)
    assert not feedback.passed
    assert feedback.message.startswith("✗ On the input ")
    assert sentence in feedback.message


def test_every_known_mistake_is_among_the_wrong_answers(monkeypatch):
    known = set()

    def collect(answer, mistakes, **rest):
        known.update(sentence for _, sentence in mistakes)

    with monkeypatch.context() as patch:
        for check in CHECKS:
            patch.setattr(inspect.getmodule(check), "grade", collect)
            check(None)
    messages = "\n".join(check(answer).message for check, answer, _ in WRONG)
    assert [sentence for sentence in known if sentence not in messages] == []
    assert len(known) > 40


def raise_not_implemented(*arguments):
    raise NotImplementedError


def raise_without_words(*arguments):
    raise AssertionError


def divide_by_zero(*arguments):
    return 1 / 0


@pytest.mark.parametrize("check", CHECKS)
def test_whatever_comes_back_gets_a_sentence(check):
    assert check in RIGHT
    assert repr(check(raise_not_implemented)) == "not attempted yet"
    for answer, sentence in [
        (lambda *a: None, "returned None. Does it end with return?"),
        (divide_by_zero, "raised ZeroDivisionError: division by zero"),
        (lambda: 0, "raised TypeError"),
        (lambda *a: "4", "returned a str, expected"),
        (lambda *a: {}, "returned a dict, expected"),
        (lambda *a: True, "returned a bool, expected"),
        (lambda *a: float("nan"), "expected"),
        (lambda *a: 10**400, "expected"),
        (raise_without_words, "raised AssertionError"),
        (None, "needs your function itself, got a NoneType"),
        (torch.zeros(1, 1), "needs your function itself, got a tensor of shape (1, 1)"),
    ]:
        feedback = check(answer)
        assert not feedback.passed
        assert sentence in feedback.message


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda y: y.tolist(), "returned a list, expected a tensor of shape (1, 1)"),
        (lambda y: y.numpy(), "returned a NumPy array, expected a tensor"),
        (lambda y: y.double(), "returned torch.float64 numbers, expected torch.float32"),
        (lambda y: y.long(), "returned torch.int64 numbers, expected torch.float32"),
        (lambda y: y * 1j, "returned torch.complex64 numbers"),
        (lambda y: y.to("meta"), "on the device meta, expected cpu"),
        (lambda y: y.to_sparse(), "returned a sparse tensor"),
        (lambda y: y * float("nan"), "returned [[nan]], expected [[3]]"),
        (lambda y: (y,), "returned a tuple"),
    ],
)
def test_right_numbers_in_the_wrong_wrapping(change, sentence):
    feedback = checks.check_gap(lambda x: change(x.mean((2, 3))))
    assert not feedback.passed
    assert sentence in feedback.message


def test_an_answer_must_leave_its_input_alone():
    def spoil(x):
        pooled = x.mean((2, 3))
        x.zero_()
        return pooled

    assert "changed its input" in checks.check_gap(spoil).message

    def spoil_list(means, counts):
        total = sum(m * c for m, c in zip(means, counts, strict=True))
        return total / sum(counts.pop() for _ in range(len(counts)))

    assert "changed its input" in checks.check_gap_from_windows(spoil_list).message

    def spoil_one_number(means, counts):
        total = sum(m * c for m, c in zip(means, counts, strict=True)) / sum(counts)
        means[0] = np.array([1.0, 2.0])
        return total

    assert "changed its input" in checks.check_gap_from_windows(spoil_one_number).message
    assert checks.check_gap(lambda x: x.mean((2, 3))).passed  # the cases are as before


def test_rounding_is_seen_even_where_four_decimals_agree():
    feedback = checks.check_gap(lambda x: torch.round(x.mean((2, 3)), decimals=4))
    assert "with more decimals: do not round" in feedback.message


def test_the_smallest_failing_input_is_shown():
    fails_at_batch_4 = checks.check_gap(lambda x: x.mean((2, 3)) * (1 + (len(x) == 4)))
    assert "On the input features of shape (4, 3, 2, 5)" in fails_at_batch_4.message
    fails_everywhere = checks.check_gap(lambda x: x.mean((2, 3)) + 1)
    assert "On the input [[[[1, 2], [3, 6]]]]: your function returned [[4]], expected [[3]]" in (
        fails_everywhere.message
    )
