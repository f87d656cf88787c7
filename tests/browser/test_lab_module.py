"""The module of all labs in a real browser, with the test as its kernel."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import product
from xml.etree import ElementTree

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from every_control import SQUARES, Everything, State, control, focus, press, problem, words
from gap_utils.backbones import load_backbone
from gap_utils.data import CLASS_NAMES, load_fashion_mnist
from gap_utils.localisation import area, box_around
from gap_utils.models import load_trained
from gap_utils.photos import load_photo
from gap_utils.svg import PALETTES, Frame, Panel, Pixels
from gap_utils.widgets import CamLab, HeadLab, MapLab, PhotoLab, PoolLab, Question, ShiftLab
from gap_utils.widgets import lab as lab_module
from gap_utils.widgets.lab import Lab, Slider
from page_host import PageHost, open_page

TEST = load_fashion_mnist().test
GONE = "The kernel behind this lab is gone. Run its cell again to go on."


@dataclass(frozen=True)
class LargeState:
    place: int = 0
    megabytes: int = 1


class Large(Lab):
    """Frames of so many megabytes."""

    def __init__(self, **fields):
        super().__init__(LargeState(**fields), [Slider("place", "Place", 0, 99)])

    def draw(self, state):
        pixels = [
            Pixels(np.full((1024, 1024), (state.place + 100 * n) % 256, np.uint8), (0, 0, 9, 9))
            for n in range(state.megabytes)
        ]
        said = f"Place {state.place}."
        return Frame([Panel(100, 100, "", pixels)], [said], said)


@pytest.fixture
def page(lab_page):
    return lab_page


def places(questions):
    return [fields["place"] for fields in questions]


# controls


@pytest.mark.parametrize(
    ("label", "role", "keys", "changes"),
    [
        ("Place", "slider", ["ArrowRight", "ArrowRight"], {"place": 7}),
        ("Place", "slider", ["Home"], {"place": 0}),
        ("Place, as a number", "spinbutton", ["Control+A", "1", "2", "Enter"], {"place": 12}),
        ("Place, as a number", "spinbutton", ["Control+A", "9", "Tab"], {"place": 9}),
        ("Word", "combobox", ["ArrowDown", "ArrowDown"], {"word": "c"}),
        ("Name", "combobox", ["ArrowDown"], {"name": 1}),
        ("Name, find by name", "searchbox", [*" Name 42 ", "Enter"], {"name": 42}),
        # the name as it is goes before "name 7", which is before "name 17"
        ("Name, find by name", "searchbox", [*"name 7", "Enter"], {"name": 7}),
        ("Name, find by name", "searchbox", [*"E 9", "Enter"], {"name": 9}),
        ("upwards", "radio", ["ArrowDown"], {"way": "down"}),
        ("On", "checkbox", ["Space"], {"on": True}),
        ("One more", "button", ["Enter"], {"count": 1}),
        ("One more", "button", ["Space"], {"count": 1}),
        ("row 1, column 0", "spinbutton", ["Control+A", *"-2.5", "Enter"],
         {"values": ((1, 2), (-2.5, 4))}),
    ],
)  # fmt: skip
def test_each_control_by_keyboard(host, label, role, keys, changes):
    press(host, label, role, *keys)
    host.settle()
    assert host.lab.value == replace(State(), **changes)
    assert host.shown == host["wanted"]
    expect(words(host)).to_have_text(host.lab.describe().replace("\n", ""))


SQUARES_READ = "Squares: arrow keys read their numbers"


def test_tab_reaches_each_control_in_order_and_no_hidden_one(page):
    host = PageHost(page, Everything(hidden=("word", "on", "double")))
    reached = []
    while len(reached) < 20:
        page.keyboard.press("Tab")
        found = page.evaluate(
            "() => document.activeElement.ariaLabel ?? document.activeElement.labels?.[0]"
            "?.innerText.split('\\n')[0] ?? document.activeElement.innerText"
        )
        if not page.evaluate("() => document.activeElement.closest('.gap-lab')"):
            break
        reached.append(found)
    assert reached == [
        "Place", "Place, as a number", "▶︎ Play Place", "Rise", "Rise, as a number", "upwards",
        "Name", "Name, find by name", "One more", "A file",         SQUARES_READ,
        *(f"row {i}, column {j}" for i, j in product((0, 1), (0, 1))), SQUARES_READ,
    ]  # fmt: skip
    expect(control(host, "Step")).to_be_disabled()  # it goes from 1 to 1
    expect(host.root.get_by_role("group", name="Numbers")).to_be_visible()
    expect(host.root.get_by_role("group", name="Way")).to_be_visible()


@pytest.mark.parametrize(
    ("label", "role", "typed", "said"),
    [
        ("Place, as a number", "spinbutton", "21", "Place goes from 0 to 20, by whole numbers."),
        ("Place, as a number", "spinbutton", "1.5", "Place goes from 0 to 20, by whole numbers."),
        ("Place, as a number", "spinbutton", "", "Place goes from 0 to 20, by whole numbers."),
        ("row 0, column 1", "spinbutton", "10",
         "Expected a number from -9 to 9 in row 0, column 1, got 10."),
        ("row 0, column 1", "spinbutton", "",
         "Expected a number from -9 to 9 in row 0, column 1, got another thing."),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_and_the_control_goes_back(host, label, role, typed, said):
    field = control(host, label, role)
    before = field.input_value()
    press(host, label, role, "Control+A", *(typed or ["Delete"]), "Enter")
    expect(problem(host)).to_have_text(said)
    expect(field).to_have_value(before)
    expect(field).to_be_focused()
    host.settle()
    assert host.lab.value == State()
    press(host, "Place", "slider", "ArrowRight")
    expect(problem(host)).to_have_text("")


# frames in store, and fetched ahead


def test_what_is_prepared_is_shown_where_nothing_answers_and_the_rest_stays(page):
    lab = Everything(prepared=[State(place=6), State(place=7)])
    host = PageHost(page, lab, kernel=False)
    press(host, "Place", "slider", "ArrowRight", "ArrowRight")
    expect(words(host)).to_have_text("Place 7, count 0.")
    press(host, "Place", "slider", "ArrowRight")
    expect(control(host, "Place")).to_have_value("7")
    press(host, "Place", "slider", "ArrowLeft")
    expect(words(host)).to_have_text("Place 6, count 0.")
    for label in ("One more", "Double"):
        press(host, label, "button", "Enter")
    file = {"name": "a.txt", "mimeType": "text/plain", "buffer": b"text"}
    host.root.get_by_label("A file", exact=True).set_input_files(file)
    expect(words(host)).to_have_text("Place 6, count 0.")
    expect(problem(host)).to_have_text("")
    assert (host["wanted"], host["progress"]) == (host.shown, 0)


def test_a_control_taken_in_hand_fetches_both_sides(host):
    focus(host, "Place")
    (question,) = host.asked
    assert not question["missing"]
    assert places(question["ahead"]) == [6, 4, 7]
    host.settle()
    page = host.page
    for key, place in {"ArrowRight": 6, "ArrowLeft": 5}.items():
        page.keyboard.press(key)
        expect(words(host)).to_have_text(f"Place {place}, count 0.")  # before any answer
        assert host.open_questions[0]["missing"] is False


@pytest.mark.parametrize(
    ("apart", "answered_after", "frame_takes", "ahead"),
    [
        (1000, 5, 1, 2), (1000, 100, 1, 3), (1000, 500, 1, 11), (1000, 3000, 1, 16),
        (50, 100, 1, 5), (5, 100, 1, 8), (1000, 500, 50, 11), (1000, 500, 51, 2),
    ],
)  # fmt: skip
def test_as_much_is_fetched_ahead_as_a_round_trip_needs(
    page, apart, answered_after, frame_takes, ahead
):
    host = PageHost(page, Everything(place=0))
    host.frame_takes = frame_takes
    press(host, "Place", "slider", "ArrowRight")
    host.settle()
    host.wait(apart)
    press(host, "Place", "slider", "ArrowRight")
    sent = host.think()
    host.wait(answered_after)
    host.deliver(sent)
    asked = [place for question in host.asked for place in places(question["ahead"])]
    assert sorted(asked) == [*range(1, 3 + ahead)]  # each once, in the direction of movement
    host.settle()
    questions = len(host.asked)
    press(host, "Place", "slider", "ArrowLeft")
    host.settle()
    back = host.asked[questions:]
    assert not any(question["missing"] or question["ahead"] for question in back[:1])


def test_what_there_was_no_time_for_is_asked_again(host, monkeypatch):
    monkeypatch.setattr(lab_module, "LONGEST_ANSWER", -1)
    focus(host, "Place")
    ahead = places(host.answer()["ahead"])
    assert ahead
    monkeypatch.setattr(lab_module, "LONGEST_ANSWER", 100)
    again = places(host.answer()["ahead"])
    assert again
    assert {*again} <= {*ahead}


def test_nothing_is_fetched_ahead_for_a_control_long_at_rest(host):
    press(host, "Place", "slider", "ArrowRight")
    host.settle()
    host.wait(6000)
    asked = len(host.asked)
    host.run("host => host.lab.press('more')")
    host.settle()
    assert host.shown["count"] == 1
    assert not any(question["ahead"] for question in host.asked[asked:])


def test_one_question_at_a_time_and_the_newest_after_it(host):
    press(host, "Place", "slider", *["ArrowRight"] * 6)
    assert len(host.asked) == 1
    host.answer()
    _, second = host.asked
    assert second["fields"]["place"] == 11
    assert second["missing"]
    host.settle()
    assert host.lab.value.place == 11
    expect(words(host)).to_have_text("Place 11, count 0.")


def test_a_late_answer_is_kept_and_not_shown(host):
    press(host, "Place", "slider", "Home")
    host.answer()
    press(host, "Place", "slider", "End")
    late = host.answer()
    assert late["fields"]["place"] == 0
    expect(words(host)).to_have_text("Place 5, count 0.")
    expect(control(host, "Place")).to_have_value("20")
    host.settle()
    expect(words(host)).to_have_text("Place 20, count 0.")
    asked = len(host.asked)
    press(host, "Place", "slider", "Home")
    expect(words(host)).to_have_text("Place 0, count 0.")
    assert not any(question["missing"] for question in host.asked[asked:])


def test_a_frame_that_is_waited_for_is_shown_also_when_it_was_asked_for_ahead(host):
    focus(host, "Place")
    press(host, "Place", "slider", "ArrowRight", "ArrowRight")
    assert 7 in places(host.answer()["ahead"])
    expect(words(host)).to_have_text("Place 7, count 0.")


def test_answers_that_come_twice_late_or_in_another_order_change_nothing(host):
    press(host, "Place", "slider", "Home")
    host.answer()
    (frame, *_, done) = host.think()
    host.deliver([frame, frame, done, done, frame])
    expect(words(host)).to_have_text("Place 0, count 0.")
    host.settle()
    press(host, "Place", "slider", "End")
    *frames, done = host.think()
    host.deliver([done, *frames])  # the frames are not awaited any more
    expect(words(host)).to_have_text("Place 0, count 0.")
    host.settle()
    expect(words(host)).to_have_text("Place 20, count 0.")


def test_values_that_no_option_has(page):
    host = PageHost(page, Everything(word="z", way="sideways", name=500))
    assert control(host, "Word", "combobox").evaluate("list => list.selectedIndex") == -1
    assert control(host, "Name", "combobox").evaluate("list => list.selectedIndex") == -1
    expect(host.root.get_by_role("radio", checked=True)).to_have_count(0)
    press(host, "Word", "combobox", "ArrowDown")
    host.settle()
    assert host.lab.value.word == "a"
    press(host, "upwards", "radio", "Space")
    host.settle()
    assert host.lab.value.way == "up"


def test_a_state_that_is_pulled_along_has_a_note(host):
    press(host, "Place, as a number", "spinbutton", "Control+A", "1", "4", "Enter")
    host.settle()
    status = host.root.locator(".gap-status")
    expect(status).to_have_text("place is now 15")
    expect(control(host, "Place")).to_have_value("15")
    press(host, "Place", "slider", "ArrowRight")
    host.settle()
    expect(status).to_have_text("")
    asked = len(host.asked)
    press(host, "Place", "slider", "ArrowLeft")  # 15 is in store, without a note
    expect(words(host)).to_have_text("Place 15, count 0.")
    expect(status).to_have_text("")
    press(host, "Place", "slider", "ArrowLeft")  # and 14 with it
    expect(status).to_have_text("place is now 15")
    host.settle()
    assert not any(question["missing"] for question in host.asked[asked:])


# problems, and what is done while a question is under way


def test_a_problem_of_the_kernel_is_said_and_nothing_is_lost(host):
    press(host, "Place, as a number", "spinbutton", "Control+A", "1", "3", "Enter")
    host.settle()
    expect(problem(host)).to_have_text("expected another place, got 13")
    expect(control(host, "Place")).to_have_value("5")
    expect(words(host)).not_to_be_visible()  # the problem has its place
    assert host.lab.value.place == 5
    press(host, "Place", "slider", "ArrowRight")
    host.settle()
    expect(problem(host)).to_have_text("")
    expect(words(host)).to_have_text("Place 6, count 0.")
    expect(words(host)).to_be_visible()


def test_a_problem_that_comes_late_is_not_said(host):
    press(host, "Place, as a number", "spinbutton", "Control+A", "1", "3", "Enter")
    host.answer()
    press(host, "Place", "slider", "ArrowLeft")
    assert host.answer()["fields"]["place"] == 13
    host.settle()
    expect(problem(host)).to_have_text("")
    expect(words(host)).to_have_text("Place 12, count 0.")


def test_a_refused_number_does_not_undo_a_move_under_way(host):
    press(host, "Place", "slider", "End")
    press(host, "row 0, column 0", "spinbutton", "Control+A", "9", "9", "Enter")
    expect(problem(host)).not_to_have_text("")
    host.settle()
    assert host.lab.value == State(place=20)
    assert host.shown["place"] == 20


def test_each_press_of_a_button_counts_once_and_in_order(host):
    focus(host, "Place")
    for label in ("One more", "One more", "Double", "One more"):
        press(host, label, "button", "Enter")
    press(host, "Place", "slider", "ArrowRight", "ArrowRight")
    expect(control(host, "Place")).to_have_value("7")
    press(host, "Double", "button", "Enter")
    while host.open_questions:
        host.answer()
        expect(control(host, "Place")).to_have_value("7")  # nothing jumps back and forth
    assert host.lab.value == State(place=7, count=10)
    expect(words(host)).to_have_text("Place 7, count 10.")


def test_a_move_after_a_press_is_not_undone_by_its_answer(host):
    focus(host, "One more", "button")
    host.settle()
    host.page.keyboard.press("Enter")
    press(host, "Place", "slider", "End", "ArrowLeft")
    host.answer()
    expect(control(host, "Place")).to_have_value("19")
    host.settle()
    assert host.lab.value == State(place=19, count=1)
    expect(words(host)).to_have_text("Place 19, count 1.")


def test_the_kernel_is_at_the_state_that_was_set_last(host):
    press(host, "Place", "slider", "Home")
    host.answer()
    host.lab.set(place=3)  # in a cell, before the kernel has read the question
    host.deliver(host.take())
    expect(words(host)).to_have_text("Place 3, count 0.")
    expect(control(host, "Place")).to_have_value("3")
    host.settle()
    assert host.lab.value.place == 3
    expect(words(host)).to_have_text("Place 3, count 0.")


def test_waiting_is_said_after_a_while(host):
    status = host.root.locator(".gap-status")
    stale = host.root.page.locator(".gap-stale")
    for label, role, key in (("Place", "slider", "Home"), ("One more", "button", "Enter")):
        press(host, label, role, key)
        host.wait(399)
        expect(status).to_have_text("")
        host.wait(1)
        expect(status).to_have_text("Waiting for the kernel…")
        expect(stale).to_have_count(1)
        host.settle()
        expect(status).to_have_text("")
        expect(stale).to_have_count(0)
    focus(host, "Step")
    press(host, "Word", "combobox")
    host.wait(1000)
    expect(status).to_have_text("")  # nothing that is waited for


def test_a_kernel_that_is_gone(host):
    press(host, "Place", "slider", "ArrowRight")
    host.settle()
    host.run("host => host.gone = true")
    press(host, "Place", "slider", "End")
    expect(problem(host)).to_have_text(GONE)
    expect(control(host, "Place")).to_have_value("6")
    expect(host.root).to_have_class("gap-lab gap-stale")
    press(host, "Place", "slider", "ArrowLeft")
    expect(words(host)).to_have_text("Place 5, count 0.")  # what is in store
    press(host, "One more", "button", "Enter", "Enter")
    expect(problem(host)).to_have_text(GONE)


def test_a_kernel_in_doubt_is_told_what_is_on_view(host):
    press(host, "Place", "slider", "ArrowRight")
    host.settle()
    host.run("host => host.onDoubt()")
    (question,) = host.open_questions
    assert question["fields"]["place"] == 6
    host.settle()
    expect(problem(host)).to_have_text("")
    host.run("host => { host.gone = true; host.onDoubt(); }")
    expect(problem(host)).to_have_text(GONE)


def test_what_is_being_typed_is_left_alone(host):
    for label, role, typed in (
        ("row 0, column 1", "spinbutton", "-7"),
        ("Place, as a number", "spinbutton", "12"),
    ):
        press(host, label, role, "Control+A", *typed)
        host.lab.set(count=host.lab.value.count + 1)
        host.deliver(host.take())
        expect(words(host)).to_have_text(host.lab.describe())
        field = control(host, label, role)
        expect(field).to_have_value(typed)
        expect(field).to_be_focused()
        host.page.keyboard.press("Enter")
        host.settle()
    assert host.lab.value == State(place=12, values=((1, -7), (3, 4)), count=2)
    # typed, and typed back: no change to take, and the field is brought in line
    press(host, "Place, as a number", "spinbutton", "End", "3", "Backspace")
    host.lab.set(place=4)
    host.deliver(host.take())
    expect(control(host, "Place, as a number", "spinbutton")).to_have_value("12")
    host.page.keyboard.press("Tab")
    expect(control(host, "Place, as a number", "spinbutton")).to_have_value("4")
    host.settle()
    assert host.lab.value.place == 4


# files


@pytest.fixture
def upload(host, tmp_path):
    """Choose a file with some content, when the page has nothing else to ask."""
    focus(host, "A file", "button")
    host.settle()

    def upload_(content):
        file = tmp_path / "a.txt"
        file.write_bytes(content)
        host.root.get_by_label("A file", exact=True).set_input_files(file)

    return upload_


def test_a_large_file_goes_in_pieces(host, upload):
    before = len(host.asked)
    content = b"text" + bytes(range(256)) * 80_000  # 20 MB
    assert len(content) > 19 * 2**20
    upload(content[:20_000_000])
    bar = host.root.get_by_label("A file, how much has arrived")
    for at in range(0, 20_000_000, 2**20):
        host.wait_for_question()
        (piece,) = host.open_questions  # the next one only after the answer
        assert (piece["at"], piece["size"]) == (at, 20_000_000)
        assert bar.evaluate("bar => bar.value") == at / 20_000_000
        expect(bar).to_be_visible(visible=at > 0)
        host.answer()
    host.settle()
    assert host.lab.received == [content[:20_000_000]]
    assert len(host.asked) == before + 20
    expect(words(host)).to_have_text("Place 5, count 1.")
    expect(bar).not_to_be_visible()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected a text file, got another"),
        (b"no" * 2**20, "expected a text file, got another"),
        (b"text" * 5_000_001, "expected a file of at most 20,000,000 bytes, got 20,000,004"),
    ],
)
def test_a_file_that_is_refused(host, upload, content, said):
    press(host, "Place", "slider", "ArrowRight")
    upload(content)
    host.answer()
    for _ in range(2 if content[:1] == b"n" else 1):
        host.wait_for_question()
        host.answer()
    expect(problem(host)).to_have_text(said)
    expect(host.root.get_by_role("progressbar")).to_have_count(0)  # none in view
    host.settle()
    expect(words(host)).to_have_text("Place 6, count 0.")
    upload(b"text")
    host.wait_for_question()
    host.settle()
    expect(problem(host)).to_have_text("")
    assert host.lab.received == [b"text"]


def test_what_is_done_while_a_file_is_on_its_way_comes_after_it(host, upload):
    upload(b"text" + bytes(2**20))
    host.wait_for_question()
    press(host, "Double", "button", "Enter")
    press(host, "Place", "slider", "ArrowRight")
    host.answer()
    host.wait_for_question()
    host.settle()
    assert host.lab.value == State(place=6, count=2)
    expect(words(host)).to_have_text("Place 6, count 2.")


# one that is on its way, and one that is refused
@pytest.mark.parametrize("first", [b"text" + bytes(2**20), b"no text"], ids=["large", "refused"])
def test_another_file_takes_the_place_of_the_first(host, upload, first):
    upload(first)
    host.wait_for_question()
    upload(b"text, another")
    host.answer()
    host.wait_for_question()
    host.settle()
    assert host.lab.received == [b"text, another"]


def test_a_kernel_that_goes_in_the_middle_of_a_file(host, upload):
    upload(b"text" + bytes(2**20))
    host.wait_for_question()
    host.run("host => host.gone = true")
    host.answer()
    expect(problem(host)).to_have_text(GONE)
    expect(host.root.get_by_role("progressbar")).to_have_count(0)
    assert not host["waiting"]
    upload(b"text")
    expect(problem(host)).to_have_text(GONE)


def test_a_file_that_cannot_be_read(host):
    host.run(
        "host => host.lab.send({ name: 'x.txt', size: 9, "
        "slice: () => ({ arrayBuffer: () => Promise.reject(new Error()) }) })"
    )
    expect(problem(host)).to_have_text("x.txt cannot be read.")
    expect(host.root.get_by_role("progressbar")).to_have_count(0)
    press(host, "Place", "slider", "ArrowRight")
    host.settle()
    expect(words(host)).to_have_text("Place 6, count 0.")


# what is in store


def test_the_store_keeps_within_bounds(page):
    """Of frames of 1 MB the newest 24 MB are kept, and what was forgotten is asked for again."""
    host = PageHost(page, Large(place=0))
    host.run("host => host.detach[0]()")  # drawing takes long
    for place in range(35):
        move(host, place)
    asked = len(host.asked)
    for place in range(34, 14, -1):
        move(host, place)
    assert not any(question["missing"] for question in host.asked[asked:])
    asked = len(host.asked)
    move(host, 3)
    first = host.asked[asked]
    assert first["missing"]
    assert len(first["have"]) == 7  # with their names they are less than 8 MB
    assert host.shown["place"] == 3


def test_levels_that_were_forgotten_come_again(page):
    """The kernel leaves out what the page has; if it has been forgotten since, it is asked for."""
    host = PageHost(page, Large(place=0))
    move(host, 1)
    host.run("host => host.lab.move({ place: 50 })")
    *sent, done = host.think()
    host.deliver([({**message, "levels": []}, []) for message, _ in sent] + [done])
    expect(words(host)).to_have_text("Place 1.")  # its levels are not there
    host.settle()
    expect(words(host)).to_have_text("Place 50.")


def test_a_frame_larger_than_the_store_is_shown_all_the_same(page):
    host = PageHost(page, Large(place=0))
    host.run("host => host.detach[0]()")
    host.lab.set(megabytes=9)
    host.deliver(host.take())
    assert host.shown == {"place": 0, "megabytes": 9}
    asked = len(host.asked)
    move(host, 1)
    assert host.shown == {"place": 1, "megabytes": 9}
    # those fetched ahead push it out of the store, and as it is on view that is no matter
    assert [question["missing"] for question in host.asked[asked:]].count(True) == 1


def move(host, place):
    host.run("(host, place) => host.lab.move({ place })", place)
    host.settle()


# drawings, views


def test_canvases_have_the_colours_of_the_palette(host):
    canvases = host.root.locator("canvas").evaluate_all(
        """all => all.map(canvas => [
            [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data],
            canvas.style.opacity, canvas.style.imageRendering,
            ...["left", "top", "width", "height"].map(name => canvas.style[name]),
        ])"""
    )
    table = PALETTES["signed"]
    signed = [[int(n) for n in table[level]] if table[level][3] else [0] * 4
              for level in SQUARES.flat]  # fmt: skip
    assert table[255][3] == 0  # shows what is below
    flat = [number for colour in signed for number in colour]
    colours = [255, 0, 0, 255, 0, 128, 0, 255, 1, 2, 3, 255]
    place = ["0%", "20%", "30%", "40%"]
    assert canvases == [
        [flat, "1", "pixelated", *place],
        [flat, "0.5", "auto", *place],
        [colours, "1", "pixelated", "50%", "20%", "30%", "20%"],
    ]
    move(host, 6)  # where one has other levels
    red = (
        host.root.locator("canvas")
        .nth(1)
        .evaluate("canvas => canvas.getContext('2d').getImageData(0, 0, 1, 1).data[0]")
    )
    assert red == table[1][0]


def test_what_has_not_changed_is_not_drawn_again(host):
    host.page.evaluate(
        """() => {
            window.drawn = [];
            const put = CanvasRenderingContext2D.prototype.putImageData;
            CanvasRenderingContext2D.prototype.putImageData = function (...given) {
                window.drawn.push([...document.querySelectorAll("canvas")].indexOf(this.canvas));
                return put.apply(this, given);
            };
            new MutationObserver((found) => {
                for (const { target } of found) {
                    const panel = target.closest(".gap-panel");
                    if (panel) window.drawn.push(panel.innerText.trim());
                }
            }).observe(document.querySelector(".gap-view"), { childList: true, subtree: true });
        }"""
    )
    move(host, 7)
    assert {*host.page.evaluate("() => window.drawn")} == {"place 7"}
    move(host, 6)
    assert {*host.page.evaluate("() => window.drawn")} == {"place 7", "place 6", 1}


def test_focus_stays_while_frames_change(page):
    host = PageHost(page, PoolLab())
    for label, role, key in (
        ("Window", "slider", "ArrowRight"),
        ("row 1, column 1", "spinbutton", "ArrowUp"),
        ("Map size", "slider", "ArrowRight"),
        ("Shuffle", "button", "Enter"),
        ("average", "radio", "ArrowDown"),
    ):
        press(host, label, role, key)
        focused = page.evaluate("() => (window.focused = document.activeElement).tagName")
        assert focused in ("INPUT", "BUTTON")
        host.settle()
        assert page.evaluate("() => document.activeElement === window.focused")
    assert host.lab.value.size == 5


def test_two_views_of_a_lab_go_in_step_and_can_be_taken_away(host):
    host.run("host => host.attach()")
    first, second = host.root.all()
    second.get_by_role("slider", name="Place", exact=True).focus()
    host.page.keyboard.press("Home")
    second.get_by_role("radio", name="downwards").check()
    host.settle()
    for view in (first, second):
        expect(view.locator(".gap-words [aria-live]")).to_have_text("Place 0, count 0.")
        expect(view.get_by_role("slider", name="Place", exact=True)).to_have_value("0")
        expect(view.get_by_role("radio", name="downwards")).to_be_checked()
    taken_away = first.element_handle()
    host.run("host => host.detach[0]()")
    expect(host.root).to_have_count(1)
    first_view = host.root
    first_view.get_by_role("slider", name="Place", exact=True).focus()
    host.page.keyboard.press("ArrowRight")
    host.settle()
    expect(first_view.locator(".gap-words [aria-live]")).to_have_text("Place 1, count 0.")
    assert "Place 0, count 0." in taken_away.text_content()  # nobody tells it any more
    host.run("host => host.detach[1]()")
    expect(host.root).to_have_count(0)


def test_a_view_that_is_made_when_jupyter_has_read_the_model_again_shows_what_is_on_view(host):
    script = """async ({ opening }) => {
        const widget = (await import("./lab.js")).default();
        const state = { opening };
        const model = { get: (name) => state[name], on() {}, send() {} };
        const el = document.querySelector("main");
        await widget.initialize({ model });
        await widget.render({ model, el });
        state.opening = { ...opening }; // as after a connection that was lost
        await widget.render({ model, el });
        return el.querySelectorAll(":scope > .gap-lab").length;
    }"""
    assert host.run(script) == 2
    move(host, 3)  # with nobody to see it
    assert host.shown["place"] == 3


# for all eyes and all widths


def question():
    answers = {
        "The average of a map": "It is one number for each map.",
        "The largest number of a map, wherever it is": "That is another pooling.",
        "The map itself": "Nothing would be pooled.",
        "a" * 300: "It is no word.",  # nor is there a place to break it
    }
    return Question("What does global average pooling keep?", answers, "The average of a map")


MAKERS = {
    "pool": lambda: PoolLab(SIDE_8, mode="avg", kernel_size=3, padding=1, stride=1, window=12),
    "head": lambda: HeadLab(channels=4096, height=224, width=224, num_classes=1000),
    "shift": ShiftLab,
    "cam": lambda: CamLab(load_trained("gap"), TEST.images[:9], TEST.labels[:9], CLASS_NAMES),
    "cam numbers": lambda: CamLab(
        load_trained("gap"), TEST.images[:9], TEST.labels[:9], CLASS_NAMES, view="numbers"
    ),
    "cam boxes": lambda: CamLab(
        load_trained("gap_7x7"),
        TEST.images[:9],
        TEST.labels[:9],
        CLASS_NAMES,
        boxes=box_around(TEST.images[:9, 0] > 0.1),
    ),
    "map": lambda: MapLab(load_trained("gap"), TEST.images[:9], TEST.labels[:9], CLASS_NAMES),
    "photo": lambda: PhotoLab(load_backbone(), [load_photo("cat"), load_photo("espresso")]),
    "question": question,
    "everything": Everything,
}
SIDE_8 = np.arange(64.0).reshape(8, 8) * 14 - 441.5


@pytest.fixture(scope="module")
def all_labs():
    return {name: make() for name, make in MAKERS.items()}


def test_what_can_be_touched_has_a_control(all_labs):
    """So a key can do all that a pointer does; the page gives it the focus."""
    seen = set()
    for name, lab in all_labs.items():
        controls = {control["name"] for control in lab.opening()["controls"]}
        for panel in lab.frame.panels:
            for drawn in ElementTree.fromstring(f"<svg>{panel.svg}</svg>").iter():
                touched = [drawn.get("data-focus")] if drawn.get("data-focus") else []
                for gesture in ("data-set", "data-drag"):
                    touched += json.loads(drawn.get(gesture, "{}"))
                assert controls.issuperset(touched), (name, touched)
                seen |= {(name, field) for field in touched}
    assert {("pool", "window"), ("pool", "values"), ("shift", "dx"), ("map", "picture")} <= seen


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page, all_labs, scheme):
    open_page(page, still=False)
    page.emulate_media(color_scheme=scheme)
    hosts = {name: PageHost(page, lab) for name, lab in all_labs.items()}
    wrong, undecided = (PageHost(page, question()) for _ in range(2))
    press(hosts["question"], "The average of a map", "radio", "Space")
    press(wrong, "The map itself", "radio", "Space")
    hosts["problem"] = PageHost(page, Everything(place=13 - 1))
    press(hosts["problem"], "Place", "slider", "ArrowRight")
    for host in [*hosts.values(), wrong, undecided]:
        host.settle()
    expect(problem(hosts["problem"])).to_have_text("expected another place, got 13")
    # what is pointed at, typed into and played
    hosts["everything"].root.locator(".gap-over").first.tap(
        position={"x": 20, "y": 100}, force=True
    )
    hosts["pool"].root.get_by_role("button", name="Play Window").click()
    hosts["pool"].root.locator("[data-focus]").nth(9).click()
    expect(hosts["pool"].root.get_by_label("row 1, column 1")).to_be_focused()
    expect(hosts["everything"].root.locator(".gap-bubble")).to_be_visible()
    expect(words(wrong)).to_have_class("gap-wrong")
    expect(words(hosts["question"])).to_have_class("gap-right")
    results = Axe().run(page)
    page.emulate_media(color_scheme="light")
    assert results.response["violations"] == [], results.generate_report()


@pytest.mark.parametrize("width", [400, 700, 1200])
def test_every_lab_fits_the_page(page, all_labs, width):
    page.set_viewport_size({"width": width, "height": 800})
    for name, lab in all_labs.items():
        open_page(page)
        host = PageHost(page, lab)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width, name
        smallest = host.root.evaluate(SMALLEST_LETTERS)
        assert smallest[0] >= 11, (name, smallest)
        assert host.root.evaluate(SMALLEST_CONTROL) >= 24, name  # for a finger
    page.set_viewport_size({"width": 1000, "height": 900})


SMALLEST_CONTROL = """lab => Math.min(...[...lab.querySelectorAll("input, select, button")]
    .filter((of) => !of.closest(".gap-numbers"))
    .map((of) => (of.closest(".gap-control label:has([type=radio], [type=checkbox])") ?? of))
    .map((of) => of.getBoundingClientRect())
    .map(({ width, height }) => Math.min(width, height)).filter(Boolean))"""


def test_no_answer_to_a_question_moves_what_is_below(page):
    few_letters_of_many_lines = " ".join(["wwwwwwwwwwwwwwwwww"] * 6)
    many_letters = "i" * 40 + " iii" * 20
    question = Question("?", {"1": "Yes.", "2": few_letters_of_many_lines, "3": many_letters}, "1")
    page.set_viewport_size({"width": 400, "height": 800})
    open_page(page, still=False)
    host = PageHost(page, question, kernel=False)
    heights = [host.root.bounding_box()["height"]]
    for answer in question.answers:
        host.root.get_by_role("radio", name=answer).check()
        heights.append(host.root.bounding_box()["height"])
    assert heights == [heights[0]] * 4
    page.set_viewport_size({"width": 1000, "height": 900})


def test_the_circle_of_a_long_answer_is_as_large_as_that_of_a_short_one(page):
    question = Question("?", {"short": "No.", "long " * 30: "Yes."}, "short")
    page.set_viewport_size({"width": 400, "height": 800})
    open_page(page, still=False)
    circles = PageHost(page, question, kernel=False).root.get_by_role("radio")
    sizes = circles.evaluate_all("all => all.map(of => of.getBoundingClientRect().width)")
    assert sizes == [18, 18]
    page.set_viewport_size({"width": 1000, "height": 900})


SMALLEST_LETTERS = """lab => {
    const sizes = [];
    const walker = document.createTreeWalker(lab, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode.nodeValue.trim();
        const of = walker.currentNode.parentElement;
        if (!text || of.closest("title, .gap-hidden, datalist")) continue;
        const scale = of.ownerSVGElement
            ? of.ownerSVGElement.getScreenCTM().a
            : 1;
        sizes.push([parseFloat(getComputedStyle(of).fontSize) * scale, text]);
    }
    for (const of of lab.querySelectorAll("input, select, button")) {
        sizes.push([parseFloat(getComputedStyle(of).fontSize), of.type]);
    }
    return sizes.sort((a, b) => a[0] - b[0])[0];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_in_drawings_stand_out(page, all_labs, scheme):
    """As WCAG says, which axe does not look at in SVG; letters on a map are the labs' own."""
    page.emulate_media(color_scheme=scheme)
    lowest = {n: PageHost(page, lab).root.evaluate(LOWEST_CONTRAST) for n, lab in all_labs.items()}
    page.emulate_media(color_scheme="light")
    assert min(lowest.values())[0] >= 4.5, lowest


LOWEST_CONTRAST = """lab => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const over = (below, colour, opacity) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        const part = (a / 255) * opacity;
        return below.map((n, at) => n + part * ([r, g, b][at] - n));
    };
    const light = (colour) => colour
        .map((n) => (n /= 255) <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4)
        .reduce((sum, n, at) => sum + n * [0.2126, 0.7152, 0.0722][at], 0);
    const page = over([255, 255, 255], getComputedStyle(document.body).backgroundColor, 1);
    return [...lab.querySelectorAll("svg")].flatMap((svg) => {
        const shapes = [...svg.querySelectorAll("*:not(title, tspan)")];
        const texts = shapes.filter((shape) => shape.matches("text:not(.gap-black, .gap-white)"));
        return texts.map((text) => {
            const box = text.getBoundingClientRect();
            const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
            let below = page;
            for (const shape of shapes.slice(0, shapes.indexOf(text))) {
                const { left, right, top, bottom } = shape.getBoundingClientRect();
                const style = getComputedStyle(shape);
                if (shape.tagName !== "rect" || style.fill === "none") continue;
                if (left > x || right < x || top > y || bottom < y) continue;
                below = over(below, style.fill, Number(style.fillOpacity));
            }
            const [a, b] = [light(below), light(over(below, getComputedStyle(text).fill, 1))];
            return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), text.textContent];
        });
    }).sort((a, b) => a[0] - b[0])[0] ?? [21, ""];
}"""


@pytest.mark.parametrize("name", sorted(MAKERS.keys() - {"cam numbers", "everything"}))
def test_nothing_jumps(page, name):
    host = PageHost(page, MAKERS[name]())
    places = host.root.evaluate(PLACES)
    for made in host.lab.opening()["controls"]:
        if made["name"] == "size":  # which takes a longer sum
            continue
        low, high = made.get("low"), made.get("high")
        values = {
            "slider": [low, high],
            "choice": [value for _, value in made.get("options", [])][:3],
            "toggle": [True, False],
        }.get(made["kind"], [])
        for value in values:
            host.run("(host, fields) => host.lab.move(fields)", {made["name"]: value})
            host.settle()
            assert host.root.evaluate(PLACES) == places, (made["name"], value)
        if made["kind"] == "button":
            press(host, made["label"], "button", "Enter")
            host.settle()
            assert host.root.evaluate(PLACES) == places, made["name"]
    if host["slider"]:
        host.run("host => host.lab.play()")
    for _ in range(3):
        host.settle()
        host.wait(800)
        assert host.root.evaluate(PLACES) == places, "it plays"
    host.run("host => host.lab.refuse('expected another thing, got this one')")
    assert host.root.evaluate(PLACES) == places


def test_the_box_of_a_map_follows_its_level(page):
    lab = MAKERS["cam boxes"]()
    host = PageHost(page, lab)
    true = area(box_around(TEST.images[:1, 0] > 0.1)).item()
    panel = host.root.locator(".gap-panel", has_text="Left: Ankle boot")
    found, dashed = (panel.locator(class_).last for class_ in (".gap-box", ".gap-box-true"))
    side, before = panel.locator(".gap-edge").first.bounding_box(), dashed.bounding_box()
    # the whole picture, and the one square of 4×4 pixels with the largest value
    for key, level, width, overlap in (
        ("Home", 0, 1, true / 28**2),
        ("End", 100, 1 / 7, 16 / true),
    ):
        press(host, "Box level %", "slider", key)
        host.settle()
        expect(words(host)).to_contain_text(
            f"in the true box. Its box at {level}% and the true box: intersection over union "
            f"{overlap:.3f}.Right,"
        )
        assert found.bounding_box()["width"] == pytest.approx(width * side["width"], abs=4)
        assert dashed.bounding_box() == before


PLACES = """lab => [lab, ...lab.querySelectorAll(".gap-control, .gap-panel, .gap-words")]
    .map((of) => of.getBoundingClientRect())
    .map(({ x, y, width, height }) => [x, y, width, height].map(Math.round))"""
