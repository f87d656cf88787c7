"""The lessons in a learner's folder."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


# no question about news on everybody's screen
SETTINGS = ".jupyter/lab/user-settings/@jupyterlab/apputils-extension"
NO_NEWS = '{"fetchNews": "false", "checkForUpdates": false}'


def copy_lessons(lessons: Path, home: Path) -> None:
    """Copy the lessons that are missing, and link to the package that they come with.

    What a learner changed stays. A lesson that is deleted, or has another name, is there afresh
    when the server starts again.

    Args:
        lessons: the folder with the lessons.
        home: the learner's folder; this runs as the learner.
    """
    folder = home / "notebooks"
    folder.mkdir(exist_ok=True)
    for lesson in sorted(lessons.glob("*.ipynb")):
        if not (folder / lesson.name).exists():
            shutil.copyfile(lesson, folder / lesson.name)
    for name in ("gap_utils", "tools"):  # what the lessons import, and what they lead to
        link = home / name
        if link.is_symlink() and not link.exists():  # the project has moved
            link.unlink()
        if not link.exists():
            link.symlink_to(ROOT / name)
    settings = home / SETTINGS / "notification.jupyterlab-settings"
    if not settings.exists():
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(NO_NEWS)
