"""Drive JupyterLab in a real Chromium, as a learner does."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from nbval_pictures import ROOT

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CONFIG = ROOT / "tools" / "jupyter_lab_config.py"  # as `make lab` does


def find_chromium() -> str | None:
    """The path of a Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@contextmanager
def serve_jupyterlab(folder: Path, scratch: Path, python: str = sys.executable):
    """Start JupyterLab on a folder, apart from the user's own settings; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    own = {
        name: str(scratch / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    }
    options = [
        f"--config={CONFIG}",
        f"--ServerApp.root_dir={folder}",
        f"--ServerApp.port={port}",
        f"--IdentityProvider.token={token}",
        "--ServerApp.open_browser=False",
        "--ServerApp.allow_root=True",
        "--LabApp.expose_app_in_browser=True",
        f"--LabApp.user_settings_dir={scratch / 'settings'}",
        f"--LabApp.workspaces_dir={scratch / 'workspaces'}",
    ]
    # no question about news in the corner of the screenshots
    settings = scratch / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    log = scratch / "jupyterlab.log"
    with open(log, "w") as output:
        server = subprocess.Popen(
            [python, "-m", "jupyterlab", *options],
            env={**os.environ, **own},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(lambda: _answers(f"{address}/api?token={token}"), 60, f"JupyterLab; see {log}")
        yield address, token
    finally:
        server.terminate()
        server.wait(timeout=30)


@contextmanager
def start_chromium():
    """Start Chromium; yields it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def new_page(browser: Browser, width: int = 1400, height: int = 1000, **options):
    """Open a page that shares nothing with others, with the options of Playwright's `new_page`."""
    page = browser.new_page(viewport={"width": width, "height": height}, **options)
    try:
        yield page
    finally:
        page.close()


