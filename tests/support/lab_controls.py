"""Find the controls and words of a lab, as a learner sees them."""

from __future__ import annotations

import ipywidgets


def walk(widget):
    """A widget and all widgets inside it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from walk(child)


def control(lab, description: str):
    """The one control with that label."""
    found = [w for w in walk(lab.box) if getattr(w, "description", None) == description]
    assert len(found) == 1, f"{len(found)} controls are called {description!r}"
    return found[0]


def words(lab) -> str:
    """All HTML of the lab."""
    return " ".join(w.value for w in walk(lab.box) if isinstance(w, ipywidgets.HTML))
