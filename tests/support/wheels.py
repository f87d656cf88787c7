"""Empty packages for pip, where no network is needed."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile


def write_wheel(index: Path, name: str, version: str) -> Path:
    """Write an empty package to a folder that pip takes for an index; its file."""
    (index / name).mkdir(parents=True, exist_ok=True)
    wheel = index / name / f"{name}-{version}-py3-none-any.whl"
    metadata = f"{name}-{version}.dist-info"
    with ZipFile(wheel, "w") as archive:
        archive.writestr(f"{metadata}/METADATA", f"Name: {name}\nVersion: {version}\n")
        archive.writestr(f"{metadata}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{metadata}/RECORD", "")
    (index / name / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    return wheel
