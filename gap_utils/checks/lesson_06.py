"""The checks of lesson 06: keep a layer's maps, find a layer, say which map wins."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn

from gap_utils.activations import capture_activations
from gap_utils.checks.calling import AnswerError, Feedback, call_answer, change_of, exercise
from gap_utils.checks.grading import (
    features,
    grade,
    make_layer,
    random_features,
)


class Doubling(nn.Module):  # the feedback names it
    """A network that cannot be cut into slices, with a layer that works in place."""

    def __init__(self):
        super().__init__()
        self.conv = make_layer(nn.Conv2d, 1, 2, 1, numbers=(features([1, -1]), features([0, 0])))
        self.relu = nn.ReLU(inplace=True)
        for layer in (self.conv, self.relu):
            layer.register_forward_hook(lambda *_: None)  # somebody else's, which must stay

    def forward(self, images: Tensor) -> Tensor:
        """Double the images on the way to the first layer."""
        return self.relu(self.conv(2 * images)).mean((2, 3))


@exercise
def check_maps_of(answer: Callable) -> Feedback:
    """Check exercise 1: keep what a layer gives, with a hook that does not stay."""
    model = Doubling()
    images = features([[[[1, 2], [3, 4]]]])
    feedback = grade(
        answer,
        _maps_of,
        "a copy of the layer's maps, and no hook stays behind",
        lambda model, layer, images: layer(images),
        "You gave the pictures to the layer yourself. In the network it gets something else: here "
        "twice the pictures.",
        _inputs_of,
        "That is what goes into the layer. A hook gets the module, its inputs and its output, in "
        "this order.",
        lambda model, layer, images: model(images),
        "That is what the whole network gives.",
        lambda model, layer, images: _maps_of(model, model.conv, images),
        "Here another layer was asked for than conv. Put the hook on `layer`.",
        lambda model, layer, images: _maps_of(model, layer, images).relu(),
        "The negative numbers are gone: the ReLU behind this layer works in place, and has changed "
        "the tensor that you kept. Keep a copy, output.clone(), and let the hook return nothing: "
        "what a hook returns goes on to the ReLU in place of the output.",
        lambda model, layer, images: (_maps_of(model, layer, images),),
        "The maps are inside a tuple or list. Return the tensor itself.",
        cases=[
            (model, model.conv, images),
            (model, model.conv, random_features(3, 1, 5, 4)),
            (model, model.relu, random_features(3, 1, 4, 5)),
        ],
    )
    before, error = deepcopy(model), None
    try:
        answer(model, model.conv, torch.cat([images, images], 1))  # one channel too many
    except Exception as raised:  # the network's own, if the answer lets it through
        error = raised
    if change_of(before, model):
        raise AnswerError(
            f"Where the network raises an error, {change_of(before, model)}. Run the network "
            "after try: and put handle.remove() after finally:."
        )
    if not isinstance(error, RuntimeError):
        raise AnswerError(
            "Where the network raises an error, your function does not let it out. Use finally: "
            "and no except:."
        )
    return feedback


def _inputs_of(model: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    kept = []
    handle = layer.register_forward_hook(lambda _, inputs, output: kept.append(inputs[0]))
    model(images)
    handle.remove()
    return kept[0]


def _maps_of(model: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    with capture_activations(model, [layer]) as maps:
        model(images)
    return next(iter(maps.values()))


@exercise
def check_halving_layer(answer: Callable) -> Feedback:
    """Check exercise 2: the layer of ResNet-18 that makes 7×7 out of 14×14."""
    name = call_answer(answer)
    sizes = _resnet_sizes()
    if not isinstance(name, str) or name not in sizes:
        raise AnswerError(
            "Expected the name of one layer as a string, such as 'layer1.0.conv1', got "
            f'{name!r}. capture_activations(resnet, "*") gives all names.'
        )
    taken, given = sizes[name]
    if (taken, given) != ("14×14", "7×7"):
        raise AnswerError(
            f"{name} takes maps of {taken} and gives {given}. Look for the layer "
            "whose maps are 7×7 while those of the layer before are still 14×14."
        )
    inside = [other for other in sizes if other.startswith(f"{name}.")]
    if inside:
        one = min(inside, key=len)
        raise AnswerError(f"Yes, but {name} has layers inside, such as {one}. Which one?")
    right = f"✓ Right: {name} is a convolution with stride 2, so 14×14 becomes 7×7."
    if name == "layer4.0.conv1":
        right += " The other branch of the block has downsample.0 for the same."
    return Feedback(True, right)


def _resnet_sizes() -> dict[str, tuple[str, str]]:
    """Name of each layer of ResNet-18 -> the size of the maps it takes, and gives, at 224."""
    from torchvision.models import resnet18  # takes a second

    sizes = {}

    def note(name: str, _layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        sides = inputs[0].shape[2:], output.shape[2:]
        sizes[name] = tuple("×".join(map(str, size)) or "a row of numbers" for size in sides)

    with torch.device("meta"):  # sizes without numbers
        model = resnet18().eval()
        for name, layer in model.named_modules():
            layer.register_forward_hook(partial(note, name))
        model(torch.zeros(1, 3, 224, 224))
    del sizes[""]  # the network itself
    return sizes


@exercise
def check_winning_maps(answer: Callable) -> Feedback:
    """Check exercise 3: which map wins under GAP, and which under GMP."""

    def both(maps: Tensor) -> Tensor:  # (N, C, H, W) -> (2, N, C)
        return torch.stack([maps.mean((2, 3)), maps.amax((2, 3))])

    bright, even = [[1, 7], [0, 1]], [[3, 2], [4, 3]]
    return grade(
        answer,
        lambda maps: both(maps).argmax(2),
        "GAP takes the map with the largest mean, GMP the one with the largest number",
        lambda maps: both(maps).argmax(2).flip(0),
        "The rows are swapped: GAP's comes first.",
        lambda maps: both(maps).argmax(2)[:1].expand(2, -1),
        "Both rows hold the map with the largest mean. GMP takes the largest number.",
        lambda maps: both(maps).argmax(2)[1:].expand(2, -1),
        "Both rows hold the map with the largest number. GAP takes the largest mean.",
        lambda maps: both(maps).argmax(2).T,
        "The rows are pictures here. The first row is GAP's winner of every picture, the second "
        "GMP's: torch.stack puts them on top of each other.",
        lambda maps: both(maps).argmax(1),
        "That is the winning picture of each map. The channels are axis 1 after pooling.",
        lambda maps: both(maps).flatten(1).argmax(1),
        "That is one winner for all pictures together. argmax(1) gives one for each picture.",
        lambda maps: both(maps.abs()).argmax(2),
        "Numbers below zero speak against a map. Do not take their size without the sign.",
        lambda maps: torch.stack([maps.flatten(2).median(2).values, both(maps)[1]]).argmax(2),
        "The first row is the winner by the median, the middle number. GAP takes the mean.",
        lambda maps: both(maps.relu()).argmax(2),
        "Numbers below zero count in the mean. Do not cut them off.",
        lambda maps: both(maps).amax(2),
        "Those are the largest numbers themselves. argmax gives their places.",
        both,
        "Those are the pooled numbers of all maps. argmax(1) gives the place of the largest of "
        "each picture.",
        cases=[
            (features([[bright, even]]),),
            (features([[even, bright], [[[-1, -1], [-1, -9]], [[-2, -2], [-2, -2]]]]),),
            (random_features(5, 4, 3, 3),),
            (random_features(40, 6, 3, 4),),  # so many that different mistakes differ somewhere
        ],
    )
