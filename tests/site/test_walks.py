"""Wherever one goes in a lab without a kernel, it shows what a kernel would show."""

from __future__ import annotations

import random

WALKS, STEPS = 12, 4


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
