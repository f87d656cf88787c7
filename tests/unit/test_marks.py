"""Marks without nbgrader: which cells are run, what counts, and what is said."""

from __future__ import annotations

import ast
import csv
import json

import nbformat
import pytest

from gap_utils import checks
from gap_utils.checks import __main__ as command
from gap_utils.checks.cells import cells_needed, names_in
from gap_utils.checks.marking import (
    EXERCISES,
    Mark,
    _is_changed,
    lesson_of,
    mark,
    read_answers,
)
from nbval_pictures import ROOT

LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
IMPORTS = "import torch\nimport torch.nn.functional as F\nfrom gap_utils import checks"
SUM = "def my_gap(features):\n    return features.sum((2, 3))"


def write(path, *cells):
    """A notebook of code; a pair is the kind or the tag of a cell, and its source."""
    pairs = [cell if isinstance(cell, tuple) else ("code", cell) for cell in cells]
    content = [
        {
            "cell_type": "markdown" if kind == "markdown" else "code",
            "source": source,
            "metadata": {} if kind in ("code", "markdown") else {"tags": [kind]},
        }
        for kind, source in pairs
    ]
    path.write_text(json.dumps({"cells": content}), encoding="utf-8")
    return path


# Which cells are run


@pytest.mark.parametrize(
    ("cells", "needed"),
    [
        (["import torch", "x = 1", "def f(y):\n    return torch.ones(y)"], [0, 2]),
        (["def f(x):\n    return x", "x = 5", "y = f(x)"], [0]),  # an argument is no variable
        (["a = 1", "b = a", "a = 2", "def f():\n    return b"], [0, 1, 3]),
        (["def f():\n    return 1", "def f():\n    return 2"], [1]),
        (["def f():\n    return g()", "def g():\n    return 1"], [0, 1]),  # below it
        (["class G:\n    pass", "f = G()", "G = 3"], [0, 1]),
        (["t = [0]", "t[0] = 5", "u = t", "def f():\n    return t"], [0, 1, 3]),
        (["n = 0", "n += 1", "f = n"], [0, 1, 2]),
        (["n = 0", "if n:\n    n = 1", "f = n"], [0, 1, 2]),
        (["from math import *", "x = 1", "def f():\n    return floor(2)"], [0, 2]),
        (["%matplotlib inline\nimport torch", "%%time\ndef f():\n    return torch.e"], [0, 1]),
        (["def f():\n    return 1", "while True: pass", "def f(:\n    return 2"], [2]),
        (["x = 1", "def g():\n    global x\n    x = 2\n\ng()", "f = x"], [0, 1, 2]),
        (["q = 1", "r = [q for q in [2]]", "f = q"], [0, 2]),
        (["q = [2]", "q = [q for q in q]", "f = q"], [0, 1, 2]),
        (["%time q = 3", "def f():\n    return q"], [0, 1]),
        (["x = [1", "def f(x):\n    return [i for i in x]", "i = 3"], [1]),
    ],
)
def test_the_cells_that_a_name_needs(cells, needed):
    assert cells_needed(cells, "f") == needed


def test_the_names_of_a_cell():
    found = names_in("a = b\nc = a\nfor i in d:\n    e[i] = i\nlambda x: x + g")
    assert found.uses == {"b", "d", "e", "g"}
    assert found.sets == {"a", "c"}
    assert found.changes == {"i", "e"}


# Which lesson and which exercises


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_exercises_are_those_of_the_lesson(path):
    cells = nbformat.read(path, as_version=4).cells
    stubs, calls = (
        [ast.parse(cell.source).body[0] for cell in cells if tag in cell.metadata.get("tags", [])]
        for tag in ("exercise", "check")
    )
    called = [ast.unparse(call.value.func).rpartition(".")[2] for call in calls]
    answers = EXERCISES[path.name[:2]]
    assert answers == dict(zip([stub.name for stub in stubs], called, strict=True))
    for name in called:
        assert getattr(checks, name).__module__ == f"gap_utils.checks.lesson_{path.name[:2]}"
    code = read_answers(path)
    assert len(code) == sum(cell.cell_type == "code" for cell in cells) - len(stubs)
    assert lesson_of(code) == path.name[:2]
    assert not any(_is_changed(code, *exercise) for exercise in answers.items())


