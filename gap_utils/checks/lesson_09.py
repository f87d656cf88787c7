"""The checks of lesson 09: what two poolings forget, GeM, a masked mean, squeeze-and-excitation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gap_utils.checks.calling import AnswerError, Feedback, call_answer, exercise
from gap_utils.checks.grading import (
    features,
    grade,
    make_layer,
    numbers_of,
    random_features,
    tell_apart,
)
from gap_utils.pooling import masked_average_pool

KEEPDIM = "The numbers are right, but axes of length 1 are left over. Leave keepdim out."
SQUEEZED = (
    "With one picture the batch axis is gone: squeeze() removes every axis of length 1. "
    "mean((2, 3)) leaves no such axes behind."
)


@exercise
def check_gap_twins(answer: Callable) -> Feedback:
    """Check exercise 1: two different maps that neither GAP nor GMP can tell apart."""
    value = call_answer(answer)
    maps = numbers_of(value)
    fits = maps is not None and maps.ndim == 3 and len(maps) == 2 and maps.numel() > 0
    if not fits or not maps.isfinite().all():
        raise AnswerError(
            "Expected two maps of the same size, such as [[[1, 2], [3, 4]], [[5, 6], [7, 8]]], "
            f"got {value!r}."
        )
    if torch.equal(*maps):
        raise AnswerError("The two maps are the same. Put the numbers of one at other positions.")
    said = []
    for pooling, pooled in (("GAP", maps.mean((1, 2))), ("GMP", maps.amax((1, 2)))):
        differ, (first, second) = tell_apart(*pooled.tolist(), maps.abs().max().item())
        if differ:
            raise AnswerError(
                f"{pooling} gives {first} and {second}, so it tells them apart. It would not, if "
                "both maps held the same numbers, each at another position: GAP and GMP forget "
                "the arrangement inside a map."
            )
        said.append(f"{pooling} gives {first} for both")
    return Feedback(
        True, f"✓ Right: {' and '.join(said)}. No layer behind them can tell the maps apart."
    )


@exercise
def check_gem(answer: Callable) -> Feedback:
    """Check exercise 2: features (N, C, H, W), all above 0, and p -> generalized means (N, C)."""

    def positive(*shape: int) -> Tensor:
        return random_features(*shape).abs() + 0.5

    return grade(
        answer,
        lambda x, p: (x**p).mean((2, 3)) ** (1 / p),
        "power, mean, root; p = 1 is GAP; batch 1 and batch 4, and the gradients are right",
        lambda x, p: x.mean((2, 3)),
        lambda x, p: (x.mean((2, 3)) ** p) ** (1 / p),
        "That is GAP for every p. The power comes first, then the mean, then the root.",
        lambda x, p: x.amax((2, 3)),
        "That is the maximum, which GeM only reaches as p grows without end.",
        lambda x, p: (x**p).mean((2, 3)),
        "The root is missing: raise the mean to the power 1 / p.",
        lambda x, p: (x**p).mean((2, 3)) ** 1 / p,
        "Python reads ** 1 / p as (... ** 1) / p. Put brackets around it: ** (1 / p).",
        lambda x, p: (x**p).sum((2, 3)) ** (1 / p),
        "That is the root of the sum. Take the mean of the powers.",
        lambda x, p: (x ** (1 / p)).mean((2, 3)) ** p,
        "Power and root have changed places: first ** p, then the mean, then ** (1 / p).",
        lambda x, p: (x**p).mean((2, 3)).sqrt(),
        "sqrt() is the root for p = 2 alone. For any p it is ** (1 / p).",
        lambda x, p: (x**3).mean((2, 3)) ** (1 / 3),
        lambda x, p: (x**2).mean((2, 3)) ** (1 / 2),
        "That is right for one p only. Use the p that the function gets.",
        lambda x, p: (p**x).mean((2, 3)) ** (1 / p),
        "That raises p to the numbers. Raise the numbers to p: features ** p.",
        lambda x, p: (x**p).mean((2, 3), keepdim=True) ** (1 / p),
        KEEPDIM,
        lambda x, p: ((x**p).mean((2, 3), keepdim=True) ** (1 / p)).squeeze(),
        SQUEEZED,
        lambda x, p: (x**p).mean((1, 2, 3)) ** (1 / p),
        lambda x, p: (x**p).mean(1) ** (1 / p),
        lambda x, p: (x**p).mean() ** (1 / p),
        "Height and width are averaged, axes 2 and 3, and no others.",
        cases=[
            (features([[[[1, 7], [1, 1]]]]), 2),
            (features([[[[3, 4]], [[1, 2]]]]), 3),
            (positive(1, 3, 4, 4), 1),
            (positive(4, 3, 2, 5), 3),
            (positive(4, 5, 4, 3), 1.5),
            (positive(2, 3, 3, 2), 7),
            (positive(3, 1, 5, 4), 2),
        ],
        gradients=True,
    )


@exercise
def check_masked_mean(answer: Callable) -> Feedback:
    """Check exercise 3: features (N, C, H, W) and a mask (N, H, W) -> means (N, C)."""

    def corner(count: int, height: int, width: int, *sizes: tuple[int, int]) -> Tensor:
        """True in the upper left corner of each picture, of these heights and widths."""
        mask = torch.zeros(count, height, width, dtype=torch.bool, device="cpu")
        for picture, (h, w) in zip(mask, sizes, strict=True):
            picture[:h, :w] = True
        return mask

    def total(x: Tensor, mask: Tensor) -> Tensor:
        return (x * mask[:, None]).sum((2, 3))

    half = features([[[[900, 1100] * 10] * 10, [[500, 300] * 10] * 10]]).half()
    return grade(
        answer,
        masked_average_pool,
        "each picture's own positions and no others, also in float16",
        lambda x, mask: x.mean((2, 3)),
        "That is the mean of all positions, the padding too.",
        lambda x, mask: (x * mask[:, None]).mean((2, 3)),
        "The padding adds 0, and yet it is counted: mean divides by all positions. Divide the sum "
        "by how many positions the mask has.",
        total,
        "That is the sum. Divide it by how many positions of the picture count.",
        lambda x, mask: total(x, mask) / mask.sum(),
        "mask.sum() counts the whole batch. Count for each picture: mask.sum((1, 2)).",
        lambda x, mask: total(x, mask) / mask[0].sum(),
        "That divides every picture by the count of the first. Each has its own: mask.sum((1, 2)).",
        lambda x, mask: total(x, mask) / mask.sum((1, 2)),
        "The sums are (N, C) and the counts (N,). Give the counts an axis for the channels: "
        "[:, None].",
        lambda x, mask: (x * mask).sum((2, 3)) / mask.sum((1, 2))[:, None],
        lambda x, mask: (x * mask).sum((2, 3)) / mask.sum((1, 2)),
        "The mask is (N, H, W) and has no axis for the channels. mask[:, None] has one.",
        lambda x, mask: x.masked_fill(~mask[:, None], -torch.inf).amax((2, 3)),
        "That is the largest number of each. The mean is asked for.",
        lambda x, mask: (
            (x.float() * mask[:, None]).sum((2, 3)) / (x * mask[:, None] != 0).sum((2, 3))
        ),
        lambda x, mask: total(x, mask) / (x * mask[:, None] != 0).sum((2, 3)),
        "That counts the numbers that are not 0. Behind a ReLU the picture has zeros too: count "
        "the mask.",
        lambda x, mask: total(x.float(), mask) / mask.sum((1, 2))[:, None],
        "The means are right. Give them the dtype of the features: .to(features.dtype).",
        lambda x, mask: total(x, mask) / mask.sum((1, 2))[:, None],
        "float16 ends at 65,504, and the sum of these numbers is larger. Add up in float32, "
        "features.float(), and turn the means back: .to(features.dtype).",
        cases=[
            (features([[[[1, 3], [99, 99]]]]), corner(1, 2, 2, (1, 2))),
            (random_features(2, 3, 4, 5), corner(2, 4, 5, (4, 5), (2, 3))),
            (random_features(1, 2, 3, 3), corner(1, 3, 3, (3, 3))),
            (random_features(2, 2, 2, 3).relu(), corner(2, 2, 3, (2, 2), (1, 3))),
            (random_features(3, 3, 4, 4), corner(3, 4, 4, (4, 2), (1, 1), (3, 4))),
            (random_features(4, 2, 3, 6), corner(4, 3, 6, (3, 6), (2, 6), (3, 1), (1, 2))),
            (half, corner(1, 10, 20, (10, 18))),
        ],
        gradients=True,
    )


@exercise
def check_squeeze_excitation(answer: Callable) -> Feedback:
    """Check exercise 4: features (N, C, H, W) and two linear layers -> features, scaled."""

    def gates(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
        return second(F.relu(first(x.mean((2, 3))))).sigmoid()

    def layers(channels: int, inside: int) -> tuple[nn.Module, nn.Module]:
        """Weights so small that no gate is quite open or shut."""
        sizes = [(channels, inside), (inside, channels)]
        made = [make_layer(nn.Linear, *size) for size in sizes]
        for layer in made:
            with torch.no_grad():
                for parameter in layer.parameters():
                    parameter *= 0.2
        return made[0], made[1]

    def maps(*shape: int) -> Tensor:
        return random_features(*shape).abs() + 0.5

    small = (
        make_layer(nn.Linear, 2, 1, numbers=(features([1, -1]), features([1]))),
        make_layer(nn.Linear, 1, 2, numbers=(features([1, -1]), features([0, 1]))),
    )
    return grade(
        answer,
        lambda x, first, second: x * gates(x, first, second)[:, :, None, None],
        "every map has its own gate, which depends on the means of all maps, and the gradients "
        "are right",
        gates,
        "Those are the gates, one for each channel. Multiply the features by them.",
        lambda x, first, second: x * gates(x, first, second),
        lambda x, first, second: x * gates(x, first, second)[..., None],
        lambda x, first, second: x * gates(x, first, second)[None, None],
        "The gates are (N, C), and * lines shapes up from the right. Give them two more axes: "
        "gates[:, :, None, None].",
        lambda x, first, second: x.mean((2, 3)) * gates(x, first, second),
        "That multiplies the means by the gates. Multiply the features, every position of them.",
        lambda x, first, second: second(F.relu(first(x.mean((2, 3), keepdim=True)))),
        "With keepdim=True the means are (N, C, 1, 1), and a linear layer works on the last axis. "
        "Leave keepdim out.",
        lambda x, first, second: x + gates(x, first, second)[:, :, None, None],
        "That adds the gates. Multiply by them.",
        lambda x, first, second: x * (1 + gates(x, first, second)[:, :, None, None]),
        lambda x, first, second: x + x * gates(x, first, second)[:, :, None, None],
        "That adds the features once more. They are multiplied by the gates, and that is all.",
        lambda x, first, second: x * second(first(x.mean((2, 3)))).sigmoid()[:, :, None, None],
        "The ReLU between the two linear layers is missing.",
        lambda x, first, second: x * second(F.relu(first(x.mean((2, 3)))))[:, :, None, None],
        lambda x, first, second: (
            x * F.relu(second(F.relu(first(x.mean((2, 3))))))[:, :, None, None]
        ),
        "The sigmoid is missing: a gate is a number between 0 and 1.",
        lambda x, first, second: (
            x * F.relu(second(F.relu(first(x.mean((2, 3)))))).sigmoid()[:, :, None, None]
        ),
        "There is a ReLU too many. Only the sigmoid stands behind the second layer.",
        lambda x, first, second: (
            x * F.relu(second(first(x.mean((2, 3))).sigmoid()))[:, :, None, None]
        ),
        "The ReLU and the sigmoid have changed places. The sigmoid comes last.",
        lambda x, first, second: (
            x * second(F.relu(first(x.mean((2, 3))))).softmax(1)[:, :, None, None]
        ),
        "Softmax makes the gates add up to 1, so that one can only open where another shuts. Take "
        "the sigmoid of each.",
        lambda x, first, second: (
            x * second(F.relu(first(x.amax((2, 3))))).sigmoid()[:, :, None, None]
        ),
        "That squeezes with the maximum. Take the mean of each map.",
        lambda x, first, second: (
            x * second(F.relu(first(x.sum((2, 3))))).sigmoid()[:, :, None, None]
        ),
        "That squeezes with the sum. Take the mean of each map.",
        cases=[
            (features([[[[1, 3]], [[2, 0]]]]), *small),
            (maps(1, 4, 3, 2), *layers(4, 2)),
            (maps(4, 4, 2, 3), *layers(4, 2)),
            (maps(3, 3, 3, 3), *layers(3, 2)),
            (maps(2, 6, 3, 2), *layers(6, 3)),
        ],
        gradients=True,
    )
