"""The checks of lessons 06 and 07 that ask for a name, an example or a letter."""

from contextlib import suppress

import pytest
import torch

from gap_utils import checks

NOT_ATTEMPTED = "not attempted yet"
ASKING = [  # for something, without arguments
    checks.check_halving_layer,
    checks.check_max_counterexample,
    checks.check_cam_families,
]
FAMILIES = {"our gap network": "A", "ResNet": "B", "NiN": "C", "SqueezeNet": "C", "VGG": "D"}


def raise_not_implemented(*arguments):
    raise NotImplementedError


@pytest.mark.parametrize("check", ASKING)
def test_no_answer_is_no_mistake_and_no_function_is_one(check):
    assert repr(check(raise_not_implemented)) == NOT_ATTEMPTED
    feedback = check("layer4.0.conv1")
    assert not feedback.passed
    assert "needs your function itself, got a str" in feedback.message
    assert "raised ZeroDivisionError" in check(lambda *a: 1 / 0).message


@pytest.mark.parametrize("check", ASKING)
@pytest.mark.parametrize("value", [0, "", "Z", [], {}, [[]], {"VGG": 1}, float("nan"), object()])
def test_whatever_comes_back_gets_a_sentence(check, value):
    feedback = check(lambda: value)
    assert not feedback.passed
    assert feedback.message.startswith("✗ Expected ")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("layer4.0.conv1", "✓ Right: layer4.0.conv1 is a convolution with stride 2"),
        ("layer4.0.downsample.0", "✓ Right: layer4.0.downsample.0 is"),
        ("layer3.0.conv1", "layer3.0.conv1 takes maps of 28×28 and gives 14×14"),
        ("layer4.1.conv1", "layer4.1.conv1 takes maps of 7×7 and gives 7×7"),
        ("layer4", "Yes, but layer4 has layers inside, such as layer4.0. Which one?"),
        ("layer4.0.downsample", "Yes, but layer4.0.downsample has layers inside"),
        ("avgpool", "avgpool takes maps of 7×7 and gives 1×1"),
        ("fc", "fc takes maps of a row of numbers and gives a row of numbers"),
        ("layer4.0.conv", "Expected the name of one layer"),
    ],
)
def test_the_layer_that_halves(name, said):
    feedback = checks.check_halving_layer(lambda: name)
    assert said in feedback.message
    assert feedback.passed == said.startswith("✓")


def test_naming_a_layer_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    checks.check_halving_layer(lambda: "fc")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (([[[1, 0]], [[0, 1]]], [1, 1]), "✓ Right: the largest number of the weighted map is 1, "),
        ((torch.tensor([[[1.0, 2.0]]]), [-1]), "weighted maxima give -2. With max the order"),
        (([torch.eye(2), 1 - torch.eye(2)], torch.ones(2)), "maxima give 2. With max the order"),
        (
            ([[[1, 0]]], [-1]),
            "of the weighted map is 0, the weighted maxima give -1. With max the o",
        ),
        (([[[1, 0]], [[0, 1e-9]]], [1, 1]), "map is 1, the weighted maxima give 1.000000001. With"),
        (([[[0.1, 0.1], [0.3, 0]], [[0.2, 0], [0, 0]]], [1, 1]), "give 0.5. With max the order"),
        # 0.1 + 0.2 is 0.30000000000000004
        (([[[0.1, 0]], [[0.2, 0]], [[-0.3, -9]]], [1, 1, 1]), "✗ Here the largest number of the"),
        (([[[1, 0]], [[2, 0]]], [1, 1]), "✗ Here the largest number of the weighted map is 3, "),
        (([[[1, 0]]], [0]), "weighted maxima give 0 too."),
        (([[[1, 0]], [[0, 1]]], [1]), "Expected maps (C, H, W) and a weight for each"),
        (([[1, 0], [0, 1]], [1, 1]), "Expected maps (C, H, W)"),
        (([[[1.0, float("nan")]]], [1]), "Expected numbers that are finite"),
        (([[[1e308, 0]], [[0, 1e308]]], [10, 10]), "Expected numbers of ordinary size"),
        (([[[10**400, 0]]], [1]), "Expected maps (C, H, W)"),
        ([[[1, 0]], [[0, 1]]], "Expected maps (C, H, W)"),
    ],
)
def test_an_example_against_the_maximum(example, said):
    feedback = checks.check_max_counterexample(lambda: example)
    assert said in feedback.message
    assert feedback.passed == ("With max the order" in feedback.message)


