"""robustness.py against rolls and pads of other libraries, and against a count by hand."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gap_utils.data import Split
from gap_utils.inference import evaluate
from gap_utils.models import build_convnet
from gap_utils.robustness import (
    accuracy_against_canvas,
    accuracy_against_shift,
    enlarge_canvas,
    shift,
)
from small_data import make_split


@hypothesis.given(
    height=st.integers(1, 6), width=st.integers(1, 6), dx=st.integers(-7, 7), dy=st.integers(-7, 7)
)
def test_shift_is_a_roll_on_a_padded_canvas(height, width, dx, dy):
    images = torch.arange(1.0, 1 + 2 * height * width).reshape(2, 1, height, width)
    margin = 8
    canvas = F.pad(images, (margin,) * 4)
    rolled = torch.roll(canvas, (dy, dx), dims=(-2, -1))
    expected = rolled[..., margin : margin + height, margin : margin + width]
    assert torch.equal(shift(images, dx, dy), expected)


@hypothesis.given(height=st.integers(1, 6), width=st.integers(1, 6), extra=st.integers(0, 5))
def test_enlarge_canvas_is_numpys_pad(height, width, extra):
    images = torch.arange(1.0, 1 + height * width).reshape(1, height, width)
    canvas = max(height, width) + extra
    down, across = canvas - height, canvas - width
    room = [(0, 0), (down // 2, down - down // 2), (across // 2, across - across // 2)]
    expected = np.pad(images.numpy(), room)
    assert np.array_equal(enlarge_canvas(images, canvas).numpy(), expected)
    with pytest.raises(ValueError, match=rf"at least {height}×{width}"):
        enlarge_canvas(images, max(height, width) - 1)


def test_accuracy_against_shift_by_hand():
    """One white pixel in the middle of 5×5: it stays in sight for 2 px in any direction."""
    images = torch.zeros(4, 1, 5, 5)
    images[:, :, 2, 2] = 1
    part = Split(images, torch.zeros(4, dtype=torch.long), torch.arange(4))

    class SeesWhite(nn.Module):
        def forward(self, images):
            seen = images.amax((1, 2, 3))
            return torch.stack([seen, 1 - seen], 1)

    table = accuracy_against_shift(SeesWhite(), part, range(4))
    assert table["shift"].tolist() == [0, 1, 2, 3]
    assert table.accuracy.tolist() == [1, 1, 1, 0]

    class SeesWhiteOnTheRight(SeesWhite):
        def forward(self, images):
            return super().forward(images[..., 3:])

    # of the eight directions three go right
    table = accuracy_against_shift(SeesWhiteOnTheRight(), part, [0, 1])
    assert table.accuracy.tolist() == [0, 3 / 8]


def test_no_shift_and_no_larger_canvas_is_evaluate():
    model = build_convnet(num_classes=3)
    part = make_split(30, size=28)
    expected = evaluate(model, part).accuracy
    assert accuracy_against_shift(model, part, [0]).accuracy.item() == expected
    assert accuracy_against_canvas(model, part, [28]).accuracy.item() == expected
    assert accuracy_against_canvas(model, part).canvas.tolist() == [28, 32, 36, 40, 48]
    with pytest.raises(ValueError, match=r"from pictures of \(32, 32\)"):
        accuracy_against_canvas(build_convnet("flatten"), part, [28, 32])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_models_of_any_format(dtype):
    model = build_convnet(num_classes=3).to(dtype)
    split = make_split(5, size=28)
    expected = [evaluate(model, Split(split.images.to(dtype), split.labels, split.numbers))[1]]
    assert accuracy_against_shift(model, split, [0]).accuracy.tolist() == expected
    assert accuracy_against_canvas(model, split, [28]).accuracy.tolist() == expected


def test_no_number_is_never_right():
    split = make_split(5, size=28)
    split.labels.zero_()
    model = build_convnet(num_classes=3)
    model.head[0].bias.data.fill_(torch.nan)
    assert accuracy_against_shift(model, split, [0, 1]).accuracy.tolist() == [0, 0]
    assert accuracy_against_canvas(model, split, [28, 32]).accuracy.tolist() == [0, 0]
