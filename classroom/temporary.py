"""A class that is there for a test: accounts, a hub, and nothing left of them afterwards."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from classroom.accounts import add_learners
from classroom.settings import ROOT, learners_of

GROUP = "gap-load-test"
LONGEST_START = 60  # seconds
LONGEST_END = 40


@dataclass(frozen=True)
class Class:
    """A hub that runs, with its learners.

    Attributes:
        address: of the hub.
        passwords: of the learners, by name.
        hub: the number of the hub's process group.
        log: what the hub and its servers write.
    """

    address: str
    passwords: dict[str, str]
    hub: int
    log: Path


@contextmanager
def temporary_class(learners: int, **settings: str) -> Iterator[Class]:
    """Make accounts, start a hub for them, and take all of it away again, whatever happens.

    Args:
        learners: how many.
        settings: more of the variables `GAP_CLASS_…`.

    Raises:
        RuntimeError: if the hub does not start, with what it said.
    """
    if os.geteuid() != 0:
        raise RuntimeError("expected to be started as root, with sudo: only root makes accounts")
    with _no_other():
        remove_accounts()  # of a test that was killed
        state = Path(tempfile.mkdtemp(prefix="gap-load-test-"))
        state.chmod(0o711)
        try:
            passwords = add_learners([f"gap-load-{n:02}" for n in range(1, learners + 1)], GROUP)
            with _hub(state, settings) as (address, hub, log):
                yield Class(address, passwords, hub, log)
        finally:
            remove_accounts()
            shutil.rmtree(state)


@contextmanager
def _no_other() -> Iterator[None]:
    """See that there is one such class at a time, since the accounts have fixed names."""
    with open("/run/gap-load-test.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError("expected no other load test on this machine, got one") from None
        yield


@contextmanager
def _hub(state: Path, settings: dict[str, str]) -> Iterator[tuple[str, int, Path]]:
    port, hub_port, proxy_port = _free_ports(3)
    address = f"http://127.0.0.1:{port}"
    own = {"GAP_CLASS_ADDRESS": address, "GAP_CLASS_GROUP": GROUP, "GAP_CLASS_STATE": str(state)}
    options = [
        f"--config={ROOT / 'classroom' / 'jupyterhub_config.py'}",
        f"--JupyterHub.hub_port={hub_port}",
        f"--ConfigurableHTTPProxy.api_url=http://127.0.0.1:{proxy_port}",
        # the browser among the learners presses the entries of JupyterLab's menus
        f"--Spawner.args=--config={ROOT / 'classroom' / 'server_config.py'}",
        "--Spawner.args=--LabApp.expose_app_in_browser=True",
    ]
    log = state / "hub.log"
    with open(log, "w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", *options],
            cwd=state,
            env={**os.environ, **own, **settings},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the test, which then ends the hub
        )
    try:
        _wait_for(f"{address}/hub/api/", process, log)
        _wait_for_file(state / "warm.sock", process, log)
        yield address, process.pid, log
    finally:
        process.terminate()
        try:
            process.wait(LONGEST_END)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    began = time.monotonic()
    while True:
        try:
            return urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            _check_start(began, process, log)


def _wait_for_file(path: Path, process: subprocess.Popen, log: Path) -> None:
    began = time.monotonic()
    while not path.exists():
        _check_start(began, process, log)


def _check_start(began: float, process: subprocess.Popen, log: Path) -> None:
    if process.poll() is not None or time.monotonic() - began > LONGEST_START:
        raise RuntimeError(f"the hub did not start:\n{log.read_text()[-2000:]}")
    time.sleep(0.2)


def remove_accounts() -> None:
    """Remove the accounts of tests, their folders, and what still runs under them."""
    names = learners_of(GROUP)
    own = {pwd.getpwnam(name).pw_uid for name in names}
    for process in processes_of(own):
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(process, signal.SIGKILL)
    for name in names:
        _repeat(["userdel", "--remove", name])
    if subprocess.run(["getent", "group", GROUP], capture_output=True).returncode == 0:
        subprocess.run(["groupdel", GROUP], check=True)


def _repeat(command: list[str]) -> None:
    """Run a command, again where a process that was killed is still seen."""
    for _ in range(20):
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode != 8:  # the account is in use
            break
        time.sleep(0.2)
    # it has no mail, which userdel says
    if run.returncode not in (0, 12):
        raise RuntimeError(f"{' '.join(command)}: {run.stderr}")


def processes_of(accounts: set[int]) -> list[int]:
    """The numbers of the processes that run under some accounts."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            own = path.name.isdigit() and path.stat().st_uid in accounts
            if own and (path / "cmdline").read_bytes():  # nothing where it has ended
                found.append(int(path.name))
        except (FileNotFoundError, ProcessLookupError):  # just now
            continue
    return found
