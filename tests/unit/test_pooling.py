import math
from statistics import fmean

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gap_utils.pooling import (
    as_features,
    generalized_mean_pool,
    global_average_pool,
    global_max_pool,
    log_sum_exp_pool,
    masked_average_pool,
    output_size,
    pool,
    windows_along,
)

MAP = [[2, 2, 7, 3], [9, 4, 6, 1], [8, 5, 2, 4], [3, 1, 2, 6]]
MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@pytest.fixture
def x():
    return torch.tensor(MAP, dtype=torch.float32)[None, None]


def test_numbers_of_the_lesson(x):
    assert global_average_pool(x).tolist() == [[4.0625]]
    assert global_max_pool(x).tolist() == [[9]]
    assert pool(x, 2, mode="avg").tolist() == [[[[4.25, 4.25], [4.25, 3.5]]]]
    assert pool(x, 2, mode="max").tolist() == [[[[9, 7], [8, 6]]]]
    assert pool(x, 2, mode="min").tolist() == [[[[2, 1], [1, 2]]]]
    rolled = x.roll(1, dims=3)
    assert pool(rolled, 2, mode="avg").tolist() == [[[[3.75, 4.75], [5.25, 2.5]]]]


def test_numbers_of_the_line():
    line = [[[1, 1, 2, 2, 5, 1, 6]]]
    assert pool(line, 3, stride=1).tolist() == [[[2, 2, 5, 5, 6]]]
    assert pool(line, 3).tolist() == [[[2, 5]]]
    assert global_max_pool(line).item() == 6
    assert global_average_pool(line).item() == pytest.approx(18 / 7)


@st.composite
def pooling_cases(draw):
    axes = draw(st.integers(1, 3))
    ints = {"kernel": st.integers(1, 4), "stride": st.integers(1, 4)}
    kernel = tuple(draw(ints["kernel"]) for _ in range(axes))
    stride = draw(st.none() | st.tuples(*[ints["stride"]] * axes))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    ceil_mode = draw(st.booleans())
    sizes = tuple(draw(st.integers(1, 7)) for _ in range(axes))
    assume(all(n + 2 * p >= k for n, p, k in zip(sizes, padding, kernel, strict=True)))
    shape = (draw(st.sampled_from([1, 2])), draw(st.integers(1, 3)), *sizes)
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    seed = draw(st.integers(0, 2**16))
    x = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    special = draw(st.sampled_from([None, float("inf"), float("-inf"), float("nan")]))
    if special is not None:
        x.view(-1)[draw(st.integers(0, x.numel() - 1))] = special
    layout = draw(st.sampled_from(["plain", "transposed", "strided", "channels last"]))
    if layout == "transposed":
        x = x.transpose(0, 1)
    elif layout == "strided":
        x = x.repeat_interleave(2, dim=-1)[..., ::2]
    elif layout == "channels last" and axes > 1:
        formats = {2: torch.channels_last, 3: torch.channels_last_3d}
        x = x.to(memory_format=formats[axes])
    return x, kernel, stride, padding, ceil_mode


@settings(max_examples=300)
@given(pooling_cases(), st.booleans())
def test_pool_equals_pytorch(case, count_include_pad):
    x, kernel, stride, padding, ceil_mode = case
    axes = x.ndim - 2
    options = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    torch.testing.assert_close(
        pool(x, kernel, mode="max", **options),
        MAX_POOLS[axes](x, kernel, **options),
        rtol=0,
        atol=0,
        equal_nan=True,
    )
    torch.testing.assert_close(
        pool(x, kernel, mode="min", **options),
        -MAX_POOLS[axes](-x, kernel, **options),
        rtol=0,
        atol=0,
        equal_nan=True,
    )
    if axes == 3 and any(n < k for n, k in zip(x.shape[2:], kernel, strict=True)):
        return  # avg_pool3d alone wants the kernel to fit the map without its padding
    torch.testing.assert_close(
        pool(x, kernel, mode="avg", count_include_pad=count_include_pad, **options),
        AVG_POOLS[axes](x, kernel, count_include_pad=count_include_pad, **options),
        equal_nan=True,
    )


