"""The learner of the load test who is a real browser: Chromium, in which a lab is stepped."""

from __future__ import annotations

import sys
import threading
from importlib.util import find_spec

from classroom.settings import ROOT

sys.path += [str(ROOT / "tests" / name) for name in ("support", "benchmarks")]

LESSON = "notebooks/02_compare_flatten_and_gap.ipynb"
LAB, SLIDER = "HeadLab", "Height H"  # its 221 steps are enough for one run
READY = """() => {
    const context = jupyterapp.shell.currentWidget?.sessionContext;
    const kernel = context?.isReady && context.session?.kernel;
    return kernel?.connectionStatus === 'connected' && kernel._targetRegistry['jupyter.widget'];
}"""
PAUSE = 600  # milliseconds between two steps
MOST_STEPS = 200


def find_browser() -> None:
    """See that there is a browser.

    Raises:
        RuntimeError: if there is none, or what drives it is not installed.
    """
    if not find_spec("playwright") or not find_spec("pytest"):
        raise RuntimeError("expected requirements-tests.txt to be installed, or --no-browser")
    from driver import find_chromium

    if not find_chromium():
        raise RuntimeError("expected Chromium or Chrome, got none; or say --no-browser")


def step_lab(
    address: str,
    name: str,
    password: str,
    token: str,
    ready: threading.Event,
    stop: threading.Event,
) -> list[float]:
    """Log in, run a lesson and step its lab until it is told to stop.

    Args:
        address: of the hub.
        name: of the learner.
        password: of the learner.
        token: with which the state of the kernel can be asked.
        ready: is set when the lab is there.
        stop: ends the steps.

    Returns:
        The milliseconds from each key press until the new frame is drawn, as `make bench` says.
    """
    from bench_labs import MEASURE

    from driver import LabPage, focus_slider, open_browser

    with open_browser() as page:
        page.set_default_timeout(60_000)
        page.goto(f"{address}/hub/login")
        page.fill("#username_input", name)
        page.fill("#password_input", password)
        page.click("#login_submit")
        page.wait_for_url(f"{address}/user/{name}/lab/**", timeout=120_000)
        lesson = LabPage(page, (f"{address}/user/{name}", token), LESSON)
        # when many start, the extension that shows widgets may come later than the kernel
        page.wait_for_function(READY)
        lesson.command("notebook:run-all-cells")
        lab = lesson.lab(LAB)
        page.wait_for_timeout(5000)  # until the cells behind it have run
        lab.evaluate(MEASURE)
        focus_slider(lab, SLIDER)
        page.wait_for_timeout(1500)
        ready.set()
        times: list[float] = []
        while not stop.is_set() and len(times) < MOST_STEPS:
            page.wait_for_timeout(PAUSE)
            page.evaluate("measure()")
            page.keyboard.press("ArrowRight")
            times.append(page.evaluate("measured"))
        return times
