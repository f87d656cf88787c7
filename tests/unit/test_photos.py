import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

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


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


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
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)  # as 89 million are to 100 million
    monkeypatch.setattr(photos, "MOST_PIXELS", 1300)
    assert (read(encode(COLOURS)) == COLOURS).all()  # 1,200 pixels


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


def test_a_png_with_a_broken_checksum_is_refused():
    data = bytearray(encode(COLOURS))
    place = data.index(b"IHDR")
    (length,) = struct.unpack(">I", data[place - 4 : place])
    data[place + 4 + length] ^= 1
    with pytest.raises(ValueError, match="expected a JPEG or PNG picture, got a"):
        read_photo(bytes(data))


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
    segment = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


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
@settings(max_examples=300, deadline=None)
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
@settings(max_examples=600, deadline=None, derandomize=True, phases=[Phase.generate])
def test_broken_files_are_pictures_or_a_value_error(data, changes, end, mend):
    broken = bytearray(data)
    for place, value in changes:
        broken[int(place * (min(end, len(broken)) - 1))] = value
    broken = bytes(broken)
    only_value_errors(mend_checksums(broken) if mend and data[:4] == b"\x89PNG" else broken)
