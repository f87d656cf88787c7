"""How right and wrong look in plain HTML: a colour, a sign and a word, seen from afar.

A question that is alive has the same look from `lab.css`.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

RIGHT, WRONG, OPEN = "✓", "✗", "○"
# seen on white and on black, and told apart with every kind of colour vision
_COLOURS = {RIGHT: (0, 148, 95), WRONG: (213, 94, 0), OPEN: (118, 118, 118)}


def verdict_as_html(
    sign: str, headline: str, words: str = "", role: str = "", drawing: str = ""
) -> str:
    """Write a headline beside a thick bar, and words below it.

    Args:
        sign: RIGHT, WRONG or OPEN, which also says the colour.
        headline: a word or two.
        words: lines, whose columns are kept.
        role: an ARIA role, such as "status" for what has just come up.
        drawing: HTML that stands above the words.
    """
    colour = ", ".join(map(str, _COLOURS[sign]))
    box = f"border-left: 10px solid rgb({colour}); background-color: rgba({colour}, 0.12)"
    large = f"margin: 0; font-size: 24px; line-height: 1.3; font-weight: 700; color: rgb({colour})"
    lines = escape(words, quote=False).replace("\n", "<br>")
    small = "margin: 4px 0 0; font-size: 16px; line-height: 1.45; white-space: pre-wrap"
    attributes = f' role="{role}"' if role else ""
    return " ".join(  # so that the words stand apart where the tags are taken out
        [
            f'<div{attributes} style="{box}; padding: 8px 14px; max-width: 90ch">',
            f'<p style="{large}">{sign} {escape(headline, quote=False)}</p>',
            *([drawing] if drawing else []),
            *([f'<p style="{small}">{lines}</p>'] if words else []),
            "</div>",
        ]
    )


def grid_as_html(
    rows: Sequence[Sequence[str]], marked: Sequence[Sequence[bool]], sign: str, title: str = ""
) -> str:
    """Write a small table in which some squares have a thick border and bold numbers.

    Args:
        rows: what stands in the squares.
        marked: whether a square has the border, in the same shape.
        sign: RIGHT, WRONG or OPEN, which says the colour of the border.
        title: stands above the table.
    """
    colour = "rgb({}, {}, {})".format(*_COLOURS[sign])
    square = "padding: 2px; min-width: 1.6em; text-align: center; background: none; border: "
    plain, thick = f"{square}1px solid rgb(118, 118, 118)", f"{square}3px solid {colour}"
    table = "width: auto; margin: 4px 0 0; table-layout: auto; border-collapse: collapse"
    lines = [f'<table style="{table}; font-size: 13px; white-space: nowrap">']
    if title:
        lines.append(f'<caption style="text-align: left">{escape(title, quote=False)}</caption>')
    for numbers, marks in zip(rows, marked, strict=True):
        squares = [
            f'<td style="{thick}"><b>{number}</b></td>'
            if mark
            else f'<td style="{plain}">{number}</td>'
            for number, mark in zip(numbers, marks, strict=True)
        ]
        lines.append(f'<tr style="background: none">{" ".join(squares)}</tr>')
    return "\n".join([*lines, "</table>"])
