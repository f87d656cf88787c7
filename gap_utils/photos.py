"""Photographs: three that ship, one of matplotlib's, the user's own. Introduced in lesson 08."""

from __future__ import annotations

import io
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

ASSETS = Path(__file__).with_name("assets")
SHIPPED = ("cat", "espresso", "rocket")
HOPPER = "hopper"
MOST_PIXELS = 80_000_000  # of a file
LARGEST_SIDE = 1024  # what is kept of it
MAX_ASPECT_RATIO = 20
MAX_PROFILE_BYTES = 2**24  # that of a printer may have millions
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"  # how files begin
PNG_NAME = re.compile(rb"[A-Za-z]{4}")  # of a chunk
JPEG_MARKER = re.compile(rb"\xff+([\xc0-\xcf\xd8\xda-\xfe])")  # of a segment, or a second start
JPEG_ABOUT = {*range(0xE0, 0xF0), 0xFE}  # no pixels; but these say how numbers make colours:
JPEG_COLOURS = re.compile(rb"JFIF\0.{9}|Adobe.{7}", re.DOTALL)


def load_photo(name: str) -> Image.Image:
    """Open one of the photographs that the lessons use, as a Pillow picture in RGB.

    Args:
        name: "cat", "espresso" or "rocket", which ship with this package; or "hopper", Rear
            Admiral Grace Hopper, which ships with matplotlib.

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
    """Read a JPEG or PNG file as anybody would see it, as a Pillow picture in RGB.

    Colours are brought to sRGB (perceptual intent) from the colour profile in the file; without
    one that fits they count as sRGB, whatever a PNG's gAMA, cHRM and cICP say. A photograph is
    turned as its EXIF data say, what is transparent becomes white, and what is larger than
    1,024 pixels is scaled down. Damage to what is no pixel is passed over.

    Args:
        source: a path, or the bytes of the file.

    Raises:
        ValueError: if it is no such picture, broken, larger than 80 million pixels, or more
            than 20 times as long as wide.
        FileNotFoundError: if the path does not exist.
        ImportError: if there is a colour profile and Pillow was built without LittleCMS.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("L", (8, 6), 128).save(file, "PNG")
        >>> read_photo(file.getvalue()).getpixel((0, 0))
        (128, 128, 128)
    """
    held = isinstance(source, bytes | bytearray | memoryview)
    data = bytes(source) if held else Path(source).read_bytes()
    if not data.startswith((PNG, JPEG)):
        raise ValueError(
            f"expected a JPEG or PNG picture, got a file of {len(data):,} bytes that is neither"
        )
    is_png = data.startswith(PNG)
    with _naming_broken_files():
        pixels, profile, exif, key = (_split_png if is_png else _split_jpeg)(data)
        photo = (PngImageFile if is_png else JpegImageFile)(io.BytesIO(pixels))
    width, height = photo.size
    if width * height > MOST_PIXELS:
        raise ValueError(f"expected at most {MOST_PIXELS:,} pixels, got {width:,} × {height:,}")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ValueError(
            f"expected one side at most {MAX_ASPECT_RATIO} times the other, "
            f"got {width:,} × {height:,}"
        )
    with _naming_broken_files():
        photo.draft("RGB", (2 * LARGEST_SIDE, 2 * LARGEST_SIDE))  # decodes large JPEGs faster
        photo.load()
        photo, alpha = _split_alpha(photo, pixels, key) if is_png else (photo, None)
    photo = _as_srgb(photo, profile)
    if alpha:
        photo = Image.composite(photo, Image.new("RGB", photo.size, "white"), alpha)
    photo.info = {}  # it was about the file
    photo.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return _turn(photo, exif)


@contextmanager
def _naming_broken_files() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Pillow has its own for each way to be broken
        raise ValueError(f"expected a JPEG or PNG picture, got a broken one: {error}") from error


def _split_png(data: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Give a file with nothing but pixels, the profile, the EXIF data, and what is transparent."""
    needed = [b"IHDR", b"PLTE", b"IDAT"] if data[25:26] == b"\3" else [b"IHDR", b"IDAT"]
    chunks, place = defaultdict(list), len(PNG)
    while (name := PNG_NAME.search(data, place + 4)) and b"IEND" not in chunks:
        place = name.start() - 4
        end = place + 12 + _number(data[place : place + 4])
        checksum = zlib.crc32(data[place + 4 : end - 4]) if end <= len(data) else None
        if checksum == _number(data[end - 4 : end]):
            chunks[name[0]].append(data[place:end])
            place = end
        elif name[0] in needed and end <= len(data):
            raise ValueError(f"its {name[0].decode()} chunk is damaged")
        elif chunks[b"IDAT"]:
            break  # what is damaged here may be pixels; some may be missing in what follows
        else:
            place += 1  # its length may be wrong: the next one may begin anywhere
    if missing := [name.decode() for name in needed if not chunks[name]]:
        raise ValueError(f"it has no whole {missing[0]} chunk")
    profile, exif, key = (
        chunks[name][0][8:-4] if chunks[name] else b"" for name in (b"iCCP", b"eXIf", b"tRNS")
    )
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(profile.partition(b"\0")[2][1:], MAX_PROFILE_BYTES)
    except zlib.error:  # a damaged profile is as good as none
        profile = b""
    pixels = PNG + b"".join(chunk for name in needed for chunk in chunks[name])
    return pixels, profile if unpacking.eof else b"", exif, key


