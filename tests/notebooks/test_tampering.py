"""The net catches fish: each way of spoiling a lesson makes the suite fail.

A spoilt cell runs behind the cells of its lesson that it needs, and not behind all others.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from copy import deepcopy
from io import BytesIO
from xml.etree import ElementTree

import nbformat
import pytest
import test_structure
from PIL import Image

from nbval_pictures import ROOT
from tools.lesson_cells import cells_needed

LESSONS = {path.name[:2]: path for path in test_structure.LESSONS}


def copy_parts(folder, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)


def find(notebook, text):
    found = [c for c in notebook.cells if c.cell_type == "code" and text in c.source]
    assert found, f"no cell holds {text!r}"
    return found[0]


def encode(image, kind: str) -> str:
    buffer = BytesIO()
    image.save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


# Ways to spoil a cell.


def edit(old: str, new: str):
    def change(cell):
        assert old in cell.source
        cell.source = cell.source.replace(old, new)

    return change


def store(old: str, new: str):
    """Another text than the cell prints or returns."""

    def change(cell):
        output = next(output for output in cell.outputs if old in test_structure.text_of(output))
        texts, key = (output, "text") if "text" in output else (output.data, "text/plain")
        texts[key] = texts[key].replace(old, new)

    return change


def paint_over(*box: int):
    """A black box over the stored picture."""

    def change(cell):
        data = cell.outputs[0].data
        image = Image.open(BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
        image.paste((0, 0, 0), box)
        data["image/png"] = encode(image, "PNG")

    return change


def show_another_picture(cell):
    cell.outputs[0].data["image/png"] = encode(Image.new("RGB", (40, 30)), "PNG")


def remove_the_picture(cell):
    del cell.outputs[0].data["image/png"]


def draw_again(cell):
    cell.source += "\nplot_maps({'the map': [[2, 2, 7, 3], [3, 1, 2, 7]]})"


THE_MAP = ['plot_maps({"the map": numbers})']
SPOILT = [  # lesson, texts that name its cells, how the first is spoilt, what nbval says
    ("01", ["total, count, total / count"], store("4.0625", "4.0626"), "4.0626"),
    ("01", ["Question("], edit("about 2", "about 3"), "about 3"),
    ("01", ["x.mean(dim=(2, 3))"], edit("x.mean(", "x.sum("), "tensor"),
    ("01", THE_MAP, paint_over(100, 100, 104, 104), "16 of"),
    ("01", ["PoolLab(numbers)"], show_another_picture, "picture mismatch: stored 40×30"),
    ("01", THE_MAP, remove_the_picture, "stored [], drawn ['image/png']"),
    ("01", THE_MAP, draw_again, "3 1 2 7"),
    ("01", ["# Solution of exercise 1"], edit("mean", "sum"), "That is the sum of each channel"),
    ("01", ["kernel_size=5"], edit("=5", "=6"), "mismatch 'evalue'"),
    ("02", ["trace_shapes(gap_network"], store("18,370", "18,371"), "18,371"),
    ("02", ["HeadLab(channels=32"], paint_over(600, 100, 602, 102), "4 of"),
    (
        "02",
        ["def block(inside, outside)", "trace_shapes(gap_network"],
        edit("kernel_size=3, padding=1", "kernel_size=3"),
        "MisfitError",
    ),
    ("02", ["nhwc = tiny"], edit("(0, 2, 3, 1)", "(0, 3, 2, 1)"), "11, 21, 14, 24"),
    (
        "03",
        ["# Solution of exercise 1"],
        edit(".flatten(-3)\n", ".squeeze()\n"),
        "With one picture the batch axis is gone",
    ),
    ("03", ["alone.argmax(1)"], edit("alone.argmax(1)", "alone.argmax()"), "Missing output fields"),
    ("03", ["right, wrong = x.mean((2, 3))"], store("8.5", "8.6"), "8.6"),
    ("04", ["perfect = torch.full"], store("1.46115", "1.46116"), "1.46116"),
    ("04", ["axis.imshow"], edit("images[place, 0]", "images[place + 1, 0]"), "picture mismatch"),
    (
        "04",
        ['network = build_convnet("gap")'],
        edit('"gap"', '"flatten"'),
        "not enough values to unpack",
    ),
]


def cell_showing(**data: str):
    """A cell that shows a value, and has it stored."""
    data = {kind.replace("_", "/"): value for kind, value in data.items()}
    output = nbformat.v4.new_output("display_data", data)
    return nbformat.v4.new_code_cell(f"display({data!r}, raw=True)", outputs=[output])


def picture_cell(colour: tuple[int, ...], kind: str):
    """A cell that shows a picture of one colour, and has it stored."""
    mode = "RGBA" if len(colour) == 4 else "RGB"
    image = encode(Image.new(mode, (32, 32), colour), kind)
    return cell_showing(**{f"image_{kind.lower()}": image})


RED, GREEN, NOTHING = (255, 0, 0), (0, 255, 0), (255, 0, 0, 0)
PICTURES = [  # stored, drawn, what nbval says
    (picture_cell(RED, "PNG"), picture_cell(GREEN, "PNG"), "1024 of 1024 pixels changed"),
    (picture_cell(RED, "JPEG"), picture_cell(GREEN, "JPEG"), "1024 of 1024 pixels changed"),
    (picture_cell(RED, "GIF"), picture_cell(GREEN, "GIF"), "mismatch 'image/gif'"),
    (picture_cell(NOTHING, "PNG"), picture_cell((*RED, 255), "PNG"), "1024 of 1024 pixels"),
    (picture_cell(RED, "JPEG"), picture_cell(RED, "PNG"), "stored ['image/jpeg'], drawn"),
    (cell_showing(text_html="<b>4</b>"), cell_showing(text_html="<b>5</b>"), "'text/html'"),
]
SHOWN_TWICE = cell_showing(text_plain="4", text_html='<img src="data:image/png;base64,drawn">')
SHOWN_TWICE.outputs[0].data["text/html"] = '<img src="data:image/png;base64,stored">'


def spoil_lesson(lesson: str) -> tuple[list, list]:
    """The cells of a lesson that its spoilt ones need, and the spoilt ones."""
    notebook = nbformat.read(LESSONS[lesson], as_version=4)
    whole, spoilt = [], []
    for texts, change in [row[1:3] for row in SPOILT if row[0] == lesson]:
        cells = [find(notebook, text) for text in texts]
        whole += cells
        first, *others = deepcopy(cells)
        change(first)
        for cell in others:  # joined, so that it is one cell that must fail
            first.source, first.outputs = f"{first.source}\n{cell.source}", cell.outputs
        spoilt.append(first)
    return cells_needed(notebook, whole), spoilt


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """What nbval says of the cells, nothing of one that passes: a list for the unspoilt cells
    and a list for the spoilt ones, by lesson."""
    folder = tmp_path_factory.mktemp("spoilt")
    copy_parts(
        folder, "gap_utils", "tests/support", "conftest.py", "pyproject.toml", "requirements.txt"
    )
    (folder / "notebooks").mkdir()
    notebooks = {lesson: spoil_lesson(lesson) for lesson in sorted({row[0] for row in SPOILT})}
    stored, drawn, _ = zip(*PICTURES, strict=True)
    altered = [{**b, "outputs": a.outputs} for a, b in zip(stored, drawn, strict=True)]
    notebooks["pictures"] = [*stored, *drawn, SHOWN_TWICE], altered
    for name, cells in notebooks.items():
        notebook = nbformat.v4.new_notebook()
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
        for number, cell in enumerate([*cells[0], *cells[1]]):
            cell = nbformat.from_dict({**cell, "id": f"cell-{number}", "execution_count": 1})
            notebook.cells.append(cell)
        nbformat.write(notebook, folder / f"notebooks/{name}.ipynb")
    nbval = ["--nbval", "-vv", "-p", "no:cacheprovider", "--junitxml=report.xml", "notebooks"]
    command = [sys.executable, "-m", "pytest", *nbval]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 1, result.stdout
    cases = ElementTree.parse(folder / "report.xml").iter("testcase")
    said = ["".join(case.itertext()) for case in cases]  # in the order of the notebooks
    assert len(said) == sum(len(a) + len(b) for a, b in notebooks.values())
    verdicts = {}
    for name, cells in notebooks.items():
        verdicts[name] = [[said.pop(0) for _ in part] for part in cells]
    return verdicts


def test_cells_that_are_not_spoilt_pass(verdicts):
    unspoilt = {name: said for name, (said, _) in verdicts.items()}
    assert unspoilt == {name: [""] * len(said) for name, said in unspoilt.items()}


@pytest.mark.parametrize(
    ("lesson", "number", "said"),
    [(row[0], [r for r in SPOILT if r[0] == row[0]].index(row), row[3]) for row in SPOILT]
    + [("pictures", number, said) for number, (_, _, said) in enumerate(PICTURES)],
)
def test_nbval_catches(verdicts, lesson, number, said):
    assert said in verdicts[lesson][1][number]


def forget_to_run_a_cell(notebook):
    cell = find(notebook, "total, count, total / count")
    cell.execution_count, cell.outputs = None, []


def keep_widget_state(notebook):
    notebook.metadata["widgets"] = {}


def change_the_setup_cell(notebook):
    notebook.cells[1].source += "\n"


def drop_a_solution(notebook):
    notebook.cells.pop()


def unfold_a_question(notebook):
    del find(notebook, "Question(").metadata["jupyter"]


def leave_an_answer_in_view(notebook):
    del find(notebook, "total, count, total / count").metadata["collapsed"]


def show_its_first_line(notebook):
    find(notebook, "total, count, total / count").outputs.pop(0)


def mark_an_answer_as_a_cover(notebook):
    find(notebook, "total, count, total / count").outputs[1].metadata["cover"] = True


def answer_no_question(notebook):
    find(notebook, "import").metadata["tags"] = ["reveal"]


def ask_twice(notebook):
    place = notebook.cells.index(find(notebook, "Question("))
    notebook.cells.insert(place, nbformat.from_dict({**notebook.cells[place], "id": "again"}))


def close_no_fold(notebook):
    cell = next(cell for cell in notebook.cells if "</details>" in cell.source)
    cell.source = cell.source.replace("\n\n</details>", "")


def glue_a_fold(notebook):
    cell = next(cell for cell in notebook.cells if "</details>" in cell.source)
    cell.source = cell.source.replace("</summary>\n\n", "</summary>\n")


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
        (unfold_a_question, "test_questions_are_folded_and_come_before_their_answer"),
        (leave_an_answer_in_view, "test_what_answers_a_question_follows_it_and_is_out_of_view"),
        (show_its_first_line, "test_what_answers_a_question_follows_it_and_is_out_of_view"),
        (
            mark_an_answer_as_a_cover,
            "test_what_answers_a_question_follows_it_and_is_out_of_view",
        ),
        (answer_no_question, "test_what_answers_a_question_follows_it_and_is_out_of_view"),
        (ask_twice, "test_what_answers_a_question_follows_it_and_is_out_of_view"),
        (close_no_fold, "test_what_gives_an_answer_away_opens_with_a_click"),
        (glue_a_fold, "test_what_gives_an_answer_away_opens_with_a_click"),
        (break_a_link, "test_links_to_local_files_lead_somewhere"),
    ],
)
def test_the_structure_tests_catch(change, test, tmp_path):
    copy_parts(tmp_path, "gap_utils", "notebooks")  # what links lead to
    path = tmp_path / LESSONS["01"].relative_to(ROOT)
    check = getattr(test_structure, test)
    check(path)
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    nbformat.write(notebook, path)
    with pytest.raises(AssertionError):
        check(path)
