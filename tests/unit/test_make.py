"""`make` takes the build of PyTorch that is asked for, or says that it cannot."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pip
import pytest

from nbval_pictures import ROOT, pinned_versions
from wheels import write_wheel

TORCH = {name: pinned_versions()[name] for name in ("torch", "torchvision")}


@pytest.fixture
def project(tmp_path) -> Path:
    """The Makefile with requirements that are PyTorch alone, and two indexes beside them."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    torch = [line for line in lines if line.startswith("torch")]
    (tmp_path / "requirements.txt").write_text("\n".join(torch))
    for name, version in TORCH.items():
        write_wheel(tmp_path / "builds" / "cpu", name, f"{version}+cpu")
        write_wheel(tmp_path / "usual", name, version)
    # quicker than an environment with a pip of its own
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "pip").symlink_to(Path(pip.__file__).parent)
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\n[ "$2" = venv ] && set -- -m venv --without-pip .venv\n'
        f'exec "{sys.executable}" "$@"\n'
    )
    python.chmod(0o755)
    return tmp_path


def make_environment(project: Path, *options: str) -> subprocess.CompletedProcess:
    command = ["make", ".venv/.ready", "PYTHON=./python", *options]
    command.append(f"TORCH_INDEX={(project / 'builds').as_uri()}")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "MAKE"))}
    environment |= {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": (project / "usual").as_uri(),
        "PYTHONPATH": str(project / "pip"),
    }
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


def installed(project: Path) -> dict[str, str]:
    folders = project.glob(".venv/lib/python*/site-packages/torch*.dist-info")
    return dict(re.match(r"(\w+)-(.+)\.dist-info", folder.name).groups() for folder in folders)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no make")
@pytest.mark.parametrize(("option", "build"), [("TORCH=cpu", "+cpu"), ("TORCH=", "")])
def test_make_takes_the_build_of_pytorch_that_is_asked_for(project, option, build):
    result = make_environment(project, option)
    assert result.returncode == 0, result.stderr
    assert installed(project) == {name: f"{version}{build}" for name, version in TORCH.items()}
    assert (project / ".venv" / ".ready").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no make")
def test_make_does_not_take_another_build_in_silence(project):
    result = make_environment(project, "TORCH=cqu")
    assert result.returncode != 0
    assert f"expected PyTorch at {(project / 'builds').as_uri()}/cqu, and pip got none" in (
        result.stderr
    )
    assert installed(project) == {}
    assert not (project / ".venv" / ".ready").exists()