def test_half_an_emoji_is_replaced(tmp_path):
    assert read_answers(write(tmp_path / "a.ipynb", "x = '\ud83d'")) == ["x = '?'"]


def test_solutions_are_no_answers(tmp_path):
    lesson = write(
        tmp_path / "a.ipynb",
        "# Solution of exercise 1, copied",
        ("solution", "x = 1"),
        ("markdown", "## Solutions"),
        "# Solution of exercise 1, whose tag got lost",
        "x = 2",
    )
    assert read_answers(lesson) == ["# Solution of exercise 1, copied", "x = 2"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected a notebook of format 4, got another file"),
        (b"\xff\xfe\x00", "expected a notebook of format 4, got another file"),
        (b"[]", "expected a notebook of format 4, got another file"),
        (b'{"worksheets": []}', "expected a notebook of format 4, got another file"),
        (
            b'{"cells": [{"cell_type": "code", "source": "", "metadata": {"tags": null}}]}',
            "another file",
        ),
        (b'{"cells": [1]}', "expected a notebook of format 4, got another file"),
        (b"[" * 100_000, "expected a notebook of format 4, got another file"),
        (b'{"cells": []}', "got a notebook with none of their exercises"),
        (None, "expected a notebook, got: No such file or directory"),
    ],
)
def test_what_is_no_lesson_is_refused(content, said, tmp_path):
    path = tmp_path / "a.ipynb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError) as refused:
        mark(path)
    assert str(refused.value).startswith(f"{path}: expected ")
    assert str(refused.value).endswith(said)


@pytest.mark.parametrize(
    ("cells", "changed"),
    [
        (["checks.check_gap(my_gap)"], False),
        (["check_gap(my_gap)  # mine", "!ls", "x = ("], False),
        (["x = 1", "checks.check_gap(my_gap)", "checks.check_gap(my_gap)"], False),  # moved, twice
        ([], True),
        (["print(checks.check_gap(my_gap))"], True),
        (["checks.check_gap(torch.mean)"], True),
        (["check_gap = print", "check_gap(my_gap)"], True),
        (["def check_gap(x): pass", "check_gap(my_gap)"], True),
        (["checks.check_gap = print", "checks.check_gap(my_gap)"], True),
        (["calling.Feedback = dict", "checks.check_gap(my_gap)"], True),
    ],
)
def test_a_changed_check_is_seen(cells, changed):
    assert _is_changed(cells, "my_gap", "check_gap") == changed


# Marks, in a kernel


