"""The checks that name a size, a shift that is no step, a lost arrangement, a batch of one."""

import math

import pytest
import torch
from torch import nn

from gap_utils import checks

TWINS = [[[1, 2], [3, 4]], [[4, 3], [2, 1]]]


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (checks.check_shift_step, math.prod),
        (checks.check_shift_step, lambda strides: int(torch.tensor(strides).prod())),
        (checks.check_canvas_sizes, lambda: ([28, 32, 36, 40, 48], [28, 32])),
        (checks.check_canvas_sizes, lambda: [(48, 40, 36, 32, 28), {32, 28}]),
        (checks.check_canvas_sizes, lambda: (torch.tensor([28, 32, 36, 40, 48]), (28.0, 32.0))),
        (checks.check_single_batches, lambda n, size: (n % size == 1) + (size == 1) * n),
        (
            checks.check_single_batches,
            lambda n, size: sum(len(part) == 1 for part in torch.arange(n).split(size)),
        ),
        (checks.check_gap_twins, lambda: TWINS),
        (checks.check_gap_twins, lambda: torch.tensor([[[0.1, 0.2, 0.3]], [[0.3, 0.1, 0.2]]])),
        (checks.check_gap_twins, lambda: [[[9, 0, 3]], [[9, 1, 2]]]),  # other numbers do too
    ],
)
def test_right_answers_pass(check, answer):
    feedback = check(answer)
    assert feedback.passed, feedback
    assert repr(feedback).startswith("✓ Right:")


@pytest.mark.parametrize(
    ("check", "answer", "sentence"),
    [
        (checks.check_shift_step, lambda strides: 1, "GAP is invariant, and the body"),
        (checks.check_shift_step, sum, "That adds the strides"),
        (checks.check_shift_step, lambda strides: max([1, *strides]), "the largest stride"),
        (checks.check_shift_step, lambda strides: [1, *strides][-1], "the last stride"),
        (checks.check_shift_step, lambda strides: 2 ** len(strides), "where each stride is 2"),
        (checks.check_shift_step, len, "counts the poolings"),
        (checks.check_shift_step, lambda strides: 8, "returned 8, expected 2"),
        (checks.check_canvas_sizes, lambda: ([28, 32], [28, 32]), "To take a size is not to be"),
        (checks.check_canvas_sizes, lambda: ([28, 32, 36, 40, 48],) * 2, "not to be right at it"),
        (checks.check_canvas_sizes, lambda: ([28], [28]), "Only 28×28 is what a flatten"),
        (checks.check_canvas_sizes, lambda: ([28, 32, 36, 40, 48], [28]), "32×32 57.7%, 36×36"),
        (checks.check_canvas_sizes, lambda: ([], []), "every size"),
        (checks.check_canvas_sizes, lambda: [28], "Expected two lists of sizes"),
        (checks.check_canvas_sizes, lambda: (28, 28), "Expected two lists of sizes"),
        (checks.check_canvas_sizes, lambda: ("28", "32"), "Expected two lists of sizes"),
        (checks.check_canvas_sizes, lambda: ([[28]], [28]), "Expected two lists of sizes"),
        (checks.check_single_batches, lambda n, size: 0, "a batch of one picture is refused"),
        (checks.check_single_batches, lambda n, size: n - n // size * size, "if it has one"),
        (checks.check_single_batches, lambda n, size: int(n / size != n // size), "is smaller"),
        (checks.check_single_batches, lambda n, size: int(n % size == 1), "each is refused"),
        (checks.check_single_batches, lambda n, size: n * (size == 1), "left over"),
        (checks.check_single_batches, lambda n, size: n // size, "the full batches"),
        (checks.check_gap_twins, lambda: [TWINS[0]] * 2, "are the same"),
        (
            checks.check_gap_twins,
            lambda: [[[1, 2], [3, 4]], [[1, 2], [3, 5]]],
            "gives 2.5 and 2.75",
        ),
        (checks.check_gap_twins, lambda: [[[3, 3]], [[2, 4]]], "GMP gives 3 and 4"),
        (checks.check_gap_twins, lambda: TWINS[0], "Expected two maps of the same size"),
        (checks.check_gap_twins, lambda: [[[1, 2]], [[1], [2]]], "Expected two maps"),
        (checks.check_gap_twins, lambda: [[[1, math.nan]], [[2, 1]]], "Expected two maps"),
        (checks.check_gap_twins, lambda: None, "returned None"),
    ],
)
def test_wrong_answers_are_named(check, answer, sentence):
    feedback = check(answer)
    assert not feedback.passed
    assert sentence in feedback.message


def test_what_the_checks_say_is_what_pytorch_does():
    """The step of poolings, and the batches that BatchNorm refuses."""
    picture = torch.zeros(1, 1, 72, 72)
    picture[..., 24:47, 24:46] = torch.rand(23, 22, generator=torch.Generator().manual_seed(0))
    for strides in ([2], [2, 2], [3, 2], [2, 2, 2]):
        body = nn.Sequential(*map(nn.MaxPool2d, strides))
        gap = body(picture).mean()
        same = [
            shift
            for shift in range(1, 13)
            if torch.isclose(body(picture.roll(shift, 3)).mean(), gap, rtol=1e-5)
        ]
        assert same[0] == math.prod(strides)
        assert checks.check_shift_step(math.prod).passed
    norm = nn.BatchNorm1d(3)
    norm(torch.rand(2, 3))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(torch.rand(1, 3))
