"""What all labs share, with a lab of one number."""

import threading
from dataclasses import dataclass, replace

import anywidget
import numpy as np
import pytest

from frames import Page
from gap_utils.svg import Frame, Panel, Pixels, Readout, text
from gap_utils.widgets import lab as lab_module
from gap_utils.widgets.lab import LARGEST_FILE, WIDGET_VIEW, Button, File, Lab, Slider


@dataclass(frozen=True)
class Count:
    number: int = 0
    size: int = 2

    def __post_init__(self):
        if self.number > 9:
            raise ValueError(f"expected a number up to 9, got {self.number}")


class CountLab(Lab):
    def __init__(self, **settings):
        self.drawn, self.files = [], []
        controls = [Slider("number", "Number", 0, 9), Button("reset", "Start again")]
        super().__init__(Count(**settings), [*controls, File("file", "File", ".txt")])

    def draw(self, state):
        self.drawn.append(state.number)
        if state.number == 7:
            raise RuntimeError("the network is ill")
        levels = np.full((80, 80), state.size, np.uint8), np.full((2, 2), state.number, np.uint8)
        pixels = [Pixels(some, (0, 0, 10, 10)) for some in levels]
        words = f"The number is {state.number}."
        return Frame([Panel(20, 10, text(0, 5, words), pixels)], (words,), f"All: {words}")

    def from_fields(self, values):
        number = 5 if values["number"] == 6 else values["number"]  # there is no six
        return Count(number, values["size"])

    def note(self, wanted, state):
        return "" if wanted["number"] == state.number else "There is no six."

    def receive(self, content):
        self.files.append(content)
        self.set(number=len(content) % 10)

    def __repr__(self):
        return f"CountLab({self.value.number})"


@pytest.fixture
def page():
    return Page(CountLab())


def numbers(answers):
    return [answer["frame"]["fields"]["number"] for answer in answers if "frame" in answer]


def test_value_set_text_and_describe():
    lab = CountLab(number=2)
    lab.set(number=3)
    assert lab.value == Count(3)
    assert (lab.text, lab.describe()) == ("All: The number is 3.", "The number is 3.")
    for change, message in [
        ({"number": 10}, "expected a number up to 9, got 10"),
        ({"nummer": 1}, "expected one of number, size, got nummer"),
    ]:
        with pytest.raises(ValueError, match=message):
            lab.set(**change)
    with pytest.raises(ValueError, match="expected a Count, got int"):
        lab.value = 3
    with pytest.raises(RuntimeError, match="ill"):
        lab.set(number=7)
    assert (lab.value, lab.text) == (Count(3), "All: The number is 3.")


def test_the_state_on_view_is_answered_first_and_then_what_is_ahead(page):
    fields = {"number": 1, "size": 2}
    ahead = [{"number": n, "size": 2} for n in (2, 3)]
    answers = page.ask(fields=fields, ahead=ahead)
    assert [(answer.get("place"), "done" in answer) for answer in answers] == [
        (0, False),
        (1, False),
        (2, False),
        (None, True),
    ]
    assert numbers(answers) == [1, 2, 3]
    assert page.lab.value == Count(1)
    assert answers[0]["frame"]["text"] == "All: The number is 1."


def test_a_frame_in_store_is_only_told(page):
    answers = page.ask(fields={"number": 4, "size": 2}, missing=False)
    assert numbers(answers) == []
    assert page.lab.value == Count(4)


def test_what_is_impossible_ahead_is_passed_over(page):
    ahead = [{"number": n, "size": 2} for n in (7, 9, 10, 11)]
    answers = page.ask(ahead=ahead)
    assert numbers(answers) == [0, 9]
    assert not any("problem" in answer for answer in answers)


def test_a_long_answer_ends_and_says_what_is_left(page, monkeypatch):
    monkeypatch.setattr(lab_module, "LONGEST_ANSWER", -1)
    answers = page.ask(ahead=[{"number": n, "size": 2} for n in (1, 2, 3)])
    assert numbers(answers) == [0]  # what is on view comes whatever it takes
    assert answers[-1]["left"] == 3


def test_the_nearest_state_and_why(page):
    (answer, _) = page.ask(fields={"number": 6, "size": 2})
    assert (numbers([answer]), answer["note"]) == ([5], "There is no six.")


def test_a_refusal_changes_nothing_and_is_said(page):
    page.ask(fields={"number": 3, "size": 2})
    answers = page.ask(fields={"number": 10, "size": 2})
    assert answers[0]["problem"] == "expected a number up to 9, got 10"
    assert "done" in answers[-1]
    assert (page.lab.value, page.lab.text) == (Count(3), "All: The number is 3.")


def test_an_error_is_said_with_its_name_and_raised_for_the_log(page):
    with pytest.raises(RuntimeError):
        page.ask(fields={"number": 7, "size": 2})
    assert page.sent[0]["problem"] == "RuntimeError: the network is ill"
    assert "done" in page.sent[-1]
    assert page.lab.value == Count(0)


def test_an_error_in_a_note_leaves_the_state_too(page, monkeypatch):
    monkeypatch.setattr(page.lab, "note", lambda wanted, state: wanted["place"])
    with pytest.raises(KeyError):
        page.ask(fields={"number": 3, "size": 2})
    assert (page.lab.value, page.lab.text) == (Count(0), "All: The number is 0.")


