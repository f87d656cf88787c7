"""What the package needs is known in its project, and where pip installed it."""

from __future__ import annotations

from importlib import metadata

import pytest

from gap_utils import requirements
from nbval_pictures import pinned_versions

OF_ANOTHER = '[project]\nname = "another"\n'


def test_in_the_project_the_ranges_are_those_of_pyproject():
    needs = {need.name: need.specifier for need in requirements.requirements()}
    assert str(needs["torch"]) == ">=2.6"
    assert all(pinned_versions()[name] in specifier for name, specifier in needs.items())
    assert len(needs) >= 15


@pytest.mark.parametrize("beside", [None, OF_ANOTHER])
def test_where_pip_installed_it_they_are_those_that_pip_noted(tmp_path, monkeypatch, beside):
    if beside:
        (tmp_path / "pyproject.toml").write_text(beside)
    monkeypatch.setattr(requirements, "__file__", str(tmp_path / "gap_utils" / "requirements.py"))
    monkeypatch.setattr(metadata, "version", {"gap_utils": "0.1.0"}.__getitem__)
    monkeypatch.setattr(metadata, "requires", {"gap_utils": ["tqdm>=4.60"]}.__getitem__)
    assert [str(need) for need in requirements.requirements()] == ["tqdm>=4.60"]


def test_a_copy_of_the_package_alone_says_nothing(tmp_path, monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(requirements, "__file__", str(tmp_path / "gap_utils" / "requirements.py"))
    monkeypatch.setattr(metadata, "version", version)
    assert requirements.requirements() == []
    requirements.install_missing()
