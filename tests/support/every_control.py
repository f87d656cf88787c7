"""A lab of one control of every kind and one square of every gesture, and how to work it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gap_utils.svg import Frame, Panel, Pixels, Readout, box, text
from gap_utils.widgets.lab import Button, Choice, File, Lab, Numbers, Slider, Toggle

LONG = tuple(f"name {n}" for n in range(100))
SQUARES = np.array([[0, 125, 250], [251, 252, 255]], np.uint8)
RED_GREEN_BLUE = np.array([[[255, 0, 0], [0, 128, 0], [1, 2, 3]]], np.uint8)
# one number and two for each square
NUMBERS = np.array([[[1.5, -2, np.nan], [np.inf, 1 / 3, 1e7]]])
MORE_NUMBERS = np.stack([NUMBERS[0], np.arange(6.0).reshape(2, 3)])
MAP = (0, 20, 60, 40)  # where they are, in the units of a panel


@dataclass(frozen=True)
class State:
    place: int = 5
    step: int = 1
    rise: int = 0
    way: str = "up"
    word: str = "a"
    name: int = 0
    on: bool = False
    values: tuple = ((1, 2), (3, 4))
    count: int = 0  # of what buttons and files did


class Everything(Lab):
    """Place 13 cannot be, and 14 becomes 15; one that is `on` has a large line, "c" one panel more.

    Args:
        prepared: states whose frames need no kernel.
        hidden: names of controls that are not in view.
        readouts: place -> numbers to read out in both panels, None for none.
        offered: name of a control -> all values that it can have, where the place is under 10.
    """

    def __init__(self, prepared=(), hidden=(), readouts=None, offered=None, **fields):
        self._prepared, self._hidden, self._readouts = prepared, hidden, readouts or {}
        self._offered = offered or {}
        self.received = []
        controls = [
            Slider("place", "Place", 0, 20, main=True),
            Slider("step", "Step", 1, 3),
            Slider("rise", "Rise", -5, 5),
            Choice("way", "Way", [("upwards", "up"), ("downwards", "down")], style="radio"),
            Choice("word", "Word", [("word a", "a"), ("word b", "b"), ("word c", "c")]),
            Choice("name", "Name", [(name, n) for n, name in enumerate(LONG)]),
            Toggle("on", "On"),
            Button("more", "One more"),
            Button("double", "Double"),
            File("file", "A file", ".txt"),
            Numbers("values", "Numbers", -9, 9),
        ]
        super().__init__(State(**fields), controls)

    def complete(self, state):
        if state.place == 13:
            raise ValueError("expected another place, got 13")
        return replace(state, place=15) if state.place == 14 else state

    def from_fields(self, values):
        return State(**{**values, "values": tuple(map(tuple, values["values"]))})

    def prepared(self):
        return self._prepared

    def note(self, wanted, state):
        return "" if wanted["place"] == state.place else f"place is now {state.place}"

    def limits(self, state):
        limits = {"step": {"high": state.step}, "double": {"idle": state.count > 99}}
        if state.place < 10:
            limits |= {name: {"values": values} for name, values in self._offered.items()}
        return limits | {name: {"hidden": True} for name in self._hidden}

    def press(self, name, state):
        if name == "more":
            return replace(state, count=state.count + 1)
        return replace(state, count=2 * state.count)

    def receive(self, content):
        if not content.startswith(b"text"):
            raise ValueError("expected a text file, got another")
        self.received.append(content)
        self.set(count=len(self.received))

    def draw(self, state):
        levels = SQUARES + np.uint8(state.place == 6)
        drawn = [
            text(4, 14, f"place {state.place}"),
            box((100, 50, 20, 20), "gap-pale", data_set={"place": 9}, data_link="nine"),
            box((124, 50, 20, 20), "gap-pale", data_set={"way": "down"}),
            box((148, 50, 20, 20), "gap-pale", data_set={"word": "b"}),
            box((172, 50, 20, 20), "gap-pale", data_set={"on": True}),
            box((0, 64, 90, 36), "gap-pale", data_drag={"place": ("x", 6), "rise": ("y", -4)}),
            box((state.place, 90, 9, 9), "gap-mark"),
        ]
        squares = [
            box((100 + 24 * j, 20 + 24 * i, 24, 24), "gap-edge", data_focus="values",
                data_link=f"value{i}{j} all")
            for i in range(2) for j in range(2)
        ]  # fmt: skip
        numbers = self._readouts.get(state.place, NUMBERS)
        more = self._readouts.get(state.place, MORE_NUMBERS)
        names = ("",) if more is None or len(more) == 1 else ("one", "two")
        panels = [
            Panel(
                200,
                100,
                text(4, 14, "what stays") + "".join(squares),
                [Pixels(SQUARES, MAP)],
                None if numbers is None else Readout(numbers, MAP),
            ),
            Panel(
                200,
                100,
                "".join(drawn),
                [
                    Pixels(levels, MAP, opacity=0.5, smooth=True),
                    Pixels(RED_GREEN_BLUE, (100, 20, 60, 20)),
                ],
                None if more is None else Readout(more, MAP, names),
            ),
        ]
        if state.word == "c":
            panels.insert(0, Panel(100, 20, "", above=True))
        pieces = [(f"{state.values[0][0]}", "value00 all"), (" to ", ""), ("9", "nine")]
        return Frame(
            panels,
            words=[f"Place {state.place}, count {state.count}."],
            text=f"All of {state}.",
            pieces=pieces * state.on,
            room=["Place 20, count 1000."],
        )


def control(host, label, role="slider"):
    return host.root.get_by_role(role, name=label, exact=True)


def press(host, label, role, *keys):
    """Press keys on a control that Tab can reach."""
    focus(host, label, role)
    for key in keys:
        host.page.keyboard.press(key)


def focus(host, label, role="slider"):
    control(host, label, role).focus()


def words(host):
    return host.root.locator(".gap-words [aria-live]")


def problem(host):
    return host.root.get_by_role("alert")
