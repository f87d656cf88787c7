"""What all checks see: stubs, other arguments, a stop, older versions, what is left behind."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from IPython.core.interactiveshell import InteractiveShell
from torch import nn
from traitlets.config import Config

from gap_utils import checks

NOT_ATTEMPTED = "not attempted yet"
STILL_THERE = "your function reached the line raise NotImplementedError, which is still in it."


def stub(features):
    """Average each map. (N, C, H, W) -> (N, C)"""
    raise NotImplementedError


class Stub:
    def __call__(self, features):
        raise NotImplementedError


def without_source(code):
    names = {}
    exec(code, names)
    return names["answer"]


@pytest.mark.parametrize(
    "answer",
    [
        stub,
        partial(stub),
        Stub(),
        without_source("def answer(x):\n    'Average.'\n    raise NotImplementedError"),
    ],
)
def test_the_bare_stub_is_no_attempt(answer):
    assert repr(checks.check_gap(answer)) == NOT_ATTEMPTED


def line_below(x):
    pooled = x.mean((2, 3))
    raise NotImplementedError
    return pooled


def line_above(x):
    raise NotImplementedError
    return x.mean((2, 3))


def line_in_a_branch(x):
    if len(x) == 1:
        return x.mean((2, 3))
    raise NotImplementedError


class Layer(nn.Module):
    def forward(self, x):
        pooled = x.mean((2, 3))
        raise NotImplementedError
        return pooled


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        (line_below, "[[[[1, 2], [3, 6]]]]"),
        (line_above, "[[[[1, 2], [3, 6]]]]"),
        (line_in_a_branch, "a tensor of shape (4, 3, 2, 5)"),
        (Layer(), "[[[[1, 2], [3, 6]]]]"),
        (
            without_source("def answer(x):\n    y = x.mean((2, 3))\n    raise NotImplementedError"),
            "[[[[1, 2], [3, 6]]]]",
        ),
    ],
)
def test_a_stub_s_line_in_an_answer_is_pointed_at(answer, place):
    assert checks.check_gap(answer).message == (
        f"✗ On the input {place}: {STILL_THERE} Take that line out."
    )


def test_the_line_is_pointed_at_where_no_argument_is_given_and_where_a_module_is_made():
    def winners():
        best = "gap"
        raise NotImplementedError
        return best, best

    said = f"{STILL_THERE[0].upper()}{STILL_THERE[1:]} Take that line out."
    assert checks.check_head_claims(winners).message == f"✗ {said}"

    def new_head(channels, classes):
        if channels == 8:
            return nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.BatchNorm1d(channels),
                nn.Linear(channels, classes),
            )
        raise NotImplementedError

    message = checks.check_new_head(new_head).message
    assert message == f"✗ On the input channels=5, classes=2: {STILL_THERE} Take that line out."


def test_another_exercise_s_stub_is_named():
    def head(x, weight, bias):
        return F.linear(stub(x), weight, bias)

    assert "your function calls stub, which is not written yet." in (
        checks.check_gap_head(head).message
    )


def test_the_same_error_with_a_text_is_an_error():
    def ask(x):
        return torch.utils.data.Dataset()[0]

    assert "your function raised NotImplementedError: " in checks.check_gap(ask).message


@pytest.mark.parametrize(
    ("check", "answer", "said"),
    [
        (checks.check_keras_to_torch, lambda kernel, c: 0, "4 arguments, and it is written for"),
        (checks.check_flatten_parameters, lambda c, h, w: 0, "is written for (c, h, w). Leave"),
        (checks.check_gap, lambda: 0, "with 1 argument, and it is written for ()."),
        (checks.check_gap, lambda x, y: 0, "is written for (x, y)."),
        (checks.check_gap, lambda *, x: 0, "is written for (*, x)."),
        (
            checks.check_head_claims,
            lambda study: 0,
            "with 0 arguments, and it is written for (study)",
        ),
        (checks.check_new_head, lambda channels: 0, "with 2 arguments, and it is written for (ch"),
    ],
)
def test_other_arguments_than_asked_for_are_named(check, answer, said):
    message = check(answer).message
    assert message.startswith("✗ The check calls your function with ")
    assert said in message


def test_a_function_that_has_no_signature_or_more_arguments_passes():
    assert checks.check_numbers_per_map(lambda shape, *more, scale=1: shape[2] * shape[3]).passed
    assert checks.check_numbers_per_map(partial(lambda a, shape: shape[2] * shape[3], 1)).passed


def endless(*sizes):
    raise KeyboardInterrupt  # as ■ does; a real signal is ignored by tests in the background


def test_a_loop_that_is_stopped_gets_a_sentence_and_the_cell_stops(capsys):
    for answer in (endless, partial(endless)):
        with pytest.raises(KeyboardInterrupt):
            checks.check_flatten_parameters(answer)
        assert capsys.readouterr().out == (
            "✗ Your function was stopped before it returned. Does a loop in it ever end?\n"
        )


def test_a_check_that_is_stopped_does_not_blame_the_answer(capsys, monkeypatch):
    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr("gap_utils.checks.lesson_06._resnet_sizes", stop)
    with pytest.raises(KeyboardInterrupt):
        checks.check_halving_layer(lambda: "fc")
    assert capsys.readouterr().out == "✗ The check was stopped before it was done.\n"


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A notebook's Python, without a notebook."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shell.run_cell("from gap_utils import checks", store_history=True)
    yield shell
    shell.restore_sys_module_state()  # it has put a module of its own in the place of __main__
    InteractiveShell.clear_instance()


STUB = 'def my_gap(x):\n    """Average."""\n    raise NotImplementedError'
RIGHT = "def my_gap(x):\n    return x.mean((2, 3))"
OLDER = "the cell that you ran last for my_gap is not the one that made it."


def message_after(shell, *cells):
    for cell in cells:
        shell.run_cell(cell, store_history=True)
    return shell.run_cell("checks.check_gap(my_gap)", store_history=True).result.message


def test_the_version_of_the_last_cell_is_checked_in_silence(shell):
    assert message_after(shell, STUB) == NOT_ATTEMPTED
    assert OLDER not in message_after(shell, RIGHT)
    assert OLDER not in message_after(shell, "# def my_gap is above", "'def my_gap'")
    assert OLDER not in message_after(shell, "def other(x):\n    return x", "my_gap = other")
    assert OLDER not in message_after(shell, f"%%time\n{RIGHT}")
    assert OLDER not in message_after(shell, "my_gap = lambda x: x.mean((2, 3))")
    both = shell.run_cell(f"{RIGHT}\n\nchecks.check_gap(my_gap)", store_history=True)
    assert OLDER not in both.result.message


@pytest.mark.parametrize(
    "cell",
    [
        "def my_gap(x)\n    return x.mean((2, 3))",
        "def my_gap(x):\n    return x.mean((2, 3)",
        "my_gap = lambda x: x.mean((2, 3)",
        "1 / 0\ndef my_gap(x):\n    return x.amax((2, 3))",
        "raise KeyboardInterrupt\ndef my_gap(x):\n    return x.amax((2, 3))",
    ],
)
def test_an_older_version_than_that_of_the_last_cell_is_said_to_be_one(shell, cell):
    message = message_after(shell, STUB, cell)
    assert message.startswith(f"{NOT_ATTEMPTED}\nThat is about an older version: ")
    assert OLDER in message
    message = message_after(shell, RIGHT, cell)
    assert message.startswith("✓ Right")
    assert OLDER in message
    assert OLDER not in message_after(shell, RIGHT)


def never_removed(x, pool):
    pool.register_forward_hook(lambda *_: None)
    return pool(x).flatten(-3)


def for_every_module(x, pool):
    handles.append(nn.modules.module.register_module_forward_hook(lambda *_: None))
    return pool(x).flatten(-3)


def another_mode(x, pool):
    return pool.eval()(x).flatten(-3)


def another_forward(x, pool):
    forward = pool.forward
    pool.forward = lambda x: forward(x).flatten(-3)
    return pool(x)


def another_method(x, pool):
    pool.half = None  # as the forward_head of a network may be
    return pool(x).flatten(-3)


handles = []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (never_removed, "your hook stays. Call handle.remove()."),
        (for_every_module, "your hook stays. Call handle.remove()."),
        (another_mode, "it is left in another mode, training or evaluation. Put it back."),
        (another_forward, "a layer has another forward than before."),
        (another_method, "a layer has another half than before."),
    ],
)
def test_a_layer_is_left_as_it_was(answer, said):
    feedback = checks.check_pool_any_batch(answer)
    while handles:
        handles.pop().remove()
    assert not feedback.passed
    assert f"the result is right, but your function changed its input: {said}" in feedback.message


def test_numbers_and_what_learns_are_left_as_they_were():
    def frozen(x, linear):
        return linear.requires_grad_(False)(x.mean((2, 3)))

    assert "other parameters learn than before" in checks.check_pool_then_linear(frozen).message

    def nearly_zero(x):
        pooled = x.mean((2, 3))
        x += 1e-6  # less than any tolerance
        return pooled

    assert "the numbers are others. Work on a copy." in checks.check_gap(nearly_zero).message
