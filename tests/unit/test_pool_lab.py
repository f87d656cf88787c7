from io import BytesIO

import ipywidgets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gap_utils.pictures import SCALE
from gap_utils.widgets import PoolLab
from gap_utils.widgets.pool_lab import (
    NUMBERS,
    PoolState,
    arithmetic,
    describe_globals,
    describe_window,
    nearest_state,
    pool_picture,
    pool_step,
)
from lab_controls import control, walk, words


@st.composite
def states(draw):
    size = draw(st.integers(2, 8))
    numbers = st.integers(-999, 999) | st.floats(-999, 999)
    values = draw(
        st.lists(st.lists(numbers, min_size=size, max_size=size), min_size=size, max_size=size)
    )
    kernel = draw(st.integers(1, size))
    state = PoolState(
        values,
        mode=draw(st.sampled_from(["max", "avg", "min"])),
        kernel_size=kernel,
        stride=draw(st.integers(1, size)),
        padding=draw(st.integers(0, kernel // 2)),
    )
    return nearest_state(state, window=draw(st.integers(1, len(state.windows) ** 2)))


def torch_pool(state):
    x = torch.tensor(state.values, dtype=torch.float64)[None]
    settings_ = state.kernel_size, state.stride, state.padding
    if state.mode == "avg":
        return F.avg_pool2d(x, *settings_)[0]
    sign = -1 if state.mode == "min" else 1
    return sign * F.max_pool2d(sign * x, *settings_)[0]


@settings(max_examples=200, deadline=None)
@given(states())
def test_a_step_says_what_pytorch_says(state):
    step = pool_step(state)
    expected = torch_pool(state)
    np.testing.assert_allclose(step.output, expected, rtol=1e-9, atol=1e-9)
    assert step.result == pytest.approx(expected.flatten()[state.window - 1].item())
    combine = {"avg": np.mean, "max": np.max, "min": np.min}[state.mode]
    assert step.result == pytest.approx(combine(step.terms), abs=1e-9)
    values = np.array(state.values)
    assert step.average == pytest.approx(values.mean())
    assert (step.maximum, step.minimum) == (values.max(), values.min())


def test_the_written_arithmetic():
    step = pool_step(PoolState(mode="avg"))
    assert arithmetic("avg", step.terms, step.result) == "(2 + 2 + 9 + 4) / 4 = 4.25"
    step = pool_step(PoolState(window=4))
    assert arithmetic("max", step.terms, step.result) == "max(2, 4, 2, 6) = 6"
    assert arithmetic("min", [2, 0.5], 0.5) == "min(2, 0.5) = 0.5"
    assert arithmetic("avg", [-1, 2, 0], 1 / 3) == "((-1) + 2 + 0) / 3 ≈ 0.3333"


def test_padding_is_zero_for_the_average_and_nothing_for_the_others():
    corner = {"kernel_size": 3, "stride": 1, "padding": 1}
    average, largest = PoolState(mode="avg", **corner), PoolState(mode="max", **corner)
    assert pool_step(average).terms == (0, 0, 0, 0, 2, 2, 0, 9, 4)
    assert pool_step(average).result == pytest.approx(17 / 9)
    assert pool_step(largest).terms == (2, 2, 9, 4)
    assert describe_window(average, pool_step(average)) == (
        "Window 1 of 16: rows -1 to 1, columns -1 to 1 (5 of 9 are padding)"
    )


def test_the_global_numbers():
    assert describe_globals(pool_step(PoolState())) == "Whole map: average 4.0625, max 9, min 1"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"values": [[1, 2, 3], [4, 5, 6]]}, r"square map from 2×2 to 8×8, got shape \(2, 3\)"),
        ({"values": [[1]]}, r"got shape \(1, 1\)"),
        ({"values": np.zeros((9, 9))}, r"got shape \(9, 9\)"),
        ({"values": [[1, 2], [3]]}, "expected rows of numbers"),
        ({"values": [[1, 2], [3, float("nan")]]}, "numbers from -999 to 999"),
        ({"values": [[1, 2], [3, 10**400]]}, "expected rows of numbers"),
        ({"padding": -1}, "padding to be an integer from 0 on, got -1"),
        ({"values": [[1, 2], [3, 1000]]}, "numbers from -999 to 999"),
        ({"window": 2.0}, r"window to be an integer from 1 to 4, got 2\.0"),
        ({"kernel_size": "2"}, "kernel_size to be an integer from 1 to 4, got '2'"),
        ({"stride": None}, "stride to be an integer from 1 to 4, got None"),
        ({"values": torch.zeros(4, 4, requires_grad=True)}, "expected rows of numbers"),
        ({"mode": "sum"}, '"max", "avg" or "min", got \'sum\''),
        ({"kernel_size": 5}, "kernel_size to be an integer from 1 to 4, got 5"),
        ({"stride": 0}, "stride to be an integer from 1 to 4, got 0"),
        ({"padding": 2}, "at most half the kernel size, 1, got 2"),
        ({"window": 5}, "window to be an integer from 1 to 4, got 5"),
    ],
)
def test_impossible_states_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        PoolState(**fields)


