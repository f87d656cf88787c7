from io import BytesIO
from math import prod

import ipywidgets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from gap_utils.pictures import SCALE, VERMILLION
from gap_utils.widgets import HeadLab
from gap_utils.widgets.head_lab import (
    LIMITS,
    HeadState,
    build_heads,
    describe_heads,
    head_picture,
    run_heads,
)
from lab_controls import control, walk, words

FLATTEN, GAP, CONV = "Flatten, then linear", "GAP, then linear", "1×1 convolution, then GAP"
SLIDERS = ["Batch N", "Channels C", "Height H", "Width W", "Classes K"]

numbers = {name: st.integers(*limits) for name, limits in LIMITS.items()}
sizes = st.tuples(*(numbers[name] for name in ("channels", "height", "width")))
states = st.builds(HeadState, **numbers, built_for=st.none() | sizes)


@settings(max_examples=100, deadline=None)
@given(states)
def test_the_numbers_against_the_formulas(state):
    n, c, h, w = state.features
    k = state.num_classes
    built = state.built_for or (c, h, w)
    runs = run_heads(state)
    assert list(runs) == [FLATTEN, GAP, CONV]
    flatten, gap, conv = runs.values()
    assert flatten.parameters == prod(built) * k + k
    assert gap.parameters == conv.parameters == built[0] * k + k

    assert flatten.broken == (None if prod(built) == c * h * w else "linear")
    assert gap.broken == (None if built[0] == c else "linear")
    assert conv.broken == (None if built[0] == c else "conv")

    assert flatten.steps["flatten"] == (n, c * h * w)
    assert gap.steps["gap"] == (n, c)
    if flatten.broken is None:
        assert flatten.steps["linear"] == (n, k)
        assert flatten.multiply_adds == n * c * h * w * k
        assert flatten.new_bytes == 4 * n * k
    else:
        assert flatten.steps["linear"] is flatten.multiply_adds is flatten.new_bytes is None
    if gap.broken is None:
        assert gap.steps["linear"] == conv.steps["gap"] == (n, k)
        assert conv.steps["conv"] == (n, k, h, w)
        assert gap.multiply_adds == n * c * h * w + n * c * k
        assert conv.multiply_adds == n * c * h * w * k + n * k * h * w
        assert gap.new_bytes == 4 * (n * c + n * k)
        assert conv.new_bytes == 4 * (n * k * h * w + n * k)
    else:
        assert gap.steps["linear"] is conv.steps["conv"] is conv.steps["gap"] is None
        assert gap.multiply_adds is conv.new_bytes is None


def test_the_numbers_of_the_lesson():
    runs = run_heads(HeadState(channels=128, height=8, width=8))
    assert [run.parameters for run in runs.values()] == [81_930, 1_290, 1_290]
    assert runs[FLATTEN].steps == {"flatten": (1, 8192), "linear": (1, 10)}
    assert runs[CONV].steps == {"conv": (1, 10, 8, 8), "gap": (1, 10)}


def test_the_heads_are_real_layers():
    heads = build_heads(8, 3, 5, num_classes=4)
    assert all(p.is_meta for head in heads.values() for p in head.parameters())
    features = torch.randn(2, 8, 3, 5)
    heads = {name: head.to_empty(device="cpu") for name, head in heads.items()}
    for head in heads.values():
        for parameter in head.parameters():
            nn.init.normal_(parameter)
    with torch.no_grad():  # the same weights give the same logits before and after GAP
        heads[CONV].conv.weight.copy_(heads[GAP].linear.weight[..., None, None])
        heads[CONV].conv.bias.copy_(heads[GAP].linear.bias)
    torch.testing.assert_close(heads[GAP](features), heads[CONV](features))
    assert all(p.is_meta for h in build_heads(8, 3, 5, 4).values() for p in h.parameters())
    by_hand = features.flatten(1) @ heads[FLATTEN].linear.weight.T + heads[FLATTEN].linear.bias
    torch.testing.assert_close(heads[FLATTEN](features), by_hand)