class LabPage:
    """One notebook opened in JupyterLab."""

    place = "doc/tree"

    def __init__(self, page: Page, server: tuple[str, str], name: str):
        self.page = page
        self.address, self.token = server
        self.name = name
        page.goto(f"{self.address}/{self.place}/{name}?token={self.token}&reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        self.wait_for_kernel()

    def wait_for_kernel(self) -> None:
        """Wait until the page has its kernel; the server may have it for long by then.

        A cell that is run before loses its number and does nothing.
        """
        self.page.wait_for_function(
            """() => {
                const context = jupyterapp.shell.currentWidget?.sessionContext;
                const kernel = context?.isReady && context.session?.kernel;
                return kernel?.connectionStatus === 'connected' && kernel.status === 'idle'
                    && kernel._targetRegistry['jupyter.widget'];  // or no lab shows
            }""",
            timeout=60_000,
        )

    def run_all(self, timeout: float = 300) -> None:
        """Run every cell and wait until the last one has ended; none may stop the others."""
        self.command("notebook:run-all-cells")
        _wait(lambda: self._stopped() or self._all_have_run(), timeout, f"all cells of {self.name}")
        assert not self._stopped(), f"{self.name} stopped at {self._stopped()}"

    def command(self, name: str, **options) -> None:
        """Do what an entry of JupyterLab's menus does."""
        # what it gives back may be too large to hand on
        self.page.evaluate(
            "([name, options]) => void jupyterapp.commands.execute(name, options)", [name, options]
        )

    def execute(self, code: str, said: str = "") -> None:
        """Run code in the kernel without a cell, again and again until it has printed that.

        What a page shows from its store reaches the kernel a moment later.
        """

        def printed() -> str:
            return self.page.evaluate(
                """async code => {
                    const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                    const future = kernel.requestExecute({code});
                    let printed = '';
                    future.onIOPub = ({content}) => printed += content.text ?? content.evalue ?? '';
                    await future.done;
                    return printed;
                }""",
                code,
            )

        _wait(lambda: printed().strip() == said, 10, f"{said!r} from {code!r}")

    def begin(self, code: str) -> None:
        """Run code in the kernel without a cell, and wait for nothing."""
        self.page.evaluate(
            """code => void jupyterapp.shell.currentWidget.sessionContext.session.kernel
                .requestExecute({code})""",
            code,
        )

    def save(self) -> None:
        """Save the notebook."""
        self.page.evaluate("jupyterapp.shell.currentWidget.context.save()")

    def cells(self) -> list[str]:
        """The sources of all cells."""
        return self.page.evaluate(
            """Array.from(jupyterapp.shell.currentWidget.content.model.cells)
                .map(cell => `${cell.type} ${cell.sharedModel.getSource()}`)"""
        )

    def cell(self, text: str) -> Locator:
        """The cell whose source or output holds a text."""
        return self.page.locator(".jp-Cell", has_text=text).first

    def lab(self, name: str) -> Locator:
        """The lab of that class, the first if there are several."""
        lab = self.page.get_by_role("group", name=name, exact=True).first
        lab.scroll_into_view_if_needed()
        return lab

    def question(self, text: str) -> Locator:
        """The question that begins with a text."""
        return self.page.get_by_role("group", name="Question", exact=True).filter(has_text=text)

    def answer(self, stub: str, source: str, check: str, said: str) -> None:
        """Write an answer over a stub, run it and its check, and wait for what that says."""
        self.cell(stub).locator(".cm-content").click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Shift+Enter")
        self.page.keyboard.press("Shift+Enter")
        expect(self.cell(check).locator(".jp-OutputArea-output")).to_contain_text(said)

    # The server may call a kernel idle that is at work, since it goes by the last of its messages.

    def _all_have_run(self) -> bool:
        return self.page.evaluate(
            """Array.from(jupyterapp.shell.currentWidget.content.model.cells).every(cell =>
                cell.type !== 'code' || cell.executionCount || !cell.sharedModel.getSource().trim())
            """
        )

    def _stopped(self) -> list[str]:
        """The sources of the cells with an error that was not meant."""
        return self.page.evaluate(
            """Array.from(jupyterapp.shell.currentWidget.content.model.cells)
                .filter(cell => !cell.getMetadata('tags')?.includes('raises-exception'))
                .filter(cell => Array.from({length: cell.outputs?.length ?? 0},
                    (_, place) => cell.outputs.get(place).type).includes('error'))
                .map(cell => cell.sharedModel.getSource())"""
        )

    def close(self) -> None:
        """Shut the kernel of this notebook down."""
        for session in self.sessions():
            self._request("DELETE", f"/{session['id']}").close()

    def _kernel_state(self) -> str:
        states = [session["kernel"]["execution_state"] for session in self.sessions()]
        return states[0] if states else "none"

    def sessions(self) -> list[dict]:
        """What the server says of this notebook's kernel."""
        with self._request("GET") as response:
            return [s for s in json.load(response) if s["path"] == self.name]

    def _request(self, method: str, path: str = ""):
        headers = {"Authorization": f"token {self.token}"}
        url = f"{self.address}/api/sessions{path}"
        return urllib.request.urlopen(
            urllib.request.Request(url, method=method, headers=headers), timeout=10
        )


class NotebookPage(LabPage):
    """One notebook opened in Notebook 7, which the same server offers."""

    place = "notebooks"

    def wait_for_kernel(self) -> None:
        """Wait until the server has a kernel; this page says nothing of its own."""
        _wait(lambda: self._kernel_state() == "idle", 60, f"an idle kernel of {self.name}")


def focus_slider(lab: Locator, label: str) -> Locator:
    """Focus the slider with that label, as Tab would."""
    slider = lab.get_by_role("slider", name=label, exact=True)
    slider.focus()
    return slider


def text_of(lab: Locator) -> str:
    """All that a lab has on view, in words and numbers."""
    return lab.locator(".gap-hidden").first.text_content()


def expect_said(lab: Locator, *sentences: str, timeout: float = 10_000) -> None:
    """Wait until a lab says these below its panels; what only keeps the place is not read."""
    for sentence in sentences:
        expect(lab.locator(".gap-words > [aria-live]")).to_contain_text(sentence, timeout=timeout)


@contextmanager
def changed(lab: Locator):
    """Wait, after the block, until the lab shows another frame than before."""
    shown = (
        "lab => [...lab.querySelectorAll('.gap-panel, .gap-hidden')].map(e => e.innerHTML).join()"
    )
    before = lab.evaluate(shown)
    yield
    _wait(lambda: lab.evaluate(shown) != before, 30, "another frame")


def step_slider(lab: Locator, label: str, key: str = "ArrowRight") -> str:
    """Move a slider with the keyboard, wait for the new frame; its words."""
    with changed(lab):
        focus_slider(lab, label)
        lab.page.keyboard.press(key)
    return text_of(lab)


def choose(lab: Locator, label: str, key: str = "ArrowDown") -> str:
    """Take the next entry of a list or of radio buttons with the keyboard; the new words."""
    with changed(lab):
        control = lab.get_by_role("combobox", name=label, exact=True)
        if not control.count():
            control = lab.get_by_role("group", name=label, exact=True).locator("input:checked")
        control.focus()
        lab.page.keyboard.press(key)
    return text_of(lab)


def click(lab: Locator, fields: str) -> str:
    """Click on the element of the picture that sets such fields; the new words."""
    before = text_of(lab)
    lab.locator(f"[data-set*='{fields}']").first.click()
    _wait(lambda: text_of(lab) != before, 30, "other words")  # a pointer alone changes outlines
    return text_of(lab)


def point_at(grid: Locator, row: int, column: int, size: int) -> list[str]:
    """Point at a square of a grid of so many a side; the lines that are read there."""
    grid.scroll_into_view_if_needed()
    box = grid.bounding_box()
    square = box["width"] / size
    grid.page.mouse.move(box["x"] + (column + 0.5) * square, box["y"] + (row + 0.5) * square)
    return grid.page.locator(".gap-bubble > div").all_inner_texts()


def drag_picture(lab: Locator, right: int, down: int) -> None:
    """Pull the picture of ShiftLab by so many of its pixels."""
    mouse, canvas = lab.page.mouse, lab.locator("[data-drag]").bounding_box()
    pixel = canvas["width"] / (28 + 2 * 6)
    x, y = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + right * pixel, y + down * pixel, steps=10)
    mouse.up()


