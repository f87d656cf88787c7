"""How long a lab takes from a key press to the new picture on the screen.

Each lab is timed in JupyterLab in Chromium beside the same view made with `@interact`
and matplotlib, in one run; the ratio of the two is the result. Run with `make bench`.
"""

from __future__ import annotations

import statistics

import nbformat
import pytest

from driver import focus_slider

MOVES = 48
PAUSE = 100  # milliseconds from a picture to the next press, about as fast as fingers are

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

HEAD_LAB = """
from gap_utils.widgets import HeadLab

HeadLab(channels=128, height=8, width=8)
"""

# what a learner would write: boxes with the shapes of the three heads, bars for their costs
HEAD_INTERACT = """
import ipywidgets
import numpy as np
import seaborn as sns
from matplotlib import pyplot as plt
from gap_utils.shapes import trace_shapes
from gap_utils.widgets.head_lab import build_heads

@ipywidgets.interact(height=ipywidgets.IntSlider(min=1, max=64, description="Height H", value=8))
def show(height=8):
    heads = build_heads(128, height, 8, 10)
    traces = [trace_shapes(head, (1, 128, height, 8)) for head in heads.values()]
    costs = {
        "parameters": [trace.parameters for trace in traces],
        "multiply-adds": [trace.multiply_adds for trace in traces],
        "bytes": [sum(4 * np.prod(layer.output_shape) for layer in trace) for trace in traces],
    }
    figure, axes = plt.subplots(1, 4, figsize=(12, 3))
    axes[0].axis("off")
    for i, trace in enumerate(traces):
        for j, layer in enumerate(trace):
            text, place = f"{layer.name}\\n{layer.output_shape}", (i / 3, 1 - j / 3)
            arrow = {"arrowstyle": "->"} if j else None
            box = {"facecolor": "lightblue"}
            above = (i / 3, 1 - (j - 1) / 3)
            axes[0].annotate(text, above, place, arrowprops=arrow, bbox=box)
    for axis, (what, numbers) in zip(axes[1:], costs.items()):
        bars = sns.barplot(x=list(heads), y=numbers, ax=axis)
        bars.bar_label(bars.containers[0])
        axis.set_title(what)
    plt.show()
"""

SHIFT_LAB = """
from gap_utils.widgets import ShiftLab

ShiftLab(dx=-6)
"""

# what a learner would write: the moved picture, three bar charts, the three curves
SHIFT_INTERACT = """
import ipywidgets
import seaborn as sns
from matplotlib import pyplot as plt
from gap_utils.data import load_fashion_mnist
from gap_utils.models import HEADS, load_trained
from gap_utils.inference import predict
from gap_utils.robustness import shift
from gap_utils.widgets.shift_lab import mean_curves

data = load_fashion_mnist()
networks = {head: load_trained(head) for head in HEADS}
curves = mean_curves()

@ipywidgets.interact(number=ipywidgets.IntSlider(max=999, description="Picture"))
def show(number=0):
    moved = shift(data.test.images[number : number + 1], -6, 0)
    figure, axes = plt.subplots(1, 5, figsize=(12, 3))
    axes[0].imshow(moved[0, 0])
    for axis, (head, network) in zip(axes[1:4], networks.items()):
        probabilities = predict(network, moved).softmax(1)[0].numpy()
        sns.barplot(x=probabilities, y=list(data.class_names), ax=axis)
        axis.set_title(head)
    for head, accuracies in curves.items():
        axes[4].plot(accuracies, marker="o", label=head)
    axes[4].legend()
    plt.show()
"""

MAP_LAB = """
import torch
from gap_utils.data import load_fashion_mnist
from gap_utils.widgets import MapLab

torch.manual_seed(0)
MapLab(torch.nn.Conv2d(1, 64, 3, padding=1), load_fashion_mnist().test.images)
"""