@pytest.mark.parametrize(
    ("fields", "notes"),
    [
        (
            {},
            [
                "Flatten, then linear, has 48.3 times the parameters of the other two.",
                "The 1×1 convolution has 8.4 times the multiply-adds of GAP, then linear.",
            ],
        ),
        (
            {"height": 9, "built_for": (64, 7, 7)},
            [
                "Flatten, then linear, breaks: its weights are for 64 × 7 × 7 = 3,136 numbers, "
                "64 × 9 × 7 = 4,032 arrive."
            ],
        ),
        (
            {"channels": 32, "height": 14, "built_for": (64, 7, 7)},
            [
                "Flatten, then linear, runs, since 64 × 7 × 7 = 3,136 and 32 × 14 × 7 = 3,136 are "
                "equally many. But its weights meet numbers from other places than they were made "
                "for.",
                "GAP, then linear, breaks: its weights are for 64 channels, 32 arrive.",
                "The 1×1 convolution breaks: its weights are for 64 channels, 32 arrive.",
            ],
        ),
        (
            {"height": 1, "width": 1},
            ["On maps of a single number flatten and GAP are the same."],
        ),
    ],
)
def test_the_sentences(fields, notes):
    assert describe_heads(HeadState(**fields)) == notes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch": 0}, "batch to be an integer from 1 to 256, got 0"),
        ({"channels": 8193}, "channels to be an integer from 1 to 8192, got 8193"),
        ({"height": 2.0}, r"height to be an integer from 1 to 224, got 2\.0"),
        ({"width": None}, "width to be an integer from 1 to 224, got None"),
        ({"num_classes": 1}, "num_classes to be an integer from 2 to 21843, got 1"),
        ({"built_for": (64, 7)}, r"built_for to be None or \(C, H, W\).*got \(64, 7\)"),
        ({"built_for": (64, 7, 225)}, r"built_for to be None or .*got \(64, 7, 225\)"),
        ({"built_for": 7}, r"built_for to be None or .*got 7"),
    ],
)
def test_impossible_states_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        HeadState(**fields)


def test_numbers_of_numpy_and_lists_are_taken():
    state = HeadState(np.int64(2), built_for=[64, 7, np.int8(7)])
    assert state == HeadState(2, built_for=(64, 7, 7))
    assert hash(state) == hash(HeadState(2, built_for=(64, 7, 7)))


def pixels(state) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(head_picture(state).png)).convert("RGB")).astype(int)


def bar_lengths(state, row: int) -> list[float]:
    """How far the bars of the three heads reach, in CSS pixels."""
    line = pixels(state)[(188 + 36 * row + 22) * SCALE]
    columns = [line[(4 + 192 * i) * SCALE : (184 + 192 * i) * SCALE] for i in range(3)]
    return [(column[:, 0] < 200).sum() / SCALE for column in columns]


def test_the_bars_are_as_long_as_the_numbers():
    state = HeadState(channels=10, height=2, width=2)
    flatten, gap, conv = run_heads(state).values()
    assert bar_lengths(state, 0) == pytest.approx([180, 180 * 110 / 410, 180 * 110 / 410], abs=0.5)
    costs = [run.multiply_adds for run in (flatten, gap, conv)]
    assert bar_lengths(state, 1) == pytest.approx(
        [180 * cost / max(costs) for cost in costs], abs=0.5
    )
    assert bar_lengths(HeadState(channels=32, built_for=(64, 7, 7)), 1) == [0, 0, 0]


def test_the_broken_layer_is_outlined():
    def outlined(state):
        page = pixels(state)
        tops = [(28 + 54 * step) * SCALE + 1 for step in range(3)]
        lefts = [(4 + 192 * head + 20) * SCALE for head in range(3)]
        return [
            (head, step)
            for head, left in enumerate(lefts)
            for step, top in enumerate(tops)
            if page[top, left].tolist() == list(VERMILLION)
        ]

    assert outlined(HeadState()) == []
    assert outlined(HeadState(height=9, built_for=(64, 7, 7))) == [(0, 2)]
    assert outlined(HeadState(channels=9, built_for=(64, 7, 7))) == [(0, 2), (1, 2), (2, 1)]


