import io
from datetime import datetime

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gap_utils.activations import capture_activations, class_activation_map
from gap_utils.backbones import Backbone, load_backbone
from gap_utils.photos import load_photo
from gap_utils.widgets import PhotoLab
from lab_controls import control, walk, words

NAMES = ("red", "green", "blue")
CONFIG = {
    "input_size": (3, 32, 32),
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "crop_mode": "center",
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
}


def colours_backbone(**settings):
    """Maps of 2×2, the means of a quarter's red, green and blue; the logits are 8 times that."""
    model = nn.Sequential(
        nn.AvgPool2d(16), nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)
    )
    model[4].weight.data = 8 * torch.eye(3)
    model[4].bias.data = torch.tensor([0.5, 0.0, -1.0])
    config = CONFIG | settings
    return Backbone("mine/colours", model.eval(), "made by hand", config, NAMES)


def plain(*colour):
    return Image.new("RGB", (40, 40), colour)


def encode(photo, kind="PNG"):
    file = io.BytesIO()
    photo.save(file, kind)
    return file.getvalue()


RED, GREEN, BLUE = plain(255, 0, 0), plain(0, 255, 0), plain(0, 0, 255)


def lab_of(*photos, **settings):
    return PhotoLab(colours_backbone(), photos or [RED], **settings)


def upload_of(lab):
    (found,) = (w for w in walk(lab.box) if isinstance(w, ipywidgets.FileUpload))
    return found


def as_uploaded(content, name="mine.png"):
    """What ipywidgets 8 makes of a file."""
    return {
        "name": name,
        "type": "image/png",
        "size": len(content),
        "content": memoryview(content),
        "last_modified": datetime(2024, 1, 1),
    }


def upload(lab, *contents):
    """Do what a page does: ipywidgets 7 makes its value of other traits."""
    button = upload_of(lab)
    files = [as_uploaded(content, f"{number}.png") for number, content in enumerate(contents)]
    if isinstance(button.value, dict):
        button.metadata = [{"name": file["name"]} for file in files]
        button.data = list(contents)
        button._counter += len(files)
    else:
        button.value = tuple(files)


@pytest.fixture(scope="module")
def lite0():
    return load_backbone()


def test_maps_and_words_by_hand():
    photo = RED.crop((0, 0, 32, 32))
    photo.paste((0, 255, 0), (16, 0, 32, 16))  # the upper right quarter
    lab = lab_of(photo, left=0, right=1)
    view = lab._look()
    assert view.cams.tolist() == [[[8, 0], [8, 8]], [[0, 8], [0, 0]]]
    assert view.logits.tolist() == [6.5, 2, -1]
    assert view.image.shape == (32, 32, 3)
    assert view.image[0, 0].tolist() == [255, 0, 0]
    assert view.image[0, 31].tolist() == [0, 255, 0]
    said = words(lab)
    assert "Picture 0; predicted red" in said
    assert "mean of 4 contributions 6.000 + bias 0.500 = logit 6.500" in said
    assert "Right, green" in said
    assert "mean of 4 contributions 2.000 + bias 0.000 = logit 2.000" in said
    assert "the largest is 8.000 at row 0, column 1" in said
    assert repr(lab) == "PhotoLab(picture 0, overlay: red, green)"


def test_the_installed_network_and_a_photograph(lite0):
    lab = PhotoLab(lite0, [load_photo("cat"), load_photo("espresso")], picture=1)
    images = lite0.preprocess(load_photo("espresso"))[None]
    with torch.no_grad(), capture_activations(lite0.model, "bn2") as maps:
        logits = lite0.model(images)[0]
    best = logits.topk(2).indices
    expected = class_activation_map(maps["bn2"], lite0.model.classifier.weight.detach())[0, best]
    view = lab._look()
    assert view.classes == tuple(best.tolist())
    assert view.cams == pytest.approx(expected.numpy(), abs=1e-4)
    assert view.logits == pytest.approx(logits.numpy(), abs=1e-5)
    for side, number in enumerate(best):
        bias = lite0.model.classifier.bias[number].item()
        assert view.bias[side] == pytest.approx(bias)
        assert view.cams[side].mean() + bias == pytest.approx(logits[number].item(), abs=1e-4)
    assert repr(lab) == "PhotoLab(picture 1, overlay: espresso, cup)"
    assert f"predicted espresso ({logits.softmax(0).max():.1%})" in words(lab)
    shown = view.image.astype(float)
    seen = images[0].permute(1, 2, 0).numpy()
    assert np.corrcoef(shown.ravel(), seen.ravel())[0, 1] > 0.999


