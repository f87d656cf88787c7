"""A lesson alone in an empty folder finds, installs or misses gap_utils, and says so.

The environments share the installed packages through a .pth file, so torch is not
installed again; only gap_utils is not among them.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest

from nbval_pictures import ROOT

LESSON = "01_pool_a_4x4_map.ipynb"


@pytest.fixture
def python(tmp_path) -> Path:
    """The Python of a new environment that has every package of ours but gap_utils."""
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=False)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip()
    Path(packages, "shared.pth").write_text(sysconfig.get_path("purelib"))
    return python


@pytest.fixture
def folder(tmp_path) -> Path:
    """An empty folder with one lesson."""
    path = tmp_path / "alone"
    path.mkdir()
    shutil.copy(ROOT / "notebooks" / LESSON, path)
    return path


@pytest.fixture
def source(tmp_path) -> Path:
    """A copy of what pip installs, since building must not write into the project."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "gap_utils", source / "gap_utils")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    return source


@pytest.fixture
def address(source) -> str:
    """A file:// git address of the project as it is now."""
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "published"]):
        subprocess.run(["git", *command], cwd=source, check=True)
    return source.as_uri()


def run(python: Path, *command: str, folder: Path, **environment: str):
    """Run Python in the folder, cut off from package indexes unless told otherwise."""
    # what is already installed builds gap_utils, so that no test needs a network for it
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_CONFIG_FILE": os.devnull}
    clean = {k: v for k, v in os.environ.items() if k not in {"GAP_UTILS_SOURCE", "PYTHONPATH"}}
    return subprocess.run(
        [python, *command],
        cwd=folder,
        env={**clean, **offline, **environment},
        capture_output=True,
        text=True,
    )


def run_lesson(python: Path, folder: Path, **environment: str):
    """Run the lesson and compare every output, as a teacher does."""
    pictures = {"PYTHONPATH": str(ROOT / "tests/support")}  # with no conftest.py around it
    nbval = ["-m", "pytest", "-q", "--nbval", "-p", "nbval_pictures", "-p", "no:cacheprovider"]
    return run(python, *nbval, "-x", LESSON, folder=folder, **pictures, **environment)


def run_setup_cell(python: Path, folder: Path, before: str = "", **environment: str):
    cell = nbformat.read(folder / LESSON, as_version=4).cells[1]
    return run(python, "-c", f"{before}\n{cell.source}", folder=folder, **environment)


def versions(python: Path, folder: Path) -> str:
    names = "['torch', 'torchvision', 'numpy', 'ipywidgets']"
    code = f"from importlib.metadata import version\nprint(*map(version, {names}))"
    return run(python, "-c", code, folder=folder).stdout


def test_installs_from_a_git_address_and_leaves_the_rest_alone(python, folder, address):
    before = versions(python, folder)
    assert "gap_utils" in run(python, "-c", "import gap_utils", folder=folder).stderr
    # the first run installs and says so; that line is no part of the stored outputs
    first = run_setup_cell(python, folder, GAP_UTILS_SOURCE=address)
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"Installing gap_utils from {address} ...\n"
    second = run_setup_cell(python, folder)
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    lesson = run_lesson(python, folder)
    assert lesson.returncode == 0, lesson.stdout
    assert versions(python, folder) == before
    place = run(python, "-c", "import gap_utils; print(gap_utils.__file__)", folder=folder).stdout
    assert str(python.parent.parent) in place


def test_installs_from_a_folder(python, folder, source):
    result = run_setup_cell(python, folder, GAP_UTILS_SOURCE=str(source))
    assert result.returncode == 0, result.stderr
    code = "from gap_utils.widgets import PoolLab; print(PoolLab().text)"  # lab.js came along
    result = run(python, "-c", code, folder=folder)
    assert "max(2, 2, 9, 4) = 9" in result.stdout, result.stderr


@pytest.mark.parametrize("place", ["a running JupyterLab", "Colab"])
def test_says_that_the_page_must_be_loaded_again_for_anywidget(python, folder, source, place):
    missing = "import sys; sys.modules['anywidget'] = None"
    if place == "Colab":  # there the widget's script is fetched when it is shown
        missing += "; sys.modules['google.colab'] = sys"
    result = run_setup_cell(python, folder, missing, GAP_UTILS_SOURCE=str(source))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[1:] == [
        "The labs use anywidget, which is new here: load this page again once to see them."
    ] * (place != "Colab")


def test_finds_the_project_around_it_without_installing(python):
    result = run_setup_cell(python, ROOT / "notebooks")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    result = run_lesson(python, ROOT / "notebooks")
    assert result.returncode == 0, result.stdout


def test_says_what_to_do_without_an_address(python, folder):
    result = run_setup_cell(python, folder)
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: gap_utils was not found. Open this lesson in the notebooks folder "
        "of the project, or set the environment variable GAP_UTILS_SOURCE to the project's "
        "folder or git address."
    )


def test_says_in_one_sentence_that_there_is_no_network(python, folder):
    with socket.socket() as closed:  # a port that nothing answers on
        closed.bind(("127.0.0.1", 0))
        address = f"https://127.0.0.1:{closed.getsockname()[1]}/gap.git"
    result = run_setup_cell(python, folder, GAP_UTILS_SOURCE=address)
    assert result.returncode != 0
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"RuntimeError: gap_utils could not be installed from {address}.")
    assert "Is there a network?" in last
    lesson = run_lesson(python, folder, GAP_UTILS_SOURCE=address)
    assert lesson.returncode == 1
    assert "could not be installed" in lesson.stdout


def test_ipywidgets_7_and_another_numpy_stay_and_the_lesson_runs(python, folder, address):
    numpy = "numpy==2.3.5" if sys.version_info >= (3, 11) else "numpy==2.1.3"
    older = ["ipywidgets==7.7.5", numpy]
    command = ["-m", "pip", "install", "-q", *older]
    result = run(python, *command, folder=folder, PIP_NO_INDEX="0", PIP_CONFIG_FILE="")
    if result.returncode:
        reason = f"{' and '.join(older)} could not be fetched: {result.stderr[-300:]}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    before = versions(python, folder)
    assert "7.7.5" in before
    result = run_setup_cell(python, folder, GAP_UTILS_SOURCE=address)
    assert result.returncode == 0, result.stderr
    assert versions(python, folder) == before
    lesson = run_lesson(python, folder)
    assert lesson.returncode == 0, lesson.stdout
