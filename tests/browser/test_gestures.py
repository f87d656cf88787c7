"""The picture of a lab can be touched, by mouse, by finger and by keys, each to the same end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from playwright.sync_api import expect

from every_control import Everything, State, control, focus, press, problem, words
from gap_utils.svg import Frame, Panel, Readout, box, text
from gap_utils.values import read_names
from gap_utils.widgets import PoolLab, Question
from gap_utils.widgets.lab import Choice, Lab, Slider
from gap_utils.widgets.one_picture import say_best
from page_host import PageHost, open_page

MOUSE, FINGER, KEYS = WAYS = "mouse", "finger", "keys"
NAN_THERE = ["row 0, column 2", "no number"]


@pytest.fixture
def page(lab_page):
    return lab_page


@pytest.fixture
def pulls(page):
    """How a mouse and a finger press, move and let go, at places of the page."""
    fingers = page.context.new_cdp_session(page)

    def touch(kind, *places):
        points = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(places)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def move_mouse(to):
        page.mouse.move(*to)

    def press_mouse(at):
        page.mouse.move(*at)
        page.mouse.down()

    yield {
        MOUSE: (press_mouse, move_mouse, page.mouse.up),
        FINGER: (
            lambda *at: touch("touchStart", *at),
            lambda *to: touch("touchMove", *to),
            lambda: touch("touchEnd"),
            lambda: touch("touchCancel"),
        ),
    }
    page.mouse.up()
    page.mouse.move(0, 0)
    fingers.detach()


def at(host, panel, x, y):
    """Where a place of a panel is on the page."""
    return host.root.locator(".gap-panel").nth(panel).evaluate(
        """(panel, [x, y]) => {
            const ctm = panel.querySelector("svg").getScreenCTM();
            const { x: left, y: top } = new DOMPoint(x, y).matrixTransform(ctm);
            return [left, top];
        }""",
        [x, y],
    )  # fmt: skip


def tap(host, way, place):
    host.page.mouse.click(*place) if way == MOUSE else host.page.touchscreen.tap(*place)


def point(host, way, place):
    host.page.mouse.move(*place) if way == MOUSE else host.page.touchscreen.tap(*place)


def lit(host):
    return host.root.locator(".gap-lit").evaluate_all("all => all.map(e => e.dataset.link).sort()")


def outlines(host):
    """The places marked in each panel, in its units."""
    return host.root.locator(".gap-over").evaluate_all(
        """all => all.map((over) => [...over.querySelectorAll(".gap-outline")].map((rect) =>
            ["x", "y", "width", "height"].map((name) => Math.round(rect.getAttribute(name)))))"""
    )


def bubble(host):
    return host.root.locator(".gap-bubble > div").all_inner_texts()


def focused(host):
    return host.page.evaluate(
        "() => document.activeElement.ariaLabel ?? document.activeElement.labels?.[0]?.innerText"
    )


# a click sets fields


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("square", "label", "role", "keys", "changes", "after"),
    [
        (110, "Place", "slider", ["ArrowRight"] * 4, {"place": 9}, {"place": 10}),
        (134, "downwards", "radio", ["Space"], {"way": "down"}, {"way": "up"}),
        (158, "Word", "combobox", ["ArrowDown"], {"word": "b"}, {"word": "c"}),
        (182, "On", "checkbox", ["Space"], {"on": True}, {"on": True}),
    ],
)
def test_a_click_sets_a_field_and_keys_go_on_there(
    host, way, square, label, role, keys, changes, after
):
    if way == KEYS:
        press(host, label, role, *keys)
    else:
        tap(host, way, at(host, 1, square, 60))
    host.settle()
    assert host.lab.value == replace(State(), **changes)
    assert focused(host).startswith(label)
    host.page.keyboard.press("ArrowRight" if role == "slider" else "ArrowDown")
    host.settle()
    assert host.lab.value == replace(State(), **after)


# typing into the map


@pytest.mark.parametrize("way", WAYS)
def test_a_number_is_typed_into_its_square(host, way):
    field = control(host, "row 0, column 1", "spinbutton")
    assert field.evaluate("field => getComputedStyle(field).opacity") == "0"
    if way == KEYS:
        focus(host, "row 0, column 0", "spinbutton")
        host.page.keyboard.press("Tab")
    else:
        tap(host, way, at(host, 0, 136, 32))
    expect(field).to_be_focused()
    assert field.evaluate("field => getComputedStyle(field).opacity") == "1"
    left, top = at(host, 0, 124, 20)
    right, bottom = at(host, 0, 148, 44)
    seen = field.bounding_box()
    assert [seen[name] for name in ("x", "y", "width", "height")] == pytest.approx(
        [left, top, right - left, bottom - top], abs=1
    )
    host.page.keyboard.type("-7")  # over the number that was there
    host.page.keyboard.press("Enter")
    host.settle()
    assert host.lab.value == State(values=((1, -7), (3, 4)))
    tap(host, MOUSE, at(host, 0, 130, 32))  # into the field itself, which keeps what is typed
    host.page.keyboard.press("End")
    host.page.keyboard.type("5")
    host.page.keyboard.press("Tab")
    expect(problem(host)).to_contain_text("in row 0, column 1, got -75")


def test_a_field_is_over_its_square_whatever_else_is_under_way(page):
    """A typed map waits for a button that makes the map larger, and has fewer fields meanwhile."""
    host = PageHost(page, PoolLab())
    host.lab.set(values=[[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    host.deliver(host.take())
    focus(host, "Start again", "button")
    host.settle()
    page.keyboard.press("Enter")  # back to four rows
    press(host, "row 1, column 1", "spinbutton", "Control+A", *"50", "Enter")
    host.settle()
    assert host.lab.value.values == ((1, 2, 3, 3), (4, 50, 6, 1), (7, 8, 9, 4), (3, 1, 2, 6))
    for row, column in ((0, 0), (2, 2), (3, 3)):
        field = control(host, f"row {row}, column {column}", "spinbutton")
        square = host.root.locator("[data-focus]").nth(4 * row + column)
        assert [*field.bounding_box().values()] == pytest.approx(
            [*square.bounding_box().values()], abs=2
        )


# pulling


def scale(host):
    return at(host, 1, 1, 0)[0] - at(host, 1, 0, 0)[0]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_pulled_changes_fields_step_by_step(host, pulls, way):
    if way == KEYS:
        press(host, "Place", "slider", *["ArrowRight"] * 3)
        press(host, "Rise", "slider", *["ArrowRight"] * 2)
        focus(host, "Place")
    else:
        press_, move, let_go, *_ = pulls[way]
        press_(at(host, 1, 40, 80))
        for x, y in ((44, 80), (50, 75), (58, 71)):
            move(at(host, 1, x, y))
        assert host.root.locator(".gap-pulled").count() == 1
        let_go()
        assert host.root.locator(".gap-pulled").count() == 0
        move(at(host, 1, 80, 80)) if way == MOUSE else None
    host.settle()
    assert host.lab.value == State(place=8, rise=2)
    assert host.page.evaluate("() => getSelection().isCollapsed")
    assert focused(host) == "Place"
    label = "▶︎ Play Rise" if way == KEYS else "▶︎ Play Place"  # the slider that was moved last
    expect(host.root.locator(".gap-play-label")).to_have_text(label)


@pytest.mark.parametrize("way", [MOUSE, FINGER])
def test_a_pull_ends_at_the_limits_and_goes_on_when_it_comes_back(host, pulls, way):
    press_, move, let_go, *_ = pulls[way]
    press_(at(host, 1, 40, 80))
    for place, value in [
        (at(host, 1, 190, -40), (20, 5)),  # out of the svg
        ((3, 890), (0, -5)),  # to the edge of the window
        (at(host, 1, -500, 2000), (0, -5)),  # and beyond it
        (at(host, 1, 46, 80), (6, 0)),
    ]:
        move(place)
        host.settle()
        assert (host.lab.value.place, host.lab.value.rise) == value
    let_go()
    assert "drawn" not in host.shown
    host.settle()
    assert host.lab.value == State(place=6)


def test_a_second_finger_changes_nothing(host, pulls):
    press_, move, let_go, cancel = pulls[FINGER]
    first, second = at(host, 1, 40, 80), at(host, 1, 70, 80)
    press_(first)
    host.settle()
    press_(first, second)
    move(first, at(host, 1, 20, 95))
    assert not host.open_questions
    move(at(host, 1, 46, 80), at(host, 1, 20, 95))
    host.settle()
    assert host.lab.value == State(place=6)
    cancel()  # as when the page is scrolled after all
    assert host.root.locator(".gap-pulled").count() == 0
    host.page.mouse.move(*at(host, 1, 80, 80))
    assert not host.open_questions
    press_(first)  # and again
    move(at(host, 1, 34, 80))
    let_go()
    host.settle()
    assert host.lab.value == State(place=5)


def test_only_the_first_button_of_a_mouse_pulls_and_sweeping_marks_no_text(host):
    mouse = host.page.mouse
    for button, start, place in [("right", (1, 40, 80), 5), ("left", (0, 110, 10), 5)]:
        mouse.move(*at(host, *start))
        mouse.down(button=button)
        mouse.move(*at(host, 1, 80, 80), steps=5)
        mouse.up(button=button)
        host.settle()
        assert host.lab.value.place == place
    assert host.page.evaluate("() => String(getSelection()).trim()") == ""


def test_a_pull_before_a_slow_kernel_ends_where_it_was_let_go(host, pulls):
    press_, move, let_go = pulls[MOUSE]
    press_(at(host, 1, 40, 80))
    for x in range(40, 101, 2):
        move(at(host, 1, x, 80))
        if x == 60:
            host.answer()
    let_go()
    assert host["wanted"]["place"] == 15
    host.settle()
    assert host.lab.value == State(place=15) and host.shown["place"] == 15
    assert sum(question["missing"] for question in host.asked) <= 3


# links


@pytest.mark.parametrize("way", WAYS)
def test_what_is_pointed_at_lights_up_its_links(page, way):
    host = PageHost(page, Everything(on=True))
    squares = ["value00 all", "value01 all", "value10 all", "value11 all"]
    if way == KEYS:
        focus(host, "row 0, column 0", "spinbutton")
    else:
        point(host, way, at(host, 0, 112, 32))
    # the number in the large line, the square, and the field over it; "all" links to the others
    seen = lit(host)
    assert {*seen} == {*squares}
    assert outlines(host) == [[[100, 20, 24, 24], [124, 20, 24, 24],
                               [100, 44, 24, 24], [124, 44, 24, 24]], []]  # fmt: skip
    assert host.root.locator(".gap-large .gap-lit").all_inner_texts() == ["1"]
    page.keyboard.press("Escape")
    assert (lit(host), outlines(host)) == ([], [[], []])
    if way == KEYS:
        return
    nine = host.root.locator(".gap-large span", has_text="9")
    point(host, way, [value + 3 for value in list(nine.bounding_box().values())[:2]])
    assert lit(host) == ["nine", "nine"]
    assert outlines(host) == [[], [[100, 50, 20, 20]]]
    # a click moves the lab, and what the pointer rests on stays lit, whatever has the focus
    tap(host, way, at(host, 1, 110, 60))
    host.settle()
    assert host.lab.value == State(place=9, on=True)
    assert lit(host) == ["nine", "nine"]
    assert outlines(host)[1] == [[100, 50, 20, 20]]
    point(host, way, at(host, 0, 190, 90))
    assert (lit(host), outlines(host)) == ([], [[], []])
    point(host, way, at(host, 1, 110, 60))
    page.mouse.move(1, 1)
    assert lit(host) == ([] if way == MOUSE else ["nine", "nine"])  # a tap stays


# reading numbers


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("panel", "column", "row", "read"),
    [
        (0, 0, 0, ["row 0, column 0", "1.5"]),
        (0, 2, 0, NAN_THERE),
        (0, 1, 1, ["row 1, column 1", "0.3333"]),
        (1, 0, 1, ["row 1, column 0", "one: inf", "two: 3"]),
        (1, 2, 1, ["row 1, column 2", "one: 10000000", "two: 5"]),
    ],
)
def test_a_number_is_read_out_where_one_points(host, way, panel, column, row, read):
    if way == KEYS:
        host.root.locator(".gap-over").nth(panel).focus()
        keys = ["ArrowDown", *["ArrowDown"] * row, *["ArrowRight"] * column]
        for key in keys:
            host.page.keyboard.press(key)
        said = host.root.locator(".gap-hidden[aria-live]")
        assert said.text_content().split("\n") == read
    else:
        point(host, way, at(host, panel, 20 * column + 10, 20 * row + 30))
    assert bubble(host) == read
    assert outlines(host) == [[[20 * column, 20 + 20 * row, 20, 20]]] * 2  # their squares match
    assert not host.open_questions
    panel_, seen = (
        found.bounding_box()
        for found in (
            host.root.locator(".gap-panel").nth(panel),
            host.root.locator(".gap-bubble"),
        )
    )
    assert panel_["x"] - 1 <= seen["x"]
    assert seen["x"] + seen["width"] <= panel_["x"] + panel_["width"] + 1
    host.page.keyboard.press("Escape")
    if way == KEYS:
        assert (bubble(host), outlines(host)) == ([], [[], []])


def test_arrow_keys_stop_at_the_edges_and_leave_with_the_focus(host):
    host.root.locator(".gap-over").first.focus()
    for keys, place in [
        (["ArrowUp", "ArrowUp"], "row 0, column 0"),
        (["ArrowRight"] * 5, "row 0, column 2"),
        (["ArrowDown"] * 3, "row 1, column 2"),
        (["ArrowLeft"] * 7, "row 1, column 0"),
    ]:
        for key in keys:
            host.page.keyboard.press(key)
        assert bubble(host)[0] == place
    host.page.keyboard.press("Shift+Tab")
    assert (bubble(host), outlines(host)) == ([], [[], []])


@pytest.mark.parametrize("way", WAYS)
def test_a_frame_that_changes_under_a_resting_pointer(page, way):
    three = np.arange(9.0).reshape(1, 3, 3)
    lab = Everything(readouts={6: three, 7: three[:, :1, :1], 8: None, 9: three})
    host = PageHost(page, lab)
    if way == KEYS:
        host.root.locator(".gap-over").first.focus()
        for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight"):
            page.keyboard.press(key)
    else:
        point(host, way, at(host, 0, 50, 50))
    assert bubble(host) == ["row 1, column 2", "10000000"]
    for place, read in [(6, "5"), (7, None), (8, None), (9, "5")]:
        lab.set(place=place)
        host.deliver(host.take())
        assert bubble(host) == ([] if read is None else ["row 1, column 2", read])
        marked = [] if read is None else [[40, 33, 20, 13]]
        assert outlines(host) == [marked] * 2, place
        if place == 8:
            page.keyboard.press("Shift")  # of no meaning
            page.mouse.move(*at(host, 0, 51, 51)) if way == MOUSE else None
            lab.set(place=5)
            host.deliver(host.take())
            point(host, way, at(host, 0, 50, 50)) if way != KEYS else None
    page.keyboard.press("ArrowLeft")
    if way == KEYS:
        assert bubble(host) == ["row 1, column 1", "4"]


def test_a_panel_that_is_put_in_another_place_is_touched_no_more(host, pulls):
    press_, move, let_go = pulls[MOUSE]
    move(at(host, 0, 10, 30))
    host.lab.set(word="c")
    host.deliver(host.take())
    assert (bubble(host), outlines(host)) == ([], [[], [], []])
    press_(at(host, 2, 40, 80))
    host.lab.set(word="a")
    host.deliver(host.take())
    move(at(host, 0, 10, 30))
    assert (bubble(host), host["wanted"]["place"]) == (["row 0, column 0", "1.5"], 5)
    let_go()


# it plays


def play(host):
    button = host.root.locator(".gap-play button")
    button.focus()
    host.page.keyboard.press("Enter")
    return host.root.locator(".gap-play-label")


def beat(host):
    host.wait(800)
    host.settle()
    return host.shown["place"]


def test_playing_goes_to_the_end_and_begins_again(page):
    host = PageHost(page, Everything(place=17))
    label = play(host)
    host.settle()
    expect(label).to_have_text("■ Stop")
    assert host.shown["place"] == 18
    host.wait(799)
    assert host.shown["place"] == 18
    host.wait(1)
    host.settle()
    assert [host.shown["place"], beat(host), beat(host)] == [19, 20, 20]
    expect(label).to_have_text("▶︎ Play Place")
    play(host)
    host.settle()
    assert [host.shown["place"], beat(host), beat(host)] == [0, 1, 2]
    play(host)  # stops it
    expect(label).to_have_text("▶︎ Play Place")
    assert [beat(host), beat(host)] == [2, 2]
    play(host)
    play(host)
    play(host)  # once it plays, not twice
    host.settle()
    assert [host.shown["place"], beat(host), beat(host)] == [4, 5, 6]


def test_playing_waits_for_a_slow_frame(host):
    play(host)
    assert len(host.open_questions) == 1
    for _ in range(5):
        host.wait(800)
    assert host["wanted"]["place"] == 6
    host.settle()
    assert [host.shown["place"], beat(host)] == [6, 7]


def stop_by_another(host):
    press(host, "Rise", "slider", "ArrowRight")


def stop_by_a_problem(host):
    press(host, "row 0, column 0", "spinbutton", "Control+A", *"99", "Enter")


def stop_by_leaving(host):
    host.run("host => host.detach[0]()")


def stop_by_no_kernel(host):
    host.run("host => host.gone = true")


@pytest.mark.parametrize(
    "stop", [stop_by_another, stop_by_a_problem, stop_by_leaving, stop_by_no_kernel]
)
def test_playing_stops(host, stop):
    label = play(host)
    host.settle()
    assert beat(host) == 7
    asked = len(host.asked)
    stop(host)
    for _ in range(12):
        assert beat(host) <= 10
    assert len(host.asked) <= asked + 3
    assert not host.run("host => host.lab.isPlaying()")
    if stop is stop_by_another:
        expect(label).to_have_text("▶︎ Play Rise")
        play(host)
        host.settle()
        assert host.lab.value == State(place=7, rise=2)


def test_what_plays_after_a_button_was_pressed_is_not_lost(host):
    focus(host, "One more", "button")
    host.settle()
    host.page.keyboard.press("Enter")
    play(host)
    host.settle()
    assert host.lab.value == State(place=6, count=1)
    assert beat(host) == 7


def test_what_has_nothing_to_do_is_idle_and_keeps_the_focus(page):
    host = PageHost(page, Everything(step=1, count=64))
    press(host, "Double", "button", "Enter")
    host.settle()
    button = control(host, "Double", "button")
    expect(button).to_have_attribute("aria-disabled", "true")
    expect(button).to_be_focused()
    asked = len(host.asked)
    page.keyboard.press("Enter")
    button.click(force=True)
    assert (len(host.asked), host.lab.value.count) == (asked, 128)
    host.lab.set(step=3)
    host.deliver(host.take())
    press(host, "Step", "slider", "ArrowLeft")
    host.settle()
    host.lab.set(step=1)  # and it has one value only
    host.deliver(host.take())
    play = host.root.locator(".gap-play button")
    expect(play).to_have_attribute("aria-disabled", "true")
    play.click(force=True)
    assert not host.run("host => host.lab.isPlaying()")
    assert not host.open_questions


def test_what_is_idle_now_is_not_while_a_frame_is_on_its_way(page):
    host = PageHost(page, PoolLab())
    press(host, "Kernel", "slider", "ArrowRight")
    assert (host["wanted"]["kernel_size"], host.shown["kernel_size"]) == (3, 2)
    control(host, "Start again", "button").click()
    host.settle()
    assert host.shown["kernel_size"] == 2


# a long list


def options(host):
    return control(host, "Name", "combobox").locator("option").all_inner_texts()


def test_typing_narrows_a_long_list(page):
    host = PageHost(page, Everything(name=50))
    press(host, "Name, find by name", "searchbox", *"Ame 7")
    assert options(host) == ["name 7", "name 50", *(f"name {n}" for n in range(70, 80))]
    expect(control(host, "Name", "combobox")).to_have_value("50")  # the chosen one stays
    host.lab.set(name=31)
    host.deliver(host.take())
    assert options(host)[:2] == ["name 7", "name 31"]
    expect(control(host, "Name", "combobox")).to_have_value("31")
    press(host, "Name", "combobox", "ArrowDown")
    host.settle()
    assert host.lab.value.name == 70
    press(host, "Name, find by name", "searchbox", "Control+A", *"nobody", "Enter")
    expect(problem(host)).to_have_text("Name: no name holds “nobody”.")
    assert options(host) == ["name 70"]
    press(host, "Name, find by name", "searchbox", "Control+A", "Delete")
    assert len(options(host)) == 100
    assert host.lab.value.name == 70


# what changes in the picture


def test_nothing_of_a_view_that_was_taken_away_listens(page):
    tools = page.context.new_cdp_session(page)
    window = tools.send("Runtime.evaluate", {"expression": "window"})["result"]["objectId"]

    def listeners():
        return len(tools.send("DOMDebugger.getEventListeners", {"objectId": window})["listeners"])

    before = listeners()
    host = PageHost(page, Everything())
    assert listeners() > before
    host.run("host => host.detach[0]()")
    assert listeners() == before
    tools.detach()


def test_what_stays_is_the_same_element(host):
    script = """host => {
        const svg = document.querySelectorAll(".gap-panel")[1].children[1];
        window.elements ??= [...svg.children];
        return [...svg.children].map((e, n) => e === window.elements[n]);
    }"""
    assert all(host.run(script))
    tap(host, MOUSE, at(host, 1, 110, 60))
    host.settle()
    same = host.run(script)
    assert (same[0], all(same[1:])) == (False, True)  # the text is another one
    mark = host.root.locator(".gap-mark")
    expect(mark).to_have_attribute("x", "9")


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_changes_move_unless_one_wants_none(page, motion):
    open_page(page, still=False)
    page.emulate_media(reduced_motion=motion)
    host = PageHost(page, Everything())
    host.lab.set(place=9)
    host.deliver(host.take())
    moving = "() => document.getAnimations().map((a) => a.effect.target.tagName).sort()"
    seen = page.evaluate(moving)
    host.lab.set(place=10)
    host.deliver(host.take())  # so soon that it would only be in the way
    soon = page.evaluate(moving)
    page.emulate_media(reduced_motion="no-preference")
    assert (seen, soon) == ([] if motion == "reduce" else ["rect", "text"], [])


@pytest.mark.parametrize(
    ("lab", "moves"),
    [
        (PoolLab, [{"window": 3}, {"padding": 1}, {"kernel_size": 3}, {"window": 1}]),
        (lambda: Named(), [{"count": 2}, {"count": 1}, {"count": 2}]),  # names of all letters
    ],
)
def test_the_picture_is_as_if_it_were_drawn_afresh(page, lab, moves):
    lab = lab()
    host = PageHost(page, lab)
    for fields in moves:
        lab.set(**fields)
        host.deliver(host.take())
        for n, panel in enumerate(lab.frame.panels):
            drawn, same = host.run(
                """(host, [n, drawn]) => {
                    const svg = document.querySelectorAll(".gap-panel")[n].children[1];
                    const fresh = svg.cloneNode(false);
                    fresh.innerHTML = drawn;
                    return [svg.innerHTML, svg.isEqualNode(fresh)];
                }""",
                [n, panel.svg],
            )
            assert same, (fields, drawn)


def test_a_frame_with_nothing_pointed_at_touches_only_what_differs(host):
    host.page.evaluate(
        """() => {
            window.touched = 0;
            new MutationObserver((found) => (window.touched += found.length)).observe(
                document.querySelector(".gap-view > :nth-child(3) > .gap-panel"),
                { subtree: true, childList: true, attributes: true, characterData: true });
        }"""
    )
    press(host, "Rise", "slider", "ArrowRight", "ArrowRight")
    host.settle()
    expect(words(host)).to_have_text("Place 5, count 0.")
    assert host.page.evaluate("() => window.touched") == 0


# other ways of writing


NAMES = ["שלום", "مرحبا", "a/> <b \"c\" d='e' &"]


class Named(Lab):
    """A sentence with a name of class 0 or 1 wherever a lab may write one."""

    def __init__(self):
        self.names = read_names(NAMES, 3)
        options = [(name, n) for n, name in enumerate(self.names)]
        super().__init__(
            State(), [Choice("count", "Class", options), Slider("place", "Place", 0, 9)]
        )

    def from_fields(self, values):
        return State(**values)

    def draw(self, state):
        said = say_best(np.eye(3)[state.count], self.names, (state.count + 1) % 3)
        drag = box((100, 30, 60, 30), "gap-pale", data_drag={"place": ("x", 6)})
        drag += box((0, 70, 9, 9), "gap-pale", data_set={"count": said})
        readout = Readout(
            np.full((1, 1, 1), 0.9), (0, 30, 60, 30), [f"{self.names[state.count]}, (5%)"]
        )
        panel = Panel(200, 80, text(4, 14, said) + drag, [], readout)
        pieces = [(self.names[state.count], "name"), (" (100%), wrong", "")]
        return Frame([panel], [said], said, pieces=pieces)


def where_parts_are(host, *parts):
    """In each line on the page with all these, the left edges of each."""
    return host.root.evaluate(
        """(root, parts) => {
            const lines = [...root.querySelectorAll(
                "p:not(.gap-hidden), text, .gap-bubble div, legend, label span")];
            return lines.filter((line) => line.checkVisibility({ visibilityProperty: true })
                && parts.every((part) => line.textContent.includes(part))).map((line) =>
                parts.map((part) => {
                    const walk = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
                    while (walk.nextNode()) {
                        const at = walk.currentNode.data.indexOf(part);
                        if (at < 0) continue;
                        const range = new Range();
                        range.setStart(walk.currentNode, at);
                        range.setEnd(walk.currentNode, at + part.length);
                        return range.getBoundingClientRect().left;
                    }
                }));
        }""",
        parts,
    )


@pytest.mark.parametrize("number", [0, 1])
def test_names_from_right_to_left_garble_no_sentence(page, number):
    host = PageHost(page, Named())
    host.lab.set(count=number)
    host.deliver(host.take())
    lines = where_parts_are(host, NAMES[number], "(", "100", "%", "wrong")
    assert len(lines) == 3  # the drawing, the large line and the words
    for line in lines:
        assert line == sorted(line)
    page.mouse.move(*at(host, 0, 30, 45))
    (line,) = where_parts_are(host, NAMES[number], "(", "5", "%", ": ", "0.9")
    assert line == sorted(line)


def test_an_answer_from_right_to_left_is_read_from_the_right(page):
    host = PageHost(
        page, Question("מה נשאר?", {"מספר אחד.": "כן.", "כל המפה.": "לא."}, "מספר אחד.")
    )
    for parts in (["מספר", "אחד", "."], ["כל", "המפה", "."]):
        (line,) = where_parts_are(host, *parts)
        assert line == sorted(line, reverse=True)


def test_a_page_from_right_to_left_shows_the_same_picture(page, pulls):
    host = PageHost(page, Named())
    script = """lab => [...lab.querySelectorAll(".gap-control, .gap-panel, text, .gap-words p")]
        .map((of) => of.getBoundingClientRect()).map(({ x, y, width }) => [x, y, width])"""
    before = host.root.evaluate(script)
    page.evaluate("() => (document.documentElement.dir = 'rtl')")
    for seen, expected in zip(host.root.evaluate(script), before, strict=True):
        assert seen == pytest.approx(expected, abs=1)
    press_, move, let_go = pulls[MOUSE]
    press_(at(host, 0, 120, 40))
    move(at(host, 0, 138, 40))
    let_go()
    host.settle()
    assert host.lab.value.place == 8
