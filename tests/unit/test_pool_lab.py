import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from frames import check_letters, control, elements, move, press, texts
from gap_utils.widgets import PoolLab
from gap_utils.widgets.pool_lab import (
    NUMBERS,
    SHADE,
    PoolState,
    arithmetic,
    describe_globals,
    describe_window,
    draw_pool,
    nearest_state,
    pool_step,
)

MARK = "gap-mark"


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


@settings(max_examples=200)
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


@settings(max_examples=200)
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


def test_a_frame_says_what_it_shows():
    frame = draw_pool(PoolState(mode="avg", window=3))
    assert frame.text == (
        "Map 2 2 7 3 / 9 4 6 1 / 8 5 2 4 / 3 1 2 6. "
        "Window 3 of 4: rows 2 to 3, columns 0 to 1. (8 + 5 + 3 + 1) / 4 = 4.25. "
        "Output so far 4.25 4.25 / 4.25 ?. Whole map: average 4.0625, max 9, min 1."
    )
    assert frame.large == "(8 + 5 + 3 + 1) / 4 = 4.25"
    assert frame.words == (
        "Whole map: average 4.0625, max 9, min 1",
        "Window 3 of 4: rows 2 to 3, columns 0 to 1",
    )
    map_, output = frame.panels
    assert texts(map_) == ["map 4 × 4", *"2273946185243126"]
    assert texts(output) == ["output 2 × 2", "4.25", "4.25", "4.25"]


def marked(panel):
    """Where the frame is, in squares: row and column of its corner, and its side."""
    mark = next(box for box in elements(panel, "rect") if box.get("class") == "gap-mark")
    square = next(box for box in elements(panel, "rect") if box.get("class") != "gap-mark")
    x, y, side = (float(mark.get(name)) for name in ("x", "y", "width"))
    left, top, cell = (float(square.get(name)) for name in ("x", "y", "width"))
    return round((y - top) / cell, 2), round((x - left) / cell, 2), round(side / cell, 2)


def test_the_window_is_marked_on_the_map_and_its_result_on_the_output():
    map_, output = draw_pool(PoolState(kernel_size=3, stride=1, padding=1, window=7)).panels
    assert marked(map_) == (1, 2, 3)  # counted with the padding
    assert marked(output) == (1, 2, 1)


def test_the_shade_of_a_square_is_its_number():
    map_, output = draw_pool(PoolState([[0, 2], [4, 8]], kernel_size=1, stride=1)).panels
    squares = [box for box in elements(map_, "rect") if box.get("class") == "gap-square"]
    shades = [float(box.get("fill-opacity")) for box in squares]
    assert shades == pytest.approx([SHADE * part for part in (0, 0.25, 0.5, 1)], abs=0.006)
    classes = [box.get("class") for box in elements(output, "rect")]
    assert classes == ["gap-square", *["gap-edge"] * 3, "gap-mark"]


@settings(max_examples=60)
@given(states())
def test_every_frame_is_drawn_alike_and_nothing_jumps(state):
    frame, again = draw_pool(state), draw_pool(state)
    for panel, same in zip(frame.panels, again.panels, strict=True):
        check_letters(panel)
        assert panel.svg == same.svg
        assert (panel.width, panel.height) == (276, 306)
    assert len(frame.large) <= len(frame.room[0]) + 2 * state.kernel_size**2


def touches(panel, name):
    """What the rectangles of a panel say of a way to touch them, with their places, in order."""
    found = [box for box in elements(panel, "rect") if box.get(name)]
    return [(box.get(name), float(box.get("x")), float(box.get("y"))) for box in found]


def test_a_square_of_the_output_leads_to_its_window_and_lights_it_up():
    state = PoolState(kernel_size=3, stride=1, padding=1, window=7)
    map_, output = draw_pool(state).panels
    squares = {json.loads(said)["window"]: place for said, *place in touches(output, "data-set")}
    assert [*squares] == [*range(1, 17)]
    for number in squares:
        frame = draw_pool(replace(state, window=number))
        (mark,) = (box for box in elements(frame.panels[1], "rect") if box.get("class") == MARK)
        assert [float(mark.get("x")), float(mark.get("y"))] == squares[number]
        (link,) = (
            one for one in elements(map_, "rect") if one.get("data-link") == f"window{number}"
        )
        (mark,) = (box for box in elements(frame.panels[0], "rect") if box.get("class") == MARK)
        for side in ("x", "y", "width", "height"):
            assert link.get(side) == mark.get(side)
    linked = [box.get("data-link") for box in elements(output, "rect")][:-1]
    assert linked == [f"window{number}" for number in squares]


