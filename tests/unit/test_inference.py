"""inference.py against numbers worked out by hand, in every number format."""

import math

import pytest
import torch
from torch import nn

from gap_utils.data import Split
from gap_utils.inference import as_input, evaluate, predict
from small_data import make_model, make_split
from small_networks import Call

IMAGES = make_split(20).images
# takes (C, H, W) for a picture, too, and then flattens the wrong axes
ONE_BY_ONE = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_modes_come_back_after_an_error():
    model = make_model()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError):
        predict(model, torch.zeros(2, 5, 8, 8))
    assert [module.training for module in model.modules()] == modes


def test_evaluate_by_hand():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]]).reshape(3, 2, 1, 1)
    part = Split(logits, torch.tensor([0, 1, 0]), torch.arange(3))
    losses = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1)), math.log(1 + math.exp(3))]
    score = evaluate(nn.Flatten(), part)
    assert score.accuracy == pytest.approx(2 / 3)
    assert score.loss == pytest.approx(sum(losses) / 3)


def test_predict_does_not_depend_on_the_batches():
    model = make_model()
    whole = predict(model, IMAGES)
    torch.testing.assert_close(predict(model, IMAGES, batch_size=3), whole)
    torch.testing.assert_close(model.eval()(IMAGES), whole)
    assert not whole.requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_predict_and_evaluate_in_the_format_of_the_model(dtype):
    """Pictures in eighths, so that the shortest format has them as they are."""
    split = Split((make_split(6).images * 8).round() / 8, make_split(6).labels, torch.arange(6))
    model, exact = make_model(), make_model().double()
    logits = predict(model.to(dtype), split.images)
    assert logits.dtype == dtype
    tolerance = {"atol": 0.02, "rtol": 0.02}
    torch.testing.assert_close(logits.double(), predict(exact, split.images), **tolerance)
    expected = -logits.double().log_softmax(1)[torch.arange(6), split.labels].mean().item()
    score = evaluate(model, split)
    assert score.loss == pytest.approx(expected, rel=1e-6)  # 8 bits would be off by 1e-3
    assert score.accuracy == (logits.argmax(1) == split.labels).float().mean().item()


def test_a_first_layer_that_works_in_place_leaves_the_pictures():
    split = make_split(3)
    before = split.images.clone()
    evaluate(Call(lambda m, x: x.neg_().flatten(1)), split)
    assert torch.equal(split.images, before)


def test_models_without_weights_and_models_that_take_integers():
    halves = torch.tensor([[0.5, 1.5]], dtype=torch.float16)
    assert torch.equal(as_input(nn.Flatten(), halves), halves)
    table = nn.EmbeddingBag(5, 3)
    words = torch.tensor([[0, 4], [2, 2]])
    assert torch.equal(predict(table, words), table(words))
    pixels = torch.tensor([[0, 255], [51, 0]], dtype=torch.uint8)
    scales = Call(lambda m, x: m.linear(x / 255), linear=nn.Linear(2, 3))
    assert torch.equal(predict(scales, pixels), scales.linear(pixels / 255))
    counts = Call(lambda m, x: x * m.places, places=nn.Embedding(1, 2))
    counts.places = nn.Parameter(torch.tensor([2, 3]), requires_grad=False)
    assert predict(counts, halves).tolist() == [[1, 4.5]]
    norm = nn.BatchNorm1d(2, affine=False).double()  # buffers alone
    assert predict(norm, halves).dtype == torch.float64


@pytest.mark.parametrize(
    ("logits", "right", "finite"),
    [
        ([math.nan, math.nan], False, False),
        ([math.nan, 0.0], False, False),
        ([3.0, math.nan], False, False),
        ([math.inf, math.inf], False, False),
        ([-math.inf, -math.inf], False, False),
        ([2.0, -math.inf], True, True),
    ],
)
def test_what_is_no_number_is_no_answer(logits, right, finite):
    """The first class is the right one, and the one that `argmax` gives where none is larger."""
    images = torch.tensor([[0.0, 1.0], logits]).reshape(2, 2, 1, 1)
    split = Split(images, torch.tensor([1, 0]), torch.arange(2))
    score = evaluate(nn.Flatten(), split)
    assert score.accuracy == (1.0 if right else 0.5)
    assert math.isfinite(score.loss) == finite
    split.images.nan_to_num_(nan=5.0, posinf=5.0, neginf=-5.0)
    assert math.isfinite(evaluate(nn.Flatten(), split).loss)


class Exported(nn.Module):
    """Has no modes, as what `torch.export` makes."""

    def train(self, mode=True):
        raise NotImplementedError("Calling eval() is not supported yet.")


@pytest.mark.parametrize(
    ("model", "images", "size", "message"),
    [
        (make_model(), IMAGES[:0], 500, "one picture or more, got none"),
        (make_model(), IMAGES.numpy(), 500, "a tensor with .* got a ndarray"),
        (make_model(), IMAGES, 0, "batch_size to be an integer from 1 on, got 0"),
        (make_model(), IMAGES, 2.5, "batch_size to be an integer from 1 on, got 2.5"),
        (ONE_BY_ONE, IMAGES[0], 500, r"\(N, K\) with N = 1, got \(3, 1\)"),
        (nn.Conv2d(1, 3, 3), IMAGES[:2], 500, r"with N = 2, got \(2, 3, 6, 6\)"),
        (make_model().to("meta"), IMAGES, 500, "with numbers, but '0.weight' is on"),
        (nn.LazyLinear(3), IMAGES, 500, "with numbers, but 'weight' gets its"),
        (Call(lambda m, x: (x, x)), IMAGES, 3, "with N = 3, got a tuple"),
        (Exported(), IMAGES, 500, "an evaluation mode, which those of torch.export lack"),
    ],
)
def test_what_cannot_be_predicted_gets_a_sentence(model, images, size, message):
    with pytest.raises(ValueError, match=message):
        predict(model, images, size)


def test_an_empty_split_gets_a_sentence():
    with pytest.raises(ValueError, match="one picture or more, got none"):
        evaluate(make_model(), make_split(0))
