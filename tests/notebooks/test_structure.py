"""What every lesson must have, whatever it teaches."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

import set_home
from nbval_pictures import ROOT

# bold, and no term: what one clicks on, names of networks, a word that matters
NO_TERMS = """
    You will/You need/Time/Shift + Enter/predict/Window/Height H/Classes K/Channels C/Place
    ResNet/SqueezeNet/DenseNet/VGG/classic/A/B/C/D/what to keep/where to look
    are/every/last/right/smaller/faster/last line/single runs/on average/Find the mistake
"""
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
lessons = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
DOCS = ROOT / "docs"
START = DOCS / "index.md"  # of the site, where the lessons and their pictures stand beside it
PAGES = [page for folder in (ROOT, DOCS, DOCS / "api") for page in sorted(folder.glob("*.md"))]


FOLDED = re.compile(
    r"(?:^|\n\n)<details><summary>Read the answer</summary>\n\n(.+?)\n\n</details>(?=\n\n|$)", re.S
)


def read(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook, tag: str | None = None):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if tag is None or tag in cell.metadata.get("tags", [])]


def is_folded(cell) -> bool:
    """Folded in JupyterLab and in Colab."""
    hidden = cell.metadata.get("jupyter", {}).get("source_hidden")
    return hidden is True and cell.metadata.get("cellView") == "form"


def text_of(output) -> str:
    return output.get("text", "") + output.get("data", {}).get("text/plain", "")


def test_there_are_lessons_numbered_from_00():
    assert len(LESSONS) >= 2
    assert [path.name[:3] for path in LESSONS] == [f"{i:02}_" for i in range(len(LESSONS))]


@lessons
def test_every_cell_was_run_in_order(path):
    """nbval compares nothing for a cell without an execution count."""
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell.source.strip() for cell in cells)


@lessons
def test_the_file_holds_nothing_but_the_lesson(path):
    notebook = read(path)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    text = path.read_text()
    assert "widget-view" not in text
    assert not re.search(r"/(home|root|tmp|Users)/|site-packages|C:\\\\Users", text)
    for cell in code_cells(notebook):
        assert set(cell.metadata) <= {"tags", "jupyter", "cellView", "collapsed"}


@lessons
def test_the_beginning_is_the_same_everywhere(path):
    notebook = read(path)
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert re.match(r"# \S.*\n", first.source)
    for line in (r"\*\*You will\*\* ", r"\*\*You need\*\* ", r"\*\*Time\*\* about \d+ minutes"):
        assert re.search(f"^{line}", first.source, re.M)
    setup = notebook.cells[1]
    assert setup.metadata.tags == ["setup"]
    assert is_folded(setup)
    assert setup.outputs == []
    assert setup.source == read(LESSONS[0]).cells[1].source
    assert set_home.ADDRESS.sub("", setup.source).count("\n") < 14
    imports = notebook.cells[2]
    assert re.match(r"import|from", imports.source)
    assert imports.outputs == []


def test_the_setup_cell_and_pyproject_name_one_address():
    home = set_home.ADDRESS.search(read(LESSONS[0]).cells[1].source)[0].split('"')[-2]
    published = re.search(r'^Homepage = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert home == (published[1] if published else "")
    badges = [path for path in LESSONS if "colab" in read(path).cells[0].source]
    assert badges == (LESSONS if home else [])


@lessons
def test_the_end_is_the_same_everywhere(path):
    headings = [
        line
        for cell in read(path).cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    assert headings[-3:] == ["## Summary", "## Further reading", "## Solutions"]


def test_every_lesson_but_the_last_names_the_next():
    for path, following in pairwise(LESSONS):
        text = "\n".join(cell.source for cell in read(path).cells)
        assert re.search(rf"\*\*Next:\*\* \[.+?\]\({following.name}\)", text), path.name


@lessons
def test_every_exercise_has_task_stub_check_and_solution(path):
    notebook = read(path)
    stubs, checks = code_cells(notebook, "exercise"), code_cells(notebook, "check")
    solutions = code_cells(notebook, "solution")
    assert 1 <= len(stubs) == len(checks) == len(solutions) <= 6
    for number, (stub, check, solution) in enumerate(
        zip(stubs, checks, solutions, strict=True), start=1
    ):
        place = notebook.cells.index(stub)
        assert notebook.cells[place + 1] is check
        assert f"**Exercise {number}.**" in notebook.cells[place - 1].source
        assert stub.source.endswith("raise NotImplementedError")
        assert stub.outputs == []
        assert [text_of(output) for output in check.outputs] == ["not attempted yet"]
        assert solution.source.startswith(f"# Solution of exercise {number}")
        assert solution.source.endswith(check.source)
        assert is_folded(solution)
        assert [text_of(output)[:8] for output in solution.outputs] == ["✓ Right:"]


@lessons
def test_questions_are_folded_and_come_before_their_answer(path):
    notebook = read(path)
    questions = code_cells(notebook, "question")
    assert questions
    for cell in code_cells(notebook):
        tagged = "question" in cell.metadata.get("tags", [])
        assert tagged == cell.source.startswith("Question(")
    assert all(map(is_folded, questions))


@lessons
def test_what_answers_a_question_follows_it_and_is_out_of_view(path):
    notebook = read(path)
    revealed = None  # how many cells have answered the last question
    for cell in code_cells(notebook):
        tags = cell.metadata.get("tags", [])
        if "question" in tags:
            assert revealed != 0, f"nothing answers the question before {cell.source!r}"
            revealed = 0
        folded = (
            cell.metadata.get("collapsed"),
            cell.metadata.get("jupyter", {}).get("outputs_hidden"),
        )
        assert folded == ((True, True) if "reveal" in tags else (None, None)), cell.source
        covers = [each.get("metadata", {}).get("cover", False) for each in cell.outputs]
        assert not any(covers["reveal" in tags :]), "nbval compares no cover"
        if "reveal" in tags:
            assert revealed is not None, f"no question before {cell.source!r}"
            cover, *outputs = cell.outputs
            assert cover.data == {"text/plain": "What comes out when you run it:"}
            assert outputs
            revealed += 1
    assert revealed


@lessons
def test_what_gives_an_answer_away_opens_with_a_click(path):
    """And what stands in it is Markdown, which takes an empty line on both sides."""
    sources = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    assert any(FOLDED.search(source) for source in sources)
    for source in sources:
        assert "</" not in FOLDED.sub("", source)
        for inside in FOLDED.findall(source):
            assert not re.search(r"^#|\*\*Exercise|</", inside, re.M), inside


@lessons
def test_every_picture_has_a_text_twin(path):
    """nbval compares the text where pictures cannot be compared."""
    pictures = 0
    for cell in code_cells(read(path)):
        if not any("image/png" in output.get("data", {}) for output in cell.outputs):
            continue
        pictures += 1
        text = re.sub(r"<Figure size .*?>", "", "".join(map(text_of, cell.outputs)))
        assert re.search(r"\d", text), f"no numbers beside the picture of {cell.source!r}"
    assert pictures


@lessons
def test_only_what_differs_by_machine_goes_uncompared(path):
    for cell in code_cells(read(path), "nbval-ignore-output"):
        assert re.search(r"device|version|time|train|history|histories", cell.source)
    for cell in code_cells(read(path)):
        tags = cell.metadata.get("tags", [])
        known = {
            "setup",
            "exercise",
            "check",
            "solution",
            "question",
            "reveal",
            "quiz",
            "raises-exception",
            "nbval-ignore-output",
        }
        assert set(tags) <= known
        errors = [output for output in cell.outputs if output.output_type == "error"]
        assert bool(errors) == ("raises-exception" in tags)
        assert not any(output.get("name") == "stderr" for output in cell.outputs)


@lessons
def test_a_machine_with_nvcc_and_no_gpu_prints_nothing_red(path, tmp_path):
    """torch.utils.benchmark imports what warns there; nbval does not compare such cells."""
    cells = [cell.source for cell in code_cells(read(path)) if "torch.utils" in cell.source]
    code = "\n".join(["import torch", *cells])
    if cells:
        command = [sys.executable, "-c", code]
        environment = {**os.environ, "CUDA_HOME": str(tmp_path)}
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, "")


@lessons
def test_cells_are_short(path):
    for cell in code_cells(read(path)):
        if not {"setup", "question", "quiz"} & set(cell.metadata.get("tags", [])):
            assert len(cell.source.splitlines()) <= 14, cell.source


def markdown_of(path: Path) -> str:
    if path.suffix == ".ipynb":
        return "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
    return path.read_text(encoding="utf-8")


def target_of(path: Path, link: str) -> Path:
    """The file that a link of a page or a lesson is for."""
    beside = ROOT if path == START and link.startswith("notebooks/") else path.parent
    return beside / link


def anchors_in(path: Path) -> set[str]:
    """What GitHub and the site call the headings of a page."""
    text = re.sub(r"^```.*?^```", "", markdown_of(path), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "path", [*LESSONS, *PAGES], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_links_to_local_files_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", markdown_of(path))
    assert links or path.parent.name == "api"  # whose pages come from the docstrings
    for link in links:
        made = path == START and link.startswith("pictures/")  # when the site is built
        if not made and not re.match(r"https?:|mailto:", link):
            assert target_of(path, link).exists(), f"{path.name} links to {link}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_to_headings_lead_to_one(path):
    for link, anchor in re.findall(r"\]\(((?!https?:)[^)#\s]*)#([^)\s]+)\)", markdown_of(path)):
        target = target_of(path, link) if link else path
        assert anchor in anchors_in(target), f"{path.name} links to {link}#{anchor}"


def test_headings_have_the_anchors_that_github_gives_them():
    assert {"which-head-when", "choose-a-head"} < anchors_in(LESSONS[9])
    assert "pool-a-44-map" in anchors_in(LESSONS[1])  # a × is no letter
    assert "how-do-i-add-gap-to-this-model" in anchors_in(DOCS / "engineers.md")


def test_the_start_page_shows_every_lesson_with_its_title():
    titles = [re.match("# (.+)", read(path).cells[0].source)[1] for path in LESSONS]
    expected = [
        (f"{path.name[:2]} {title}", f"notebooks/{path.stem}")
        for path, title in zip(LESSONS, titles, strict=True)
    ]
    start = markdown_of(START)
    assert re.findall(r"\[(\d\d .+?)\]\((.+?)\.ipynb\)", start) == expected
    assert re.findall(r"^(\d\d .+) <(.+)>$", start, re.M) == expected  # in the contents


def test_the_start_page_shows_a_stored_picture_of_every_lesson():
    """That gives away no answer to a question."""
    chosen = json.loads((DOCS / "pictures.json").read_text(encoding="utf-8"))
    assert [*chosen] == [path.name[:2] for path in LESSONS]
    shown = re.findall(r"\[!\[(.+?)\]\(pictures/(\d\d)\.png\)\]\((.+?)\)", markdown_of(START))
    for (alt, number, link), path in zip(shown, LESSONS, strict=True):
        assert (alt, link) == (chosen[number]["alt"], f"notebooks/{path.name}")
        (cell,) = (cell for cell in read(path).cells if cell.id == chosen[number]["cell"])
        assert any("image/png" in output.get("data", {}) for output in cell.outputs)
        assert "reveal" not in cell.metadata.get("tags", [])


def text_for(path: Path, kind: str) -> str:
    """All sources of one kind of cell."""
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == kind)


def quiz_of(path: Path):
    """The question, its answers, the right one and the lesson of each cell of the quiz."""
    for cell in code_cells(read(path), "quiz"):
        call = ast.parse(cell.source).body[0].value
        assert ast.unparse(call.func) == "quiz.ask"
        more = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        yield *map(ast.literal_eval, call.args), more["right"], more["lesson"]


@lessons
def test_the_quiz_is_folded_and_at_the_end_of_the_last_lesson(path):
    cells = code_cells(read(path))
    asked = [place for place, cell in enumerate(cells) if "quiz" in cell.metadata.get("tags", [])]
    if path != LESSONS[-1]:
        assert asked == []
        return
    assert asked == [*range(asked[0], asked[0] + 15)]
    assert all(is_folded(cells[place]) for place in asked)
    assert cells[asked[0] - 1].source == "quiz = Quiz()"
    assert cells[asked[-1] + 1].source == "quiz"


def test_each_question_of_the_quiz_has_its_lesson_and_hides_its_answer():
    quiz = [*quiz_of(LESSONS[-1])]
    # 00 teaches how to work with the lessons, and no fact to ask for
    assert {lesson for *_, lesson in quiz} == {path.name[:2] for path in LESSONS[1:]}
    places = Counter([*answers].index(right) for _, answers, right, _ in quiz)
    assert len(places) >= 3 and max(places.values()) <= 5, places
    longest = [max(answers, key=len) == right for _, answers, right, _ in quiz]
    assert sum(longest) <= 7
    for question, answers, *_ in quiz:
        assert question.endswith("?")
        assert 3 <= len(answers) <= 4
        assert len({*answers.values()}) == len(answers)


def test_the_numbers_of_the_quiz_are_printed_in_a_lesson():
    printed = " ".join(
        text_of(output)
        for path in LESSONS
        for cell in code_cells(read(path))
        if "quiz" not in cell.metadata.get("tags", [])
        for output in cell.outputs
    )
    for question, answers, *_ in quiz_of(LESSONS[-1]):
        for said in (question, *answers.values()):
            for number in re.findall(r"\d[\d,]*\.?\d+", said):
                plain = number.replace(",", "")
                found = re.search(rf"(?<!\d)({number}|{plain})(?!\d)", printed)
                assert found or len(plain) < 3, f"{number} of {said!r} is printed nowhere"


def glossary_of(path: Path) -> str:
    return re.search(r"^## Glossary$(.+?)(?=^## |\Z)", text_for(path, "markdown"), re.M | re.S)[1]


def test_the_glossary_leads_to_the_lessons():
    glossary = glossary_of(LESSONS[-1])
    assert len(glossary.split()) <= 900
    entries = re.findall(r"^- \*\*(.+?)\*\*: (.+\.) \[(\d\d)\]\((\S+)\)$", glossary, re.M)
    assert len(entries) == glossary.count("\n- ") > 50
    assert [term.lower() for term, *_ in entries] == sorted(term.lower() for term, *_ in entries)
    for term, _, number, file in entries:
        path = LESSONS[int(number)]
        assert path.name == file
        lesson = f"{text_for(path, 'markdown')} {text_for(path, 'code')}".replace(glossary, "")
        for word in re.split(r", | and ", term.split(" (")[0]):
            assert word.lower() in lesson.lower(), f"no {word} in lesson {number}"


@lessons
def test_each_term_is_in_the_glossary(path):
    """A bold word is a term, or it is among NO_TERMS."""
    glossary = glossary_of(LESSONS[-1])
    text = re.sub(r"`[^`]*`", "", text_for(path, "markdown").replace(glossary, ""))
    no_terms = {word.strip() for line in NO_TERMS.splitlines() for word in line.split("/")}
    for term in {*re.findall(r"\*\*([^*\n]+)\*\*", text)} - no_terms:
        if len(term.split()) > 3 or re.search(r"[.?:]$|^[\d.]+$", term):  # a sentence, a result
            continue
        forms = {term, term.removesuffix("s"), term.removesuffix("es")}
        assert any(form.lower() in glossary.lower() for form in forms), term
