"""How a result is graded and what the learner reads.

A check hands `grade` the learner's function and a row of others, each followed by what is said
of it: the first is right, the others make known mistakes. The learner's function is run on inputs
from the smallest up, and compared with the right one; a mistake that gives the same is named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from math import inf, sqrt
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from gap_utils.checks.calling import (
    SHOWN,
    AnswerError,
    Feedback,
    Outcome,
    argument_names,
    name_kind,
    refuse_uncallable,
    run_answer,
    say_error,
    show,
    show_case,
    why_no_value,
)
from gap_utils.checks.drawing import draw_case

ROUNDING = 2.0**-24  # the largest relative error of one float32 operation
# Equal shares are added for each position, and then all roundings may go one way: the sums of
# 6,000 positions in lesson 03 are off by up to 6,000 * ROUNDING, and by 8e-5 where we measured.
GRADIENTS = 1e-3


def features(values: Sequence) -> Tensor:
    """Make a small input that the feedback can write out."""
    return torch.tensor(values, dtype=torch.float32, device="cpu")


def random_features(*shape: int) -> Tensor:
    """Make an input of random numbers, the same at every call."""
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu") * 3


def make_layer(kind: type[nn.Module], *sizes: int, numbers: Sequence = (), **more) -> nn.Module:
    """Make a layer that draws no random number: it holds these, or those of random_features."""
    layer = skip_init(kind, *sizes, **more, dtype=torch.float32, device="cpu")
    with torch.no_grad():
        for place, parameter in enumerate(layer.parameters()):
            own = numbers[place] if numbers else random_features(parameter.numel())
            parameter.copy_(own.reshape(parameter.shape))
    return layer


def grade(
    answer: Callable,
    *ways: Callable | str,
    cases: Sequence[tuple],
    gradients: bool = False,
    exact: bool = False,
) -> Feedback:
    """Grade an answer.

    Args:
        answer: the learner's function.
        ways: functions, each followed by what is said of it. The first is a right answer; the
            others make known mistakes, where several functions may share the sentence behind.
        cases: arguments to try, the smallest first.
        gradients: whether the gradients for tensors and layers must be right too.
        exact: whether each number of a tensor is one of the input. Otherwise numbers of the
            input are added up, in an order that is free, and there is room for the roundings.
    """
    (reference, right), *mistakes = pair_up(ways)
    refuse_uncallable(answer, cases[0])
    tried = []
    for case in cases:
        outcome, expected = run_answer(answer, case), reference(*case)
        added_up = isinstance(expected, Tensor) and not exact
        tried.append((case, outcome, expected, count_summed(case, expected) if added_up else 1))
    for case, outcome, expected, summed in tried:
        problem = _problem(answer, outcome, expected, summed)
        if problem:
            for mistake, sentence in mistakes:
                if all(_same_outcome(done, run_answer(mistake, c), n) for c, done, _, n in tried):
                    problem += f"\n{sentence}"
                    break
            names = argument_names(answer, case) if len(case) > 1 else ["input"]
            inputs = dict(zip(names, case, strict=True))
            drawing = draw_case(inputs, outcome.value, expected, partial(are_close, summed=summed))
            raise AnswerError(f"On {show_case(answer, case)} {problem}", drawing)
    for case, outcome, *_ in tried:
        if outcome.change:
            raise AnswerError(
                f"On {show_case(answer, case)} the result is right, but your function changed "
                f"its input: {outcome.change}. Whoever called it still needs it as it was."
            )
    for case in cases if gradients else ():
        problem = _gradient_problem(answer, reference, case)
        if problem:
            raise AnswerError(f"On {show_case(answer, case)} the numbers are right, but {problem}")
    return Feedback(True, f"✓ Right: {right}.")


def pair_up(ways: Sequence[Callable | str]) -> list[tuple[Callable, str]]:
    """Pair each function with the first sentence behind it."""
    pairs, sentence = [], ""
    for way in reversed(ways):
        if isinstance(way, str):
            sentence = way
        else:
            pairs.append((way, sentence))
    return pairs[::-1]


def tell_apart(first: float, second: float, size: float) -> tuple[bool, list[str]]:
    """Whether two float64 sums of numbers up to some size differ by more than roundings.

    And both of them in words, with as many digits as it takes to see that.
    """
    differ = abs(first - second) > 1e-12 * size
    for digits in range(4, 18 if differ else 5):
        shown = [f"{number:.{digits}g}" for number in (first, second)]
        if shown[0] != shown[1]:
            break
    return differ, shown


def numbers_of(value: Any) -> Tensor | None:
    """Read lists, arrays and tensors, also lists of tensors, as float64; None if that fails."""

    def plain(part: Any) -> Any:
        if hasattr(part, "tolist"):
            return part.tolist()
        return [*map(plain, part)] if isinstance(part, list | tuple) else part

    try:
        return torch.tensor(plain(value), dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def say_findings(passed: bool, lines: list[str]) -> Feedback:
    """Put what a study shows, in lines, behind the verdict."""
    return Feedback(passed, "\n".join(["✓ Right:" if passed else "✗ Not so:", *lines]))


def _problem(
    answer: Callable, outcome: Outcome, expected: Tensor | float, summed: int
) -> str | None:
    """Say what is wrong with an outcome; None where nothing is."""
    problem = why_no_value(answer, outcome)
    if problem or isinstance(expected, Tensor):
        return problem or _tensor_problem(outcome.value, expected, summed)
    value = _plain_number(outcome.value)
    if not isinstance(value, Real) or isinstance(value, bool):
        return f"your function returned {name_kind(value)}, expected a number, {show(expected)}"
    if not _close(value, expected):
        return _differs(value, expected)
    if isinstance(expected, int) and not isinstance(value, int):
        return (
            f"your function returned the float {value}, expected the integer {expected}. "
            "Use // where you divide, or int() at the end."
        )
    return None


def _tensor_problem(value: Any, expected: Tensor, summed: int) -> str | None:
    shape = tuple(expected.shape)
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return f"your function returned {name_kind(value)}, expected a tensor of shape {shape}"
    if value.device != expected.device:
        return (
            f"your function returned a tensor on the device {value.device}, expected "
            f"{expected.device}, where the input is"
        )
    if value.shape != expected.shape:
        return f"your function returned shape {tuple(value.shape)}, expected {shape}"
    if value.dtype != expected.dtype:
        return f"your function returned {value.dtype} numbers, expected {expected.dtype}"
    wrong = ~are_close(value, expected, summed)
    if not wrong.any():
        if not _is_rounded(value, expected):
            return None
        return (
            "your function returned numbers that were rounded, expected all decimals: do not round"
        )
    if expected.numel() <= SHOWN:
        return _differs(value, expected)
    place = tuple(wrong.nonzero()[0].tolist())
    return f"at position {list(place)} " + _differs(value[place].item(), expected[place].item())


def count_summed(case: tuple, expected: Tensor) -> int:
    """How many numbers of a case may be added up for one number of the result."""
    largest = max(argument.numel() for argument in case if isinstance(argument, Tensor))
    return largest // (len(expected) if expected.ndim else 1)


def are_close(a: Tensor, b: Tensor, summed: int) -> Tensor:
    """Which numbers differ by no more than roundings, in whatever order they were added.

    The error of a sum grows with the root of how many numbers it has, and with their size:
    where positive and negative ones cancel each other, a small sum is as uncertain as a large one.
    """
    a, b = a.double(), b.double()
    size = b.abs() if summed == 1 or not b.numel() else b.abs().max()
    return (a - b).abs() <= 10 * ROUNDING * sqrt(summed) * size


def _gradient_problem(answer: Callable, reference: Callable, case: tuple) -> str | None:
    """Say what is wrong with the gradients for the inputs; None where nothing is."""
    names = argument_names(answer, case)
    expected = gradients_of(reference, case, names)
    try:
        found = gradients_of(answer, case, names)
    except Exception as error:  # whatever a learner's code raises becomes a sentence
        return f"with gradients {say_error(answer, error)}"
    for name, wanted in expected.items():
        gradient = found.get(name)
        if gradient is None:
            return (
                f"no gradient reaches {name}: neither it nor what it was made from could learn. Is "
                "there a copy, a .detach(), .data, .item(), .tolist() or no_grad()?"
            )
        if not torch.allclose(gradient, wanted, rtol=0, atol=GRADIENTS * wanted.abs().max().item()):
            return (
                f"a wrong gradient reaches {name}, so training would go astray. Is a part of the "
                "result cut off from it, by a copy, a .detach(), .data or no_grad()?"
            )
    return None


def gradients_of(function: Callable, case: tuple, names: list[str]) -> dict[str, Tensor | None]:
    """The gradient for each tensor of a case and each parameter of its modules, by name."""
    with torch.inference_mode(False), torch.enable_grad():
        arguments = deepcopy(case)
        leaves = {}
        for name, argument in zip(names, arguments, strict=True):
            if isinstance(argument, Tensor) and argument.is_floating_point():
                leaves[name] = argument.requires_grad_()
            elif isinstance(argument, nn.Module):
                leaves |= {f"{name}.{inner}": p for inner, p in argument.named_parameters()}
        result = function(*arguments)
        if not isinstance(result, Tensor) or not result.requires_grad:
            return dict.fromkeys(leaves)
        wanted = (result * random_features(*result.shape)).sum()
        gradients = torch.autograd.grad(wanted, list(leaves.values()), allow_unused=True)
        return dict(zip(leaves, gradients, strict=True))


def _differs(value: Any, expected: Any) -> str:
    shown, wanted = show(value), show(expected)
    hint = ""
    if shown == wanted and _is_rounded(value, expected):
        hint = " with more decimals: do not round"
    elif shown == wanted:  # they differ behind the fourth decimal
        off = (_as_float64(value) - _as_float64(expected)).abs().max()
        hint = (
            f"; it is off by {off:.1e}, more than the order of additions explains. Does a step in "
            "between lose digits, such as half(), or a large number that is added and taken away "
            "again?"
        )
    return f"your function returned {shown}, expected {wanted}{hint}"


def _is_rounded(value: Any, expected: Any) -> bool:
    """Whether all numbers end at some decimal, up to the fourth, where the expected ones go on."""

    def beyond(numbers: Tensor, decimals: int) -> Tensor:
        rest = (numbers - numbers.round(decimals=decimals)).abs()
        return rest / ROUNDING / numbers.abs().clamp(min=1e-30)  # in float32 roundings

    a, b = _as_float64(value), _as_float64(expected)
    return any((beyond(a, d) < 2).all() and (beyond(b, d) > 10).any() for d in range(5))


def _as_float64(value: Any) -> Tensor:
    return torch.as_tensor(value, device="cpu").double()


def _close(a: Real, b: Real) -> bool:
    if abs(b) == inf or (isinstance(a, int) and isinstance(b, int)):
        return a == b
    try:  # room for a few float32 roundings, if the number comes out of a tensor
        return abs(a - b) <= max(32 * ROUNDING * abs(b), 1e-9)
    except OverflowError:  # an integer beyond the range of floats
        return a == b


def _same_outcome(a: Outcome, b: Outcome, summed: int) -> bool:
    if a.error or b.error:
        return type(a.error) is type(b.error) and str(a.error) == str(b.error)
    return _same(a.value, b.value, summed)


def _same(a: Any, b: Any, summed: int) -> bool:
    a, b = _plain_number(a), _plain_number(b)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return (
            a.device == b.device
            and a.layout == b.layout
            and a.is_complex() == b.is_complex()
            and a.shape == b.shape
            and bool((are_close(a, b, summed) | (a == b)).all())
        )
    if isinstance(a, Real) and isinstance(b, Real):
        return _close(a, b) or a == b
    if isinstance(a, list | tuple) and type(a) is type(b):
        return len(a) == len(b) and all(_same(x, y, summed) for x, y in zip(a, b, strict=True))
    return False


def _plain_number(value: Any) -> Any:
    """Take a NumPy number or a tensor of no axes for the Python number it holds."""
    one = isinstance(value, np.generic | np.ndarray | Tensor) and value.ndim == 0
    return value.item() if one and not getattr(value, "is_meta", False) else value
