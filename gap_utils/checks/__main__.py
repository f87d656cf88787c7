"""Mark lessons that learners hand in, without nbgrader.

    python -m gap_utils.checks LESSON.ipynb [FOLDER ...] [--limit SECONDS] [--csv FILE]

prints a line for each exercise and a total for each lesson. Of a folder it takes all notebooks in
it. It is no sandbox: run it as a user who may read and delete nothing that matters, or in a
container. The exit status is 1 where something could not be read.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import astuple, fields
from pathlib import Path

from gap_utils.checks.marking import Mark, mark

LONGEST = 200  # letters of a message in a line; the table has all of it


def main(arguments: list[str] | None = None) -> int:
    """Mark what the command line names; return the exit status."""
    given = read_arguments(arguments)
    unread = 0
    with open_table(given.csv) as file:
        table = csv.writer(file) if file else None
        if table:
            table.writerow(["file", "lesson", *(field.name for field in fields(Mark))])
        for path in given.lessons:
            for notebook in notebooks_in(path):
                try:
                    lesson, marks = mark(notebook, given.limit)
                except ValueError as error:
                    print(error, file=sys.stderr, flush=True)
                    unread += 1
                    continue
                print(f"{notebook}: lesson {lesson}", flush=True)
                passed = []
                for each in marks:
                    print(line_of(each), flush=True)
                    passed.append(each.result == "passed")
                    if table:
                        table.writerow([notebook, lesson, *astuple(each)])
                print(f"  {sum(passed)} of {len(passed)} passed\n", flush=True)
    return 1 if unread else 0


def read_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    start, usage, more = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(
        "python -m gap_utils.checks", usage.strip(), description=start, epilog=more
    )
    parser.add_argument("lessons", nargs="+", type=Path, help="notebooks, or folders of them")
    limit = "for each exercise; what takes longer is stopped (default 60)"
    parser.add_argument("--limit", type=seconds, default=60, metavar="SECONDS", help=limit)
    parser.add_argument("--csv", type=table_name, metavar="FILE", help="write a table too")
    return parser.parse_args(arguments)


def seconds(text: str) -> float:
    """Read a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text}")
    return number


def table_name(text: str) -> Path:
    """Read the name of a table; not that of a lesson, which would be lost."""
    if not text.endswith(".csv"):
        raise argparse.ArgumentTypeError(f"expected a name that ends in .csv, got {text}")
    return Path(text)


def open_table(path: Path | None):
    """Open the table, before anything is marked in vain; nothing where none is wanted."""
    if path is None:
        return nullcontext()
    return path.open("w", newline="", encoding="utf-8-sig", errors="replace")


def notebooks_in(path: Path) -> Iterator[Path]:
    """A notebook itself; of a folder all that are in it, without the copies that Jupyter keeps."""
    found = sorted(path.rglob("*.ipynb")) if path.is_dir() else []
    yield from [each for each in found if ".ipynb_checkpoints" not in each.parts] or [path]


def line_of(mark: Mark) -> str:
    """Write the mark with the last line of its message, which names a mistake that is known."""
    words = ": ".join(filter(None, [mark.result, mark.message.rpartition("\n")[2][:LONGEST]]))
    note = "; its check was changed, which counts for nothing" if mark.check_changed else ""
    line = f"  {mark.number} {mark.name:20} {words}{note}"
    # an error of the learner's code could hold signs that a terminal obeys
    return "".join(sign if sign.isprintable() else "?" for sign in line)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a file on Windows takes no ✓
    sys.exit(main())
