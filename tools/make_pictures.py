"""Make the moving picture of PoolLab that the README and the first lesson show.

    python -m tools.make_pictures

It writes docs/pool_lab.gif, its width into the README, and both into the lesson.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import nbformat
from PIL import Image

from gap_utils.figures import SCALE
from gap_utils.svg import Frame, picture_of
from gap_utils.widgets import PoolLab

ROOT = Path(__file__).parent.parent
MOVING = ROOT / "docs" / "pool_lab.gif"
README = ROOT / "README.md"
LESSON = ROOT / "notebooks" / "00_start_here.ipynb"
EACH, LAST = 1000, 4000  # how long a frame stays, in milliseconds
PLAYS = 3  # then it rests: what moves for ever beside a text disturbs those who read it
# Colab shows no attachment of a cell and no file beside a lesson; all show what is in the text
IN_A_TEXT = "data:image/gif;base64,"


def story() -> list[Frame]:
    """Average a 4×4 map window by window, then all of it at once."""
    lab = PoolLab(mode="avg", stride=1)
    frames = []
    for window in range(1, len(lab.value.windows) ** 2 + 1):
        lab.set(window=window)
        frames.append(lab.frame)
    lab.value = lab.press("global", lab.value)
    return [*frames, lab.frame]


def moving_picture(frames: Sequence[Frame]) -> bytes:
    """Make the GIF of some frames, each in the upper left of a white page for all."""
    pictures = [Image.open(BytesIO(picture_of(frame).png)) for frame in frames]
    width, height = map(max, zip(*(picture.size for picture in pictures), strict=True))
    # as one sheet, so that all have the same 256 colours
    sheet = Image.new("RGB", (width, height * len(pictures)), "white")
    for row, picture in enumerate(pictures):
        sheet.paste(picture, (0, row * height))
    # mixing colours from dots would make the letters rough
    sheet = sheet.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    first, *others = (
        sheet.crop((0, row * height, width, (row + 1) * height)) for row in range(len(pictures))
    )
    gif = BytesIO()
    first.save(
        gif,
        "GIF",
        save_all=True,
        append_images=others,
        duration=[EACH] * len(others) + [LAST],
        loop=PLAYS - 1,
    )
    return gif.getvalue()


def put(text: str, old: str, new: str, width: int) -> str:
    """Write the picture's address, `old` as a pattern, and its width into a text with an <img>."""
    text, count = re.subn(f'src="{old}" width=".*?"', f'src="{new}" width="{width}"', text)
    if count != 1:
        raise ValueError(f'expected one src="{old}" width="...", got {count}')
    return text


def main() -> None:
    """Write the picture, and show it in README and lesson."""
    gif = moving_picture(story())
    width = Image.open(BytesIO(gif)).width // SCALE
    MOVING.write_bytes(gif)
    address = MOVING.relative_to(ROOT).as_posix()
    readme = README.read_text(encoding="utf-8")
    README.write_text(put(readme, address, address, width), encoding="utf-8")
    lesson = nbformat.read(LESSON, as_version=4)
    cell = next(cell for cell in lesson.cells if IN_A_TEXT in cell.source)
    data = IN_A_TEXT + b64encode(gif).decode()
    cell.source = put(cell.source, f'{IN_A_TEXT}[^"]*', data, width)
    nbformat.write(lesson, LESSON)
    print(f"{MOVING.name}: {len(gif):,} bytes")


if __name__ == "__main__":
    main()
