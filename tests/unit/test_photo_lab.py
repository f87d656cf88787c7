import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from frames import Page, control, press, touched
from gap_utils.activations import capture_activations, class_activation_map
from gap_utils.backbones import Backbone, load_backbone
from gap_utils.photos import load_photo
from gap_utils.widgets import PhotoLab

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


def explained(lab):
    """What the network made of the picture on view."""
    return lab.compare(lab.value).explanation


def upload(lab, content, piece=1 << 20):
    """Do what a page does: send a file in pieces; return all that came back."""
    page = Page(lab)
    for at in range(0, len(content) or 1, piece):
        page.ask([content[at : at + piece]], size=len(content), at=at)
    return page.sent


def problem(messages):
    return next((message["problem"] for message in messages if "problem" in message), "")


def limits(lab):
    return lab.limits(lab.value)["picture"]


@pytest.fixture(scope="module")
def lite0():
    return load_backbone()


def test_maps_and_words_by_hand():
    photo = RED.crop((0, 0, 32, 32))
    photo.paste((0, 255, 0), (16, 0, 32, 16))  # the upper right quarter
    lab = lab_of(photo, left=0, right=1)
    found = lab.compare(lab.value)
    assert found.cams.tolist() == [[[8, 0], [8, 8]], [[0, 8], [0, 0]]]
    assert found.explanation.logits.tolist() == [6.5, 2, -1]
    image = lab.frame.panels[0].pixels[0].levels
    assert image.shape == (32, 32, 3)
    assert image[0, 0].tolist() == [255, 0, 0]
    assert image[0, 31].tolist() == [0, 255, 0]
    said = lab.text
    assert "Picture 0; predicted red" in said
    assert "mean of 4 values 6.000 + bias 0.500 = logit 6.500" in said
    assert "Right, green" in said
    assert "mean of 4 values 2.000 + bias 0.000 = logit 2.000" in said
    assert "the largest is 8.000 at row 0, column 1" in said
    assert repr(lab) == "PhotoLab(picture 0, overlay: red, green)"


def test_the_installed_network_and_a_photograph(lite0):
    lab = PhotoLab(lite0, [load_photo("cat"), load_photo("espresso")], picture=1)
    images = lite0.preprocess(load_photo("espresso"))[None]
    with torch.no_grad(), capture_activations(lite0.model, "bn2") as maps:
        logits = lite0.model(images)[0]
    best = logits.topk(2).indices
    expected = class_activation_map(maps["bn2"], lite0.model.classifier.weight.detach())[0, best]
    found = lab.compare(lab.value)
    assert found.classes == tuple(best.tolist())
    assert found.cams == pytest.approx(expected.numpy(), abs=1e-4)
    assert found.explanation.logits == pytest.approx(logits.numpy(), abs=1e-5)
    for side, number in enumerate(best):
        bias = lite0.model.classifier.bias[number].item()
        assert found.explanation.bias[number] == pytest.approx(bias)
        assert found.cams[side].mean() + bias == pytest.approx(logits[number].item(), abs=1e-4)
    assert repr(lab) == "PhotoLab(picture 1, overlay: espresso, cup)"
    assert f"predicted espresso ({logits.softmax(0).max():.1%})" in lab.text
    shown = found.explanation.image.astype(float)
    seen = images[0].permute(1, 2, 0).numpy()
    assert np.corrcoef(shown.ravel(), seen.ravel())[0, 1] > 0.999


def test_a_larger_size_gives_finer_maps(lite0):
    lab = PhotoLab(lite0, [load_photo("cat")], size=448)
    assert explained(lab).cams.shape == (1000, 14, 14)
    assert explained(lab).image.shape == (224, 224, 3)  # is enough to look at
    assert "mean of 196 values" in lab.text
    lab.add(load_photo("rocket"))
    assert explained(lab).cams.shape == (1000, 14, 14)


