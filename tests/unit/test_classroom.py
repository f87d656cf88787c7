"""A class on one server is refused where it would not be safe. tests/classroom runs a real one."""

import asyncio
import os
import re
import runpy
import subprocess
import sys
from types import SimpleNamespace

import pytest

from nbval_pictures import ROOT

pwd = pytest.importorskip("pwd", reason="a class is served on Linux alone")

from classroom import accounts, settings  # noqa: E402
from classroom.lessons import copy_lessons  # noqa: E402


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ADDRESS", "http://0.0.0.0:8000", "expected https in GAP_CLASS_ADDRESS, got http://0.0"),
        ("ADDRESS", "https://0.0.0.0:8000", "expected a file in GAP_CLASS_CERTIFICATE, since"),
        ("ADDRESS", "0.0.0.0:8000", "expected an address such as https"),
        ("ADDRESS", "http://127.0.0.1", "expected an address such as https"),
        ("ADDRESS", "http://127.0.0.1:port", "expected an address such as https"),
        ("ADDRESS", "", "expected an address such as https"),
        ("KEY", "/key.pem", "expected nothing in GAP_CLASS_KEY, since the address is http"),
        ("MEMORY", "1G", "expected at least 2G in GAP_CLASS_MEMORY, got 1.0G"),
        ("MEMORY", "lots", "expected memory such as 2500M or 4G in GAP_CLASS_MEMORY, got lots"),
        ("THREADS", "0", "expected a whole number from 1 in GAP_CLASS_THREADS, got 0"),
        ("KERNELS", "2.5", "expected a whole number from 1 in GAP_CLASS_KERNELS, got 2.5"),
        ("IDLE_MINUTES", "-1", "expected a whole number from 1 in GAP_CLASS_IDLE_MINUTES, got -1"),
        ("STATE", "here", "expected a folder from the root .* in GAP_CLASS_STATE, got here"),
        ("LESSONS", "student", "expected a folder from the root .* in GAP_CLASS_LESSONS, got stud"),
        ("PASSWORD", "secret", "expected one of GAP_CLASS_ADDRESS, .*, got GAP_CLASS_PASSWORD"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(name, value, said):
    with pytest.raises(ValueError, match=said):
        settings.read_settings({f"GAP_CLASS_{name}": value}, cores=2, learners=1)


@pytest.mark.parametrize(("cores", "learners", "threads"), [(2, 16, 1), (32, 10, 3), (4, 0, 4)])
def test_learners_share_the_threads(cores, learners, threads):
    assert settings.read_settings({}, cores, learners).threads == threads
    chosen = settings.read_settings({"GAP_CLASS_THREADS": "7"}, cores, learners)
    assert chosen.threads == 7


def as_root(monkeypatch, secret: str) -> None:
    """Root, on a machine where an account has this in its line of passwords."""

    def run(command, **_):
        assert command[:2] == ["getent", "shadow"]
        return SimpleNamespace(stdout=f"{command[2]}:{secret}:20000:0:99999:7:::\n")

    monkeypatch.setattr(settings.os, "geteuid", lambda: 0)
    monkeypatch.setattr(settings.subprocess, "run", run)


@pytest.mark.skipif(sys.platform != "linux", reason="a class is served on Linux alone")
def test_a_machine_that_cannot_keep_learners_apart_is_refused(monkeypatch):
    ours = settings.Settings()
    as_root(monkeypatch, "$y$j9T$salt$hash")
    with pytest.raises(ValueError, match="expected learners in the group gap-learners, got none"):
        settings.check_machine(ours, [])
    with pytest.raises(ValueError, match="expected learners only, got root"):
        settings.check_machine(ours, ["root"])
    monkeypatch.setattr(settings.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(settings.pwd, "getpwuid", lambda _: SimpleNamespace(pw_name="ada"))
    with pytest.raises(ValueError, match="expected to be started as root, with sudo, got the user"):
        settings.check_machine(ours, ["daemon"])


@pytest.mark.skipif(sys.platform != "linux", reason="a class is served on Linux alone")
@pytest.mark.parametrize("secret", ["", "!", "*", "!$y$j9T$salt$hash"])
def test_a_learner_without_a_password_is_refused(monkeypatch, secret):
    as_root(monkeypatch, secret)
    with pytest.raises(ValueError, match="expected a password for each learner, got none for daem"):
        settings.check_machine(settings.Settings(), ["daemon"])


@pytest.mark.skipif(sys.platform != "linux", reason="a class is served on Linux alone")
def test_a_learner_whose_folder_is_open_is_refused(monkeypatch, tmp_path):
    as_root(monkeypatch, "$y$j9T$salt$hash")
    learner = SimpleNamespace(pw_uid=1000, pw_gid=1000, pw_dir=str(tmp_path))
    monkeypatch.setattr(settings.pwd, "getpwnam", lambda _: learner)
    tmp_path.chmod(0o750)
    with pytest.raises(ValueError, match="expected a folder that nobody but ada can read, got /"):
        settings.check_machine(settings.Settings(), ["ada"])
    tmp_path.chmod(0o700)
    with pytest.raises(
        ValueError, match=r"expected a folder with 00_start_here.ipynb in GAP_CLASS"
    ):
        settings.check_machine(settings.Settings(lessons=tmp_path), ["ada"])


def test_the_hub_says_in_a_sentence_that_it_does_not_start(monkeypatch):
    monkeypatch.setenv("GAP_CLASS_GROUP", "a-group-that-is-nowhere")
    umask = os.umask(0o022)
    os.umask(umask)
    with pytest.raises(SystemExit, match=r"The class does not start: expected .*, got .*"):
        runpy.run_path(
            str(ROOT / "classroom/jupyterhub_config.py"), {"get_config": SimpleNamespace}
        )
    assert os.umask(umask) == umask  # it had changed nothing yet


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "got an empty file"),
        ("Anna", "got 'Anna'"),
        ("anna; reboot", "got 'anna; reboot'"),
        ("../anna", "got '../anna'"),
        ("-anna", "got '-anna'"),
        ("a" * 21, "at most 20"),
        ("anna\nben\nanna", "got 'anna' twice"),
    ],
)
def test_what_cannot_be_the_name_of_a_learner_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        accounts.read_names(text)