@settings(max_examples=200)
@given(pooling_cases())
def test_global_pools_equal_pytorch(case):
    x = case[0]
    axes = tuple(range(2, x.ndim))
    torch.testing.assert_close(global_average_pool(x), x.mean(dim=axes), equal_nan=True)
    torch.testing.assert_close(global_max_pool(x), x.amax(dim=axes), rtol=0, atol=0, equal_nan=True)


@given(
    size=st.integers(1, 40),
    kernel=st.integers(1, 12),
    stride=st.integers(1, 8),
    padding=st.integers(0, 6),
    ceil_mode=st.booleans(),
)
def test_output_size_equals_pytorch_also_in_what_it_refuses(
    size, kernel, stride, padding, ceil_mode
):
    try:
        expected = F.max_pool1d(torch.zeros(1, 1, size), kernel, stride, padding, 1, ceil_mode)
    except RuntimeError:
        with pytest.raises(ValueError, match="expected"):
            output_size(size, kernel, stride, padding, ceil_mode)
    else:
        assert output_size(size, kernel, stride, padding, ceil_mode) == expected.shape[2]


def test_windows_hold_what_is_pooled():
    assert windows_along(7, 2) == [(0, 2), (2, 4), (4, 6)]
    assert windows_along(7, 2, ceil_mode=True) == [(0, 2), (2, 4), (4, 6), (6, 7)]
    assert windows_along(4, 3, stride=2, padding=1) == [(-1, 2), (1, 4)]


@given(st.permutations(range(16)))
def test_global_pools_forget_the_order(order):
    x = torch.tensor(MAP, dtype=torch.float64).flatten()[list(order)].reshape(1, 1, 4, 4)
    assert global_average_pool(x).item() == 4.0625
    assert global_max_pool(x).item() == 9


def test_gradients_flow_as_in_pytorch():
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    for mode, pytorch in (("max", F.max_pool2d), ("avg", F.avg_pool2d)):
        ours = torch.autograd.grad(pool(x, 3, 2, 1, mode=mode).sum(), x)[0]
        theirs = torch.autograd.grad(pytorch(x, 3, 2, 1).sum(), x)[0]
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "given_",
    [
        [[MAP]],
        np.array([[MAP]]),
        np.array([[MAP]], dtype=np.uint8),
        np.array([[MAP]], dtype=np.float64)[..., ::-1],
        torch.tensor([[MAP]]),
        torch.tensor([[MAP]], dtype=torch.uint8),
        torch.tensor([[MAP]], dtype=torch.bfloat16),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
)
def test_lists_arrays_and_integers_are_taken_as_floats(given_):
    assert global_average_pool(given_).item() == 4.0625
    assert global_average_pool(given_).is_floating_point()
    assert pool(given_, 4, mode="avg").item() == 4.0625


def test_numbers_of_lesson_09(x):
    gem = {p: generalized_mean_pool(x, p).item() for p in (1, 2, 3, 10)}
    assert gem == pytest.approx(
        {p: fmean(n**p for row in MAP for n in row) ** (1 / p) for p in gem}, rel=1e-6
    )
    assert [round(value, 4) for value in gem.values()] == [4.0625, 4.7368, 5.2814, 7.0677]
    by_hand = math.log(fmean(math.exp(n) for row in MAP for n in row))
    assert log_sum_exp_pool(x).item() == pytest.approx(by_hand, rel=1e-6)
    assert round(by_hand, 4) == 6.7245


@settings(max_examples=200)
@given(pooling_cases(), st.floats(0.01, 20))
def test_log_sum_exp_equals_pytorch_and_lies_between_its_limits(case, sharpness):
    x = case[0].double().nan_to_num(0, 0, 0)
    found = log_sum_exp_pool(x, sharpness)
    count = x[0, 0].numel()
    logarithm = torch.logsumexp(sharpness * x, dim=tuple(range(2, x.ndim))) - math.log(count)
    torch.testing.assert_close(found, logarithm / sharpness)
    assert (found > global_average_pool(x) - 1e-9).all()
    assert (found < global_max_pool(x) + 1e-9).all()
    assert (found <= log_sum_exp_pool(x, 2 * sharpness) + 1e-9).all()  # sharper is larger
    shifted = log_sum_exp_pool(x - 7, sharpness)  # negative numbers are as good as others
    torch.testing.assert_close(shifted, found - 7, rtol=1e-9, atol=1e-7)


