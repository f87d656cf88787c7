"""The built site, served, and a browser that reaches nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from built_site import (
    TRAINED,
    Kernel,
    Packed,
    Walker,
    frames_of,
    lab_cells,
    lab_in_python,
    labs_of,
    served,
)
from driver import new_page, press_button, start_chromium
from nbval_pictures import ROOT


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The folder that GAP_SITE names, or one that is built now."""
    if given := os.environ.get("GAP_SITE"):
        assert (Path(given) / "index.html").exists(), f"expected a built site in {given}"
        return Path(given).resolve()
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the site is built with Python 3.11")
    if find_spec("sphinx") is None:
        reason = "the site needs requirements-site.txt; run make test-site"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    target = tmp_path_factory.mktemp("site") / "site"
    subprocess.run([sys.executable, "-m", "tools.build_site", target], check=True, cwd=ROOT)
    return target


@pytest.fixture(scope="session")
def address(site):
    with served(site) as address:
        yield address


class Visitor:
    """A reader's browser, which notes what a page should not do.

    Attributes:
        page: of Playwright.
        wrong: errors of scripts, files that are missing, and addresses elsewhere.
    """

    def __init__(self, page, address: str):
        self.page, self.address = page, address
        self.wrong: list[str] = []
        page.set_default_timeout(10_000)
        page.context.route(re.compile(f"^(?!{re.escape(address)})"), self._refuse)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("response", self._check)

    def open(self, name: str) -> None:
        """Open a page anew, by its file."""
        self.page.goto(f"{self.address}{name}")

    def _refuse(self, route):
        self.wrong.append(f"elsewhere: {route.request.url}")
        route.abort()

    def _check(self, response):
        if response.status >= 400 and not response.url.endswith("/favicon.ico"):
            self.wrong.append(f"{response.status}: {response.url}")


@pytest.fixture(scope="session")
def browser(chromium):
    with start_chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def visit(browser, address):
    """Open a page with the options of Playwright's `new_page`."""

    @contextmanager
    def visit_(width: int = 1200, height: int = 900, **options):
        with new_page(browser, width, height, **options) as page:
            visitor = Visitor(page, address)
            yield visitor
            assert visitor.wrong == []

    return visit_


@pytest.fixture(scope="module")
def only_visitor(visit, chromium):
    with visit() as visitor:
        yield visitor


@pytest.fixture
def visitor(only_visitor):
    """One browser for all tests of a file; each opens its page."""
    only_visitor.wrong.clear()
    yield only_visitor
    assert only_visitor.wrong == []


@pytest.fixture(scope="module", params=lab_cells())
def name(request):
    return request.param


@pytest.fixture(scope="module")
def walk(site, only_visitor, name):
    """The page of a lab, opened once; gives the lab as it begins, as often as one likes."""
    told, frames = labs_of(site)[name], frames_of(site, name)
    kernel = Packed(frames) if name in TRAINED else Kernel(lab_in_python(told))
    page = only_visitor.page
    page.emulate_media(reduced_motion="reduce")  # the lab of the first page stands still
    only_visitor.open(told.page)
    root = page.locator(f"[data-frames$='/{name}.frames'] .gap-lab")

    def begin() -> Walker:
        press_button(root, "Start again")
        return Walker(root, told, frames, kernel)

    return begin
