"""What all labs share: controls as data, frames for the page, a picture for the file.

A lab is three layers. A *state* is a frozen dataclass. `Lab.draw` makes a `Frame` of it, in
Python. `lab.js` makes the controls, shows the frame, and asks for other frames here. What it
sends and what it gets is said above `Lab.answer` and `Lab.opening`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from html import escape
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import anywidget
import traitlets
from IPython import get_ipython
from IPython.display import display

from gap_utils.svg import PALETTES, Frame, Panel, Pixels, Readout, cut, picture_of

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
SMALL = 4096  # bytes of levels that travel each time, since asking for them is no shorter
LARGEST_FILE = 20_000_000  # bytes
LONGEST_ANSWER = 0.1  # seconds; what is still ahead then is asked for again, if it is needed
HERE = Path(__file__).parent

# The picture in the file hides when the lab behind it is alive. Where its kernel is gone,
# Jupyter writes that it has no model for it; the picture says more.
STILL_STYLE = """<style>
.jp-OutputArea-child:has(.gap-still):has(+ .jp-OutputArea-child .gap-lab),
.jp-OutputArea-child:has(.gap-still) + .jp-OutputArea-child:not(:has(.gap-lab)) {display: none}
</style>"""


@dataclass(frozen=True)
class Slider:
    """A number of a range, moved along a track or typed; `name` is a field of the lab's state.

    Attributes:
        main: whether it is the first control, as wide as the lab.
    """

    name: str
    label: str
    low: int
    high: int
    main: bool = False
    kind: ClassVar[str] = "slider"


@dataclass(frozen=True)
class Choice:
    """One of several values, each with its label; of many, one types a part of the label.

    Attributes:
        options: label and value of each.
        style: "list" or "radio", all of them in view.
    """

    name: str
    label: str
    options: Sequence[tuple[str, Any]]
    main: bool = False
    style: str = "list"
    kind: ClassVar[str] = "choice"


@dataclass(frozen=True)
class Toggle:
    """True or False."""

    name: str
    label: str
    kind: ClassVar[str] = "toggle"


@dataclass(frozen=True)
class Numbers:
    """A square grid of numbers to type over, where the picture has elements to focus it."""

    name: str
    label: str
    low: float
    high: float
    kind: ClassVar[str] = "numbers"


@dataclass(frozen=True)
class Button:
    """Something to do; `name` is what `Lab.press` gets."""

    name: str
    label: str
    kind: ClassVar[str] = "button"


@dataclass(frozen=True)
class File:
    """A file of the user's, for `Lab.receive`."""

    name: str
    label: str
    accept: str
    kind: ClassVar[str] = "file"


START_AGAIN = Button("reset", "Start again")


