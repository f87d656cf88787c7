import json
import re
from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from frames import check_letters, elements, move, press, texts
from gap_utils.widgets import HeadLab
from gap_utils.widgets.head_lab import (
    BOXES,
    LIMITS,
    WIDTH,
    HeadState,
    _run_heads,
    build_heads,
    describe_heads,
    draw_heads,
    explain,
    run_heads,
)

FLATTEN, GAP, CONV = "Flatten, then linear", "GAP, then linear", "1×1 convolution, then GAP"

numbers = {name: st.integers(*limits) for name, limits in LIMITS.items()}
sizes = st.tuples(*(numbers[name] for name in ("channels", "height", "width")))
states = st.builds(
    HeadState, **numbers, built_for=st.none() | sizes, explained=st.sampled_from(BOXES)
)


@settings(max_examples=100)
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
        ({"explained": "conv"}, "explained to be one of features, flatten, .*, got 'conv'"),
    ],
)
def test_impossible_states_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        HeadState(**fields)


def test_numbers_of_numpy_and_lists_are_taken():
    state = HeadState(np.int64(2), built_for=[64, 7, np.int8(7)])
    assert state == HeadState(2, built_for=(64, 7, 7))
    assert hash(state) == hash(HeadState(2, built_for=(64, 7, 7)))


def in_words(state):
    return "".join(words for words, _ in explain(state))


@settings(max_examples=100)
@given(states)
def test_the_sums_are_true_and_add_up_to_what_the_layers_cost(state):
    runs = [*run_heads(state).values()]
    found = [{"parameters": 0, "multiply-adds": 0, "bytes": 0} for _ in runs]
    for place, name in enumerate(BOXES):
        words = in_words(replace(state, explained=name)).replace(",", "")
        words = re.sub(" weights| biases", "", words)
        sums = re.findall(r"([0-9]+(?: [×+] [0-9]+)*) = ([0-9]+)(?: ([a-z-]+))?", words)
        assert len(sums) == words.count("=")
        for sum_, result, what in sums:
            assert eval(sum_.replace("×", "*")) == int(result)
            if place and what in found[0]:
                found[(place - 1) // 2][what] += int(result)
    for run, costs in zip(runs, found, strict=True):
        assert costs["parameters"] == run.parameters
        if not run.broken:
            assert (costs["multiply-adds"], costs["bytes"]) == (run.multiply_adds, run.new_bytes)


KEPT = {"built_for": (64, 7, 7)}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {},
            "linear after flatten: 3,136 × 10 weights + 10 biases = 31,370 parameters; "
            "3,136 × 10 = 31,360 multiply-adds; 10 × 4 = 40 bytes",
        ),
        (
            {"explained": "features", "batch": 2},
            "features: 2 × 64 × 7 × 7 = 6,272 numbers; 6,272 × 4 = 25,088 bytes",
        ),
        (
            {"explained": "flatten"},
            "flatten: 64 × 7 × 7 = 3,136 numbers in a row, no weights, nothing new",
        ),
        (
            {"explained": "flatten", "batch": 2},
            "flatten: 64 × 7 × 7 = 3,136 numbers in a row, for each of 2 pictures, no weights, "
            "nothing new",
        ),
        (
            {"explained": "GAP", "batch": 2},
            "GAP: 2 × 64 means, each over 7 × 7 = 49 positions, no weights; "
            "2 × 64 × 7 × 7 = 6,272 multiply-adds; 2 × 64 × 4 = 512 bytes",
        ),
        (
            {"explained": "1x1 convolution"},
            "1×1 convolution: 64 × 10 weights + 10 biases = 650 parameters; "
            "7 × 7 × 64 × 10 = 31,360 multiply-adds; 10 × 7 × 7 × 4 = 1,960 bytes",
        ),
        (
            {"height": 9, **KEPT},
            "linear after flatten: made for 3,136 numbers, 4,032 arrive; "
            "3,136 × 10 weights + 10 biases = 31,370 parameters",
        ),
        (
            {"explained": "linear after GAP", "channels": 32, **KEPT},
            "linear after GAP: made for 64 channels, 32 arrive; "
            "64 × 10 weights + 10 biases = 650 parameters",
        ),
        (
            {"explained": "GAP after 1x1 convolution", "channels": 32, **KEPT},
            "GAP after 1×1 convolution: nothing arrives, since the 1×1 convolution does not fit",
        ),
    ],
)
def test_where_the_numbers_come_from(fields, words):
    frame = draw_heads(HeadState(**fields))
    assert frame.large == in_words(HeadState(**fields)) == words
    assert frame.text.endswith(f" {words[0].upper()}{words[1:]}.")