def test_a_larger_size_gives_finer_maps(lite0):
    lab = PhotoLab(lite0, [load_photo("cat")], size=448)
    assert lab._look().cams.shape == (2, 14, 14)
    assert lab._look().image.shape == (448, 448, 3)
    assert "mean of 196 contributions" in words(lab)
    lab.add(load_photo("rocket"))
    assert lab._look().cams.shape == (2, 14, 14)


def test_photographs_are_added_behind_the_others():
    lab = lab_of(RED, GREEN)
    assert control(lab, "Picture").max == 1
    lab.add(BLUE)
    assert control(lab, "Picture").max == control(lab, "Picture").value == 2
    assert lab.value.picture == 2
    assert lab._look().logits.tolist() == [0.5, 0, 7]
    assert "predicted blue" in words(lab)
    for picture, name in enumerate(NAMES):
        lab.set(picture=picture)
        assert f"predicted {name}" in words(lab)
    with pytest.raises(ValueError, match="picture to be below 3, got 3"):
        lab.set(picture=3)
    next(w for w in walk(lab.box) if getattr(w, "description", None) == "Start again").click()
    assert lab.value.picture == 0
    assert control(lab, "Picture").max == 2


def test_what_else_is_on_view_stays_when_a_photograph_is_added():
    lab = lab_of(RED, left=2, view="map", smooth=True)
    before = lab.value
    lab.add(GREEN)
    assert lab.value == type(before)(1, 2, before.right, "map", before.strength, True)


def test_more_photographs_than_are_remembered():
    lab = lab_of(RED)
    for level in range(40):
        lab.add(plain(0, 6 * level, 0))
    for level in (0, 39, 20):
        lab.set(picture=level + 1)
        assert lab._look().logits[1] == pytest.approx(8 * 6 * level / 255, abs=1e-5)


def test_photographs_of_all_shapes_become_squares():
    lab = lab_of(Image.new("RGB", (10, 90), "lime"), Image.new("RGB", (300, 20), "blue"))
    assert [lab._look().image.shape, lab._images.shape] == [(32, 32, 3), (2, 3, 32, 32)]
    lab.add(Image.new("RGB", (1, 1), "red"))
    assert "predicted red" in words(lab)


def test_tensors_among_the_photographs():
    backbone = colours_backbone()
    lab = PhotoLab(backbone, [backbone.preprocess(GREEN), RED, torch.zeros(3, 32, 32)])
    assert lab._look().logits.tolist() == [0.5, 8, -1]
    lab.set(picture=1)
    assert lab._look().logits.tolist() == [8.5, 0, -1]
    lab.add(BLUE)
    assert lab._look().logits.tolist() == [0.5, 0, 7]


def test_a_tensor_of_another_size_is_named():
    with pytest.raises(ValueError, match=r"expected .*\(3, 10, 10\)"):
        lab_of(RED, torch.zeros(3, 10, 10))


def test_no_photographs_at_all():
    with pytest.raises(ValueError, match="expected photographs"):
        PhotoLab(colours_backbone(), [])


def test_one_photograph_in_place_of_a_list():
    backbone = colours_backbone()
    for photo in (GREEN, backbone.preprocess(GREEN)):
        lab = PhotoLab(backbone, photo)
        assert control(lab, "Picture").max == 0
        assert lab._look().logits.tolist() == [0.5, 8, -1]
    batch = torch.stack([backbone.preprocess(photo) for photo in (RED, BLUE)])
    lab = PhotoLab(backbone, batch)
    lab.add(backbone.preprocess(GREEN))
    for picture, logits in enumerate(([8.5, 0, -1], [0.5, 0, 7], [0.5, 8, -1])):
        lab.set(picture=picture)
        assert lab._look().logits.tolist() == logits


@pytest.mark.parametrize(
    ("photos", "got"),
    [
        (None, "a list of photographs, got NoneType"),
        (3, "a list of photographs, got int"),
        ("cat.jpg", "a list of photographs, got str"),
        (encode(RED), "a list of photographs, got bytes"),
        ({"red": RED}, "a list of photographs, got dict"),
        (np.zeros((40, 40, 3), np.uint8), "a Pillow picture in RGB, .* got ndarray"),
        ([np.zeros((40, 40, 3), np.uint8)], "a Pillow picture in RGB, .* got ndarray"),
        (["cat.jpg"], "a Pillow picture in RGB, .* got str"),
        (RED.convert("L"), "a Pillow picture in RGB, .* got L"),
        (torch.tensor(1.0), r"a tensor \(N, C, H, W\), got"),
        (torch.zeros(32, 32), r"a tensor \(N, C, H, W\), got"),
        (torch.zeros(1, 32, 32), r"can take, got \(1, 32, 32\), where it raises RuntimeError: "),
        (torch.zeros(2, 3, 9, 9), r"can take, got \(3, 9, 9\), where it raises RuntimeError: "),
    ],
)
def test_what_is_no_list_of_photographs_is_named(photos, got):
    with pytest.raises(ValueError, match=f"expected .*{got}"):
        PhotoLab(colours_backbone(), photos)