def test_the_picture_says_its_numbers():
    assert head_picture(HeadState(channels=32, height=9, built_for=(64, 9, 7))).text == (
        "Features (1, 32, 9, 7), 8,064 bytes, 10 classes. Heads built for C, H, W = (64, 9, 7). "
        "Flatten, then linear: flatten (1, 2016), linear does not fit, 40,330 parameters, "
        "no multiply-adds, no activation bytes. "
        "GAP, then linear: GAP (1, 32), linear does not fit, 650 parameters, "
        "no multiply-adds, no activation bytes. "
        "1×1 convolution, then GAP: 1x1 convolution does not fit, GAP is not reached, "
        "650 parameters, no multiply-adds, no activation bytes. "
        "Flatten, then linear, breaks: its weights are for 64 × 9 × 7 = 4,032 numbers, "
        "32 × 9 × 7 = 2,016 arrive. "
        "GAP, then linear, breaks: its weights are for 64 channels, 32 arrive. "
        "The 1×1 convolution breaks: its weights are for 64 channels, 32 arrive."
    )
    assert "linear (1, 10), 31,370 parameters, 31,360 multiply-adds, 40 activation bytes." in (
        head_picture(HeadState()).text
    )


def test_all_pictures_have_one_size_and_one_state_gives_the_same_bytes():
    largest = HeadState(256, 8192, 224, 224, 21_843)
    assert pixels(HeadState(1, 1, 1, 1, 2)).shape == pixels(largest).shape
    before = head_picture(largest).png
    run_heads.cache_clear()
    assert head_picture(largest).png == before


@pytest.fixture
def lab():
    return HeadLab()


def test_the_sliders(lab):
    for label, number in zip(SLIDERS, (2, 128, 8, 9, 5), strict=True):
        control(lab, label).value = number
    assert lab.value == HeadState(2, 128, 8, 9, 5)
    assert "linear (2, 5), 46,085 parameters" in words(lab)
    assert lab.picture().html()[-100:] in words(lab)


def test_heads_that_are_kept(lab):
    heads = control(lab, "Heads")
    heads.value = True
    assert lab.value == HeadState(built_for=(64, 7, 7))
    assert "Their weights are for 64 × 7 × 7 (C × H × W)." in words(lab)
    control(lab, "Height H").value = 8
    assert lab.value.built_for == (64, 7, 7)
    assert "Flatten, then linear, breaks" in words(lab)
    assert "GAP, then linear, breaks" not in words(lab)
    heads.value = False
    assert lab.value == HeadState(height=8)
    assert "breaks" not in words(lab)
    assert "Their weights follow the features." in words(lab)
    control(lab, "Start again").click()
    assert lab.value == HeadState()
    assert control(lab, "Height H").value == 7


def test_the_lab_is_driven_from_code(lab):
    lab.set(height=5, built_for=(64, 7, 7))
    assert control(lab, "Height H").value == 5
    assert control(lab, "Heads").value is True
    before = lab.value
    with pytest.raises(ValueError, match="width to be an integer from 1 to 224, got 999"):
        lab.set(width=999)
    with pytest.raises(ValueError, match="expected a HeadState, got tuple"):
        lab.value = (1, 64, 7, 7)
    assert lab.value == before


def test_what_a_notebook_stores():
    lab = HeadLab(height=8, built_for=(64, 7, 7))
    data, _ = lab._repr_mimebundle_()
    assert data["text/plain"] == (
        "HeadLab(1x64x8x7, 10 classes: 31,370 / 650 / 650 parameters, 1 of 3 broken)"
    )
    assert data["image/png"] == lab.picture()._repr_mimebundle_()[0]["image/png"]


def test_every_control_has_a_label(lab):
    inputs = (ipywidgets.IntSlider, ipywidgets.ToggleButtons, ipywidgets.Button)
    found = [w.description for w in walk(lab.box) if isinstance(w, inputs)]
    assert found == [*SLIDERS, "Heads", "Start again"]
