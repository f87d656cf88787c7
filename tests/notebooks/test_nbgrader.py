"""A class of three, marked by nbgrader: what is right counts, and nothing else does.

nbgrader is in none of our requirements: whoever marks with it has it. It was tried with 0.9.6.
In an environment that has it beside what the lessons and the tests need:

    python -m pytest tests/notebooks/test_nbgrader.py
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from nbval_pictures import ROOT
from tools import make_student

pytest.importorskip("nbgrader", reason="nbgrader is not installed")

LESSON = "01_pool_a_4x4_map"
WRONG = "def {}(*given):\n    return given[0]"
LOOP = "def {}(*given):\n    while True:\n        pass"


def read(path):
    return nbformat.read(path, as_version=4)


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def nbgrader(course, *command):
    scripts = Path(sys.executable).parent  # nbgrader calls alembic
    environment = {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "nbgrader", *command]
    done = subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course whose lesson is released, with what three learners handed in, marked."""
    folder = tmp_path_factory.mktemp("nbgrader") / "course"
    make_student.main([str(folder), "--nbgrader"])
    nbgrader(folder, "generate_assignment", LESSON)
    released = folder / "release" / LESSON / f"{LESSON}.ipynb"
    original = read(ROOT / "notebooks" / f"{LESSON}.ipynb")
    checks = [cell.source for cell in tagged(original, "check")]
    right = [
        cell.source.removesuffix(check)
        for cell, check in zip(tagged(original, "solution"), checks, strict=True)
    ]
    for learner in ("right", "half right", "empty"):
        notebook = read(released)
        answers, tests = tagged(notebook, "exercise"), tagged(notebook, "check")
        for cell, source in zip(answers, right, strict=True):
            cell.source = source if learner != "empty" else cell.source
        if learner == "half right":
            names = [cell.metadata.nbgrader.grade_id for cell in answers]
            # another check counts for nothing, beside a right answer and beside a wrong one
            answers[0].source += "\ncheck_gap = checks.check_gap = print"
            answers[3].source = WRONG.format(names[3]) + "\nchecks.check_output_size = print"
            tests[3].source = "print('✓ Right')"
            answers[4].source = LOOP.format(names[4])
            answers[5].source = WRONG.format(names[5])
            answers[5].source += "\nfrom gap_utils.checks.calling import Feedback"
            answers[5].source += "\nFeedback.passed = True"
        handed_in = folder / "submitted" / learner / LESSON / released.name
        handed_in.parent.mkdir(parents=True)
        nbformat.write(notebook, handed_in)
    nbgrader(folder, "autograde", LESSON, "--Execute.timeout=10")
    nbgrader(folder, "export")
    return folder


def test_what_is_right_counts(course):
    with (course / "grades.csv").open(newline="") as file:
        scores = {
            row["student_id"]: (row["score"], row["max_score"]) for row in csv.DictReader(file)
        }
    assert scores == {
        "right": ("6.0", "6.0"),
        "half right": ("3.0", "6.0"),
        "empty": ("0.0", "6.0"),
    }


def test_a_class_gets_the_lesson_without_the_hidden_tests(course):
    original = read(ROOT / "notebooks" / f"{LESSON}.ipynb")
    released = read(course / "release" / LESSON / f"{LESSON}.ipynb")
    assert "HIDDEN" not in nbformat.writes(released)
    assert "original_check" not in nbformat.writes(released)
    for tag in ("exercise", "check"):
        stubs = [[cell.source for cell in tagged(each, tag)] for each in (released, original)]
        assert stubs[0] == stubs[1]
    assert [cell.get("outputs") for cell in released.cells] == [
        cell.get("outputs") for cell in original.cells if cell not in tagged(original, "solution")
    ]
