"""A lab for a page without a kernel: its first frame as HTML, those of its tour in a file.

`page.js` is the other side: it answers `lab.js` from that file, where a kernel would.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Hashable, Sequence
from dataclasses import asdict, replace
from html import escape
from typing import Any

from gap_utils.svg import Panel, whole_svg
from gap_utils.widgets.lab import Button, Choice, Lab, Slider, Toggle


class Tour:
    """What a page can show of a lab: the state on view, those of its `tour`, and the ways between.

    States, and what their fields show, are hashable.

    Attributes:
        frames: the frame of each state, the one on view first. Their `limits` say which values a
            control can have there, their `presses` to which frame a button leads, by number.
        others: what controls may ask for that is none of these states but leads to one: the
            fields, the number of the frame, and the note on it.
        levels: the bytes that the frames need, by digest.
        controls: those that can be used, with all the values that they can have.
    """

    def __init__(self, lab: Lab):
        self._lab = lab
        states = [*dict.fromkeys(map(lab.complete, [lab.value, *lab.tour()]))]
        self._numbers = {state: n for n, state in enumerate(states)}
        self._fields = [lab.to_fields(state) for state in states]
        self._known = {_key(fields): n for n, fields in enumerate(self._fields)}
        self.others: list[tuple[dict[str, Any], int, str]] = []
        self.levels: dict[str, bytes] = {}
        moved = [c for c in lab.controls if isinstance(c, Slider | Choice | Toggle)]
        values = {control.name: self._values(control) for control in moved}
        self._moved = [control for control in moved if len(values[control.name]) > 1]
        self.frames = [self._frame(state, values) for state in states]
        pressed = {name for frame in self.frames for name in frame["presses"]}
        self.controls = [
            _narrow(control, values[control.name]) if control in self._moved else control
            for control in lab.controls
            if control in self._moved or control.name in pressed
        ]

    def _values(self, control: Any) -> list[Any]:
        """All values that a control has in the tour, in its own order."""
        found = {fields[control.name] for fields in self._fields}
        if isinstance(control, Choice):
            return [value for _, value in control.options if value in found]
        return sorted(found)

    def _frame(self, state: Any, values: dict[str, list[Any]]) -> dict[str, Any]:
        data, needed = self._lab.as_data(state)
        self.levels |= {one.digest: one.data for one in needed}
        for control in self._moved:
            limits = data["limits"].get(control.name, {})
            possible = values[control.name]
            if isinstance(control, Slider):  # what is beyond leads to one of these again
                low, high = limits.get("low", control.low), limits.get("high", control.high)
                possible = [value for value in possible if low <= value <= high]
            wanted = [{**data["fields"], control.name: value} for value in possible]
            offered = [fields[control.name] for fields in wanted if self._leads(fields)]
            if isinstance(control, Slider) and len(offered) == offered[-1] - offered[0] + 1:
                found = {"low": offered[0], "high": offered[-1]}  # without gaps
            else:
                found = {"values": offered}
            data["limits"][control.name] = limits | found
        return {**data, "presses": self._presses(state)}

    def _leads(self, fields: dict[str, Any]) -> bool:
        """Whether fields lead to a state of the tour."""
        key = _key(fields)
        if key not in self._known:
            try:
                state = self._lab.complete(self._lab.from_fields(fields))
            except ValueError:  # there is no such state
                state = None
            self._known[key] = number = self._numbers.get(state)
            if number is not None:
                self.others.append((fields, number, self._lab.note(fields, state)))
        return self._known[key] is not None

    def _presses(self, state: Any) -> dict[str, int]:
        """The number of the state that each button leads to."""
        found = {}
        for button in self._lab.controls:
            if isinstance(button, Button) and button.name not in self._lab.needs_kernel:
                try:
                    pressed = self._lab.complete(self._lab.press(button.name, state))
                except ValueError:  # there is no other picture, say
                    continue
                if pressed in self._numbers:
                    found[button.name] = self._numbers[pressed]
        return found


def _key(fields: dict[str, Any]) -> Hashable:
    return tuple(fields.values())  # always in the same order


def _narrow(control: Any, values: Sequence[Any]) -> Any:
    """Leave a control the values that it can have."""
    if isinstance(control, Choice):
        return replace(control, options=[one for one in control.options if one[1] in values])
    return control


def pack(tour: Tour) -> bytes:
    """Write a tour into a file, in which frames share what they have in common.

    Returns:
        gzip of four bytes, which say how long the JSON behind them is, the JSON, and the levels.
        In the JSON, `table` holds each value once: a list or dict of places in the table, or what
        is neither. `frames` are places in the table, `others` have one for their fields, and
        `levels` say where those of a digest begin and end.

    Raises:
        ValueError: if a number is infinite or none, which JSON cannot say.
    """
    table: list[Any] = []
    places: dict[Any, int] = {}

    def place_of(value: Any) -> int:
        if isinstance(value, dict):
            entry: Any = {name: place_of(inner) for name, inner in value.items()}
            key = *entry, *entry.values()
        elif isinstance(value, list | tuple):
            entry = [*map(place_of, value)]
            key = list, *entry
        else:
            entry, key = value, (type(value), value)
        if key not in places:
            places[key] = len(table)
            table.append(entry)
        return places[key]

    frames = [place_of(frame) for frame in tour.frames]
    others = [(place_of(fields), number, note) for fields, number, note in tour.others]
    ends, at = {}, 0
    for digest, data in tour.levels.items():
        ends[digest] = at, at + len(data)
        at += len(data)
    content = {"table": table, "frames": frames, "others": others, "levels": ends}
    written = _as_json(content).encode()
    parts = len(written).to_bytes(4, "big"), written, *tour.levels.values()
    return gzip.compress(b"".join(parts), mtime=0)  # the same bytes from the same frames


def lab_as_html(lab: Lab, tour: Tour | None = None, address: str = "", launch: str = "") -> str:
    """Write what stands on a page until `page.js` puts the lab in its place, and without it.

    Args:
        lab: with the frame that is shown first.
        tour: of the lab; None for one whose frames are all prepared, such as a question.
        address: of the file that `pack` made, from the page.
        launch: address of a page where the lab gets a kernel.
    """
    opening = lab.opening()
    if tour:
        opening |= {
            "controls": [{"kind": one.kind, **asdict(one)} for one in tour.controls],
            "frames": [{**opening["frames"][0], "limits": tour.frames[0]["limits"]}],
        }
    data = _as_json(opening).replace("<", r"\u003c")  # no text in it can end the script
    first = _first_frame(lab) if lab.frame.panels else lab.as_html()
    name, file = type(lab).__name__, escape(address)
    parts = [
        f'<div class="gap-on-page" data-lab="{name}" data-frames="{file}">',
        f'<script type="application/json">{data}</script>',
        f'<div class="gap-place">{first}</div>',
    ]
    if tour:
        words = escape(lab.with_a_kernel, quote=False)
        link = f'<a href="{escape(launch)}">Get one.</a>'
        parts.append(f'<p class="gap-kernel"><span>{words}</span> {link}</p>')
    return "\n".join([*parts, "</div>"])


def _as_json(data: Any) -> str:
    """Write JSON as a browser reads it, bytes in base64."""
    return json.dumps(
        data,
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
        default=lambda found: b64encode(found).decode(),
    )


def _first_frame(lab: Lab) -> str:
    """Write the frame on view, without controls, as `attach` in lab.js would."""
    frame = lab.frame
    rows = [
        "".join(_panel(panel) for panel in frame.panels if panel.above is above)
        for above in (True, False)
    ]
    words = [f"<p>{escape(line, quote=False)}</p>" for line in [frame.large, *frame.words] if line]
    classes = "gap-large " * bool(frame.large) + f"gap-{frame.verdict}" * bool(frame.verdict)
    return "\n".join(
        [
            '<div class="gap-lab" role="group"><div class="gap-body"><div class="gap-view">',
            *(f'<div class="gap-panels">{row}</div>' for row in rows),
            f'<div class="gap-words"><div></div><div class="{classes.strip()}">',
            f"{''.join(words)}</div></div></div></div>",
            f'<p class="gap-hidden">{escape(frame.text, quote=False)}</p></div>',
        ]
    )


def _panel(panel: Panel) -> str:
    size = f"--gap-width: {panel.width}; --gap-height: {panel.height}"
    view = f'viewBox="0 0 {panel.width} {panel.height}" aria-hidden="true"'
    return f'<div class="gap-panel" style="{size}"><svg {view}>{whole_svg(panel)}</svg></div>'
