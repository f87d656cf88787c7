"""How an answer is graded and what the learner reads.

A check runs the learner's function on inputs from the smallest up, compares it with a
plain reference, and, where the answers are those of a known mistake, names the mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from math import isclose
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Feedback:
    """What a check says.

    Attributes:
        passed: whether the answer is right.
        message: what the learner reads.
    """

    passed: bool
    message: str

    def __repr__(self) -> str:
        return self.message


SHOWN = 12  # tensors with more numbers are named by their shape
NOT_ATTEMPTED = Feedback(False, "not attempted yet")


@dataclass(frozen=True)
class _Outcome:
    """What a function did with one input: a value, or an exception."""

    value: Any = None
    error: Exception | None = None
    changed_input: bool = False


def features(values: Sequence) -> Tensor:
    """Make a small input that the feedback can write out."""
    return torch.tensor(values, dtype=torch.float32, device="cpu")


def random_features(*shape: int) -> Tensor:
    """Make an input of random numbers, the same at every call."""
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu") * 3


def grade(
    answer: Callable,
    *,
    right: str,
    reference: Callable,
    cases: Sequence[tuple],
    mistakes: Sequence[tuple[Callable, str]],
    gradients: bool = False,
) -> Feedback:
    """Grade an answer.

    Args:
        answer: the learner's function.
        right: what a right answer has shown, for the line that says so.
        reference: a plain function that is right.
        cases: arguments to try, the smallest first.
        mistakes: functions that make a known mistake, each with the sentence that names it.
        gradients: whether the gradients for tensors and layers must be right too.
    """
    if not callable(answer):
        return _not_callable(answer)
    outcomes = [_outcome(answer, case) for case in cases]
    if any(_is_stub(outcome.error) for outcome in outcomes):
        return NOT_ATTEMPTED
    expected = [reference(*case) for case in cases]
    for case, outcome, wanted in zip(cases, outcomes, expected, strict=True):
        problem = _problem(outcome, wanted)
        if problem:
            named = _name_mistake(outcomes, cases, mistakes)
            lines = [f"✗ On {_show_case(answer, case)} {problem}", *([named] if named else [])]
            return Feedback(False, "\n".join(lines))
    for case, outcome in zip(cases, outcomes, strict=True):
        if outcome.changed_input:
            return Feedback(
                False,
                f"✗ On {_show_case(answer, case)} the result is right, but your function changed "
                "its input. Work on a copy: whoever called it still needs the numbers.",
            )
    for case in cases if gradients else ():
        problem = _gradient_problem(answer, reference, case)
        if problem:
            return Feedback(
                False, f"✗ On {_show_case(answer, case)} the numbers are right, but {problem}"
            )
    return Feedback(True, f"✓ Right: {right}.")


def call_answer(answer: Callable) -> tuple[Feedback | None, Any]:
    """Call an answer without arguments.

    Returns:
        Feedback if it has no value, otherwise None; and the value.
    """
    if not callable(answer):
        return _not_callable(answer), None
    outcome = _outcome(answer, ())
    if _is_stub(outcome.error):
        return NOT_ATTEMPTED, None
    if outcome.error is not None:
        return Feedback(False, f"✗ Your function raised {_show_error(outcome.error)}"), None
    if outcome.value is None:
        return Feedback(False, "✗ Your function returned None. Does it end with return?"), None
    return None, outcome.value


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


def _not_callable(answer: Any) -> Feedback:
    return Feedback(
        False,
        f"✗ The check needs your function itself, got {_kind(answer)}. Write its name alone, "
        "without brackets behind it.",
    )


def _is_stub(error: Exception | None) -> bool:
    # a module without forward raises this error too, with a text
    return isinstance(error, NotImplementedError) and not error.args


def _outcome(function: Callable, case: tuple) -> _Outcome:
    arguments = deepcopy(case)
    try:
        value = function(*arguments)
    except Exception as error:  # whatever a learner's code raises becomes a sentence
        return _Outcome(error=error)
    changed = not all(_same(a, b) for a, b in zip(arguments, case, strict=True))
    return _Outcome(value=value, changed_input=changed)


def _problem(outcome: _Outcome, expected: Tensor | float) -> str | None:
    """Say what is wrong with an outcome; None where nothing is."""
    if outcome.error is not None:
        return f"your function raised {_show_error(outcome.error)}"
    value = outcome.value
    if value is None:
        return "your function returned None. Does it end with return?"
    if isinstance(expected, Tensor):
        return _tensor_problem(value, expected)
    value = _plain_number(value)
    if not isinstance(value, Real) or isinstance(value, bool):
        return f"your function returned {_kind(value)}, expected a number, {_show(expected)}"
    if not _close(value, expected):
        return _differs(value, expected)
    if isinstance(expected, int) and not isinstance(value, int):
        return (
            f"your function returned the float {value}, expected the integer {expected}. "
            "Use // where you divide, or int() at the end."
        )
    return None


def _tensor_problem(value: Any, expected: Tensor) -> str | None:
    shape = tuple(expected.shape)
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return f"your function returned {_kind(value)}, expected a tensor of shape {shape}"
    if value.device != expected.device:
        return (
            f"your function returned a tensor on the device {value.device}, expected "
            f"{expected.device}, where the features are"
        )
    if value.shape != expected.shape:
        return f"your function returned shape {tuple(value.shape)}, expected {shape}"
    if value.dtype != expected.dtype:
        return f"your function returned {value.dtype} numbers, expected {expected.dtype}"
    wrong = ~torch.isclose(value, expected, rtol=1e-5, atol=1e-6)
    if not wrong.any():
        return None
    if expected.numel() <= SHOWN:
        return _differs(value, expected)
    place = tuple(wrong.nonzero()[0].tolist())
    return f"at position {list(place)} " + _differs(value[place].item(), expected[place].item())


def _gradient_problem(answer: Callable, reference: Callable, case: tuple) -> str | None:
    """Say what is wrong with the gradients for the inputs; None where nothing is."""
    names = _argument_names(answer, case)
    expected = _gradients(reference, case, names)
    try:
        found = _gradients(answer, case, names)
    except Exception as error:  # whatever a learner's code raises becomes a sentence
        return f"with gradients your function raised {_show_error(error)}"
    for name, wanted in expected.items():
        gradient = found.get(name)
        if gradient is None or not _close_gradients(gradient, wanted):
            what = "no gradient" if gradient is None else "a wrong gradient"
            return (
                f"{what} reaches {name}, so nothing before it could learn. Is there a copy, a "
                ".detach(), .data, .item(), .tolist() or no_grad()?"
            )
    return None


def _close_gradients(a: Tensor, b: Tensor) -> bool:
    """Compare sums of many numbers, which may have been added in another order."""
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())


def _gradients(function: Callable, case: tuple, names: list[str]) -> dict[str, Tensor | None]:
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
            return {}
        wanted = (result * random_features(*result.shape)).sum()
        gradients = torch.autograd.grad(wanted, list(leaves.values()), allow_unused=True)
        return dict(zip(leaves, gradients, strict=True))


def _differs(value: Any, expected: Any) -> str:
    shown, wanted = _show(value), _show(expected)
    hint = " with more decimals: do not round" if shown == wanted else ""
    return f"your function returned {shown}, expected {wanted}{hint}"


def _show_error(error: Exception) -> str:
    name, text = type(error).__name__, str(error)
    return f"{name}: {text}" if text else name


def _close(a: Real, b: Real) -> bool:
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    try:
        return isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
    except OverflowError:  # an integer beyond the range of floats
        return a == b


def _name_mistake(
    outcomes: Sequence[_Outcome], cases: Sequence[tuple], mistakes: Sequence[tuple[Callable, str]]
) -> str | None:
    """Find the mistake that does the same as the learner's function on every input."""
    for mistake, sentence in mistakes:
        made = [_outcome(mistake, case) for case in cases]
        if all(map(_same_outcome, outcomes, made)):
            return sentence
    return None


