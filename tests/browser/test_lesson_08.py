"""A learner looks at photographs with PhotoLab in lesson 08, uploads some, does an exercise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import expect

from driver import (
    changed,
    choose,
    click,
    expect_said,
    make_moves,
    names_of,
    point_at,
    press_button,
    step_slider,
    text_of,
)

LESSON = "08_use_pretrained_backbones.ipynb"


def test_the_lesson_as_a_learner_does_it(lesson, tmp_path):
    """One test, so that the lesson runs once."""
    expect(lesson.page.get_by_role("group", name="PhotoLab", exact=True)).to_have_count(1)
    lab = lesson.lab("PhotoLab")
    every_control_moves_and_nothing_jumps(lab)
    press_button(lab, "Start again")
    expect_said(lab, "Picture 0; predicted military uniform (41.7%).")
    grid = lab.locator(".gap-panel", has_text="against").first.locator(".gap-edge").first
    assert point_at(grid, 1, 3, 7)[:2] == ["row 1, column 3", "military uniform: 19.17"]
    assert "Picture 3; predicted espresso" in click(lab, '"picture": 3')
    upload_photographs(lab, tmp_path)
    for columns, said in [("", "it is divided"), ("prefix", "✓ Right The mean of the patch")]:
        lesson.answer(
            "def mean_of_patches(tokens, prefix)",
            "def mean_of_patches(tokens, prefix):\n"
            f"    patches = tokens[:, {columns or 'prefix'}:]\n"
            f"    return patches.sum(1) / {'patches' if columns else 'tokens'}.shape[1]",
            "checks.check_mean_of_patches(mean_of_patches)",
            said,
        )


def every_control_moves_and_nothing_jumps(lab):
    assert names_of(lab.get_by_role("slider")) == ["Picture", "Strength %"]
    moves = [
        (step_slider, "Picture", "Picture 1; predicted academic gown (24.2%)."),
        (step_slider, "Strength %", "Left, academic gown (24.2%): mean of 49 values 7.585"),
        (
            type_name("mortarboard"),
            "Left class",
            "Left, mortarboard (20.9%): mean of 49",
        ),
        (type_name("uniform"), "Right class", "Right, military uniform (18.1%): mean of 49"),
        (choose, "View", "View: numbers. Left "),
    ]
    make_moves(lab, moves)


def type_name(part: str):
    """Choose of a long list by a part of the name."""

    def move(lab, label):
        with changed(lab):
            lab.get_by_role("searchbox", name=f"{label}, find by name", exact=True).focus()
            lab.page.keyboard.type(part)
            lab.page.keyboard.press("Enter")
        return text_of(lab)

    return move


def upload_photographs(lab, folder: Path):
    """The right way round; large ones in pieces; what cannot be shown says why."""
    sideways = folder / "sideways.jpg"
    orientation = Image.Exif()
    orientation[0x0112] = 6  # to be turned a quarter clockwise
    with Image.open(Path(__file__).parents[2] / "gap_utils/assets/espresso.jpg") as photo:
        photo.rotate(90, expand=True).save(sideways, quality=95, exif=orientation)
    with changed(lab):
        choose_file(lab, sideways)
    assert "Picture 5; predicted espresso (9" in text_of(lab)
    assert "Picture 0; " in click(lab, '"picture": 0') and "Picture 5; " in click(
        lab, '"picture": 5'
    )
    for side, number in [(1800, 6), (2570, 7)]:  # 10 MB, more than a server takes at once; 19.8 MB
        large = folder / "large.png"
        noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(large, compress_level=0)
        with changed(lab):
            choose_file(lab, large)
        assert f"Picture {number}; predicted " in text_of(lab)
        expect(lab.get_by_role("progressbar")).to_be_hidden()
    broken, too_large = folder / "broken.png", folder / "too_large.png"
    broken.write_bytes(b"no picture")
    too_large.write_bytes(bytes(25_000_000))
    for path, said in [
        (broken, "expected a JPEG or PNG picture, got a file of 10 bytes that is neither"),
        (too_large, "expected a file of at most 20,000,000 bytes, got 25,000,000"),
        (broken, "expected a JPEG or PNG picture, got a file of 10 bytes that is neither"),
    ]:
        choose_file(lab, path)
        expect(lab.get_by_role("alert")).to_have_text(said)
        step_slider(lab, "Strength %")  # a move takes the words away
        expect(lab.get_by_role("alert")).to_be_empty()
    expect_said(lab, "Picture 7; predicted ")


def choose_file(lab, path: Path):
    lab.get_by_label("Your photograph", exact=True).set_input_files(path)