@pytest.mark.slow
def test_a_lesson_is_marked(tmp_path):
    """All that can happen, in one file: a kernel takes seconds to start."""
    cheat = """
import sys
from pathlib import Path
from gap_utils.checks import calling, grading, lesson_01

calling.Feedback.__init__ = lambda self, *given: None
calling.Feedback.passed = True
lesson_01.grade = lambda *given, **more: calling.Feedback(True, "")
checks.check_gap = lesson_01.grade
sys.modules["gap_utils.checks.lesson_01"] = checks
fake = Path("fake", "gap_utils", "checks")
fake.mkdir(parents=True)
(fake.parent / "__init__.py").touch()
(fake / "__init__.py").write_text("def check_gap(answer): return Feedback\\n\\nclass Feedback:\\n"
    "    passed, message = True, ''")
sys.path.insert(0, "fake")
"""
    at_the_call = "    from gap_utils.checks import grading\n    grading._problem = print\n"
    lesson = write(
        tmp_path / "a.ipynb",
        IMPORTS,
        "while True:\n    input()",
        cheat + SUM.replace(":\n", f":\n{at_the_call}"),
        "check_gap = lambda answer: 'right'",
        "def my_max_pool(image):\n    while True:\n        print('x' * 10_000)",
        "def gap_after_change(gap, count, old, new):\n    return gap + share(new - old, count)",
        "def share(change, count):\n    return change / count",
        "checks.check_gap_after_change(gap_after_change)",
        "rounded = 1 // 0\n",
        "def my_output_size(*given):\n    return rounded",
        "def my_min_pool(x:\n    return x",
        "import os\n\ndef gap_from_windows(means, counts):\n    os._exit(0)",
        ("solution", "def my_min_pool(x):\n    return -F.max_pool2d(-x, 2)"),
    )
    number, marks = mark(lesson, seconds=2)
    found = [*marks]
    assert number == "01"
    assert [(each.name, each.result, each.check_changed) for each in found] == [
        ("my_gap", "not right yet", True),
        ("my_max_pool", "stopped", True),
        ("gap_after_change", "passed", False),
        ("my_output_size", "a cell before it failed", True),
        ("my_min_pool", "its cell failed", True),
        ("gap_from_windows", "stopped", True),
    ]
    assert [each.number for each in found] == [1, 2, 3, 4, 5, 6]
    said = [each.message for each in found]
    assert said[0].endswith(
        "\nThat is the sum of each channel. Divide it by the number of positions, H * W."
    )
    assert said[1:4] == [
        "the code did not end within 2 s",
        "",
        "ZeroDivisionError: integer division or modulo by zero",
    ]
    assert said[4] == "SyntaxError: '(' was never closed (line 1)"
    assert said[5] == "the process ended before the code did"


# What is printed


@pytest.fixture
def two_marks(monkeypatch):
    """Marks that need no kernel, of every file but those that are called no.ipynb."""
    wrong = Mark(2, "my_max_pool", "not right yet", "On 1: 2\nThat is\x1b \ud83d average.", True)

    def mark(path, seconds):
        if path.name == "no.ipynb":
            raise ValueError(f"{path}: expected another")
        return "01", iter([Mark(1, "my_gap", "passed"), wrong])

    monkeypatch.setattr(command, "mark", mark)


def test_a_line_for_each_exercise_and_a_total(two_marks, tmp_path, capsys):
    for name in ("b/x.ipynb", "a/x.ipynb", "a/.ipynb_checkpoints/x.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name)
    table = tmp_path / "marks.csv"
    assert command.main([str(tmp_path), "--csv", str(table)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        line
        for folder in "ab"
        for line in (
            f"{tmp_path / folder / 'x.ipynb'}: lesson 01",
            "  1 my_gap               passed",
            "  2 my_max_pool          not right yet: That is? ? average.; its check was changed, "
            "which counts for nothing",
            "  1 of 2 passed",
            "",
        )
    ]
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [row["file"] for row in rows[::2]] == [str(tmp_path / f / "x.ipynb") for f in "ab"]
    assert [row["result"] for row in rows] == ["passed", "not right yet"] * 2
    assert rows[1]["message"] == "On 1: 2\nThat is\x1b ? average."


def test_the_others_are_marked_where_one_cannot_be_read(two_marks, capsys):
    assert command.main(["no.ipynb", "yes.ipynb"]) == 1
    said = capsys.readouterr()
    assert said.err == "no.ipynb: expected another\n"
    assert said.out.startswith("yes.ipynb: lesson 01\n")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "the following arguments are required: lessons"),
        (["--limit", "soon", "a.ipynb"], "expected seconds above 0, got soon"),
        (["--limit", "0", "a.ipynb"], "expected seconds above 0, got 0"),
        (["--csv", "a.ipynb", "b.ipynb"], "expected a name that ends in .csv, got a.ipynb"),
    ],
)
def test_a_command_line_that_cannot_be_meant_is_refused(given, said, capsys):
    with pytest.raises(SystemExit) as refused:
        command.main(given)
    assert refused.value.code == 2
    assert said in capsys.readouterr().err


def test_a_folder_without_notebooks_is_refused(tmp_path, capsys):
    assert command.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"{tmp_path}: expected a notebook, or a folder of them, got a folder of none\n"
    )
