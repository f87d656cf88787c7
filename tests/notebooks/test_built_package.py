"""What pip builds of the project is whole, and works in an environment with nothing else in it."""

from __future__ import annotations

import os
import sys
import tarfile
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from environments import copy_project, run
from nbval_pictures import ROOT

BUILD = "import setuptools.build_meta as backend; backend.build_{}('dist')"


def files_of(package: Path) -> set[str]:
    """All files of the package but what a running Python or an editor left there."""
    left = {"__pycache__", ".ipynb_checkpoints"}
    found = (path.relative_to(package) for path in package.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if left.isdisjoint(path.parts)}


def build(kind: str, folder: Path) -> Path:
    """Let the packages that are here build it, as pip does in an environment of its own."""
    result = run(sys.executable, "-c", BUILD.format(kind), folder=folder)
    assert result.returncode == 0, result.stderr
    (built,) = (folder / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel that is made of the source archive, as pip makes it of one from an index."""
    project = copy_project(tmp_path_factory.mktemp("project"))
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(build("sdist", project)) as archive:
        archive.extractall(unpacked, filter="data")
    (folder,) = unpacked.iterdir()
    return build("wheel", folder)


def test_every_file_and_the_licences_are_in_the_wheel(wheel):
    about = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        ours = {name for name in names if name.startswith("gap_utils/")}
        assert ours == {f"gap_utils/{name}" for name in files_of(ROOT / "gap_utils")}
        licences = f"{about}/licenses/"
        assert {name.removeprefix(licences) for name in names if name.startswith(licences)} == {
            "LICENSE",
            "gap_utils/assets/README.md",
        }
        assert archive.read(f"{licences}LICENSE") == (ROOT / "LICENSE").read_bytes()
        metadata = archive.read(f"{about}/METADATA").decode()
    assert "\nLicense-Expression: MIT AND CC0-1.0\n" in metadata
    assert "\nAuthor: the GAP lessons' authors\n" in metadata
    assert "\n# Global average pooling, in interactive lessons\n" in metadata


def test_it_is_imported_where_nothing_else_is_installed(wheel, tmp_path):
    empty = tmp_path / "empty"
    venv.create(empty, with_pip=False)
    python = empty / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = ["-m", "pip", "--python", str(python), "install", "--no-deps", str(wheel)]
    installed = run(sys.executable, *pip, folder=tmp_path)
    assert installed.returncode == 0, installed.stderr
    says = run(python, "-c", "import gap_utils; print(gap_utils.__file__)", folder=tmp_path)
    assert says.returncode == 0, says.stderr
    package = Path(says.stdout.strip()).parent
    assert package.is_relative_to(empty)
    for name in ("assets/fashion_mnist_small.npz", "assets/gap.safetensors", "widgets/lab.js"):
        assert (package / name).read_bytes() == (ROOT / "gap_utils" / name).read_bytes()
    assert run(python, "-c", "import torch", folder=tmp_path).returncode == 1  # it is empty
