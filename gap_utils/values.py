"""Reading whole numbers, labels and names that a user gives, and writing numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from math import inf, isnan
from operator import index
from typing import Any
from unicodedata import bidirectional


def read_whole_number(name: str, value: Any, low: int, high: float = inf, or_else: str = "") -> int:
    """Read a setting that is an integer from low to high, or raise ValueError with its name.

    or_else: what else is allowed, for the error, such as ' or "top 1"'.
    """
    try:
        number = None if isinstance(value, bool) else index(value)
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        limits = f"from {low} on" if high == inf else f"from {low} to {high}"
        raise ValueError(f"expected {name} to be an integer {limits}{or_else}, got {value!r}")
    return number


def read_whole_numbers(state: Any, **limits: tuple[int, ...]) -> None:
    """Read settings of a frozen dataclass, each from its lowest to its highest integer.

    Raises:
        ValueError: as `read_whole_number`.
    """
    for name, limit in limits.items():
        object.__setattr__(state, name, read_whole_number(name, getattr(state, name), *limit))


def check_below(name: str, value: int, count: int) -> None:
    """Raise ValueError if there are not more than so many of what the setting chooses from."""
    if value >= count:
        raise ValueError(f"expected {name} to be below {count}, got {value}")


def read_names(class_names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Read the names of at least so many classes, each in one line; when None, so many numbers.

    A name of letters that go from right to left is set apart by two signs that are not seen, or
    the numbers and brackets of an English sentence around it would change their places.
    """
    if class_names is None:
        return tuple(map(str, range(count)))
    if isinstance(class_names, str | Mapping | Set) or not isinstance(class_names, Iterable):
        raise ValueError(f"expected a list of class names, got {class_names!r}")
    names = tuple(" ".join(str(name).split()) for name in class_names)
    # names of folders may hold bytes that are no letters, and no message to a page has them
    names = tuple(name.encode(errors="replace").decode() for name in names)
    names = tuple(_set_apart(name) for name in names)
    if len(names) < count:
        raise ValueError(f"expected a name for each of {count} classes, got {len(names)}")
    return names


def _set_apart(name: str) -> str:
    goes_left = any(bidirectional(letter) in ("R", "AL") for letter in name)
    return f"\N{FIRST STRONG ISOLATE}{name}\N{POP DIRECTIONAL ISOLATE}" if goes_left else name


def read_labels(labels: Any, count: int, classes: float = inf) -> list[int]:
    """Read the class numbers of so many pictures from a list, an array or a tensor.

    Raises:
        ValueError: if they are not integers from 0 on and below the number of classes, one
            for each picture.
    """
    found = labels.tolist() if hasattr(labels, "tolist") else labels  # quicker than one by one
    if isinstance(found, str | Mapping | Set) or not isinstance(found, Iterable):
        raise ValueError(f"expected a list of labels, got {labels!r}")
    found = list(found)
    if len(found) != count:
        raise ValueError(f"expected a label for each of {count} pictures, got {len(found)}")
    numbers = []
    for label in found:
        try:
            numbers.append(index(label))
        except TypeError:
            numbers.append(-1)
        if not 0 <= numbers[-1] < classes:
            limits = "from 0 on" if classes == inf else f"from 0 to {classes - 1}"
            raise ValueError(f"expected labels to be integers {limits}, got {label!r}")
    return numbers


def format_number(value: float, decimals: int = 4, fixed: bool = False) -> str:
    """Write a number with at most so many decimals, or with just so many if that is fixed.

    Example:
        >>> format_number(4.0625), format_number(3.0), format_number(-1 / 3)
        ('4.0625', '3', '-0.3333')
        >>> format_number(3.0, 2, fixed=True), format_number(2.5e12), format_number(float("nan"))
        ('3.00', '2.5e12', 'no number')
    """
    number = round(float(value), decimals) + 0.0  # turns -0.0 into 0.0
    if isnan(number):
        return "no number"
    if abs(number) >= 1e10:
        return shorten_exponent(f"{number:.4g}")
    return f"{number:.{decimals}f}" if fixed else f"{number:.10g}"


def shorten_exponent(text: str) -> str:
    """Write 1.2e+06 as 1.2e6.

    Example:
        >>> shorten_exponent("1.2e+06"), shorten_exponent("5e-07"), shorten_exponent("12")
        ('1.2e6', '5e-7', '12')
    """
    number, exponent, power = text.partition("e")
    return f"{number}e{int(power)}" if exponent else text


def fit_number(text: str, value: float, letters: int) -> str:
    """Keep the text of a number if it is short enough; else write it with fewer digits.

    Example:
        >>> fit_number("12345.67", 12345.67, 6), fit_number("0.0004567", 0.0004567, 5)
        ('1.23e4', '5e-4')
    """
    formats = (".4g", ".3g", ".2g", ".1g", ".0e")
    texts = [text, *(shorten_exponent(f"{value:{how}}") for how in formats)]
    return next((text for text in texts if len(text) <= letters), texts[-1])


def join_rows(rows: Iterable[Iterable[str]]) -> str:
    """Write the words of a grid in one line, a slash between rows.

    Example:
        >>> join_rows([["1", "2"], ["3", "4"]])
        '1 2 / 3 4'
    """
    return " / ".join(map(" ".join, rows))
