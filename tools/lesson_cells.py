"""Which cells of a lesson does a cell need? So that a test need not run all of them."""

from __future__ import annotations

import re

from gap_utils.checks.cells import names_in

TOUCHED = {"exercise", "check", "question", "quiz"}


def cells_needed(notebook, wanted: list) -> list:
    """The cells wanted, the setup, the imports, and the last before a use that sets the name."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    needed, used = [], set()
    for place, cell in reversed([*enumerate(code)]):
        names = names_in(cell.source)
        if place < 2 or cell in wanted or used & (names.sets | names.changes):
            needed.insert(0, cell)
            used = used - names.sets | names.uses
    return needed


def keep_what_a_learner_touches(notebook, *texts: str) -> None:
    """Leave out the code that no lab, question, exercise or cell with such a text needs."""
    wanted = [
        cell
        for cell in notebook.cells
        if TOUCHED & set(cell.metadata.get("tags", []))
        or re.search(r"^(\w+Lab\(|quiz$)", cell.source, re.M)
        or any(text in cell.source for text in texts)
    ]
    needed = cells_needed(notebook, wanted)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type != "code" or cell in needed]
