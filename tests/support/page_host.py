"""Labs on a page without Jupyter.

Of a `PageHost` the test is the kernel, and answers when it likes. A `LabOnPage` has none: what
`page.js` fetches is answered by the test.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page

from gap_utils.widgets import lab as lab_module
from gap_utils.widgets.lab import Lab

ADDRESS = "http://lab.test/"  # nothing is there: the page's requests are answered here
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Labs</title>
<link rel="stylesheet" href="lab.css"><style>
:root { color-scheme: light dark; }
body { margin: 0; background: light-dark(#ffffff, #111111); }
</style></head><body><main><h1>Labs</h1></main><script>
window.stopClock = () => { // time moves when the test says so
  let now = 1000;
  let timers = [];
  performance.now = () => now;
  window.setTimeout = (action, after) => {
    if (after === undefined) action();
    else timers.push({ action, at: now + after });
  };
  window.pass = (milliseconds) => {
    now += milliseconds;
    const due = timers.filter(({ at }) => at <= now);
    timers = timers.filter(({ at }) => at > now);
    for (const { action } of due) action();
  };
};
if (location.search === "?still") stopClock();
</script><script type="module">
import { attach, createLab } from "./lab.js";
import { openLab as openLabOnPage } from "./page.js";
const toView = (given) => { // as Jupyter gives them: a part of something larger
  const letters = atob(given.byte ?? given);
  const bytes = new Uint8Array((given.times ?? letters.length) + 3);
  if (given.times) bytes.fill(letters.charCodeAt(0));
  else for (let n = 0; n < letters.length; n += 1) bytes[n + 3] = letters.charCodeAt(n);
  return new DataView(bytes.buffer, 3);
};
window.hosts = [];
window.openLab = (opening, hasKernel) => {
  const host = { opening, asked: [], gone: false, pieces: [], detach: [] };
  if (hasKernel) {
    host.send = (message, buffers) => {
      if (host.gone) throw new Error("no kernel");
      host.asked.push(message);
      host.pieces.push(buffers);
    };
    host.listen = (onMessage, onDoubt) => Object.assign(host, { onMessage, onDoubt });
  }
  host.lab = createLab(host);
  const number = window.hosts.length;
  host.attach = () => {
    const el = document.querySelector("main").appendChild(document.createElement("div"));
    el.dataset.lab = number;
    host.detach.push(attach(el, host.lab));
  };
  host.attach();
  host.receive = (message, buffers) => host.onMessage(message, buffers.map(toView));
  host.piece = (n) => new Promise((resolve) => {
    const [buffer] = host.pieces[n];
    if (!buffer) return resolve(null);
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.split(",")[1]);
    reader.readAsDataURL(new Blob([buffer]));
  });
  return window.hosts.push(host) - 1;
};
window.onPage = [];
window.openOnPage = (html) => {
  const made = document.createElement("template");
  made.innerHTML = html;
  const el = document.querySelector("main").appendChild(made.content.firstChild);
  el.dataset.number = window.onPage.length;
  return window.onPage.push({ el, ...openLabOnPage(el) }) - 1;
};
</script></body></html>"""


PAINTED = """() => new Promise((resolve) =>
    requestAnimationFrame(() => requestAnimationFrame(() => resolve())))"""


class _Widget:
    """Keeps what a lab sends."""

    def __init__(self):
        self.sent: list[tuple[dict[str, Any], list[bytes]]] = []

    def send(self, message: dict[str, Any], buffers=()) -> None:
        self.sent.append((message, [*buffers]))


def as_json(data: Any) -> Any:
    """Make of it what a page can get; bytes become letters."""
    return json.loads(json.dumps(data, default=lambda found: b64encode(found).decode()))


def open_page(page: Page, still: bool = True) -> None:
    """Load an empty page; nothing of it comes from a network.

    Args:
        page: of Playwright, with all requests sent to `serve`.
        still: whether its time moves only with `PageHost.wait`.
    """
    page.goto(ADDRESS + "?still" * still)


def serve(route) -> None:
    """Answer a request of the page."""
    name = route.request.url.removeprefix(ADDRESS).partition("?")[0]
    if name in ("lab.js", "lab.css", "page.js"):
        route.fulfill(path=Path(lab_module.__file__).with_name(name))
    elif not name:
        route.fulfill(body=PAGE, content_type="text/html")
    else:
        route.fulfill(status=404)


def _shorten(buffer: bytes) -> Any:
    """Say one byte and how often, where a buffer is long and holds no other."""
    if len(buffer) > 1000 and buffer.count(buffer[:1]) == len(buffer):
        return {"byte": buffer[:1], "times": len(buffer)}
    return buffer