def test_no_account_of_the_machine_becomes_a_learner(monkeypatch):
    monkeypatch.setattr(accounts.subprocess, "run", lambda *_, **__: pytest.fail("it was changed"))
    with pytest.raises(ValueError, match="got 'daemon', which is an account outside the group"):
        accounts.add_learners(["daemon"])


def test_lessons_that_are_missing_come_back_and_others_stay(tmp_path):
    copy_lessons(ROOT / "notebooks", tmp_path)
    first, second, *_ = sorted((tmp_path / "notebooks").iterdir())
    assert len([*(tmp_path / "notebooks").iterdir()]) == 10
    first.write_text("mine")
    original = second.read_bytes()
    second.unlink()
    copy_lessons(ROOT / "notebooks", tmp_path)
    assert first.read_text() == "mine"
    assert second.read_bytes() == original
    assert (tmp_path / "gap_utils/pooling.py").samefile(ROOT / "gap_utils/pooling.py")
    (tmp_path / "gap_utils").unlink()
    (tmp_path / "gap_utils").symlink_to(tmp_path / "where the project was")
    copy_lessons(ROOT / "notebooks", tmp_path)
    assert (tmp_path / "gap_utils/pooling.py").samefile(ROOT / "gap_utils/pooling.py")


def test_the_terminal_of_the_hub_can_be_written_to_and_not_read():
    code = """if True:
        import os, sys
        from classroom.settings import let_nobody_read_the_terminal
        let_nobody_read_the_terminal()
        assert os.read(0, 1) == b""
        for number in (1, 2):
            try:
                os.read(number, 1)
            except OSError:
                os.write(number, b"kept")
    """
    master, terminal = os.openpty()
    files = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=20, **files)
    os.close(terminal)
    said = os.read(master, 1000)
    os.close(master)
    assert (run.returncode, said) == (0, b"keptkept")


def test_a_learner_has_no_more_kernels_than_said(monkeypatch):
    monkeypatch.setenv("GAP_CLASS_KERNELS", "2")
    from classroom.kernels import FewKernelsManager

    manager = FewKernelsManager()
    monkeypatch.setattr(FewKernelsManager, "__len__", lambda _: 2)
    with pytest.raises(Exception, match="expected at most 2 lessons at work at once"):
        asyncio.run(manager.start_kernel())


@pytest.mark.slow
def test_nothing_loaded_beforehand_has_asked_for_a_notebook():
    code = f"""if True:
        import importlib, sys
        sys.path.insert(0, {str(ROOT)!r})
        from classroom.warm_processes import WARM
        for name in WARM:
            if not name.startswith("jupyter"):
                importlib.import_module(name)
        print(*sys.modules)
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    assert {"torch", "torchvision", "pandas", "gap_utils.checks"} <= {*loaded}
    asks = {"ipywidgets", "anywidget", "tqdm.auto", "timm", "matplotlib_inline.backend_inline"}
    assert asks.isdisjoint(loaded)


def test_the_proxy_has_one_version():
    places = ("Makefile", "docs/classroom.md", "classroom/jupyterhub_config.py")
    texts = [(ROOT / place).read_text() for place in places]
    found = [{*re.findall(r"configurable-http-proxy@([\d.]+)", text)} for text in texts]
    assert len(found[0]) == 1
    assert found == [found[0]] * 3
