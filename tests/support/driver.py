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

from playwright.sync_api import Locator, Page, expect, sync_playwright

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
def open_browser(width: int = 1400, height: int = 1000):
    """Start Chromium; yields a page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        try:
            yield browser.new_page(viewport={"width": width, "height": height})
        finally:
            browser.close()


class LabPage:
    """One notebook opened in JupyterLab."""

    def __init__(self, page: Page, server: tuple[str, str], name: str):
        self.page = page
        self.address, self.token = server
        self.name = name
        page.goto(f"{self.address}/doc/tree/{name}?token={self.token}&reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        self._wait_until_idle(1)

    def run_all(self, timeout: float = 300) -> None:
        """Run every cell and wait until the last one has ended."""
        self.page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
        self._wait_until_idle(5, self._all_have_run, timeout)

    def cell(self, text: str) -> Locator:
        """The cell whose source or output holds a text."""
        return self.page.locator(".jp-Cell", has_text=text).first

    def answer(self, stub: str, source: str, check: str, said: str) -> None:
        """Write an answer over a stub, run it and its check, and wait for what that says."""
        self.cell(stub).locator(".cm-content").click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Shift+Enter")
        self.page.keyboard.press("Shift+Enter")
        expect(self.cell(check).locator(".jp-OutputArea-output")).to_contain_text(said)

    def _all_have_run(self) -> bool:
        return self.page.evaluate(
            """() => {
                const model = jupyterapp.shell.currentWidget?.content?.model;
                const cells = Array.from(model?.cells ?? []).filter(cell =>
                    cell.type === 'code' && cell.sharedModel.getSource().trim());
                return cells.length > 0 && cells.every(cell => cell.executionCount);
            }"""
        )

    def _wait_until_idle(self, polls: int, also=lambda: True, timeout: float = 60) -> None:
        """Wait until the kernel has been idle that many times in a row."""
        seen = 0

        def ready() -> bool:
            nonlocal seen
            seen = seen + 1 if also() and self._kernel_state() == "idle" else 0
            return seen >= polls

        _wait(ready, timeout, f"an idle kernel of {self.name}")

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


def focus_slider(lab: Locator, label: str) -> Locator:
    """Focus the handle of the slider with that label, as Tab would."""
    handle = lab.get_by_role("slider", name=label, exact=True)
    handle.focus()
    return handle


@contextmanager
def changed(lab: Locator):
    """Wait, after the block, until the lab shows another picture than before; yields the image."""
    picture = lab.locator("img")
    before = picture.get_attribute("src")
    yield picture
    expect(picture).not_to_have_attribute("src", before)


def step_slider(lab: Locator, label: str) -> str:
    """Move a slider one step with the keyboard, wait for the new picture; its words."""
    with changed(lab) as picture:
        focus_slider(lab, label)
        lab.page.keyboard.press("ArrowRight")
    return picture.get_attribute("alt")


def choose(lab: Locator, label: str, key: str = "ArrowDown") -> str:
    """Take the next entry of a dropdown with the keyboard, wait for the new picture; its words."""
    with changed(lab) as picture:
        lab.get_by_role("combobox", name=label, exact=True).focus()
        lab.page.keyboard.press(key)
    return picture.get_attribute("alt")


def make_moves(lab: Locator, moves: Iterable[tuple[Callable, str, str]]) -> None:
    """Make moves, each by its control's label; each shows its words, and nothing jumps."""
    before, height = place_in_lab(lab), lab.bounding_box()["height"]
    for move, label, text in moves:
        assert text in move(lab, label), f"{label} did not show {text!r}"
        drift = max(abs(a - b) for a, b in zip(place_in_lab(lab), before, strict=True))
        assert drift <= 1, f"{label} moved the picture by {drift} pixels"
        assert lab.bounding_box()["height"] == height, f"{label} changed the height of the lab"


def press_button(within: Locator, name: str) -> None:
    """Press a button with the keyboard."""
    button = within.get_by_role("button", name=name)
    button.focus()
    button.page.keyboard.press("Enter")


def place_in_lab(lab: Locator) -> list[float]:
    """Where the picture is in its lab, and its size; the page around it may scroll."""
    return lab.evaluate(
        """lab => {
            const [a, b] = [lab, lab.querySelector('img')].map(e => e.getBoundingClientRect());
            return [b.x - a.x, b.y - a.y, b.width, b.height];
        }"""
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
        time.sleep(0.2)
