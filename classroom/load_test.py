"""How many learners does this machine carry, and what does one cost?

    sudo .venv/bin/python classroom/load_test.py --learners 1 4 8 16

Learners with accounts of their own log in through the hub's form, start their servers, run
lessons 00 to 03 cell by cell and move the labs. One of them is a real Chromium, the others speak
to their kernels as JupyterLab does. All of it is ended and removed afterwards, accounts too.
docs/classroom.md tells what the figures mean.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import platform
import pwd
import random
import re
import signal
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from classroom.learner import Learner, Lesson, Notes
from classroom.measure import Meter
from classroom.temporary import Class, temporary_class

LESSONS = (
    "01_pool_a_4x4_map",
    "02_compare_flatten_and_gap",
    "03_write_gap_in_pytorch",
    "00_start_here",
)
# Some forty times as fast as the lessons say of themselves: nobody reads in such pauses. A
# slider is moved as by somebody who plays with it.
READING = 1.5  # seconds before each cell, half of it to one and a half times
MOVES = 10  # of each lab
BETWEEN_MOVES = 0.4  # seconds
BEAT = 5.0  # seconds between two readings of the meter
LONGEST_BEGIN = 240  # seconds until all have what they need
MOST = 64

# lesson 04's first training, and when each of its steps was made
BEFORE_TRAINING = """
import time
from torch.optim.optimizer import register_optimizer_step_post_hook

moments = []
_ = register_optimizer_step_post_hook(lambda *_: moments.append(time.time()))
"""
AFTER_TRAINING = "print(*moments)"


class Start:
    """All wait for each other, and begin and stop together."""

    def __init__(self, count: int):
        self._missing = count
        self.begin, self.stop = asyncio.Event(), asyncio.Event()

    async def wait(self) -> None:
        """Say that one is there, and wait for the others."""
        self._missing -= 1
        if not self._missing:
            self.begin.set()
        await self.begin.wait()

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until it is time to stop."""
        try:
            await asyncio.wait_for(self.stop.wait(), seconds)
        except asyncio.TimeoutError:
            return


async def be_learner(learner: Learner, first: int, start: Start) -> None:
    """Log in, and go from lesson to lesson until it is time to stop."""
    await learner.log_in()
    await learner.start_server()
    await start.wait()
    while not start.stop.is_set():
        async with learner.open_lesson(f"notebooks/{LESSONS[first % 4]}.ipynb") as lesson:
            await study(lesson, start)
            first += 1


async def study(lesson: Lesson, start: Start) -> None:
    """Read, run and play, cell by cell."""
    for cell in lesson.cells:
        await start.pause(READING * random.uniform(0.5, 1.5))
        if start.stop.is_set():
            return
        for lab in await lesson.run(cell):
            for _ in range(1 if lab.name == "Question" else MOVES):
                await start.pause(BETWEEN_MOVES)
                await lesson.move(lab)


async def be_trainer(learner: Learner, start: Start, moments: list[float]) -> None:
    """Open lesson 04, and train when all others do."""
    await learner.log_in()
    await learner.start_server()
    async with learner.open_lesson("notebooks/04_train_on_fashion_mnist.ipynb") as lesson:
        training = next(n for n, cell in enumerate(lesson.cells) if "fit(" in cell.source)
        for cell in lesson.cells[:training]:
            await lesson.run(cell)
        await lesson.execute(BEFORE_TRAINING)
        await start.wait()
        running = asyncio.create_task(lesson.execute(lesson.cells[training].source))
        stopped = asyncio.create_task(start.stop.wait())
        await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await learner.interrupt(lesson)
        await running
        await stopped
        _, said = await lesson.execute(AFTER_TRAINING)
        moments += map(float, said[-1]["text"].split())


async def be_browser(learner: Learner, address: str, start: Start, steps: list[float]) -> None:
    """Step a lab in Chromium, in a thread of its own, until it is time to stop."""
    from classroom.browser import step_lab  # only who measures with it needs Playwright

    ready, stop = threading.Event(), threading.Event()
    await learner.log_in()
    who = address, learner.name, learner.password, await learner.make_token()
    stepping = asyncio.create_task(asyncio.to_thread(step_lab, *who, ready, stop))
    try:
        while not ready.is_set() and not stepping.done():
            await asyncio.sleep(0.2)
        await start.wait()
        await start.stop.wait()
    finally:
        stop.set()
        steps += await stepping


async def measure(
    room: Class, count: int, seconds: float, browser: bool, train: bool
) -> dict[str, float]:
    """Let so many learners work for so long; what was seen."""
    names = [*room.passwords][:count]
    notes, start = Notes(), Start(count)
    steps: list[float] = []
    moments: list[float] = []
    learners = [Learner(room.address, name, room.passwords[name], notes) for name in names]
    began = time.monotonic()

    async def watch() -> tuple[Meter, float, float]:
        await asyncio.wait_for(start.begin.wait(), LONGEST_BEGIN)
        waited, began_to_work = time.monotonic() - began, time.monotonic()
        meter = Meter({pwd.getpwnam(name).pw_uid for name in names}, room.hub)
        while time.monotonic() - began_to_work < seconds:
            await asyncio.sleep(min(BEAT, seconds))
            await asyncio.to_thread(meter.read)
        lasted = time.monotonic() - began_to_work
        start.stop.set()
        return meter, waited, lasted

    work = [watch()]
    for place, learner in enumerate(learners):
        if browser and place == 0:
            work.append(be_browser(learner, room.address, start, steps))
        elif train:
            work.append(be_trainer(learner, start, moments))
        else:
            work.append(be_learner(learner, place, start))
    tasks = [asyncio.create_task(one) for one in work]
    try:
        watched, *_ = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for learner in learners:
            await learner.end_server()
            await learner.close()
    for error in notes.errors:
        print(f"  error: {error}", file=sys.stderr)
    return summary(count, notes, steps, moments, *watched)


