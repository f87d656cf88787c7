"""Which cells of a lesson does a cell need? So that a test need not run all of them."""

from __future__ import annotations

import ast
import re

TOUCHED = {"exercise", "check", "question", "quiz"}


def cells_needed(notebook, wanted: list) -> list:
    """The cells wanted, the setup, the imports, and the last before a use that sets the name."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    needed, used = [], set()
    for place, cell in reversed([*enumerate(code)]):
        uses, sets = names_in(cell)
        if place < 2 or cell in wanted or sets & used:
            needed.insert(0, cell)
            used = used - sets | uses
    return needed


def names_in(cell) -> tuple[set[str], set[str]]:
    """The names that a cell uses and does not set before, and those that it sets."""
    uses, sets = set(), set()
    for statement in ast.parse(cell.source).body:
        loads, stores, inner = set(), set(), set()
        for node in ast.walk(statement):
            if isinstance(node, ast.Name):
                (loads if isinstance(node.ctx, ast.Load) else stores).add(node.id)
            elif isinstance(node, ast.arg):
                inner.add(node.arg)
            elif isinstance(node, ast.comprehension):
                inner |= {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
            elif isinstance(node, ast.alias):
                stores.add((node.asname or node.name).split(".")[0])
        if isinstance(statement, ast.FunctionDef):
            stores, inner = {statement.name}, stores | inner
        elif isinstance(statement, ast.For | ast.With):
            inner |= stores
        uses |= loads - sets - inner
        sets |= stores
    return uses, sets


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
