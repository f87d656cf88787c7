"""Build the site: every lesson as a page whose labs and questions need no kernel.

    python -m tools.build_site [FOLDER]

The lessons are run only as far as their labs and checks need it; all else is their stored output.
Sphinx makes the pages, with `docs/conf.py`.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from functools import cached_property, partial
from html import escape
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import nbformat
import torch
from PIL import Image

from docs import wrong_answers
from gap_utils.widgets.lab import Lab
from gap_utils.widgets.page import Tour, lab_as_html, pack
from tools.lesson_cells import cells_needed
from tools.set_home import BADGES, addresses

ROOT = Path(__file__).parent.parent
DOCS, LESSONS, WIDGETS = ROOT / "docs", ROOT / "notebooks", ROOT / "gap_utils" / "widgets"
LONG = 10  # lines of code; longer ones are folded
WIDE = 680  # pixels; a wider picture is not squeezed into a phone
COLUMNS = re.compile(r"\S {2,}\S|^ ", re.MULTILINE)
FORMULA = re.compile(r"\$\$.*?\$\$", re.DOTALL)
FILM = re.compile(r'(<img src=")data:image/gif;base64,([^"]*)("[^>]*>)')
LAB = re.compile(r"(Pool|Head|Shift|Map|Cam|Photo)Lab\(")
LINK = re.compile(r"(?<!!)\[([^][]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
DATA = ROOT / "gap_utils" / "assets" / "README.md"
# what Sphinx and the theme leave beside the pages; the last two are for who makes the theme
UNNEEDED = (
    ".doctrees",
    ".buildinfo",
    "_sources",
    "objects.inv",
    "_static/*-macros.html",
    "_static/scripts/*.map",
)
STARTS_WITH = {"mode": "avg", "stride": 1}  # the PoolLab of the first page


class Site:
    """The sources that Sphinx gets.

    Args:
        folder: where they are written.
        home: where the project is published, such as https://github.com/OWNER/REPOSITORY; empty
            where it is not.
    """

    def __init__(self, folder: Path, home: str = ""):
        self.folder, self.home = folder, home
        self.static = folder / "_static"

    def write(self, name: str, content: bytes) -> str:
        """Write a file that a page needs; return its address from the first page."""
        path = self.static / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path.relative_to(self.folder).as_posix()

    def link(self, words: str, target: str, anchor: str, base: Path) -> str:
        """Write a link to a file of the project, as the site has it.

        Args:
            words: that are clicked on.
            target: as it is written in a file of the folder `base`.
            anchor: with its #, or empty.
            base: a folder of the project.
        """
        path = (base / target).resolve()
        here = base.relative_to(DOCS if base.is_relative_to(DOCS) else ROOT)
        if not path.exists():  # it is made here, or Sphinx says that it is missing
            return f"[{words}]({target}{anchor})"
        if path == DATA or path.suffix in (".md", ".ipynb"):
            place = path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT)
            place = Path("data.md") if path == DATA else place
            return f"[{words}]({os.path.relpath(place, here)}{anchor.lower()})"
        inside = path.relative_to(ROOT)
        if self.home:
            address = f"{self.home}/blob/HEAD/{inside.as_posix()}{anchor}"
        elif path.is_dir():
            address = os.path.relpath("_modules/index.html", here)
        elif path.suffix == ".py" and inside.parts[0] == "gap_utils":
            address = os.path.relpath(f"_modules/{inside.with_suffix('.html')}", here)
        else:
            copy = self.write(f"files/{inside.as_posix()}", path.read_bytes())
            address = os.path.relpath(copy, here)
        return f'<a href="{address}">{words}</a>'  # for Sphinx a link of Markdown is to a page

    def with_links(self, text: str, base: Path) -> str:
        """Let the links of a Markdown text lead somewhere on the site."""
        text = LINK.sub(lambda found: self.link(found[1], found[2], found[3] or "", base), text)
        return re.sub(r"\]\(#([^)]*)\)", lambda found: f"](#{found[1].lower()})", text)

    def add_lab(self, lab: Lab, name: str, up: str, launch: str = "") -> str:
        """Write the frames of a lab; return its HTML.

        Args:
            lab: of a cell.
            name: of the file.
            up: leads from the page to the first one.
            launch: address where the lesson gets a kernel.
        """
        if not lab.frame.panels:
            return lab_as_html(lab)
        tour = Tour(lab)
        address = self.write(f"labs/{name}.frames", pack(tour))
        return lab_as_html(lab, tour, up + address, launch or f"{up}install.html")


class Lesson:
    """A lesson on its way to a page."""

    def __init__(self, path: Path, site: Site):
        self.path, self.site = path, site
        self.notebook = nbformat.read(path, as_version=4)
        self.shown = {}  # what a cell shows when it is run, by its id
        self.more = read_more(self.notebook)

    def build(self) -> None:
        """Run what has to be run, and write the page's source."""
        self.run()
        cells = [cell for cell in map(self.convert, self.notebook.cells) if cell]
        page = nbformat.v4.new_notebook(cells=cells, metadata=self.notebook.metadata)
        folder = self.site.folder / "notebooks"
        folder.mkdir(exist_ok=True)
        nbformat.write(page, folder / self.path.name)

    @cached_property
    def stubs(self) -> dict[str, Any]:
        """The cell with the stub of each check, by the id of the check."""
        stubs, checks = (self.tagged(tag) for tag in ("exercise", "check"))
        return {check.id: stub for stub, check in zip(stubs, checks, strict=True)}

    @cached_property
    def imports(self) -> Any:
        """The cell behind the setup."""
        (setup,) = self.tagged("setup")
        return self.notebook.cells[self.notebook.cells.index(setup) + 1]

    def tagged(self, tag: str) -> list[Any]:
        """The cells with a tag."""
        return [cell for cell in self.notebook.cells if tag in tags_of(cell)]

    def run(self) -> None:
        """Run the labs, questions and checks, and what they need; a wrong answer for each stub."""
        answers = {stub.id: wrong_answer(stub) for stub in self.stubs.values()}
        wanted = [cell for cell in self.notebook.cells if is_shown(cell)]
        names: dict[str, Any] = {"__name__": "__main__"}
        before = Path.cwd()
        os.chdir(LESSONS)
        try:
            for cell in cells_needed(self.notebook, wanted):
                if "setup" not in tags_of(cell):
                    source = answers.get(cell.id, cell.source)
                    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                        self.shown[cell.id] = run_cell(source, names)
        finally:
            os.chdir(before)

    def convert(self, cell: Any) -> Any:
        """Make of a cell what the page shows of it; None for nothing."""
        tags = tags_of(cell)
        if cell.cell_type == "markdown":
            return self.convert_text(cell)
        if "setup" in tags:
            return None
        new = nbformat.v4.new_code_cell(cell.source, id=cell.id, metadata={"tags": [*tags]})
        new.execution_count = cell.execution_count
        if is_shown(cell):
            new.outputs = [as_output(self.html_of(cell))]
            if not LAB.search(cell.source):
                new.metadata.tags.append("remove-input")
            return new
        new.outputs = [*self.convert_outputs(cell)]
        if is_prose(new):
            new.metadata.tags.append("prose")  # its lines may break
        if "solution" in tags:
            fold(new, "hide-cell", f"Show the {name_of(cell)}")
        elif "reveal" in tags and is_long(cell):
            fold(new, "hide-cell", "Show the code and what comes out")
        elif "reveal" in tags:
            fold(new, "hide-output", "Show what comes out")
        elif cell is self.imports:
            fold(new, "hide-input", "Show the imports")
        elif is_long(cell):
            fold(new, "hide-input", "Show the code")
        return new

    def convert_text(self, cell: Any) -> Any:
        """Let a text link to pages, and its pictures be files."""
        without_badges = BADGES.sub("", cell.source)  # which are pictures of another host
        source = self.site.with_links(without_badges, LESSONS)
        source = FILM.sub(lambda film: self.film(cell.id, film), source)
        more = self.more.get(cell.id, {})
        source = FORMULA.sub(lambda found: more.get("formula") or no_formula(found[0]), source)
        if cell is self.notebook.cells[0]:
            source += f"\n\n{as_note(self.explain_page())}"
        if "note" in more:
            source += f"\n\n{as_note(more['note'])}"
        return nbformat.v4.new_markdown_cell(source, id=cell.id)

    def film(self, name: str, film: re.Match) -> str:
        """Let a moving picture be a file, and stand still for those who want that."""
        gif = b64decode(film[2])
        last = BytesIO()
        with Image.open(BytesIO(gif)) as image:
            image.seek(image.n_frames - 1)
            image.convert("RGB").save(last, "PNG")
        still = self.picture(name, last.getvalue(), "png")
        return (
            f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{still}">'
            f"{film[1]}{self.picture(name, gif, 'gif')}{film[3]}</picture>"
        )

    def explain_page(self) -> str:
        """Say what works on this page, and where the rest works."""
        original = self.site.write(f"lessons/{self.path.name}", self.path.read_bytes())
        ways = [
            f'<a href="../{original}" download>download the notebook</a>',
            "[install the lessons](../install.md)",
        ]
        where = addresses(self.site.home, f"notebooks/{self.path.name}")
        ways = [f"[open it in {name}]({address})" for name, address in where.items()] + ways
        labs = "the labs move and " * any(map(is_lab, self.notebook.cells))
        return (
            f"**On this page** {labs}the questions answer, and below the code stands what came out "
            "when we ran it. To run it yourself and do the exercises: " + ", ".join(ways) + "."
        )

    def html_of(self, cell: Any) -> str:
        """The lab, the question or the check of a cell."""
        shown, tags = self.shown[cell.id], tags_of(cell)
        if "check" in tags:
            return self.html_of_check(cell, shown)
        if cell.source == "quiz":
            return '<div class="gap-score" role="status"></div>'
        launch = addresses(self.site.home, f"notebooks/{self.path.name}").get("Colab", "")
        html = self.site.add_lab(shown, cell.id, "../", launch)
        if "quiz" in tags:
            html = html.replace("<div ", f'<div data-lesson="{shown.lesson}" ', 1)
        return html

    def html_of_check(self, check: Any, wrong: Any) -> str:
        """What a check says to a wrong answer, and to the right one."""
        code = escape(wrong_answer(self.stubs[check.id]), quote=False).strip()
        return (
            "<details><summary>What the check says to a typical wrong answer</summary>\n"
            f"<pre>{code}</pre>\n{wrong._repr_html_()}</details>\n"
            "<details><summary>What it says to a right answer</summary>\n"
            f"{self.solved(check)}</details>"
        )

    def solved(self, check: Any) -> str:
        """The stored verdict on the solution."""
        for cell in self.tagged("solution"):
            if cell.source.rstrip().endswith(check.source.strip()):
                return "".join(cell.outputs[-1].data["text/html"])
        raise ValueError(f"expected a solution for {check.source!r} in {self.path.name}, got none")

    def convert_outputs(self, cell: Any) -> Iterator[Any]:
        """The stored outputs, with files for their pictures."""
        outputs = [one for one in cell.outputs if not one.get("metadata", {}).get("cover")]
        for n, output in enumerate(outputs):
            data = output.get("data", {})
            if "image/png" not in data:
                yield output
                continue
            png = b64decode(data["image/png"])
            more = output.metadata.get("image/png", {})
            with Image.open(BytesIO(png)) as image:
                size = more.get("width", image.width), more.get("height", image.height)
            alt = more.get("alt") or self.more.get(cell.id, {}).get("alt")
            if not alt:
                raise ValueError(
                    f"expected words for the picture of cell {cell.id} in docs/cells.json, got none"
                )
            address = self.picture(f"{cell.id}-{n}", png, "png")
            html = (
                f'<img src="{address}" alt="{escape(alt)}" width="{size[0]}" height="{size[1]}" '
                'loading="lazy">'
            )
            yield as_output(f'<div class="gap-wide">{html}</div>' if size[0] > WIDE else html)

    def picture(self, name: str, content: bytes, kind: str) -> str:
        """Write a picture; return its address from the page."""
        return "../" + self.site.write(f"figures/{name}.{kind}", content)


