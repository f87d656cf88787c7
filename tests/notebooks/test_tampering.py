"""The net catches fish: each way of spoiling a lesson makes the suite fail."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from io import BytesIO

import nbformat
import pytest
import test_structure
from PIL import Image

from nbval_pictures import ROOT

LESSON = "notebooks/01_pool_a_4x4_map.ipynb"
LESSON_02 = "notebooks/02_compare_flatten_and_gap.ipynb"
LESSON_04 = "notebooks/04_train_on_fashion_mnist.ipynb"
LESSON_03 = "notebooks/03_write_gap_in_pytorch.ipynb"
LESSON_05 = "notebooks/05_look_inside_feature_maps.ipynb"
LESSON_06 = "notebooks/06_explain_with_class_activation_maps.ipynb"
PARTS = (
    "gap_utils",
    "notebooks",
    "tests/support",
    "conftest.py",
    "pyproject.toml",
    "requirements.txt",
)


@pytest.fixture
def copy(tmp_path):
    """A copy of the project with what the lessons and their tests need."""
    for name in PARTS:
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    return tmp_path


def run(copy, *arguments) -> subprocess.CompletedProcess:
    """Run pytest in the copy, in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=copy, capture_output=True, text=True)


def tamper(copy, change, lesson=LESSON) -> None:
    path = copy / lesson
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    nbformat.write(notebook, path)


def find(notebook, text):
    found = [c for c in notebook.cells if c.cell_type == "code" and text in c.source]
    assert found, f"no cell holds {text!r}"
    return found[0]


def change_stored_number(notebook):
    output = find(notebook, "total, count, total / count").outputs[0]
    assert "4.0625" in output.data["text/plain"]
    output.data["text/plain"] = output.data["text/plain"].replace("4.0625", "4.0626")


def take_the_sum_for_the_mean(notebook):
    cell = find(notebook, "x.mean(dim=(2, 3))")
    cell.source = cell.source.replace("x.mean(", "x.sum(")


def paint_over(data, box) -> None:
    """Paint a black box over a stored picture."""
    image = Image.open(BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
    image.paste((0, 0, 0), box)
    buffer = BytesIO()
    image.save(buffer, "PNG")
    data["image/png"] = base64.b64encode(buffer.getvalue()).decode()


def paint_over_the_picture(notebook):
    data = find(notebook, 'plot_maps({"the map": numbers})').outputs[0].data
    paint_over(data, (100, 100, 104, 104))  # 16 pixels


def paint_over_the_lab(notebook):
    data = find(notebook, "PoolLab(numbers)").outputs[0].data
    stored = find(notebook, 'plot_maps({"the map": numbers})').outputs[0].data
    data["image/png"] = stored["image/png"]


def remove_the_picture(notebook):
    del find(notebook, 'plot_maps({"the map": numbers})').outputs[0].data["image/png"]


def change_a_number_drawn(notebook):
    cell = find(notebook, 'plot_maps({"the map": numbers})')
    cell.source += (
        "\nplot_maps({'the map': [[2, 2, 7, 3], [9, 4, 6, 1], [8, 5, 2, 4], [3, 1, 2, 7]]})"
    )


def spoil_a_solution(notebook):
    cell = find(notebook, "# Solution of exercise 1")
    cell.source = cell.source.replace("mean", "sum")


def change_the_shown_error(notebook):
    find(notebook, "kernel_size=5").source = "pool(x, kernel_size=6)"


def test_the_untouched_copy_passes(copy):
    result = run(copy, "--nbval", LESSON)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (change_stored_number, "4.0626"),
        (take_the_sum_for_the_mean, "tensor"),
        (paint_over_the_picture, "16 of"),
        (paint_over_the_lab, "picture mismatch"),
        (remove_the_picture, "stored 0 pictures, drawn 1"),
        (change_a_number_drawn, "3 1 2 7"),
        (spoil_a_solution, "That is the sum of each channel"),
        (change_the_shown_error, "mismatch 'evalue'"),
    ],
)
def test_nbval_catches(copy, change, said):
    tamper(copy, change)
    result = run(copy, "--nbval", "-x", LESSON)
    assert result.returncode == 1, result.stdout
    assert said in result.stdout


def change_a_row_of_the_table(notebook):
    data = find(notebook, "trace_shapes(gap_network").outputs[0].data
    assert "18,370" in data["text/plain"]
    data["text/plain"] = data["text/plain"].replace("18,370", "18,371")


