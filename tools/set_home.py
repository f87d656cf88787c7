"""Write the address where the project is published to all the places that need it.

    python tools/set_home.py https://github.com/OWNER/REPOSITORY

The address goes to the project URLs in pyproject.toml, to CITATION.cff and to the setup cell of
every lesson, which installs gap_utils from there on Colab. README and lessons get badges that
open them in Colab and Binder, and the README a link to the site on GitHub Pages. Run it again
with another address to move house.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent
BADGES = re.compile(r"\[!\[Open in Colab\].*\n\n")
SITE_LINK = re.compile(r"\*\*\[Open the site\].*\n\n")
ADDRESS = re.compile(r'(\nHOME = os\.getenv\(\s*"GAP_UTILS_SOURCE", )".*"')  # in the setup cell
ABOVE_SITE_LINK = "\n## Look first\n\n"  # in the README


def addresses(home: str, path: str) -> dict[str, str]:
    """Say where one lesson runs with a click, by service; empty where there is no home."""
    if not home:
        return {}
    repository = home.removeprefix("https://github.com/")
    return {
        "Colab": f"https://colab.research.google.com/github/{repository}/blob/HEAD/{path}",
        "Binder": f"https://mybinder.org/v2/gh/{repository}/HEAD?urlpath=lab/tree/{path}",
    }


def badges(home: str, path: str) -> str:
    """Return the Markdown line of badges for one lesson."""
    colab, binder = addresses(home, path).values()
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})\n\n"
    )


def site_link(home: str) -> str:
    """Return the Markdown line that opens the site, where GitHub Pages has it."""
    owner, repository = home.removeprefix("https://github.com/").split("/")
    return f"**[Open the site](https://{owner.lower()}.github.io/{repository}/)**\n\n"


def write_pyproject(path: Path, home: str) -> None:
    """Put the address into the table of project URLs."""
    text = re.sub(r'\n\[project\.urls\]\nHomepage = ".*"\n', "", path.read_text(encoding="utf-8"))
    table = f'\n[project.urls]\nHomepage = "{home}"\n'
    path.write_text(
        text.replace("\n[tool.setuptools", f"{table}\n[tool.setuptools", 1), encoding="utf-8"
    )


def write_citation(path: Path, home: str) -> None:
    """Put the address at the end of what is said to those who cite the project."""
    text = re.sub(r"^repository-code: .*\n", "", path.read_text(encoding="utf-8"), flags=re.M)
    path.write_text(f'{text}repository-code: "{home}"\n', encoding="utf-8")


def write_readme(path: Path, home: str, first_lesson: str) -> None:
    """Put the badges under the title, and the link to the site under its heading."""
    text = SITE_LINK.sub("", BADGES.sub("", path.read_text(encoding="utf-8")))
    title, rest = text.split("\n\n", 1)
    above, below = rest.split(ABOVE_SITE_LINK)
    path.write_text(
        f"{title}\n\n{badges(home, first_lesson)}{above}{ABOVE_SITE_LINK}{site_link(home)}{below}",
        encoding="utf-8",
    )


def write_lesson(path: Path, home: str) -> None:
    """Put the badges under the title and the address into the setup cell."""
    notebook = nbformat.read(path, as_version=4)
    title, rest = BADGES.sub("", notebook.cells[0].source).split("\n\n", 1)
    notebook.cells[0].source = f"{title}\n\n{badges(home, f'notebooks/{path.name}')}{rest}"
    setup = next(cell for cell in notebook.cells if "setup" in cell.metadata.get("tags", []))
    setup.source = ADDRESS.sub(rf'\g<1>"{home}"', setup.source)
    nbformat.write(notebook, path)


def main(arguments: list[str], root: Path = ROOT) -> None:
    """Check the address and write it everywhere."""
    given = " ".join(arguments)
    home = given.removesuffix("/").removesuffix(".git")
    if not re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]*\w[\w.-]*", home):
        sys.exit(
            "expected one address like https://github.com/OWNER/REPOSITORY, "
            f"got {given or 'nothing'}"
        )
    lessons = sorted((root / "notebooks").glob("*.ipynb"))
    write_pyproject(root / "pyproject.toml", home)
    write_citation(root / "CITATION.cff", home)
    write_readme(root / "README.md", home, f"notebooks/{lessons[0].name}")
    for lesson in lessons:
        write_lesson(lesson, home)
    print(f"{home} is now in pyproject.toml, CITATION.cff, README.md and {len(lessons)} lessons")


if __name__ == "__main__":
    main(sys.argv[1:])
