"""Make `pytest --nbval notebooks` compare the pictures of the lessons too.

nbval compares every output but PNG and JPEG. Here one that has changed fails its cell.
The pixels depend on the versions that draw them, so they are compared under the pinned
ones only; under others the numbers drawn still are, since each picture has a text twin.
HTML with such a picture in it is left out: it would be compared letter by letter.
"""

from __future__ import annotations

import base64
import os
import re
from copy import deepcopy
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent.parent
TOLERANCE = 16  # of 255; font smoothing may differ a little between processors


def pinned_versions() -> dict[str, str]:
    """The versions in requirements.txt that apply to this Python."""
    from packaging.requirements import Requirement

    lines = (ROOT / "requirements.txt").read_text().splitlines()
    texts = [re.sub(r"\s+#.*", "", line) for line in lines]
    pins = [Requirement(text) for text in texts if text and not text.startswith("#")]
    return {
        pin.name: str(pin.specifier).removeprefix("==")
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
    }


def picture_difference(stored: str, drawn: str) -> str | None:
    """Say how two base64 pictures differ beyond the tolerance; None where they do not."""
    a, b = (
        np.asarray(Image.open(BytesIO(base64.b64decode(text))).convert("RGBA"), dtype=int)
        for text in (stored, drawn)
    )
    if a.shape != b.shape:
        return f"stored {a.shape[1]}×{a.shape[0]} pixels, drawn {b.shape[1]}×{b.shape[0]}"
    changed = (abs(a - b) > TOLERANCE).any(axis=2)
    return f"{changed.sum()} of {changed.size} pixels changed" if changed.any() else None


def _pictures(outputs) -> list[tuple[str, str]]:
    """The kind of each picture, and its base64."""
    data = [item for output in outputs for item in output.get("data", {}).items()]
    return [item for item in data if item[0] in ("image/png", "image/jpeg")]


def _made_by_the_cell(outputs) -> list:
    """The outputs, but for the line stored above one that is folded, and for HTML that says what
    a PNG beside it says, as labs do."""
    outputs = [deepcopy(each) for each in outputs if not each.get("metadata", {}).get("cover")]
    for output in outputs:
        if "data:image" in output.get("data", {}).get("text/html", ""):
            del output["data"]["text/html"]
    return outputs


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    if not config.pluginmanager.hasplugin("nbval"):
        return
    from nbval.plugin import IPyNbCell

    # nbval reads what a cell sent when the cell has ended; a socket that is full drops the rest
    os.environ.setdefault("TQDM_MININTERVAL", "1")
    pins = pinned_versions()
    drawing = ("matplotlib", "pillow", "resvg-py", "seaborn")
    compares_pixels = all(version(name) == pins[name] for name in drawing)
    compare_texts = IPyNbCell.compare_outputs

    def compare_texts_and_pictures(self, test, ref, skip_compare=None):
        texts = map(_made_by_the_cell, (test, ref))
        if not compare_texts(self, *texts, skip_compare):
            return False
        if not compares_pixels:
            return True
        drawn, stored = _pictures(test), _pictures(ref)
        kinds = [kind for kind, _ in stored], [kind for kind, _ in drawn]
        if kinds[0] != kinds[1]:
            problem = f"stored {kinds[0]}, drawn {kinds[1]}"
        else:
            pairs = zip((a for _, a in stored), (b for _, b in drawn), strict=True)
            problem = next(filter(None, (picture_difference(*pair) for pair in pairs)), None)
        if problem:
            self.comparison_traceback.append(f"picture mismatch: {problem}")
        return problem is None

    IPyNbCell.compare_outputs = compare_texts_and_pictures
