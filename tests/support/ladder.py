"""A lab with gaps in its tour, and ways that lead out of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from gap_utils.svg import Frame, Panel, Pixels, Readout, box, text
from gap_utils.widgets.lab import START_AGAIN, Button, Choice, File, Lab, Slider, Toggle

TOPS, RUNGS, WAYS = (2, 4, 7), (0, 1, 2, 4, 7), ("up", "down")
SPECIAL = '<b> & "b" </script><!--'  # a name that is not to be taken for HTML
WITH_A_KERNEL = "With a kernel <the> ladder & you go further."


@dataclass(frozen=True)
class Climb:
    top: int = 4
    rung: int = 0  # at most the top
    way: str = "up"
    word: str = "a"
    wet: bool = False
    colour: int = 0

    def __post_init__(self):
        if self.rung > self.top:
            raise ValueError(f"expected a rung up to {self.top}, got {self.rung}")


class Ladder(Lab):
    """On its tour word "b" is said on the ladder of 4 only, and it is wet on the ground only.

    One climbs rung by rung, past those that are not on the tour.
    """

    needs_kernel = ("guess",)
    with_a_kernel = WITH_A_KERNEL

    def __init__(self, **settings):
        words = [("word a", "a"), (SPECIAL, "b"), ("word c", "c")]
        controls = [
            Slider("rung", "Rung", 0, 9, main=True),
            Slider("top", "Top", 1, 9),
            Choice("way", "Way", [(way, way) for way in (*WAYS, "round")], style="radio"),
            Choice("word", "Word", words),
            Toggle("wet", "Wet"),
            Slider("colour", "Colour", 0, 5),
            Button("climb", "Climb"),
            Button("fall", "Fall"),
            Button("paint", "Paint"),
            Button("guess", "Guess"),
            START_AGAIN,
            File("file", "A file", ".txt"),
        ]
        super().__init__(Climb(**settings), controls)

    def tour(self):
        for top, rung, way in product(TOPS, RUNGS, WAYS):
            for word in "ab" if top == 4 else "a":
                if rung <= top:
                    yield Climb(top, rung, way, word)
                if rung == 0:
                    yield Climb(top, rung, way, word, wet=True)

    def limits(self, state):
        return {"rung": {"high": state.top}, "colour": {"hidden": True}}

    def from_fields(self, values):
        return Climb(**{**values, "rung": min(values["rung"], values["top"])})

    def note(self, wanted, state):
        return "" if wanted["rung"] == state.rung else f"The rung is now {state.rung}."

    def press(self, name, state):
        if name == "climb":
            if state.rung == state.top:
                raise ValueError("expected a longer ladder, got to the top")
            return replace(state, rung=state.rung + 1)
        if name == "fall":
            return replace(state, rung=0)
        if name == "paint":
            return replace(state, colour=state.colour + 1)
        return Climb() if name == "guess" else super().press(name, state)

    def draw(self, state):
        levels = np.full((80, 80), state.top, np.uint8), np.full((2, 2), state.rung, np.uint8)
        drawn = [
            text(4, 14, f"rung {state.rung}"),
            box((100, 10, 30, 30), "gap-pale", data_set={"rung": 2}),
            box((140, 10, 30, 30), "gap-pale", data_set={"rung": 3}),
            box((100, 50, 90, 40), "gap-pale", data_drag={"rung": ("x", 10)}),
        ]
        places = (0, 20, 40, 40), (50, 20, 40, 40)
        panel = Panel(
            200,
            100,
            "".join(drawn),
            [*map(Pixels, levels, places)],
            Readout(np.full((1, 2, 2), state.rung + 0.5), places[1]),
        )
        dry = Panel(60, 30, text(4, 14, "what stays"), above=True)
        said = f"Rung {state.rung} of {state.top}, {state.way}."
        words = f"{SPECIAL} wet" if state.wet else SPECIAL * (state.word == "b")
        return Frame(
            [dry, panel],
            [said, words],
            text=f"All of {state}: {SPECIAL}",
            pieces=[("wet", "link"), (" as rain", "")] * state.wet,
            verdict="right" if state.rung == state.top else "",
        )
