"""What the lessons need beside this package: it says what is missing, and installs it.

The setup cell of every lesson calls `install_missing`.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

# Colab's own belong together, and another torch is gigabytes: pip keeps these as they are
KEPT = ("torch", "torchvision", "numpy", "ipywidgets")


def requirements() -> list[Requirement]:
    """The ranges in pyproject.toml, or those that pip noted when it installed the package.

    A copy of the package alone has neither, and nothing is known.
    """
    project = Path(__file__).parents[1] / "pyproject.toml"
    text = project.read_text(encoding="utf-8") if project.exists() else ""
    if 'name = "gap_utils"' in text:  # another package may have left its own there
        block = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.M | re.S)[1]
        return [Requirement(line) for line in re.findall(r'"(.+)"', block)]
    if _version("gap_utils") is None:
        return []
    return [Requirement(line) for line in metadata.requires("gap_utils") or []]


def install_missing() -> None:
    """Install what is missing or out of its range, and leave KEPT as they are.

    Where nothing is missing it says nothing. Where pip fails it says so, and the lesson goes
    on: it may not need what is missing.
    """
    wanted = []
    for need in requirements():
        version = _version(need.name)
        if version is None:
            wanted.append(need)
        elif not need.specifier.contains(version, prereleases=True):
            if need.name in KEPT:
                print(f"Expected {need}, got {version}, which stays: what needs more will not run.")
            else:
                wanted.append(need)
    if not wanted:
        return
    names = ", ".join(need.name for need in wanted)
    print(f"Installing {names} ...")
    kept = [f"{name}=={version}" for name in KEPT if (version := _version(name))]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", *map(str, wanted), *kept]
    result = subprocess.run(pip, capture_output=True, text=True)
    if result.returncode:
        lines = [line.strip() for line in result.stderr.splitlines()]
        errors = [line for line in lines if line.lower().startswith(("error:", "fatal:"))]
        print(
            f"{names} could not be installed, and what needs it will not run. Is there a network? "
            f"pip says: {' '.join(errors[:2]) or f'exit status {result.returncode}'}"
        )
        return
    importlib.invalidate_caches()
    # Colab fetches the script of the labs by itself
    if any(need.name == "anywidget" for need in wanted) and "google.colab" not in sys.modules:
        print("The labs use anywidget, which is new here: load this page again once to see them.")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