class PageHost:
    """One lab on the page.

    Attributes:
        lab: what answers.
        root: the lab on the page; with several views, all of them.
        frame_takes: how many milliseconds of work a frame is said to be.
    """

    def __init__(self, page: Page, lab: Lab, kernel: bool = True):
        self.page, self.lab = page, lab
        self._widget = lab._widget = _Widget()
        self._number = page.evaluate(
            "([opening, kernel]) => openLab(opening, kernel)",
            [as_json(lab.opening()), kernel],
        )
        self.root: Locator = page.locator(f"[data-lab='{self._number}'] .gap-lab")
        self._answered = 0
        self.frame_takes = 1.0

    def run(self, script: str, given: Any = None) -> Any:
        """Run a function of the host and something more on the page."""
        return self.page.evaluate(
            f"([n, given]) => ({script})(hosts[n], given)", [self._number, as_json(given)]
        )

    @property
    def shown(self) -> dict[str, Any]:
        """The fields of the frame on view."""
        return self.run("host => host.lab.frame.fields")

    @property
    def asked(self) -> list[dict[str, Any]]:
        """All that the page has sent; some of it is sent when a frame has been painted."""
        self.page.evaluate(PAINTED)
        return self.run("host => host.asked")

    @property
    def open_questions(self) -> list[dict[str, Any]]:
        """What it has sent and has no answer to."""
        return self.asked[self._answered :]

    def think(self) -> list[tuple[dict[str, Any], list[bytes]]]:
        """Let the lab answer the oldest open question; the page gets nothing yet."""
        self.wait_for_question()  # it may be sent when a frame has been painted
        message, piece = self.run(
            "async (host, n) => [host.asked[n], await host.piece(n)]", self._answered
        )
        self._answered += 1
        self.lab.answer(message, [] if piece is None else [b64decode(piece)])
        return self.take()

    def take(self) -> list[tuple[dict[str, Any], list[bytes]]]:
        """What the lab has sent and the page has not got."""
        sent, self._widget.sent = self._widget.sent, []
        for message, _ in sent:
            if "done" in message:
                message["done"] = self.frame_takes
        return sent

    def deliver(self, sent: list[tuple[dict[str, Any], list[bytes]]]) -> None:
        """Give the page what the lab has sent."""
        self.run(
            "(host, sent) => { for (const [message, buffers] of sent) "
            "host.receive(message, buffers); }",
            [(message, [*map(_shorten, buffers)]) for message, buffers in sent],
        )

    def answer(self) -> dict[str, Any]:
        """Answer the oldest open question, and return it."""
        question = self.open_questions[0]
        self.deliver(self.think())
        return question

    def settle(self) -> None:
        """Answer until nothing is asked any more."""
        while self.open_questions:
            self.answer()

    def wait(self, milliseconds: float) -> None:
        """Let time pass on the page."""
        self.page.evaluate("milliseconds => pass(milliseconds)", milliseconds)

    def wait_for_question(self) -> None:
        """Wait until the page, which may be reading a file, has asked something."""
        self.page.wait_for_function(
            "([n, count]) => hosts[n].asked.length > count",
            arg=[self._number, self._answered],
        )

    def __getitem__(self, name: str) -> Any:
        """A property of the lab on the page."""
        return self.run("(host, name) => host.lab[name]", name)


class LabOnPage:
    """One lab on the page, as `lab_as_html` writes it.

    Attributes:
        root: the lab on the page.
    """

    def __init__(self, page: Page, html: str):
        self.page = page
        self._number = page.evaluate("html => openOnPage(html)", html)
        self.root: Locator = page.locator(f"[data-number='{self._number}'] .gap-lab")

    def run(self, script: str) -> Any:
        """Run a function of its element, its lab and how it is loaded."""
        return self.page.evaluate(f"n => ({script})(onPage[n])", self._number)

    def load(self) -> None:
        """Fetch its file, and wait until that is done."""
        self.run("({ load }) => load()")

    def begin_to_load(self) -> None:
        """Fetch its file, and wait for nothing."""
        self.run("({ load }) => void load()")

    @property
    def shown(self) -> dict[str, Any]:
        """The fields of the frame on view."""
        return self.run("({ lab }) => lab.frame.fields")

    def wait(self, milliseconds: float) -> None:
        """Let time pass on the page."""
        self.page.evaluate("milliseconds => pass(milliseconds)", milliseconds)