def test_a_button(page):
    page.ask(fields={"number": 3, "size": 2})
    assert numbers(page.ask(press="reset", fields={"number": 3, "size": 2})) == [0]


def test_levels_travel_once(page):
    first = page.ask(ahead=[{"number": 1, "size": 2}])
    large, small = first[0]["frame"]["panels"][0]["pixels"]
    assert first[0]["levels"] == [large["digest"], small["digest"]]
    assert [len(data) for data in first[0]["data"]] == [6400, 4]
    assert [len(data) for data in first[1]["data"]] == [4]  # the large ones are on their way
    assert first[0]["data"][0] == bytes([2] * 6400)
    again = page.ask(have=[large["digest"]], fields={"number": 3, "size": 2})
    assert [len(data) for data in again[0]["data"]] == [4]
    assert large["shape"] == (80, 80)


def test_numbers_to_read_out_and_a_line_in_pieces_travel_with_the_frame():
    class ReadLab(CountLab):
        def draw(self, state):
            frame = super().draw(state)
            numbers = np.full((2, 1, 3), state.number)
            readout = Readout(numbers, (1, 2, 3, 4), ("one", "two"))
            panel = replace(frame.panels[0], readout=readout, above=True)
            pieces = [("a", "link"), ("b", "")]
            return replace(frame, panels=[panel, *frame.panels], pieces=pieces)

    page = Page(ReadLab(size=1))
    (answer, _) = page.ask(fields={"number": 3, "size": 1})
    panels = answer["frame"]["panels"]
    assert [panel["above"] for panel in panels] == [True, False]
    assert panels[1]["readout"] is None
    read = panels[0]["readout"]
    assert (read["shape"], read["box"], read["names"]) == ((2, 1, 3), [1, 2, 3, 4], ["one", "two"])
    data = dict(zip(answer["levels"], answer["data"], strict=True))[read["digest"]]
    assert data == np.full(6, 3, "<f4").tobytes()
    assert answer["frame"]["large"] == [("a", "link"), ("b", "")]
    assert page.lab.frame.large == "ab"


def test_set_moves_the_page(page):
    page.lab.set(number=8)
    (answer,) = page.sent
    assert (answer["show"], numbers([answer])) == (True, [8])


def test_a_file_in_pieces(page):
    content = bytes(range(250)) * 10
    for at in range(0, 2500, 1000):
        answers = page.ask(size=2500, at=at, buffers=[memoryview(content[at : at + 1000])])
        assert "done" in answers[-1]
    assert page.lab.files == [content]
    assert page.lab.value == Count(0)


@pytest.mark.parametrize(
    ("size", "at", "length"), [(LARGEST_FILE + 1, 0, 10), (5, 0, 10), (15, 10, 10)]
)
def test_a_file_that_is_too_large_is_refused_before_it_is_joined(page, size, at, length):
    if at:
        page.ask(size=size, at=0, buffers=[bytes(10)])
    answers = page.ask(size=size, at=at, buffers=[bytes(length)])
    assert "expected a file of at most 20,000,000 bytes, got " in answers[0]["problem"]
    assert page.lab.files == []


def test_what_a_page_begins_with(page):
    page.lab.set(number=4)
    opening = page.lab.opening()
    assert [control["kind"] for control in opening["controls"]] == ["slider", "button", "file"]
    (frame,) = opening["frames"]
    assert frame["fields"] == {"number": 4, "size": 2}  # what is on view, not the start
    assert sorted(map(len, frame["levels"].values())) == [4, 6400]
    assert len(opening["palettes"]["signed"]) == 1024


def test_a_lab_is_shown_as_a_picture_and_then_alive(monkeypatch):
    shown = []
    monkeypatch.setattr(lab_module, "display", lambda data, **how: shown.append((data, how)))
    lab = CountLab()
    lab._ipython_display_()
    (still, how), (live, _) = shown
    assert set(still) == {"text/plain", "text/html", "image/png"}
    assert still["text/plain"] == "CountLab(0)"
    assert still["text/html"].startswith('<div class="gap-still"><img width=')
    assert how["metadata"]["image/png"]["alt"] == "All: The number is 0."
    assert set(live) == {WIDGET_VIEW}
    assert isinstance(lab._widget, anywidget.AnyWidget)
    lab.set(number=2)
    state = lab._widget.get_state()  # what a page that is loaded again asks for
    assert state["opening"]["frames"][0]["fields"]["number"] == 2
    lab._ipython_display_()  # once more: the same widget
    assert shown[3][0] == live


def test_no_answer_is_made_while_a_cell_runs(monkeypatch):
    waiting, threads = [], []

    class Kernel:
        class kernel:  # noqa: N801
            class io_loop:  # noqa: N801
                add_callback = staticmethod(lambda *call: waiting.append(call))

    monkeypatch.setattr(lab_module, "get_ipython", Kernel)
    ask = lab_module._when_no_cell_runs
    other = threading.Thread(target=ask, args=(threads.append, 1))
    other.start()
    other.join()
    assert (threads, waiting) == ([], [(threads.append, 1)])
    ask(threads.append, 2)
    assert threads == [2]
