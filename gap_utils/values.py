"""Reading whole numbers, labels and names that a user gives, and writing numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from operator import index
from typing import Any


def read_whole_number(name: str, value: Any, low: int, high: float = inf, or_else: str = "") -> int:
    """Read a setting that is an integer from low to high.

    Args:
        name: of the setting, for the error.
        value: what was given.
        low: the lowest integer that is allowed.
        high: the highest.
        or_else: what else is allowed, for the error, such as ' or "top 1"'.

    Raises:
        ValueError: if it is another.
    """
    try:
        number = index(value)
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        limits = f"from {low} on" if high == inf else f"from {low} to {high}"
        raise ValueError(f"expected {name} to be an integer {limits}{or_else}, got {value!r}")
    return number


def check_below(name: str, value: int, count: int) -> None:
    """Raise ValueError if there are not more than so many of what the setting chooses from."""
    if value >= count:
        raise ValueError(f"expected {name} to be below {count}, got {value}")


def read_names(class_names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Read class names, each in one line; when None, so many numbers."""
    names = range(count) if class_names is None else class_names
    return tuple(" ".join(str(name).split()) for name in names)


def read_labels(labels: Any, count: int) -> list[int]:
    """Read the class numbers of so many pictures from a list, an array or a tensor.

    Raises:
        ValueError: if they are not integers from 0 on, one for each picture.
    """
    found = list(labels)
    if len(found) != count:
        raise ValueError(f"expected a label for each of {count} pictures, got {len(found)}")
    numbers = []
    for label in found:
        try:
            numbers.append(index(label))
        except TypeError:
            numbers.append(-1)
        if numbers[-1] < 0:
            raise ValueError(f"expected labels to be integers from 0 on, got {label!r}")
    return numbers


def format_number(value: float, decimals: int = 4) -> str:
    """Write a number with at most so many decimals and no trailing zeros.

    Example:
        >>> format_number(4.0625), format_number(3.0), format_number(-1 / 3)
        ('4.0625', '3', '-0.3333')
    """
    return f"{round(float(value), decimals) + 0.0:.10g}"  # + 0.0 turns -0.0 into 0.0


def join_rows(rows: Iterable[Iterable[str]]) -> str:
    """Write the words of a grid in one line, a slash between rows.

    Example:
        >>> join_rows([["1", "2"], ["3", "4"]])
        '1 2 / 3 4'
    """
    return " / ".join(map(" ".join, rows))