@settings(max_examples=200)
@given(pooling_cases(), st.floats(0.1, 20))
def test_gem_equals_the_formula_and_lies_between_its_limits(case, p):
    x = case[0].double().nan_to_num(0, 0, 0).abs() + 0.01
    found = generalized_mean_pool(x, p)
    axes = tuple(range(2, x.ndim))
    torch.testing.assert_close(found, (x**p).mean(axes) ** (1 / p))
    assert (found < global_max_pool(x) + 1e-9).all()
    assert (found > -global_max_pool(-x) - 1e-9).all()
    assert (found <= generalized_mean_pool(x, 2 * p) + 1e-9).all()
    torch.testing.assert_close(generalized_mean_pool(x, 1), global_average_pool(x))
    torch.testing.assert_close(generalized_mean_pool(3 * x, p), 3 * found)


def test_both_reach_the_average_and_the_maximum(x):
    x = torch.cat([x, x.roll(1, 2) * 0.5], dim=1).double()
    gap, gmp = global_average_pool(x), global_max_pool(x)
    torch.testing.assert_close(generalized_mean_pool(x, 1), gap)
    torch.testing.assert_close(generalized_mean_pool(x, 1e6), gmp, rtol=1e-5, atol=0)
    torch.testing.assert_close(log_sum_exp_pool(x, 1e-7), gap, rtol=1e-5, atol=0)
    torch.testing.assert_close(log_sum_exp_pool(x, 1e6), gmp, rtol=1e-5, atol=0)


@pytest.mark.parametrize("sharpness", [1e-2, 1e-4, 1e-6, 1e-10, 1e-30])
def test_a_small_sharpness_loses_no_digits(x, sharpness):
    """In float32 log(16) and what a small sharpness adds to it would be the same number."""
    for features in (x, torch.cat([x, x - 50, x * 0.1]), torch.rand(2, 3, 300, 300)):
        wanted = log_sum_exp_pool(features.double(), sharpness)
        torch.testing.assert_close(log_sum_exp_pool(features, sharpness).double(), wanted)
    features = x.clone().requires_grad_()
    log_sum_exp_pool(features, 1e-6).sum().backward()
    torch.testing.assert_close(features.grad, torch.full_like(x, 1 / 16))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 1, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("pooled", [generalized_mean_pool, log_sum_exp_pool])
def test_a_setting_that_is_learned_may_have_axes_of_length_1(pooled, shape):
    x = torch.rand(2, 3, 4, 4) + 0.5
    setting = torch.full(shape, 3.0, requires_grad=True)
    torch.testing.assert_close(pooled(x, setting), pooled(x, 3))
    pooled(x, setting).sum().backward()
    assert setting.grad.shape == shape
    with pytest.raises(ValueError, match="to be a finite number above 0, got tensor"):
        pooled(x[:, :1], torch.tensor([3.0, 2.0], requires_grad=True))


@pytest.mark.parametrize("start", [0.3, 2.5])  # one on each side of a spread of 1
@pytest.mark.parametrize("pooled", [generalized_mean_pool, log_sum_exp_pool])
def test_gradients_are_those_of_the_formula(pooled, start):
    torch.manual_seed(0)
    x = (torch.rand(2, 3, 3, 4, dtype=torch.float64) + 0.1).requires_grad_()
    setting = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pooled, (x, setting))