def test_photographs_are_added_behind_the_others():
    lab = lab_of(RED)
    assert control(lab, "picture")
    assert limits(lab) == {"high": 0, "hidden": True}
    assert len(lab.frame.panels) == 2
    before = lab.to_fields(lab.value)
    for photo in (GREEN, BLUE):
        lab.add(photo)
    assert lab.value.picture == 2
    row = lab.frame.panels[-1]
    assert [one.get("data-set") for one in touched(row)] == [
        f'{{"picture": {n}}}' for n in range(3)
    ]
    seen = row.pixels[0].levels[32, 32::64].tolist()  # in the middle of each
    assert seen == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert limits(lab) == {"high": 2, "hidden": False}
    assert explained(lab).logits.tolist() == [0.5, 0, 7]
    for picture, name in enumerate(NAMES):
        lab.set(picture=picture)
        assert f"predicted {name}" in lab.text
    with pytest.raises(ValueError, match="picture to be below 3, got 3"):
        lab.set(picture=3)
    press(lab, "reset")
    assert lab.value.picture == 0
    # a page keeps frames with their limits by fields: those of one photograph are gone
    fields = lab.to_fields(lab.value)
    assert fields != before
    assert lab.from_fields(fields) == lab.from_fields(before) == lab.value


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
        assert explained(lab).logits[1] == pytest.approx(8 * 6 * level / 255, abs=1e-5)


def test_photographs_of_all_shapes_become_squares():
    lab = lab_of(Image.new("RGB", (10, 90), "lime"), Image.new("RGB", (300, 20), "blue"))
    assert [explained(lab).image.shape, lab._images.shape] == [(32, 32, 3), (2, 3, 32, 32)]
    lab.add(Image.new("RGB", (1, 1), "red"))
    assert "predicted red" in lab.text


def test_tensors_among_the_photographs():
    backbone = colours_backbone()
    lab = PhotoLab(backbone, [backbone.preprocess(GREEN), RED, torch.zeros(3, 32, 32)])
    assert explained(lab).logits.tolist() == [0.5, 8, -1]
    lab.set(picture=1)
    assert explained(lab).logits.tolist() == [8.5, 0, -1]
    lab.add(backbone.preprocess(BLUE).requires_grad_())
    assert explained(lab).logits.tolist() == [0.5, 0, 7]
    assert not lab._images.requires_grad  # nothing is kept of how it was made


def test_one_photograph_in_place_of_a_list():
    backbone = colours_backbone()
    for photo in (GREEN, backbone.preprocess(GREEN)):
        lab = PhotoLab(backbone, photo)
        assert limits(lab)["high"] == 0
        assert explained(lab).logits.tolist() == [0.5, 8, -1]
    batch = torch.stack([backbone.preprocess(photo) for photo in (RED, BLUE)])
    lab = PhotoLab(backbone, batch)
    lab.add(backbone.preprocess(GREEN))
    for picture, logits in enumerate(([8.5, 0, -1], [0.5, 0, 7], [0.5, 8, -1])):
        lab.set(picture=picture)
        assert explained(lab).logits.tolist() == logits


@pytest.mark.parametrize(
    ("photos", "got"),
    [
        ([], "photographs of one size, got none"),
        ([RED, torch.zeros(3, 10, 10)], r"photographs of one size, got .*\(3, 10, 10\)"),
        (None, "a list of photographs, got NoneType"),
        (3, "a list of photographs, got int"),
        ("cat.jpg", "a list of photographs, got str"),
        (encode(RED), "a list of photographs, got bytes"),
        ({"red": RED}, "a list of photographs, got dict"),
        (np.zeros((40, 40, 3), np.uint8), "a Pillow picture in RGB, .* got ndarray"),
        ([np.zeros((40, 40, 3), np.uint8)], "a Pillow picture in RGB, .* got ndarray"),
        (["cat.jpg"], "a Pillow picture in RGB, .* got str"),
        (torch.zeros(3, 32, 32, device="meta"), "a Pillow picture in RGB, .* got Tensor"),
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


TOO_LARGE = r"scale 40 × 40 to at most 80,000,000 pixels, got [1-9i]"
NO_PART = "expected crop_pct above 0 and at most 1, got "


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(({"crop_pct": part}, TOO_LARGE) for part in (0.0035, 1e-9, 1e-320)),
        *(({"size": size}, TOO_LARGE) for size in (9000, 10**9)),
        ({"size": 500, "crop_pct": 0.055}, TOO_LARGE),
        *(({"crop_pct": part}, NO_PART) for part in (0, -1, 1.5, np.nan, np.inf, "1", [0.5])),
        ({"picture": 1}, "picture to be below 1, got 1"),
        ({"left": 3}, "left to be one of 3 classes, got 3"),
        ({"view": "heat"}, 'view "map", "overlay"'),
        ({"labels": [0, 1]}, "a label for each of 1 pictures, got 2"),
    ],
)
def test_impossible_settings(settings, message, monkeypatch):
    if message == TOO_LARGE:
        monkeypatch.setattr(Image.Image, "resize", None)  # it is refused before any work is done
    with pytest.raises(ValueError, match=message):
        lab_of(RED, **settings)


