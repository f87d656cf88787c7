"""Read frames as values, and work a lab as the page does."""

from __future__ import annotations

from xml.etree import ElementTree


def elements(panel, name):
    """The elements of a name that a panel draws, in their order."""
    return [*ElementTree.fromstring(f"<svg>{panel.svg}</svg>").iter(name)]


def shown(line):
    """What is read of a text element; the whole of what was cut is in its tooltip.

    What can be done there is not read where it cannot be done.
    """
    return line[0].tail if len(line) and line[0].tag == "title" else line.text


def texts(panel):
    """What is read in a panel, in the order of drawing."""
    return [shown(line) for line in elements(panel, "text")]


def check_letters(panel):
    """All is well-formed, no letter is too small, and no line is longer than the panel."""
    for line in elements(panel, "text"):
        size, words, x = float(line.get("font-size")), shown(line), float(line.get("x"))
        width = 0.62 * size * len(words)
        left = x - {"middle": width / 2, "end": width}.get(line.get("text-anchor"), 0)
        assert size >= 12, words
        assert -2 <= left <= left + width <= panel.width + 2, f"{words!r} leaves its panel"


def control(lab, name):
    """The one control of that name."""
    (found,) = (one for one in lab.opening()["controls"] if one["name"] == name)
    return found


def move(lab, **fields):
    """What a lab does when its controls have moved."""
    lab.value = lab.from_fields(lab.to_fields(lab.value) | fields)


def press(lab, name):
    """What a lab does when a button was pressed."""
    lab.value = lab.press(name, lab.value)


class Page:
    """The other end of a lab's widget: what it was sent, in its order."""

    def __init__(self, lab):
        self.lab, self.sent, self.asked = lab, [], 0
        lab._widget = self

    def send(self, message, buffers=()):
        """What the widget has for its page."""
        self.sent.append({**message, "data": [*buffers]})

    def ask(self, buffers=(), **message):
        """Send a message as the page does; give what came back."""
        self.asked += 1
        before = len(self.sent)
        usual = {"fields": self.lab.to_fields(self.lab.value), "missing": True}
        usual |= {"ahead": [], "have": []}
        message = message if "size" in message else usual | message
        self.lab.answer({**message, "ask": self.asked}, buffers)
        return self.sent[before:]
