"""tools/set_home.py writes one address everywhere, and can write another one later."""

from __future__ import annotations

import shutil

import nbformat
import pytest

import set_home
from nbval_pictures import ROOT

HOME = "https://github.com/someone/gap-lessons"


@pytest.fixture
def project(tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    for name in ("pyproject.toml", "CITATION.cff", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def lessons(project):
    return {p.name: nbformat.read(p, as_version=4) for p in (project / "notebooks").glob("*.ipynb")}


def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines()


def is_kept(line):
    """No line that set_home writes, and no empty one."""
    written = ("[![Open in Colab]", "**[Open the site]", "repository-code:")
    return line and not line.startswith(written)


def everything(project):
    return {path: path.read_bytes() for path in sorted(project.rglob("*")) if path.is_file()}


def test_the_address_goes_everywhere(project):
    before = lessons(project)
    set_home.main([HOME], project)
    assert f'\n[project.urls]\nHomepage = "{HOME}"\n' in (project / "pyproject.toml").read_text()
    citation = lines_of(project / "CITATION.cff")
    assert citation[-1] == f'repository-code: "{HOME}"'
    assert citation[:-1] == [*filter(is_kept, lines_of(ROOT / "CITATION.cff"))]
    readme = lines_of(project / "README.md")
    assert readme[0].startswith("# ")
    assert "blob/HEAD/notebooks/00_start_here.ipynb" in readme[2]
    site = readme.index("**[Open the site](https://someone.github.io/gap-lessons/)**")
    assert readme[site - 2 : site] == ["## Look first", ""] and readme[site + 1] == ""
    assert [*filter(is_kept, readme)] == [*filter(is_kept, lines_of(ROOT / "README.md"))]
    for name, lesson in lessons(project).items():
        title, badges, goals = lesson.cells[0].source.split("\n\n")[:3]
        assert title.startswith("# ")
        assert (
            f"https://colab.research.google.com/github/someone/gap-lessons/blob/HEAD/notebooks/{name}"
            in badges
        )
        assert "https://mybinder.org/v2/gh/someone/gap-lessons/HEAD?" in badges
        assert f"urlpath=lab/tree/notebooks/{name}" in badges
        assert goals.startswith("**You will**")
        assert f'\nHOME = os.getenv("GAP_UTILS_SOURCE", "{HOME}")' in lesson.cells[1].source
        assert lesson.cells[2:] == before[name].cells[2:]


def test_a_second_run_changes_nothing_and_a_new_address_replaces_the_old(project):
    set_home.main([HOME], project)
    once = everything(project)
    set_home.main([f"{HOME}.git"], project)
    assert everything(project) == once
    set_home.main(["https://github.com/Other/place/"], project)
    everywhere = b"".join(everything(project).values())
    assert b"someone/gap-lessons" not in everywhere
    assert b"someone.github.io" not in everywhere
    assert everywhere.count(b"https://other.github.io/place/") == 1
    set_home.main([HOME], project)
    assert everything(project) == once


def test_pyproject_can_still_be_read(project):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    set_home.main([HOME], project)
    table = tomllib.loads((project / "pyproject.toml").read_text())
    assert table["project"]["urls"] == {"Homepage": HOME}
    assert table["tool"]["setuptools"]["packages"]["find"]["include"] == ["gap_utils*"]


@pytest.mark.parametrize(
    "arguments", [[], ["gap"], ["https://example.org/a/b"], [HOME, HOME], [f"{HOME}/tree/main"]]
)
def test_another_address_is_refused_and_nothing_is_written(project, arguments):
    before = everything(project)
    with pytest.raises(SystemExit, match="expected one address like https"):
        set_home.main(arguments, project)
    assert everything(project) == before