def _same_outcome(a: _Outcome, b: _Outcome) -> bool:
    if a.error or b.error:
        return type(a.error) is type(b.error) and str(a.error) == str(b.error)
    return _same(a.value, b.value)


def _same(a: Any, b: Any) -> bool:
    a, b = _plain_number(a), _plain_number(b)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return (
            a.device == b.device
            and a.layout == b.layout
            and a.is_complex() == b.is_complex()
            and a.shape == b.shape
            and torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-6)
        )
    if isinstance(a, Real) and isinstance(b, Real):
        return _close(a, b)
    if isinstance(a, list | tuple) and type(a) is type(b):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, nn.Module) and isinstance(b, nn.Module):
        return _same(_numbers_and_modes(a), _numbers_and_modes(b)) and repr(a) == repr(b)
    return False


def _numbers_and_modes(module: nn.Module) -> list:
    return [*module.state_dict().values(), *(float(inner.training) for inner in module.modules())]


def _plain_number(value: Any) -> Any:
    """Take a NumPy number or a tensor of no axes for the Python number it holds."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    if isinstance(value, Tensor) and value.ndim == 0 and value.device.type != "meta":
        return value.item()
    return value


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return "a NumPy array"
    if isinstance(value, Tensor):
        layout = "a tensor" if value.layout == torch.strided else "a sparse tensor"
        return f"{layout} of shape {tuple(value.shape)}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _argument_names(answer: Callable, case: tuple) -> list[str]:
    """The learner's own names for the arguments, or their numbers."""
    try:
        names = list(signature(answer).parameters)
    except (TypeError, ValueError):  # some built-in functions have no signature
        names = []
    return names if len(names) == len(case) else [f"argument {i + 1}" for i in range(len(case))]


def _show_case(answer: Callable, case: tuple) -> str:
    shown = list(map(_show, case))
    if len(case) > 1:
        names = _argument_names(answer, case)
        shown = [f"{name}={text}" for name, text in zip(names, shown, strict=True)]
    return f"the input {', '.join(shown)}:"


def _show(value: Any) -> str:
    """Write a value briefly: small tensors as lists, large ones by their shape."""
    if isinstance(value, Tensor):
        if value.numel() > SHOWN:
            return f"a tensor of shape {tuple(value.shape)}{_memory(value)}"
        return str(_rounded(value.tolist()))
    if isinstance(value, nn.Module) and any(value.children()):
        return f"a {type(value).__name__}"
    return str(_rounded(value))


def _memory(value: Tensor) -> str:
    if value.is_contiguous():
        return ""
    if value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last):
        return ", channels-last in memory"
    return ", cut out of larger maps"


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if not isinstance(value, float):
        return value
    return int(value) if value.is_integer() else round(value, 4)
