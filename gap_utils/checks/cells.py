"""Which cells of a notebook does a name need? So that no others have to run.

What a method or a function does to a thing is not seen: `numbers.append(1)` sets no name.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass, field
from symtable import SymbolTable, symtable

from IPython.core.inputtransformer2 import TransformerManager

STAR = "*"  # stands for the names that `from module import *` brings, which nobody can know
MAYBE = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.Match, ast.AugAssign)


@dataclass
class Names:
    """The names of a cell: what it uses and does not set before, sets, and changes or may set."""

    uses: set[str] = field(default_factory=set)
    sets: set[str] = field(default_factory=set)
    changes: set[str] = field(default_factory=set)


def cells_needed(cells: list[str], name: str) -> list[int]:
    """The places of the cells that a name needs when all run from top to bottom.

    Args:
        cells: the code of each cell.
        name: what the last cell that sets it makes, with all that it needs in turn.
    """
    names = [names_in(cell) for cell in cells]
    wanted = set()
    while True:
        needed, used = [], {name, STAR}
        for place, cell in reversed([*enumerate(names)]):
            if place in wanted or used & (cell.sets | cell.changes):
                needed.insert(0, place)
                used = used - cell.sets | cell.uses
        # a function may use what a cell below it sets, if that is run before the call
        below = [p for p, cell in enumerate(names) if p not in needed and cell.sets & used]
        if not below:
            return needed
        wanted.add(below[0])


def names_in(cell: str) -> Names:
    """Find the names of a cell, with magics or mistakes in it or without."""
    try:
        return _names_in(parse(cell))
    except (SyntaxError, ValueError, RecursionError):  # what it was meant to set, it does not
        meant = re.findall(r"^ *(?:(?:async +)?def|class) +(\w+)|^(\w+) *=(?!=)", cell, re.M)
        return Names(sets={one or other for one, other in meant})


def parse(cell: str) -> list[ast.stmt]:
    """The statements of a cell; a magic of IPython is a call."""
    code = re.sub(r"\A\s*%%.*", "", cell)  # such as %%time; the cell below it is code too
    code = re.sub(r"^( *)%time +", r"\1", code, flags=re.M)  # so is the rest of this line
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as of "\\d", which is for the learner
        return ast.parse(TransformerManager().transform_cell(code)).body


def _names_in(statements: list[ast.stmt]) -> Names:
    names = Names()
    for statement in statements:
        table = symtable(ast.unparse(statement), "<cell>", "exec")
        symbols = table.get_symbols()
        loads = {one.get_name() for one in symbols if one.is_referenced()}
        bound = {one.get_name() for one in symbols if one.is_assigned() or one.is_imported()}
        of_comprehensions = _variables_of_comprehensions(statement)
        loads, bound = loads - of_comprehensions, bound - of_comprehensions
        if isinstance(statement, ast.For | ast.AsyncFor | ast.With | ast.AsyncWith):
            loads -= bound  # such as the variable of a loop
        inner, declared = _globals_of(table)
        names.uses |= (loads | inner) - names.sets
        maybe = bound if isinstance(statement, MAYBE) else set()
        names.changes |= maybe | declared | _changed_by(statement)
        names.sets |= bound - maybe
    return names


def _variables_of_comprehensions(statement: ast.stmt) -> set[str]:
    """The variables that comprehensions alone set: from Python 3.12 on a table has them too."""
    nodes = [*ast.walk(statement)]
    found = [node.target for node in nodes if isinstance(node, ast.comprehension)]
    inside = {node for target in found for node in ast.walk(target) if isinstance(node, ast.Name)}
    stored = {n for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return {node.id for node in inside} - {node.id for node in stored - inside}


def _globals_of(table: SymbolTable) -> tuple[set[str], set[str]]:
    """The names of the notebook that functions and classes use, and that they declare to set."""
    uses, declared = set(), set()
    for child in table.get_children():
        symbols = [symbol for symbol in child.get_symbols() if symbol.is_global()]
        uses |= {symbol.get_name() for symbol in symbols if symbol.is_referenced()}
        declared |= {symbol.get_name() for symbol in symbols if symbol.is_assigned()}
        for mine, others in zip((uses, declared), _globals_of(child), strict=True):
            mine |= others
    return uses, declared


def _changed_by(statement: ast.stmt) -> set[str]:
    """The names whose parts a statement sets, as in a.b = 1 and a[0] = 1."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return set()  # their own variables, most of the time
    changed = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            changed.add(STAR)
        elif isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            while isinstance(node, ast.Attribute | ast.Subscript):
                node = node.value
            changed |= {node.id} if isinstance(node, ast.Name) else set()
    return changed
