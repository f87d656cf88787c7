"""A built site: its files as they are read, its labs in Python, and how they are worked."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from time import monotonic
from typing import Any
from xml.etree import ElementTree

from nbval_pictures import ROOT

PLACE = "some/where"  # of the site on its server; all its links must do there too
LESSONS = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
TRAINED = ("06-42", "06-51")  # labs of networks that lesson 06 trains for half a minute
PATIENCE = 5  # seconds until the page shows what it should
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source"}


@dataclass
class LabOnPage:
    """A lab or a question as a page has it.

    Attributes:
        page: its file, from the first page.
        name: of its class.
        number: its place among all on that page, from 0.
        frames: the name of the file of its frames, empty for a question.
        told: what it begins with, as JSON.
        kernel: what it says to need a kernel for.
    """

    page: str
    name: str
    number: int
    frames: str
    told: str = ""
    kernel: str = ""

    @property
    def opening(self) -> dict[str, Any]:
        """What it begins with."""
        return json.loads(self.told)

    def __str__(self) -> str:
        return self.frames or f"{Path(self.page).stem[:2]}-question-{self.number}"


@dataclass
class Cell:
    """A cell with code as a page has it: the classes that say its tags, and its code."""

    tags: list[str]
    source: str = ""


class Html(HTMLParser):
    """What a page is made of.

    Attributes:
        ids: that an anchor can name.
        addresses: (tag, attribute, value) of all that leads or loads.
        labs: with the questions.
        cells: with code.
        headings: level and words of each.
        code: what stands in `style` and `script`, and in attributes of style.
    """

    def __init__(self, path: Path, site: Path):
        super().__init__()
        self.page = path.relative_to(site).as_posix()
        self.ids: set[str] = set()
        self.addresses: list[tuple[str, str, str]] = []
        self.labs: list[LabOnPage] = []
        self.cells: list[Cell] = []
        self.headings: list[tuple[int, str]] = []
        self.code: list[str] = []
        self._open: list[tuple[str, dict[str, str]]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self._open.append((tag, given))
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        self.code += [given[name] for name in ("style",) if name in given]
        for name in ("href", "src", "srcset", "data", "action", "poster", "xlink:href"):
            if name in given:
                self.addresses.append((tag, name, given[name]))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        if (classes := given.get("class", "").split())[:1] == ["cell"]:
            self.cells.append(Cell(classes[1:]))
        if given.get("class") == "gap-on-page":
            frames = Path(given["data-frames"]).stem
            self.labs.append(LabOnPage(self.page, given["data-lab"], len(self.labs), frames))

    def handle_endtag(self, tag):
        if tag in [name for name, _ in self._open]:
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data):
        (_, outer), (tag, given) = [("", {}), ("", {}), *self._open][-2:]
        if given.get("type") == "application/json":
            self.labs[-1].told += data
        elif tag in ("style", "script"):
            self.code.append(data)
        elif outer.get("class") == "gap-kernel" and tag == "span":
            self.labs[-1].kernel += data
        if any(re.fullmatch("h[1-6]", tag) for tag, _ in self._open) and data != "#":
            level, words = self.headings[-1]
            self.headings[-1] = level, words + data
        if any("cell_input" in given.get("class", "") for _, given in self._open):
            self.cells[-1].source += data


@cache
def read_pages(site: Path) -> dict[str, Html]:
    """All pages of a site, by their file."""
    pages = [Html(path, site) for path in sorted(site.rglob("*.html"))]
    return {page.page: page for page in pages}


def labs_of(site: Path) -> dict[str, LabOnPage]:
    """The labs with frames, by the name of their file."""
    return {
        lab.frames: lab for page in read_pages(site).values() for lab in page.labs if lab.frames
    }


def key_of(fields: dict[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True)


class Frames:
    """A file of frames, read as `pack` in page.py says that it is written.

    Attributes:
        frames: all of them.
        numbers: the number of the frame of fields, by their key.
        notes: on frames that are not of the fields that lead to them, by the key of these.
        levels: the bytes of a digest.
    """

    def __init__(self, path: Path):
        content = gzip.decompress(path.read_bytes())
        end = 4 + int.from_bytes(content[:4], "big")
        told = json.loads(content[4:end])
        self._table, self._made = told["table"], {}
        self.frames = [self._value(place) for place in told["frames"]]
        self.numbers = {key_of(frame["fields"]): n for n, frame in enumerate(self.frames)}
        self.notes = {}
        for place, number, note in told["others"]:
            key = key_of(self._value(place))
            self.numbers[key], self.notes[key] = number, note
        self.levels = {
            digest: content[end + first : end + last]
            for digest, (first, last) in told["levels"].items()
        }

    def _value(self, place: int) -> Any:
        if place not in self._made:
            entry = self._table[place]
            if isinstance(entry, list):
                entry = [self._value(inner) for inner in entry]
            elif isinstance(entry, dict):
                entry = {name: self._value(inner) for name, inner in entry.items()}
            self._made[place] = entry
        return self._made[place]

    def at(self, fields: dict[str, Any]) -> dict[str, Any] | None:
        """The frame of fields; None where there is none."""
        number = self.numbers.get(key_of(fields))
        return None if number is None else self.frames[number]


def frames_of(site: Path, name: str) -> Frames:
    """The frames of a lab."""
    return Frames(site / "_static" / "labs" / f"{name}.frames")


def offered(control: dict[str, Any], limits: dict[str, Any]) -> list[Any]:
    """All values that a control can have, with the limits of the frame on view.

    Args:
        control: as it is opened with.
        limits: of all controls.
    """
    bounds = {**control, **limits.get(control["name"], {})}
    if "values" in bounds:
        return bounds["values"]
    if control["kind"] == "slider":
        return [*range(bounds["low"], bounds["high"] + 1)]
    if control["kind"] == "choice":
        return [value for _, value in control["options"]]
    return [False, True] if control["kind"] == "toggle" else []


class Handler(SimpleHTTPRequestHandler):
    """Answers without a word in the log."""

    def log_message(self, *_):
        pass


@contextmanager
def served(site: Path, handler: type[Handler] = Handler):
    """Serve a site from a folder deep in its server; yields its address."""
    with TemporaryDirectory() as folder:
        place = Path(folder, PLACE)
        place.parent.mkdir(parents=True)
        place.symlink_to(site, target_is_directory=True)

        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=folder))
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/{PLACE}/"
        finally:
            server.shutdown()
            server.server_close()


class InPython:
    """The labs and questions of a lesson, made as the lesson makes them."""

    def __init__(self, lesson: str):
        from tools import build_site

        os.environ["MPLBACKEND"] = "agg"
        self._source = build_site.Lesson(ROOT / "notebooks" / f"{lesson}.ipynb", None)

    @cached_property
    def _shown(self) -> dict[str, Any]:
        """What the cells show, by their ids, but for the labs that take a training."""
        from tools.build_site import is_shown, run_cell, tags_of
        from tools.lesson_cells import cells_needed

        notebook = self._source.notebook
        wanted = [
            cell
            for cell in notebook.cells
            if is_shown(cell) and "check" not in tags_of(cell) and cell.id not in TRAINED
        ]
        names, shown, before = {"__name__": "__main__"}, {}, Path.cwd()
        os.chdir(ROOT / "notebooks")
        try:
            for cell in cells_needed(notebook, wanted):
                if "setup" not in tags_of(cell):
                    shown[cell.id] = run_cell(cell.source, names)
        finally:
            os.chdir(before)
        return {cell.id: shown[cell.id] for cell in wanted}

    def lab(self, cell: str) -> Any:
        """The lab of a cell."""
        return self._shown[cell]

    @property
    def questions(self) -> list[Any]:
        """All questions, in their order."""
        from gap_utils.widgets import Question

        return [shown for shown in self._shown.values() if isinstance(shown, Question)]


@cache
def in_python(lesson: str) -> InPython:
    """A lesson in Python, once for all tests."""
    return InPython(lesson)


def lab_in_python(lab: LabOnPage) -> Any:
    """Make the lab of a page."""
    from gap_utils.widgets import PoolLab
    from tools.build_site import STARTS_WITH

    if lab.frames == "start":
        return PoolLab(**STARTS_WITH)
    return in_python(Path(lab.page).stem).lab(lab.frames)


@cache
def lab_cells() -> dict[str, str]:
    """The page of each lab, by the name of its frames: of cells that show one, and of the first."""
    found = {"start": "index.html"}
    for lesson in LESSONS:
        notebook = json.loads((ROOT / "notebooks" / f"{lesson}.ipynb").read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            for output in cell.get("outputs", []):
                if re.match(r"\w+Lab\(", "".join(output.get("data", {}).get("text/plain", ""))):
                    found[cell["id"]] = f"notebooks/{lesson}.html"
    return found


def seen_of(text: str, words: list[str], panels: list[Any]) -> dict[str, Any]:
    """What there is to see of a frame, and to hear.

    Args:
        text: all of it in words.
        words: below the panels.
        panels: their SVG, whether they are above the others, and the digests of their maps.
    """
    panels = sorted(panels, key=lambda panel: not panel[1])
    return {
        "text": text,
        "words": words,
        "letters": [letters_of(svg) for svg, _, _ in panels],
        "maps": [digests for _, _, digests in panels],
    }


def letters_of(svg: str) -> list[str]:
    """All that is written in a picture."""
    return [
        "".join(one.itertext()) for one in ElementTree.fromstring(f"<svg>{svg}</svg>").iter("text")
    ]


class Kernel:
    """What a kernel would answer in place of the page.

    Args:
        lab: the same as that of the page.
    """

    def __init__(self, lab: Any):
        self.lab, self.start = lab, lab.value

    def fields(self, state: Any) -> dict[str, Any]:
        """What the controls show; as JSON, which has no tuples."""
        return json.loads(json.dumps(self.lab.to_fields(state)))

    def move(self, state: Any, changes: dict[str, Any]) -> tuple[Any, str]:
        """Go where controls point; the state and the note on it. ValueError where there is none."""
        wanted = {**self.lab.to_fields(state), **changes}
        state = self.lab.complete(self.lab.from_fields(wanted))
        return state, self.lab.note(wanted, state)

    def limits(self, state: Any) -> dict[str, Any]:
        """How far the controls go."""
        return self.lab.limits(state)

    def press(self, state: Any, name: str) -> Any:
        """Do what a button says. ValueError where it cannot be."""
        return self.lab.complete(self.lab.press(name, state))

    def draw(self, state: Any) -> tuple[dict[str, Any], str]:
        """What there is to see, and the SVG of all panels."""
        frame = self.lab.draw(state)
        panels = [(p.svg, p.above, [x.digest for x in p.pixels]) for p in frame.panels]
        words = [line for line in (frame.large, *frame.words) if line]
        return seen_of(frame.text, words, panels), "".join(panel.svg for panel in frame.panels)


class Packed:
    """The same from the file of frames alone, for labs whose networks take a training."""

    def __init__(self, frames: Frames):
        self._frames, self.start = frames, 0

    def fields(self, state: int) -> dict[str, Any]:
        return self._frames.frames[state]["fields"]

    def move(self, state: int, changes: dict[str, Any]) -> tuple[int, str]:
        key = key_of({**self.fields(state), **changes})
        if key not in self._frames.numbers:
            raise ValueError(key)
        return self._frames.numbers[key], self._frames.notes.get(key, "")

    def limits(self, state: int) -> dict[str, Any]:
        return self._frames.frames[state]["limits"]

    def press(self, state: int, name: str) -> int:
        presses = self._frames.frames[state]["presses"]
        if name not in presses:
            raise ValueError(name)
        return presses[name]

    def draw(self, state: int) -> tuple[dict[str, Any], str]:
        frame = self._frames.frames[state]
        panels = [
            ("".join(p["parts"]), p["above"], [x["digest"] for x in p["pixels"]])
            for p in frame["panels"]
        ]
        words = ["".join(words for words, _ in frame["large"]), *frame["words"]]
        return seen_of(frame["text"], [*filter(None, words)], panels), "".join(p[0] for p in panels)


# work a control of a lab, or click on its picture, and say what is seen then
WORK = """(root, { kind, label, place, click }) => {
    const all = (selector) => [...root.querySelectorAll(selector)];
    const named = (selector) => all(selector).find((e) => nameOf(e) === label);
    const nameOf = (e) => e.labels[0]?.querySelector("span").textContent;
    const tell = (element, event) => element.dispatchEvent(new Event(event, { bubbles: true }));
    const work = {
        slider: () => {
            const track = named("input[type=range]");
            track.focus();
            track.value = place;
            tell(track, "input");
        },
        choice: () => {
            const list = named("select");
            if (list) {
                list.focus();
                list.value = place;
                return tell(list, "change");
            }
            const groups = all("fieldset");
            groups.find((e) => e.querySelector("legend").innerText === label)
                .querySelectorAll("input")[place].click();
        },
        toggle: () => {
            const box = named("input[type=checkbox]");
            if (box.checked !== place) box.click();
        },
        button: () => all(".gap-button button").find((e) => e.innerText === label).click(),
        click: () => all("[data-set]").find((e) => e.dataset.set === click)
            .dispatchEvent(new MouseEvent("click", { bubbles: true })),
    };
    work[kind]();
}"""
SEE = """(root) => {
    const all = (selector, of = root) => [...of.querySelectorAll(selector)];
    const shown = (selector) => root.querySelector(selector)?.textContent ?? "";
    const layers = all(".gap-panel > svg:not(.gap-over)");
    const nameOf = (e) => e.labels[0].querySelector("span").textContent;
    const typed = (e) => e.closest(".gap-control").querySelector("[type=number]");
    const fields = [
        ...all("[type=range]").map((e) => [nameOf(e), Number(typed(e).value)]),
        ...all("select").map((e) => [nameOf(e), Number(e.value)]),
        ...all("[type=checkbox]").map((e) => [nameOf(e), e.checked]),
        ...all("fieldset").map((e) => [e.querySelector("legend").innerText,
            all("input", e).findIndex((one) => one.checked)]),
    ];
    return {
        text: shown(":scope > .gap-hidden"),
        words: all(".gap-words > [aria-live] > p").map((e) => e.textContent),
        letters: layers.map((svg) => all("text", svg).map((e) => e.textContent)),
        maps: layers.map((svg) => all("canvas", svg.parentElement)
            .map((e) => JSON.parse(e.dataset.drawn)[0])),
        note: shown(".gap-status"),
        refused: shown("[role=alert]"),
        fields: Object.fromEntries(fields),
    };
}"""


class Walker:
    """Works a lab on the page, and knows what it should show.

    Args:
        root: the lab on the page, as it begins.
        told: what the page was told of the lab.
        frames: of the lab.
        kernel: what answers beside it, a `Kernel` or `Packed`.
    """

    def __init__(self, root: Any, told: LabOnPage, frames: Frames, kernel: Any):
        self.root, self.told, self.frames, self.kernel = root, told, frames, kernel
        self.controls = [c for c in told.opening["controls"] if c["kind"] != "numbers"]
        self.state, self.done = kernel.start, []
        self._seen = self._see()

    @property
    def limits(self) -> dict[str, Any]:
        return self.frames.at(self.kernel.fields(self.state))["limits"]

    def offered(self, control: dict[str, Any]) -> list[Any]:
        return offered(control, self.limits)

    def is_there(self, control: dict[str, Any]) -> bool:
        return not self.limits.get(control["name"], {}).get("hidden")

    def clicks(self) -> list[str]:
        """What clicks on the picture set."""
        _, svg = self.kernel.draw(self.state)
        drawn = ElementTree.fromstring(f"<svg>{svg}</svg>").iter()
        return [*filter(None, (one.get("data-set") for one in drawn))]

    def move(self, control: dict[str, Any], value: Any) -> None:
        """Give a control a value that it offers."""
        place = value
        if control["kind"] == "slider" and "values" in self.limits.get(control["name"], {}):
            place = self.offered(control).index(value)
        elif control["kind"] == "choice":
            place = [option for _, option in control["options"]].index(value)
        self.done.append((control["label"], value))
        state, note = self.kernel.move(self.state, {control["name"]: value})
        self._work(kind=control["kind"], label=control["label"], place=place)
        self._expect(state, note)

    def press(self, button: dict[str, Any]) -> None:
        """Press a button; where its frame is not there, the page says what a kernel is for."""
        self.done.append(button["label"])
        self._work(kind="button", label=button["label"])
        if self.limits.get(button["name"], {}).get("idle"):  # it does nothing
            self._expect(self.state, self._seen["note"], self._seen["refused"])
        else:
            self._follow(lambda: (self.kernel.press(self.state, button["name"]), ""))

    def click(self, told: str) -> None:
        """Click on what sets fields in the picture."""
        self.done.append(told)
        self._work(kind="click", click=told)
        self._follow(lambda: self.kernel.move(self.state, json.loads(told)))

    def leads(self, told: str) -> bool:
        """Whether a click leads to another frame, and not to words of a kernel."""
        fields = self.kernel.fields(self.state)
        wanted = {**fields, **json.loads(told)}
        return wanted != fields and self.frames.at(wanted) is not None

    def expect_at(self, changes: dict[str, Any]) -> None:
        """Wait until the page shows what some gesture asked for."""
        self.done.append(changes)
        self._expect(*self.kernel.move(self.state, changes))

    def _work(self, **what) -> None:
        self.root.evaluate(WORK, what)

    def _see(self) -> dict[str, Any]:
        return self.root.evaluate(SEE)

    def _follow(self, go: Callable[[], tuple[Any, str]]) -> None:
        try:
            state, note = go()
        except ValueError:
            state = None
        if state is None or self.frames.at(self.kernel.fields(state)) is None:
            assert self.told.kernel
            self._expect(self.state, self._seen["note"], self.told.kernel)
        else:
            self._expect(state, note)

    def _expect(self, state: Any, note: str, refused: str = "") -> None:
        """Wait until the page shows a state, as Python does."""
        shown, _ = self.kernel.draw(state)
        wanted = {**shown, "note": note, "refused": refused, "fields": self._fields(state)}
        end = monotonic() + PATIENCE
        while (seen := self._see()) != wanted and monotonic() < end:
            self.root.page.wait_for_timeout(50)
        wrong = {name: (seen[name], wanted[name]) for name in wanted if seen[name] != wanted[name]}
        assert not wrong, f"{self.done}: {wrong}"
        self.state, self._seen = state, seen
        self._expect_no_farther()

    def _expect_no_farther(self) -> None:
        """A slider goes no farther than with a kernel, and what is on view is on its track."""
        own = self.kernel.limits(self.state)
        for control in self.controls:
            if control["kind"] == "slider":
                values = self.offered(control)
                bounds = {**control, **own.get(control["name"], {})}
                assert bounds["low"] <= values[0] and values[-1] <= bounds["high"], control["name"]
                assert self.kernel.fields(self.state)[control["name"]] in values, control["name"]

    def _fields(self, state: Any) -> dict[str, Any]:
        """What the controls have; of a choice, the place among its options."""
        fields, found = self.kernel.fields(state), {}
        for control in self.controls:
            if control["kind"] == "choice":
                values = [value for _, value in control["options"]]
                found[control["label"]] = values.index(fields[control["name"]])
            elif control["kind"] != "button":
                found[control["label"]] = fields[control["name"]]
        return found