def tags_of(cell: Any) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def is_long(cell: Any) -> bool:
    """Whether a cell has so much code that a page folds it."""
    return len(cell.source.splitlines()) > LONG


def is_shown(cell: Any) -> bool:
    """Whether a page shows another thing than the stored output: a lab, a question, a check."""
    if cell.cell_type != "code":
        return False
    return (
        bool({"question", "quiz", "check"} & {*tags_of(cell)})
        or cell.source == "quiz"
        or is_lab(cell)
    )


def is_lab(cell: Any) -> bool:
    """Whether a cell shows a lab."""
    return any(
        LAB.match("".join(output.get("data", {}).get("text/plain", "")))
        for output in cell.get("outputs", [])
    )


def is_prose(cell: Any) -> bool:
    """Whether a cell prints sentences, and nothing in columns."""
    return not any(
        COLUMNS.search("".join(output.get("text") or output.get("data", {}).get("text/plain", "")))
        for output in cell.outputs
    )


def name_of(solution: Any) -> str:
    """Which solution it is, as the comment at its beginning says."""
    found = re.match(r"# (Solution of exercise \d+)", solution.source)
    if not found:
        raise ValueError(f"expected '# Solution of exercise 1', got {solution.source[:40]!r}")
    return found[1].lower()


def read_more(notebook: Any) -> dict[str, dict[str, str]]:
    """What only the page has of the cells of a lesson, by their ids.

    It may be a note below a text, the MathML of its formula, or the words for a picture.
    """
    every = json.loads((DOCS / "cells.json").read_text(encoding="utf-8"))
    ids = [cell.id for cell in notebook.cells]
    lesson = ids[0].split("-")[0]
    mine = {name: more for name, more in every.items() if name.split("-")[0] == lesson}
    if unknown := [name for name in mine if name not in ids]:
        raise ValueError(f"expected cells of lesson {lesson} in docs/cells.json, got {unknown}")
    return mine


