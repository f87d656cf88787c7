"""How an answer is graded and what the learner reads.

A check runs the learner's function on inputs from the smallest up, compares it with a
plain reference, and, where the answers are those of a known mistake, names the mistake.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial, wraps
from inspect import getsource, signature, unwrap
from math import sqrt
from numbers import Real
from textwrap import dedent
from traceback import walk_tb
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module


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
ROUNDING = 2.0**-24  # the largest relative error of one float32 operation
# Equal shares are added for each position, and then all roundings may go one way: the sums of
# 6,000 positions in lesson 03 are off by up to 6,000 * ROUNDING, and by 8e-5 where we measured.
GRADIENTS = 1e-3
NOT_ATTEMPTED = Feedback(False, "not attempted yet")


@dataclass(frozen=True)
class _Outcome:
    """What a function did with one input: a value, or an exception."""

    value: Any = None
    error: Exception | None = None
    change: str | None = None  # what it did to its input


def features(values: Sequence) -> Tensor:
    """Make a small input that the feedback can write out."""
    return torch.tensor(values, dtype=torch.float32, device="cpu")


def random_features(*shape: int) -> Tensor:
    """Make an input of random numbers, the same at every call."""
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu") * 3


def exercise(check: Callable[[Callable], Feedback]) -> Callable[[Callable], Feedback]:
    """Let a check say, too, when it was stopped and when it looked at an older version."""

    @wraps(check)
    def checked(answer: Callable) -> Feedback:
        try:
            feedback = check(answer)
        except KeyboardInterrupt as stop:
            frames = [frame.f_code for frame, _ in walk_tb(stop.__traceback__)]
            if _code_of(answer) in frames:
                print("✗ Your function was stopped before it returned. Does a loop in it ever end?")
            else:
                print("✗ The check was stopped before it was done.")
            raise
        note = _older_version(answer)
        return Feedback(feedback.passed, f"{feedback.message}\n{note}") if note else feedback

    return checked


def grade(
    answer: Callable,
    *,
    right: str,
    reference: Callable,
    cases: Sequence[tuple],
    mistakes: Sequence[tuple[Callable, str]],
    gradients: bool = False,
    sums: bool = False,
) -> Feedback:
    """Grade an answer.

    Args:
        answer: the learner's function.
        right: what a right answer has shown, for the line that says so.
        reference: a plain function that is right.
        cases: arguments to try, the smallest first.
        mistakes: functions that make a known mistake, each with the sentence that names it.
        gradients: whether the gradients for tensors and layers must be right too.
        sums: whether the numbers of an input are added up, in an order that is free. Then
            there is room for the roundings of as many additions.
    """
    problem = _not_callable(answer, cases[0])
    if problem:
        return problem
    outcomes = [_outcome(answer, case) for case in cases]
    if _is_bare_stub(answer, outcomes[0].error):
        return NOT_ATTEMPTED
    expected = [reference(*case) for case in cases]
    lengths = [count_summed(*pair) if sums else 1 for pair in zip(cases, expected, strict=True)]
    for case, outcome, wanted, summed in zip(cases, outcomes, expected, lengths, strict=True):
        problem = _problem(answer, outcome, wanted, summed)
        if problem:
            named = _name_mistake(outcomes, cases, mistakes, lengths)
            lines = [f"✗ On {_show_case(answer, case)} {problem}", *([named] if named else [])]
            return Feedback(False, "\n".join(lines))
    for case, outcome in zip(cases, outcomes, strict=True):
        if outcome.change:
            return Feedback(
                False,
                f"✗ On {_show_case(answer, case)} the result is right, but your function changed "
                f"its input: {outcome.change}. Whoever called it still needs it as it was.",
            )
    for case in cases if gradients else ():
        problem = _gradient_problem(answer, reference, case)
        if problem:
            return Feedback(
                False, f"✗ On {_show_case(answer, case)} the numbers are right, but {problem}"
            )
    return Feedback(True, f"✓ Right: {right}.")


def call_answer(answer: Callable, *arguments: Any) -> tuple[Feedback | None, Any]:
    """Call an answer.

    Returns:
        Feedback if it has no value, otherwise None; and the value.
    """
    problem = _not_callable(answer, arguments)
    if problem:
        return problem, None
    outcome = _outcome(answer, arguments)
    if _is_bare_stub(answer, outcome.error):
        return NOT_ATTEMPTED, None
    problem = None
    if outcome.error is not None:
        problem = _say_error(answer, outcome.error)
    elif outcome.value is None:
        problem = "your function returned None. Does it end with return?"
    elif outcome.change:
        problem = f"your function changed its input: {outcome.change}"
    if problem is None:
        return None, outcome.value
    where = f"On {_show_case(answer, arguments)} {problem}" if arguments else problem
    return Feedback(False, f"✗ {where[0].upper()}{where[1:]}"), None


def listen(*_: Any) -> None:
    """Be a hook that somebody else has put on a layer, and that must stay there."""


def tell_apart(first: float, second: float, size: float) -> tuple[bool, list[str]]:
    """Compare two float64 numbers that came out of sums of numbers up to some size.

    Returns:
        Whether they differ by more than roundings; and both in words, with as many digits as
        it takes to see that.
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