def test_a_network_in_place_of_a_backbone_is_named():
    with pytest.raises(ValueError, match="expected a backbone of load_backbone, got Sequential"):
        PhotoLab(colours_backbone().model, [RED])


@pytest.mark.parametrize(
    "settings",
    [
        {"crop_pct": 0.0035},
        {"crop_pct": 1e-9},
        {"crop_pct": 1e-320},
        {"size": 9000},
        {"size": 10**9},
        {"size": 500, "crop_pct": 0.055},
    ],
)
def test_a_photograph_that_would_become_too_large_is_refused(settings, monkeypatch):
    monkeypatch.setattr(Image.Image, "resize", None)  # before any work is done
    with pytest.raises(ValueError, match=r"scale 40 × 40 to at most 80,000,000 pixels, got [1-9i]"):
        lab_of(RED, **settings)


def test_the_network_of_the_lesson_and_a_crop_that_is_too_small(lite0):
    with pytest.raises(ValueError, match="451 × 300 to at most 80,000,000 pixels, got 754,312,533"):
        PhotoLab(lite0, [load_photo("cat")], crop_pct=0.01)
    assert lite0.preprocess(load_photo("cat"), crop_pct=0.1).shape == (3, 224, 224)


@pytest.mark.parametrize("crop_pct", [0, -1, 1.5, float("nan"), float("inf"), "1", [0.5]])
def test_a_crop_that_is_no_part_is_refused(crop_pct):
    with pytest.raises(ValueError, match="expected crop_pct above 0 and at most 1, got "):
        lab_of(RED, crop_pct=crop_pct)


@pytest.mark.parametrize(
    "settings",
    [
        {"input_size": None},
        {"input_size": 32},
        {"input_size": (32, 32)},
        {"input_size": (3, 0, 0)},
        {"input_size": (3, -1, 32)},
        {"input_size": (3, 2.5, 2.5)},
        {"mean": None},
        {"mean": "a"},
        {"mean": (0, 0)},
        {"std": None},
        {"std": 0},
        {"std": (0, 0, 0)},
        {"std": (1, 1)},
        {"interpolation": "cubist"},
        {"crop_pct": "a"},
        {"crop_pct": -1},
        {"unknown": 1},
    ],
)
def test_a_config_that_timm_cannot_read_is_named(settings):
    with pytest.raises(ValueError, match=r"expected a config in timm's words, got \{'input_size'"):
        PhotoLab(colours_backbone(**settings), [RED])


def test_a_config_may_leave_the_crop_to_timm():
    backbone = colours_backbone(crop_pct=None)
    assert PhotoLab(backbone, [RED])._look().logits.tolist() == [8.5, 0, -1]


def test_known_classes_of_the_first_photographs():
    lab = lab_of(RED, GREEN, labels=[0, 2])
    assert "Picture 0: red; predicted red" in words(lab)
    lab.add(BLUE)  # of which nobody said what it is
    assert lab.value.picture == 2
    assert "predicted blue" in words(lab)
    assert "wrong" not in words(lab)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_upload_of_ipywidgets_8(kind):
    lab = lab_of(RED)
    upload(lab, encode(GREEN, kind))
    assert lab.value.picture == control(lab, "Picture").value == 1
    assert "predicted green" in words(lab)
    assert "Error" not in words(lab)
    assert lab._look().logits == pytest.approx([0.5, 8, -1], abs=0.1)


def test_an_upload_of_ipywidgets_7():
    lab = lab_of(RED)
    content = encode(BLUE)
    lab._take({"mine.png": {"metadata": {"name": "mine.png"}, "content": content}})
    assert lab.value.picture == 1
    assert "predicted blue" in words(lab)
    lab._take({})
    assert lab.value.picture == 1


def test_several_files_at_once():
    lab = lab_of(RED)
    upload(lab, encode(GREEN), encode(BLUE))
    assert control(lab, "Picture").max == 2
    assert "predicted blue" in words(lab)
    lab.set(picture=1)
    assert "predicted green" in words(lab)
    lab._take({name: {"content": encode(photo)} for name, photo in (("a", RED), ("b", GREEN))})
    assert control(lab, "Picture").max == lab.value.picture == 4


