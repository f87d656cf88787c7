import io
import struct
import tracemalloc
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from colour_profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    SRGB,
    cmyk_profile,
    grey_profile,
    rgb_profile,
    srgb_curve,
)
from gap_utils import photos
from gap_utils.photos import load_photo, read_photo

NUMBERS = np.random.default_rng(0)
COLOURS = NUMBERS.integers(0, 256, (30, 40, 3), dtype=np.uint8)
GREYS = COLOURS[..., 0]
# a smooth picture, which JPEG keeps: red grows to the right, green downwards
SMOOTH = np.stack([*np.meshgrid(np.arange(40) * 6, np.arange(30) * 8), np.full((30, 40), 90)], 2)
SMOOTH = SMOOTH.astype(np.uint8)


def encode(photo, kind="PNG", **settings):
    file = io.BytesIO()
    photo = Image.fromarray(photo) if isinstance(photo, np.ndarray) else photo
    photo.save(file, kind, **settings)
    return file.getvalue()


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def make_png(levels, kind, depth=8, chunks=(), cuts=()):
    """A PNG of levels (H, W) or (H, W, 3), each in `depth` bits; its pixels cut into pieces."""
    height, width = levels.shape[:2]
    bits = np.unpackbits(levels.astype(">u2").reshape(height, -1, 1).view(np.uint8), axis=2)
    rows = np.packbits(bits[..., 16 - depth :].reshape(height, -1), axis=1)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    places = [0, *cuts, len(packed)]
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [png_chunk(b"IHDR", header), *chunks]
    parts += [png_chunk(b"IDAT", packed[a:b]) for a, b in pairwise(places)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + png_chunk(b"IEND", b"")


def segment(code, content):
    """Of a JPEG file."""
    return bytes([255, code]) + struct.pack(">H", len(content) + 2) + content


def read(data):
    """Read a file; the picture as an array."""
    photo = read_photo(data)
    assert photo.mode == "RGB"
    return np.asarray(photo)


def differ(found, expected):
    assert found.shape == expected.shape
    return np.abs(found.astype(int) - expected.astype(int)).max()


def over_white(colours, alpha):
    alpha = alpha[..., None] / 255
    return colours * alpha + 255 * (1 - alpha)


CLEAN_PNG = make_png(COLOURS, 2, cuts=[1200])


# load_photo


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("cat", (451, 300)),
        ("espresso", (600, 400)),
        ("rocket", (640, 427)),
        ("hopper", (512, 600)),
    ],
)
def test_the_photographs_of_the_lessons(name, size):
    photo = load_photo(name)
    assert (photo.size, photo.mode) == (size, "RGB")
    assert np.asarray(photo).std() > 20
    assert load_photo(name) == photo


def test_the_folder_of_the_notebook_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_photo("cat").size == (451, 300)