class Lab:
    """Something to display: alive while a kernel runs, a picture and a text otherwise.

    It is no widget itself, so it is shown the same way by ipywidgets 7 and 8. A subclass says
    what a state looks like in `draw`, and more where it needs to.

    Args:
        state: where it begins, a frozen dataclass.
        controls: what moves its fields.

    Attributes:
        value: the state on view; it can be set. `lab.set(name=new)` changes single fields.
        text: all that is on view, in words and numbers.
        controls: as they were given.
        needs_kernel: names of buttons that a page without a kernel does not have.
        with_a_kernel: what is not on such a page, in a sentence.
    """

    needs_kernel: ClassVar[Collection[str]] = ()
    with_a_kernel: ClassVar[str] = ""

    def __init__(self, state: Any, controls: Sequence[Any]):
        self.controls = controls
        self._widget: _Widget | None = None
        self._state = self._start = self.complete(state)
        self._frame = self.draw(self._state)

    # what a subclass may say

    def draw(self, state: Any) -> Frame:
        """Make the frame of a state; raise ValueError where there is none."""
        raise NotImplementedError

    def complete(self, state: Any) -> Any:
        """Fill in what a state leaves open; raise ValueError if it is not for this lab."""
        return state

    def to_fields(self, state: Any) -> dict[str, Any]:
        """Say what the controls show, by name; from these `from_fields` makes the state again."""
        return {field.name: getattr(state, field.name) for field in fields(state)}

    def from_fields(self, values: dict[str, Any]) -> Any:
        """Make the state that the controls ask for, or the nearest that can be."""
        return type(self._start)(**values)

    def limits(self, state: Any) -> dict[str, dict[str, Any]]:
        """Say what of the controls depends on the state, by name.

        Such as `high` of a slider, whether it is `hidden`, or that a button is `idle`, as it
        would change nothing.
        """
        return {}

    def note(self, wanted: dict[str, Any], state: Any) -> str:
        """Say what is not as the controls asked for; empty where all is."""
        return ""

    def press(self, name: str, state: Any) -> Any:
        """Do what a button says; return the new state."""
        return self._start

    def receive(self, content: bytes) -> None:
        """Take a file of the user's."""

    def prepared(self) -> Sequence[Any]:
        """Say which states are drawn beforehand, so that no kernel is needed for them."""
        return ()

    def tour(self) -> Iterable[Any]:
        """Say which states a page without a kernel can show, besides the one on view."""
        return ()

    def as_html(self) -> str:
        """Say what a page without a kernel shows of a lab without a picture."""
        return f"<pre>{escape(repr(self))}</pre>"

    # what its user sees

    @property
    def value(self) -> Any:
        """The state on view; setting it moves the controls too."""
        return self._state

    @value.setter
    def value(self, state: Any) -> None:
        wanted = type(self._start)
        if not isinstance(state, wanted):
            raise ValueError(f"expected a {wanted.__name__}, got {type(state).__name__}")
        self._adopt(self.complete(state))
        if self._widget:
            self._send({"show": True}, self._state, set())

    def set(self, **changes) -> None:
        """Change single fields of the state; what is not possible raises ValueError."""
        known = [field.name for field in fields(self._state)]
        if unknown := [name for name in changes if name not in known]:
            raise ValueError(f"expected one of {', '.join(known)}, got {unknown[0]}")
        self.value = replace(self._state, **changes)

    @property
    def frame(self) -> Frame:
        """What is on view."""
        return self._frame

    @property
    def text(self) -> str:
        """All that is on view, in words and numbers."""
        return self._frame.text

    def describe(self) -> str:
        """Say what stands below the panels, a sentence a line."""
        return "\n".join(filter(None, [self._frame.large, *self._frame.words]))

    def _ipython_display_(self) -> None:
        data, metadata = self._still()
        display(data, metadata=metadata, raw=True)
        if self._widget is None:
            self._widget = _Widget(self)
        bundle = self._widget._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        display({WIDGET_VIEW: data[WIDGET_VIEW]}, raw=True, metadata=metadata)

    def _still(self) -> tuple[dict[str, str], dict[str, Any]]:
        """What a page without a kernel shows."""
        data, metadata = {"text/html": self.as_html()}, {}
        if self._frame.panels:
            data, metadata = picture_of(self._frame)._repr_mimebundle_()
        data["text/html"] = f'<div class="gap-still">{data["text/html"]}</div>{STILL_STYLE}'
        return {**data, "text/plain": repr(self)}, metadata

    # what the page asks for

    def opening(self) -> dict[str, Any]:
        """What the page gets first: controls, palettes, the frame on view and those prepared."""
        states = [self._state, *self.prepared()]
        frames = [self.as_data(state) for state in states]
        return {
            "name": type(self).__name__,
            "controls": [{"kind": control.kind, **asdict(control)} for control in self.controls],
            "palettes": {name: table.tobytes() for name, table in PALETTES.items()}
            if self._frame.panels
            else {},
            "frames": [
                {**data, "levels": {pixels.digest: pixels.data for pixels in found}}
                for data, found in frames
            ],
        }

    def answer(self, message: dict[str, Any], buffers: Sequence[Any]) -> None:
        """Answer the page.

        Args:
            message: `ask`, a number that comes back in each answer. `fields`: what the controls
                show. With `press`, a button, or where `missing` is true, the frame of it is
                sent. `ahead`: other fields whose frames may come to be needed. `have`: digests
                of levels that need not be sent. Or a piece of a file: its `size`, and where
                this piece begins, `at`. Or nothing more, to learn whether there is an answer.
            buffers: the piece.
        """
        ask, began = message["ask"], perf_counter()
        count = left = 0
        try:
            if "size" in message:
                self._take_piece(message["size"], message["at"], bytes(buffers[0]))
                return
            if "fields" not in message:
                return
            have = set(message["have"])
            wanted = message["fields"]
            state = self.from_fields(wanted)
            if "press" in message:
                state = self.press(message["press"], state)
            state = self.complete(state)
            note = "" if "press" in message else self.note(wanted, state)
            self._adopt(state)  # last of what may fail: the page then stays where it is
            if message["missing"]:
                self._send({"ask": ask, "place": 0, "note": note}, self._state, have)
                count += 1
            for place, ahead in enumerate(message["ahead"], start=1):
                if perf_counter() - began > LONGEST_ANSWER:
                    left = len(message["ahead"]) - place + 1
                    break
                try:
                    state = self.complete(self.from_fields(ahead))
                    note = self.note(ahead, state)
                    self._send({"ask": ask, "place": place, "note": note}, state, have)
                    count += 1
                except Exception:  # it is said when the learner goes there
                    continue
        except Exception as error:  # goes to a log that nobody sees
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            self._widget.send({"ask": ask, "problem": f"{kind}{error}"})
            if kind:
                raise
        finally:
            took = (perf_counter() - began) * 1000 / max(count, 1)
            self._widget.send({"ask": ask, "done": took, "left": left})

    def _adopt(self, state: Any) -> None:
        if state != self._state:
            self._frame = self.draw(state)
            self._state = state

    def _take_piece(self, size: int, at: int, piece: bytes) -> None:
        """Gather the pieces of a file; nothing is joined before all of it is here."""
        if at == 0:
            self._pieces = []
        if size > LARGEST_FILE or at + len(piece) > size:
            raise ValueError(
                f"expected a file of at most {LARGEST_FILE:,} bytes, got {max(size, at):,}"
            )
        self._pieces.append(piece)
        if at + len(piece) == size:
            content, self._pieces = b"".join(self._pieces), []
            self.receive(content)

    def _send(self, message: dict[str, Any], state: Any, have: set[str]) -> None:
        data, found = self.as_data(state)
        buffers = {pixels.digest: pixels.data for pixels in found if pixels.digest not in have}
        have.update(digest for digest, levels in buffers.items() if len(levels) > SMALL)
        self._widget.send({**message, "frame": data, "levels": [*buffers]}, [*buffers.values()])

    def as_data(self, state: Any) -> tuple[dict[str, Any], list[Pixels | Readout]]:
        """Turn the frame of a state into what JSON can say, and the bytes that it needs."""
        frame = self._frame if state == self._state else self.draw(state)
        data = {
            "fields": self.to_fields(state),
            "limits": self.limits(state) | {"reset": {"idle": state == self._start}},
            "panels": [*map(_panel_as_data, frame.panels)],
            "words": frame.words,
            "large": frame.pieces,
            "room": frame.room,
            "verdict": frame.verdict,
            "text": frame.text,
        }
        return data, [
            found
            for panel in frame.panels
            for found in (*panel.pixels, *filter(None, [panel.readout]))
        ]