@settings(max_examples=30)
@given(states())
def test_each_term_lights_up_the_square_that_its_number_is_in(state):
    frame, step = draw_pool(state), pool_step(state)
    terms = [(words, link) for words, link in frame.pieces if link]
    assert [float(words.strip("()")) for words, _ in terms] == pytest.approx(step.terms, abs=1e-4)
    squares = elements(frame.panels[0], "rect")
    typed = [box for box in squares if box.get("data-focus") == "values"]
    linked = {box.get("data-link"): box for box in squares}
    assert len(typed) == state.size**2  # row by row, without the padding
    for (_, link), (row, column) in zip(terms, step.positions, strict=True):
        if row in range(state.size) and column in range(state.size):
            assert linked[link] is typed[row * state.size + column]
        else:
            assert linked[link].get("data-focus") is None


def test_buttons_that_would_change_nothing_are_idle(lab):
    def idle():
        return {n for n, limit in lab.as_data(lab.value)[0]["limits"].items() if limit.get("idle")}

    assert idle() == {"reset"}
    press(lab, "global")
    assert idle() == {"global"}
    move(lab, values=[[1, 1], [2, 2]], size=2)
    assert idle() == {"global", "roll"}


@pytest.fixture
def lab():
    return PoolLab()


def test_a_number_can_be_changed(lab):
    values = [[*row[:4]] for row in NUMBERS[:4]]
    values[1][0] = 25
    move(lab, values=values)
    assert lab.describe().split("\n")[1] == "Whole map: average 5.0625, max 25, min 1"
    with pytest.raises(ValueError, match="numbers from -999 to 999"):
        move(lab, values=[[1000, 0], [0, 0]], size=2)


def test_the_buttons(lab):
    press(lab, "roll")
    assert lab.value.values[0] == (3, 2, 2, 7)
    press(lab, "shuffle")
    assert sorted(np.ravel(lab.value.values)) == sorted(np.ravel(PoolState().values))
    assert lab.value.values[0] != (3, 2, 2, 7)
    assert "average 4.0625, max 9, min 1" in lab.text
    move(lab, mode="avg", padding=1)
    press(lab, "global")
    assert (lab.value.kernel_size, lab.value.padding, len(lab.value.windows)) == (4, 0, 1)
    assert lab.frame.large.endswith("/ 16 = 4.0625")
    press(lab, "reset")
    assert lab.value == PoolState()


def test_a_larger_map_keeps_its_numbers_and_a_smaller_one_its_corner(lab):
    lab.set(values=[[7, *NUMBERS[0][1:4]], *(row[:4] for row in NUMBERS[1:4])])
    move(lab, size=8)
    assert lab.value.values[0][:4] == (7, 2, 7, 3)
    assert lab.value.values[7] == NUMBERS[7]
    move(lab, size=3)
    assert lab.value.values == ((7, 2, 7), (9, 4, 6), (8, 5, 2))


def test_impossible_settings_are_not_offered_and_what_moves_is_said(lab):
    def high():
        limits = lab.limits(lab.value).items()
        return {name: limit["high"] for name, limit in limits if "high" in limit}

    assert high() == {"kernel_size": 4, "stride": 4, "padding": 1, "window": 4}
    move(lab, kernel_size=4, padding=2)
    assert high()["padding"] == 2
    wanted = lab.to_fields(lab.value) | {"size": 2}
    state = lab.from_fields(wanted)
    assert (state.kernel_size, state.padding) == (2, 1)
    assert lab.note(wanted, state) == (
        "kernel is now 2, padding is now 1: the kernel fits the map, the padding is at most half "
        "the kernel."
    )
    assert lab.note(lab.to_fields(state), state) == ""


@settings(max_examples=30)
@given(st.data())
def test_no_sequence_of_moves_breaks_the_lab(data):
    lab = PoolLab()
    sliders = ["size", "kernel_size", "stride", "padding", "window"]
    buttons = ["roll", "shuffle", "global", "reset"]
    for _ in range(data.draw(st.integers(1, 8))):
        name = data.draw(st.sampled_from([*sliders, *buttons, "mode"]))
        if name in buttons:
            press(lab, name)
        elif name == "mode":
            move(lab, mode=data.draw(st.sampled_from(["max", "avg", "min"])))
        else:
            limits = control(lab, name) | lab.limits(lab.value).get(name, {})
            move(lab, **{name: data.draw(st.integers(limits["low"], limits["high"]))})
        state = lab.value
        assert lab.from_fields(lab.to_fields(state)) == state
        assert np.isclose(pool_step(state).output, torch_pool(state)).all()


def test_its_name():
    assert repr(PoolLab(mode="min", window=2)) == (
        "PoolLab(4x4, min, kernel 2, stride 2, padding 0, window 2 of 4: min(7, 3, 6, 1) = 1)"
    )
