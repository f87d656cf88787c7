"""robustness.py against rolls and pads of other libraries, and against a count by hand."""

from copy import deepcopy

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gap_utils.activations import capture_activations, find_cam_head
from gap_utils.data import Split
from gap_utils.inference import evaluate, predict
from gap_utils.models import build_convnet
from gap_utils.robustness import (
    RandomBorder,
    RandomShift,
    accuracy_against_canvas,
    accuracy_against_shift,
    enlarge_canvas,
    shift,
)
from gap_utils.shapes import trace_shapes
from gap_utils.training import fit
from small_data import make_dataset, make_model, make_split


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


@hypothesis.settings(max_examples=50)
@hypothesis.given(
    shape=st.tuples(*(st.integers(low, 5) for low in (0, 1, 1, 1))),
    pixels=st.integers(0, 7),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16]),
    memory=st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
def test_a_random_shift_is_one_of_all_shifts(shape, pixels, dtype, memory):
    images = torch.arange(1, 1 + torch.Size(shape).numel()).reshape(shape).to(dtype)
    images = images.contiguous(memory_format=memory)
    before = images.clone()
    moved = RandomShift(pixels)(images)
    assert (moved.shape, moved.dtype) == (images.shape, dtype)
    assert torch.equal(images, before)
    steps = range(-pixels, pixels + 1)
    for image, own in zip(images, moved, strict=True):
        assert any(own.equal(shift(image, dx, dy)) for dx in steps for dy in steps)


def test_every_shift_is_as_likely_in_both_axes_and_for_each_picture():
    torch.manual_seed(0)
    images = torch.zeros(9000, 1, 5, 7)
    images[:, :, 2, 3] = 1
    counts = RandomShift(1)(images).sum((0, 1))  # where the white pixel went
    assert counts.sum() == counts[1:4, 2:5].sum() == 9000
    # 1000 is expected of each of the nine; the standard deviation is 30
    assert counts[1:4, 2:5].sub(1000).abs().max() < 130


def test_a_border_is_drawn_from_the_widths_for_the_batch():
    torch.manual_seed(0)
    border, images = RandomBorder([0, 1, 4]), torch.rand(2, 3, 5, 7)
    counts = {0: 0, 1: 0, 4: 0}
    for _ in range(600):
        framed = border(images)
        width = (framed.shape[2] - 5) // 2
        assert torch.equal(framed, F.pad(images, (width,) * 4))
        counts[width] += 1
    # 200 is expected of each; the standard deviation is 12
    assert all(abs(count - 200) < 50 for count in counts.values())
    assert border(torch.zeros(0, 1, 5, 7)).shape[:2] == (0, 1)


@pytest.mark.parametrize("module", [RandomShift(3), RandomBorder([2, 4])])
def test_in_evaluation_mode_nothing_moves_and_nothing_is_drawn(module):
    images, state = torch.rand(4, 1, 6, 6), torch.get_rng_state()
    module = deepcopy(module).eval()
    assert module(images) is images
    assert torch.equal(torch.get_rng_state(), state)
    assert not module.state_dict()


def test_they_are_printed_with_their_settings():
    """By which a checkpoint knows its run."""
    assert repr(RandomShift(4)) == "RandomShift(pixels=4)"
    assert repr(RandomBorder(range(0, 5, 2))) == "RandomBorder(widths=(0, 2, 4))"


@pytest.mark.parametrize(
    ("make", "value", "said"),
    [
        (RandomShift, -1, "expected pixels to be an integer from 0 on, got -1"),
        (RandomShift, 2.0, "expected pixels to be an integer from 0 on, got 2.0"),
        (RandomShift, True, "expected pixels to be an integer from 0 on, got True"),
        (RandomBorder, [2, -1], "expected each width to be an integer from 0 on, got -1"),
        (RandomBorder, "24", "expected each width to be an integer from 0 on, got '2'"),
        (RandomBorder, [False], "expected each width to be an integer from 0 on, got False"),
        (RandomBorder, 4, "expected a list with one width or more, in pixels, got 4"),
        (RandomBorder, [], r"expected a list with one width or more, in pixels, got \[\]"),
    ],
)
def test_impossible_remedies_are_refused(make, value, said):
    with pytest.raises(ValueError, match=f"^{said}$"):
        make(value)


def test_one_picture_without_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"expected pictures \(N, C, H, W\), got \(1, 6, 6\)"):
        RandomShift(1)(torch.rand(1, 6, 6))


def test_a_remedy_acts_in_training_and_a_checkpoint_knows_it(tmp_path):
    def losses(*remedies):
        model = nn.Sequential(*remedies, make_model(dropout=0.0))
        path = tmp_path / "run.pt"
        return fit(model, make_dataset(), 1, checkpoint=path, progress=False).train_loss.tolist()

    moved = losses(RandomShift(2))
    assert losses(RandomShift(2)) == moved  # read
    for other in ([RandomShift(1)], [RandomBorder([2])], []):
        with pytest.raises(ValueError, match="got one with other model"):
            losses(*other)
    (tmp_path / "run.pt").unlink()
    assert losses(RandomShift(2)) == moved  # trained again
    (tmp_path / "run.pt").unlink()
    assert losses() != moved


@pytest.mark.parametrize("training", [True, False])
def test_what_looks_at_a_model_sees_the_one_behind_a_remedy(training):
    torch.manual_seed(0)
    inside = build_convnet(num_classes=3, last_pool=False)
    model = nn.Sequential(RandomBorder([2]), RandomShift(4), inside).train(training)
    images = torch.rand(3, 1, 28, 28)
    assert torch.equal(predict(model, images), predict(inside, images))
    layer = find_cam_head(model, images).layer
    assert layer == f"2.{find_cam_head(inside, images).layer}"
    with capture_activations(model, layer) as found:
        predict(model, images)
    assert torch.equal(found[layer], inside.body(images))
    rows = trace_shapes(model, (1, 1, 28, 28))
    assert [row.output_shape for row in rows[:2]] == [(1, 1, 28, 28)] * 2
    assert rows.multiply_adds == trace_shapes(inside, (1, 1, 28, 28)).multiply_adds
    assert model.training is training
