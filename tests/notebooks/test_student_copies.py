"""The copies for a class: no solution is left in them, and they run where they are."""

from __future__ import annotations

import re

import nbformat
import pytest
from nbclient import NotebookClient

from nbval_pictures import ROOT
from tools import make_student

LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TAUGHT = {"handle.remove()"}  # lines that a lesson shows before it asks for them
lessons = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    folder = tmp_path_factory.mktemp("class") / "student"
    make_student.main([str(folder)])
    return folder


def read(path):
    return nbformat.read(path, as_version=4)


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


@lessons
def test_nothing_of_a_solution_is_left(path, student):
    original, copy = read(path), read(student / "notebooks" / path.name)
    given = "\n".join(
        cell.source for tag in ("exercise", "check") for cell in tagged(original, tag)
    )
    solutions = tagged(original, "solution")
    lines = {line.strip() for cell in solutions for line in cell.source.splitlines()}
    lines = {line for line in lines if line and line not in given} - TAUGHT
    assert len(lines) >= len(solutions)
    text = "\n".join(cell.source for cell in copy.cells)
    assert not [line for line in lines if line in text]
    assert not re.search(r"\bsolutions?\b|✓ Right:", nbformat.writes(copy), re.IGNORECASE)


@lessons
def test_all_else_of_the_lesson_is_left(path, student):
    original, copy = read(path), read(student / "notebooks" / path.name)
    solutions = tagged(original, "solution")
    kept = [cell for cell in original.cells if cell not in solutions]
    assert [cell.id for cell in copy.cells] == [cell.id for cell in kept]
    changed = [new.source for new, old in zip(copy.cells, kept, strict=True) if new != old]
    assert changed[-1] + "\n\n## Solutions" == kept[-1].source
    # in lesson 00 the sentence about them too
    assert len(changed) == (2 if path == LESSONS[0] else 1)
    assert (copy.metadata, copy.nbformat_minor) == (original.metadata, original.nbformat_minor)


@lessons
def test_links_lead_somewhere(path, student):
    cells = read(student / "notebooks" / path.name).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(((?!https?:)[^)#\s]+)", text)
    assert links
    for link in links:
        assert (student / "notebooks" / link).exists(), link


def test_a_copy_runs_and_its_check_answers(student):
    """The shortest lesson, with a wrong answer and then a right one."""
    notebook = read(student / "notebooks" / LESSONS[0].name)
    (stub,), (check,) = tagged(notebook, "exercise"), tagged(notebook, "check")
    place = notebook.cells.index(check) + 1
    for factors in ("1] * shape[2", "2] * shape[3"):
        answer = stub.source.replace("raise NotImplementedError", f"return shape[{factors}]")
        notebook.cells.insert(place, nbformat.v4.new_code_cell(f"{answer}\n\n{check.source}"))
        place += 1
    where = nbformat.v4.new_code_cell("import gap_utils\n\ngap_utils.__file__")
    notebook.cells.append(where)
    resources = {"metadata": {"path": str(student / "notebooks")}}
    NotebookClient(notebook, kernel_name="python3", timeout=120, resources=resources).execute()
    said = [cell.outputs[0].data["text/plain"][:8] for cell in notebook.cells[place - 3 : place]]
    assert said == ["not atte", "✗ On the", "✓ Right:"]
    assert where.outputs[0].data["text/plain"] == repr(str(student / "gap_utils" / "__init__.py"))


def test_what_a_class_needs_is_there_and_nothing_else(student):
    assert {path.name for path in student.iterdir()} == {
        "LICENSE",
        "LICENSES",
        "README.md",
        "environment.yml",
        "gap_utils",
        "notebooks",
        "pyproject.toml",
        "requirements.txt",
        "tools",
    }
    assert [path.name for path in (student / "tools").iterdir()] == ["run_study.py"]
    assert not [*student.rglob("__pycache__")]


def test_a_badge_that_opens_the_published_lesson_is_left_out(tmp_path):
    notebook = read(LESSONS[1])
    badges = "[![Open in Colab](a)](b) [![Open in Binder](c)](d)\n\n"
    title = notebook.cells[0].source
    notebook.cells[0].source = title.replace("\n\n", f"\n\n{badges}", 1)
    nbformat.write(notebook, tmp_path / "a.ipynb")
    assert make_student.without_solutions(tmp_path / "a.ipynb").cells[0].source == title


def test_a_word_about_solutions_is_refused(tmp_path):
    notebook = read(LESSONS[1])
    notebook.cells[3].source = "The solution is 4.0625."
    nbformat.write(notebook, tmp_path / "a.ipynb")
    with pytest.raises(ValueError, match=r"^a.ipynb: expected no word .* got 'The solution is 4"):
        make_student.without_solutions(tmp_path / "a.ipynb")


@pytest.mark.parametrize("is_file", [True, False])
def test_nothing_is_written_over(is_file, tmp_path):
    path = tmp_path / "student"
    answer = path if is_file else path / "answer.ipynb"
    answer.parent.mkdir(exist_ok=True)
    answer.write_text("a learner's")
    with pytest.raises(SystemExit, match=r"expected a new or empty folder, got .*student; remove"):
        make_student.main([str(path)])
    assert answer.read_text() == "a learner's"
