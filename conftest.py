"""Pictures are compared too, also by a plain `pytest --nbval notebooks`."""

import pytest

pytest_plugins = ["nbval_pictures", "browser_fixtures"]  # in tests/support


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which `make test` uses
def pytest_xdist_make_scheduler(config, log):
    """Give a process whole files, and all files of the browser to one: one JupyterLab will do."""
    from xdist.scheduler import LoadFileScheduling

    class LoadFilesAndBrowser(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "tests/browser" if file.startswith("tests/browser/") else file

    return LoadFilesAndBrowser(config, log) if config.option.dist == "loadfile" else None