def test_a_click_on_a_box_explains_it():
    lab = HeadLab()
    touched = [box for panel in lab.frame.panels for box in elements(panel, "rect")]
    touched = [box for box in touched if box.get("data-set")]
    assert len(touched) == 9
    for place, found in zip([0, 1, 2, 0, 3, 4, 0, 5, 6], touched, strict=True):
        move(lab, **json.loads(found.get("data-set")))
        assert lab.value == HeadState(explained=BOXES[place])
        frames = [box for panel in lab.frame.panels for box in elements(panel, "rect")]
        frames = [box for box in frames if box.get("class") == "gap-frame"]
        assert len(frames) == (3 if place == 0 else 1)  # the features are in each panel
        assert float(frames[0].get("y")) == float(found.get("y")) - 2.5


def lights_up(state):
    """What lights up with each box and each cost: names of boxes, (head, cost), and pieces."""
    frame, named = draw_heads(state), []
    for head, panel in enumerate(frame.panels):
        linked = [found for found in elements(panel, "rect") if found.get("data-link")]
        boxes = iter([BOXES[0], *BOXES[2 * head + 1 : 2 * head + 3]])
        costs = iter([(head, "parameters"), (head, "multiply-adds"), (head, "bytes")])
        for found in linked:
            name = next(boxes if found.get("data-set") else costs)
            named.append((name, {*found.get("data-link").split()}))
    named += [(words, {link}) for words, link in frame.pieces if link]
    return lambda one: [name for name, links in named if links & dict(named)[one] and name != one]


def test_a_box_lights_up_its_costs_and_its_sums():
    lit = lights_up(HeadState(explained="GAP"))
    means, sum_, bytes_ = (
        "64 means, each over 7 × 7 = 49 positions, no weights",
        "64 × 7 × 7 = 3,136 multiply-adds",
        "64 × 4 = 256 bytes",
    )
    assert lit("GAP") == [(1, "multiply-adds"), (1, "bytes"), means, sum_, bytes_]
    assert lit("linear after GAP") == [(1, "parameters"), (1, "multiply-adds"), (1, "bytes")]
    assert lit((1, "multiply-adds")) == ["GAP", "linear after GAP", sum_]
    assert lit((1, "parameters")) == ["linear after GAP"]
    assert lit((0, "bytes")) == ["linear after flatten"]  # flatten itself costs nothing
    assert lit("flatten") == []
    assert lit(sum_) == ["GAP", (1, "multiply-adds")]


def widths(panel, class_):
    return [
        float(box.get("width")) for box in elements(panel, "rect") if box.get("class") == class_
    ]


@settings(max_examples=50)
@given(states)
def test_all_that_is_drawn_is_well_formed_and_fits(state):
    frame = draw_heads(state)
    _run_heads.cache_clear()
    again = draw_heads(state)
    for panel, same in zip(frame.panels, again.panels, strict=True):
        assert panel.svg == same.svg
        assert (panel.width, panel.height) == (WIDTH, 324)
        check_letters(panel)
    assert len(frame.words) < len(frame.room)
    assert len(frame.large) <= len(frame.room[0])
    assert sum(map(len, frame.words)) <= sum(map(len, frame.room[1:]))


def test_a_panel_shows_shapes_and_costs():
    frame = draw_heads(HeadState(channels=32, height=3, width=3))
    assert " | ".join(texts(frame.panels[2])) == (
        "1×1 convolution, | then GAP | features, 1,152 bytes | (1, 32, 3, 3) | "
        "1×1 convolution | (1, 10, 3, 3) | GAP | (1, 10) | "
        "parameters | 330 | multiply-adds | 2,970 | activation bytes | 400"
    )
    largest = draw_heads(HeadState(256, 8192, 224, 224, 21_843))
    assert texts(largest.panels[0])[2] == "features, 4.209e11 bytes"
    assert texts(largest.panels[1])[-5::2] == ["178,959,699", "1.51e11", "3.076e7"]


def test_the_bars_are_as_long_as_the_numbers():
    state = HeadState(channels=10, height=2, width=2)
    bars = [widths(panel, "gap-blue") for panel in draw_heads(state).panels]
    assert [bar[0] for bar in bars] == pytest.approx(
        [184, 184 * 110 / 410, 184 * 110 / 410], abs=0.01
    )
    costs = [run.multiply_adds for run in run_heads(state).values()]
    assert [bar[1] for bar in bars] == pytest.approx(
        [184 * n / max(costs) for n in costs], abs=0.01
    )
    panels = draw_heads(HeadState(channels=32, built_for=(64, 7, 7))).panels
    assert [widths(panel, "gap-blue")[1:] for panel in panels] == [[0, 0]] * 3
    assert texts(panels[0])[-3:] == ["–", "activation bytes", "–"]