def test_an_upload_is_read_like_every_photograph():
    lab = lab_of(RED)
    grey = Image.new("LA", (40, 40), (0, 0))  # all is transparent
    upload(lab, encode(grey))
    assert lab._look().logits.tolist() == [8.5, 8, 7]


@pytest.mark.parametrize("content", [b"", b"no picture", encode(GREEN)[:60]])
def test_a_broken_file_changes_nothing_and_is_named(content):
    lab = lab_of(RED)
    lab.set(left=1)
    before, state, view = words(lab), lab.value, lab._look()
    with pytest.raises(ValueError, match="expected a JPEG or PNG picture, got a"):
        upload(lab, content)
    assert lab.value == state
    assert (lab._look().cams == view.cams).all()
    assert control(lab, "Picture").max == 0
    assert "ValueError: expected a JPEG or PNG picture, got a" in words(lab)
    assert before.split("<br>")[-1] in words(lab)
    lab.set(picture=0, left=0)
    assert "ValueError" not in words(lab)
    upload(lab, encode(GREEN))  # and on it goes
    assert "predicted green" in words(lab)


def test_a_broken_file_among_others_changes_nothing():
    lab = lab_of(RED)
    with pytest.raises(ValueError, match="expected a JPEG or PNG picture"):
        upload(lab, encode(GREEN), b"no picture")
    assert lab.value.picture == control(lab, "Picture").max == 0
    assert "ValueError: expected a JPEG" in words(lab)


def test_names_in_an_error_are_text():
    lab = lab_of(RED)
    with pytest.raises(ValueError):
        upload(lab, b"<b>")
    assert "<b>ValueError: expected" in words(lab)
    assert "<b></b>" not in words(lab)


def test_the_same_file_twice():
    lab = lab_of(RED)
    upload(lab, encode(GREEN))
    lab.set(picture=0)
    upload(lab, encode(GREEN))
    assert lab.value.picture > 0
    assert "predicted green" in words(lab)


def test_a_broken_file_twice_is_named_twice():
    lab = lab_of(RED)
    for _ in range(2):
        with pytest.raises(ValueError, match="expected a JPEG or PNG picture"):
            upload(lab, b"no picture")
        assert "ValueError: expected a JPEG" in words(lab)
        lab.set(left=1)
        lab.set(left=0)
        assert "ValueError" not in words(lab)


def test_the_button_says_what_it_takes():
    found = upload_of(lab_of(RED))
    assert found.description == "Your photograph"
    assert set(found.accept.split(",")) == {".jpg", ".jpeg", ".png"}


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3)], "maximum of 900 positions (1)"),
        (
            [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)],
            "mean of 900 positions (1) → (4,) → 2 → 3 → 4 → 5",
        ),
        (
            [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)],
            "900 positions side by side, no pooling (1)",
        ),
    ],
)
def test_a_network_without_maps_is_refused_with_the_reason(layers, reason):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), *layers)
    backbone = Backbone("mine/net", model, "random", CONFIG, None)
    with pytest.raises(ValueError, match=r"mean\(CAM\) \+ bias, but ") as error:
        PhotoLab(backbone, [RED])
    assert reason in str(error.value)


def test_impossible_settings():
    for settings, message in (
        ({"picture": 1}, "picture to be below 1, got 1"),
        ({"left": 3}, "left to be one of 3 classes, got 3"),
        ({"view": "heat"}, 'view "map", "overlay"'),
        ({"labels": [0, 1]}, "a label for each of 1 pictures, got 2"),
    ):
        with pytest.raises(ValueError, match=f"expected .*{message}"):
            lab_of(RED, **settings)


def test_a_network_in_other_numbers():
    backbone = colours_backbone()
    backbone.model.to(torch.float64)
    lab = PhotoLab(backbone, [RED])
    lab.add(GREEN)
    assert lab._look().logits.tolist() == [0.5, 8, -1]


def test_the_network_is_left_as_it_was(lite0):
    state = {key: value.clone() for key, value in lite0.model.state_dict().items()}
    lab = PhotoLab(lite0, [load_photo("cat")])
    lab.add(load_photo("rocket"))
    torch.testing.assert_close(dict(lite0.model.state_dict()), state, rtol=0, atol=0)
    assert not any(module.training for module in lite0.model.modules())
    assert not any(module._forward_hooks for module in lite0.model.modules())