def test_huge_numbers_and_settings_do_not_overflow():
    large = torch.tensor([[[0.0, 1000]]])
    assert log_sum_exp_pool(large).item() == pytest.approx(1000 - math.log(2))
    assert log_sum_exp_pool(-large).item() == pytest.approx(-math.log(2))
    assert generalized_mean_pool(torch.tensor([[[1e30, 1e30]]]), 3).item() == pytest.approx(1e30)
    half = torch.tensor([[[60000.0, 60000]]], dtype=torch.float16)
    for found in (generalized_mean_pool(half, 3), log_sum_exp_pool(half, 5)):
        assert found.dtype == torch.float16
        assert found.item() == 60000
    edge = torch.tensor([[[1e38, 3e38]]])
    for sharpness in (3, 1e30, 1e38):
        assert log_sum_exp_pool(edge, sharpness).item() == pytest.approx(3e38)
    infinite = torch.tensor([[[0.0, math.inf], [0.0, -math.inf], [-math.inf, -math.inf]]])
    found = log_sum_exp_pool(infinite.movedim(1, 0))  # three pictures
    assert found.flatten().tolist() == pytest.approx([math.inf, -math.log(2), -math.inf])
    assert log_sum_exp_pool(torch.tensor([[[0.0, math.nan]]])).isnan().all()
    bfloat = torch.full((1, 2, 300, 300), 3.0, dtype=torch.bfloat16)
    assert generalized_mean_pool(bfloat).tolist() == [[3, 3]]


def test_gem_takes_what_is_below_eps_for_eps():
    x = torch.tensor([[[-8.0, 0, 2]]], requires_grad=True)
    found = generalized_mean_pool(x, 3)
    assert found.item() == pytest.approx((8 / 3) ** (1 / 3))
    found.sum().backward()
    assert x.grad[0, 0, :2].tolist() == [0, 0]
    assert x.grad[0, 0, 2] > 0
    dead = torch.zeros(1, 1, 4, requires_grad=True)
    found = generalized_mean_pool(dead, 3)
    assert found.item() == pytest.approx(1e-6)
    found.sum().backward()
    assert dead.grad.isfinite().all()


@st.composite
def masked_cases(draw):
    """Maps and masks with at least one position a picture."""
    x = draw(pooling_cases())[0]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    mask = torch.rand((len(x), *x.shape[2:]), generator=generator) < draw(st.floats(0, 1))
    mask.view(len(x), -1)[:, draw(st.integers(0, mask[0].numel() - 1))] = True
    return x, mask


@settings(max_examples=200)
@given(masked_cases())
def test_the_mean_over_a_mask_is_the_mean_of_what_it_leaves(case):
    x, mask = case
    each = [picture.double()[:, own].mean(1) for picture, own in zip(x, mask, strict=True)]
    expected = torch.stack(each).to(x.dtype)
    torch.testing.assert_close(masked_average_pool(x, mask), expected, equal_nan=True)
    whole = torch.ones_like(mask)
    torch.testing.assert_close(
        masked_average_pool(x, whole), global_average_pool(x), equal_nan=True
    )


def test_what_stands_in_the_padding_does_not_count():
    mask = torch.tensor([[[True, True, False, False, False]]])
    x = torch.tensor([[[[1, 3, math.nan, math.inf, -math.inf]]]], requires_grad=True)
    found = masked_average_pool(x, mask)
    assert found.tolist() == [[2]]
    found.sum().backward()
    assert x.grad.flatten().tolist() == [0.5, 0.5, 0, 0, 0]
    half = torch.full((1, 1, 300, 300), 2.0, dtype=torch.float16)  # their sum is over 65504
    assert masked_average_pool(half, half[:, 0] > 0).item() == 2


def test_precision_is_kept():
    assert as_features(np.ones((1, 1, 2))).dtype == torch.float64
    assert as_features(np.ones((1, 1, 2), dtype=np.float32)).dtype == torch.float32
    assert as_features([[[1.5]]]).dtype == torch.get_default_dtype()
    half = torch.full((1, 1, 300), 1000.0, dtype=torch.float16)  # its sum is over 65504
    assert pool(half, 300, mode="avg").item() == 1000


def test_small_numpy_integers_do_not_overflow():
    assert windows_along(4, 2, padding=np.uint8(1)) == [(-1, 1), (1, 3), (3, 5)]
    assert pool(torch.ones(1, 1, 400), 2, np.int8(2)).shape == (1, 1, 200)
    assert pool(torch.ones(1, 1, 400), np.int8(100), 1).shape == (1, 1, 301)


