"""The wrong answers that the site shows: each stands for its stub, and its mistake is named."""

from __future__ import annotations

import ast
import inspect

import matplotlib
import nbformat
import pytest
import torch

from docs import wrong_answers
from gap_utils.checks.calling import Feedback
from nbval_pictures import ROOT
from tools.lesson_cells import cells_needed

LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SAID = {  # of what each check says, a part that names the mistake
    "numbers_per_map": "That counts all channels of one picture.",
    "my_gap": "That averages axes 1 and 2.",
    "my_max_pool": "The result has the right size, but its windows overlap",
    "gap_after_change": "The average moves by the whole change.",
    "my_output_size": "The first window needs no step: add 1.",
    "my_min_pool": "The numbers must change sign before the pooling too.",
    "gap_from_windows": "That is the mean of the window means.",
    "flatten_parameters": "The biases are missing",
    "my_head": "The weight is (K, C): one row for each class.",
    "keras_to_torch": "The columns still stand in the order H, W, C",
    "pool_any_batch": "With one picture the batch axis is gone",
    "pool_channels_last": "That averages width and channels",
    "pool_any_size": "A window with one side given is a square.",
    "pool_any_axes": "That is right for pictures.",
    "pool_then_linear": "Flatten between them.",
    "any_size_network": "view(-1, 1, 28, 28) cuts larger pictures into pieces",
    "loss_floor": "0 is the loss where the right class has the probability 1.",
    "mended_loss": "The softmax still squeezes the logits",
    "accuracy": "True and False have no mean in PyTorch.",
    "head_claims": "flatten has 2,890: fewer parameters are not higher accuracy.",
    "supported_claims": "Those that hold have a lead of over 3 times the spread.",
    "shift_step": "That adds the strides.",
    "gmp_gradient": "Several equal maxima share the 1.",
    "canvas_sizes": "To take a size is not to be right at it.",
    "maps_of": "the ReLU behind this layer works in place",
    "halving_layer": "Yes, but layer4 has layers inside",
    "winning_maps": "argmax gives their places.",
    "cam_by_einsum": "The positions have been added up.",
    "maximum_is_different": "Let the two maps have their maxima at different positions",
    "families": "NiN is not A: its paper puts a ReLU between",
    "iou": "Where the boxes do not meet, a length of the shared part comes out below 0.",
    "gap_locations": "alexnet is not 'avgpool': avgpool makes 6×6 positions",
    "features_of": "These are the numbers before final_act.",
    "mean_of_patches": "That leaves one token out, always.",
    "new_head": "Behind nn.AdaptiveAvgPool2d(1) the shape is (N, C, 1, 1): flatten it.",
    "refused_batches": "That is how many pictures the last batch has",
    "twin_maps": "GMP gives 2 and 3, so it tells them apart.",
    "my_gem": "Python reads ** 1 / p as (... ** 1) / p.",
    "masked_mean": "The padding adds 0, and yet it is counted",
    "squeeze_and_excite": "The gates are (N, C), and * lines shapes up from the right.",
}


def cells_tagged(notebook, tag: str) -> list:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def function_in(cell) -> ast.FunctionDef:
    """The function that a stub defines, and nothing else."""
    (function,) = ast.parse(cell.source).body
    return function


def stubs(paths=LESSONS) -> list[ast.FunctionDef]:
    notebooks = [nbformat.read(path, as_version=4) for path in paths]
    return [function_in(cell) for each in notebooks for cell in cells_tagged(each, "exercise")]


def source_of(name: str) -> str:
    return inspect.getsource(getattr(wrong_answers, name))


def run_wrong_answers(path) -> dict[str, Feedback]:
    """What the checks of a lesson say, by name, with a wrong answer in place of each stub."""
    notebook = nbformat.read(path, as_version=4)
    exercises, checks = (cells_tagged(notebook, tag) for tag in ("exercise", "check"))
    _setup, *cells = cells_needed(notebook, [*exercises, *checks])  # gap_utils is there already
    names, said = {}, {}
    for cell in cells:
        if cell in exercises:
            last = function_in(cell).name
            exec(source_of(last), names)
        elif cell in checks:
            said[last] = eval(cell.source, names)
        else:
            exec(cell.source, names)
    return said


def test_each_exercise_has_one_wrong_answer_in_the_order_of_the_lessons():
    written = ast.parse(inspect.getsource(wrong_answers)).body
    answers = [each.name for each in written if isinstance(each, ast.FunctionDef)]
    assert answers == [stub.name for stub in stubs()] == list(SAID)


@pytest.mark.parametrize("stub", stubs(), ids=lambda stub: stub.name)
def test_it_can_stand_where_the_stub_stands(stub):
    source = source_of(stub.name)
    (answer,) = ast.parse(source).body
    assert ast.unparse(answer.args) == ast.unparse(stub.args)
    assert ast.get_docstring(answer) is None
    assert 2 <= len(source.splitlines()) <= 8


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_check_names_the_mistake(path):
    with matplotlib.rc_context(), torch.random.fork_rng(devices=[]):  # the imports set both
        said = run_wrong_answers(path)
    assert [*said] == [stub.name for stub in stubs([path])]
    for name, feedback in said.items():
        assert isinstance(feedback, Feedback)
        assert not feedback.passed, name
        assert feedback.message.startswith("✗ ")
        assert SAID[name] in feedback.message
