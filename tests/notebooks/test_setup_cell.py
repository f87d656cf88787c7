"""A lesson alone in an empty folder finds, installs or misses gap_utils, and says so."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from environments import copy_project, make_environment, publish, run, run_setup_cell
from nbval_pictures import ROOT
from wheels import write_wheel

LESSON = "01_pool_a_4x4_map.ipynb"


@pytest.fixture
def python(tmp_path) -> Path:
    """The Python of a new environment that has every package of ours but gap_utils."""
    return make_environment(tmp_path / "environment")


@pytest.fixture
def python_without_anywidget(tmp_path) -> Path:
    """The same without anywidget, and with one that pip finds without a network."""
    write_wheel(tmp_path / "wheels", "anywidget", "0.11.0")
    return make_environment(tmp_path / "environment", without=("anywidget",))


@pytest.fixture
def lesson(tmp_path) -> Path:
    """A lesson in an empty folder."""
    (tmp_path / "alone").mkdir()
    return Path(shutil.copy(ROOT / "notebooks" / LESSON, tmp_path / "alone"))


@pytest.fixture
def source(tmp_path) -> Path:
    return copy_project(tmp_path / "source")


def versions(python: Path, lesson: Path) -> str:
    names = "['torch', 'torchvision', 'numpy', 'ipywidgets']"
    code = f"from importlib.metadata import version\nprint(*map(version, {names}))"
    return run(python, "-c", code, folder=lesson.parent).stdout


def test_installs_from_a_git_address_and_leaves_the_rest_alone(python, lesson, source):
    address, before = publish(source), versions(python, lesson)
    first = run_setup_cell(python, lesson, GAP_UTILS_SOURCE=address)
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"Installing gap_utils from {address} ...\n\n"
    code = "import gap_utils; print(gap_utils.__file__)"
    second = run_setup_cell(python, lesson, after=code)
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout.startswith(str(python.parent.parent))
    assert versions(python, lesson) == before


def test_takes_it_from_a_folder_without_installing(python, lesson, source):
    code = "from gap_utils.widgets import PoolLab; print(PoolLab().text)"  # lab.js came along
    result = run_setup_cell(python, lesson, after=code, GAP_UTILS_SOURCE=str(source))
    assert result.returncode == 0, result.stderr
    assert "max(2, 2, 9, 4) = 9" in result.stdout
    assert "Installing" not in result.stdout


@pytest.mark.parametrize(
    ("before", "said"),
    [
        # Colab fetches the script of the labs by itself
        ("import sys; sys.modules['google.colab'] = sys", []),
        ("", ["The labs use anywidget, which is new here: load this page again once to see them."]),
    ],
)
def test_installs_what_is_missing(python_without_anywidget, lesson, source, tmp_path, before, said):
    address = publish(source)
    options = {
        "GAP_UTILS_SOURCE": address,
        "PIP_FIND_LINKS": str(tmp_path / "wheels" / "anywidget"),
    }
    result = run_setup_cell(python_without_anywidget, lesson, before, **options)
    assert result.returncode == 0, result.stderr
    installing = [f"Installing gap_utils from {address} ...", "", "Installing anywidget ..."]
    assert result.stdout.splitlines() == [*installing, *said]
    again = run_setup_cell(python_without_anywidget, lesson, before, **options)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_says_what_could_not_be_installed_and_goes_on(python_without_anywidget, lesson, source):
    result = run_setup_cell(python_without_anywidget, lesson, GAP_UTILS_SOURCE=str(source))
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert first == "Installing anywidget ..."
    assert second.startswith(
        "anywidget could not be installed, and what needs it will not run. Is there a network? "
        "pip says: ERROR: "
    )


@pytest.mark.parametrize(("version", "is_used"), [("2.5.1", False), ("2.9.0", True)])
def test_another_torch_is_kept_also_where_it_is_too_old(
    python, lesson, source, tmp_path, version, is_used
):
    wheels = [write_wheel(tmp_path / "wheels", "torch", name) for name in (version, "2.9.0")]
    install = ["-m", "pip", "install", "-q", "--no-deps", str(wheels[0])]
    run(python, *install, folder=lesson.parent)
    before = versions(python, lesson)
    assert version in before
    options = {"GAP_UTILS_SOURCE": str(source), "PIP_FIND_LINKS": str(wheels[0].parent)}
    result = run_setup_cell(python, lesson, **options)
    assert result.returncode == 0, result.stderr
    said = "Expected torch>=2.6, got 2.5.1, which stays: what needs more will not run.\n"
    assert result.stdout == ("" if is_used else said)
    assert versions(python, lesson) == before


def test_finds_the_project_around_it_without_installing(python):
    code = "import gap_utils; print(gap_utils.__file__)"
    result = run_setup_cell(python, ROOT / "notebooks" / LESSON, after=code)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{ROOT / 'gap_utils' / '__init__.py'}\n"


def test_says_in_one_sentence_what_to_do_without_an_address(python, lesson):
    result = run_setup_cell(python, lesson)
    assert result.returncode != 0
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == (
        "AssertionError: gap_utils was not found, here or at an address. Is there a network? "
        "Otherwise open this lesson in the notebooks folder of the project, or set the environment "
        "variable GAP_UTILS_SOURCE to the project's folder or git address."
    )


def test_says_in_one_sentence_that_there_is_no_network(python, lesson):
    with socket.socket() as closed:  # a port that nothing answers on
        closed.bind(("127.0.0.1", 0))
        address = f"https://127.0.0.1:{closed.getsockname()[1]}/gap.git"
    result = run_setup_cell(python, lesson, GAP_UTILS_SOURCE=address)
    assert result.returncode != 0
    assert "unable to access" in result.stdout  # pip's words
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"AssertionError: gap_utils was not found, here or at {address}.")
    assert "Is there a network?" in last
