"""A learner's JupyterLab, for the browser tests and the benchmarks.

The driver and the tools are imported where they are used: `pytest --nbval notebooks` loads these
fixtures too, and must need neither them nor Playwright.
"""

from __future__ import annotations

import os
import shutil

import nbformat
import pytest

from nbval_pictures import ROOT


@pytest.fixture(scope="session")
def chromium():
    """Skip without a browser, but never where the whole suite is meant to run."""
    from driver import find_chromium

    if find_chromium() is None:
        reason = "no Chromium or Chrome was found; install one, or name it in CHROMIUM"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A copy of the project to serve, so that nothing is saved into the real one."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "gap_utils", folder / "gap_utils")
    (folder / "notebooks").mkdir()
    return folder


@pytest.fixture(scope="session")
def server(project, tmp_path_factory, chromium):
    from driver import serve_jupyterlab

    with serve_jupyterlab(project, tmp_path_factory.mktemp("jupyter")) as server:
        yield server


@pytest.fixture(scope="module")  # while it runs, asyncio.run() is an error
def browser(chromium):
    from driver import start_chromium

    with start_chromium() as browser:
        yield browser


@pytest.fixture
def page(browser):
    from driver import new_page

    with new_page(browser) as page:
        yield page


@pytest.fixture(scope="module")
def only_page(browser):
    from driver import new_page
    from page_host import serve

    with new_page(browser, 1000, 900, has_touch=True) as page:
        page.set_default_timeout(5000)
        page.route("**/*", serve)
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page, errors


@pytest.fixture
def lab_page(only_page, monkeypatch):
    """A page without Jupyter whose time stands still; see `page_host`."""
    from gap_utils.widgets import lab as lab_module
    from page_host import open_page

    # what is sent does not depend on how busy the machine is
    monkeypatch.setattr(lab_module, "LONGEST_ANSWER", 100)
    page, errors = only_page
    errors.clear()
    open_page(page)
    yield page
    assert not errors


@pytest.fixture
def host(lab_page):
    from every_control import Everything
    from page_host import PageHost

    return PageHost(lab_page, Everything())


@pytest.fixture
def open_lesson(project, server, page):
    """Open a fresh copy of a lesson, with a kernel of its own."""
    from driver import LabPage

    opened = []

    def open_(name: str, source=ROOT / "notebooks") -> LabPage:
        shutil.copy(source / name, project / "notebooks" / name)
        opened.append(LabPage(page, server, f"notebooks/{name}"))
        return opened[-1]

    yield open_
    for lesson in opened:
        lesson.close()


@pytest.fixture(scope="module")
def lesson(project, server, browser, request):
    """The lesson that the test's module names, with the cells run that a learner touches.

    And those that they need; nbval runs all cells. Once for the tests of the module.
    """
    from driver import LabPage, new_page
    from tools.lesson_cells import keep_what_a_learner_touches

    name = request.module.LESSON
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    keep_what_a_learner_touches(notebook, *getattr(request.module, "ALSO", ()))
    text = nbformat.writes(notebook)
    for long, short in getattr(request.module, "SHORTER", {}).items():
        assert long in text
        text = text.replace(long, short)
    (project / "notebooks" / name).write_text(text, encoding="utf-8")
    with new_page(browser) as page:
        lesson = LabPage(page, server, f"notebooks/{name}")
        try:
            lesson.run_all()
            yield lesson
        finally:
            lesson.close()


@pytest.fixture
def lab(lesson, request):
    """The lab that the test's module names, in view, as it is when it is made."""
    from driver import press_button

    lab = lesson.lab(request.module.LAB)
    press_button(lab, "Start again")
    return lab