def no_formula(found: str) -> str:
    """Refuse a formula that the page cannot show."""
    raise ValueError(f"expected its MathML in docs/cells.json, as of all formulas, got {found}")


def as_note(text: str) -> str:
    """A note on a page, in Markdown."""
    return f":::{{container}} gap-note\n{text}\n:::"


def wrong_answer(stub: Any) -> str:
    """The code of a wrong answer that stands where a stub stood."""
    (function,) = ast.parse(stub.source).body
    return inspect.getsource(getattr(wrong_answers, function.name))


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Run a cell; return the value of its last expression."""
    *body, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        body, last = [*body, last], None
    exec(compile(ast.Module(body, []), "<lesson>", "exec"), names)
    return last and eval(compile(ast.Expression(last.value), "<lesson>", "eval"), names)


def as_output(html: str) -> Any:
    """HTML as the output of a cell."""
    return nbformat.v4.new_output("display_data", {"text/html": html})


def fold(cell: Any, tag: str, prompt: str) -> None:
    """Let MyST-NB fold a part of a cell."""
    cell.metadata.tags.append(tag)
    cell.metadata["mystnb"] = {"code_prompt_show": prompt, "code_prompt_hide": "Hide it"}


def write_start_page(site: Site) -> None:
    """Put the moving lab and the pictures of the lessons on the first page."""
    from gap_utils.widgets import PoolLab

    lab = site.add_lab(PoolLab(**STARTS_WITH), "start", "")
    path = site.folder / "index.md"
    text = path.read_text(encoding="utf-8")
    # without an empty line, at which its HTML would end
    html = f'<div class="gap-start">\n{lab}\n</div>'
    path.write_text(text.replace('<div class="gap-start-lab"></div>', html), encoding="utf-8")
    for lesson, picture in json.loads((DOCS / "pictures.json").read_text()).items():
        (notebook,) = LESSONS.glob(f"{lesson}_*.ipynb")
        cells = nbformat.read(notebook, as_version=4).cells
        cell = next(cell for cell in cells if cell.id == picture["cell"])
        png = next(o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {}))
        target = site.folder / "pictures" / f"{lesson}.png"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(b64decode(png))


def write_sources(folder: Path, home: str) -> None:
    """Write all that Sphinx needs."""
    site = Site(folder, home)
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copy(DOCS / "conf.py", folder)
    data = site.with_links(DATA.read_text(encoding="utf-8"), DATA.parent)
    (folder / "data.md").write_text(f"---\norphan: true\n---\n\n{data}", encoding="utf-8")
    for path in [*folder.rglob("*.md")]:
        if path.name == "data.md":
            continue
        base = DOCS / path.relative_to(folder).parent
        text = site.with_links(path.read_text(encoding="utf-8"), base)
        path.write_text(text, encoding="utf-8")
    for path in (WIDGETS / "lab.js", WIDGETS / "page.js", WIDGETS / "lab.css"):
        site.write(path.name, path.read_bytes())
    for name in ("site.js", "pages.css"):
        shutil.move(folder / name, site.static / name)
    tasks = [partial(write_start_page, site)]
    tasks += [Lesson(path, site).build for path in sorted(LESSONS.glob("*.ipynb"))]
    # a thread each, since more threads than cores wait for each other
    with ProcessPoolExecutor(initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()


def read_home() -> str:
    """Where the project is published, as `tools/set_home.py` has written it, or empty."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^Homepage = "(.*)"$', project, re.MULTILINE)
    return found[1] if found else ""


def main(target: Path) -> None:
    """Build the site in a folder."""
    os.environ["MPLBACKEND"] = "agg"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        write_sources(source, home := read_home())
        made = Path(folder) / "made"  # MyST-NB leaves notebooks beside it
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-j", "auto"]
        environment = {**os.environ, "GAP_HOME": home, "PYTHONPATH": str(ROOT)}
        subprocess.run([*command, source, made], check=True, env=environment)
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(made, target)
    for unneeded in UNNEEDED:
        for path in [*target.glob(unneeded)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    print(f"{target}: to look at it, run python -m http.server --directory {target}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "site"))