def _not_callable(answer: Any, case: tuple) -> Feedback | None:
    """Say why an answer cannot be called with these arguments; None where it can."""
    if not callable(answer):
        return Feedback(
            False,
            f"✗ The check needs your function itself, got {_kind(answer)}. Write its name alone, "
            "without brackets behind it.",
        )
    try:
        wanted = signature(answer)
    except (TypeError, ValueError):  # some built-in functions have no signature
        return None
    try:
        wanted.bind(*case)
    except TypeError:
        count = f"{len(case)} argument{'' if len(case) == 1 else 's'}"
        return Feedback(
            False,
            f"✗ The check calls your function with {count}, and it is written for {wanted}. Leave "
            "the first line as it was in the exercise, also where you do not need all of them.",
        )
    return None


def _code_of(answer: Callable) -> CodeType | None:
    """The code that runs when an answer is called; None for what is not written in Python."""
    answer = unwrap(answer)
    if isinstance(answer, partial):
        return _code_of(answer.func)
    if isinstance(answer, nn.Module):
        answer = type(answer).forward
    elif not hasattr(answer, "__code__"):
        answer = type(answer).__call__
    return getattr(answer, "__code__", None)


def _stub() -> None:
    raise NotImplementedError


def _is_bare(code: CodeType) -> bool:
    """Whether a function does nothing but raise NotImplementedError."""
    try:
        (function,) = ast.parse(dedent(getsource(code))).body
        first, *others = function.body[ast.get_docstring(function) is not None :]
        return isinstance(first, ast.Raise) and not others
    except (OSError, TypeError, ValueError, SyntaxError, AttributeError):  # no source of its own
        bare = _stub.__code__
        return (code.co_code, code.co_names) == (bare.co_code, bare.co_names)


def _is_stub_error(error: Exception | None) -> bool:
    # a module without forward raises this error too, with a text
    return isinstance(error, NotImplementedError) and not error.args


def _is_bare_stub(answer: Callable, error: Exception | None) -> bool:
    code = _code_of(answer)
    return _is_stub_error(error) and code is _raised_by(error) and _is_bare(code)


def _raised_by(error: Exception) -> CodeType:
    return [frame.f_code for frame, _ in walk_tb(error.__traceback__)][-1]


def _say_error(answer: Callable, error: Exception) -> str:
    """Say that an answer raised an error, or that a stub's line is still there."""
    if _is_stub_error(error):
        code = _raised_by(error)
        if code is _code_of(answer):
            return (
                "your function reached the line raise NotImplementedError, which is still in it. "
                "Take that line out."
            )
        if _is_bare(code):
            return f"your function calls {code.co_name}, which is not written yet."
    name, text = type(error).__name__, str(error)
    return f"your function raised {f'{name}: {text}' if text else name}"


