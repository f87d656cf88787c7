"""The code of the guides runs, each section by itself, and gives what stands behind `# →`."""

from __future__ import annotations

import ast
import doctest
import pkgutil
import re
import shutil
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

import gap_utils
from gap_utils import training
from nbval_pictures import ROOT

ENGINEERS, TEACHERS = ROOT / "docs" / "engineers.md", ROOT / "docs" / "teachers.md"
PHOTO = "gap_utils/assets/espresso.jpg"
SLOW = ("How do I add GAP to this model?", "How do I train it, and go on after a break?")
agrees = doctest.OutputChecker().check_output


def sections(path: Path) -> dict[str, str]:
    """Title -> Python code, of each section that has any."""
    parts = re.split(r"^## (.+)\n", path.read_text(encoding="utf-8"), flags=re.M)[1:]
    code = {
        title: "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return {title: lines for title, lines in code.items() if lines}


def steps(code: str) -> list[tuple[str, str]]:
    """Each statement, and what stands behind `# →` after it; empty where nothing does.

    It goes on in lines of the form `#   and so on`.
    """
    lines, statements = code.splitlines(), ast.parse(code).body
    ends = [*(statement.lineno - 1 for statement in statements[1:]), len(lines)]
    found = []
    for statement, end in zip(statements, ends, strict=True):
        rest = "\n".join(lines[statement.end_lineno - 1 : end])
        said = re.search(r"# → (.*(\n#   .*)*)", rest)
        found.append((ast.unparse(statement), said[1].replace("\n#   ", "\n") if said else ""))
    return found


def run(code: str) -> int:
    """Run code and compare what it gives with what it says; return how often."""
    names, said_so = {}, 0
    for statement, said in steps(code):
        printed = StringIO()
        with redirect_stdout(printed):
            exec(compile(statement, "<guide>", "single" if said else "exec"), names)
        if said:
            loose = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            got = printed.getvalue()
            assert agrees(f"{said}\n", got, loose), f"{statement}\ngives\n{got}and not\n{said}"
            said_so += 1
    return said_so


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with the photograph, and trainings of one epoch."""
    (tmp_path / PHOTO).parent.mkdir(parents=True)
    shutil.copy(ROOT / PHOTO, tmp_path / PHOTO)
    monkeypatch.chdir(tmp_path)

    def fit_shortly(*given, fit=training.fit, **more):
        return fit(*given, **{**more, "epochs": 1, "progress": False})

    monkeypatch.setattr(training, "fit", fit_shortly)
    return tmp_path


@pytest.mark.parametrize(
    "title",
    [
        pytest.param(title, marks=[pytest.mark.slow] if title in SLOW else [])
        for title in sections(ENGINEERS)
    ],
)
def test_the_answer_to_each_question_of_an_engineer_runs(title, folder):
    code = sections(ENGINEERS)[title]
    assert run(code) == code.count("# →")
    assert (folder / "run.pt").exists() == ("run.pt" in code)


def test_the_slow_sections_are_there():
    assert {*SLOW} < {*sections(ENGINEERS)}


def test_the_check_for_teachers_runs():
    ((_, code),) = sections(TEACHERS).items()
    assert run(code) == 1


def test_another_result_than_the_one_that_is_said_is_seen():
    assert run("x = 2\nx + 2  # → 4\nprint('a', x)\n# → a\n#   2") == 2
    for wrong in ("2 + 2  # → 5", "print('a')\n# → b", "x = 2  # → 2", "'ab'  # → 'a'"):
        with pytest.raises(AssertionError, match="and not"):
            run(wrong)


def test_every_module_has_a_page_in_the_api():
    pages = (ROOT / "docs" / "api").glob("*.md")
    documented = {
        name
        for page in pages
        for name in re.findall(r"automodule:: gap_utils\.(\w+)", page.read_text(encoding="utf-8"))
    }
    modules = {module.name for module in pkgutil.iter_modules(gap_utils.__path__)}
    # which the others use to read and to show what a user gives
    assert documented == modules - {"requirements", "values", "verdict"}


def test_the_readme_is_read_in_three_minutes():
    # all that is in the file: table, code and badges too
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 600