def summary(
    count: int,
    notes: Notes,
    steps: list[float],
    moments: list[float],
    meter: Meter,
    waited: float,
    lasted: float,
) -> dict[str, float]:
    """A row of the table."""
    fullest = max(meter.memory, key=lambda taken: sum(taken.values()))
    each = [megabytes for who, megabytes in fullest.items() if who]
    answers = [1000 * seconds for seconds in notes.answers]
    return {
        "learners": count,
        "errors": len(notes.errors),
        "all there after s": round(waited, 1),
        "start p95 s": round(part(notes.starts, 95), 1),
        "cells run": len(notes.cells),
        "lab moves": len(answers),
        "answer p50 ms": round(part(answers, 50), 1),
        "answer p95 ms": round(part(answers, 95), 1),
        "browser step p50 ms": round(part(steps, 50), 1),
        "browser step p95 ms": round(part(steps, 95), 1),
        "MB a learner": round(statistics.mean(each)),
        "MB the largest": round(max(each)),
        "MB in all": round(sum(fullest.values())),
        "cores learners": round(meter.seconds["learners"] / lasted, 2),
        "cores hub": round(meter.seconds["hub"] / lasted, 2),
        "cores test": round(meter.seconds["test"] / lasted, 2),
        "training steps a s": round(len(moments) / (max(moments) - min(moments))) if moments else 0,
    }


def part(values: Sequence[float], percent: int) -> float:
    """The value below which so many percent are; no number where there are too few."""
    return statistics.quantiles(values, n=100)[percent - 1] if len(values) > 1 else float("nan")


def draw(path: Path, rows: list[dict[str, float]]) -> None:
    """Draw what a learner costs, and how long one waits, against the number of learners."""
    from matplotlib import pyplot as plt

    count = [row["learners"] for row in rows]
    figure, (memory, waiting, cores) = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    for axis, title in (
        (memory, "memory of a learner, MB"),
        (waiting, "time to wait, ms"),
        (cores, "cores in use"),
    ):
        axis.set(title=title, xlabel="learners at work", xticks=count)
        axis.grid(axis="y", color="#dddddd")
        axis.spines[["top", "right"]].set_visible(False)
    lines = [
        (memory, "MB the largest", "#0072b2", "--^", "the largest"),
        (memory, "MB a learner", "#0072b2", "-o", "on average"),
        (waiting, "answer p95 ms", "#d55e00", "--^", "kernel's answer, 95 %"),
        (waiting, "answer p50 ms", "#d55e00", "-o", "kernel's answer, half"),
        (waiting, "browser step p95 ms", "#0072b2", "--s", "step in a browser, 95 %"),
        (waiting, "browser step p50 ms", "#0072b2", "-D", "step in a browser, half"),
        (cores, "cores learners", "#009e73", "-o", "servers and kernels"),
        (cores, "cores test", "#495057", "--^", "the test, its browser too"),
    ]
    for axis, name, colour, style, label in lines:
        axis.plot(count, [row[name] for row in rows], style, color=colour, label=label)
    for axis in (memory, waiting, cores):
        axis.set_ylim(0, 1.4 * axis.get_ylim()[1])  # room for the names
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    """Write the table, with this machine in its first line."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        file.write(f"# {describe_machine()}\n")
        table = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def describe_machine() -> str:
    """Say what was measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    chip = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    python = f"Python {platform.python_version()}"
    return f"{chip[1] if chip else platform.machine()}, {cores} cores, {memory:.0f} GB, {python}"


def main(arguments: list[str]) -> int:
    """Measure, and print a table; 1 where there was an error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learners", type=whole, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--seconds", type=whole, default=60, help="for each number of learners")
    parser.add_argument("--train", action="store_true", help="all train at once, the worst case")
    parser.add_argument("--threads", type=whole, help="of each kernel, to see what too many cost")
    parser.add_argument("--no-browser", action="store_true", help="simulated learners alone")
    parser.add_argument("--csv", type=Path, help="file to write the table to")
    parser.add_argument("--plot", type=Path, help="file to draw it in, a PNG")
    options = parser.parse_args(arguments)
    if max(options.learners) > MOST:
        parser.error(f"expected at most {MOST} learners, got {max(options.learners)}")
    if not options.no_browser:
        from classroom.browser import find_browser

        find_browser()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    settings = {"GAP_CLASS_THREADS": str(options.threads)} if options.threads else {}
    rows = []
    with temporary_class(max(options.learners), **settings) as room:
        for count in options.learners:
            row = asyncio.run(
                measure(room, count, options.seconds, not options.no_browser, options.train)
            )
            rows.append(row)
            print("  ".join(f"{name}: {value}" for name, value in row.items()), flush=True)
            if options.csv:  # after each, in case that it is ended before the last
                write_csv(options.csv, rows)
    if options.plot:
        draw(options.plot, rows)
    return int(any(row["errors"] for row in rows))


def whole(text: str) -> int:
    """Read a whole number from 1."""
    if not text.isdecimal() or not 1 <= int(text) <= 3600:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 3600, got {text!r}")
    return int(text)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (RuntimeError, ValueError) as error:
        sys.exit(f"The load test ends: {error}")
    except KeyboardInterrupt:
        sys.exit("The load test ends: it was interrupted")