def test_input_is_left_alone(x):
    before = x.clone()
    pool(x, 2, mode="avg")
    pool(x, 3, 1, 1, mode="min")
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: global_average_pool(MAP), r"expected features of shape .* got \(4, 4\)"),
        (lambda x: global_max_pool(torch.zeros(1, 1, 1, 1, 1, 1)), "one to three spatial axes"),
        (lambda x: global_average_pool(torch.zeros(2, 3, 0, 4)), r"at least one position.*2, 3, 0"),
        (lambda x: global_average_pool([[[1, 2], [3]]]), "rectangular array"),
        (lambda x: global_average_pool("map"), "expected numbers"),
        (
            lambda x: global_average_pool(x.to(torch.complex64)),
            "expected a dense tensor of real numbers, got torch.complex64",
        ),
        (lambda x: global_max_pool(x.to_sparse()), "layout torch.sparse_coo"),
        (lambda x: pool(x, 2, mode=["max"]), '"max", "avg" or "min"'),
        (lambda x: pool(x, 5), "no larger than the padded map, got kernel_size 5 on 4"),
        (lambda x: pool(x, 2, stride=0), "stride to be an integer from 1 on, got 0"),
        (lambda x: pool(x, 2, padding=2), "at most half the kernel size, 1, got 2"),
        (lambda x: pool(x, 2, padding=-1), "padding to be an integer from 0 on, got -1"),
        (lambda x: pool(x, 0), "kernel_size to be an integer from 1 on, got 0"),
        (lambda x: pool(x, 2.0), r"kernel_size to be an integer from 1 on, got 2\.0"),
        (lambda x: pool(x, "22"), "kernel_size to be an integer"),
        (lambda x: pool(x, (2, 2, 2)), r"one kernel_size or 2.* got \(2, 2, 2\)"),
        (lambda x: pool(x, 2, mode="mean"), '"max", "avg" or "min", got \'mean\''),
        (lambda x: log_sum_exp_pool(MAP), r"expected features of shape .* got \(4, 4\)"),
        (lambda x: log_sum_exp_pool(x, 0), "sharpness to be a finite number above 0, got 0"),
        (lambda x: log_sum_exp_pool(x, 1e300), r"sharpness to be from 1\.2e-38 to 3\.4e\+38"),
        (lambda x: generalized_mean_pool(x, 1e-300), "p to be from 1.2e-38 .* it, got 1e-300"),
        (lambda x: log_sum_exp_pool(x, "1"), "sharpness to be a finite number above 0, got '1'"),
        (lambda x: generalized_mean_pool(x, -2), "p to be a finite number above 0, got -2"),
        (lambda x: generalized_mean_pool(x, math.nan), "p to be a finite number above 0, got nan"),
        (lambda x: generalized_mean_pool(x, x), "p to be a finite number above 0, got tensor"),
        (lambda x: generalized_mean_pool(x, 3, eps=0), "eps to be a finite number above 0, got 0"),
        (
            lambda x: masked_average_pool(x, torch.ones(1, 1, 4, 4, dtype=torch.bool)),
            r"mask of torch.bool and shape \(1, 4, 4\), got torch.bool of \(1, 1, 4, 4\)",
        ),
        (lambda x: masked_average_pool(x, x[0]), "got torch.float32 of"),
        (lambda x: masked_average_pool(x, [[[True]]]), r"got \[\[\[True\]\]\]"),
        (
            lambda x: masked_average_pool(
                torch.cat([x, x]), torch.arange(2)[:, None, None].expand(2, 4, 4) > 0
            ),
            "a position of each picture in the mask, got none of 0",
        ),
        (lambda x: output_size(0, 1), "size to be an integer from 1 on, got 0"),
        (lambda x: output_size(3, 5), "got kernel_size 5 on 3 positions"),
    ],
)
def test_bad_input_is_named(x, call, message):
    with pytest.raises(ValueError, match=message):
        call(x)
