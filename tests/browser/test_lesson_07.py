"""A learner looks at photographs with PhotoLab in lesson 07, uploads some, does an exercise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import expect

from driver import changed, choose, make_moves, press_button, step_slider

LESSON = "07_use_pretrained_backbones.ipynb"


def test_the_lesson_as_a_learner_does_it(lesson, tmp_path):
    """One test, so that the lesson runs once."""
    labs = lesson.page.locator(".gap-lab")
    expect(labs).to_have_count(3)
    lab = labs.first
    lab.scroll_into_view_if_needed()
    every_control_moves_and_nothing_jumps(lab)
    press_button(lab, "Start again")
    expect(lab).to_contain_text("Picture 0; predicted military uniform (41.7%).")
    upload_photographs(lab, tmp_path)
    for columns, said in [("", "it is divided"), ("prefix", "✓ Right: the mean of the patch")]:
        lesson.answer(
            "def mean_of_patches(tokens, prefix)",
            "def mean_of_patches(tokens, prefix):\n"
            f"    patches = tokens[:, {columns or 'prefix'}:]\n"
            f"    return patches.sum(1) / {'patches' if columns else 'tokens'}.shape[1]",
            "checks.check_mean_of_patches(mean_of_patches)",
            said,
        )


def every_control_moves_and_nothing_jumps(lab):
    names = [handle.get_attribute("aria-label") for handle in lab.get_by_role("slider").all()]
    assert names == ["Picture", "Strength %"]
    moves = [
        (step_slider, "Picture", "Picture 1; predicted academic gown (24.2%)."),
        (step_slider, "Strength %", "Left, academic gown (24.2%): mean of 49 contributions 7.585"),
        (choose, "Left class", "Left, mortarboard (20.9%): mean of 49 contributions 7.447"),
        (choose, "Right class", "Right, military uniform (18.1%): mean of 49"),
        (choose, "View", "View: contributions. Left "),
    ]
    make_moves(lab, moves)


def upload_photographs(lab, folder: Path):
    """The right way round, and what is no picture is named; the lab goes on."""
    sideways = folder / "sideways.jpg"
    orientation = Image.Exif()
    orientation[0x0112] = 6  # to be turned a quarter clockwise
    with Image.open(Path(__file__).parents[2] / "gap_utils/assets/espresso.jpg") as photo:
        photo.rotate(90, expand=True).save(sideways, quality=95, exif=orientation)
    with changed(lab) as picture:
        choose_file(lab, sideways)
    assert "Picture 5; predicted espresso (9" in picture.get_attribute("alt")
    large = folder / "large.png"  # more than a server takes by default, 10 MB
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(large, compress_level=0)
    with changed(lab) as picture:
        choose_file(lab, large)
    assert "Picture 6; predicted " in picture.get_attribute("alt")
    broken = folder / "broken.png"
    broken.write_bytes(b"no picture")
    for _ in range(2):  # again, after a move that takes the words away
        choose_file(lab, broken)
        expect(lab).to_contain_text(
            "ValueError: expected a JPEG or PNG picture, got a file of 10 bytes that is neither"
        )
        step_slider(lab, "Strength %")
        expect(lab).not_to_contain_text("ValueError")
    expect(lab).to_contain_text("Picture 6; predicted ")


def choose_file(lab, path: Path):
    with lab.page.expect_file_chooser() as chooser:
        lab.get_by_role("button", name="Your photograph").click()
    chooser.value.set_files(path)
