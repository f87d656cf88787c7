"""How long a lab takes from a key press to the new picture on the screen.

Each lab is timed in JupyterLab in Chromium beside the same view made with `@interact` and
matplotlib, and beside a page whose slider changes one word: the floor, below which nothing
can be. What decides is the distance from the floor, and the ratio to `@interact`. The same
steps are then made behind a slow link, with a key that is held down, with a busy kernel, and
two thousand times. Run with `make bench`, or one part with `-k`.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

from driver import LabPage

MOVES = 48
PAUSE = 100  # milliseconds between two presses, about as fast as fingers are
HELD = 33  # milliseconds between two presses of a key that is held down
DELAY = 0.060  # seconds in each direction of a slow link

# a widget whose slider changes one word
FLOOR = """
import anywidget

class Floor(anywidget.AnyWidget):
    _esm = '''
    export default {
      render({ el }) {
        el.innerHTML = '<div class="floor"><input type="range" max="999" value="0"'
          + ' data-lm-suppress-shortcuts="true"><p class="gap-hidden">0</p></div>';
        const [track, word] = [el.querySelector("input"), el.querySelector("p")];
        track.addEventListener("input", () => (word.textContent = track.value));
      },
    };
    '''

Floor()
"""

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
from gap_utils.study import mean_curves

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

# (name, its main slider, code, the same with @interact, a jump far from what is fetched)
LABS = [
    ("PoolLab", "Window", POOL_LAB, POOL_INTERACT),
    ("HeadLab", "Height H", HEAD_LAB, HEAD_INTERACT),
    ("ShiftLab", "Picture", SHIFT_LAB, SHIFT_INTERACT),
    ("MapLab", "Picture", MAP_LAB, MAP_INTERACT),
    ("CamLab", "Picture", CAM_LAB, CAM_INTERACT),
]

# resolves with the milliseconds from the next key press until two frames after the words have
# changed, or after the new picture has been decoded where there is one
MEASURE = """root => {
    const shown = () => root.querySelector('.gap-hidden')?.textContent
        ?? root.querySelector('img')?.src;
    window.measure = () => {
        const before = shown();
        let pressed;
        document.addEventListener('keydown', () => pressed = performance.now(),
                                  {once: true, capture: true});
        window.measured = new Promise(resolve => {
            const observer = new MutationObserver(async () => {
                if (!shown() || shown() === before) return;
                observer.disconnect();
                await root.querySelector('img')?.decode();
                requestAnimationFrame(() => requestAnimationFrame(
                    () => resolve(performance.now() - pressed)));
            });
            observer.observe(root, {subtree: true, childList: true, characterData: true,
                                    attributes: true});
        });
    };
    // what is seen from now on, and the moments without a picture
    window.watch = () => {
        window.seen = [];
        window.empty = 0;
        window.watching = true;
        const look = () => {
            const word = shown();
            if (window.seen.at(-1)?.word !== word) window.seen.push({word, at: performance.now()});
            window.empty += root.querySelector('.gap-panel svg')?.childElementCount ? 0 : 1;
            if (window.watching) requestAnimationFrame(look);
        };
        look();
    };
}"""


def report(what: str, times: list[float], floor: list[float] | None = None) -> None:
    median, p95 = statistics.median(times), statistics.quantiles(times, n=20)[-1]
    line = f"  {what:34} median {median:6.1f}   p95 {p95:6.1f}"
    if floor:
        above = median - statistics.median(floor), p95 - statistics.quantiles(floor, n=20)[-1]
        line += f"   above the floor {above[0]:+6.1f} / {above[1]:+6.1f}"
    print(line)


@pytest.fixture
def open_code(open_lesson, tmp_path):
    """Open a notebook of its own for a cell: a second picture on the page costs time too."""

    def open_(code: str, selector: str):
        write_notebook(tmp_path / "bench.ipynb", code)
        lesson = open_lesson("bench.ipynb", source=tmp_path)
        return lesson, start(lesson, selector)

    return open_


def write_notebook(path: Path, code: str) -> None:
    cells = [nbformat.v4.new_code_cell(text.strip()) for text in (SETUP, code)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


def start(lesson: LabPage, selector: str):
    """Run the notebook, and give the element that is measured."""
    lesson.run_all()
    root = lesson.page.locator(selector)
    root.scroll_into_view_if_needed()
    root.evaluate(MEASURE)
    lesson.page.wait_for_timeout(1500)
    return root


def slider(root, label: str):
    return (
        root.get_by_role("slider", name=label, exact=True)
        if label
        else root.get_by_role("slider").first
    )


def time_steps(page, root, label: str, moves: int = MOVES) -> list[float]:
    slider(root, label).focus()
    page.wait_for_timeout(1000)
    times = []
    for _ in range(moves):
        page.wait_for_timeout(PAUSE)
        page.evaluate("measure()")
        page.keyboard.press("ArrowRight")
        times.append(page.evaluate("measured"))
    return times


def time_jumps(page, root, label: str, jumps: int = 10) -> list[float]:
    """Jump by a tenth of the range and more, to what was not on view before."""
    track = slider(root, label)
    track.focus()
    times = []
    for key in ["PageDown", "PageUp"] * (jumps // 2):
        page.wait_for_timeout(600)
        track.evaluate("track => track.step = 1 + Math.floor(Math.random() * 5)")
        page.evaluate("measure()")
        page.keyboard.press(key)
        times.append(page.evaluate("measured"))
    track.evaluate("track => track.step = 1")
    return times


@pytest.mark.parametrize(("name", "label", "ours", "theirs"), LABS)
def test_steps(open_code, name, label, ours, theirs):
    floor = _steps(open_code, FLOOR, ".floor", "")
    fast, jumps = _steps(open_code, ours, ".gap-lab", label, jumps=True)
    slow = _steps(open_code, theirs, ".widget-interact", "", moves=12)
    print(f"\n\n{name}: milliseconds from the key press to the new picture")
    report("a word alone, the floor", floor)
    report("steps", fast, floor)
    report("jumps", jumps, floor)
    report("@interact + matplotlib", slow)
    print(f"  ratio of the medians {statistics.median(slow) / statistics.median(fast):.1f}")


def _steps(open_code, code, selector, label, moves=MOVES, jumps=False):
    lesson, root = open_code(code, selector)
    times = time_steps(lesson.page, root, label, moves)
    result = (times, time_jumps(lesson.page, root, label)) if jumps else times
    lesson.close()
    return result


@pytest.mark.parametrize(("name", "label", "ours", "theirs"), LABS)
def test_slow_link(project, server, page, name, label, ours, theirs, tmp_path):
    write_notebook(project / "notebooks" / "bench.ipynb", ours)
    address, token = server
    with delayed(address) as slow_address:
        lesson = LabPage(page, (slow_address, token), "notebooks/bench.ipynb")
        root = start(lesson, ".gap-lab")
        times = time_steps(page, root, label)
        jumps = time_jumps(page, root, label)
        press_and_hold(page, root, label, 2)
        seen, presses = page.evaluate("window.seen.length - 1"), page.evaluate("window.presses")
        print(f"\n\n{name}: {DELAY * 1000:.0f} ms of delay in each direction")
        report("steps", times)
        report("jumps", jumps)
        print(f"  a key held for 2 s: {seen} pictures shown of {presses}")
        lesson.close()


@pytest.mark.parametrize(("name", "label", "ours", "theirs"), LABS)
def test_key_held(open_code, name, label, ours, theirs):
    lesson, root = open_code(ours, ".gap-lab")
    page = lesson.page
    late = press_and_hold(page, root, label, 3)
    seen, presses = page.evaluate("window.seen.length - 1"), page.evaluate("window.presses")
    print(f"\n\n{name}: a key held for 3 s")
    print(f"  {seen} pictures shown of {presses}; the last {late:.0f} ms after the last press")
    print(f"  moments without a picture: {page.evaluate('window.empty')}")
    lesson.close()


def test_drag(open_code):
    lesson, root = open_code(SHIFT_LAB, ".gap-lab")
    seen, late = drag(lesson.page, root)
    print("\n\nShiftLab: the picture is pulled over 12 pixels in a second")
    print(f"  {seen} pictures shown of 12; the last {late:.0f} ms after the last move")
    lesson.close()


def drag(page, root) -> tuple[int, float]:
    """Pull a picture from one edge to the other; say what was seen, and how late the last came."""
    box = root.locator("[data-drag]").bounding_box()
    pixel = box["width"] / (28 + 2 * 6)
    x, y = box["x"] + 4 * pixel, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.wait_for_timeout(500)
    page.evaluate("watch()")
    for step in range(1, 61):
        page.mouse.move(x + step * 12 * pixel / 60, y)
        page.wait_for_timeout(16)
    page.evaluate("window.released = performance.now()")
    page.mouse.up()
    page.wait_for_timeout(1000)
    return page.evaluate("[window.seen.length - 1, window.seen.at(-1).at - window.released]")


def press_and_hold(page, root, label: str, seconds: float) -> float:
    """Hold the arrow key; say how long after the last press the last picture came."""
    track = slider(root, label)
    track.focus()
    page.keyboard.press("Home")
    page.wait_for_timeout(1500)
    page.evaluate("""() => {
        window.presses = 0;
        document.addEventListener('keydown', event => {
            window.presses += 1;
            window.pressed = performance.now();
        }, {capture: true});
        watch();
    }""")
    began = time.monotonic()
    presses = round(seconds * 1000 / HELD)
    most = int(track.get_attribute("max")) - int(track.get_attribute("min"))
    for n in range(min(presses, most)):
        page.keyboard.down("ArrowRight")
        time.sleep(max(0, began + (n + 1) * HELD / 1000 - time.monotonic()))
    page.keyboard.up("ArrowRight")
    page.wait_for_timeout(1000)
    page.evaluate("window.watching = false")
    return page.evaluate("window.seen.at(-1).at - window.pressed")


def test_memory(open_code):
    lesson, root = open_code(MAP_LAB, ".gap-lab")
    page = lesson.page
    slider(root, "Picture").focus()
    session = page.context.new_cdp_session(page)

    def memory() -> tuple[float, float]:
        session.send("HeapProfiler.collectGarbage")
        used = session.send("Runtime.getHeapUsage")
        kernel = kernel_memory(lesson)
        return (used["usedSize"] + used.get("backingStorageSize", 0)) / 1e6, kernel / 1e6

    print("\n\nMapLab: megabytes of the page, and of the kernel")
    for moves in range(0, 2001, 100):
        if moves in (0, 300, 1000, 2000):
            print(f"  after {moves:4} moves: {memory()[0]:7.1f} {memory()[1]:8.1f}")
        for _ in range(100):
            page.keyboard.press("ArrowLeft" if moves // 500 % 2 else "ArrowRight")
            page.wait_for_timeout(15)
    lesson.close()


def kernel_memory(lesson: LabPage) -> int:
    """The bytes that the kernel of a notebook has in memory, on Linux."""
    kernel = lesson.sessions()[0]["kernel"]["id"].encode()
    found = [p for p in Path("/proc").glob("[0-9]*/cmdline") if kernel in p.read_bytes()]
    status = (found[0].parent / "status").read_text()
    return 1024 * int(re.search(r"VmRSS:\s+(\d+)", status)[1])


def test_busy_kernel(open_code):
    lesson, root = open_code(POOL_LAB, ".gap-lab")
    page = lesson.page
    slider(root, "Window").focus()
    page.wait_for_timeout(1000)
    page.evaluate(
        "jupyterapp.shell.currentWidget.sessionContext.session.kernel"
        ".requestExecute({code: 'import time; time.sleep(5)'}) && 0"
    )
    page.wait_for_timeout(500)
    page.evaluate("measure()")
    page.keyboard.press("ArrowRight")
    print(
        f"\n\nA busy kernel: a picture in store after {page.evaluate('measured'):.0f} ms;", end=" "
    )
    page.evaluate("measure()")
    page.keyboard.press("End")
    page.wait_for_timeout(1000)
    print(f"  of another: {root.locator('.gap-status').inner_text()!r},")
    print(f"  and the picture {page.evaluate('measured') / 1000:.1f} s after the press")
    lesson.close()


@contextmanager
def delayed(address: str):
    """A proxy in front of a server that hands everything on, but late; yields its address."""
    host, port = address.removeprefix("http://").split(":")
    loop = asyncio.new_event_loop()

    async def hand_on(reader, writer):
        waiting = asyncio.Queue()

        async def write():
            while (item := await waiting.get()) is not None:
                due, data = item
                await asyncio.sleep(max(0, due - loop.time()))
                writer.write(data)
                await writer.drain()
            writer.close()

        task = loop.create_task(write())
        while data := await reader.read(1 << 16):
            waiting.put_nowait((loop.time() + DELAY, data))
        waiting.put_nowait(None)
        await task

    async def connect(reader, writer):
        to_reader, to_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(
            hand_on(reader, to_writer), hand_on(to_reader, writer), return_exceptions=True
        )

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    serving = asyncio.start_server(connect, "127.0.0.1", 0)
    server = asyncio.run_coroutine_threadsafe(serving, loop).result()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _cancel_all():
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
