"""How an answer is called, and what can be said of it before its result is looked at.

It may be no function, the bare stub, or written for other arguments; it may raise an error,
change what it was given, never end, or be an older version than that of the last cell.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial, wraps
from inspect import getsource, signature, unwrap
from textwrap import dedent
from traceback import walk_tb
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from gap_utils.verdict import OPEN, RIGHT, WRONG, verdict_as_html


@dataclass(frozen=True)
class Feedback:
    """What a check says: whether the answer is right, and what the learner reads."""

    passed: bool
    message: str
    drawing: str = ""  # of a wrong answer, as HTML

    def __repr__(self) -> str:
        return self.message

    def _repr_html_(self) -> str:
        """The same words below a headline that is seen from afar."""
        start, sign, headline = next(
            (row for row in HEADLINES if self.message.startswith(row[0])),
            ("", RIGHT, "Right") if self.passed else ("", WRONG, "Not right yet"),
        )
        words = self.message.removeprefix(start).strip()
        if start.endswith(":") and re.match(r"[a-z]+\s", words):  # no name out of the code
            words = words[0].upper() + words[1:]
        return verdict_as_html(sign, headline, words, role="status", drawing=self.drawing)


HEADLINES = (  # how a message begins, and what stands above it
    ("✓ Right:", RIGHT, "Right"),
    ("✗ Not so:", WRONG, "Not right yet"),
    ("✗", WRONG, "Not right yet"),
    ("not attempted yet", OPEN, "Not attempted yet"),
)
SHOWN = 12  # tensors with more numbers are named by their shape
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
HOOK_STAYS = "your hook stays. Call handle.remove()"
NOT_ATTEMPTED = Feedback(False, "not attempted yet")


class AnswerError(Exception):
    """An answer is not right; the text says why, and a drawing may show it."""

    def __init__(self, text: str, drawing: str = ""):
        super().__init__(text)
        self.drawing = drawing


class NotAttemptedError(Exception):
    """Nothing has been written yet: the answer is the bare stub."""


@dataclass(frozen=True)
class Outcome:
    """What a function did with one input: a value, or an exception."""

    value: Any = None
    error: Exception | None = None
    change: str | None = None  # what it did to its input


def exercise(check: Callable[[Callable], Feedback]) -> Callable[[Callable], Feedback]:
    """Turn what a check raises into Feedback; say when it was stopped, or saw an older version."""

    @wraps(check)
    def checked(answer: Callable) -> Feedback:
        try:
            feedback = check(answer)
        except NotAttemptedError:
            feedback = NOT_ATTEMPTED
        except AnswerError as wrong:
            feedback = Feedback(False, f"✗ {wrong}", wrong.drawing)
        except KeyboardInterrupt as stop:
            frames = [frame.f_code for frame, _ in walk_tb(stop.__traceback__)]
            if _code_of(answer) in frames:
                print("✗ Your function was stopped before it returned. Does a loop in it ever end?")
            else:
                print("✗ The check was stopped before it was done.")
            raise
        note = _older_version(answer)
        return replace(feedback, message=f"{feedback.message}\n{note}") if note else feedback

    return checked


def call_answer(answer: Callable, *arguments: Any) -> Any:
    """Call an answer and return its value; AnswerError where it has none."""
    refuse_uncallable(answer, arguments)
    outcome = run_answer(answer, arguments)
    problem = why_no_value(answer, outcome)
    if problem:
        where = f"On {show_case(answer, arguments)} {problem}" if arguments else problem
        raise AnswerError(where[0].upper() + where[1:])
    return outcome.value


def refuse_uncallable(answer: Any, case: tuple) -> None:
    """Raise AnswerError where an answer cannot be called with these arguments."""
    if not callable(answer):
        raise AnswerError(
            f"The check needs your function itself, got {name_kind(answer)}. Write its name "
            "alone, without brackets behind it."
        )
    try:
        wanted = signature(answer)
    except (TypeError, ValueError):  # some built-in functions have no signature
        return
    try:
        wanted.bind(*case)
    except TypeError:
        count = f"{len(case)} argument{'' if len(case) == 1 else 's'}"
        raise AnswerError(
            f"The check calls your function with {count}, and it is written for {wanted}. Leave "
            "the first line as it was in the exercise, also where you do not need all of them."
        ) from None


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


def _is_bare(code: CodeType) -> bool:
    """Whether a function does nothing but raise NotImplementedError."""
    try:
        (function,) = ast.parse(dedent(getsource(code))).body
        first, *others = function.body[ast.get_docstring(function) is not None :]
        return isinstance(first, ast.Raise) and not others
    except (OSError, TypeError, ValueError, SyntaxError, AttributeError):  # no source of its own
        return code.co_names == ("NotImplementedError",)


def why_no_value(answer: Callable, outcome: Outcome) -> str | None:
    """Say that an answer raised an error or returned nothing; None where it has a value."""
    if outcome.error is not None:
        return say_error(answer, outcome.error)
    if outcome.value is None:
        return "your function returned None. Does it end with return?"
    return None


def say_error(answer: Callable, error: Exception) -> str:
    """Say that an answer raised an error, or that a stub's line is still there."""
    # a module without forward raises a NotImplementedError too, with a text
    if isinstance(error, NotImplementedError) and not error.args:
        code = [frame.f_code for frame, _ in walk_tb(error.__traceback__)][-1]
        if code is _code_of(answer):
            if _is_bare(code):
                raise NotAttemptedError
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
    makes_it = re.compile(
        rf"^\s*((async +)?def +{name}\b|class +{name}\b|{name} *= *lambda\b)", re.M
    )
    written = [cell for cell in cells if makes_it.search(cell)]
    if not written or source in written[-1]:
        return None
    return (
        f"That is about an older version: the cell that you ran last for {name} is not the one "
        "that made it. Did that cell stop with an error? Mend it, run it, and then this one."
    )