def _split_jpeg(data: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Give the same of a JPEG file, in which nothing is transparent."""
    kept, pieces, exif, place = [JPEG[:2]], {}, b"", 2
    while marker := JPEG_MARKER.search(data, place):
        start, code = marker.end(), marker[1][0]
        place = start + max(2, _number(data[start : start + 2]))
        content = data[start + 2 : place]
        if code == 0xDA:  # here the pixels begin
            order = sorted(pieces)  # by number, with how many there are
            complete = order == [(n + 1, len(order)) for n in range(len(order))]
            profile = b"".join(pieces[piece] for piece in order) if complete else b""
            return b"".join([*kept, data[start - 2 :]]), profile, exif, b""
        if code == 0xE1 and content.startswith(b"Exif\0\0"):
            exif = exif or content
        elif code == 0xE2 and content.startswith(b"ICC_PROFILE\0"):
            pieces[tuple(content[12:14])] = content[14:]
        elif code not in JPEG_ABOUT or JPEG_COLOURS.match(content):
            kept.append(data[start - 2 : place])
    raise ValueError("it has no pixels")


def _number(big_endian: bytes) -> int:
    return int.from_bytes(big_endian, "big")


def _split_alpha(
    photo: Image.Image, pixels: bytes, key: bytes
) -> tuple[Image.Image, Image.Image | None]:
    """Give a PNG's grey or colours in 8 bits, and its alpha channel, made at the file's depth."""
    (depth, kind), alpha = pixels[24:26], None
    if photo.mode in ("LA", "RGBA"):
        alpha = photo.getchannel("A")
    elif kind == 3 and key:  # of a palette's entries
        opacity = np.frombuffer(key[:256].ljust(256, b"\xff"), np.uint8)
        alpha = Image.fromarray(opacity[np.asarray(photo)])
    elif len(key) == {0: 2, 2: 6}.get(kind):  # one grey or colour
        levels = np.asarray(photo)
        if depth < 8:
            levels = np.asarray(photo.convert("L")) // (255 // (2**depth - 1))
        elif depth == 16 and kind == 2:  # Pillow reads one byte of two; then the other
            low = PngImageFile(io.BytesIO(pixels))
            low.tile = [(*low.tile[0][:3], "RGB;16L")]
            levels = levels.astype(np.uint16) << 8 | np.asarray(low)
        levels = levels.reshape(*levels.shape[:2], -1)
        opaque = (levels != np.frombuffer(key, ">u2") & (2**depth - 1)).any(2)
        alpha = Image.fromarray(np.uint8(255) * opaque)
    if photo.mode.startswith("I"):  # conversion would cut 16 bits off at 255
        photo = photo.convert("I").point(lambda level: level * (1 / 257))
    return photo.convert("L" if kind in (0, 4) else "RGB"), alpha


def _as_srgb(photo: Image.Image, profile: bytes) -> Image.Image:
    if profile:
        srgb = ImageCms.createProfile("sRGB")
        try:
            return ImageCms.profileToProfile(photo, io.BytesIO(profile), srgb, outputMode="RGB")
        except ImageCms.PyCMSError:  # a damaged one, or one for other colours, is as good as none
            pass
    return photo.convert("RGB")


def _turn(photo: Image.Image, exif: bytes) -> Image.Image:
    known = Image.Exif()
    try:
        known.load(exif)
        orientation = known.get(ExifTags.Base.Orientation, 1)
    except Exception:  # the EXIF data are broken, each in its own way; the picture is not
        return photo
    photo.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(photo)