# what a well-known article does: run the layer, an axes for each of its maps
MAP_INTERACT = """
import ipywidgets
import torch
from matplotlib import pyplot as plt
from gap_utils.data import load_fashion_mnist

torch.manual_seed(0)
layer = torch.nn.Conv2d(1, 64, 3, padding=1)
images = load_fashion_mnist().test.images

@ipywidgets.interact(number=ipywidgets.IntSlider(max=999, description="Picture"))
def show(number=0):
    with torch.no_grad():
        maps = layer(images[number : number + 1])[0]
    figure, axes = plt.subplots(8, 8, figsize=(8, 8))
    for axis, one in zip(axes.flat, maps):
        axis.imshow(one, cmap="gray")
        axis.axis("off")
    plt.show()
"""

CAM_LAB = """
from gap_utils.data import load_fashion_mnist
from gap_utils.models import load_trained
from gap_utils.widgets import CamLab

data = load_fashion_mnist()
CamLab(load_trained("gap_7x7"), data.test.images, data.test.labels, data.class_names)
"""

# what a learner would write: picture and map of two classes, laid over each other
CAM_INTERACT = """
import ipywidgets
import torch
from matplotlib import pyplot as plt
from gap_utils.activations import capture_activations, class_activation_map
from gap_utils.data import load_fashion_mnist
from gap_utils.models import load_trained

data, network = load_fashion_mnist(), load_trained("gap_7x7")

@ipywidgets.interact(number=ipywidgets.IntSlider(max=999, description="Picture"))
def show(number=0):
    picture = data.test.images[number : number + 1]
    with capture_activations(network, "body") as maps, torch.no_grad():
        best = network(picture)[0].topk(2).indices
    cam = class_activation_map(maps["body"], network.head[0].weight.detach())[0, best]
    figure, axes = plt.subplots(1, 2, figsize=(8, 4))
    for axis, number, heat in zip(axes, best, cam):
        axis.imshow(picture[0, 0], cmap="gray", extent=(0, 7, 7, 0))
        axis.imshow(heat, cmap="RdBu", alpha=0.6, vmin=-cam.abs().max(), vmax=cam.abs().max())
        axis.set_title(data.class_names[number])
    plt.show()
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
        page.wait_for_timeout(PAUSE)
        root.evaluate(NEXT_PICTURE)
        page.keyboard.press("ArrowRight")
        times.append(page.evaluate("window.nextPicture"))
    return times


@pytest.mark.parametrize(
    ("name", "label", "ours", "theirs"),
    [
        ("PoolLab", "Window", POOL_LAB, POOL_INTERACT),
        ("HeadLab", "Height H", HEAD_LAB, HEAD_INTERACT),
        ("ShiftLab", "Picture", SHIFT_LAB, SHIFT_INTERACT),
        ("MapLab", "Picture", MAP_LAB, MAP_INTERACT),
        ("CamLab", "Picture", CAM_LAB, CAM_INTERACT),
    ],
)
def test_slider(open_lesson, tmp_path, name, label, ours, theirs):
    fast = time_version(open_lesson, tmp_path, ours, ".gap-lab", label)
    slow = time_version(open_lesson, tmp_path, theirs, ".widget-interact", "")
    print(f"\n\n{name}: {MOVES} key presses, milliseconds to the new picture")
    for what, times in ((name, fast), ("@interact + matplotlib", slow)):
        p95 = statistics.quantiles(times, n=20)[-1]
        print(f"  {what:24} median {statistics.median(times):6.1f}   p95 {p95:6.1f}")
    print(f"  ratio of the medians     {statistics.median(slow) / statistics.median(fast):.1f}")


def time_version(open_lesson, folder, code: str, selector: str, label: str) -> list[float]:
    """Time the moves in a notebook of its own: a second picture on the page costs time too."""
    cells = [nbformat.v4.new_code_cell(text.strip()) for text in (SETUP, code)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, folder / "bench.ipynb")
    lesson = open_lesson("bench.ipynb", source=folder)
    lesson.run_all()
    root = lesson.page.locator(selector)
    root.scroll_into_view_if_needed()
    lesson.page.wait_for_timeout(1000)
    times = milliseconds_per_move(lesson.page, root, label)
    lesson.close()
    return times
