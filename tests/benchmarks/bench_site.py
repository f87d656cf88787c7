"""How large the site is, how soon a lesson shows its first picture, and how fast its labs answer.

Steps are timed as in `bench_labs`, from the key press to the new picture, beside a page whose
slider changes one word. The server packs text as GitHub Pages does. The site is the one that
GAP_SITE names, or `site`; run with `make bench`, or alone:

    GAP_SITE=site python -m pytest tests/benchmarks/bench_site.py -s
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from bench_labs import MEASURE, report, time_jumps, time_steps

from built_site import LESSONS, Handler, lab_cells, labs_of, served
from driver import new_page
from nbval_pictures import ROOT

SPEED = 10e6 / 8  # bytes a second
DELAY = 40  # milliseconds until the first byte of an answer
FLOOR = """<!doctype html><title>Floor</title><div class="floor">
<input type="range" max="999" value="0"><p class="gap-hidden">0</p></div><script>
const [track, word] = [document.querySelector("input"), document.querySelector("p")];
track.addEventListener("input", () => (word.textContent = track.value));
</script>"""
# notes when the first picture of the text is in its place
FIRST = """() => {
    const look = () => {
        const all = [...document.querySelectorAll("article svg, article .cell_output img")];
        const there = all.some((of) => of.getBoundingClientRect().height > 20
            && (of.tagName === "svg" || of.complete));
        if (there) requestAnimationFrame(() => { window.firstAt = performance.now(); });
        else requestAnimationFrame(look);
    };
    look();
}"""
LOADED = """() => [performance.getEntriesByType("navigation")[0],
    ...performance.getEntriesByType("resource")]
    .map(({ name, responseEnd, transferSize }) => [name, responseEnd, transferSize])"""


class Packing(Handler):
    """Packs text on its way."""

    def do_GET(self):  # noqa: N802, so it is called
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return self.send_error(404)
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        if path.suffix in (".html", ".css", ".js", ".svg"):
            content = gzip.compress(content, 6)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture(scope="module")
def site() -> Path:
    path = Path(os.environ.get("GAP_SITE", ROOT / "site")).resolve()
    if not (path / "index.html").exists():
        pytest.skip(f"there is no site in {path}; run make site")
    return path


@pytest.fixture(scope="module")
def address(site):
    with served(site, Packing) as address:
        yield address


def test_sizes(site):
    sizes = {kind: 0 for kind in ("html", "js", "css", "png", "gif", "frames")}
    for path in site.rglob("*"):
        kind = path.suffix.lstrip(".")
        if path.is_file():
            sizes[kind] = sizes.get(kind, 0) + path.stat().st_size
    print(f"\n\nThe site: {sum(sizes.values()) / 1e6:.1f} MB")
    for kind, size in sorted(sizes.items(), key=lambda item: -item[1])[:7]:
        print(f"  {kind:8} {size / 1e6:6.1f} MB")
    for name in lab_cells():
        size = (site / "_static" / "labs" / f"{name}.frames").stat().st_size
        print(f"  frames of {name:6} {size / 1e6:5.2f} MB")
        assert size <= 3_000_000


@pytest.mark.parametrize("name", ["index", *[f"notebooks/{lesson}" for lesson in LESSONS]])
def test_first_picture(address, browser, name):
    with new_page(browser, 1200, 900) as page:
        page.add_init_script(f"({FIRST})()")
        network = page.context.new_cdp_session(page)
        network.send("Network.enable")
        limits = {"downloadThroughput": SPEED, "uploadThroughput": SPEED, "latency": DELAY}
        network.send("Network.emulateNetworkConditions", {"offline": False, **limits})
        page.goto(f"{address}{name}.html")
        page.wait_for_load_state("networkidle")
        first = page.evaluate("window.firstAt ?? null")
        loaded = page.evaluate(LOADED)
        if first is None:
            return print(f"\n  {name:48} has no picture before one scrolls")
        before = sum(size for _, end, size in loaded if end <= first)
        frames = [end for of, end, _ in loaded if of.endswith(".frames")]
        said = f", frames after {min(frames):5.0f} ms" if frames else ""
        print(
            f"\n  {name:48} first picture after {first:5.0f} ms and {before / 1e3:5.0f} kB, "
            f"all {sum(size for *_, size in loaded) / 1e3:5.0f} kB{said}"
        )


@pytest.mark.parametrize("name", lab_cells())
def test_steps(site, address, browser, name):
    told = labs_of(site)[name]
    label = next(c["label"] for c in told.opening["controls"] if c["kind"] == "slider")
    with new_page(browser, 1200, 900) as page:
        page.set_content(FLOOR)
        root = page.locator(".floor")
        root.evaluate(MEASURE)
        floor = time_steps(page, root, "")
        page.emulate_media(reduced_motion="reduce")  # what moves by itself is not a step
        page.goto(address + told.page)
        root = page.locator(f"[data-frames$='/{name}.frames'] .gap-lab")
        root.scroll_into_view_if_needed()
        page.wait_for_load_state("networkidle")
        root.evaluate(MEASURE)
        track = root.get_by_role("slider", name=label, exact=True)
        track.press("Home")
        places = int(track.get_attribute("max")) - int(track.get_attribute("min"))
        steps = time_steps(page, root, label, min(48, places))
        print(f"\n\n{told.name} ({name}), {label}: milliseconds to the new picture")
        report("a word alone, the floor", floor)
        report(f"{len(steps)} steps", steps, floor)
        if places > 20:
            report("jumps", time_jumps(page, root, label), floor)