@settings(max_examples=200, deadline=None)
@given(
    states(),
    st.integers(2, 8),
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(0, 4),
    st.integers(1, 100),
)
def test_any_wish_leads_to_a_possible_state(state, size, kernel_size, stride, padding, window):
    values = [row[:size] for row in NUMBERS[:size]]
    found = nearest_state(
        state,
        values=values,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        window=window,
    )
    assert found.size == size
    assert found.kernel_size == min(kernel_size, size)
    assert found.stride == min(stride, size)
    assert found.padding == min(padding, found.kernel_size // 2)
    assert found.window == min(window, len(found.windows) ** 2)


def test_the_picture_is_a_function_of_the_state():
    state = PoolState(mode="avg", window=3)
    picture = pool_picture(state)
    assert picture == pool_picture(PoolState(mode="avg", window=3))
    assert picture.png != pool_picture(PoolState(mode="avg", window=4)).png
    assert picture.text == (
        "Map 2 2 7 3 / 9 4 6 1 / 8 5 2 4 / 3 1 2 6. "
        "Window 3 of 4: rows 2 to 3, columns 0 to 1. (8 + 5 + 3 + 1) / 4 = 4.25. "
        "Output so far 4.25 4.25 / 4.25 ?. Whole map: average 4.0625, max 9, min 1."
    )


def test_all_pictures_have_one_size_so_that_nothing_jumps():
    sizes = set()
    for size in range(2, 9):
        values = [row[:size] for row in NUMBERS[:size]]
        for kernel in (1, size):
            state = PoolState(values, kernel_size=kernel, stride=1, padding=kernel // 2)
            sizes.add(Image.open(BytesIO(pool_picture(state).png)).size)
    assert sizes == {(560 * SCALE, 310 * SCALE)}


@pytest.fixture
def lab():
    return PoolLab()


def test_the_window_slider_steps(lab):
    control(lab, "Window").value = 2
    assert lab.value == PoolState(window=2)
    assert "max(7, 3, 6, 1) = 7" in words(lab)
    assert lab.picture().html()[-100:] in words(lab)


def test_a_number_can_be_changed(lab):
    control(lab, "row 1, column 0").value = 25
    assert lab.value.values[1][0] == 25
    assert "Whole map: average 5.0625, max 25, min 1" in words(lab)
    control(lab, "row 1, column 0").value = 1e6
    assert lab.value.values[1][0] == 999


def test_the_buttons(lab):
    control(lab, "Roll one column").click()
    assert lab.value.values[0] == (3, 2, 2, 7)
    assert "average 4.0625, max 9, min 1" in words(lab)
    control(lab, "Shuffle").click()
    assert sorted(np.ravel(lab.value.values)) == sorted(np.ravel(PoolState().values))
    assert lab.value.values[0] != (3, 2, 2, 7)
    assert "average 4.0625, max 9, min 1" in words(lab)
    control(lab, "Pooling").value = "avg"
    control(lab, "Global: kernel = whole map").click()
    assert (lab.value.kernel_size, lab.value.padding, len(lab.value.windows)) == (4, 0, 1)
    assert "/ 16 = 4.0625" in words(lab)
    control(lab, "Start again").click()
    assert lab.value == PoolState()


def test_a_larger_map_keeps_its_numbers_and_a_smaller_one_its_corner(lab):
    control(lab, "row 0, column 0").value = 7
    control(lab, "Map size").value = 8
    assert lab.value.values[0][:4] == (7, 2, 7, 3)
    assert lab.value.values[7] == NUMBERS[7]
    assert len([w for w in walk(lab.box) if isinstance(w, ipywidgets.BoundedFloatText)]) == 64
    control(lab, "Map size").value = 3
    assert lab.value.values == ((7, 2, 7), (9, 4, 6), (8, 5, 2))
    assert len([w for w in walk(lab.box) if isinstance(w, ipywidgets.BoundedFloatText)]) == 9


def test_impossible_settings_are_not_offered_and_what_moves_is_said(lab):
    assert control(lab, "Kernel").max == 4
    assert control(lab, "Padding").max == 1
    control(lab, "Kernel").value = 4
    assert control(lab, "Padding").max == 2
    control(lab, "Padding").value = 2
    assert "is now" not in words(lab)
    control(lab, "Map size").value = 2
    assert (control(lab, "Kernel").max, control(lab, "Kernel").value) == (2, 2)
    assert "kernel is now 2, padding is now 1: the kernel fits the map" in words(lab)
    control(lab, "Kernel").value = 1
    assert control(lab, "Padding").max == 0
    assert lab.value.padding == 0
    assert "padding is now 0" in words(lab)
    lab.set(kernel_size=2)
    assert "is now" not in words(lab)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_no_sequence_of_moves_breaks_the_lab(data):
    lab = PoolLab()
    names = ["Map size", "Kernel", "Stride", "Padding", "Window"]
    buttons = ["Roll one column", "Shuffle", "Start again", "Global: kernel = whole map"]
    for _ in range(data.draw(st.integers(1, 8))):
        name = data.draw(st.sampled_from([*names, *buttons, "Pooling"]))
        widget = control(lab, name)
        if name in buttons:
            widget.click()
        elif name == "Pooling":
            widget.value = data.draw(st.sampled_from(["max", "avg", "min"]))
        else:
            widget.value = data.draw(st.integers(widget.min, widget.max))
        state = lab.value
        shown = [control(lab, n).value for n in names]
        assert shown == [state.size, state.kernel_size, state.stride, state.padding, state.window]
        assert np.isclose(pool_step(state).output, torch_pool(state)).all()


def test_the_lab_is_driven_from_code(lab):
    lab.set(mode="avg", kernel_size=3, stride=1, window=4)
    assert control(lab, "Kernel").value == 3
    assert control(lab, "Window").value == 4
    assert control(lab, "Pooling").value == "avg"
    before = lab.value
    with pytest.raises(ValueError, match="kernel_size to be an integer from 1 to 4, got 5"):
        lab.set(kernel_size=5)
    with pytest.raises(ValueError, match="expected a PoolState, got dict"):
        lab.value = {}
    assert lab.value == before
    with pytest.raises(ValueError, match="square map"):
        PoolLab([[1, 2, 3]])


def test_what_a_notebook_stores():
    lab = PoolLab(mode="min", window=2)
    data, _ = lab._repr_mimebundle_()
    assert data["text/plain"] == (
        "PoolLab(4x4, min, kernel 2, stride 2, padding 0, window 2 of 4: min(7, 3, 6, 1) = 1)"
    )
    assert data["image/png"] == lab.picture()._repr_mimebundle_()[0]["image/png"]
    view = data["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == lab.box.model_id


def test_every_control_has_a_label(lab):
    lab.set(values=NUMBERS)
    inputs = (ipywidgets.IntSlider, ipywidgets.BoundedFloatText, ipywidgets.Button)
    found = [w.description for w in walk(lab.box) if isinstance(w, inputs)]
    assert len(found) == len(set(found)) == 5 + 64 + 4
    assert all(found)
