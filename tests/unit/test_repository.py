"""What others need to join or to open the project: GitHub, pre-commit, Binder and Codespaces."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from gap_utils import widgets
from nbval_pictures import ROOT, pinned_versions

GITHUB = ROOT / ".github"
FORMS = sorted(path for path in GITHUB.glob("ISSUE_TEMPLATE/*.yml") if path.stem != "config")
AUTHORS = "the GAP lessons' authors"


def read(path: str | Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def load(path: str | Path):
    return yaml.safe_load(read(path))


def value(name: str) -> str:
    """One line of pyproject.toml, which Python 3.10 has no reader for."""
    return re.search(rf'^{name} = "(.*)"$', read("pyproject.toml"), re.M)[1]


def test_all_name_the_same_authors_version_and_home():
    citation = load("CITATION.cff")
    assert citation["authors"] == [{"name": AUTHORS}]
    assert f'authors = [{{ name = "{AUTHORS}" }}]' in read("pyproject.toml")
    assert f"\nCopyright (c) 2026 {AUTHORS}\n" in read("LICENSE")
    newest = re.search(r"^## (\S+?),? ", read("CHANGELOG.md"), re.M)[1]
    assert newest == str(citation["version"]) == value("version")
    published = re.search(r'^Homepage = "(.*)"$', read("pyproject.toml"), re.M)
    assert citation.get("repository-code") == (published and published[1])


def test_each_licence_is_there_in_full():
    mit, text = read("LICENSE"), read("LICENSES/CC-BY-4.0.txt")
    assert mit.startswith("MIT License\n") and mit.endswith("IN THE\nSOFTWARE.\n")
    assert text.startswith("Attribution 4.0 International\n")
    assert [int(n) for n in re.findall(r"^Section (\d) -- ", text, re.M)] == [*range(1, 9)]
    for path in ("LICENSE", "LICENSES/CC-BY-4.0.txt", "gap_utils/assets/README.md"):
        assert f"]({path})" in read("CONTRIBUTING.md")


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CHANGELOG.md", "docs/install.md"])
def test_the_targets_of_make_that_a_page_names_are_there(name):
    targets = re.findall(r"^([\w-]+):", read("Makefile"), re.M)
    named = re.findall(r"(?:`|^)make ([a-z-]+)", read(name), re.M)
    assert named and {*named} <= {*targets}


def test_the_guide_to_install_takes_the_pytorch_that_is_pinned():
    versions = re.findall(r"\b(torch\w*)==([\d.]+)", read("docs/install.md"))
    assert versions == [(name, pinned_versions()[name]) for name in ("torch", "torchvision")]


def test_the_names_of_the_forms():
    assert [load(path)["name"] for path in FORMS] == [
        "A lab that breaks",
        "An exercise that is unfair",
        "A wrong statement",
    ]
    assert load(GITHUB / "ISSUE_TEMPLATE" / "config.yml") == {"blank_issues_enabled": True}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_is_one_that_github_takes(path):
    form = load(path)
    assert [*form] == ["name", "description", "title", "body"]
    ids = [field["id"] for field in form["body"]]
    labels = [field["attributes"]["label"] for field in form["body"]]
    assert len({*ids}) == len({*labels}) == len(form["body"]) >= 3
    assert all(re.fullmatch(r"[a-z]+", name) for name in ids)
    for field in form["body"]:
        known = {
            "input": {"label", "description", "placeholder"},
            "textarea": {"label", "description", "render"},
            "dropdown": {"label", "options"},
        }[field["type"]]
        assert {*field["attributes"]} <= known, field["id"]
        assert field.get("validations", {"required": True}) == {"required": True}
        options = field["attributes"].get("options", [])
        assert len({*options}) == len(options)
        assert all(isinstance(option, str) and option for option in options)
    # nobody can send an empty one
    assert sum("validations" in field for field in form["body"]) >= 3


def test_the_form_for_labs_lists_all_of_them_and_its_cell_runs(capsys):
    fields = {
        field["id"]: field for field in load(GITHUB / "ISSUE_TEMPLATE/broken_lab.yml")["body"]
    }
    assert fields["lab"]["attributes"]["options"] == sorted(widgets.__all__)
    (cell,) = re.findall(
        r"```python\n(.+?)```", fields["versions"]["attributes"]["description"], re.S
    )
    exec(cell, {})
    python, *packages = capsys.readouterr().out.strip().rsplit("\n", 3)
    assert python == f"{sys.version} {sys.platform}"
    assert packages == [f"{name} {version(name)}" for name in ("anywidget", "ipywidgets", "torch")]


def test_every_python_that_is_promised_is_in_the_classifiers():
    lowest = int(value("requires-python").removeprefix(">=3."))
    found = re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', read("pyproject.toml"))
    assert [*map(int, found)] == [*range(lowest, 15)]
    for page in ("README.md", "CONTRIBUTING.md", "docs/install.md"):
        assert f"Python 3.{lowest} to 3.14" in read(page)


def test_the_workflow_tests_the_oldest_and_the_newest_python_with_few_rights():
    workflow = load(GITHUB / "workflows" / "test.yml")
    linux, elsewhere = workflow["jobs"]["linux"], workflow["jobs"]["elsewhere"]
    assert {*workflow[True]} == {"push", "pull_request", "workflow_dispatch"}  # YAML reads "on"
    assert workflow["permissions"] == {}
    assert linux["permissions"] == elsewhere["permissions"] == {"contents": "read"}
    promised = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', read("pyproject.toml"))
    # 3.11 is the one that .ci/run tests the web site with
    assert linux["strategy"]["matrix"]["python"] == [promised[0], "3.11", promised[-1]]
    assert linux["steps"][-1] == {"run": ".ci/run"}
    assert os.access(ROOT / ".ci" / "run", os.X_OK) or os.name == "nt"
    assert elsewhere["strategy"]["matrix"]["system"] == ["macos-latest", "windows-latest"]
    words = " ".join(step.get("run", "") for step in elsewhere["steps"]).split()
    files = [word for word in words if "/" in word or word in ("notebooks",) or ".txt" in word]
    assert files == ["requirements.txt", "requirements-tests.txt", "tests/unit", "notebooks"]
    assert all((ROOT / name).exists() for name in files)


def test_the_workflows_use_the_same_actions():
    used = {}
    for path in GITHUB.glob("workflows/*.yml"):
        for action, major in re.findall(r"uses: ([\w/-]+)@(\S+)", read(path)):
            assert used.setdefault(action, major) == major, path.name
    assert {"actions/checkout", "actions/setup-python"} < {*used}
    assert all(re.fullmatch(r"v\d+", major) for major in used.values())


def test_pre_commit_has_the_ruff_of_the_tests_and_the_rules_of_the_lessons():
    (repository,) = load(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"  # nothing is fetched but packages
    hooks = {hook["id"]: hook for hook in repository["hooks"]}
    pin = re.search(r"^ruff==\S+", read("requirements-tests.txt"), re.M)[0]
    assert {hook["language"] for hook in hooks.values()} == {"python"}
    for name in ("ruff-check", "ruff-format"):
        assert hooks[name]["additional_dependencies"] == [pin]
    rules = hooks["lessons"]
    assert (ROOT / rules["entry"].split()[-1]).is_file()
    for path, wanted in [
        ("notebooks/00_start_here.ipynb", True),
        ("docs/install.md", True),
        ("CHANGELOG.md", True),
        ("gap_utils/pooling.py", False),
    ]:
        assert bool(re.search(rules["files"], path)) == wanted, path


def test_vs_code_starts_a_lesson_in_its_own_folder():
    """Where the setup cell looks for gap_utils, whatever the user's own settings say."""
    settings = json.loads(read(".vscode/settings.json"))
    assert settings == {"jupyter.notebookFileRoot": "${fileDirname}"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no make")
def test_the_dev_container_makes_the_environment_that_its_editor_takes(tmp_path):
    container = json.loads(read(".devcontainer/devcontainer.json"))
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    make, *rest = container["postCreateCommand"].split()
    run = subprocess.run([make, "-n", *rest], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "-m venv --clear .venv\n" in run.stdout
    torch = f"torch=={pinned_versions()['torch']}"
    assert re.search(rf" {torch} .*--index-url \S+/cpu ", run.stdout)
    editor = container["customizations"]["vscode"]["settings"]
    assert editor["python.defaultInterpreterPath"].endswith("/.venv/bin/python")


def test_binder_installs_what_conda_does_with_the_pytorch_for_cpus():
    conda, binder = load("environment.yml"), load(".binder/environment.yml")
    *packages, pip = conda["dependencies"]
    assert pip == {"pip": ["-r requirements.txt"]}
    *same, small = binder["dependencies"]
    assert (same, binder["channels"]) == (packages, conda["channels"])
    index, requirements = small["pip"]
    assert index == "--extra-index-url https://download.pytorch.org/whl/cpu"
    # beside the file, as pip and conda read it
    path = ROOT / ".binder" / requirements.removeprefix("-r ")
    assert path.resolve() == ROOT / "requirements.txt"


def test_binder_reads_that_file():
    tool = shutil.which("jupyter-repo2docker")
    if tool is None:
        pytest.skip("jupyter-repo2docker is not on the PATH")
    command = [tool, "--no-build", "--debug", "."]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    dockerfile = run.stderr + run.stdout
    assert "environment.py-3.12" in dockerfile.replace("-2d", "-").replace("-2e", ".")
    assert 'env update -p ${NB_PYTHON_PREFIX} --file ".binder/environment.yml"' in dockerfile
    # requirements.txt is there when pip asks for it
    assert dockerfile.index("COPY --chown=") < dockerfile.index(' --file ".binder/')
    assert dockerfile.index(" src/ ${REPO_DIR}/") < dockerfile.index(' --file ".binder/')
