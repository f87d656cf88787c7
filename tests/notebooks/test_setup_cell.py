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
from wheels import write_wheel

LESSON = "01_pool_a_4x4_map.ipynb"


@pytest.fixture
def python(tmp_path) -> Path:
    """The Python of a new environment that has every package of ours but gap_utils."""
    return make_environment(tmp_path / "environment", sysconfig.get_path("purelib"))


@pytest.fixture
def python_without_anywidget(tmp_path) -> Path:
    """The same without anywidget, and with one that pip finds without a network."""
    shared = tmp_path / "shared"
    shared.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith("anywidget"):
            (shared / path.name).symlink_to(path)
    write_wheel(tmp_path / "wheels", "anywidget", "0.11.0")
    return make_environment(tmp_path / "environment", shared)


def make_environment(folder: Path, shared: str | Path) -> Path:
    """Make an environment that shares a folder of packages, and return its Python."""
    venv.create(folder, with_pip=False)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    packages_of(python).joinpath("shared.pth").write_text(str(shared))
    return python


def packages_of(python: Path) -> Path:
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip())


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


def run_setup_cell(
    python: Path, folder: Path, before: str = "", after: str = "", **environment: str
):
    cell = nbformat.read(folder / LESSON, as_version=4).cells[1]
    return run(python, "-c", f"{before}\n{cell.source}\n{after}", folder=folder, **environment)


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
    assert first.stdout == f"Installing gap_utils from {address} ...\n\n"
    second = run_setup_cell(python, folder)
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert versions(python, folder) == before
    place = run(python, "-c", "import gap_utils; print(gap_utils.__file__)", folder=folder).stdout
    assert str(python.parent.parent) in place


def test_takes_it_from_a_folder_without_installing(python, folder, source):
    code = "\nfrom gap_utils.widgets import PoolLab; print(PoolLab().text)"  # lab.js came along
    result = run_setup_cell(python, folder, after=code, GAP_UTILS_SOURCE=str(source))
    assert result.returncode == 0, result.stderr
    assert "max(2, 2, 9, 4) = 9" in result.stdout
    assert "Installing" not in result.stdout


@pytest.mark.parametrize("place", ["a running JupyterLab", "Colab"])
@pytest.mark.parametrize("found", ["at an address", "in a folder"])
def test_installs_what_is_missing(
    python_without_anywidget, folder, source, address, tmp_path, place, found
):
    python = python_without_anywidget
    colab = "import sys; sys.modules['google.colab'] = sys"
    where = {"at an address": address, "in a folder": str(source)}[found]
    wheels = tmp_path / "wheels" / "anywidget"
    environment = {"GAP_UTILS_SOURCE": where, "PIP_FIND_LINKS": str(wheels)}
    before = colab if place == "Colab" else ""
    result = run_setup_cell(python, folder, before, **environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        *[f"Installing gap_utils from {address} ...", ""] * (found == "at an address"),
        "Installing anywidget ...",
        # Colab fetches the script of the labs by itself
        *["The labs use anywidget, which is new here: load this page again once to see them."]
        * (place != "Colab"),
    ]
    again = run_setup_cell(python, folder, **environment)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_says_what_could_not_be_installed_and_goes_on(python_without_anywidget, folder, source):
    result = run_setup_cell(python_without_anywidget, folder, GAP_UTILS_SOURCE=str(source))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[1].startswith(
        "anywidget could not be installed, and what needs it will not run. Is there a network? "
        "pip says: ERROR: "
    )


def test_another_torch_is_kept_also_where_it_is_too_old(python, folder, source, tmp_path):
    write_wheel(tmp_path / "wheels", "torch", "2.5.1")
    write_wheel(tmp_path / "wheels", "torch", "2.9.0")
    for version, verdict in (("2.5.1", "too old"), ("2.9.0", "used")):
        wheel = tmp_path / "wheels" / "torch" / f"torch-{version}-py3-none-any.whl"
        run(python, "-m", "pip", "install", "-q", "--no-deps", wheel, folder=folder)
        assert version in versions(python, folder)
        result = run_setup_cell(
            python,
            folder,
            GAP_UTILS_SOURCE=str(source),
            PIP_FIND_LINKS=str(tmp_path / "wheels" / "torch"),
        )
        assert result.returncode == 0, result.stderr
        assert ("torch could not be installed" in result.stdout) == (verdict == "too old")
        assert version in versions(python, folder)


def test_finds_the_project_around_it_without_installing(python):
    code = "import gap_utils; print(gap_utils.__file__)"
    result = run_setup_cell(python, ROOT / "notebooks", after=code)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{ROOT / 'gap_utils' / '__init__.py'}\n"


def test_says_in_one_sentence_what_to_do_without_an_address(python, folder):
    result = run_setup_cell(python, folder)
    assert result.returncode != 0
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == (
        "AssertionError: gap_utils was not found, here or at an address. Is there a network? "
        "Otherwise open this lesson in the notebooks folder of the project, or set the environment "
        "variable GAP_UTILS_SOURCE to the project's folder or git address."
    )


def test_says_in_one_sentence_that_there_is_no_network(python, folder):
    with socket.socket() as closed:  # a port that nothing answers on
        closed.bind(("127.0.0.1", 0))
        address = f"https://127.0.0.1:{closed.getsockname()[1]}/gap.git"
    result = run_setup_cell(python, folder, GAP_UTILS_SOURCE=address)
    assert result.returncode != 0
    assert "unable to access" in result.stdout  # pip's words
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"AssertionError: gap_utils was not found, here or at {address}.")
    assert "Is there a network?" in last


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