def test_the_families_of_networks():
    assert checks.check_cam_families(lambda: FAMILIES).passed
    assert checks.check_cam_families(lambda: {k: v.lower() for k, v in FAMILIES.items()}).passed
    for name, letter in FAMILIES.items():
        for other in set("ABCD") - {letter}:
            feedback = checks.check_cam_families(lambda n=name, o=other: FAMILIES | {n: o})
            assert not feedback.passed
            assert f"{name} is not {other}: " in feedback.message
            assert feedback.message.count(" is not ") == 1
    assert "Expected the letters A, B, C, D" in (
        checks.check_cam_families(lambda: FAMILIES | {"VGG": "E"}).message
    )


def keep_with_hook(model, layer, images):
    kept = []
    handle = layer.register_forward_hook(lambda _, inputs, output: kept.append(output.clone()))
    model(images)
    handle.remove()
    return kept[0]


def never_remove(model, layer, images):
    kept = []
    layer.register_forward_hook(lambda _, inputs, output: kept.append(output.clone()))
    model(images)
    return kept[0]


def clear_all(model, layer, images):
    kept = []
    layer.register_forward_hook(lambda _, inputs, output: kept.append(output.clone()))
    try:
        model(images)
    finally:
        layer._forward_hooks.clear()
    return kept[0]


def test_hooks_that_stay_or_go_are_found():
    feedback = checks.check_maps_of(never_remove)
    assert not feedback.passed
    assert "changed its input: your hook stays. Call handle.remove()" in feedback.message
    feedback = checks.check_maps_of(keep_with_hook)
    assert not feedback.passed
    assert "Where the network raises an error, your hook stays. Call handle" in feedback.message
    feedback = checks.check_maps_of(clear_all)
    assert not feedback.passed
    assert "a hook is gone that was not yours" in feedback.message


def test_a_hook_that_returns_its_copy_is_not_told_to_copy_alone():
    def return_the_copy(model, layer, images):
        kept = []

        def hook(layer, inputs, output):
            kept.append(output.clone())
            return kept[0]

        handle = layer.register_forward_hook(hook)
        model(images)
        handle.remove()
        return kept[0]

    message = checks.check_maps_of(return_the_copy).message
    assert "let the hook return nothing: what a hook returns goes on to the ReLU" in message


def test_the_layer_that_was_asked_for_is_the_one_that_counts():
    feedback = checks.check_maps_of(lambda m, layer, x: keep_with_hook(m, m.conv, x))
    assert "Here another layer was asked for than conv" in feedback.message


def swallow_the_error(model, layer, images):
    kept = []
    handle = layer.register_forward_hook(lambda _, inputs, output: kept.append(output.clone()))
    with suppress(Exception):
        model(images)
    handle.remove()
    return kept[0] if kept else None


def wrap_the_layer(model, layer, images):
    kept, forward = [], layer.forward
    layer.forward = lambda x: (kept.append(forward(x).clone()), forward(x))[1]
    model(images)
    return kept[0]


def test_a_changed_layer_is_found():
    assert "a layer has another forward" in checks.check_maps_of(wrap_the_layer).message


def test_an_error_of_the_network_must_come_out():
    feedback = checks.check_maps_of(swallow_the_error)
    assert not feedback.passed
    assert "does not let it out. Use finally: and no except:" in feedback.message
