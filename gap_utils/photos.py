"""Photographs: three that ship, one of matplotlib's, the user's own. Introduced in lesson 07."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image, ImageOps

ASSETS = Path(__file__).with_name("assets")
SHIPPED = ("cat", "espresso", "rocket")
HOPPER = "hopper"
MOST_PIXELS = 80_000_000  # of a file; Pillow itself warns a little above
LARGEST_SIDE = 1024  # what is kept of it
MOST_OBLONG = 20  # the longer side against the shorter


def load_photo(name: str) -> Image.Image:
    """Open one of the photographs that the lessons use.

    Args:
        name: "cat", "espresso" or "rocket", which ship with this package; or "hopper", Rear
            Admiral Grace Hopper, which ships with matplotlib.

    Returns:
        A Pillow picture in RGB.

    Raises:
        ValueError: for another name.

    Source:
        gap_utils/assets/README.md says who took them. All are in the public domain.

    Example:
        >>> load_photo("cat").size
        (451, 300)
    """
    if name in SHIPPED:
        return read_photo(ASSETS / f"{name}.jpg")
    if name == HOPPER:
        from matplotlib.cbook import get_sample_data

        return read_photo(get_sample_data("grace_hopper.jpg", asfileobj=False))
    raise ValueError(f"expected one of {', '.join(map(repr, (*SHIPPED, HOPPER)))}, got {name!r}")


def read_photo(source: str | Path | bytes | bytearray | memoryview) -> Image.Image:
    """Read a JPEG or PNG file as anybody would see it.

    A photograph is turned as its EXIF data say, what is transparent becomes white, grey and
    CMYK become RGB, and what is larger than 1,024 pixels is scaled down.

    Args:
        source: a path, or the bytes of the file.

    Returns:
        A Pillow picture in RGB.

    Raises:
        ValueError: if it is no such picture, broken, larger than 80 million pixels, or more
            than 20 times as long as wide.
        FileNotFoundError: if the path does not exist.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("L", (8, 6), 128).save(file, "PNG")
        >>> read_photo(file.getvalue()).getpixel((0, 0))
        (128, 128, 128)
    """
    held = isinstance(source, bytes | bytearray | memoryview)
    data = bytes(source) if held else Path(source).read_bytes()
    try:
        with warnings.catch_warnings():  # what is too large is refused below
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            photo = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
    except Image.DecompressionBombError as error:
        raise ValueError(f"expected at most {MOST_PIXELS:,} pixels: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(
            f"expected a JPEG or PNG picture, got a file of {len(data):,} bytes that is neither"
        ) from error
    except Exception as error:  # Pillow has its own for each way to be broken
        raise ValueError(f"expected a JPEG or PNG picture, got a broken one: {error}") from error
    width, height = photo.size
    if width * height > MOST_PIXELS:
        raise ValueError(f"expected at most {MOST_PIXELS:,} pixels, got {width:,} × {height:,}")
    if max(width, height) > MOST_OBLONG * min(width, height):
        raise ValueError(
            f"expected one side at most {MOST_OBLONG} times the other, got {width:,} × {height:,}"
        )
    try:
        photo.draft("RGB", (2 * LARGEST_SIDE, 2 * LARGEST_SIDE))  # decodes large ones faster
        photo.load()
    except Exception as error:
        raise ValueError(f"expected a JPEG or PNG picture, got a broken one: {error}") from error
    photo = _as_rgb(_turn(photo))
    photo.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return photo


def _turn(photo: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(photo)
    except Exception:  # the EXIF data are broken, each in its own way; the picture is not
        return photo


def _as_rgb(photo: Image.Image) -> Image.Image:
    if photo.mode.startswith("I"):  # conversion would cut 16 bits off at 255
        photo = photo.convert("I").point(lambda level: level * (1 / 257)).convert("L")
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
    return photo.convert("RGB")