def run_answer(function: Callable, case: tuple) -> Outcome:
    """Call a function with copies of its arguments, and see what it did."""
    arguments = deepcopy(case)
    hooks = [*torch_module._global_forward_hooks]
    try:
        value = function(*arguments)
    except Exception as error:  # whatever a learner's code raises becomes a sentence
        return Outcome(error=error)
    changes = [change for a, b in zip(case, arguments, strict=True) if (change := change_of(a, b))]
    if hooks != [*torch_module._global_forward_hooks]:
        changes.append(HOOK_STAYS)
    return Outcome(value=value, change=changes[0] if changes else None)


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
    pairs = [*zip(before.modules(), after.modules(), strict=False)]
    for old, new in pairs:
        for name in sorted(vars(old).keys() ^ vars(new).keys()):
            if callable(getattr(type(old), name, None)):  # it hides the method of the class
                where = f"a layer has another {name} than before"
                return f"{where}. Put the old one back, or use a hook"
    hooks = [
        (vars(old)[kind].keys(), vars(new)[kind].keys()) for old, new in pairs for kind in HOOKS
    ]
    if any(new - old for old, new in hooks):
        return HOOK_STAYS
    if any(old - new for old, new in hooks):
        return "a hook is gone that was not yours. handle.remove() removes your own and no other"
    if any(old.training != new.training for old, new in pairs):
        return "it is left in another mode, training or evaluation. Put it back"
    old, new = ([p.requires_grad for p in module.parameters()] for module in (before, after))
    if old != new:
        return "other parameters learn than before (requires_grad). Put it back"
    return change_of([*before.state_dict().values()], [*after.state_dict().values()])


def name_kind(value: Any) -> str:
    """Say in two or three words what a value is."""
    if isinstance(value, np.ndarray):
        return "a NumPy array"
    if isinstance(value, Tensor):
        layout = "a tensor" if value.layout == torch.strided else "a sparse tensor"
        return f"{layout} of shape {tuple(value.shape)}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def argument_names(answer: Callable, case: tuple) -> list[str]:
    """The learner's own names for the arguments, or their numbers."""
    try:
        names = list(signature(answer).parameters)
    except (TypeError, ValueError):  # some built-in functions have no signature
        names = []
    return names if len(names) == len(case) else [f"argument {i + 1}" for i in range(len(case))]


def show_case(answer: Callable, case: tuple) -> str:
    """Write the arguments of a call, with their names where there are several."""
    shown = list(map(show, case))
    if len(case) > 1:
        names = argument_names(answer, case)
        shown = [f"{name}={text}" for name, text in zip(names, shown, strict=True)]
    return f"the input {', '.join(shown)}:"


def show(value: Any) -> str:
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
