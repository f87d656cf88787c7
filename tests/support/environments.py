"""Environments that share the installed packages, and the project as pip gets it.

They share through a .pth file, so torch is not installed again; only gap_utils is not among them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import nbformat

from nbval_pictures import ROOT


def make_environment(folder: Path, without: tuple[str, ...] = ()) -> Path:
    """Make an environment that shares all packages but those, and return its Python."""
    venv.create(folder, with_pip=False)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    shared = Path(sysconfig.get_path("purelib"))
    if without:
        installed, shared = shared, folder / "shared"
        shared.mkdir()
        for path in installed.iterdir():
            if not path.name.startswith(without):
                (shared / path.name).symlink_to(path)
    packages_of(python).joinpath("shared.pth").write_text(str(shared))
    return python


def packages_of(python: Path) -> Path:
    """The folder where an environment has the packages of its own."""
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip())


def copy_project(folder: Path) -> Path:
    """Copy what pip installs, since building must not write into the project."""
    shutil.copytree(ROOT / "gap_utils", folder / "gap_utils")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def publish(source: Path) -> str:
    """Make a folder a git repository, and return its file:// address."""
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "published"]):
        subprocess.run(["git", *command], cwd=source, check=True)
    return source.as_uri()


def run(
    python: Path, *command: str, folder: Path, network: bool = False, **environment: str
) -> subprocess.CompletedProcess:
    """Run Python in a folder, cut off from package indexes where there shall be no network."""
    # what is already installed builds gap_utils, so that no test needs a network for it
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_CONFIG_FILE": os.devnull}
    clean = {k: v for k, v in os.environ.items() if k not in {"GAP_UTILS_SOURCE", "PYTHONPATH"}}
    return subprocess.run(
        [python, *command],
        cwd=folder,
        env={**clean, **({} if network else offline), **environment},
        capture_output=True,
        text=True,
    )


def run_lesson(python: Path, lesson: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a lesson and compare every output, as a teacher does."""
    pictures = {"PYTHONPATH": str(ROOT / "tests/support")}  # with no conftest.py around it
    nbval = ["-m", "pytest", "-q", "--nbval", "-p", "nbval_pictures", "-p", "no:cacheprovider"]
    nbval += ["-x", lesson.name]
    return run(python, *nbval, folder=lesson.parent, **pictures, **environment)


def run_setup_cell(
    python: Path, lesson: Path, before: str = "", after: str = "", **options
) -> subprocess.CompletedProcess:
    """Run the setup cell of a lesson, with lines of code around it, where the lesson lies."""
    cell = read_setup_cell(lesson)
    return run(python, "-c", f"{before}\n{cell}\n{after}", folder=lesson.parent, **options)


def read_setup_cell(lesson: Path) -> str:
    """The source of the setup cell of a lesson."""
    cells = nbformat.read(lesson, as_version=4).cells
    return next(cell.source for cell in cells if "setup" in cell.metadata.get("tags", []))