def _panel_as_data(panel: Panel) -> dict[str, Any]:
    pixels = [
        {
            "digest": pixels.digest,
            "shape": pixels.levels.shape,
            "box": [*map(float, pixels.box)],
            "palette": pixels.palette,
            "opacity": float(pixels.opacity),
            "smooth": pixels.smooth,
        }
        for pixels in panel.pixels
    ]
    readout = panel.readout and {
        "digest": panel.readout.digest,
        "shape": panel.readout.numbers.shape,
        "box": [*map(float, panel.readout.box)],
        "names": [*panel.readout.names],
    }
    return {
        "width": panel.width,
        "height": panel.height,
        "parts": cut(panel.svg),  # those that stay need not be read again
        "pixels": pixels,
        "readout": readout,
        "above": panel.above,
    }


class _Widget(anywidget.AnyWidget):
    """The live host of `lab.js`: what the page needs at once is its state, the rest messages."""

    _esm = (HERE / "lab.js").read_text(encoding="utf-8")
    _css = (HERE / "lab.css").read_text(encoding="utf-8")
    # made when it is asked for, so that a page that is loaded again shows what was on view
    opening = traitlets.Any().tag(sync=True, to_json=lambda _, widget: widget.lab.opening())

    def __init__(self, lab: Lab):
        self.lab = lab
        super().__init__()
        self.on_msg(lambda _, *message: _when_no_cell_runs(lab.answer, *message))


def _when_no_cell_runs(action: Callable[..., None], *given: Any) -> None:
    """Do something now, or when the running cell has ended.

    JupyterLab hands messages of widgets to a thread of their own while a cell runs. The cell
    may be training the very network that a lab shows in evaluation mode.
    """
    if threading.current_thread() is threading.main_thread():
        action(*given)
    else:
        get_ipython().kernel.io_loop.add_callback(action, *given)
