"""Labs on the site, which have no kernel, show at every step what a kernel would show."""

from __future__ import annotations

import json
import random
from dataclasses import replace

from playwright.sync_api import expect

from built_site import frames_of, lab_cells, lab_in_python, labs_of, offered
from driver import drag_picture, expect_said, focus_slider

MOVED = ("slider", "choice", "toggle")
WALKS, STEPS = 12, 4


def test_the_site_has_the_labs_of_the_lessons(site):
    labs = labs_of(site)
    assert {name: lab.page for name, lab in labs.items()} == lab_cells()
    assert len(labs) >= 10
    assert all(lab.kernel.startswith("With a kernel") for lab in labs.values())


def test_every_value_that_a_control_offers_has_a_frame(walk):
    """From where the lab begins; `test_frames` says the same of all other frames."""
    walker, moved = walk(), 0
    for control in walker.controls:
        if control["kind"] in MOVED and walker.is_there(control):
            values = walker.offered(control)
            for value in values:
                walker.move(control, value)
                assert walker.is_there(control)
            moved += len(values) > 1
            walker = walk()
    assert moved >= 1


def test_all_that_can_be_clicked_in_the_picture(walk):
    for told in sorted({*walk().clicks()}):
        walk().click(told)


def test_buttons(walk):
    walker = walk()
    for button in walker.controls:
        if button["kind"] == "button":
            walker.press(button)
            walker.press(button)


def test_random_walks_show_what_python_shows(walk, name):
    chance = random.Random(name)
    for _ in range(WALKS):
        walker = walk()
        for _ in range(STEPS):
            controls = [c for c in walker.controls if walker.is_there(c)]
            control, clicks = chance.choice(controls), walker.clicks()
            if clicks and chance.random() < 0.2:
                walker.click(chance.choice(clicks))
            elif control["kind"] == "button":
                walker.press(control)
            else:
                walker.move(control, chance.choice(walker.offered(control)))


def test_frames_lead_to_frames(site, name):
    """Whatever a control offers in a frame, and wherever a button leads, there is a frame."""
    told, frames = labs_of(site)[name], frames_of(site, name)
    controls = [c for c in told.opening["controls"] if c["kind"] in MOVED]
    assert told.opening["frames"][0]["fields"] == frames.frames[0]["fields"]
    ways = 0
    for frame in frames.frames:
        for control in controls:
            for value in offered(control, frame["limits"]):
                assert frames.at({**frame["fields"], control["name"]: value}) is not None
                ways += 1
        for number in frame["presses"].values():
            assert 0 <= number < len(frames.frames)
        for panel in frame["panels"]:
            for part in [*panel["pixels"], *filter(None, [panel["readout"]])]:
                assert frames.levels[part["digest"]]
    assert ways > len(frames.frames) > 40


def test_a_slider_by_keys_and_the_picture_by_the_pointer(walk):
    """The gestures themselves."""
    walker = walk()
    control = next(c for c in walker.controls if c["kind"] == "slider" and walker.is_there(c))
    values = walker.offered(control)
    at = values.index(walker.kernel.fields(walker.state)[control["name"]])
    key, after = ("ArrowRight", at + 1) if at + 1 < len(values) else ("ArrowLeft", at - 1)
    focus_slider(walker.root, control["label"])
    walker.root.page.keyboard.press(key)
    walker.expect_at({control["name"]: values[after]})
    told = next(told for told in walker.clicks() if walker.leads(told))
    walker.root.locator(f"[data-set='{told}']").first.click()
    walker.expect_at(json.loads(told))


def test_the_picture_of_shift_lab_is_dragged(site, visitor):
    (name,) = [name for name, lab in labs_of(site).items() if lab.name == "ShiftLab"]
    visitor.open(labs_of(site)[name].page)
    lab = visitor.page.get_by_role("group", name="ShiftLab", exact=True)
    lab.scroll_into_view_if_needed()
    drag_picture(lab, 3, -2)
    python = lab_in_python(labs_of(site)[name])
    frame = python.draw(replace(python.value, dx=3, dy=-2))
    assert "moved 3 px right and -2 px down" in frame.text
    expect(lab.locator(".gap-hidden").first).to_have_text(frame.text)
    expect_said(lab, *frame.words)