def make_moves(lab: Locator, moves: Iterable[tuple[Callable, str, str]]) -> None:
    """Make moves, each by its control's label; each shows its words, and nothing jumps."""
    before = place_in_lab(lab)
    for move, label, text in moves:
        shown = move(lab, label)
        assert text in shown, f"{label} did not show {text!r}, but {shown!r}"
        assert place_in_lab(lab) == before, f"{label} moved what is below it"


def press_button(within: Locator, name: str) -> None:
    """Press a button with the keyboard."""
    button = within.get_by_role("button", name=name)
    button.focus()
    button.page.keyboard.press("Enter")


def place_in_lab(lab: Locator) -> list[float]:
    """Where the panels are in their lab, and how high it is; the page around it may scroll."""
    return lab.evaluate(
        """lab => {
            const boxes = [lab, ...lab.querySelectorAll('.gap-panel')]
                .map(e => e.getBoundingClientRect());
            return boxes.flatMap(b => [b.x - boxes[0].x, b.y - boxes[0].y, b.width, b.height]);
        }"""
    )


def names_of(controls: Locator) -> list[str]:
    """The accessible names of controls, which come from their labels or `aria-label`."""
    return controls.evaluate_all(
        "all => all.map(e => e.getAttribute('aria-label') ?? e.labels?.[0]?.textContent ?? '')"
    )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


def _wait(condition, timeout: float, what: str) -> None:
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout} s for {what}")
        time.sleep(0.05)
