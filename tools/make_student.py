"""Copy the lessons without their solutions, for a class.

    python -m tools.make_student FOLDER [--nbgrader]

The folder gets `notebooks/` and what a learner needs to open, run and check them. It may be zipped,
or put on a hub. With --nbgrader it is the folder of a course: each lesson is an assignment whose
checks are its tests, and a right answer is worth one point.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat

from gap_utils.checks.marking import EXERCISES
from tools.set_home import BADGES

ROOT = Path(__file__).parent.parent
HEADING = "\n\n## Solutions"
# the one sentence about them, in lesson 00
SENTENCE = " Each lesson ends with its solutions, folded away."
FOLDERS = ("gap_utils", "LICENSES")
FILES = ("LICENSE", "pyproject.toml", "requirements.txt", "environment.yml")
UNNEEDED = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
START = """\
# Lessons on global average pooling

With Python 3.10 to 3.14, in this folder:

    python3 -m venv .venv
    .venv/bin/python -m pip install -r requirements.txt
    .venv/bin/jupyter lab notebooks/00_start_here.ipynb

On Windows:

    py -m venv .venv
    .venv\\Scripts\\python -m pip install -r requirements.txt
    .venv\\Scripts\\jupyter lab notebooks/00_start_here.ipynb

Write your answers into the lessons, and save. What you hand in are the files in `notebooks`.
"""
CONFIG = """\
c = get_config()
c.ClearSolutions.code_stub = {"python": "raise NotImplementedError"}  # as in the lessons
c.ClearOutput.enabled = False  # the pictures stay, and what a lesson folds away
c.Execute.timeout = 300  # seconds for a cell: some of them train a network
"""
HIDDEN = """
### BEGIN HIDDEN TESTS
from gap_utils.checks.marking import original_check

feedback = original_check("{check}")({answer})
assert feedback.passed, feedback
### END HIDDEN TESTS"""


def without_solutions(path: Path) -> Any:
    """Read a lesson; return it without its solutions and all that leads to them.

    Raises:
        ValueError: if a word about solutions would stay.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "solution" not in tags_of(cell)]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            # a badge opens the published lesson, with its solutions
            cell.source = BADGES.sub("", cell.source).removesuffix(HEADING).replace(SENTENCE, "")
        if re.search(r"\bsolutions?\b", cell.source, re.IGNORECASE):
            raise ValueError(
                f"{path.name}: expected no word about solutions outside of them, got "
                f"{cell.source[:60]!r} ..."
            )
    return notebook


def tags_of(cell: Any) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def with_tests(notebook: Any) -> Any:
    """Let the checks of a lesson be tests of nbgrader, and its stubs the answers."""
    lesson = notebook.cells[0].id[:2]
    stubs, checks = (
        [cell for cell in notebook.cells if tag in tags_of(cell)] for tag in ("exercise", "check")
    )
    for stub, test, (answer, check) in zip(stubs, checks, EXERCISES[lesson].items(), strict=True):
        # nbgrader puts its own stub in place of what stands between these lines
        stub.source = stub.source.replace(
            "    raise NotImplementedError",
            "    ### BEGIN SOLUTION\n    raise NotImplementedError\n    ### END SOLUTION",
        )
        test.source += HIDDEN.format(check=check, answer=answer)
        stub.metadata.nbgrader = mark_cell(answer, solution=True)
        test.metadata.nbgrader = {**mark_cell(check, grade=True, locked=True), "points": 1}
    return notebook


def mark_cell(name: str, **more: bool) -> dict[str, Any]:
    """What nbgrader wants to know of a cell."""
    plain = {"grade": False, "locked": False, "solution": False, "task": False}
    return {**plain, **more, "cell_type": "code", "grade_id": name, "schema_version": 3}


def make_class(folder: Path) -> None:
    """Write the lessons and what a learner needs beside them."""
    (folder / "notebooks").mkdir(parents=True)
    for path in lessons():
        notebook = without_solutions(path)
        nbformat.write(notebook, folder / "notebooks" / path.name)
        text = "\n".join(cell.source for cell in notebook.cells)
        for name in re.findall(r"\]\(\.\./((?!gap_utils/)[^)#]+)", text):  # a source that is shown
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=UNNEEDED)
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    (folder / "README.md").write_text(START, encoding="utf-8")
    print(f"{folder}: zip it, or put it on a hub; learners begin with its README.md")


def make_course(folder: Path) -> None:
    """Write the folder of a course of nbgrader."""
    for path in lessons():
        assignment = folder / "source" / path.stem
        assignment.mkdir(parents=True)
        notebook = with_tests(without_solutions(path))
        for cell in notebook.cells:
            if cell.cell_type == "markdown":  # each lesson has a folder of its own here
                cell.source = re.sub(r"\]\((\d\d_\w+)\.ipynb", r"](../\1/\1.ipynb", cell.source)
        nbformat.write(notebook, assignment / path.name)
    (folder / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    print(f"{folder}: go on there with nbgrader generate_assignment {lessons()[0].stem}")


def lessons() -> list[Path]:
    """The lessons, in their order."""
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def main(arguments: list[str] | None = None) -> None:
    """Make what the command line asks for, in a new folder."""
    start, usage, more = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(usage=usage.strip(), description=start, epilog=more)
    parser.add_argument("folder", type=Path, help="a new or empty one")
    parser.add_argument("--nbgrader", action="store_true", help="make a course of nbgrader")
    given = parser.parse_args(arguments)
    folder = given.folder
    # there may be learners' answers in it
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        sys.exit(f"expected a new or empty folder, got {folder}; remove it, or name another")
    (make_course if given.nbgrader else make_class)(folder)


if __name__ == "__main__":
    main()