@pytest.mark.parametrize("name", ["dog", "cat.jpg", "", "Cat", None, "../assets/cat"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="one of 'cat', 'espresso', 'rocket', 'hopper', got"):
        load_photo(name)


# read_photo: where from


def test_a_path_in_words_a_path_and_bytes(tmp_path):
    path = tmp_path / "picture of mine.png"
    path.write_bytes(encode(COLOURS))
    for source in (str(path), path, path.read_bytes()):
        assert (read(source) == COLOURS).all()
    misnamed = tmp_path / "picture.jpg"
    misnamed.write_bytes(encode(COLOURS))
    assert (read(misnamed) == COLOURS).all()


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_that_is_not_there(tmp_path, kind):
    with pytest.raises(FileNotFoundError, match=r"nothing\.jpg"):
        read_photo(kind(tmp_path / "nothing.jpg"))


def test_a_picture_can_be_used_after_its_file_is_gone(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(encode(COLOURS))
    photo = read_photo(path)
    path.unlink()
    assert (np.asarray(photo) == COLOURS).all()


# read_photo: kinds of files

TURNS = {
    1: lambda seen: seen,
    2: np.fliplr,
    3: lambda seen: np.rot90(seen, 2),
    4: np.flipud,
    5: lambda seen: seen.swapaxes(0, 1),
    6: lambda seen: np.rot90(seen, 1),
    7: lambda seen: np.rot90(seen, 2).swapaxes(0, 1),
    8: lambda seen: np.rot90(seen, -1),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_photograph_is_turned_upright(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(TURNS[orientation](SMOOTH))  # as the camera held it
    assert differ(read(encode(stored, kind, exif=exif, quality=100)), SMOOTH) <= (
        0 if kind == "PNG" else 20
    )


def test_a_large_photograph_is_turned_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(SMOOTH).resize((3000, 1500))
    found = read_photo(encode(stored, "JPEG", exif=exif))
    assert found.size == (512, 1024)
    assert differ(np.asarray(found.resize((30, 40))), np.rot90(SMOOTH, -1)) <= 16


def test_what_is_transparent_becomes_white():
    alpha = NUMBERS.integers(0, 256, (30, 40), dtype=np.uint8)
    coloured = read(encode(np.dstack([COLOURS, alpha])))
    assert differ(coloured, over_white(COLOURS, alpha)) <= 1
    grey = Image.merge("LA", [Image.fromarray(GREYS), Image.fromarray(alpha)])
    assert differ(read(encode(grey)), over_white(np.dstack([GREYS] * 3), alpha)) <= 1
    for colours, key in ((COLOURS, tuple(map(int, COLOURS[3, 4]))), (GREYS, int(GREYS[3, 4]))):
        found = read(encode(colours, transparency=key))
        there = (colours == key).all(-1) if colours.ndim == 3 else colours == key
        assert there.any()
        assert (found[there] == 255).all()
        expected = colours if colours.ndim == 3 else np.dstack([colours] * 3)
        assert (found[~there] == expected[~there]).all()


@pytest.mark.parametrize("transparency", [None, 1, bytes([255, 0, 128])])
def test_palettes(transparency):
    palette = np.array([[200, 10, 20], [0, 0, 0], [30, 60, 90], [255, 255, 0]], dtype=np.uint8)
    numbers = NUMBERS.integers(0, 4, (30, 40), dtype=np.uint8)
    photo = Image.fromarray(numbers).convert("P")
    photo.putdata(numbers.ravel())
    photo.putpalette(palette.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    alpha = {None: [255] * 4, 1: [255, 0, 255, 255]}.get(transparency, [255, 0, 128, 255])
    expected = over_white(palette[numbers], np.array(alpha)[numbers])
    assert differ(read(encode(photo, **options)), expected) <= 1


def test_grey_and_black_and_white():
    assert (read(encode(GREYS)) == GREYS[..., None]).all()
    pale = GREYS // 4 + 90
    assert differ(read(encode(pale, "JPEG", quality=100)), np.dstack([pale] * 3)) <= 3
    bits = GREYS > 99
    assert (read(encode(bits)) == 255 * bits[..., None]).all()


def test_16_bits_are_scaled_and_not_cut_off():
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = read(encode(levels))
    assert differ(found, (levels / 257)[..., None].repeat(3, 2).round()) <= 1
    exact = (257 * np.arange(256, dtype=np.uint16)).reshape(16, 16)
    assert (read(encode(exact)) == np.arange(256).reshape(16, 16, 1)).all()
    clear = read(encode(levels, transparency=0))
    assert (clear[0, 0] == 255).all()


def test_a_jpeg_for_print():
    inks = Image.fromarray(SMOOTH).convert("CMYK")
    found = read(encode(inks, "JPEG", quality=100))
    assert differ(found, SMOOTH) <= 20


def test_a_jpeg_that_comes_in_passes():
    data = encode(SMOOTH, "JPEG", progressive=True, quality=100)
    assert Image.open(io.BytesIO(data)).info["progressive"] == 1
    assert differ(read(data), SMOOTH) <= 20


def test_two_pictures_in_one_file():
    second = Image.fromarray(255 - SMOOTH)
    data = encode(SMOOTH, "MPO", save_all=True, append_images=[second], quality=100)
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert differ(read(data), SMOOTH) <= 20


def test_a_moving_picture_stands_at_its_beginning():
    data = encode(COLOURS, save_all=True, append_images=[Image.fromarray(255 - COLOURS)])
    assert (read(data) == COLOURS).all()


# read_photo: sizes


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1), (1, 1)),
        ((1024, 1024), (1024, 1024)),
        ((1025, 1025), (1024, 1024)),
        ((2048, 1536), (1024, 768)),
        ((1000, 3000), (341, 1024)),
        ((5000, 250), (1024, 51)),
        ((5000, 4000), (1024, 819)),
    ],
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_large_photographs_are_scaled_down(size, expected, kind, mode):
    colour = 77 if mode == "L" else (200, 50, 30)
    found = read_photo(encode(Image.new(mode, size, colour), kind))
    assert found.size == expected
    middle = found.getpixel((found.width // 2, found.height // 2))
    assert middle == pytest.approx((77,) * 3 if mode == "L" else colour, abs=3)


@pytest.mark.parametrize("size", [(3000, 100), (100, 3000), (21, 1), (1, 21)])
def test_oblong_pictures_are_refused(size):
    with pytest.raises(ValueError, match=f"20 times the other, got {size[0]:,} × {size[1]:,}"):
        read_photo(encode(Image.new("L", size)))


def test_a_picture_that_is_as_oblong_as_may_be():
    assert read_photo(encode(Image.new("L", (20, 1)))).size == (20, 1)


def png_of_size(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(b"\0" * 999))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "side",
    [
        10_001,  # 100,020,001 pixels
        50_000,
        2**31 - 1,
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_file_that_would_fill_the_memory_is_refused(side):
    data = png_of_size(side, side)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"expected .*pixels"):
            read_photo(data)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("error")
def test_the_largest_pictures_come_without_a_warning(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # Pillow's own limit is another
    monkeypatch.setattr(photos, "MOST_PIXELS", 1300)
    assert (read(encode(COLOURS)) == COLOURS).all()  # 1,200 pixels


# read_photo: what is no pixel


def bomb(size=2**21):
    return zlib.compress(bytes(size))


BETWEEN = CLEAN_PNG.rindex(b"IDAT") - 4  # the two pieces of the pixels
ABOUT = {
    "gAMA": [b"", b"\0" * 4, b"\0" * 3],
    "cHRM": [b"", b"\xff" * 31, b"\xff" * 32],
    "sRGB": [b"", b"\x09"],
    "cICP": [b"", b"\xff" * 4],
    "sBIT": [b"", b"\xff" * 3],
    "bKGD": [b"", b"\xff" * 6],
    "hIST": [b"", b"\xff" * 5],
    "pHYs": [b"", b"\0" * 4, b"\xff" * 9],
    "tIME": [b"", b"\xff" * 7],
    "tEXt": [b"", b"no end", b"Title\0\xff\xfe", b"note\0of IHDR, IDAT and IEND"],
    "zTXt": [b"", b"k\0\x01abc", b"k\0\0abc", b"k\0\0" + bomb()],
    "iTXt": [b"", b"k\0\x01\0\0\0" + bomb(), b"k\0\xff\xff\0\0\xff", b"\xff\0\0\0\xff\0\0"],
    "iCCP": [b"", b"p", b"p\0\x07abc", b"p\0\0abc", b"p\0\0" + bomb(), b"p\0\0" + bomb(2**25)],
    "eXIf": [b"", b"\xff" * 40],
    "tRNS": [b"", b"\0", b"\0" * 5, b"\0" * 300],
    "PLTE": [b"", b"\0" * 5, b"\0" * 999],
    "acTL": [b"", b"\0" * 8, b"\0\0\0\2\0\0\0\0"],
    "fcTL": [b"", b"\xff" * 26, struct.pack(">7I", 0, 7, 7, 0, 0, 0, 0)[:26]],
    "fdAT": [b"", b"\0\0\0\7abc"],
    "ruIN": [b"", CLEAN_PNG],
    "Zxxx": [b"abc"],
    "????": [b"abc"],
}


@pytest.mark.parametrize("name", ABOUT)
@pytest.mark.parametrize("place", [33, BETWEEN, -12])
def test_what_is_no_pixel_does_not_refuse_a_png(name, place):
    for content in ABOUT[name]:
        chunk = png_chunk(name.encode(), content)
        for number, changed in enumerate(
            (
                chunk,
                2 * chunk,
                chunk[:-1] + bytes([chunk[-1] ^ 1]),  # the checksum
                b"\0\0\0\1" + chunk[4:],  # the length: wrong,
                struct.pack(">I", len(content) + 7) + chunk[4:],  # too long
                b"\x7f\xff\xff\xff" + chunk[4:],  # and longer than the file
                chunk[:-5],
            )
        ):
            if (number > 1 or name == "????") and place == BETWEEN:
                continue  # there it may be a piece of the pixels
            if content == CLEAN_PNG and number > 1:
                continue  # and here are others
            found = read(CLEAN_PNG[:place] + changed + CLEAN_PNG[place:])
            assert (found == COLOURS).all(), (content[:20], number)


def test_many_words_in_a_png():
    chunk = png_chunk(b"zTXt", b"k\0\0" + bomb(2**19))
    assert (read(CLEAN_PNG[:33] + 200 * chunk + CLEAN_PNG[33:]) == COLOURS).all()


def test_a_damaged_chunk_hides_none_behind_it():
    levels = np.arange(12).reshape(3, 4) % 5
    key = png_chunk(b"tRNS", b"\0\3")
    for damaged in (
        b"\0\0\0\4pHYs1234....",
        b"\0\0\0\xffpHYs1234....",
        b"\0\0\0\1tEXt" + b"I" * 50,
    ):
        found = read(make_png(levels, 0, chunks=[damaged, key]))
        assert (found == np.where(levels == 3, 255, levels)[..., None]).all()


@pytest.mark.parametrize(
    "changed",
    [
        segment(0xE0, b"JFIF"),
        segment(0xE0, b"JFIF\0\1\1\1\0\0\0\0\0\0"),
        segment(0xE0, b""),
        b"\xff\xe0\0\0",
        b"\xff\xfe\0\1",
        segment(0xFE, b""),
        segment(0xFE, b"\xff\xd8\xff\xd9\xff\xda"),
        segment(0xFE, bytes(65533)),
        segment(0xE1, b"Exif\0\0" + b"\xff" * 30),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/"),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta"),
        segment(0xE2, b"MPF\0"),
        segment(0xE2, b"MPF\0MM\0*\0\0\0\x08" + b"\xff" * 40),
        segment(0xE2, b"FPXR\0"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"ICC_PROFILE\0\1"),
        segment(0xE2, b"ICC_PROFILE\0\1\1abc"),
        segment(0xE2, b"ICC_PROFILE\0\0\0abc"),
        segment(0xED, b"Photoshop 3.0\x008BIM\4"),
        segment(0xEE, b"Adobe"),
        segment(0xEE, b"Adobe\0d\0\0"),
        b"\0\0\0",  # some cameras fill up with them
        b"\xff\xff\xff",
    ],
)
def test_what_is_no_pixel_does_not_refuse_a_jpeg(changed):
    clean = encode(SMOOTH, "JPEG", quality=100)
    early = changed if changed[:1] == b"\xff" else b""  # how a JPEG begins
    for data in (clean[:2] + early + clean[2:], clean[:20] + changed + clean[20:]):
        assert (read(data) == read(clean)).all()


def test_the_resolution_in_exif_data_may_be_any(recwarn):
    for kind, value in ((5, b"\0\0\0\x26"), (2, b"abc\0"), (12, b"\0\0\0\x26"), (99, b"\0" * 4)):
        entries = exif_entry(0x011A, kind, 1, value) + exif_entry(0x0128, 3, 1, b"\0\2\0\0")
        tiff = HEAD + b"\0\2" + entries + b"\0" * 4 + b"\xff" * 4 + b"\0" * 4
        clean = encode(SMOOTH, "JPEG")
        bare = clean[:2] + clean[20:]  # without JFIF, which has a resolution too
        data = bare[:2] + segment(0xE1, b"Exif\0\0" + tiff) + bare[2:]
        assert (read(data) == read(clean)).all()


def test_how_numbers_make_colours_is_no_decoration():
    inverse = encode(SMOOTH, "JPEG", quality=100, keep_rgb=True)  # says so in no segment of Adobe
    assert differ(read(inverse), SMOOTH) <= 12
    ycc = encode(SMOOTH, "JPEG", quality=100)
    as_rgb = ycc[:2] + segment(0xEE, b"Adobe\0d\0\0\0\0\0") + ycc[20:]
    with Image.open(io.BytesIO(as_rgb)) as seen:
        assert (read(as_rgb) == np.asarray(seen)).all()
        assert differ(read(as_rgb), SMOOTH) > 50


def test_the_words_of_a_file_do_not_stay_with_the_picture():
    data = encode(COLOURS, dpi=(72, 72), icc_profile=rgb_profile(SRGB, srgb_curve()))
    assert read_photo(data).info == {}


# read_photo: colours

GREEN = np.full((2, 2, 3), (60, 180, 75), np.uint8)
ADOBE, P3 = rgb_profile(ADOBE_RGB, 563 / 256), rgb_profile(DISPLAY_P3, srgb_curve())


def in_pieces(profile, size, order=None, count=None):
    """A profile as a JPEG has it."""
    parts = [profile[n : n + size] for n in range(0, len(profile), size)]
    return b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes([n + 1, count or len(parts)]) + parts[n])
        for n in order or range(len(parts))
    )


def jpeg_with(segments, photo=GREEN):
    data = encode(photo, "JPEG", quality=100)
    return data[:20] + segments + data[20:]


@pytest.mark.parametrize(("profile", "expected"), [(ADOBE, (0, 181, 64)), (P3, (0, 183, 57))])
def test_colours_come_to_srgb(profile, expected):
    alpha = np.array([[255, 255], [255, 0]], np.uint8)
    palette = Image.fromarray(GREEN).quantize(2)
    wide = make_png(
        GREEN.astype(int) * 257, 2, 16, [png_chunk(b"iCCP", b"p\0\0" + zlib.compress(profile))]
    )
    for data in (encode(GREEN, icc_profile=profile), encode(palette, icc_profile=profile), wide):
        assert (read(data) == expected).all()
    clear = read(encode(np.dstack([GREEN, alpha]), icc_profile=profile))
    assert clear.tolist() == [[[*expected]] * 2, [[*expected], [255] * 3]]
    found = read(encode(GREEN, "JPEG", quality=100, icc_profile=profile))
    assert differ(found, np.full_like(GREEN, expected)) <= 4


def test_what_is_transparent_is_so_before_colours_change():
    profile = png_chunk(b"iCCP", b"p\0\0" + zlib.compress(ADOBE))
    data = make_png(GREEN, 2, chunks=[profile, png_chunk(b"tRNS", struct.pack(">3H", 60, 180, 75))])
    assert (read(data) == 255).all()


def test_colours_of_srgb_stay():
    assert differ(read(encode(COLOURS, icc_profile=rgb_profile(SRGB, srgb_curve()))), COLOURS) <= 1


def test_a_profile_of_megabytes_counts():
    profile = rgb_profile(ADOBE_RGB, 563 / 256, more=NUMBERS.bytes(3 * 2**20))
    assert (read(encode(GREEN, icc_profile=profile)) == (0, 181, 64)).all()
    expected = np.full_like(GREEN, (0, 181, 64))
    assert differ(read(jpeg_with(in_pieces(profile, 65000))), expected) <= 4


def test_a_profile_in_pieces():
    size = len(ADOBE) // 3 + 1
    expected = np.full_like(GREEN, (0, 181, 64))
    for order in ((0, 1, 2), (2, 0, 1)):
        assert differ(read(jpeg_with(in_pieces(ADOBE, size, order))), expected) <= 4
    for order, count in (((0, 1), 3), ((0, 2), 3), ((1, 2), 3), ((0, 1, 2), 4), ((0, 1, 2), 2)):
        found = read(jpeg_with(in_pieces(ADOBE, size, order, count)))
        assert differ(found, GREEN) <= 2, (order, count)
    too_many = b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes([n % 256, n // 256])) for n in range(300)
    )
    assert differ(read(jpeg_with(too_many)), GREEN) <= 2


@pytest.mark.parametrize(
    "profile",
    [
        b"no profile",
        ADOBE[:200],
        ADOBE[:36] + b"????" + ADOBE[40:],
        ADOBE[:128] + b"\xff" * 99,
        ADOBE.replace(b"rXYZ", b"rabc"),
        grey_profile(2.2),
        cmyk_profile([(50, 0, 0)] * 16),
    ],
)
def test_a_profile_that_is_damaged_or_does_not_fit(profile):
    assert (read(encode(GREEN, icc_profile=profile)) == GREEN).all()
    assert differ(read(jpeg_with(in_pieces(profile, 65000))), GREEN) <= 2


def test_a_profile_of_grey():
    grey = np.full((2, 2), 100, np.uint8)
    # light 100 / 255 in a straight scale is 168 in the curve of sRGB
    straight = 255 * (1.055 * (100 / 255) ** (1 / 2.4) - 0.055)
    both = Image.merge("LA", 2 * [Image.fromarray(grey)])
    profile = grey_profile(1.0)
    chunk = png_chunk(b"iCCP", b"p\0\0" + zlib.compress(profile))
    for data, expected in (
        (encode(grey, icc_profile=profile), straight),
        (encode(grey, "JPEG", quality=100, icc_profile=profile), straight),
        (make_png(grey.astype(int) * 257, 0, 16, [chunk]), straight),
        (make_png(np.full((2, 2), 6), 0, 4, [chunk]), 255 * (1.055 * 0.4 ** (1 / 2.4) - 0.055)),
        (encode(both, icc_profile=profile), straight * 100 / 255 + 155),
        (make_png(np.full((2, 2, 2), 100 * 257), 4, 16, [chunk]), straight * 100 / 255 + 155),
    ):
        found = read(data)
        assert found.shape == (2, 2, 3)
        assert found.astype(float) == pytest.approx(np.full((2, 2, 3), expected), abs=1)
    assert (read(encode(grey, icc_profile=ADOBE)) == 100).all()  # it has no colours


def test_inks_of_a_printer():
    # each ink takes some light away; cyan, magenta and yellow leave their own grey
    corners = [
        (90 - 15 * (c + m + y) - 40 * k, 0, 0)
        for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)
    ]  # fmt: skip
    inks = Image.new("CMYK", (8, 8), (255, 0, 255, 0))
    found = read(encode(inks, "JPEG", quality=100, icc_profile=cmyk_profile(corners)))
    light = ((60 + 16) / 116) ** 3
    grey = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert found.astype(float) == pytest.approx(np.full((8, 8, 3), grey), abs=3)
    bare = read(encode(inks, "JPEG", quality=100))
    assert differ(bare, np.full((8, 8, 3), (0, 255, 0))) <= 3


def test_a_photograph_with_a_profile_is_turned_and_scaled():
    exif = Image.Exif()
    exif[0x0112] = 6
    found = read_photo(
        encode(Image.new("RGB", (3000, 1500), (60, 180, 75)), icc_profile=ADOBE, exif=exif)
    )
    assert found.size == (512, 1024)
    assert found.getcolors() == [(512 * 1024, (0, 181, 64))]


# read_photo: transparency at the file's own depth


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_one_grey_is_transparent(depth):
    top = 2**depth - 1
    levels = np.array([0, 1, 5, 155, 40_000, 39_835, 65_535, top]).reshape(2, 4) & top
    greys = (levels * 255 / top).round()[..., None]
    for key in {0, 1, 5, 155, 156, 39_835, top}:
        # bits above the depth do not count
        for extra in (0,) if depth == 16 else (0, 1 << depth):
            chunk = png_chunk(b"tRNS", struct.pack(">H", (key & top) | extra))
            found = read(make_png(levels, 0, depth, [chunk]))
            expected = np.where((levels == key & top)[..., None], 255, greys).repeat(3, 2)
            assert differ(found, expected) <= (depth == 16)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("interlaced", [False, True])
def test_one_colour_is_transparent(depth, interlaced):
    top = 2**depth - 1
    near = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, top], [top, top, top]])
    levels = np.array([near, near ^ 100, near[::-1]])
    if interlaced:  # of a single pixel only the first of seven passes has one
        levels = levels[:1, :1]
    for key in (levels[0, 0], np.array([100, 100, 101]), np.array([top, top, top])):
        chunk = png_chunk(b"tRNS", struct.pack(">3H", *key))
        data = make_png(levels, 2, depth, [chunk])
        if interlaced:
            data = mend_checksums(data[:28] + b"\1" + data[29:])
        clear = (levels == key).all(2, keepdims=True)
        expected = np.where(clear, 255, levels // 257 if depth == 16 else levels)
        assert differ(read(data), expected) <= (depth == 16)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_entries_of_a_palette_are_transparent(depth):
    numbers = np.array([[0, 1, 1, 0], [1, 0, 1, 1]]) * (2**depth - 1)
    palette = np.arange(3 * 2**depth).reshape(-1, 3) % 256
    for alphas in ([0], [255, 0], [128], [255] * (2**depth - 1) + [7], [9] * 300):
        chunks = [png_chunk(b"PLTE", palette.astype(np.uint8).tobytes())]
        chunks += [png_chunk(b"tRNS", bytes(alphas))]
        alpha = np.array([*alphas, *[255] * 256])
        expected = over_white(palette[numbers], alpha[numbers])
        assert differ(read(make_png(numbers, 3, depth, chunks)), expected) <= 1


# read_photo: what is no picture


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("part", [0.01, 0.03, 0.1, 0.3, 0.5, 0.9, 0.97])
def test_files_that_end_early_are_refused(kind, part):
    data = encode(COLOURS, kind)
    with pytest.raises(ValueError, match="expected a JPEG or PNG picture, got a"):
        read_photo(data[: int(part * len(data))])


@pytest.mark.parametrize("data", [b"", b"\0", b"no picture at all", "Straße".encode() * 99])
def test_files_that_are_no_pictures_are_refused(data):
    with pytest.raises(ValueError, match=f"got a file of {len(data):,} bytes that is neither"):
        read_photo(data)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO"])
def test_pictures_of_other_kinds_are_refused(kind, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(COLOURS, kind))
    with pytest.raises(
        ValueError, match=r"expected a JPEG or PNG picture, got a file of .* neither"
    ):
        read_photo(path)


@pytest.mark.parametrize("name", [b"IHDR", b"PLTE", b"IDAT"])
@pytest.mark.parametrize("where", ["content", "checksum"])
def test_a_png_with_a_broken_checksum_is_refused(name, where):
    data = bytearray(encode(Image.fromarray(SMOOTH).quantize(16)))
    place = data.index(name) + 4
    (length,) = struct.unpack(">I", data[place - 8 : place - 4])
    data[place + (length if where == "checksum" else 3)] ^= 1
    with pytest.raises(ValueError, match=f"got a broken one: its {name.decode()} chunk is damaged"):
        read_photo(bytes(data))


@pytest.mark.parametrize("lost", range(4))
def test_a_png_that_lacks_a_piece_of_its_pixels_is_refused(lost):
    cuts = [400, 1500, 3000]
    data = make_png(COLOURS, 2, cuts=cuts)
    assert (read(data) == COLOURS).all()
    pieces = data.split(b"IDAT")
    without = b"IDAT".join(pieces[: lost + 1]) + b"?DAT" + b"IDAT".join(pieces[lost + 1 :])
    with pytest.raises(ValueError, match="expected a JPEG or PNG picture, got a broken one"):
        read_photo(without)


def test_a_palette_that_is_not_there():
    data = encode(Image.fromarray(SMOOTH).quantize(16)).replace(b"PLTE", b"pLTE")
    with pytest.raises(ValueError, match="got a broken one: it has no whole PLTE chunk"):
        read_photo(data)


@pytest.mark.parametrize(
    "data", [b"\xff\xd8\xff\xe0", encode(SMOOTH, "JPEG")[:100], CLEAN_PNG[:41]]
)
def test_a_file_that_ends_before_its_pixels(data):
    with pytest.raises(ValueError, match="got a broken one: it has no "):
        read_photo(data)


def test_a_png_whose_pixels_are_damaged_is_refused():
    data = bytearray(encode(COLOURS))
    start = data.index(b"IDAT") + 4
    data[start : start + 40] = b"\xff" * 40
    with pytest.raises(ValueError, match="expected a JPEG or PNG picture, got a broken one"):
        read_photo(bytes(data))


def with_exif(kind, tiff):
    """A picture with what a camera might have written about it."""
    data = encode(SMOOTH, kind)
    if kind == "PNG":
        return data[:33] + png_chunk(b"eXIf", tiff) + data[33:]
    return data[:2] + segment(0xE1, b"Exif\0\0" + tiff) + data[2:]


def exif_entry(number, kind, count, value):
    return struct.pack(">HHI", number, kind, count) + value


HEAD = b"MM\x00*\x00\x00\x00\x08"
TURNED = exif_entry(0x0112, 3, 1, b"\0\6\0\0")


@pytest.mark.parametrize(
    "tiff",
    [
        b"",
        b"\xff" * 40,
        b"\0" + HEAD,
        b"M(" + HEAD[2:],
        HEAD[:4],
        HEAD + b"\xff\xff",
        HEAD + b"\0\1" + TURNED,  # and no end
        HEAD + b"\0\1" + exif_entry(0x0112, 2, 2, b"6\0\0\0") + b"\0" * 4,
        HEAD + b"\0\1" + exif_entry(0x0112, 3, 2, b"\0\6\0\6") + b"\0" * 4,
        HEAD + b"\0\2" + exif_entry(0x0100, 2, 4, b"abc\0") + TURNED + b"\0" * 4,
        HEAD + b"\0\2" + TURNED + exif_entry(0x8769, 2, 4, b"abc\0") + b"\0" * 4,
        HEAD + b"\0\2" + TURNED + exif_entry(0x8769, 11, 1, b"\x40\0\0\0") + b"\0" * 4,
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.filterwarnings("ignore")
def test_a_whole_picture_is_shown_whatever_is_in_its_exif_data(kind, tiff):
    found = read(with_exif(kind, tiff))
    assert found.shape in ((30, 40, 3), (40, 30, 3))


def files():
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker"
    exif[0x011A] = (72, 1)
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    exif.get_ifd(0x8769)[0x829A] = (1, 100)
    small = SMOOTH[:12, :16]
    return [
        encode(small, "JPEG", exif=exif),
        encode(small, "PNG", exif=exif),
        encode(Image.fromarray(small).quantize(16), transparency=3),
        encode(257 * GREYS[:12, :16].astype(np.uint16), transparency=5),
        encode(small, "MPO", save_all=True, append_images=[Image.fromarray(small)]),
    ]


FILES = files()


def only_value_errors(data):
    try:
        photo = read_photo(data)
    except ValueError:
        return
    assert photo.mode == "RGB"
    assert max(photo.size) <= photos.LARGEST_SIDE


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"]))
@settings(max_examples=300)
def test_random_bytes_are_pictures_or_a_value_error(data, start):
    only_value_errors(start + data)


def mend_checksums(data):
    """Make the checksums of a PNG right again, so that what is in it is read."""
    mended, place = data[:8], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        if length > len(data) - place - 12:
            break
        mended += png_chunk(data[place + 4 : place + 8], data[place + 8 : place + 8 + length])
        place += 12 + length
    return mended + data[place:]


@pytest.mark.filterwarnings("ignore")
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.sampled_from([60, 250, 10**6]),
    st.booleans(),
)
@settings(max_examples=600, derandomize=True, phases=[Phase.generate])
def test_broken_files_are_pictures_or_a_value_error(data, changes, end, mend):
    broken = bytearray(data)
    for place, value in changes:
        broken[int(place * (min(end, len(broken)) - 1))] = value
    broken = bytes(broken)
    only_value_errors(mend_checksums(broken) if mend and data[:4] == b"\x89PNG" else broken)