def paint_over_the_heads(notebook):
    data = find(notebook, "HeadLab(channels=32").outputs[0].data
    paint_over(data, (600, 100, 602, 102))  # 4 pixels


def forget_the_padding(notebook):
    cell = find(notebook, "def block(inside, outside)")
    cell.source = cell.source.replace("kernel_size=3, padding=1", "kernel_size=3")


def squeeze_a_solution(notebook):
    cell = find(notebook, "# Solution of exercise 1")
    cell.source = cell.source.replace(".flatten(1)\n", ".squeeze()\n")


def mend_an_error_shown_on_purpose(notebook):
    cell = find(notebook, "nn.AvgPool2d(100, stride=0)")
    cell.source = cell.source.replace("stride=0", "stride=1")


def change_the_stored_floor(notebook):
    output = find(notebook, "perfect = torch.full").outputs[0]
    assert "1.46115" in output.text
    output.text = output.text.replace("1.46115", "1.46116")


def show_other_clothes(notebook):
    cell = find(notebook, "axis.imshow")
    cell.source = cell.source.replace(
        "data.test.images[place, 0]", "data.test.images[place + 1, 0]"
    )


def take_another_head(notebook):
    cell = find(notebook, 'network = build_convnet("gap")')
    cell.source = cell.source.replace('"gap"', '"flatten"')


def look_at_another_layer(notebook):
    cell = find(notebook, "MapLab(model, images, labels, names, picture=2)")
    cell.source = cell.source.replace("picture=2", "picture=2, layer='body.14'")


def lose_what_speaks_against(notebook):
    cell = find(notebook, "weight, bias = model.head[0].weight.detach()")
    cell.source = cell.source.replace("weight.detach()", "weight.detach().relu()")


@pytest.mark.parametrize(
    ("lesson", "change", "said"),
    [
        (LESSON_02, change_a_row_of_the_table, "18,371"),
        (LESSON_02, paint_over_the_heads, "4 of"),
        (LESSON_02, forget_the_padding, "MisfitError"),
        (LESSON_03, squeeze_a_solution, "With one picture the batch axis is gone"),
        (LESSON_04, change_the_stored_floor, "1.46116"),
        (LESSON_04, show_other_clothes, "picture mismatch"),
        (LESSON_04, take_another_head, "not enough values to unpack"),
        (LESSON_05, look_at_another_layer, "body.14 (MaxPool2d): 32 maps"),
        (LESSON_06, lose_what_speaks_against, "classes: False"),
        (LESSON_03, mend_an_error_shown_on_purpose, "Missing output fields"),
    ],
)
def test_nbval_catches_in_later_lessons(copy, lesson, change, said):
    tamper(copy, change, lesson)
    result = run(copy, "--nbval", "-x", lesson)
    assert result.returncode == 1, result.stdout
    assert said in result.stdout


def forget_to_run_a_cell(notebook):
    cell = find(notebook, "total, count, total / count")
    cell.execution_count, cell.outputs = None, []


def keep_widget_state(notebook):
    notebook.metadata["widgets"] = {}


def change_the_setup_cell(notebook):
    notebook.cells[1].source += "\n"


def drop_a_solution(notebook):
    notebook.cells.pop()


def unfold_a_prediction(notebook):
    del find(notebook, "Prediction(").metadata["jupyter"]


def answer_an_exercise(notebook):
    find(notebook, "def my_gap").source = "def my_gap(features):\n    return features.mean((2, 3))"


def break_a_link(notebook):
    cell = notebook.cells[0]
    cell.source = cell.source.replace("00_start_here", "00_begin_here")


@pytest.mark.parametrize(
    ("change", "test"),
    [
        (forget_to_run_a_cell, "test_every_cell_was_run_in_order"),
        (keep_widget_state, "test_the_file_holds_nothing_but_the_lesson"),
        (change_the_setup_cell, "test_the_beginning_is_the_same_everywhere"),
        (drop_a_solution, "test_every_exercise_has_task_stub_check_and_solution"),
        (answer_an_exercise, "test_every_exercise_has_task_stub_check_and_solution"),
        (unfold_a_prediction, "test_predictions_are_folded_and_come_before_their_answer"),
        (break_a_link, "test_links_to_local_files_lead_somewhere"),
    ],
)
def test_the_structure_tests_catch(copy, change, test):
    check = getattr(test_structure, test)
    check(copy / LESSON)
    tamper(copy, change)
    with pytest.raises(AssertionError):
        check(copy / LESSON)
