"""The package as a whole: what importing it costs, its examples, its versions."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import gap_utils
from nbval_pictures import ROOT, pinned_versions

MODULES = [m.name for m in pkgutil.walk_packages(gap_utils.__path__, "gap_utils.")]


def fresh_process(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_importing_the_package_alone_loads_nothing():
    heavy = {"torch", "numpy", "matplotlib", "seaborn", "PIL", "ipywidgets", "anywidget"}
    loaded = fresh_process("import sys, gap_utils; print(*sys.modules)").split()
    assert "gap_utils" in loaded
    assert heavy.isdisjoint(loaded)


@pytest.mark.slow
def test_labs_need_neither_matplotlib_nor_torchvision():
    loaded = fresh_process("import sys, gap_utils.widgets; print(*sys.modules)").split()
    assert {"matplotlib", "resvg_py", "seaborn", "torchvision"}.isdisjoint(loaded)


@pytest.mark.slow
def test_importing_changes_no_settings():
    fresh_process(
        f"""if True:
        import importlib, random, torch
        from matplotlib import rcParams

        def settings():
            seeds = random.getstate(), torch.get_rng_state().tolist()
            return seeds, torch.get_num_threads(), torch.get_default_dtype(), dict(rcParams)

        before = settings()
        for name in {MODULES}:
            importlib.import_module(name)
            assert settings() == before, name
        """
    )


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_the_docstrings(module):
    loaded = importlib.import_module(module)
    names = {"torch": importlib.import_module("torch"), **vars(loaded)}
    assert doctest.testmod(loaded, extraglobs=names).failed == 0


def test_the_package_has_examples():
    finder = doctest.DocTestFinder()
    examples = [t for m in MODULES for t in finder.find(importlib.import_module(m)) if t.examples]
    assert len(examples) >= 10


def test_imports_run_one_way():
    allowed = {
        "values": set(),
        "requirements": set(),
        "verdict": set(),
        "device": set(),
        "shapes": {"device"},
        "data": set(),
        "models": {"pooling", "values"},
        "photos": set(),
        "study": {"models"},
        "pooling": {"values"},
        "figures": {"values"},
        "svg": {"figures"},
        "inference": {"data", "values"},
        "training": {"data", "device", "inference", "values"},
        "robustness": {"data", "inference", "values"},
        "localisation": {"data", "values"},
        "activations": {"inference"},
        "backbones": {"activations", "inference", "shapes", "values"},
        "checks": {
            "values",
            "verdict",
            "pooling",
            "models",
            "localisation",
            "study",
            "activations",
            "checks",
        },
        "widgets": {
            "values",
            "verdict",
            "pooling",
            "shapes",
            "svg",
            "data",
            "models",
            "inference",
            "robustness",
            "localisation",
            "study",
            "activations",
            "photos",
            "backbones",
            "widgets",
        },
    }
    for path in Path(gap_utils.__path__[0]).rglob("*.py"):
        relative = path.relative_to(gap_utils.__path__[0])
        if ".ipynb_checkpoints" in relative.parts:  # where somebody opened a source in JupyterLab
            continue
        name = relative.parts[0].removesuffix(".py")
        used = set(re.findall(r"^\s*(?:from|import) gap_utils\.(\w+)", path.read_text(), re.M))
        assert name == "__init__" or used <= allowed[name], f"{relative} imports {used}"


def project_table() -> str:
    return (ROOT / "pyproject.toml").read_text()


def test_requirements_are_exact_pins_inside_the_ranges_of_pyproject():
    pins = pinned_versions()
    assert pins["torch"] == "2.14.1"
    assert pins["torchvision"] == "0.29.1"
    assert {"anywidget", "resvg-py"} <= pins.keys()
    block = re.search(r"^dependencies = \[(.*?)^\]", project_table(), re.M | re.S)[1]
    ranges = [Requirement(text) for text in re.findall(r'"(.+?)"', block)]
    assert len(ranges) >= 6
    for wanted in ranges:
        assert wanted.name in pins, f"{wanted.name} has no pin in requirements.txt"
        assert pins[wanted.name] in wanted.specifier


@pytest.mark.parametrize("path", sorted(ROOT.glob("requirements*.txt")), ids=lambda path: path.stem)
def test_every_requirement_is_one_exact_pin_and_says_why(path):
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.match(r"[\w-]+==[\d.]+(; python_version [<>=]+ \"3\.\d+\")?(  # \S|$)", line)


def test_no_package_is_pinned_in_two_files():
    texts = [path.read_text() for path in ROOT.glob("requirements*.txt")]
    names = [name for text in texts for name in {*re.findall(r"^([\w-]+)==", text, re.M)}]
    assert {"torch", "pytest", "sphinx"} <= {*names}
    assert len(names) == len({*names})


def test_environment_yml_takes_its_versions_from_requirements():
    text = (ROOT / "environment.yml").read_text()
    assert re.search(r"^  - pip:\n      - -r requirements\.txt$", text, re.M)
    python = re.search(r"^  - python=(3\.\d+)$", text, re.M)[1]
    lowest = re.search(r'requires-python = ">=(3\.\d+)"', project_table())[1]
    assert (3, 10) <= tuple(map(int, lowest.split("."))) <= tuple(map(int, python.split(".")))