def test_the_broken_layer_is_marked_in_words_and_by_its_edge():
    def steps(**fields):
        panels = draw_heads(HeadState(**fields)).panels
        return [
            [box.get("class") for box in elements(panel, "rect") if box.get("data-set")][1:]
            for panel in panels
        ]

    plain, weights, broken, unused = "gap-edge", "gap-square", "gap-mark", "gap-padding"
    assert steps() == [[plain, weights], [plain, weights], [weights, plain]]
    kept = {"built_for": (64, 7, 7)}
    assert steps(height=9, **kept) == [[plain, broken], [plain, weights], [weights, plain]]
    assert steps(channels=9, **kept) == [[plain, broken], [plain, broken], [broken, unused]]
    last = texts(draw_heads(HeadState(channels=9, **kept)).panels[2])
    assert last[4:8] == ["1×1 convolution", "does not fit", "GAP", "nothing arrives"]


def test_weights_that_meet_numbers_from_other_places_are_marked():
    kept = {"channels": 32, "built_for": (32, 6, 8)}
    marks = {}
    for height, width in [(6, 8), (8, 6), (8, 8)]:
        panels = draw_heads(HeadState(height=height, width=width, **kept)).panels
        boxes = [box for panel in panels for box in elements(panel, "rect")]
        dashed = [box.get("class") for box in boxes if box.get("stroke-dasharray")]
        words = [line for panel in panels for line in texts(panel) if "other places" in line]
        marks[height, width] = dashed, words
    assert marks[8, 6] == (["gap-mark"], ["linear ⚠ other places"])
    assert marks[6, 8] == marks[8, 8] == ([], [])


def test_the_text_says_the_numbers():
    assert draw_heads(HeadState(channels=32, height=9, built_for=(64, 9, 7))).text == (
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
        "The 1×1 convolution breaks: its weights are for 64 channels, 32 arrive. "
        "Linear after flatten: made for 4,032 numbers, 2,016 arrive; "
        "4,032 × 10 weights + 10 biases = 40,330 parameters."
    )
    assert "linear (1, 10), 31,370 parameters, 31,360 multiply-adds, 40 activation bytes." in (
        draw_heads(HeadState()).text
    )


@settings(max_examples=50)
@given(states)
def test_the_controls_lead_back_to_the_state(state):
    lab = HeadLab()
    assert lab.from_fields(json.loads(json.dumps(lab.to_fields(state)))) == state


def test_heads_that_are_kept():
    lab = HeadLab()
    follow = "The weights of the heads follow the features."
    assert f"parameters; 3,136 × 10 = 31,360 multiply-adds; 10 × 4 = 40 bytes\n{follow}\n" in (
        lab.describe() + "\n"
    )
    move(lab, kept=True)
    assert lab.value == HeadState(built_for=(64, 7, 7))
    move(lab, height=8)
    assert lab.value == HeadState(height=8, built_for=(64, 7, 7))
    assert lab.describe() == (
        "linear after flatten: made for 3,136 numbers, 3,584 arrive; "
        "3,136 × 10 weights + 10 biases = 31,370 parameters\n"
        "The weights of the heads are for 64 × 7 × 7 (C × H × W).\nFlatten, then linear, breaks: "
        "its weights are for 64 × 7 × 7 = 3,136 numbers, 64 × 8 × 7 = 3,584 arrive."
    )
    move(lab, kept=False)
    assert lab.value == HeadState(height=8)
    assert lab.frame.words[0] == follow
    press(lab, "reset")
    assert lab.value == HeadState()


def test_its_name():
    assert repr(HeadLab(height=8, built_for=(64, 7, 7))) == (
        "HeadLab(1x64x8x7, 10 classes: 31,370 / 650 / 650 parameters, 1 of 3 broken)"
    )


def test_the_controls():
    found = {control["label"]: control for control in HeadLab().opening()["controls"]}
    labels = ["Channels C", "Height H", "Width W", "Batch N", "Classes K", "Heads", "Explain"]
    assert list(found) == [*labels, "Start again"]
    assert [value for _, value in found["Explain"]["options"]] == [*BOXES]
    for control in [*found.values()][:5]:
        assert (control["low"], control["high"]) == LIMITS[control["name"]]
