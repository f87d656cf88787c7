import gzip
import hashlib
import os
import shutil
import struct
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

import make_assets
from gap_utils import data
from gap_utils.data import DEBIAN, FILES, SMALL, Split, load_fashion_mnist

PARTS = ("train", "validation", "test")


@pytest.fixture
def full_set():
    """The real full set; skipped where it is not, but not where the whole suite is to run."""
    if not DEBIAN.is_dir():
        reason = "needs the package dataset-fashion-mnist"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return load_fashion_mnist("full", folder=DEBIAN)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with four small files in the official format, and nothing else to be found."""
    random = np.random.RandomState(1)
    path = tmp_path / "raw"
    path.mkdir()
    for name in FILES:
        count = 60 if name.startswith("train") else 20
        shape = (count, 28, 28) if "images" in name else (count,)
        high = 256 if "images" in name else 10
        numbers = random.randint(0, high, shape).astype(np.uint8)
        header = struct.pack(">BBBB", 0, 0, 8, len(shape)) + struct.pack(f">{len(shape)}I", *shape)
        content = header + numbers.tobytes()
        (path / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        monkeypatch.setitem(FILES, name, hashlib.md5(content).hexdigest())
    monkeypatch.setattr(data, "VALIDATION", 10)
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "nowhere")
    monkeypatch.setenv("GAP_UTILS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return path


def test_splits_have_as_many_labels_as_images():
    with pytest.raises(ValueError, match="each of 3 images, got 2 labels and 3 numbers"):
        Split(torch.zeros(3, 1, 2, 2), torch.zeros(2, dtype=torch.long), torch.arange(3))


def test_the_small_set():
    small = load_fashion_mnist()
    assert SMALL.stat().st_size <= 3_000_000
    for name, count in zip(PARTS, (4000, 1000, 1000), strict=True):
        part = getattr(small, name)
        assert len(part) == count
        assert part.images.shape == (count, 1, 28, 28)
        assert (part.images.dtype, part.labels.dtype) == (torch.float32, torch.int64)
        assert (part.images.min(), part.images.max()) == (0, 1)
        assert torch.bincount(part.labels).tolist() == [count // 10] * 10
        assert len(part.numbers.unique()) == count
    assert set(small.train.numbers.tolist()).isdisjoint(small.validation.numbers.tolist())
    assert small.test.numbers[:10].tolist() == list(range(10))
    assert [small.class_names[label] for label in small.test.labels[:3]] == [
        "Ankle boot",
        "Pullover",
        "Trouser",
    ]
    assert "small part that ships" in repr(small)


def test_the_full_set(full_set):
    assert [len(getattr(full_set, name)) for name in PARTS] == [55_000, 5_000, 10_000]
    numbers = torch.cat([full_set.train.numbers, full_set.validation.numbers])
    assert numbers.sort().values.tolist() == list(range(60_000))
    official = official_bytes("train-images-idx3-ubyte", 16)
    place = int(full_set.train.numbers[100])
    shown = (full_set.train.images[100, 0] * 255).round().byte().numpy()
    np.testing.assert_array_equal(shown.ravel(), official[place * 784 : (place + 1) * 784])


def official_bytes(name: str, header: int) -> np.ndarray:
    content = gzip.decompress((DEBIAN / f"{name}.gz").read_bytes())
    return np.frombuffer(content, np.uint8, offset=header)


def test_the_small_set_is_part_of_the_full_one(full_set):
    small = load_fashion_mnist()
    for name in PARTS:
        part, whole = getattr(small, name), getattr(full_set, name)
        places = torch.searchsorted(whole.numbers, part.numbers)
        assert torch.equal(whole.numbers[places], part.numbers)
        assert torch.equal(whole.images[places], part.images)
        assert torch.equal(whole.labels[places], part.labels)


def test_the_small_file_is_made_again_byte_for_byte(full_set, tmp_path):
    np.savez_compressed(tmp_path / "again.npz", **make_assets.small_arrays(full_set))
    again, shipped = tmp_path / "again.npz", SMALL
    with np.load(again) as a, np.load(shipped) as b:
        assert a.files == b.files
        assert all(np.array_equal(a[name], b[name]) for name in a.files)
    np.savez_compressed(tmp_path / "twice.npz", **make_assets.small_arrays(full_set))
    assert again.read_bytes() == (tmp_path / "twice.npz").read_bytes()


def test_a_named_folder_packed_and_unpacked(folder):
    packed = load_fashion_mnist("full", folder=folder)
    assert [len(getattr(packed, name)) for name in PARTS] == [50, 10, 20]
    assert packed.train.images.shape == (50, 1, 28, 28)
    for path in list(folder.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    plain = load_fashion_mnist("full", folder=str(folder))
    assert torch.equal(packed.test.images, plain.test.images)


def test_the_places_are_looked_through_in_order(folder, tmp_path, monkeypatch):
    places = [
        tmp_path / "data/FashionMNIST/raw",
        tmp_path / "cache/FashionMNIST/raw",
        tmp_path / "debian",
    ]
    monkeypatch.setattr(data, "DEBIAN", places[2])
    for place in reversed(places):
        shutil.copytree(folder, place)
        assert data._find_full(None, download=False).resolve() == place
    next(places[0].iterdir()).unlink()  # a folder that lacks a file is passed over
    assert data._find_full(None, download=False) == places[1]


def test_nowhere_and_not_asked_to_download(folder):
    with pytest.raises(
        FileNotFoundError, match=r"found none of them; load_fashion_mnist\('full', d"
    ):
        load_fashion_mnist("full")
    with pytest.raises(FileNotFoundError, match="expected train-images-idx3-ubyte or train-im"):
        load_fashion_mnist("full", folder=folder.parent)


def spoil(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        del content[len(content) // 2 :]
    elif how == "altered":
        plain = bytearray(gzip.decompress(content))
        plain[-1] ^= 1
        content = gzip.compress(plain)
    elif how == "not gzip":
        content = b"<html>not found</html>"
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("truncated", "to be whole"),
        ("altered", "to hold data with the md5"),
        ("not gzip", "to be whole: Not a gzipped file"),
    ],
)
def test_a_damaged_file_is_named(folder, how, said):
    spoil(folder / "t10k-images-idx3-ubyte.gz", how)
    with pytest.raises(ValueError, match=rf"expected .*t10k-images-idx3-ubyte\.gz {said}"):
        load_fashion_mnist("full", folder=folder)


@pytest.mark.parametrize("keep", [0, 1000, 2_000_000])
def test_a_damaged_small_set_is_named(tmp_path, monkeypatch, keep):
    path = tmp_path / "fashion_mnist_small.npz"
    path.write_bytes(SMALL.read_bytes()[:keep])
    monkeypatch.setattr(data, "SMALL", path)
    with pytest.raises(ValueError, match=r"the pictures in fashion_mnist_small\.npz to be whole"):
        load_fashion_mnist()


@pytest.fixture
def mirror(folder, monkeypatch):
    """Have torchvision download from the folder, served on this computer."""
    source = torchvision.datasets.FashionMNIST
    md5s = [
        (f"{name}.gz", hashlib.md5((folder / f"{name}.gz").read_bytes()).hexdigest())
        for name in FILES
    ]
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(source, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(source, "resources", md5s)
    # making a torchvision data set reads its files, and checks a count that ours have not
    monkeypatch.setattr(source, "_load_data", lambda self: (None, None))
    yield folder
    server.shutdown()
    server.server_close()


def test_the_download(mirror, tmp_path, capsys):
    cache = tmp_path / "cache"
    downloaded = load_fashion_mnist("full", download=True)
    assert "Downloading Fashion-MNIST (31 MB) to" in capsys.readouterr().out
    assert torch.equal(
        downloaded.test.images, load_fashion_mnist("full", folder=mirror).test.images
    )
    assert [path.name for path in (cache / "FashionMNIST").iterdir()] == ["raw"]
    load_fashion_mnist("full", download=True)  # is there now
    assert capsys.readouterr().out == ""


def test_a_download_that_fails_leaves_nothing(mirror, tmp_path):
    (mirror / "t10k-labels-idx1-ubyte.gz").unlink()  # three files arrive, the fourth does not
    with pytest.raises(OSError, match="The small set, load_fashion_mnist\\(\\), needs no network"):
        load_fashion_mnist("full", download=True)
    assert list((tmp_path / "cache/FashionMNIST").iterdir()) == []


def test_a_full_disk_leaves_nothing(mirror, tmp_path, capsys):  # which captures in memory
    """A limit on the size of files stops the writing as a full disk does, half-way."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match=r"got: .*File too large.*The small set, load_fashion_"):
            load_fashion_mnist("full", download=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "cache/FashionMNIST").iterdir()) == []


def test_a_cache_that_cannot_be_written(mirror, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"expected to download Fashion-MNIST to .*cache"):
        load_fashion_mnist("full", download=True)


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match='expected size "small" or "full", got \'tiny\''):
        load_fashion_mnist("tiny")


def test_moving_to_a_device():
    moved = load_fashion_mnist().to("meta")
    assert moved.test.images.device.type == "meta"
    assert moved.train.labels.shape == (4000,)
