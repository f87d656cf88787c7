"""How long a lab takes from a key press to the new picture on the screen.

Each lab is timed in JupyterLab in Chromium beside the same view made with `@interact`
and matplotlib, in one run; the ratio of the two is the result. Run with `make bench`.
"""

from __future__ import annotations

import statistics

import nbformat
import pytest

from driver import focus_slider

MOVES = 30

SETUP = """
import sys
sys.path.insert(0, "..")
"""

POOL_LAB = """
from gap_utils.widgets import PoolLab
from gap_utils.widgets.pool_lab import NUMBERS

PoolLab(NUMBERS, mode="avg", kernel_size=2, stride=1)
"""

# what a learner would write: the map, the window on it and the output so far
POOL_INTERACT = """
import ipywidgets
import numpy as np
import seaborn as sns
from matplotlib import pyplot as plt
from gap_utils.pooling import pool
from gap_utils.widgets.pool_lab import NUMBERS

values = np.array(NUMBERS, dtype=float)
output = pool(values[None, None], 2, stride=1, mode="avg")[0, 0].numpy()

@ipywidgets.interact(window=ipywidgets.IntSlider(min=1, max=49, description="Window"))
def show(window=1):
    row, column = divmod(window - 1, 7)
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.5))
    sns.heatmap(values, annot=True, cbar=False, ax=axes[0])
    axes[0].add_patch(plt.Rectangle((column, row), 2, 2, fill=False, linewidth=3))
    seen = np.arange(49).reshape(7, 7) < window
    sns.heatmap(output, annot=True, cbar=False, mask=~seen, ax=axes[1])
    plt.show()
    print(output[row, column])
"""

# resolves with the milliseconds from the next key press to the next picture, decoded
NEXT_PICTURE = """root => {
    const picture = () => root.querySelector('img')?.src;
    const before = picture();
    let pressed;
    document.addEventListener('keydown', () => pressed = performance.now(),
                              {once: true, capture: true});
    window.nextPicture = new Promise(resolve => {
        const observer = new MutationObserver(async () => {
            if (!picture() || picture() === before) return;
            observer.disconnect();
            await root.querySelector('img').decode();
            requestAnimationFrame(() => resolve(performance.now() - pressed));
        });
        observer.observe(root, {subtree: true, childList: true, attributes: true});
    });
}"""


def milliseconds_per_move(page, root, label: str) -> list[float]:
    focus_slider(root, label) if label else root.get_by_role("slider").first.focus()
    times = []
    for _ in range(MOVES):
        root.evaluate(NEXT_PICTURE)
        page.keyboard.press("ArrowRight")
        times.append(page.evaluate("window.nextPicture"))
    return times


@pytest.mark.parametrize(
    ("name", "label", "ours", "theirs"), [("PoolLab", "Window", POOL_LAB, POOL_INTERACT)]
)
def test_slider(open_lesson, tmp_path, name, label, ours, theirs):
    cells = [nbformat.v4.new_code_cell(text.strip()) for text in (SETUP, ours, theirs)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, tmp_path / "bench.ipynb")
    lesson = open_lesson("bench.ipynb", source=tmp_path)
    lesson.run_all()
    page = lesson.page
    lab = page.locator(".gap-lab")
    lab.scroll_into_view_if_needed()
    fast = milliseconds_per_move(page, lab, label)
    interact = page.locator(".widget-interact")
    interact.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    slow = milliseconds_per_move(page, interact, "")

    print(f"\n\n{name}: {MOVES} key presses, milliseconds to the new picture")
    for what, times in ((name, fast), ("@interact + matplotlib", slow)):
        p95 = statistics.quantiles(times, n=20)[-1]
        print(f"  {what:24} median {statistics.median(times):6.1f}   p95 {p95:6.1f}")
    print(f"  ratio of the medians     {statistics.median(slow) / statistics.median(fast):.1f}")