def _older_version(answer: Callable) -> str | None:
    """Say so where the last cell that defines the answer is not the one that did."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    name = getattr(answer, "__name__", "")
    if shell is None or not name.isidentifier():
        return None
    try:
        source = getsource(answer).strip()
    except (OSError, TypeError):
        return None
    history = shell.history_manager
    cells = map("\n".join, zip(history.input_hist_raw, history.input_hist_parsed, strict=True))
    written = [cell for cell in cells if re.search(rf"\b(def|class)\s+{name}\b", cell)]
    if not written or source in written[-1]:
        return None
    return (
        f"That is about an older version: the cell that you ran last for {name} is not the one "
        "that made it. Did that cell stop with an error? Mend it, run it, and then this one."
    )


def _outcome(function: Callable, case: tuple) -> _Outcome:
    arguments = deepcopy(case)
    hooks = [*torch_module._global_forward_hooks]
    try:
        value = function(*arguments)
    except Exception as error:  # whatever a learner's code raises becomes a sentence
        return _Outcome(error=error)
    changes = [change for a, b in zip(case, arguments, strict=True) if (change := change_of(a, b))]
    if hooks != [*torch_module._global_forward_hooks]:
        changes.append(HOOK_STAYS)
    return _Outcome(value=value, change=changes[0] if changes else None)


HOOK_STAYS = "your hook stays. Call handle.remove()"


def change_of(before: Any, after: Any) -> str | None:
    """Say what somebody did to a thing; None where it is as it was."""
    if isinstance(before, nn.Module):
        return _change_of_module(before, after)
    if isinstance(before, Tensor):
        same = before.shape == after.shape and torch.equal(before, after)
    elif isinstance(before, list):
        same = len(before) == len(after) and not any(map(change_of, before, after))
    else:
        same = type(before) is type(after) and before == after
    return None if same else "the numbers are others. Work on a copy"


def _change_of_module(before: nn.Module, after: nn.Module) -> str | None:
    if repr(before) != repr(after):
        return "its layers are others. Work on a copy"
    if _own_forwards(before) != _own_forwards(after):
        return "a layer has another forward than before. Put the old one back, or use a hook"
    old, new = _hooks(before), _hooks(after)
    if new - old:
        return HOOK_STAYS
    if old - new:
        return "a hook is gone that was not yours. handle.remove() removes your own and no other"
    if [m.training for m in before.modules()] != [m.training for m in after.modules()]:
        return "it is left in another mode, training or evaluation. Put it back"
    old, new = dict(before.named_parameters()), dict(after.named_parameters())
    if [p.requires_grad for p in old.values()] != [p.requires_grad for p in new.values()]:
        return "other parameters learn than before (requires_grad). Put it back"
    return change_of([*before.state_dict().values()], [*after.state_dict().values()])


def _hooks(module: nn.Module) -> set[tuple]:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        (name, kind, key)
        for name, inner in module.named_modules()
        for kind in kinds
        for key in getattr(inner, kind)
    }


def _own_forwards(module: nn.Module) -> list[str]:
    return [name for name, inner in module.named_modules() if "forward" in vars(inner)]


def _problem(
    answer: Callable, outcome: _Outcome, expected: Tensor | float, summed: int
) -> str | None:
    """Say what is wrong with an outcome; None where nothing is."""
    if outcome.error is not None:
        return _say_error(answer, outcome.error)
    value = outcome.value
    if value is None:
        return "your function returned None. Does it end with return?"
    if isinstance(expected, Tensor):
        return _tensor_problem(value, expected, summed)
    value = _plain_number(value)
    if not isinstance(value, Real) or isinstance(value, bool):
        return f"your function returned {_kind(value)}, expected a number, {_show(expected)}"
    if not _close(value, expected, summed):
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
        return f"your function returned {_kind(value)}, expected a tensor of shape {shape}"
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
    names = _argument_names(answer, case)
    expected = _gradients(reference, case, names)
    try:
        found = _gradients(answer, case, names)
    except Exception as error:  # whatever a learner's code raises becomes a sentence
        return f"with gradients {_say_error(answer, error)}"
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


def _close(a: Real, b: Real, summed: int) -> bool:
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    try:
        return abs(a - b) <= max(10 * ROUNDING * sqrt(summed) * abs(b), 1e-9)
    except OverflowError:  # an integer beyond the range of floats
        return a == b


def _name_mistake(
    outcomes: Sequence[_Outcome],
    cases: Sequence[tuple],
    mistakes: Sequence[tuple[Callable, str]],
    lengths: Sequence[int],
) -> str | None:
    """Find the mistake that does the same as the learner's function on every input."""
    for mistake, sentence in mistakes:
        pairs = zip(outcomes, cases, lengths, strict=True)  # until the first that differs
        if all(_same_outcome(done, _outcome(mistake, case), n) for done, case, n in pairs):
            return sentence
    return None


def _same_outcome(a: _Outcome, b: _Outcome, summed: int) -> bool:
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
        return _close(a, b, summed) or a == b
    if isinstance(a, list | tuple) and type(a) is type(b):
        return len(a) == len(b) and all(_same(x, y, summed) for x, y in zip(a, b, strict=True))
    return False


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