def test_the_network_of_the_lesson_and_a_crop_that_is_too_small(lite0):
    with pytest.raises(ValueError, match="451 × 300 to at most 80,000,000 pixels, got 754,312,533"):
        PhotoLab(lite0, [load_photo("cat")], crop_pct=0.01)
    assert lite0.preprocess(load_photo("cat"), crop_pct=0.1).shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "input_size": (None, 32, (32, 32), (3, 0, 0), (3, -1, 32), (3, 2.5, 2.5)),
        "mean": (None, "a", (0, 0)),
        "std": (None, 0, (0, 0, 0), (1, 1)),
        "interpolation": ("cubist",),
        "crop_pct": ("a", -1),
        "unknown": (1,),
    }.items(),
)
def test_a_config_that_timm_cannot_read_is_named(name, values):
    for value in values:
        with pytest.raises(ValueError, match=r"a config in timm's words, got \{'input_size'"):
            PhotoLab(colours_backbone(**{name: value}), [RED])


def test_a_config_may_leave_the_crop_to_timm():
    backbone = colours_backbone(crop_pct=None)
    assert explained(PhotoLab(backbone, [RED])).logits.tolist() == [8.5, 0, -1]


def test_known_classes_of_the_first_photographs():
    lab = lab_of(RED, GREEN, labels=[0, 2])
    assert "Picture 0: red; predicted red" in lab.text
    lab.add(BLUE)  # of which nobody said what it is
    assert lab.value.picture == 2
    assert "predicted blue" in lab.text
    assert "wrong" not in lab.text


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("piece", [1 << 20, 100])
def test_a_file_of_the_users(kind, piece):
    lab = lab_of(RED)
    assert problem(upload(lab, encode(GREEN, kind), piece)) == ""
    assert lab.value.picture == limits(lab)["high"] == 1
    assert "predicted green" in lab.text
    assert explained(lab).logits == pytest.approx([0.5, 8, -1], abs=0.1)
    sent = upload(lab, encode(GREEN, kind), piece)  # the same file again
    assert problem(sent) == ""
    assert lab.value.picture == 2
    assert [m["frame"]["fields"]["picture"] for m in sent if "frame" in m] == [2]


def test_a_file_is_read_like_every_photograph():
    lab = lab_of(RED)
    assert (
        problem(upload(lab, encode(Image.new("LA", (40, 40), (0, 0))))) == ""
    )  # all is transparent
    assert explained(lab).logits.tolist() == [8.5, 8, 7]


@pytest.mark.parametrize("content", [b"", b"no picture", encode(GREEN)[:60], b"<b>"])
def test_a_broken_file_changes_nothing_and_is_named(content):
    lab = lab_of(RED)
    lab.set(left=1)
    frame, state = lab.frame, lab.value
    for _ in range(2):
        assert problem(upload(lab, content)).startswith("expected a JPEG or PNG picture, got a")
    with pytest.raises(ValueError, match="expected a JPEG or PNG picture, got a"):
        lab.receive(content)
    assert (lab.frame, lab.value, limits(lab)["high"]) == (frame, state, 0)
    assert problem(upload(lab, encode(GREEN))) == ""  # and on it goes
    assert "predicted green" in lab.text


def test_the_control_says_what_it_takes():
    found = control(lab_of(RED), "photo")
    assert (found["kind"], found["label"]) == ("file", "Your photograph")
    assert {*found["accept"].split(",")} == {".jpg", ".jpeg", ".png"}


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


def test_a_network_in_other_numbers():
    backbone = colours_backbone()
    backbone.model.to(torch.float64)
    lab = PhotoLab(backbone, [RED])
    lab.add(GREEN)
    assert explained(lab).logits.tolist() == [0.5, 8, -1]
